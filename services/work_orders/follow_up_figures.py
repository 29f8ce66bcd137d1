"""What the follow-ups of a month were like (FUP-07, FUP-09, FUP-10, FUP-26), and which ones come first (FUP-21).

A follow-up counts in the month in which its order first came back, by its estate's own calendar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.names import PAGE, page_position, page_token
from services.work_orders import policies
from services.work_orders.followups import EXCUSED, PENDING, UNHAPPY, Attempt, FollowUp
from services.work_orders.months import in_month, nodes
from services.work_orders.repairs import CANCELLED, Repair


@dataclass(frozen=True, slots=True)
class Line:
    """Follow-ups of one class, department or technician (`key`)."""

    key: Any
    orders: int
    valid: int  # reached and answered, and no spot check found otherwise
    excused: int  # confirmed as unreachable
    dissatisfied: int  # valid ones that said so at least once

    @property
    def rate(self) -> float:
        asked = self.orders - self.excused
        return self.valid / asked if asked > 0 else 1.0

    @property
    def satisfaction(self) -> float:
        return 1 - self.dissatisfied / self.valid if self.valid else 1.0


NONE = Line(None, 0, 0, 0, 0)


def of_month(tx: Transaction, month: str, by: Any) -> list[Line]:
    """The lines of a month inside the transaction's scope, one for each value of the column `by`."""
    count = sa.func.count()
    unhappy = sa.select(sa.literal(1)).where(Attempt.follow_up_id == FollowUp.id, Attempt.grade == UNHAPPY).correlate(FollowUp).exists()
    query = (
        sa.select(
            by,
            count,
            count.filter(FollowUp.valid),
            count.filter(FollowUp.state == EXCUSED, ~FollowUp.valid),
            count.filter(FollowUp.valid, unhappy),
        )
        .join(nodes, nodes.c.id == FollowUp.estate_id)
        .where(tx.inside(FollowUp), *in_month(month, FollowUp.returned_at))
        .group_by(by)
    )
    return [Line(*tuple[Any, ...](row)) for row in tx.session.execute(query)]


def total(lines: Iterable[Line]) -> Line:
    found = list(lines)
    return Line(None, *(sum(getattr(line, name) for line in found) for name in ("orders", "valid", "excused", "dissatisfied")))


def reasons(tx: Transaction, month: str) -> Counter[str]:
    """Why households were not satisfied, one for each answer that said so."""
    query = (
        sa.select(Attempt.reason, sa.func.count())
        .join(FollowUp, FollowUp.id == Attempt.follow_up_id)
        .join(nodes, nodes.c.id == FollowUp.estate_id)
        .where(tx.inside(FollowUp), Attempt.grade == UNHAPPY, Attempt.reason != "", *in_month(month, FollowUp.returned_at))
        .group_by(Attempt.reason)
    )
    found: Counter[str] = Counter()
    for reason, count in tx.session.execute(query):
        found[reason] = count
    return found


@dataclass(frozen=True, slots=True)
class Planned:
    """A follow-up that waits, with its problem and how often the estate has had it."""

    follow_up: FollowUp
    category: str
    frequency: int


def plan(tx: Transaction, request: Any, assignee: UUID | None) -> tuple[list[Planned], str]:
    """One page of what is to be asked, frequent problems first, then the earliest due; and the token of the next. Raises InvalidInput."""
    since = tx.now - timedelta(days=tx.terms().number(policies.FOLLOWUP_PLAN_DAYS))
    reports = (
        sa.select(Repair.estate_id, Repair.category, sa.func.count().label("frequency"))
        .where(tx.inside(Repair), Repair.reported_at > since, Repair.state != CANCELLED)
        .group_by(Repair.estate_id, Repair.category)
        .subquery()
    )
    frequency = sa.func.coalesce(reports.c.frequency, 0)
    query = (
        sa.select(FollowUp, Repair.category, frequency)
        .join(Repair, Repair.id == FollowUp.repair_id)
        .outerjoin(reports, sa.and_(reports.c.estate_id == FollowUp.estate_id, reports.c.category == Repair.category))
        .where(tx.inside(FollowUp), FollowUp.state == PENDING)
    )
    if assignee is not None:
        query = query.where(FollowUp.assignee_id == assignee)
    if after := page_position(request):
        often, due, identifier = int(after[0]), datetime.fromisoformat(after[1]), UUID(after[2])
        same = frequency == often
        query = query.where(
            sa.or_(
                frequency < often,
                sa.and_(same, FollowUp.due_at > due),
                sa.and_(same, FollowUp.due_at == due, FollowUp.id > identifier),
            )
        )
    size = request.page_size or PAGE
    rows = tx.session.execute(query.order_by(frequency.desc(), FollowUp.due_at, FollowUp.id).limit(size + 1)).all()
    found = [Planned(*tuple[Any, ...](row)) for row in rows[:size]]
    if len(rows) <= size:
        return found, ""
    end = found[-1]
    return found, page_token(request, end.frequency, end.follow_up.due_at.isoformat(), end.follow_up.id)
