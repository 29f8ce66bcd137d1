"""Who is on duty: by the roster of the moment, else by post, else the deputy; and which days are duty days."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis import directory
from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.names import stamp
from services.chassis.on_duty import roster
from services.chassis.testing import Caller, Tree, a_tree
from steward.residents.v1 import directory_pb2 as pb
from tests.rostered import absence, arrive, post, shift

SHANGHAI = ZoneInfo("Asia/Shanghai")
ROLE = "ENGINEERING_SUPERVISOR"


def at(day: int, hour: int, minute: int = 0, zone: ZoneInfo = SHANGHAI) -> datetime:
    """An hour of November 2026 on the estate's clock; the 23rd is a Monday."""
    return datetime(2026, 11, day, hour, minute, tzinfo=zone)


def told(database: Database, tree: Tree, when: datetime, role: str = ROLE) -> set[UUID]:
    with database.read() as tx:
        found = directory.on_duty(tx, role, tree.estate, when)
    assert len(found) == len(set(found))
    return set(found)


@pytest.fixture
def colleagues(database: Database, tree: Tree) -> tuple[Caller, Caller]:
    """The two engineering supervisors of the estate."""
    return tree.staff[ROLE], tree.hire(database, ROLE)


def test_without_a_roster_everybody_with_the_post_is_on_duty(database: Database, tree: Tree, colleagues: tuple[Caller, Caller]) -> None:
    assert told(database, tree, at(23, 3)) == {who.id for who in colleagues}
    with database.read() as tx:
        assert set(directory.on_duty(tx, ROLE, tree.estate)) == {who.id for who in colleagues}, "now, unless an instant is given"


@pytest.mark.rule("REP-09")
def test_the_night_shift_is_on_duty_at_0310_and_not_at_0900(database: Database, tree: Tree, colleagues: tuple[Caller, Caller]) -> None:
    by_day, by_night = colleagues
    arrive(database, shift(by_night, tree, ROLE, at(22, 22), at(23, 6)), shift(by_day, tree, ROLE, at(23, 6), at(23, 18)))
    assert told(database, tree, at(23, 3, 10)) == {by_night.id}
    assert told(database, tree, at(23, 9)) == {by_day.id}
    assert told(database, tree, at(23, 6)) == {by_day.id}, "a shift counts from its start until before its end"
    assert told(database, tree, at(22, 22)) == {by_night.id}


def test_when_nobody_is_on_shift_everybody_with_the_post_is_on_duty(
    database: Database, tree: Tree, colleagues: tuple[Caller, Caller]
) -> None:
    arrive(database, shift(colleagues[1], tree, ROLE, at(22, 22), at(23, 6)))
    assert told(database, tree, at(23, 20)) == {who.id for who in colleagues}


def test_a_split_shift_leaves_the_time_between_to_the_post_holders(
    database: Database, tree: Tree, colleagues: tuple[Caller, Caller]
) -> None:
    arrive(database, *(shift(colleagues[0], tree, ROLE, at(23, a), at(23, b)) for a, b in ((8, 12), (14, 18))))
    assert [told(database, tree, at(23, hour)) == {colleagues[0].id} for hour in (9, 13, 15)] == [True, False, True]


def test_a_roster_of_one_role_or_estate_says_nothing_about_another(database: Database, tree: Tree) -> None:
    technician, other = tree.technician, a_tree(database, beside=tree)
    arrive(database, shift(technician, tree, "TECHNICIAN", at(23, 0), at(23, 8)))
    second = tree.hire(database, "TECHNICIAN")
    assert told(database, tree, at(23, 3), "TECHNICIAN") == {technician.id}
    assert told(database, tree, at(23, 3)) == {tree.staff[ROLE].id}
    assert told(database, other, at(23, 3), "TECHNICIAN") == {other.technician.id}
    assert told(database, tree, at(23, 9), "TECHNICIAN") == {technician.id, second.id}


