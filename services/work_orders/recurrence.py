"""Faults that come back (REP-30, REP-34): the same place and category soon after an accepted repair.

Such a fault is repaired free, and when it happens often in one building the hint goes up for preventive maintenance.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from services.chassis.db import Transaction
from services.work_orders import policies
from services.work_orders.repairs import Repair


def earlier(tx: Transaction, estate_id: UUID, unit_id: UUID | None, location: str, category: str, reported_at: datetime) -> UUID | None:
    """The last accepted repair of the same fault, at most `repair.recurrence_days` before.

    The place is the unit, or in a public area the place in words.
    """
    since = reported_at - timedelta(days=tx.terms().number(policies.RECURRENCE_DAYS))
    place, where = ("unit_id = %s", unit_id) if unit_id else ("unit_id IS NULL AND btrim(location) = btrim(%s)", location)
    rows = tx.execute(
        f"SELECT id FROM repairs WHERE estate_id = %s AND category = %s AND {place} AND accepted_at BETWEEN %s AND %s"
        " AND state IN ('ACCEPTED', 'FILED') ORDER BY accepted_at DESC LIMIT 1",
        (estate_id, category, where, since, reported_at),
    )
    return rows[0][0] if rows else None


def hint(tx: Transaction, repair: Repair) -> None:
    """REP-30: every third fault (`repair.recurrence_hint`) of a category that comes back in a building within the days is told upwards.

    Public areas of an estate count together. Faults of one category and estate are counted one after the other, so that of
    two reports at the same instant one sees the other.
    """
    if repair.recurs_id is None:
        return
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('recurrence ' || %s || %s, 0))", (str(repair.estate_id), repair.category))
    terms = tx.terms()
    days, threshold = int(terms.number(policies.RECURRENCE_DAYS)), int(terms.number(policies.RECURRENCE_HINT))
    building = _building(tx, repair.unit_id)
    rows = tx.execute(
        "SELECT count(*) FROM repairs r LEFT JOIN dir_nodes n ON n.id = r.unit_id"
        " WHERE r.estate_id = %s AND r.category = %s AND r.recurs_id IS NOT NULL AND r.reported_at > %s AND r.state <> 'CANCELLED'"
        " AND r.id <> %s AND (r.unit_id IS NULL) = %s AND n.parent_id IS NOT DISTINCT FROM %s",
        (repair.estate_id, repair.category, tx.now - timedelta(days=days), repair.id, repair.unit_id is None, building),
    )
    count = rows[0][0] + 1
    if count % threshold == 0:
        repair.hint(tx.act(), building, count, days)


def _building(tx: Transaction, unit_id: UUID | None) -> UUID | None:
    rows = tx.execute("SELECT parent_id FROM dir_nodes WHERE id = %s", (unit_id,)) if unit_id else []
    return rows[0][0] if rows else None
