"""Lifecycles: the guard, the table's own contradictions, and a random walk over every lifecycle there is."""

from __future__ import annotations

import importlib
import pkgutil
import random
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.__main__ import SERVICES
from services.chassis.access import Grant, Principal, system
from services.chassis.directory import Estate
from services.chassis.errors import Forbidden, IllegalMove
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move
from services.probe.probes import DONE, EXPIRED, LIFECYCLE, NEW, STARTED, Probe, State

NOW = datetime(2026, 11, 22, 3, 10, tzinfo=UTC)
CREATOR, OTHER = Principal("staff", str(uuid4())), Principal("staff", str(uuid4()))
ESTATE = Estate(uuid4(), "TFHY", "天府花园", uuid4(), uuid4(), "Asia/Shanghai", "RESIDENTIAL")


def act(who: Principal = CREATOR) -> Act:
    return Act(who, NOW)


def a_probe() -> Probe:
    return Probe.create(act(), ESTATE, "drip")


# --- the guard ---------------------------------------------------------------------------------------------------------


def test_a_legal_move_changes_state_version_and_history_together() -> None:
    probe = a_probe()
    probe.start(act(OTHER), effort=2)
    assert (probe.state, probe.version, probe.effort) == (STARTED, 2, 2)
    assert [(line.action, line.from_state, line.to_state, line.actor) for line in probe.taken_history()] == [
        ("create", "", NEW, str(CREATOR)),
        ("start", NEW, STARTED, str(OTHER)),
    ]
    assert [(sequence, event.DESCRIPTOR.name) for sequence, event, _ in probe.taken_events()] == [(1, "ProbeCreated"), (2, "ProbeStarted")]


def test_an_illegal_move_raises_says_where_it_would_be_possible_and_changes_nothing() -> None:
    probe = a_probe()
    with pytest.raises(IllegalMove, match="finish is possible in STARTED; this case is NEW") as refused:
        probe.finish(act(OTHER))
    assert (refused.value.http, refused.value.reason, refused.value.rule) == (409, "ILLEGAL_MOVE", "X-34")
    assert (probe.state, probe.version, len(probe.taken_history())) == (NEW, 1, 1)


def test_a_move_narrowed_by_the_case_is_illegal_for_everybody() -> None:
    probe = a_probe()
    probe.start(act(), effort=5)
    with pytest.raises(IllegalMove):
        probe.finish(act(OTHER))


def test_a_move_narrowed_by_the_caller_is_forbidden_to_others_with_a_sentence() -> None:
    probe = a_probe()
    probe.start(act(), effort=1)
    with pytest.raises(Forbidden, match="somebody else finishes it") as refused:
        probe.finish(act(CREATOR))
    assert (refused.value.http, refused.value.reason) == (403, "NOT_YOURS")
    probe.finish(act(OTHER))
    assert probe.state == DONE


def test_state_is_judged_before_the_person_so_that_a_refusal_says_what_would_help() -> None:
    with pytest.raises(IllegalMove):
        a_probe().finish(act(CREATOR))


def test_a_move_of_the_system_is_nobodys_and_a_move_of_people_is_not_the_systems() -> None:
    probe = a_probe()
    with pytest.raises(Forbidden):
        probe.expire(act(Principal("staff", str(uuid4()), (Grant("GENERAL_MANAGER", "group", uuid4()),))))
    with pytest.raises(Forbidden):
        probe.start(act(system("probe")), effort=1)
    probe.expire(act(system("probe")))
    assert probe.state == EXPIRED


def test_an_action_that_the_table_does_not_know_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="fly is not an action"):
        a_probe().move("fly", act())


def test_a_table_with_a_state_that_nothing_leads_to_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no way leads to .*DONE"):
        Lifecycle(State, NEW, [Move("start", {NEW}, STARTED, rules="X-34"), Move("expire", {STARTED}, EXPIRED, rules="X-34", by=SYSTEM)])


def test_the_diagram_shows_every_move() -> None:
    drawn = LIFECYCLE.diagram()
    assert drawn.startswith("stateDiagram-v2\n    [*] --> NEW\n")
    for line in ("NEW --> STARTED: start", "STARTED --> DONE: finish", "NEW --> EXPIRED: expire", "STARTED --> EXPIRED: expire"):
        assert line in drawn


# --- every lifecycle of every service ----------------------------------------------------------------------------------


