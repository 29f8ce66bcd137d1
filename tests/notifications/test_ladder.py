"""Who is told of a limit that was missed, and what happens where a rung is vacant."""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

import pytest
from google.protobuf import json_format
from prometheus_client import REGISTRY

from services.chassis import clocks
from services.chassis.db import new_id
from services.chassis.testing import Tree
from steward.chassis.v1 import events_pb2 as pb
from tests.notifications.inboxes import LADDER, NUMBER, Inboxes, breached, escalated


def vacancies(role: str) -> float:
    return REGISTRY.get_sample_value("steward_ladder_vacant_total", {"service": "work_orders", "post": role}) or 0.0


@pytest.mark.rule("REP-09")
def test_a_breach_is_told_to_the_first_rung_alone(inboxes: Inboxes, tree: Tree) -> None:
    told = inboxes.happens(breached(handler=tree.technician.name), tree)

    assert told == {tree.staff["ENGINEERING_SUPERVISOR"].name: "CLOCK_BREACHED"}
    message = inboxes.of(tree.staff["ENGINEERING_SUPERVISOR"])[0]
    assert message["body"] == f"{tree.code} 报修 {NUMBER} 已超过到场时限（30分钟），请工程主管督办。"
    assert message["skipped_roles"] == []


@pytest.mark.rule("REP-09")
@pytest.mark.parametrize("rung", [2, 3, 4])
def test_each_further_rung_is_told_when_it_is_due_and_no_other(inboxes: Inboxes, tree: Tree, rung: int) -> None:
    assert inboxes.happens(escalated(rung), tree) == {tree.staff[LADDER[rung - 1]].name: "CLOCK_ESCALATED"}


def test_a_vacant_rung_is_passed_over_at_once_and_the_message_says_so(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.vacate(tree, "ENGINEERING_SUPERVISOR", "PROJECT_MANAGER")

    told = inboxes.happens(breached(), tree)

    assert told == {tree.staff["MANAGEMENT_DEPT_MANAGER"].name: "CLOCK_BREACHED"}
    message = inboxes.of(tree.staff["MANAGEMENT_DEPT_MANAGER"])[0]
    assert message["skipped_roles"] == ["ENGINEERING_SUPERVISOR", "PROJECT_MANAGER"]
    assert message["body"].endswith("请管理部经理督办。（工程主管、项目经理岗位空缺，已越级通知您。）")


def test_where_the_top_rung_is_vacant_too_nobody_is_told_and_the_platform_says_so(
    inboxes: Inboxes, tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    inboxes.vacate(tree, "MANAGEMENT_DEPT_MANAGER", "GENERAL_MANAGER")
    before = vacancies("GENERAL_MANAGER")

    with caplog.at_level(logging.WARNING):
        assert inboxes.happens(escalated(3), tree, subject=f"{tree.parent}/repairs/1") == {}

    assert vacancies("GENERAL_MANAGER") == before + 1
    assert f"{tree.parent}/repairs/1" in caplog.text
    assert "nobody holds MANAGEMENT_DEPT_MANAGER, nor GENERAL_MANAGER" in caplog.text


def test_a_vacancy_is_counted_once_however_often_the_event_arrives(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.vacate(tree, "GENERAL_MANAGER")
    before, (_, body) = vacancies("GENERAL_MANAGER"), inboxes.event(escalated(4), tree)

    for _ in range(3):
        inboxes.arrives(body)

    assert vacancies("GENERAL_MANAGER") == before + 1


def test_a_held_rung_counts_no_vacancy(inboxes: Inboxes, tree: Tree) -> None:
    before = vacancies("GENERAL_MANAGER")
    inboxes.happens(escalated(4), tree)
    assert vacancies("GENERAL_MANAGER") == before


def test_a_limit_without_a_ladder_is_told_to_nobody(inboxes: Inboxes, tree: Tree) -> None:
    assert inboxes.happens(breached(ladder=[]), tree) == {}


@pytest.mark.rule("REP-10")
def test_the_ladder_comes_with_every_event_that_the_sweep_of_the_clocks_writes(inboxes: Inboxes, tree: Tree) -> None:
    clock_id = _an_overdue_clock(inboxes, tree)
    clocks.sweep(inboxes.database)
    with inboxes.database.read() as tx:
        rows = tx.execute("SELECT type, data FROM events WHERE aggregate_id = %s ORDER BY sequence", (clock_id,))

    told = {
        kind: inboxes.happens(json_format.ParseDict(data, getattr(pb, kind)(), ignore_unknown_fields=True), tree) for kind, data in rows
    }

    assert told == {
        "ClockWarned": {tree.staff["CUSTOMER_ASSISTANT"].name: "CLOCK_URGED"},
        "ClockBreached": {tree.staff["ENGINEERING_SUPERVISOR"].name: "CLOCK_BREACHED"},
        "ClockEscalated": {tree.staff["PROJECT_MANAGER"].name: "CLOCK_ESCALATED"},
    }


def _an_overdue_clock(inboxes: Inboxes, tree: Tree) -> UUID:
    """A clock of which the warning, the breach and one further rung are due."""
    with inboxes.database.transaction() as tx:
        marks = [tx.now - timedelta(minutes=20), tx.now - timedelta(minutes=16), tx.now - timedelta(minutes=1)]
        clock = clocks.Clock(
            id=new_id(), group_id=tree.group_id, company_id=tree.company_id, estate_id=tree.estate_id, aggregate="repair",
            aggregate_id=new_id(),
            subject=f"{tree.parent}/repairs/1", name="on_site", number=NUMBER, handler=None, urgent=False, target=timedelta(minutes=20),
            working=False, warn=0.8, ladder=["ENGINEERING_SUPERVISOR", "PROJECT_MANAGER"], started_at=tx.now - timedelta(minutes=36),
            spent=timedelta(0), running_since=tx.now - timedelta(minutes=36), marks=marks, level=0, next_at=marks[0], cancelled=False,
        )  # fmt: skip
        tx.add(clock)
    return clock.id
