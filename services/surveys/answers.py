"""What households answer about the service: today the grades given when a repair is accepted (REP-19).

An answer is state carried by an event: the newest acceptance of a repair counts, whatever order they arrive in. It keeps the
instant; in which month that lies is worked out when somebody asks, so nothing here waits for the directory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction


class SatisfactionAnswer(Base):
    """The grades of one repair. `unit_id` is None for a public area, which a manager accepts (REP-22), not a household."""

    __tablename__ = "satisfaction_answers"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # the repair's
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    sequence: Mapped[int]
    answered_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    unit_id: Mapped[UUID | None]
    technician_id: Mapped[UUID | None]
    attitude: Mapped[int]
    quality: Mapped[int]


@dataclass(frozen=True, slots=True)
class Figures:
    answers: int
    average_attitude: float | None
    average_quality: float | None
    satisfied: int


_COLUMNS = ("id", "group_id", "company_id", "estate_id", "sequence", "answered_at", "unit_id", "technician_id", "attitude", "quality")
_KEEP = f"""
INSERT INTO satisfaction_answers AS known ({", ".join(_COLUMNS)}) VALUES {{rows}}
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{column} = EXCLUDED.{column}" for column in _COLUMNS)} WHERE known.sequence < EXCLUDED.sequence
"""


def keep(tx: Transaction, answers: Iterable[SatisfactionAnswer]) -> None:
    """Writes answers, except those of which a newer one of the same repair is there."""
    newest: dict[UUID, SatisfactionAnswer] = {}
    for answer in sorted(answers, key=lambda answer: (answer.id, answer.sequence)):  # in order of the key, as everybody locks them
        newest[answer.id] = answer
    if newest:
        one = f"({', '.join(['%s'] * len(_COLUMNS))})"
        values = [getattr(answer, column) for answer in newest.values() for column in _COLUMNS]
        tx.finally_execute(_KEEP.format(rows=", ".join([one] * len(newest))), values)


def figures(
    tx: Transaction, estate_id: UUID, between: tuple[datetime, datetime], satisfied_from: int, technician_id: UUID | None = None
) -> Figures:
    """REP-29: satisfied is who gave both grades at least `satisfied_from`."""
    answer = SatisfactionAnswer
    query = sa.select(
        sa.func.count(),
        sa.func.avg(answer.attitude),
        sa.func.avg(answer.quality),
        sa.func.count().filter(sa.func.least(answer.attitude, answer.quality) >= satisfied_from),
    ).where(
        tx.inside(answer),
        answer.estate_id == estate_id,
        answer.unit_id.is_not(None),
        answer.answered_at >= between[0],
        answer.answered_at < between[1],
    )
    if technician_id:
        query = query.where(answer.technician_id == technician_id)
    count, attitude, quality, satisfied = tx.session.execute(query).one()
    return Figures(count, float(attitude) if count else None, float(quality) if count else None, satisfied)


def instants(period: str, zone: str) -> tuple[datetime, datetime]:
    """When `2026`, `2026-Q4` or `2026-11` begins and ends in a time zone, as UTC; the end is the first instant after it."""
    year, _, part = period.partition("-")
    if part.startswith("Q"):
        first, months = int(part[1]) * 3 - 2, 3
    else:
        first, months = (int(part), 1) if part else (1, 12)
    after = first + months
    ends = date(int(year) + (after > 12), (after - 1) % 12 + 1, 1)
    return _midnight(date(int(year), first, 1), zone), _midnight(ends, zone)


def _midnight(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
