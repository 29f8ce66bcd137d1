"""How long rows are kept that nobody needs for good, and their end: small batches, every ten minutes, in every worker.

A service says it in `services/<service>/retention.py`, the chassis here for the tables that every service has:

    keep("messages", since="occurred_at", hours=365 * 24, clock="business", why="…")

What is not named is kept: cases, their history and clocks, money, agreements, audits (ARC-12: an owner's file while he owns or lives there
and three years more, accounting papers 10 or 30 years). Day partitions of the event log are dropped whole (events.py).

The time of what the machine does (keys, sessions, logs) is machine time; of what people do (shifts, messages) it is business time, so
that moving time in development shows what becomes of them. Replicas do not hinder each other: a row that one takes the other passes over.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Gauge

from services.chassis.db import Database
from services.chassis.reactions import every

log = logging.getLogger(__name__)

EVERY = 600  # s between two runs
BATCH = 1_000  # rows of one transaction
MOST = 200  # batches of one rule in one run: 1.2 million rows an hour, above what any table of the chassis gets

FORGOTTEN = Counter("steward_rows_forgotten_total", "Rows removed because their time was over.", ["service", "table"])
BEHIND = Gauge(
    "steward_retention_behind", "1 if the last run of a table reached its bound: more was over than it may remove.", ["service", "table"]
)

Clock = Literal["machine", "business"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One rule. Rows of which `since` is longer ago than `hours` go; those of which it is NULL stay."""

    table: str
    since: str  # a column, or an expression of them; an index on it keeps a run cheap
    hours: int
    clock: Clock
    why: str

    @property
    def statement(self) -> str:
        now = "now()" if self.clock == "machine" else "(now() + (SELECT shifted_by FROM business_time))"
        return (
            f"DELETE FROM {self.table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {self.table}"
            f" WHERE {self.since} < {now} - make_interval(hours => %s) ORDER BY {self.since} LIMIT %s FOR UPDATE SKIP LOCKED))"
            " RETURNING 1"
        )


_rules: dict[str, list[Kept]] = defaultdict(list)


def keep(table: str, *, since: str, hours: int, why: str, clock: Clock = "machine", service: str) -> Kept:
    """Declares how long rows of a table of `service` are kept; of `chassis`, in every service's database."""
    rule = Kept(table, since, hours, clock, why)
    if rule not in _rules[service]:
        _rules[service].append(rule)
    return rule


def rules_of(service: str) -> list[Kept]:
    """A service's own rules, then the chassis's: an import goes before the operation that carried it out."""
    module = f"services.{service}.retention"
    if importlib.util.find_spec(f"services.{service}") and importlib.util.find_spec(module):
        importlib.import_module(module)
    return [*_rules[service], *_rules["chassis"]]


@every(EVERY, name="retention")
def forget(database: Database) -> int:
    """Removes what is over, and returns how many rows that were."""
    return sum(forget_by(database, rule) for rule in rules_of(database.service))


def forget_by(database: Database, rule: Kept, *, batch: int = BATCH, most: int = MOST) -> int:
    """Removes by one rule, at most `most` batches; the next run goes on. Returns how many rows that were."""
    removed, full = 0, 0
    while full < most:
        with database.transaction() as tx:
            # Row-level security hides from the planner how many rows there are: left to itself it may read the whole table.
            tx.execute("SET LOCAL enable_seqscan = off")
            found = len(tx.execute(rule.statement, (rule.hours, batch)))
        removed += found
        if found < batch:
            break
        full += 1
    BEHIND.labels(database.service, rule.table).set(full == most)
    if removed:
        FORGOTTEN.labels(database.service, rule.table).inc(removed)
        log.info("%s: %d rows of %s were over", database.service, removed, rule.table)
    return removed


DAY = 24

keep("idempotency", since="at", hours=DAY, service="chassis", why="a repeated command gets its first answer for 24 hours")
keep("inbox", since="at", hours=37 * DAY, service="chassis", why="a week longer than the log, whose replay it guards against")
keep(
    "dead_letters",
    since="replayed_at",
    hours=30 * DAY,
    service="chassis",
    why="replayed, and not dead again; the others stay until somebody looks",
)
keep("operations", since="ended_at", hours=200 * DAY, service="chassis", why="what became of an import or an export")
keep(
    "numbers", since="to_date(day, 'YYYYMMDD')::timestamptz", hours=7 * DAY, clock="business", service="chassis",
    why="the day's last case number, until no zone has that day any more",
)  # fmt: skip
keep("dir_shifts", since="ends_at", hours=90 * DAY, clock="business", service="chassis", why="who was on duty when something fell due late")
keep("dir_absences", since="ends_at", hours=90 * DAY, clock="business", service="chassis", why="as for shifts")
