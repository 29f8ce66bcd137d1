"""The three-tier spot check of follow-ups: how it is drawn, who checks, what follows from a deviation, and the month's rates (FUP-15…18)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis import reactions
from services.chassis.errors import InvalidInput
from services.chassis.testing import Caller, clock_events, published
from services.work_orders import policies, spot_checks
from steward.options.v1 import options_pb2
from steward.work_orders.v1 import spot_checks_pb2 as pb
from tests.work_orders.asking import (
    CHINA,
    DAY,
    NOON,
    SATISFIED,
    SECOND,
    asked,
    case,
    employ,
    filed,
    follow_up_of,
    living,
    name,
    override,
    pass_to,
    seen,
    vacate,
)
from tests.work_orders.conftest import Desk, instant
from tests.work_orders.test_askers import retired

pytestmark = pytest.mark.usefixtures("moving_time")

DRAWN = datetime(2026, 12, 1, 9, 0, tzinfo=CHINA)
DUE = datetime(2026, 12, 16, tzinfo=CHINA)  # the end of the 15th
TIERS = {"SUPERVISOR": "CS_SUPERVISOR", "MANAGER": "PROJECT_MANAGER", "QUALITY": "QUALITY_MANAGER"}
FINE = {"method": "TELEPHONE", "finding": "与记录一致"}
UNTRUE = {"method": "TELEPHONE", "finding": "业主称未接到回访"}


@pytest.fixture
def estate(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An estate whose time goes by from Monday, 23 November, on."""
    with living(desk, monkeypatch, NOON):
        yield desk


def checks(desk: Desk, **how: Any) -> list[pb.SpotCheck]:
    fields = {"parent": desk.tree.parent, "page_size": 100} | how
    return list(desk.call(desk.tree.staff["QUALITY_MANAGER"], "ListSpotChecks", **fields).spot_checks)


def check_of(desk: Desk, tier: str) -> pb.SpotCheck:
    [one] = checks(desk, tier=tier)
    return one


def rounds(desk: Desk) -> dict[str, pb.SpotCheckRound]:
    """By tier, with the population."""
    who = desk.tree.staff["QUALITY_MANAGER"]
    listed = desk.call(who, "ListSpotCheckRounds", parent=desk.tree.parent).spot_check_rounds
    found = [desk.call(who, "GetSpotCheckRound", name=drawn.name) for drawn in listed]
    return {pb.SpotCheck.Tier.Name(drawn.tier): drawn for drawn in found}


def state(check: pb.SpotCheck) -> str:
    return pb.SpotCheck.State.Name(check.state)


def role(check: pb.SpotCheck) -> str:
    return options_pb2.Role.Name(check.role)


def rates(desk: Desk, parent: str = "", who: str = "PROJECT_MANAGER") -> dict[str, Any]:
    answer = desk.call(desk.tree.staff[who], "GetSpotCheckRates", parent=parent or desk.tree.parent, month="2026-11")
    return {pb.SpotCheck.Tier.Name(line.tier): line for line in answer.lines}


# --- how many, and which -------------------------------------------------------------------------------------------------


@pytest.mark.rule("FUP-18")
@pytest.mark.parametrize(
    ("rate", "population", "size"),
    [(0.10, 1, 1), (0.10, 9, 1), (0.10, 10, 1), (0.10, 11, 2), (0.10, 20, 2), (0.05, 20, 1), (0.05, 21, 2), (0.03, 100, 3), (0.03, 101, 4),
     (0.03, 33, 1), (0.03, 34, 2), (1.0, 7, 7), (0.07, 100, 7)],
)  # fmt: skip
def test_a_sample_is_at_least_its_share_and_at_least_one(rate: float, population: int, size: int) -> None:
    assert spot_checks.size(population, rate, 1) == size


@pytest.mark.rule("FUP-18")
def test_an_estate_may_ask_for_more_but_never_for_none() -> None:
    assert [spot_checks.size(population, 0.1, 3) for population in (2, 3, 40)] == [2, 3, 4]
    for policy in (policies.SPOTCHECK_SUPERVISOR, policies.SPOTCHECK_MANAGER, policies.SPOTCHECK_QUALITY):
        for allowed in (0.01, 1.0):
            policy.check(allowed)
        for beyond in (0.0, 0.009, 1.01):
            with pytest.raises(InvalidInput):
                policy.check(beyond)
    with pytest.raises(InvalidInput):
        policies.SPOTCHECK_LEAST.check(0)


