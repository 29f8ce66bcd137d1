"""Rosters, leave and deputies, the training mark and departures, over the real port."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from services.chassis import directory
from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.errors import Unauthenticated
from services.chassis.rpc import Server, fill_directory
from services.chassis.testing import INTERNAL, Api, Caller, Refused, Tree, a_tree, published
from services.residents import sessions
from services.residents.staff import Post, Staff
from services.residents.staffing import follow_register
from steward.options.v1 import options_pb2
from steward.residents.v1 import directory_pb2
from steward.residents.v1 import rosters_pb2 as pb
from tests.rostered import post

HOUR = timedelta(hours=1)


@dataclass
class Office:
    """An estate of the register with its staff, and those who plan."""

    api: Api
    database: Database
    tree: Tree

    def call(self, who: Caller | str, rpc: str, /, **fields: Any) -> Any:
        return self.api.call(self.tree.staff[who] if isinstance(who, str) else who, rpc, **fields)

    def refused(self, who: Caller | str, rpc: str, /, **fields: Any) -> Refused:
        with pytest.raises(Refused) as refused:
            self.call(who, rpc, **fields)
        return refused.value

    def hire(self, role: str) -> Caller:
        """One more member of staff, in the register too."""
        caller = self.tree.hire(self.database, role)
        enrol(self.database, self.tree, [caller])
        return caller

    def at(self, day: int, hour: int, minute: int = 0) -> datetime:
        """An hour on the estate's clock, so many days from today."""
        zone = ZoneInfo(self.tree.zone)
        start = datetime.now(zone).replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
        return (start + timedelta(days=day)).replace(tzinfo=zone)

    def day(self, day: int) -> str:
        return self.at(day, 12).date().isoformat()

    def shift(self, who: Caller, role: str, start: datetime, end: datetime, **more: Any) -> dict[str, Any]:
        """The fields of CreateShift."""
        return {"parent": self.tree.parent, "shift": {"staff": who.name, "role": role, "start_time": start, "end_time": end, **more}}

    def plan(self, who: Caller, role: str, start: datetime, end: datetime, **more: Any) -> pb.Shift:
        return self.call("PROJECT_MANAGER", "CreateShift", **self.shift(who, role, start, end, **more))

    def leave(self, who: Caller, start: datetime, end: datetime | None = None, **more: Any) -> dict[str, Any]:
        """The fields of RecordLeave."""
        return {"parent": self.tree.parent, "leave": {"staff": who.name, "kind": "ANNUAL", "start_time": start, "end_time": end, **more}}

    def name_of(self, who: Caller) -> str:
        return f"{self.tree.parent}/staff/{who.id}"

    def train(self, who: Caller, trained: bool = True) -> Any:
        return self.call("ADMIN_HR", "SetTraining", name=self.name_of(who), trained=trained, note="2026 年度受理培训")

    def on_duty(self, role: str, at: datetime) -> set[UUID]:
        with self.database.read() as tx:
            return set(directory.on_duty(tx, role, self.tree.estate, at))

    def roster(self, from_day: int, to_day: int, **more: Any) -> list[tuple[str, datetime, datetime]]:
        reply = self.call(
            "PROJECT_MANAGER", "ListShifts", parent=self.tree.parent, from_day=self.day(from_day), to_day=self.day(to_day), **more
        )
        return [(s.staff, instant(s.start_time), instant(s.end_time)) for s in reply.shifts]


def instant(stamp: Any) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def enrol(database: Database, tree: Tree, callers: list[Caller]) -> None:
    """Register rows of people whom the directory has already."""
    with database.transaction() as tx:
        for caller in callers:
            level = caller.grants[0].level
            place: dict[str, Any] = {
                "group_id": tree.group_id,
                "company_id": tree.company_id if level != "group" else None,
                "estate_id": tree.estate_id if level == "estate" else None,
                "version": 1,
                "created_at": tx.now,
                "updated_at": tx.now,
            }
            number = f"{tree.code}-{caller.id.hex[:8]}"
            tx.add(Staff(id=caller.id, number=number, name="钟明", title="", phone="", email="", state="ACTIVE", **place))
        tx.session.flush()
        for caller in callers:
            rows = tx.execute("SELECT id, role, node_id FROM dir_posts WHERE staff_id = %s", (caller.id,))
            level = caller.grants[0].level
            place = {"group_id": tree.group_id, "company_id": tree.company_id if level != "group" else None}
            place |= {"estate_id": tree.estate_id if level == "estate" else None, "version": 1, "created_at": tx.now, "updated_at": tx.now}
            tx.session.add_all(
                [Post(id=i, staff_id=caller.id, role=role, node_id=node, from_register=True, **place) for i, role, node in rows]
            )


@pytest.fixture
def new_office(api: Api, database_of: Callable[[str], Database]) -> Callable[..., Office]:
    def make(**options: Any) -> Office:
        database = database_of("residents")
        tree = a_tree(database, **options)
        enrol(database, tree, list(tree.staff.values()))
        return Office(api, database, tree)

    return make


@pytest.fixture
def office(new_office: Callable[..., Office]) -> Office:
    return new_office()


