"""What has become of each case: the figures of the quarterly service report (QSR-01) are counted from these rows.

A row gathers facts about one repair. Each reaction sets facts of its own kind, and where a kind can come again the newest
or the highest counts, so their order does not matter. In which quarter a report lies is worked out when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction

LIMITS = ("pickup", "on_site", "resolve")  # the clocks of every repair (contract of ReportRepair; REP-10, REP-38, X-34)


class ServiceCase(Base):
    """One repair. It belongs to no quarter before its report has been heard of (`reported_at`)."""

    __tablename__ = "service_cases"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # the repair's
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    reported_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    urgent: Mapped[bool | None]
    accepted: Mapped[int]  # sequence of the newest acceptance
    reopened: Mapped[int]  # sequence of the newest reopening
    reworks: Mapped[int]  # highest count of reworks that an event named
    cancelled: Mapped[bool]


class MissedLimit(Base):
    """A limit that a case missed. Of a limit that started several times one miss is kept."""

    __tablename__ = "missed_limits"

    case_id: Mapped[UUID] = mapped_column(primary_key=True)
    clock: Mapped[str] = mapped_column(primary_key=True)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]


class Place(NamedTuple):
    """Where a case belongs."""

    group_id: UUID | None
    company_id: UUID | None
    estate_id: UUID | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a case: numbers only grow, everything else is the same however often it is said."""

    case_id: UUID
    place: Place
    reported_at: datetime | None = None
    urgent: bool | None = None
    accepted: int = 0  # these as in ServiceCase
    reopened: int = 0
    reworks: int = 0
    cancelled: bool = False

    def __or__(self, other: Facts) -> Facts:
        """Both, of one case."""
        reported = self if self.reported_at else other
        return Facts(
            self.case_id, self.place, reported.reported_at, reported.urgent, max(self.accepted, other.accepted),
            max(self.reopened, other.reopened), max(self.reworks, other.reworks), self.cancelled or other.cancelled,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a set of cases; see CaseFigures in the contract for what each means."""

    reported: int = 0
    accepted: int = 0
    cancelled: int = 0
    judged: int = 0
    first_pass: int = 0
    limits_met: int = 0
    limits_missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in Counts.__slots__))


_LEARN = """
INSERT INTO service_cases AS known (id, group_id, company_id, estate_id, reported_at, urgent, accepted, reopened, reworks, cancelled)
VALUES {rows}
ON CONFLICT (id) DO UPDATE SET
    reported_at = coalesce(EXCLUDED.reported_at, known.reported_at), urgent = coalesce(EXCLUDED.urgent, known.urgent),
    accepted = greatest(EXCLUDED.accepted, known.accepted), reopened = greatest(EXCLUDED.reopened, known.reopened),
    reworks = greatest(EXCLUDED.reworks, known.reworks), cancelled = EXCLUDED.cancelled OR known.cancelled
"""
_MISS = "INSERT INTO missed_limits (case_id, group_id, company_id, estate_id, clock) VALUES {rows} ON CONFLICT DO NOTHING"


def learn(tx: Transaction, facts: Iterable[Facts]) -> None:
    """Adds facts to their cases."""
    cases: dict[UUID, Facts] = {}
    for fact in facts:
        cases[fact.case_id] = cases[fact.case_id] | fact if fact.case_id in cases else fact
    # In order of the key, as everybody locks them.
    rows = [
        (case_id, *fact.place, fact.reported_at, fact.urgent, fact.accepted, fact.reopened, fact.reworks, fact.cancelled)
        for case_id, fact in sorted(cases.items())
    ]
    _insert(tx, _LEARN, rows)


def miss(tx: Transaction, missed: Iterable[tuple[UUID, Place, str]]) -> None:
    """Limits (case, place, clock) passed; a breach is never withdrawn."""
    rows = {(case_id, *place, clock) for case_id, place, clock in missed}
    _insert(tx, _MISS, sorted(rows, key=lambda row: (row[0], row[-1])))


def _insert(tx: Transaction, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        one = f"({', '.join(['%s'] * len(rows[0]))})"
        tx.finally_execute(sql.format(rows=", ".join([one] * len(rows))), [value for row in rows for value in row])


def count(tx: Transaction, estate_id: UUID, between: tuple[datetime, datetime]) -> dict[bool, Counts]:
    """Of the cases reported in a span of time: those that are urgent (True) and the others (False)."""
    case = ServiceCase
    missed = (
        sa.select(sa.func.count())
        .where(MissedLimit.case_id == case.id, MissedLimit.clock.in_(LIMITS), MissedLimit.estate_id == case.estate_id)
        .scalar_subquery()
    )
    accepted = sa.and_(case.accepted > case.reopened, ~case.cancelled)
    judged = sa.or_(case.accepted > 0, case.reopened > 0, case.reworks > 0)
    passed = sa.and_(accepted, case.reopened == 0, case.reworks == 0)
    query = (
        sa.select(
            case.urgent,
            sa.func.count(),
            sa.func.count().filter(accepted),
            sa.func.count().filter(case.cancelled),
            sa.func.count().filter(judged),
            sa.func.count().filter(passed),
            sa.func.coalesce(sa.func.sum(len(LIMITS) - missed).filter(accepted), 0),
            sa.func.coalesce(sa.func.sum(missed), 0),
        )
        .where(tx.inside(case), case.estate_id == estate_id, case.reported_at >= between[0], case.reported_at < between[1])
        .group_by(case.urgent)
    )
    found = {bool(urgent): Counts(*map(int, figures)) for urgent, *figures in tx.session.execute(query)}
    return {True: found.get(True, Counts()), False: found.get(False, Counts())}


def instants(quarter: str, zone: str) -> tuple[datetime, datetime]:
    """When `2026-Q4` begins and ends in a time zone, as UTC; the end is the first instant after it."""
    year, _, number = quarter.partition("-Q")
    begins = date(int(year), int(number) * 3 - 2, 1)
    ends = date(int(year) + 1, 1, 1) if number == "4" else begins.replace(month=begins.month + 3)
    return _midnight(begins, zone), _midnight(ends, zone)


def _midnight(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