@pytest.mark.rule("FUP-18")
def test_the_draw_is_the_same_for_everybody_who_repeats_it_and_fair_over_many_seeds() -> None:
    population = [uuid4() for _ in range(40)]
    by_hand = sorted(population, key=lambda one: hashlib.sha256(f"seed/{one}".encode()).hexdigest())[:4]
    assert spot_checks.sample(reversed(population), "seed", 4) == by_hand, "in whatever order they come"
    drawn = Counter(one for seed in range(2000) for one in spot_checks.sample(population, str(seed), 4))
    assert set(drawn) == set(population)
    assert max(drawn.values()) - min(drawn.values()) < 130, "200 expected of each, standard deviation 13"


@pytest.mark.rule("FUP-15", "FUP-16", "FUP-17")
def test_on_the_first_each_tier_gets_its_share_of_last_months_valid_follow_ups_and_not_a_second_before(estate: Desk) -> None:
    """Twenty-one valid ones: three for the supervisor, two for the manager, one for quality; none of the others is drawn."""
    valid = [asked(estate) for _ in range(21)]
    follow_up_of(estate, filed(estate))  # nobody asked
    tried = follow_up_of(estate, filed(estate))
    estate.call(estate.tree.staff["EARLY_SHIFT_CLERK"], "MissFollowUp", name=tried.name, method="TELEPHONE")
    asked(estate, datetime(2026, 12, 1, 0, 0, 1, tzinfo=CHINA), method="APP")  # December's

    pass_to(estate, DRAWN - SECOND)
    assert checks(estate) == []
    pass_to(estate, DRAWN)
    found = checks(estate)
    assert Counter(pb.SpotCheck.Tier.Name(check.tier) for check in found) == {"SUPERVISOR": 3, "MANAGER": 2, "QUALITY": 1}
    names = {follow_up.name: follow_up for follow_up in valid}
    for check in found:
        assert (check.month, state(check), check.follow_up_number) == ("2026-11", "OPEN", names[check.follow_up].number)
        assert (check.asked_by, role(check)) == (estate.tree.staff["EARLY_SHIFT_CLERK"].name, TIERS[pb.SpotCheck.Tier.Name(check.tier)])
        assert check.checker == estate.tree.staff[role(check)].name
        assert check.number.startswith("CC-20261201-")
        assert instant(check.due_time) == DUE
    pass_to(estate, DRAWN + timedelta(hours=1))
    assert len(checks(estate)) == 6, "once"


@pytest.mark.rule("FUP-18")
def test_how_it_was_drawn_can_be_worked_out_again_by_anybody(estate: Desk) -> None:
    valid = [asked(estate) for _ in range(12)]
    pass_to(estate, DRAWN)
    seeds = set()
    for tier, drawn in rounds(estate).items():
        assert sorted(drawn.population) == sorted(case(follow_up) for follow_up in valid)
        again = sorted(drawn.population, key=lambda one: hashlib.sha256(f"{drawn.seed}/{one}".encode()).hexdigest())[: drawn.count]
        assert {check.follow_up.rsplit("/", 1)[-1] for check in checks(estate, tier=tier)} == set(again)
        assert (drawn.population_size, drawn.month, instant(drawn.draw_time)) == (12, "2026-11", DRAWN)
        assert {check.round for check in checks(estate, tier=tier)} == {drawn.name}
        seeds.add(drawn.seed)
    assert len(seeds) == 3, "each tier draws for itself"
    event = published(estate.database, case(rounds(estate)["SUPERVISOR"]), "SpotCheckRoundOpened")[0]
    assert (event.data["population"], event.data["count"], event.data["month"]) == (12, 2, "2026-11")
    assert event.data["assignees"] == [estate.tree.staff["CS_SUPERVISOR"].name]
    assert event.occurred_at == DRAWN


@pytest.mark.rule("FUP-18")
def test_a_month_without_a_valid_follow_up_has_no_spot_check_and_one_with_one_has_three(estate: Desk) -> None:
    follow_up_of(estate, filed(estate))
    pass_to(estate, DRAWN)
    assert checks(estate) == []
    assert rounds(estate) == {}
    asked(estate, NOON + 14 * DAY)
    pass_to(estate, datetime(2027, 1, 1, 9, tzinfo=CHINA))
    assert sorted(pb.SpotCheck.Tier.Name(check.tier) for check in checks(estate)) == ["MANAGER", "QUALITY", "SUPERVISOR"]


