"""What governance does when repairs go on: it learns facts about the cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.chassis.db import Transaction
from services.chassis.reactions import Event, on
from services.governance.cases import Facts, Place, learn, miss
from steward.chassis.v1 import events_pb2 as chassis
from steward.work_orders.v1 import events_pb2 as work_orders


@on(work_orders.RepairReported, together=True)
def learn_of_report(events: Sequence[Event[work_orders.RepairReported]], tx: Transaction) -> None:
    learn(tx, [facts(event, reported_at=event.time, urgent=event.data.urgent) for event in events])


@on(work_orders.RepairAccepted, together=True)
def learn_of_acceptance(events: Sequence[Event[work_orders.RepairAccepted]], tx: Transaction) -> None:
    """REP-29: whether it passed at the first try is the word of work_orders."""
    learn(tx, [facts(event, accepted=event.sequence, reworks=0 if event.data.first_pass else 1) for event in events])


@on(work_orders.RepairRejected, together=True)
def learn_of_rejection(events: Sequence[Event[work_orders.RepairRejected]], tx: Transaction) -> None:
    learn(tx, [facts(event, reworks=event.data.rework_count) for event in events])


@on(work_orders.RepairReopened, together=True)
def learn_of_reopening(events: Sequence[Event[work_orders.RepairReopened]], tx: Transaction) -> None:
    """FUP-12: an acceptance before this no longer counts."""
    learn(tx, [facts(event, reopened=event.sequence) for event in events])


@on(work_orders.RepairCancelled, together=True)
def learn_of_cancellation(events: Sequence[Event[work_orders.RepairCancelled]], tx: Transaction) -> None:
    learn(tx, [facts(event, cancelled=True) for event in events])


@on(chassis.ClockBreached, source="work_orders", together=True)
def learn_of_breach(events: Sequence[Event[chassis.ClockBreached]], tx: Transaction) -> None:
    """Clocks of other cases than repairs are not part of these figures."""
    of_repairs = [event for event in events if event.data.clock.aggregate == "repair"]
    miss(tx, [(UUID(event.data.clock.aggregate_id), place(event), event.data.clock.clock) for event in of_repairs])


def facts(event: Event[Any], **known: Any) -> Facts:
    return Facts(event.aggregate_id, place(event), **known)


def place(event: Event[Any]) -> Place:
    return Place(event.group_id, event.company_id, event.estate_id)
