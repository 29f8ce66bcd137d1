"""Many at once: one winner, fair turns, one effect."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.testing import Caller, Refused, published
from tests.work_orders.conftest import Desk, case_id, state


def at_once(calls: list[tuple[Any, ...]], desk: Desk) -> list[Any]:
    """All calls at the same time: replies and refusals in the order of the calls."""

    def one(call: tuple[Any, ...]) -> Any:
        who, rpc, fields = call
        for _ in range(50):
            try:
                return desk.call(who, rpc, **fields)
            except Refused as refused:
                if refused.http != 503 and refused.code != "RESOURCE_EXHAUSTED":
                    return refused
        raise AssertionError("never answered")

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(one, calls))


@pytest.mark.rule("REP-09", "REP-13")
def test_fifty_technicians_grab_the_same_order_and_one_gets_it(desk: Desk) -> None:
    technicians = [desk.tree.hire(desk.database, "TECHNICIAN") for _ in range(50)]
    repair = desk.report()
    answers = at_once([(technician, "TakeRepair", {"name": repair.name}) for technician in technicians], desk)
    winners = [answer for answer in answers if not isinstance(answer, Refused)]
    losers = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(winners) == 1
    assert {(loser.http, loser.reason) for loser in losers} == {(409, "ILLEGAL_MOVE")}
    now = desk.now(repair)
    assert now.technician == winners[0].technician
    assert [line.action for line in desk.history(repair)] == ["report", "take"]
    assert [event.type for event in published(desk.database, case_id(repair))] == ["RepairReported", "RepairTaken"]


@pytest.mark.rule("REP-13")
def test_dispatches_without_a_name_go_round_fairly_even_when_they_come_at_once(desk: Desk) -> None:
    for _ in range(2):
        desk.tree.hire(desk.database, "TECHNICIAN")
    desks = [desk.tree.staff[role] for role in ("CUSTOMER_ASSISTANT", "ENGINEERING_SUPERVISOR", "PROJECT_MANAGER")]
    repairs = [desk.report() for _ in range(12)]
    answers = at_once([(desks[n % 3], "DispatchRepair", {"name": repair.name}) for n, repair in enumerate(repairs)], desk)
    assert {state(answer) for answer in answers} == {"DISPATCHED"}
    assert sorted(Counter(answer.technician for answer in answers).values()) == [4, 4, 4]


@pytest.mark.rule("REP-13")
def test_one_after_the_other_each_technician_has_his_turn_before_anybody_has_a_second(desk: Desk) -> None:
    for _ in range(2):
        desk.tree.hire(desk.database, "TECHNICIAN")
    turns = [desk.call(desk.tree.staff["PROJECT_MANAGER"], "DispatchRepair", name=desk.report().name).technician for _ in range(6)]
    assert len(set(turns[:3])) == 3
    assert turns[3:] == turns[:3]


@pytest.mark.rule("REP-13")
def test_two_dispatchers_of_one_order_do_not_cost_anybody_a_turn_in_vain(desk: Desk) -> None:
    repair = desk.at("TAKEN")
    manager = desk.tree.staff["PROJECT_MANAGER"]
    assert desk.refused(manager, "DispatchRepair", name=repair.name).reason == "ILLEGAL_MOVE"
    with desk.database.read() as tx:
        assert tx.execute("SELECT count(*) FROM dispatch_turns WHERE estate_id = %s", (desk.tree.estate_id,)) == [(0,)]


def test_accepting_and_rejecting_at_once_ends_in_one_of_the_two(desk: Desk) -> None:
    for _ in range(5):
        repair = desk.at("DONE")
        answers = at_once([
            (desk.tree.owner, "AcceptRepair", {"name": repair.name, "rating": {"attitude": 5, "quality": 5}}),
            (desk.tree.residents["TENANT"], "RejectRepair", {"name": repair.name, "reason": "还漏"}),
        ], desk)  # fmt: skip
        assert [isinstance(answer, Refused) for answer in answers].count(True) == 1
        assert state(desk.now(repair)) in ("ACCEPTED", "REWORK")
        assert len(published(desk.database, case_id(repair), "RepairAccepted", "RepairRejected")) == 1


def test_a_report_that_is_sent_many_times_under_one_key_is_one_order(desk: Desk) -> None:
    said = {
        "parent": desk.tree.parent,
        "repair": {"unit": desk.tree.unit, "category": "LEAK", "description": "漏水"},
        "request_id": str(uuid4()),
    }
    answers = at_once([(desk.tree.owner, "ReportRepair", said)] * 10, desk)
    assert len({answer.name for answer in answers}) == 1
    assert len(desk.call(desk.tree.owner, "ListRepairs", parent=desk.tree.parent).repairs) == 1
    said["repair"] = said["repair"] | {"description": "不漏水"}
    assert desk.refused(desk.tree.owner, "ReportRepair", **said).reason == "IDEMPOTENCY_KEY_REUSED"


def test_reports_of_many_households_at_once_get_different_numbers(desk: Desk) -> None:
    def report(n: int) -> str:
        caller: Caller = desk.tree.owner if n % 2 else desk.tree.residents["TENANT"]
        return desk.report(caller).number

    with ThreadPoolExecutor(12) as threads:
        numbers = list(threads.map(report, range(36)))
    assert sorted(number[-4:] for number in numbers) == [f"{n:04d}" for n in range(1, 37)]
