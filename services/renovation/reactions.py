"""What renovation does when the register changes."""

from __future__ import annotations

from uuid import UUID

from services.chassis.db import Database, Transaction
from services.chassis.errors import Unavailable
from services.chassis.reactions import Event, every, on
from services.renovation.renovations import concerned, follow_register, out_of_line
from steward.residents.v1 import directory_pb2, events_pb2

BATCH = 500
PAUSE = 60.0  # seconds between two looks for what no event has told


@on(events_pb2.DirectoryChanged, queue="directory")
def follow_units(event: Event[events_pb2.DirectoryChanged], tx: Transaction) -> None:
    """The opening register says which units are being renovated (装修中); later words of it end or resume their records.

    Raises Unavailable(DIRECTORY_BEHIND) when the directory's own reaction to this event has not succeeded: both are tried again.
    """
    entries = [e for e in event.data.entries if e.WhichOneof("entry") == "node" and e.node.kind == directory_pb2.Node.UNIT]
    if not entries:
        return
    behind = tx.execute(
        "SELECT count(*) FROM unnest(%s::uuid[], %s::bigint[]) AS e (id, version) LEFT JOIN dir_nodes n USING (id)"
        " WHERE n.version IS NULL OR n.version < e.version",
        ([e.id for e in entries], [e.version for e in entries]),
    )[0][0]
    if behind:
        raise Unavailable("the directory has not taken these entries over yet", reason="DIRECTORY_BEHIND", retry_after=1)
    mentioned = {UUID(e.id) for e in entries if e.node.unit_status.under_renovation and not e.deleted}
    follow_register(tx, concerned(tx, [UUID(e.id) for e in entries], mentioned), mentioned)


@every(PAUSE, name="follow_register")
def catch_up(database: Database) -> int:
    """A new copy of the directory comes by asking residents, not by events: what it says is followed here."""
    total = 0
    while True:
        with database.transaction() as tx:
            changed = follow_register(tx, out_of_line(tx, BATCH))
        total += changed
        if not changed:
            return total
