"""Shifts and absences in a service's directory, as residents would have sent them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from services.chassis import directory
from services.chassis.db import Database, Transaction
from services.chassis.names import stamp
from services.chassis.testing import Caller, Tree
from steward.residents.v1 import directory_pb2 as pb

Entry = pb.DirectoryEntry


def shift(who: Caller, tree: Tree, role: str, start: datetime, end: datetime, *, early: bool = False) -> Entry:
    times = {"start_time": stamp(start), "end_time": stamp(end)}
    row = Entry.Shift(staff_id=str(who.id), role=role, estate_id=str(tree.estate_id), early_shift=early, **times)  # type: ignore[arg-type]
    return Entry(id=str(uuid4()), version=1, shift=row)


def absence(who: Caller, start: datetime, end: datetime | None = None, *, deputy: Caller | None = None) -> Entry:
    row = Entry.Absence(staff_id=str(who.id), deputy_id=str(deputy.id) if deputy else "", start_time=stamp(start), end_time=stamp(end))
    return Entry(id=str(uuid4()), version=1, absence=row)


def post(who: Caller, role: str, node: UUID, *, end: datetime | None = None) -> Entry:
    return Entry(id=str(uuid4()), version=1, post=pb.Post(staff_id=str(who.id), role=role, node_id=str(node), end_time=stamp(end)))  # type: ignore[arg-type]


def arrive(into: Database | Transaction, *entries: Entry) -> None:
    """The service hears of them."""
    if isinstance(into, Transaction):
        directory.apply(into, entries)
        return
    with into.transaction() as tx:
        directory.apply(tx, entries)
