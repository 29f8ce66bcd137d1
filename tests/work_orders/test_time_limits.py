"""Pick-up, arrival and solution are timed: each limit fires at its instant and is silent one second before (REP-09, 10, 38, X-34)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.chassis import clocks
from services.chassis.errors import InvalidInput
from services.chassis.testing import advance, clock_events, set_time
from services.work_orders import policies
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import Desk, case_id, clock, instant

pytestmark = pytest.mark.usefixtures("moving_time")

CHINA = ZoneInfo("Asia/Shanghai")
NIGHT = datetime(2026, 11, 22, 3, 10, tzinfo=CHINA)  # a Sunday
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=CHINA)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def reported(desk: Desk, at: datetime, **said: object) -> tuple[pb.Repair, datetime]:
    """A report at an instant of business time: the order, and the instant to the microsecond."""
    set_time(desk.database, at)
    repair = desk.report(**said)
    return repair, instant(repair.report_time)


def told(desk: Desk, repair: pb.Repair, name: str) -> list[tuple[str, datetime]]:
    return [(type, at) for clock_name, type, at in clock_events(desk.database, case_id(repair)) if clock_name == name]


def fires(desk: Desk, repair: pb.Repair, name: str, type: str, due: datetime) -> None:
    """Silent one second before, there at the instant itself, and dated so."""
    before = told(desk, repair, name)
    desk.sweep_at(due - SECOND)
    assert told(desk, repair, name) == before, f"{type} of {name} is silent one second before"
    desk.sweep_at(due)
    assert told(desk, repair, name) == [*before, (type, due)]


@pytest.mark.rule("REP-10", "REP-38")
def test_an_urgent_order_that_nobody_collects_is_reminded_after_12_minutes_and_breached_after_15_at_night(desk: Desk) -> None:
    repair, start = reported(desk, NIGHT, category="BURST_PIPE")
    fires(desk, repair, "pickup", "ClockWarned", start + 12 * MINUTE)
    fires(desk, repair, "pickup", "ClockBreached", start + 15 * MINUTE)
    assert clock(desk.now(repair), "pickup").breached


@pytest.mark.rule("REP-09", "REP-10")
def test_an_ordinary_order_is_collected_within_two_working_hours(desk: Desk) -> None:
    repair, start = reported(desk, MONDAY.replace(hour=11))
    fires(desk, repair, "pickup", "ClockWarned", start + 96 * MINUTE + 2 * HOUR)  # the midday break is no working time
    fires(desk, repair, "pickup", "ClockBreached", start + 4 * HOUR)


@pytest.mark.rule("REP-10")
def test_an_ordinary_order_of_sunday_night_waits_for_mondays_working_hours(desk: Desk) -> None:
    repair, _ = reported(desk, NIGHT)
    fires(desk, repair, "pickup", "ClockWarned", MONDAY.replace(hour=8, minute=30) + 96 * MINUTE)
    fires(desk, repair, "pickup", "ClockBreached", MONDAY.replace(hour=10, minute=30))


@pytest.mark.rule("REP-09")
def test_whoever_is_responsible_is_told_rung_by_rung_until_somebody_collects_the_order(desk: Desk) -> None:
    repair, start = reported(desk, NIGHT, category="BURST_PIPE")
    due = start + 15 * MINUTE
    for rung, role in enumerate(("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER", "MANAGEMENT_DEPT_MANAGER", "GENERAL_MANAGER")):
        desk.sweep_at(due + rung * 15 * MINUTE)
        with desk.database.read() as tx:
            rows = tx.execute(
                "SELECT data->'rung', data->>'role', data->'clock'->>'number', data->'clock'->'urgent' FROM events"
                " WHERE aggregate = 'clock' AND data->'clock'->>'aggregateId' = %s AND data->'clock'->>'clock' = 'pickup' ORDER BY sequence DESC LIMIT 1",
                (case_id(repair),),
            )
        assert rows == [(rung + 1, role, repair.number, True)]
    desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    count = len(told(desk, repair, "pickup"))
    desk.sweep_at(due + timedelta(days=1))
    assert len(told(desk, repair, "pickup")) == count == 5


@pytest.mark.rule("REP-10")
def test_an_order_that_is_collected_in_time_is_never_breached_and_the_last_second_counts(desk: Desk) -> None:
    repair, start = reported(desk, NIGHT, category="BURST_PIPE")
    set_time(desk.database, start + 15 * MINUTE - SECOND)
    taken = desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    assert not clock(taken, "pickup").breached
    desk.sweep_at(start + HOUR)
    assert [type for type, _ in told(desk, repair, "pickup")] == ["ClockWarned"], "the reminder had come due before"
    late, start = reported(desk, NIGHT, category="BURST_PIPE")
    set_time(desk.database, start + 15 * MINUTE + SECOND)
    assert clock(desk.call(desk.tree.technician, "TakeRepair", name=late.name), "pickup").breached, "though no sweep ran in between"


@pytest.mark.rule("REP-10")
def test_an_order_that_is_given_back_gets_the_whole_time_again(desk: Desk) -> None:
    repair, start = reported(desk, NIGHT, category="BURST_PIPE")
    set_time(desk.database, start + 10 * MINUTE)
    desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    desk.call(desk.tree.technician, "ReturnRepair", name=repair.name, reason="缺配件")
    again = instant(clock(desk.now(repair), "pickup").start_time)
    fires(desk, repair, "pickup", "ClockWarned", again + 12 * MINUTE)
    fires(desk, repair, "pickup", "ClockBreached", again + 15 * MINUTE)


@pytest.mark.rule("REP-38")
def test_somebody_is_on_site_within_30_minutes_of_an_urgent_report_whether_the_order_was_collected_or_not(desk: Desk) -> None:
    repair, start = reported(desk, NIGHT, category="WATER_CUT")
    desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    fires(desk, repair, "on_site", "ClockWarned", start + 24 * MINUTE)
    fires(desk, repair, "on_site", "ClockBreached", start + 30 * MINUTE)
    arrived = desk.call(desk.tree.technician, "ArriveRepair", name=repair.name)
    assert clock(arrived, "on_site").breached, "arriving late withdraws nothing"


@pytest.mark.rule("REP-14", "REP-38")
def test_the_technician_of_an_ordinary_order_is_on_site_at_the_appointment(desk: Desk) -> None:
    at = MONDAY + timedelta(days=1, hours=5, minutes=30)
    set_time(desk.database, MONDAY)
    repair = desk.report(appointment_time=at)
    start = instant(repair.report_time)
    fires(desk, repair, "on_site", "ClockWarned", start + (at - start) * 0.8)
    fires(desk, repair, "on_site", "ClockBreached", at.astimezone(UTC))


@pytest.mark.rule("REP-38")
def test_an_appointment_made_at_dispatch_is_the_one_that_counts(desk: Desk) -> None:
    repair, _ = reported(desk, MONDAY)
    at = MONDAY + timedelta(hours=6)
    desk.call(
        desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=repair.name, technician=desk.tree.technician.name, appointment_time=at
    )
    assert instant(clock(desk.now(repair), "on_site").due_time) == at
    desk.sweep_at(at - SECOND)
    assert "ClockBreached" not in [type for type, _ in told(desk, repair, "on_site")]
    desk.sweep_at(at)
    assert told(desk, repair, "on_site")[-1] == ("ClockBreached", at)


@pytest.mark.rule("REP-38")
def test_without_an_appointment_an_ordinary_visit_is_due_after_24_working_hours(desk: Desk) -> None:
    repair, start = reported(desk, MONDAY.replace(hour=8, minute=30))
    desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    desk.sweep_at(start + timedelta(days=3))
    fires(desk, repair, "on_site", "ClockBreached", start + timedelta(days=3, hours=3))  # 24 h = three days of seven hours and three hours


@pytest.mark.rule("X-34")
def test_an_urgent_case_is_solved_within_four_hours_and_an_ordinary_one_within_72_working_hours(desk: Desk) -> None:
    urgent, start = reported(desk, NIGHT, category="POWER_CUT")
    fires(desk, urgent, "resolve", "ClockWarned", start + 192 * MINUTE)
    fires(desk, urgent, "resolve", "ClockBreached", start + 4 * HOUR)
    ordinary, start = reported(desk, MONDAY.replace(hour=8, minute=30))
    due = clock(ordinary, "resolve").due_time
    assert instant(due) == start + timedelta(days=14, hours=2), "ten days of seven hours, two weekends, two hours"


@pytest.mark.rule("REP-10", "X-34")
@pytest.mark.parametrize(
    ("policy", "said", "name"),
    [
        (policies.PICKUP_URGENT, {"category": "BURST_PIPE"}, "pickup"),
        (policies.ON_SITE_URGENT, {"category": "BURST_PIPE"}, "on_site"),
        (policies.RESOLVE_URGENT, {"category": "BURST_PIPE"}, "resolve"),
        (policies.PICKUP, {}, "pickup"),
        (policies.ON_SITE, {}, "on_site"),
        (policies.RESOLVE, {}, "resolve"),
    ],
    ids=lambda value: getattr(value, "key", None),
)
def test_every_limit_is_a_policy_that_the_estate_may_override(desk: Desk, policy: policies.Policy, said: dict[str, str], name: str) -> None:
    with desk.database.transaction() as tx:
        tx.execute(
            "INSERT INTO policy_overrides (key, node_id, value, changed_by) VALUES (%s, %s, %s, 'test')",
            (policy.key, desk.tree.estate_id, json.dumps(77)),
        )
    forget_policies(desk)
    assert clock(desk.report(**said), name).target_seconds == 77


@pytest.mark.rule("REP-38")
def test_the_half_hour_of_an_urgent_visit_can_be_shortened_but_by_nobody_prolonged() -> None:
    for allowed in (1, 1799, 1800):
        policies.ON_SITE_URGENT.check(allowed)
    with pytest.raises(InvalidInput, match="等级标准"):
        policies.ON_SITE_URGENT.check(1801)


@pytest.mark.rule("REP-35")
def test_while_an_order_is_paused_its_clocks_stand_still_and_go_on_with_what_remained(desk: Desk) -> None:
    repair, start = reported(desk, NIGHT, category="BURST_PIPE")
    desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    set_time(desk.database, start + 10 * MINUTE)
    paused = desk.call(desk.tree.technician, "PauseRepair", name=repair.name, reason="等配件")
    assert clock(paused, "on_site").paused
    assert not clock(paused, "on_site").HasField("due_time")
    desk.sweep_at(start + 5 * HOUR)
    assert told(desk, repair, "on_site") == told(desk, repair, "resolve") == []
    resumed = desk.call(desk.tree.technician, "ResumeRepair", name=repair.name)
    due = instant(clock(resumed, "on_site").due_time)
    assert abs(due - (start + 5 * HOUR + 20 * MINUTE)) < 3 * SECOND
    desk.sweep_at(due - SECOND)
    assert [type for type, _ in told(desk, repair, "on_site")] == ["ClockWarned"]
    desk.sweep_at(due)
    assert told(desk, repair, "on_site")[-1] == ("ClockBreached", due)


def test_a_breach_leaves_the_order_itself_alone(desk: Desk) -> None:
    repair, _ = reported(desk, NIGHT, category="BURST_PIPE")
    advance(desk.database, timedelta(days=1))
    clocks.sweep(desk.database)
    now = desk.now(repair)
    assert (now.etag, now.state) == (repair.etag, repair.state)
    assert all(found.breached for found in now.clocks)


def forget_policies(desk: Desk) -> None:
    """The server's snapshot of overrides is at most five seconds old; the test does not wait for it."""
    desk.server.databases["work_orders"].policies._read_at = -1e9
