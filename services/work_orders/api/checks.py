"""The service RepairChecks."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis import directory, duties
from services.chassis.db import Transaction
from services.chassis.duties import DutyTask
from services.chassis.errors import InvalidInput, NotFound, Violation
from services.chassis.names import last, stamp
from services.work_orders.api.repairs import clock_messages, one_estate
from services.work_orders.duties import REPAIR_CHECK, Finding, complete_check, findings, read
from services.work_orders.repairs import Repair
from steward.work_orders.v1 import checks_pb2 as pb


def list_repair_checks(request: pb.ListRepairChecksRequest, tx: Transaction) -> pb.ListRepairChecksResponse:
    query = sa.select(DutyTask).where(DutyTask.duty == REPAIR_CHECK)
    if request.states:
        query = query.where(DutyTask.state.in_([pb.RepairCheck.State.Name(state) for state in request.states]))
    found, token = tx.page(query, DutyTask, request)
    return pb.ListRepairChecksResponse(repair_checks=[message(task) for task in found], next_page_token=token)


def get_repair_check(request: pb.GetRepairCheckRequest, tx: Transaction) -> pb.RepairCheck:
    task = _check(tx.see(DutyTask, last(request.name)))
    reply = message(task)
    if task.state != duties.DONE:
        estate = tx.estate or directory.estate_by_id(tx, task.estate_id)
        reply.lines.extend(_line(task, found) for found in findings(tx, task, estate.zone if estate else "UTC"))
    return reply


def complete_repair_check(request: pb.CompleteRepairCheckRequest, tx: Transaction) -> pb.RepairCheck:
    estate = one_estate(tx)
    task = _check(tx.get(DutyTask, last(request.name), request.etag))
    duties.reassign(tx, task)
    found = findings(tx, task, estate.zone)
    complete_check(task, tx.act(), found, _remarks(request, tx, task), request.note)
    return message(task)


def _remarks(request: pb.CompleteRepairCheckRequest, tx: Transaction, task: DutyTask) -> dict[UUID, str]:
    """Remarks by order. An order that was filed while the clerk wrote is no mistake; one that the estate does not have is."""
    remarks: dict[UUID, str] = {}
    wrong = []
    for place, given in enumerate(request.remarks):
        try:
            remarks[UUID(last(given.repair))] = given.reason
        except ValueError:
            wrong.append(place)
    query = sa.select(Repair.id).where(Repair.estate_id == task.estate_id, Repair.id.in_(remarks))
    known = set(tx.session.execute(query).scalars())
    wrong += [place for place, given in enumerate(request.remarks) if place not in wrong and UUID(last(given.repair)) not in known]
    if wrong:
        what = [Violation(f"remarks[{place}].repair", "is no repair of this estate") for place in sorted(wrong)]
        raise InvalidInput("a remark is about no repair of this estate", reason="REPAIR_NOT_FOUND", violations=what)
    return remarks


def _check(task: DutyTask) -> DutyTask:
    if task.duty != REPAIR_CHECK:
        raise NotFound("there is no such check", reason="REPAIR_CHECK_NOT_FOUND")
    return task


def message(task: DutyTask) -> pb.RepairCheck:
    """The resource as callers see it; the lines of one that is not done are found anew by whoever asks for it alone."""
    return pb.RepairCheck(
        name=task.subject,
        number=task.number or "",
        state=task.state,
        etag=task.etag,
        open_time=stamp(task.created_at),
        due_time=stamp(task.due_at),
        role=task.role,
        assignees=[f"staff/{staff}" for staff in task.doers],
        completed_by=task.done_by,
        complete_time=stamp(task.done_at),
        note=task.remark,
        lines=[_line(task, *read(line)) for line in (task.outcome or {}).get("lines", ())],
        clocks=clock_messages(task),
    )


def _line(task: DutyTask, found: Finding, reason: str = "") -> pb.RepairCheckLine:
    return pb.RepairCheckLine(
        repair=f"estates/{task.estate_code}/{Repair.COLLECTION}/{found.repair_id}",
        number=found.number,
        state=found.state,
        problem=found.problem,
        technician=f"staff/{found.technician_id}" if found.technician_id else "",
        urgent=found.urgent,
        reported_today=found.reported_today,
        reason=reason,
    )
