"""Fair rotation of a work pool: the next order goes to whoever had his last turn longest ago (REP-13).

The pool is the technicians on duty: those on shift where the roster has any, else all who are not on leave.
"""

from __future__ import annotations

from uuid import UUID

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import Conflict


def next_technician(tx: Transaction, estate: directory.Estate) -> UUID:
    """Takes a turn. Two dispatches at once get two technicians: turns of an estate are given one after the other.

    Raises Conflict(NO_TECHNICIAN) when nobody holds the post, or all who do are on leave without a deputy.
    """
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('rotation ' || %s, 0))", (str(estate.id),))
    pool = directory.on_duty(tx, "TECHNICIAN", estate)
    if not pool:
        raise Conflict(f"{estate.name} has no technician who is there", reason="NO_TECHNICIAN", rule="REP-13")
    turns = dict(tx.execute("SELECT technician_id, turn FROM dispatch_turns WHERE estate_id = %s", (estate.id,)))
    chosen = min(pool, key=lambda technician: (turns.get(technician, 0), str(technician)))
    tx.execute(
        "INSERT INTO dispatch_turns (group_id, company_id, estate_id, technician_id, turn) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (estate_id, technician_id) DO UPDATE SET turn = EXCLUDED.turn",
        (estate.group_id, estate.company_id, estate.id, chosen, max(turns.values(), default=0) + 1),
    )
    return chosen
