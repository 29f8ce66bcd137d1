"""Who follows up, and until when (REP-25, FUP-02, FUP-04, X-04, X-05).

A follow-up falls to the early shift of the day by whose end it is due; where the roster has none, to who holds that post, else to
the butler, else to a customer assistant, else to the supervisor, and never to somebody who did the work. Of several it is the one
who has fewest for that day. At midnight Steward goes through what waits: what was put off, or left over, falls to the new day's
early shift, and what was planned before the roster changed follows the roster; what somebody has delegated for the day stays
with whom he gave it to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.chassis import directory, duties
from services.chassis.db import Transaction
from services.chassis.directory import EARLY_SHIFT, Estate
from services.chassis.lifecycle import Act
from services.chassis.policies import Terms
from services.work_orders import policies
from services.work_orders.followups import PENDING, FollowUp, Turn

FRONT_LINE = (EARLY_SHIFT, "BUILDING_BUTLER", "CUSTOMER_ASSISTANT")  # in this order, but for the policy's first
LAST = "CS_SUPERVISOR"
NOON = time(12)


def due_day(tx: Transaction, estate: Estate, terms: Terms, returned_at: datetime) -> date:
    """X-05: the day of return; the next duty day when it was returned after 17:00."""
    local = returned_at.astimezone(ZoneInfo(estate.zone))
    late = local.time() > time.fromisoformat(terms.text(policies.FOLLOWUP_CUTOFF))
    return directory.next_duty_day(tx, estate, local.date()) if late else local.date()


def end_of(day: date, estate: Estate) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), ZoneInfo(estate.zone))


def next_end(tx: Transaction, estate: Estate, at: datetime) -> datetime:
    """The end of the duty day after an instant's: when nobody was reached, the next day's early shift tries."""
    return end_of(directory.next_duty_day(tx, estate, at.astimezone(ZoneInfo(estate.zone)).date()), estate)


def turn(tx: Transaction, estate: Estate, terms: Terms, day: date, but: Collection[UUID]) -> Turn:
    """Whose turn it is on a day; nobody of `but` (who did the work)."""
    return Turns(tx, estate, terms).next(day, but)


class Turns:
    """The turns of one estate, evenly among those who are there, those that this transaction gives out included."""

    def __init__(self, tx: Transaction, estate: Estate, terms: Terms):
        self._tx, self._estate, self._terms = tx, estate, terms
        self._counts: dict[date, Counter[UUID]] = {}
        self._present: dict[tuple[str, date], list[UUID]] = {}

    def next(self, day: date, but: Collection[UUID], keep: UUID | None = None) -> Turn:
        """`keep`: who has it already, and keeps it while it may be his."""
        due_at = end_of(day, self._estate)
        for role in roles(self._terms):
            if free := [staff for staff in self._there(role, day) if staff not in but]:
                return Turn(day, due_at, role, keep if keep in free else self._fewest(day, free))
        return Turn(day, due_at, roles(self._terms)[0], None)

    def _there(self, role: str, day: date) -> list[UUID]:
        """Who answers for a role on a day, as far as the roster says now: today at this moment, later at noon."""
        if (role, day) not in self._present:
            found = duties.on_early_shift(self._tx, self._estate, day) if role == EARLY_SHIFT else []
            noon = datetime.combine(day, NOON, ZoneInfo(self._estate.zone))
            self._present[role, day] = found or directory.on_duty(self._tx, role, self._estate, max(self._tx.now, noon))
        return self._present[role, day]

    def _fewest(self, day: date, free: list[UUID]) -> UUID:
        if len(free) == 1:
            return free[0]
        if day not in self._counts:
            rows = self._tx.execute(
                "SELECT assignee_id, count(*) FROM follow_ups WHERE estate_id = %s AND assigned_for = %s AND state = 'PENDING'"
                " AND assignee_id IS NOT NULL GROUP BY assignee_id",
                (self._estate.id, day),
            )
            self._counts[day] = Counter(dict(rows))
        counts = self._counts[day]
        chosen = min(free, key=lambda who: (counts[who], str(who)))
        counts[chosen] += 1
        return chosen


def roles(terms: Terms) -> tuple[str, ...]:
    first = terms.text(policies.FOLLOWUP_FIRST)
    return (first, *(role for role in FRONT_LINE if role != first), LAST)


def held_role(tx: Transaction, estate: Estate, staff_id: UUID) -> str:
    """As what somebody may follow up at an estate now; empty when he may not."""
    return next((role for role in (*FRONT_LINE, LAST) if directory.holds_post(tx, staff_id, role, estate)), "")


def plan_day(tx: Transaction, estate: Estate, act: Act, due_at: datetime) -> None:
    """REP-25: who follows up today. Runs at midnight (`duties.DUTIES`); when it has been down, once for today is enough."""
    today = tx.now.astimezone(ZoneInfo(estate.zone)).date()
    waiting = sa.select(FollowUp.id).where(
        FollowUp.estate_id == estate.id,
        FollowUp.state == PENDING,
        sa.or_(FollowUp.assigned_for <= today, FollowUp.assigned_for.is_(None)),
    )
    turns = Turns(tx, estate, act.terms)
    for identifier in tx.session.execute(waiting.order_by(FollowUp.id)).scalars().all():
        follow_up = tx.get(FollowUp, identifier)
        if follow_up.state == PENDING and not (follow_up.delegated_by and follow_up.assigned_for == today):
            _follow_the_roster(turns, estate, act, follow_up, today)


def reassign(tx: Transaction, estate: Estate, act: Act, follow_up: FollowUp, successor: UUID | None) -> None:
    """To somebody else for the same day: who had it has left. To his successor, where he is of the front line."""
    today = tx.now.astimezone(ZoneInfo(estate.zone)).date()
    day = max(follow_up.assigned_for or today, today)
    found = turn(tx, estate, act.terms, day, follow_up.doer_ids)
    if successor is not None and successor not in follow_up.doer_ids and (role := held_role(tx, estate, successor)):
        found = Turn(day, found.due_at, role, successor)
    follow_up.assign(act, found)


def _follow_the_roster(turns: Turns, estate: Estate, act: Act, follow_up: FollowUp, today: date) -> None:
    """For the day on which it is due, or today when that has passed; who has it for that day keeps it while it is his turn."""
    due = (follow_up.due_at - timedelta(microseconds=1)).astimezone(ZoneInfo(estate.zone)).date()
    day = max(due, today)
    keep = follow_up.assignee_id if follow_up.assigned_for == day else None
    follow_up.assign(act, turns.next(day, follow_up.doer_ids, keep))
