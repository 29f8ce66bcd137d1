"""What operations run by hand: the first import of an installation, and who can sign in to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.chassis.db import Database
from services.chassis.jobs import work_once
from services.chassis.testing import configured
from services.residents import demo_accounts, importing
from services.residents.first_import import first_import
from tests.residents import workbooks as make
from tests.residents.registers import Imported, counts, rows

SAMPLE = Path(__file__).parents[2] / "services" / "residents" / "sample_register.xlsx"


def jobs_process(database: Database) -> threading.Thread:
    """Carries out what is queued within a second, then ends."""

    def work() -> None:
        for _ in range(100):
            if work_once(database, "test"):
                return
            threading.Event().wait(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_first_import_waits_and_says_what_came_of_it(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_process(database)
    assert first_import(database, SAMPLE) == 0
    jobs.join()
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "sample_register.xlsx is imported:",
        "  项目: 3 rows taken, 0 refused",
        "  房屋台账: 53 rows taken, 4 refused",
        "  业主信息登记表: 54 rows taken, 10 refused",
        "  租户信息表: 9 rows taken, 4 refused",
        "  车位台账: 18 rows taken, 2 refused",
        "  员工花名册: 54 rows taken, 0 refused",
    ]
    assert said.err.splitlines()[-1] == "sample_register.xlsx: succeeded"
    assert first_import(database, SAMPLE) == 0
    assert capsys.readouterr().out == "the register is there already: 3 estates\n"
    assert rows(database, "SELECT count(*) FROM operations") == [(1,)]


def test_the_first_import_goes_on_with_what_an_earlier_start_began(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with database.transaction() as tx:
        importing.start(tx, "earlier.xlsx", make.workbook(), None)
    jobs = jobs_process(database)
    assert first_import(database, SAMPLE) == 0
    jobs.join()
    assert counts(database)["estates"] == 1
    assert rows(database, "SELECT count(*) FROM operations") == [(1,)]


def test_a_first_import_that_cannot_be_says_why(database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "register.xlsx"
    wrong.write_bytes(b"nothing")
    assert first_import(database, wrong) == 1
    assert "Excel" in capsys.readouterr().err
    assert first_import(database, tmp_path / "missing.xlsx") == 1
    assert "missing.xlsx" in capsys.readouterr().err


def test_the_demo_accounts_are_one_of_each_role(database: Database, import_file: Callable[..., Imported]) -> None:
    import_file(SAMPLE.read_bytes())
    with database.read() as tx:
        found = demo_accounts.accounts(tx)
    by_role = {account.role: account for account in found}
    assert len(by_role) == len(found)
    assert by_role["CUSTOMER_ASSISTANT"].sign_in == "TFHY-003"
    assert by_role["CASHIER"].sign_in == by_role["FEE_COLLECTOR"].sign_in == "TFHY-015"
    assert {"PROJECT_MANAGER", "TECHNICIAN", "GENERAL_MANAGER", "GROUP_OPERATIONS", "OWNER", "TENANT"} <= set(by_role)
    assert by_role["GROUP_OPERATIONS"].where == "group"
    assert (by_role["OWNER"].where, by_role["TENANT"].where) == ("TFHY 1-1-0101", "TFHY 1-1-0102")
    lines = demo_accounts.table(found).splitlines()
    assert len(lines) == len(found) + 1
    assert lines[0].split() == ["role", "sign", "in", "as", "name", "at"]


def test_demo_accounts_are_not_shown_in_production(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(profile="production"):
        assert demo_accounts.main() == 1
    assert capsys.readouterr().out == ""


def test_an_empty_installation_has_no_demo_accounts(database: Database) -> None:
    with database.read() as tx:
        assert demo_accounts.accounts(tx) == []
