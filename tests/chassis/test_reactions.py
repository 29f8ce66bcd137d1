"""Reactions: each event has its effect once, one failing reaction does not keep it from the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis import reactions
from services.chassis.__main__ import SERVICES
from services.chassis.db import Database, Transaction
from services.chassis.errors import NotFound
from services.chassis.reactions import (
    Event,
    Failed,
    Malformed,
    Permanent,
    Unexpected,
    every,
    handle,
    handle_together,
    on,
    reactions_of,
)
from services.chassis.testing import Tree, event_body
from steward.work_orders.v1 import events_pb2

seen: list[Event[Any]] = []
trouble: list[Exception] = []
calls: list[list[UUID]] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Two reactions of the probe service to one event, and two that take several at once, taken off the table again."""

    @on(events_pb2.RepairReported, service="probe")
    def count_repair(event: Event[events_pb2.RepairReported], tx: Transaction) -> None:
        seen.append(event)
        tx.execute(
            "INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, 'seen', '', 1) ON CONFLICT (estate_id, kind, day) DO UPDATE SET last = numbers.last + 1",
            (event.aggregate_id,),
        )

    @on(events_pb2.RepairReported, service="probe")
    def trouble_maker(event: Event[events_pb2.RepairReported], tx: Transaction) -> None:
        tx.execute("INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, 'trouble', '', 1)", (event.aggregate_id,))
        if trouble:
            raise trouble[0]

    @on(events_pb2.RepairRejected, service="probe", together=True)
    def count_together(arrived: Sequence[Event[events_pb2.RepairRejected]], tx: Transaction) -> None:
        calls.append([event.aggregate_id for event in arrived])
        for event in arrived:
            tx.execute(
                "INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, 'seen', '', 1) ON CONFLICT (estate_id, kind, day) DO UPDATE SET last = numbers.last + 1",
                (event.aggregate_id,),
            )

    @on(events_pb2.RepairRejected, service="probe", together=True)
    def trouble_together(arrived: Sequence[Event[events_pb2.RepairRejected]], tx: Transaction) -> None:
        for event in arrived:
            tx.execute("INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, 'trouble', '', 1)", (event.aggregate_id,))
            if trouble:
                raise trouble[0]

    yield
    for key, (owner, _) in list(reactions._reactions.items()):
        if owner == "probe":
            del reactions._reactions[key]
    reactions._periodic.pop(("probe", "same"), None)
    reactions_of.cache_clear()


@pytest.fixture(autouse=True)
def calm() -> None:
    seen.clear()
    trouble.clear()
    calls.clear()


def a_report(tree: Tree, **how: Any) -> tuple[UUID, bytes]:
    case = uuid4()
    return case, event_body(events_pb2.RepairReported(repair=str(case), urgent=True), tree=tree, aggregate_id=case, **how)


def effects(database: Database, case: UUID) -> dict[str, int]:
    with database.read() as tx:
        return dict(tx.execute("SELECT kind, last FROM numbers WHERE estate_id = %s", (case,)))


def test_a_reaction_gets_the_event_as_its_protobuf_message_with_the_envelope(database: Database, tree: Tree) -> None:
    at = datetime(2026, 11, 22, 3, 10, tzinfo=UTC)
    case, body = a_report(tree, at=at, sequence=7, position=42, actor="staff/1")
    outcome = handle(database, "probe", body)
    assert (outcome.source, outcome.type, outcome.applied, outcome.duplicates) == ("work_orders", "RepairReported", 2, 0)
    [event] = seen
    assert event.data == events_pb2.RepairReported(repair=str(case), urgent=True)
    assert (event.source, event.time, event.sequence, event.position, event.actor) == ("work_orders", at, 7, 42, "staff/1")
    assert (event.aggregate, event.aggregate_id, event.estate_id, event.group_id) == ("repair", case, tree.estate_id, tree.group_id)
    assert event.subject == f"estates/{tree.code}/repairs/{case}"


def test_however_often_an_event_arrives_it_has_its_effect_once(database: Database, tree: Tree) -> None:
    case, body = a_report(tree)
    handle(database, "probe", body)
    assert (handle(database, "probe", body).applied, handle(database, "probe", body).duplicates) == (0, 2)
    assert effects(database, case) == {"seen": 1, "trouble": 1}


