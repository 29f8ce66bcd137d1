"""Repairs as entities: rules without a database, a port or a clock of their own."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from services.chassis.access import Grant, Principal
from services.chassis.directory import Estate
from services.chassis.errors import Conflict, Forbidden, IllegalMove, InvalidInput
from services.chassis.lifecycle import Act
from services.work_orders.archive import PutIn
from services.work_orders.repairs import LIFECYCLE, URGENT, Repair
from steward.work_orders.v1 import repairs_pb2

CHINA = ZoneInfo("Asia/Shanghai")
NIGHT = datetime(2026, 11, 22, 3, 10, tzinfo=CHINA)
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=CHINA)
ESTATE = Estate(uuid4(), "TFHY", "天府花园", uuid4(), uuid4(), "Asia/Shanghai", "RESIDENTIAL")
UNIT = uuid4()


def somebody(kind: str, role: str) -> Principal:
    return Principal(kind, str(uuid4()), (Grant(role, "unit" if kind == "people" else "estate", ESTATE.id),))


OWNER, FAMILY = somebody("people", "OWNER"), somebody("people", "FAMILY_MEMBER")
TECHNICIAN, COLLEAGUE = somebody("staff", "TECHNICIAN"), somebody("staff", "TECHNICIAN")
DESK, SUPERVISOR = somebody("staff", "CUSTOMER_ASSISTANT"), somebody("staff", "ENGINEERING_SUPERVISOR")


def act(who: Principal = OWNER, now: datetime = MONDAY, reason: str = "") -> Act:
    return Act(who, now, reason)


def a_repair(now: datetime = MONDAY, **how: Any) -> Repair:
    fields: dict[str, Any] = {"category": "LEAK", "description": "漏水", "channel": "APP", "unit_id": UNIT, "unit": "1-1-0101"}
    fields |= {"reporter_id": UUID(OWNER.id)} | how
    return Repair.report(act(OWNER, now), ESTATE, **fields)


def on_site(**how: Any) -> Repair:
    repair = a_repair(**how)
    repair.take(act(TECHNICIAN), UUID(TECHNICIAN.id))
    repair.arrive(act(TECHNICIAN))
    return repair


def done(**how: Any) -> Repair:
    repair = on_site(**how)
    repair.complete(act(TECHNICIAN), "换了阀门")
    return repair


def types(repair: Repair) -> list[str]:
    return [event.DESCRIPTOR.name for _, event, _ in repair.taken_events()]


@pytest.mark.rule("REP-06")
@pytest.mark.parametrize("category", [name for name, _ in repairs_pb2.Repair.Category.items() if name != "CATEGORY_UNSPECIFIED"])
def test_burst_pipes_smoke_and_cuts_of_water_or_power_are_urgent_by_themselves_and_nothing_else_is(category: str) -> None:
    urgent = {"BURST_PIPE", "SMOKING_APPLIANCE", "WATER_CUT", "POWER_CUT", "CIRCUIT_HAZARD"}
    assert a_repair(category=category).urgent is (category in urgent)
    assert urgent == URGENT


@pytest.mark.rule("REP-06")
def test_what_the_customer_says_is_especially_urgent_is_urgent() -> None:
    assert a_repair(category="DOORS_AND_WINDOWS", urgent=True).urgent


@pytest.mark.rule("REP-03")
@pytest.mark.parametrize("field", ["appointment_at", "expected_by"])
def test_a_time_in_the_past_cannot_be_appointed_or_expected(field: str) -> None:
    assert getattr(a_repair(**{field: MONDAY}), field) == MONDAY, "this very moment still can"
    with pytest.raises(InvalidInput) as refused:
        a_repair(**{field: MONDAY - timedelta(microseconds=1)})
    assert refused.value.rule == "REP-03"


@pytest.mark.rule("REP-03", "REP-04")
@pytest.mark.parametrize("location", ["", "   "])
def test_a_repair_in_a_public_area_needs_its_place_in_words(location: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        a_repair(unit_id=None, unit="", location=location)
    assert refused.value.violations[0].field == "repair.location"


@pytest.mark.rule("REP-35")
def test_the_main_line_leads_from_report_to_file_and_each_step_is_an_event() -> None:
    repair = done()
    repair.accept(act(), 5, 5, "", "业主")
    repair.file(act(DESK))
    assert types(repair) == ["RepairReported", "RepairTaken", "RepairArrived", "RepairCompleted", "RepairAccepted", "RepairFiled"]
    assert [line.to_state for line in repair.taken_history()] == ["REPORTED", "TAKEN", "ON_SITE", "DONE", "ACCEPTED", "FILED"]


@pytest.mark.rule("REP-35")
def test_the_states_of_the_table_are_those_of_the_contract() -> None:
    contract = {name for name, _ in repairs_pb2.Repair.State.items() if name != "STATE_UNSPECIFIED"}
    assert {str(state) for state in LIFECYCLE.states} == contract


@pytest.mark.rule("REP-09")
def test_an_order_that_was_dispatched_is_collected_by_its_technician_alone() -> None:
    repair = a_repair()
    repair.dispatch(act(DESK), UUID(TECHNICIAN.id))
    with pytest.raises(Forbidden, match="another technician"):
        repair.take(act(COLLEAGUE), UUID(COLLEAGUE.id))
    repair.take(act(TECHNICIAN), UUID(TECHNICIAN.id))
    assert repair.handler == f"staff/{TECHNICIAN.id}"


@pytest.mark.rule("REP-18")
def test_only_the_technician_of_the_order_arrives_charges_and_completes() -> None:
    repair = on_site()
    for forbidden in (
        lambda: repair.charge(act(COLLEAGUE), "阀门", 1, Decimal(35), "更换"),
        lambda: repair.complete(act(COLLEAGUE), "换了"),
    ):
        with pytest.raises(Forbidden):
            forbidden()
    other = a_repair()
    other.take(act(TECHNICIAN), UUID(TECHNICIAN.id))
    with pytest.raises(Forbidden):
        other.arrive(act(COLLEAGUE))


@pytest.mark.rule("REP-05", "REP-15")
def test_nothing_chargeable_is_finished_before_the_household_agreed_and_another_price_needs_another_consent() -> None:
    repair = on_site()
    repair.charge(act(TECHNICIAN), "阀门", 2, Decimal("35.50"), "更换")
    assert repair.charge_total == Decimal("71.00")
    with pytest.raises(Conflict) as refused:
        repair.complete(act(TECHNICIAN), "换了")
    assert (refused.value.reason, refused.value.rule) == ("CONSENT_MISSING", "REP-05")
    repair.consent(act(OWNER), "APP", str(OWNER))
    repair.charge(act(TECHNICIAN), "软管", 1, Decimal("12.00"), "老化")
    assert repair.consent_at is None
    with pytest.raises(Conflict):
        repair.complete(act(TECHNICIAN), "换了")
    repair.consent(act(TECHNICIAN), "TELEPHONE", "王女士")
    repair.complete(act(TECHNICIAN), "换了", [PutIn(item, 1, True, True) for item in ("阀门", "软管")])
    assert (repair.state, repair.consent_by, repair.charge_total) == ("DONE", "王女士", Decimal("83.00"))


@pytest.mark.rule("REP-15")
def test_consent_comes_from_the_household_or_from_the_orders_own_technician_who_records_it() -> None:
    repair = on_site()
    with pytest.raises(Forbidden):
        repair.consent(act(COLLEAGUE), "TELEPHONE", "王女士")
    repair.consent(act(FAMILY), "APP", str(FAMILY))
    assert repair.consent_at == MONDAY


@pytest.mark.rule("REP-15", "REP-17")
def test_a_surveyed_or_changed_plan_needs_the_households_consent_before_the_work_is_finished() -> None:
    repair = a_repair()
    repair.survey(act(SUPERVISOR), "更换整段水管")
    repair.take(act(TECHNICIAN), UUID(TECHNICIAN.id))
    repair.arrive(act(TECHNICIAN))
    with pytest.raises(Conflict):
        repair.complete(act(TECHNICIAN), "换了")
    repair.consent(act(OWNER), "APP", str(OWNER))
    repair.replan(act(TECHNICIAN), "墙内另有一处渗漏")
    assert repair.consent_at is None
    with pytest.raises(Conflict):
        repair.complete(act(TECHNICIAN), "换了")
    repair.consent(act(OWNER), "APP", str(OWNER))
    repair.complete(act(TECHNICIAN), "换了")
    assert "RepairReplanned" in types(repair)


@pytest.mark.rule("REP-19", "REP-22")
@pytest.mark.parametrize(("who", "in_unit", "allowed"), [
    (OWNER, True, True), (FAMILY, True, True), (TECHNICIAN, True, True), (DESK, True, True), (COLLEAGUE, True, False), (SUPERVISOR, True, False),
    (OWNER, False, False), (TECHNICIAN, False, False), (DESK, False, False), (SUPERVISOR, False, True),
])  # fmt: skip
def test_a_household_accepts_its_repair_and_the_manager_that_of_a_public_area(who: Principal, in_unit: bool, allowed: bool) -> None:
    def decide(decision: str) -> None:
        repair = done() if in_unit else done(unit_id=None, unit="", location="大堂")
        if decision == "accept":
            repair.accept(act(who), 5, 5, "", "签名")
        else:
            repair.reject(act(who, reason="还漏"))

    for decision in ("accept", "reject"):
        if allowed:
            decide(decision)
        else:
            with pytest.raises(Forbidden):
                decide(decision)


@pytest.mark.rule("REP-21")
def test_a_rejected_repair_is_reworked_until_the_household_is_satisfied() -> None:
    repair = done()
    for times in (1, 2, 3):
        repair.reject(act(OWNER, reason="还在滴水"))
        assert (repair.state, repair.rework_count) == ("REWORK", times)
        with pytest.raises(IllegalMove):
            repair.accept(act(OWNER), 5, 5, "", "签名")
        repair.arrive(act(TECHNICIAN))
        repair.complete(act(TECHNICIAN), "又换了")
    repair.accept(act(OWNER), 3, 3, "", "签名")
    [accepted] = [event for _, event, _ in repair.taken_events() if event.DESCRIPTOR.name == "RepairAccepted"]
    assert not accepted.first_pass


@pytest.mark.rule("REP-19")
def test_a_signature_is_a_png() -> None:
    repair = done()
    assert repair.sign(act(), b"\x89PNG\r\n\x1a\nxx").content_type == "image/png"
    for wrong in (b"", b"GIF89a", b"\x89PNG", b"<svg/>"):
        with pytest.raises(InvalidInput) as refused:
            repair.sign(act(), wrong)
        assert refused.value.reason == "SIGNATURE_INVALID"


@pytest.mark.rule("REP-35")
def test_a_report_is_withdrawn_by_its_reporter_or_the_desk_and_only_before_work_has_begun() -> None:
    for who in (OWNER, DESK):
        repair = a_repair()
        repair.take(act(TECHNICIAN), UUID(TECHNICIAN.id))
        repair.cancel(act(who, reason="自己修好了"))
        assert (repair.state, repair.cancel_reason) == ("CANCELLED", "自己修好了")
    for who in (FAMILY, TECHNICIAN):
        with pytest.raises(Forbidden):
            a_repair().cancel(act(who))
    with pytest.raises(IllegalMove):
        on_site().cancel(act(OWNER))


@pytest.mark.rule("REP-05")
def test_charges_that_no_column_holds_are_refused_and_not_added() -> None:
    repair = on_site()
    repair.charge(act(TECHNICIAN), "电梯", 1, Decimal("99999999.99"), "更换")
    with pytest.raises(InvalidInput):
        repair.charge(act(TECHNICIAN), "螺丝", 1, Decimal("0.01"), "更换")
    assert len(repair.charges) == 1


@pytest.mark.rule("REP-35")
def test_a_paused_order_stands_still_but_for_comments_urging_resuming_and_cancelling() -> None:
    repair = a_repair()
    repair.take(act(TECHNICIAN), UUID(TECHNICIAN.id))
    repair.pause(act(TECHNICIAN, reason="等配件"))
    with pytest.raises(IllegalMove, match="等配件"):
        repair.arrive(act(TECHNICIAN))
    repair.comment(act(OWNER, reason="几时到货"))
    repair.urge(act(OWNER))
    repair.resume(act(TECHNICIAN))
    with pytest.raises(IllegalMove):
        repair.resume(act(TECHNICIAN))
    repair.arrive(act(TECHNICIAN))


@pytest.mark.rule("REP-38", "X-34")
def test_an_urgent_order_is_timed_day_and_night_and_an_ordinary_one_in_working_hours() -> None:
    urgent = {clock.name: clock.marks[1] - NIGHT for clock in a_repair(NIGHT, category="BURST_PIPE").clocks}
    assert urgent == {"pickup": timedelta(minutes=15), "on_site": timedelta(minutes=30), "resolve": timedelta(hours=4)}
    ordinary = {clock.name: clock.marks[1] for clock in a_repair(NIGHT).clocks}
    assert ordinary["pickup"] == datetime(2026, 11, 23, 10, 30, tzinfo=CHINA), "two working hours from Monday 8:30"
    assert ordinary["on_site"] == datetime(2026, 11, 26, 11, 30, tzinfo=CHINA), "24 working hours: three days and three hours"


@pytest.mark.rule("REP-14", "REP-38")
def test_an_ordinary_order_with_an_appointment_is_due_on_site_at_the_appointment_even_at_night() -> None:
    at = NIGHT + timedelta(hours=20)
    repair = a_repair(NIGHT, appointment_at=at)
    [on_site_clock] = [clock for clock in repair.clocks if clock.name == "on_site"]
    assert on_site_clock.due_at == at
    urgent = a_repair(NIGHT, appointment_at=at, urgent=True)
    [on_site_clock] = [clock for clock in urgent.clocks if clock.name == "on_site"]
    assert on_site_clock.due_at == NIGHT + timedelta(minutes=30), "an urgent order does not wait for it"


@pytest.mark.rule("REP-10")
def test_a_household_may_urge_again_after_ten_minutes_and_not_a_second_before() -> None:
    repair = a_repair()
    repair.urge(act(OWNER, MONDAY))
    with pytest.raises(Conflict) as refused:
        repair.urge(act(OWNER, MONDAY + timedelta(minutes=10, seconds=-1)))
    assert refused.value.reason == "URGED_ALREADY"
    repair.urge(act(OWNER, MONDAY + timedelta(minutes=10)))
    assert repair.urge_count == 2
