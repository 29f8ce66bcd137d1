"""Renovations that the opening register says are going on: what the register's events do, in a real database."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import testing
from services.chassis.db import Database
from services.chassis.directory import apply
from services.chassis.errors import Unavailable
from services.chassis.lifecycle import history
from services.chassis.reactions import Event, handle
from services.renovation.reactions import catch_up, follow_units
from services.renovation.renovations import LIFECYCLE, REMARK, Renovation
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2

SERVICE = "renovation"


@pytest.fixture(scope="module")
def database(database_of: Any) -> Database:
    return database_of(SERVICE)


@dataclass
class Register:
    """An estate in the register of residents, whose events a service hears in whatever order."""

    group_id: UUID = field(default_factory=uuid4)
    company_id: UUID = field(default_factory=uuid4)
    estate_id: UUID = field(default_factory=uuid4)
    units: dict[UUID, int] = field(default_factory=dict)  # unit → version

    def estate(self) -> bytes:
        node = pb.Node(kind=pb.Node.ESTATE, code=f"E{self.estate_id.hex[:9].upper()}", name="天府花园", time_zone="Asia/Shanghai")
        return self.changed(pb.DirectoryEntry(id=str(self.estate_id), version=1, node=self.placed(node)))

    def unit(self, *, under_renovation: bool, unit: UUID | None = None, deleted: bool = False) -> pb.DirectoryEntry:
        """The next word of the register on a unit, a new one by default."""
        unit = unit or uuid4()
        version = self.units[unit] = self.units.get(unit, 0) + 1
        node = pb.Node(kind=pb.Node.UNIT, code=f"1-1-{unit.hex[:4]}", unit_status=pb.UnitStatus(under_renovation=under_renovation))
        return pb.DirectoryEntry(id=str(unit), version=version, deleted=deleted, node=self.placed(node))

    def placed(self, node: pb.Node) -> pb.Node:
        node.estate_id, node.company_id, node.group_id = str(self.estate_id), str(self.company_id), str(self.group_id)
        return node

    def changed(self, *entries: pb.DirectoryEntry) -> bytes:
        return testing.event_body(events_pb2.DirectoryChanged(entries=entries), aggregate="directory")


@pytest.fixture
def register() -> Register:
    return Register()


def tell(database: Database, *bodies: bytes) -> None:
    for body in bodies:
        handle(database, SERVICE, body)


def states(database: Database, register: Register) -> dict[UUID, str]:
    """What is recorded of each unit; fails when a unit has two records."""
    with database.read() as tx:
        rows = tx.session.execute(sa.select(Renovation.unit_id, Renovation.state).where(Renovation.estate_id == register.estate_id)).all()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1] for row in rows}


@pytest.mark.rule("RNV-43")
def test_a_unit_under_renovation_in_the_register_gets_a_record_whose_papers_are_outstanding(database: Database, register: Register) -> None:
    busy, quiet = register.unit(under_renovation=True), register.unit(under_renovation=False)
    tell(database, register.estate(), register.changed(busy, quiet))
    with database.read() as tx:
        (record,) = tx.session.execute(sa.select(Renovation).where(Renovation.estate_id == register.estate_id)).scalars()
        (line,) = history(tx, record)
    assert (str(record.unit_id), record.state, record.origin, record.number) == (busy.id, "IN_PROGRESS", "REGISTER", None)
    assert (record.papers_outstanding, record.remark) == (True, REMARK)
    assert (record.unit, record.estate_code) == (busy.node.code, f"E{register.estate_id.hex[:9].upper()}")
    assert (line.action, line.to_state, line.actor, line.note) == ("carry_over", "IN_PROGRESS", "system/renovation", REMARK)


@pytest.mark.rule("RNV-43")
def test_a_record_ends_and_resumes_as_the_register_says(database: Database, register: Register) -> None:
    unit = uuid4()
    tell(database, register.estate())
    seen, ends = [], []
    for under_renovation in (True, True, False, True):
        tell(database, register.changed(register.unit(unit=unit, under_renovation=under_renovation)))
        seen.append(states(database, register)[unit])
        with database.read() as tx:
            ends.append(tx.session.execute(sa.select(Renovation.ended_at).where(Renovation.unit_id == unit)).scalar_one() is not None)
    assert seen == ["IN_PROGRESS", "IN_PROGRESS", "ENDED", "IN_PROGRESS"]
    assert ends == [False, False, True, False]


def test_a_unit_that_is_gone_is_not_being_renovated(database: Database, register: Register) -> None:
    unit = uuid4()
    tell(database, register.changed(register.unit(unit=unit, under_renovation=True)))
    tell(database, register.changed(register.unit(unit=unit, under_renovation=True, deleted=True)))
    assert states(database, register) == {unit: "ENDED"}


WORDS = st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_shuffled_and_repeated_events_leave_the_same_records_whenever_the_estate_is_heard_of(
    database: Database, data: st.DataObject
) -> None:
    """The estate's entry is one of the shuffled events, and some events tell of several units at once."""
    said, register = data.draw(WORDS), Register()
    units = [uuid4() for _ in said]
    entries = [register.unit(unit=unit, under_renovation=word) for unit, words in zip(units, said, strict=True) for word in words]
    together = data.draw(st.lists(st.sampled_from(range(len(entries))), min_size=1, max_size=4, unique=True))
    bodies = [register.estate(), register.changed(*(entries[i] for i in together)), *(register.changed(entry) for entry in entries)]
    told = data.draw(st.permutations(bodies + data.draw(st.lists(st.sampled_from(bodies), max_size=3))))
    tell(database, *told)
    expected = {unit: "IN_PROGRESS" if words[-1] else "ENDED" for unit, words in zip(units, said, strict=True) if any(words)}
    assert states(database, register) == expected
    with database.read() as tx:
        codes = tx.session.execute(sa.select(Renovation.estate_code).where(Renovation.estate_id == register.estate_id)).scalars()
        assert set(codes) <= {f"E{register.estate_id.hex[:9].upper()}"}


