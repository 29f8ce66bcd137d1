"""The paid service repair record: orders with charges, what they come to, and what billing says of them (REP-02)."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.type.date_pb2 import Date

from services.chassis import reactions
from services.chassis.testing import event_body, set_time
from steward.billing_reminders.v1 import events_pb2 as billing
from steward.work_orders.v1 import records_pb2 as pb
from steward.work_orders.v1 import repairs_pb2
from tests.work_orders.asking import CHINA, NOON, charged
from tests.work_orders.conftest import Desk, case_id, instant

pytestmark = pytest.mark.usefixtures("moving_time")


def record(desk: Desk, role: str = "CASHIER", **how: Any) -> pb.ListPaidRepairsResponse:
    return desk.call(desk.tree.staff[role], "ListPaidRepairs", **({"parent": desk.tree.parent} | how))


def amount(money: Any) -> Decimal:
    return Decimal(money.units) + Decimal(money.nanos) / 1_000_000_000


@pytest.mark.rule("REP-02")
def test_the_record_has_order_date_unit_items_prices_total_and_technician(desk: Desk) -> None:
    set_time(desk.database, NOON)
    desk.at("ON_SITE")  # free
    repair = charged(desk, item="角阀", quantity=2, unit_price={"currency_code": "CNY", "units": 35, "nanos": 500_000_000})
    done = desk.carry(charged(desk, repair, item="工时", kind="LABOUR"), "DONE")
    [line] = record(desk).paid_repairs
    assert (line.repair, line.number, line.unit, line.technician) == (repair.name, repair.number, desk.tree.unit, desk.tree.technician.name)
    assert (instant(line.report_time), instant(line.completion_time)) == (instant(done.report_time), instant(done.completion_time))
    assert [(c.item, c.quantity, amount(c.unit_price), repairs_pb2.Charge.Kind.Name(c.kind)) for c in line.charges] == [
        ("角阀", 2, Decimal("35.5"), "MATERIAL"),
        ("工时", 1, Decimal(35), "LABOUR"),
    ]
    assert amount(line.total) == amount(record(desk).total) == Decimal(106)
    assert repairs_pb2.Repair.State.Name(line.state) == "DONE"


@pytest.mark.rule("REP-02")
def test_the_record_agrees_with_a_count_by_hand_page_by_page_and_by_month_unit_and_technician(desk: Desk, elsewhere: Desk) -> None:
    chance, neighbours = random.Random(7), list(desk.tree.units)[-1]  # noqa: S311
    other = desk.tree.hire(desk.database, "TECHNICIAN")
    rows: list[tuple[str, str, str, str, Decimal]] = []
    for place in range(14):
        set_time(desk.database, datetime(2026, 11 if place < 9 else 12, 2 + place, 23, 30, tzinfo=CHINA))
        unit, who = (desk.tree.unit, desk.tree.technician) if chance.random() < 0.6 else (neighbours, other)
        repair = desk.report(desk.tree.staff["CUSTOMER_ASSISTANT"], unit=unit, contact_phone="13800000000")
        for rpc in ("TakeRepair", "ArriveRepair"):
            desk.call(who, rpc, name=repair.name)
        total = Decimal(0)
        for _ in range(chance.choice([0, 1, 1, 2])):
            quantity, cents = chance.randint(1, 9), chance.randint(0, 99_999)
            price = {"currency_code": "CNY", "units": cents // 100, "nanos": cents % 100 * 10_000_000}
            desk.call(
                who, "ChargeRepair", name=repair.name, charge={"item": "料", "quantity": quantity, "unit_price": price, "reason": "更换"}
            )
            total += quantity * Decimal(cents) / 100
        if desk.now(repair).charges:
            rows.append((repair.name, f"2026-{11 if place < 9 else 12}", unit, who.name, total))
    set_time(elsewhere.database, NOON)
    charged(elsewhere)
    assert len(rows) > 5

    def agrees(how: dict[str, str], expected: list[tuple[str, str, str, str, Decimal]]) -> None:
        token, found = "", []
        while True:
            page = record(desk, page_size=3, page_token=token, **how)
            assert (page.total_size, amount(page.total)) == (len(expected), sum((row[4] for row in expected), Decimal(0)))
            found += [(line.repair, amount(line.total)) for line in page.paid_repairs]
            token = page.next_page_token
            if not token:
                break
        assert found == [(row[0], row[4]) for row in reversed(expected)]

    agrees({}, rows)
    for month in ("2026-11", "2026-12", "2027-01"):
        agrees({"month": month}, [row for row in rows if row[1] == month])
    agrees({"unit": neighbours}, [row for row in rows if row[2] == neighbours])
    agrees({"technician": other.name}, [row for row in rows if row[3] == other.name])
    assert record(desk, "GROUP_OPERATIONS", parent="estates/-").total_size == len(rows)
    assert desk.refused(desk.tree.staff["CASHIER"], "ListPaidRepairs", parent=desk.tree.parent, technician="x").fields == {"technician"}
    assert desk.refused(desk.tree.staff["CASHIER"], "ListPaidRepairs", parent=desk.tree.parent, month="13").fields == {"month"}


def billed(desk: Desk, repair: repairs_pb2.Repair, event: Any, sequence: int, **fields: Any) -> bytes:
    message = event(receivable=str(RECEIVABLE), number="YS-20261123-0001", repair=case_id(repair), **fields)
    return event_body(message, tree=desk.tree, aggregate="receivable", aggregate_id=RECEIVABLE, sequence=sequence, id=uuid4())


RECEIVABLE = UUID(int=7)
NOTICE = {"notice_date": Date(year=2026, month=12, day=1), "due_date": Date(year=2026, month=12, day=15)}


@pytest.mark.rule("REP-02")
def test_the_record_shows_what_billing_has_said_last_in_whatever_order_it_is_heard(desk: Desk) -> None:
    set_time(desk.database, NOON)
    repair = charged(desk)

    def payment() -> tuple[str, str]:
        [line] = record(desk).paid_repairs
        return pb.PaidRepair.Payment.Name(line.payment), line.receivable_number

    assert payment() == ("NOT_BILLED", "")
    raised = billed(desk, repair, billing.ReceivableRaised, 1)
    due = billed(desk, repair, billing.ReceivableFellDue, 2, **NOTICE)
    void = billed(desk, repair, billing.ReceivableVoided, 3)
    reactions.handle(desk.database, "work_orders", raised)
    assert payment() == ("PROVISIONAL", "YS-20261123-0001")
    reactions.handle(desk.database, "work_orders", due)
    assert payment()[0] == "DUE"
    [line] = record(desk).paid_repairs
    assert (line.notice_date, line.due_date) == (NOTICE["notice_date"], NOTICE["due_date"])
    for body in (void, due, raised, void):
        reactions.handle(desk.database, "work_orders", body)
    assert payment()[0] == "VOID"
    chance = random.Random(3)  # noqa: S311
    for _ in range(5):
        other = charged(desk)
        bodies = [
            billed(desk, other, event, n)
            for n, event in enumerate((billing.ReceivableRaised, billing.ReceivableVoided, billing.ReceivableFellDue), 1)
        ]
        chance.shuffle(bodies)
        for body in [*bodies, *bodies]:
            reactions.handle(desk.database, "work_orders", body)
        assert pb.PaidRepair.Payment.Name(record(desk).paid_repairs[0].payment) == "DUE"


@pytest.mark.rule("REP-02")
def test_the_record_is_for_the_desk_the_cashier_and_those_above_and_not_for_residents_or_technicians(desk: Desk) -> None:
    for role in ("CUSTOMER_ASSISTANT", "CASHIER", "ARCHIVIST", "FINANCE"):
        assert record(desk, role).total_size == 0
    for who in (desk.tree.owner, desk.tree.technician, desk.tree.staff["SECURITY_GUARD"]):
        assert desk.refused(who, "ListPaidRepairs", parent=desk.tree.parent).http == 403


def test_a_repair_of_the_last_half_hour_of_a_month_is_of_that_month(desk: Desk) -> None:
    set_time(desk.database, datetime(2026, 12, 1, tzinfo=CHINA) - timedelta(minutes=30))
    repair = charged(desk)
    assert [line.repair for line in record(desk, month="2026-11").paid_repairs] == [repair.name]
    assert record(desk, month="2026-12").total_size == 0
