"""A reaction has its effect once and in the end, whatever dies, and what cannot be handled is kept for people."""

from __future__ import annotations

import io
import json
import random
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis import dead_letters, reactions, topology
from services.chassis.db import Database, Transaction
from services.chassis.reactions import Failed, Malformed, Permanent, Unexpected, handle, reactions_of
from services.chassis.testing import configured, eventually
from steward.chassis.v1 import events_pb2 as chassis_events
from steward.work_orders.v1 import events_pb2 as events
from tests.faults.conftest import Process, Start, Stores, cloud_event, id_of

EVENTS, DIRECTORY = "ledger.events", "ledger.directory"


def effects(stores: Stores, body: bytes | None = None, reaction: str = "note") -> int:
    """How often a reaction has had its effect: by one event, or by all."""
    one = "AND event_id = %s" if body else ""
    return stores.sql("ledger", f"SELECT count(*) FROM effects WHERE reaction = %s {one}", (reaction, *([id_of(body)] if body else [])))[0][
        0
    ]


def done(stores: Stores, bodies: list[bytes], reaction: str = "note") -> int:
    """How many of these events have had their effect; fails if one had it twice."""
    rows = stores.sql("ledger", "SELECT event_id::text, count(*) FROM effects WHERE reaction = %s GROUP BY event_id", (reaction,))
    counts: dict[str, int] = dict(rows)  # type: ignore[arg-type]
    mine = [counts.get(str(id_of(body)), 0) for body in bodies]
    assert max(mine) <= 1
    return sum(mine)


def switch_on(stores: Stores, name: str) -> None:
    stores.sql("ledger", "INSERT INTO switches VALUES (%s)", (name,))


def letters(database: Database) -> list[dead_letters.DeadLetter]:
    return dead_letters.listed(database)


