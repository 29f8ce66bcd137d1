"""What a caller states of people and units, by the rules of the register's cells: the same cleaning, the same refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import TypeVar

from google.type.money_pb2 import Money

from services.chassis.errors import InvalidInput, Violation
from services.residents import register_cells as cell
from services.residents.people import Person
from services.residents.register_cells import Wrong

T = TypeVar("T")

FIRST_BIRTHDAY, FIRST_DAY = date(1880, 1, 1), date(1950, 1, 1)
LONGEST_LEASE = 20  # years, Civil Code 705
SLACK = Decimal("0.01")  # per cent: three times a third is 99.9999


def taken(field: str, rule: Callable[[], T]) -> T:
    """What the rule makes of a field. Raises InvalidInput with the reason a register's cell would be refused for."""
    try:
        return rule()
    except Wrong as wrong:
        raise InvalidInput(f"{field} is not right", reason=wrong.reason, violations=[Violation(field, wrong.message)]) from None


def refused(field: str, reason: str, description: str, *, rule: str = "") -> InvalidInput:
    return InvalidInput(f"{field} is not right", reason=reason, rule=rule, violations=[Violation(field, description)])


def day(field: str, text: str, *, earliest: date = FIRST_DAY, latest: date) -> date | None:
    """`2026-11-22`; None when empty."""
    return taken(field, lambda: cell.day(text, "日期", earliest=earliest, latest=latest)) if text else None


def name(field: str, text: str) -> str:
    return taken(field, lambda: cell.name(text, "姓名"))


def phone(field: str, text: str) -> str | None:
    """One telephone; None when empty."""
    if not text:
        return None
    found = taken(field, lambda: cell.phones(text, "电话"))
    if len(found) > 1:
        raise refused(field, "INVALID_PHONE", "应只有一个号码")
    return found[0]


def marks(field: str, texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(mark for text in texts for mark in taken(field, partial(cell.marks, text, "特殊关怀"))))


def words(field: str, text: str, limit: int) -> str:
    return taken(field, lambda: cell.words(text, field, limit=limit))


def share(field: str, text: str) -> Decimal | None:
    """Per cent, above 0 and up to 100; None when empty."""
    if not text:
        return None
    value = Decimal(text)
    if not 0 < value <= 100:
        raise refused(field, "SHARE_OUT_OF_RANGE", "应大于 0 且不超过 100")
    return value.quantize(Decimal("0.0001"))


def fee_rate(field: str, value: Money) -> Decimal:
    """CNY for a square metre and month, four decimals."""
    rate = Decimal(value.units) + Decimal(value.nanos) / 1_000_000_000
    wrong = value.currency_code not in ("", "CNY") or value.units < 0 or not 0 <= value.nanos <= 999_999_999
    if wrong or rate >= 10_000 or rate != rate.quantize(Decimal("0.0001")):
        raise refused(field, "BAD_MONEY", "must be in CNY, not negative, below 10,000, with at most four decimals")
    return rate.quantize(Decimal("0.0001"))


def identity(field: str, text: str, kind: str, today: date) -> str:
    """An identity number or other paper of a person, a credit code of a company."""
    if kind == "COMPANY":
        return taken(field, lambda: cell.company_identity(text, "统一社会信用代码"))
    return taken(field, lambda: cell.citizen_identity(text, "证件号码", today=today))


def identities(field: str, text: str, today: date) -> list[str]:
    """What a number to be looked up may be; several when it could be a person's and a company's. Raises InvalidInput."""
    found: list[str] = []
    for rule in (lambda: cell.citizen_identity(text, "证件号码", today=today), lambda: cell.company_identity(text, "统一社会信用代码")):
        try:
            found.append(rule())
        except Wrong:
            continue
    return list(dict.fromkeys(found)) or [identity(field, text, "INDIVIDUAL", today)]


def lease(first: date, last: date | None, field: str = "end_date") -> None:
    """Raises InvalidInput(END_BEFORE_START, LEASE_TOO_LONG)."""
    if last is not None and last < first:
        raise refused(field, "END_BEFORE_START", f"不得早于 {first}")
    if last is not None and last > _years_later(first, LONGEST_LEASE):
        raise refused(field, "LEASE_TOO_LONG", f"租期不得超过 {LONGEST_LEASE} 年（民法典第七百零五条）", rule="OCC-02")


def _years_later(first: date, years: int) -> date:
    try:
        return first.replace(year=first.year + years)
    except ValueError:  # 29 February
        return first.replace(year=first.year + years, month=3, day=1)


def furthest(today: date) -> date:
    """Leases and move-ins are agreed a few years ahead at most; a lease lasts twenty."""
    return today + timedelta(days=25 * 366)


@dataclass(frozen=True, slots=True)
class Party:
    """Who is to become a member: a person in sight, or what is known of somebody. `field`: where the request says so."""

    person: Person | None = None
    name: str = ""
    kind: str = "INDIVIDUAL"
    identity: str = ""
    phone: str | None = None
    birthday: date | None = None
    field: str = "party"
