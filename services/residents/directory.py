"""What other services learn of the register: entries by state, in the event log and in the copy of this service itself."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.chassis import directory
from services.chassis.db import Transaction, new_id
from services.chassis.events import Happened, append
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2

MOST_ENTRIES = 500  # of one event: about 100 kB


def publish(
    tx: Transaction,
    entries: Sequence[pb.DirectoryEntry],
    *,
    group_id: UUID | None = None,
    company_id: UUID | None = None,
    estate_id: UUID | None = None,
) -> None:
    """Entries as they are now become rows of this service's directory and events of up to 500 entries, with the commit.

    Group, company and estate say where in the tree the change is, so that a call with a part of it in scope may write it.

    Each event is an aggregate of its own: consumers go by the versions of the entries, not by the order of events.
    """
    if not entries:
        return
    directory.apply(tx, entries)
    for start in range(0, len(entries), MOST_ENTRIES):
        change = new_id()
        message = events_pb2.DirectoryChanged(entries=entries[start : start + MOST_ENTRIES])
        append(tx, Happened("directory", change, 1, f"directory/{change}", message, tx.now, group_id, company_id, estate_id))
