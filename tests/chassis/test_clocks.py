"""Clocks: what they count, when they act, and that the sweep fires each mark once, in order, with the instant it was due."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import clocks
from services.chassis.access import Principal
from services.chassis.clocks import Clock
from services.chassis.db import Database
from services.chassis.directory import Estate
from services.chassis.lifecycle import Act
from services.chassis.policies import Terms
from services.chassis.testing import Tree, clock_events, set_time
from services.probe.probes import Probe

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
NIGHT = datetime(2026, 11, 22, 3, 10, tzinfo=ZoneInfo("Asia/Shanghai"))  # a Sunday
STAFF, OTHER = Principal("staff", str(uuid4())), Principal("staff", str(uuid4()))
ESTATE = Estate(uuid4(), "TFHY", "天府花园", uuid4(), uuid4(), "Asia/Shanghai", "RESIDENTIAL")
SYSTEM = Principal("system", "probe")


def act(after: timedelta = timedelta(0), who: Principal = STAFF, terms: Terms | None = None) -> Act:
    return Act(who, NIGHT + after, "", terms or Terms())


def a_probe(**how: bool) -> Probe:
    return Probe.create(act(), ESTATE, "drip", **how)


def clock_of(probe: Probe, name: str = "work") -> Clock:
    return [clock for clock in probe.clocks if clock.name == name][-1]


# --- what a clock counts, without a database ---------------------------------------------------------------------------


def test_a_clock_starts_with_its_action_and_knows_every_instant_at_which_it_must_act() -> None:
    clock = clock_of(a_probe())
    assert clock.marks == [NIGHT + 48 * MINUTE, NIGHT + HOUR, NIGHT + HOUR + 15 * MINUTE, NIGHT + HOUR + 30 * MINUTE]
    assert (clock.next_at, clock.due_at, clock.running, clock.paused) == (NIGHT + 48 * MINUTE, NIGHT + HOUR, True, False)


def test_a_clock_without_a_ladder_warns_and_is_breached_and_no_more() -> None:
    probe = a_probe()
    probe.start(act(MINUTE), effort=1)
    assert clock_of(probe, "finish").marks == [NIGHT + MINUTE + 80 * SECOND, NIGHT + MINUTE + 100 * SECOND]


def test_a_working_clock_sleeps_over_the_weekend_and_the_midday_break() -> None:
    clock = clock_of(a_probe(in_hours=True))
    monday = datetime(2026, 11, 23, 8, 30, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert clock.marks[:2] == [monday + 48 * MINUTE, monday + HOUR]


def test_a_policy_of_the_estate_sets_target_hours_and_the_step_of_the_ladder() -> None:
    terms = Terms(overrides={"probe.work": 600, "escalation.step": 60})
    probe = Probe.create(act(terms=terms), ESTATE, "drip")
    assert clock_of(probe).marks == [NIGHT + 8 * MINUTE, NIGHT + 10 * MINUTE, NIGHT + 11 * MINUTE, NIGHT + 12 * MINUTE]


def test_a_clock_that_stops_in_time_is_met() -> None:
    probe = a_probe()
    probe.start(act(HOUR), effort=1)
    clock = clock_of(probe)
    assert (clock.breached_at, clock.stopped_at, clock.spent, clock.next_at) == (None, NIGHT + HOUR, HOUR, clock.next_at)
    assert clock.due_at == NIGHT + HOUR, "when it was due stays known"


def test_a_clock_that_stops_after_it_was_due_is_breached_though_no_sweep_has_seen_it() -> None:
    probe = a_probe()
    probe.start(act(HOUR + SECOND), effort=1)
    assert clock_of(probe).breached_at == NIGHT + HOUR


def test_a_pause_keeps_what_is_spent_and_a_resumed_clock_has_the_rest() -> None:
    clock = clock_of(a_probe())
    clock.pause(act(20 * MINUTE))
    assert (clock.spent, clock.paused, clock.due_at, clock.next_at) == (20 * MINUTE, True, None, None)
    clock.pause(act(25 * MINUTE))
    assert clock.spent == 20 * MINUTE, "a second pause changes nothing"
    clock.resume(act(3 * HOUR))
    assert (clock.due_at, clock.next_at) == (NIGHT + 3 * HOUR + 40 * MINUTE, NIGHT + 3 * HOUR + 28 * MINUTE)
    clock.resume(act(4 * HOUR))
    assert clock.due_at == NIGHT + 3 * HOUR + 40 * MINUTE, "a second resume changes nothing"


def test_another_target_changes_what_remains_and_never_what_is_spent() -> None:
    clock = clock_of(a_probe())
    clock.pause(act(20 * MINUTE))
    clock.retarget(2 * HOUR, act(30 * MINUTE))
    assert (clock.spent, clock.next_at) == (20 * MINUTE, None), "it stays paused"
    clock.resume(act(HOUR))
    assert clock.due_at == NIGHT + HOUR + 100 * MINUTE
    clock.retarget(30 * MINUTE, act(2 * HOUR))
    assert (clock.spent, clock.due_at) == (20 * MINUTE, NIGHT + HOUR + 10 * MINUTE), "due already: the sweep fires it at once"


def test_a_breach_is_never_withdrawn() -> None:
    clock = clock_of(a_probe())
    clock.level, clock.breached_at = 2, NIGHT + HOUR  # as the sweep does
    for change in (
        lambda: clock.pause(act(2 * HOUR)),
        lambda: clock.resume(act(3 * HOUR)),
        lambda: clock.retarget(9 * HOUR, act(3 * HOUR)),
    ):
        change()
        assert (clock.breached_at, clock.level) == (NIGHT + HOUR, 2)
    clock.stop(act(4 * HOUR))
    assert clock.breached_at == NIGHT + HOUR


def test_marks_that_came_due_before_a_pause_or_a_stop_are_still_owed() -> None:
    """Whether the sweep ran a second earlier or the workers were down for an hour must not change what is recorded."""
    paused, stopped = clock_of(a_probe()), clock_of(a_probe())
    paused.pause(act(50 * MINUTE))
    assert paused.next_at == NIGHT + 48 * MINUTE
    stopped.stop(act(HOUR + MINUTE))
    assert stopped.next_at == NIGHT + 48 * MINUTE
    early = clock_of(a_probe())
    early.stop(act(47 * MINUTE))
    assert early.next_at is None


def test_a_restart_ends_the_old_clock_and_begins_a_new_one() -> None:
    probe = a_probe()
    probe.move("note", act(HOUR / 2))
    old, new = probe.clocks
    assert (old.stopped_at, old.breached_at) == (NIGHT + HOUR / 2, None)
    assert (new.started_at, new.due_at, new.spent) == (NIGHT + HOUR / 2, NIGHT + HOUR * 1.5, timedelta(0))


def test_a_cancelled_case_stops_its_clocks_without_having_kept_them() -> None:
    probe = a_probe()
    probe.expire(act(10 * MINUTE, SYSTEM))
    clock = clock_of(probe)
    assert (clock.cancelled, clock.breached_at, clock.next_at, clock.stopped_at) == (True, None, None, NIGHT + 10 * MINUTE)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=8), st.booleans())
def test_however_often_it_is_paused_a_clock_is_breached_after_its_target_of_running_time(lengths: list[int], in_hours: bool) -> None:
    clock = clock_of(a_probe(in_hours=in_hours))
    days = Terms().calendar if in_hours else None
    now, ran, due = NIGHT, timedelta(0), clocks.calendar.add(days, NIGHT, HOUR)
    for index, seconds in enumerate(lengths):
        before, now = now, now + seconds * SECOND
        if index % 2 == 0:  # it has run since `before`
            ran += clocks.calendar.between(days, before, now)
            clock.pause(act(now - NIGHT))
            assert clock.spent == ran
        else:
            if ran < HOUR:
                due = clocks.calendar.add(days, now, HOUR - ran)
            clock.resume(act(now - NIGHT))
            assert clock.due_at == due, "once it was due, it stays due at that instant"


# --- the sweep, with PostgreSQL ----------------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("moving_time")


@pytest.fixture
def begun(database: Database, tree: Tree) -> tuple[UUID, datetime]:
    """A probe created now: its id, and when."""
    set_time(database, datetime.now(UTC))
    with database.transaction(STAFF) as tx:
        probe = tx.add(Probe.create(tx.act(), tree.estate, "drip"))
        probe.number_in(tx, tree.zone)
    return probe.id, probe.created_at


def row(database: Database, case_id: UUID) -> Clock:
    with database.read() as tx:
        return tx.see(Probe, case_id).clocks[-1]


def test_each_mark_fires_at_its_instant_and_is_silent_one_second_before(database: Database, begun: tuple[UUID, datetime]) -> None:
    probe, start = begun
    expected: list[tuple[str, str, datetime]] = []
    for after, type in [
        (48 * MINUTE, "ClockWarned"),
        (HOUR, "ClockBreached"),
        (75 * MINUTE, "ClockEscalated"),
        (90 * MINUTE, "ClockEscalated"),
    ]:
        set_time(database, start + after - SECOND)
        clocks.sweep(database)
        assert clock_events(database, probe) == expected, f"silent one second before {after}"
        set_time(database, start + after)
        clocks.sweep(database)
        expected.append(("work", type, start + after))
        assert clock_events(database, probe) == expected, f"fires at {after}"
    set_time(database, start + timedelta(days=30))
    clocks.sweep(database)
    assert clock_events(database, probe) == expected, "the ladder has ended"


def test_after_downtime_the_sweep_catches_up_in_order_and_tells_each_rung_once(database: Database, begun: tuple[UUID, datetime]) -> None:
    probe, start = begun
    set_time(database, start + timedelta(days=2))
    clocks.sweep(database)
    dues = [start + after for after in (48 * MINUTE, HOUR, 75 * MINUTE, 90 * MINUTE)]
    types = ["ClockWarned", "ClockBreached", "ClockEscalated", "ClockEscalated"]
    assert clock_events(database, probe) == [("work", type, due) for type, due in zip(types, dues, strict=True)]
    assert row(database, probe).breached_at == start + HOUR
    with database.read() as tx:
        rungs = tx.execute(
            "SELECT sequence, data->'clock'->>'number', data->'rung', data->>'role' FROM events WHERE aggregate = 'clock'"
            " AND data->'clock'->>'aggregateId' = %s ORDER BY sequence",
            (str(probe),),
        )
    number = rungs[0][1]
    assert number.startswith("PB-")
    assert rungs == [
        (1, number, None, None),
        (2, number, 1, "ENGINEERING_SUPERVISOR"),
        (3, number, 2, "PROJECT_MANAGER"),
        (4, number, 3, "GENERAL_MANAGER"),
    ]


def test_sweeps_at_the_same_time_fire_each_mark_once(database: Database, tree: Tree) -> None:
    set_time(database, datetime.now(UTC))
    with database.transaction(STAFF) as tx:
        probes = [tx.add(Probe.create(tx.act(), tree.estate, f"drip {n}")) for n in range(60)]
    set_time(database, probes[0].created_at + timedelta(days=1))
    fired: list[tuple[str, str, str, bool]] = []
    together = threading.Barrier(4)

    def sweep() -> None:
        together.wait()
        fired.extend(clocks.sweep(database))

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for probe in probes:
        assert [type for _, type, _ in clock_events(database, probe.id)] == [
            "ClockWarned",
            "ClockBreached",
            "ClockEscalated",
            "ClockEscalated",
        ]
    assert len(fired) == 60 * 4


def test_a_stopped_or_paused_clock_fires_nothing_later(database: Database, begun: tuple[UUID, datetime]) -> None:
    probe, start = begun
    set_time(database, start + 10 * MINUTE)
    with database.transaction(OTHER) as tx:
        case = tx.get(Probe, probe)
        case.clocks[0].pause(tx.act())
    set_time(database, start + timedelta(days=1))
    clocks.sweep(database)
    assert clock_events(database, probe) == []
    with database.transaction(OTHER) as tx:
        case = tx.get(Probe, probe)
        case.clocks[0].resume(tx.act())
        case.clocks[0].stop(tx.act())
    set_time(database, start + timedelta(days=2))
    clocks.sweep(database)
    assert clock_events(database, probe) == []


@pytest.mark.parametrize("end", [lambda clock, act: clock.stop(act), lambda clock, act: clock.pause(act)], ids=["stopped", "paused"])
def test_what_came_due_while_no_worker_ran_is_recorded_although_the_clock_has_been_stopped_since(
    database: Database, begun: tuple[UUID, datetime], end: Callable[[Clock, Act], None]
) -> None:
    probe, start = begun
    set_time(database, start + 80 * MINUTE)
    with database.transaction(OTHER) as tx:
        end(tx.get(Probe, probe).clocks[0], tx.act())
    set_time(database, start + timedelta(days=1))
    clocks.sweep(database)
    assert clock_events(database, probe) == [
        ("work", "ClockWarned", start + 48 * MINUTE),
        ("work", "ClockBreached", start + HOUR),
        ("work", "ClockEscalated", start + 75 * MINUTE),
    ], "and nothing of what would have come later"
    assert row(database, probe).breached_at == start + HOUR


def test_the_sweep_passes_by_a_clock_whose_case_is_being_changed(database: Database, begun: tuple[UUID, datetime]) -> None:
    probe, start = begun
    set_time(database, start + 50 * MINUTE)
    with database.transaction(OTHER) as tx:
        tx.get(Probe, probe)
        clocks.sweep(database)
        assert clock_events(database, probe) == []
    clocks.sweep(database)
    assert [type for _, type, _ in clock_events(database, probe)] == ["ClockWarned"]


def test_time_that_is_moved_moves_every_clock_of_the_service(database: Database, begun: tuple[UUID, datetime]) -> None:
    probe, start = begun
    with database.transaction() as tx:
        tx.execute("UPDATE business_time SET shifted_by = shifted_by + interval '59 minutes'")
    with database.read() as tx:
        assert timedelta(minutes=59) <= tx.now - start < timedelta(minutes=60)
    clocks.sweep(database)
    assert [type for _, type, _ in clock_events(database, probe)] == ["ClockWarned"]
