"""Duties: what an estate owes again and again, such as the check of the day's repairs before 17:00.

A service declares its duties in a table (`services/<service>/duties.py`, name DUTIES). Each is a recurrence rule (RFC 5545)
read in the estate's own time zone and in business time. One row an estate and duty says which occurrence is next; whoever
opens it moves that row on in the same transaction, so an occurrence is opened once, however many replicas there are and
however often they start. After downtime every occurrence that was missed is opened in order, dated as it should have been.

An occurrence that is open is a case (`DutyTask`) with one clock: done in time, or missed and told up the ladder.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from dateutil.rrule import rrulestr
from prometheus_client import Counter
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis import directory
from services.chassis.access import Principal, system
from services.chassis.clocks import ClockRule
from services.chassis.db import Base, Database, Transaction, new_id
from services.chassis.directory import Estate
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move
from services.chassis.names import stamp
from services.chassis.policies import Policy, Terms
from services.chassis.reactions import every
from steward.chassis.v1 import events_pb2 as events

log = logging.getLogger(__name__)

LONGEST_DOWNTIME = timedelta(days=35)  # what was due before that is not made up for
BATCH = 50
ANCHOR = datetime(2024, 1, 1)  # noqa: DTZ001  a Monday; where the counting of INTERVAL begins
FOREIGN = ("BYHOUR", "BYMINUTE", "BYSECOND", "DTSTART", "UNTIL", "COUNT", "HOURLY", "MINUTELY", "SECONDLY")

TOTAL = Counter(
    "steward_duties_total",
    "Occurrences of duties by result: opened, done, missed, late (done after it was missed).",
    ["service", "duty", "result"],
)


@dataclass(frozen=True, slots=True)
class Duty:
    """One line of a service's DUTIES table.

    `rule` says on which days it is due (`FREQ=MONTHLY;BYMONTHDAY=5`), `at` at which time of day: a text such as `17:00`, or a
    policy whose value is one. It opens `opens` before. It falls to the first of `roles` that anybody holds at the estate; with
    `early_shift`, to those whom the roster has on the early shift of the day, if it has anybody. Who holds one of `superiors`
    may do it for them. `ladder` is told, rung by rung, once it is missed.

    What Steward does itself is no task of anybody's: `instead(tx, estate, act, due_at)` runs in its place, in the transaction that
    moves the row on, with an act of the instant at which it should have run.
    """

    name: str
    rule: str
    at: Policy | str
    opens: timedelta
    roles: tuple[str, ...]
    ladder: tuple[str, ...]
    rules: str
    superiors: tuple[str, ...] = ()
    early_shift: bool = False
    instead: Callable[[Transaction, Estate, Act, datetime], None] | None = None

    def __post_init__(self) -> None:
        if wrong := [part for part in FOREIGN if part in self.rule]:
            raise ValueError(f"the rule of {self.name} says the days alone: not {wrong}")
        if self.opens < timedelta(0):
            raise ValueError(f"{self.name} opens before it is due")
        next_due(self.recurrence(Terms()), Terms().zone, ANCHOR.replace(tzinfo=UTC))  # a rule that never comes is refused here

    def recurrence(self, terms: Terms) -> str:
        """The whole rule for an estate, with its time of day."""
        text = self.at if isinstance(self.at, str) else terms.text(self.at)
        at = time.fromisoformat(text)
        return f"{self.rule};BYHOUR={at.hour};BYMINUTE={at.minute};BYSECOND=0"


def next_due(recurrence: str, zone: str, after: datetime) -> datetime:
    """The first occurrence after an instant. Raises ValueError when there is none."""
    local = after.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return _next_local(recurrence, local).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@lru_cache(maxsize=4096)
def _next_local(recurrence: str, after: datetime) -> datetime:
    begins = ANCHOR if "INTERVAL" in recurrence else after.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = rrulestr(recurrence, dtstart=begins).after(after)
    if found is None:
        raise ValueError(f"{recurrence} has no occurrence after {after}")
    return found


@cache
def duties_of(service: str) -> Mapping[str, Duty]:
    """The duties of a service by name."""
    name = f"services.{service}.duties"
    if service == "chassis" or not importlib.util.find_spec(f"services.{service}") or not importlib.util.find_spec(name):
        return MappingProxyType({})
    return MappingProxyType({duty.name: duty for duty in importlib.import_module(name).DUTIES})


# --- the case -----------------------------------------------------------------------------------------------------------


class State(enum.StrEnum):
    OPEN = "OPEN"
    DONE = "DONE"
    MISSED = "MISSED"


OPEN, DONE, MISSED = State


def his(task: DutyTask, who: Principal) -> bool:
    return who.id in {str(staff) for staff in task.doers} or who.holds(frozenset(task.superiors))


LIFECYCLE = Lifecycle(State, OPEN, [
    Move("complete", {OPEN, MISSED}, DONE,   only=his,  rules="REP-26", unless="this duty falls to somebody else today"),
    Move("miss",     {OPEN},         MISSED, by=SYSTEM, rules="REP-26"),
])  # fmt: skip

CLOCKS = [ClockRule("duty", starts=frozenset({"open"}), stops=frozenset({"complete"}), due=lambda task: task.due_at, rules="REP-26")]


class DutyTask(Case, Base):
    """One occurrence of a duty at one estate. `outcome` is what the service keeps of its being done."""

    __tablename__ = "duty_tasks"
    KIND, COLLECTION, PREFIX = "duty_task", "dutyTasks", "LX"
    LIFECYCLE, CLOCKS = LIFECYCLE, CLOCKS

    duty: Mapped[str]
    due_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    role: Mapped[str]
    doers: Mapped[list[UUID]] = mapped_column(ARRAY(sa.Uuid))
    superiors: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    done_by: Mapped[str] = mapped_column(default="")
    done_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    remark: Mapped[str] = mapped_column(default="")
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    @property
    def subject(self) -> str:
        """`repair_check` is a resource of its own: `estates/TFHY/repairChecks/…`."""
        first, *rest = self.duty.split("_")
        return f"estates/{self.estate_code}/{first}{''.join(word.title() for word in rest)}s/{self.id}"

    @classmethod
    def begin(cls, act: Act, estate: Estate, duty: Duty, due_at: datetime, role: str, doers: Sequence[UUID]) -> DutyTask:
        task = cls(
            id=new_id(), group_id=estate.group_id, company_id=estate.company_id, estate_id=estate.id, estate_code=estate.code,
            created_at=act.now, updated_at=act.now, version=0, event_count=0, number=None, duty=duty.name, due_at=due_at, role=role,
            doers=list(doers), superiors=list(duty.superiors),
        )  # fmt: skip
        task.open(act, "open")
        for clock in task.clocks:  # the ladder is the duty's
            clock.ladder = list(duty.ladder)
            clock.mark(act.terms)
        task._count("opened")
        task._happened(events.DutyOpened(role=role, assignees=[f"staff/{staff}" for staff in doers]), act)
        return task

    def complete(self, act: Act, remark: str, outcome: dict[str, Any]) -> None:
        """Late is better than never: what was missed can still be done, and stays missed in time."""
        late = self.state == MISSED or act.now > self.due_at
        self.move("complete", act, note=remark, done_by=str(act.principal), done_at=act.now, remark=remark, outcome=outcome)
        self._count("late" if late else "done")
        self._happened(events.DutyCompleted(late=late), act)

    def miss(self, act: Act) -> None:
        self.move("miss", act)
        self._count("missed")
        self._happened(events.DutyMissed(role=self.role), act)

    def _count(self, result: str) -> None:
        self.count(TOTAL, self.duty, result)

    def _happened(self, event: Any, act: Act) -> None:
        event.duty_task, event.number, event.duty = str(self.id), self.number or "", self.duty
        event.due_time.CopyFrom(stamp(self.due_at))
        self.record(event, act)


EARLY = """
SELECT DISTINCT CASE WHEN a.id IS NULL THEN s.staff_id ELSE a.deputy_id END FROM dir_shifts s
  LEFT JOIN dir_absences a ON a.staff_id = s.staff_id AND NOT a.deleted AND a.starts_at <= s.starts_at AND (a.ends_at IS NULL OR a.ends_at > s.starts_at)
 WHERE s.estate_id = %s AND s.early_shift AND NOT s.deleted AND s.starts_at < %s AND s.ends_at > %s ORDER BY 1