def test_an_event_that_arrives_twice_at_the_same_time_has_its_effect_once(database: Database, tree: Tree) -> None:
    case, body = a_report(tree)
    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(lambda _: handle(database, "probe", body), range(6)))
    assert sum(outcome.applied for outcome in outcomes) == 2
    assert effects(database, case) == {"seen": 1, "trouble": 1}


def test_a_reaction_that_fails_leaves_nothing_keeps_no_other_from_its_effect_and_comes_again(database: Database, tree: Tree) -> None:
    case, body = a_report(tree)
    trouble.append(RuntimeError("not today"))
    with pytest.raises(Failed, match="trouble_maker: RuntimeError: not today") as failed:
        handle(database, "probe", body)
    assert not failed.value.permanent
    assert effects(database, case) == {"seen": 1}
    trouble.clear()
    assert handle(database, "probe", body).applied == 1
    assert effects(database, case) == {"seen": 1, "trouble": 1}


def test_what_another_attempt_cannot_mend_says_so(database: Database, tree: Tree) -> None:
    trouble.append(Permanent("never"))
    with pytest.raises(Failed) as failed:
        handle(database, "probe", a_report(tree)[1])
    assert failed.value.permanent
    trouble[0] = NotFound("maybe later")
    with pytest.raises(Failed) as failed:
        handle(database, "probe", a_report(tree)[1])
    assert not failed.value.permanent


def a_rejection(tree: Tree) -> tuple[UUID, bytes]:
    case = uuid4()
    return case, event_body(events_pb2.RepairRejected(repair=str(case)), tree=tree, aggregate_id=case)


def test_several_events_are_handled_by_one_call_in_the_order_in_which_they_came(database: Database, tree: Tree) -> None:
    cases, bodies = zip(*(a_rejection(tree) for _ in range(5)), strict=True)
    outcomes = handle_together(database, "probe", bodies)
    assert [(outcome.type, outcome.applied, outcome.duplicates) for outcome in outcomes] == [("RepairRejected", 2, 0)] * 5
    assert calls == [list(cases)]
    assert [effects(database, case) for case in cases] == [{"seen": 1, "trouble": 1}] * 5


def test_of_several_events_those_that_were_handled_before_or_come_twice_have_their_effect_once(database: Database, tree: Tree) -> None:
    cases, bodies = zip(*(a_rejection(tree) for _ in range(4)), strict=True)
    handle(database, "probe", bodies[1])
    calls.clear()
    outcomes = handle_together(database, "probe", [*bodies, bodies[3], bodies[0]])
    assert [(outcome.applied, outcome.duplicates) for outcome in outcomes] == [(2, 0), (0, 2), (2, 0), (2, 0), (0, 2), (0, 2)]
    assert calls == [[cases[0], cases[2], cases[3]]]
    assert [effects(database, case) for case in cases] == [{"seen": 1, "trouble": 1}] * 4
    calls.clear()
    assert sum(outcome.applied for outcome in handle_together(database, "probe", bodies)) == 0
    assert calls == []


def test_when_one_of_several_events_fails_nothing_has_happened_and_each_can_go_by_itself(database: Database, tree: Tree) -> None:
    cases, bodies = zip(*(a_rejection(tree) for _ in range(3)), strict=True)
    trouble.append(RuntimeError("not today"))
    with pytest.raises(RuntimeError):
        handle_together(database, "probe", bodies)
    with pytest.raises(Malformed):
        handle_together(database, "probe", [*bodies, b"{"])
    assert [effects(database, case) for case in cases] == [{}] * 3
    with pytest.raises(Failed):
        handle(database, "probe", bodies[0])
    trouble.clear()
    for body in bodies:
        handle(database, "probe", body)
    assert [effects(database, case) for case in cases] == [{"seen": 1, "trouble": 1}] * 3


def test_the_same_events_at_the_same_time_in_any_order_have_their_effect_once(database: Database, tree: Tree) -> None:
    cases, bodies = zip(*(a_rejection(tree) for _ in range(8)), strict=True)
    orders = [list(bodies), list(reversed(bodies)), [*bodies[4:], *bodies[:4]]]
    with ThreadPoolExecutor(3) as threads:
        outcomes = list(threads.map(lambda order: handle_together(database, "probe", order), orders))
    assert sum(outcome.applied for some in outcomes for outcome in some) == 16
    assert [effects(database, case) for case in cases] == [{"seen": 1, "trouble": 1}] * 8