# --- shifts -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("REP-09")
def test_a_night_shift_is_planned_across_midnight_and_is_on_duty_at_0310(office: Office) -> None:
    night, other = office.tree.technician, office.hire("TECHNICIAN")
    made = office.plan(night, "TECHNICIAN", office.at(1, 22), office.at(2, 6))
    assert made.name.startswith(f"{office.tree.parent}/shifts/")
    assert (made.staff, made.role, instant(made.end_time) - instant(made.start_time)) == (night.name, options_pb2.TECHNICIAN, 8 * HOUR)
    assert office.on_duty("TECHNICIAN", office.at(2, 3, 10)) == {night.id}
    assert office.on_duty("TECHNICIAN", office.at(2, 9)) == {night.id, other.id}
    assert office.roster(2, 2) == [(night.name, office.at(1, 22), office.at(2, 6))], "it stands on both its days"
    assert office.roster(1, 1) == office.roster(2, 2)
    assert office.roster(3, 3) == []


def test_shifts_may_be_split_and_follow_each_other_but_not_overlap(office: Office) -> None:
    who = office.tree.technician
    for start, end in ((8, 12), (14, 18), (12, 14)):
        office.plan(who, "TECHNICIAN", office.at(1, start), office.at(1, end))
    for start, end in ((11, 13), (8, 12), (7, 19), (9, 10), (17, 23)):
        refusal = office.refused(
            "PROJECT_MANAGER", "CreateShift", **office.shift(who, "TECHNICIAN", office.at(1, start), office.at(1, end))
        )
        assert (refusal.http, refusal.reason) == (409, "SHIFT_OVERLAPS")
    assert len(office.roster(1, 1)) == 3


def test_nobody_is_on_duty_at_two_estates_at_once(office: Office, new_office: Callable[..., Office]) -> None:
    beside = new_office(beside=office.tree)
    pooled = Caller("staff", uuid4(), (Grant("TECHNICIAN", "company", office.tree.company_id),))
    with office.database.transaction() as tx:
        directory.apply(tx, [post(pooled, "TECHNICIAN", office.tree.company_id)])
    enrol(office.database, office.tree, [pooled])
    office.plan(pooled, "TECHNICIAN", office.at(1, 8), office.at(1, 12))
    clash = beside.shift(pooled, "TECHNICIAN", office.at(1, 11), office.at(1, 15))
    assert beside.refused("PROJECT_MANAGER", "CreateShift", **clash).reason == "SHIFT_OVERLAPS"
    assert beside.plan(pooled, "TECHNICIAN", office.at(1, 12), office.at(1, 15)).staff == pooled.name


def test_two_planners_at_once_put_a_person_on_the_roster_once(office: Office) -> None:
    fields = office.shift(office.tree.technician, "TECHNICIAN", office.at(1, 8), office.at(1, 16))

    def plan(planner: str) -> str:
        try:
            return office.call(planner, "CreateShift", **fields).staff
        except Refused as refused:
            return refused.reason

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(plan, ["PROJECT_MANAGER", "ENGINEERING_SUPERVISOR"] * 3))
    assert sorted(set(answers) - {"LOCKED", "BUSY"}) == ["SHIFT_OVERLAPS", office.tree.technician.name]
    assert len(office.roster(1, 1)) == 1


@pytest.mark.parametrize(
    ("start", "end"),
    [((1, 8), (1, 8)), ((1, 9), (1, 8)), ((1, 8), (2, 9)), ((-2, 8), (-2, 16)), ((400, 8), (400, 16))],
    ids=["no length", "wrong order", "more than a day", "over", "years ahead"],
)
def test_a_shift_that_cannot_be_is_refused(office: Office, start: tuple[int, int], end: tuple[int, int]) -> None:
    fields = office.shift(office.tree.technician, "TECHNICIAN", office.at(*start), office.at(*end))
    refusal = office.refused("PROJECT_MANAGER", "CreateShift", **fields)
    assert (refusal.http, refusal.reason, refusal.fields) == (400, "INVALID_SHIFT", {"shift.end_time"})
    missing = {**fields["shift"], "end_time": None}
    assert office.refused("PROJECT_MANAGER", "CreateShift", parent=fields["parent"], shift=missing).http == 400
    assert office.plan(office.tree.technician, "TECHNICIAN", office.at(1, 8), office.at(2, 8)).staff, "a whole day can be"


@pytest.mark.rule("ORG-09")
def test_nobody_is_on_duty_in_a_role_he_does_not_hold_there(office: Office, new_office: Callable[..., Office]) -> None:
    start, end = office.at(1, 8), office.at(1, 16)
    plan = office.shift(office.tree.staff["SECURITY_GUARD"], "TECHNICIAN", start, end)
    refusal = office.refused("PROJECT_MANAGER", "CreateShift", **plan)
    assert (refusal.http, refusal.reason, refusal.rule, refusal.fields) == (400, "ROLE_NOT_HELD", "ORG-09", {"shift.role"})
    for stranger in (new_office().tree.technician, Caller("staff", uuid4())):
        refusal = office.refused("PROJECT_MANAGER", "CreateShift", **office.shift(stranger, "TECHNICIAN", start, end))
        assert (refusal.http, refusal.reason, refusal.fields) == (400, "STAFF_NOT_FOUND", {"shift.staff"})
    refusal = office.refused("PROJECT_MANAGER", "CreateShift", **office.shift(replace(office.tree.owner), "TECHNICIAN", start, end))
    assert (refusal.http, refusal.fields) == (400, {"shift.staff"})


