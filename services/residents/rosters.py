"""Duty rosters: who is on duty in which role of an estate, from–to (REP-25, REP-26, REP-36, SEC-10).

A shift is told to every service as an entry of the directory. What is checked of a person is checked against this service's
own directory, which sees all estates, under a lock on the person: two planners cannot put him in two places at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis import directory
from services.chassis.db import Base, Transaction, new_id
from services.chassis.directory import DESK, EARLY_SHIFT
from services.chassis.errors import Conflict, Forbidden, InvalidInput, StewardError, Violation
from services.chassis.lifecycle import Act
from services.chassis.names import stamp
from services.residents.departments import decides_on
from services.residents.directory import publish
from services.residents.records import Record, keep_history
from services.residents.staff import Staff
from steward.residents.v1 import directory_pb2 as pb

LONGEST = timedelta(hours=24)
FURTHEST = timedelta(days=366)  # ahead; a shift beyond is a typing error
MOST_COPIED = 300
INTAKE = frozenset(DESK)  # whoever is on duty in these takes in reports


class Shift(Record, Base):
    """One line of an estate's roster. `deleted`: struck out before it began; one cut short has an earlier end instead."""

    __tablename__ = "shifts"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    staff_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Staff.id))
    role: Mapped[str]  # name in steward.options.v1.Role
    early_shift: Mapped[bool]
    starts_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    ends_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    deleted: Mapped[bool] = mapped_column(default=False)

    def entry(self) -> pb.DirectoryEntry:
        shift = pb.DirectoryEntry.Shift(
            staff_id=str(self.staff_id),
            role=self.role,
            estate_id=str(self.estate_id),
            early_shift=self.early_shift,
            start_time=stamp(self.starts_at),
            end_time=stamp(self.ends_at),
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, deleted=self.deleted, shift=shift)


@dataclass(frozen=True, slots=True)
class Duty:
    """A shift that is asked for. The role EARLY_SHIFT_CLERK is the early shift by itself."""

    staff_id: UUID
    role: str
    starts_at: datetime
    ends_at: datetime
    early_shift: bool = False

    @property
    def is_early(self) -> bool:
        return self.early_shift or self.role == EARLY_SHIFT


def plan(tx: Transaction, act: Act, estate: directory.Estate, duty: Duty, *, trained: set[UUID] | None = None) -> Shift:
    """Puts a duty on the roster. `trained`: who has the training mark, where that has been looked up before.

    Raises InvalidInput(INVALID_SHIFT, STAFF_NOT_FOUND, ROLE_NOT_HELD), Forbidden(NOT_YOUR_DEPARTMENT),
    Conflict(NOT_TRAINED, SHIFT_OVERLAPS, STAFF_ON_LEAVE).
    """
    decides_on(tx, [(duty.role, estate.id)])
    _times(duty, act.now)
    lock(tx, duty.staff_id)
    _role(tx, estate, duty)
    if (duty.is_early or duty.role in INTAKE) and duty.staff_id not in (trained_of(tx, [duty.staff_id]) if trained is None else trained):
        raise Conflict("he has not been trained to take in reports: set the training mark first", reason="NOT_TRAINED", rule="REP-36")
    if _any(tx, "dir_shifts", duty.staff_id, duty.starts_at, duty.ends_at):
        raise Conflict("he is on duty already at that time, here or elsewhere", reason="SHIFT_OVERLAPS")
    if _any(tx, "dir_absences", duty.staff_id, duty.starts_at, duty.ends_at):
        raise Conflict("he is on leave at that time", reason="STAFF_ON_LEAVE")
    shift = Shift(
        id=new_id(), group_id=estate.group_id, company_id=estate.company_id, estate_id=estate.id, version=1, created_at=act.now,
        updated_at=act.now, staff_id=duty.staff_id, role=duty.role, early_shift=duty.is_early, starts_at=duty.starts_at,
        ends_at=duty.ends_at, deleted=False,
    )  # fmt: skip
    tx.add(shift)
    directory.apply(tx, [shift.entry()])
    return shift


def tell(tx: Transaction, shifts: Iterable[Shift]) -> None:
    """Other services learn of shifts of one estate as they are now."""
    found = list(shifts)
    if found:
        place = found[0]
        publish(tx, [s.entry() for s in found], group_id=place.group_id, company_id=place.company_id, estate_id=place.estate_id)


