"""What stands in the database is what the gauges say, and what is rare has its series before it happens."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from services.chassis import clocks, figures
from services.chassis.access import Principal
from services.chassis.db import Database
from services.chassis.dead_letters import bury
from services.chassis.reactions import Periodic, reactions_of
from services.chassis.testing import Tree, set_time
from services.chassis.timers import expect, run_periodic
from services.probe.probes import Probe
from tests.conftest import Postgres

STAFF = Principal("staff", str(uuid4()))
PROBE = {"service": "probe", "process": "probe", "clock": "work"}


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def figure(name: str, **labels: str) -> float:
    found = value(name, **labels)
    assert found is not None, f"{name} has no series {labels}"
    return found


@pytest.fixture
def counted(database: Database, postgres: Postgres) -> Database:
    """Nothing of other tests runs on."""
    postgres.sql("probe", "UPDATE clocks SET stopped_at = now(), next_at = NULL WHERE stopped_at IS NULL")
    figures.announce("probe")
    figures.count(database)
    return database


def test_a_clock_that_is_missed_is_overdue_until_it_is_stopped(counted: Database, tree: Tree) -> None:
    set_time(counted, datetime.now(UTC))
    overdue = figure("steward_clocks_overdue", **PROBE, urgent="false")
    fired = figure("steward_clock_marks_total", **PROBE, mark="ClockBreached", urgent="false")
    stopped = {result: figure("steward_clocks_stopped_total", **PROBE, result=result) for result in figures.RESULTS}
    with counted.transaction(STAFF) as tx:
        probe = tx.add(Probe.create(tx.act(), tree.estate, "drip"))
    figures.count(counted)
    assert figure("steward_clocks_overdue", **PROBE, urgent="false") == overdue

    set_time(counted, probe.created_at + timedelta(hours=2))
    clocks.run_clocks(counted)
    figures.count(counted)
    assert figure("steward_clocks_overdue", **PROBE, urgent="false") == overdue + 1
    assert figure("steward_clock_marks_total", **PROBE, mark="ClockBreached", urgent="false") == fired + 1

    with counted.transaction(STAFF) as tx:
        tx.get(Probe, probe.id).start(tx.act(), effort=1)
    figures.count(counted)
    assert figure("steward_clocks_overdue", **PROBE, urgent="false") == overdue
    assert {result: figure("steward_clocks_stopped_total", **PROBE, result=result) for result in figures.RESULTS} == stopped | {
        "breached": stopped["breached"] + 1
    }


def test_a_dead_letter_waits_until_it_is_replayed(counted: Database, postgres: Postgres) -> None:
    before = figure("steward_dead_letters_waiting", service="probe")
    letter = bury(counted, "probe.events", uuid4().bytes, error="why", attempts=1, reaction=None, first_failed_at=None)
    figures.count(counted)
    assert figure("steward_dead_letters_waiting", service="probe") == before + 1
    postgres.sql("probe", "UPDATE dead_letters SET replayed_at = now() WHERE id = %s", (str(letter),))
    figures.count(counted)
    assert figure("steward_dead_letters_waiting", service="probe") == before


def test_an_open_transaction_shows_its_age_and_its_connection(counted: Database, postgres: Postgres) -> None:
    with counted.transaction() as tx:
        tx.execute("SELECT 1")
        time.sleep(0.2)
        figures.count(counted)
    assert figure("steward_database_oldest_transaction_seconds", service="probe") >= 0.2
    assert figure("steward_database_connections", service="probe", state="idle in transaction") >= 1
    assert figure("steward_database_server_connections", service="probe") >= 2
    [(limit, size)] = postgres.sql("probe", "SELECT current_setting('max_connections')::int, pg_database_size('probe')")
    assert figure("steward_database_server_connections_limit", service="probe") == limit
    assert figure("steward_database_bytes", service="probe") == pytest.approx(size, rel=0.2)


def test_the_index_of_overdue_clocks_is_used(counted: Database) -> None:
    with counted.transaction() as tx:
        tx.execute("SET LOCAL enable_seqscan = off")
        plan = " ".join(row[0] for row in tx.execute(f"EXPLAIN {figures.MISSED}"))
    assert "clocks_overdue" in plan


def test_every_worker_counts_them() -> None:
    assert [periodic.function for periodic in reactions_of("surveys").periodic if periodic.name == "figures"] == [figures.count]


def test_a_timer_that_fails_does_not_look_like_one_that_succeeded(database: Database) -> None:
    labels = {"service": "probe", "timer": "sometimes"}
    broken = True

    def sometimes(_: Database) -> None:
        if broken:
            raise RuntimeError("not now")

    periodic = Periodic("sometimes", 7.0, sometimes)
    expect("probe", periodic)
    started = figure("steward_timer_success_timestamp_seconds", **labels)
    assert (figure("steward_timer_period_seconds", **labels), figure("steward_timer_failures_total", **labels)) == (7.0, 0.0)
    assert started == pytest.approx(time.time(), abs=5)

    run_periodic("probe", database, periodic)
    assert figure("steward_timer_failures_total", **labels) == 1
    assert figure("steward_timer_success_timestamp_seconds", **labels) == started
    broken = False
    run_periodic("probe", database, periodic)
    assert figure("steward_timer_success_timestamp_seconds", **labels) > started
