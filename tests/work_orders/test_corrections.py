"""What was taken in wrong is put right, and of two orders for one matter one goes on (REP-03, REP-06, REP-35)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.chassis.testing import clock_events, published, set_time
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import CHECKED, Desk, case_id, clock, instant, state

pytestmark = pytest.mark.usefixtures("moving_time")

MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=ZoneInfo("Asia/Shanghai"))
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
WRONG = "登记有误"
BEFORE_DONE = ("REPORTED", "TAKEN", "ON_SITE")


def correct(desk: Desk, repair: pb.Repair, role: str = "CUSTOMER_ASSISTANT", **fields: Any) -> pb.Repair:
    return desk.call(desk.tree.staff[role], "CorrectRepair", name=repair.name, **({"reason": WRONG} | fields))


def merge(desk: Desk, repair: pb.Repair, into: pb.Repair) -> pb.Repair:
    return desk.call(desk.tree.staff["CUSTOMER_ASSISTANT"], "MergeRepair", name=repair.name, duplicate_of=into.name)


@pytest.mark.rule("REP-03")
@pytest.mark.parametrize("role", ["CUSTOMER_ASSISTANT", "CS_SUPERVISOR", "PROJECT_MANAGER"])
def test_the_desk_corrects_a_report_and_the_timeline_keeps_old_and_new(desk: Desk, role: str) -> None:
    first, other = desk.tree.units
    repair = desk.report(contact_phone="13800001111")

    corrected = correct(desk, repair, role, unit=other, category="DRAINAGE", contact_phone="13900002222", location="卫生间")

    assert (corrected.unit, corrected.category, corrected.location) == (other, pb.Repair.DRAINAGE, "卫生间")
    assert corrected.contact_phone == "13900002222"
    assert state(corrected) == "REPORTED"
    line = desk.history(repair)[-1]
    says = f"unit: {first} → {other}, location: - → 卫生间, category: LEAK → DRAINAGE, contact_phone: 138****1111 → 139****2222"
    assert (line.action, line.note) == ("correct", f"{WRONG} ({says})")
    event = published(desk.database, case_id(repair), "RepairCorrected")[0]
    assert event.data["unitId"] == str(desk.tree.units[other])
    assert event.data["previousUnitId"] == str(desk.tree.units[first])
    assert event.data["category"] == "DRAINAGE"
    assert event.data["changed"] == ["unit", "location", "category", "contact_phone"]
    assert "urgent" not in event.data


def test_only_the_desk_corrects_and_only_with_a_reason(desk: Desk) -> None:
    repair = desk.report()
    for who in (desk.tree.owner, desk.tree.technician, desk.tree.staff["BUILDING_BUTLER"]):
        assert desk.refused(who, "CorrectRepair", name=repair.name, reason=WRONG, urgent=True).http == 403
    answer = desk.refused(desk.tree.staff["CS_SUPERVISOR"], "CorrectRepair", name=repair.name, urgent=True)
    assert (answer.http, answer.fields) == (400, {"reason"})
    assert desk.now(repair) == repair


@pytest.mark.parametrize("at", ["REPORTED", "TAKEN", "ON_SITE", "DONE", "ACCEPTED", "FILED"])
def test_a_correction_is_possible_until_the_work_is_done(desk: Desk, at: str) -> None:
    repair = desk.at(at)
    if at in BEFORE_DONE:
        assert correct(desk, repair, location="阳台").location == "阳台"
        return
    answer = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "CorrectRepair", name=repair.name, reason=WRONG, location="阳台")
    assert (answer.http, answer.reason) == (409, "ILLEGAL_MOVE")


@pytest.mark.parametrize(
    ("fields", "reason", "wrong"),
    [
        ({"unit": "9-9-9999"}, "UNIT_NOT_FOUND", {"unit"}),
        ({"unit": ""}, "INVALID_INPUT", {"location"}),
        ({"location": ""}, "NOTHING_TO_CORRECT", {"name"}),
        ({"category": "LEAK"}, "NOTHING_TO_CORRECT", {"name"}),
        ({}, "NOTHING_TO_CORRECT", {"name"}),
        ({"category": "BURST_PIPE", "urgent": False}, "INVALID_INPUT", {"urgent"}),
        ({"category": "CATEGORY_UNSPECIFIED"}, "INVALID_INPUT", {"category"}),
        ({"contact_phone": "call me"}, "INVALID_INPUT", {"contact_phone"}),
    ],
)
def test_a_correction_that_is_none_is_refused_and_changes_nothing(desk: Desk, fields: dict[str, Any], reason: str, wrong: set[str]) -> None:
    repair = desk.report()
    answer = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "CorrectRepair", name=repair.name, reason=WRONG, **fields)
    assert (answer.http, answer.reason, answer.fields) == (400, reason, wrong)
    assert desk.now(repair) == repair


def test_a_report_for_a_unit_can_turn_out_to_be_one_for_a_public_area_and_the_household_no_longer_sees_it(desk: Desk) -> None:
    repair = desk.report(desk.tree.staff["CUSTOMER_ASSISTANT"], contact_phone="13800001111")
    assert desk.call(desk.tree.owner, "GetRepair", name=repair.name).unit == desk.tree.unit
    corrected = correct(desk, repair, unit="", location="1栋大堂")
    assert (corrected.unit, corrected.location) == ("", "1栋大堂")
    assert desk.refused(desk.tree.owner, "GetRepair", name=repair.name).http == 404


@pytest.mark.rule("REP-15")
def test_another_unit_has_consented_to_nothing_yet(desk: Desk) -> None:
    repair = desk.at("ON_SITE")
    price = {"currency_code": "CNY", "units": 80}
    desk.call(
        desk.tree.technician,
        "ChargeRepair",
        name=repair.name,
        charge={"item": "阀门", "quantity": 1, "unit_price": price, "reason": "人为"},
    )
    assert desk.call(desk.tree.owner, "ConsentRepair", name=repair.name).HasField("consent")
    moved = correct(desk, repair, unit=list(desk.tree.units)[-1])
    assert not moved.HasField("consent")
    done = {"work_done": "换了阀门", "self_check": CHECKED}
    assert desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, **done).reason == "CONSENT_MISSING"


@pytest.mark.rule("REP-06", "REP-38")
def test_an_order_that_turns_out_urgent_is_timed_as_urgent_and_what_was_spent_stays_spent(desk: Desk) -> None:
    set_time(desk.database, MONDAY)
    repair = desk.report()
    start = instant(repair.report_time)
    set_time(desk.database, start + 10 * MINUTE)

    urgent = correct(desk, repair, category="BURST_PIPE")

    assert urgent.urgent
    assert {name: clock(urgent, name).target_seconds for name in ("pickup", "on_site", "resolve")} == {
        "pickup": 900,
        "on_site": 1800,
        "resolve": 14400,
    }
    due = instant(clock(urgent, "pickup").due_time)
    assert abs(due - (start + 15 * MINUTE)) < SECOND, "ten of its fifteen minutes are gone"
    desk.sweep_at(due - SECOND)
    told = [(name, type) for name, type, _ in clock_events(desk.database, case_id(repair))]
    assert told == [("pickup", "ClockWarned")]
    desk.sweep_at(due)
    assert ("pickup", "ClockBreached", due) in clock_events(desk.database, case_id(repair))


@pytest.mark.rule("REP-06")
def test_an_order_that_is_not_urgent_after_all_gets_working_hours_and_its_breach_stands(desk: Desk) -> None:
    set_time(desk.database, MONDAY)
    repair = desk.report(urgent=True)
    start = instant(repair.report_time)
    desk.sweep_at(start + 16 * MINUTE)  # pickup is breached, on_site is not

    ordinary = correct(desk, repair, urgent=False)

    assert not ordinary.urgent
    assert clock(ordinary, "pickup").breached
    assert not clock(ordinary, "on_site").breached
    assert clock(ordinary, "on_site").target_seconds == 24 * 3600
    assert clock(ordinary, "resolve").target_seconds == 72 * 3600
    left = timedelta(hours=24) - 16 * MINUTE  # of working time, seven hours a day (from 9:16, three working days and a bit)
    assert instant(clock(ordinary, "on_site").due_time) > start + left
    desk.sweep_at(start + 31 * MINUTE)
    assert not [event for event in clock_events(desk.database, case_id(repair)) if event[:2] == ("on_site", "ClockBreached")]


def test_an_urgent_category_corrected_to_an_ordinary_one_stays_urgent_until_that_is_corrected_too(desk: Desk) -> None:
    repair = desk.report(category="BURST_PIPE")
    assert correct(desk, repair, category="LEAK").urgent
    assert not correct(desk, repair, urgent=False).urgent


def test_a_paused_order_can_be_corrected_and_its_clocks_stand_still_until_it_goes_on(desk: Desk) -> None:
    set_time(desk.database, MONDAY)
    repair = desk.at("TAKEN")
    desk.call(desk.tree.technician, "PauseRepair", name=repair.name, reason="等配件")
    urgent = correct(desk, repair, urgent=True)
    assert urgent.paused
    assert clock(urgent, "resolve").paused
    set_time(desk.database, MONDAY + 5 * 60 * MINUTE)
    resumed = desk.call(desk.tree.technician, "ResumeRepair", name=repair.name)
    left = instant(clock(resumed, "resolve").due_time) - (MONDAY + 5 * 60 * MINUTE)
    assert timedelta(hours=4) - MINUTE < left < timedelta(hours=4) + MINUTE


# --- duplicates -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("REP-35")
def test_a_duplicate_is_cancelled_with_a_link_and_what_was_said_about_it_goes_to_the_order_that_goes_on(desk: Desk) -> None:
    survivor, duplicate = desk.at("TAKEN"), desk.report(desk.tree.neighbour, unit=list(desk.tree.units)[-1])
    desk.call(desk.tree.neighbour, "CommentRepair", name=duplicate.name, text="天花板也在滴水")
    desk.call(desk.tree.neighbour, "UrgeRepair", name=duplicate.name, note="快一点")

    merged = merge(desk, duplicate, survivor)

    assert (state(merged), merged.duplicate_of, merged.cancel_reason) == ("CANCELLED", survivor.name, survivor.number)
    assert all(clock.HasField("stop_time") and not clock.breached for clock in merged.clocks)
    now = desk.now(survivor)
    assert (state(now), now.urge_count, now.duplicate_of) == ("TAKEN", 1, "")
    lines = [(line.action, line.actor, line.note) for line in desk.history(survivor)][-3:]
    assert lines == [
        ("comment", desk.tree.neighbour.name, f"{duplicate.number}: 天花板也在滴水"),
        ("urge", desk.tree.neighbour.name, f"{duplicate.number}: 快一点"),
        ("absorb", desk.tree.staff["CUSTOMER_ASSISTANT"].name, duplicate.number),
    ]
    told = published(desk.database, case_id(duplicate), "RepairMerged", "RepairCancelled")
    assert [event.type for event in told] == ["RepairMerged", "RepairCancelled"]
    assert told[0].data["duplicateOf"] == case_id(survivor)
    assert told[0].data["duplicateOfNumber"] == survivor.number


@pytest.mark.rule("REP-06")
def test_the_urgency_of_a_duplicate_is_not_lost(desk: Desk) -> None:
    survivor, duplicate = desk.report(), desk.report(urgent=True)
    merge(desk, duplicate, survivor)
    now = desk.now(survivor)
    assert now.urgent
    assert clock(now, "pickup").target_seconds == 900
    assert published(desk.database, case_id(survivor), "RepairCorrected")[0].data["changed"] == ["urgent"]


@pytest.mark.parametrize("at", ["ON_SITE", "DONE", "ACCEPTED", "FILED"])
def test_an_order_that_work_has_begun_on_is_nobodys_duplicate(desk: Desk, at: str) -> None:
    repair, other = desk.at(at), desk.report()
    answer = desk.refused(desk.tree.staff["CS_SUPERVISOR"], "MergeRepair", name=repair.name, duplicate_of=other.name)
    assert (answer.http, answer.reason) == (409, "ILLEGAL_MOVE")


@pytest.mark.parametrize("at", ["ACCEPTED", "FILED", "CANCELLED"])
def test_a_closed_order_takes_nothing_over_and_the_duplicate_stays_open(desk: Desk, at: str) -> None:
    if at == "CANCELLED":
        closed = desk.call(desk.tree.owner, "CancelRepair", name=desk.report().name, reason="不用了")
    else:
        closed = desk.at(at)
    repair = desk.report()
    answer = desk.refused(desk.tree.staff["CS_SUPERVISOR"], "MergeRepair", name=repair.name, duplicate_of=closed.name)
    assert (answer.http, answer.reason) == (409, "SURVIVOR_CLOSED")
    assert desk.now(repair) == repair


def test_an_order_is_merged_neither_with_itself_nor_with_one_of_another_estate_nor_by_others(desk: Desk, elsewhere: Desk) -> None:
    repair, foreign, supervisor = desk.report(), elsewhere.report(), desk.tree.staff["CS_SUPERVISOR"]
    assert desk.refused(supervisor, "MergeRepair", name=repair.name, duplicate_of=repair.name).reason == "DUPLICATE_OF_ITSELF"
    for other in (foreign.name, foreign.name.replace(elsewhere.tree.code, desk.tree.code), f"{desk.tree.parent}/repairs/none"):
        assert desk.refused(supervisor, "MergeRepair", name=repair.name, duplicate_of=other).reason == "REPAIR_NOT_FOUND"
    for who in (desk.tree.owner, desk.tree.technician):
        assert desk.refused(who, "MergeRepair", name=repair.name, duplicate_of=desk.report().name).http == 403
    assert desk.now(repair) == repair
