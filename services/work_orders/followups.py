"""Follow-ups of repairs (客户回访, FUP rows): three questions, asked by somebody who did not do the work.

A returned order opens one. A dissatisfied household sends the order back; when it is returned again the same follow-up asks
again, one round further.
"""

from __future__ import annotations

import enum
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.chassis.access import Principal
from services.chassis.calendar import parse_shifts
from services.chassis.clocks import ClockRule
from services.chassis.db import Base, new_id
from services.chassis.errors import Conflict
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move
from services.chassis.policies import Policy, Terms
from services.work_orders import policies
from services.work_orders.repairs import Repair
from steward.work_orders.v1 import events_pb2 as events


class State(enum.StrEnum):
    PENDING = "PENDING"
    DISSATISFIED = "DISSATISFIED"
    UNREACHED = "UNREACHED"
    EXCUSED = "EXCUSED"
    CLOSED = "CLOSED"
    REVIEWED = "REVIEWED"


PENDING, DISSATISFIED, UNREACHED, EXCUSED, CLOSED, REVIEWED = State


class Class(enum.StrEnum):
    """REP-33, with the share that must be reached (FUP-07, FUP-09)."""

    RECTIFICATION = "RECTIFICATION"
    PUBLIC_AREA = "PUBLIC_AREA"
    COMMUNICATION = "COMMUNICATION"
    HOME_REPAIR = "HOME_REPAIR"

    @property
    def target(self) -> Policy:
        return policies.FOLLOWUP_RATE_SPECIAL if self is Class.HOME_REPAIR else policies.FOLLOWUP_RATE_REPAIR


def not_the_doer(follow_up: FollowUp, who: Principal) -> bool:
    return follow_up.technician_id is None or str(follow_up.technician_id) != who.id


def satisfied(follow_up: FollowUp) -> bool:
    return follow_up.attempts[-1].grade != "NOT_SATISFIED"


def dissatisfied(follow_up: FollowUp) -> bool:
    return not satisfied(follow_up)


LIFECYCLE = Lifecycle(State, PENDING, [
    #    action       from             to            narrows                                rules
    Move("answer",    {PENDING},       CLOSED,       when=satisfied, only=not_the_doer,     rules="FUP-03",
         unless="somebody other than the technician asks (X-04)"),
    Move("answer",    {PENDING},       DISSATISFIED, when=dissatisfied, only=not_the_doer,  rules="FUP-12",
         unless="somebody other than the technician asks (X-04)"),
    Move("miss",      {PENDING},       PENDING,      only=not_the_doer,                     rules="FUP-27"),
    Move("give_up",   {PENDING},       UNREACHED,    by=SYSTEM,                             rules="FUP-27"),
    Move("excuse",    {UNREACHED},     EXCUSED,                                             rules="FUP-27"),
    Move("rectify",   {DISSATISFIED},  PENDING,      by=SYSTEM,                             rules="FUP-12"),
    Move("review",    {CLOSED},        REVIEWED,                                            rules="FUP-24"),
])  # fmt: skip

CLOCKS = [
    ClockRule("follow_up", starts=frozenset({"open", "rectify"}), stops=frozenset({"answer", "give_up"}),
              due=lambda f: f.due_at, ladder=("CS_SUPERVISOR", "PROJECT_MANAGER"), rules="REP-25"),
]  # fmt: skip


class Attempt(Base):
    """One call, visit or message, with the three answers when somebody was reached (FUP-03, FUP-11)."""

    __tablename__ = "follow_up_attempts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    follow_up_id: Mapped[UUID] = mapped_column(sa.ForeignKey("follow_ups.id"))
    round: Mapped[int]
    attempted_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    actor: Mapped[str]
    method: Mapped[str]
    reached: Mapped[bool]
    dealt_with: Mapped[bool] = mapped_column(default=False)
    grade: Mapped[str] = mapped_column(default="")
    opinion: Mapped[str] = mapped_column(default="")