@pytest.mark.rule("FUP-18")
def test_what_the_worker_slept_through_is_drawn_when_it_wakes_dated_as_it_should_have_been(estate: Desk) -> None:
    asked(estate)
    pass_to(estate, DRAWN + 10 * DAY)
    assert {instant(drawn.draw_time) for drawn in rounds(estate).values()} == {DRAWN}
    assert {instant(check.due_time) for check in checks(estate)} == {DUE}


@pytest.mark.rule("FUP-18")
def test_rates_of_the_estates_own_are_those_that_are_drawn_by(estate: Desk) -> None:
    override(estate, policies.SPOTCHECK_SUPERVISOR, 0.5)
    override(estate, policies.SPOTCHECK_LEAST, 2)
    for _ in range(6):
        asked(estate)
    pass_to(estate, DRAWN)
    assert {tier: (drawn.count, drawn.rate) for tier, drawn in rounds(estate).items()} == {
        "SUPERVISOR": (3, 0.5), "MANAGER": (2, 0.05), "QUALITY": (2, 0.03),
    }  # fmt: skip


# --- who checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FUP-15", "FUP-16", "FUP-17")
@pytest.mark.parametrize(("tier", "allowed"), TIERS.items())
def test_each_tier_is_checked_by_its_own_role_and_by_no_other(estate: Desk, tier: str, allowed: str) -> None:
    asked(estate)
    pass_to(estate, DRAWN)
    check = check_of(estate, tier)
    others = {"CS_SUPERVISOR", "CUSTOMER_MANAGER", "PROJECT_MANAGER", "ENGINEERING_MANAGER", "MANAGEMENT_DEPT_MANAGER", "QUALITY_MANAGER"}
    for other in others - {allowed}:
        answer = estate.refused(estate.tree.staff[other], "ConfirmSpotCheck", name=check.name, **FINE)
        assert (answer.http, answer.reason) == (403, "NOT_YOURS"), other
    for nobody in ("EARLY_SHIFT_CLERK", "TECHNICIAN", "GENERAL_MANAGER", "OWNER"):
        assert estate.refused(estate.tree.by_role(nobody), "ConfirmSpotCheck", name=check.name, **FINE).reason == "ROLE_REQUIRED"
    done = estate.call(estate.tree.staff[allowed], "ConfirmSpotCheck", name=check.name, **FINE)
    assert (state(done), done.checked_by, done.finding) == ("CONFIRMED", estate.tree.staff[allowed].name, "与记录一致")
    assert done.HasField("check_time")
    assert published(estate.database, case(check), "SpotCheckConfirmed")[0].data["tier"] == tier


@pytest.mark.rule("FUP-16", "X-48")
def test_the_estate_may_name_its_engineering_manager_for_the_second_tier(estate: Desk) -> None:
    override(estate, policies.SPOTCHECK_SECOND, "ENGINEERING_MANAGER")
    asked(estate)
    pass_to(estate, DRAWN)
    check = check_of(estate, "MANAGER")
    assert (role(check), check.checker) == ("ENGINEERING_MANAGER", estate.tree.staff["ENGINEERING_MANAGER"].name)
    assert estate.refused(estate.tree.staff["PROJECT_MANAGER"], "ConfirmSpotCheck", name=check.name, **FINE).reason == "NOT_YOURS"
    assert state(estate.call(estate.tree.staff["ENGINEERING_MANAGER"], "ConfirmSpotCheck", name=check.name, **FINE)) == "CONFIRMED"


@pytest.mark.rule("FUP-15")
def test_nobody_checks_a_follow_up_at_which_he_asked_himself(estate: Desk) -> None:
    supervisor, manager = estate.tree.staff["CS_SUPERVISOR"], estate.tree.staff["CUSTOMER_MANAGER"]
    asked(estate, who=supervisor)
    pass_to(estate, DRAWN)
    check = check_of(estate, "SUPERVISOR")
    assert (check.asked_by, check.checker, role(check)) == (supervisor.name, manager.name, "CUSTOMER_MANAGER")
    for rpc, said in (("ConfirmSpotCheck", FINE), ("DeviateSpotCheck", UNTRUE | {"measure": "培训"})):
        answer = estate.refused(supervisor, rpc, name=check.name, **said)
        assert (answer.http, answer.reason) == (403, "NOT_YOURS")
    assert state(estate.call(manager, "ConfirmSpotCheck", name=check.name, **FINE)) == "CONFIRMED"


