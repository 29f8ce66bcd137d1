"""The check of the day's repairs before 17:00: opened at 16:30, due at 17:00, done by the early shift, reported upwards (REP-26)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.chassis import clocks, directory, duties
from services.chassis.testing import Caller, clock_events, published, set_time
from steward.work_orders.v1 import checks_pb2 as pb
from steward.work_orders.v1 import repairs_pb2
from tests.work_orders.conftest import Desk

pytestmark = pytest.mark.usefixtures("moving_time")

CHINA = ZoneInfo("Asia/Shanghai")
OPENS, DUE = datetime(2026, 11, 23, 16, 30, tzinfo=CHINA), datetime(2026, 11, 23, 17, 0, tzinfo=CHINA)
MORNING = datetime(2026, 11, 23, 9, 0, tzinfo=CHINA)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


@pytest.fixture
def office(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An estate in the morning, the only one whose duties are planned."""
    monkeypatch.setattr(directory, "estates", lambda tx: [desk.tree.estate])
    set_time(desk.database, MORNING)
    duties.plan(desk.database)
    yield desk
    with desk.database.transaction() as tx:
        tx.execute("DELETE FROM duties")


def pass_to(office: Desk, at: datetime) -> None:
    set_time(office.database, at)
    duties.run_duties(office.database)
    clocks.sweep(office.database)


def checks(office: Desk) -> list[pb.RepairCheck]:
    return list(office.call(office.tree.staff["PROJECT_MANAGER"], "ListRepairChecks", parent=office.tree.parent).repair_checks)


def open_check(office: Desk) -> pb.RepairCheck:
    pass_to(office, OPENS)
    return seen(office, checks(office)[0])


def seen(office: Desk, check: pb.RepairCheck) -> pb.RepairCheck:
    return office.call(office.tree.staff["PROJECT_MANAGER"], "GetRepairCheck", name=check.name)


def state(check: pb.RepairCheck) -> str:
    return pb.RepairCheck.State.Name(check.state)


def reasons(check: pb.RepairCheck) -> list[dict[str, str]]:
    return [{"repair": line.repair, "reason": f"等配件 {line.number}"} for line in check.lines]


def complete(office: Desk, check: pb.RepairCheck, who: Caller | None = None) -> pb.RepairCheck:
    by = who or office.tree.staff["EARLY_SHIFT_CLERK"]
    return office.call(by, "CompleteRepairCheck", name=check.name, remarks=reasons(check), note="已询问工程主管")


@pytest.mark.rule("REP-26")
def test_the_check_opens_at_half_past_four_and_is_silent_one_second_before(office: Desk) -> None:
    pass_to(office, OPENS - SECOND)
    assert checks(office) == []
    pass_to(office, OPENS)
    [check] = checks(office)
    assert (state(check), check.due_time.ToDatetime(tzinfo=CHINA)) == ("OPEN", DUE)
    assert check.number.startswith("LX-20261123-")
    assert list(check.assignees) == [office.tree.staff["EARLY_SHIFT_CLERK"].name]


@pytest.mark.rule("REP-26")
def test_it_lists_what_is_not_handled_and_what_is_not_returned_and_nothing_else(office: Desk) -> None:
    handled = {at: office.at(at) for at in ("REPORTED", "TAKEN", "DONE", "ACCEPTED", "FILED")}
    gone = office.report()
    office.call(office.tree.owner, "CancelRepair", name=gone.name, reason="不用了")

    check = open_check(office)

    lines = {line.repair: line for line in check.lines}
    assert set(lines) == {handled[at].name for at in ("REPORTED", "TAKEN", "DONE", "ACCEPTED")}
    problem = pb.RepairCheckLine.Problem.Name
    assert problem(lines[handled["ACCEPTED"].name].problem) == "NOT_RETURNED"
    assert {problem(lines[handled[at].name].problem) for at in ("REPORTED", "TAKEN", "DONE")} == {"NOT_HANDLED"}
    taken = lines[handled["TAKEN"].name]
    assert (taken.number, taken.technician, taken.reported_today) == (handled["TAKEN"].number, office.tree.technician.name, True)
    assert repairs_pb2.Repair.State.Name(taken.state) == "TAKEN"
    assert lines[handled["REPORTED"].name].technician == ""


@pytest.mark.rule("REP-26")
def test_the_early_shift_gives_a_reason_for_each_order_and_the_check_is_reported(office: Desk) -> None:
    office.report()
    office.at("ACCEPTED")
    check = open_check(office)
    set_time(office.database, DUE - SECOND * 5)

    done = complete(office, check)

    assert (state(done), done.completed_by, done.note) == ("DONE", office.tree.staff["EARLY_SHIFT_CLERK"].name, "已询问工程主管")
    assert [line.reason for line in done.lines] == [f"等配件 {line.number}" for line in check.lines]
    assert not done.clocks[0].breached
    identifier = check.name.rsplit("/", 1)[-1]
    [event] = published(office.database, identifier, "RepairCheckCompleted")
    assert (event.data["count"], event.data["notHandled"], event.data["notReturned"]) == (2, 1, 1)
    pass_to(office, DUE + DAY / 24)
    assert state(seen(office, check)) == "DONE"
    assert not [type for _, type, _ in clock_events(office.database, identifier) if type == "ClockBreached"]