"""


def doers(tx: Transaction, duty: Duty, estate: Estate, due_at: datetime, at: datetime) -> tuple[str, list[UUID]]:
    """(role, members of staff) to whom an occurrence falls, as of an instant.

    With `early_shift` those on the early shift of its day, or their deputies, although that shift may have ended; else the
    first role that anybody answers for.
    """
    if duty.early_shift and (staff := on_early_shift(tx, estate, due_at.astimezone(ZoneInfo(estate.zone)).date())):
        return duty.roles[0], staff
    for role in duty.roles:
        if staff := directory.on_duty(tx, role, estate, at):
            return role, staff
    return duty.roles[0], []


def on_early_shift(tx: Transaction, estate: Estate, day: date) -> list[UUID]:
    """Whom the roster has on the early shift of a day of the estate's calendar, or their deputies."""
    zone = ZoneInfo(estate.zone)
    begins = datetime.combine(day, time(), zone)
    ends = datetime.combine(day + timedelta(days=1), time(), zone)
    return [row[0] for row in tx.execute(EARLY, (estate.id, ends, begins)) if row[0]]


def reassign(tx: Transaction, task: DutyTask) -> None:
    """Posts and rosters may have changed since the task was opened: it falls to those of then and to those of now."""
    duty = duties_of(tx.service).get(task.duty)
    if duty is not None and tx.estate is not None:
        task.role, now = doers(tx, duty, tx.estate, task.due_at, tx.now)
        _, then = doers(tx, duty, tx.estate, task.due_at, task.created_at)
        task.doers = sorted({*now, *then})


# --- the plan -----------------------------------------------------------------------------------------------------------


