"""Duties: each occurrence is opened once, in its order, by the estate's own clock; done in time or missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import REGISTRY

from services.chassis import clocks, directory, duties
from services.chassis.business_time import Walk
from services.chassis.db import Database
from services.chassis.duties import Duty, next_due
from services.chassis.policies import Policy, Terms
from services.chassis.testing import Tree, a_tree, clock_events, published, set_time
from steward.chassis.v1 import business_time_pb2

pytestmark = pytest.mark.usefixtures("moving_time")

CHINA = ZoneInfo("Asia/Shanghai")
MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=CHINA)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)

AT = Policy("probe.check_at", "text", "17:00", "REP-26")
CHECK = Duty("probe_check", "FREQ=DAILY", at=AT, opens=30 * MINUTE, roles=("EARLY_SHIFT_CLERK", "CUSTOMER_ASSISTANT"),
             early_shift=True, superiors=("CS_SUPERVISOR",), ladder=("CS_SUPERVISOR", "PROJECT_MANAGER"), rules="REP-26")  # fmt: skip


@pytest.fixture
def watched(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The probe service with one duty, and no estates but those of the test."""
    monkeypatch.setattr(duties, "duties_of", lambda service: MappingProxyType({CHECK.name: CHECK}))
    with database.transaction() as tx:
        tx.execute("UPDATE dir_nodes SET deleted = true WHERE kind = 'ESTATE'")
        tx.execute("DELETE FROM duties")
    yield database
    with database.transaction() as tx:
        tx.execute("DELETE FROM duties")


def tasks(database: Database, tree: Tree) -> list[tuple[str, datetime, datetime]]:
    """(state, opened, due) of an estate's occurrences, in due order."""
    with database.read() as tx:
        return tx.execute("SELECT state, created_at, due_at FROM duty_tasks WHERE estate_id = %s ORDER BY due_at", (tree.estate_id,))


def planned(database: Database, at: datetime, tree: Tree | None = None, zone: str = "Asia/Shanghai") -> Tree:
    """An estate whose duties are planned from an instant on."""
    set_time(database, at)
    tree = tree or a_tree(database, zone=zone)
    duties.plan(database)
    return tree


def run_at(database: Database, at: datetime) -> None:
    set_time(database, at)
    duties.run_duties(database)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=CHINA)


@pytest.mark.rule("REP-26")
def test_a_duty_opens_at_its_instant_and_is_silent_one_second_before(watched: Database) -> None:
    tree = planned(watched, MONDAY)
    run_at(watched, at(23, 16, 30) - SECOND)
    assert tasks(watched, tree) == []
    run_at(watched, at(23, 16, 30))
    assert tasks(watched, tree) == [("OPEN", at(23, 16, 30), at(23, 17))]
    run_at(watched, at(23, 16, 31))
    assert len(tasks(watched, tree)) == 1, "and is not opened again"


def test_what_steward_does_itself_is_done_at_its_instant_once_and_is_nobodys_task(
    watched: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[UUID, datetime, datetime]] = []
    itself = Duty("probe_draw", "FREQ=DAILY", at="09:00", opens=timedelta(0), roles=(), ladder=(), rules="FUP-18",
                  instead=lambda tx, estate, act, due_at: done.append((estate.id, act.now, due_at)))  # fmt: skip
    monkeypatch.setattr(duties, "duties_of", lambda service: MappingProxyType({itself.name: itself}))
    tree = planned(watched, MONDAY)
    run_at(watched, at(24, 9) - SECOND)
    assert done == []
    run_at(watched, at(24, 9))
    run_at(watched, at(24, 10))
    assert done == [(tree.estate_id, at(24, 9), at(24, 9))]
    run_at(watched, at(26, 12))
    assert [when for _, when, _ in done] == [at(24, 9), at(25, 9), at(26, 9)], "after downtime too, each dated as it should have been"
    assert tasks(watched, tree) == []


@pytest.mark.rule("REP-26")
def test_it_is_missed_at_the_due_instant_and_told_up_the_ladder(watched: Database) -> None:
    tree = planned(watched, MONDAY)
    run_at(watched, at(23, 16, 30))
    with watched.read() as tx:
        task: UUID = tx.execute("SELECT id FROM duty_tasks WHERE estate_id = %s", (tree.estate_id,))[0][0]
    run_at(watched, at(23, 17) - SECOND)
    assert tasks(watched, tree)[0][0] == "OPEN"
    run_at(watched, at(23, 17))
    assert tasks(watched, tree)[0][0] == "MISSED"
    set_time(watched, at(23, 17, 15))
    clocks.sweep(watched)
    assert clock_events(watched, task) == [
        ("duty", "ClockWarned", at(23, 16, 54)),
        ("duty", "ClockBreached", at(23, 17)),
        ("duty", "ClockEscalated", at(23, 17, 15)),
    ]
    told = published(watched, task)
    assert [(event.type, event.occurred_at) for event in told] == [("DutyOpened", at(23, 16, 30)), ("DutyMissed", at(23, 17))]
    assert told[0].data["role"] == "EARLY_SHIFT_CLERK"
    assert told[0].data["assignees"] == [tree.staff["EARLY_SHIFT_CLERK"].name]


