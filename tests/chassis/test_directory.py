"""The copy of the register: the higher version wins, whatever order entries come in and however often."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis import directory, reactions
from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.names import stamp
from services.chassis.testing import STAFF_ROLES, Tree, a_tree, event_body
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2


def held(database: Database, ids: list[str]) -> list[tuple[Any, ...]]:
    """Everything the copy knows about some entries, without order."""
    with database.read() as tx:
        found: list[tuple[Any, ...]] = []
        for table in ("dir_nodes", "dir_members", "dir_posts"):
            found += [(table, *row) for row in tx.execute(f"SELECT * FROM {table} WHERE id = ANY(%s::uuid[])", (ids,))]
    return sorted(found, key=str)


def versions(seed: int) -> list[pb.DirectoryEntry]:
    """Some entries of every kind in several versions, the last of some a tombstone."""
    dice = random.Random(seed)  # noqa: S311
    entries = []
    for number in range(dice.randint(1, 6)):
        identifier, kind = str(uuid4()), dice.choice(["node", "membership", "post"])
        last = dice.randint(1, 4)
        for version in range(1, last + 1):
            entry = pb.DirectoryEntry(id=identifier, version=version, deleted=version == last and dice.random() < 0.3)
            if kind == "node":
                entry.node.CopyFrom(
                    pb.Node(
                        kind=pb.Node.UNIT,
                        code=f"{number}-{version}",
                        estate_id=str(uuid4()),
                        unit_status=pb.UnitStatus(taken_over=version % 2 == 0),
                    )
                )
            elif kind == "membership":
                entry.membership.CopyFrom(
                    pb.Membership(person_id=str(uuid4()), unit_id=str(uuid4()), estate_id=str(uuid4()), kind=version % 3 + 1)
                )  # type: ignore[arg-type]
            else:
                role = dice.choice(STAFF_ROLES)
                entry.post.CopyFrom(
                    pb.Post(staff_id=str(uuid4()), role=role, node_id=str(uuid4()), end_time=stamp(datetime(2030, 1, version, tzinfo=UTC)))
                )
            entries.append(entry)
    return entries


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_shuffled_doubled_and_split_entries_give_the_same_end_as_entries_in_order(database: Database, what: int, how: int) -> None:
    entries, dice = versions(what), random.Random(how)  # noqa: S311
    ids = sorted({entry.id for entry in entries})
    with database.transaction() as tx:
        directory.apply(tx, entries)
    expected = held(database, ids)
    with database.transaction() as tx:
        for table in ("dir_nodes", "dir_members", "dir_posts"):
            tx.execute(f"DELETE FROM {table} WHERE id = ANY(%s::uuid[])", (ids,))
    stream = entries * 2
    dice.shuffle(stream)
    while stream:
        batch = [stream.pop() for _ in range(min(len(stream), dice.randint(1, 5)))]
        with database.transaction() as tx:
            directory.apply(tx, batch)
    assert held(database, ids) == expected
    assert len(expected) == len(ids), "tombstones stay"


def test_repeating_an_entry_changes_nothing_and_says_so(database: Database) -> None:
    entries = versions(7)
    with database.transaction() as tx:
        assert directory.apply(tx, entries) == len({entry.id for entry in entries})
        assert directory.apply(tx, entries) == 0
        assert directory.apply(tx, []) == 0


def test_a_tombstone_is_not_raised_by_a_late_older_version(database: Database, tree: Tree) -> None:
    unit = str(tree.units[tree.unit])
    node = pb.Node(kind=pb.Node.UNIT, code=tree.unit, estate_id=str(tree.estate_id))
    with database.transaction() as tx:
        directory.apply(tx, [pb.DirectoryEntry(id=unit, version=9, deleted=True, node=node)])
    with database.transaction() as tx:
        assert directory.apply(tx, [pb.DirectoryEntry(id=unit, version=8, node=node)]) == 0
        with pytest.raises(directory.UnknownUnit) as missing:
            directory.unit_by_number(tx, tree.estate, tree.unit, "unit")
        assert missing.value.reason == "UNIT_NOT_FOUND"


def test_an_estate_is_found_by_code_and_by_id_with_its_place_in_the_tree(database: Database, tree: Tree) -> None:
    with database.read() as tx:
        assert directory.estate_by_code(tx, tree.code) == tree.estate == directory.estate_by_id(tx, tree.estate_id)
        assert directory.estate_by_code(tx, tree.code.lower()) is None
        assert directory.estate_by_code(tx, "' OR 1=1 --") is None
        assert directory.estate_by_id(tx, tree.company_id) is None, "a company is no estate"


def test_a_unit_is_found_in_its_own_estate_alone(database: Database, tree: Tree) -> None:
    other = a_tree(database, units=["9-9-0909"])
    with database.read() as tx:
        assert directory.unit_by_number(tx, tree.estate, tree.unit, "unit").id == tree.units[tree.unit]
        assert directory.unit_number(tx, tree.units[tree.unit]) == tree.unit
        for number in ("9-9-0909", "", "1栋"):
            with pytest.raises(directory.UnknownUnit):
                directory.unit_by_number(tx, tree.estate, number, "unit")
        assert directory.unit_by_number(tx, other.estate, "9-9-0909", "unit")


def post(staff: UUID, role: str, node: UUID, *, start: datetime | None = None, end: datetime | None = None) -> pb.DirectoryEntry:
    return pb.DirectoryEntry(
        id=str(uuid4()),
        version=1,
        post=pb.Post(staff_id=str(staff), role=role, node_id=str(node), start_time=stamp(start), end_time=stamp(end)),
    )  # type: ignore[arg-type]


def test_holders_of_a_role_are_those_of_the_estate_else_of_the_company_else_of_the_group(database: Database, tree: Tree) -> None:
    here, company, group = uuid4(), uuid4(), uuid4()
    with database.transaction() as tx:
        assert directory.holders(tx, "DEVELOPER", tree.estate) == []
        for staff, node in ((group, tree.group_id), (company, tree.company_id), (here, tree.estate_id)):
            directory.apply(tx, [post(staff, "DEVELOPER", node)])
            assert directory.holders(tx, "DEVELOPER", tree.estate) == [staff]
        for staff in (here, company, group):
            assert directory.holds_post(tx, staff, "DEVELOPER", tree.estate)
        assert not directory.holds_post(tx, here, "VENDOR", tree.estate)
        other = a_tree(tx)
        assert not directory.holds_post(tx, here, "DEVELOPER", other.estate)


@pytest.mark.parametrize(
    ("start", "end", "holds"),
    [
        (None, None, True),
        (0, None, True),
        (1, None, False),
        (None, 0, False),
        (None, 1, True),
        (-5, -1, False),
        (-5, 5, True),
        (1, 5, False),
    ],
)
def test_a_post_and_a_membership_count_from_their_start_until_before_their_end(
    database: Database, tree: Tree, start: int | None, end: int | None, holds: bool
) -> None:
    staff, person, unit = uuid4(), uuid4(), tree.units[tree.unit]
    with database.transaction() as tx:

        def at(minutes: int | None) -> datetime | None:
            return None if minutes is None else tx.now + timedelta(minutes=minutes)

        member = pb.Membership(
            person_id=str(person),
            unit_id=str(unit),
            estate_id=str(tree.estate_id),
            kind="TENANT",
            start_time=stamp(at(start)),
            end_time=stamp(at(end)),
        )  # type: ignore[arg-type]
        directory.apply(
            tx,
            [
                post(staff, "VENDOR", tree.estate_id, start=at(start), end=at(end)),
                pb.DirectoryEntry(id=str(uuid4()), version=1, membership=member),
            ],
        )
        assert (directory.holders(tx, "VENDOR", tree.estate) == [staff]) is holds
        assert directory.holds_post(tx, staff, "VENDOR", tree.estate) is holds
        assert ((person, "TENANT") in directory.occupants(tx, unit)) is holds


def test_occupants_are_everybody_of_the_unit(database: Database, tree: Tree) -> None:
    with database.read() as tx:
        found = directory.occupants(tx, tree.units[tree.unit])
    assert set(found) == {(tree.residents[kind].id, kind) for kind in ("OWNER", "TENANT", "FAMILY_MEMBER")}


def test_a_grant_whose_post_is_gone_is_revoked(database: Database, tree: Tree) -> None:
    technician = tree.technician
    with database.transaction() as tx:
        assert directory.revoked(tx, technician.id, technician.grants) == set()
        elsewhere = Grant("TECHNICIAN", "estate", uuid4())
        assert directory.revoked(tx, technician.id, [elsewhere]) == {elsewhere}
        whole = pb.Post(staff_id=str(technician.id), role="TECHNICIAN", node_id=str(tree.estate_id))  # type: ignore[arg-type]
        row = tx.execute("SELECT id FROM dir_posts WHERE staff_id = %s", (technician.id,))[0][0]
        directory.apply(tx, [pb.DirectoryEntry(id=str(row), version=2, deleted=True, post=whole)])
        assert directory.revoked(tx, technician.id, technician.grants) == set(technician.grants)


def test_a_grant_whose_post_has_ended_is_revoked(database: Database, tree: Tree) -> None:
    staff = uuid4()
    grant = Grant("TECHNICIAN", "estate", tree.estate_id)
    with database.transaction() as tx:
        directory.apply(tx, [post(staff, "TECHNICIAN", tree.estate_id, end=tx.now - timedelta(seconds=1))])
        assert directory.revoked(tx, staff, [grant]) == {grant}


def test_a_change_of_the_register_arrives_as_an_event_once(database: Database) -> None:
    estate = uuid4()
    entry = pb.DirectoryEntry(
        id=str(estate), version=1, node=pb.Node(kind=pb.Node.ESTATE, code=f"E{estate.hex[:8]}", name="新", time_zone="Asia/Shanghai")
    )
    body = event_body(events_pb2.DirectoryChanged(entries=[entry]), aggregate="directory", subject="directory")
    assert reactions.handle(database, "probe", body).applied == 1
    assert reactions.handle(database, "probe", body).duplicates == 1
    with database.read() as tx:
        assert directory.estate_by_id(tx, estate)


def test_a_copy_says_whether_it_has_been_filled(database_of: Any) -> None:
    fresh = database_of("governance")
    with fresh.transaction() as tx:
        tx.execute("UPDATE dir_state SET filled_at = NULL")
        assert not directory.filled(tx)
        directory.mark_filled(tx)
        assert directory.filled(tx)
