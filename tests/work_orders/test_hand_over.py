"""The orders of a technician who leaves, and who gets the next one by the roster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import ParseDict

from services.chassis import directory, reactions
from services.chassis.names import stamp
from services.chassis.testing import Caller, a_tree, event_body, published
from steward.residents.v1 import directory_pb2
from steward.residents.v1 import events_pb2 as residents
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.rostered import absence, arrive, post, shift
from tests.work_orders.conftest import CHECKED, Desk, case_id, clock, state

HOUR = timedelta(hours=1)


def leaves(
    desk: Desk, who: Caller, successor: Caller | None = None, *, nodes: tuple[UUID, ...] = (), event_id: UUID | None = None
) -> bytes:
    """StaffRetired as residents sends it: with the posts that have ended, and those by which the successor takes over."""
    with desk.database.read() as tx:
        rows = tx.execute("SELECT id, version, role, node_id FROM dir_posts WHERE staff_id = %s", (who.id,))
        now = tx.now
    taken = nodes or (desk.tree.estate_id,)
    event = residents.StaffRetired(
        staff=who.name,
        successor=successor.name if successor else "",
        successor_posts=[directory_pb2.Post(staff_id=str(successor.id), role="TECHNICIAN", node_id=str(n)) for n in taken]
        if successor
        else [],
    )
    for identifier, version, role, node in rows:
        post = directory_pb2.Post(staff_id=str(who.id), role=role, node_id=str(node), end_time=stamp(now))
        event.ended_posts.add(id=str(identifier), version=version + 1, post=post)
    return event_body(event, tree=desk.tree, aggregate="staff", aggregate_id=who.id, id=event_id)


def hear(desk: Desk, body: bytes) -> reactions.Outcome:
    return reactions.handle(desk.database, "work_orders", body)


@pytest.mark.rule("ORG-06", "REP-13")
@pytest.mark.parametrize("before", ["DISPATCHED", "TAKEN", "ON_SITE", "REWORK"])
def test_what_a_technician_had_in_hand_goes_to_his_successor(desk: Desk, before: str) -> None:
    leaver, successor = desk.tree.technician, desk.tree.hire(desk.database, "TECHNICIAN")
    repair = in_hand(desk, before)
    hear(desk, leaves(desk, leaver, successor))

    now = desk.now(repair)
    assert (state(now), now.technician) == ("DISPATCHED", successor.name)
    assert clock(now, "pickup").HasField("due_time"), "he has to collect it in time"
    line = desk.history(repair)[-1]
    assert (line.action, line.from_state, line.to_state, line.actor) == ("hand_over", before, "DISPATCHED", "system/work_orders")
    events = published(desk.database, case_id(repair))[-2:]
    assert [event.type for event in events] == ["RepairHandedOver", "RepairTransferred"]
    for event in events:
        assert (event.data["technician"], event.data["previousTechnician"]) == (successor.name, leaver.name)
    assert state(desk.call(successor, "TakeRepair", name=repair.name)) == "TAKEN"


@pytest.mark.rule("ORG-06", "REP-09")
@pytest.mark.parametrize("before", ["DISPATCHED", "TAKEN", "ON_SITE", "REWORK"])
def test_without_a_successor_it_is_open_to_all_again(desk: Desk, before: str) -> None:
    repair = in_hand(desk, before)
    hear(desk, leaves(desk, desk.tree.technician))

    now = desk.now(repair)
    assert (state(now), now.technician) == ("REPORTED", "")
    assert clock(now, "pickup").HasField("due_time")
    assert not clock(now, "resolve").HasField("stop_time"), "the household has waited all the while"
    events = published(desk.database, case_id(repair))[-2:]
    assert [event.type for event in events] == ["RepairHandedOver", "RepairReturned"]
    assert events[1].data["technician"] == desk.tree.technician.name
    other = desk.tree.hire(desk.database, "TECHNICIAN")
    assert state(desk.call(other, "TakeRepair", name=repair.name)) == "TAKEN"


def in_hand(desk: Desk, wanted: str) -> pb.Repair:
    """An order of the technician in a state in which he has to do something."""
    if wanted == "DISPATCHED":
        return desk.call(
            desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=desk.report().name, technician=desk.tree.technician.name
        )
    if wanted == "REWORK":
        done = desk.at("DONE")
        return desk.call(desk.tree.owner, "RejectRepair", name=done.name, reason="还在漏")
    return desk.at(wanted)


def test_what_waits_for_the_household_or_is_closed_stays_with_who_did_it(desk: Desk) -> None:
    leaver, successor = desk.tree.technician, desk.tree.hire(desk.database, "TECHNICIAN")
    repairs = {before: desk.at(before) for before in ("REPORTED", "DONE", "ACCEPTED", "FILED")}
    hear(desk, leaves(desk, leaver, successor))
    for before, repair in repairs.items():
        assert desk.now(repair) == repair, before


def test_the_orders_of_others_and_of_estates_where_the_successor_is_no_technician_are_not_given_to_him(desk: Desk) -> None:
    leaver, successor, other = (
        desk.tree.technician,
        desk.tree.hire(desk.database, "TECHNICIAN"),
        desk.tree.hire(desk.database, "TECHNICIAN"),
    )
    his, foreign = desk.at("TAKEN"), desk.call(other, "TakeRepair", name=desk.report().name)
    beside = Desk(desk.server, desk.api, desk.database, a_tree(desk.database, beside=desk.tree))
    arrive(desk.database, post(leaver, "TECHNICIAN", beside.tree.estate_id))
    there = beside.call(beside.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=beside.report().name, technician=leaver.name)
    hear(desk, leaves(desk, leaver, successor))
    assert desk.now(his).technician == successor.name
    assert desk.now(foreign) == foreign
    assert (state(beside.now(there)), beside.now(there).technician) == ("REPORTED", "")


def test_a_successor_with_a_post_at_the_company_takes_over_at_all_of_its_estates(desk: Desk) -> None:
    leaver, successor = desk.tree.technician, Caller("staff", uuid4())
    repair = desk.at("TAKEN")
    hear(desk, leaves(desk, leaver, successor, nodes=(desk.tree.company_id,)))
    assert desk.now(repair).technician == successor.name
    again = in_hand_of(desk, desk.tree.hire(desk.database, "TECHNICIAN"))
    hear(desk, leaves(desk, again[0], successor, nodes=(uuid4(),)))
    assert state(desk.now(again[1])) == "REPORTED", "a post elsewhere is none here"


def in_hand_of(desk: Desk, who: Caller) -> tuple[Caller, pb.Repair]:
    return who, desk.call(who, "TakeRepair", name=desk.report().name)


def test_a_paused_order_goes_on_and_its_household_is_told(desk: Desk) -> None:
    repair = desk.at("TAKEN")
    desk.call(desk.tree.technician, "PauseRepair", name=repair.name, reason="等配件")
    hear(desk, leaves(desk, desk.tree.technician))
    now = desk.now(repair)
    assert (state(now), now.paused, now.pause_reason) == ("REPORTED", False, "")
    assert not any(found.paused for found in now.clocks)
    assert [event.type for event in published(desk.database, case_id(repair))[-3:]] == [
        "RepairResumed",
        "RepairHandedOver",
        "RepairReturned",
    ]


def test_an_event_that_comes_twice_hands_over_once(desk: Desk) -> None:
    successor = desk.tree.hire(desk.database, "TECHNICIAN")
    repair = desk.at("TAKEN")
    body = leaves(desk, desk.tree.technician, successor, event_id=uuid4())
    assert hear(desk, body).applied == 2, "his orders, and what he was to ask"
    assert hear(desk, body).duplicates == 2
    with desk.database.transaction() as tx:
        tx.execute("DELETE FROM inbox WHERE reaction LIKE 'work_orders.reactions.%%'")
    hear(desk, body)
    assert [line.action for line in desk.history(repair)] == ["report", "take", "hand_over"]


def test_nothing_is_given_to_him_any_more_even_if_the_directory_hears_of_it_later(desk: Desk) -> None:
    leaver = desk.tree.technician
    hear(desk, leaves(desk, leaver))
    refusal = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=desk.report().name, technician=leaver.name)
    assert refusal.reason == "TECHNICIAN_NOT_FOUND"
    with desk.database.transaction() as tx:
        assert directory.held(tx, leaver.id) == set()
    assert desk.refused(leaver, "TakeRepair", name=desk.report().name).http == 403


def test_an_event_of_a_newer_release_is_understood(desk: Desk) -> None:
    body: dict[str, Any] = {"staff": desk.tree.technician.name, "farewellParty": True}
    repair = desk.at("TAKEN")
    event = ParseDict(body, residents.StaffRetired(), ignore_unknown_fields=True)
    hear(desk, event_body(event, tree=desk.tree, aggregate="staff", aggregate_id=desk.tree.technician.id))
    assert state(desk.now(repair)) == "REPORTED"


# --- rotation by the roster ---------------------------------------------------------------------------------------------


def dispatched(desk: Desk, times: int) -> list[str]:
    who = desk.tree.staff["CUSTOMER_ASSISTANT"]
    return [desk.call(who, "DispatchRepair", name=desk.report().name).technician for _ in range(times)]


@pytest.mark.rule("REP-13")
def test_the_rotation_goes_round_those_on_shift(desk: Desk) -> None:
    at_home, first, second = desk.tree.technician, *(desk.tree.hire(desk.database, "TECHNICIAN") for _ in range(2))
    assert set(dispatched(desk, 3)) == {at_home.name, first.name, second.name}, "without a roster all of them"
    now = datetime.now(UTC)
    arrive(desk.database, *(shift(who, desk.tree, "TECHNICIAN", now - HOUR, now + HOUR) for who in (first, second)))
    assert sorted(dispatched(desk, 4)) == sorted([first.name, second.name] * 2)
    order = desk.call(desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=desk.report().name, technician=at_home.name)
    assert order.technician == at_home.name, "who is named may be called in"


@pytest.mark.rule("REP-13")
def test_the_rotation_passes_over_who_is_on_leave_and_says_when_nobody_is_there(desk: Desk) -> None:
    away, there, now = desk.tree.technician, desk.tree.hire(desk.database, "TECHNICIAN"), datetime.now(UTC)
    arrive(desk.database, absence(away, now - HOUR))
    assert dispatched(desk, 2) == [there.name] * 2
    arrive(desk.database, absence(there, now - HOUR))
    refusal = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=desk.report().name)
    assert (refusal.http, refusal.reason, refusal.rule) == (409, "NO_TECHNICIAN", "REP-13")


@pytest.mark.rule("REP-13")
def test_the_deputy_of_a_technician_gets_his_orders_and_may_do_them(desk: Desk) -> None:
    now, guard = datetime.now(UTC), desk.tree.staff["SECURITY_GUARD"]
    arrive(desk.database, absence(desk.tree.technician, now - HOUR, deputy=guard))
    repair = desk.call(desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=desk.report().name)
    assert repair.technician == guard.name
    acting = Caller("staff", guard.id, (*guard.grants, *desk.tree.technician.grants))
    for rpc, more in (("TakeRepair", {}), ("ArriveRepair", {}), ("CompleteRepair", {"work_done": "换了阀门", "self_check": CHECKED})):
        repair = desk.call(acting, rpc, name=repair.name, **more)
    assert state(repair) == "DONE"
