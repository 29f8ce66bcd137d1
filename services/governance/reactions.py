"""What governance does when a repair goes on: it learns a fact about the case."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from services.chassis.db import Transaction
from services.chassis.reactions import Event, on
from services.governance.cases import Place, learn, miss
from steward.chassis.v1 import events_pb2 as chassis
from steward.work_orders.v1 import events_pb2 as work_orders


@on(work_orders.RepairReported)
def learn_of_report(event: Event[work_orders.RepairReported], tx: Transaction) -> None:
    learn(tx, event.aggregate_id, place(event), reported_at=event.time, urgent=event.data.urgent)


@on(work_orders.RepairAccepted)
def learn_of_acceptance(event: Event[work_orders.RepairAccepted], tx: Transaction) -> None:
    """REP-29: whether it passed at the first try is the word of work_orders."""
    learn(tx, event.aggregate_id, place(event), accepted=event.sequence, reworks=0 if event.data.first_pass else 1)


@on(work_orders.RepairRejected)
def learn_of_rejection(event: Event[work_orders.RepairRejected], tx: Transaction) -> None:
    learn(tx, event.aggregate_id, place(event), reworks=event.data.rework_count)


@on(work_orders.RepairReopened)
def learn_of_reopening(event: Event[work_orders.RepairReopened], tx: Transaction) -> None:
    """FUP-12: an acceptance before this no longer counts."""
    learn(tx, event.aggregate_id, place(event), reopened=event.sequence)


@on(work_orders.RepairCancelled)
def learn_of_cancellation(event: Event[work_orders.RepairCancelled], tx: Transaction) -> None:
    learn(tx, event.aggregate_id, place(event), cancelled=True)


@on(chassis.ClockBreached, source="work_orders")
def learn_of_breach(event: Event[chassis.ClockBreached], tx: Transaction) -> None:
    """Clocks of other cases than repairs are not part of these figures."""
    clock = event.data.clock
    if clock.aggregate == "repair":
        miss(tx, UUID(clock.aggregate_id), place(event), clock.clock)


def place(event: Event[Any]) -> Place:
    return Place(event.group_id, event.company_id, event.estate_id)
