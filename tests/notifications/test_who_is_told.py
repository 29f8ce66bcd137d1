"""Each line of the routing table: who is told, who is not, in which words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from services.chassis.testing import Tree, a_tree
from steward.chassis.v1.events_pb2 import ClockWarned
from steward.work_orders.v1 import events_pb2 as events
from tests.notifications.inboxes import AT, NUMBER, Inboxes, breached, reading, reported


@pytest.mark.rule("REP-08")
def test_engineering_is_told_of_a_report_at_once_and_an_ordinary_one_stands_out_to_nobody(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(reported(tree, urgent=False, reporter=""), tree)

    assert told == {tree.staff["ENGINEERING_SUPERVISOR"].name: "REPAIR_REPORTED"}
    message = inboxes.of(tree.staff["ENGINEERING_SUPERVISOR"])[0]
    assert not message["urgent"]
    assert message["title"] == f"新报修 {NUMBER} 待安排"
    assert tree.code in message["body"]


@pytest.mark.rule("REP-07", "REP-08")
def test_an_urgent_report_calls_every_technician_of_the_estate_with_emphasis(inboxes: Inboxes, tree: Tree) -> None:
    second, supervisor = tree.hire(inboxes.database, "TECHNICIAN"), tree.staff["ENGINEERING_SUPERVISOR"]
    next_door = a_tree(inboxes.database, beside=tree)

    told = inboxes.happens(reported(tree, urgent=True, reporter=""), tree)

    assert told == {tree.technician.name: "REPAIR_CALLED", second.name: "REPAIR_CALLED", supervisor.name: "REPAIR_REPORTED"}
    for who in (tree.technician, second, supervisor):
        assert inboxes.of(who)[0]["title"].startswith("【紧急】")
        assert inboxes.of(who)[0]["urgent"]
    assert inboxes.of(next_door.technician) == []


def test_the_reporter_is_told_that_his_report_has_arrived(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(reported(tree, urgent=False), tree)

    assert told[tree.owner.name] == "REPAIR_RECEIVED"
    assert NUMBER in inboxes.of(tree.owner)[0]["body"]
    assert inboxes.of(tree.neighbour) == []


def _which(value: object) -> str:
    return ("-".join(value.values()) or "nobody") if isinstance(value, dict) else ""


EVENTS: list[tuple[Callable[[Tree], Message], dict[str, str]]] = [
    (lambda t: events.RepairDispatched(number=NUMBER, technician=t.technician.name), {"TECHNICIAN": "REPAIR_DISPATCHED"}),
    (lambda t: events.RepairTaken(number=NUMBER, technician=t.technician.name, reporter=t.owner.name), {"OWNER": "REPAIR_TAKEN"}),
    (lambda t: events.RepairTaken(number=NUMBER, technician=t.technician.name), {}),
    (lambda t: events.RepairReturned(number=NUMBER, technician=t.technician.name), {"ENGINEERING_SUPERVISOR": "REPAIR_RETURNED"}),
    (
        lambda t: events.RepairCompleted(number=NUMBER, technician=t.technician.name, reporter=t.owner.name, unit_id=str(t.units[t.unit])),
        {"OWNER": "REPAIR_COMPLETED"},
    ),
    (lambda t: events.RepairCompleted(number=NUMBER, technician=t.technician.name), {"ENGINEERING_SUPERVISOR": "REPAIR_INSPECTION_DUE"}),
    (
        lambda t: events.RepairRejected(number=NUMBER, technician=t.technician.name, reporter=t.owner.name, rework_count=2),
        {"TECHNICIAN": "REPAIR_REJECTED", "ENGINEERING_SUPERVISOR": "REPAIR_REJECTED"},
    ),
    (
        lambda t: events.RepairAccepted(number=NUMBER, technician=t.technician.name, reporter=t.owner.name),
        {"TECHNICIAN": "REPAIR_ACCEPTED"},
    ),
    (
        lambda t: events.RepairCancelled(number=NUMBER, technician=t.technician.name, reporter=t.owner.name),
        {"TECHNICIAN": "REPAIR_CANCELLED"},
    ),
    (lambda t: events.RepairCancelled(number=NUMBER, reporter=t.owner.name), {}),
]


@pytest.mark.parametrize(("event", "expected"), EVENTS, ids=_which)
def test_each_step_of_an_order_is_told_to_those_whom_it_concerns_and_to_nobody_else(
    inboxes: Inboxes, tree: Tree, event: Callable[[Tree], Message], expected: dict[str, str]
) -> None:
    assert inboxes.happens(event(tree), tree) == {tree.by_role(role).name: kind for role, kind in expected.items()}


@pytest.mark.rule("REP-10")
def test_the_handler_is_warned_before_his_time_is_up(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(ClockWarned(clock=reading(handler=tree.technician.name)), tree)

    assert told == {tree.technician.name: "CLOCK_WARNED"}
    assert "到场时限（30分钟）" in inboxes.of(tree.technician)[0]["body"]


@pytest.mark.rule("REP-10")
def test_while_nobody_has_the_order_the_customer_assistants_are_asked_to_urge(inboxes: Inboxes, tree: Tree) -> None:
    second = tree.hire(inboxes.database, "CUSTOMER_ASSISTANT")

    told = inboxes.happens(ClockWarned(clock=reading(clock="pickup", urgent=True)), tree)

    assert told == {tree.staff["CUSTOMER_ASSISTANT"].name: "CLOCK_URGED", second.name: "CLOCK_URGED"}
    assert inboxes.of(second)[0]["title"] == f"【紧急】报修 {NUMBER} 仍无人接手"


@pytest.mark.rule("REP-09", "REP-10")
def test_of_an_order_not_collected_in_time_the_supervisor_and_the_customer_assistants_are_told(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(breached(clock="pickup", target_seconds=900, handler=tree.technician.name), tree)

    assistant, supervisor = tree.staff["CUSTOMER_ASSISTANT"], tree.staff["ENGINEERING_SUPERVISOR"]
    assert told == {supervisor.name: "CLOCK_BREACHED", assistant.name: "REPAIR_UNCOLLECTED"}
    assert "未在15分钟内被领取" in inboxes.of(assistant)[0]["body"]


@pytest.mark.rule("REP-08")
def test_where_the_supervisors_post_is_vacant_the_project_manager_is_told_and_learns_why(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.vacate(tree, "ENGINEERING_SUPERVISOR")

    told = inboxes.happens(reported(tree, reporter=""), tree)

    assert told == {tree.staff["PROJECT_MANAGER"].name: "REPAIR_REPORTED"}
    message = inboxes.of(tree.staff["PROJECT_MANAGER"])[0]
    assert message["skipped_roles"] == ["ENGINEERING_SUPERVISOR"]
    assert "工程主管岗位空缺" in message["body"]


def test_a_role_held_at_the_company_counts_where_the_estate_has_nobody(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.vacate(tree, "ENGINEERING_SUPERVISOR")
    # a post that has ended when it happens is none
    inboxes.post(tree.technician, "ENGINEERING_SUPERVISOR", tree.estate_id, ended=AT)
    inboxes.post(tree.staff["QUALITY_MANAGER"], "ENGINEERING_SUPERVISOR", tree.company_id)

    assert inboxes.happens(reported(tree, reporter=""), tree) == {tree.staff["QUALITY_MANAGER"].name: "REPAIR_REPORTED"}


def test_who_holds_two_posts_is_told_once(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.post(tree.staff["ENGINEERING_SUPERVISOR"], "TECHNICIAN", tree.estate_id)

    told = inboxes.happens(reported(tree, urgent=True, reporter=""), tree)

    assert told == {tree.staff["ENGINEERING_SUPERVISOR"].name: "REPAIR_REPORTED", tree.technician.name: "REPAIR_CALLED"}


def test_what_people_wrote_does_not_get_into_a_message(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.happens(events.RepairReturned(number=NUMBER, technician=tree.technician.name, reason="张三 13800138000 不在家"), tree)

    message = inboxes.of(tree.staff["ENGINEERING_SUPERVISOR"])[0]
    assert "张三" not in message["title"] + message["body"]
    assert "13800138000" not in message["title"] + message["body"]