def test_what_has_been_checked_stays_as_it_was_while_the_orders_go_on(office: Desk) -> None:
    repair = office.report()
    done = complete(office, open_check(office))
    office.carry(repair, "FILED")
    assert list(seen(office, done).lines) == list(done.lines)


def test_an_order_without_a_reason_and_one_of_another_estate_are_refused(office: Desk, elsewhere: Desk) -> None:
    first, second = office.report(), office.report()
    foreign = elsewhere.report()
    clerk, check = office.tree.staff["EARLY_SHIFT_CLERK"], open_check(office)
    one = {"repair": first.name, "reason": "等配件"}
    answer = office.refused(clerk, "CompleteRepairCheck", name=check.name, remarks=[one])
    assert (answer.http, answer.reason, answer.rule) == (400, "REMARK_MISSING", "REP-26")
    assert second.number in answer.violations[0].description
    wrong = office.refused(clerk, "CompleteRepairCheck", name=check.name, remarks=[one, {"repair": foreign.name, "reason": "等配件"}])
    assert (wrong.reason, wrong.fields) == ("REPAIR_NOT_FOUND", {"remarks[1].repair"})
    assert state(seen(office, check)) == "OPEN"


def test_an_order_that_was_filed_while_the_clerk_wrote_is_no_mistake(office: Desk) -> None:
    repair = office.at("ACCEPTED")
    check = open_check(office)
    office.step(repair)
    assert list(complete(office, check).lines) == []


def test_a_quiet_day_is_reported_too(office: Desk) -> None:
    check = open_check(office)
    assert list(check.lines) == []
    assert state(complete(office, check)) == "DONE"


@pytest.mark.rule("REP-26")
def test_a_check_that_nobody_does_is_missed_at_five_and_told_to_the_head_of_the_department(office: Desk) -> None:
    check = open_check(office)
    identifier = check.name.rsplit("/", 1)[-1]
    pass_to(office, DUE - SECOND)
    assert state(seen(office, check)) == "OPEN"
    pass_to(office, DUE)
    assert state(seen(office, check)) == "MISSED"
    assert clock_events(office.database, identifier)[-1] == ("duty", "ClockBreached", DUE)
    late = complete(office, check)
    assert (state(late), late.clocks[0].breached) == ("DONE", True)
    assert published(office.database, identifier, "DutyCompleted")[0].data["late"] is True


@pytest.mark.rule("REP-26")
def test_an_assistant_may_do_it_only_where_nobody_has_the_early_shift(office: Desk) -> None:
    check, assistant = open_check(office), office.tree.staff["CUSTOMER_ASSISTANT"]
    answer = office.refused(assistant, "CompleteRepairCheck", name=check.name)
    assert (answer.http, answer.reason) == (403, "NOT_YOURS")
    with office.database.transaction() as tx:
        tx.execute("UPDATE dir_posts SET deleted = true WHERE node_id = %s AND role = 'EARLY_SHIFT_CLERK'", (office.tree.estate_id,))
    assert complete(office, check, assistant).completed_by == assistant.name


def test_the_supervisor_may_do_it_for_the_early_shift_and_others_may_not(office: Desk) -> None:
    check = open_check(office)
    for role in ("TECHNICIAN", "PROJECT_MANAGER", "OWNER"):
        assert office.refused(office.tree.by_role(role), "CompleteRepairCheck", name=check.name).http == 403
    assert state(complete(office, check, office.tree.staff["CS_SUPERVISOR"])) == "DONE"


def test_a_check_is_done_once(office: Desk) -> None:
    check = open_check(office)
    complete(office, check)
    answer = office.refused(office.tree.staff["EARLY_SHIFT_CLERK"], "CompleteRepairCheck", name=check.name)
    assert (answer.http, answer.reason) == (409, "ILLEGAL_MOVE")


def test_every_day_has_its_check_and_pages_of_them_are_listed_by_state(office: Desk) -> None:
    pass_to(office, OPENS + 3 * DAY)
    manager = office.tree.staff["PROJECT_MANAGER"]
    assert [state(check) for check in checks(office)] == ["OPEN", "MISSED", "MISSED", "MISSED"]
    first = office.call(manager, "ListRepairChecks", parent=office.tree.parent, states=["MISSED"], page_size=2)
    rest = office.call(
        manager, "ListRepairChecks", parent=office.tree.parent, states=["MISSED"], page_size=2, page_token=first.next_page_token
    )
    assert (len(first.repair_checks), len(rest.repair_checks), rest.next_page_token) == (2, 1, "")


def test_a_check_of_another_estate_is_not_found(office: Desk, elsewhere: Desk) -> None:
    check = open_check(office)
    name = check.name.replace(office.tree.code, elsewhere.tree.code)
    assert elsewhere.refused(elsewhere.tree.staff["PROJECT_MANAGER"], "GetRepairCheck", name=name).http == 404
