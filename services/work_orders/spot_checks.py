"""The three-tier spot check of follow-ups (回访三级抽查, FUP-15…18).

On the first of a month a sample of the last month's valid follow-ups is drawn at every estate for each tier: the customer service
supervisor, the project manager (or, where the estate says so, the engineering manager), quality management. Nobody chooses: the
order of the draw is that of a hash over a seed made at that moment, so that nobody can know before what will be drawn, and seed
and population are kept, so that anybody can draw again. A check falls to somebody who did not ask the household; where all who
hold the tier's role did, to the role above.
"""

from __future__ import annotations

import enum
import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis import directory
from services.chassis.access import Principal
from services.chassis.clocks import ClockRule
from services.chassis.db import Base, Transaction, new_id
from services.chassis.directory import Estate
from services.chassis.errors import InvalidInput, Violation
from services.chassis.lifecycle import SYSTEM, Act, Aggregate, Case, Lifecycle, Move
from services.chassis.policies import Policy, Terms
from services.work_orders import months, policies
from steward.work_orders.v1 import events_pb2 as events


class Tier(enum.StrEnum):
    """Who checks."""

    SUPERVISOR = "SUPERVISOR"
    MANAGER = "MANAGER"
    QUALITY = "QUALITY"

    @property
    def rate(self) -> Policy:
        return {
            Tier.SUPERVISOR: policies.SPOTCHECK_SUPERVISOR,
            Tier.MANAGER: policies.SPOTCHECK_MANAGER,
            Tier.QUALITY: policies.SPOTCHECK_QUALITY,
        }[self]

    def roles(self, terms: Terms) -> tuple[str, ...]:
        """The tier's role, and who stands in where all who hold it asked themselves or nobody holds it."""
        if self is Tier.SUPERVISOR:
            return ("CS_SUPERVISOR", "CUSTOMER_MANAGER", "PROJECT_MANAGER")
        if self is Tier.MANAGER:
            return (terms.text(policies.SPOTCHECK_SECOND), "MANAGEMENT_DEPT_MANAGER")
        return ("QUALITY_MANAGER", "MANAGEMENT_DEPT_MANAGER")

    @property
    def ladder(self) -> tuple[str, ...]:
        if self is Tier.SUPERVISOR:
            return ("PROJECT_MANAGER", "MANAGEMENT_DEPT_MANAGER")
        return ("MANAGEMENT_DEPT_MANAGER", "GENERAL_MANAGER")


class State(enum.StrEnum):
    OPEN = "OPEN"
    CONFIRMED = "CONFIRMED"
    DEVIATES = "DEVIATES"


OPEN, CONFIRMED, DEVIATES = State


def checks_it(check: SpotCheck, who: Principal) -> bool:
    return str(check.checker_id) == who.id and str(who) != check.asked_by


NOT_HIS = "somebody who holds the tier's role and did not ask the household checks it"

LIFECYCLE = Lifecycle(State, OPEN, [
    Move("confirm", {OPEN}, CONFIRMED, only=checks_it, rules="FUP-15 FUP-16 FUP-17", unless=NOT_HIS),
    Move("deviate", {OPEN}, DEVIATES,  only=checks_it, rules="FUP-15 FUP-16 FUP-17", unless=NOT_HIS),
    Move("assign",  {OPEN}, OPEN,      by=SYSTEM,      rules="ORG-06 FUP-18"),
])  # fmt: skip

CLOCKS = [
    ClockRule("spot_check", starts=frozenset({"open"}), stops=frozenset({"confirm", "deviate"}), due=lambda check: check.due_at,
              rules="FUP-18"),
]  # fmt: skip


class Round(Aggregate, Base):
    """The sample of one month, estate and tier, with everything that is needed to draw it again."""

    __tablename__ = "spot_check_rounds"
    KIND, COLLECTION = "spot_check_round", "spotCheckRounds"

    tier: Mapped[str]
    month: Mapped[str]
    rate: Mapped[float]
    seed: Mapped[str]
    population: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid), deferred=True)  # long: read when it is shown alone
    population_size: Mapped[int]
    drawn: Mapped[int]