@pytest.mark.rule("REP-36")
def test_nobody_untrained_is_put_on_the_intake_roster(office: Office) -> None:
    assistant = office.tree.staff["CUSTOMER_ASSISTANT"]
    fields = office.shift(assistant, "CUSTOMER_ASSISTANT", office.at(1, 8), office.at(1, 16))
    for shift in (fields["shift"], {**fields["shift"], "role": "EARLY_SHIFT_CLERK"}):
        refusal = office.refused("CS_SUPERVISOR", "CreateShift", parent=fields["parent"], shift=shift)
        assert (refusal.http, refusal.reason, refusal.rule) == (409, "NOT_TRAINED", "REP-36")
    assert office.train(assistant).intake_trained
    made = office.call("CS_SUPERVISOR", "CreateShift", **fields)
    assert office.train(assistant, False).intake_trained is False
    later = office.shift(assistant, "CUSTOMER_ASSISTANT", office.at(2, 8), office.at(2, 16))
    assert office.refused("CS_SUPERVISOR", "CreateShift", **later).rule == "REP-36"
    assert [line[0] for line in office.roster(1, 2)] == [made.staff], "what was planned stays"
    with office.database.read() as tx:
        lines = tx.execute("SELECT before, after, reason FROM corrections WHERE record_id = %s ORDER BY version", (assistant.id,))
    assert [line[1]["intake_trained"] for line in lines] == [True, False]
    assert {line[2] for line in lines} == {"2026 年度受理培训"}


@pytest.mark.rule("REP-25")
def test_the_early_shift_is_taken_by_a_customer_assistant_and_by_nobody_else(office: Office) -> None:
    assistant = office.hire("CUSTOMER_ASSISTANT")
    office.train(assistant)
    made = office.plan(assistant, "EARLY_SHIFT_CLERK", office.at(1, 7), office.at(1, 15))
    assert made.early_shift
    also = office.plan(assistant, "CUSTOMER_ASSISTANT", office.at(2, 7), office.at(2, 15), early_shift=True)
    assert also.early_shift
    for day in (1, 2):
        assert office.on_duty("EARLY_SHIFT_CLERK", office.at(day, 9)) == {assistant.id}
    assert assistant.id in office.on_duty("CUSTOMER_ASSISTANT", office.at(2, 9))
    technician = office.tree.technician
    wrong = office.shift(technician, "EARLY_SHIFT_CLERK", office.at(1, 7), office.at(1, 15))
    assert office.refused("PROJECT_MANAGER", "CreateShift", **wrong).reason == "ROLE_NOT_HELD"
    wrong = office.shift(technician, "TECHNICIAN", office.at(1, 7), office.at(1, 15), early_shift=True)
    refusal = office.refused("PROJECT_MANAGER", "CreateShift", **wrong)
    assert (refusal.reason, refusal.fields) == ("INVALID_SHIFT", {"shift.early_shift"})


@pytest.mark.rule("REP-25")
def test_who_is_on_the_early_shift_now_may_act_as_its_clerk(office: Office) -> None:
    assistant = office.hire("CUSTOMER_ASSISTANT")
    office.train(assistant)
    clerk = Grant("EARLY_SHIFT_CLERK", "estate", office.tree.estate_id)
    now = datetime.now(UTC)
    shift = office.plan(assistant, "CUSTOMER_ASSISTANT", now - HOUR, now + HOUR, early_shift=True)
    assert clerk in grants(office, assistant)
    office.call("CS_SUPERVISOR", "DeleteShift", name=shift.name, reason="换班")
    assert clerk not in grants(office, assistant)


def grants(office: Office, who: Caller) -> set[Grant]:
    """What the register lets somebody do now."""
    with office.database.read() as tx:
        live = sessions.live(tx, who.name)
    return set(live.grants) if live else set()


def test_a_shift_to_come_is_struck_out_and_one_that_runs_is_cut_short(office: Office) -> None:
    who, other, now = office.tree.technician, office.hire("TECHNICIAN"), datetime.now(UTC)
    running = office.plan(who, "TECHNICIAN", now - 2 * HOUR, now + 2 * HOUR)
    coming = office.plan(who, "TECHNICIAN", office.at(2, 8), office.at(2, 16))
    gone = office.call("ENGINEERING_SUPERVISOR", "DeleteShift", name=coming.name, reason="改期")
    cut = office.call("ENGINEERING_SUPERVISOR", "DeleteShift", name=running.name, reason="临时有事")
    assert (gone.deleted, cut.deleted) == (True, False)
    assert now <= instant(cut.end_time) < now + HOUR
    assert office.on_duty("TECHNICIAN", now - HOUR) == {who.id}, "who was on duty until now stays known"
    assert office.on_duty("TECHNICIAN", now + HOUR) == {who.id, other.id}
    assert office.on_duty("TECHNICIAN", office.at(2, 9)) == {who.id, other.id}
    for shift in (coming, running):
        assert office.refused("PROJECT_MANAGER", "DeleteShift", name=shift.name, reason="再删").reason == "SHIFT_OVER"
    assert office.refused("PROJECT_MANAGER", "DeleteShift", name=cut.name).fields == {"reason"}
    assert office.plan(who, "TECHNICIAN", office.at(2, 8), office.at(2, 16)).name != coming.name, "the time is free again"
    with office.database.read() as tx:
        reasons = tx.execute(
            "SELECT reason FROM corrections WHERE record = 'shifts' AND group_id = %s ORDER BY at", (office.tree.group_id,)
        )
    assert reasons == [("改期",), ("临时有事",)]


