"""The relay loses nothing and keeps each case's order, whatever dies."""

from __future__ import annotations

import json
import random
import time
from uuid import UUID, uuid4

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import topology
from services.chassis.event_log import Entry, Log, in_sequence
from services.chassis.relay import BEAT, Lanes
from services.chassis.testing import eventually
from tests.faults.conftest import SERVICES, Start, Stores

QUEUE = "ledger.events"


def cases(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


def first_deliveries(events: list[dict]) -> dict[str, list[int]]:
    """Sequences of each aggregate in the order in which they were first seen."""
    seen: dict[str, list[int]] = {}
    for event in events:
        sequences = seen.setdefault(event["aggregateid"], [])
        if event["sequence"] not in sequences:
            sequences.append(event["sequence"])
    return seen


def assert_in_order(events: list[dict], aggregates: int, each: int) -> None:
    seen = first_deliveries(events)
    assert len(seen) == aggregates
    assert all(sequences == list(range(1, each + 1)) for sequences in seen.values())


# --- order, without a broker ------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_of_one_case_only_one_event_is_on_its_way_whatever_the_broker_answers(letters: list[str], seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - to be shuffled the same way again
    out: list[Entry] = []
    arrived: dict[str, list[int]] = {}
    lanes = Lanes(out.append)
    counts: dict[str, int] = {}
    for letter in letters:
        counts[letter] = counts.get(letter, 0) + 1
        lanes.add(Entry("", f"{letter}{counts[letter]}", letter, counts[letter], "T", {}))
    while out:
        assert len({entry.aggregate_id for entry in out}) == len(out)
        entry = out.pop(dice.randrange(len(out)))
        if dice.random() < 0.3:
            lanes.refused(entry)
            assert lanes.held >= 1
            out.append(entry)
        else:
            arrived.setdefault(entry.aggregate_id, []).append(entry.sequence)
            lanes.confirmed(entry)
    assert arrived == {letter: list(range(1, count + 1)) for letter, count in counts.items()}
    assert (lanes.size, lanes.held) == (0, 0)


def test_an_event_that_is_refused_for_days_is_tried_every_five_seconds() -> None:
    entry = Entry("", "x", "a", 1, "T", {})
    lanes = Lanes(lambda entry: None)
    lanes.add(entry)
    delays = [lanes.refused(entry) for _ in range(5000)]
    assert delays[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(delays[6:]) == {5.0}


def test_a_later_event_with_an_earlier_time_still_goes_later() -> None:
    entries = [Entry("", id, aggregate, sequence, "T", {}) for id, aggregate, sequence in [("x", "a", 2), ("y", "b", 1), ("z", "a", 1)]]
    assert [entry.id for entry in in_sequence(entries)] == ["z", "y", "x"]


def test_positions_follow_the_sequence_even_across_the_cut_of_a_batch(stores: Stores) -> None:
    case, *others = cases(6)
    stores.emit([case], start=2)
    stores.emit(others)
    stores.emit([case], start=1)  # recorded last: the clock of the database was set back
    log = Log("emitter", stores.postgres.url("emitter"))
    log.connect()
    try:
        assert log.lead()
        placed = log.advance([], 3)
        assert [entry.sequence for entry in placed if entry.aggregate_id == str(case)] == [1, 2]
        placed += log.advance([], 10)
        assert [entry.position for entry in placed] == list(range(1, 8))
        stores.positions_have_no_gaps()
    finally:
        log.close()


def test_positions_go_on_when_the_log_has_been_emptied(stores: Stores) -> None:
    log = Log("emitter", stores.postgres.url("emitter"))
    log.connect()
    try:
        assert log.lead()
        stores.emit(cases(3))
        assert [entry.position for entry in log.advance([], 10)] == [1, 2, 3]
        stores.sql("emitter", "DELETE FROM events")  # as the partitions of a quiet month
        stores.emit(cases(1))
        assert [entry.position for entry in log.advance([], 10)] == [4]
    finally:
        log.close()


# --- a running relay --------------------------------------------------------------------------------------------------


def test_an_event_arrives_as_a_cloudevent_soon_after_its_commit(stores: Stores, start: Start) -> None:
    relay = start("relay")
    took = []
    for _ in range(3):  # the first finds everything cold
        (case,) = cases(1)
        began = time.monotonic()
        stores.emit([case], data='{"number": "WX-1"}')
        (event,) = stores.drain(QUEUE, 1)
        took.append(time.monotonic() - began)
    assert min(took) < 0.5
    assert event["specversion"] == "1.0"
    assert event["source"] == "steward/emitter"
    assert event["type"] == "steward.emitter.v1.RepairReported"
    assert event["data"] == {"number": "WX-1"}
    assert event["aggregateid"] == event["estateid"] == str(case)
    assert (event["sequence"], event["position"]) == (1, 3)
    assert event["recordedtime"].endswith("Z")
    stores.all_published()
    assert relay.metric("steward_relay_published_total") == 3
    assert relay.end() == 0


def test_events_that_follow_each_other_quickly_are_placed_and_marked_together(stores: Stores, start: Start) -> None:
    relay = start("relay")
    eventually(lambda: relay.metric("steward_relay_active") == 1)
    began = time.monotonic()
    for case in cases(60):
        stores.emit([case])
    stores.all_published()
    took = time.monotonic() - began
    marked = stores.sql("emitter", "SELECT count(DISTINCT xmin::text) FROM events")[0][0]
    assert marked <= took / BEAT + 5
    assert_in_order(stores.drain(QUEUE, 60), 60, 1)


def test_a_relay_killed_between_commit_and_publish_loses_nothing(stores: Stores, start: Start) -> None:
    count = stores.emit(cases(20), events=3)
    start("relay", fault="placed", ready=False).ended()
    assert stores.published() == (count, 0)
    assert stores.depth(QUEUE) == 0
    start("relay")
    events = stores.drain(QUEUE, count)
    assert_in_order(events, 20, 3)
    assert len(events) == count
    stores.all_published()
    stores.positions_have_no_gaps()


def test_a_relay_killed_between_publish_and_mark_sends_twice_but_in_order(stores: Stores, start: Start) -> None:
    count = stores.emit(cases(30), events=5)
    start("relay", fault="confirmed", ready=False).ended()
    assert stores.published() == (count, 0)
    start("relay")
    stores.all_published()
    events = stores.drain(QUEUE, count)
    assert len(events) >= count + 50
    assert_in_order(events, 30, 5)
    stores.positions_have_no_gaps()


def test_a_broker_killed_under_load_costs_no_event_and_no_order(stores: Stores, start: Start) -> None:
    start("relay")
    several = cases(200)
    count = 0
    for nth in range(10):
        count += stores.emit(several, start=1 + nth)
        if nth == 3:
            stores.kill_broker()
    stores.broker_answers()
    stores.all_published()
    events = stores.drain(QUEUE, count)
    assert_in_order(events, 200, 10)
    stores.positions_have_no_gaps()


def test_a_database_killed_under_load_costs_no_event_and_no_order(stores: Stores, start: Start) -> None:
    relay = start("relay")
    several = cases(100)
    count = stores.emit(several, events=5)
    stores.platform.kill("postgres")
    stores.platform.wait_ready("postgres")
    count += stores.emit(several, events=5, start=6)
    stores.all_published()
    assert_in_order(stores.drain(QUEUE, count), 100, 10)
    stores.positions_have_no_gaps()
    assert relay.metric("steward_relay_restarts_total") >= 1


def test_of_two_relays_one_works_and_the_other_takes_over_within_three_seconds_of_a_kill(stores: Stores, start: Start) -> None:
    first = start("relay")
    eventually(lambda: first.metric("steward_relay_active") == 1)
    second = start("relay")
    several = cases(50)
    count = stores.emit(several)
    stores.all_published()
    assert (first.metric("steward_relay_published_total"), second.metric("steward_relay_published_total")) == (50, 0)
    first.kill()
    count += stores.emit(several, start=2)
    stores.all_published(within=3)
    events = stores.drain(QUEUE, count)
    assert len(events) == count
    assert_in_order(events, 50, 2)
    stores.positions_have_no_gaps()


def test_a_relay_whose_database_connection_is_cut_gives_up_its_place(stores: Stores, start: Start) -> None:
    first = start("relay")
    eventually(lambda: first.metric("steward_relay_active") == 1)
    second = start("relay")
    # Cut the one that leads, and keep it from coming back at once.
    stores.sql("emitter", "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7003")
    eventually(lambda: first.metric("steward_relay_active") + second.metric("steward_relay_active") == 1, within=5)
    count = stores.emit(cases(20), events=3)
    stores.all_published()
    assert_in_order(stores.drain(QUEUE, count), 20, 3)


def test_a_broker_short_of_memory_is_waited_for(stores: Stores, start: Start) -> None:
    relay = start("relay")
    stores.emit(cases(1))
    stores.all_published()
    stores.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        count = stores.emit(cases(20), events=2)
        eventually(lambda: "takes nothing" in relay.log.read_text())
        assert stores.published() == (count + 1, 1)
    finally:
        stores.control("set_vm_memory_high_watermark", "0.4")
    stores.all_published()
    assert len(stores.drain(QUEUE, count + 1)) == count + 1
    assert relay.metric("steward_relay_restarts_total") == 0


def test_an_unroutable_event_holds_up_its_own_case_only(stores: Stores, start: Start) -> None:
    stuck, *free = cases(40)
    with stores.channel() as channel:
        channel.queue_unbind("ledger.directory", topology.EVENTS, "emitter.RepairTaken")
    stores.emit([stuck])
    stores.emit([stuck], start=2, type="RepairTaken")  # consumed by the ledger, and its queue is not bound
    stores.emit([stuck], start=3)
    stores.emit(free, events=2)
    relay = start("relay")
    seen = first_deliveries(stores.drain(QUEUE, 79))
    assert seen.pop(str(stuck)) == [1]
    assert set(map(tuple, seen.values())) == {(1, 2)}
    eventually(lambda: stores.published() == (81, 79))
    assert relay.metric("steward_relay_refused_total") >= 1
    stores.declare()
    (late,) = stores.drain("ledger.directory", 1)
    assert late["sequence"] == 2
    assert [event["sequence"] for event in stores.drain(QUEUE, 1)] == [3]
    stores.all_published()


def test_an_event_that_nobody_consumes_is_published_and_needs_no_queue(stores: Stores, start: Start) -> None:
    relay = start("relay")
    stores.emit(cases(5), type="RepairConsented")
    stores.all_published(within=5)
    assert relay.metric("steward_relay_refused_total") == 0


def test_a_nacked_event_holds_up_its_own_case_only_until_the_broker_takes_it(stores: Stores, start: Start) -> None:
    narrow = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    with stores.channel() as channel:
        channel.queue_declare("narrow", durable=True, arguments=narrow)
        channel.queue_bind("narrow", topology.EVENTS, "emitter.RepairArrived")
    try:
        full, *free = cases(20)
        stores.emit([full], events=6, type="RepairArrived")
        stores.emit(free, events=2)
        start("relay")
        assert_in_order(stores.drain(QUEUE, 38), 19, 2)
        waiting = eventually(lambda: 44 - stores.published()[1])
        assert waiting >= 1
        assert [event["sequence"] for event in stores.drain("narrow", 6)] == [1, 2, 3, 4, 5, 6]
        stores.all_published()
    finally:
        with stores.channel() as channel:
            channel.queue_delete("narrow")


def test_sigterm_under_load_marks_what_was_confirmed_and_sends_nothing_twice(stores: Stores, start: Start) -> None:
    relay = start("relay")
    several = cases(400)
    count = stores.emit(several, events=15)
    eventually(lambda: relay.metric("steward_relay_published_total") > 500)
    assert relay.end() == 0
    published = stores.published()[1]
    assert 500 < published < count
    assert stores.depth(QUEUE) == published
    start("relay")
    stores.all_published()
    events = stores.drain(QUEUE, count)
    assert len(events) == count
    assert_in_order(events, 400, 15)
    stores.positions_have_no_gaps()


def test_a_relay_sees_only_what_its_role_may_see(stores: Stores) -> None:
    """It works as the unprivileged role: without its settings the log is empty to it."""
    stores.emit(cases(1))
    connection = psycopg2.connect(stores.postgres.url("emitter"))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM events")
            assert cursor.fetchone() == (0,)
    finally:
        connection.close()


# --- topology ---------------------------------------------------------------------------------------------------------


def actual(stores: Stores) -> tuple[set[str], set[topology.Binding]]:
    """(queues, bindings) on the broker, as the broker itself lists them; the default exchange is bound to every queue."""
    listed = json.loads(stores.control("--formatter", "json", "list_bindings", "source_name", "routing_key", "destination_name"))
    bindings = {topology.Binding(b["source_name"], b["routing_key"], b["destination_name"]) for b in listed}
    return {b.queue for b in bindings if not b.exchange}, {b for b in bindings if b.exchange}


def test_the_broker_has_exactly_the_queues_and_bindings_that_the_reactions_ask_for(stores: Stores) -> None:
    wanted = topology.declared(SERVICES)
    assert topology.Binding("events", "emitter.RepairTaken", "ledger.directory") in wanted.bindings
    assert topology.Binding("events", "emitter.ClockBreached", "ledger.events") in wanted.bindings
    assert actual(stores) == (set(wanted.queues), set(wanted.bindings))
    arguments = json.loads(stores.control("--formatter", "json", "list_queues", "name", "arguments"))
    assert {q["name"]: {name: value for name, _, value in q["arguments"]} for q in arguments} == dict(wanted.queues)


def test_declaring_again_removes_what_is_stale_and_leaves_a_stale_queue_that_holds_messages(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "RETIRED", ("given.up",))
    wanted = topology.declared(SERVICES)
    stale = next(iter(topology.contract() - {binding.routing_key for binding in wanted.bindings}))
    with stores.channel() as channel:
        channel.queue_bind("ledger.events", topology.EVENTS, stale)
        for name in ("emitter.events", "given.up"):
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(name, topology.EVENTS, stale)
        channel.basic_publish("", "emitter.events", b"kept")
    eventually(lambda: stores.depth("emitter.events") == 1)
    stores.declare()
    queues, bindings = actual(stores)
    assert queues == {*wanted.queues, "emitter.events"}
    assert bindings == wanted.bindings
    assert stores.drain_raw("emitter.events") == [b"kept"]
    stores.declare()
    assert actual(stores) == (set(wanted.queues), set(wanted.bindings))


def test_a_queue_with_other_arguments_is_made_anew_only_when_it_is_empty(stores: Stores) -> None:
    name = "ledger.retry.1"
    arguments = topology.declared(SERVICES).queues[name]
    with stores.channel() as channel:
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", name, b"kept")
    eventually(lambda: stores.depth(name) == 1)
    with pytest.raises(topology.Conflict, match=name):
        stores.declare()
    assert stores.drain_raw(name) == [b"kept"]
    stores.declare()
    with stores.channel() as channel:
        channel.queue_declare(name, durable=True, arguments=arguments)  # raises if they differ
    assert actual(stores)[1] == topology.declared(SERVICES).bindings
