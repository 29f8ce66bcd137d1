"""Follow-ups of repairs (客户回访, FUP rows): three questions, asked by somebody who did not do the work.

A returned order opens one, for the day's early shift. A dissatisfied household sends the order back and is told by when it will
be put right; when the order is returned again the same follow-up asks again, one round further. A spot check that finds the
answers untrue has the household asked anew, too.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.chassis.access import Principal
from services.chassis.calendar import parse_shifts
from services.chassis.clocks import ClockRule
from services.chassis.db import Base, new_id
from services.chassis.errors import Conflict, InvalidInput, Violation
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move, stays
from services.chassis.names import stamp
from services.chassis.policies import Policy, Terms
from services.work_orders import policies
from services.work_orders.repairs import Repair
from steward.work_orders.v1 import events_pb2 as events

UNHAPPY = "NOT_SATISFIED"
VISIT, APP = "VISIT", "APP"
SUPERVISOR = frozenset({"CS_SUPERVISOR"})
SOMEBODY_ELSE = "somebody else asks: not who did the work, nor whose answer a spot check has not confirmed (X-04)"


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

    @classmethod
    def of(cls, repair: Repair) -> Class:
        """Charged inside a unit: a special service (FUP-14). Free inside a unit: a rectification."""
        if repair.unit_id is not None and repair.charges:
            return cls.HOME_REPAIR
        if repair.explained_only:
            return cls.COMMUNICATION
        return cls.PUBLIC_AREA if repair.unit_id is None else cls.RECTIFICATION


def not_the_doer(follow_up: FollowUp, who: Principal) -> bool:
    return who.id not in {str(doer) for doer in follow_up.doer_ids}


def his_or_supervisor(follow_up: FollowUp, who: Principal) -> bool:
    return str(follow_up.assignee_id) == who.id or who.holds(SUPERVISOR)


def satisfied(follow_up: FollowUp) -> bool:
    return follow_up.attempts[-1].grade != UNHAPPY


def dissatisfied(follow_up: FollowUp) -> bool:
    return not satisfied(follow_up)


LIFECYCLE = Lifecycle(State, PENDING, [
    #    action       from                  to            narrows                                rules
    Move("answer",    {PENDING},            CLOSED,       when=satisfied, only=not_the_doer,     rules="FUP-03",
         unless=SOMEBODY_ELSE),
    Move("answer",    {PENDING},            DISSATISFIED, when=dissatisfied, only=not_the_doer,  rules="FUP-12",
         unless=SOMEBODY_ELSE),
    Move("miss",      {PENDING},            PENDING,      only=not_the_doer,                     rules="FUP-27"),
    Move("appoint",   {PENDING},            PENDING,      only=not_the_doer,                     rules="FUP-22"),
    Move("delegate",  {PENDING},            PENDING,      only=his_or_supervisor,                rules="REP-25",
         unless="whom it falls to, or the supervisor, gives it to somebody else"),
    *stays("assign",  {PENDING},            by=SYSTEM,                                           rules="REP-25"),
    *stays("promise", {DISSATISFIED},                                                            rules="FUP-23"),
    Move("give_up",   {PENDING},            UNREACHED,    by=SYSTEM,                             rules="FUP-27"),
    Move("excuse",    {UNREACHED},          EXCUSED,                                             rules="FUP-27"),
    Move("rectify",   {DISSATISFIED},       PENDING,      by=SYSTEM,                             rules="FUP-12"),
    Move("review",    {CLOSED},             REVIEWED,                                            rules="FUP-24"),
    Move("reopen",    {CLOSED, REVIEWED},   PENDING,      by=SYSTEM,                             rules="FUP-10"),
])  # fmt: skip

CLOCKS = [
    ClockRule("follow_up", starts=frozenset({"open", "rectify", "reopen"}), stops=frozenset({"answer", "give_up"}),
              due=lambda f: f.due_at, ladder=("CS_SUPERVISOR", "PROJECT_MANAGER"), rules="REP-25"),
    ClockRule("solution", starts=frozenset(), restarts=frozenset({"promise"}), stops=frozenset({"rectify"}), due=lambda f: f.solution_at,
              ladder=("ENGINEERING_SUPERVISOR", "CS_SUPERVISOR", "PROJECT_MANAGER"), rules="FUP-23"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is to ask, as what, on which day of the estate's calendar, and until when. `staff_id` None: nobody is there."""

    day: date
    due_at: datetime
    role: str
    staff_id: UUID | None


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
    reason: Mapped[str] = mapped_column(default="")
    explanation: Mapped[str] = mapped_column(default="")
    companion_ids: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the household said, and what it was told."""

    method: str
    dealt_with: bool
    grade: str
    opinion: str = ""
    reason: str = ""  # why not, of a household that is not satisfied
    explanation: str = ""
    solution_at: datetime | None = None
    companions: Sequence[UUID] = ()


class FollowUp(Case, Base):
    """The follow-up of one repair order, through all its rounds."""

    __tablename__ = "follow_ups"
    KIND, COLLECTION, PREFIX = "follow_up", "followUps", "HF"
    LIFECYCLE, CLOCKS = LIFECYCLE, CLOCKS

    repair_id: Mapped[UUID]
    repair_number: Mapped[str]
    technician_id: Mapped[UUID | None]  # who had done the work when the order first came back
    doer_ids: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid))  # who may not ask: whoever had a hand in it, or was found untrue
    department: Mapped[str]
    follow_up_class: Mapped[str]
    round: Mapped[int]
    returned_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))  # for the first time: its month is the one it counts in
    due_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    assignee_id: Mapped[UUID | None]
    assigned_role: Mapped[str]
    assigned_for: Mapped[date | None]
    delegated_by: Mapped[str] = mapped_column(default="")
    appointment_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    solution_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    valid: Mapped[bool] = mapped_column(default=False)
    measure: Mapped[str] = mapped_column(default="")

    attempts: Mapped[list[Attempt]] = relationship(Attempt, order_by=Attempt.attempted_at, lazy="selectin")

    @property
    def handler(self) -> str | None:
        return f"staff/{self.assignee_id}" if self.assignee_id else None

    @classmethod
    def of(cls, repair: Repair, act: Act, turn: Turn, doers: Iterable[UUID]) -> FollowUp:
        """FUP-01, FUP-06: for every order that has come back, whoever ordered it."""
        follow_up = cls(
            id=new_id(), group_id=repair.group_id, company_id=repair.company_id, estate_id=repair.estate_id, estate_code=repair.estate_code,
            created_at=act.now, updated_at=act.now, version=0, event_count=0, number=None,
            repair_id=repair.id, repair_number=repair.number or "", technician_id=repair.technician_id, doer_ids=sorted(doers),
            department="ENGINEERING", follow_up_class=Class.of(repair), round=1, returned_at=act.now, due_at=turn.due_at,
            assignee_id=turn.staff_id, assigned_role=turn.role, assigned_for=turn.day, delegated_by="", valid=False, measure="",
        )  # fmt: skip
        follow_up.open(act, "open")
        follow_up._opened(act)
        return follow_up

    def answer(self, act: Act, said: Answer) -> bool:
        """The three answers; of a dissatisfied household why, and by when it will be put right. Returns whether it is satisfied."""
        unhappy = said.grade == UNHAPPY
        if unhappy != bool(said.reason):
            why = "is required when the household is not satisfied" if unhappy else "goes with a household that is not satisfied"
            raise _wrong("reason", why, "FUP-26")
        if said.solution_at is not None and not unhappy:
            raise _wrong("solution_time", "goes with a household that is not satisfied", "FUP-23")
        solution_at = self._solution(act, said.solution_at) if unhappy else None
        self._can_ask(act, said.method)
        attempt = self._attempt(
            act, said.method, reached=True, dealt_with=said.dealt_with, grade=said.grade, opinion=said.opinion, reason=said.reason,
            explanation=said.explanation, companion_ids=list(said.companions),
        )  # fmt: skip
        self.attempts.append(attempt)
        try:
            self.move("answer", act, note=said.opinion, valid=True)
        except Exception:
            self.attempts.remove(attempt)
            raise
        escalated = unhappy and self.round >= act.terms.number(policies.FOLLOWUP_MAX_ROUNDS)
        technician = f"staff/{self.technician_id}" if self.technician_id else ""
        answered = events.FollowUpAnswered(
            grade=said.grade, round=self.round, escalated=escalated, technician=technician, reason=said.reason
        )
        self._happened(answered, act)
        if solution_at is not None:
            self._promise(act, solution_at, said.explanation)
        return not unhappy

    def promise(self, act: Act, at: datetime) -> None:
        """FUP-23: what could not be solved at once gets another time, and the household hears why."""
        self._promise(act, self._solution(act, at), act.reason)

    def appoint(self, act: Act, at: datetime, turn: Turn | None) -> None:
        """FUP-22: the time is fixed with the household. `turn`: of a day after the one on which it is due, whose turn it is then."""
        zone = ZoneInfo(act.terms.zone)
        if at < act.now:
            raise _wrong("appointment_time", "must not lie in the past", "FUP-22")
        days = int(act.terms.number(policies.FOLLOWUP_APPOINTMENT_DAYS))
        if at.astimezone(zone).date() > act.now.astimezone(zone).date() + timedelta(days=days):
            raise _wrong("appointment_time", f"must lie within {days} days", "FUP-22")
        _within_hours(at, act.terms)
        self.LIFECYCLE.legal(self, "appoint", act.principal)
        if turn is not None:
            self._falls_to(turn)
            self._put_off(act, turn.due_at)
        self.move("appoint", act, note=f"{at.astimezone(zone):%Y-%m-%d %H:%M} {act.reason}".rstrip(), appointment_at=at)
        appointed = events.FollowUpAppointed(assignee=self.handler or "", appointment_time=stamp(at))
        self._happened(appointed, act)

    def delegate(self, act: Act, staff_id: UUID, role: str) -> None:
        """REP-25: whoever cannot do it that day gives it to another; the time limit stays."""
        self.LIFECYCLE.legal(self, "delegate", act.principal)
        if staff_id == self.assignee_id or staff_id in self.doer_ids:
            what = [Violation("assignee", "has it already" if staff_id == self.assignee_id else "did the work")]
            raise InvalidInput("it cannot be given to him", reason="ASSIGNEE_NOT_FOUND", rule="REP-25", violations=what)
        previous = self.handler or ""
        self.move(
            "delegate", act, note=f"staff/{staff_id} {act.reason}",
            assignee_id=staff_id, assigned_role=role, delegated_by=str(act.principal),
        )  # fmt: skip
        self._happened(events.FollowUpDelegated(assignee=self.handler or "", previous_assignee=previous), act)

    def assign(self, act: Act, turn: Turn) -> None:
        """REP-25: another day's early shift, or who takes over from somebody who has left. The time limit stays."""
        if turn.staff_id == self.assignee_id:
            self._falls_to(turn)
            return
        previous = self.handler or ""
        self._falls_to(turn)
        self.move("assign", act, note=self.handler or "")
        self._happened(events.FollowUpAssigned(assignee=self.handler or "", previous_assignee=previous), act)

    def miss(self, act: Act, method: str, by_system: Act, next_due: datetime) -> None:
        """FUP-27: nobody was reached; often enough, on enough days, is for the supervisor to confirm."""
        self._can_ask(act, method)
        self.move("miss", act, note=method)
        self.attempts.append(self._attempt(act, method, reached=False))
        if method == VISIT:
            self.appointment_at = None  # it has passed: another visit needs another one
        tried = self._tried(act.terms)
        days = {at.astimezone(ZoneInfo(act.terms.zone)).date() for at in tried}
        terms = act.terms
        self._put_off(act, next_due)  # REP-25: if impossible today, the next day's early shift tries
        if len(tried) >= terms.number(policies.FOLLOWUP_ATTEMPTS) and len(days) >= terms.number(policies.FOLLOWUP_ATTEMPT_DAYS):
            self.move("give_up", by_system)
            self._happened(events.FollowUpMissed(), act)

    def excuse(self, act: Act) -> None:
        """FUP-27: confirmed, and out of the denominator."""
        self.move("excuse", act)
        self._happened(events.FollowUpExcused(), act)

    def rectify(self, act: Act, turn: Turn, doers: Iterable[UUID]) -> None:
        """FUP-12: the order has come back again, so the household is asked again."""
        self.doer_ids = sorted({*self.doer_ids, *doers})
        self._again("rectify", act, turn)

    def reopen(self, act: Act, turn: Turn, asker: Iterable[UUID]) -> None:
        """FUP-10: a spot check found that it was not as recorded; it does not count until somebody else has asked the household anew."""
        self.valid, self.doer_ids = False, sorted({*self.doer_ids, *asker})
        self._again("reopen", act, turn)

    def review(self, act: Act, measure: str, *, nothing_to_improve: bool) -> None:
        """FUP-24; FUP-20: of every opinion that is read it is decided what follows from it."""
        opinions = [attempt.opinion for attempt in self.attempts if attempt.opinion]
        if opinions and not measure.strip() and not nothing_to_improve:
            self.LIFECYCLE.legal(self, "review", act.principal)
            what = [Violation("measure", "must say what is to be improved, or nothing_to_improve be set")]
            raise InvalidInput("the household gave an opinion", reason="MEASURE_MISSING", rule="FUP-20", violations=what)
        self.move("review", act, note=measure or act.reason, measure=measure)
        self._happened(events.FollowUpReviewed(improved=bool(measure)), act)

    # --- what the above share

    def _opened(self, act: Act) -> None:
        opened = events.FollowUpOpened(round=self.round, assignee=self.handler or "", due_time=stamp(self.due_at))
        self._happened(opened, act)

    def _again(self, action: str, act: Act, turn: Turn) -> None:
        """One round further, for whose turn it is."""
        self._falls_to(turn)
        self.move(action, act, round=self.round + 1, due_at=turn.due_at, appointment_at=None)
        self._opened(act)

    def _falls_to(self, turn: Turn) -> None:
        self.assignee_id, self.assigned_role, self.assigned_for, self.delegated_by = turn.staff_id, turn.role, turn.day, ""

    def _put_off(self, act: Act, due_at: datetime) -> None:
        """A later end of its time; what has been missed stays missed."""
        if due_at <= self.due_at:
            return
        self.due_at = due_at
        for clock in self.clocks:
            if clock.name == "follow_up":
                clock.aim(due_at, act)

    def _solution(self, act: Act, at: datetime | None) -> datetime:
        if at is None:
            return act.now + act.terms.duration(policies.FOLLOWUP_SOLUTION)
        days = int(act.terms.number(policies.FOLLOWUP_SOLUTION_DAYS))
        if not act.now < at <= act.now + timedelta(days=days):
            raise _wrong("solution_time", f"must lie in the next {days} days", "FUP-23")
        return at

    def _promise(self, act: Act, at: datetime, explanation: str) -> None:
        self.LIFECYCLE.legal(self, "promise", act.principal)
        self.solution_at = at
        self.move("promise", act, note=f"{at.astimezone(ZoneInfo(act.terms.zone)):%Y-%m-%d %H:%M} {explanation}".rstrip())
        self._happened(events.FollowUpPromised(solution_time=stamp(at)), act)

    def _attempt(self, act: Act, method: str, *, reached: bool, **said: Any) -> Attempt:
        answers = {"dealt_with": False, "grade": "", "opinion": "", "reason": "", "explanation": "", "companion_ids": []} | said
        return Attempt(
            id=new_id(), group_id=self.group_id, company_id=self.company_id, estate_id=self.estate_id, follow_up_id=self.id,
            round=self.round, attempted_at=act.now, actor=str(act.principal), method=method, reached=reached, **answers,
        )  # fmt: skip

    def _tried(self, terms: Terms) -> list[datetime]:
        """When nobody was reached in this round; attempts shortly after another are the same one (FUP-27: at different times)."""
        gap, tried = terms.duration(policies.FOLLOWUP_ATTEMPT_GAP), list[datetime]()
        for at in sorted(a.attempted_at for a in self.attempts if a.round == self.round and not a.reached):
            if not tried or at >= tried[-1] + gap:
                tried.append(at)
        return tried

    def _can_ask(self, act: Act, method: str) -> None:
        if method != APP:
            _within_hours(act.now, act.terms)
        if method == VISIT and self.state == PENDING and self.appointment_at is None:
            raise Conflict("a visit needs an appointment with the household", reason="APPOINTMENT_REQUIRED", rule="FUP-22")

    def _happened(self, event: Any, act: Act) -> None:
        event.follow_up, event.number, event.repair = str(self.id), self.number or "", str(self.repair_id)
        if "repair_number" in event.DESCRIPTOR.fields_by_name:
            event.repair_number = self.repair_number
        self.record(event, act)


def _within_hours(at: datetime, terms: Terms) -> None:
    local, hours = at.astimezone(ZoneInfo(terms.zone)).time(), terms.text(policies.FOLLOWUP_HOURS)
    if not any(opens <= local <= closes for opens, closes in parse_shifts(hours)):
        raise Conflict(f"households are telephoned and visited at {hours}", reason="OUTSIDE_HOURS", rule="FUP-26")


def _wrong(field: str, why: str, rule: str) -> InvalidInput:
    return InvalidInput(f"{field} {why}", rule=rule, violations=[Violation(field, why)])
