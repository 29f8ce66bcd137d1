"""Leave and deputies: who is away, from–to, and who holds his roles meanwhile.

A leave is told to every service as an absence: from–to and the deputy, never the reason. The deputy holds the roles of who is
away at the nodes where both have a post, and no longer than the leave lasts; nothing has to be taken away from him again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction, new_id
from services.chassis.errors import Conflict, Forbidden, InvalidInput, Violation
from services.chassis.lifecycle import Act
from services.chassis.names import stamp
from services.residents.departments import decides_on
from services.residents.directory import publish
from services.residents.records import Record, keep_history
from services.residents.rosters import FURTHEST, lock
from services.residents.staff import Staff
from steward.residents.v1 import directory_pb2 as pb

BACKDATED = timedelta(days=31)  # a leave may be recorded that late


class Leave(Record, Base):
    """An absence of a member of staff, in sight of those who see where he works."""

    __tablename__ = "leaves"

    company_id: Mapped[UUID | None]
    estate_id: Mapped[UUID | None]
    staff_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Staff.id))
    deputy_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey(Staff.id))
    kind: Mapped[str]  # name in steward.residents.v1.Leave.Kind
    starts_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    ends_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))  # None: until it is ended
    from_register: Mapped[bool] = mapped_column(default=False)  # the register says 休假; it ends when the register says 在职
    deleted: Mapped[bool] = mapped_column(default=False)

    def entry(self) -> pb.DirectoryEntry:
        absence = pb.DirectoryEntry.Absence(
            staff_id=str(self.staff_id),
            deputy_id=str(self.deputy_id) if self.deputy_id else "",
            start_time=stamp(self.starts_at),
            end_time=stamp(self.ends_at),
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, deleted=self.deleted, absence=absence)

    def is_over(self, now: datetime) -> bool:
        return self.deleted or (self.ends_at is not None and self.ends_at <= now)


def record(
    tx: Transaction,
    act: Act,
    person: Staff,
    kind: str,
    starts_at: datetime,
    ends_at: datetime | None,
    deputy_id: UUID | None,
    *,
    from_register: bool = False,
) -> Leave:
    """Raises Forbidden(NOT_YOUR_DEPARTMENT, OWN_DEPUTY), InvalidInput(INVALID_LEAVE, DEPUTY_UNFIT), Conflict(LEAVE_OVERLAPS, DEPUTY_ON_LEAVE)."""
    decides_on_person(tx, person)
    _times(starts_at, ends_at, act.now)
    lock(tx, person.id, *([deputy_id] if deputy_id else []))
    if _away(tx, person.id, starts_at, ends_at):
        raise Conflict("a leave at that time is recorded already", reason="LEAVE_OVERLAPS")
    if deputy_id is not None:
        _fit(tx, person.id, deputy_id, max(starts_at, act.now))
    leave = Leave(
        id=new_id(), group_id=person.group_id, company_id=person.company_id, estate_id=person.estate_id, version=1, created_at=act.now,
        updated_at=act.now, staff_id=person.id, deputy_id=deputy_id, kind=kind, starts_at=starts_at, ends_at=ends_at,
        from_register=from_register, deleted=False,
    )  # fmt: skip
    tx.add(leave)
    tell(tx, [leave])
    return leave


def end(tx: Transaction, act: Act, person: Staff, leave: Leave, at: datetime | None) -> None:
    """He is back at `at`, now if that is None; a leave that has not begun by then is struck out.

    Raises Forbidden(NOT_YOUR_DEPARTMENT), Conflict(LEAVE_OVER), InvalidInput(INVALID_LEAVE).
    """
    decides_on_person(tx, person)
    lock(tx, person.id)
    if leave.is_over(act.now):
        raise Conflict("the leave is over, or was struck out", reason="LEAVE_OVER")
    at = at or act.now
    if at < act.now or (leave.ends_at is not None and at > leave.ends_at):
        what = [Violation("end_time", "must lie between now and the end of the leave")]
        raise InvalidInput("a leave ends now or later, and not after its end", reason="INVALID_LEAVE", violations=what)
    if at <= leave.starts_at:
        leave.correct(act, deleted=True)
    else:
        leave.correct(act, ends_at=at)
    if leave.from_register and person.state == "ON_LEAVE":
        person.correct(act, state="ACTIVE")  # the register is put right too, or it would send him off again
        keep_history(tx, [person], act.reason)
    keep_history(tx, [leave], act.reason)
    tell(tx, [leave])


def clear(tx: Transaction, act: Act, staff_id: UUID) -> None:
    """Somebody has left: his leaves end, and he is nobody's deputy any more."""
    query = sa.select(Leave).where(~Leave.deleted, sa.or_(Leave.ends_at.is_(None), Leave.ends_at > act.now))
    query = query.where(sa.or_(Leave.staff_id == staff_id, Leave.deputy_id == staff_id)).with_for_update()
    found = list(tx.session.execute(query).scalars())
    for leave in found:
        if leave.deputy_id == staff_id:
            leave.correct(act, deputy_id=None)
        elif leave.starts_at >= act.now:
            leave.correct(act, deleted=True)
        else:
            leave.correct(act, ends_at=act.now)
    keep_history(tx, found, act.reason)
    tell(tx, found)


