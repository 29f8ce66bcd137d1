"""Every number of the rule book is a policy: typed, bounded, with a default that group, company or estate may override.

The nearest override wins. A row whose source names a law carries a bound, and an override beyond it is refused. Rules read
policies from a snapshot in the process that is at most `MAX_AGE` seconds old, never by a query per use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from services.chassis.calendar import Calendar, parse_shifts
from services.chassis.errors import InvalidInput

if TYPE_CHECKING:
    from services.chassis.db import Transaction
    from services.chassis.directory import Estate

MAX_AGE = 5.0  # seconds of machine time

REGISTRY: dict[str, Policy] = {}


@dataclass(frozen=True, slots=True)
class Policy:
    """One number (or text) of the rule book.

    `unit` is seconds, count, ratio, or text; `least` and `most` bound overrides; `law` says which law set the bound.
    """

    key: str
    unit: str
    default: float | str
    rules: str
    least: float | None = None
    most: float | None = None
    law: str = ""
    says: str = ""

    def __post_init__(self) -> None:
        if self.key in REGISTRY and REGISTRY[self.key] != self:
            raise ValueError(f"the policy {self.key} is defined twice")
        REGISTRY[self.key] = self

    def check(self, value: float | str) -> None:
        """Raises InvalidInput when an override has the wrong type or leaves the bounds."""
        if self.unit == "text":
            if not isinstance(value, str):
                raise InvalidInput(f"{self.key} is a text")
            if self.key == HOURS.key:
                try:
                    parse_shifts(value)
                except ValueError as error:
                    raise InvalidInput(str(error)) from None
            return
        if isinstance(value, (str, bool)) or not math.isfinite(value):
            raise InvalidInput(f"{self.key} is a number ({self.unit})")
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            why = f" ({self.law})" if self.law else ""
            raise InvalidInput(f"{self.key} must lie between {self.least} and {self.most}{why}", reason="OUT_OF_BOUNDS", rule=self.rules)


HOURS = Policy("calendar.hours", "text", "08:30-12:00 14:00-17:30", "X-34", says="working hours of the estate")
HOLIDAYS = Policy("calendar.holidays", "text", "CN", "X-34", says="CN, NONE (Monday to Friday) or DAILY")


@dataclass(frozen=True, slots=True)
class Terms:
    """The policies in force for one estate, with its calendar. Without overrides: the defaults of the rule book."""

    zone: str = "Asia/Shanghai"
    overrides: Mapping[str, float | str] = field(default_factory=dict)

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
        self._overrides: dict[UUID, dict[str, float | str]] = {}
        self._read_at = -MAX_AGE

    def terms(self, tx: Transaction, estate: Estate | None) -> Terms:
        if time.monotonic() - self._read_at > MAX_AGE:
            self._read(tx)
        if estate is None:
            return Terms()
        values: dict[str, float | str] = {}
        for node in (estate.group_id, estate.company_id, estate.id):
            values.update(self._overrides.get(node, {}))
        return Terms(estate.zone, values)

    def _read(self, tx: Transaction) -> None:
        overrides: dict[UUID, dict[str, float | str]] = {}
        for node, key, value in tx.execute("SELECT node_id, key, value FROM policy_overrides"):
            overrides.setdefault(node, {})[key] = value
        self._overrides, self._read_at = overrides, time.monotonic()