class FollowUp(Case, Base):
    """The follow-up of one repair order, through all its rounds."""

    __tablename__ = "follow_ups"
    KIND, COLLECTION, PREFIX = "follow_up", "followUps", "HF"
    LIFECYCLE, CLOCKS = LIFECYCLE, CLOCKS

    repair_id: Mapped[UUID]
    repair_number: Mapped[str]
    technician_id: Mapped[UUID | None]
    follow_up_class: Mapped[str]
    round: Mapped[int]
    returned_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    due_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))

    attempts: Mapped[list[Attempt]] = relationship(Attempt, order_by=Attempt.attempted_at, lazy="selectin")

    @classmethod
    def of(cls, repair: Repair, act: Act) -> FollowUp:
        """FUP-01, FUP-06: for every order that has come back, whoever ordered it."""
        if repair.unit_id is None:
            kind = Class.PUBLIC_AREA
        else:
            kind = Class.HOME_REPAIR if repair.charges else Class.RECTIFICATION
        follow_up = cls(
            id=new_id(), group_id=repair.group_id, company_id=repair.company_id, estate_id=repair.estate_id, estate_code=repair.estate_code,
            created_at=act.now, updated_at=act.now, version=0, event_count=0, number=None,
            repair_id=repair.id, repair_number=repair.number or "", technician_id=repair.technician_id, follow_up_class=kind, round=1,
            returned_at=act.now, due_at=due(act.now, act.terms),
        )  # fmt: skip
        follow_up.open(act, "open")
        follow_up._happened(events.FollowUpOpened(repair=str(repair.id), round=1), act)
        return follow_up

    def answer(self, act: Act, method: str, *, dealt_with: bool, grade: str, opinion: str) -> bool:
        """The three answers. Returns whether the household is satisfied."""
        self._within_hours(act, method)
        attempt = self._attempt(act, method, reached=True, dealt_with=dealt_with, grade=grade, opinion=opinion)
        self.attempts.append(attempt)
        try:
            self.move("answer", act, note=opinion)
        except Exception:
            self.attempts.remove(attempt)
            raise
        escalated = self.state == DISSATISFIED and self.round >= act.terms.number(policies.FOLLOWUP_MAX_ROUNDS)
        technician = f"staff/{self.technician_id}" if self.technician_id else ""
        answered = events.FollowUpAnswered(
            repair=str(self.repair_id), grade=grade, round=self.round, escalated=escalated, technician=technician
        )
        self._happened(answered, act)
        return self.state == CLOSED

    def miss(self, act: Act, method: str, by_system: Act) -> None:
        """FUP-27: nobody was reached; often enough, on enough days, is for the supervisor to confirm."""
        self._within_hours(act, method)
        self.move("miss", act, note=method)
        self.attempts.append(self._attempt(act, method, reached=False))
        tried = [a for a in self.attempts if a.round == self.round and not a.reached]
        days = {a.attempted_at.astimezone(ZoneInfo(act.terms.zone)).date() for a in tried}
        terms = act.terms
        self.due_at = due(act.now + timedelta(days=1), terms)  # REP-25: if impossible today, somebody else tries tomorrow
        for clock in self.clocks:
            clock.aim(self.due_at, act)
        if len(tried) >= terms.number(policies.FOLLOWUP_ATTEMPTS) and len(days) >= terms.number(policies.FOLLOWUP_ATTEMPT_DAYS):
            self.move("give_up", by_system)
            self._happened(events.FollowUpMissed(repair=str(self.repair_id)), act)

    def excuse(self, act: Act) -> None:
        """FUP-27: confirmed, and out of the denominator."""
        self.move("excuse", act)
        self._happened(events.FollowUpExcused(repair=str(self.repair_id)), act)

    def rectify(self, act: Act) -> None:
        """FUP-12: the order has come back again, so the household is asked again."""
        self.move("rectify", act, round=self.round + 1, returned_at=act.now, due_at=due(act.now, act.terms))
        self._happened(events.FollowUpOpened(repair=str(self.repair_id), round=self.round), act)

    def review(self, act: Act) -> None:
        """FUP-24."""
        self.move("review", act)

    def _attempt(self, act: Act, method: str, *, reached: bool, dealt_with: bool = False, grade: str = "", opinion: str = "") -> Attempt:
        return Attempt(
            id=new_id(), group_id=self.group_id, company_id=self.company_id, estate_id=self.estate_id, follow_up_id=self.id,
            round=self.round, attempted_at=act.now, actor=str(act.principal), method=method, reached=reached, dealt_with=dealt_with,
            grade=grade, opinion=opinion,
        )  # fmt: skip

    def _within_hours(self, act: Act, method: str) -> None:
        local = act.now.astimezone(ZoneInfo(act.terms.zone)).time()
        hours = parse_shifts(act.terms.text(policies.FOLLOWUP_HOURS))
        if method != "APP" and not any(opens <= local <= closes for opens, closes in hours):
            raise Conflict("households are telephoned and visited between 9:00 and 20:00", reason="OUTSIDE_HOURS", rule="FUP-26")

    def _happened(self, event: Any, act: Act) -> None:
        event.follow_up, event.number = str(self.id), self.number or ""
        if "repair_number" in event.DESCRIPTOR.fields_by_name:
            event.repair_number = self.repair_number
        self.record(event, act)


def due(returned: datetime, terms: Terms) -> datetime:
    """REP-25, X-05: the end of the day of return; of the next day when it was returned after 17:00."""
    zone = ZoneInfo(terms.zone)
    local = returned.astimezone(zone)
    late = local.time() > time.fromisoformat(terms.text(policies.FOLLOWUP_CUTOFF))
    return datetime.combine(local.date() + timedelta(days=2 if late else 1), time(), zone)
