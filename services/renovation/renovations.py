"""Renovations (装修): today those that the register of units says are going on.

When a group starts with Steward some of its units are being renovated (装修中). Each gets one record that mirrors what the
register says of the unit, so that the site is patrolled (RNV-22) and the missing application is seen (RNV-02 to RNV-09).

The register's newest word is the service's own directory copy, where the higher version wins; a record follows that and
never the event that happened to arrive. The estate's code and the unit's number are read from there too whenever a record is
shown, so it does not matter whether the estate or its units are heard of first.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, column_property, lazyload, mapped_column

from services.chassis.db import Base, Transaction, new_id
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move

REMARK = "由房屋台账结转，装修申请资料待补交"  # carried over from the register; application papers to be completed


class State(enum.StrEnum):
    IN_PROGRESS = "IN_PROGRESS"
    ENDED = "ENDED"


IN_PROGRESS, ENDED = State

LIFECYCLE = Lifecycle(State, IN_PROGRESS, [
    #    action   from           to                        rules
    Move("end",    {IN_PROGRESS}, ENDED,        by=SYSTEM,  rules="RNV-43"),
    Move("resume", {ENDED},       IN_PROGRESS,  by=SYSTEM,  rules="RNV-43"),
])  # fmt: skip

DIR_NODES = sa.table(
    "dir_nodes", sa.column("id", sa.Uuid), sa.column("code", sa.Text), sa.column("kind", sa.Text), sa.column("estate_id", sa.Uuid)
)


@dataclass(frozen=True, slots=True)
class RegisteredUnit:
    """A unit as the register has it now."""

    id: UUID
    group_id: UUID
    company_id: UUID
    estate_id: UUID
    under_renovation: bool


class Renovation(Case, Base):
    """One renovation of one unit."""

    __tablename__ = "renovations"
    KIND, COLLECTION = "renovation", "renovations"
    PREFIX: ClassVar[str] = "ZX"  # numbers are given with the application; a record carried over has none
    LIFECYCLE = LIFECYCLE

    estate_id: Mapped[UUID] = mapped_column()
    unit_id: Mapped[UUID] = mapped_column()
    origin: Mapped[str]
    papers_outstanding: Mapped[bool]
    remark: Mapped[str]
    ended_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))

    # From the directory as it is when the record is read.
    estate_code: Mapped[str] = column_property(sa.select(DIR_NODES.c.code).where(DIR_NODES.c.id == estate_id).scalar_subquery())
    unit: Mapped[str] = column_property(sa.select(DIR_NODES.c.code).where(DIR_NODES.c.id == unit_id).scalar_subquery())

    @classmethod
    def owned_by(cls) -> tuple[Any, Any]:
        return None, cls.unit_id

    @classmethod
    def carry_over(cls, unit: RegisteredUnit, act: Act) -> Renovation:
        """The record of a unit that the register has, or had, under renovation."""
        renovation = cls(
            id=new_id(), group_id=unit.group_id, company_id=unit.company_id, estate_id=unit.estate_id, created_at=act.now,
            updated_at=act.now, version=0, event_count=0, number=None, unit_id=unit.id, origin="REGISTER", papers_outstanding=True,
            remark=REMARK, ended_at=None,
        )  # fmt: skip
        renovation.open(replace(act, reason=REMARK), "carry_over")
        return renovation

    def follow(self, unit: RegisteredUnit, act: Act) -> bool:
        """Comes to stand as the register says. Returns whether that changed anything."""
        if unit.under_renovation == (self.state == IN_PROGRESS):
            return False
        if unit.under_renovation:
            self.move("resume", act, ended_at=None)
        else:
            self.move("end", act, ended_at=act.now)
        return True


def follow_register(tx: Transaction, units: list[RegisteredUnit], mentioned: Collection[UUID] = ()) -> int:
    """Brings the records of `units` in line; their directory rows must be locked. Returns how many records changed.

    `mentioned` are units that an event, however old, called under renovation: they get a record even when that is over.
    """
    query = sa.select(Renovation).options(lazyload(Renovation.clocks)).where(Renovation.unit_id.in_([unit.id for unit in units]))
    records = {record.unit_id: record for record in tx.session.execute(query).scalars()}
    act, changed = tx.act(), 0
    for unit in units:
        record = records.get(unit.id)
        opened = record is None and (unit.under_renovation or unit.id in mentioned)
        if opened:
            record = tx.add(Renovation.carry_over(unit, act))
        if record is not None:
            changed += record.follow(unit, act) or opened
    return changed


CONCERNED = """
SELECT n.id, n.group_id, n.company_id, n.estate_id, n.under_renovation AND NOT n.deleted
  FROM dir_nodes n
 WHERE n.kind = 'UNIT' AND n.id = ANY(%s)
   AND (n.under_renovation OR n.id = ANY(%s) OR EXISTS (SELECT FROM renovations r WHERE r.unit_id = n.id))
 ORDER BY n.id FOR UPDATE OF n
"""
OUT_OF_LINE = """
SELECT n.id, n.group_id, n.company_id, n.estate_id, n.under_renovation AND NOT n.deleted
  FROM dir_nodes n
 WHERE n.kind = 'UNIT' AND n.id IN (
       SELECT u.id FROM dir_nodes u
        WHERE u.under_renovation AND NOT u.deleted
          AND NOT EXISTS (SELECT FROM renovations r WHERE r.unit_id = u.id AND r.state = 'IN_PROGRESS')
       UNION ALL
       SELECT r.unit_id FROM renovations r JOIN dir_nodes u ON u.id = r.unit_id
        WHERE r.state = 'IN_PROGRESS' AND r.origin = 'REGISTER' AND (u.deleted OR NOT u.under_renovation))
 ORDER BY n.id LIMIT %s FOR UPDATE OF n SKIP LOCKED
"""


def concerned(tx: Transaction, units: Collection[UUID], mentioned: Collection[UUID]) -> list[RegisteredUnit]:
    """Those of `units` that have, or should have, a record; locked, so that the register's next word waits for ours."""
    rows = tx.execute(CONCERNED, (list(units), list(mentioned)))
    return [RegisteredUnit(*row) for row in rows]


def out_of_line(tx: Transaction, limit: int) -> list[RegisteredUnit]:
    """Units whose record does not say what the register says; those that somebody else is working on are left to him."""
    return [RegisteredUnit(*row) for row in tx.execute(OUT_OF_LINE, (limit,))]
