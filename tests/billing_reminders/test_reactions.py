"""What the events of a repair do to its receivable, in a real database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing_reminders.receivables import Receivable, RepairBill
from services.chassis import testing
from services.chassis.db import Database
from services.chassis.directory import apply
from services.chassis.errors import Unavailable
from services.chassis.names import money
from services.chassis.reactions import Failed, handle
from steward.residents.v1 import directory_pb2
from steward.work_orders.v1 import events_pb2 as work_orders

SERVICE = "billing_reminders"
START = datetime(2026, 11, 22, 4, tzinfo=UTC)
VALVE = Decimal("71.00")


@pytest.fixture(scope="module")
def database(database_of: Any) -> Database:
    return database_of(SERVICE)


@pytest.fixture(scope="module")
def tree(database: Database) -> testing.Tree:
    return testing.a_tree(database)


@dataclass
class Repair:
    """A repair whose events are made in order and told in any."""

    tree: testing.Tree
    id: UUID
    sequence: int = 4  # reported, taken, arrived, charged

    def said(self, message: Message) -> bytes:
        self.sequence += 1
        message.repair, message.number = str(self.id), "WX-20261122-0001"  # type: ignore[attr-defined]
        return testing.event_body(
            message,
            tree=self.tree,
            aggregate="repair",
            aggregate_id=self.id,
            sequence=self.sequence,
            at=START + timedelta(days=self.sequence),
        )

    def completed(self, charge: Decimal | None) -> bytes:
        unit_id = str(self.tree.units[self.tree.unit])
        return self.said(work_orders.RepairCompleted(unit_id=unit_id, charge_total=None if charge is None else money(charge)))

    def accepted(self, charge: Decimal | None) -> bytes:
        unit_id = str(self.tree.units[self.tree.unit])
        return self.said(
            work_orders.RepairAccepted(unit_id=unit_id, attitude=5, quality=5, charge_total=None if charge is None else money(charge))
        )

    def rejected(self) -> bytes:
        return self.said(work_orders.RepairRejected(rework_count=1))

    def reopened(self) -> bytes:
        return self.said(work_orders.RepairReopened())

    def cancelled(self) -> bytes:
        return self.said(work_orders.RepairCancelled())


@pytest.fixture
def repair(tree: testing.Tree) -> Repair:
    return Repair(tree, uuid4())


def tell(database: Database, *bodies: bytes) -> None:
    for body in bodies:
        handle(database, SERVICE, body)


def receivable_of(database: Database, repair: Repair) -> Receivable | None:
    with database.read() as tx:
        return tx.session.execute(sa.select(Receivable).where(Receivable.repair_id == repair.id)).scalar_one_or_none()


def standing(database: Database, repair: Repair) -> tuple[Any, ...] | None:
    found = receivable_of(database, repair)
    if found is None:
        return None
    return found.state, found.amount, found.unit_id, found.state_at, found.month, found.notice_on, found.due_on


@pytest.mark.rule("REP-37")
def test_a_chargeable_repair_is_a_provisional_receivable_when_completed_and_due_when_accepted(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(VALVE))
    raised = receivable_of(database, repair)
    assert raised is not None
    assert (raised.state, raised.amount, raised.unit) == ("PROVISIONAL", VALVE, repair.tree.unit)
    assert raised.number is not None
    assert raised.number.startswith("YS-")
    tell(database, repair.accepted(VALVE))
    due = receivable_of(database, repair)
    assert due is not None
    assert (due.id, due.number, due.state, due.amount) == (raised.id, raised.number, "DUE", VALVE)


@pytest.mark.rule("REP-37")
def test_a_free_repair_leaves_no_receivable(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(None), repair.accepted(None))
    assert receivable_of(database, repair) is None


def test_charges_that_add_up_to_nothing_are_free(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(Decimal("0.00")))
    assert receivable_of(database, repair) is None


@pytest.mark.rule("REP-21", "REP-37")
def test_a_rework_voids_the_receivable_until_the_repair_is_completed_again(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(VALVE), repair.rejected())
    void = receivable_of(database, repair)
    assert void is not None
    assert void.state == "VOID"
    tell(database, repair.completed(Decimal("106.50")))
    raised = receivable_of(database, repair)
    assert raised is not None
    assert (raised.id, raised.state, raised.amount) == (void.id, "PROVISIONAL", Decimal("106.50"))


def test_a_rework_that_turns_out_free_leaves_nothing_owed(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(VALVE), repair.rejected(), repair.completed(None), repair.accepted(None))
    found = receivable_of(database, repair)
    assert found is not None
    assert found.state == "VOID"


def test_a_free_completion_that_overtakes_the_rejection_before_it_voids_at_once(database: Database, repair: Repair) -> None:
    priced, rejected, free = repair.completed(VALVE), repair.rejected(), repair.completed(None)
    tell(database, priced, free)
    assert standing(database, repair)[0] == "VOID"  # type: ignore[index]
    tell(database, rejected)
    assert standing(database, repair)[0] == "VOID"  # type: ignore[index]


def test_a_reopened_repair_owes_nothing_until_it_is_accepted_again(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(VALVE), repair.accepted(VALVE), repair.reopened())
    assert standing(database, repair)[0] == "VOID"  # type: ignore[index]
    tell(database, repair.completed(VALVE), repair.accepted(VALVE))
    assert standing(database, repair)[0] == "DUE"  # type: ignore[index]


def test_a_cancelled_repair_owes_nothing(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(VALVE), repair.cancelled())
    assert standing(database, repair)[0] == "VOID"  # type: ignore[index]


def test_what_happens_to_a_receivable_is_told_to_others(database: Database, repair: Repair) -> None:
    tell(database, repair.completed(VALVE), repair.rejected(), repair.completed(VALVE), repair.accepted(VALVE))
    found = receivable_of(database, repair)
    assert found is not None
    log = testing.published(database, found.id)
    assert [event.type for event in log] == ["ReceivableRaised", "ReceivableVoided", "ReceivableRaised", "ReceivableFellDue"]
    assert {event.data["number"] for event in log} == {found.number}
    assert {event.subject for event in log} == {f"{repair.tree.parent}/receivables/{found.id}"}
    # Accepted on 30 November, 12:00 in Shanghai.
    assert log[-1].data["noticeDate"] == {"year": 2026, "month": 12, "day": 1}
    assert log[-1].data["dueDate"] == {"year": 2026, "month": 12, "day": 15}


PRICES = st.one_of(st.none(), st.decimals(min_value="0.01", max_value="9999.99", places=2))
ROUNDS = st.lists(st.tuples(PRICES, st.sampled_from(["rejected", "accepted, reopened"])), max_size=2)


def lives(repair: Repair, rounds: list[tuple[Decimal | None, str]], price: Decimal | None, end: str) -> Iterator[bytes]:
    """Everything billing hears of one repair, in the order it happened."""
    for charge, outcome in rounds:
        yield repair.completed(charge)
        if outcome == "rejected":
            yield repair.rejected()
        else:
            yield repair.accepted(charge)
            yield repair.reopened()
    yield repair.completed(price)
    if end == "accepted":
        yield repair.accepted(price)


@pytest.mark.rule("REP-37")
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_shuffled_and_repeated_events_leave_the_same_receivable_in_the_database(
    database: Database, tree: testing.Tree, data: st.DataObject
) -> None:
    life = (data.draw(ROUNDS), data.draw(PRICES), data.draw(st.sampled_from(["accepted", "completed"])))
    straight, shuffled = Repair(tree, uuid4()), Repair(tree, uuid4())
    tell(database, *lives(straight, *life))
    bodies = list(lives(shuffled, *life))
    tell(database, *data.draw(st.permutations(bodies + data.draw(st.lists(st.sampled_from(bodies), max_size=4)))))
    assert standing(database, shuffled) == standing(database, straight)


def test_the_same_event_delivered_again_changes_nothing(database: Database, repair: Repair) -> None:
    body = repair.completed(VALVE)
    tell(database, body)
    before = receivable_of(database, repair)
    outcome = handle(database, SERVICE, body)
    after = receivable_of(database, repair)
    assert (outcome.applied, outcome.duplicates) == (0, 1)
    assert before is not None
    assert after is not None
    assert after.version == before.version


def test_events_of_one_repair_at_the_same_moment_make_one_receivable(database: Database, tree: testing.Tree) -> None:
    for _ in range(5):
        repair = Repair(tree, uuid4())
        bodies = [repair.completed(VALVE), repair.rejected(), repair.completed(VALVE), repair.accepted(VALVE)]
        failures: list[Exception] = []

        def work(body: bytes, failures: list[Exception] = failures) -> None:
            try:
                handle(database, SERVICE, body)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert standing(database, repair)[:2] == ("DUE", VALVE)  # type: ignore[index]


def test_an_event_that_comes_before_its_estate_is_tried_again(database: Database, database_of: Any) -> None:
    elsewhere = testing.a_tree(database_of("surveys"))  # an estate that billing's directory has not heard of
    repair = Repair(elsewhere, uuid4())
    body = repair.completed(VALVE)
    with pytest.raises(Failed) as failed:
        handle(database, SERVICE, body)
    assert not failed.value.permanent
    assert [(type(e), e.reason) for e in failed.value.failures.values() if isinstance(e, Unavailable)] == [(Unavailable, "ESTATE_UNKNOWN")]
    with database.read() as tx:
        assert tx.session.get(RepairBill, repair.id) is None
    node = directory_pb2.Node(
        kind=directory_pb2.Node.ESTATE, code=elsewhere.code, time_zone=elsewhere.zone, estate_id=str(elsewhere.estate_id),
        company_id=str(elsewhere.company_id), group_id=str(elsewhere.group_id),
    )  # fmt: skip
    with database.transaction() as tx:
        apply(tx, [directory_pb2.DirectoryEntry(id=str(elsewhere.estate_id), version=1, node=node)])
    tell(database, body)
    assert standing(database, repair)[:2] == ("PROVISIONAL", VALVE)  # type: ignore[index]
