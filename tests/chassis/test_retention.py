"""Rows that nobody needs for good end when their time is over: not before, not all at once, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from prometheus_client import REGISTRY

from services.chassis import retention
from services.chassis.__main__ import SERVICES
from services.chassis.db import Database, new_id
from services.chassis.reactions import reactions_of
from services.chassis.retention import Kept, forget, forget_by, rules_of
from services.chassis.testing import advance
from tests.conftest import Databases, Postgres

RULES = [(service, rule) for service in SERVICES for rule in rules_of(service)]
# What stands outside the tree, is bounded by something else or must be kept, and why.
KEPT = {
    "business_time": "one row",
    "relay_state": "one row",
    "dir_state": "one row",
    "dir_nodes": "the tree",
    "dir_members": "who belongs where",
    "dir_posts": "who may do what",
    "policy_overrides": "what holds now",
    "policy_changes": "audit",
    "accounts": "one for a person",
    "refresh_tokens": "go with their session",
    "password_changes": "audit",
    "people_phones": "goes with the person",
    "schema_revisions": "two rows",
}


@pytest.fixture
def old(database: Database, postgres: Postgres) -> Iterator[Any]:
    """A table of the tests' own, `olds`, with rows that are so many hours old."""
    postgres.sql("probe", "CREATE TABLE olds (id integer GENERATED ALWAYS AS IDENTITY, at timestamptz)")
    postgres.sql("probe", 'GRANT SELECT, INSERT, UPDATE, DELETE ON olds TO "probe"')
    postgres.sql("probe", "CREATE INDEX olds_at ON olds (at)")

    def fill(hours: float | None, count: int = 1) -> None:
        postgres.sql(
            "probe",
            "INSERT INTO olds (at) SELECT clock_timestamp() - make_interval(secs => %s) FROM generate_series(1, %s)",
            (None if hours is None else hours * 3600, count),
        )

    yield fill
    postgres.sql("probe", "DROP TABLE olds")


def left(postgres: Postgres) -> int:
    return postgres.sql("probe", "SELECT count(*) FROM olds")[0][0]  # type: ignore[no-any-return]


def rule(clock: retention.Clock = "machine") -> Kept:
    return Kept("olds", "at", 24, clock, "a test's")


@pytest.mark.parametrize("clock", ["machine", "business"])
def test_a_row_goes_once_its_time_is_over_and_not_before(database: Database, postgres: Postgres, old: Any, clock: retention.Clock) -> None:
    old(24 - 1 / 60)
    old(None)
    assert forget_by(database, rule(clock)) == 0
    old(24 + 1 / 3600)
    assert forget_by(database, rule(clock)) == 1
    assert left(postgres) == 2, "the young one, and the one that has not begun to grow old"


def test_moved_time_makes_what_people_do_old_and_what_the_machine_does_not(
    database: Database, postgres: Postgres, old: Any, moving_time: None
) -> None:
    old(0, 3)
    advance(database, timedelta(hours=25))
    assert forget_by(database, rule("machine")) == 0
    assert forget_by(database, rule("business")) == 3


def test_a_run_has_a_bound_and_the_next_one_goes_on(database: Database, postgres: Postgres, old: Any) -> None:
    old(30, 25)

    def behind() -> float | None:
        return REGISTRY.get_sample_value("steward_retention_behind", {"service": "probe", "table": "olds"})

    def forgotten() -> float:
        return REGISTRY.get_sample_value("steward_rows_forgotten_total", {"service": "probe", "table": "olds"}) or 0

    before = forgotten()
    assert forget_by(database, rule(), batch=10, most=2) == 20
    assert (left(postgres), behind(), forgotten() - before) == (5, 1, 20)
    assert forget_by(database, rule(), batch=10, most=2) == 5
    assert (left(postgres), behind(), forgotten() - before) == (0, 0, 25)


def test_the_oldest_go_first(database: Database, postgres: Postgres, old: Any) -> None:
    for hours in (26, 40, 30):
        old(hours)
    forget_by(database, rule(), batch=1, most=2)
    [[age]] = postgres.sql("probe", "SELECT extract(epoch FROM now() - at) / 3600 FROM olds")
    assert round(age) == 26


