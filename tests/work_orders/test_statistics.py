"""The month's figures of repairs, against a count of the same rows by other means (REP-29)."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg2
import pytest
from psycopg2.extras import execute_values

from services.chassis.access import opened
from services.chassis.db import Database
from services.chassis.testing import Tree, a_tree, set_time
from services.work_orders import statistics
from steward.work_orders.v1 import repairs_pb2, statistics_pb2
from tests.conftest import Postgres
from tests.work_orders.conftest import Desk

CATEGORIES = repairs_pb2.Repair.Category.keys()[1:]
STATES = repairs_pb2.Repair.State.keys()[1:]
CHINA = ZoneInfo("Asia/Shanghai")

Row = dict[str, Any]


def invented(tree: Tree, count: int, seed: int) -> list[Row]:
    """Repairs of September to December in every state, with what the figures are made of."""
    chance = random.Random(seed)  # noqa: S311
    begins = datetime(2026, 9, 1, tzinfo=UTC)
    return [
        {
            "id": uuid4(),
            "tree": tree,
            "state": chance.choice([*STATES, "ACCEPTED", "FILED", "FILED"]),
            "category": chance.choice([*CATEGORIES, "LEAK", "LEAK", "DRAINAGE"]),
            "urgent": chance.random() < 0.3,
            "reported_at": begins + timedelta(minutes=chance.randrange(60 * 24 * 120)),
            "rework_count": chance.choice([0, 0, 0, 1, 2]),
            "attitude": chance.randint(1, 5),
            "quality": chance.randint(1, 5),
            "recurs_id": uuid4() if chance.random() < 0.2 else None,
            "breached": {name for name in ("pickup", "on_site", "resolve") if chance.random() < 0.2},
        }
        for _ in range(count)
    ]


def stored(postgres: Postgres, rows: list[Row]) -> list[Row]:
    """Written as they are, past every rule."""
    connection = psycopg2.connect(postgres.url("work_orders"))
    repairs: list[tuple[Any, ...]] = []
    clocks: list[tuple[Any, ...]] = []
    for row in rows:
        tree, at = row["tree"], row["reported_at"]
        place = (str(tree.group_id), str(tree.company_id), str(tree.estate_id))
        done = row["state"] in ("ACCEPTED", "FILED")
        repairs.append(
            (str(row["id"]), *place, tree.code, 1, 1, at, at, f"WX-{row['id']}", row["state"], "大堂", row["category"], "坏了", "APP", row["urgent"],
             "staff/x", at, at if done else None, row["rework_count"], row["attitude"] if done else None, row["quality"] if done else None,
             str(row["recurs_id"]) if row["recurs_id"] else None)
        )  # fmt: skip
        clocks += [
            (str(uuid4()), *place, "repair", str(row["id"]), "x", name, False, "1h", False, 0.8, [], at, "0", [], 2,
             at if name in row["breached"] else None, at, False)
            for name in ("pickup", "on_site", "resolve")
        ]  # fmt: skip
    with connection, connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO repairs (id, group_id, company_id, estate_id, estate_code, version, event_count, created_at, updated_at, number, state,"
            " location, category, description, channel, urgent, receiver, reported_at, accepted_at, rework_count, attitude, quality, recurs_id,"
            " unit, reporter_name, contact_phone, repair_plan, precautions, work_done, consent_method, consent_by, rating_comment, signed_by,"
            " cancel_reason, paused, pause_reason, urge_count) VALUES %s",
            repairs,
            template="(" + ", ".join(["%s"] * 23) + ", '', '', '', '', '', '', '', '', '', '', '', false, '', 0)",
        )
        execute_values(
            cursor,
            "INSERT INTO clocks (id, group_id, company_id, estate_id, aggregate, aggregate_id, subject, name, urgent, target, working, warn,"
            " ladder, started_at, spent, marks, level, breached_at, stopped_at, cancelled) VALUES %s",
            clocks,
            template="(" + ", ".join(["%s"] * 12) + ", %s::text[], %s, %s, %s::timestamptz[], %s, %s, %s, %s)",
        )
    connection.close()
    return rows


def counted(rows: list[Row], month: str) -> dict[str, Any]:
    """The same figures, by hand."""
    ours = [row for row in rows if row["reported_at"].astimezone(ZoneInfo(row["tree"].zone)).strftime("%Y-%m") == month]
    accepted = [row for row in ours if row["state"] in ("ACCEPTED", "FILED")]
    stood = Counter(row["category"] for row in ours if row["state"] != "CANCELLED")
    common = sorted(stood.items(), key=lambda item: (-item[1], CATEGORIES.index(item[0])))[:5]
    return {
        "reported": len(ours),
        "by_state": Counter(row["state"] for row in ours),
        "by_category": Counter(row["category"] for row in ours),
        "urgent": len([row for row in ours if row["urgent"]]),
        "ordinary": len([row for row in ours if not row["urgent"]]),
        "timely": len([row for row in accepted if not row["breached"] & {"on_site", "resolve"}]),
        "first_pass": len([row for row in accepted if row["rework_count"] == 0]),
        "satisfied": len([row for row in accepted if min(row["attitude"], row["quality"]) >= 4]),
        "accepted": len(accepted),
        "attitude": sum(row["attitude"] for row in accepted) / len(accepted),
        "quality": sum(row["quality"] for row in accepted) / len(accepted),
        "common": common,
        "recurring": len([row for row in ours if row["recurs_id"] and row["state"] != "CANCELLED"]),
        "stood": stood.total(),
    }


def agrees(answer: statistics_pb2.RepairStatistics, by_hand: dict[str, Any]) -> None:
    state, category = repairs_pb2.Repair.State.Name, repairs_pb2.Repair.Category.Name
    assert answer.reported == by_hand["reported"] > 0
    assert {state(line.state): line.count for line in answer.by_state} == by_hand["by_state"]
    assert {category(line.category): line.count for line in answer.by_category} == by_hand["by_category"]
    assert (answer.urgent, answer.ordinary, answer.recurring) == (by_hand["urgent"], by_hand["ordinary"], by_hand["recurring"])
    for share, count in ((answer.timeliness, "timely"), (answer.first_pass, "first_pass"), (answer.satisfaction, "satisfied")):
        assert (share.count, share.of) == (by_hand[count], by_hand["accepted"])
        assert share.share == pytest.approx(by_hand[count] / by_hand["accepted"])
    assert (answer.average_attitude, answer.average_quality) == (pytest.approx(by_hand["attitude"]), pytest.approx(by_hand["quality"]))
    assert [(category(line.category), line.share.count) for line in answer.common_faults] == by_hand["common"]
    assert all(line.share.share == pytest.approx(line.share.count / by_hand["stood"]) for line in answer.common_faults)


def figures(desk: Desk, role: str, month: str, parent: str = "") -> statistics_pb2.RepairStatistics:
    return desk.call(desk.tree.staff[role], "GetRepairStatistics", parent=parent or desk.tree.parent, month=month)


@pytest.mark.rule("REP-29")
@pytest.mark.parametrize("month", ["2026-10", "2026-11"])
def test_the_figures_of_an_estate_are_those_counted_by_hand(desk: Desk, elsewhere: Desk, postgres: Postgres, month: str) -> None:
    rows = stored(postgres, invented(desk.tree, 400, seed=1))
    stored(postgres, invented(elsewhere.tree, 50, seed=2))
    agrees(figures(desk, "PROJECT_MANAGER", month), counted(rows, month))


@pytest.mark.rule("REP-29")
def test_a_company_and_a_group_sum_over_their_estates_each_by_its_own_calendar_and_over_no_others(
    desk: Desk, elsewhere: Desk, postgres: Postgres
) -> None:
    sister = a_tree(desk.database, beside=desk.tree, zone="America/Los_Angeles")
    own = invented(desk.tree, 150, seed=3)
    rows = stored(postgres, own + invented(sister, 150, seed=4))
    stored(postgres, invented(elsewhere.tree, 50, seed=5))
    for role in ("GENERAL_MANAGER", "GROUP_OPERATIONS"):
        agrees(figures(desk, role, "2026-11", "estates/-"), counted(rows, "2026-11"))
        agrees(figures(desk, role, "2026-11"), counted(own, "2026-11"))
    agrees(figures(desk, "PROJECT_MANAGER", "2026-11", "estates/-"), counted(own, "2026-11"))


@pytest.mark.rule("REP-29")
@pytest.mark.usefixtures("moving_time")
def test_a_real_repair_counts_in_the_month_of_its_report_to_the_second(desk: Desk) -> None:
    midnight = datetime(2027, 3, 1, tzinfo=CHINA)
    set_time(desk.database, midnight - timedelta(seconds=2))
    desk.at("ACCEPTED")
    set_time(desk.database, midnight + timedelta(seconds=1))
    desk.report()
    february, march = figures(desk, "CS_SUPERVISOR", "2027-02"), figures(desk, "CS_SUPERVISOR", "2027-03")
    assert (february.reported, march.reported) == (1, 1)
    assert (february.timeliness.count, february.first_pass.count, february.satisfaction.count) == (1, 1, 1)
    assert (february.average_attitude, february.average_quality) == (5, 4)
    assert (march.timeliness.of, march.timeliness.share) == (0, 0)


def test_the_month_of_a_quiet_estate_is_all_noughts(desk: Desk) -> None:
    assert figures(desk, "PROJECT_MANAGER", "2026-11") == statistics_pb2.RepairStatistics(
        month="2026-11", timeliness={}, first_pass={}, satisfaction={}
    )


@pytest.mark.parametrize("month", ["", "2026-13", "2026-1", "november", "2026-11-01"])
def test_a_month_that_is_none_is_refused(desk: Desk, month: str) -> None:
    answer = desk.refused(desk.tree.staff["PROJECT_MANAGER"], "GetRepairStatistics", parent=desk.tree.parent, month=month)
    assert (answer.http, answer.fields) == (400, {"month"})


def test_the_front_line_and_residents_see_no_figures_and_nobody_those_of_another_group(desk: Desk, elsewhere: Desk) -> None:
    for who in (desk.tree.owner, desk.tree.technician, desk.tree.staff["CUSTOMER_ASSISTANT"]):
        assert desk.refused(who, "GetRepairStatistics", parent=desk.tree.parent, month="2026-11").http == 403
    answer = desk.refused(desk.tree.staff["GROUP_OPERATIONS"], "GetRepairStatistics", parent=elsewhere.tree.parent, month="2026-11")
    assert (answer.http, answer.reason) == (404, "ESTATE_NOT_FOUND")


def test_the_figures_are_read_by_index_at_every_level(desk: Desk, postgres: Postgres) -> None:
    """On a few thousand rows of others, PostgreSQL chooses the index of the estate, the company or the group, never a full scan."""
    others = a_tree(desk.database)
    stored(postgres, invented(others, 4000, seed=6))
    stored(postgres, invented(desk.tree, 100, seed=7))
    postgres.sql("work_orders", "ANALYZE repairs, clocks")
    for role in ("PROJECT_MANAGER", "GENERAL_MANAGER", "GROUP_OPERATIONS"):
        plan = explained(desk.database, desk.tree, role)
        assert "Seq Scan on repairs" not in plan, plan
        assert "repairs_" in plan, plan


def explained(database: Database, tree: Tree, role: str) -> str:
    principal = tree.staff[role].principal
    with database.read(principal, opened(principal, frozenset({role}))) as tx:
        statement = statistics.query(tx, "2026-11").compile(database.engine, compile_kwargs={"literal_binds": True})
        return "\n".join(row[0] for row in tx.execute("EXPLAIN " + str(statement).replace("%%", "%")))
