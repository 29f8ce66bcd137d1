"""Working time: split shifts, statutory holidays and make-up days, any zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import calendar
from services.chassis.calendar import Calendar, parse_shifts

CHINA = ZoneInfo("Asia/Shanghai")
SPLIT = Calendar("Asia/Shanghai", parse_shifts("08:30-12:00 14:00-17:30"))
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    """Beijing time."""
    return datetime.fromisoformat(text).replace(tzinfo=CHINA)


def test_a_target_runs_through_the_midday_break_of_split_shifts() -> None:
    assert SPLIT.add(at("2026-11-23T11:00"), 2 * HOUR) == at("2026-11-23T15:00")
    assert SPLIT.add(at("2026-11-23T11:00"), HOUR) == at("2026-11-23T12:00"), "the last minute of a shift belongs to it"
    assert SPLIT.add(at("2026-11-23T11:00"), HOUR + timedelta(seconds=1)) == at("2026-11-23T14:00:01")


def test_what_starts_after_hours_or_at_the_weekend_counts_from_the_next_shift() -> None:
    assert SPLIT.add(at("2026-11-23T20:00"), HOUR) == at("2026-11-24T09:30")
    assert SPLIT.add(at("2026-11-21T10:00"), HOUR) == at("2026-11-23T09:30"), "21 November 2026 is a Saturday"
    assert SPLIT.add(at("2026-11-23T12:30"), HOUR) == at("2026-11-23T15:00"), "in the midday break"


def test_a_day_has_seven_hours_and_a_week_five_days() -> None:
    assert SPLIT.add(at("2026-11-23T08:30"), 7 * HOUR) == at("2026-11-23T17:30")
    assert SPLIT.add(at("2026-11-23T08:30"), 35 * HOUR) == at("2026-11-27T17:30")
    assert SPLIT.between(at("2026-11-23T00:00"), at("2026-11-30T00:00")) == 35 * HOUR


def test_national_day_2026_is_no_working_time_and_its_make_up_days_are() -> None:
    free = [date(2026, 10, day) for day in range(1, 8)]
    assert not any(SPLIT.is_working_day(day) for day in free)
    assert SPLIT.is_working_day(date(2026, 9, 20)), "a Sunday that is worked"
    assert SPLIT.is_working_day(date(2026, 10, 10)), "a Saturday that is worked"
    assert not SPLIT.is_working_day(date(2026, 10, 11)), "an ordinary Sunday"
    assert SPLIT.add(at("2026-09-30T17:00"), HOUR) == at("2026-10-08T09:00")
    assert SPLIT.between(at("2026-10-01T00:00"), at("2026-10-12T00:00")) == 3 * 7 * HOUR, "the 8th, the 9th and Saturday the 10th"


def test_spring_festival_2026_moves_a_clock_to_the_first_day_back() -> None:
    assert SPLIT.add(at("2026-02-14T17:00"), HOUR) == at("2026-02-24T09:00"), "the 14th is a make-up Saturday, the 15th to 23rd are free"


def test_a_year_whose_holidays_are_not_published_counts_monday_to_friday() -> None:
    assert [SPLIT.is_working_day(date(2049, 10, day)) for day in range(1, 8)] == [date(2049, 10, day).weekday() < 5 for day in range(1, 8)]
    assert SPLIT.add(at("2049-12-31T17:00"), HOUR) == at("2050-01-03T09:00"), "New Year falls on a Saturday"


def test_an_estate_may_work_monday_to_friday_or_every_day() -> None:
    weekdays, daily = (Calendar("Asia/Shanghai", parse_shifts("09:00-18:00"), kind) for kind in ("NONE", "DAILY"))
    assert weekdays.is_working_day(date(2026, 10, 1))
    assert not weekdays.is_working_day(date(2026, 10, 3))
    assert daily.is_working_day(date(2026, 10, 3))


def test_around_the_clock_needs_no_calendar() -> None:
    start = at("2026-10-01T03:10")
    assert calendar.add(None, start, HOUR) == start + HOUR
    assert calendar.between(None, start, start + HOUR) == HOUR
    assert calendar.between(None, start, start - HOUR) == timedelta(0)


def test_a_zone_with_summer_time_counts_hours_that_passed() -> None:
    berlin = Calendar("Europe/Berlin", parse_shifts("00:00-08:00"), "DAILY")
    night = datetime(2026, 3, 28, 23, tzinfo=UTC)  # local midnight; at two o'clock it is three
    assert berlin.between(night, night + 12 * HOUR) == 7 * HOUR
    assert berlin.add(night, 7 * HOUR) == night + 7 * HOUR


@pytest.mark.parametrize(
    "text", ["", "12:00-08:00", "08:00-12:00 11:00-17:00", "14:00-17:00 08:00-12:00", "08:00", "25:00-26:00", "08:00-08:00"]
)
def test_shifts_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the shape of the text decides which
        parse_shifts(text)


def test_a_calendar_without_working_time_is_an_error_and_no_endless_loop() -> None:
    never = Calendar("Asia/Shanghai", parse_shifts("08:30-08:31"))
    with pytest.raises(ValueError, match="ten years"):
        never.add(at("2026-01-01T00:00"), timedelta(days=400))


instants = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)).map(lambda d: d.replace(microsecond=0))
amounts = st.integers(1, 60 * 60 * 24 * 10).map(lambda seconds: timedelta(seconds=seconds))
shifts = st.sampled_from(["08:30-12:00 14:00-17:30", "09:00-18:00", "00:00-06:00 12:00-12:01 22:00-23:59", "08:00-20:00"])
calendars = st.builds(
    lambda zone, hours, kind: Calendar(zone, parse_shifts(hours), kind),
    st.sampled_from(["Asia/Shanghai", "UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    shifts,
    st.sampled_from(["CN", "NONE", "DAILY"]),
)


@given(calendars, instants, amounts)
def test_what_is_added_is_what_lies_between(days: Calendar, start: datetime, amount: timedelta) -> None:
    assert days.between(start, days.add(start, amount)) == amount


@given(calendars, instants, amounts, amounts)
def test_adding_in_two_steps_is_adding_once(days: Calendar, start: datetime, first: timedelta, second: timedelta) -> None:
    assert days.add(days.add(start, first), second) == days.add(start, first + second)


@given(calendars, instants, instants, instants)
def test_time_between_adds_up(days: Calendar, a: datetime, b: datetime, c: datetime) -> None:
    a, b, c = sorted((a, b, c))
    if c - a < timedelta(days=60):
        assert days.between(a, b) + days.between(b, c) == days.between(a, c)
        assert timedelta(0) <= days.between(a, b) <= b - a