def test_replicas_share_the_work_and_pass_over_what_another_holds(database: Database, postgres: Postgres, old: Any) -> None:
    old(30, 400)
    with ThreadPoolExecutor(4) as threads:
        removed = list(threads.map(lambda _: forget_by(database, rule(), batch=20), range(4)))
    assert (sum(removed), left(postgres)) == (400, 0)
    old(30, 2)
    holder = psycopg2.connect(postgres.url("probe"))
    try:
        with holder.cursor() as cursor:
            cursor.execute("SELECT FROM olds ORDER BY id LIMIT 1 FOR UPDATE")
        assert forget_by(database, rule()) == 1
        holder.rollback()
        assert forget_by(database, rule()) == 1
    finally:
        holder.close()


@pytest.mark.parametrize(("service", "kept"), RULES, ids=[f"{service}-{rule.table}-{rule.since[:12]}" for service, rule in RULES])
def test_every_rule_can_be_carried_out_by_the_role_that_the_worker_has(database_of: Databases, service: str, kept: Kept) -> None:
    database = database_of(service)
    forget_by(database, kept)
    assert len(kept.why) > 10
    with database.read() as tx:
        tx.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in tx.execute(f"EXPLAIN {kept.statement}", (kept.hours, 100)))
    if kept.table in {"inbox", "idempotency", "messages"}:  # the large ones must not be read whole to find nothing
        assert "Index Scan" in plan.partition("InitPlan")[2], plan


@pytest.mark.parametrize("service", SERVICES)
def test_every_table_outside_the_tree_has_a_rule_or_a_reason(database_of: Databases, postgres: Postgres, service: str) -> None:
    """Rows with an estate belong to cases, people and money, which are kept; the rest grows unnoticed if nobody thinks of it."""
    database_of(service)
    tables = postgres.sql(
        service,
        "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        " AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'estate_id' AND relname !~ '^dir_')",
    )
    ruled = {rule.table for rule in rules_of(service)}
    assert {name for (name,) in tables} <= ruled | set(KEPT), "declare it in the service's retention.py, or say here why it is kept"


@pytest.mark.parametrize("service", SERVICES)
def test_every_worker_runs_it(service: str) -> None:
    assert [periodic.function for periodic in reactions_of(service).periodic if periodic.name == "retention"] == [forget]


def test_a_command_may_be_repeated_for_a_day(database: Database, postgres: Postgres) -> None:
    who = str(uuid4())
    for age in ("25 hours", "23 hours"):
        postgres.sql(
            "probe",
            "INSERT INTO idempotency (principal, rpc, request_id, body_hash, at) VALUES (%s, 'r', %s, '', clock_timestamp() - %s::interval)",
            (who, age, age),
        )
    forget(database)
    assert postgres.sql("probe", "SELECT request_id FROM idempotency WHERE principal = %s", (who,)) == [("23 hours",)]


def test_the_inbox_outlasts_the_log(database: Database, postgres: Postgres) -> None:
    event = uuid4()
    for name, age in (("old", "38 days"), ("young", "36 days")):
        postgres.sql("probe", "INSERT INTO inbox (reaction, event_id, at) VALUES (%s, %s, now() - %s::interval)", (name, event, age))
    forget(database)
    assert postgres.sql("probe", "SELECT reaction FROM inbox WHERE event_id = %s", (event,)) == [("young",)]


def test_what_is_queued_runs_or_waits_for_somebody_is_never_too_old(database: Database, postgres: Postgres) -> None:
    ids = {state: new_id() for state in ("QUEUED", "SUCCEEDED")}
    for state, identifier in ids.items():
        postgres.sql(
            "probe",
            "INSERT INTO operations (id, kind, state, request, input, created_by, created_at, ended_at)"
            " VALUES (%s, 'old', %s, '{}', '', 'x', now() - interval '300 days', CASE %s WHEN 'QUEUED' THEN NULL ELSE now() - interval '201 days' END)",
            (identifier, state, state),
        )
    letters = {"dead": None, "replayed": "now() - interval '31 days'"}
    for name, replayed in letters.items():
        postgres.sql(
            "probe",
            "INSERT INTO dead_letters (id, queue, type, subject, body, error, attempts, first_failed_at, died_at, replayed_at)"
            f" VALUES (%s, 'q', %s, '', '', '', 5, now(), now() - interval '300 days', {replayed or 'NULL'})",
            (new_id(), name),
        )
    forget(database)
    assert postgres.sql("probe", "SELECT id FROM operations WHERE kind = 'old'") == [(ids["QUEUED"],)]
    assert postgres.sql("probe", "SELECT type FROM dead_letters WHERE type IN ('dead', 'replayed')") == [("dead",)]
    postgres.sql("probe", "DELETE FROM operations WHERE kind = 'old'")
    postgres.sql("probe", "DELETE FROM dead_letters WHERE type = 'dead'")
