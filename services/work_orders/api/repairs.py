"""The service Repairs: load, call the entity, return it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput, Violation
from services.chassis.lifecycle import Case, history
from services.chassis.names import amount, identifier, instant, last, money, stamp
from services.work_orders import archive, askers, recurrence, rotation
from services.work_orders.archive import LABOUR, MATERIAL, PutIn
from services.work_orders.followups import FollowUp
from services.work_orders.repairs import REMARK, Repair
from steward.work_orders.v1 import repairs_pb2 as pb


def report_repair(request: pb.ReportRepairRequest, tx: Transaction) -> pb.Repair:
    asked, resident = request.repair, tx.principal.is_resident
    unit_id = directory.unit_by_number(tx, one_estate(tx), asked.unit, "repair.unit").id if asked.unit else None
    if resident and unit_id not in tx.scope.units:
        what = [Violation("repair.unit", "is not a unit of yours")]
        raise InvalidInput("residents report for a unit of their own", reason="UNIT_NOT_FOUND", rule="REP-03", violations=what)
    if not resident and not asked.contact_phone:
        what = [Violation("repair.contact_phone", "is required when staff take in a report")]
        raise InvalidInput("a telephone to reach the reporter is missing", rule="REP-03", violations=what)
    channel = asked.channel or (pb.Repair.APP if resident else pb.Repair.FRONT_DESK)
    category = pb.Repair.Category.Name(asked.category)
    repair = Repair.report(
        tx.act(),
        one_estate(tx),
        category=category,
        description=asked.description,
        channel=pb.Repair.Channel.Name(channel),
        unit_id=unit_id,
        unit=asked.unit,
        location=asked.location,
        urgent=asked.urgent,
        reporter_id=UUID(tx.principal.id) if resident else None,
        reporter_name=asked.reporter_name,
        contact_phone=asked.contact_phone,
        appointment_at=instant(asked, "appointment_time"),
        expected_by=instant(asked, "expected_by"),
        recurs_id=recurrence.earlier(tx, one_estate(tx).id, unit_id, asked.location, category, tx.now),
        price_explained=asked.price_explained,
    )
    recurrence.hint(tx, repair)
    repair.number_in(tx, one_estate(tx).zone)
    tx.add(repair)
    tx.prepare()
    return message(repair, tx)


def get_repair(request: pb.GetRepairRequest, tx: Transaction) -> pb.Repair:
    return message(tx.see(Repair, last(request.name)), tx)


def list_repairs(request: pb.ListRepairsRequest, tx: Transaction) -> pb.ListRepairsResponse:
    query = sa.select(Repair)
    if request.states:
        query = query.where(Repair.state.in_([pb.Repair.State.Name(state) for state in request.states]))
    if request.unit:
        query = query.where(Repair.unit == request.unit)
    if request.technician:
        query = query.where(Repair.technician_id == identifier(request.technician, "staff", "technician"))
    if request.urgent_only:
        query = query.where(Repair.urgent)
    found, token = tx.page(query, Repair, request)
    return pb.ListRepairsResponse(repairs=[message(repair, tx) for repair in found], next_page_token=token)


def list_repair_history(request: pb.ListRepairHistoryRequest, tx: Transaction) -> pb.ListRepairHistoryResponse:
    repair = tx.see(Repair, last(request.parent))
    entries = [
        pb.HistoryEntry(
            event_time=stamp(c.at), actor=c.actor, action=c.action, from_state=c.from_state, to_state=c.to_state, note=c.note,
            internal=c.action == REMARK,
        )
        for c in history(tx, repair)
        if c.action != REMARK or not tx.principal.is_resident
    ]  # fmt: skip
    return pb.ListRepairHistoryResponse(entries=entries)


def survey_repair(request: pb.SurveyRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.survey(tx.act(), request.repair_plan)
    return message(repair, tx)


def dispatch_repair(request: pb.DispatchRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.LIFECYCLE.legal(repair, "dispatch", tx.principal)  # nobody loses a turn to an order that cannot be dispatched
    technician = _technician(tx, request.technician) if request.technician else rotation.next_technician(tx, one_estate(tx))
    repair.dispatch(tx.act(), technician, request.precautions, instant(request, "appointment_time"))
    return message(repair, tx)


def appoint_repair(request: pb.AppointRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    at = instant(request, "appointment_time")
    assert at is not None  # by its field rule
    repair.appoint(tx.act(request.note), at)
    return message(repair, tx)


def take_repair(request: pb.TakeRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.take(tx.act(), UUID(tx.principal.id))
    return message(repair, tx)


def return_repair(request: pb.ReturnRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.give_back(tx.act(request.reason))
    return message(repair, tx)


def arrive_repair(request: pb.ArriveRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.arrive(tx.act())
    return message(repair, tx)


def charge_repair(request: pb.ChargeRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    asked = request.charge
    price = amount(asked.unit_price, "charge.unit_price")
    kind = LABOUR if asked.kind == pb.Charge.LABOUR else MATERIAL
    repair.charge(tx.act(), asked.item, asked.quantity, price, asked.reason, request.override_reason, kind)
    return message(repair, tx)


def consent_repair(request: pb.ConsentRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    if tx.principal.is_resident:
        method, given_by = "APP", str(tx.principal)
    elif request.method in (pb.Consent.ON_PAPER, pb.Consent.TELEPHONE) and request.given_by:
        method, given_by = pb.Consent.Method.Name(request.method), request.given_by
    else:
        what = [Violation("method", "must be ON_PAPER or TELEPHONE when staff record a consent, with given_by")]
        raise InvalidInput("say how and by whom the consent was given", rule="REP-15", violations=what)
    repair.consent(tx.act(), method, given_by)
    return message(repair, tx)


def complete_repair(request: pb.CompleteRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    check = request.self_check
    missing = [f for f in ("fault_removed", "function_restored", "site_cleared") if not getattr(check, f)]
    if missing:
        what = [Violation(f"self_check.{field}", "must be true") for field in missing]
        raise InvalidInput("the self-check is not complete", reason="SELF_CHECK_INCOMPLETE", rule="REP-18", violations=what)
    parts = [PutIn(p.name, p.quantity, p.qualified, p.shown_to_owner, p.certificate, p.bought, p.voucher) for p in request.parts]
    before = archive.parts_of(tx, [repair.id]) if repair.charges else []
    for part in repair.complete(tx.act(), request.work_done, parts, before, explained_only=request.explained_only):
        tx.add(part)
    return message(repair, tx)


def accept_repair(request: pb.AcceptRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    rating, recorded = request.rating, not tx.principal.is_resident and repair.unit_id is not None
    signed_by = request.signed_by if recorded else str(tx.principal)
    if recorded and not (request.signature and signed_by):
        what = [Violation("signature", "is required, with signed_by, when staff record an acceptance")]
        raise InvalidInput("the household's signature is missing", reason="SIGNATURE_REQUIRED", rule="REP-20", violations=what)
    repair.accept(tx.act(), rating.attitude, rating.quality, rating.comment, signed_by)
    if request.signature:
        tx.add(repair.sign(tx.act(), request.signature))
    return message(repair, tx)


def reject_repair(request: pb.RejectRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.reject(tx.act(request.reason))
    return message(repair, tx)


def file_repair(request: pb.FileRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.file(tx.act(request.note), archive.parts_of(tx, [repair.id]), _vouchers(request), request.missing_reason)
    estate, doers = one_estate(tx), _doers(tx, repair)
    day = askers.due_day(tx, estate, tx.terms(), tx.now)
    follow_up = tx.session.execute(sa.select(FollowUp).where(FollowUp.repair_id == repair.id, tx.inside(FollowUp))).scalar_one_or_none()
    if follow_up is None:
        turn = askers.turn(tx, estate, tx.terms(), day, doers)
        tx.add(FollowUp.of(repair, tx.act(), turn, doers)).number_in(tx, estate.zone)
    else:
        follow_up = tx.get(FollowUp, follow_up.id)
        follow_up.rectify(tx.as_system(), askers.turn(tx, estate, tx.terms(), day, doers | set(follow_up.doer_ids)), doers)
    return message(repair, tx)


def _vouchers(request: pb.FileRepairRequest) -> dict[str, str]:
    """Number by part. Raises InvalidInput when a part is named twice."""
    vouchers: dict[str, str] = {}
    for place, given in enumerate(request.vouchers):
        if given.part in vouchers:
            what = [Violation(f"vouchers[{place}].part", "has been named before")]
            raise InvalidInput("a part has one voucher", reason="PART_NOT_FOUND", rule="REP-28", violations=what)
        vouchers[given.part] = given.reference
    return vouchers


def _doers(tx: Transaction, repair: Repair) -> set[UUID]:
    """Everybody who has worked on the order, as its timeline says (X-04: none of them asks the household)."""
    worked = {line.actor for line in history(tx, repair) if line.action in ("arrive", "complete")}
    found = {UUID(last(name)) for name in worked if name.startswith("staff/")}
    return found | {repair.technician_id} if repair.technician_id else found


def cancel_repair(request: pb.CancelRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.cancel(tx.act(request.reason))
    return message(repair, tx)


def urge_repair(request: pb.UrgeRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.urge(tx.act(request.note))
    return message(repair, tx)


def comment_repair(request: pb.CommentRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    if request.internal and tx.principal.is_resident:
        what = [Violation("internal", "is for staff")]
        raise InvalidInput("residents write no internal comments", reason="INTERNAL_COMMENT", violations=what)
    repair.comment(tx.act(request.text), request.internal)
    return message(repair, tx)


def pause_repair(request: pb.PauseRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.pause(tx.act(request.reason))
    return message(repair, tx)


def resume_repair(request: pb.ResumeRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.resume(tx.act(request.note))
    return message(repair, tx)


def transfer_repair(request: pb.TransferRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.transfer(tx.act(request.reason), _technician(tx, request.technician))
    return message(repair, tx)


def replan_repair(request: pb.ReplanRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    repair.replan(tx.act(), request.repair_plan)
    return message(repair, tx)


def correct_repair(request: pb.CorrectRepairRequest, tx: Transaction) -> pb.Repair:
    repair = tx.get(Repair, last(request.name), request.etag)
    given = [field for field in ("location", "urgent", "contact_phone") if request.HasField(field)]
    corrections: dict[str, Any] = {field: getattr(request, field) for field in given}
    if request.HasField("category"):
        corrections["category"] = pb.Repair.Category.Name(request.category)
    if request.HasField("unit"):
        corrections |= {
            "unit": request.unit,
            "unit_id": directory.unit_by_number(tx, one_estate(tx), request.unit, "unit").id if request.unit else None,
        }
    if corrections.keys() & {"unit", "location", "category"}:
        place = {name: corrections.get(name, getattr(repair, name)) for name in ("unit_id", "location", "category")}
        corrections["recurs_id"] = recurrence.earlier(tx, repair.estate_id, **place, reported_at=repair.reported_at)
    recurred = repair.recurs_id
    repair.correct(tx.act(request.reason), corrections)
    if repair.recurs_id != recurred:
        recurrence.hint(tx, repair)
    return message(repair, tx)


def merge_repair(request: pb.MergeRepairRequest, tx: Transaction) -> pb.Repair:
    own, other = last(request.name), last(request.duplicate_of)
    if own == other:
        tx.get(Repair, own, request.etag)
        what = [Violation("duplicate_of", "is the order itself")]
        raise InvalidInput("an order is no duplicate of itself", reason="DUPLICATE_OF_ITSELF", violations=what)
    one_estate(tx)
    found = {
        name: tx.get(Repair, name, request.etag if name == own else "") for name in sorted((own, other))
    }  # always locked in this order
    repair, survivor = found[own], found[other]
    repair.merge(tx.act(), survivor)
    survivor.absorb(tx.act(), repair, [line for line in history(tx, repair) if line.action in ("comment", REMARK, "urge")])
    return message(repair, tx)


def message(repair: Repair, tx: Transaction) -> pb.Repair:
    """The resource as the caller sees it; who reported it, and his telephone, is for staff and for himself (ORG-10).

    A household changes: the next tenant of a unit sees its repairs, but not whom to call about the last one's.
    """
    stranger = tx.principal.is_resident and str(repair.reporter_id) != tx.principal.id
    reply = pb.Repair(
        name=repair.subject,
        number=repair.number,
        state=repair.state,
        etag=repair.etag,
        unit=repair.unit,
        location=repair.location,
        category=repair.category,
        description=repair.description,
        channel=repair.channel,
        urgent=repair.urgent,
        contact_phone="" if stranger else repair.contact_phone,
        reporter_name="" if stranger else repair.reporter_name,
        appointment_time=stamp(repair.appointment_at),
        expected_by=stamp(repair.expected_by),
        report_time=stamp(repair.reported_at),
        receiver=repair.receiver,
        technician=repair.handler,
        precautions=repair.precautions,
        arrival_time=stamp(repair.arrived_at),
        completion_time=stamp(repair.completed_at),
        acceptance_time=stamp(repair.accepted_at),
        work_done=repair.work_done,
        rework_count=repair.rework_count,
        cancel_reason=repair.cancel_reason,
        repair_plan=repair.repair_plan,
        signed_by=repair.signed_by,
        paused=repair.paused,
        pause_reason=repair.pause_reason,
        urge_count=repair.urge_count,
        recurs=_name(repair, repair.recurs_id),
        duplicate_of=_name(repair, repair.duplicate_of_id),
        price_explained=repair.price_explained,
        explained_only=repair.explained_only,
    )
    if repair.attitude is not None:
        reply.rating.CopyFrom(pb.Rating(attitude=repair.attitude, quality=repair.quality, comment=repair.rating_comment))
    for charge in repair.charges:
        reply.charges.add(
            item=charge.item, quantity=charge.quantity, unit_price=money(charge.unit_price), reason=charge.reason, kind=charge.kind
        )
    if repair.charges:
        reply.charge_total.CopyFrom(money(repair.charge_total))
    if repair.consent_at is not None:
        reply.consent.CopyFrom(pb.Consent(method=repair.consent_method, given_by=repair.consent_by, give_time=stamp(repair.consent_at)))
    reply.clocks.extend(clock_messages(repair))
    return reply


def clock_messages(case: Case) -> list[pb.Clock]:
    return [
        pb.Clock(
            clock=clock.name,
            start_time=stamp(clock.started_at),
            due_time=stamp(clock.due_at),
            stop_time=stamp(clock.stopped_at),
            breached=clock.breached_at is not None,
            paused=clock.paused,
            target_seconds=clock.target_seconds,
        )
        for clock in case.clocks
    ]


def one_estate(tx: Transaction) -> directory.Estate:
    if tx.estate is None:
        raise InvalidInput("name one estate, not estates/-", reason="ESTATE_REQUIRED")
    return tx.estate


def _technician(tx: Transaction, name: str) -> UUID:
    technician = identifier(name, "staff", "technician")
    if not directory.holds_post(tx, technician, "TECHNICIAN", one_estate(tx)):
        what = [Violation("technician", "is no technician of this estate")]
        raise InvalidInput("there is no such technician here", reason="TECHNICIAN_NOT_FOUND", rule="REP-13", violations=what)
    return technician


def _name(repair: Repair, other: UUID | None) -> str:
    """Another order of the same estate, by its resource name."""
    return f"estates/{repair.estate_code}/{Repair.COLLECTION}/{other}" if other else ""
