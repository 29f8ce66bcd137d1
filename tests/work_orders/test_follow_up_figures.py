"""Rates and the month's table of follow-ups against a count of the same rows by other means, and the plan (FUP-07, 09, 10, 21, 26)."""

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

from services.chassis.testing import Tree, a_tree, set_time
from services.work_orders import policies
from steward.work_orders.v1 import followups_pb2 as pb
from steward.work_orders.v1 import repairs_pb2
from tests.conftest import Postgres
from tests.work_orders.asking import CHINA, DAY, HOUR, NOON, SATISFIED, UNHAPPY, asked, charged, filed, follow_up_of, name, override
from tests.work_orders.conftest import Desk

pytestmark = pytest.mark.usefixtures("moving_time")

CLASSES = pb.FollowUp.Class.keys()[1:]
REASONS = pb.FollowUp.Reason.keys()[1:]
GRADES = pb.FollowUp.Grade.keys()[1:]

Row = dict[str, Any]


def invented(tree: Tree, count: int, seed: int, **fixed: Any) -> list[Row]:
    """Follow-ups of October to December in every state, with several rounds, technicians and grades."""
    chance = random.Random(seed)  # noqa: S311
    crew, begins = [uuid4() for _ in range(4)], datetime(2026, 10, 1, tzinfo=UTC)
    rows = []
    for _ in range(count):
        state = chance.choice(["PENDING", "DISSATISFIED", "UNREACHED", "EXCUSED", "CLOSED", "CLOSED", "REVIEWED"])
        answers = (
            [chance.choice(GRADES) for _ in range(chance.choice([1, 1, 2]))] if state in ("DISSATISFIED", "CLOSED", "REVIEWED") else []
        )
        rows.append(
            {
                "id": uuid4(),
                "tree": tree,
                "state": state,
                "class": chance.choice(CLASSES),
                "technician": chance.choice(crew),
                "returned": begins + timedelta(minutes=chance.randrange(60 * 24 * 90)),
                "valid": bool(answers) and chance.random() < 0.9,  # some were found untrue by a spot check
                "answers": [(grade, chance.choice(REASONS) if grade == "NOT_SATISFIED" else "") for grade in answers],
            }
            | fixed
        )
    return rows


def stored(postgres: Postgres, rows: list[Row]) -> list[Row]:
    """Written as they are, past every rule."""
    repairs: list[tuple[Any, ...]] = []
    follow_ups: list[tuple[Any, ...]] = []
    attempts: list[tuple[Any, ...]] = []
    for row in rows:
        tree, at, repair = row["tree"], row["returned"], str(uuid4())
        place = (str(tree.group_id), str(tree.company_id), str(tree.estate_id))
        repairs.append((repair, *place, tree.code, at, at, f"WX-{repair}", at))
        follow_ups.append(
            (str(row["id"]), *place, tree.code, at, at, f"HF-{row['id']}", row["state"], repair, str(row["technician"]), row["class"], at, at,
             row["valid"])
        )  # fmt: skip
        attempts += [
            (str(uuid4()), *place, str(row["id"]), place_, at + HOUR, "staff/x", True, grade, reason)
            for place_, (grade, reason) in enumerate(row["answers"], 1)
        ]
        attempts.append((str(uuid4()), *place, str(row["id"]), 1, at + HOUR / 2, "staff/x", False, "", ""))
    connection = psycopg2.connect(postgres.url("work_orders"))
    with connection, connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO repairs (id, group_id, company_id, estate_id, estate_code, created_at, updated_at, number, reported_at, version,"
            " event_count, state, location, category, description, channel, urgent, receiver, rework_count, unit, reporter_name,"
            " contact_phone, repair_plan, precautions, work_done, consent_method, consent_by, rating_comment, signed_by, cancel_reason,"
            " paused, pause_reason, urge_count) VALUES %s",
            repairs,
            template="("
            + ", ".join(["%s"] * 9)
            + ", 1, 1, 'FILED', '大堂', 'LEAK', '坏了', 'APP', false, 'staff/x', 0, '', '', '', '', '', '',"
            " '', '', '', '', '', false, '', 0)",
        )
        execute_values(
            cursor,
            "INSERT INTO follow_ups (id, group_id, company_id, estate_id, estate_code, created_at, updated_at, number, state, repair_id,"
            " technician_id, follow_up_class, returned_at, due_at, valid, version, event_count, repair_number, round) VALUES %s",
            follow_ups,
            template="(" + ", ".join(["%s"] * 15) + ", 1, 1, 'WX-1', 1)",
        )
        execute_values(
            cursor,
            "INSERT INTO follow_up_attempts (id, group_id, company_id, estate_id, follow_up_id, round, attempted_at, actor, reached, grade,"
            " reason, method, dealt_with, opinion) VALUES %s",
            attempts,
            template="(" + ", ".join(["%s"] * 11) + ", 'TELEPHONE', true, '')",
        )
    connection.close()
    return rows


