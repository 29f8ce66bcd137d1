"""One command, one transaction: idempotency, locks, lost connections, and row-level security behind it all."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
import sqlalchemy as sa

from services.chassis import db, watch
from services.chassis.access import EVERYTHING, Grant, Principal, Scope
from services.chassis.db import Database, Key, new_id, with_retries
from services.chassis.errors import InvalidInput, KeyReused, NotFound, StaleEtag, Unavailable, Violation
from services.chassis.lifecycle import history
from services.chassis.testing import Tree, a_tree, configured, eventually, published
from services.probe.probes import NEW, Probe
from tests.chassis.conftest import HERE, killing
from tests.conftest import ROOT, Postgres

WHO, SOMEBODY = Principal("staff", str(uuid4())), Principal("staff", str(uuid4()))


def make(database: Database, tree: Tree, title: str = "drip") -> Probe:
    with database.transaction(WHO) as tx:
        return tx.add(Probe.create(tx.act(), tree.estate, title))


# --- idempotency -------------------------------------------------------------------------------------------------------


def command(database: Database, tree: Tree, key: Key, who: Principal = WHO) -> bytes:
    """What the server does with a mutation: take the key, do it, store the reply."""
    with database.transaction(who, key=key) as tx:
        if tx.replay:
            return tx.replay.reply
        probe = tx.add(Probe.create(tx.act(), tree.estate, "drip"))
        tx.store_reply(str(probe.id).encode())
        return str(probe.id).encode()


def count(database: Database, tree: Tree) -> int:
    with database.read() as tx:
        return tx.execute("SELECT count(*) FROM probes WHERE estate_id = %s", (tree.estate_id,))[0][0]


def a_key(body: bytes = b"body", rpc: str = "CreateProbe") -> Key:
    return Key(rpc, str(uuid4()), body)


def test_the_same_key_with_the_same_body_gets_the_same_reply_and_one_effect(database: Database, tree: Tree) -> None:
    key = a_key()
    first = command(database, tree, key)
    assert [command(database, tree, key) for _ in range(3)] == [first] * 3
    assert count(database, tree) == 1
    assert len(published(database, first.decode())) == 1


def test_the_same_key_with_another_body_is_refused_and_has_no_effect(database: Database, tree: Tree) -> None:
    key = a_key()
    command(database, tree, key)
    with pytest.raises(KeyReused) as refused:
        command(database, tree, Key(key.rpc, key.request_id, b"another body"))
    assert (refused.value.http, refused.value.reason) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert count(database, tree) == 1


def test_a_key_is_its_principals_and_its_operations_own(database: Database, tree: Tree) -> None:
    key = a_key()
    replies = {
        command(database, tree, key),
        command(database, tree, key, SOMEBODY),
        command(database, tree, Key("OtherRpc", key.request_id, key.body)),
    }
    assert len(replies) == 3
    assert count(database, tree) == 3


def test_duplicates_at_the_same_time_have_one_effect_and_all_get_its_reply(database: Database, tree: Tree) -> None:
    key = a_key()
    together = threading.Barrier(8)

    def duplicate(_: int) -> bytes:
        together.wait()
        return command(database, tree, key)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(duplicate, range(8)))) == 1
    assert count(database, tree) == 1


def test_a_command_that_failed_may_come_again_under_its_key(database: Database, tree: Tree) -> None:
    key = a_key()
    with pytest.raises(ZeroDivisionError), database.transaction(WHO, key=key):
        raise ZeroDivisionError
    command(database, tree, key)
    assert count(database, tree) == 1


def test_a_duplicate_that_comes_while_the_first_still_works_waits_for_it_at_most_a_second(database: Database, tree: Tree) -> None:
    key = a_key()
    with database.transaction(WHO, key=key):
        start = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            command(database, tree, key)
        assert refused.value.http == 503
        assert refused.value.retry_after > 0
        assert 0.9 < time.monotonic() - start < 3


def test_no_principal_sees_the_keys_of_another(database: Database, tree: Tree) -> None:
    key = a_key()
    command(database, tree, key)
    for who, seen in ((WHO, 1), (SOMEBODY, 0)):
        with database.read(who, Scope()) as tx:
            assert len(tx.execute("SELECT 1 FROM idempotency WHERE request_id = %s", (key.request_id,))) == seen


# --- all or nothing ----------------------------------------------------------------------------------------------------


def test_what_fails_leaves_nothing_neither_rows_nor_events_nor_history_nor_clocks(database: Database, tree: Tree) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction(WHO) as tx:
        probe = tx.add(Probe.create(tx.act(), tree.estate, "drip"))
        probe.number_in(tx, tree.zone)
        tx.prepare()
        tx.session.flush()
        raise ZeroDivisionError
    with database.read() as tx:
        for table in ("probes", "events", "history", "clocks"):
            assert tx.execute(f"SELECT count(*) FROM {table} WHERE estate_id = %s", (tree.estate_id,)) == [(0,)], table


@pytest.mark.parametrize(("rows", "named"), [(50, 1), (51, 0)])
def test_a_command_of_many_values_gets_no_name_however_often_it_comes(database: Database, rows: int, named: int) -> None:
    reaction, one = f"many {uuid4()}", Database("probe", pool_size=1)  # the same connection each time
    for _ in range(3):
        with one.transaction(WHO) as tx:
            values = [value for _ in range(rows) for value in (reaction, uuid4())]
            tx.finally_execute("INSERT INTO inbox (reaction, event_id) VALUES " + ",".join(["(%s, %s)"] * rows), values)
    with one.read() as tx:
        assert tx.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%INTO inbox%$99%'") == [(named,)]
        assert tx.execute("SELECT count(*) FROM inbox WHERE reaction = %s", (reaction,)) == [(3 * rows,)]
    one.dispose()


def test_what_breaks_in_the_flush_leaves_nothing_either(database: Database, tree: Tree) -> None:
    with pytest.raises(InvalidInput), database.transaction(WHO) as tx:
        tx.add(Probe.create(tx.act(), tree.estate, "drip"))
        tx.finally_execute("INSERT INTO inbox (reaction, event_id) VALUES (%s, %s)", ("broken", "no uuid"))
    assert count(database, tree) == 0
    make(database, tree)  # the connection that broke is whole again
    assert count(database, tree) == 1


def test_one_transaction_holds_row_event_history_and_clock(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    with database.read() as tx:
        found = tx.see(Probe, probe.id)
        assert (found.state, found.version, found.event_count, len(found.clocks)) == (NEW, 1, 1, 1)
        assert [line.action for line in history(tx, found)] == ["create"]
    assert [event.type for event in published(database, probe.id)] == ["ProbeCreated"]


def test_an_entity_that_nobody_holds_any_more_keeps_its_events(database: Database, tree: Tree) -> None:
    """A session knows its entities only weakly once they are flushed."""
    with database.transaction(WHO) as tx:
        identifier = tx.add(Probe.create(tx.act(), tree.estate, "first")).id
        tx.session.flush()
        gc.collect()
        second = tx.add(Probe.create(tx.act(), tree.estate, "second")).id
        gc.collect()
    for probe in (identifier, second):
        assert [event.type for event in published(database, probe)] == ["ProbeCreated"]
        with database.read() as tx:
            assert len(history(tx, tx.see(Probe, probe))) == 1


def test_a_transaction_that_only_reads_cannot_write(database: Database, tree: Tree) -> None:
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction), database.read() as tx:
        tx.execute("INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, 'X', 'x', 1)", (tree.estate_id,))


def test_counters_move_after_the_commit_alone(database: Database) -> None:
    moved: list[int] = []
    with pytest.raises(ZeroDivisionError), database.transaction(WHO) as tx:
        tx.after_commit.append(lambda: moved.append(1))
        raise ZeroDivisionError
    assert moved == []
    with database.transaction(WHO) as tx:
        tx.after_commit.append(lambda: moved.append(1))
        assert moved == []
    assert moved == [1]


# --- reading one -------------------------------------------------------------------------------------------------------


def test_the_order_of_refusals_is_not_found_then_stale_then_input(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    wrong = [Violation("effort", "must be at most 5")]
    with database.transaction(WHO) as tx:
        tx.violations = wrong
        with pytest.raises(NotFound) as missing:
            tx.get(Probe, uuid4(), "9")
        assert missing.value.reason == "PROBE_NOT_FOUND"
        with pytest.raises(StaleEtag):
            tx.get(Probe, probe.id, "9")
        with pytest.raises(InvalidInput):
            tx.get(Probe, probe.id, "1")
        tx.violations = []
        assert tx.get(Probe, probe.id, "1").id == probe.id


@pytest.mark.parametrize("name", ["", "x", "00000000-0000-0000-0000-00000000000g", "'; DROP TABLE probes; --", "𬭎"])
def test_what_is_no_id_is_not_found(database: Database, name: str) -> None:
    with database.read() as tx, pytest.raises(NotFound):
        tx.see(Probe, name)


def test_ids_are_in_the_order_of_their_making() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert {identifier.version for identifier in ids} == {7}


# --- locks, deadlocks, lost connections --------------------------------------------------------------------------------


def test_a_row_that_is_held_too_long_is_answered_with_locked_after_a_second(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    with database.transaction(WHO) as holder:
        holder.get(Probe, probe.id)
        start = time.monotonic()
        with pytest.raises(Unavailable) as refused, database.transaction(SOMEBODY) as tx:
            tx.get(Probe, probe.id)
        assert 0.9 < time.monotonic() - start < 3
        assert (refused.value.http, refused.value.reason) == (503, "LOCKED")
        assert refused.value.retry_after > 0


def test_a_deadline_bounds_every_statement(database: Database) -> None:
    start = time.monotonic()
    with pytest.raises(Unavailable) as refused, database.transaction(WHO, timeout=0.2) as tx:
        tx.execute("SELECT pg_sleep(5)")
    assert time.monotonic() - start < 2
    assert (refused.value.http, refused.value.reason) == (503, "DEADLINE")


def test_a_deadlock_is_run_again_and_both_commands_succeed(database: Database, tree: Tree) -> None:
    one, two = make(database, tree), make(database, tree)
    met = threading.Barrier(2)
    runs: list[str] = []

    def work(name: str, first: Probe, second: Probe) -> None:
        def once() -> None:
            runs.append(name)
            with database.transaction(WHO) as tx:
                tx.get(Probe, first.id).title = name
                if len(runs) <= 2:
                    met.wait(5)
                tx.get(Probe, second.id).title = name

        with_retries(once)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, "a", one, two), threads.submit(work, "b", two, one)]:
            done.result()
    assert len(runs) >= 3, "at least one of the two was run again"
    with database.read() as tx:
        assert tx.see(Probe, one.id).title == tx.see(Probe, two.id).title


def test_a_failure_that_another_run_would_not_mend_is_not_retried() -> None:
    runs = []

    def fails() -> None:
        runs.append(1)
        raise Unavailable("held", reason="LOCKED")

    with pytest.raises(Unavailable):
        with_retries(fails)
    assert len(runs) == 1


@pytest.fixture
def mortal(database: Database) -> Iterator[Database]:
    """A pool of this test's own, so that no other test loses its connections."""
    own = Database("probe")
    yield own
    own.dispose()


