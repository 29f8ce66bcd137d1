"""Follow-ups of repairs: who asks whom, when, and what an answer leads to (FUP rows, REP-25, REP-33)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from services.chassis.testing import clock_events, published, set_time
from services.work_orders import policies
from steward.work_orders.v1 import followups_pb2 as pb
from tests.work_orders.asking import (
    CHINA,
    DAY,
    HOUR,
    NOON,
    SATISFIED,
    SECOND,
    UNHAPPY,
    asked,
    case,
    charged,
    filed,
    follow_up_of,
    kind,
    name,
    override,
    seen,
)
from tests.work_orders.conftest import CHECKED, Desk, case_id, instant, state

pytestmark = pytest.mark.usefixtures("moving_time")


@pytest.fixture
def clerk(desk: Desk) -> Any:
    return desk.tree.staff["EARLY_SHIFT_CLERK"]


@pytest.mark.rule("FUP-01", "FUP-06")
def test_every_order_that_came_back_is_followed_up_and_none_before(desk: Desk) -> None:
    supervisor = desk.tree.staff["CS_SUPERVISOR"]
    accepted = [desk.at("ACCEPTED"), desk.carry(desk.in_public(), "ACCEPTED")]
    desk.call(desk.tree.owner, "CancelRepair", name=desk.report().name, reason="不用了")
    assert not desk.call(supervisor, "ListFollowUps", parent=desk.tree.parent).follow_ups
    for order in accepted:
        repair = desk.step(order)
        follow_up = follow_up_of(desk, repair)
        assert (name(follow_up), follow_up.repair_number, follow_up.round) == ("PENDING", repair.number, 1)
        assert follow_up.number.startswith("HF-")
    assert len(desk.call(supervisor, "ListFollowUps", parent=desk.tree.parent).follow_ups) == 2


def at_place(desk: Desk, where: str) -> Any:
    return desk.carry(desk.in_public() if where == "public" else desk.report(), "ON_SITE")


@pytest.mark.rule("REP-33", "FUP-14")
@pytest.mark.parametrize(
    ("where", "how", "expected"),
    [
        ("unit", "free", "RECTIFICATION"),
        ("unit", "charged", "HOME_REPAIR"),
        ("unit", "explained", "COMMUNICATION"),
        ("unit", "explained and charged", "HOME_REPAIR"),
        ("public", "free", "PUBLIC_AREA"),
        ("public", "charged", "PUBLIC_AREA"),
        ("public", "explained", "COMMUNICATION"),
    ],
)
def test_every_order_carries_one_class_by_its_place_its_charges_and_what_was_done(desk: Desk, where: str, how: str, expected: str) -> None:
    """REP-33 with the default that a free repair inside a unit is a rectification."""
    repair = at_place(desk, where)
    if "charged" in how:
        repair = charged(desk, repair, kind="LABOUR")
    said = {"work_done": "查看过，已向业主说明", "self_check": CHECKED, "explained_only": "explained" in how}
    done = desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, **said)
    assert done.explained_only == ("explained" in how)
    assert kind(follow_up_of(desk, filed(desk, repair=done))) == expected


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

    def breached() -> list[datetime]:
        return [at for _, type, at in clock_events(desk.database, case(follow_up)) if type == "ClockBreached"]

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


@pytest.mark.rule("FUP-12", "X-07")
def test_from_the_second_dissatisfied_round_on_the_supervisor_is_told(desk: Desk, clerk: Any) -> None:
    repair = filed(desk)
    told = []
    for _ in range(3):
        follow_up = follow_up_of(desk, repair)
        desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **UNHAPPY)
        desk.carry(desk.now(repair), "FILED")
        told.append("escalated" in published(desk.database, case(follow_up), "FollowUpAnswered")[-1].data)
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


@pytest.mark.rule("FUP-24")
def test_the_supervisor_reviews_a_closed_record(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    supervisor = desk.tree.staff["CS_SUPERVISOR"]
    assert desk.refused(supervisor, "ReviewFollowUp", name=follow_up.name).reason == "ILLEGAL_MOVE"
    desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **(SATISFIED | {"opinion": ""}))
    for who in (clerk, desk.tree.staff["BUILDING_BUTLER"], desk.tree.staff["PROJECT_MANAGER"]):
        assert desk.refused(who, "ReviewFollowUp", name=follow_up.name).http == 403
    assert name(desk.call(supervisor, "ReviewFollowUp", name=follow_up.name)) == "REVIEWED"


@pytest.mark.rule("FUP-20")
def test_of_an_opinion_the_supervisor_decides_what_is_improved_or_that_nothing_is(desk: Desk, clerk: Any) -> None:
    supervisor = desk.tree.staff["CS_SUPERVISOR"]
    critical, praising = asked(desk, opinion="希望提前打电话"), asked(desk, opinion="很好")
    answer = desk.refused(supervisor, "ReviewFollowUp", name=critical.name, note="已阅")
    assert (answer.http, answer.reason, answer.rule, answer.fields) == (400, "MEASURE_MISSING", "FUP-20", {"measure"})
    assert desk.refused(supervisor, "ReviewFollowUp", name=critical.name, measure="  ").reason == "MEASURE_MISSING"
    improved = desk.call(supervisor, "ReviewFollowUp", name=critical.name, measure="上门前半小时电话预约，列入班前会")
    assert (name(improved), improved.measure) == ("REVIEWED", "上门前半小时电话预约，列入班前会")
    assert published(desk.database, case(critical), "FollowUpReviewed")[0].data["improved"] is True
    assert desk.call(supervisor, "ReviewFollowUp", name=praising.name, nothing_to_improve=True).measure == ""
    assert "improved" not in published(desk.database, case(praising), "FollowUpReviewed")[0].data


@pytest.mark.rule("FUP-05")
@pytest.mark.parametrize("method", ["TELEPHONE", "VISIT", "APP"])
def test_households_are_asked_by_telephone_visit_or_app_and_the_method_is_recorded(desk: Desk, clerk: Any, method: str) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    desk.call(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=NOON + HOUR)
    closed = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **(SATISFIED | {"method": method}))
    assert [pb.FollowUp.Method.Name(attempt.method) for attempt in closed.attempts] == [method]
    other = follow_up_of(desk, filed(desk))
    assert desk.refused(clerk, "AnswerFollowUp", name=other.name, **(SATISFIED | {"method": "METHOD_UNSPECIFIED"})).fields == {"method"}


@pytest.mark.rule("FUP-26")
def test_a_household_that_is_not_satisfied_says_why_and_one_that_is_gives_no_reason(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    for said in (UNHAPPY | {"reason": 0}, SATISFIED | {"reason": "PRICE"}):
        answer = desk.refused(clerk, "AnswerFollowUp", name=follow_up.name, **said)
        assert (answer.http, answer.rule, answer.fields) == (400, "FUP-26", {"reason"})
    unhappy = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **(UNHAPPY | {"reason": "ATTITUDE"}))
    assert unhappy.attempts[0].reason == pb.FollowUp.ATTITUDE
    assert published(desk.database, case(follow_up), "FollowUpAnswered")[0].data["reason"] == "ATTITUDE"


@pytest.mark.rule("FUP-25")
def test_the_cs_supervisor_follows_up_together_with_the_departments_concerned(desk: Desk, elsewhere: Desk) -> None:
    supervisor, engineering = desk.tree.staff["CS_SUPERVISOR"], desk.tree.staff["ENGINEERING_SUPERVISOR"]
    follow_up = follow_up_of(desk, filed(desk))
    doer, stranger = desk.tree.technician, elsewhere.tree.staff["ENGINEERING_SUPERVISOR"]
    for nobody in (doer, stranger, supervisor):
        answer = desk.refused(supervisor, "AnswerFollowUp", name=follow_up.name, companions=[engineering.name, nobody.name], **SATISFIED)
        assert (answer.http, answer.reason, answer.fields) == (400, "COMPANION_NOT_FOUND", {"companions[1]"})
    assert desk.refused(engineering, "AnswerFollowUp", name=follow_up.name, **SATISFIED).http == 403, "but it does not carry it out alone"
    closed = desk.call(supervisor, "AnswerFollowUp", name=follow_up.name, companions=[engineering.name], **SATISFIED)
    assert (closed.attempts[0].actor, list(closed.attempts[0].companions)) == (supervisor.name, [engineering.name])


# --- time with the household, and by when it will be put right -----------------------------------------------------------


@pytest.mark.rule("FUP-22", "X-06")
def test_a_visit_is_planned_appointed_by_telephone_made_and_recorded_with_what_was_solved_on_the_spot(desk: Desk, clerk: Any) -> None:
    follow_up, at = follow_up_of(desk, filed(desk)), NOON + 3 * HOUR
    visit = SATISFIED | {"method": "VISIT", "opinion": "水压还是小", "explanation": "现场调大了入户阀"}
    for rpc, said in (("AnswerFollowUp", visit), ("MissFollowUp", {"method": "VISIT"})):
        answer = desk.refused(clerk, rpc, name=follow_up.name, **said)
        assert (answer.http, answer.reason, answer.rule) == (409, "APPOINTMENT_REQUIRED", "FUP-22")
    appointed = desk.call(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=at, note="与王女士电话约定")
    assert (instant(appointed.appointment_time), instant(appointed.due_time)) == (at, instant(follow_up.due_time))
    assert published(desk.database, case(follow_up), "FollowUpAppointed")[0].data["assignee"] == clerk.name
    set_time(desk.database, at)
    closed = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **visit)
    [attempt] = closed.attempts
    assert (name(closed), attempt.opinion, attempt.explanation) == ("CLOSED", "水压还是小", "现场调大了入户阀")
    assert desk.refused(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=at + HOUR).reason == "ILLEGAL_MOVE"


@pytest.mark.rule("FUP-22")
def test_an_appointment_of_another_day_puts_the_follow_up_off_to_that_days_end(desk: Desk, clerk: Any) -> None:
    follow_up, due = follow_up_of(desk, filed(desk)), datetime(2026, 11, 27, tzinfo=CHINA)
    appointed = desk.call(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=NOON + 3 * DAY)
    assert instant(appointed.due_time) == instant(appointed.clocks[0].due_time) == due

    def breached() -> list[datetime]:
        return [at for _, type, at in clock_events(desk.database, case(follow_up)) if type == "ClockBreached"]

    desk.sweep_at(due - SECOND)
    assert breached() == []
    desk.sweep_at(due)
    assert breached() == [due]


@pytest.mark.rule("FUP-22")
def test_a_visit_that_met_nobody_needs_another_appointment(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    desk.call(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=NOON + HOUR)
    assert not desk.call(clerk, "MissFollowUp", name=follow_up.name, method="VISIT").HasField("appointment_time")
    assert desk.refused(clerk, "MissFollowUp", name=follow_up.name, method="VISIT").reason == "APPOINTMENT_REQUIRED"


@pytest.mark.rule("FUP-22", "FUP-26")
@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (NOON - HOUR, "INVALID"),
        (NOON + 7 * DAY, ""),
        (NOON + 8 * DAY, "INVALID"),
        (NOON.replace(hour=20, minute=1), "OUTSIDE_HOURS"),
        (NOON.replace(day=24, hour=8, minute=59), "OUTSIDE_HOURS"),
        (NOON.replace(day=24, hour=9), ""),
    ],
)
def test_an_appointment_lies_in_the_next_seven_days_and_in_the_hours_of_visits(desk: Desk, clerk: Any, at: datetime, reason: str) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    if not reason:
        assert instant(desk.call(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=at).appointment_time) == at
        return
    answer = desk.refused(clerk, "AppointFollowUp", name=follow_up.name, appointment_time=at)
    if reason == "INVALID":
        assert (answer.http, answer.fields) == (400, {"appointment_time"})
    else:
        assert (answer.http, answer.reason) == (409, reason)


@pytest.mark.rule("FUP-23")
def test_what_cannot_be_solved_at_once_gets_a_time_and_is_missed_at_that_time_and_not_a_second_before(desk: Desk, clerk: Any) -> None:
    follow_up, due = follow_up_of(desk, filed(desk)), NOON + 2 * DAY
    unhappy = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **(UNHAPPY | {"explanation": "配件后天到"}), solution_time=due)
    assert (name(unhappy), instant(unhappy.solution_time)) == ("DISSATISFIED", due)
    assert published(desk.database, case(follow_up), "FollowUpPromised")[0].data["repairNumber"] == follow_up.repair_number

    def fired() -> list[tuple[str, datetime]]:
        return [
            (type, at) for clock, type, at in clock_events(desk.database, case(follow_up)) if clock == "solution" and "Warn" not in type
        ]

    desk.sweep_at(due - SECOND)
    assert fired() == []
    desk.sweep_at(due)
    assert fired() == [("ClockBreached", due)]
    later = desk.call(clerk, "PromiseFollowUp", name=follow_up.name, solution_time=due + DAY, explanation="厂家延期，已向业主致歉")
    assert [clock.breached for clock in later.clocks if clock.clock == "solution"] == [True, False], "what was missed stays missed"
    desk.sweep_at(due + DAY - SECOND)
    assert fired() == [("ClockBreached", due)]
    desk.sweep_at(due + DAY)
    assert fired()[-1] == ("ClockBreached", due + DAY)


@pytest.mark.rule("FUP-23")
def test_the_solution_is_in_time_when_the_order_comes_back_before_it(desk: Desk, clerk: Any) -> None:
    repair = filed(desk)
    follow_up = follow_up_of(desk, repair)
    unhappy = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **UNHAPPY)
    assert instant(unhappy.solution_time) - instant(unhappy.attempts[0].attempt_time) == timedelta(hours=72), (
        "unless another time is agreed"
    )
    set_time(desk.database, NOON + 2 * DAY)
    desk.carry(desk.now(repair), "FILED")
    desk.sweep_at(NOON + 9 * DAY)
    [clock] = [clock for clock in seen(desk, follow_up).clocks if clock.clock == "solution"]
    assert (clock.breached, clock.HasField("stop_time")) == (False, True)


@pytest.mark.rule("FUP-23")
def test_a_solution_is_promised_for_the_next_thirty_days_to_who_waits_for_one(desk: Desk, clerk: Any) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    for at in (NOON - HOUR, NOON + 31 * DAY):
        answer = desk.refused(clerk, "AnswerFollowUp", name=follow_up.name, solution_time=at, **UNHAPPY)
        assert (answer.http, answer.rule, answer.fields) == (400, "FUP-23", {"solution_time"})
    answer = desk.refused(clerk, "AnswerFollowUp", name=follow_up.name, solution_time=NOON + DAY, **SATISFIED)
    assert (answer.http, answer.fields) == (400, {"solution_time"})
    promise = {"name": follow_up.name, "solution_time": NOON + DAY, "explanation": "配件明天到"}
    assert desk.refused(clerk, "PromiseFollowUp", **promise).reason == "ILLEGAL_MOVE"
    desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **UNHAPPY)
    assert desk.refused(clerk, "PromiseFollowUp", **(promise | {"explanation": ""})).fields == {"explanation"}
    assert desk.refused(desk.tree.technician, "PromiseFollowUp", **promise).http == 403
    assert instant(desk.call(clerk, "PromiseFollowUp", **promise).solution_time) == NOON + DAY


@pytest.mark.rule("FUP-27")
def test_attempts_shortly_one_after_the_other_are_one_attempt(desk: Desk, clerk: Any) -> None:
    """FUP-27 asks for different times: an hour apart, unless the estate says otherwise."""
    follow_up = follow_up_of(desk, filed(desk))
    states = []
    for at in (
        NOON + HOUR,
        NOON + HOUR + timedelta(minutes=50),
        NOON + DAY,
        NOON + DAY + timedelta(minutes=59),
        NOON + DAY + HOUR + 5 * SECOND,
    ):
        set_time(desk.database, at)
        states.append(name(desk.call(clerk, "MissFollowUp", name=follow_up.name, method="TELEPHONE")))
    assert states == ["PENDING", "PENDING", "PENDING", "PENDING", "UNREACHED"]
    override(desk, policies.FOLLOWUP_ATTEMPT_GAP, 0)
    other = follow_up_of(desk, filed(desk))
    for at in (NOON + HOUR, NOON + HOUR + 20 * SECOND, NOON + DAY):
        set_time(desk.database, at)
        last = name(desk.call(clerk, "MissFollowUp", name=other.name, method="TELEPHONE"))
    assert last == "UNREACHED"
