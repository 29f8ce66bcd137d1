"""What billing_reminders does when a repair goes on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from services.billing_reminders.receivables import DUE, PROVISIONAL, VOID, News, State, settle
from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.names import amount
from services.chassis.reactions import Event, on
from steward.work_orders.v1 import events_pb2 as work_orders


@on(work_orders.RepairCompleted)
def bill_completed_repair(event: Event[work_orders.RepairCompleted], tx: Transaction) -> None:
    """REP-37: the amount is fixed on the order."""
    _priced(event, tx, PROVISIONAL)


@on(work_orders.RepairAccepted)
def bill_accepted_repair(event: Event[work_orders.RepairAccepted], tx: Transaction) -> None:
    """REP-37: accepted by the customer, so it goes on the next payment notice."""
    _priced(event, tx, DUE)


@on(work_orders.RepairRejected)
def void_rejected_repair(event: Event[work_orders.RepairRejected], tx: Transaction) -> None:
    """REP-21: nothing is owed until the rework is completed."""
    _hear(event, tx, News(event.sequence, event.time, VOID))


@on(work_orders.RepairReopened)
def void_reopened_repair(event: Event[work_orders.RepairReopened], tx: Transaction) -> None:
    """FUP-12: a follow-up sent it back; as with any rework nothing is owed until it is completed."""
    _hear(event, tx, News(event.sequence, event.time, VOID))


@on(work_orders.RepairCancelled)
def void_cancelled_repair(event: Event[work_orders.RepairCancelled], tx: Transaction) -> None:
    """Work that is not done is not paid."""
    _hear(event, tx, News(event.sequence, event.time, VOID))


def _priced(event: Event[Any], tx: Transaction, state: State) -> None:
    said = event.data
    charge = amount(said.charge_total, "charge_total") if said.HasField("charge_total") else Decimal(0)
    if charge:
        unit_id = UUID(said.unit_id) if said.unit_id else None
        _hear(event, tx, News(event.sequence, event.time, state, charge, unit_id, said.reporter, said.number))
    else:  # free: whatever an older event priced is not owed
        _hear(event, tx, News(event.sequence, event.time, VOID))


def _hear(event: Event[Any], tx: Transaction, news: News) -> None:
    tx.estate = directory.estate_by_id(tx, event.estate_id) if event.estate_id else None
    settle(tx, event.aggregate_id, (event.group_id, event.company_id, event.estate_id), news)
