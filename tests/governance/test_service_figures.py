"""The figures of a quarter's repairs, against an independent count."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import testing
from services.chassis.db import Database
from services.chassis.reactions import handle
from services.governance.cases import instants
from steward.chassis.v1 import events_pb2 as chassis
from steward.work_orders.v1 import events_pb2 as work_orders
from tests import streams

SERVICE = "governance"
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


@dataclass
class Repair:
    """A repair whose events are made in the order they happen; `bodies` holds them."""

    tree: testing.Tree
    urgent: bool = False
    reported_at: datetime = NOVEMBER
    id: UUID = field(default_factory=uuid4)
    sequence: int = 0
    reworks: int = 0
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.said(work_orders.RepairReported(urgent=self.urgent), at=self.reported_at)

    def said(self, message: Message, at: datetime | None = None) -> Repair:
        self.sequence += 1
        message.repair = str(self.id)  # type: ignore[attr-defined]
        self.bodies.append(
            testing.event_body(
                message,
                tree=self.tree,
                aggregate="repair",
                aggregate_id=self.id,
                sequence=self.sequence,
                at=at or NOVEMBER + timedelta(days=90),
            )
        )
        return self

    def accepted(self) -> Repair:
        return self.said(work_orders.RepairAccepted(attitude=5, quality=5, first_pass=self.reworks == 0))

    def rejected(self) -> Repair:
        self.reworks += 1
        return self.said(work_orders.RepairRejected(rework_count=self.reworks))

    def reopened(self) -> Repair:
        self.reworks += 1
        return self.said(work_orders.RepairReopened())

    def cancelled(self) -> Repair:
        return self.said(work_orders.RepairCancelled())

    def missed(self, clock: str, aggregate: str = "repair") -> Repair:
        """A clock of its own each time, as when a limit starts again."""
        reading = chassis.ClockReading(clock=clock, aggregate=aggregate, aggregate_id=str(self.id))
        self.bodies.append(
            testing.event_body(
                chassis.ClockBreached(clock=reading),
                source="work_orders",
                tree=self.tree,
                aggregate="clock",
                aggregate_id=uuid4(),
                sequence=2,
            )
        )
        return self

    def told(self, database: Database) -> Repair:
        for body in self.bodies:
            handle(database, SERVICE, body)
        return self


def figures(api: testing.Api, tree: testing.Tree, quarter: str = "2026-Q4") -> Any:
    return api.call(tree.staff["PROJECT_MANAGER"], "GetServiceFigures", parent=tree.parent, quarter=quarter)


@pytest.mark.rule("QSR-01", "REP-29")
def test_the_figures_of_a_quarter_agree_with_an_independent_count(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    chance = random.Random(41)  # noqa: S311
    ends = {"open": 0, "accepted": 0, "cancelled": 0, "reworked": 0, "in rework": 0, "reopened": 0}
    by_urgency: dict[bool, dict[str, int]] = {True: dict(ends), False: dict(ends)}
    missed: dict[bool, int] = {True: 0, False: 0}
    missed_by_accepted: dict[bool, int] = {True: 0, False: 0}
    for _ in range(60):
        end, urgent = chance.choice(list(ends)), chance.random() < 0.4
        repair = Repair(tree, urgent)
        clocks = chance.sample(["pickup", "on_site", "resolve"], chance.randint(0, 3))
        for clock in clocks:
            repair.missed(clock)
        if end in ("reworked", "in rework"):
            repair.rejected()
        if end in ("accepted", "reworked", "reopened"):
            repair.accepted()
        if end == "reopened":
            repair.reopened()
        if end == "cancelled":
            repair.cancelled()
        repair.told(database)
        by_urgency[urgent][end] += 1
        missed[urgent] += len(clocks)
        missed_by_accepted[urgent] += len(clocks) if end in ("accepted", "reworked") else 0
    found = figures(api, tree)
    assert (found.estate, found.quarter) == (tree.parent, "2026-Q4")
    for urgent, counted in ((True, found.urgent), (False, found.ordinary)):
        n = by_urgency[urgent]
        accepted, judged = n["accepted"] + n["reworked"], n["accepted"] + n["reworked"] + n["in rework"] + n["reopened"]
        met = 3 * accepted - missed_by_accepted[urgent]
        assert counted.reported == sum(n.values())
        assert (counted.accepted, counted.cancelled) == (accepted, n["cancelled"])
        assert counted.open == n["open"] + n["in rework"] + n["reopened"]
        assert (counted.judged, counted.first_pass) == (judged, n["accepted"])
        assert counted.first_pass_rate == pytest.approx(n["accepted"] / judged)
        assert (counted.limits_met, counted.limits_missed) == (met, missed[urgent])
        assert counted.limits_met_share == pytest.approx(met / (met + missed[urgent]))
    assert found.total.reported == 60
    assert found.total.limits_met == found.urgent.limits_met + found.ordinary.limits_met
    assert found.total.first_pass_rate == pytest.approx(found.total.first_pass / found.total.judged)


@pytest.mark.rule("REP-29")
def test_a_repair_passes_at_first_when_it_was_never_sent_back(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    Repair(tree).accepted().told(database)
    Repair(tree).rejected().accepted().told(database)
    Repair(tree).accepted().reopened().accepted().told(database)
    Repair(tree).rejected().told(database)
    Repair(tree).told(database)
    found = figures(api, tree).total
    assert (found.accepted, found.open, found.judged, found.first_pass, found.first_pass_rate) == (3, 2, 4, 1, 0.25)


def test_a_reopened_repair_is_open_until_it_is_accepted_again(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    repair = Repair(tree).accepted().reopened().told(database)
    assert (figures(api, tree).total.accepted, figures(api, tree).total.open) == (0, 1)
    repair.accepted().told(database)
    assert (figures(api, tree).total.accepted, figures(api, tree).total.open) == (1, 0)


def test_a_limit_missed_twice_counts_once_and_whatever_became_of_the_repair(
    database: Database, api: testing.Api, tree: testing.Tree
) -> None:
    Repair(tree).missed("pickup").missed("pickup").accepted().told(database)
    Repair(tree).missed("on_site").cancelled().told(database)
    Repair(tree).told(database)
    found = figures(api, tree).total
    assert (found.limits_met, found.limits_missed, found.limits_met_share) == (2, 2, 0.5)


def test_clocks_of_other_cases_and_other_clocks_do_not_count(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    Repair(tree).missed("pickup", aggregate="follow_up").missed("return_to_office").accepted().told(database)
    found = figures(api, tree).total
    assert (found.limits_met, found.limits_missed) == (3, 0)


def test_a_quarter_without_repairs_has_no_rates(api: testing.Api, tree: testing.Tree) -> None:
    found = figures(api, tree).total
    assert found.reported == 0
    assert [found.HasField(name) for name in ("first_pass_rate", "limits_met_share")] == [False, False]


@pytest.mark.rule("QSR-01")
def test_a_repair_belongs_to_the_quarter_of_its_report_in_the_estates_zone(
    database: Database, api: testing.Api, tree: testing.Tree
) -> None:
    last = datetime(2026, 9, 30, 15, 59, 59, tzinfo=UTC)  # 23:59:59 in Shanghai
    Repair(tree, reported_at=last).accepted().told(database)
    Repair(tree, reported_at=last + timedelta(seconds=1), urgent=True).accepted().told(database)
    assert [figures(api, tree, quarter).ordinary.reported for quarter in ("2026-Q3", "2026-Q4")] == [1, 0]
    assert [figures(api, tree, quarter).urgent.reported for quarter in ("2026-Q3", "2026-Q4")] == [0, 1]


STEPS = st.lists(st.sampled_from(["accepted", "rejected", "reopened", "cancelled", "pickup", "on_site", "resolve"]), max_size=7)


def lived(tree: testing.Tree, steps: list[str], urgent: bool) -> Repair:
    repair = Repair(tree, urgent)
    for step in steps:
        repair = repair.missed(step) if step in ("pickup", "on_site", "resolve") else getattr(repair, step)()
    return repair


def facts(database: Database, repair: Repair) -> tuple[Any, ...]:
    with database.read() as tx:
        (case,) = tx.execute(
            "SELECT reported_at, urgent, accepted, reopened, reworks, cancelled FROM service_cases WHERE id = %s", (repair.id,)
        )
        return *case, sorted(tx.execute("SELECT clock FROM missed_limits WHERE case_id = %s", (repair.id,)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_shuffled_and_repeated_events_teach_the_same_facts(database: Database, any_tree: testing.Tree, data: st.DataObject) -> None:
    steps, urgent = data.draw(STEPS), data.draw(st.booleans())
    straight, shuffled = lived(any_tree, steps, urgent).told(database), lived(any_tree, steps, urgent)
    streams.arrive(database, SERVICE, streams.shuffled(data, shuffled.bodies))
    assert facts(database, shuffled) == facts(database, straight)


def test_a_repair_whose_report_has_not_been_heard_of_belongs_to_no_quarter(
    database: Database, api: testing.Api, tree: testing.Tree
) -> None:
    repair = Repair(tree).accepted()
    handle(database, SERVICE, repair.bodies[1])
    assert figures(api, tree).total.reported == 0
    handle(database, SERVICE, repair.bodies[0])
    assert (figures(api, tree).total.reported, figures(api, tree).total.accepted) == (1, 1)


@pytest.mark.parametrize("role", ["OWNER", "TECHNICIAN", "CASHIER", "CS_SUPERVISOR"])
def test_figures_are_for_those_who_manage(api: testing.Api, tree: testing.Tree, role: str) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.by_role(role), "GetServiceFigures", parent=tree.parent, quarter="2026-Q4")
    assert refused.value.http == 403


@pytest.mark.parametrize("role", ["PROJECT_MANAGER", "QUALITY_MANAGER", "GROUP_OPERATIONS"])
def test_those_who_manage_see_their_estates_only(database: Database, api: testing.Api, tree: testing.Tree, role: str) -> None:
    Repair(tree).told(database)
    assert api.call(tree.by_role(role), "GetServiceFigures", parent=tree.parent, quarter="2026-Q4").total.reported == 1
    other = testing.a_tree(database)
    with pytest.raises(testing.Refused) as refused:
        api.call(other.by_role(role), "GetServiceFigures", parent=tree.parent, quarter="2026-Q4")
    assert (refused.value.http, refused.value.reason) == (404, "ESTATE_NOT_FOUND")


def test_one_estate_must_be_named(api: testing.Api, tree: testing.Tree) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.staff["QUALITY_MANAGER"], "GetServiceFigures", parent="estates/-", quarter="2026-Q4")
    assert (refused.value.http, refused.value.reason) == (400, "ESTATE_REQUIRED")


@pytest.mark.parametrize("quarter", ["", "2026", "2026-4", "2026-Q5", "2026-Q0", "1999-Q1", "2026-Q4\n", "Q4"])
def test_a_quarter_that_is_none_is_refused(api: testing.Api, tree: testing.Tree, quarter: str) -> None:
    with pytest.raises(testing.Refused) as refused:
        figures(api, tree, quarter)
    assert (refused.value.http, refused.value.fields) == (400, {"quarter"})


@pytest.mark.parametrize(
    ("quarter", "begins", "ends"),
    [("2026-Q1", "2025-12-31T16:00", "2026-03-31T16:00"), ("2026-Q4", "2026-09-30T16:00", "2026-12-31T16:00")],
)
def test_quarters_begin_and_end_at_the_estates_midnight(quarter: str, begins: str, ends: str) -> None:
    assert instants(quarter, "Asia/Shanghai") == (datetime.fromisoformat(f"{begins}+00:00"), datetime.fromisoformat(f"{ends}+00:00"))