class SpotCheck(Case, Base):
    """The check of one follow-up by one tier."""

    __tablename__ = "spot_checks"
    KIND, COLLECTION, PREFIX = "spot_check", "spotChecks", "CC"
    LIFECYCLE, CLOCKS = LIFECYCLE, CLOCKS

    tier: Mapped[str]
    month: Mapped[str]
    round_id: Mapped[UUID] = mapped_column(sa.ForeignKey("spot_check_rounds.id"))
    follow_up_id: Mapped[UUID]
    follow_up_number: Mapped[str]
    asked_by: Mapped[str]
    asked_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    checker_id: Mapped[UUID | None]
    role: Mapped[str]
    due_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    method: Mapped[str] = mapped_column(default="")
    finding: Mapped[str] = mapped_column(default="")
    measure: Mapped[str] = mapped_column(default="")
    reopened: Mapped[bool] = mapped_column(default=False)
    checked_by: Mapped[str] = mapped_column(default="")
    checked_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))

    @property
    def handler(self) -> str | None:
        return f"staff/{self.checker_id}" if self.checker_id else None

    @classmethod
    def begin(cls, act: Act, drawn: Round, asked: Asked, role: str, checker_id: UUID | None, due_at: datetime) -> SpotCheck:
        check = cls(
            id=new_id(), group_id=drawn.group_id, company_id=drawn.company_id, estate_id=drawn.estate_id, estate_code=drawn.estate_code,
            created_at=act.now, updated_at=act.now, version=0, event_count=0, number=None, tier=drawn.tier, month=drawn.month,
            round_id=drawn.id, follow_up_id=asked.follow_up_id, follow_up_number=asked.number, asked_by=asked.by, asked_at=asked.at,
            checker_id=checker_id, role=role, due_at=due_at, method="", finding="", measure="", reopened=False, checked_by="",
        )  # fmt: skip
        check.open(act, "open")
        for clock in check.clocks:  # the ladder is the tier's
            clock.ladder = list(Tier(drawn.tier).ladder)
            clock.mark(act.terms)
        return check

    def confirm(self, act: Act, method: str, finding: str) -> None:
        """It was as recorded."""
        self._decide("confirm", act, method, finding)
        self._happened(events.SpotCheckConfirmed(), act)

    def deviate(self, act: Act, method: str, finding: str, measure: str, *, reopen: bool) -> None:
        """It was not as recorded: what is done about it, or the household is asked anew. Raises InvalidInput(MEASURE_MISSING)."""
        self.LIFECYCLE.legal(self, "deviate", act.principal)
        if not reopen and not measure.strip():
            what = [Violation("measure", "must say what is done about it, unless the household is asked anew (reopen)")]
            raise InvalidInput("a deviation needs a measure", reason="MEASURE_MISSING", rule="FUP-18", violations=what)
        self.measure, self.reopened = measure, reopen
        self._decide("deviate", act, method, finding)
        self._happened(events.SpotCheckDeviated(reopened=reopen, follow_up_number=self.follow_up_number), act)

    def fall_to(self, act: Act, role: str, checker_id: UUID | None) -> None:
        """To somebody else of the tier."""
        self.move("assign", act, note=f"staff/{checker_id}" if checker_id else "", role=role, checker_id=checker_id)

    def _decide(self, action: str, act: Act, method: str, finding: str) -> None:
        self.move(action, act, note=finding, method=method, finding=finding, checked_by=str(act.principal), checked_at=act.now)

    def _happened(self, event: Any, act: Act) -> None:
        event.spot_check, event.number, event.follow_up, event.tier = str(self.id), self.number or "", str(self.follow_up_id), self.tier
        self.record(event, act)


# --- the draw -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid follow-up of the month: the last time in it that the household answered."""

    follow_up_id: UUID
    number: str
    by: str
    at: datetime


def size(population: int, rate: float, least: int) -> int:
    """FUP-18: at least that share, and at least so many, but no more than there are."""
    return min(max(math.ceil(Decimal(str(rate)) * population), least), population)


def sample(population: Iterable[UUID], seed: str, count: int) -> list[UUID]:
    """The first of those ordered by the SHA-256 of seed, slash and id: what anybody can work out again."""
    return sorted(population, key=lambda identifier: hashlib.sha256(f"{seed}/{identifier}".encode()).digest())[:count]