def test_who_is_on_shift_without_the_post_any_more_is_not_on_duty(
    database: Database, tree: Tree, colleagues: tuple[Caller, Caller]
) -> None:
    former = Caller("staff", uuid4())
    arrive(database, shift(former, tree, ROLE, at(23, 0), at(23, 8)), post(former, ROLE, tree.estate_id, end=at(23, 2)))
    assert told(database, tree, at(23, 1)) == {former.id}
    assert told(database, tree, at(23, 3)) == {who.id for who in colleagues}


def test_somebody_of_the_company_may_have_a_shift_at_the_estate(database: Database, tree: Tree) -> None:
    pooled = Caller("staff", uuid4())
    arrive(database, post(pooled, "TECHNICIAN", tree.company_id), shift(pooled, tree, "TECHNICIAN", at(23, 0), at(23, 8)))
    assert told(database, tree, at(23, 3), "TECHNICIAN") == {pooled.id}
    assert told(database, tree, at(23, 9), "TECHNICIAN") == {tree.technician.id}


def test_who_is_on_leave_is_not_told_and_his_colleague_is(database: Database, tree: Tree, colleagues: tuple[Caller, Caller]) -> None:
    arrive(database, absence(colleagues[0], at(23, 0), at(24, 0), deputy=tree.technician))
    assert told(database, tree, at(23, 3)) == {colleagues[1].id}, "a deputy is for when nobody with the post is there"
    assert told(database, tree, at(24, 0)) == {who.id for who in colleagues}


def test_when_everybody_with_the_post_is_on_leave_the_deputies_are_told(
    database: Database, tree: Tree, colleagues: tuple[Caller, Caller]
) -> None:
    arrive(database, absence(colleagues[0], at(23, 0), deputy=tree.technician), absence(colleagues[1], at(23, 0), at(24, 0)))
    assert told(database, tree, at(23, 3)) == {tree.technician.id}
    assert told(database, tree, at(24, 3)) == {colleagues[1].id}


def test_a_deputy_takes_over_the_shift_of_who_is_on_leave(database: Database, tree: Tree, colleagues: tuple[Caller, Caller]) -> None:
    ill, other = colleagues
    arrive(database, shift(ill, tree, ROLE, at(22, 22), at(23, 6)), absence(ill, at(23, 0), at(30, 0), deputy=tree.technician))
    assert told(database, tree, at(22, 23)) == {ill.id}
    assert told(database, tree, at(23, 3)) == {tree.technician.id}
    assert told(database, tree, at(23, 9)) == {other.id}


def test_who_is_on_leave_without_a_deputy_leaves_the_role_to_nobody(database: Database, tree: Tree) -> None:
    arrive(database, absence(tree.staff[ROLE], at(23, 0), at(24, 0)))
    assert told(database, tree, at(23, 3)) == set()


@pytest.mark.parametrize("why", ["away himself", "of another node", "left"])
def test_a_deputy_who_cannot_be_one_is_none(database: Database, tree: Tree, why: str) -> None:
    deputy = tree.staff["QUALITY_MANAGER"] if why == "of another node" else Caller("staff", uuid4())
    arrive(database, absence(tree.staff[ROLE], at(23, 0), deputy=deputy))
    if why == "away himself":
        arrive(database, post(deputy, "TECHNICIAN", tree.estate_id), absence(deputy, at(23, 0), at(23, 12)))
        assert told(database, tree, at(23, 13)) == {deputy.id}
    elif why == "left":
        arrive(database, post(deputy, "TECHNICIAN", tree.estate_id, end=at(23, 2)))
        assert told(database, tree, at(23, 1)) == {deputy.id}
    assert told(database, tree, at(23, 3)) == set()


def test_a_role_whose_holders_at_the_estate_are_away_is_answered_for_by_the_company(database: Database, tree: Tree) -> None:
    above = Caller("staff", uuid4())
    arrive(database, absence(tree.staff[ROLE], at(23, 0)), post(above, ROLE, tree.company_id))
    assert told(database, tree, at(22, 3)) == {tree.staff[ROLE].id}
    assert told(database, tree, at(23, 3)) == {above.id}


