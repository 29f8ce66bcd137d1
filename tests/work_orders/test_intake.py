"""Taking reports in: who may, what must be said, what becomes of it (REP-01…08)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.testing import published
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import Desk, case_id, clock, instant, state

HOUR = timedelta(hours=1)


@pytest.mark.rule("REP-01")
@pytest.mark.parametrize("channel", ["HOTLINE", "APP", "WECHAT", "FRONT_DESK", "WRITTEN", "PATROL"])
def test_a_report_comes_by_any_of_the_channels(desk: Desk, channel: str) -> None:
    repair = desk.report(desk.tree.staff["CUSTOMER_ASSISTANT"], channel=channel, contact_phone="13800000000")
    assert pb.Repair.Channel.Name(desk.now(repair).channel) == channel


@pytest.mark.rule("REP-01")
def test_a_report_that_names_no_channel_came_by_the_app_from_residents_and_at_the_desk_from_staff(desk: Desk) -> None:
    assert desk.report().channel == pb.Repair.APP
    assert desk.report(desk.tree.staff["BUILDING_BUTLER"], contact_phone="13800000000").channel == pb.Repair.FRONT_DESK


@pytest.mark.rule("REP-03", "REP-04")
def test_everything_the_report_says_stands_on_the_order(desk: Desk) -> None:
    soon, later = datetime.now(UTC).replace(microsecond=0) + 5 * HOUR, datetime.now(UTC).replace(microsecond=0) + 30 * HOUR
    receiver = desk.tree.staff["CUSTOMER_ASSISTANT"]
    said = {
        "location": "厨房水槽下", "description": "阀门滴水 𬭎㛃", "contact_phone": "+86 138-0000 0000", "reporter_name": "王女士",
        "appointment_time": soon, "expected_by": later, "urgent": False,
    }  # fmt: skip
    order = desk.now(desk.report(receiver, **said))
    assert (order.unit, order.location, order.description) == (desk.tree.unit, said["location"], said["description"])
    assert (order.contact_phone, order.reporter_name, order.receiver) == (said["contact_phone"], said["reporter_name"], receiver.name)
    assert (instant(order.appointment_time), instant(order.expected_by)) == (soon, later)
    assert abs(instant(order.report_time) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (order.urgent, state(order), order.etag) == (False, "REPORTED", "1")
    assert order.number.startswith("WX-")


@pytest.mark.rule("REP-03")
@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"category": 0}, "repair.category"),
        ({"description": ""}, "repair.description"),
        ({"description": "漏"}, "repair.description"),
        ({"contact_phone": ""}, "repair.contact_phone"),
        ({"unit": ""}, "repair.location"),
        ({"contact_phone": "call me"}, "repair.contact_phone"),
    ],
)
def test_a_mandatory_field_that_is_missing_is_named_and_nothing_is_taken_in(desk: Desk, fields: dict[str, Any], wrong: str) -> None:
    said = {"unit": desk.tree.unit, "category": "LEAK", "description": "漏水", "contact_phone": "13800000000"} | fields
    answer = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "ReportRepair", parent=desk.tree.parent, repair=said)
    assert (answer.http, answer.fields) == (400, {wrong})
    assert not desk.call(desk.tree.staff["PROJECT_MANAGER"], "ListRepairs", parent=desk.tree.parent).repairs


@pytest.mark.rule("REP-03")
def test_a_resident_needs_no_telephone_because_his_own_is_registered(desk: Desk) -> None:
    assert desk.report().contact_phone == ""


@pytest.mark.rule("REP-03")
def test_residents_report_for_units_of_theirs_and_for_no_other(desk: Desk) -> None:
    mine, neighbours = desk.tree.units
    for who in ("OWNER", "TENANT", "FAMILY_MEMBER"):
        assert desk.report(desk.tree.residents[who], unit=mine).receiver == desk.tree.residents[who].name
    for unit in (neighbours, "9-9-9999", ""):
        said = {"unit": unit, "location": "大堂", "category": "LEAK", "description": "漏水"}
        answer = desk.refused(desk.tree.owner, "ReportRepair", parent=desk.tree.parent, repair=said)
        assert (answer.http, answer.reason, answer.fields) == (400, "UNIT_NOT_FOUND", {"repair.unit"})


@pytest.mark.rule("REP-03")
def test_staff_report_for_any_unit_of_the_estate_and_for_public_areas_but_not_for_units_elsewhere(desk: Desk, elsewhere: Desk) -> None:
    guard = desk.tree.staff["SECURITY_GUARD"]
    for unit in desk.tree.units:
        desk.report(guard, unit=unit, contact_phone="13800000000")
    desk.report(guard, unit="", location="停车场B2", contact_phone="13800000000")
    answer = desk.refused(
        guard,
        "ReportRepair",
        parent=desk.tree.parent,
        repair={"unit": "8-8-0808", "category": "LEAK", "description": "漏水", "contact_phone": "13800000000"},
    )
    assert (answer.reason, answer.rule) == ("UNIT_NOT_FOUND", "REP-03")


@pytest.mark.rule("REP-06")
def test_an_urgent_category_or_the_customers_word_makes_the_order_urgent_and_it_is_timed_so(desk: Desk) -> None:
    for said in ({"category": "BURST_PIPE"}, {"category": "OTHER", "urgent": True}):
        order = desk.report(**said)
        assert order.urgent
        assert [clock(order, name).target_seconds for name in ("pickup", "on_site", "resolve")] == [900, 1800, 14_400]
    order = desk.report(category="OTHER")
    assert not order.urgent
    assert [clock(order, name).target_seconds for name in ("pickup", "on_site", "resolve")] == [7200, 86_400, 259_200]


def test_the_event_of_an_urgent_report_says_so_the_moment_it_is_taken_in(desk: Desk) -> None:
    """Whoever must be alarmed hears of it by this event; it is written with the order or not at all."""
    for category, urgent in (("BURST_PIPE", True), ("CIRCUIT_HAZARD", True), ("LEAK", None)):
        order = desk.report(category=category)
        [event] = published(desk.database, case_id(order))
        assert (event.type, event.data["category"], event.data.get("urgent")) == ("RepairReported", category, urgent)
        assert event.data["number"] == order.number
        assert event.data["reporter"] == desk.tree.owner.name
        assert event.data["unitId"] == str(desk.tree.units[desk.tree.unit])
        assert "13800000000" not in str(event.data), "no personal data"


@pytest.mark.rule("REP-03")
@pytest.mark.parametrize("field", ["appointment_time", "expected_by"])
def test_times_that_cannot_be_are_refused(desk: Desk, field: str) -> None:
    for at in (datetime.now(UTC) - timedelta(minutes=5), datetime(1970, 1, 1, tzinfo=UTC)):
        said = {"unit": desk.tree.unit, "category": "LEAK", "description": "漏水", field: at}
        answer = desk.refused(desk.tree.owner, "ReportRepair", parent=desk.tree.parent, repair=said)
        assert (answer.http, answer.fields) == (400, {f"repair.{field}"})


def test_every_order_has_a_number_of_its_estate_and_day_that_counts_without_gaps(desk: Desk, elsewhere: Desk) -> None:
    numbers = [desk.report().number for _ in range(3)]
    assert [number[-4:] for number in numbers] == ["0001", "0002", "0003"]
    assert elsewhere.report().number == numbers[0], "each estate counts for itself"
    with_an_error = {"unit": "none", "category": "LEAK", "description": "漏水"}
    desk.refused(desk.tree.owner, "ReportRepair", parent=desk.tree.parent, repair=with_an_error)
    assert desk.report().number[-4:] == "0004", "what is refused takes no number"


def test_what_a_caller_writes_into_output_fields_is_not_taken_over(desk: Desk) -> None:
    order = desk.report(
        state="ACCEPTED", number="WX-1", name="estates/x/repairs/1", rework_count=9, technician="staff/x", signed_by="me", etag="9"
    )
    assert (state(order), order.rework_count, order.technician, order.signed_by) == ("REPORTED", 0, "", "")
    assert order.number != "WX-1"


def test_lists_show_the_newest_first_in_pages_and_by_state_unit_technician_and_urgency(desk: Desk) -> None:
    manager = desk.tree.staff["PROJECT_MANAGER"]
    first, second, urgent = (
        desk.report(),
        desk.at("TAKEN"),
        desk.report(desk.tree.neighbour, unit=list(desk.tree.units)[-1], category="BURST_PIPE"),
    )

    def listed(**how: Any) -> list[str]:
        return [repair.name for repair in desk.call(manager, "ListRepairs", parent=desk.tree.parent, **how).repairs]

    assert listed() == [urgent.name, second.name, first.name]
    assert listed(states=["TAKEN"]) == [second.name]
    assert listed(states=["TAKEN", "REPORTED"]) == [urgent.name, second.name, first.name]
    assert listed(unit=desk.tree.unit) == [second.name, first.name]
    assert listed(technician=desk.tree.technician.name) == [second.name]
    assert listed(technician=f"staff/{uuid4()}") == []
    assert listed(urgent_only=True) == [urgent.name]
    page = desk.call(manager, "ListRepairs", parent=desk.tree.parent, page_size=2)
    assert [repair.name for repair in page.repairs] == [urgent.name, second.name]
    rest = desk.call(manager, "ListRepairs", parent=desk.tree.parent, page_size=2, page_token=page.next_page_token)
    assert ([repair.name for repair in rest.repairs], rest.next_page_token) == ([first.name], "")
    answer = desk.refused(manager, "ListRepairs", parent=desk.tree.parent, urgent_only=True, page_token=page.next_page_token)
    assert (answer.http, answer.reason) == (400, "INVALID_PAGE_TOKEN")


def test_a_household_sees_its_own_repairs_and_staff_those_of_their_estates(desk: Desk, elsewhere: Desk) -> None:
    mine, neighbours, public, strangers = (
        desk.report(),
        desk.report(desk.tree.neighbour, unit=list(desk.tree.units)[-1]),
        desk.in_public(),
        elsewhere.report(),
    )

    def listed(who: Any, parent: str = "estates/-") -> set[str]:
        return {repair.name for repair in desk.call(who, "ListRepairs", parent=parent).repairs}

    assert listed(desk.tree.owner) == listed(desk.tree.residents["TENANT"]) == {mine.name}
    assert listed(desk.tree.neighbour) == {neighbours.name}
    for role in ("TECHNICIAN", "GENERAL_MANAGER", "GROUP_OPERATIONS"):
        assert listed(desk.tree.staff[role]) == {mine.name, neighbours.name, public.name}
    assert listed(elsewhere.tree.staff["GROUP_OPERATIONS"]) == {strangers.name}
    assert desk.refused(desk.tree.owner, "GetRepair", name=neighbours.name).reason == "REPAIR_NOT_FOUND"
    assert desk.refused(desk.tree.owner, "ListRepairHistory", parent=neighbours.name).reason == "REPAIR_NOT_FOUND"
    assert desk.refused(desk.tree.owner, "GetRepair", name=strangers.name).reason == "ESTATE_NOT_FOUND"


@pytest.mark.rule("ORG-10")
def test_whom_to_call_is_for_staff_and_the_reporter_not_for_others_of_the_household(desk: Desk) -> None:
    made = desk.report(contact_phone="13800000000", reporter_name="王远安")
    shown = {}
    for who in (desk.tree.owner, desk.tree.by_role("CUSTOMER_ASSISTANT"), desk.tree.residents["TENANT"]):
        seen = desk.call(who, "GetRepair", name=made.name)
        listed = next(r for r in desk.call(who, "ListRepairs", parent=desk.tree.parent).repairs if r.name == made.name)
        assert (seen.contact_phone, seen.reporter_name) == (listed.contact_phone, listed.reporter_name)
        shown[who.name] = (seen.contact_phone, seen.reporter_name)
    assert list(shown.values()) == [("13800000000", "王远安"), ("13800000000", "王远安"), ("", "")]