@pytest.mark.rule("FUP-15", "FUP-16")
def test_who_holds_two_posts_does_not_check_in_one_what_he_asked_in_the_other(estate: Desk) -> None:
    both = employ(estate, "CS_SUPERVISOR", "PROJECT_MANAGER")
    vacate(estate, "CUSTOMER_MANAGER")
    asked(estate, who=both)
    pass_to(estate, DRAWN)
    first, second = check_of(estate, "SUPERVISOR"), check_of(estate, "MANAGER")
    assert first.checker == estate.tree.staff["CS_SUPERVISOR"].name
    assert second.checker == estate.tree.staff["PROJECT_MANAGER"].name
    for check in (first, second):
        assert estate.refused(both, "ConfirmSpotCheck", name=check.name, **FINE).reason == "NOT_YOURS"


@pytest.mark.rule("FUP-18")
def test_the_checks_of_a_tier_are_shared_evenly_by_those_who_hold_its_role(estate: Desk) -> None:
    second = estate.tree.hire(estate.database, "QUALITY_MANAGER")
    override(estate, policies.SPOTCHECK_QUALITY, 1.0)
    for _ in range(4):
        asked(estate)
    pass_to(estate, DRAWN)
    mine = Counter(check.checker for check in checks(estate, tier="QUALITY"))
    assert mine == {estate.tree.staff["QUALITY_MANAGER"].name: 2, second.name: 2}
    other = checks(estate, tier="QUALITY", checker=second.name)[0]
    done = estate.call(estate.tree.staff["QUALITY_MANAGER"], "ConfirmSpotCheck", name=other.name, **FINE)
    assert done.checked_by == estate.tree.staff["QUALITY_MANAGER"].name, "a colleague may do it for him"


@pytest.mark.rule("FUP-17")
def test_where_nobody_holds_the_role_it_is_told_upwards_and_falls_to_who_comes(estate: Desk) -> None:
    vacate(estate, "QUALITY_MANAGER", "MANAGEMENT_DEPT_MANAGER")
    asked(estate)
    pass_to(estate, DRAWN)
    found = estate.call(estate.tree.staff["PROJECT_MANAGER"], "ListSpotChecks", parent=estate.tree.parent, tier="QUALITY").spot_checks
    assert (found[0].checker, role(found[0])) == ("", "QUALITY_MANAGER")
    newcomer = estate.tree.hire(estate.database, "QUALITY_MANAGER")
    assert estate.call(newcomer, "ConfirmSpotCheck", name=found[0].name, **FINE).checker == newcomer.name


@pytest.mark.rule("ORG-06")
def test_the_checks_of_somebody_who_leaves_fall_to_his_colleague(estate: Desk) -> None:
    leaver, colleague = estate.tree.staff["PROJECT_MANAGER"], estate.tree.hire(estate.database, "PROJECT_MANAGER")
    override(estate, policies.SPOTCHECK_MANAGER, 1.0)
    for _ in range(2):
        asked(estate)
    pass_to(estate, DRAWN)
    reactions.handle(estate.database, "work_orders", retired(estate, leaver))
    assert {check.checker for check in checks(estate, tier="MANAGER")} == {colleague.name}


# --- the time limit ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FUP-18")
def test_a_check_that_nobody_makes_is_missed_at_the_end_of_the_fifteenth_and_told_upwards(estate: Desk) -> None:
    asked(estate)
    pass_to(estate, DRAWN)
    check = check_of(estate, "MANAGER")

    def fired() -> list[tuple[str, datetime]]:
        return [(type, at) for _, type, at in clock_events(estate.database, case(check)) if type != "ClockWarned"]

    estate.sweep_at(DUE - SECOND)
    assert (fired(), rates(estate)["MANAGER"].overdue) == ([], 0)
    estate.sweep_at(DUE)
    assert (fired(), rates(estate)["MANAGER"].overdue) == ([("ClockBreached", DUE)], 1)
    with estate.database.read() as tx:
        rows = tx.execute(
            "SELECT data->>'role', data->'clock'->>'handler' FROM events WHERE aggregate = 'clock' AND type = 'ClockBreached'"
            " AND data->'clock'->>'aggregateId' = %s",
            (case(check),),
        )
    assert rows == [("MANAGEMENT_DEPT_MANAGER", estate.tree.staff["PROJECT_MANAGER"].name)]
    assert estate.call(estate.tree.staff["PROJECT_MANAGER"], "ConfirmSpotCheck", name=check.name, **FINE).clocks[0].breached