@pytest.mark.rule("ORG-06")
def test_each_supervisor_plans_for_his_own_department(office: Office) -> None:
    start, end = office.at(1, 8), office.at(1, 16)
    engineer = office.shift(office.tree.technician, "TECHNICIAN", start, end)
    refusal = office.refused("CS_SUPERVISOR", "CreateShift", **engineer)
    assert (refusal.http, refusal.reason) == (403, "NOT_YOUR_DEPARTMENT")
    made = office.call("ENGINEERING_SUPERVISOR", "CreateShift", **engineer)
    assert office.refused("CS_SUPERVISOR", "DeleteShift", name=made.name, reason="不归我管").reason == "NOT_YOUR_DEPARTMENT"
    own = office.shift(office.tree.staff["ENGINEERING_SUPERVISOR"], "ENGINEERING_SUPERVISOR", start, end)
    assert office.call("ENGINEERING_SUPERVISOR", "CreateShift", **own).staff
    guard = office.shift(office.tree.staff["SECURITY_GUARD"], "SECURITY_GUARD", start, end)
    assert office.refused("ENGINEERING_SUPERVISOR", "CreateShift", **guard).http == 403
    assert office.call("ADMIN_HR", "CreateShift", **guard).staff
    for who in ("TECHNICIAN", "CUSTOMER_ASSISTANT", "SECURITY_GUARD"):
        assert office.refused(who, "CreateShift", **engineer).reason == "ROLE_REQUIRED"


def test_another_estate_sees_and_changes_nothing(office: Office, new_office: Callable[..., Office]) -> None:
    made = office.plan(office.tree.technician, "TECHNICIAN", office.at(1, 8), office.at(1, 16))
    stranger = new_office()
    foreign = stranger.tree.staff["PROJECT_MANAGER"]
    assert stranger.refused(foreign, "ListShifts", parent=office.tree.parent).http == 404
    assert stranger.refused(foreign, "DeleteShift", name=made.name, reason="无权").http == 404
    renamed = made.name.replace(office.tree.code, stranger.tree.code)
    assert stranger.refused(foreign, "DeleteShift", name=renamed, reason="无权").reason == "SHIFT_NOT_FOUND"
    assert stranger.refused(foreign, "DeleteShift", name=f"{stranger.tree.parent}/shifts/x", reason="无权").reason == "SHIFT_NOT_FOUND"


def test_the_roster_is_listed_in_pages_by_person_and_by_role(office: Office) -> None:
    who, other = office.tree.technician, office.tree.staff["SECURITY_GUARD"]
    for day in range(1, 4):
        office.plan(who, "TECHNICIAN", office.at(day, 8), office.at(day, 16))
        office.plan(other, "SECURITY_GUARD", office.at(day, 8), office.at(day, 16))
    pages, token = [], ""
    while True:
        days = {"from_day": office.day(1), "to_day": office.day(3)}
        page = office.call("TECHNICIAN", "ListShifts", parent=office.tree.parent, page_size=4, page_token=token, **days)
        pages.append([s.name for s in page.shifts])
        token = page.next_page_token
        if not token:
            break
    assert [len(page) for page in pages] == [4, 2]
    assert len({name for page in pages for name in page}) == 6
    assert len(office.roster(1, 3, staff=who.name)) == len(office.roster(1, 3, role="SECURITY_GUARD")) == 3
    assert len(office.call("TECHNICIAN", "ListShifts", parent=office.tree.parent).shifts) == 6, "a week from today, unless asked otherwise"
    for wrong in ({"from_day": office.day(3), "to_day": office.day(1)}, {"to_day": office.day(90)}, {"from_day": "2026-02-30"}):
        assert office.refused("TECHNICIAN", "ListShifts", parent=office.tree.parent, **wrong).reason == "INVALID_DAYS"
    assert office.refused("ADMIN_HR", "ListShifts", parent="estates/-").reason == "ESTATE_REQUIRED"


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Asia/Urumqi", "America/New_York"])
def test_days_of_a_roster_are_those_of_the_estates_clock(new_office: Callable[..., Office], zone: str) -> None:
    office = new_office(zone=zone)
    line = (office.tree.technician.name, office.at(2, 0), office.at(2, 1))
    office.plan(office.tree.technician, "TECHNICIAN", *line[1:])
    assert (office.roster(1, 1), office.roster(2, 2), office.roster(3, 3)) == ([], [line], [])


# --- copying a week -----------------------------------------------------------------------------------------------------