@pytest.mark.rule("REP-25", "REP-26")
def test_a_customer_assistant_on_the_early_shift_is_the_early_shift_clerk_while_on_it(database: Database, tree: Tree) -> None:
    assistant = tree.staff["CUSTOMER_ASSISTANT"]
    arrive(database, shift(assistant, tree, "CUSTOMER_ASSISTANT", at(23, 7), at(23, 15), early=True))
    assert told(database, tree, at(23, 9), "EARLY_SHIFT_CLERK") == {assistant.id}
    assert told(database, tree, at(23, 9), "CUSTOMER_ASSISTANT") == {assistant.id}
    assert told(database, tree, at(23, 16), "EARLY_SHIFT_CLERK") == {tree.staff["EARLY_SHIFT_CLERK"].id}
    with database.transaction() as tx:
        now = tx.now
        clerk = Grant("EARLY_SHIFT_CLERK", "estate", tree.estate_id)
        assert directory.revoked(tx, assistant.id, [clerk]) == {clerk}
        arrive(tx, shift(assistant, tree, "EARLY_SHIFT_CLERK", now - timedelta(hours=1), now + timedelta(hours=1), early=True))
        assert directory.revoked(tx, assistant.id, [clerk]) == set()
        assert directory.holds_post(tx, assistant.id, "EARLY_SHIFT_CLERK", tree.estate)
        technician = tree.technician
        arrive(tx, shift(technician, tree, "EARLY_SHIFT_CLERK", now - timedelta(hours=1), now + timedelta(hours=1), early=True))
        assert not directory.holds_post(tx, technician.id, "EARLY_SHIFT_CLERK", tree.estate), "a shift alone makes nobody a clerk"


def test_a_deputy_holds_the_role_at_the_common_node_and_no_longer_than_the_leave(database: Database, tree: Tree) -> None:
    absent, deputy = tree.staff["PROJECT_MANAGER"], tree.staff["CS_SUPERVISOR"]
    other = a_tree(database, beside=tree)
    here, there = (Grant("PROJECT_MANAGER", "estate", node) for node in (tree.estate_id, other.estate_id))
    with database.transaction() as tx:
        leave = absence(absent, tx.now - timedelta(days=1), deputy=deputy)
        arrive(tx, post(absent, "PROJECT_MANAGER", other.estate_id), leave)
        assert directory.revoked(tx, deputy.id, [here, there]) == {there}
        assert directory.holds_post(tx, deputy.id, "PROJECT_MANAGER", tree.estate)
        assert directory.holds_post(tx, absent.id, "PROJECT_MANAGER", tree.estate), "who is away keeps what he holds"
        leave.version = 2
        leave.absence.end_time.CopyFrom(stamp(tx.now))  # type: ignore[arg-type]
        arrive(tx, leave)
        assert directory.revoked(tx, deputy.id, [here]) == {here}


@pytest.mark.rule("REP-25")
def test_a_duty_day_is_one_on_which_the_roster_has_somebody_on_duty(database: Database, tree: Tree) -> None:
    def duty_days() -> list[int]:
        with database.read() as tx:
            return [day for day in range(20, 29) if directory.is_duty_day(tx, tree.estate, date(2026, 11, day))]

    assert duty_days() == list(range(20, 29)), "without a roster every day counts"
    clerk = tree.staff["EARLY_SHIFT_CLERK"]
    arrive(database, *(shift(clerk, tree, "EARLY_SHIFT_CLERK", at(day, 7), at(day, 15)) for day in (20, 23, 24, 26)))
    assert duty_days() == [20, 23, 24, 26, 27, 28], "days before a later shift are rest; days after the last one are not planned yet"
    arrive(database, absence(clerk, at(24, 0), at(25, 0)))
    assert duty_days() == [20, 23, 26, 27, 28], "nobody is there when the only one is away"
    with database.read() as tx:
        assert directory.next_duty_day(tx, tree.estate, date(2026, 11, 20)) == date(2026, 11, 23)
        assert directory.next_duty_day(tx, tree.estate, date(2026, 11, 23)) == date(2026, 11, 26)
        assert directory.next_duty_day(tx, tree.estate, date(2026, 11, 26)) == date(2026, 11, 27)


