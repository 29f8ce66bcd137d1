"""The event log: sequences without gaps, the contract's JSON, and history beside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from services.chassis import events
from services.chassis.access import EVERYTHING, Principal, Scope
from services.chassis.db import Database, with_retries
from services.chassis.events import Happened
from services.chassis.lifecycle import history
from services.chassis.testing import Tree, published
from services.probe.probes import Probe
from steward.probe.v1 import probe_pb2 as pb
from tests.conftest import Postgres

WHO = Principal("staff", str(uuid4()))


def make(database: Database, tree: Tree, title: str = "drip") -> Probe:
    with database.transaction(WHO) as tx:
        probe = tx.add(Probe.create(tx.act(), tree.estate, title))
        probe.number_in(tx, tree.zone)
    return probe


def test_an_event_is_stored_as_the_proto_says_beside_what_identifies_it(database: Database, tree: Tree) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with database.transaction(WHO) as tx:
        tx.trace = trace
        probe = tx.add(Probe.create(tx.act(), tree.estate, "𬭎㛃 drip 🚿"))
        probe.number_in(tx, tree.zone)
    [event] = published(database, probe.id)
    assert (event.type, event.sequence, event.actor, event.trace) == ("ProbeCreated", 1, str(WHO), trace)
    assert event.subject == f"estates/{tree.code}/probes/{probe.id}"
    assert event.occurred_at == probe.created_at, "business time"
    assert event.id.version == 7
    message = ParseDict(event.data, pb.ProbeCreated())
    assert (message.probe, message.title, message.number) == (str(probe.id), "𬭎㛃 drip 🚿", probe.number)
    assert event.data == MessageToDict(message)
    assert "createTime" in event.data, "lowerCamelCase"


def test_sequences_count_without_gaps_whoever_writes_at_the_same_time(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    rounds = 24

    def again(_: int) -> None:
        def once() -> None:
            with database.transaction(WHO) as tx:
                found = tx.get(Probe, probe.id)
                found.record(pb.ProbeStarted(probe=str(found.id)), tx.act())
                found.record(pb.ProbeStarted(probe=str(found.id)), tx.act())

        with_retries(once)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(again, range(rounds)))
    assert [event.sequence for event in published(database, probe.id)] == list(range(1, 2 * rounds + 2))


def test_version_and_history_grow_together(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    with database.transaction(WHO) as tx:
        found = tx.get(Probe, probe.id)
        found.start(tx.act("because"), effort=2)
        found.note("remark", tx.act(), note="a word")
    with database.read() as tx:
        found = tx.see(Probe, probe.id)
        lines = history(tx, found)
        assert found.version == 3 == len(lines)
        assert [(line.action, line.from_state, line.to_state, line.note) for line in lines] == [
            ("create", "", "NEW", ""),
            ("start", "NEW", "STARTED", "because"),
            ("remark", "", "", "a word"),
        ]
        assert {line.actor for line in lines} == {str(WHO)}


def test_an_event_of_something_that_is_no_case_is_appended_in_its_transaction(database: Database, tree: Tree) -> None:
    thing, at = uuid4(), datetime.now(UTC) - timedelta(hours=3)
    with database.transaction() as tx:
        identifier = events.append(tx, Happened("thing", thing, 7, "things/1", pb.ProbeExpired(probe="x"), at, estate_id=tree.estate_id))
    [event] = published(database, thing)
    assert (event.id, event.sequence, event.occurred_at, event.data) == (identifier, 7, at, {"probe": "x"})
    with database.read(WHO, Scope(estates=frozenset({tree.estate_id}))) as tx:
        assert tx.execute("SELECT count(*) FROM events WHERE aggregate_id = %s", (thing,)) == [(1,)]


def test_an_event_waits_for_the_relay_without_position(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    with database.read() as tx:
        assert tx.execute("SELECT position, published_at FROM events WHERE aggregate_id = %s", (probe.id,)) == [(None, None)]


def test_numbers_count_per_estate_and_day_of_the_estate(database: Database, tree: Tree, postgres: Postgres) -> None:
    numbers = [make(database, tree).number for _ in range(3)]
    day = datetime.now(UTC).astimezone(ZoneInfo(tree.zone)).strftime("%Y%m%d")
    assert numbers == [f"PB-{day}-{n:04d}" for n in (1, 2, 3)]


def test_a_number_whose_case_came_to_nothing_is_never_given_again(database: Database, tree: Tree) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction(WHO) as tx:
        tx.add(Probe.create(tx.act(), tree.estate, "drip")).number_in(tx, tree.zone)
        tx.prepare()
        raise ZeroDivisionError
    assert str(make(database, tree).number).endswith("-0002")


def test_whoever_opens_a_case_waits_for_nobody_who_opens_another_at_the_estate(database: Database, tree: Tree) -> None:
    with database.transaction(WHO) as slow:
        first = slow.add(Probe.create(slow.act(), tree.estate, "drip"))
        first.number_in(slow, tree.zone)
        slow.prepare()
        assert str(make(database, tree).number).endswith("-0002")
    assert str(first.number).endswith("-0001")


def test_a_number_is_taken_on_a_new_connection_when_the_old_one_is_lost(database: Database, tree: Tree, postgres: Postgres) -> None:
    make(database, tree)
    postgres.sql("probe", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO numbers%'")
    assert str(make(database, tree).number).endswith("-0002")


def test_numbers_have_no_gaps_and_no_doubles_under_concurrency(database: Database, tree: Tree) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = sorted(str(probe.number) for probe in threads.map(lambda _: make(database, tree), range(40)))
    assert [number[-4:] for number in numbers] == [f"{n:04d}" for n in range(1, 41)]


def test_housekeeping_may_run_in_every_replica_at_once(database: Database) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: events.keep_house(database), range(8)))


def test_old_days_of_the_log_are_dropped_and_tomorrows_are_ready(database: Database, postgres: Postgres) -> None:
    day = datetime.now(UTC).date()
    old, kept = day - timedelta(days=40), day - timedelta(days=29)
    for date in (old, kept):
        postgres.sql(
            "probe",
            f"CREATE TABLE events_{date:%Y%m%d} PARTITION OF events FOR VALUES FROM ('{date}') TO ('{date + timedelta(days=1)}')",
            role="probe_owner",
        )
    events.keep_house(database)
    names = {row[0] for row in postgres.sql("probe", "SELECT relname FROM pg_class WHERE relname ~ '^events_[0-9]{8}$'")}
    assert f"events_{old:%Y%m%d}" not in names
    assert f"events_{kept:%Y%m%d}" in names
    assert {f"events_{day + timedelta(days=n):%Y%m%d}" for n in (1, 2, 3)} <= names


def test_everything_is_seen_by_steward_itself(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    with database.read(scope=EVERYTHING) as tx:
        assert tx.see(Probe, probe.id).id == probe.id
