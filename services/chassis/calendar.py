"""Time as an estate counts it: around the clock, or in working hours on working days.

Working days of China follow the State Council's yearly notice (statutory holidays and make-up days, from the package
`chinese_calendar`); for a year that is not published yet Monday to Friday stand in. Hours may be split:
`08:30-12:00 14:00-17:30`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import chinese_calendar

ALWAYS = "24x7"
WORKING = "working"
UTC = ZoneInfo("UTC")
NOTHING = timedelta(0)
FURTHEST = timedelta(days=3660)  # a target that is not reached within ten years never is


@dataclass(frozen=True, slots=True)
class Calendar:
    """The working calendar of one estate."""

    zone: str
    shifts: tuple[tuple[time, time], ...]
    holidays: str = "CN"  # CN: statutory holidays and make-up days of China; NONE: Monday to Friday; DAILY: every day

    def is_working_day(self, day: date) -> bool:
        if self.holidays == "DAILY":
            return True
        if self.holidays == "CN":
            return _chinese_working_day(day)
        return day.weekday() < 5

    def stretches(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Working stretches from `start` on, as UTC pairs; the first may begin at `start` itself."""
        for day in self._days(start):
            for a, b in _working_day(self, day).stretches:
                if b > start:
                    yield max(a, start), b

    def add(self, start: datetime, amount: timedelta) -> datetime:
        """The instant at which `amount` of working time has passed since `start`."""
        if amount <= NOTHING:
            return start
        for day in self._days(start):
            working = _working_day(self, day)
            if working.total < amount and working.after(start):
                amount -= working.total
                continue
            for a, b in working.stretches:
                begins = max(a, start)
                if b - begins >= amount:
                    return begins + amount
                amount -= max(b - begins, NOTHING)
        raise ValueError("the calendar has no working time within ten years")

    def between(self, start: datetime, end: datetime) -> timedelta:
        """Working time between two instants; zero when `end` is not after `start`."""
        total = NOTHING
        for a, b in self.stretches(start):
            if a >= end:
                break
            total += min(b, end) - a
        return total

    def _days(self, start: datetime) -> Iterator[date]:
        day = start.astimezone(ZoneInfo(self.zone)).date()
        return (day + timedelta(days=n) for n in range(FURTHEST.days + 1))


@dataclass(frozen=True, slots=True)
class _Day:
    """The working stretches of one day as UTC pairs; none when nobody works."""

    stretches: tuple[tuple[datetime, datetime], ...]
    total: timedelta

    def after(self, instant: datetime) -> bool:
        """Whether all of it lies after an instant."""
        return not self.stretches or self.stretches[0][0] >= instant


@lru_cache(maxsize=16_384)
def _working_day(calendar: Calendar, day: date) -> _Day:
    if not calendar.is_working_day(day):
        return _Day((), NOTHING)
    zone = ZoneInfo(calendar.zone)
    instants = [[datetime.combine(day, at, zone).astimezone(UTC) for at in shift] for shift in calendar.shifts]
    stretches = tuple((a, b) for a, b in instants)
    return _Day(stretches, sum((b - a for a, b in stretches), NOTHING))


@lru_cache(maxsize=4096)
def _chinese_working_day(day: date) -> bool:
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError:
        return day.weekday() < 5


@lru_cache(maxsize=1024)
def parse_shifts(text: str) -> tuple[tuple[time, time], ...]:
    """`08:30-12:00 14:00-17:30` → pairs of times. Raises ValueError when they overlap or are not ascending."""
    shifts: list[tuple[time, time]] = []
    for part in text.replace(",", " ").split():
        opens, _, closes = part.partition("-")
        pair = (time.fromisoformat(opens), time.fromisoformat(closes))
        if pair[0] >= pair[1] or (shifts and shifts[-1][1] > pair[0]):
            raise ValueError(f"shifts must ascend and not overlap: {text!r}")
        shifts.append(pair)
    if not shifts:
        raise ValueError("a working calendar needs at least one shift")
    return tuple(shifts)


def add(calendar: Calendar | None, start: datetime, amount: timedelta) -> datetime:
    """`None` is around the clock."""
    return start + amount if calendar is None else calendar.add(start, amount)


def between(calendar: Calendar | None, start: datetime, end: datetime) -> timedelta:
    return max(end - start, timedelta(0)) if calendar is None else calendar.between(start, end)
