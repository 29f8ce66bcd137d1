"""The event log: outbox and log in one table, written in the transaction that changed the rows.

An event is a protobuf message of the service's `events.proto`; it is stored as proto JSON beside what identifies it and
published by the relay as a CloudEvents 1.0 JSON document. Nothing is published outside this log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from services.chassis.db import Database, Transaction, new_id
from services.chassis.lifecycle import Aggregate
from services.chassis.reactions import every

KEPT_DAYS = 30  # of the log, day by day; all else that ends has a rule in retention.py

INSERT = (
    "INSERT INTO events (id, aggregate, aggregate_id, sequence, type, subject, group_id, company_id, estate_id,"
    " occurred_at, actor, trace, data) VALUES "
)
ROW = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
HISTORY = (
    "INSERT INTO history (id, group_id, company_id, estate_id, aggregate, aggregate_id, version, at, actor, action,"
    " from_state, to_state, note, request_id) VALUES "
)
HISTORY_ROW = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of something that is not an Aggregate: `append` writes it."""

    aggregate: str
    aggregate_id: UUID
    sequence: int
    subject: str
    message: Message
    occurred_at: datetime
    group_id: UUID | None = None
    company_id: UUID | None = None
    estate_id: UUID | None = None


def append(tx: Transaction, happened: Happened) -> UUID:
    """Writes one event with the transaction's commit and returns its id."""
    return _write(tx, [happened])[0]


def collect(tx: Transaction) -> None:
    """What the transaction's entities recorded becomes rows of the log and of the history."""
    happened: list[Happened] = []
    changes: list[Any] = []
    rows = 0
    for case in tx.touched.values():
        if not isinstance(case, Aggregate):
            continue
        for sequence, message, at in case.taken_events():
            happened.append(
                Happened(case.KIND, case.id, sequence, case.subject, message, at, case.group_id, case.company_id, case.estate_id)
            )
        for counter, labels in case.taken_counts():
            tx.after_commit.append(counter.labels(tx.service, *labels).inc)
        for change in case.taken_history():
            rows += 1
            changes += [new_id(), case.group_id, case.company_id, case.estate_id, case.KIND, case.id, case.version, change.at]
            changes += [change.actor, change.action, change.from_state, change.to_state, change.note, tx.request_id]
    if happened:
        _write(tx, happened)
    if rows:
        tx.finally_execute(HISTORY + ",".join([HISTORY_ROW] * rows), changes)


def _write(tx: Transaction, happened: list[Happened]) -> list[UUID]:
    ids = [new_id() for _ in happened]
    values: list[Any] = []
    for identifier, h in zip(ids, happened, strict=True):
        values += [identifier, h.aggregate, h.aggregate_id, h.sequence, h.message.DESCRIPTOR.name, h.subject, h.group_id, h.company_id]
        values += [h.estate_id, h.occurred_at, str(tx.principal), tx.trace or None]
        values.append(orjson.dumps(MessageToDict(h.message)).decode())
    tx.finally_execute(INSERT + ",".join([ROW] * len(happened)), values)
    tx.wrote = True
    return ids


@every(3600, name="housekeeping")
def keep_house(database: Database) -> None:
    """Makes the log's next day partitions, drops those older than its time; machine time, harmless in every replica."""
    with database.transaction() as tx:
        tx.execute("SELECT keep_event_partitions(%s)", (KEPT_DAYS,))
