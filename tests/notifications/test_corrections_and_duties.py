"""Who hears of corrections, duplicates, faults that come back, and duties."""

from __future__ import annotations

import pytest

from services.chassis.testing import Tree
from steward.chassis.v1.events_pb2 import DutyOpened
from steward.work_orders.v1 import events_pb2 as events
from tests.notifications.inboxes import NUMBER, Inboxes

CHECK = "LX-20261123-0001"


@pytest.mark.rule("REP-13")
def test_the_technician_hears_of_a_correction_and_engineering_only_of_an_urgent_one(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(events.RepairCorrected(number=NUMBER, technician=tree.technician.name, changed=["unit"]), tree)
    assert told == {tree.technician.name: "REPAIR_CORRECTED"}
    urgent = inboxes.happens(events.RepairCorrected(number=NUMBER, urgent=True, changed=["urgent"]), tree)
    assert urgent == {tree.staff["ENGINEERING_SUPERVISOR"].name: "REPAIR_CORRECTED"}


def test_who_reported_a_duplicate_hears_that_it_goes_on_as_another_order(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(events.RepairMerged(number=NUMBER, reporter=tree.owner.name, technician=tree.technician.name), tree)
    assert told == {tree.owner.name: "REPAIR_MERGED"}, "the technician hears of the cancellation"


@pytest.mark.rule("REP-30")
def test_engineering_hears_of_faults_that_keep_coming_back(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(events.FaultRecurring(number=NUMBER, count=3, days=30), tree)
    supervisor = tree.staff["ENGINEERING_SUPERVISOR"]
    assert told == {supervisor.name: "FAULT_RECURRING"}
    assert "第 3 次" in inboxes.of(supervisor)[0]["body"]


@pytest.mark.rule("REP-26")
def test_a_duty_is_told_to_those_to_whom_it_falls_and_where_that_is_nobody_it_is_a_vacancy(inboxes: Inboxes, tree: Tree) -> None:
    assistant = tree.staff["CUSTOMER_ASSISTANT"].name
    told = inboxes.happens(DutyOpened(number=CHECK, duty="repair_check", role="EARLY_SHIFT_CLERK", assignees=[assistant]), tree)
    assert told == {assistant: "DUTY_OPENED"}
    inboxes.vacate(tree, "EARLY_SHIFT_CLERK")
    assert inboxes.happens(DutyOpened(number=CHECK, duty="repair_check", role="EARLY_SHIFT_CLERK"), tree) == {}


@pytest.mark.rule("REP-26")
def test_the_head_of_the_department_reads_how_many_orders_the_check_has_found(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(events.RepairCheckCompleted(number=CHECK, count=4, not_handled=3, not_returned=1), tree)
    supervisor = tree.staff["CS_SUPERVISOR"]
    assert told == {supervisor.name: "REPAIR_CHECK_COMPLETED"}
    assert "共 4 单" in inboxes.of(supervisor)[0]["body"]