def test_a_connection_that_is_lost_in_the_middle_is_unavailable_and_the_next_command_succeeds(
    mortal: Database, tree: Tree, postgres: Postgres
) -> None:
    kill = killing(mortal, postgres)
    with pytest.raises(Unavailable) as refused, mortal.transaction(WHO) as tx:
        tx.add(Probe.create(tx.act(), tree.estate, "drip"))
        kill()
    assert (refused.value.http, refused.value.reason) == (503, "DATABASE_DOWN")
    assert count(mortal, tree) == 0


def test_a_pool_whose_connections_have_died_costs_no_answer(mortal: Database, tree: Tree, postgres: Postgres) -> None:
    kill = killing(mortal, postgres)
    together = threading.Barrier(4)

    def at_once(_: int) -> int:
        with mortal.read():
            together.wait()
        return count(mortal, tree)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(at_once, range(4)))
    assert kill() >= 4
    key = a_key()
    assert command(mortal, tree, key) == command(mortal, tree, key)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: count(mortal, tree), range(8))) == [1] * 8


@contextlib.contextmanager
def silent(pid: int) -> Iterator[None]:
    """A backend that neither answers nor hangs up."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("many", [False, True])
def test_a_database_that_falls_silent_is_given_up_at_the_deadline_and_the_next_command_succeeds(
    mortal: Database, tree: Tree, many: bool
) -> None:
    start = time.monotonic()
    with pytest.raises(Unavailable) as refused, mortal.transaction(WHO, timeout=0.5) as tx:
        tx.add(Probe.create(tx.act(), tree.estate, "drip"))
        with silent(tx.execute("SELECT pg_backend_pid()")[0][0]):
            if many:
                statement = sa.text("UPDATE probes SET title = :title")
                tx.session.execute(statement, [{"title": "a"}, {"title": "b"}])
            tx.execute("SELECT 1")
    assert 0.5 < time.monotonic() - start < 3
    assert (refused.value.http, refused.value.reason) == (503, "DEADLINE")
    command(mortal, tree, a_key())
    assert count(mortal, tree) == 1


def test_without_a_deadline_each_statement_has_five_seconds_of_its_own(mortal: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "STATEMENT_TIMEOUT", 400)
    monkeypatch.setattr(watch, "GRACE", 0.1)
    with mortal.transaction(WHO) as tx:
        for _ in range(4):
            tx.execute("SELECT pg_sleep(0.2)")  # together longer than one may take
    start = time.monotonic()
    with pytest.raises(Unavailable), mortal.transaction(WHO) as tx, silent(tx.execute("SELECT pg_backend_pid()")[0][0]):
        tx.execute("SELECT 1")
    assert 0.4 < time.monotonic() - start < 3


GREEN = """
import eventlet; eventlet.monkey_patch()
import os, signal, time
from services.chassis.db import Database
from services.chassis.errors import Unavailable