def command(stores: Stores, *arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    with configured(database_url=stores.postgres.url("{service}"), amqp_url=stores.amqp_url):
        return dead_letters.main(list(arguments), out), out.getvalue()


# --- the table of reactions -------------------------------------------------------------------------------------------


def test_a_service_has_its_own_reactions_and_those_of_the_chassis_but_not_to_its_own_events() -> None:
    table = reactions_of("ledger")
    assert [reaction.name for reaction in table.by_event["emitter", "RepairReported"]] == [
        "tests.faults.ledger.note",
        "tests.faults.ledger.note_too",
    ]
    assert ("residents", "DirectoryChanged") in table.by_event
    assert ("residents", "DirectoryChanged") not in reactions_of("residents").by_event
    assert "emitter.RepairTaken" in table.routing_keys("directory")
    assert "emitter.RepairTaken" not in table.routing_keys("events")


def test_a_reaction_to_an_event_of_the_chassis_must_say_whose() -> None:
    with pytest.raises(TypeError, match="source="):
        reactions.on(chassis_events.ClockBreached)


def test_a_reaction_that_stands_in_no_service_must_say_whose_it_is() -> None:
    with pytest.raises(TypeError, match="service="):
        reactions.on(events.RepairReported)(lambda event, tx: None)


# --- one event, without a broker --------------------------------------------------------------------------------------


def test_a_reaction_gets_the_event_as_its_emitter_wrote_it(
    stores: Stores, ledger_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[reactions.Event, Transaction]] = []
    table = {
        ("emitter", "RepairCharged"): (
            reactions.Reaction("t", "emitter", events.RepairCharged, lambda e, tx: seen.append((e, tx)), "events"),
        )
    }
    monkeypatch.setattr(reactions, "reactions_of", lambda service: reactions.Reactions(service, table, ()))
    case = uuid4()
    body = cloud_event(
        "RepairCharged", aggregate=case, sequence=7, data={"number": "WX-1", "amount": {"currencyCode": "CNY", "units": "12"}, "new": 1}
    )
    handle(ledger_database, "ledger", body)
    ((event, tx),) = seen
    assert isinstance(event.data, events.RepairCharged)
    assert (event.data.number, event.data.amount.units) == ("WX-1", 12)
    assert (event.id, event.aggregate_id, event.sequence, event.source, event.type) == (id_of(body), case, 7, "emitter", "RepairCharged")
    assert event.subject == f"estates/TFHY/repairs/{case}"
    assert event.time.tzinfo is not None
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 60
    assert isinstance(event.estate_id, UUID)
    assert event.company_id is None
    assert str(tx.principal) == "system/ledger"
    assert tx.scope.everything


def test_the_second_time_nothing_happens(stores: Stores, ledger_database: Database) -> None:
    body = cloud_event()
    assert handle(ledger_database, "ledger", body).applied == 2
    again = handle(ledger_database, "ledger", body)
    assert (again.applied, again.duplicates) == (0, 2)
    assert effects(stores, body) == 1


def test_one_failing_reaction_keeps_the_event_from_no_other(stores: Stores, ledger_database: Database) -> None:
    body = cloud_event(data={"number": "off:later"})
    for _ in range(2):
        with pytest.raises(Failed) as caught:
            handle(ledger_database, "ledger", body)
        assert list(caught.value.failures) == ["tests.faults.ledger.note"]
        assert not caught.value.permanent
    assert (effects(stores, body), effects(stores, body, "note_too")) == (0, 1)
    switch_on(stores, "later")
    handle(ledger_database, "ledger", body)
    assert (effects(stores, body), effects(stores, body, "note_too")) == (1, 1)


@pytest.mark.parametrize("broken", [b"", b"\xff\xfe", b"[]", b"null", b'{"source": 1, "type": 2}', b'{"source": "steward/emitter"}'])
def test_what_is_no_event_is_refused_for_good(ledger_database: Database, broken: bytes) -> None:
    with pytest.raises(Malformed):
        handle(ledger_database, "ledger", broken)


@pytest.mark.parametrize(
    "change", [{"id": "x"}, {"sequence": None}, {"time": "yesterday"}, {"data": {"urgent": "perhaps"}}, {"data": None}]
)
def test_an_event_with_a_wrong_attribute_is_refused_for_good(ledger_database: Database, change: dict) -> None:
    with pytest.raises(Malformed):
        handle(ledger_database, "ledger", json.dumps(json.loads(cloud_event()) | change).encode())


def test_an_event_that_nobody_wants_yet_may_come_again(ledger_database: Database) -> None:
    with pytest.raises(Unexpected) as caught:
        handle(ledger_database, "ledger", cloud_event("RepairCancelled"))
    assert not isinstance(caught.value, Permanent)


@given(st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_shuffled_and_duplicated_stream_yields_the_same_state(stores: Stores, ledger_database: Database, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - to be shuffled the same way again
    taken, charged = uuid4(), uuid4()
    stream = [cloud_event("RepairTaken", aggregate=taken, sequence=n, data={"technician": f"staff/{n}"}) for n in range(1, 6)]
    stream += [cloud_event("RepairCharged", aggregate=charged, sequence=n, data={"amount": {"units": str(10**n)}}) for n in range(5)]
    stream += dice.choices(stream, k=8)
    dice.shuffle(stream)
    for body in stream:
        handle(ledger_database, "ledger", body)
    assert stores.sql("ledger", "SELECT sequence, technician FROM holders WHERE aggregate_id = %s", (str(taken),)) == [(5, "staff/5")]
    assert stores.sql("ledger", "SELECT units FROM totals WHERE aggregate_id = %s", (str(charged),)) == [(11111,)]


# --- a running worker -------------------------------------------------------------------------------------------------


def test_a_worker_killed_between_effect_and_ack_shows_the_effect_once(stores: Stores, start: Start) -> None:
    body = cloud_event(data={"number": "die:once"})
    stores.publish(body)
    start("worker", ready=False).ended()
    assert effects(stores, body) == 1
    worker = start("worker")
    eventually(lambda: worker.metric("steward_events_handled_total") == 1)
    assert worker.metric("steward_events_duplicate_total") == 1
    assert (effects(stores, body), effects(stores, body, "note_too")) == (1, 1)
    eventually(lambda: worker.metric("steward_events_in_flight") == 0)
    worker.kill()
    assert stores.depth(EVENTS) == 0  # it was acknowledged, or it would be back


def test_sigterm_during_a_database_outage_gives_the_messages_back_uncounted(stores: Stores, start: Start) -> None:
    worker = start("worker")
    stores.platform.stop("postgres")
    try:
        body = cloud_event()
        stores.publish(body)
        eventually(lambda: worker.metric("steward_events_in_flight") == 1)
        time.sleep(0.5)
        assert worker.end() == 0
    finally:
        stores.platform.start("postgres")
        stores.platform.wait_ready("postgres")
    eventually(lambda: stores.depth(EVENTS) == 1)
    with stores.channel() as channel:
        _, properties, found = channel.basic_get(EVENTS, auto_ack=True)
    assert found == body
    assert "x-steward-attempt" not in (properties.headers or {})


def test_sigterm_leaves_what_has_not_begun_in_the_queue(stores: Stores, start: Start) -> None:
    worker = start("worker")
    bodies = [cloud_event(data={"number": "slow:0.5"}) for _ in range(40)]
    stores.publish_many(bodies)
    eventually(lambda: worker.metric("steward_events_in_flight") >= 20)
    began = time.monotonic()
    assert worker.end() == 0
    assert time.monotonic() - began < 6
    finished = done(stores, bodies)
    assert 0 < finished < 40
    assert eventually(lambda: stores.depth(EVENTS)) == 40 - finished


def test_a_message_that_kills_every_worker_becomes_a_dead_letter(stores: Stores, start: Start, ledger_database: Database) -> None:
    body = cloud_event()
    stores.publish(body)
    with stores.channel() as channel:  # deliveries without an answer, as workers that die on it leave them
        for _ in range(topology.DELIVERY_LIMIT + 1):
            method = eventually(lambda: channel.basic_get(EVENTS)[0])
            channel.basic_reject(method.delivery_tag, requeue=True)
    eventually(lambda: stores.depth("ledger.dead") == 1)
    start("worker")
    (letter,) = eventually(lambda: letters(ledger_database))
    assert (letter.queue, letter.body) == (EVENTS, body)
    assert letter.attempts == topology.DELIVERY_LIMIT
    assert effects(stores, body) == 0
    command(stores, "replay", "ledger", "--all")
    eventually(lambda: effects(stores, body) == 1)


def test_a_worker_waits_for_queues_that_are_not_declared_yet(stores: Stores, start: Start) -> None:
    with stores.channel() as channel:
        channel.queue_delete(EVENTS)
    worker = start("worker", ready=False)
    try:
        eventually(lambda: "not declared yet" in worker.log.read_text())
    finally:
        stores.declare()
    worker.ready()
    body = cloud_event()
    stores.publish(body)
    eventually(lambda: effects(stores, body) == 1)


def test_a_failed_event_comes_back_after_a_second_to_the_queue_it_came_from(
    stores: Stores, worker: Process, ledger_database: Database
) -> None:
    one, other = cloud_event(data={"number": "off:x"}), cloud_event("RepairTaken", data={"number": "off:x", "technician": "staff/1"})
    stores.publish(one, queue=EVENTS)
    stores.publish(other, queue=DIRECTORY)
    eventually(lambda: worker.metric("steward_events_retried_total") == 2)
    switch_on(stores, "x")
    began = time.monotonic()
    eventually(lambda: effects(stores, one) == 1 and stores.sql("ledger", "SELECT 1 FROM holders"))
    assert 0.3 < time.monotonic() - began < 4.5
    assert worker.metric("steward_events_handled_total") == 2
    assert letters(ledger_database) == []


def test_the_fifth_failure_makes_a_dead_letter_that_is_replayed_once_its_cause_is_gone(
    stores: Stores, worker: Process, ledger_database: Database
) -> None:
    body = cloud_event(data={"number": "off:mended"})
    stores.publish(body, headers={"x-steward-attempt": len(topology.DELAYS), "x-steward-first-failed": "2026-11-22T03:10:00+00:00"})
    (letter,) = eventually(lambda: letters(ledger_database))
    assert letter.event_id == id_of(body)
    assert (letter.queue, letter.type, letter.attempts) == (EVENTS, "emitter.RepairReported", 5)
    assert letter.reaction == "tests.faults.ledger.note"
    assert letter.first_failed_at == datetime(2026, 11, 22, 3, 10, tzinfo=UTC)
    assert "the switch mended is off" in letter.error

    status, text = command(stores, "list", "ledger")
    assert status == 0
    assert str(letter.id) in text
    status, text = command(stores, "show", "ledger", str(letter.id))
    assert status == 0
    assert "the switch mended is off" in text
    assert '"number": "off:mended"' in text

    switch_on(stores, "mended")
    assert command(stores, "replay", "ledger", str(letter.id)) == (0, "replayed 1\n")
    eventually(lambda: effects(stores, body) == 1)
    assert letters(ledger_database) == []
    assert command(stores, "list", "ledger", "--replayed")[1].count("replayed") == 1
    assert command(stores, "replay", "ledger", str(letter.id))[0] == 0
    eventually(lambda: worker.metric("steward_events_duplicate_total") >= 3)
    assert (effects(stores, body), effects(stores, body, "note_too")) == (1, 1)


def test_poison_becomes_a_dead_letter_at_once_and_again_when_it_is_replayed(
    stores: Stores, worker: Process, ledger_database: Database
) -> None:
    poison = b"\xff{ this is no event"
    stores.publish(poison, headers={"compression": "no-such-codec"})
    stores.publish(cloud_event(data={"number": "never"}), queue=EVENTS)
    found = {letter.type: letter for letter in eventually(lambda: letters(ledger_database) if len(letters(ledger_database)) == 2 else [])}
    assert found["unreadable"].body == poison
    assert found["unreadable"].event_id is None
    assert found["unreadable"].attempts == 1
    assert "can never be handled" in found["emitter.RepairReported"].error
    assert "\\xff{" in command(stores, "show", "ledger", str(found["unreadable"].id))[1]
    assert command(stores, "replay", "ledger", "--all") == (0, "replayed 2\n")
    eventually(lambda: worker.metric("steward_dead_letters_total") == 4)
    again = letters(ledger_database)
    assert {letter.id for letter in again} == {letter.id for letter in found.values()}
    assert command(stores, "show", "ledger", str(uuid4()))[0] == 1


def test_an_event_that_this_release_does_not_know_yet_waits_for_the_next(
    stores: Stores, worker: Process, ledger_database: Database
) -> None:
    stores.publish(cloud_event("RepairCancelled"))
    eventually(lambda: worker.metric("steward_events_retried_total") == 1)
    assert letters(ledger_database) == []


def test_periodic_functions_run_one_at_a_time_and_survive_their_failures(stores: Stores, worker: Process) -> None:
    stores.sql("ledger", "TRUNCATE beats")
    switch_on(stores, "stumble")
    eventually(lambda: worker.metric("steward_timer_failures_total") >= 2)
    beats = eventually(lambda: rows if len(rows := stores.sql("ledger", "SELECT began, ended FROM beats ORDER BY began")) >= 3 else [])
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(beats))


def test_a_flood_of_events_is_handled_each_once_while_the_directory_keeps_up(stores: Stores, worker: Process) -> None:
    bodies = [cloud_event() for _ in range(300)]
    stores.publish_many(bodies)
    urgent = cloud_event("RepairTaken", data={"technician": "staff/9"})
    stores.publish(urgent, queue=DIRECTORY)
    eventually(lambda: stores.sql("ledger", "SELECT 1 FROM holders"))
    assert done(stores, bodies) < 300
    eventually(lambda: done(stores, bodies) == 300)


def test_a_database_outage_costs_no_event_no_attempt_and_makes_no_dead_letter(stores: Stores, worker: Process) -> None:
    stores.platform.stop("postgres")
    bodies = [cloud_event() for _ in range(30)]
    for body in bodies:
        stores.publish(body)
    eventually(lambda: worker.metric("steward_events_in_flight") >= 20)
    time.sleep(2)
    stores.platform.start("postgres")
    stores.platform.wait_ready("postgres")
    eventually(lambda: done(stores, bodies) == 30)
    assert worker.metric("steward_events_retried_total") == 0
    assert stores.sql("ledger", "SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_broker_killed_while_consuming_costs_no_effect_and_doubles_none(stores: Stores, worker: Process) -> None:
    bodies = [cloud_event(data={"number": "slow:0.01"}) for _ in range(400)]
    stores.publish_many(bodies)
    eventually(lambda: done(stores, bodies) > 20)
    stores.kill_broker()
    eventually(lambda: done(stores, bodies) == 400, within=40)
    stores.broker_answers()
    eventually(lambda: stores.depth(EVENTS) + worker.metric("steward_events_in_flight") == 0, within=20)
    assert done(stores, bodies) == 400


def test_a_worker_never_loads_grpc_and_a_relay_neither_nameko_nor_sqlalchemy(worker: Process, start: Start) -> None:
    relay = start("relay")
    mapped = {process: Path(f"/proc/{process.pid}/maps").read_text() for process in (worker, relay)}
    assert "grpc" not in mapped[worker]
    assert "greenlet" in mapped[worker]  # the look at the maps does see extension modules
    assert "grpc" not in mapped[relay]
    assert "greenlet" not in mapped[relay]
    assert "sqlalchemy" in mapped[worker]
    assert "sqlalchemy" not in mapped[relay]


def test_a_slow_statement_holds_up_its_own_message_only_and_sigterm_waits_for_it(stores: Stores, worker: Process) -> None:
    slow, quick = cloud_event(data={"number": "slow:4"}), [cloud_event() for _ in range(50)]
    stores.publish(slow)
    stores.publish_many(quick)
    eventually(lambda: done(stores, quick) == 50)
    assert effects(stores, slow) == 0
    assert worker.end() == 0
    assert effects(stores, slow) == 1
    assert stores.depth(EVENTS) == 0  # it was acknowledged before the connection closed


# --- several events in one transaction --------------------------------------------------------------------------------

TOGETHER = "note_together"


def rejections(count: int, **special: str) -> list[bytes]:
    """Events that share a transaction; `_20="never"` gives the 20th a word to the ledger."""
    return [cloud_event("RepairRejected", data={"number": special.get(f"_{n}", "")}) for n in range(count)]


def batches(stores: Stores) -> list[int]:
    """How many events each committed transaction held."""
    return [size for (size,) in stores.sql("ledger", "SELECT size FROM batches")]


def test_what_has_come_together_is_handled_in_one_transaction_and_acknowledged(stores: Stores, start: Start) -> None:
    bodies = rejections(120)
    stores.publish_events("RepairRejected", [*bodies, *bodies[:30]])
    worker = start("worker")
    eventually(lambda: worker.metric("steward_events_handled_total") == 150)
    assert done(stores, bodies, TOGETHER) == done(stores, bodies, "note_together_too") == 120
    assert worker.metric("steward_events_handled_together_total") > 100
    assert worker.metric("steward_events_duplicate_total") == 60, "two reactions to thirty events that came twice"
    assert max(batches(stores)) >= 20
    eventually(lambda: worker.metric("steward_events_in_flight") == 0)
    worker.kill()
    assert stores.depth(EVENTS) == 0  # they were acknowledged, or they would be back


def test_poison_in_the_middle_of_a_batch_costs_no_other_event_its_effect(stores: Stores, start: Start, ledger_database: Database) -> None:
    bodies = rejections(40, _20="never", _30="off:later")
    stores.publish_events("RepairRejected", [*bodies[:25], b"\xff{ this is no event", *bodies[25:]])
    worker = start("worker")
    eventually(lambda: done(stores, bodies, TOGETHER) == 38)
    assert worker.metric("steward_events_apart_total") >= 41
    found = eventually(lambda: letters(ledger_database) if len(letters(ledger_database)) == 2 else [])
    assert {letter.body for letter in found} == {bodies[20], b"\xff{ this is no event"}
    assert done(stores, bodies, "note_together_too") == 40, "a second reaction of the same events is kept from none"
    switch_on(stores, "later")
    eventually(lambda: done(stores, bodies, TOGETHER) == 39)
    eventually(lambda: worker.metric("steward_events_in_flight") == 0)
    assert stores.depth(EVENTS) == 0


def test_a_worker_killed_in_the_middle_of_a_batch_leaves_nothing_of_it_and_loses_nothing(stores: Stores, start: Start) -> None:
    bodies = rejections(40, _20="fall:mended")
    stores.publish_events("RepairRejected", bodies)
    start("worker", ready=False).ended()
    before = done(stores, bodies, TOGETHER)
    assert before < 20, "a few may have come as a batch of their own, before the rest had arrived"
    assert done(stores, bodies[20:], TOGETHER) == 0
    assert stores.sql("ledger", "SELECT count(*) FROM inbox") == [(2 * before,)]
    switch_on(stores, "mended")
    worker = start("worker")
    eventually(lambda: done(stores, bodies, TOGETHER) == 40)
    assert worker.metric("steward_events_handled_together_total") == 0, "what a worker has died on goes alone"
    assert worker.metric("steward_events_duplicate_total") in (0, 2 * before)


def test_one_message_that_kills_workers_does_not_keep_its_batch_from_being_handled(stores: Stores, start: Start) -> None:
    bodies = rejections(40, _35="fall:never mended")
    stores.publish_events("RepairRejected", bodies)
    for _ in range(2):
        start("worker", ready=False).ended()
    assert done(stores, bodies, TOGETHER) >= 20


def test_a_worker_killed_between_a_batch_and_its_acknowledgement_shows_each_effect_once(stores: Stores, start: Start) -> None:
    bodies = rejections(40, _20="die:once")
    stores.publish_events("RepairRejected", bodies)
    start("worker", ready=False).ended()
    before = done(stores, bodies, TOGETHER)
    assert before >= 20
    worker = start("worker")
    eventually(lambda: worker.metric("steward_events_handled_total") == 40)
    assert done(stores, bodies, TOGETHER) == done(stores, bodies, "note_together_too") == 40
    assert worker.metric("steward_events_duplicate_total") == 2 * before


def test_sigterm_lets_a_batch_finish_and_gives_back_what_waits(stores: Stores, start: Start) -> None:
    worker = start("worker")
    slow, bodies = rejections(1, _0="slow:1.5"), rejections(90)
    stores.publish_events("RepairRejected", slow)
    eventually(lambda: worker.metric("steward_events_in_flight") == 1)
    stores.publish_events("RepairRejected", bodies)
    assert worker.end() == 0
    assert done(stores, slow, TOGETHER) == 1
    assert eventually(lambda: stores.depth(EVENTS) + done(stores, bodies, TOGETHER) == 90)
    start("worker")
    eventually(lambda: done(stores, bodies, TOGETHER) == 90)


def test_one_that_takes_too_long_for_its_batch_is_handled_by_itself(stores: Stores, start: Start) -> None:
    bodies = rejections(30, _10="slow:3")
    stores.publish_events("RepairRejected", bodies)
    worker = start("worker")
    eventually(lambda: done(stores, bodies, TOGETHER) == 29)
    apart = worker.metric("steward_events_apart_total")
    assert 1 < apart <= 30, "those of its batch; a few may have come as a batch before it"
    eventually(lambda: done(stores, bodies, TOGETHER) == 30)
    assert worker.metric("steward_events_apart_total") == apart


def test_batches_go_on_while_one_of_them_hangs(stores: Stores, start: Start) -> None:
    worker = start("worker")
    slow, quick = rejections(1, _0="slow:1.8"), rejections(60)
    stores.publish_events("RepairRejected", slow)
    eventually(lambda: worker.metric("steward_events_in_flight") == 1)
    stores.publish_events("RepairRejected", quick)
    eventually(lambda: done(stores, quick, TOGETHER) == 60)
    assert done(stores, slow, TOGETHER) == 0
    eventually(lambda: done(stores, slow, TOGETHER) == 1)
    eventually(lambda: worker.metric("steward_events_in_flight") == 0)


def test_two_workers_and_a_broker_that_is_killed_double_no_effect_of_a_batch(stores: Stores, start: Start) -> None:
    first, second = start("worker"), start("worker")
    bodies = rejections(600)
    stores.publish_events("RepairRejected", bodies[:300])
    eventually(lambda: done(stores, bodies, TOGETHER) > 20)
    stores.kill_broker()
    stores.broker_answers()
    stores.publish_events("RepairRejected", [*bodies[300:], *bodies[:300]])
    eventually(lambda: done(stores, bodies, TOGETHER) == 600, within=40)
    eventually(lambda: stores.depth(EVENTS) == 0, within=20)
    for worker in (first, second):
        eventually(lambda worker=worker: worker.metric("steward_events_in_flight") == 0)  # type: ignore[misc]
    assert done(stores, bodies, "note_together_too") == 600