def draw(tx: Transaction, estate: Estate, act: Act, at: datetime) -> None:
    """Draws the samples of the month before `at`. Runs on the first of a month (`duties.DUTIES`); a second time does nothing."""
    month = months.before(at, estate.zone)
    asked = {line.follow_up_id: line for line in answered(tx, estate, month)}
    if not asked:
        return
    done = set(tx.session.execute(sa.select(Round.tier).where(Round.estate_id == estate.id, Round.month == month)).scalars())
    due_at = _due(at, act.terms)
    for tier in Tier:
        if tier in done:
            continue
        rate, seed = act.terms.number(tier.rate), secrets.token_hex(16)
        chosen = sample(asked, seed, size(len(asked), rate, int(act.terms.number(policies.SPOTCHECK_LEAST))))
        drawn = tx.add(
            Round(
                id=new_id(), group_id=estate.group_id, company_id=estate.company_id, estate_id=estate.id, estate_code=estate.code,
                created_at=act.now, updated_at=act.now, version=0, event_count=0, tier=tier, month=month, rate=rate, seed=seed,
                population=sorted(asked), population_size=len(asked), drawn=len(chosen),
            )
        )  # fmt: skip
        drawn.note("draw", act, note=f"{len(chosen)} of {len(asked)}")
        checkers = Checkers(tx, estate, tier, act.terms)
        for identifier in chosen:
            role, checker = checkers.next_for(asked[identifier].by)
            tx.add(SpotCheck.begin(act, drawn, asked[identifier], role, checker, due_at)).number_in(tx, estate.zone)
        opened = events.SpotCheckRoundOpened(
            spot_check_round=str(drawn.id), tier=tier, month=month, number=month, population=len(asked), count=len(chosen),
            assignees=sorted(f"staff/{staff}" for staff in checkers.given), role=tier.roles(act.terms)[0],
        )  # fmt: skip
        drawn.record(opened, act)


def answered(tx: Transaction, estate: Estate, month: str) -> list[Asked]:
    """The valid follow-ups of a month (FUP-10), each with who asked."""
    begins, ends = months.span(month, estate.zone)
    rows = tx.execute(
        "SELECT DISTINCT ON (a.follow_up_id) a.follow_up_id, f.number, a.actor, a.attempted_at FROM follow_up_attempts a"
        " JOIN follow_ups f ON f.id = a.follow_up_id AND f.valid"
        " WHERE a.estate_id = %s AND a.reached AND a.attempted_at >= %s AND a.attempted_at < %s ORDER BY a.follow_up_id, a.attempted_at DESC",
        (estate.id, begins, ends),
    )
    return [Asked(*row) for row in rows]


class Checkers:
    """To whom the checks of a tier fall at an estate: evenly, and never to who asked."""

    def __init__(self, tx: Transaction, estate: Estate, tier: Tier, terms: Terms):
        self._roles = tier.roles(terms)
        self._there: dict[str, Sequence[UUID]] = {role: directory.on_duty(tx, role, estate) for role in self._roles}
        self.given: Counter[UUID] = Counter()

    def next_for(self, asked_by: str) -> tuple[str, UUID | None]:
        """(role, member of staff); of the first role that somebody holds who did not ask. Nobody: the tier's own role, vacant."""
        for role in self._roles:
            if free := [staff for staff in self._there[role] if f"staff/{staff}" != asked_by]:
                chosen = min(free, key=lambda staff: (self.given[staff], str(staff)))
                self.given[chosen] += 1
                return role, chosen
        return self._roles[0], None


def take_up(tx: Transaction, estate: Estate, check: SpotCheck, terms: Terms) -> None:
    """Whoever holds the role now may do the check, also where it fell to a colleague who is away or has left."""
    if check.state != OPEN:
        return
    role, _ = Checkers(tx, estate, Tier(check.tier), terms).next_for(check.asked_by)
    if directory.holds_post(tx, UUID(tx.principal.id), role, estate):
        check.role, check.checker_id = role, UUID(tx.principal.id)


def reassign(tx: Transaction, estate: Estate, act: Act, check: SpotCheck) -> None:
    """Who was to check it has left."""
    check.fall_to(act, *Checkers(tx, estate, Tier(check.tier), act.terms).next_for(check.asked_by))


def _due(at: datetime, terms: Terms) -> datetime:
    """The end of the day of the month by which the checks are to be done."""
    zone = ZoneInfo(terms.zone)
    first = at.astimezone(zone).date().replace(day=1)
    return datetime.combine(first + timedelta(days=int(terms.number(policies.SPOTCHECK_DUE_DAY))), time(), zone)