def of_month(rows: list[Row], month: str) -> list[Row]:
    return [row for row in rows if row["returned"].astimezone(ZoneInfo(row["tree"].zone)).strftime("%Y-%m") == month]


def by_hand(rows: list[Row]) -> tuple[int, int, int, int]:
    """(orders, valid, excused, dissatisfied)."""
    valid = [row for row in rows if row["valid"]]
    unhappy = [row for row in valid if any(grade == "NOT_SATISFIED" for grade, _ in row["answers"])]
    return len(rows), len(valid), len([row for row in rows if row["state"] == "EXCUSED" and not row["valid"]]), len(unhappy)


def agrees(line: pb.FollowUpTable.Line, rows: list[Row]) -> None:
    orders, valid, excused, unhappy = by_hand(rows)
    assert (line.orders, line.valid, line.excused, line.dissatisfied) == (orders, valid, excused, unhappy)
    assert line.rate == pytest.approx(valid / (orders - excused) if orders > excused else 1)
    assert line.satisfaction == pytest.approx(1 - unhappy / valid if valid else 1)


def table(desk: Desk, role: str, parent: str = "") -> pb.FollowUpTable:
    return desk.call(desk.tree.staff[role], "GetFollowUpTable", parent=parent or desk.tree.parent, month="2026-11")


@pytest.mark.rule("FUP-26")
def test_the_months_table_is_the_one_counted_by_hand(desk: Desk, elsewhere: Desk, postgres: Postgres) -> None:
    """By class, department and technician, with the reasons of those who were not satisfied."""
    rows = of_month(stored(postgres, invented(desk.tree, 400, seed=1)), "2026-11")
    stored(postgres, invented(elsewhere.tree, 50, seed=2))
    found = table(desk, "CS_SUPERVISOR")
    agrees(found.total, rows)
    assert [pb.FollowUp.Class.Name(getattr(line, "class")) for line in found.by_class] == CLASSES
    for line, kind in zip(found.by_class, CLASSES, strict=True):
        agrees(line, [row for row in rows if row["class"] == kind])
    [engineering] = found.by_department
    assert engineering.department == pb.FollowUp.ENGINEERING
    agrees(engineering, rows)
    assert {line.technician for line in found.by_technician} == {f"staff/{row['technician']}" for row in rows}
    assert [line.orders for line in found.by_technician] == sorted((line.orders for line in found.by_technician), reverse=True)
    for line in found.by_technician:
        agrees(line, [row for row in rows if f"staff/{row['technician']}" == line.technician])
    reasons = Counter(reason for row in rows for _, reason in row["answers"] if reason)
    assert {pb.FollowUp.Reason.Name(line.reason): line.count for line in found.reasons} == reasons
    assert [line.count for line in found.reasons] == sorted(reasons.values(), reverse=True)
    assert all(line.share == pytest.approx(line.count / reasons.total()) for line in found.reasons)


@pytest.mark.rule("FUP-26")
def test_a_company_and_a_group_sum_over_their_estates_each_by_its_own_calendar(desk: Desk, elsewhere: Desk, postgres: Postgres) -> None:
    sister = a_tree(desk.database, beside=desk.tree, zone="America/Los_Angeles")
    own = stored(postgres, invented(desk.tree, 120, seed=3))
    both = own + stored(postgres, invented(sister, 120, seed=4))
    stored(postgres, invented(elsewhere.tree, 40, seed=5))
    for role in ("GENERAL_MANAGER", "GROUP_OPERATIONS"):
        agrees(table(desk, role, "estates/-").total, of_month(both, "2026-11"))
    agrees(table(desk, "PROJECT_MANAGER", "estates/-").total, of_month(own, "2026-11"))


