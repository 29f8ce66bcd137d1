"""Who is told of what by the night's roster, by post and by deputy: as it stood when it happened."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from services.chassis.testing import Tree
from steward.chassis.v1.events_pb2 import ClockWarned
from tests.notifications.inboxes import Inboxes, breached, escalated, reading, reported
from tests.rostered import absence, arrive, shift

SHANGHAI = ZoneInfo("Asia/Shanghai")
HEAD, TECHNICIAN = "ENGINEERING_SUPERVISOR", "TECHNICIAN"


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """An hour of November 2026 where the estate is."""
    return datetime(2026, 11, day, hour, minute, tzinfo=SHANGHAI)


@pytest.mark.rule("REP-09")
def test_a_limit_missed_at_0310_is_told_to_the_night_shift_and_one_missed_at_0900_is_not(inboxes: Inboxes, tree: Tree) -> None:
    night, day = tree.hire(inboxes.database, HEAD), tree.staff[HEAD]
    arrive(inboxes.database, shift(night, tree, HEAD, at(22, 22), at(23, 6)), shift(day, tree, HEAD, at(23, 6), at(23, 18)))

    assert inboxes.happens(breached(), tree, at=at(23, 3, 10)) == {night.name: "CLOCK_BREACHED"}
    assert inboxes.happens(breached(), tree, at=at(23, 9)) == {day.name: "CLOCK_BREACHED"}


@pytest.mark.rule("REP-09")
def test_the_instant_at_which_a_limit_was_due_decides_not_the_one_at_which_it_is_heard_of(inboxes: Inboxes, tree: Tree) -> None:
    night = tree.hire(inboxes.database, HEAD)
    arrive(inboxes.database, shift(night, tree, HEAD, at(1, 22), at(2, 6)))

    assert inboxes.happens(breached(), tree, at=at(2, 3, 10)) == {night.name: "CLOCK_BREACHED"}, "three weeks late"


@pytest.mark.rule("REP-07", "REP-08")
def test_of_an_urgent_report_at_night_the_technicians_on_shift_alone_are_called(inboxes: Inboxes, tree: Tree) -> None:
    on_shift = tree.hire(inboxes.database, TECHNICIAN)
    arrive(inboxes.database, shift(on_shift, tree, TECHNICIAN, at(22, 22), at(23, 6)))

    head = tree.staff[HEAD].name
    night = inboxes.happens(reported(tree, urgent=True, reporter=""), tree, at=at(23, 3, 10))
    assert night == {on_shift.name: "REPAIR_CALLED", head: "REPAIR_REPORTED"}
    day = inboxes.happens(reported(tree, urgent=True, reporter=""), tree, at=at(23, 9))
    assert day == {on_shift.name: "REPAIR_CALLED", tree.technician.name: "REPAIR_CALLED", head: "REPAIR_REPORTED"}


def test_where_nobody_is_on_shift_the_holder_of_the_post_is_told(inboxes: Inboxes, tree: Tree) -> None:
    arrive(inboxes.database, shift(tree.staff["PROJECT_MANAGER"], tree, "PROJECT_MANAGER", at(23, 0), at(23, 8)))

    assert inboxes.happens(breached(), tree, at=at(23, 3, 10)) == {tree.staff[HEAD].name: "CLOCK_BREACHED"}


@pytest.mark.rule("REP-09")
def test_in_place_of_who_is_on_leave_his_deputy_is_told_in_the_same_role(inboxes: Inboxes, tree: Tree) -> None:
    arrive(inboxes.database, absence(tree.staff[HEAD], at(23, 0), at(24, 0), deputy=tree.technician))

    assert inboxes.happens(breached(), tree, at=at(23, 3, 10)) == {tree.technician.name: "CLOCK_BREACHED"}
    message = inboxes.of(tree.technician)[0]
    assert "请工程主管督办" in message["body"]
    assert message["skipped_roles"] == []
    assert inboxes.happens(breached(), tree, at=at(24, 3, 10)) == {tree.staff[HEAD].name: "CLOCK_BREACHED"}


@pytest.mark.rule("REP-09")
def test_where_he_is_on_leave_without_a_deputy_the_next_rung_is_told_at_once_and_learns_why(inboxes: Inboxes, tree: Tree) -> None:
    arrive(inboxes.database, absence(tree.staff[HEAD], at(23, 0)))

    assert inboxes.happens(breached(), tree, at=at(23, 3, 10)) == {tree.staff["PROJECT_MANAGER"].name: "CLOCK_BREACHED"}
    message = inboxes.of(tree.staff["PROJECT_MANAGER"])[0]
    assert message["skipped_roles"] == [HEAD]
    assert "工程主管岗位空缺" in message["body"]


def test_each_rung_of_the_ladder_goes_by_its_own_roster(inboxes: Inboxes, tree: Tree) -> None:
    other = tree.hire(inboxes.database, "PROJECT_MANAGER")
    arrive(inboxes.database, shift(other, tree, "PROJECT_MANAGER", at(22, 22), at(23, 8)))

    assert inboxes.happens(escalated(2), tree, at=at(23, 3, 25)) == {other.name: "CLOCK_ESCALATED"}
    assert inboxes.happens(escalated(3), tree, at=at(23, 3, 40)) == {tree.staff["MANAGEMENT_DEPT_MANAGER"].name: "CLOCK_ESCALATED"}


@pytest.mark.rule("REP-10")
def test_the_desk_on_shift_is_asked_to_urge_and_not_the_one_at_home(inboxes: Inboxes, tree: Tree) -> None:
    at_home, desk = tree.staff["CUSTOMER_ASSISTANT"], tree.hire(inboxes.database, "CUSTOMER_ASSISTANT")
    arrive(inboxes.database, shift(desk, tree, "CUSTOMER_ASSISTANT", at(23, 7), at(23, 15), early=True))

    assert inboxes.happens(ClockWarned(clock=reading(clock="pickup")), tree, at=at(23, 9)) == {desk.name: "CLOCK_URGED"}
    assert at_home.name in inboxes.happens(ClockWarned(clock=reading(clock="pickup")), tree, at=at(23, 20))
