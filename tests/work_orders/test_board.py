"""Who takes repairs in, arranges and does them, and how the supervisors follow them up together (REP-14, REP-31, REP-32)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.chassis.testing import published, set_time
from steward.work_orders.v1 import records_pb2 as pb
from steward.work_orders.v1 import repairs_pb2
from tests.work_orders.asking import CHINA, DAY, HOUR, NOON, SECOND, UNHAPPY, asked, filed, follow_up_of
from tests.work_orders.conftest import PNG, Desk, case_id, clock, instant, state

pytestmark = pytest.mark.usefixtures("moving_time")

WATCHERS = ("CS_SUPERVISOR", "ENGINEERING_SUPERVISOR", "SECURITY_SUPERVISOR", "ENVIRONMENT_SUPERVISOR")
CONCERNS = pb.WatchedRepair.Concern.keys()[1:]


def board(desk: Desk, role: str = "CS_SUPERVISOR", parent: str = "") -> pb.RepairBoard:
    return desk.call(desk.tree.staff[role], "GetRepairBoard", parent=parent or desk.tree.parent)


def concerns(found: pb.RepairBoard) -> dict[str, int]:
    return {pb.WatchedRepair.Concern.Name(line.concern): line.count for line in found.concerns if line.count}


def watched(desk: Desk, *wanted: str, role: str = "CS_SUPERVISOR") -> dict[str, set[str]]:
    found = desk.call(desk.tree.staff[role], "ListWatchedRepairs", parent=desk.tree.parent, concerns=wanted, page_size=100).watched_repairs
    return {line.repair: {pb.WatchedRepair.Concern.Name(concern) for concern in line.concerns} for line in found}


@pytest.mark.rule("REP-31")
def test_the_supervisors_see_the_same_board_and_what_is_wrong_with_which_order(desk: Desk) -> None:
    set_time(desk.database, NOON)
    quiet, burst = desk.report(), desk.report(category="BURST_PIPE")
    urged = desk.call(desk.tree.owner, "UrgeRepair", name=desk.at("TAKEN").name)
    paused = desk.call(desk.tree.technician, "PauseRepair", name=desk.at("TAKEN").name, reason="等配件")
    back = desk.call(desk.tree.owner, "RejectRepair", name=desk.at("DONE").name, reason="还漏")
    accepted = desk.at("ACCEPTED")
    unhappy = asked(desk, **UNHAPPY)
    waiting = follow_up_of(desk, filed(desk))
    desk.call(desk.tree.owner, "CancelRepair", name=desk.report().name, reason="不用了")
    desk.sweep_at(NOON + 20 * timedelta(minutes=1))

    expected = {
        burst.name: {"OVERDUE"},
        urged.name: {"URGED"},
        paused.name: {"PAUSED"},
        back.name: {"SENT_BACK"},
        accepted.name: {"NOT_RETURNED"},
        unhappy.repair: {"SENT_BACK"},
    }
    for role in WATCHERS:
        found = board(desk, role)
        assert [(repairs_pb2.Repair.State.Name(c.state), c.count, c.urgent) for c in sorted(found.columns, key=lambda c: c.state)] == [
            ("REPORTED", 2, 1), ("TAKEN", 2, 0), ("REWORK", 2, 0), ("ACCEPTED", 1, 0),
        ]  # fmt: skip
        assert concerns(found) == {"OVERDUE": 1, "SENT_BACK": 2, "URGED": 1, "PAUSED": 1, "NOT_RETURNED": 1}
        assert (found.follow_ups_pending, found.follow_ups_overdue, found.dissatisfied) == (1, 0, 1)
        assert watched(desk, role=role) == expected
    for concern in CONCERNS:
        assert watched(desk, concern) == {name: had for name, had in expected.items() if concern in had}
    assert quiet.name not in expected
    [line] = desk.call(
        desk.tree.staff["CS_SUPERVISOR"], "ListWatchedRepairs", parent=desk.tree.parent, concerns=["OVERDUE"]
    ).watched_repairs
    assert (list(line.missed_clocks), line.technician, line.urgent, line.number) == (["pickup"], "", True, burst.number)
    set_time(desk.database, NOON + DAY)
    assert board(desk).follow_ups_overdue == 1
    assert waiting.name


@pytest.mark.rule("REP-31")
@pytest.mark.parametrize("who", ["TECHNICIAN", "CUSTOMER_ASSISTANT", "EARLY_SHIFT_CLERK", "SECURITY_GUARD", "OWNER"])
def test_the_board_is_for_supervisors_and_managers(desk: Desk, who: str) -> None:
    for rpc in ("GetRepairBoard", "ListWatchedRepairs"):
        assert desk.refused(desk.tree.by_role(who), rpc, parent=desk.tree.parent).reason == "ROLE_REQUIRED"


@pytest.mark.rule("REP-31")
def test_customer_service_and_engineering_note_on_one_order_what_they_have_agreed(desk: Desk) -> None:
    repair = desk.at("TAKEN")
    supervisors = [desk.tree.staff[role] for role in ("CS_SUPERVISOR", "ENGINEERING_SUPERVISOR")]
    for who in supervisors:
        desk.call(who, "CommentRepair", name=repair.name, text="已与业主和班组协调")
    assert [line.actor for line in desk.history(repair)][-2:] == [who.name for who in supervisors]
    assert desk.refused(desk.tree.staff["SECURITY_GUARD"], "CommentRepair", name=repair.name, text="路过").http == 403


def test_the_board_of_a_company_sums_its_estates_and_lists_come_in_pages(desk: Desk, elsewhere: Desk) -> None:
    for _ in range(3):
        desk.call(desk.tree.owner, "UrgeRepair", name=desk.report().name)
    elsewhere.call(elsewhere.tree.owner, "UrgeRepair", name=elsewhere.report().name)
    assert concerns(board(desk, "GENERAL_MANAGER", "estates/-")) == {"URGED": 3}
    supervisor = desk.tree.staff["CS_SUPERVISOR"]
    page = desk.call(supervisor, "ListWatchedRepairs", parent=desk.tree.parent, page_size=2)
    rest = desk.call(supervisor, "ListWatchedRepairs", parent=desk.tree.parent, page_size=2, page_token=page.next_page_token)
    assert (len(page.watched_repairs), len(rest.watched_repairs), rest.next_page_token) == (2, 1, "")
    assert desk.refused(supervisor, "ListWatchedRepairs", parent=desk.tree.parent, concerns=[9]).http == 400
    assert concerns(board(desk)) == {"URGED": 3}


# --- who accepts, arranges and does ------------------------------------------------------------------------------------------


@pytest.mark.rule("REP-32")
@pytest.mark.parametrize("role", ["CUSTOMER_ASSISTANT", "CS_SUPERVISOR"])
def test_customer_service_takes_in_indoor_repairs_and_arranges_who_goes_but_does_none_itself(desk: Desk, role: str) -> None:
    who = desk.tree.staff[role]
    repair = desk.report(who, unit=desk.tree.unit, contact_phone="13800000000")
    assert (repair.receiver, repair.unit) == (who.name, desk.tree.unit)
    order = desk.call(who, "DispatchRepair", name=repair.name, technician=desk.tree.technician.name)
    assert (state(order), order.technician) == ("DISPATCHED", desk.tree.technician.name)
    for rpc in ("TakeRepair", "ArriveRepair"):
        assert desk.refused(who, rpc, name=repair.name).reason == "ROLE_REQUIRED"
    for other in ("TECHNICIAN", "SECURITY_GUARD", "EARLY_SHIFT_CLERK", "BUILDING_BUTLER", "OWNER"):
        answer = desk.refused(desk.tree.by_role(other), "DispatchRepair", name=repair.name, technician=desk.tree.technician.name)
        assert answer.reason == "ROLE_REQUIRED", other


@pytest.mark.rule("REP-32")
def test_engineering_does_home_repairs_and_emergencies_and_nobody_else_goes(desk: Desk) -> None:
    for said in ({}, {"category": "BURST_PIPE"}):
        repair = desk.report(**said)
        for role in ("CUSTOMER_ASSISTANT", "CS_SUPERVISOR", "SECURITY_GUARD", "ENGINEERING_SUPERVISOR", "OWNER"):
            assert desk.refused(desk.tree.by_role(role), "TakeRepair", name=repair.name).reason == "ROLE_REQUIRED"
        engineering = desk.tree.staff["ENGINEERING_SUPERVISOR"]
        assert desk.call(engineering, "DispatchRepair", name=repair.name).technician == desk.tree.technician.name
        done = desk.carry(desk.call(desk.tree.technician, "TakeRepair", name=repair.name), "DONE")
        assert done.technician == desk.tree.technician.name


# --- the appointment ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("REP-14")
def test_the_repairer_books_the_visit_with_the_owner_and_is_due_on_site_then(desk: Desk) -> None:
    set_time(desk.database, NOON)
    repair, at = desk.at("TAKEN"), NOON + DAY + 3 * HOUR
    booked = desk.call(desk.tree.technician, "AppointRepair", name=repair.name, appointment_time=at, note="与王女士电话约定")
    assert (state(booked), instant(booked.appointment_time)) == ("TAKEN", at)
    assert instant(clock(booked, "on_site").due_time) == at
    event = published(desk.database, case_id(repair), "RepairAppointed")[0]
    assert (event.data["reporter"], event.data["technician"]) == (desk.tree.owner.name, desk.tree.technician.name)
    assert desk.history(repair)[-1].note == "2026-11-24 15:00 与王女士电话约定"
    desk.sweep_at(at - SECOND)
    assert not clock(desk.now(repair), "on_site").breached
    desk.sweep_at(at)
    assert clock(desk.now(repair), "on_site").breached


@pytest.mark.rule("REP-14", "REP-38")
def test_who_has_the_order_or_the_desk_books_and_an_urgent_one_waits_for_no_appointment(desk: Desk) -> None:
    set_time(desk.database, NOON)
    repair, other, at = desk.at("TAKEN"), desk.tree.hire(desk.database, "TECHNICIAN"), NOON + 3 * HOUR
    assert desk.refused(other, "AppointRepair", name=repair.name, appointment_time=at).reason == "NOT_YOURS"
    for who in (desk.tree.owner, desk.tree.staff["SECURITY_GUARD"]):
        assert desk.refused(who, "AppointRepair", name=repair.name, appointment_time=at).http == 403
    for role in ("CUSTOMER_ASSISTANT", "ENGINEERING_SUPERVISOR"):
        assert instant(desk.call(desk.tree.staff[role], "AppointRepair", name=repair.name, appointment_time=at).appointment_time) == at
    answer = desk.refused(desk.tree.technician, "AppointRepair", name=repair.name, appointment_time=NOON - HOUR)
    assert (answer.http, answer.rule, answer.fields) == (400, "REP-14", {"appointment_time"})
    assert desk.refused(desk.tree.technician, "AppointRepair", name=repair.name).fields == {"appointment_time"}
    urgent = desk.carry(desk.report(category="BURST_PIPE"), "TAKEN")
    before = instant(clock(urgent, "on_site").due_time)
    assert (
        instant(clock(desk.call(desk.tree.technician, "AppointRepair", name=urgent.name, appointment_time=at), "on_site").due_time)
        == before
    )
    assert desk.refused(desk.tree.technician, "AppointRepair", name=desk.at("ON_SITE").name, appointment_time=at).reason == "ILLEGAL_MOVE"


@pytest.mark.rule("REP-05")
def test_at_intake_the_price_standard_is_explained_and_that_is_recorded(desk: Desk) -> None:
    desk_clerk = desk.tree.staff["CUSTOMER_ASSISTANT"]
    told = desk.report(desk_clerk, contact_phone="13800000000", price_explained=True)
    assert (desk.now(told).price_explained, desk.now(told).receiver) == (True, desk_clerk.name)
    assert not desk.now(desk.report()).price_explained
    shown = desk.call(desk.tree.owner, "GetRepair", name=told.name)
    assert shown.price_explained, "the household reads it too"


def test_a_signed_order_and_its_board_do_not_disturb_each_other(desk: Desk) -> None:
    repair = desk.at("DONE")
    assert concerns(board(desk)) == {}
    desk.call(desk.tree.owner, "AcceptRepair", name=repair.name, rating={"attitude": 5, "quality": 5}, signature=PNG)
    assert concerns(board(desk)) == {"NOT_RETURNED": 1}
    desk.step(desk.now(repair))
    assert list(board(desk).columns) == []
    assert datetime.now(UTC) > datetime(2026, 1, 1, tzinfo=CHINA)