@pytest.mark.rule("FUP-26")
def test_the_table_is_for_supervisors_and_managers_and_a_quiet_month_is_all_noughts(desk: Desk) -> None:
    for who in (desk.tree.owner, desk.tree.technician, desk.tree.staff["EARLY_SHIFT_CLERK"], desk.tree.staff["CUSTOMER_ASSISTANT"]):
        assert desk.refused(who, "GetFollowUpTable", parent=desk.tree.parent, month="2026-11").http == 403
    quiet = table(desk, "PROJECT_MANAGER")
    assert (quiet.total.orders, quiet.total.rate, quiet.total.satisfaction) == (0, 1, 1)
    assert [*quiet.by_class, *quiet.by_department, *quiet.by_technician, *quiet.reasons] == []
    for month in ("", "2026-13", "november"):
        answer = desk.refused(desk.tree.staff["PROJECT_MANAGER"], "GetFollowUpTable", parent=desk.tree.parent, month=month)
        assert (answer.http, answer.fields) == (400, {"month"})


@pytest.mark.rule("FUP-26")
def test_real_answers_stand_in_the_table_with_their_reasons(desk: Desk) -> None:
    asked(desk)
    unhappy = asked(desk, **(UNHAPPY | {"reason": "TIMELINESS"}))
    repair = desk.call(desk.tree.staff["PROJECT_MANAGER"], "GetRepair", name=unhappy.repair)
    set_time(desk.database, NOON + DAY)
    again = follow_up_of(desk, desk.carry(repair, "FILED"))
    desk.call(desk.tree.staff["CS_SUPERVISOR"], "AnswerFollowUp", name=again.name, **SATISFIED)
    found = table(desk, "CS_SUPERVISOR")
    assert (found.total.orders, found.total.valid, found.total.dissatisfied, found.total.satisfaction) == (2, 2, 1, 0.5)
    assert [(pb.FollowUp.Reason.Name(line.reason), line.count, line.share) for line in found.reasons] == [("TIMELINESS", 1, 1)]
    assert [line.technician for line in found.by_technician] == [desk.tree.technician.name]


# --- rates and their targets -----------------------------------------------------------------------------------------------


def rates(desk: Desk, month: str = "2026-11") -> dict[str, Any]:
    answer = desk.call(desk.tree.staff["CS_SUPERVISOR"], "GetFollowUpRates", parent=desk.tree.parent, month=month)
    return {pb.FollowUp.Class.Name(getattr(line, "class")): line for line in answer.rates}


def with_valid(desk: Desk, postgres: Postgres, kind: str, valid: int, orders: int) -> Any:
    rows = invented(desk.tree, orders, seed=6, state="CLOSED", answers=[("SATISFIED", "")], returned=NOON) if orders else []
    for place, row in enumerate(rows):
        row |= {"class": kind, "valid": place < valid, "state": "CLOSED" if place < valid else "PENDING"}
        row["answers"] = row["answers"] if place < valid else []
    stored(postgres, rows)
    return rates(desk)[kind]


@pytest.mark.rule("FUP-09", "X-01")
@pytest.mark.parametrize("kind", ["RECTIFICATION", "PUBLIC_AREA", "COMMUNICATION"])
@pytest.mark.parametrize(("valid", "met"), [(89, False), (90, True), (91, True)])
def test_of_reports_ninety_in_a_hundred_are_enough(desk: Desk, postgres: Postgres, kind: str, valid: int, met: bool) -> None:
    line = with_valid(desk, postgres, kind, valid, 100)
    assert (line.orders, line.valid, line.rate, line.target, line.met) == (100, valid, valid / 100, 0.9, met)