def test_a_night_shift_makes_both_its_days_duty_days_on_the_clock_of_the_estate(database: Database) -> None:
    for zone, days in (("Asia/Shanghai", [22, 23]), ("UTC", [22]), ("America/New_York", [22])):
        tree = a_tree(database, zone=zone)
        arrive(
            database,
            shift(tree.technician, tree, "TECHNICIAN", at(22, 22), at(23, 6)),
            shift(tree.technician, tree, "TECHNICIAN", at(30, 22), at(30, 23)),
        )
        with database.read() as tx:
            assert [day for day in range(20, 26) if directory.is_duty_day(tx, tree.estate, date(2026, 11, day))] == days, zone


def versions(seed: int, people: list[UUID], estate: UUID) -> list[pb.DirectoryEntry]:
    """Shifts and absences of a few people in several versions, the last of some a tombstone."""
    dice = random.Random(seed)  # noqa: S311
    entries = []
    for _ in range(dice.randint(1, 6)):
        identifier, last, is_shift = str(uuid4()), dice.randint(1, 4), dice.random() < 0.6
        for version in range(1, last + 1):
            start = at(23, dice.randint(0, 12))
            times: dict[str, Any] = {"start_time": stamp(start), "end_time": stamp(start + timedelta(hours=dice.randint(1, 12)))}
            who, other = (str(person) for person in dice.sample(people, 2))
            entry = pb.DirectoryEntry(id=identifier, version=version, deleted=version == last and dice.random() < 0.3)
            if is_shift:
                entry.shift.CopyFrom(pb.DirectoryEntry.Shift(staff_id=who, role="TECHNICIAN", estate_id=str(estate), **times))
            else:
                entry.absence.CopyFrom(pb.DirectoryEntry.Absence(staff_id=who, deputy_id=dice.choice(["", other]), **times))
            entries.append(entry)
    return entries


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_shuffled_and_doubled_shifts_and_absences_put_the_same_people_on_duty(database: Database, what: int, how: int) -> None:
    tree = a_tree(database)
    people = [tree.technician.id, *(tree.hire(database, "TECHNICIAN").id for _ in range(3))]
    entries, dice = versions(what, people, tree.estate_id), random.Random(how)  # noqa: S311
    ids = sorted({entry.id for entry in entries})

    def seen() -> tuple[list[tuple[Any, ...]], list[list[UUID]]]:
        with database.read() as tx:
            rows = [
                row
                for table in ("dir_shifts", "dir_absences")
                for row in tx.execute(f"SELECT * FROM {table} WHERE id = ANY(%s::uuid[])", (ids,))
            ]
            return sorted(rows, key=str), [directory.on_duty(tx, "TECHNICIAN", tree.estate, at(23, hour)) for hour in range(24)]

    arrive(database, *entries)
    expected = seen()
    with database.transaction() as tx:
        for table in ("dir_shifts", "dir_absences"):
            tx.execute(f"DELETE FROM {table} WHERE id = ANY(%s::uuid[])", (ids,))
    stream = entries * 2
    dice.shuffle(stream)
    while stream:
        arrive(database, *(stream.pop() for _ in range(min(len(stream), dice.randint(1, 5)))))
    assert seen() == expected
    assert len(expected[0]) == len(ids), "tombstones stay"


@given(st.integers(0, 2**32))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_one_question_about_a_span_says_the_same_as_one_about_each_instant(database: Database, what: int) -> None:
    """Of two estates of one company, so that those of the company answer for both."""
    here = a_tree(database)
    there = a_tree(database, beside=here)
    people = [here.technician.id, there.technician.id, *(here.hire(database, "TECHNICIAN").id for _ in range(2))]
    arrive(database, *versions(what, people, here.estate_id), *versions(what + 1, people, there.estate_id))
    arrive(database, post(Caller("staff", uuid4()), "TECHNICIAN", here.company_id, end=at(23, 12)))
    asked = [(role, tree.estate) for role in ("TECHNICIAN", ROLE, "CASHIER") for tree in (here, there)]
    with database.read() as tx:
        over_the_day = roster(tx, asked, at(23, 0), at(23, 23))
        for role, estate in asked:
            for hour in range(24):
                assert over_the_day.on_duty(role, estate.id, at(23, hour)) == directory.on_duty(tx, role, estate, at(23, hour))
