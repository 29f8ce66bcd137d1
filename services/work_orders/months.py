"""A month of each estate's own calendar: what happened at 23:30 in Chengdu belongs to its day there."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

WIDEST_ZONE = timedelta(hours=14)  # of any zone from UTC, on either side

nodes = sa.table("dir_nodes", sa.column("id"), sa.column("zone"))  # to be joined by a query that asks for a month


def in_month(month: str, column: Any) -> list[sa.ColumnElement[bool]]:
    """That an instant lies in a month (`2026-11`) of its estate's calendar; read by an index on the column."""
    first, following = _days(month)
    begins, ends = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, following))
    local_day = sa.cast(sa.func.timezone(nodes.c.zone, column), sa.Date)
    return [column >= begins - WIDEST_ZONE, column < ends + WIDEST_ZONE, local_day >= first, local_day < following]


def span(month: str, zone: str) -> tuple[datetime, datetime]:
    """Where a month of a zone begins, and where the next one does."""
    begins, ends = (datetime.combine(day, time(), ZoneInfo(zone)) for day in _days(month))
    return begins, ends


def before(at: datetime, zone: str) -> str:
    """The month before the one of an instant."""
    return f"{at.astimezone(ZoneInfo(zone)).replace(day=1) - timedelta(days=1):%Y-%m}"


def _days(month: str) -> tuple[date, date]:
    first = date(int(month[:4]), int(month[5:]), 1)
    return first, (first + timedelta(days=31)).replace(day=1)