@pytest.mark.rule("FUP-07", "FUP-14", "X-01")
@pytest.mark.parametrize(("valid", "met"), [(99, False), (100, True)])
def test_of_paid_home_repairs_every_one_is_followed_up(desk: Desk, postgres: Postgres, valid: int, met: bool) -> None:
    """Below and at a hundred in a hundred; above there is nothing."""
    line = with_valid(desk, postgres, "HOME_REPAIR", valid, 100)
    assert (line.rate, line.target, line.met) == (valid / 100, 1.0, met)


@pytest.mark.rule("FUP-07")
def test_a_charged_repair_in_a_unit_counts_as_home_repair_and_misses_its_target_until_it_is_asked(desk: Desk) -> None:
    follow_up = follow_up_of(desk, filed(desk, repair=charged(desk, kind="LABOUR")))
    assert (rates(desk)["HOME_REPAIR"].orders, rates(desk)["HOME_REPAIR"].met) == (1, False)
    assert rates(desk)["RECTIFICATION"].orders == 0
    desk.call(desk.tree.staff["BUILDING_BUTLER"], "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert rates(desk)["HOME_REPAIR"].met


@pytest.mark.rule("FUP-09")
def test_the_target_is_the_estates_own_where_it_has_one(desk: Desk, postgres: Postgres) -> None:
    override(desk, policies.FOLLOWUP_RATE_REPAIR, 0.95)
    assert not with_valid(desk, postgres, "RECTIFICATION", 94, 100).met
    assert with_valid(desk, postgres, "PUBLIC_AREA", 95, 100).met


@pytest.mark.rule("FUP-10", "FUP-27")
def test_only_who_was_reached_and_answered_counts_and_who_is_confirmed_as_unreachable_leaves_the_denominator(desk: Desk) -> None:
    """Ten free repairs, nine answered one after the other, the tenth tried three times and excused."""
    clerk, follow_ups = desk.tree.staff["EARLY_SHIFT_CLERK"], [follow_up_of(desk, filed(desk)) for _ in range(10)]

    def rate() -> Any:
        return rates(desk)["RECTIFICATION"]

    assert (rate().orders, rate().valid, rate().rate, rate().met) == (10, 0, 0, False)
    for follow_up in follow_ups[:8]:
        answered = desk.call(clerk, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
        assert answered.valid
    assert (rate().orders, rate().valid, rate().rate, rate().met) == (10, 8, 0.8, False)
    assert desk.call(clerk, "AnswerFollowUp", name=follow_ups[8].name, **UNHAPPY).valid, "an unhappy answer is one"
    assert (rate().valid, rate().rate, rate().met) == (9, 0.9, True)
    for day, hour in ((23, 14), (23, 18), (24, 10)):
        set_time(desk.database, NOON.replace(day=day, hour=hour))
        missed = desk.call(clerk, "MissFollowUp", name=follow_ups[9].name, method="TELEPHONE")
        assert not missed.valid
    assert (rate().valid, rate().excused, rate().rate) == (9, 0, 0.9), "until the supervisor confirms it"
    desk.call(desk.tree.staff["CS_SUPERVISOR"], "ExcuseFollowUp", name=follow_ups[9].name, reason="搬走了")
    assert (rate().orders, rate().valid, rate().excused, rate().rate) == (10, 9, 1, 1.0)
    assert {line.orders for line in rates(desk, "2026-10").values()} == {0}


@pytest.mark.rule("FUP-10")
def test_an_order_counts_in_the_month_in_which_it_first_came_back(desk: Desk) -> None:
    november = NOON.replace(day=30)
    unhappy = asked(desk, november, **UNHAPPY)
    repair = desk.call(desk.tree.staff["PROJECT_MANAGER"], "GetRepair", name=unhappy.repair)
    set_time(desk.database, november + DAY)
    desk.carry(repair, "FILED")
    assert (rates(desk)["RECTIFICATION"].valid, rates(desk, "2026-12")["RECTIFICATION"].orders) == (1, 0)


# --- the plan ----------------------------------------------------------------------------------------------------------------


def planned(desk: Desk, role: str = "CS_SUPERVISOR", **how: Any) -> pb.ListPlannedFollowUpsResponse:
    return desk.call(desk.tree.staff[role], "ListPlannedFollowUps", **({"parent": desk.tree.parent} | how))


@pytest.mark.rule("FUP-21")
def test_the_plan_puts_the_problems_that_are_reported_most_first_then_the_earliest_due(desk: Desk) -> None:
    set_time(desk.database, NOON - 91 * DAY)
    for _ in range(4):
        desk.report(category="ELECTRICAL")  # too long ago to make it a frequent one
    set_time(desk.database, NOON - DAY)
    for category, count in (("DRAINAGE", 3), ("LEAK", 1), ("WALLS_AND_FLOORS", 4)):
        for _ in range(count):
            desk.report(category=category)
    withdrawn = desk.report(category="LEAK")
    desk.call(desk.tree.owner, "CancelRepair", name=withdrawn.name, reason="报错了")
    made = {}
    for category, at in (("LEAK", NOON), ("DRAINAGE", NOON + DAY), ("DRAINAGE", NOON), ("ELECTRICAL", NOON)):
        set_time(desk.database, at)
        made[category, at] = follow_up_of(desk, filed(desk, at, desk.report(category=category))).name
    answered = asked(desk, repair=None)
    lines = planned(desk).planned_follow_ups
    category = repairs_pb2.Repair.Category.Name
    assert [(line.follow_up.name, category(line.category), line.frequency) for line in lines] == [
        (made["DRAINAGE", NOON], "DRAINAGE", 5),
        (made["DRAINAGE", NOON + DAY], "DRAINAGE", 5),
        (made["LEAK", NOON], "LEAK", 3),
        (made["ELECTRICAL", NOON], "ELECTRICAL", 1),
    ], "WALLS_AND_FLOORS has nothing to ask"
    assert name(answered) == "CLOSED"
    pages, token = [], ""
    for _ in range(3):
        page = planned(desk, page_size=2, page_token=token)
        pages.append([line.follow_up.name for line in page.planned_follow_ups])
        token = page.next_page_token
        if not token:
            break
    assert pages == [[made["DRAINAGE", NOON], made["DRAINAGE", NOON + DAY]], [made["LEAK", NOON], made["ELECTRICAL", NOON]]]
    answer = desk.refused(desk.tree.staff["CS_SUPERVISOR"], "ListPlannedFollowUps", parent=desk.tree.parent, page_token="x")  # noqa: S106
    assert (answer.http, answer.reason) == (400, "INVALID_PAGE_TOKEN")


@pytest.mark.rule("FUP-21")
def test_customer_service_sees_the_plan_of_its_estates_and_each_his_own_part(desk: Desk, elsewhere: Desk) -> None:
    ours, theirs = follow_up_of(desk, filed(desk)), follow_up_of(elsewhere, filed(elsewhere))
    butler = desk.tree.staff["BUILDING_BUTLER"]
    desk.call(desk.tree.staff["CS_SUPERVISOR"], "DelegateFollowUp", name=ours.name, assignee=butler.name, reason="请您回访")
    for role in ("CUSTOMER_ASSISTANT", "GROUP_OPERATIONS"):
        assert [line.follow_up.name for line in planned(desk, role, parent="estates/-").planned_follow_ups] == [ours.name]
    assert [line.follow_up.name for line in planned(desk, "BUILDING_BUTLER", assignee=butler.name).planned_follow_ups] == [ours.name]
    assert not planned(desk, "BUILDING_BUTLER", assignee=desk.tree.staff["EARLY_SHIFT_CLERK"].name).planned_follow_ups
    assert theirs.name
    for who in (desk.tree.owner, desk.tree.technician):
        assert desk.refused(who, "ListPlannedFollowUps", parent=desk.tree.parent).http == 403


def test_the_months_table_of_the_estates_own_zone_ends_at_its_midnight(desk: Desk) -> None:
    midnight = datetime(2026, 12, 1, tzinfo=CHINA)
    filed(desk, midnight - 5 * HOUR)
    set_time(desk.database, midnight - timedelta(seconds=20))
    accepted = desk.at("ACCEPTED")
    set_time(desk.database, midnight + timedelta(seconds=1))
    desk.step(accepted)
    assert table(desk, "CS_SUPERVISOR").total.orders == 1
