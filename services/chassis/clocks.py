"""Clocks: time limits of a case, that start, pause, stop and are missed.

A rule (`ClockRule`) stands in the process's table beside its lifecycle; a running clock (`Clock`) is a row. All instants at
which it must act — warning, breach, further rungs of the ladder — are worked out when it starts, pauses or resumes and kept
in `marks`, so that the sweep is one statement that needs no calendar and never touches the case. After downtime the sweep
catches up mark by mark, each once, with the instant it was due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis import calendar, observe
from services.chassis.db import Base, new_id
from services.chassis.policies import HOLIDAYS, HOURS, REGISTRY, Policy, Terms
from services.chassis.reactions import every

if TYPE_CHECKING:
    from services.chassis.db import Database
    from services.chassis.lifecycle import Act, Case

RUNG_STEP = Policy(
    "escalation.step", "seconds", 900, "X-34", least=1, most=86_400, says="from one rung of the ladder to the next", everywhere=True
)  # fmt: skip
WARN = Policy(
    "escalation.warn", "ratio", 0.8, "X-34", least=0.1, most=1.0, says="share of a time limit at which the handler is reminded", everywhere=True
)  # fmt: skip
SWEEP_BATCH = 500


@dataclass(frozen=True, slots=True)
class ClockRule:
    """One line of a process's CLOCKS table.

    `target` gives the policy for a case; `working` says whether it counts the estate's working hours only (else 24×7).
    `due` overrides both with a fixed instant, for appointments and ends of days; one of the two is given. `ladder` names the
    roles told at the breach and after each further step.
    """

    name: str
    starts: frozenset[str]
    stops: frozenset[str]
    rules: str
    target: Callable[[Any], Policy] | None = None
    working: Callable[[Any], bool] = lambda case: False
    due: Callable[[Any], datetime | None] = lambda case: None
    restarts: frozenset[str] = frozenset()
    cancels: frozenset[str] = frozenset()
    ladder: tuple[str, ...] = ()


class Clock(Base):
    """A clock that runs, or ran, for a case. `spent` never changes by a change of policy, a breach is never withdrawn."""

    __tablename__ = "clocks"
    SHOWN = ("name", "started_at", "due_at", "stopped_at", "breached_at", "paused", "target_seconds")  # with the case it belongs to

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    aggregate: Mapped[str]
    aggregate_id: Mapped[UUID]
    subject: Mapped[str]
    name: Mapped[str]
    number: Mapped[str | None]
    handler: Mapped[str | None]
    urgent: Mapped[bool]
    target: Mapped[timedelta]
    policy: Mapped[str | None]  # key of the policy that gave the target; None: a limit of the case's own, such as an appointment
    working: Mapped[bool]
    hours: Mapped[str | None]  # the working calendar its marks were reckoned by; None around the clock
    warn: Mapped[float]
    ladder: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    started_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    spent: Mapped[timedelta] = mapped_column(default=timedelta(0))
    running_since: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    marks: Mapped[list[datetime]] = mapped_column(ARRAY(sa.DateTime(timezone=True)))
    level: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    breached_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    stopped_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    cancelled: Mapped[bool] = mapped_column(default=False)

    @property
    def running(self) -> bool:
        return self.stopped_at is None and self.running_since is not None

    @hybrid_property
    def paused(self) -> bool:
        return self.stopped_at is None and self.running_since is None

    @paused.inplace.expression
    @classmethod
    def _paused(cls) -> sa.ColumnElement[bool]:
        return sa.and_(cls.stopped_at.is_(None), cls.running_since.is_(None))

    @hybrid_property
    def due_at(self) -> datetime | None:
        """When it is breached if nothing happens; the instant it was due once stopped; None while paused."""
        return self.marks[1] if len(self.marks) > 1 and not self.paused else None

    @due_at.inplace.expression
    @classmethod
    def _due_at(cls) -> sa.ColumnElement[datetime | None]:
        return sa.case((cls.paused, None), else_=cls.marks[sa.literal_column("2")])  # not a value: one less for every statement

    @hybrid_property
    def target_seconds(self) -> int:
        return int(self.target.total_seconds())

    @target_seconds.inplace.expression
    @classmethod
    def _target_seconds(cls) -> sa.ColumnElement[int]:
        return sa.func.trunc(sa.extract("epoch", cls.target), type_=sa.BigInteger)

    def pause(self, act: Act) -> None:
        if self.running:
            assert self.running_since is not None
            self.spent += calendar.between(self._counting(act.terms), self.running_since, act.now)
            self.marks = [mark for mark in self.marks if mark <= act.now]  # what came due stays due, swept or not
            self.running_since, self.next_at = None, self._owed(act.now)

    def resume(self, act: Act) -> None:
        if self.paused:
            passed, self.running_since = self.marks, act.now
            self.mark(act.terms)
            self.marks = [*passed, *self.marks[len(passed) :]]
            self.next_at = self.marks[self.level] if self.level < len(self.marks) else None

    def stop(self, act: Act, *, cancelled: bool = False) -> None:
        """The limit was kept, or the case no longer needs it. A breach that the sweep has not seen yet is still one, and is still told."""
        if self.stopped_at is not None:
            return
        due = self.due_at
        if self.breached_at is None and due is not None and act.now > due:
            self.breached_at = due
        if self.running_since is not None:
            self.spent += calendar.between(self._counting(act.terms), self.running_since, act.now)
        self.stopped_at, self.running_since, self.next_at, self.cancelled = act.now, None, self._owed(act.now), cancelled

    def retarget(self, target: timedelta | Policy, act: Act) -> None:
        """Another target (severity, appointment): what remains changes, `spent` stays. Of a policy it follows the changes from now on."""
        self.policy = target.key if isinstance(target, Policy) else None
        self.target = act.terms.duration(target) if isinstance(target, Policy) else target
        if self.running:
            assert self.running_since is not None
            self.mark(act.terms)

    def aim(self, due: datetime, act: Act) -> None:
        """A fixed instant from now on: another appointment, the end of another day."""
        if self.running:
            assert self.running_since is not None
            self.working = False
            self.retarget(self.spent + (due - self.running_since), act)

    def mark(self, terms: Terms, not_before: datetime | None = None) -> None:
        """Works out every instant at which the clock must act, from what has been spent already."""
        assert self.running_since is not None
        days, step = terms.calendar if self.working else None, terms.duration(RUNG_STEP)
        self.hours = _written(terms) if self.working else None

        def at(amount: timedelta) -> datetime:
            assert self.running_since is not None
            instant = calendar.add(days, self.running_since, max(amount - self.spent, timedelta(0)))
            return instant if not_before is None else max(instant, not_before)

        breach = at(self.target)
        self.marks = [at(self.target * self.warn), breach, *(breach + step * rung for rung in range(1, len(self.ladder)))]
        self.next_at = self.marks[self.level] if self.level < len(self.marks) else None

    def reckon_anew(self, terms: Terms, changed: str, at: datetime) -> bool:
        """After a change of the policy `changed` at the instant `at`: what remains follows. Returns whether any limit or mark moved.

        What has been spent by then stays, counted by the calendar it was spent under. Marks that have fired or come due stay,
        nothing new is due before `at`: a limit that has been shortened is missed at the change, not in the past. A breached
        clock keeps its target and its breach; the rest of its ladder follows a new step alone. Doing it twice changes nothing.
        """
        if self.stopped_at is not None:
            return False
        target, marks = self.target, self.marks
        passed = marks[: max(self.level, sum(mark <= at for mark in marks))]
        if len(passed) < 2:
            if (policy := REGISTRY.get(self.policy or "")) is not None:
                self.target = terms.duration(policy)
            self.warn = terms.number(WARN)
            if self.running_since is not None:
                if self.working and self.hours != _written(terms) and self.running_since < at:
                    self.spent += calendar.between(self._counting(terms), self.running_since, at)
                    self.running_since = at
                self.mark(terms, not_before=at)
                self.marks = [*passed, *self.marks[len(passed) :]]
        elif changed == RUNG_STEP.key and self.running_since is not None:
            self.marks, last = list(passed), max(passed[-1], self.running_since)
            while len(self.marks) < len(marks):
                last = max(last + terms.duration(RUNG_STEP), at)
                self.marks.append(last)
        if self.running_since is not None:
            self.next_at = self.marks[self.level] if self.level < len(self.marks) else None
        return (self.target, self.marks) != (target, marks)

    def _owed(self, now: datetime) -> datetime | None:
        """The next mark, if it came due before `now` and the sweep has not fired it yet."""
        return self.marks[self.level] if self.level < len(self.marks) and self.marks[self.level] <= now else None

    def _counting(self, terms: Terms) -> calendar.Calendar | None:
        """The calendar that running time has been counted by since it began."""
        if not self.working:
            return None
        return _read(self.hours) if self.hours else terms.calendar


def _written(terms: Terms) -> str:
    """A calendar as a clock remembers it: `Asia/Shanghai CN 08:30-12:00 14:00-17:30`."""
    return f"{terms.zone} {terms.text(HOLIDAYS)} {terms.text(HOURS)}"


@lru_cache(maxsize=1024)
def _read(hours: str) -> calendar.Calendar:
    zone, holidays, shifts = hours.split(" ", 2)
    return calendar.Calendar(zone, calendar.parse_shifts(shifts), holidays)


def tick(case: Case, rules: Sequence[ClockRule], action: str, act: Act) -> None:
    """Starts and stops the clocks of a case as its table says for `action`."""
    for rule in rules:
        running = next((clock for clock in case.clocks if clock.name == rule.name and clock.stopped_at is None), None)
        if running and action in rule.stops | rule.restarts:
            running.stop(act)
            case.count(observe.CLOCKS_STOPPED, case.KIND, rule.name, "breached" if running.breached_at else "met")
        if running and action in rule.cancels:
            running.stop(act, cancelled=True)
            case.count(observe.CLOCKS_STOPPED, case.KIND, rule.name, "cancelled")
        if action in rule.starts or action in rule.restarts:
            case.clocks.append(_started(case, rule, act))
            case.count(observe.CLOCKS_STARTED, case.KIND, rule.name)
    for clock in case.clocks:
        if clock.stopped_at is None:
            clock.handler = case.handler


def _started(case: Case, rule: ClockRule, act: Act) -> Clock:
    working, due, policy = rule.working(case), rule.due(case), None
    if due is not None:
        working, target = False, max(due - act.now, timedelta(0))
    elif rule.target is not None:
        policy = rule.target(case)
        target = act.terms.duration(policy)
    else:
        raise ValueError(f"the clock {rule.name} has neither a target nor a due instant")
    clock = Clock(
        id=new_id(), group_id=case.group_id, company_id=case.company_id, estate_id=case.estate_id,
        aggregate=case.KIND, aggregate_id=case.id, subject=case.subject, name=rule.name, number=case.number, handler=case.handler,
        urgent=case.is_urgent, target=target, policy=policy.key if policy else None, working=working, hours=None,
        warn=act.terms.number(WARN), ladder=list(rule.ladder),
        started_at=act.now, spent=timedelta(0), running_since=act.now, marks=[], level=0, cancelled=False,
    )  # fmt: skip
    clock.mark(act.terms)
    return clock


SWEEP = """
WITH now AS (SELECT clock_timestamp() + shifted_by AS at FROM business_time),
due AS (
    SELECT id FROM clocks WHERE next_at <= (SELECT at FROM now) ORDER BY next_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), fired AS (
    UPDATE clocks c
       SET level = c.level + 1, next_at = CASE WHEN c.marks[c.level + 2] > c.stopped_at THEN NULL ELSE c.marks[c.level + 2] END,
           breached_at = CASE WHEN c.level + 1 = 2 THEN c.next_at ELSE c.breached_at END
      FROM due WHERE c.id = due.id
    RETURNING c.*, c.marks[c.level] AS due_at
)
INSERT INTO events (id, aggregate, aggregate_id, sequence, type, subject, group_id, company_id, estate_id, occurred_at, actor, data)
SELECT gen_random_uuid(), 'clock', id, level,
       CASE level WHEN 1 THEN 'ClockWarned' WHEN 2 THEN 'ClockBreached' ELSE 'ClockEscalated' END,
       subject, group_id, company_id, estate_id, due_at, %(actor)s,
       jsonb_strip_nulls(jsonb_build_object('clock', jsonb_build_object(
           'clock', name, 'aggregate', aggregate, 'aggregateId', aggregate_id, 'number', number, 'handler', handler,
           'urgent', urgent, 'startTime', to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'targetSeconds', (extract(epoch FROM target)::bigint)::text, 'ladder', to_jsonb(ladder)),
           'rung', CASE WHEN level >= 2 THEN level - 1 END, 'role', CASE WHEN level >= 2 THEN ladder[level - 1] END))
  FROM fired ORDER BY due_at
RETURNING type, data -> 'clock' ->> 'clock', data -> 'clock' ->> 'aggregate', data -> 'clock' -> 'urgent'
"""


@every(1, name="clocks")
def run_clocks(database: Database) -> int:
    """The sweep, every second in every worker."""
    fired = sweep(database)
    for mark, clock, process, urgent in fired:
        observe.CLOCKS_FIRED.labels(database.service, process, clock, mark, str(urgent).lower()).inc()
    return len(fired)


def sweep(database: Database) -> list[tuple[str, str, str, bool]]:
    """Fires every mark that is due, in batches of one statement each. Returns (event type, clock, kind of case, urgent) of what fired.

    Safe in every replica at once (SKIP LOCKED); one round fires one mark of a clock, so the rounds go on until none is due.
    """
    fired: list[tuple[str, str, str, bool]] = []
    while True:
        with database.transaction() as tx:
            rows = tx.execute(SWEEP, {"batch": SWEEP_BATCH, "actor": f"system/{database.service}"})  # type: ignore[arg-type]
            tx.wrote = bool(rows)
        fired += [(row[0], row[1], row[2], row[3]) for row in rows]
        if not rows:
            return fired
