"""Who hears of follow-ups, their spot checks, and of repairs that the supervisors have to follow up together."""

from __future__ import annotations

import pytest

from services.chassis.testing import Tree
from steward.work_orders.v1 import events_pb2 as events
from tests.notifications.inboxes import NUMBER, Inboxes, breached

ASKED, CHECK = "HF-20261123-0001", "CC-20261201-0001"


@pytest.mark.rule("REP-25")
@pytest.mark.parametrize("event", [events.FollowUpOpened, events.FollowUpAssigned, events.FollowUpDelegated])
def test_whom_a_follow_up_falls_to_is_told_and_nobody_else(
    inboxes: Inboxes, tree: Tree, event: type[events.FollowUpOpened | events.FollowUpAssigned | events.FollowUpDelegated]
) -> None:
    clerk = tree.staff["EARLY_SHIFT_CLERK"]
    assert inboxes.happens(event(number=ASKED, assignee=clerk.name), tree) == {clerk.name: "FOLLOW_UP_ASSIGNED"}
    assert inboxes.of(clerk)[0]["title"] == f"回访 {ASKED} 由您负责"
    assert inboxes.happens(event(number=ASKED), tree) == {}, "where nobody is there, the time limit tells the supervisor"


@pytest.mark.rule("REP-31")
def test_the_supervisor_of_customer_service_hears_with_engineering_what_was_not_solved_in_time_or_came_back(
    inboxes: Inboxes, tree: Tree
) -> None:
    ours, engineering = tree.staff["CS_SUPERVISOR"].name, tree.staff["ENGINEERING_SUPERVISOR"].name
    late = inboxes.happens(breached(clock="resolve", target_seconds=14_400, handler=tree.technician.name), tree)
    assert late == {engineering: "CLOCK_BREACHED", ours: "REPAIR_OVERDUE"}
    assert "未在4小时内解决" in inboxes.of(tree.staff["CS_SUPERVISOR"])[0]["body"]
    assert ours not in inboxes.happens(breached(clock="on_site"), tree), "arriving is engineering's"
    back = inboxes.happens(events.RepairReopened(number=NUMBER, technician=tree.technician.name), tree)
    assert back == {tree.technician.name: "REPAIR_REOPENED", engineering: "REPAIR_REOPENED", ours: "REPAIR_REOPENED"}


@pytest.mark.rule("FUP-15", "FUP-16", "FUP-17")
def test_those_who_make_the_spot_check_are_told_when_it_is_drawn(inboxes: Inboxes, tree: Tree) -> None:
    quality = tree.staff["QUALITY_MANAGER"]
    drawn = events.SpotCheckRoundOpened(tier="QUALITY", month="2026-11", number="2026-11", population=40, count=2, role="QUALITY_MANAGER")
    assert inboxes.happens(drawn, tree) == {quality.name: "SPOT_CHECKS_DUE"}, "nobody is named: the role is"
    drawn.assignees.append(tree.staff["MANAGEMENT_DEPT_MANAGER"].name)
    assert inboxes.happens(drawn, tree) == {tree.staff["MANAGEMENT_DEPT_MANAGER"].name: "SPOT_CHECKS_DUE"}
    assert "2026-11 月回访 2 条" in inboxes.of(quality)[0]["body"]


@pytest.mark.rule("FUP-15")
def test_the_supervisor_hears_of_a_follow_up_that_was_not_as_recorded(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(events.SpotCheckDeviated(number=CHECK, tier="QUALITY", reopened=True), tree)
    assert told == {tree.staff["CS_SUPERVISOR"].name: "SPOT_CHECK_DEVIATED"}


@pytest.mark.rule("REP-14")
def test_the_household_hears_when_its_visit_is_booked(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(events.RepairAppointed(number=NUMBER, technician=tree.technician.name, reporter=tree.owner.name), tree)
    assert told == {tree.owner.name: "REPAIR_APPOINTED"}