# --- deviations --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FUP-10", "FUP-15")
def test_a_follow_up_found_untrue_does_not_count_until_the_household_has_been_asked_anew_by_somebody_else(estate: Desk) -> None:
    clerk, supervisor = estate.tree.staff["EARLY_SHIFT_CLERK"], estate.tree.staff["CS_SUPERVISOR"]
    follow_up = asked(estate)
    pass_to(estate, DRAWN)
    check = check_of(estate, "SUPERVISOR")

    def rate() -> Any:
        [line] = [
            line for line in estate.call(supervisor, "GetFollowUpRates", parent=estate.tree.parent, month="2026-11").rates if line.orders
        ]
        return line.valid, line.rate, line.met

    assert rate() == (1, 1.0, True)
    done = estate.call(supervisor, "DeviateSpotCheck", name=check.name, reopen=True, **UNTRUE)
    assert (state(done), done.reopened, done.finding) == ("DEVIATES", True, "业主称未接到回访")
    again = seen(estate, follow_up)
    assert (name(again), again.round, again.valid) == ("PENDING", 2, False)
    assert again.assignee == estate.tree.staff["BUILDING_BUTLER"].name, "not who asked the first time"
    assert instant(again.due_time) == datetime(2026, 12, 2, tzinfo=CHINA)
    assert rate() == (0, 0.0, False)
    refusal = estate.refused(clerk, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert (refusal.http, refusal.reason) == (403, "NOT_YOURS")
    event = published(estate.database, case(check), "SpotCheckDeviated")[0]
    assert (event.data["reopened"], event.data["followUpNumber"]) == (True, follow_up.number)
    assert published(estate.database, case(follow_up), "FollowUpOpened")[-1].data["round"] == 2
    estate.call(estate.tree.staff["BUILDING_BUTLER"], "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert rate() == (1, 1.0, True)
    assert clerk.name == again.attempts[0].actor


@pytest.mark.rule("FUP-16")
def test_a_deviation_without_asking_anew_needs_a_measure(estate: Desk) -> None:
    manager = estate.tree.staff["PROJECT_MANAGER"]
    follow_up = asked(estate)
    pass_to(estate, DRAWN)
    check = check_of(estate, "MANAGER")
    for measure in ("", "  "):
        answer = estate.refused(manager, "DeviateSpotCheck", name=check.name, measure=measure, **UNTRUE)
        assert (answer.http, answer.reason, answer.fields) == (400, "MEASURE_MISSING", {"measure"})
    assert estate.refused(manager, "DeviateSpotCheck", name=check.name, method="RECORD", measure="培训").fields == {"finding"}
    done = estate.call(manager, "DeviateSpotCheck", name=check.name, measure="客服培训三问话术", **UNTRUE)
    assert (state(done), done.measure, done.reopened) == ("DEVIATES", "客服培训三问话术", False)
    assert (name(seen(estate, follow_up)), seen(estate, follow_up).valid) == ("CLOSED", True)
    assert estate.refused(manager, "ConfirmSpotCheck", name=check.name, **FINE).reason == "ILLEGAL_MOVE"


@pytest.mark.rule("FUP-10")
def test_a_household_that_is_being_asked_again_already_is_not_reopened_twice(estate: Desk) -> None:
    asked(estate)
    pass_to(estate, DRAWN)
    estate.call(estate.tree.staff["CS_SUPERVISOR"], "DeviateSpotCheck", name=check_of(estate, "SUPERVISOR").name, reopen=True, **UNTRUE)
    manager, check = estate.tree.staff["PROJECT_MANAGER"], check_of(estate, "MANAGER")
    answer = estate.refused(manager, "DeviateSpotCheck", name=check.name, reopen=True, **UNTRUE)
    assert (answer.http, answer.reason) == (409, "FOLLOW_UP_OPEN")
    assert state(check_of(estate, "MANAGER")) == "OPEN", "and nothing is half-saved"
    assert state(estate.call(manager, "DeviateSpotCheck", name=check.name, measure="同上", **UNTRUE)) == "DEVIATES"


# --- lists and rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FUP-18")
def test_the_months_rates_are_those_counted_by_hand_tier_by_tier(estate: Desk, elsewhere: Desk) -> None:
    override(estate, policies.SPOTCHECK_SUPERVISOR, 0.4)
    for _ in range(10):
        asked(estate)
    pass_to(estate, DRAWN)
    mine = checks(estate, tier="SUPERVISOR")
    supervisor = estate.tree.staff["CS_SUPERVISOR"]
    estate.call(supervisor, "ConfirmSpotCheck", name=mine[0].name, **FINE)
    estate.call(supervisor, "DeviateSpotCheck", name=mine[1].name, measure="培训", **UNTRUE)
    estate.call(estate.tree.staff["QUALITY_MANAGER"], "ConfirmSpotCheck", name=check_of(estate, "QUALITY").name, **FINE)

    def numbers(line: Any) -> tuple[Any, ...]:
        return line.population, line.drawn, line.confirmed, line.deviating, line.open, line.rate, line.deviation, line.met

    for parent, who in ((estate.tree.parent, "CS_SUPERVISOR"), ("estates/-", "GENERAL_MANAGER")):
        found = rates(estate, parent, who)
        assert numbers(found["SUPERVISOR"]) == (10, 4, 1, 1, 2, 0.2, 0.5, False)
        assert numbers(found["MANAGER"]) == (10, 1, 0, 0, 1, 0.0, 0.0, False)
        assert numbers(found["QUALITY"]) == (10, 1, 1, 0, 0, 0.1, 0.0, True)
    assert {line.population for line in rates(elsewhere).values()} == {0}
    for nobody in (estate.tree.owner, estate.tree.staff["EARLY_SHIFT_CLERK"]):
        assert estate.refused(nobody, "GetSpotCheckRates", parent=estate.tree.parent, month="2026-11").http == 403


def test_checks_are_listed_by_state_tier_month_and_checker_in_pages(estate: Desk, elsewhere: Desk) -> None:
    override(estate, policies.SPOTCHECK_SUPERVISOR, 1.0)
    for _ in range(3):
        asked(estate)
    pass_to(estate, DRAWN)
    supervisor = estate.tree.staff["CS_SUPERVISOR"]
    mine = checks(estate, checker=supervisor.name)
    assert [pb.SpotCheck.Tier.Name(check.tier) for check in mine] == ["SUPERVISOR"] * 3
    estate.call(supervisor, "ConfirmSpotCheck", name=mine[0].name, **FINE)
    assert {check.name for check in checks(estate, states=["OPEN"], tier="SUPERVISOR")} == {check.name for check in mine[1:]}
    assert checks(estate, month="2026-10") == []
    assert len(checks(estate, month="2026-11")) == 5
    page = estate.call(supervisor, "ListSpotChecks", parent=estate.tree.parent, page_size=3)
    rest = estate.call(supervisor, "ListSpotChecks", parent=estate.tree.parent, page_size=3, page_token=page.next_page_token)
    assert [check.name for check in (*page.spot_checks, *rest.spot_checks)] == [check.name for check in checks(estate)]
    for wrong, field in (({"checker": "nobody"}, "checker"), ({"month": "11"}, "month"), ({"tier": 9}, "tier")):
        assert estate.refused(supervisor, "ListSpotChecks", parent=estate.tree.parent, **wrong).fields == {field}
    outsider: Caller = elsewhere.tree.staff["QUALITY_MANAGER"]
    assert estate.refused(outsider, "GetSpotCheck", name=mine[0].name).reason == "ESTATE_NOT_FOUND"
    assert UUID(case(estate.call(supervisor, "GetSpotCheck", name=mine[0].name)))
    moved = mine[0].name.replace(estate.tree.code, elsewhere.tree.code)
    assert elsewhere.refused(outsider, "GetSpotCheck", name=moved).reason == "SPOT_CHECK_NOT_FOUND"