@every(5, name="duty_plan")
def plan(database: Database) -> int:
    """Every estate has a row for every duty; where time of day or zone have changed, what is not open yet moves. Returns how many rows changed.

    A duty never comes twice in one local day by being moved.
    """
    declared = duties_of(database.service)
    if not declared:
        return 0
    changed = 0
    with database.transaction() as tx:
        known = {(row[0], row[1]): row[2] for row in tx.execute("SELECT estate_id, duty, recurrence FROM duties")}
        estates = directory.estates(tx)
        if not estates:  # a copy of the register that is not there yet says nothing about who has gone
            return 0
        for estate in estates:
            terms = database.policies.terms(tx, estate)
            for duty in declared.values():
                recurrence = duty.recurrence(terms)
                if known.get((estate.id, duty.name)) != f"{estate.zone} {recurrence}":
                    _place(tx, estate, duty, recurrence)
                    changed += 1
        gone = {key for key in known if key[1] not in declared} | {key for key in known if key[0] not in {estate.id for estate in estates}}
        for estate_id, name in gone:
            tx.execute("DELETE FROM duties WHERE estate_id = %s AND duty = %s", (estate_id, name))
    return changed + len(gone)


def _place(tx: Transaction, estate: Estate, duty: Duty, recurrence: str) -> None:
    """Puts the next occurrence of one duty at one estate where the rule in force has it."""
    after = tx.now
    tx.execute("SELECT 1 FROM duties WHERE estate_id = %s AND duty = %s FOR UPDATE", (estate.id, duty.name))
    last = tx.execute("SELECT max(due_at) FROM duty_tasks WHERE estate_id = %s AND duty = %s", (estate.id, duty.name))[0][0]
    if last is not None:
        zone = ZoneInfo(estate.zone)
        next_day = datetime.combine(last.astimezone(zone).date() + timedelta(days=1), time(), zone)
        after = max(after, next_day - timedelta(microseconds=1))
    due = next_due(recurrence, estate.zone, after)
    tx.execute(
        "INSERT INTO duties (group_id, company_id, estate_id, duty, recurrence, due_at, next_at) VALUES (%s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (estate_id, duty) DO UPDATE SET recurrence = EXCLUDED.recurrence, due_at = EXCLUDED.due_at, next_at = EXCLUDED.next_at",
        (estate.group_id, estate.company_id, estate.id, duty.name, f"{estate.zone} {recurrence}", due, due - duty.opens),
    )


@every(1, name="duties")
def run_duties(database: Database) -> int:
    """Opens what has come, in the order in which it came, and closes what is overdue. Returns how many were opened or missed."""
    if not duties_of(database.service):
        return 0
    return _until_none(lambda: _open(database)) + _until_none(lambda: _miss(database))


def next_instant(tx: Transaction) -> datetime | None:
    """When the next duty opens; None when there is none. What is open already is due by its clock."""
    return tx.execute("SELECT min(next_at) FROM duties")[0][0]


def _until_none(step: Callable[[], int]) -> int:
    total = 0
    while done := step():
        total += done
    return total


def _open(database: Database) -> int:
    """One batch: of each estate and duty that has come, one occurrence."""
    declared = duties_of(database.service)
    with database.transaction() as tx:
        rows = tx.execute(
            "SELECT estate_id, duty, due_at FROM duties WHERE next_at <= %s AND duty = ANY(%s) ORDER BY next_at, estate_id LIMIT %s"
            " FOR UPDATE SKIP LOCKED",
            (tx.now, list(declared), BATCH),
        )
        for estate_id, name, due_at in rows:
            estate = directory.estate_by_id(tx, estate_id)
            if estate is None:
                tx.execute("DELETE FROM duties WHERE estate_id = %s AND duty = %s", (estate_id, name))
                continue
            duty, terms = declared[name], database.policies.terms(tx, estate)
            recurrence = duty.recurrence(terms)
            if due_at >= tx.now - LONGEST_DOWNTIME:
                act = Act(system(tx.service), due_at - duty.opens, "", terms)
                if duty.instead is not None:
                    duty.instead(tx, estate, act, due_at)
                else:
                    task = tx.add(DutyTask.begin(act, estate, duty, due_at, *doers(tx, duty, estate, due_at, act.now)))
                    task.number_in(tx, estate.zone)
                following = next_due(recurrence, estate.zone, due_at)
            else:
                following = next_due(recurrence, estate.zone, tx.now - LONGEST_DOWNTIME)
                log.warning("%s: %s at %s was due %s, too long ago to be made up for", tx.service, name, estate.code, due_at)
            tx.execute(
                "UPDATE duties SET due_at = %s, next_at = %s, recurrence = %s WHERE estate_id = %s AND duty = %s",
                (following, following - duty.opens, f"{estate.zone} {recurrence}", estate_id, name),
            )
    return len(rows)


def _miss(database: Database) -> int:
    with database.transaction() as tx:
        rows = tx.execute(
            "SELECT id, due_at FROM duty_tasks WHERE state = 'OPEN' AND due_at <= %s ORDER BY due_at, id LIMIT %s FOR UPDATE SKIP LOCKED",
            (tx.now, BATCH),
        )
        for identifier, due_at in rows:
            tx.get(DutyTask, identifier).miss(Act(system(tx.service), due_at))
    return len(rows)