def test_a_week_is_copied_to_the_next_and_copying_again_changes_nothing(office: Office) -> None:
    night, day = office.tree.technician, office.hire("TECHNICIAN")
    office.plan(night, "TECHNICIAN", office.at(1, 22), office.at(2, 6))
    office.plan(day, "TECHNICIAN", office.at(2, 8), office.at(2, 18))
    office.plan(office.tree.staff["SECURITY_GUARD"], "SECURITY_GUARD", office.at(9, 8), office.at(9, 18))
    week = {"parent": office.tree.parent, "from_day": office.day(1), "to_day": office.day(8)}
    copied = office.call("ENGINEERING_SUPERVISOR", "CopyShifts", **week)
    assert [(s.staff, instant(s.start_time), instant(s.end_time)) for s in copied.shifts] == [
        (night.name, office.at(8, 22), office.at(9, 6)),
        (day.name, office.at(9, 8), office.at(9, 18)),
    ]
    assert office.on_duty("TECHNICIAN", office.at(9, 3, 10)) == {night.id}
    again = office.call("ENGINEERING_SUPERVISOR", "CopyShifts", **week)
    assert not again.shifts
    assert [left.reason for left in again.left_out] == ["SHIFT_OVERLAPS"] * 2
    assert len(office.roster(8, 14)) == 3


def test_what_cannot_be_copied_is_left_out_and_said(office: Office) -> None:
    away, guard = office.tree.technician, office.tree.staff["SECURITY_GUARD"]
    office.plan(away, "TECHNICIAN", office.at(1, 8), office.at(1, 16))
    office.plan(guard, "SECURITY_GUARD", office.at(1, 8), office.at(1, 16))
    office.call("ENGINEERING_SUPERVISOR", "RecordLeave", **office.leave(away, office.at(8, 0), office.at(9, 0)))
    week = {"parent": office.tree.parent, "from_day": office.day(1), "to_day": office.day(8)}
    copied = office.call("ENGINEERING_SUPERVISOR", "CopyShifts", **week)
    assert {left.shift.staff: left.reason for left in copied.left_out} == {away.name: "STAFF_ON_LEAVE", guard.name: "NOT_YOUR_DEPARTMENT"}
    assert not copied.shifts
    copied = office.call("PROJECT_MANAGER", "CopyShifts", **week, role="SECURITY_GUARD")
    assert [s.staff for s in copied.shifts] == [guard.name]
    for days in ({"to_day": office.day(7)}, {"from_day": office.day(20)}, {"from_day": "2026-13-01"}):
        assert office.refused("PROJECT_MANAGER", "CopyShifts", **{**week, **days}).reason == "INVALID_DAYS"


def test_a_copied_shift_keeps_its_hours_where_the_clocks_are_changed(new_office: Callable[..., Office]) -> None:
    office, zone = new_office(zone="America/New_York"), ZoneInfo("America/New_York")
    now = datetime.now(zone)
    spring = next(  # the Sunday on which the clocks go forward
        day for day in (now + timedelta(days=n) for n in range(1, 366)) if day.replace(hour=1).utcoffset() < day.replace(hour=4).utcoffset()
    )
    before = (spring - timedelta(days=3)).replace(hour=8, minute=0, second=0, microsecond=0)
    office.plan(office.tree.technician, "TECHNICIAN", before, before.replace(hour=16))
    first = before.date()
    copied = office.call(
        "PROJECT_MANAGER", "CopyShifts", parent=office.tree.parent, from_day=str(first), to_day=str(first + timedelta(days=7))
    )
    start = instant(copied.shifts[0].start_time).astimezone(zone)
    assert (start.date(), start.hour) == (first + timedelta(days=7), 8)
    assert start.utcoffset() != before.utcoffset()


# --- leave and deputies -------------------------------------------------------------------------------------------------


@pytest.mark.rule("ORG-06")
def test_a_deputy_holds_the_role_from_the_start_of_the_leave_to_its_end(office: Office) -> None:
    absent, deputy = office.tree.staff["ENGINEERING_SUPERVISOR"], office.hire("TECHNICIAN")
    role = Grant("ENGINEERING_SUPERVISOR", "estate", office.tree.estate_id)
    now = datetime.now(UTC)
    assert role not in grants(office, deputy)
    leave = office.call("ENGINEERING_SUPERVISOR", "RecordLeave", **office.leave(absent, now - HOUR, now + HOUR, deputy=deputy.name))
    assert (leave.staff, leave.deputy, leave.kind) == (absent.name, deputy.name, pb.Leave.ANNUAL)
    assert role in grants(office, deputy)
    assert office.on_duty("ENGINEERING_SUPERVISOR", now) == {deputy.id}
    assert office.on_duty("ENGINEERING_SUPERVISOR", now + 2 * HOUR) == {absent.id}
    stand_in = replace(deputy, grants=(*deputy.grants, role))
    assert office.call(stand_in, "ListLeaves", parent=office.tree.parent).leaves[0].name == leave.name, "and may act by it"
    ended = office.call("PROJECT_MANAGER", "EndLeave", name=leave.name, reason="提前返岗")
    assert instant(ended.end_time) < now + HOUR
    assert role not in grants(office, deputy)
    assert office.on_duty("ENGINEERING_SUPERVISOR", datetime.now(UTC)) == {absent.id}
    assert office.refused("PROJECT_MANAGER", "EndLeave", name=leave.name).reason == "LEAVE_OVER"


