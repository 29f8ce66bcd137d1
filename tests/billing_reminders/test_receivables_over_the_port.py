"""Who sees which receivables, over the service's port; and the month-end report against an independent count."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from services.chassis import testing
from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.names import money
from services.chassis.reactions import handle
from steward.billing_reminders.v1 import receivables_pb2 as pb
from steward.work_orders.v1 import events_pb2 as work_orders

SERVICE = "billing_reminders"
NOVEMBER = datetime(2026, 11, 22, 4, tzinfo=UTC)
STATES = {"PROVISIONAL": pb.Receivable.PROVISIONAL, "DUE": pb.Receivable.DUE, "VOID": pb.Receivable.VOID}


@pytest.fixture(scope="module")
def database(database_of: Any) -> Database:
    return database_of(SERVICE)


@pytest.fixture(scope="module")
def api(serving_of: Any) -> testing.Api:
    return serving_of(SERVICE)[1]


@pytest.fixture
def tree(database: Database) -> testing.Tree:
    return testing.a_tree(database)


def bill(database: Database, tree: testing.Tree, state: str, amount: str, *, unit: str = "", at: datetime = NOVEMBER) -> None:
    """A repair that ended with a receivable in `state`, reached at `at`."""
    repair, unit_id = uuid4(), str(tree.units[unit or tree.unit])
    total = money(Decimal(amount))
    last = {
        "PROVISIONAL": work_orders.RepairCompleted(unit_id=unit_id, charge_total=total),
        "DUE": work_orders.RepairAccepted(unit_id=unit_id, attitude=4, quality=4, charge_total=total),
        "VOID": work_orders.RepairRejected(rework_count=1),
    }[state]
    first = work_orders.RepairCompleted(unit_id=unit_id, charge_total=total)
    for sequence, message, when in ((5, first, at - timedelta(days=40)), (6, last, at)):
        handle(
            database, SERVICE, testing.event_body(message, tree=tree, aggregate="repair", aggregate_id=repair, sequence=sequence, at=when)
        )


def listed(api: testing.Api, who: testing.Caller, **fields: Any) -> list[Any]:
    return list(api.call(who, "ListReceivables", **fields).receivables)


def test_a_receivable_shows_where_it_comes_from_and_when_it_is_to_be_paid(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    bill(database, tree, "DUE", "71.50")
    (found,) = listed(api, tree.staff["CASHIER"], parent=tree.parent)
    assert api.call(tree.staff["CASHIER"], "GetReceivable", name=found.name) == found
    assert found.name.startswith(f"{tree.parent}/receivables/")
    assert found.repair.startswith(f"{tree.parent}/repairs/")
    assert (found.state, found.kind, found.unit, found.month) == (pb.Receivable.DUE, pb.Receivable.REPAIR, tree.unit, "2026-11")
    assert (found.amount.units, found.amount.nanos, found.amount.currency_code) == (71, 500_000_000, "CNY")
    assert (found.notice_date.year, found.notice_date.month, found.notice_date.day) == (2026, 12, 1)
    assert (found.due_date.year, found.due_date.month, found.due_date.day) == (2026, 12, 15)


def test_receivables_are_filtered_by_state_unit_and_month(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    first, second = tree.units
    bill(database, tree, "DUE", "10", unit=first)
    bill(database, tree, "VOID", "20", unit=second)
    bill(database, tree, "DUE", "30", unit=second, at=datetime(2026, 12, 5, tzinfo=UTC))
    clerk = tree.staff["FEE_COLLECTOR"]

    def amounts(**fields: Any) -> set[int]:
        return {found.amount.units for found in listed(api, clerk, parent=tree.parent, **fields)}

    assert amounts() == {10, 20, 30}
    assert amounts(states=["DUE"]) == {10, 30}
    assert amounts(unit=second) == {20, 30}
    assert amounts(month="2026-11") == {10, 20}
    assert amounts(month="2026-12", unit=second, states=["DUE", "PROVISIONAL"]) == {30}
    assert amounts(unit="no such unit") == set()


def test_pages_show_every_receivable_once(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    for amount in range(1, 8):
        bill(database, tree, "PROVISIONAL", str(amount))
    seen, token = [], ""
    while True:
        page = api.call(tree.staff["FINANCE"], "ListReceivables", parent=tree.parent, page_size=3, page_token=token)
        seen += [found.amount.units for found in page.receivables]
        token = page.next_page_token
        if not token:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_a_page_token_of_another_query_is_refused(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    for _ in range(2):
        bill(database, tree, "DUE", "10")
    token = api.call(tree.staff["FINANCE"], "ListReceivables", parent=tree.parent, page_size=1).next_page_token
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.staff["FINANCE"], "ListReceivables", parent=tree.parent, page_size=1, page_token=token, month="2026-11")
    assert (refused.value.http, refused.value.reason) == (400, "INVALID_PAGE_TOKEN")


def test_owners_see_the_receivables_of_their_units_only(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    first, last = tree.units
    bill(database, tree, "DUE", "10", unit=first)
    bill(database, tree, "DUE", "20", unit=last)
    (mine,) = listed(api, tree.owner, parent=tree.parent)
    (his,) = listed(api, tree.neighbour, parent="estates/-")
    assert (mine.amount.units, his.amount.units) == (10, 20)
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.owner, "GetReceivable", name=his.name)
    assert (refused.value.http, refused.value.reason) == (404, "RECEIVABLE_NOT_FOUND")


def test_who_buys_a_unit_does_not_see_what_the_owner_before_him_owed(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    def owner(since: datetime) -> testing.Caller:
        return testing.Caller("people", uuid4(), (Grant("OWNER", "unit", tree.units[tree.unit], tree.estate_id, since),))

    bill(database, tree, "DUE", "10")
    (debt,) = listed(api, tree.owner, parent=tree.parent)
    later, earlier = (owner(testing.business_now(database).replace(microsecond=0) + timedelta(hours=h)) for h in (1, -1))
    assert listed(api, later, parent=tree.parent) == []
    with pytest.raises(testing.Refused) as refused:
        api.call(later, "GetReceivable", name=debt.name)
    assert refused.value.reason == "RECEIVABLE_NOT_FOUND"
    assert listed(api, earlier, parent=tree.parent) == [debt]


@pytest.mark.parametrize("role", ["TENANT", "FAMILY_MEMBER", "TECHNICIAN", "SECURITY_GUARD"])
def test_who_has_nothing_to_do_with_money_sees_none(api: testing.Api, tree: testing.Tree, role: str) -> None:
    for request in (
        api.request("ListReceivables", parent=tree.parent),
        api.request("GetRepairChargeReport", parent=tree.parent, month="2026-11"),
    ):
        with pytest.raises(testing.Refused) as refused:
            api.send(tree.by_role(role), request.DESCRIPTOR.name.removesuffix("Request"), request)
        assert refused.value.http == 403


def test_owners_get_no_report(api: testing.Api, tree: testing.Tree) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.owner, "GetRepairChargeReport", parent=tree.parent, month="2026-11")
    assert refused.value.http == 403


def test_a_receivable_of_another_estate_does_not_exist(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    other = testing.a_tree(database)
    bill(database, tree, "DUE", "10")
    (found,) = listed(api, tree.staff["CASHIER"], parent=tree.parent)
    with pytest.raises(testing.Refused) as refused:
        api.call(other.staff["CASHIER"], "GetReceivable", name=found.name.replace(tree.code, other.code))
    assert refused.value.http == 404
    with pytest.raises(testing.Refused) as refused:
        api.call(other.staff["CASHIER"], "ListReceivables", parent=tree.parent)
    assert (refused.value.http, refused.value.reason) == (404, "ESTATE_NOT_FOUND")


@pytest.mark.parametrize("month", ["", "2026", "2026-13", "2026-00", "0000-01", "2026-1", "20261", "2026-11-01", "十一月", "' OR 1=1"])
def test_a_month_that_is_none_is_refused(api: testing.Api, tree: testing.Tree, month: str) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.staff["FINANCE"], "GetRepairChargeReport", parent=tree.parent, month=month)
    assert (refused.value.http, refused.value.fields) == (400, {"month"})


@pytest.mark.rule("REP-27")
def test_the_month_end_report_counts_and_sums_each_state(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    beside = testing.a_tree(database, beside=tree, zone="Europe/London")
    chance = random.Random(27)  # noqa: S311
    expected: dict[tuple[str, str], dict[int, list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(40):
        estate, state = chance.choice([tree, beside]), chance.choice(list(STATES))
        amount = Decimal(chance.randrange(1, 100_000)) / 100
        at = datetime(2026, 10, 31, 15, tzinfo=UTC) + timedelta(hours=chance.choice([0, 2, 12, 100, 719, 721, 722, 800]))
        bill(database, estate, state, str(amount), at=at)
        expected[estate.parent, at.astimezone(ZoneInfo(estate.zone)).strftime("%Y-%m")][STATES[state]].append(amount)
    for month in ("2026-10", "2026-11", "2026-12"):
        report = api.call(tree.staff["FINANCE"], "GetRepairChargeReport", parent="estates/-", month=month)
        assert report.month == month
        assert [line.estate for line in report.estates] == sorted({estate for estate, when in expected if when == month})
        for found in report.estates:
            amounts = expected[found.estate, month]
            lines = {line.state: (line.count, Decimal(line.amount.units) + Decimal(line.amount.nanos) / 10**9) for line in found.lines}
            assert lines == {state: (len(amounts[state]), sum(amounts[state], Decimal(0))) for state in STATES.values()}


@pytest.mark.rule("REP-27")
def test_the_report_of_a_month_without_charges_says_so(api: testing.Api, tree: testing.Tree) -> None:
    report = api.call(tree.staff["PROJECT_MANAGER"], "GetRepairChargeReport", parent=tree.parent, month="2026-11")
    (found,) = report.estates
    assert found.estate == tree.parent
    assert [(line.state, line.count, line.amount.units) for line in found.lines] == [(state, 0, 0) for state in STATES.values()]


@pytest.mark.rule("REP-27", "REP-37")
def test_what_fell_due_in_a_month_is_what_the_next_notice_bears(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    for amount, day in (("10.10", 1), ("20.20", 15), ("30.30", 30)):
        bill(database, tree, "DUE", amount, at=datetime(2026, 11, day, 4, tzinfo=UTC))
    bill(database, tree, "DUE", "99.00", at=datetime(2026, 12, 1, 4, tzinfo=UTC))
    bill(database, tree, "PROVISIONAL", "88.00")
    clerk = tree.staff["CASHIER"]
    on_notice = [
        found for found in listed(api, clerk, parent=tree.parent) if (found.notice_date.year, found.notice_date.month) == (2026, 12)
    ]
    (estate,) = api.call(clerk, "GetRepairChargeReport", parent=tree.parent, month="2026-11").estates
    (due,) = [line for line in estate.lines if line.state == pb.Receivable.DUE]
    assert due.count == len(on_notice) == 3
    assert (due.amount.units, due.amount.nanos) == (60, 600_000_000)