def test_what_became_of_duties_is_counted(watched: Database) -> None:
    def counted(result: str) -> float:
        return REGISTRY.get_sample_value("steward_duties_total", {"service": "probe", "duty": CHECK.name, "result": result}) or 0.0

    planned(watched, MONDAY)
    before = counted("opened"), counted("missed")
    run_at(watched, at(23, 16, 30))
    assert (counted("opened"), counted("missed")) == (before[0] + 1, before[1])
    run_at(watched, at(23, 17))
    assert (counted("opened"), counted("missed")) == (before[0] + 1, before[1] + 1)


def test_a_register_that_is_not_there_yet_takes_no_duty_away(watched: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = planned(watched, MONDAY)
    with monkeypatch.context() as patch:
        patch.setattr(directory, "estates", lambda tx: [])
        assert duties.plan(watched) == 0
    run_at(watched, at(23, 16, 30))
    assert len(tasks(watched, tree)) == 1


def test_after_downtime_every_missed_occurrence_is_opened_in_order_and_dated_as_it_should_have_been(watched: Database) -> None:
    tree = planned(watched, MONDAY)
    run_at(watched, at(27, 9))
    assert tasks(watched, tree) == [("MISSED", at(day, 16, 30), at(day, 17)) for day in (23, 24, 25, 26)]
    with watched.read() as tx:
        rows = tx.execute(
            "SELECT occurred_at FROM events WHERE estate_id = %s AND type = 'DutyOpened' ORDER BY recorded_at", (tree.estate_id,)
        )
    assert [row[0] for row in rows] == [at(day, 16, 30) for day in (23, 24, 25, 26)]


def test_what_was_due_more_than_35_days_ago_is_not_made_up_for(watched: Database) -> None:
    tree = planned(watched, MONDAY)
    back = at(23, 17) + 40 * DAY
    run_at(watched, back)
    found = tasks(watched, tree)
    assert found[0][2] == back - 35 * DAY + DAY, "the first that was due within the 35 days"
    assert found[-1][2] == back
    assert len(found) == 35


def test_replicas_that_run_at_the_same_time_open_an_occurrence_once(watched: Database) -> None:
    trees = [a_tree(watched) for _ in range(5)]
    planned(watched, MONDAY, trees[0])
    set_time(watched, at(24, 18))
    start = threading.Barrier(4)

    def replica() -> None:
        start.wait()
        duties.plan(watched)
        duties.run_duties(watched)

    replicas = [threading.Thread(target=replica) for _ in range(4)]
    for thread in replicas:
        thread.start()
    for thread in replicas:
        thread.join()
    duties.run_duties(watched)
    for tree in trees:
        assert [(state, due) for state, _, due in tasks(watched, tree)] == [("MISSED", at(23, 17)), ("MISSED", at(24, 17))]


def test_each_estate_goes_by_its_own_clock(watched: Database) -> None:
    china, america = planned(watched, MONDAY), planned(watched, MONDAY, zone="America/Los_Angeles")
    run_at(watched, at(23, 17))
    assert len(tasks(watched, china)) == 1
    assert tasks(watched, america) == []
    run_at(watched, datetime(2026, 11, 23, 17, 0, tzinfo=ZoneInfo("America/Los_Angeles")))
    assert [due for _, _, due in tasks(watched, america)] == [datetime(2026, 11, 24, 1, 0, tzinfo=UTC)]


def override(database: Database, tree: Tree, value: str) -> None:
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO policy_overrides (key, node_id, value, changed_by) VALUES (%s, %s, to_jsonb(%s::text), 'staff/x')"
            " ON CONFLICT (key, node_id) DO UPDATE SET value = EXCLUDED.value",
            (AT.key, tree.estate_id, value),
        )
    database.policies._read_at = float("-inf")


def test_an_estate_with_another_time_of_day_goes_by_that_and_not_twice_a_day(watched: Database) -> None:
    tree = planned(watched, MONDAY)
    override(watched, tree, "15:00")
    duties.plan(watched)
    run_at(watched, at(23, 14, 30))
    assert [due for _, _, due in tasks(watched, tree)] == [at(23, 15)]

    override(watched, tree, "18:00")  # later than what was opened today already
    duties.plan(watched)
    run_at(watched, at(23, 18))
    assert [due for _, _, due in tasks(watched, tree)] == [at(23, 15)]
    run_at(watched, at(24, 18))
    assert [due for _, _, due in tasks(watched, tree)] == [at(23, 15), at(24, 18)]


