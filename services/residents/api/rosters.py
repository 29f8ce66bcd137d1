"""The services Rosters and Staffing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from google.protobuf.message import Message

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput, NotFound, Violation
from services.chassis.names import PAGE, identifier, instant, last, page_after, page_position, page_token, stamp
from services.residents import leave as leaves
from services.residents import rosters, staffing
from services.residents.leave import Leave
from services.residents.rosters import Duty, Shift
from services.residents.staff import Staff
from steward.options.v1 import options_pb2
from steward.residents.v1 import rosters_pb2 as pb

SHIFTS_PAGE, STAFF_PAGE = 100, 50
MOST_DAYS = 62


def create_shift(request: pb.CreateShiftRequest, tx: Transaction) -> pb.Shift:
    asked, estate = request.shift, _one_estate(tx)
    duty = Duty(
        identifier(asked.staff, "staff", "shift.staff"),
        options_pb2.Role.Name(asked.role),
        _instant(asked, "start_time"),
        _instant(asked, "end_time"),
        asked.early_shift,
    )
    shift = rosters.plan(tx, tx.act(), estate, duty)
    rosters.tell(tx, [shift])
    return _shift(shift, estate.code)


def list_shifts(request: pb.ListShiftsRequest, tx: Transaction) -> pb.ListShiftsResponse:
    estate, size = _one_estate(tx), request.page_size or SHIFTS_PAGE
    first = _day(request, "from_day") or tx.now.astimezone(ZoneInfo(estate.zone)).date()
    final = _day(request, "to_day") or first + timedelta(days=6)
    if not timedelta(0) <= final - first < timedelta(days=MOST_DAYS):
        what = [Violation("to_day", f"must lie at most {MOST_DAYS - 1} days after from_day")]
        raise InvalidInput("these days cannot be listed", reason="INVALID_DAYS", violations=what)
    begins, ends = rosters.day_begins(estate, first), rosters.day_begins(estate, final + timedelta(days=1))
    query = sa.select(Shift).where(
        tx.inside(Shift), Shift.estate_id == estate.id, ~Shift.deleted, Shift.starts_at < ends, Shift.ends_at > begins
    )
    if request.staff:
        query = query.where(Shift.staff_id == identifier(request.staff, "staff", "staff"))
    if request.role:
        query = query.where(Shift.role == options_pb2.Role.Name(request.role))
    if position := page_position(request):
        after = sa.tuple_(sa.literal(datetime.fromisoformat(position[0])), sa.literal(UUID(position[1])))
        query = query.where(sa.tuple_(Shift.starts_at, Shift.id) > after)
    found = list(tx.session.execute(query.order_by(Shift.starts_at, Shift.id).limit(size + 1)).scalars())
    reply = pb.ListShiftsResponse(shifts=[_shift(shift, estate.code) for shift in found[:size]])
    if len(found) > size:
        reply.next_page_token = page_token(request, found[size - 1].starts_at.astimezone(UTC).isoformat(), found[size - 1].id)
    return reply


def delete_shift(request: pb.DeleteShiftRequest, tx: Transaction) -> pb.Shift:
    shift = _found(tx, Shift, request.name, "SHIFT_NOT_FOUND")
    rosters.strike(tx, tx.act(request.reason), shift)
    rosters.tell(tx, [shift])
    return _shift(shift, _code(tx, shift.estate_id))


def copy_shifts(request: pb.CopyShiftsRequest, tx: Transaction) -> pb.CopyShiftsResponse:
    estate = _one_estate(tx)
    from_day, to_day = _day(request, "from_day"), _day(request, "to_day")
    assert from_day is not None
    assert to_day is not None
    role = options_pb2.Role.Name(request.role) if request.role else ""
    taken, left_out = rosters.copy(tx, tx.act(), estate, from_day, to_day, role)
    rosters.tell(tx, taken)
    reply = pb.CopyShiftsResponse(shifts=[_shift(shift, estate.code) for shift in taken])
    for missing in left_out:
        duty = missing.duty
        shift = pb.Shift(
            staff=f"staff/{duty.staff_id}", role=duty.role, start_time=stamp(duty.starts_at), end_time=stamp(duty.ends_at),
            early_shift=duty.is_early,
        )  # fmt: skip
        reply.left_out.add(shift=shift, reason=missing.why.reason, message=missing.why.message)
    return reply


def record_leave(request: pb.RecordLeaveRequest, tx: Transaction) -> pb.Leave:
    asked = request.leave
    person = _person(tx, identifier(asked.staff, "staff", "leave.staff"), "leave.staff")
    deputy = identifier(asked.deputy, "staff", "leave.deputy") if asked.deputy else None
    kind = pb.Leave.Kind.Name(asked.kind)
    leave = leaves.record(tx, tx.act(), person, kind, _instant(asked, "start_time"), instant(asked, "end_time"), deputy)
    return _leave(leave, _code(tx, leave.estate_id))


def end_leave(request: pb.EndLeaveRequest, tx: Transaction) -> pb.Leave:
    leave = _found(tx, Leave, request.name, "LEAVE_NOT_FOUND")
    leaves.end(tx, tx.act(request.reason), _person(tx, leave.staff_id, "name"), leave, instant(request, "end_time"))
    return _leave(leave, _code(tx, leave.estate_id))


def list_leaves(request: pb.ListLeavesRequest, tx: Transaction) -> pb.ListLeavesResponse:
    size = request.page_size or PAGE
    query = sa.select(Leave).where(tx.inside(Leave), ~Leave.deleted).order_by(Leave.id.desc()).limit(size + 1)
    if request.staff:
        query = query.where(Leave.staff_id == identifier(request.staff, "staff", "staff"))
    if not request.include_past:
        query = query.where(sa.or_(Leave.ends_at.is_(None), Leave.ends_at > tx.now))
    if after := page_after(request):
        query = query.where(Leave.id < after)
    found = list(tx.session.execute(query).scalars())
    codes = _codes(tx, [leave.estate_id for leave in found])
    reply = pb.ListLeavesResponse(leaves=[_leave(leave, codes.get(leave.estate_id, "-")) for leave in found[:size]])
    if len(found) > size:
        reply.next_page_token = page_token(request, found[size - 1].id)
    return reply


def list_staff(request: pb.ListStaffRequest, tx: Transaction) -> pb.ListStaffResponse:
    size = request.page_size or STAFF_PAGE
    query = sa.select(Staff).where(tx.inside(Staff)).order_by(Staff.number).limit(size + 1)
    if not request.include_left:
        query = query.where(Staff.state != "LEFT")
    if request.role:
        held = sa.text("SELECT staff_id FROM dir_posts WHERE role = :role AND " + _STANDS)
        query = query.where(Staff.id.in_(held.bindparams(role=options_pb2.Role.Name(request.role), at=tx.now).columns(staff_id=sa.Uuid)))
    if position := page_position(request):
        query = query.where(Staff.number > position[0])
    found = list(tx.session.execute(query).scalars())
    reply = pb.ListStaffResponse(staff=_members(tx, found[:size]))
    if len(found) > size:
        reply.next_page_token = page_token(request, found[size - 1].number)
    return reply


def set_training(request: pb.SetTrainingRequest, tx: Transaction) -> pb.StaffMember:
    person = _found(tx, Staff, request.name, "STAFF_NOT_FOUND")
    staffing.mark_trained(tx, tx.act(request.note), person, request.trained)
    return _members(tx, [person])[0]


def retire_staff(request: pb.RetireStaffRequest, tx: Transaction) -> pb.StaffMember:
    person = _found(tx, Staff, request.name, "STAFF_NOT_FOUND")
    successor = identifier(request.successor, "staff", "successor") if request.successor else None
    staffing.retire(tx, tx.act(request.reason), person, successor)
    return _members(tx, [person])[0]


_STANDS = "NOT deleted AND (starts_at IS NULL OR starts_at <= :at) AND (ends_at IS NULL OR ends_at > :at)"


def _members(tx: Transaction, people: list[Staff]) -> list[pb.StaffMember]:
    """With the roles and absences of the moment."""
    now, ids = tx.now, [person.id for person in people]
    stands = _STANDS.replace(":at", "%s")
    roles: dict[UUID, set[str]] = {}
    for staff, role in tx.execute(f"SELECT staff_id, role FROM dir_posts WHERE staff_id = ANY(%s) AND {stands}", (ids, now, now)):
        roles.setdefault(staff, set()).add(role)
    away = {row[0] for row in tx.execute(f"SELECT staff_id FROM dir_absences WHERE staff_id = ANY(%s) AND {stands}", (ids, now, now))}
    codes = _codes(tx, [person.estate_id for person in people])
    return [
        pb.StaffMember(
            name=f"estates/{codes.get(person.estate_id, '-')}/staff/{person.id}",
            staff=f"staff/{person.id}",
            number=person.number,
            display_name=person.name,
            state=person.state,
            roles=sorted(roles.get(person.id, ()), key=lambda role: options_pb2.Role.Value(str(role))),
            intake_trained=person.intake_trained,
            away=person.id in away,
        )
        for person in people
    ]


def _shift(shift: Shift, code: str) -> pb.Shift:
    return pb.Shift(
        name=f"estates/{code}/shifts/{shift.id}",
        staff=f"staff/{shift.staff_id}",
        role=shift.role,
        start_time=stamp(shift.starts_at),
        end_time=stamp(shift.ends_at),
        early_shift=shift.early_shift,
        deleted=shift.deleted,
    )


def _leave(leave: Leave, code: str) -> pb.Leave:
    return pb.Leave(
        name=f"estates/{code}/leaves/{leave.id}",
        staff=f"staff/{leave.staff_id}",
        deputy=f"staff/{leave.deputy_id}" if leave.deputy_id else "",
        kind=leave.kind,
        start_time=stamp(leave.starts_at),
        end_time=stamp(leave.ends_at),
        deleted=leave.deleted,
    )


def _found(tx: Transaction, cls: Any, name: str, reason: str) -> Any:
    """The record a name means, locked, inside the scope. Raises NotFound, then what was wrong with the request."""
    missing = NotFound("there is nothing of that name here", reason=reason)
    try:
        key = UUID(last(name))
    except ValueError:
        raise missing from None
    found = tx.session.execute(sa.select(cls).where(cls.id == key, tx.inside(cls)).with_for_update()).scalar_one_or_none()
    if found is None:
        raise missing
    tx.check_input()
    return found


def _person(tx: Transaction, staff_id: UUID, field: str) -> Staff:
    """A member of staff in scope, locked. Raises InvalidInput(STAFF_NOT_FOUND)."""
    query = sa.select(Staff).where(Staff.id == staff_id, Staff.state != "LEFT", tx.inside(Staff)).with_for_update()
    person = tx.session.execute(query).scalar_one_or_none()
    if person is None:
        what = [Violation(field, "is nobody who works here")]
        raise InvalidInput("there is no such member of staff here", reason="STAFF_NOT_FOUND", violations=what)
    return person


def _one_estate(tx: Transaction) -> directory.Estate:
    if tx.estate is None:
        raise InvalidInput("name one estate, not estates/-", reason="ESTATE_REQUIRED")
    return tx.estate


def _codes(tx: Transaction, estates: list[UUID | None]) -> dict[UUID | None, str]:
    return dict(tx.execute("SELECT id, code FROM dir_nodes WHERE id = ANY(%s)", ([e for e in set(estates) if e],)))


def _code(tx: Transaction, estate: UUID | None) -> str:
    return _codes(tx, [estate]).get(estate, "-")


def _instant(message: Message, field: str) -> datetime:
    at = instant(message, field)
    assert at is not None, "the request was checked"
    return at


def _day(request: Message, field: str) -> date | None:
    """`2026-11-22`; None when empty. Raises InvalidInput on a day that no calendar has."""
    text: str = getattr(request, field)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidInput(
            "there is no such day", reason="INVALID_DAYS", violations=[Violation(field, "must be a day: 2026-11-22")]
        ) from None
