"""One function per RPC of billing_reminders; all of them read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa

from services.billing_reminders.receivables import DIR_NODES, Receivable, State, civil
from services.chassis.db import Transaction
from services.chassis.names import last, money, stamp
from steward.billing_reminders.v1 import receivables_pb2 as pb


def get_receivable(request: pb.GetReceivableRequest, tx: Transaction) -> pb.Receivable:
    return message(tx.see(Receivable, last(request.name)))


def list_receivables(request: pb.ListReceivablesRequest, tx: Transaction) -> pb.ListReceivablesResponse:
    query = sa.select(Receivable)
    if request.states:
        query = query.where(Receivable.state.in_([pb.Receivable.State.Name(state) for state in request.states]))
    if request.unit:
        query = query.where(Receivable.unit_id.in_(_units(request.unit, tx)))
    if request.month:
        query = query.where(Receivable.month == _first_of(request.month))
    found, token = tx.page(query, Receivable, request)
    return pb.ListReceivablesResponse(receivables=[message(receivable) for receivable in found], next_page_token=token)


def get_repair_charge_report(request: pb.GetRepairChargeReportRequest, tx: Transaction) -> pb.RepairChargeReport:
    rows = tx.session.execute(
        sa.select(Receivable.estate_code, Receivable.state, sa.func.count(), sa.func.sum(Receivable.amount))
        .where(tx.inside(Receivable), Receivable.month == _first_of(request.month), Receivable.kind == "REPAIR")
        .group_by(Receivable.estate_code, Receivable.state)
    ).all()
    found: dict[str, dict[str, tuple[int, Decimal]]] = {tx.estate.code: {}} if tx.estate else {}
    for code, state, count, total in rows:
        found.setdefault(code, {})[state] = (count, total)
    estates = [pb.RepairChargeReport.Estate(estate=f"estates/{code}", lines=_lines(found[code])) for code in sorted(found)]
    return pb.RepairChargeReport(month=request.month, estates=estates)


def message(receivable: Receivable) -> pb.Receivable:
    """The resource as callers see it."""
    return pb.Receivable(
        name=receivable.subject,
        number=receivable.number,
        state=receivable.state,
        etag=receivable.etag,
        kind=receivable.kind,
        amount=money(receivable.amount),
        unit=receivable.unit,
        repair=f"estates/{receivable.estate_code}/repairs/{receivable.repair_id}",
        repair_number=receivable.repair_number,
        state_time=stamp(receivable.state_at),
        month=receivable.month.strftime("%Y-%m"),
        notice_date=civil(receivable.notice_on),
        due_date=civil(receivable.due_on),
    )


def _lines(by_state: dict[str, tuple[int, Decimal]]) -> Iterable[pb.RepairChargeReport.Line]:
    for state in State:
        count, total = by_state.get(state, (0, Decimal(0)))
        yield pb.RepairChargeReport.Line(state=state.value, count=count, amount=money(total))


def _units(number: str, tx: Transaction) -> sa.Select[tuple[UUID]]:
    units = sa.select(DIR_NODES.c.id).where(DIR_NODES.c.kind == "UNIT", DIR_NODES.c.code == number)
    return units.where(DIR_NODES.c.estate_id == tx.estate.id) if tx.estate else units


def _first_of(month: str) -> date:
    return date.fromisoformat(f"{month}-01")
