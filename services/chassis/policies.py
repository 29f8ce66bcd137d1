"""Every number of the rule book is a policy: typed, bounded, with a default that group, company or estate may override.

The nearest override wins. A row whose source names a law carries a bound, and an override beyond it is refused. Rules read
policies from a snapshot in the process that is at most `MAX_AGE` seconds old, never by a query per use. How overrides are
set, previewed and listed, and what a change does to clocks that run, stands in `policy_api`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from services.chassis.calendar import Calendar, parse_shifts
from services.chassis.errors import InvalidInput

if TYPE_CHECKING:
    from services.chassis.db import Transaction
    from services.chassis.directory import Estate

log = logging.getLogger(__name__)

MAX_AGE = 5.0  # seconds of machine time
SHORTEST_DAY = timedelta(hours=1)  # of working hours; with less, long limits would not end within the years a calendar looks ahead

Value = float | str
Overrides = dict[UUID, dict[str, Value]]  # node → key → value

REGISTRY: dict[str, Policy] = {}
_told: set[tuple[str, UUID, str, Value]] = set()  # overrides that this process has complained about

_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_HOURS = re.compile(rf"{_TIME.pattern}-{_TIME.pattern}(?: {_TIME.pattern}-{_TIME.pattern})*")


@dataclass(frozen=True, slots=True)
class Policy:
    """One number (or text) of the rule book.

    `unit` is seconds, count, ratio, or text; `least` and `most` bound overrides; `law` says which law set the bound. A text
    with `choices` is one of them; else it must be of the kind its default is of: working hours, a time of day, or any text.
    `changed_by` narrows who may change it below the roles of the API; `everywhere` marks what every service reads.
    """

    key: str
    unit: str
    default: Value
    rules: str
    least: float | None = None
    most: float | None = None
    law: str = ""
    says: str = ""
    choices: tuple[str, ...] = ()
    changed_by: tuple[str, ...] = ()
    everywhere: bool = False

    def __post_init__(self) -> None:
        if self.key in REGISTRY and REGISTRY[self.key] != self:
            raise ValueError(f"the policy {self.key} is defined twice")
        REGISTRY[self.key] = self

    @property
    def kind(self) -> str:
        """The unit of a number; of a text `choice`, `hours`, `time` or `text`."""
        if self.unit != "text":
            return self.unit
        if self.choices:
            return "choice"
        if _HOURS.fullmatch(str(self.default)):
            return "hours"
        return "time" if _TIME.fullmatch(str(self.default)) else "text"

    def check(self, value: Value) -> None:
        """Raises InvalidInput when an override has the wrong type or leaves the bounds."""
        if self.unit == "text":
            self._check_text(value)
            return
        if isinstance(value, (str, bool)) or not math.isfinite(value):
            raise InvalidInput(f"{self.key} is a number ({self.unit})")
        if self.unit == "count" and value != int(value):
            raise InvalidInput(f"{self.key} is a whole number")
        least, most = self.bounds
        if (least is not None and value < least) or (most is not None and value > most):
            span = (
                f"between {least:g} and {most:g}"
                if None not in (least, most)
                else f"from {least:g} up"
                if most is None
                else f"up to {most:g}"
            )
            why = f"{self.law}, {self.rules}" if self.law else self.rules
            raise InvalidInput(f"{self.key} must lie {span} ({why})", reason="OUT_OF_BOUNDS", rule=self.rules)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """(least, most); a ratio lies between 0 and 1, and nothing counted or timed is negative, where nothing else is said."""
        if self.unit == "text":
            return None, None
        least = 0.0 if self.least is None and self.unit in ("ratio", "seconds", "count") else self.least
        return least, 1.0 if self.most is None and self.unit == "ratio" else self.most

    def _check_text(self, value: Value) -> None:
        if not isinstance(value, str):
            raise InvalidInput(f"{self.key} is a text")
        if self.kind == "choice" and value not in self.choices:
            raise InvalidInput(f"{self.key} must be one of {', '.join(self.choices)}")
        if self.kind == "time" and not _TIME.fullmatch(value):
            raise InvalidInput(f"{self.key} must be a time of day such as {self.default}")
        if self.kind == "text" and not 1 <= len(value) <= 1000:
            raise InvalidInput(f"{self.key} must have 1 to 1000 characters")
        if self.kind == "hours":
            if not _HOURS.fullmatch(value):
                raise InvalidInput(f"{self.key} must be hours such as {self.default}")
            try:
                shifts = parse_shifts(value)
            except ValueError as error:
                raise InvalidInput(str(error)) from None
            minutes = sum((b.hour - a.hour) * 60 + b.minute - a.minute for a, b in shifts)
            if timedelta(minutes=minutes) < SHORTEST_DAY:
                raise InvalidInput(
                    f"{self.key} must be {SHORTEST_DAY.seconds // 3600} hour a day at least", reason="OUT_OF_BOUNDS", rule=self.rules
                )


HOURS = Policy("calendar.hours", "text", "08:30-12:00 14:00-17:30", "X-34", says="working hours of the estate", everywhere=True)
HOLIDAYS = Policy(
    "calendar.holidays", "text", "CN", "X-34", says="CN (statutory holidays), NONE (Monday to Friday) or DAILY",
    choices=("CN", "NONE", "DAILY"), everywhere=True,
)  # fmt: skip


@cache
def policies_of(service: str) -> Mapping[str, Policy]:
    """Every policy that a service reads, by key: those of its `policies.py` and those of the chassis."""
    importlib.import_module("services.chassis.clocks")
    name = f"services.{service}.policies"
    own = vars(importlib.import_module(name)).values() if importlib.util.find_spec(name) else ()
    shared = (policy for policy in REGISTRY.values() if policy.everywhere)
    found = {policy.key: policy for policy in (*own, *shared) if isinstance(policy, Policy)}
    return MappingProxyType(dict(sorted(found.items())))


@dataclass(frozen=True, slots=True)
class Terms:
    """The policies in force for one estate, with its calendar. Without overrides: the defaults of the rule book."""

    zone: str = "Asia/Shanghai"
    overrides: Mapping[str, Value] = field(default_factory=dict)

    def number(self, policy: Policy) -> float:
        return float(self.overrides.get(policy.key, policy.default))

    def duration(self, policy: Policy) -> timedelta:
        return timedelta(seconds=self.number(policy))

    def text(self, policy: Policy) -> str:
        return str(self.overrides.get(policy.key, policy.default))

    @property
    def calendar(self) -> Calendar:
        return Calendar(self.zone, parse_shifts(self.text(HOURS)), self.text(HOLIDAYS))


class Policies:
    """A process's snapshot of one service's overrides."""

    def __init__(self) -> None:
        self._overrides: Overrides = {}
        self._read_at = -MAX_AGE

    def terms(self, tx: Transaction, estate: Estate | None) -> Terms:
        if time.monotonic() - self._read_at > MAX_AGE:
            began = time.monotonic()
            self._overrides, self._read_at = read_overrides(tx), began
        return terms_of(self._overrides, estate)

    def forget(self) -> None:
        """The next look reads anew: the process that changed a policy goes by it at once."""
        self._read_at = -MAX_AGE


def read_overrides(tx: Transaction, nodes: Sequence[UUID] | None = None) -> Overrides:
    """Overrides as they stand, all or of some nodes. One that a later release's bounds refuse no longer holds."""
    overrides: Overrides = {}
    rows = tx.execute(
        "SELECT node_id, key, value FROM policy_overrides WHERE %s::uuid[] IS NULL OR node_id = ANY(%s::uuid[])", (nodes, nodes)
    )
    for node, key, value in rows:
        policy = REGISTRY.get(key)
        try:
            if policy is not None:
                policy.check(value)
        except InvalidInput as error:
            if (tx.service, node, key, value) not in _told:
                _told.add((tx.service, node, key, value))
                log.warning("%s: the override at %s is passed by: %s", tx.service, node, error.message)
            continue
        overrides.setdefault(node, {})[key] = value
    return overrides


def terms_of(overrides: Overrides, estate: Estate | None) -> Terms:
    """What holds at an estate: from the group down, the nearest last."""
    if estate is None:
        return Terms()
    values: dict[str, Value] = {}
    for node in (estate.group_id, estate.company_id, estate.id):
        values.update(overrides.get(node, {}))
    return Terms(estate.zone, values)