def processes(service: str) -> list[type[Case]]:
    """Every class with a lifecycle in a service's folder."""
    folder = importlib.import_module(f"services.{service}")
    found = []
    for module in pkgutil.iter_modules(folder.__path__):
        if module.name not in ("api", "jobs", "reactions", "migrations"):
            for value in vars(importlib.import_module(f"services.{service}.{module.name}")).values():
                if isinstance(value, type) and issubclass(value, Case) and "LIFECYCLE" in vars(value) and value not in found:
                    found.append(value)
    return found


every_service = pytest.mark.parametrize("service", ["probe", *SERVICES])


@every_service
def test_a_random_walk_never_leaves_the_table_and_every_step_is_one_version_and_one_line_of_history(service: str) -> None:
    """`when` and `only` are taken as they come: what they decide, walkers of every kind try in turn."""
    found = processes(service)
    if not found:
        pytest.skip("this service has no process of its own")

    @given(process=st.sampled_from(found), seed=st.integers(0, 2**32))
    @settings(max_examples=60)
    def walk(process: type[Case], seed: int) -> None:
        table = process.LIFECYCLE
        dice = random.Random(seed)  # noqa: S311
        case = a_case(process, dice)
        walkers = [Principal("staff", str(uuid4())), Principal("people", str(uuid4())), system("probe")]
        moved = 0
        for _ in range(30):
            action, walker = dice.choice(table.actions()), dice.choice(walkers)
            before, version = case.state, case.version
            lines = [move for move in table.moves if move.action == action and before in move.sources]
            right = [move for move in lines if (move.by == SYSTEM) == (walker.kind == "system")]
            try:
                allowed = table.legal(case, action, walker)
            except (IllegalMove, Forbidden):
                allowed = None
            assert allowed in right if allowed else not any(move.when is None and move.only is None for move in right)
            try:
                case.move(action, act(walker))
            except (IllegalMove, Forbidden):  # a process may refuse more than its table, as while a case is paused
                assert (case.state, case.version) == (before, version), "a refusal changes nothing"
                continue
            moved += 1
            assert allowed
            assert case.state == allowed.target
            assert case.version == version + 1
        assert len(case.taken_history()) == moved

    walk()


@every_service
def test_every_move_says_which_rule_it_stands_on_and_no_clock_runs_for_ever(service: str) -> None:
    for process in processes(service):
        for move in process.LIFECYCLE.moves:
            assert move.rules, move.action
            assert {move.target, *move.sources} <= set(process.LIFECYCLE.states)
        actions = set(process.LIFECYCLE.actions())
        for clock in process.CLOCKS:
            assert clock.rules, clock.name
            assert clock.stops & actions, f"{clock.name} would run for ever"


def a_case(process: type[Case], dice: random.Random) -> Case:
    """A case of any kind with just enough in it for its narrowings to be asked."""
    case = process(
        id=uuid4(), group_id=uuid4(), company_id=uuid4(), estate_id=uuid4(), estate_code="TFHY", version=0, event_count=0,
        created_at=NOW, updated_at=NOW, number="NO-1", state=str(process.LIFECYCLE.initial),
    )  # fmt: skip
    for column in process.__table__.columns:  # type: ignore[attr-defined]
        if getattr(case, column.key, 0) is None and not column.nullable:
            setattr(case, column.key, _some(column.type.python_type, dice))
    for relation in process.__mapper__.relationships:  # type: ignore[attr-defined]
        if relation.uselist and relation.key != "clocks":
            other = relation.mapper.class_
            row = other(
                **{
                    c.key: _some(c.type.python_type, dice)
                    for c in other.__table__.columns
                    if not c.nullable and c.key in relation.mapper.attrs
                }
            )
            setattr(case, relation.key, [row])
    return case


def _some(kind: type, dice: random.Random) -> object:
    values = {
        bool: dice.random() < 0.5,
        int: dice.randint(0, 5),
        str: "x",
        datetime: NOW,
        date: NOW.date(),
        timedelta: timedelta(hours=1),
        float: 0.5,
        bytes: b"x",
        dict: {},
        list: [],
        object: [],  # JSON
    }
    return uuid4() if kind.__name__ == "UUID" else values[kind] if kind in values else kind(dice.randint(0, 5))


def test_a_legal_move_is_found_among_several_lines_of_the_same_action() -> None:
    table = Lifecycle(State, NEW, [
        Move("start",  {NEW},     STARTED, rules="A-1", when=lambda case: case.small),
        Move("start",  {NEW},     DONE,    rules="A-2", when=lambda case: not case.small),
        Move("expire", {STARTED}, EXPIRED, rules="A-3"),
    ])  # fmt: skip
    assert table.legal(SimpleNamespace(state=NEW, small=True), "start", CREATOR).target == STARTED
    assert table.legal(SimpleNamespace(state=NEW, small=False), "start", CREATOR).target == DONE
