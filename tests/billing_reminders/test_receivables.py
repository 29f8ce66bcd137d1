"""Receivables without a database: dates, months, and that the order of events does not matter."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing_reminders import policies
from services.billing_reminders.receivables import DUE, LIFECYCLE, PROVISIONAL, VOID, News, Receivable, RepairBill, next_day
from services.chassis.access import system
from services.chassis.directory import Estate
from services.chassis.errors import InvalidInput
from services.chassis.lifecycle import Act
from services.chassis.policies import Terms

NOON = datetime(2026, 11, 22, 4, tzinfo=UTC)
ESTATE = Estate(uuid4(), "TFHY", "天府花园", uuid4(), uuid4(), "Asia/Shanghai", "RESIDENTIAL")
UNIT = uuid4()

# What an event can say: completed or accepted with a price, the same free of charge, rejected, reopened or cancelled.
PRICES = st.decimals(min_value="0.01", max_value="99999.99", places=2)
WORDS = st.one_of(
    st.tuples(st.sampled_from([PROVISIONAL, DUE]), PRICES),
    st.tuples(st.just(VOID), st.none()),
)
STREAMS = st.lists(WORDS, min_size=1, max_size=8).map(
    lambda words: [
        News(n, NOON + timedelta(days=9 * n), state, price, UNIT if price else None, repair_number="WX-20261122-0001" if price else "")
        for n, (state, price) in zip(count(1), words, strict=False)
    ]
)


def act(terms: Terms | None = None) -> Act:
    return Act(system("billing_reminders"), NOON, terms=terms or Terms())


def heard(stream: list[News], terms: Terms | None = None) -> Receivable | None:
    """What billing has after hearing a stream in the order given, as `settle` does it."""
    bill, receivable = RepairBill.blank(uuid4(), ESTATE.group_id, ESTATE.company_id, ESTATE.id, NOON), None
    for news in stream:
        bill.hear(news)
        if bill.charge is not None:
            receivable = receivable or Receivable.of(bill, ESTATE, act(terms))
            receivable.follow(bill, act(terms))
    return receivable


def standing(receivable: Receivable | None) -> dict[str, Any] | None:
    names = ("state", "amount", "unit_id", "repair_number", "state_at", "month", "notice_on", "due_on")
    return None if receivable is None else {name: getattr(receivable, name) for name in names}


@pytest.mark.rule("REP-37")
@given(st.data())
def test_the_same_events_in_any_order_and_number_leave_the_same_receivable(data: st.DataObject) -> None:
    stream = data.draw(STREAMS)
    repeated = stream + data.draw(st.lists(st.sampled_from(stream), max_size=6))
    assert standing(heard(data.draw(st.permutations(repeated)))) == standing(heard(stream))


@given(STREAMS)
def test_the_newest_event_decides_the_state_and_the_newest_price_the_amount(stream: list[News]) -> None:
    priced = [news for news in stream if news.charge is not None]
    receivable = heard(stream)
    if not priced:
        assert receivable is None
        return
    assert receivable is not None
    assert (receivable.state, receivable.state_at) == (stream[-1].state, stream[-1].at)
    assert receivable.amount == priced[-1].charge


@given(STREAMS)
def test_the_last_event_of_a_receivable_says_how_it_stands(stream: list[News]) -> None:
    receivable = heard(stream)
    if receivable is not None:
        recorded = receivable.taken_events()
        names = {str(PROVISIONAL): "ReceivableRaised", str(DUE): "ReceivableFellDue", str(VOID): "ReceivableVoided"}
        last: Any = recorded[-1][1]
        assert [sequence for sequence, _, _ in recorded] == list(range(1, len(recorded) + 1))
        assert last.DESCRIPTOR.name == names[receivable.state]
        assert Decimal(last.amount.units) + Decimal(last.amount.nanos) / 10**9 == receivable.amount


def accepted_at(at: str, terms: Terms | None = None) -> Receivable:
    receivable = heard([News(9, datetime.fromisoformat(at), DUE, Decimal("71.00"), UNIT)], terms)
    assert receivable is not None
    return receivable


@pytest.mark.rule("FEE-01", "FEE-02", "REP-37")
@pytest.mark.parametrize(
    ("accepted", "month", "notice", "due"),
    [
        ("2026-11-22T12:00:00+08:00", date(2026, 11, 1), date(2026, 12, 1), date(2026, 12, 15)),
        ("2026-11-30T23:59:59+08:00", date(2026, 11, 1), date(2026, 12, 1), date(2026, 12, 15)),
        ("2026-12-01T00:00:00+08:00", date(2026, 12, 1), date(2027, 1, 1), date(2027, 1, 15)),  # the notice of the 1st is out
        ("2027-01-31T12:00:00+08:00", date(2027, 1, 1), date(2027, 2, 1), date(2027, 2, 15)),
    ],
)
def test_an_accepted_charge_goes_on_the_next_notice_of_the_first_and_is_to_be_paid_by_the_fifteenth(
    accepted: str, month: date, notice: date, due: date
) -> None:
    receivable = accepted_at(accepted)
    assert (receivable.month, receivable.notice_on, receivable.due_on) == (month, notice, due)


def test_the_month_is_that_of_the_estate_not_of_greenwich() -> None:
    assert accepted_at("2026-11-30T17:00:00+00:00").month == date(2026, 12, 1)
    assert accepted_at("2026-11-30T17:00:00+00:00", Terms(zone="Europe/London")).month == date(2026, 11, 1)


def test_an_estate_may_send_its_notices_on_another_day() -> None:
    receivable = accepted_at("2026-11-22T12:00:00+08:00", Terms(overrides={"billing.notice_day": 25, "billing.pay_by_day": 10}))
    assert (receivable.notice_on, receivable.due_on) == (date(2026, 11, 25), date(2026, 12, 10))


@pytest.mark.parametrize("policy", [policies.NOTICE_DAY, policies.PAY_BY_DAY])
def test_a_day_that_some_months_lack_is_no_day_for_notices(policy: Any) -> None:
    policy.check(28)
    with pytest.raises(InvalidInput):
        policy.check(29)


@given(st.dates(date(2024, 1, 1), date(2030, 12, 31)), st.integers(1, 28))
def test_the_next_day_of_a_month_is_the_first_one_after(after: date, day: int) -> None:
    expected = after + timedelta(days=1)
    while expected.day != day:
        expected += timedelta(days=1)
    assert next_day(after, day) == expected


def test_only_what_is_due_names_dates_to_pay() -> None:
    raised = heard([News(5, NOON, PROVISIONAL, Decimal("71.00"), UNIT)])
    void = heard([News(5, NOON, PROVISIONAL, Decimal("71.00"), UNIT), News(6, NOON, VOID)])
    assert raised is not None
    assert void is not None
    assert [(r.state, r.notice_on, r.due_on) for r in (raised, void)] == [(PROVISIONAL, None, None), (VOID, None, None)]


def test_each_change_is_a_line_of_the_history_and_a_new_version() -> None:
    receivable = heard(
        [News(5, NOON, PROVISIONAL, Decimal("71.00"), UNIT), News(6, NOON, VOID), News(9, NOON, PROVISIONAL, Decimal("35.50"), UNIT)]
    )
    assert receivable is not None
    assert [change.action for change in receivable.taken_history()] == ["raise", "void", "raise"]
    assert receivable.version == 3


def test_the_readme_shows_the_lifecycle() -> None:
    readme = Path(__file__).parents[2] / "services" / "billing_reminders" / "README.md"
    assert LIFECYCLE.diagram() in readme.read_text(encoding="utf-8")