def test_only_events_whose_reactions_all_take_several_are_handled_together() -> None:
    @on(events_pb2.RepairCancelled, service="probe", together=True)
    def one(arrived: Sequence[Event[Any]], tx: Transaction) -> None: ...

    assert reactions_of("probe").together == {"work_orders.RepairRejected", "work_orders.RepairCancelled"}

    @on(events_pb2.RepairCancelled, service="probe")
    def another(event: Event[Any], tx: Transaction) -> None: ...

    assert reactions_of("probe").together == {"work_orders.RepairRejected"}


def test_an_event_that_nobody_wants_is_unexpected_and_not_lost_for_ever(database: Database, tree: Tree) -> None:
    with pytest.raises(Unexpected):
        handle(database, "probe", event_body(events_pb2.RepairFiled(), tree=tree))
    assert not issubclass(Unexpected, Permanent)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"source": 1, "type": 2}', "𬭎".encode("gb18030"), b'{"source":"steward/work_orders"}'],
)
def test_a_body_that_is_no_event_is_malformed(database: Database, body: bytes) -> None:
    with pytest.raises(Malformed):
        handle(database, "probe", body)
    assert reactions.glance(body)[1] == "unreadable"


@pytest.mark.parametrize(
    "name", ["id", "subject", "time", "recordedtime", "sequence", "position", "aggregate", "aggregateid", "actor", "data"]
)
def test_an_event_without_one_of_its_attributes_is_malformed(database: Database, tree: Tree, name: str) -> None:
    document = json.loads(a_report(tree)[1])
    del document[name]
    with pytest.raises(Malformed):
        handle(database, "probe", json.dumps(document).encode())
    assert seen == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "x"),
        ("time", "yesterday"),
        ("sequence", "many"),
        ("data", {"urgent": "perhaps"}),
        ("data", "x"),
        ("data", []),
        ("estateid", "TFHY"),
    ],
)
def test_an_event_with_an_attribute_of_the_wrong_kind_is_malformed(database: Database, tree: Tree, name: str, value: Any) -> None:
    document = json.loads(a_report(tree)[1]) | {name: value}
    with pytest.raises(Malformed):
        handle(database, "probe", json.dumps(document).encode())


def test_fields_of_a_newer_release_are_passed_over(database: Database, tree: Tree) -> None:
    case, body = a_report(tree)
    document = json.loads(body)
    document["data"]["fieldOfTomorrow"] = {"x": 1}
    document["somethingelse"] = True
    assert handle(database, "probe", json.dumps(document).encode()).applied == 2
    assert effects(database, case)["seen"] == 1


def test_a_glance_shows_what_a_list_of_dead_letters_needs(tree: Tree) -> None:
    identifier = uuid4()
    case, body = a_report(tree, id=identifier)
    assert reactions.glance(body) == (identifier, "work_orders.RepairReported", f"estates/{tree.code}/repairs/{case}")


def test_two_reactions_or_timers_of_one_name_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="two reactions"):
        for _ in range(2):

            @on(events_pb2.RepairTaken, service="probe")
            def same(event: Event[Any], tx: Transaction) -> None: ...

    with pytest.raises(TypeError, match="two periodic"):
        for _ in range(2):
            every(5, name="same", service="probe")(lambda database: None)


def test_an_event_that_every_service_emits_needs_its_source() -> None:
    from steward.chassis.v1 import events_pb2 as shared

    with pytest.raises(TypeError, match="say whose"):
        on(shared.ClockBreached, service="probe")(lambda event, tx: None)
    on(shared.ClockBreached, source="work_orders", service="probe")(lambda event, tx: None)
    assert ("work_orders", "ClockBreached") in reactions_of("probe").by_event


def test_every_service_but_the_one_that_owns_it_follows_the_register() -> None:
    for service in SERVICES:
        keys = reactions_of(service).routing_keys("directory")
        assert ("residents.DirectoryChanged" in keys) is (service != "residents"), service
        assert {"clocks", "housekeeping"} <= {timer.name for timer in reactions_of(service).periodic}
