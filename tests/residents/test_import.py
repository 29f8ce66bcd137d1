"""An import takes every right row once, whatever happens to the process, and changes only what was corrected."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from services.chassis import jobs
from services.chassis.db import Database, Transaction
from services.chassis.testing import eventually
from services.residents import importing
from services.residents.people import identity_index
from tests.residents import workbooks as make
from tests.residents.registers import Imported, contents, counts, events, look, rows

SAMPLE = Path(__file__).parents[2] / "services" / "residents" / "sample_register.xlsx"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "register.xlsx"

Import = Callable[..., Imported]


def test_the_shipped_register_is_taken_in(database: Database, import_file: Import) -> None:
    done = import_file(SAMPLE.read_bytes())
    assert (done.state, done.error) == ("SUCCEEDED", "")
    assert {name: (sheet["rows"], sheet["created"], sheet["refused"]) for name, sheet in done.sheets.items()} == {
        "项目": (3, 3, 0),
        "房屋台账": (57, 53, 4),
        "业主信息登记表": (64, 54, 10),
        "租户信息表": (13, 9, 4),
        "车位台账": (20, 18, 2),
        "员工花名册": (54, 54, 0),
    }
    assert counts(database) == {
        "groups": 1, "companies": 2, "estates": 3, "buildings": 4, "units": 53, "people": 63, "memberships": 63, "parking_spaces": 18,
        "staff": 54, "posts": 57,
    }  # fmt: skip
    assert len(done.refusals) == 20
    entries = [entry for event in events(database) for entry in event]
    kinds = Counter("node" if "node" in entry else "membership" if "membership" in entry else "post" for entry in entries)
    assert kinds == {"node": 1 + 2 + 3 + 4 + 53, "membership": 63, "post": 57}
    assert len({entry["id"] for entry in entries}) == len(entries)
    assert all(entry["version"] == "1" for entry in entries)
    text = str(entries)
    assert "𬭎" not in text
    assert "139000" not in text, "the directory has no names and no telephones"
    assert rows(database, "SELECT input = '' FROM operations") == [(True,)], "the file is forgotten"


@pytest.mark.skipif(not SHARED.exists(), reason="the large sample register is not beside this checkout")
def test_the_large_register_is_taken_in(database: Database, import_file: Import) -> None:
    done = import_file(SHARED.read_bytes())
    assert {name: (sheet["created"], sheet["refused"]) for name, sheet in done.sheets.items()} == {
        "项目": (3, 0),
        "房屋台账": (1377, 21),
        "业主信息登记表": (1641, 54),
        "租户信息表": (240, 10),
        "车位台账": (480, 4),
        "员工花名册": (54, 0),
    }
    assert counts(database)["people"] == 1641 + 240
    assert max(len(event) for event in events(database)) <= 500
    before = contents(database)
    again = import_file(SHARED.read_bytes())
    assert again.total("unchanged") == 3795
    assert again.total("created") == again.total("changed") == 0
    assert again.refusals == done.refusals
    assert contents(database) == before


def test_the_same_file_again_changes_nothing(database: Database, import_file: Import) -> None:
    first = import_file(SAMPLE.read_bytes())
    before, published = contents(database), len(events(database))
    again = import_file(SAMPLE.read_bytes())
    assert again.total("unchanged") == first.total("created") == 191
    assert (again.total("created"), again.total("changed")) == (0, 0)
    assert (again.refusals, again.remarks) == (first.refusals, first.remarks)
    assert contents(database) == before
    assert len(events(database)) == published, "nothing changed, nothing is told"


def test_a_unit_is_kept_with_its_facts(database: Database, import_file: Import) -> None:
    import_file(make.workbook(units=[make.unit(房屋状态="装修中", 建筑面积="98.50㎡", 楼层="3层")]))
    assert rows(
        database,
        "SELECT u.number, b.name, entrance, floor, area, u.property_type, taken_over, occupancy, under_renovation, move_in_date, fee_rate,"
        " e.code FROM units u JOIN buildings b ON b.id = u.building_id JOIN estates e ON e.id = u.estate_id",
    ) == [
        ("1-1-0101", "1栋", "1单元", 3, Decimal("98.50"), "RESIDENTIAL", True, "VACANT", True, date(2023, 8, 29), Decimal("2.8000"), "TFHY")
    ]
    node = next(entry["node"] for entry in events(database)[-1] if entry["node"]["kind"] == "UNIT")
    assert (node["code"], node["unitStatus"]) == ("1-1-0101", {"takenOver": True, "occupancy": "VACANT", "underRenovation": True})


def test_identity_numbers_are_encrypted_and_found_exactly(database: Database, import_file: Import) -> None:
    import_file(make.workbook(owners=[make.owner()]))
    sealed, index = rows(database, "SELECT identity_sealed, identity_index FROM people")[0]
    assert bytes(index) == identity_index(make.identity(1)) != identity_index(make.identity(2))
    assert make.identity(1).encode() not in bytes(sealed)
    dump = str(
        [
            rows(database, f"SELECT * FROM {table}")
            for table in ("people", "memberships", "operations", "imports", "import_refusals", "events")
        ]
    )
    assert make.identity(1) not in dump


@pytest.mark.rule("OCC-02", "TEN-01")
def test_a_lease_ends_with_its_last_day_in_the_zone_of_the_estate(database: Database, import_file: Import) -> None:
    import_file(make.workbook(units=[make.unit(房屋状态="出租")], tenants=[make.tenant(租期结束="2027-12-31", 业主同意书="否")]))
    assert rows(database, "SELECT kind, starts_on, ends_on, owner_consent FROM memberships") == [
        ("TENANT", date(2026, 1, 1), date(2027, 12, 31), False)
    ]
    membership = next(entry["membership"] for event in events(database) for entry in event if "membership" in entry)
    assert (membership["startTime"], membership["endTime"]) == ("2025-12-31T16:00:00Z", "2027-12-31T16:00:00Z")


def test_a_post_is_a_role_at_a_node(database: Database, import_file: Import) -> None:
    employees = [
        make.staff(岗位="收银员"),
        make.staff("C-1", 所属项目="西部公司", 岗位="管理部经理"),
        make.staff("G-1", 所属项目="集团", 岗位="总经理"),
    ]
    employees.append(make.staff("TFHY-009", 状态="离职"))
    import_file(make.workbook(employees=employees))
    found = rows(
        database,
        "SELECT s.number, p.role, n.kind FROM posts p JOIN staff s ON s.id = p.staff_id JOIN dir_nodes n ON n.id = p.node_id ORDER BY 1, 2",
    )
    assert found == [
        ("C-1", "MANAGEMENT_DEPT_MANAGER", "COMPANY"),
        ("G-1", "GENERAL_MANAGER", "GROUP"),
        ("TFHY-001", "CASHIER", "ESTATE"),
        ("TFHY-001", "FEE_COLLECTOR", "ESTATE"),
    ]
    assert rows(database, "SELECT number, state, active FROM staff WHERE NOT active") == [("TFHY-009", "LEFT", False)]


# A corrected file


def corrected(import_file: Import, before: bytes, after: bytes) -> Imported:
    import_file(before)
    return import_file(after)


def test_a_corrected_area_changes_that_unit_alone(database: Database, import_file: Import) -> None:
    units = [make.unit("1"), make.unit("2")]
    import_file(make.workbook(units=units))
    before = contents(database)
    done = import_file(make.workbook(units=[units[0], make.unit("2", 建筑面积=101)]))
    assert (done.total("changed"), done.total("unchanged"), done.total("created")) == (1, 2, 0)
    assert rows(database, "SELECT number, area, version FROM units ORDER BY number") == [
        ("1", Decimal("98.50"), 1),
        ("2", Decimal("101.00"), 2),
    ]
    after = contents(database)
    assert {table for table in before if before[table] != after[table]} == {"units", "dir_nodes"}
    assert rows(database, "SELECT record, version, before, after, reason FROM corrections") == [
        ("units", 2, {"area": "98.50"}, {"area": "101.00"}, f"imports/{done.id}")
    ]
    assert [len(event) for event in events(database)][-1] == 1


def test_a_refused_row_is_taken_once_it_is_right_and_its_dependants_with_it(database: Database, import_file: Import) -> None:
    done = corrected(
        import_file,
        make.workbook(units=[make.unit(建筑面积=-98.5)], owners=[make.owner()]),
        make.workbook(units=[make.unit()], owners=[make.owner()]),
    )
    assert (done.total("created"), done.total("unchanged"), done.total("refused")) == (2, 1, 0)


def test_a_corrected_identity_number_stays_the_same_person(database: Database, import_file: Import) -> None:
    done = corrected(
        import_file,
        make.workbook(owners=[make.owner(person=1, 产权份额="50%"), make.owner(person=2, 产权份额="50%")]),
        make.workbook(owners=[make.owner(person=1, 产权份额="50%"), make.owner(person=2, 产权份额="50%", 证件号码=make.identity(99))]),
    )
    assert (done.total("changed"), done.total("created")) == (1, 0)
    assert counts(database)["people"] == counts(database)["memberships"] == 2
    indexes = {bytes(row[0]) for row in rows(database, "SELECT identity_index FROM people")}
    assert indexes == {identity_index(make.identity(1)), identity_index(make.identity(99))}
    before, after = rows(database, "SELECT before, after FROM corrections")[0]
    assert before == after == {"identity_index": "***", "identity_sealed": "***"}


def test_two_owners_of_one_name_in_a_unit_are_two_people(database: Database, import_file: Import) -> None:
    owners = [make.owner(person=n, 业主姓名="张伟", 产权份额="50%") for n in (1, 2)]
    import_file(make.workbook(owners=owners))
    assert counts(database)["people"] == 2
    done = import_file(make.workbook(owners=[owners[0], make.owner(person=3, 业主姓名="张伟", 产权份额="50%")]))
    assert (done.total("changed"), counts(database)["people"]) == (1, 2), "the second one's number was corrected"
    indexes = {bytes(row[0]) for row in rows(database, "SELECT identity_index FROM people")}
    assert indexes == {identity_index(make.identity(1)), identity_index(make.identity(3))}


def test_a_number_corrected_for_one_of_several_units_makes_another_person_there(database: Database, import_file: Import) -> None:
    units = [make.unit("1"), make.unit("2")]
    import_file(make.workbook(units=units, owners=[make.owner("1", 1), make.owner("2", 1)]))
    second = make.owner("2", 1, 证件号码=make.identity(7), 业主姓名=make.owner(person=1)["业主姓名"])
    file = make.workbook(units=units, owners=[make.owner("1", 1), second])
    done = import_file(file)
    assert done.total("created") == 1
    open_ones = "SELECT u.number, p.identity_index FROM memberships m JOIN units u ON u.id = m.unit_id JOIN people p ON p.id = m.person_id"
    found = {number: bytes(index) for number, index in rows(database, f"{open_ones} WHERE m.ends_on IS NULL")}
    assert found == {"1": identity_index(make.identity(1)), "2": identity_index(make.identity(7))}
    assert import_file(file).total("unchanged") == 5


def test_a_missing_identity_number_may_be_added_later(database: Database, import_file: Import) -> None:
    done = corrected(import_file, make.workbook(owners=[make.owner(证件号码=None)]), make.workbook(owners=[make.owner()]))
    assert (done.total("changed"), counts(database)["people"]) == (1, 1)
    assert rows(database, "SELECT identity_index IS NOT NULL FROM people") == [(True,)]


def test_a_corrected_name_and_telephone_are_corrected_on_the_person(database: Database, import_file: Import) -> None:
    done = corrected(
        import_file, make.workbook(owners=[make.owner(业主姓名="王伟", 手机号="13900001111")]),
        make.workbook(owners=[make.owner(业主姓名="王玮", 手机号="13900002222")]),
    )  # fmt: skip
    assert done.total("changed") == 1
    assert rows(database, "SELECT name, phone, other_phones, version FROM people") == [("王玮", "13900002222", [], 2)]


def test_an_emptied_telephone_takes_none_away(database: Database, import_file: Import) -> None:
    corrected(import_file, make.workbook(owners=[make.owner()]), make.workbook(owners=[make.owner(手机号=None)]))
    assert rows(database, "SELECT phone FROM people") == [("13900000001",)]


def test_a_person_without_identity_number_may_change_telephone(database: Database, import_file: Import) -> None:
    done = corrected(
        import_file,
        make.workbook(owners=[make.owner(证件号码=None)]),
        make.workbook(owners=[make.owner(证件号码=None, 手机号="13911119999")]),
    )
    assert (done.total("changed"), counts(database)["people"]) == (1, 1)


def test_a_corrected_lease_is_the_same_lease_and_a_new_one_is_another(database: Database, import_file: Import) -> None:
    units = [make.unit(房屋状态="出租")]
    import_file(make.workbook(units=units, tenants=[make.tenant(租期开始="2026-01-01", 租期结束="2026-12-31")]))
    done = import_file(make.workbook(units=units, tenants=[make.tenant(租期开始="2026-02-01", 租期结束="2026-12-31")]))
    assert done.total("changed") == 1
    leases = [make.tenant(租期开始="2026-02-01", 租期结束="2026-12-31"), make.tenant(租期开始="2027-01-01", 租期结束="2027-12-31")]
    done = import_file(make.workbook(units=units, tenants=leases))
    assert (done.total("created"), done.total("changed"), counts(database)["people"]) == (1, 0, 1)
    assert rows(database, "SELECT starts_on, ends_on FROM memberships ORDER BY 1") == [
        (date(2026, 2, 1), date(2026, 12, 31)),
        (date(2027, 1, 1), date(2027, 12, 31)),
    ]


@pytest.mark.rule("PRK-02")
def test_a_household_that_changes_its_space_gives_up_the_old_one(database: Database, import_file: Import) -> None:
    done = corrected(import_file, make.workbook(spaces=[make.space("B1")]), make.workbook(spaces=[make.space("B2")]))
    assert done.total("created") == 1
    assert rows(database, "SELECT number, ended_at IS NULL FROM parking_spaces ORDER BY 1") == [("B1", False), ("B2", True)]


@pytest.mark.rule("PRK-02")
def test_two_households_may_swap_their_spaces(database: Database, import_file: Import) -> None:
    units = [make.unit("1"), make.unit("2")]
    spaces = [make.space("B1", 房号="1"), make.space("B2", 房号="2", 车牌号="川A54321")]
    swapped = make.workbook(units=units, spaces=[spaces[0] | {"房号": "2"}, spaces[1] | {"房号": "1"}])
    done = corrected(import_file, make.workbook(units=units, spaces=spaces), swapped)
    assert done.total("changed") == 2
    query = "SELECT s.number, u.number FROM parking_spaces s JOIN units u ON u.id = s.unit_id WHERE s.ended_at IS NULL ORDER BY 1"
    assert rows(database, query) == [("B1", "2"), ("B2", "1")]
    assert import_file(swapped).total("unchanged") == 5


def test_a_changed_post_ends_the_old_one(database: Database, import_file: Import) -> None:
    done = corrected(
        import_file, make.workbook(employees=[make.staff(岗位="维修员")]), make.workbook(employees=[make.staff(岗位="工程主管")])
    )
    assert done.total("changed") == 1
    assert rows(database, "SELECT role, ends_at IS NULL FROM posts ORDER BY 1") == [("ENGINEERING_SUPERVISOR", True), ("TECHNICIAN", False)]
    assert rows(database, "SELECT role, ends_at IS NULL FROM dir_posts ORDER BY 1") == [
        ("ENGINEERING_SUPERVISOR", True),
        ("TECHNICIAN", False),
    ]


@pytest.mark.rule("ARC-12")
def test_who_leaves_loses_every_post(database: Database, import_file: Import) -> None:
    import_file(make.workbook(employees=[make.staff(岗位="客服主管、档案员")]))
    with database.transaction() as tx:  # appointed in Steward, not by the register
        tx.execute("UPDATE posts SET from_register = false WHERE role = 'ARCHIVIST'")
    import_file(make.workbook(employees=[make.staff(岗位="客服主管", 手机号="13700000002")]))
    assert rows(database, "SELECT count(*) FROM posts WHERE ends_at IS NULL") == [(2,)], "an appointed post is not the register's to end"
    import_file(make.workbook(employees=[make.staff(岗位="客服主管", 状态="离职")]))
    assert rows(database, "SELECT count(*) FROM posts WHERE ends_at IS NULL") == [(0,)]
    assert rows(database, "SELECT count(*) FROM dir_posts WHERE ends_at IS NULL") == [(0,)]


def test_an_estate_that_comes_to_another_company_takes_everything_along(database: Database, import_file: Import) -> None:
    parts = {"owners": [make.owner()], "spaces": [make.space()], "employees": [make.staff()]}
    done = corrected(import_file, make.workbook(**parts), make.workbook(estates=[make.estate(所属公司="东部公司")], **parts))
    assert (done.total("changed"), done.total("unchanged")) == (1, 4)
    east = rows(database, "SELECT id FROM companies WHERE name = '东部公司'")[0][0]
    for table in ("estates", "buildings", "units", "people", "memberships", "parking_spaces", "staff", "posts"):
        assert rows(database, f"SELECT DISTINCT company_id FROM {table}") == [(east,)], table
    assert rows(database, "SELECT DISTINCT company_id FROM dir_nodes WHERE estate_id IS NOT NULL") == [(east,)]


def test_leases_follow_a_corrected_time_zone(database: Database, import_file: Import) -> None:
    parts = {"units": [make.unit(房屋状态="出租")], "tenants": [make.tenant()]}
    corrected(import_file, make.workbook(**parts), make.workbook(estates=[make.estate(时区="Asia/Urumqi")], **parts))
    assert rows(database, "SELECT starts_at AT TIME ZONE 'UTC' FROM dir_members")[0][0].isoformat() == "2025-12-31T18:00:00"


def test_a_row_the_file_no_longer_has_stays(database: Database, import_file: Import) -> None:
    done = corrected(import_file, make.workbook(units=[make.unit("1"), make.unit("2")]), make.workbook(units=[make.unit("1")]))
    assert (done.total("unchanged"), counts(database)["units"]) == (2, 2)


def test_an_old_file_does_not_undo_what_was_corrected_in_steward(database: Database, import_file: Import) -> None:
    file = make.workbook(owners=[make.owner()])
    import_file(file)
    with database.transaction() as tx:
        tx.execute("UPDATE people SET phone = '13955556666', version = version + 1")
    assert import_file(file).total("changed") == 0
    assert rows(database, "SELECT phone FROM people") == [("13955556666",)]


def test_a_file_may_hold_owners_alone(database: Database, import_file: Import) -> None:
    import_file(make.workbook())
    done = import_file(make.workbook(estates=[], units=[], owners=[make.owner(), make.owner("9-9-9999", 2)]))
    assert done.total("created") == 1
    assert done.refusals == [("业主信息登记表", 4, "房号", "UNKNOWN_UNIT")]


def test_remarks_on_shares_count_the_owners_of_earlier_files(database: Database, import_file: Import) -> None:
    done = import_file(make.workbook(owners=[make.owner(person=1, 产权份额="60%")]))
    assert done.remarks == [("业主信息登记表", 3, "SHARES_INCOMPLETE")]
    second = import_file(make.workbook(owners=[make.owner(person=2, 产权份额="40%")]))
    assert [reason for *_, reason in second.remarks] == ["NOT_IN_FILE"], "of the first one, and nothing of shares"
    done = import_file(make.workbook(owners=[make.owner(person=3, 产权份额="1%")]))
    assert (done.total("created"), done.remarks[0]) == (1, ("业主信息登记表", 3, "SHARES_EXCEED_WHOLE"))


# Whose register it is


def test_a_group_cannot_touch_the_register_of_another(database: Database, import_file: Import) -> None:
    import_file(make.workbook(employees=[make.staff()]))
    import_file(make.workbook(estates=[make.estate("XTSJ", 所属集团="万和物业集团")], units=[]))
    other = rows(database, "SELECT id FROM groups WHERE name = '万和物业集团'")[0][0]
    before = contents(database)
    attack = make.workbook(
        estates=[make.estate(), make.estate(所属集团="万和物业集团"), make.estate("NEW", 所属集团="新集团")],
        owners=[make.owner()],
        employees=[make.staff(所属项目="集团")],
    )
    done = import_file(attack, groups=frozenset({other}))
    assert [(sheet, row, reason) for sheet, row, _, reason in done.refusals] == [
        ("项目", 3, "GROUP_NOT_YOURS"),
        ("项目", 4, "CODE_TAKEN"),
        ("项目", 5, "GROUP_NOT_YOURS"),
        ("房屋台账", 3, "ESTATE_REFUSED"),
        ("业主信息登记表", 3, "ESTATE_REFUSED"),
        ("员工花名册", 3, "NUMBER_TAKEN"),
    ]
    assert contents(database) == before


def test_one_person_is_one_record_in_each_group(database: Database, import_file: Import) -> None:
    estates = [make.estate(), make.estate("XTSJ", 所属集团="万和物业集团")]
    units = [make.unit(), make.unit("A101", 项目编号="XTSJ")]
    import_file(make.workbook(estates=estates, units=units, owners=[make.owner(), make.owner("A101", 项目编号="XTSJ")]))
    assert rows(database, "SELECT count(*), count(DISTINCT group_id) FROM people") == [(2, 2)]


# What happens to the process


def test_an_unreadable_file_fails_the_import(database: Database, import_file: Import) -> None:
    """The first sheet is whole and its estate is taken; the second one breaks off."""
    broken = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(make.workbook(units=[make.unit(str(n)) for n in range(900)]))) as source,
        zipfile.ZipFile(broken, "w") as target,
    ):
        for item in source.infolist():
            data = source.read(item)
            target.writestr(item, data[: len(data) // 2] if item.filename == "xl/worksheets/sheet2.xml" else data)
    done = import_file(broken.getvalue())
    assert done.state == "FAILED"
    assert "Excel" in done.error
    assert import_file(make.workbook(units=[make.unit(str(n)) for n in range(900)])).total("refused") == 0, "the whole file mends it"


class Killed(BaseException):
    """As by kill -9: nothing of the process runs after it."""


def lines(count: int) -> bytes:
    """A register whose later rows depend on earlier ones: every tenth unit is wrong, every unit has an owner."""
    units = [make.unit(f"{n:05d}", 建筑面积=-1 if n % 10 == 9 else 80) for n in range(count)]
    return make.workbook(
        units=units, owners=[make.owner(f"{n:05d}", n, 手机号=None if n % 7 == 6 else f"1390000{n:04d}") for n in range(count)]
    )


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 8, 9, 13])
def test_an_import_killed_at_any_step_goes_on_there(database: Database, monkeypatch: pytest.MonkeyPatch, step: int, when: str) -> None:
    monkeypatch.setattr(importing, "BATCH", 20)
    content, steps = lines(60), Steps(step, when)
    monkeypatch.setattr(jobs.Job, "step", steps.method())
    with database.transaction() as tx:
        identifier = importing.start(tx, "register.xlsx", content, None)
    with pytest.raises(Killed):
        jobs.work_once(database, "dies")
    assert not jobs.work_once(database, "waits"), "the lease of the dead process still runs"
    expire(database)
    assert jobs.work_once(database, "goes on")
    done = look(database, identifier)
    assert done.state == "SUCCEEDED"
    found = {name: (sheet["rows"], sheet["created"], sheet["refused"], sheet["unchanged"]) for name, sheet in done.sheets.items()}
    assert found == dict.fromkeys(found, (0, 0, 0, 0)) | {
        "项目": (1, 1, 0, 0),
        "房屋台账": (60, 54, 6, 0),
        "业主信息登记表": (60, 54, 6, 0),
    }
    assert len(done.refusals) == 12
    assert Counter(reason for *_, reason in done.remarks) == {"PHONE_MISSING": sum(n % 7 == 6 and n % 10 != 9 for n in range(60))}
    entries = [entry["id"] for event in events(database) for entry in event]
    assert len(entries) == len(set(entries)), "every entry is told once"
    assert counts(database)["memberships"] == 54


def test_an_import_that_dies_again_and_again_is_not_given_up_while_it_gets_further(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 20)
    real = jobs.Job.step
    with database.transaction() as tx:
        identifier = importing.start(tx, "register.xlsx", lines(60), None)
    for _ in range(2 * jobs.ATTEMPTS):
        monkeypatch.setattr(jobs.Job, "step", Steps(1, "after the commit", real).method())
        with pytest.raises(Killed):
            jobs.work_once(database, "dies")
        expire(database)
    monkeypatch.setattr(jobs.Job, "step", real)
    jobs.work_once(database, "comes through")
    assert look(database, identifier).state == "SUCCEEDED"


def test_an_import_that_dies_at_one_batch_every_time_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    real = jobs.Job.step
    with database.transaction() as tx:
        identifier = importing.start(tx, "register.xlsx", lines(10), None)
    for _ in range(jobs.ATTEMPTS):
        monkeypatch.setattr(jobs.Job, "step", Steps(1, "before the commit", real).method())
        with pytest.raises(Killed):
            jobs.work_once(database, "dies")
        expire(database)
    jobs.work_once(database, "gives up")
    done = look(database, identifier)
    assert done.state == "FAILED"
    assert "attempts" in done.error


class Steps:
    """`Job.step` that dies at one of its calls."""

    def __init__(self, at: int, when: str, real: Any = None):
        self.left, self.when, self.real = at, when, real or jobs.Job.step

    def method(self) -> Callable[[jobs.Job], contextlib.AbstractContextManager[Transaction]]:
        @contextlib.contextmanager
        def dying(job: jobs.Job) -> Iterator[Transaction]:
            self.left -= 1
            with self.real(job) as tx:
                yield tx
                if self.left == 0 and self.when == "before the commit":
                    raise Killed
            if self.left == 0:
                raise Killed

        return dying


def told(database: Database, count: int) -> bool:
    return len(events(database)) >= count


def expire(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("UPDATE operations SET lease_until = now() - interval '1 second' WHERE state = 'RUNNING'")


def test_an_import_survives_kill_9(database: Database) -> None:
    """A real process, killed with real signals wherever it happens to be, until it comes through."""
    with database.transaction() as tx:
        identifier = importing.start(tx, "register.xlsx", lines(600), None)
    program = (
        "from services.chassis.db import Database; from services.chassis.jobs import work_once;"
        "from services.residents import importing, jobs;"
        f"importing.BATCH = 40; work_once(Database('residents', {database.url!r}), 'dies')"
    )
    checkpoints = []
    for after in (2, 9, 17):
        with subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as process:
            eventually(partial(told, database, after), within=60)
            process.kill()
        checkpoints.append(rows(database, "SELECT progress->'next' FROM operations")[0][0])
        expire(database)
    assert checkpoints == sorted(checkpoints)
    assert 0 < checkpoints[0] < checkpoints[-1]
    jobs.work_once(database, "comes through")
    done = look(database, identifier)
    assert done.state == "SUCCEEDED"
    assert (done.total("created"), done.total("refused")) == (1 + 540 + 540, 120)
    assert (counts(database)["units"], counts(database)["memberships"], counts(database)["people"]) == (540, 540, 540)
    entries = [entry["id"] for event in events(database) for entry in event]
    assert len(entries) == len(set(entries)) == 1 + 1 + 1 + 1 + 540 + 540