def test_who_is_on_leave_is_not_put_on_the_roster(office: Office) -> None:
    who = office.tree.technician
    office.call("ENGINEERING_SUPERVISOR", "RecordLeave", **office.leave(who, office.at(2, 0), office.at(4, 0), kind="SICK"))
    clash = office.shift(who, "TECHNICIAN", office.at(1, 22), office.at(2, 6))
    assert office.refused("PROJECT_MANAGER", "CreateShift", **clash).reason == "STAFF_ON_LEAVE"
    assert office.plan(who, "TECHNICIAN", office.at(1, 16), office.at(2, 0)).staff == who.name
    with office.database.read() as tx:
        told = tx.execute("SELECT data::text FROM events WHERE type = 'DirectoryChanged' AND group_id = %s", (office.tree.group_id,))
    assert any("absence" in row[0] for row in told)
    assert not any("SICK" in row[0] for row in told), "why he is away is nobody else's business"


def test_a_leave_that_cannot_be_is_refused(office: Office) -> None:
    who, now = office.tree.technician, datetime.now(UTC)
    for start, end in (
        (now + HOUR, now),
        (now - 3 * HOUR, now - HOUR),
        (now - timedelta(days=40), None),
        (now + timedelta(days=500), None),
    ):
        refusal = office.refused("PROJECT_MANAGER", "RecordLeave", **office.leave(who, start, end))
        assert (refusal.http, refusal.reason) == (400, "INVALID_LEAVE")
    office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(who, now + HOUR))
    overlap = office.leave(who, now + timedelta(days=9), now + timedelta(days=10))
    assert office.refused("PROJECT_MANAGER", "RecordLeave", **overlap).reason == "LEAVE_OVERLAPS"
    assert office.refused("PROJECT_MANAGER", "RecordLeave", **office.leave(Caller("staff", uuid4()), now)).reason == "STAFF_NOT_FOUND"
    unnamed = {**office.leave(who, now)["leave"], "kind": 0}
    assert office.refused("PROJECT_MANAGER", "RecordLeave", parent=office.tree.parent, leave=unnamed).fields == {"leave.kind"}


def test_a_leave_to_come_is_struck_out_and_an_open_one_gets_its_end(office: Office) -> None:
    who, now = office.tree.technician, datetime.now(UTC)
    coming = office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(who, now + 5 * HOUR))
    assert office.call("PROJECT_MANAGER", "EndLeave", name=coming.name, reason="不休了").deleted
    opened = office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(who, now - HOUR))
    until = (now + 3 * HOUR).replace(microsecond=0)
    assert office.refused("PROJECT_MANAGER", "EndLeave", name=opened.name, end_time=now - HOUR).reason == "INVALID_LEAVE"
    ended = office.call("PROJECT_MANAGER", "EndLeave", name=opened.name, end_time=until)
    assert instant(ended.end_time) == until
    assert office.refused("PROJECT_MANAGER", "EndLeave", name=opened.name, end_time=until + HOUR).reason == "INVALID_LEAVE"
    listed = office.call("PROJECT_MANAGER", "ListLeaves", parent=office.tree.parent).leaves
    assert [leave.name for leave in listed] == [opened.name]
    office.call("PROJECT_MANAGER", "EndLeave", name=opened.name)
    assert not office.call("PROJECT_MANAGER", "ListLeaves", parent=office.tree.parent, staff=who.name).leaves
    assert office.call("PROJECT_MANAGER", "ListLeaves", parent=office.tree.parent, include_past=True).leaves


@pytest.mark.rule("ORG-06")
def test_nobody_gets_a_role_by_making_himself_a_deputy_or_by_sending_his_superior_away(office: Office) -> None:
    now, tree = datetime.now(UTC), office.tree
    supervisor, manager = tree.staff["CS_SUPERVISOR"], tree.staff["PROJECT_MANAGER"]
    refusal = office.refused("CS_SUPERVISOR", "RecordLeave", **office.leave(manager, now, deputy=tree.technician.name))
    assert (refusal.http, refusal.reason) == (403, "NOT_YOUR_DEPARTMENT")
    assert office.refused("ENGINEERING_SUPERVISOR", "RecordLeave", **office.leave(supervisor, now)).reason == "NOT_YOUR_DEPARTMENT"
    refusal = office.refused("PROJECT_MANAGER", "RecordLeave", **office.leave(supervisor, now, deputy=manager.name))
    assert (refusal.http, refusal.reason) == (403, "OWN_DEPUTY")
    assert office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(manager, now, deputy=supervisor.name)).deputy == supervisor.name


def test_a_deputy_is_a_colleague_of_the_same_node_who_is_there(office: Office, new_office: Callable[..., Office]) -> None:
    now, tree = datetime.now(UTC), office.tree
    absent = tree.technician
    for unfit in (absent, tree.staff["FINANCE"], new_office().tree.technician, Caller("staff", uuid4())):
        refusal = office.refused("PROJECT_MANAGER", "RecordLeave", **office.leave(absent, now, deputy=unfit.name))
        assert (refusal.http, refusal.reason, refusal.fields) == (400, "DEPUTY_UNFIT", {"leave.deputy"})
    colleague = office.hire("TECHNICIAN")
    office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(colleague, now + 2 * HOUR, now + 4 * HOUR))
    clash = office.leave(absent, now + 3 * HOUR, deputy=colleague.name)
    assert office.refused("PROJECT_MANAGER", "RecordLeave", **clash).reason == "DEPUTY_ON_LEAVE"
    assert office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(absent, now, now + HOUR, deputy=colleague.name)).deputy


