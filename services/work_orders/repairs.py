"""Repairs (物业报修, REP-01…38): from a report to an order the household has accepted.

The tables below are the process; the class holds what they cannot say. No grpc, no nameko, no clock but the act's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.chassis.access import Principal
from services.chassis.clocks import ClockRule
from services.chassis.db import Base, new_id
from services.chassis.directory import Estate
from services.chassis.errors import Conflict, IllegalMove, InvalidInput, Violation
from services.chassis.lifecycle import SYSTEM, Act, Case, Change, Lifecycle, Move, stays
from services.chassis.names import money, stamp
from services.work_orders import archive, policies
from services.work_orders.archive import MATERIAL, Part, PutIn
from steward.work_orders.v1 import events_pb2 as events

PNG = b"\x89PNG\r\n\x1a\n"
URGENT = frozenset({"BURST_PIPE", "SMOKING_APPLIANCE", "WATER_CUT", "POWER_CUT", "CIRCUIT_HAZARD"})  # REP-06, REP-07
MANAGERS = frozenset({"ENGINEERING_SUPERVISOR", "PROJECT_MANAGER"})
FRONT_LINE = frozenset({"CUSTOMER_ASSISTANT", "CS_SUPERVISOR", "PROJECT_MANAGER"})
REMARK = "remark"  # what the timeline calls a comment that is for staff alone


class State(enum.StrEnum):
    REPORTED = "REPORTED"
    SURVEYED = "SURVEYED"
    DISPATCHED = "DISPATCHED"
    TAKEN = "TAKEN"
    ON_SITE = "ON_SITE"
    DONE = "DONE"
    REWORK = "REWORK"
    ACCEPTED = "ACCEPTED"
    FILED = "FILED"
    CANCELLED = "CANCELLED"


REPORTED, SURVEYED, DISPATCHED, TAKEN, ON_SITE, DONE, REWORK, ACCEPTED, FILED, CANCELLED = State
OPEN = set(State) - {ACCEPTED, FILED, CANCELLED}
BEFORE_DONE = {REPORTED, SURVEYED, DISPATCHED, TAKEN, ON_SITE}
IN_HAND = {DISPATCHED, TAKEN, ON_SITE, REWORK}  # a technician is at it, or has to be
WHILE_PAUSED = frozenset({"resume", "urge", "comment", "cancel", "correct", "merge", "hand_over"})


def in_unit(repair: Repair) -> bool:
    return repair.unit_id is not None


def is_public_area(repair: Repair) -> bool:
    return repair.unit_id is None


def his_own(repair: Repair, who: Principal) -> bool:
    """The technician the order belongs to."""
    return repair.technician_id is not None and str(repair.technician_id) == who.id


def occupant_or_recorder(repair: Repair, who: Principal) -> bool:
    """The household itself, or staff who record the household's word: the order's technician, the front desk."""
    return who.is_resident or his_own(repair, who) or who.holds(frozenset({"CUSTOMER_ASSISTANT"}))


def has_technician(repair: Repair) -> bool:
    return repair.technician_id is not None


def has_no_technician(repair: Repair) -> bool:
    return repair.technician_id is None


def manager(repair: Repair, who: Principal) -> bool:
    return who.holds(MANAGERS)


def reporter_or_desk(repair: Repair, who: Principal) -> bool:
    return who.holds(FRONT_LINE) or (who.is_resident and str(repair.reporter_id) == who.id)


def his_own_or_manager(repair: Repair, who: Principal) -> bool:
    return his_own(repair, who) or manager(repair, who)


def his_own_or_desk(repair: Repair, who: Principal) -> bool:
    return his_own(repair, who) or manager(repair, who) or who.holds(FRONT_LINE)


LIFECYCLE = Lifecycle(State, REPORTED, [
    #    action       from                               to          narrows                              rules
    Move("survey",    {REPORTED},                        SURVEYED,                                        rules="REP-11 REP-12"),
    Move("dispatch",  {REPORTED, SURVEYED, DISPATCHED},  DISPATCHED,                                      rules="REP-13"),
    Move("take",      {REPORTED, SURVEYED},              TAKEN,                                           rules="REP-09"),
    Move("take",      {DISPATCHED},                      TAKEN,      only=his_own,                        rules="REP-09",
         unless="this order was dispatched to another technician"),
    Move("return",    {DISPATCHED, TAKEN},               REPORTED,   only=his_own_or_manager,             rules="REP-09"),
    Move("arrive",    {TAKEN, REWORK},                   ON_SITE,    only=his_own,                        rules="REP-14"),
    Move("charge",    {ON_SITE},                         ON_SITE,    only=his_own,                        rules="REP-05"),
    Move("consent",   {ON_SITE},                         ON_SITE,    only=occupant_or_recorder,           rules="REP-15"),
    Move("complete",  {ON_SITE},                         DONE,       only=his_own,                        rules="REP-18"),
    Move("accept",    {DONE},                            ACCEPTED,   when=in_unit, only=occupant_or_recorder, rules="REP-19",
         unless="a repair in a unit is accepted by its household"),
    Move("accept",    {DONE},                            ACCEPTED,   when=is_public_area, only=manager,   rules="REP-22",
         unless="a repair in a public area is accepted by the responsible manager"),
    Move("reject",    {DONE},                            REWORK,     when=in_unit, only=occupant_or_recorder, rules="REP-21"),
    Move("reject",    {DONE},                            REWORK,     when=is_public_area, only=manager,   rules="REP-22"),
    Move("file",      {ACCEPTED},                        FILED,                                           rules="REP-23"),
    Move("reopen",    {FILED},                           REWORK,     by=SYSTEM,                           rules="FUP-12"),
    Move("transfer",  {TAKEN, ON_SITE, REWORK},          DISPATCHED, only=his_own_or_manager,             rules="REP-13"),
    Move("hand_over", IN_HAND,                           DISPATCHED, when=has_technician, by=SYSTEM,      rules="ORG-06 REP-13"),
    Move("hand_over", IN_HAND,                           REPORTED,   when=has_no_technician, by=SYSTEM,   rules="ORG-06 REP-09"),
    Move("replan",    {ON_SITE},                         ON_SITE,    only=his_own,                        rules="REP-17"),
    *stays("appoint", {REPORTED, SURVEYED, DISPATCHED, TAKEN, REWORK}, only=his_own_or_desk,               rules="REP-14"),
    *stays("urge",    OPEN,                                          rules="REP-10"),
    *stays("comment", set(State),                                    rules="REP-35"),
    *stays("pause",   {SURVEYED, DISPATCHED, TAKEN, ON_SITE, REWORK}, only=his_own_or_manager,            rules="REP-35"),
    *stays("resume",  {SURVEYED, DISPATCHED, TAKEN, ON_SITE, REWORK}, only=his_own_or_manager,            rules="REP-35"),
    *stays("correct", BEFORE_DONE,                                   rules="REP-03 REP-06"),
    Move("cancel",    {REPORTED, SURVEYED, DISPATCHED, TAKEN}, CANCELLED, only=reporter_or_desk,          rules="REP-35"),
    Move("merge",     {REPORTED, SURVEYED, DISPATCHED, TAKEN}, CANCELLED,                                 rules="REP-35"),
])  # fmt: skip

CORRECTABLE = ("unit", "location", "category", "urgent", "contact_phone")

LADDER = ("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER", "MANAGEMENT_DEPT_MANAGER", "GENERAL_MANAGER")


def ordinary(repair: Repair) -> bool:
    return not repair.urgent


CLOCKS = [
    ClockRule("pickup", starts=frozenset({"report"}), stops=frozenset({"take"}), restarts=frozenset({"return", "transfer", "hand_over"}), cancels=frozenset({"cancel", "merge"}),
              target=lambda r: policies.PICKUP_URGENT if r.urgent else policies.PICKUP, working=ordinary, ladder=LADDER, rules="REP-10"),
    ClockRule("on_site", starts=frozenset({"report"}), stops=frozenset({"arrive"}), cancels=frozenset({"cancel", "merge"}),
              target=lambda r: policies.ON_SITE_URGENT if r.urgent else policies.ON_SITE, working=ordinary,
              due=lambda r: None if r.urgent else r.appointment_at, ladder=LADDER, rules="REP-38"),
    ClockRule("resolve", starts=frozenset({"report", "reopen"}), stops=frozenset({"accept"}), cancels=frozenset({"cancel", "merge"}),
              target=lambda r: policies.RESOLVE_URGENT if r.urgent else policies.RESOLVE, working=ordinary, ladder=LADDER, rules="X-34"),
]  # fmt: skip


class Charge(Base):
    """A chargeable item with its explained price (REP-05)."""

    __tablename__ = "repair_charges"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    repair_id: Mapped[UUID] = mapped_column(sa.ForeignKey("repairs.id"))
    item: Mapped[str]
    quantity: Mapped[int]
    unit_price: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    reason: Mapped[str]
    kind: Mapped[str] = mapped_column(default=MATERIAL)
    added_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))

    @property
    def amount(self) -> Decimal:
        return self.unit_price * self.quantity


class Attachment(Base):
    """A file that belongs to a case; today the signature of an acceptance."""

    __tablename__ = "attachments"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    aggregate_id: Mapped[UUID]
    purpose: Mapped[str]
    content_type: Mapped[str]
    content: Mapped[bytes]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))


class Repair(Case, Base):
    """One repair order."""

    __tablename__ = "repairs"
    KIND, COLLECTION, PREFIX = "repair", "repairs", "WX"
    LIFECYCLE, CLOCKS = LIFECYCLE, CLOCKS

    unit_id: Mapped[UUID | None]
    unit: Mapped[str] = mapped_column(default="")
    location: Mapped[str] = mapped_column(default="")
    category: Mapped[str]
    description: Mapped[str]
    channel: Mapped[str]
    urgent: Mapped[bool]
    reporter_id: Mapped[UUID | None]
    reporter_name: Mapped[str] = mapped_column(default="")
    contact_phone: Mapped[str] = mapped_column(default="")
    receiver: Mapped[str]
    reported_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    appointment_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    expected_by: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    repair_plan: Mapped[str] = mapped_column(default="")
    technician_id: Mapped[UUID | None]
    precautions: Mapped[str] = mapped_column(default="")
    arrived_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    accepted_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    work_done: Mapped[str] = mapped_column(default="")
    rework_count: Mapped[int] = mapped_column(default=0)
    consent_method: Mapped[str] = mapped_column(default="")
    consent_by: Mapped[str] = mapped_column(default="")
    consent_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    attitude: Mapped[int | None]
    quality: Mapped[int | None]
    rating_comment: Mapped[str] = mapped_column(default="")
    signed_by: Mapped[str] = mapped_column(default="")
    cancel_reason: Mapped[str] = mapped_column(default="")
    paused: Mapped[bool] = mapped_column(default=False)
    pause_reason: Mapped[str] = mapped_column(default="")
    urge_count: Mapped[int] = mapped_column(default=0)
    urged_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    recurs_id: Mapped[UUID | None]
    duplicate_of_id: Mapped[UUID | None]
    price_explained: Mapped[bool] = mapped_column(default=False)
    explained_only: Mapped[bool] = mapped_column(default=False)
    archive_gap: Mapped[str] = mapped_column(default="")

    charges: Mapped[list[Charge]] = relationship(Charge, order_by=Charge.added_at, lazy="selectin")

    @classmethod
    def owned_by(cls) -> tuple[Any, Any]:
        return cls.reporter_id, cls.unit_id

    @classmethod
    def began_at(cls) -> Any:
        return cls.reported_at

    @classmethod
    def report(
        cls,
        act: Act,
        estate: Estate,
        *,
        category: str,
        description: str,
        channel: str,
        unit_id: UUID | None = None,
        unit: str = "",
        location: str = "",
        urgent: bool = False,
        reporter_id: UUID | None = None,
        reporter_name: str = "",
        contact_phone: str = "",
        appointment_at: datetime | None = None,
        expected_by: datetime | None = None,
        recurs_id: UUID | None = None,
        price_explained: bool = False,
    ) -> Repair:
        """REP-01, REP-03, REP-04, REP-05, REP-06. Raises InvalidInput for a place or a time that cannot be."""
        if unit_id is None and not location.strip():
            raise _wrong("repair.location", "is required for a public area", "REP-03")
        for field, at in (("repair.appointment_time", appointment_at), ("repair.expected_by", expected_by)):
            if at is not None and at < act.now:
                raise _wrong(field, "must not lie in the past", "REP-03")
        repair = cls(
            id=new_id(), group_id=estate.group_id, company_id=estate.company_id, estate_id=estate.id, estate_code=estate.code,
            created_at=act.now, updated_at=act.now, version=0, event_count=0, number=None,
            unit_id=unit_id, unit=unit, location=location, category=category, description=description, channel=channel,
            urgent=urgent or category in URGENT, reporter_id=reporter_id, reporter_name=reporter_name, contact_phone=contact_phone,
            receiver=str(act.principal), reported_at=act.now, appointment_at=appointment_at, expected_by=expected_by, rework_count=0,
            urge_count=0, paused=False, recurs_id=recurs_id, price_explained=price_explained, explained_only=False, archive_gap="",
        )  # fmt: skip
        repair.open(act, "report")
        repair.record(
            events.RepairReported(
                repair=str(repair.id), unit_id=_text(unit_id), category=category, urgent=repair.urgent, reporter=_person(reporter_id),
                receiver=repair.receiver, appointment_time=stamp(appointment_at), recurs=_text(recurs_id),
            ),
            act,
        )  # fmt: skip
        return repair

    @property
    def handler(self) -> str | None:
        return f"staff/{self.technician_id}" if self.technician_id else None

    @property
    def is_urgent(self) -> bool:
        return self.urgent

    @property
    def charge_total(self) -> Decimal:
        return sum((charge.amount for charge in self.charges), Decimal(0))

    def move(self, action: str, act: Act, note: str = "", **changes: Any) -> None:
        """A paused order stands still but for a few actions."""
        if self.paused and action not in WHILE_PAUSED:
            raise IllegalMove(f"{action} is not possible while the order is paused: {self.pause_reason}", reason="PAUSED")
        super().move(action, act, note, **changes)

    def survey(self, act: Act, repair_plan: str) -> None:
        """REP-11, REP-12."""
        self.move("survey", act, note=repair_plan, repair_plan=repair_plan)
        self._happened(events.RepairSurveyed(surveyor=str(act.principal)), act)

    def dispatch(self, act: Act, technician_id: UUID, precautions: str = "", appointment_at: datetime | None = None) -> None:
        """REP-13: repairer, report, appointment and precautions go with the order."""
        if appointment_at is not None and appointment_at < act.now:
            raise _wrong("appointment_time", "must not lie in the past", "REP-13")
        self.move("dispatch", act, note=f"staff/{technician_id}", technician_id=technician_id, precautions=precautions)
        if appointment_at is not None:
            self._appoint(act, appointment_at)
        self._happened(events.RepairDispatched(technician=self.handler or ""), act)

    def appoint(self, act: Act, at: datetime) -> None:
        """REP-14: the visit is booked with the household."""
        if at < act.now:
            raise _wrong("appointment_time", "must not lie in the past", "REP-14")
        self.move("appoint", act, note=f"{at.astimezone(ZoneInfo(act.terms.zone)):%Y-%m-%d %H:%M} {act.reason}".rstrip())
        self._appoint(act, at)
        appointed = events.RepairAppointed(technician=self.handler or "", reporter=_person(self.reporter_id), appointment_time=stamp(at))
        self._happened(appointed, act)

    def take(self, act: Act, technician_id: UUID) -> None:
        """REP-09: the technician signs for the order."""
        self.move("take", act, technician_id=technician_id)
        self._happened(events.RepairTaken(technician=self.handler or "", reporter=_person(self.reporter_id)), act)

    def give_back(self, act: Act) -> None:
        """REP-09, REP-10: open to all again, and its pick-up clock starts anew."""
        technician = self.handler or ""
        self.move("return", act, technician_id=None)
        self._happened(events.RepairReturned(technician=technician, reason=act.reason), act)

    def arrive(self, act: Act) -> None:
        self.move("arrive", act, arrived_at=self.arrived_at or act.now)
        self._happened(events.RepairArrived(technician=self.handler or ""), act)

    def charge(
        self, act: Act, item: str, quantity: int, unit_price: Decimal, reason: str, override_reason: str = "", kind: str = MATERIAL
    ) -> None:
        """REP-05: another price needs another consent. REP-34: what comes back within the guarantee is free, or a reason is recorded."""
        if self.state == ON_SITE and self.recurs_id is not None and len(override_reason.strip()) < 2:
            raise Conflict("this fault came back within the guarantee and is repaired free", reason="WITHIN_GUARANTEE", rule="REP-34")
        note = f"{item} × {quantity}"
        self.move("charge", act, note=f"{note} ({override_reason})" if self.recurs_id is not None else note)
        charge = Charge(
            id=new_id(), group_id=self.group_id, company_id=self.company_id, estate_id=self.estate_id, repair_id=self.id,
            item=item, quantity=quantity, unit_price=unit_price, reason=reason, kind=kind, added_at=act.now,
        )  # fmt: skip
        if self.charge_total + charge.amount > Decimal("99999999.99"):
            raise _wrong("charge.unit_price", "makes the order dearer than any repair", "REP-05")
        self.charges.append(charge)
        self.consent_method, self.consent_by, self.consent_at = "", "", None
        self._happened(events.RepairCharged(item=item, amount=money(charge.amount)), act)

    def consent(self, act: Act, method: str, given_by: str) -> None:
        """REP-15."""
        self.move("consent", act, note=method, consent_method=method, consent_by=given_by, consent_at=act.now)
        self._happened(events.RepairConsented(), act)

    def complete(
        self, act: Act, work_done: str, parts: Sequence[PutIn] = (), before: Sequence[Part] = (), *, explained_only: bool = False
    ) -> list[Part]:
        """REP-18; nothing chargeable and no changed plan is finished without the household's consent (REP-05, REP-15, REP-17), and no
        part is put in that is not recorded and shown (REP-16). Returns the parts to be kept with those of `before`.
        """
        self.LIFECYCLE.legal(self, "complete", act.principal)
        put_in: list[Part] = []
        if not self.paused:
            if (self.charges or (self.repair_plan and self.unit_id)) and self.consent_at is None:
                raise Conflict("the household has not agreed to the plan and its charges yet", reason="CONSENT_MISSING", rule="REP-05")
            if explained_only and parts:
                what = [Violation("parts", "cannot be put in where nothing is repaired")]
                raise InvalidInput(
                    "nothing was repaired, and yet parts were put in", reason="EXPLAINED_ONLY", rule="REP-33", violations=what
                )
            put_in = archive.recorded(self, parts, before, act)
        self.move("complete", act, work_done=work_done, completed_at=act.now, explained_only=explained_only)
        self._happened(
            events.RepairCompleted(
                technician=self.handler or "", reporter=_person(self.reporter_id), unit_id=_text(self.unit_id), charge_total=self._money()
            ),
            act,
        )
        return put_in

    def accept(self, act: Act, attitude: int, quality: int, comment: str, signed_by: str) -> None:
        """REP-19, REP-20, REP-22."""
        self.move(
            "accept", act, note=comment,
            attitude=attitude, quality=quality, rating_comment=comment, signed_by=signed_by, accepted_at=act.now,
        )  # fmt: skip
        self._happened(
            events.RepairAccepted(
                unit_id=_text(self.unit_id), technician=self.handler or "", reporter=_person(self.reporter_id), attitude=attitude,
                quality=quality, first_pass=self.rework_count == 0, charge_total=self._money(), report_time=stamp(self.reported_at),
            ),
            act,
        )  # fmt: skip

    def sign(self, act: Act, png: bytes) -> Attachment:
        """REP-19: the signature under the order. Raises InvalidInput(SIGNATURE_INVALID)."""
        if not png.startswith(PNG):
            what = [Violation("signature", "must be a PNG of at most 64 KiB")]
            raise InvalidInput("the signature is not a PNG", reason="SIGNATURE_INVALID", rule="REP-19", violations=what)
        return Attachment(
            id=new_id(), group_id=self.group_id, company_id=self.company_id, estate_id=self.estate_id, aggregate_id=self.id,
            purpose="signature", content_type="image/png", content=png, created_by=str(act.principal), created_at=act.now,
        )  # fmt: skip

    def reject(self, act: Act) -> None:
        """REP-21: rework until the household is satisfied."""
        self.move("reject", act, rework_count=self.rework_count + 1)
        self._happened(
            events.RepairRejected(technician=self.handler or "", rework_count=self.rework_count, reporter=_person(self.reporter_id)), act
        )

    def file(self, act: Act, parts: Sequence[Part] = (), vouchers: Mapping[str, str] | None = None, missing_reason: str = "") -> None:
        """REP-23, REP-24, REP-28: with all its documents, those of its parts included, or with the reason why one is missing."""
        self.LIFECYCLE.legal(self, "file", act.principal)
        archive.hand_in(parts, vouchers or {})
        gap = archive.gap(self, parts, missing_reason)
        self.move("file", act, note=f"{act.reason} ({gap})".lstrip() if gap else "", archive_gap=gap)
        self._happened(events.RepairFiled(), act)

    def reopen(self, act: Act) -> None:
        """FUP-12: the household told the follow-up that it is not satisfied."""
        self.move("reopen", act, rework_count=self.rework_count + 1)
        self._happened(events.RepairReopened(technician=self.handler or ""), act)

    def transfer(self, act: Act, technician_id: UUID) -> None:
        previous = self.handler or ""
        self.move("transfer", act, technician_id=technician_id)
        self._happened(events.RepairTransferred(technician=self.handler or "", previous_technician=previous), act)

    def hand_over(self, act: Act, successor_id: UUID | None) -> None:
        """The technician has left the company: to his successor, else open to all again. A pause was his to watch, so it ends."""
        previous_id, previous, was_paused = self.technician_id, self.handler or "", self.paused
        self.technician_id = successor_id
        try:
            self.move("hand_over", act, paused=False, pause_reason="")
        except Exception:
            self.technician_id = previous_id
            raise
        if was_paused:
            for clock in self.clocks:
                clock.resume(act)
            self._happened(events.RepairResumed(technician=self.handler or "", reporter=_person(self.reporter_id)), act)
        self._happened(events.RepairHandedOver(technician=self.handler or "", previous_technician=previous), act)
        if self.handler:
            self._happened(events.RepairTransferred(technician=self.handler, previous_technician=previous), act)
        else:
            self._happened(events.RepairReturned(technician=previous, reason=act.reason), act)

    def replan(self, act: Act, repair_plan: str) -> None:
        """REP-17: household and manager are told, and the household consents anew."""
        self.move("replan", act, note=repair_plan, repair_plan=repair_plan, consent_method="", consent_by="", consent_at=None)
        self._happened(events.RepairReplanned(technician=self.handler or "", reporter=_person(self.reporter_id)), act)

    def urge(self, act: Act) -> None:
        """REP-10, 催单."""
        if self.urged_at is not None and act.now < self.urged_at + act.terms.duration(policies.URGE_INTERVAL):
            raise Conflict("this order was urged a moment ago", reason="URGED_ALREADY", rule="REP-10")
        self.move("urge", act, urge_count=self.urge_count + 1, urged_at=act.now)
        self._happened(events.RepairUrged(technician=self.handler or "", urge_count=self.urge_count), act)

    def comment(self, act: Act, internal: bool = False) -> None:
        """REP-35; an internal one is a REMARK of the timeline, which residents do not see."""
        if not internal:
            self.move("comment", act)
            return
        self.LIFECYCLE.legal(self, "comment", act.principal)
        self.note(REMARK, act, from_state=self.state, to_state=self.state)

    def pause(self, act: Act) -> None:
        self.move("pause", act, paused=True, pause_reason=act.reason)
        for clock in self.clocks:
            clock.pause(act)
        self._happened(events.RepairPaused(technician=self.handler or "", reporter=_person(self.reporter_id)), act)

    def resume(self, act: Act) -> None:
        if self.state in OPEN and not self.paused:
            raise IllegalMove("the order is not paused", reason="NOT_PAUSED")
        self.move("resume", act, paused=False, pause_reason="")
        for clock in self.clocks:
            clock.resume(act)
        self._happened(events.RepairResumed(technician=self.handler or "", reporter=_person(self.reporter_id)), act)

    def cancel(self, act: Act) -> None:
        self.move("cancel", act, cancel_reason=act.reason, paused=False)
        self._happened(events.RepairCancelled(technician=self.handler or "", reporter=_person(self.reporter_id)), act)

    def correct(self, act: Act, corrections: dict[str, Any]) -> None:
        """What was taken in wrong is put right: `corrections` is new values by attribute, of `unit_id` with `unit`.

        Raises InvalidInput when they change nothing or leave the order without a place, or an urgent category not urgent.
        """
        self.LIFECYCLE.legal(self, "correct", act.principal)
        category = corrections.get("category", self.category)
        if category in URGENT:
            if corrections.get("urgent") is False:
                raise _wrong("urgent", "cannot be taken from a category that is urgent by itself", "REP-06")
            corrections["urgent"] = True
        new = {name: value for name, value in corrections.items() if getattr(self, name) != value}
        changed = [name for name in CORRECTABLE if name in new]
        if not changed:
            what = [Violation("name", "is as the correction says already")]
            raise InvalidInput("nothing would change", reason="NOTHING_TO_CORRECT", violations=what)
        if new.get("unit_id", self.unit_id) is None and not new.get("location", self.location).strip():
            raise _wrong("location", "is required for a public area", "REP-03")
        says = ", ".join(f"{name}: {_shown(name, getattr(self, name))} → {_shown(name, new[name])}" for name in changed)
        previous = self.unit_id
        if "unit" in new:  # another household has agreed to nothing yet
            new |= {"consent_method": "", "consent_by": "", "consent_at": None}
        self.move("correct", act, note=f"{act.reason} ({says})", **new)
        if "urgent" in new:
            self._rerate(act)
        self._happened(self._corrected(changed, previous), act)

    def merge(self, act: Act, survivor: Repair) -> None:
        """The same matter is in hand as another order, which goes on."""
        self.move("merge", act, note=survivor.number or "", duplicate_of_id=survivor.id, cancel_reason=survivor.number or "", paused=False)
        technician, reporter = self.handler or "", _person(self.reporter_id)
        self._happened(
            events.RepairMerged(
                technician=technician, reporter=reporter, duplicate_of=str(survivor.id), duplicate_of_number=survivor.number or ""
            ),
            act,
        )
        self._happened(events.RepairCancelled(technician=technician, reporter=reporter), act)

    def absorb(self, act: Act, duplicate: Repair, told: list[Change]) -> None:
        """Takes over what people said about its duplicate (`told`: its comments, remarks and urgings), and its urgency."""
        if self.state not in OPEN:
            raise Conflict(f"{self.number} is {self.state} and cannot take over an order", reason="SURVIVOR_CLOSED", rule="REP-35")
        self.urge_count += duplicate.urge_count
        self.urged_at = max((at for at in (self.urged_at, duplicate.urged_at) if at), default=None)
        for line in told:
            kind, _, identifier = line.actor.partition("/")
            said = Act(Principal(kind, identifier), line.at)
            self.note(line.action, said, from_state=self.state, to_state=self.state, note=f"{duplicate.number}: {line.note}")
        self.note("absorb", act, from_state=self.state, to_state=self.state, note=duplicate.number or "")
        if duplicate.urgent and not self.urgent:
            self.urgent = True
            self._rerate(act)
            self._happened(self._corrected(["urgent"], self.unit_id), act)

    def hint(self, act: Act, building_id: UUID | None, count: int, days: int) -> None:
        """REP-30: told upwards, for preventive maintenance."""
        event = events.FaultRecurring(category=self.category, building_id=_text(building_id), count=count, days=days)
        self._happened(event, act)

    def _corrected(self, changed: list[str], previous_unit_id: UUID | None) -> events.RepairCorrected:
        return events.RepairCorrected(
            unit_id=_text(self.unit_id), category=self.category, technician=self.handler or "", reporter=_person(self.reporter_id),
            changed=changed, previous_unit_id=_text(previous_unit_id), recurs=_text(self.recurs_id),
        )  # fmt: skip

    def _rerate(self, act: Act) -> None:
        """Another urgency: running clocks get their other target and calendar; what they have spent, and what came due, stays."""
        rules = {rule.name: rule for rule in self.CLOCKS}
        for clock in self.clocks:
            rule = rules.get(clock.name)
            if rule is None or rule.target is None or clock.stopped_at is not None:
                continue
            running, due = clock.running, rule.due(self)
            clock.pause(act)  # what has passed is counted by the calendar it passed under
            clock.urgent, clock.working = self.urgent, rule.working(self) and due is None
            clock.retarget(rule.target(self) if due is None else clock.spent + max(due - act.now, timedelta(0)), act)
            if running:
                clock.resume(act)

    def _appoint(self, act: Act, at: datetime) -> None:
        self.appointment_at = at
        for clock in self.clocks:
            if clock.name == "on_site" and not self.urgent:
                clock.aim(at, act)

    def _happened(self, event: Any, act: Act) -> None:
        event.repair, event.number = str(self.id), self.number or ""
        if "urgent" in event.DESCRIPTOR.fields_by_name:
            event.urgent = self.urgent
        self.record(event, act)

    def _money(self) -> Any:
        return money(self.charge_total) if self.charges else None


def _wrong(field: str, why: str, rule: str) -> InvalidInput:
    return InvalidInput(f"{field} {why}", rule=rule, violations=[Violation(field, why)])


def _shown(name: str, value: Any) -> str:
    """A corrected value as the timeline shows it: telephones masked, nothing as a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "contact_phone":
        value = f"{value[:3]}****{value[-4:]}" if len(value) > 7 else value and "****"
    return value or "-"


def _text(identifier: UUID | None) -> str:
    return str(identifier) if identifier else ""


def _person(identifier: UUID | None) -> str:
    return f"people/{identifier}" if identifier else ""
