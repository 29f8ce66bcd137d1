"""A fault that comes back within 30 days is known as the same one, is free, and often enough is told upwards (REP-30, REP-34)."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.chassis.testing import Logged, published, set_time
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import Desk, case_id, instant

pytestmark = pytest.mark.usefixtures("moving_time")

MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=ZoneInfo("Asia/Shanghai"))
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
VALVE = {"item": "阀门", "quantity": 1, "unit_price": {"currency_code": "CNY", "units": 80}, "reason": "人为损坏"}


def accepted(desk: Desk, at: datetime = MONDAY, **said: str) -> tuple[pb.Repair, datetime]:
    """A repair that has been accepted, and when."""
    set_time(desk.database, at)
    repair = desk.at("ACCEPTED", **said)
    return repair, instant(repair.acceptance_time)


def hints(desk: Desk, repair: pb.Repair) -> list[Logged]:
    return published(desk.database, case_id(repair), "FaultRecurring")


@pytest.mark.rule("REP-30", "REP-34")
def test_a_fault_comes_back_until_the_thirtieth_day_after_its_acceptance(desk: Desk) -> None:
    before, at = accepted(desk)

    set_time(desk.database, at + 30 * DAY - 5 * SECOND)
    again = desk.report()
    assert again.recurs == before.name
    assert published(desk.database, case_id(again), "RepairReported")[0].data["recurs"] == case_id(before)

    set_time(desk.database, at + 30 * DAY + SECOND)
    assert desk.report().recurs == ""


@pytest.mark.rule("REP-34")
def test_only_an_accepted_repair_of_the_same_unit_and_category_is_the_same_fault(desk: Desk) -> None:
    desk.at("DONE", category="LEAK")
    assert desk.report(category="LEAK").recurs == "", "the first one is still open"
    accepted(desk, category="DRAINAGE")
    assert desk.report(category="ELECTRICAL").recurs == ""
    assert desk.report(desk.tree.neighbour, unit=list(desk.tree.units)[-1], category="DRAINAGE").recurs == ""
    second, _ = accepted(desk, MONDAY + DAY, category="DRAINAGE")
    assert desk.report(category="DRAINAGE").recurs == second.name, "the last of several"


@pytest.mark.rule("REP-34")
def test_in_a_public_area_the_place_in_words_is_the_place(desk: Desk) -> None:
    set_time(desk.database, MONDAY)
    before = desk.carry(desk.in_public(location="1栋大堂"), "ACCEPTED")
    assert desk.in_public(location=" 1栋大堂 ").recurs == before.name
    assert desk.in_public(location="2栋大堂").recurs == ""


@pytest.mark.rule("REP-34")
def test_what_comes_back_is_free_unless_a_reason_for_charging_is_recorded(desk: Desk) -> None:
    accepted(desk)
    again = desk.at("ON_SITE")
    assert again.recurs

    for reason in ("", " ", "x"):
        answer = desk.refused(desk.tree.technician, "ChargeRepair", name=again.name, charge=VALVE, override_reason=reason)
        assert (answer.http, answer.reason, answer.rule) == (409, "WITHIN_GUARANTEE", "REP-34")
    assert not desk.now(again).charges

    charged = desk.call(desk.tree.technician, "ChargeRepair", name=again.name, charge=VALVE, override_reason="另一处阀门，业主要求更换")
    assert charged.charge_total.units == 80
    assert desk.history(again)[-1].note == "阀门 × 1 (另一处阀门，业主要求更换)"


def test_a_first_fault_is_charged_without_further_ado(desk: Desk) -> None:
    assert desk.call(desk.tree.technician, "ChargeRepair", name=desk.at("ON_SITE").name, charge=VALVE).charge_total.units == 80


@pytest.mark.rule("REP-34")
def test_a_correction_finds_out_anew_whether_the_fault_has_come_back(desk: Desk) -> None:
    before, _ = accepted(desk, category="DRAINAGE")
    assistant, report = desk.tree.staff["CUSTOMER_ASSISTANT"], desk.report(category="LEAK")
    assert report.recurs == ""
    corrected = desk.call(assistant, "CorrectRepair", name=report.name, category="DRAINAGE", reason="应为下水")
    assert corrected.recurs == before.name
    assert published(desk.database, case_id(report), "RepairCorrected")[0].data["recurs"] == case_id(before)
    assert desk.call(assistant, "CorrectRepair", name=report.name, category="LEAK", reason="还是水管").recurs == ""


@pytest.mark.rule("REP-30")
def test_the_third_fault_of_a_category_that_comes_back_in_a_building_is_told_upwards_and_the_second_and_fourth_are_not(desk: Desk) -> None:
    neighbours = (desk.tree.owner, desk.tree.unit), (desk.tree.neighbour, list(desk.tree.units)[-1])
    set_time(desk.database, MONDAY)
    for who, unit in neighbours:
        repair = desk.carry(desk.report(who, unit=unit), "DONE")
        desk.call(who, "AcceptRepair", name=repair.name, rating={"attitude": 5, "quality": 5})

    told = []
    for count in range(1, 5):
        who, unit = neighbours[count % 2]
        set_time(desk.database, MONDAY + count * DAY)
        again = desk.report(who, unit=unit)
        assert again.recurs
        told.append(hints(desk, again))
    assert [len(found) for found in told] == [0, 0, 1, 0]
    data = told[2][0].data
    assert (data["category"], data["count"], data["days"]) == ("LEAK", 3, 30)
    with desk.database.read() as tx:
        building = tx.execute("SELECT parent_id FROM dir_nodes WHERE id = %s", (desk.tree.units[desk.tree.unit],))[0][0]
    assert data["buildingId"] == str(building)


@pytest.mark.rule("REP-30")
def test_withdrawn_reports_and_other_categories_do_not_count_towards_the_hint(desk: Desk) -> None:
    accepted(desk)
    accepted(desk, category="DRAINAGE")
    for days, category in ((1, "DRAINAGE"), (2, "LEAK")):
        set_time(desk.database, MONDAY + days * DAY)
        desk.report(category=category)
    withdrawn = desk.report()
    desk.call(desk.tree.owner, "CancelRepair", name=withdrawn.name, reason="报错了")
    assert not hints(desk, desk.report()), "that is the second leak that counts"
    assert hints(desk, desk.report())