def test_hr_records_the_leave_of_who_works_at_the_company(office: Office) -> None:
    now, absent, deputy = datetime.now(UTC), office.tree.staff["GENERAL_MANAGER"], office.tree.staff["BRANCH_LEADER"]
    fields = office.leave(absent, now - HOUR, deputy=deputy.name) | {"parent": "estates/-"}
    assert office.refused("PROJECT_MANAGER", "RecordLeave", **fields).reason == "STAFF_NOT_FOUND", "he is not in a manager's sight"
    leave = office.call("ADMIN_HR", "RecordLeave", **fields)
    assert leave.name.startswith("estates/-/leaves/")
    assert office.on_duty("GENERAL_MANAGER", datetime.now(UTC)) == {deputy.id}
    assert office.call("ADMIN_HR", "EndLeave", name=leave.name).name == leave.name


# --- staff --------------------------------------------------------------------------------------------------------------


def test_staff_are_listed_with_roles_mark_and_whether_they_are_away(office: Office) -> None:
    who = office.tree.technician
    office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(who, datetime.now(UTC) - HOUR))
    found = {member.staff: member for member in everybody(office, page_size=4)}
    assert set(found) == {c.name for c in office.tree.staff.values() if c.grants[0].level == "estate"}
    technician = found[who.name]
    assert (list(technician.roles), technician.away, technician.intake_trained) == ([options_pb2.TECHNICIAN], True, False)
    assert technician.name == office.name_of(who)
    assert [m.staff for m in everybody(office, role="TECHNICIAN")] == [who.name]


def everybody(office: Office, **asked: Any) -> list[pb.StaffMember]:
    found, token = [], ""
    while True:
        page = office.call("PROJECT_MANAGER", "ListStaff", parent=office.tree.parent, page_token=token, **asked)
        found += page.staff
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.rule("ORG-06")
def test_who_leaves_can_do_nothing_from_then_on_and_stands_nowhere_any_more(office: Office) -> None:
    tree, now = office.tree, datetime.now(UTC)
    leaver, successor, ill = tree.technician, office.hire("TECHNICIAN"), office.hire("TECHNICIAN")
    running = office.plan(leaver, "TECHNICIAN", now - HOUR, now + HOUR)
    office.plan(leaver, "TECHNICIAN", office.at(2, 8), office.at(2, 16))
    office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(leaver, office.at(5, 0), office.at(6, 0)))
    office.call("PROJECT_MANAGER", "RecordLeave", **office.leave(ill, now - HOUR, deputy=leaver.name))
    with office.database.transaction() as tx:
        session = sessions.open_session(tx, leaver.name)
    with office.database.read() as tx:
        assert sessions.behind(tx, session.access).id == str(leaver.id)

    gone = office.call("ADMIN_HR", "RetireStaff", name=office.name_of(leaver), successor=successor.name, reason="合同到期")

    assert (gone.state, list(gone.roles)) == (pb.StaffMember.LEFT, [])
    with office.database.read() as tx, pytest.raises(Unauthenticated) as ended:
        sessions.behind(tx, session.access)
    assert ended.value.reason == "SESSION_ENDED"
    with office.database.transaction() as tx, pytest.raises(Unauthenticated):
        sessions.refresh_session(tx, session.refresh)
    assert grants(office, leaver) == set()
    assert office.roster(2, 3) == []
    assert next(line[2] for line in office.roster(-1, 1) if line[0] == running.staff) < now + HOUR
    leaves = office.call("PROJECT_MANAGER", "ListLeaves", parent=tree.parent).leaves
    assert [(leave.staff, leave.deputy) for leave in leaves] == [(ill.name, "")]
    assert office.on_duty("TECHNICIAN", datetime.now(UTC)) == {successor.id}
    again = office.refused("ADMIN_HR", "RetireStaff", name=office.name_of(leaver), reason="再来一次")
    assert (again.http, again.reason) == (409, "STAFF_LEFT")


def test_other_services_learn_who_left_and_who_takes_over_by_which_posts(office: Office) -> None:
    tree = office.tree
    leaver, successor = tree.technician, office.hire("TECHNICIAN")
    office.call("ADMIN_HR", "RetireStaff", name=office.name_of(leaver), successor=successor.name, reason="合同到期")
    [event] = published(office.database, leaver.id, "StaffRetired")
    assert (event.subject, event.actor) == (leaver.name, tree.staff["ADMIN_HR"].name)
    assert (event.data["staff"], event.data["successor"]) == (leaver.name, successor.name)
    assert [(p["role"], p["nodeId"]) for p in event.data["successorPosts"]] == [("TECHNICIAN", str(tree.estate_id))]
    [ended] = event.data["endedPosts"]
    assert (ended["version"], ended["post"]["staffId"], ended["post"]["role"]) == ("2", str(leaver.id), "TECHNICIAN")
    assert ended["post"]["endTime"]


def test_a_successor_holds_one_of_the_roles_at_the_same_node_or_above(office: Office, new_office: Callable[..., Office]) -> None:
    name = office.name_of(office.tree.technician)
    for unfit in (office.tree.staff["SECURITY_GUARD"], new_office(beside=office.tree).tree.technician, office.tree.technician):
        refusal = office.refused("ADMIN_HR", "RetireStaff", name=name, successor=unfit.name, reason="离职")
        assert (refusal.http, refusal.reason, refusal.fields) == (400, "SUCCESSOR_UNFIT", {"successor"})
    assert grants(office, office.tree.technician), "nothing has happened"


