"""The reactions of a service that exists only in the fault tests. What they do is told by the event's `number`:

- `slow:1.5`: the effect is preceded by a statement of 1.5 s
- `die:<name>`: kill -9 of the worker after the effect is committed, unless the switch <name> is on, which this turns on
- `fall:<name>`: kill -9 of the worker before the effect is committed, unless the switch <name> is on
- `off:<name>`: fails until the switch <name> is on
- `never`: fails for good
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from services.chassis.db import Database, Transaction
from services.chassis.reactions import Event, Permanent, every, on
from steward.chassis.v1 import events_pb2 as chassis_events
from steward.work_orders.v1 import events_pb2 as events

TABLES = """
CREATE TABLE effects (reaction text NOT NULL, event_id uuid NOT NULL, aggregate_id uuid NOT NULL, sequence integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE holders (aggregate_id uuid PRIMARY KEY, sequence integer NOT NULL, technician text NOT NULL);
CREATE TABLE totals (aggregate_id uuid PRIMARY KEY, units bigint NOT NULL);
CREATE TABLE switches (name text PRIMARY KEY);
CREATE TABLE batches (size integer NOT NULL);
CREATE TABLE beats (name text NOT NULL, began timestamptz NOT NULL, ended timestamptz NOT NULL);
GRANT ALL ON effects, holders, totals, switches, batches, beats TO ledger;
"""


@on(events.RepairReported, source="emitter", service="ledger")
def note(event: Event[events.RepairReported], tx: Transaction) -> None:
    """An effect that shows every time it happens."""
    _note("note", event, tx)


@on(events.RepairRejected, source="emitter", service="ledger", together=True)
def note_together(arrived: Sequence[Event[events.RepairRejected]], tx: Transaction) -> None:
    """The same for events that share a transaction; `batches` shows how many did."""
    tx.execute("INSERT INTO batches VALUES (%s)", (len(arrived),))
    for event in arrived:
        _note("note_together", event, tx)


@on(events.RepairRejected, source="emitter", service="ledger", together=True)
def note_together_too(arrived: Sequence[Event[events.RepairRejected]], tx: Transaction) -> None:
    """A second reaction to the same events."""
    for event in arrived:
        _effect("note_together_too", event, tx)


def _note(reaction: str, event: Event, tx: Transaction) -> None:
    word, _, value = event.data.number.partition(":")
    if word == "slow":
        tx.execute("SELECT pg_sleep(%s)", (float(value),))
    if word == "never":
        raise Permanent("this event can never be handled")
    if word == "off" and not tx.execute("SELECT 1 FROM switches WHERE name = %s", (value,)):
        raise RuntimeError(f"the switch {value} is off")
    _effect(reaction, event, tx)
    if word == "fall" and not tx.execute("SELECT 1 FROM switches WHERE name = %s", (value,)):
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "die" and tx.execute("INSERT INTO switches VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1", (value,)):
        tx.after_commit.append(lambda: os.kill(os.getpid(), signal.SIGKILL))


@on(events.RepairReported, source="emitter", service="ledger")
def note_too(event: Event[events.RepairReported], tx: Transaction) -> None:
    """A second reaction to the same event, which does not fail with the first."""
    _effect("note_too", event, tx)


@on(events.RepairTaken, source="emitter", service="ledger", queue="directory")
def keep_holder(event: Event[events.RepairTaken], tx: Transaction) -> None:
    """State carried by the event: the newer wins, whatever comes first."""
    tx.execute(
        "INSERT INTO holders VALUES (%s, %s, %s) ON CONFLICT (aggregate_id) DO UPDATE SET sequence = EXCLUDED.sequence,"
        " technician = EXCLUDED.technician WHERE holders.sequence < EXCLUDED.sequence",
        (event.aggregate_id, event.sequence, event.data.technician),
    )
    word, _, value = event.data.number.partition(":")
    if word == "off" and not tx.execute("SELECT 1 FROM switches WHERE name = %s", (value,)):
        raise RuntimeError(f"the switch {value} is off")


@on(events.RepairCharged, source="emitter", service="ledger")
def add_up(event: Event[events.RepairCharged], tx: Transaction) -> None:
    """An effect that commutes."""
    tx.execute(
        "INSERT INTO totals VALUES (%s, %s) ON CONFLICT (aggregate_id) DO UPDATE SET units = totals.units + EXCLUDED.units",
        (event.aggregate_id, event.data.amount.units),
    )


@on(chassis_events.ClockBreached, source="emitter", service="ledger")
def note_breach(event: Event[chassis_events.ClockBreached], tx: Transaction) -> None:
    _effect(f"breach of {event.data.clock.clock}", event, tx)


@every(0.2, name="beat", service="ledger")
def beat(database: Database) -> None:
    """Takes longer than its period."""
    with database.transaction() as tx:
        tx.execute("INSERT INTO beats SELECT %s, clock_timestamp(), clock_timestamp() + '0.3 s' FROM pg_sleep(0.3)", (str(os.getpid()),))


@every(0.2, name="stumble", service="ledger")
def stumble(database: Database) -> None:
    """Fails while the switch of its name is on."""
    with database.read() as tx:
        if tx.execute("SELECT 1 FROM switches WHERE name = 'stumble'"):
            raise RuntimeError("as told")


def _effect(reaction: str, event: Event, tx: Transaction) -> None:
    values = (reaction, event.id, event.aggregate_id, event.sequence)
    tx.execute("INSERT INTO effects (reaction, event_id, aggregate_id, sequence) VALUES (%s, %s, %s, %s)", values)
