"""The board by which the supervisors of Customer Service, engineering and the other departments follow up repairs (REP-31)."""

from __future__ import annotations

import enum
from typing import Any

import sqlalchemy as sa

from services.chassis.clocks import Clock
from services.chassis.db import Transaction
from services.work_orders.followups import DISSATISFIED, PENDING, FollowUp
from services.work_orders.repairs import ACCEPTED, OPEN, Repair

STANDING = [*sorted(OPEN), ACCEPTED]  # not done, or not back at the customer centre


class Concern(enum.StrEnum):
    """What a supervisor should look at."""

    OVERDUE = "OVERDUE"
    SENT_BACK = "SENT_BACK"
    URGED = "URGED"
    PAUSED = "PAUSED"
    NOT_RETURNED = "NOT_RETURNED"


def _overdue() -> sa.ColumnElement[bool]:
    missed = sa.select(sa.literal(1)).where(Clock.aggregate_id == Repair.id, Clock.breached_at.is_not(None), Clock.stopped_at.is_(None))
    return missed.correlate(Repair).exists()


def holds(concern: Concern) -> sa.ColumnElement[bool]:
    """That an order has it."""
    is_open = Repair.state != ACCEPTED
    if concern is Concern.OVERDUE:
        return _overdue()
    if concern is Concern.SENT_BACK:
        return sa.and_(is_open, Repair.rework_count > 0)
    if concern is Concern.URGED:
        return sa.and_(is_open, Repair.urge_count > 0)
    return sa.and_(is_open, Repair.paused) if concern is Concern.PAUSED else Repair.state == ACCEPTED


def watched(concerns: list[Concern]) -> sa.Select[Any]:
    """Orders that stand, with one of the concerns."""
    return sa.select(Repair).where(Repair.state.in_(STANDING), sa.or_(*(holds(concern) for concern in concerns or Concern)))


def concerns_of(repair: Repair) -> list[Concern]:
    """Which of them an order has, for one that has been read with its clocks."""
    is_open = repair.state != ACCEPTED
    found = {
        Concern.OVERDUE: bool(missed(repair)),
        Concern.SENT_BACK: is_open and repair.rework_count > 0,
        Concern.URGED: is_open and repair.urge_count > 0,
        Concern.PAUSED: is_open and repair.paused,
        Concern.NOT_RETURNED: not is_open,
    }
    return [concern for concern, here in found.items() if here]


def missed(repair: Repair) -> list[str]:
    """The time limits that have been missed and still stand."""
    return [clock.name for clock in repair.clocks if clock.breached_at is not None and clock.stopped_at is None]


def columns(tx: Transaction) -> list[tuple[str, int, int]]:
    """(state, orders, urgent ones among them) of those that stand."""
    count = sa.func.count()
    query = sa.select(Repair.state, count, count.filter(Repair.urgent)).where(tx.inside(Repair), Repair.state.in_(STANDING))
    return [(state, orders, urgent) for state, orders, urgent in tx.session.execute(query.group_by(Repair.state))]


def counts(tx: Transaction) -> dict[Concern, int]:
    """How many orders have which concern."""
    numbers = [sa.func.count().filter(holds(concern)) for concern in Concern]
    row = tx.session.execute(sa.select(*numbers).select_from(Repair).where(tx.inside(Repair), Repair.state.in_(STANDING))).one()
    return dict(zip(Concern, row, strict=True))


def follow_ups(tx: Transaction) -> tuple[int, int, int]:
    """(waiting, of these after their time, households that wait for a solution)."""
    count = sa.func.count()
    waiting = FollowUp.state == PENDING
    query = sa.select(
        count.filter(waiting), count.filter(waiting, FollowUp.due_at <= tx.now), count.filter(FollowUp.state == DISSATISFIED)
    ).where(tx.inside(FollowUp), FollowUp.state.in_([PENDING, DISSATISFIED]))
    pending, overdue, dissatisfied = tx.session.execute(query).one()
    return pending, overdue, dissatisfied