@pytest.mark.rule("ORG-06")
def test_nobody_lets_himself_or_his_superior_go(office: Office) -> None:
    manager, hr = office.tree.staff["PROJECT_MANAGER"], office.tree.staff["ADMIN_HR"]
    own = office.refused("PROJECT_MANAGER", "RetireStaff", name=office.name_of(manager), reason="我走了")
    assert (own.http, own.reason) == (403, "OWN_RETIREMENT")
    above = office.refused("PROJECT_MANAGER", "RetireStaff", name=f"estates/-/staff/{hr.id}", reason="换人")
    assert (above.http, above.reason) == (404, "STAFF_NOT_FOUND")
    assert (
        office.refused("CS_SUPERVISOR", "RetireStaff", name=office.name_of(office.tree.technician), reason="换人").reason == "ROLE_REQUIRED"
    )
    finance = office.tree.staff["FINANCE"]
    assert office.call("ADMIN_HR", "RetireStaff", name=f"estates/-/staff/{finance.id}", reason="离职").state == pb.StaffMember.LEFT


def test_the_same_command_under_the_same_key_is_done_once(office: Office) -> None:
    fields = office.shift(office.tree.technician, "TECHNICIAN", office.at(1, 8), office.at(1, 16)) | {"request_id": str(uuid4())}
    assert office.call("PROJECT_MANAGER", "CreateShift", **fields).name == office.call("PROJECT_MANAGER", "CreateShift", **fields).name
    assert len(office.roster(1, 1)) == 1


# --- what an import says ------------------------------------------------------------------------------------------------


def says(office: Office, who: Caller, state: str) -> None:
    """The register's file says so; the worker draws its consequences."""
    with office.database.transaction() as tx:
        tx.execute("UPDATE staff SET state = %s, version = version + 1 WHERE id = %s", (state, who.id))
        if state == "LEFT":
            tx.execute("UPDATE posts SET ends_at = %s, version = version + 1 WHERE staff_id = %s", (tx.now, who.id))
    while follow_register(office.database):
        pass


def test_who_has_left_by_the_register_is_handed_over_once(office: Office) -> None:
    leaver = office.tree.technician
    office.plan(leaver, "TECHNICIAN", office.at(1, 8), office.at(1, 16))
    says(office, leaver, "LEFT")
    assert follow_register(office.database) == 0
    [event] = published(office.database, leaver.id, "StaffRetired")
    assert "successor" not in event.data
    assert office.roster(1, 1) == []
    says(office, leaver, "ACTIVE")
    says(office, leaver, "LEFT")
    assert len(published(office.database, leaver.id, "StaffRetired")) == 2, "somebody who was hired again can leave again"


def test_who_is_on_leave_by_the_register_is_away_until_it_says_otherwise(office: Office) -> None:
    who, other = office.tree.technician, office.hire("TECHNICIAN")
    says(office, who, "ON_LEAVE")
    assert office.on_duty("TECHNICIAN", datetime.now(UTC)) == {other.id}
    says(office, who, "ACTIVE")
    assert office.on_duty("TECHNICIAN", datetime.now(UTC)) == {who.id, other.id}
    says(office, who, "ON_LEAVE")
    [leave] = office.call("PROJECT_MANAGER", "ListLeaves", parent=office.tree.parent).leaves
    office.call("PROJECT_MANAGER", "EndLeave", name=leave.name, reason="已返岗")
    assert follow_register(office.database) == 0, "who was called back is not sent off again"
    assert office.on_duty("TECHNICIAN", datetime.now(UTC)) == {who.id, other.id}


def test_a_new_copy_of_the_directory_knows_shifts_and_absences_too(
    office: Office, serving_of: Callable[[str], tuple[Server, Api]], database_of: Callable[[str], Database]
) -> None:
    office.plan(office.tree.technician, "TECHNICIAN", office.at(1, 8), office.at(1, 16))
    office.call(
        "PROJECT_MANAGER",
        "RecordLeave",
        **office.leave(office.tree.staff["SECURITY_GUARD"], office.at(1, 0), deputy=office.tree.technician.name),
    )

    class Residents:
        def call(self, proto: str, rpc: str, request: Any, reply: Any, timeout: float) -> Any:
            request.page_size = 500
            return office.api.send(INTERNAL, rpc, request)

    copy = database_of("surveys")
    fill_directory(copy, Residents())  # type: ignore[arg-type]

    def held(database: Database, table: str) -> list[tuple]:
        with database.read() as tx:
            return tx.execute(f"SELECT * FROM {table} ORDER BY id")

    for table in ("dir_shifts", "dir_absences"):
        assert held(copy, table) == held(office.database, table) != []


def test_the_entries_of_a_roster_name_nobody(office: Office) -> None:
    office.plan(office.tree.technician, "TECHNICIAN", office.at(1, 8), office.at(1, 16))
    fields = {
        field.name for kind in ("Shift", "Absence") for field in directory_pb2.DirectoryEntry.DESCRIPTOR.nested_types_by_name[kind].fields
    }
    assert fields == {"staff_id", "role", "estate_id", "start_time", "end_time", "early_shift", "deputy_id"}