def tell(tx: Transaction, leaves: list[Leave]) -> None:
    """Other services learn of leaves as they are now; each stands where its person works."""
    for leave in leaves:
        publish(tx, [leave.entry()], group_id=leave.group_id, company_id=leave.company_id, estate_id=leave.estate_id)


def decides_on_person(tx: Transaction, person: Staff) -> None:
    """Each supervisor for himself, and for whom he decides on. Raises Forbidden(NOT_YOUR_DEPARTMENT)."""
    if str(tx.principal) != f"staff/{person.id}":
        decides_on(tx, standing_posts(tx, person.id))


def standing_posts(tx: Transaction, staff_id: UUID) -> list[tuple[str, UUID]]:
    """(role, node) of a person's posts that have not ended."""
    return tx.execute(
        "SELECT role, node_id FROM dir_posts WHERE staff_id = %s AND NOT deleted AND (ends_at IS NULL OR ends_at > %s) ORDER BY role, node_id",
        (staff_id, tx.now),
    )  # type: ignore[return-value]


def _times(starts_at: datetime, ends_at: datetime | None, now: datetime) -> None:
    wrong = ""
    if ends_at is not None and ends_at <= starts_at:
        wrong = "must lie after start_time"
    elif ends_at is not None and ends_at <= now:
        wrong = "must not lie in the past"
    elif not now - BACKDATED <= starts_at <= now + FURTHEST:
        wrong = "belongs to a start within the last month or the next year"
    if wrong:
        raise InvalidInput("such a leave cannot be", reason="INVALID_LEAVE", violations=[Violation("leave.end_time", wrong)])


def _away(tx: Transaction, staff_id: UUID, starts_at: datetime, ends_at: datetime | None) -> bool:
    rows = tx.execute(
        "SELECT 1 FROM dir_absences WHERE staff_id = %s AND NOT deleted AND (%s::timestamptz IS NULL OR starts_at < %s)"
        " AND (ends_at IS NULL OR ends_at > %s) LIMIT 1",
        (staff_id, ends_at, ends_at, starts_at),
    )
    return bool(rows)


def _fit(tx: Transaction, staff_id: UUID, deputy_id: UUID, begins: datetime) -> None:
    """A colleague of the same node who is there when it begins; nobody gives himself another's roles."""
    if tx.principal.kind == "staff" and tx.principal.id == str(deputy_id):
        raise Forbidden("nobody makes himself a deputy", reason="OWN_DEPUTY", rule="ORG-06")
    nodes = {node for _, node in standing_posts(tx, staff_id)}
    if deputy_id == staff_id or not nodes & {node for _, node in standing_posts(tx, deputy_id)}:
        what = [Violation("leave.deputy", "must be a colleague with a post at the same node")]
        raise InvalidInput("that is no deputy for him", reason="DEPUTY_UNFIT", violations=what)
    if _away(tx, deputy_id, begins, begins + timedelta(seconds=1)):
        raise Conflict("the deputy is on leave himself when it begins", reason="DEPUTY_ON_LEAVE")