def strike(tx: Transaction, act: Act, shift: Shift) -> None:
    """Off the roster: struck out before it begins, cut short while it runs. Raises Conflict(SHIFT_OVER), Forbidden."""
    decides_on(tx, [(shift.role, shift.estate_id)])
    if shift.deleted or shift.ends_at <= act.now:
        raise Conflict("the shift is over, or was struck out", reason="SHIFT_OVER")
    if shift.starts_at >= act.now:
        shift.correct(act, deleted=True)
    else:
        shift.correct(act, ends_at=act.now)
    keep_history(tx, [shift], act.reason)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A duty that could not be copied, and why."""

    duty: Duty
    why: StewardError


def copy(
    tx: Transaction, act: Act, estate: directory.Estate, from_day: date, to_day: date, role: str = ""
) -> tuple[list[Shift], list[LeftOut]]:
    """The shifts that begin in the seven days from `from_day`, as many days later, at the same hours of the estate's clock.

    Raises InvalidInput(INVALID_DAYS), Conflict(TOO_MANY_SHIFTS).
    """
    if to_day < from_day + timedelta(days=7):
        what = [Violation("to_day", "must be at least seven days after from_day")]
        raise InvalidInput("a week is copied to a later one", reason="INVALID_DAYS", violations=what)
    begins, ends = day_begins(estate, from_day), day_begins(estate, from_day + timedelta(days=7))
    query = sa.select(Shift).where(tx.inside(Shift), Shift.estate_id == estate.id, ~Shift.deleted)
    query = query.where(Shift.starts_at >= begins, Shift.starts_at < ends, *([Shift.role == role] if role else []))
    found = list(tx.session.execute(query.order_by(Shift.staff_id, Shift.starts_at).limit(MOST_COPIED + 1)).scalars())
    if len(found) > MOST_COPIED:
        raise Conflict(f"more than {MOST_COPIED} shifts: copy them role by role", reason="TOO_MANY_SHIFTS")
    trained = trained_of(tx, {shift.staff_id for shift in found})
    zone, later = ZoneInfo(estate.zone), to_day - from_day
    taken: list[Shift] = []
    left_out: list[LeftOut] = []
    for shift in found:  # by person, so that two copies at once take their locks in one order
        starts_at, ends_at = (_later(instant, later, zone) for instant in (shift.starts_at, shift.ends_at))
        duty = Duty(shift.staff_id, shift.role, starts_at, ends_at, shift.early_shift)
        try:
            taken.append(plan(tx, act, estate, duty, trained=trained))
        except (InvalidInput, Conflict, Forbidden) as refused:
            left_out.append(LeftOut(duty, refused))
    return sorted(taken, key=lambda shift: shift.starts_at), left_out


def clear(tx: Transaction, act: Act, staff_id: UUID) -> list[Shift]:
    """Somebody has left: his shifts that are not over. Those out of the transaction's scope remain."""
    query = sa.select(Shift).where(Shift.staff_id == staff_id, ~Shift.deleted, Shift.ends_at > act.now).with_for_update()
    found = list(tx.session.execute(query).scalars())
    for shift in found:
        shift.correct(act, **({"deleted": True} if shift.starts_at >= act.now else {"ends_at": act.now}))
    keep_history(tx, found, act.reason)
    return found


def lock(tx: Transaction, *staff_ids: UUID) -> None:
    """One at a time changes what a person's days look like, whichever estates are in sight."""
    for staff_id in sorted(set(staff_ids)):
        tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('staff ' || %s, 0))", (str(staff_id),))


def trained_of(tx: Transaction, staff_ids: Iterable[UUID]) -> set[UUID]:
    """Who of these has the training mark; asked beside the transaction, for a colleague from the company is not in its scope."""
    with tx.database.read() as everything:
        return {row[0] for row in everything.execute("SELECT id FROM staff WHERE id = ANY(%s) AND intake_trained", (list(staff_ids),))}


def day_begins(estate: directory.Estate, day: date) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(estate.zone))


def _later(instant: datetime, by: timedelta, zone: ZoneInfo) -> datetime:
    """So many days later at the same hour of the estate's clock, also where the clocks were changed in between."""
    return (instant.astimezone(zone).replace(tzinfo=None) + by).replace(tzinfo=zone).astimezone(UTC)


def _times(duty: Duty, now: datetime) -> None:
    wrong = ""
    if duty.ends_at <= duty.starts_at:
        wrong = "must lie after start_time"
    elif duty.ends_at - duty.starts_at > LONGEST:
        wrong = "must lie within 24 hours of start_time"
    elif duty.ends_at <= now:
        wrong = "must not lie in the past"
    elif duty.starts_at > now + FURTHEST:
        wrong = "must lie within a year"
    if wrong:
        raise InvalidInput("such a shift cannot be", reason="INVALID_SHIFT", violations=[Violation("shift.end_time", wrong)])
    if duty.early_shift and duty.role not in DESK:
        what = [Violation("shift.early_shift", "is for the front desk: CUSTOMER_ASSISTANT or EARLY_SHIFT_CLERK")]
        raise InvalidInput("the early shift is one of the front desk", reason="INVALID_SHIFT", rule="REP-25", violations=what)


def _role(tx: Transaction, estate: directory.Estate, duty: Duty) -> None:
    """He holds the role at the estate, or above it, for the whole of the shift."""
    rows = tx.execute(
        "SELECT role FROM dir_posts WHERE staff_id = %s AND node_id IN (%s, %s, %s) AND NOT deleted"
        " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at >= %s)",
        (duty.staff_id, estate.id, estate.company_id, estate.group_id, duty.starts_at, duty.ends_at),
    )
    held = {row[0] for row in rows}
    if not held:
        what = [Violation("shift.staff", "has no post at this estate at that time")]
        raise InvalidInput("there is no such member of staff here", reason="STAFF_NOT_FOUND", violations=what)
    if not held & ({*DESK} if duty.role == EARLY_SHIFT else {duty.role}):
        what = [Violation("shift.role", "is not held by this member of staff here")]
        raise InvalidInput("nobody is on duty in a role that he does not hold", reason="ROLE_NOT_HELD", rule="ORG-09", violations=what)


def _any(tx: Transaction, table: str, staff_id: UUID, starts_at: datetime, ends_at: datetime) -> bool:
    rows = tx.execute(
        f"SELECT 1 FROM {table} WHERE staff_id = %s AND NOT deleted AND starts_at < %s AND (ends_at IS NULL OR ends_at > %s) LIMIT 1",
        (staff_id, ends_at, starts_at),
    )
    return bool(rows)