def test_a_new_estate_gets_its_duties_and_one_that_is_gone_loses_them(watched: Database) -> None:
    tree = planned(watched, at(23, 16, 45))
    duties.run_duties(watched)
    assert tasks(watched, tree) == [("OPEN", at(23, 16, 30), at(23, 17))], "there is still time to do it today"
    with watched.transaction() as tx:
        tx.execute("UPDATE dir_nodes SET deleted = true WHERE id = %s", (tree.estate_id,))
    duties.plan(watched)
    run_at(watched, at(25, 18))
    assert len(tasks(watched, tree)) == 1


def test_it_falls_to_the_roster_then_to_the_post_then_to_the_next_role(watched: Database) -> None:
    tree = planned(watched, MONDAY)
    with watched.transaction() as tx:
        assert duties.doers(tx, CHECK, tree.estate, at(23, 17), at(23, 16, 30)) == (
            "EARLY_SHIFT_CLERK",
            [tree.staff["EARLY_SHIFT_CLERK"].id],
        )
        on_duty = tree.hire(tx, "CUSTOMER_ASSISTANT")
        tx.execute(
            "INSERT INTO dir_shifts (id, version, staff_id, role, estate_id, early_shift, starts_at, ends_at)"
            " VALUES (gen_random_uuid(), 1, %s, 'CUSTOMER_ASSISTANT', %s, true, %s, %s)",
            (on_duty.id, tree.estate_id, at(23, 7), at(23, 15)),
        )
        assert duties.doers(tx, CHECK, tree.estate, at(23, 17), at(23, 16, 30)) == ("EARLY_SHIFT_CLERK", [on_duty.id])
        assert duties.doers(tx, CHECK, tree.estate, at(24, 17), at(24, 16, 30))[1] == [tree.staff["EARLY_SHIFT_CLERK"].id], (
            "his shift is today's"
        )
        tx.execute("UPDATE dir_posts SET deleted = true WHERE node_id = %s AND role = 'EARLY_SHIFT_CLERK'", (tree.estate_id,))
        role, assistants = duties.doers(tx, CHECK, tree.estate, at(24, 17), at(24, 16, 30))
        assert (role, set(assistants)) == ("CUSTOMER_ASSISTANT", {on_duty.id, tree.staff["CUSTOMER_ASSISTANT"].id})


def test_moved_time_knows_when_the_next_duty_comes_and_fires_it(watched: Database) -> None:
    tree, walk = planned(watched, MONDAY), Walk({"probe": watched})
    state = walk.get_business_time(business_time_pb2.GetBusinessTimeRequest(service="probe"), None)
    assert state.next_due.ToDatetime(tzinfo=UTC) <= at(23, 16, 30)
    for instant in (at(23, 16, 30), at(23, 17)):
        request = business_time_pb2.ShiftBusinessTimeRequest(service="probe")
        request.to.FromDatetime(instant)
        assert walk.shift_business_time(request, None).fired > 0
    assert tasks(watched, tree) == [("MISSED", at(23, 16, 30), at(23, 17))]


@pytest.mark.parametrize(
    ("rule", "at_time", "after", "due"),
    [
        ("FREQ=DAILY", "17:00", datetime(2026, 11, 23, 17, 0), datetime(2026, 11, 24, 17, 0)),
        ("FREQ=DAILY", "17:00", datetime(2026, 11, 23, 16, 59, 59), datetime(2026, 11, 23, 17, 0)),
        ("FREQ=MONTHLY;BYMONTHDAY=5", "09:00", datetime(2026, 11, 5, 9, 0), datetime(2026, 12, 5, 9, 0)),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "18:00", datetime(2027, 2, 1), datetime(2027, 2, 28, 18, 0)),
        ("FREQ=WEEKLY;BYDAY=FR", "16:00", datetime(2026, 11, 23), datetime(2026, 11, 27, 16, 0)),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO", "09:00", datetime(2024, 1, 1, 9, 0), datetime(2024, 1, 15, 9, 0)),
        ("FREQ=YEARLY;BYMONTH=7;BYMONTHDAY=1", "09:00", datetime(2026, 11, 23), datetime(2027, 7, 1, 9, 0)),
    ],
)
def test_a_rule_is_read_as_rfc_5545_says(rule: str, at_time: str, after: datetime, due: datetime) -> None:
    duty = Duty("probe_rule", rule, at=at_time, opens=MINUTE, roles=("CUSTOMER_ASSISTANT",), ladder=(), rules="REP-26")
    found = next_due(duty.recurrence(Terms()), "Asia/Shanghai", after.replace(tzinfo=CHINA))
    assert found == due.replace(tzinfo=CHINA)


@pytest.mark.parametrize(
    "rule", ["FREQ=DAILY;BYHOUR=3", "FREQ=HOURLY", "FREQ=DAILY;COUNT=3", "FREQ=SOMETIMES", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"]
)
def test_a_rule_that_never_comes_or_says_more_than_days_is_refused_at_once(rule: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Duty("probe_rule", rule, at="09:00", opens=MINUTE, roles=(), ladder=(), rules="REP-26")
