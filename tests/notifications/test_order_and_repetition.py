"""Events come late, twice and in any order, and before the register does; every inbox ends up the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import directory, reactions
from services.chassis.errors import Unavailable
from services.chassis.testing import Tree, a_tree
from steward.residents.v1 import directory_pb2
from steward.work_orders.v1 import events_pb2 as events
from tests import streams
from tests.notifications.inboxes import AT, NUMBER, Inboxes, a_story, minutes, reported
from tests.rostered import arrive, shift

STORY = 9  # events
EXPECTED = [
    ("ENGINEERING_SUPERVISOR", "REPAIR_REPORTED"), ("TECHNICIAN", "REPAIR_CALLED"), ("OWNER", "REPAIR_RECEIVED"),
    ("CUSTOMER_ASSISTANT", "CLOCK_URGED"), ("ENGINEERING_SUPERVISOR", "CLOCK_BREACHED"),
    ("CUSTOMER_ASSISTANT", "REPAIR_UNCOLLECTED"), ("PROJECT_MANAGER", "CLOCK_ESCALATED"),
    ("TECHNICIAN", "REPAIR_DISPATCHED"), ("OWNER", "REPAIR_TAKEN"), ("OWNER", "REPAIR_COMPLETED"),
    ("TECHNICIAN", "REPAIR_REJECTED"), ("ENGINEERING_SUPERVISOR", "REPAIR_REJECTED"), ("TECHNICIAN", "REPAIR_ACCEPTED"),
]  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_everybody_is_told_once_whatever_the_order_and_however_often_events_arrive(inboxes: Inboxes, data: st.DataObject) -> None:
    tree = a_tree(inboxes.database)
    story = [inboxes.event(message, tree, at=AT + minutes(place)) for place, message in enumerate(a_story(tree))]
    assert len(story) == STORY

    streams.arrive(inboxes.database, "notifications", streams.shuffled(data, [body for _, body in story], repeated=10))

    assert sorted((recipient, kind) for recipient, _, kind, _, _ in inboxes.estate(tree)) == sorted(
        (tree.by_role(r).name, k) for r, k in EXPECTED
    )
    for who in {role for role, _ in EXPECTED}:
        in_order = [kind for role, kind in EXPECTED if role == who]
        assert [message["kind"] for message in reversed(inboxes.of(tree.by_role(who)))] == in_order


def test_an_event_that_comes_again_when_its_inbox_row_is_gone_tells_nobody_twice(inboxes: Inboxes, tree: Tree) -> None:
    event_id, body = inboxes.event(reported(tree), tree)
    assert inboxes.arrives(body).applied == 1
    before = inboxes.estate(tree)
    with inboxes.database.transaction() as tx:
        tx.execute("DELETE FROM inbox WHERE event_id = %s", (event_id,))

    assert inboxes.arrives(body).applied == 1

    assert inboxes.estate(tree) == before
    assert len(before) == 2


def test_two_events_of_one_order_are_two_messages(inboxes: Inboxes, tree: Tree) -> None:
    taken = events.RepairTaken(number=NUMBER, technician=tree.technician.name, reporter=tree.owner.name)
    inboxes.happens(taken, tree)
    inboxes.happens(taken, tree)

    assert [message["kind"] for message in inboxes.of(tree.owner)] == ["REPAIR_TAKEN"] * 2


def test_several_events_of_several_estates_tell_whom_each_of_them_alone_would_tell(inboxes: Inboxes) -> None:
    """Rosters and vacancies of one estate, or of one instant, say nothing about another."""
    here, there = a_tree(inboxes.database), a_tree(inboxes.database)
    by_night = here.hire(inboxes.database, "ENGINEERING_SUPERVISOR")
    arrive(inboxes.database, shift(by_night, here, "ENGINEERING_SUPERVISOR", AT - minutes(30), AT + minutes(30)))
    inboxes.vacate(there, "ENGINEERING_SUPERVISOR")
    told = [
        ({by_night}, here, AT),
        ({by_night}, here, AT + minutes(29)),
        ({by_night, here.staff["ENGINEERING_SUPERVISOR"]}, here, AT + minutes(30)),
        ({there.staff["PROJECT_MANAGER"]}, there, AT),
    ]
    events = [inboxes.event(reported(tree, reporter=""), tree, at=at) for _, tree, at in told]

    streams.arrive(inboxes.database, "notifications", [[body for _, body in events]])

    for (who, tree, _), (event_id, _) in zip(told, events, strict=True):
        messages = inboxes.told_of(event_id)
        assert set(messages) == {person.name for person in who}
        assert {tuple(row["skipped_roles"]) for row in messages.values()} == {() if tree is here else ("ENGINEERING_SUPERVISOR",)}
        assert {row["estate_id"] for row in messages.values()} == {str(tree.estate_id)}


def test_an_event_of_an_estate_that_the_directory_does_not_know_yet_is_told_once_it_does(inboxes: Inboxes, tree: Tree) -> None:
    new = dataclasses.replace(tree, estate_id=uuid4(), code="NEU" + tree.code)
    event_id, body = inboxes.event(reported(new), new)

    with pytest.raises(reactions.Failed) as failed:
        inboxes.arrives(body)

    assert not failed.value.permanent
    assert inboxes.told_of(event_id) == {}, "the reporter's receipt waits too: an event is told wholly or not at all"
    node = directory_pb2.Node(
        kind="ESTATE", code=new.code, group_id=str(new.group_id), company_id=str(new.company_id), estate_id=str(new.estate_id)
    )
    with inboxes.database.transaction() as tx:
        directory.apply(tx, [directory_pb2.DirectoryEntry(id=str(new.estate_id), version=1, node=node)])
    inboxes.post(tree.staff["ENGINEERING_SUPERVISOR"], "ENGINEERING_SUPERVISOR", new.estate_id)

    inboxes.arrives(body)

    assert set(inboxes.told_of(event_id)) == {tree.staff["ENGINEERING_SUPERVISOR"].name, tree.owner.name}


@pytest.fixture
def unfilled(inboxes: Inboxes, tree: Tree) -> Iterator[None]:
    """The directory has entries already, but not all of its first copy."""
    with inboxes.database.transaction() as tx:
        tx.execute("UPDATE dir_state SET filled_at = NULL")
    yield
    with inboxes.database.transaction() as tx:
        directory.mark_filled(tx)


@pytest.mark.usefixtures("unfilled")
def test_no_post_counts_as_vacant_while_the_first_copy_of_the_directory_is_under_way(inboxes: Inboxes, tree: Tree) -> None:
    event_id, body = inboxes.event(reported(tree, reporter=""), tree)

    with pytest.raises(reactions.Failed) as failed:
        inboxes.arrives(body)

    assert isinstance(next(iter(failed.value.failures.values())), Unavailable)
    with inboxes.database.transaction() as tx:
        directory.mark_filled(tx)
    inboxes.arrives(body)
    assert set(inboxes.told_of(event_id)) == {tree.staff["ENGINEERING_SUPERVISOR"].name}
