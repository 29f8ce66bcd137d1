"""Follow-ups of repairs: who asks whom, when, and what an answer leads to (FUP rows, REP-25, REP-33)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.chassis.testing import clock_events, published, set_time
from steward.work_orders.v1 import followups_pb2 as pb
from steward.work_orders.v1 import repairs_pb2
from tests.work_orders.conftest import Desk, case_id, instant, state

pytestmark = pytest.mark.usefixtures("moving_time")

CHINA = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=CHINA)
SECOND = timedelta(seconds=1)
SATISFIED = {"method": "TELEPHONE", "dealt_with": True, "grade": "SATISFIED", "opinion": "很快"}
UNHAPPY = {"method": "TELEPHONE", "dealt_with": False, "grade": "NOT_SATISFIED", "opinion": "又漏了"}


def filed(desk: Desk, at: datetime = NOON, repair: Any = None) -> repairs_pb2.Repair:
    set_time(desk.database, at)
    return desk.carry(repair or desk.report(), "FILED")


def follow_up_of(desk: Desk, repair: repairs_pb2.Repair) -> pb.FollowUp:
    found = desk.call(desk.tree.staff["CS_SUPERVISOR"], "ListFollowUps", parent=desk.tree.parent).follow_ups
    [one] = [follow_up for follow_up in found if follow_up.repair == repair.name]
    return one


def name(follow_up: pb.FollowUp) -> str:
    return pb.FollowUp.State.Name(follow_up.state)


@pytest.fixture
def clerk(desk: Desk) -> Any:
    return desk.tree.staff["EARLY_SHIFT_CLERK"]


@pytest.mark.rule("FUP-06")
def test_every_order_that_came_back_is_followed_up_and_none_before(desk: Desk) -> None:
    accepted = desk.at("ACCEPTED")
    assert not desk.call(desk.tree.staff["CS_SUPERVISOR"], "ListFollowUps", parent=desk.tree.parent).follow_ups
    repair = desk.step(accepted)
    follow_up = follow_up_of(desk, repair)
    assert (name(follow_up), follow_up.repair_number, follow_up.round) == ("PENDING", repair.number, 1)
    assert follow_up.number.startswith("HF-")


@pytest.mark.rule("REP-33")
@pytest.mark.parametrize(
    ("charged", "public", "expected"), [(False, False, "RECTIFICATION"), (True, False, "HOME_REPAIR"), (False, True, "PUBLIC_AREA")]
)
def test_the_class_of_a_follow_up_comes_from_place_and_charges(desk: Desk, charged: bool, public: bool, expected: str) -> None:
    repair = desk.carry(desk.in_public() if public else desk.report(), "ON_SITE")
    if charged:
        price = {"currency_code": "CNY", "units": 35}
        desk.call(
            desk.tree.technician,
            "ChargeRepair",
            name=repair.name,
            charge={"item": "角阀", "quantity": 1, "unit_price": price, "reason": "更换"},
        )
        desk.call(desk.tree.owner, "ConsentRepair", name=repair.name)
    assert pb.FollowUp.Class.Name(getattr(follow_up_of(desk, filed(desk, repair=repair)), "class")) == expected


@pytest.mark.rule("REP-25")
@pytest.mark.parametrize(
    ("returned", "due"),
    [
        (NOON, datetime(2026, 11, 24, tzinfo=CHINA)),
        (NOON.replace(hour=16, minute=59, second=50), datetime(2026, 11, 24, tzinfo=CHINA)),
        (NOON.replace(hour=17, minute=0, second=1), datetime(2026, 11, 25, tzinfo=CHINA)),
    ],
)
def test_a_follow_up_is_due_at_the_end_of_the_day_of_return_or_of_the_next_one_after_17_o_clock(
    desk: Desk, returned: datetime, due: datetime
) -> None:
    follow_up = follow_up_of(desk, filed(desk, returned))
    assert instant(follow_up.due_time) == due
    case = follow_up.name.rsplit("/", 1)[-1]

    def breached() -> list[datetime]:
        return [at for _, type, at in clock_events(desk.database, case) if type == "ClockBreached"]

    desk.sweep_at(due - SECOND)
    assert breached() == []
    desk.sweep_at(due)
    assert breached() == [due]


@pytest.mark.rule("FUP-03", "FUP-11")
@pytest.mark.parametrize("role", ["CUSTOMER_ASSISTANT", "BUILDING_BUTLER", "EARLY_SHIFT_CLERK", "CS_SUPERVISOR"])
def test_three_answers_are_recorded_and_a_satisfied_household_closes_the_follow_up(desk: Desk, role: str) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    closed = desk.call(desk.tree.staff[role], "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert name(closed) == "CLOSED"
    [attempt] = closed.attempts
    assert (attempt.dealt_with, attempt.grade, attempt.opinion, attempt.actor) == (
        True,
        pb.FollowUp.SATISFIED,
        "很快",
        desk.tree.staff[role].name,
    )


@pytest.mark.rule("FUP-03")
def test_others_do_not_ask_and_the_three_questions_must_be_answered(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    for who in (desk.tree.technician, desk.tree.owner, desk.tree.staff["PROJECT_MANAGER"]):
        assert desk.refused(who, "AnswerFollowUp", name=follow_up.name, **SATISFIED).http == 403
    for field in ("method", "grade"):
        answer = desk.refused(clerk, "AnswerFollowUp", name=follow_up.name, **{k: v for k, v in SATISFIED.items() if k != field})
        assert (answer.http, answer.fields) == (400, {field})


@pytest.mark.rule("FUP-12")
def test_a_dissatisfied_household_sends_the_order_back_and_is_asked_again_after_the_rework(desk: Desk, clerk: Any) -> None:
    repair = filed(desk)
    follow_up = follow_up_of(desk, repair)
    unhappy = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **UNHAPPY)
    assert (name(unhappy), state(desk.now(repair))) == ("DISSATISFIED", "REWORK")
    assert published(desk.database, case_id(repair))[-1].type == "RepairReopened"
    desk.carry(desk.now(repair), "FILED")
    again = follow_up_of(desk, repair)
    assert (name(again), again.round) == ("PENDING", 2)
    assert name(desk.call(clerk, "AnswerFollowUp", name=again.name, **SATISFIED)) == "CLOSED"


@pytest.mark.rule("FUP-12")
def test_from_the_second_dissatisfied_round_on_the_supervisor_is_told(desk: Desk, clerk: Any) -> None:
    repair = filed(desk)
    told = []
    for _ in range(3):
        follow_up = follow_up_of(desk, repair)
        desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **UNHAPPY)
        desk.carry(desk.now(repair), "FILED")
        told.append("escalated" in published(desk.database, follow_up.name.rsplit("/", 1)[-1], "FollowUpAnswered")[-1].data)
    assert told == [False, True, True]


@pytest.mark.rule("FUP-26")
@pytest.mark.parametrize(("hour", "minute", "allowed"), [(8, 59, False), (9, 0, True), (19, 59, True), (20, 1, False), (3, 0, False)])
def test_households_are_telephoned_between_9_and_20_o_clock(desk: Desk, clerk: Any, hour: int, minute: int, allowed: bool) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    set_time(desk.database, NOON.replace(day=24, hour=hour, minute=minute, second=10))
    if allowed:
        desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    else:
        answer = desk.refused(clerk, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
        assert (answer.http, answer.reason, answer.rule) == (409, "OUTSIDE_HOURS", "FUP-26")
        desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **(SATISFIED | {"method": "APP"}))


@pytest.mark.rule("FUP-27")
def test_three_attempts_on_two_days_that_reach_nobody_are_for_the_supervisor_to_confirm(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    states = []
    for day, hour in ((23, 13), (23, 18), (24, 10)):
        set_time(desk.database, NOON.replace(day=day, hour=hour))
        states.append(name(desk.call(clerk, "MissFollowUp", name=follow_up.name, method="TELEPHONE")))
    assert states == ["PENDING", "PENDING", "UNREACHED"]
    assert desk.refused(clerk, "ExcuseFollowUp", name=follow_up.name, reason="无人接听").http == 403
    assert name(desk.call(desk.tree.staff["CS_SUPERVISOR"], "ExcuseFollowUp", name=follow_up.name, reason="无人接听")) == "EXCUSED"


@pytest.mark.rule("FUP-27")
def test_three_attempts_on_one_day_are_not_enough(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    for hour in (13, 15, 18):
        set_time(desk.database, NOON.replace(hour=hour))
        assert name(desk.call(clerk, "MissFollowUp", name=follow_up.name, method="TELEPHONE")) == "PENDING"


@pytest.mark.rule("FUP-09", "FUP-27")
def test_rates_count_valid_follow_ups_of_the_orders_returned_in_the_month_against_their_targets(desk: Desk, clerk: Any) -> None:
    """An independent count: ten free repairs, nine followed up, then one excused."""
    repairs = [filed(desk) for _ in range(10)]
    follow_ups = [follow_up_of(desk, repair) for repair in repairs]

    def rate() -> Any:
        rates = desk.call(desk.tree.staff["CS_SUPERVISOR"], "GetFollowUpRates", parent=desk.tree.parent, month="2026-11")
        by_class = {pb.FollowUp.Class.Name(getattr(line, "class")): line for line in rates.rates}
        assert by_class["HOME_REPAIR"].target == 1.0
        return by_class["RECTIFICATION"]

    for follow_up in follow_ups[:8]:
        desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert (rate().orders, rate().valid, rate().rate, rate().met) == (10, 8, 0.8, False)
    desk.call(clerk, "AnswerFollowUp", name=follow_ups[8].name, **SATISFIED)
    assert (rate().valid, rate().rate, rate().target, rate().met) == (9, 0.9, 0.9, True), "0.90 is enough"
    for day, hour in ((23, 14), (23, 18), (24, 10)):
        set_time(desk.database, NOON.replace(day=day, hour=hour))
        desk.call(clerk, "MissFollowUp", name=follow_ups[9].name, method="TELEPHONE")
    desk.call(desk.tree.staff["CS_SUPERVISOR"], "ExcuseFollowUp", name=follow_ups[9].name, reason="搬走了")
    assert (rate().orders, rate().excused, rate().rate) == (10, 1, 1.0)
    other = desk.call(desk.tree.staff["CS_SUPERVISOR"], "GetFollowUpRates", parent=desk.tree.parent, month="2026-10")
    assert {line.orders for line in other.rates} == {0}


@pytest.mark.rule("FUP-24")
def test_the_supervisor_reviews_a_closed_record(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    supervisor = desk.tree.staff["CS_SUPERVISOR"]
    assert desk.refused(supervisor, "ReviewFollowUp", name=follow_up.name).reason == "ILLEGAL_MOVE"
    desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert desk.refused(clerk, "ReviewFollowUp", name=follow_up.name).http == 403
    assert name(desk.call(supervisor, "ReviewFollowUp", name=follow_up.name)) == "REVIEWED"
