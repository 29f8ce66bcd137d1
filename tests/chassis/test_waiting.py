"""A process of a new release starts when its migration is through; one of the release before goes on beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chassis import topology
from services.chassis.__main__ import SERVICES
from services.chassis.migrate import behind, expected_heads, migrate
from services.chassis.settings import Settings
from services.chassis.testing import eventually
from services.chassis.waiting import not_there, run
from tests.conftest import ROOT, Postgres

SERVICE = "work_orders"
NEWER = {f"{head.rpartition('_')[0]}_9999" for head in expected_heads(SERVICE)}


@pytest.fixture
def fresh(postgres: Postgres) -> Iterator[str]:
    """A database of work_orders that nothing has been done to, by its name."""
    postgres.make("late")
    postgres.sql("postgres", f'GRANT "late" TO "{SERVICE}"')  # migrations grant some rights to the database's name, some to the service's
    yield "late"
    postgres.sql("postgres", 'DROP DATABASE "late" WITH (FORCE)')
    for role in ("late", "late_owner"):
        postgres.sql("postgres", f'DROP ROLE "{role}"')


def bring_up(postgres: Postgres, database: str) -> None:
    assert migrate(SERVICE, postgres.url(database, f"{database}_owner"))


def note(postgres: Postgres, database: str) -> None:
    topology.record_consumed(postgres.url(database, f"{database}_owner"), SERVICE, SERVICES)


def test_a_database_is_behind_until_it_has_reached_every_branch() -> None:
    heads = expected_heads(SERVICE)
    first = {f"{head.rpartition('_')[0]}_0001" for head in heads}
    [chassis] = [head for head in heads if head.startswith("chassis_")]
    assert behind(SERVICE, set()) == heads
    assert behind(SERVICE, first) == heads
    assert behind(SERVICE, heads - {chassis}) == {chassis}
    assert behind(SERVICE, heads) == set()
    assert behind(SERVICE, {"residents_9999"} | heads - {chassis}) == {chassis}, "another branch's number says nothing"


def test_a_database_that_is_further_is_not_behind() -> None:
    assert behind(SERVICE, NEWER) == set()


def test_the_migration_of_the_release_before_leaves_a_newer_schema_alone(postgres: Postgres, fresh: str) -> None:
    bring_up(postgres, fresh)
    postgres.sql(fresh, "UPDATE schema_revisions SET version_num = split_part(version_num, '_0', 1) || '_9999'")
    assert migrate(SERVICE, postgres.url(fresh, f"{fresh}_owner")) is False
    assert {revision for (revision,) in postgres.sql(fresh, "SELECT version_num FROM schema_revisions")} == NEWER


def test_what_is_missing_is_said_until_everything_is_there(postgres: Postgres, fresh: str, tmp_path: Path) -> None:
    url = postgres.url(fresh, SERVICE)
    assert "No such file" in not_there(SERVICE, f"postgresql://{SERVICE}@/{fresh}?host={tmp_path}")
    assert 'relation "schema_revisions" does not exist' in not_there(SERVICE, url)
    bring_up(postgres, fresh)
    assert not_there(SERVICE, url).startswith("the broker's topology lacks ")
    note(postgres, fresh)
    assert not_there(SERVICE, url) == ""
    postgres.sql(fresh, "UPDATE schema_revisions SET version_num = 'chassis_0001' WHERE version_num LIKE 'chassis%'")
    assert not_there(SERVICE, url).startswith("the schema lacks chassis_")


def test_a_process_waits_for_the_migration_and_ends(postgres: Postgres, fresh: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, waiting(postgres.url(fresh, SERVICE), log.fileno()) as process:
        eventually(lambda: "waiting for work_orders" in (tmp_path / "log").read_text(), within=30)
        bring_up(postgres, fresh)
        assert process.poll() is None
        note(postgres, fresh)
        assert process.wait(30) == 0
    assert (tmp_path / "log").read_text().count("schema_revisions") == 1, "the same reason is said once"


def test_a_process_that_waits_ends_on_sigterm(postgres: Postgres, fresh: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, waiting(postgres.url(fresh, SERVICE), log.fileno()) as process:
        eventually(lambda: "waiting for work_orders" in (tmp_path / "log").read_text(), within=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1


def test_waiting_needs_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([SERVICE], Settings()) == 1
    assert "STEWARD_DATABASE_URL must be set" in capsys.readouterr().err


def waiting(url: str, log: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEWARD_")}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "STEWARD_DATABASE_URL": url}
    return subprocess.Popen([sys.executable, "-m", "services.chassis", "wait", SERVICE], env=environment, cwd=ROOT, stderr=log)
