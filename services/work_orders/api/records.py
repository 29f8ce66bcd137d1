"""The service RepairRecords."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import sqlalchemy as sa
from google.type.date_pb2 import Date

from services.chassis.db import Transaction
from services.chassis.names import identifier, last, money, stamp
from services.work_orders import archive, board, paid_repairs
from services.work_orders.board import Concern
from services.work_orders.months import in_month, nodes
from services.work_orders.repairs import FILED, Repair
from steward.work_orders.v1 import records_pb2 as pb


def list_paid_repairs(request: pb.ListPaidRepairsRequest, tx: Transaction) -> pb.ListPaidRepairsResponse:
    technician = identifier(request.technician, "staff", "technician") if request.technician else None
    query = paid_repairs.charged(request.month, request.unit, technician)
    found, token = tx.page(query, Repair, request)
    known = paid_repairs.payments(tx, found)
    size, total = paid_repairs.sums(tx, query)
    lines = [_paid(repair, known.get(repair.id)) for repair in found]
    return pb.ListPaidRepairsResponse(paid_repairs=lines, next_page_token=token, total_size=size, total=money(total))


def get_repair_archive(request: pb.GetRepairArchiveRequest, tx: Transaction) -> pb.RepairArchive:
    repair = tx.see(Repair, last(request.name.removesuffix("/archive")))
    return _archive(repair, archive.parts_of(tx, [repair.id]), archive.signed(tx, [repair.id]))


def list_repair_archives(request: pb.ListRepairArchivesRequest, tx: Transaction) -> pb.ListRepairArchivesResponse:
    query = sa.select(Repair).where(Repair.state == FILED)
    if request.month:
        query = query.join(nodes, nodes.c.id == Repair.estate_id).where(*in_month(request.month, Repair.reported_at))
    if request.incomplete_only:
        query = query.where(Repair.archive_gap != "")
    found, token = tx.page(query, Repair, request)
    orders = [repair.id for repair in found]
    parts, signed = archive.parts_of(tx, orders), archive.signed(tx, orders)
    archives = [_archive(repair, [part for part in parts if part.repair_id == repair.id], signed) for repair in found]
    return pb.ListRepairArchivesResponse(repair_archives=archives, next_page_token=token)


def get_repair_board(request: pb.GetRepairBoardRequest, tx: Transaction) -> pb.RepairBoard:
    pending, overdue, dissatisfied = board.follow_ups(tx)
    reply = pb.RepairBoard(follow_ups_pending=pending, follow_ups_overdue=overdue, dissatisfied=dissatisfied)
    for state, count, urgent in sorted(board.columns(tx), key=lambda column: board.STANDING.index(cast(Any, column[0]))):
        reply.columns.add(state=cast(Any, state), count=count, urgent=urgent)
    for concern, count in board.counts(tx).items():
        reply.concerns.add(concern=cast(Any, concern), count=count)
    return reply


def list_watched_repairs(request: pb.ListWatchedRepairsRequest, tx: Transaction) -> pb.ListWatchedRepairsResponse:
    concerns = [Concern(pb.WatchedRepair.Concern.Name(concern)) for concern in request.concerns]
    found, token = tx.page(board.watched(concerns), Repair, request)
    return pb.ListWatchedRepairsResponse(watched_repairs=[_watched(repair) for repair in found], next_page_token=token)


def _paid(repair: Repair, payment: paid_repairs.Payment | None) -> pb.PaidRepair:
    line = pb.PaidRepair(
        repair=repair.subject,
        number=repair.number or "",
        state=cast(Any, repair.state),
        report_time=stamp(repair.reported_at),
        completion_time=stamp(repair.completed_at),
        unit=repair.unit,
        location=repair.location,
        total=money(repair.charge_total),
        technician=repair.handler or "",
        payment=cast(Any, payment.state if payment else "NOT_BILLED"),
        receivable_number=payment.number if payment else "",
        notice_date=_date(payment.notice_date if payment else None),
        due_date=_date(payment.due_date if payment else None),
    )
    for charge in repair.charges:
        line.charges.add(
            item=charge.item,
            quantity=charge.quantity,
            unit_price=money(charge.unit_price),
            reason=charge.reason,
            kind=cast(Any, charge.kind),
        )
    return line


def _archive(repair: Repair, parts: list[archive.Part], signed: set[UUID]) -> pb.RepairArchive:
    found = archive.documents(repair, parts)
    reply = pb.RepairArchive(
        name=f"{repair.subject}/archive",
        number=repair.number or "",
        state=cast(Any, repair.state),
        complete=archive.complete(found),
        missing_reason=repair.archive_gap,
    )
    for document in found:
        reply.documents.add(
            kind=cast(Any, document.kind),
            present=document.present,
            reference=document.reference,
            document_time=stamp(document.at) if document.present else None,
            part=document.part,
            signed=document.kind == archive.Kind.ACCEPTANCE_FORM and repair.id in signed,
        )
    for part in parts:
        reply.parts.add(
            name=part.name,
            quantity=part.quantity,
            qualified=part.qualified,
            certificate=part.certificate,
            shown_to_owner=part.shown_to_owner,
            bought=part.bought,
            voucher=part.voucher,
        )
    return reply


def _watched(repair: Repair) -> pb.WatchedRepair:
    return pb.WatchedRepair(
        repair=repair.subject,
        number=repair.number or "",
        state=cast(Any, repair.state),
        unit=repair.unit,
        location=repair.location,
        category=cast(Any, repair.category),
        urgent=repair.urgent,
        technician=repair.handler or "",
        report_time=stamp(repair.reported_at),
        concerns=[cast(Any, concern) for concern in board.concerns_of(repair)],
        missed_clocks=board.missed(repair),
    )


def _date(day: Any) -> Date | None:
    return Date(year=day.year, month=day.month, day=day.day) if day else None
