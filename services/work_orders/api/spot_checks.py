"""The service SpotChecks."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.errors import Conflict
from services.chassis.names import identifier, last, stamp
from services.work_orders import askers, spot_checks
from services.work_orders.api.repairs import clock_messages, one_estate
from services.work_orders.followups import CLOSED, REVIEWED, FollowUp
from services.work_orders.spot_checks import CONFIRMED, DEVIATES, OPEN, Round, SpotCheck, Tier
from steward.work_orders.v1 import spot_checks_pb2 as pb


def list_spot_checks(request: pb.ListSpotChecksRequest, tx: Transaction) -> pb.ListSpotChecksResponse:
    query = sa.select(SpotCheck)
    if request.states:
        query = query.where(SpotCheck.state.in_([pb.SpotCheck.State.Name(state) for state in request.states]))
    if request.tier:
        query = query.where(SpotCheck.tier == pb.SpotCheck.Tier.Name(request.tier))
    if request.month:
        query = query.where(SpotCheck.month == request.month)
    if request.checker:
        query = query.where(SpotCheck.checker_id == identifier(request.checker, "staff", "checker"))
    found, token = tx.page(query, SpotCheck, request)
    return pb.ListSpotChecksResponse(spot_checks=[message(check) for check in found], next_page_token=token)


def get_spot_check(request: pb.GetSpotCheckRequest, tx: Transaction) -> pb.SpotCheck:
    return message(tx.see(SpotCheck, last(request.name)))


def confirm_spot_check(request: pb.ConfirmSpotCheckRequest, tx: Transaction) -> pb.SpotCheck:
    estate, check = one_estate(tx), tx.get(SpotCheck, last(request.name), request.etag)
    spot_checks.take_up(tx, estate, check, tx.terms())
    check.confirm(tx.act(), pb.SpotCheck.Method.Name(request.method), request.finding)
    return message(check)


def deviate_spot_check(request: pb.DeviateSpotCheckRequest, tx: Transaction) -> pb.SpotCheck:
    estate = one_estate(tx)
    seen = tx.see(SpotCheck, last(request.name))
    follow_up = tx.get(FollowUp, seen.follow_up_id) if request.reopen else None  # locked before its check
    check = tx.get(SpotCheck, last(request.name), request.etag)
    spot_checks.take_up(tx, estate, check, tx.terms())
    check.deviate(tx.act(), pb.SpotCheck.Method.Name(request.method), request.finding, request.measure, reopen=request.reopen)
    if follow_up is not None:
        if follow_up.state not in (CLOSED, REVIEWED):
            raise Conflict("the household is being asked again already; record a measure", reason="FOLLOW_UP_OPEN", rule="FUP-10")
        day = askers.due_day(tx, estate, tx.terms(), tx.now)
        asker = _staff(check.asked_by)
        turn = askers.turn(tx, estate, tx.terms(), day, {*follow_up.doer_ids, *asker})
        follow_up.reopen(tx.as_system(), turn, asker)
    return message(check)


def list_spot_check_rounds(request: pb.ListSpotCheckRoundsRequest, tx: Transaction) -> pb.ListSpotCheckRoundsResponse:
    query = sa.select(Round)
    if request.month:
        query = query.where(Round.month == request.month)
    found, token = tx.page(query, Round, request)
    return pb.ListSpotCheckRoundsResponse(spot_check_rounds=[round_message(drawn) for drawn in found], next_page_token=token)


def get_spot_check_round(request: pb.GetSpotCheckRoundRequest, tx: Transaction) -> pb.SpotCheckRound:
    drawn = tx.see(Round, last(request.name))
    reply = round_message(drawn)
    reply.population.extend(str(follow_up) for follow_up in drawn.population)
    return reply


def get_spot_check_rates(request: pb.GetSpotCheckRatesRequest, tx: Transaction) -> pb.SpotCheckRates:
    count = sa.func.count()
    rounds = tx.session.execute(
        sa.select(Round.tier, sa.func.sum(Round.population_size), sa.func.sum(Round.drawn))
        .where(tx.inside(Round), Round.month == request.month)
        .group_by(Round.tier)
    )
    drawn = {tier: (population, chosen) for tier, population, chosen in rounds}
    checks = tx.session.execute(
        sa.select(
            SpotCheck.tier,
            count.filter(SpotCheck.state == CONFIRMED),
            count.filter(SpotCheck.state == DEVIATES),
            count.filter(SpotCheck.state == OPEN),
            count.filter(SpotCheck.state == OPEN, SpotCheck.due_at <= tx.now),
        )
        .where(tx.inside(SpotCheck), SpotCheck.month == request.month)
        .group_by(SpotCheck.tier)
    )
    results = {tier: tuple(counts) for tier, *counts in checks}
    reply = pb.SpotCheckRates(month=request.month)
    for tier in Tier:
        population, chosen = drawn.get(tier, (0, 0))
        confirmed, deviating, still_open, overdue = results.get(tier, (0, 0, 0, 0))
        checked = confirmed + deviating
        reply.lines.add(
            tier=pb.SpotCheck.Tier.Value(tier),
            population=population,
            drawn=chosen,
            confirmed=confirmed,
            deviating=deviating,
            open=still_open,
            overdue=overdue,
            rate=checked / population if population else 0.0,
            deviation=deviating / checked if checked else 0.0,
            met=checked >= chosen,
        )
    return reply


def message(check: SpotCheck) -> pb.SpotCheck:
    """The resource as callers see it."""
    return pb.SpotCheck(
        name=check.subject,
        number=check.number or "",
        state=cast(Any, check.state),
        etag=check.etag,
        tier=cast(Any, check.tier),
        month=check.month,
        round=f"estates/{check.estate_code}/{Round.COLLECTION}/{check.round_id}",
        follow_up=f"estates/{check.estate_code}/{FollowUp.COLLECTION}/{check.follow_up_id}",
        follow_up_number=check.follow_up_number,
        asked_by=check.asked_by,
        ask_time=stamp(check.asked_at),
        checker=check.handler or "",
        role=cast(Any, check.role),
        due_time=stamp(check.due_at),
        method=cast(Any, check.method or None),
        finding=check.finding,
        measure=check.measure,
        reopened=check.reopened,
        checked_by=check.checked_by,
        check_time=stamp(check.checked_at),
        clocks=clock_messages(check),
    )


def round_message(drawn: Round) -> pb.SpotCheckRound:
    """A sample without the follow-ups that it was drawn from."""
    return pb.SpotCheckRound(
        name=drawn.subject,
        tier=cast(Any, drawn.tier),
        month=drawn.month,
        draw_time=stamp(drawn.created_at),
        rate=drawn.rate,
        population_size=drawn.population_size,
        count=drawn.drawn,
        seed=drawn.seed,
    )


def _staff(name: str) -> set[Any]:
    """The id of `staff/<id>`; nobody's for others."""
    return {identifier(name, "staff", "asked_by")} if name.startswith("staff/") else set()