longest, last = 0.0, time.monotonic()
def beat():
    global longest, last
    while True:
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        eventlet.sleep(0.01)

database = Database("probe")
with database.read():
    pass
eventlet.spawn(beat)
pid = 0
try:
    with database.transaction(timeout=1) as tx:
        pid = tx.execute("SELECT pg_backend_pid()")[0][0]
        os.kill(pid, signal.SIGSTOP)
        tx.execute("SELECT 1")
except Unavailable as error:
    with database.read():
        print(error.reason, longest)
finally:
    os.kill(pid, signal.SIGCONT)
"""


def test_in_a_worker_too_and_its_other_reactions_go_on_meanwhile(database: Database) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}:{HERE}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", GREEN], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout, done.stderr
    reason, longest = done.stdout.split()
    assert reason == "DEADLINE"
    assert float(longest) < 0.9, "the second of waiting held nobody up"


def test_a_failed_transaction_leaves_its_connection_clean_for_the_next(database: Database, tree: Tree) -> None:
    for _ in range(30):  # more often than the pool has connections
        with pytest.raises(ZeroDivisionError), database.transaction(WHO, Scope(estates=frozenset({tree.estate_id}))) as tx:
            tx.execute("SELECT 1")
            raise ZeroDivisionError
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT coalesce(current_setting('steward.system', true), '')").scalar() == "", (
            "no scope is left behind"
        )


def test_a_pool_that_is_used_up_says_busy(postgres: Postgres, database: Database) -> None:
    small = Database("probe", pool_size=1)
    small.engine.pool._max_overflow = 0
    small.engine.pool._timeout = 0.1
    try:
        with small.transaction(WHO), pytest.raises(Unavailable) as refused, small.transaction(WHO):
            pass
        assert (refused.value.reason, refused.value.http) == ("BUSY", 503)
    finally:
        small.dispose()


def test_a_database_that_is_not_there_is_unavailable() -> None:
    with configured(database_url="postgresql://{service}@/{service}?host=/nonexistent"):
        nowhere = Database("probe")
    with pytest.raises(Unavailable) as refused, nowhere.transaction(WHO):
        pass
    assert refused.value.reason == "DATABASE_DOWN"


# --- what a transaction adds -------------------------------------------------------------------------------------------


def test_the_relay_is_woken_once_for_a_burst_and_outside_the_transactions(database: Database, tree: Tree, postgres: Postgres) -> None:
    listener = psycopg2.connect(postgres.url("probe", "probe"))
    listener.autocommit = True
    with listener.cursor() as cursor:
        cursor.execute("LISTEN steward_events")
    for _ in range(20):
        make(database, tree)

    def heard() -> list[object]:
        with listener.cursor() as cursor:
            cursor.execute("SELECT 1")
        return list(listener.notifies)

    woken = eventually(heard)
    time.sleep(0.1)
    assert 1 <= len(heard()) <= 20
    assert woken
    listener.close()


def test_a_command_costs_two_round_trips_beside_its_own(database: Database, tree: Tree) -> None:
    sent: list[str] = []

    class Counting(psycopg2.extensions.cursor):
        def execute(self, query: str | bytes, values: object = None) -> None:
            sent.append(query if isinstance(query, str) else query.decode())
            super().execute(query, values)

    probe = make(database, tree)
    counted = Database("probe")
    with counted.transaction() as tx:  # the connection is made and says hello
        tx.session.connection().connection.dbapi_connection.cursor_factory = Counting
        tx.terms()  # and the snapshot of the policies is taken
    sent.clear()
    with counted.transaction(WHO, key=a_key()) as tx:
        tx.get(Probe, probe.id).start(tx.act(), effort=1)
        tx.store_reply(b"x")
    counted.dispose()
    words = [text.split(maxsplit=1)[0] for text in sent if "NOTIFY" not in text]
    assert words == ["BEGIN;", "SELECT", "SELECT", "INSERT"], "prelude; case, its clocks; flush"
    flush = next(text for text in sent if text.endswith("COMMIT"))
    assert all(f"INTO {table}" in flush for table in ("clocks", "events", "history"))
    assert "UPDATE probes SET" in flush
    assert "UPDATE idempotency" in flush


# --- row-level security ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(database: Database) -> tuple[Tree, Tree]:
    """Two estates of different groups with a probe in each, so that every table has rows of both."""
    trees = a_tree(database), a_tree(database)
    for tree in trees:
        probe = make(database, tree)
        with database.transaction(Principal("staff", str(uuid4())), key=a_key()) as tx:
            tx.store_reply(str(probe.id).encode())
    return trees


SCOPES: dict[str, Callable[[Tree], Scope]] = {
    "estate": lambda tree: Scope(estates=frozenset({tree.estate_id})),
    "company": lambda tree: Scope(companies=frozenset({tree.company_id})),
    "group": lambda tree: Scope(groups=frozenset({tree.group_id})),
}


@pytest.mark.parametrize("level", SCOPES)
@pytest.mark.parametrize("table", ["probes", "events", "clocks", "history"])
def test_the_scope_of_one_estate_opens_its_rows_and_none_of_another(
    database: Database, two: tuple[Tree, Tree], table: str, level: str
) -> None:
    here, there = two
    with database.read(WHO, SCOPES[level](here)) as tx:
        estates = {row[0] for row in tx.execute(f"SELECT estate_id FROM {table}")}
    assert estates == {here.estate_id}
    with database.read(WHO, EVERYTHING) as tx:
        assert {here.estate_id, there.estate_id} <= {row[0] for row in tx.execute(f"SELECT estate_id FROM {table}")}


def test_an_empty_scope_sees_no_scoped_row(database: Database, two: tuple[Tree, Tree]) -> None:
    with database.read(WHO, Scope()) as tx:
        for table in ("probes", "events", "clocks", "history"):
            assert tx.execute(f"SELECT count(*) FROM {table}") == [(0,)], table


def test_what_lies_outside_the_scope_can_be_neither_changed_nor_deleted_nor_put_there(database: Database, two: tuple[Tree, Tree]) -> None:
    here, there = two
    with database.transaction(WHO, SCOPES["estate"](here)) as tx:
        assert tx.execute("UPDATE probes SET title = 'mine' WHERE estate_id = %s RETURNING 1", (there.estate_id,)) == []
        assert tx.execute("DELETE FROM clocks WHERE estate_id = %s RETURNING 1", (there.estate_id,)) == []
    with pytest.raises(Exception, match="row-level security"), database.transaction(WHO, SCOPES["estate"](here)) as tx:
        tx.add(Probe.create(tx.act(), there.estate, "smuggled"))
    with pytest.raises(Exception, match="row-level security"), database.transaction(WHO, SCOPES["estate"](here)) as tx:
        tx.execute("UPDATE probes SET estate_id = %s, company_id = %s, group_id = %s", (there.estate_id, there.company_id, there.group_id))


def test_a_case_outside_the_scope_does_not_exist(database: Database, two: tuple[Tree, Tree]) -> None:
    here, there = two
    with database.read() as tx:
        foreign = tx.execute("SELECT id FROM probes WHERE estate_id = %s", (there.estate_id,))[0][0]
    with database.transaction(WHO, SCOPES["estate"](here)) as tx:
        for look in (tx.see, tx.get):
            with pytest.raises(NotFound):
                look(Probe, foreign)


def test_a_resident_sees_his_own_cases_and_those_of_his_units(database: Database, tree: Tree) -> None:
    owner, neighbour = tree.owner, tree.neighbour
    unit = tree.units[tree.unit]
    with database.transaction(WHO) as tx:
        mine = tx.add(Probe.create(tx.act(), tree.estate, "mine", owner_id=owner.id)).id
        of_my_unit = tx.add(Probe.create(tx.act(), tree.estate, "unit", unit_id=unit)).id
        his = tx.add(Probe.create(tx.act(), tree.estate, "his", owner_id=neighbour.id)).id
        public = tx.add(Probe.create(tx.act(), tree.estate, "public")).id
    scope = Scope(estates=frozenset({tree.estate_id}), person=owner.id, units=frozenset({unit}))
    with database.read(owner.principal, scope) as tx:
        assert set(tx.session.execute(sa.select(Probe.id).where(tx.inside(Probe))).scalars()) == {mine, of_my_unit}
        for hidden in (his, public):
            with pytest.raises(NotFound):
                tx.see(Probe, hidden)


def test_history_can_be_added_to_but_never_altered(database: Database, two: tuple[Tree, Tree]) -> None:
    for statement in ("UPDATE history SET note = 'x'", "DELETE FROM history", "TRUNCATE history"):
        with pytest.raises(Exception, match="permission denied"), database.transaction(WHO) as tx:
            tx.execute(statement)


def test_grants_held_twice_do_not_widen_anything() -> None:
    one = Grant("TECHNICIAN", "estate", uuid4())
    assert Principal("staff", "x", (one, one)).roles() == frozenset({"TECHNICIAN"})
