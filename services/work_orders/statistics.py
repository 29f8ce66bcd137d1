"""Figures of a month's repairs (REP-29), in one statement that adds up what it reads by index.

The month is each estate's own (`months`). The scope of the caller is repeated as a predicate; row-level security alone would
read every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.chassis.clocks import Clock
from services.chassis.db import Transaction
from services.work_orders.months import in_month, nodes
from services.work_orders.repairs import Repair, State

TIMED = ("on_site", "resolve")  # clocks that say whether a repair was in time
GOOD = 4  # of one to five

DONE_WITH = (State.ACCEPTED, State.FILED)


@dataclass(frozen=True, slots=True)
class Line:
    """Repairs of one state, category and urgency."""

    state: str
    category: str
    urgent: bool
    count: int
    recurring: int
    accepted: int
    timely: int
    first_pass: int
    satisfied: int
    attitude: int  # sum of the grades of the accepted ones
    quality: int


def of_month(tx: Transaction, month: str) -> list[Line]:
    """The lines of one month (`2026-11`) inside the transaction's scope; at most one for each state, category and urgency."""
    return [Line(*tuple[Any, ...](row)) for row in tx.session.execute(query(tx, month))]


def query(tx: Transaction, month: str) -> sa.Select[*tuple[Any, ...]]:
    breached = (
        sa.select(sa.literal(1))
        .where(Clock.aggregate_id == Repair.id, Clock.name.in_(TIMED), Clock.breached_at.is_not(None), tx.inside(Clock))
        .correlate(Repair)
        .exists()
    )
    accepted = Repair.state.in_(DONE_WITH)
    count = sa.func.count()
    return (
        sa.select(
            Repair.state,
            Repair.category,
            Repair.urgent,
            count,
            count.filter(Repair.recurs_id.is_not(None)),
            count.filter(accepted),
            count.filter(accepted, ~breached),
            count.filter(accepted, Repair.rework_count == 0),
            count.filter(accepted, Repair.attitude >= GOOD, Repair.quality >= GOOD),
            sa.func.coalesce(sa.func.sum(Repair.attitude).filter(accepted), 0),
            sa.func.coalesce(sa.func.sum(Repair.quality).filter(accepted), 0),
        )
        .join(nodes, nodes.c.id == Repair.estate_id)
        .where(tx.inside(Repair), *in_month(month, Repair.reported_at))
        .group_by(Repair.state, Repair.category, Repair.urgent)
    )
