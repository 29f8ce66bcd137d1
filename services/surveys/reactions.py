"""What surveys does when customers say what they think."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.chassis.db import Transaction
from services.chassis.reactions import Event, on
from services.surveys.answers import SatisfactionAnswer, keep
from steward.work_orders.v1 import events_pb2 as work_orders


@on(work_orders.RepairAccepted, together=True)
def keep_grades(events: Sequence[Event[work_orders.RepairAccepted]], tx: Transaction) -> None:
    """REP-19: who accepts a repair rates attitude and quality."""
    keep(tx, [answer(event) for event in events])


def answer(event: Event[Any]) -> SatisfactionAnswer:
    said = event.data
    return SatisfactionAnswer(
        id=event.aggregate_id, group_id=event.group_id, company_id=event.company_id, estate_id=event.estate_id,
        sequence=event.sequence, answered_at=event.time, unit_id=UUID(said.unit_id) if said.unit_id else None,
        technician_id=UUID(said.technician.removeprefix("staff/")) if said.technician else None,
        attitude=said.attitude, quality=said.quality,
    )  # fmt: skip
