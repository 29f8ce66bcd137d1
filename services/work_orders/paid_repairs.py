"""The paid service repair record (有偿服务维修记录表, REP-02): orders with charges, and what billing says of them (REP-37)."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction
from services.chassis.reactions import Event
from services.work_orders.months import in_month, nodes
from services.work_orders.repairs import Charge, Repair


class State(enum.StrEnum):
    """Of a receivable."""

    PROVISIONAL = "PROVISIONAL"
    DUE = "DUE"
    VOID = "VOID"


class Payment(Base):
    """What billing said last of the charges of a repair."""

    __tablename__ = "repair_payments"

    repair_id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    sequence: Mapped[int]
    state: Mapped[str]
    number: Mapped[str]
    notice_date: Mapped[date | None]
    due_date: Mapped[date | None]


def hear(tx: Transaction, event: Event[Any], state: State) -> None:
    """Each event of a receivable says all there is to say; the newest holds, whatever arrives when."""
    said = event.data
    dates = [_day(said, name) for name in ("notice_date", "due_date")]
    tx.execute(
        "INSERT INTO repair_payments (repair_id, group_id, company_id, estate_id, sequence, state, number, notice_date, due_date)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (repair_id) DO UPDATE SET sequence = EXCLUDED.sequence,"
        " state = EXCLUDED.state, number = EXCLUDED.number, notice_date = EXCLUDED.notice_date, due_date = EXCLUDED.due_date"
        " WHERE repair_payments.sequence < EXCLUDED.sequence",
        (UUID(said.repair), event.group_id, event.company_id, event.estate_id, event.sequence, state, said.number, *dates),
    )


def charged(month: str = "", unit: str = "", technician: UUID | None = None) -> sa.Select[Any]:
    """The orders of the record; `month` is that of the report."""
    has_charges = (
        sa.select(sa.literal(1)).where(Charge.repair_id == Repair.id, Charge.estate_id == Repair.estate_id).correlate(Repair).exists()
    )
    query = sa.select(Repair).where(has_charges)
    if month:
        query = query.join(nodes, nodes.c.id == Repair.estate_id).where(*in_month(month, Repair.reported_at))
    if unit:
        query = query.where(Repair.unit == unit)
    return query if technician is None else query.where(Repair.technician_id == technician)


def sums(tx: Transaction, query: sa.Select[Any]) -> tuple[int, Decimal]:
    """How many orders the whole record has, and what they come to."""
    orders = query.where(tx.inside(Repair)).with_only_columns(Repair.id).subquery()
    total = sa.select(sa.func.count(sa.distinct(orders.c.id)), sa.func.coalesce(sa.func.sum(Charge.quantity * Charge.unit_price), 0))
    row = tx.session.execute(total.select_from(orders).join(Charge, Charge.repair_id == orders.c.id)).one()
    return int(row[0]), Decimal(row[1]).quantize(Decimal("0.01"))


def payments(tx: Transaction, repairs: Iterable[Repair]) -> dict[UUID, Payment]:
    found = sa.select(Payment).where(Payment.repair_id.in_([repair.id for repair in repairs]), tx.inside(Payment))
    return {payment.repair_id: payment for payment in tx.session.execute(found).scalars()}


def _day(said: Any, name: str) -> date | None:
    if name not in said.DESCRIPTOR.fields_by_name or not said.HasField(name):
        return None
    value = getattr(said, name)
    return date(value.year, value.month, value.day)