def test_two_words_on_a_unit_at_the_same_moment_leave_the_newer_one(database: Database) -> None:
    for round_ in range(8):
        register, unit = Register(), uuid4()
        bodies = [register.changed(register.unit(unit=unit, under_renovation=word)) for word in (True, False, bool(round_ % 2))]
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
        assert states(database, register) == {unit: "IN_PROGRESS" if round_ % 2 else "ENDED"}


def test_a_register_that_the_directory_has_not_taken_over_yet_is_tried_again(database: Database, register: Register) -> None:
    unit = uuid4()
    first, second = register.unit(unit=unit, under_renovation=True), register.unit(unit=unit, under_renovation=False)

    def event(entry: pb.DirectoryEntry) -> Event[events_pb2.DirectoryChanged]:
        now = datetime.now(UTC)
        return Event(
            uuid4(), "residents", "DirectoryChanged", "directory", now, now, 1, 1, "directory", uuid4(), None, None, None,
            "system/residents", "", events_pb2.DirectoryChanged(entries=[entry]),
        )  # fmt: skip

    for known in ([], [first]):  # nothing known of the unit, then only an older word
        with database.transaction() as tx:
            apply(tx, known)
        with pytest.raises(Unavailable) as refused, database.transaction() as tx:
            follow_units(event(second), tx)
        assert refused.value.reason == "DIRECTORY_BEHIND"
    assert states(database, register) == {}


def test_a_directory_that_came_by_asking_is_followed_without_an_event(database: Database, register: Register) -> None:
    catch_up(database)  # what other tests left
    busy, over = uuid4(), uuid4()
    with database.transaction() as tx:
        apply(tx, [register.unit(unit=busy, under_renovation=True), register.unit(unit=over, under_renovation=True)])
    assert catch_up(database) == 2
    assert states(database, register) == {busy: "IN_PROGRESS", over: "IN_PROGRESS"}
    with database.transaction() as tx:
        apply(tx, [register.unit(unit=over, under_renovation=False)])
    assert catch_up(database) == 1
    assert states(database, register) == {busy: "IN_PROGRESS", over: "ENDED"}
    assert catch_up(database) == 0


def test_catching_up_leaves_alone_what_somebody_else_is_working_on(database: Database, register: Register) -> None:
    catch_up(database)  # what other tests left
    unit = uuid4()
    with database.transaction() as tx:
        apply(tx, [register.unit(unit=unit, under_renovation=True)])
    with database.transaction() as other:
        other.execute("SELECT 1 FROM dir_nodes WHERE id = %s FOR UPDATE", (unit,))
        assert catch_up(database) == 0
    assert catch_up(database) == 1
    assert states(database, register) == {unit: "IN_PROGRESS"}


def test_the_readme_shows_the_lifecycle() -> None:
    readme = Path(__file__).parents[2] / "services" / "renovation" / "README.md"
    assert LIFECYCLE.diagram() in readme.read_text(encoding="utf-8")
