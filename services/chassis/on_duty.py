"""Who answers for a role at an estate, by the roster: one statement for many questions, answered for any instant of a span.

`directory.on_duty` asks for one instant. Whoever handles many events at once asks once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from services.chassis.prepared import Statement

if TYPE_CHECKING:
    from services.chassis.db import Transaction
    from services.chassis.directory import Estate

EARLY_SHIFT = "EARLY_SHIFT_CLERK"
DESK = (EARLY_SHIFT, "CUSTOMER_ASSISTANT")  # posts by which one may be on the early shift (REP-25)


class _Row(NamedTuple):
    """Somebody who may answer, with one absence of his, one deputy for it and one absence of that one, as far as there are such."""

    role: str
    estate: UUID
    tier: int  # 0 on shift; 1 a post at the estate, 2 at its company, 3 at the group
    staff: UUID
    since: datetime | None
    until: datetime | None
    away_since: datetime | None  # None: never away
    away_until: datetime | None
    deputy: UUID | None
    deputy_since: datetime | None
    deputy_until: datetime | None
    deputy_away_since: datetime | None  # None: never away
    deputy_away_until: datetime | None


def _meets(row: str) -> str:
    """SQL: a post or an absence stands at some instant between $5 and $6; shifts have both ends, and are found by them."""
    return f"NOT {row}.deleted AND ({row}.starts_at IS NULL OR {row}.starts_at <= $6) AND ({row}.ends_at IS NULL OR {row}.ends_at > $5)"


_STANDING = f"""
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[]::uuid[], $3::text[]::uuid[], $4::text[]::uuid[])
        AS a (role, estate_id, company_id, group_id)
), standing AS (
    SELECT a.role, a.estate_id, 0 AS tier, s.staff_id, p.node_id,
           greatest(s.starts_at, p.starts_at) AS starts_at, least(s.ends_at, p.ends_at) AS ends_at
      FROM asked a
      JOIN dir_shifts s ON s.estate_id = a.estate_id AND (s.role = a.role OR (s.early_shift AND a.role = '{EARLY_SHIFT}'))
       AND NOT s.deleted AND s.ends_at > $5::timestamptz AND s.starts_at <= $6::timestamptz
      JOIN dir_posts p ON p.staff_id = s.staff_id AND p.node_id IN (a.estate_id, a.company_id, a.group_id) AND {_meets("p")}
       AND (p.role = s.role OR (s.role = '{EARLY_SHIFT}' AND p.role IN {DESK}))
    UNION ALL
    SELECT a.role, a.estate_id, CASE p.node_id WHEN a.estate_id THEN 1 WHEN a.company_id THEN 2 ELSE 3 END, p.staff_id, p.node_id,
           p.starts_at, p.ends_at
      FROM asked a JOIN dir_posts p ON p.node_id IN (a.estate_id, a.company_id, a.group_id) AND p.role = a.role AND {_meets("p")}
)
SELECT t.role, t.estate_id, t.tier, t.staff_id, t.starts_at, t.ends_at, a.starts_at, a.ends_at,
       d.staff_id, d.starts_at, d.ends_at, x.starts_at, x.ends_at
  FROM standing t
  LEFT JOIN dir_absences a ON a.staff_id = t.staff_id AND {_meets("a")}
  LEFT JOIN dir_posts d ON d.staff_id = a.deputy_id AND d.node_id = t.node_id AND {_meets("d")}
  LEFT JOIN dir_absences x ON x.staff_id = d.staff_id AND {_meets("x")}
"""


class Roster:
    """Who may answer for some roles at some estates, within a span of time."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]):
        self._rows: dict[tuple[str, UUID], list[_Row]] = {}
        for columns in rows:
            row = _Row(*columns)
            self._rows.setdefault((row.role, row.estate), []).append(row)

    def on_duty(self, role: str, estate_id: UUID, at: datetime) -> list[UUID]:
        """Whom to tell or send at an instant of the span; nobody is an empty list.

        Those on shift in that role, deputies taking the shift of those on leave; if nobody is, those with the post at the
        estate who are not on leave, else their deputies; then the same at its company, and at the group.
        """
        standing: dict[int, set[UUID]] = {}
        deputies: dict[int, set[UUID]] = {}
        away: set[UUID] = set()
        for row in self._rows.get((role, estate_id), ()):
            if not _holds(at, row.since, row.until):
                continue
            standing.setdefault(row.tier, set()).add(row.staff)
            if row.away_since is None or not _holds(at, row.away_since, row.away_until):
                continue
            away.add(row.staff)
            if row.deputy is not None and _holds(at, row.deputy_since, row.deputy_until):
                deputies.setdefault(row.tier, set()).add(row.deputy)
                if row.deputy_away_since is not None and _holds(at, row.deputy_away_since, row.deputy_away_until):
                    away.add(row.deputy)
        for tier in sorted(standing):
            present, instead = standing[tier] - away, deputies.get(tier, set()) - away
            if told := (present | instead) if tier == 0 else (present or instead):
                return sorted(told)
        return []


def roster(tx: Transaction, asked: Iterable[tuple[str, Estate]], begins: datetime, ends: datetime) -> Roster:
    """For (role, estate) pairs and every instant from `begins` to `ends`, both included."""
    pairs = list(asked)
    if not pairs:
        return Roster(())
    nodes = ([str(node) for node in column] for column in zip(*((e.id, e.company_id, e.group_id) for _, e in pairs), strict=True))
    return Roster(tx.ask(Statement(_STANDING, ([role for role, _ in pairs], *nodes, begins, ends))))


def _holds(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or since <= at) and (until is None or until > at)
