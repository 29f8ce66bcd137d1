"""The service FollowUps."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.names import last, stamp
from services.work_orders.api.repairs import clock_messages, one_estate
from services.work_orders.followups import Class, FollowUp, State
from services.work_orders.repairs import Repair
from steward.work_orders.v1 import followups_pb2 as pb


def list_follow_ups(request: pb.ListFollowUpsRequest, tx: Transaction) -> pb.ListFollowUpsResponse:
    query = sa.select(FollowUp)
    if request.states:
        query = query.where(FollowUp.state.in_([pb.FollowUp.State.Name(state) for state in request.states]))
    found, token = tx.page(query, FollowUp, request)
    return pb.ListFollowUpsResponse(follow_ups=[message(follow_up) for follow_up in found], next_page_token=token)


def get_follow_up(request: pb.GetFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    return message(tx.see(FollowUp, last(request.name)))


def answer_follow_up(request: pb.AnswerFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    repair = tx.get(Repair, tx.see(FollowUp, last(request.name)).repair_id)  # the order is locked before its follow-up, as in :file
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    method, grade = pb.FollowUp.Method.Name(request.method), pb.FollowUp.Grade.Name(request.grade)
    if not follow_up.answer(tx.act(), method, dealt_with=request.dealt_with, grade=grade, opinion=request.opinion):
        repair.reopen(tx.as_system())
    return message(follow_up)


def miss_follow_up(request: pb.MissFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    follow_up.miss(tx.act(), pb.FollowUp.Method.Name(request.method), tx.as_system())
    return message(follow_up)


def excuse_follow_up(request: pb.ExcuseFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    follow_up.excuse(tx.act(request.reason))
    return message(follow_up)


def review_follow_up(request: pb.ReviewFollowUpRequest, tx: Transaction) -> pb.FollowUp:
    follow_up = tx.get(FollowUp, last(request.name), request.etag)
    follow_up.review(tx.act(request.note))
    return message(follow_up)


def get_follow_up_rates(request: pb.GetFollowUpRatesRequest, tx: Transaction) -> pb.FollowUpRates:
    zone = ZoneInfo(one_estate(tx).zone)
    year, month = (int(part) for part in request.month.split("-"))
    begins = datetime(year, month, 1, tzinfo=zone)
    ends = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=zone)
    valid = sa.func.count().filter(FollowUp.state.in_([State.CLOSED, State.REVIEWED, State.DISSATISFIED]) | (FollowUp.round > 1))
    excused = sa.func.count().filter((FollowUp.state == State.EXCUSED) & (FollowUp.round == 1))
    rows = tx.session.execute(
        sa.select(FollowUp.follow_up_class, sa.func.count(), valid, excused)
        .where(tx.inside(FollowUp), FollowUp.returned_at >= begins, FollowUp.returned_at < ends)
        .group_by(FollowUp.follow_up_class)
    )
    counts = {kind: numbers for kind, *numbers in rows}
    reply = pb.FollowUpRates(month=request.month)
    for kind in Class:
        orders, reached, out = counts.get(kind, (0, 0, 0))
        rate = reached / (orders - out) if orders > out else 1.0
        target = tx.terms().number(kind.target)
        reply.rates.add(
            **{"class": pb.FollowUp.Class.Value(kind)},
            orders=orders,
            valid=reached,
            excused=out,
            rate=rate,
            target=target,
            met=rate >= target,
        )
    return reply


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
        )
    return reply
