"""The grades of accepted repairs and what they add up to."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import testing
from services.chassis.db import Database
from services.chassis.errors import InvalidInput
from services.chassis.reactions import Failed, handle
from services.surveys.answers import SatisfactionAnswer, instants
from services.surveys.policies import SATISFIED_FROM
from steward.work_orders.v1 import events_pb2 as work_orders
from tests import streams

SERVICE = "surveys"
NOVEMBER = datetime(2026, 11, 22, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(database_of: Any) -> Database:
    return database_of(SERVICE)


@pytest.fixture(scope="module")
def api(serving_of: Any) -> testing.Api:
    return serving_of(SERVICE)[1]


@pytest.fixture
def tree(database: Database) -> testing.Tree:
    return testing.a_tree(database)


@pytest.fixture(scope="module")
def any_tree(database: Database) -> testing.Tree:
    return testing.a_tree(database)


def accepted(
    tree: testing.Tree, attitude: int, quality: int, *, repair: UUID | None = None, sequence: int = 9, at: datetime = NOVEMBER,
    technician: str = "", public: bool = False,
) -> bytes:  # fmt: skip
    message = work_orders.RepairAccepted(
        unit_id="" if public else str(tree.units[tree.unit]), technician=technician, attitude=attitude, quality=quality
    )
    return testing.event_body(message, tree=tree, aggregate="repair", aggregate_id=repair or uuid4(), sequence=sequence, at=at)


def asked(api: testing.Api, tree: testing.Tree, period: str = "2026-11", **fields: Any) -> Any:
    return api.call(tree.staff["QUALITY_MANAGER"], "GetSatisfaction", parent=tree.parent, period=period, **fields)


@pytest.mark.rule("REP-19", "REP-29")
def test_satisfaction_is_what_households_answered(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    chance = random.Random(29)  # noqa: S311
    grades = [(chance.randint(1, 5), chance.randint(1, 5)) for _ in range(30)]
    for attitude, quality in grades:
        handle(database, SERVICE, accepted(tree, attitude, quality))
    found = asked(api, tree)
    assert (found.estate, found.period, found.answers) == (tree.parent, "2026-11", 30)
    assert found.average_attitude == pytest.approx(sum(a for a, _ in grades) / 30)
    assert found.average_quality == pytest.approx(sum(q for _, q in grades) / 30)
    satisfied = [1 for a, q in grades if a >= 4 and q >= 4]
    assert found.satisfied == len(satisfied)
    assert found.satisfied_share == pytest.approx(len(satisfied) / 30)


@pytest.mark.rule("REP-29")
@pytest.mark.parametrize(("attitude", "quality", "satisfied"), [(3, 5, 0), (5, 3, 0), (4, 4, 1), (5, 5, 1)])
def test_a_household_is_satisfied_when_both_grades_are_at_least_four(
    database: Database, api: testing.Api, tree: testing.Tree, attitude: int, quality: int, satisfied: int
) -> None:
    handle(database, SERVICE, accepted(tree, attitude, quality))
    found = asked(api, tree)
    assert (found.satisfied, found.satisfied_from) == (satisfied, 4)


def test_an_estate_may_ask_for_more(database: Database, api: testing.Api, tree: testing.Tree, serving_of: Any) -> None:
    handle(database, SERVICE, accepted(tree, 4, 5))
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO policy_overrides (key, node_id, value, changed_by) VALUES (%s, %s, '5', 'staff/test')",
            (SATISFIED_FROM.key, tree.company_id),
        )
    serving_of(SERVICE)[0].databases[SERVICE].policies = type(database.policies)()  # the server's snapshot is read anew
    found = asked(api, tree)
    assert (found.satisfied, found.satisfied_from) == (0, 5)
    with pytest.raises(InvalidInput):
        SATISFIED_FROM.check(1)


def test_a_period_without_answers_has_no_averages(api: testing.Api, tree: testing.Tree) -> None:
    found = asked(api, tree)
    assert found.answers == 0
    assert [found.HasField(name) for name in ("average_attitude", "average_quality", "satisfied_share")] == [False, False, False]


@pytest.mark.rule("REP-22", "REP-29")
def test_the_grade_of_a_manager_for_a_public_area_is_no_customers_opinion(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    handle(database, SERVICE, accepted(tree, 5, 5, public=True))
    handle(database, SERVICE, accepted(tree, 2, 2))
    found = asked(api, tree)
    assert (found.answers, found.average_attitude) == (1, 2)


def test_an_answer_counts_in_the_period_of_the_estates_zone(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    last = datetime(2026, 9, 30, 15, 59, 59, tzinfo=UTC)  # 23:59:59 in Shanghai
    handle(database, SERVICE, accepted(tree, 5, 5, at=last))
    handle(database, SERVICE, accepted(tree, 5, 5, at=last + timedelta(seconds=1)))
    answers = {period: asked(api, tree, period).answers for period in ("2026-09", "2026-10", "2026-Q3", "2026-Q4", "2026", "2025")}
    assert answers == {"2026-09": 1, "2026-10": 1, "2026-Q3": 1, "2026-Q4": 1, "2026": 2, "2025": 0}


def test_the_work_of_one_technician_can_be_asked_for(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    handle(database, SERVICE, accepted(tree, 5, 5, technician=tree.technician.name))
    handle(database, SERVICE, accepted(tree, 1, 1, technician=f"staff/{uuid4()}"))
    found = asked(api, tree, technician=tree.technician.name)
    assert (found.answers, found.average_quality) == (1, 5)
    with pytest.raises(testing.Refused) as refused:
        asked(api, tree, technician="somebody")
    assert (refused.value.http, refused.value.fields) == (400, {"technician"})


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_newest_acceptance_counts_in_whatever_order_they_come(database: Database, any_tree: testing.Tree, data: st.DataObject) -> None:
    repair = uuid4()
    grades = data.draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4))
    bodies = [
        accepted(any_tree, *grade, repair=repair, sequence=9 + 5 * n, at=NOVEMBER + timedelta(days=n), public=n % 2 == 1)
        for n, grade in enumerate(grades)
    ]
    streams.arrive(database, SERVICE, streams.shuffled(data, bodies, repeated=3))
    with database.read() as tx:
        kept = tx.session.execute(sa.select(SatisfactionAnswer).where(SatisfactionAnswer.id == repair)).scalar_one()
    assert (kept.attitude, kept.quality) == grades[-1]
    assert kept.answered_at == NOVEMBER + timedelta(days=len(grades) - 1)
    assert (kept.unit_id is None) == (len(grades) % 2 == 0)


def test_a_grade_that_is_none_is_not_kept(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    with pytest.raises(Failed):
        handle(database, SERVICE, accepted(tree, 0, 6))
    assert asked(api, tree).answers == 0


@pytest.mark.parametrize("role", ["OWNER", "TENANT", "TECHNICIAN", "CASHIER", "CUSTOMER_ASSISTANT"])
def test_grades_are_for_those_who_lead(api: testing.Api, tree: testing.Tree, role: str) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.by_role(role), "GetSatisfaction", parent=tree.parent, period="2026-11")
    assert refused.value.http == 403


@pytest.mark.parametrize("role", ["CS_SUPERVISOR", "PROJECT_MANAGER", "QUALITY_MANAGER", "GENERAL_MANAGER", "GROUP_OPERATIONS"])
def test_those_who_lead_see_the_grades_of_their_estates_only(database: Database, api: testing.Api, tree: testing.Tree, role: str) -> None:
    handle(database, SERVICE, accepted(tree, 5, 5))
    assert api.call(tree.by_role(role), "GetSatisfaction", parent=tree.parent, period="2026-11").answers == 1
    other = testing.a_tree(database)
    with pytest.raises(testing.Refused) as refused:
        api.call(other.by_role(role), "GetSatisfaction", parent=tree.parent, period="2026-11")
    assert (refused.value.http, refused.value.reason) == (404, "ESTATE_NOT_FOUND")


def test_one_estate_must_be_named(api: testing.Api, tree: testing.Tree) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.staff["QUALITY_MANAGER"], "GetSatisfaction", parent="estates/-", period="2026-11")
    assert (refused.value.http, refused.value.reason) == (400, "ESTATE_REQUIRED")


@pytest.mark.parametrize(
    "period", ["", "26", "2026-", "2026-0", "2026-13", "2026-Q0", "2026-Q5", "1999", "2026-11-01", "2026-11\n", "十一月"]
)
def test_a_period_that_is_none_is_refused(api: testing.Api, tree: testing.Tree, period: str) -> None:
    with pytest.raises(testing.Refused) as refused:
        asked(api, tree, period)
    assert (refused.value.http, refused.value.fields) == (400, {"period"})


@pytest.mark.parametrize(
    ("period", "begins", "ends"),
    [
        ("2026", "2025-12-31T16:00", "2026-12-31T16:00"),
        ("2026-Q1", "2025-12-31T16:00", "2026-03-31T16:00"),
        ("2026-Q4", "2026-09-30T16:00", "2026-12-31T16:00"),
        ("2026-12", "2026-11-30T16:00", "2026-12-31T16:00"),
        ("2028-02", "2028-01-31T16:00", "2028-02-29T16:00"),
        ("2099", "2098-12-31T16:00", "2099-12-31T16:00"),
    ],
)
def test_periods_begin_and_end_at_the_estates_midnight(period: str, begins: str, ends: str) -> None:
    assert instants(period, "Asia/Shanghai") == (datetime.fromisoformat(f"{begins}+00:00"), datetime.fromisoformat(f"{ends}+00:00"))
