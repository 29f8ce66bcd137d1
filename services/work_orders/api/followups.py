"""The service FollowUps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput, Violation
from services.chassis.names import identifier, instant, last, stamp
from services.work_orders import askers, follow_up_figures
from services.work_orders.api.repairs import clock_messages, one_estate
from services.work_orders.followups import PENDING, Answer, Class, FollowUp
from services.work_orders.repairs import Repair
from steward.work_orders.v1 import followups_pb2 as pb


def list_follow_ups(request: pb.ListFollowUpsRequest, tx: Transaction) -> pb.ListFollowUpsResponse:
    query = sa.select(FollowUp)
    if request.states:
        query = query.where(FollowUp.state.in_([pb.FollowUp.State.Name(state) for state in request.states]))
    if request.assignee:
        query = query.where(FollowUp.assignee_id == identifier(request.assignee, "staff", "assignee"))
    if wanted := getattr(request, "class"):
        query = query.where(FollowUp.follow_up_class == pb.FollowUp.Class.Name(wanted))
    if request.overdue_only:
        query = query.where(FollowUp.state == PENDING, FollowUp.due_at <= tx.now)
    found, token = tx.page(query, FollowUp, request)
    return pb.ListFollowUpsResponse(follow_ups=[message(follow_up) for follow_up in found], next_page_token=token)


def get_follow_up(request: pb.GetFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    return message(tx.see(FollowUp, last(request.name)))


def answer_follow_up(request: pb.AnswerFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    repair = tx.get(Repair, tx.see(FollowUp, last(request.name)).repair_id)  # the order is locked before its follow-up, as in :file
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    said = Answer(
        method=pb.FollowUp.Method.Name(request.method),
        dealt_with=request.dealt_with,
        grade=pb.FollowUp.Grade.Name(request.grade),
        opinion=request.opinion,
        reason=pb.FollowUp.Reason.Name(request.reason) if request.reason else "",
        explanation=request.explanation,
        solution_at=instant(request, "solution_time"),
        companions=_companions(tx, request.companions, follow_up),
    )
    if not follow_up.answer(tx.act(), said):
        repair.reopen(tx.as_system())
    return message(follow_up)


def miss_follow_up(request: pb.MissFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    tomorrow = askers.next_end(tx, one_estate(tx), tx.now)
    follow_up.miss(tx.act(), pb.FollowUp.Method.Name(request.method), tx.as_system(), tomorrow)
    return message(follow_up)


def appoint_follow_up(request: pb.AppointFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up, estate = tx.get(FollowUp, last(request.name), request.etag), one_estate(tx)
    at = cast(datetime, instant(request, "appointment_time"))
    day = at.astimezone(ZoneInfo(estate.zone)).date()
    later = askers.end_of(day, estate) > follow_up.due_at
    follow_up.appoint(tx.act(request.note), at, askers.turn(tx, estate, tx.terms(), day, follow_up.doer_ids) if later else None)
    return message(follow_up)


def delegate_follow_up(request: pb.DelegateFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    staff_id = identifier(request.assignee, "staff", "assignee")
    role = askers.held_role(tx, one_estate(tx), staff_id)
    if not role:
        what = [Violation("assignee", "is not of the front line of this estate")]
        raise InvalidInput("there is no such colleague here", reason="ASSIGNEE_NOT_FOUND", rule="REP-25", violations=what)
    follow_up.delegate(tx.act(request.reason), staff_id, role)
    return message(follow_up)


def promise_follow_up(request: pb.PromiseFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    follow_up.promise(tx.act(request.explanation), cast(datetime, instant(request, "solution_time")))
    return message(follow_up)


def excuse_follow_up(request: pb.ExcuseFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    follow_up.excuse(tx.act(request.reason))
    return message(follow_up)


def review_follow_up(request: pb.ReviewFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    follow_up.review(tx.act(request.note), request.measure.strip(), nothing_to_improve=request.nothing_to_improve)
    return message(follow_up)


def list_planned_follow_ups(request: pb.ListPlannedFollowUpsRequest, tx: Transaction) -> pb.ListPlannedFollowUpsResponse:
    assignee = identifier(request.assignee, "staff", "assignee") if request.assignee else None
    lines, token = follow_up_figures.plan(tx, request, assignee)
    planned = [
        pb.PlannedFollowUp(follow_up=message(line.follow_up), category=cast(Any, line.category), frequency=line.frequency) for line in lines
    ]
    return pb.ListPlannedFollowUpsResponse(planned_follow_ups=planned, next_page_token=token)


def get_follow_up_rates(request: pb.GetFollowUpRatesRequest, tx: Transaction) -> pb.FollowUpRates:
    one_estate(tx)
    counts = {line.key: line for line in follow_up_figures.of_month(tx, request.month, FollowUp.follow_up_class)}
    reply = pb.FollowUpRates(month=request.month)
    for kind in Class:
        line = counts.get(kind, follow_up_figures.NONE)
        target = tx.terms().number(kind.target)
        reply.rates.add(
            **{"class": pb.FollowUp.Class.Value(kind)},
            orders=line.orders,
            valid=line.valid,
            excused=line.excused,
            rate=line.rate,
            target=target,
            met=line.rate >= target,
        )
    return reply


def get_follow_up_table(request: pb.GetFollowUpTableRequest, tx: Transaction) -> pb.FollowUpTable:
    month = request.month
    reply = pb.FollowUpTable(month=month)
    by_class = follow_up_figures.of_month(tx, month, FollowUp.follow_up_class)
    reply.total.CopyFrom(_line(follow_up_figures.total(by_class)))
    for line in sorted(by_class, key=lambda line: list(Class).index(Class(line.key))):
        reply.by_class.append(_line(line, **{"class": pb.FollowUp.Class.Value(line.key)}))
    for line in follow_up_figures.of_month(tx, month, FollowUp.department):
        reply.by_department.append(_line(line, department=pb.FollowUp.Department.Value(line.key)))
    for line in sorted(follow_up_figures.of_month(tx, month, FollowUp.technician_id), key=lambda line: (-line.orders, str(line.key))):
        reply.by_technician.append(_line(line, technician=f"staff/{line.key}" if line.key else ""))
    reasons = follow_up_figures.reasons(tx, month)
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        reply.reasons.add(reason=cast(Any, reason), count=count, share=count / reasons.total())
    return reply


def _line(line: follow_up_figures.Line, **of: Any) -> pb.FollowUpTable.Line:
    return pb.FollowUpTable.Line(
        orders=line.orders,
        valid=line.valid,
        excused=line.excused,
        rate=line.rate,
        dissatisfied=line.dissatisfied,
        satisfaction=line.satisfaction,
        **of,
    )


def _companions(tx: Transaction, names: Iterable[str], follow_up: FollowUp) -> list[UUID]:
    """FUP-25: staff with a post at the estate or above it, who did not do the work."""
    estate, found, wrong = one_estate(tx), [], []
    for place, name in enumerate(names):
        staff_id = identifier(name, "staff", f"companions[{place}]")
        here = {node for _, node in directory.held(tx, staff_id)} & {estate.id, estate.company_id, estate.group_id}
        if not here or staff_id in follow_up.doer_ids or str(staff_id) == tx.principal.id:
            wrong.append(Violation(f"companions[{place}]", "is not of this estate's staff, did the work, or is the caller"))
        found.append(staff_id)
    if wrong:
        raise InvalidInput("a companion cannot be one", reason="COMPANION_NOT_FOUND", rule="FUP-25", violations=wrong)
    return found


def message(follow_up: FollowUp) -> pb.FollowUp:
    """The resource as callers see it."""
    reply = pb.FollowUp(
        name=follow_up.subject,
        number=follow_up.number,
        state=follow_up.state,
        etag=follow_up.etag,
        repair=f"estates/{follow_up.estate_code}/repairs/{follow_up.repair_id}",
        repair_number=follow_up.repair_number,
        round=follow_up.round,
        due_time=stamp(follow_up.due_at),
        clocks=clock_messages(follow_up),
        assignee=follow_up.handler,
        assigned_role=cast(Any, follow_up.assigned_role or None),
        delegated_by=follow_up.delegated_by,
        appointment_time=stamp(follow_up.appointment_at),
        solution_time=stamp(follow_up.solution_at),
        valid=follow_up.valid,
        measure=follow_up.measure,
        department=cast(Any, follow_up.department),
        technician=f"staff/{follow_up.technician_id}" if follow_up.technician_id else "",
        **cast(Any, {"class": follow_up.follow_up_class}),
    )
    for attempt in follow_up.attempts:
        reply.attempts.add(
            attempt_time=stamp(attempt.attempted_at),
            actor=attempt.actor,
            method=pb.FollowUp.Method.Value(attempt.method),
            reached=attempt.reached,
            dealt_with=attempt.dealt_with,
            grade=pb.FollowUp.Grade.Value(attempt.grade) if attempt.grade else pb.FollowUp.GRADE_UNSPECIFIED,
            opinion=attempt.opinion,
            round=attempt.round,
            reason=pb.FollowUp.Reason.Value(attempt.reason) if attempt.reason else pb.FollowUp.REASON_UNSPECIFIED,
            explanation=attempt.explanation,
            companions=[f"staff/{companion}" for companion in attempt.companion_ids],
        )
    return reply
