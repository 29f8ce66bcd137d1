"""Views and looks: what a reader is given is what the entity would be, in one round trip, and nothing else is seen or touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID, uuid4

import psycopg2
import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.orm.exc import UnmappedInstanceError

from services.chassis import prepared, watch
from services.chassis.access import EVERYTHING, Principal, Scope
from services.chassis.db import Base, Database, Transaction, new_id
from services.chassis.errors import InvalidInput, NotFound, Unavailable
from services.chassis.migrate import protect
from services.chassis.prepared import KEPT, Statement
from services.chassis.settings import settings as process_settings
from services.chassis.testing import Tree, a_tree
from services.chassis.views import Look, view_of
from services.probe.probes import Probe
from tests.chassis.conftest import killing
from tests.conftest import Postgres

WHO = Principal("staff", str(uuid4()))

TABLES = """
CREATE TABLE samples (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, other_id uuid, words text NOT NULL,
    count integer NOT NULL, right_or_wrong boolean, share double precision, price numeric(12, 2), at timestamptz, day date, length interval,
    tags text[] NOT NULL, instants timestamptz[], people uuid[], facts jsonb
);
CREATE TABLE sample_parts (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, sample_id uuid NOT NULL REFERENCES samples (id),
    place integer NOT NULL, other_id uuid, words text NOT NULL, right_or_wrong boolean, share double precision, price numeric(12, 2),
    at timestamptz, day date, length interval, tags text[] NOT NULL, instants timestamptz[], people uuid[], facts jsonb
);
"""


class Values:
    """A column of every type that services map."""

    id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    other_id: Mapped[UUID | None]
    words: Mapped[str]
    right_or_wrong: Mapped[bool | None]
    share: Mapped[float | None]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    day: Mapped[date | None]
    length: Mapped[timedelta | None]
    tags: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    instants: Mapped[list[datetime] | None] = mapped_column(ARRAY(sa.DateTime(timezone=True)))
    people: Mapped[list[UUID] | None] = mapped_column(ARRAY(sa.Uuid))
    facts: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))

    @property
    def shouted(self) -> str:
        return self.words.upper()


class Part(Values, Base):
    __tablename__ = "sample_parts"
    sample_id: Mapped[UUID] = mapped_column(sa.ForeignKey("samples.id"))
    place: Mapped[int]

    @hybrid_property
    def reckoned(self) -> bool:
        return self.place > 1


class Sample(Values, Base):
    __tablename__ = "samples"
    KIND: ClassVar[str] = "sample"
    count: Mapped[int]
    parts: Mapped[list[Part]] = relationship(Part, order_by=(Part.place.desc(), Part.id), lazy="selectin")

    @classmethod
    def owned_by(cls) -> tuple[Any, Any]:
        return None, None

    @property
    def total(self) -> int:
        return sum(part.place for part in self.parts)

    def grow(self) -> None:
        self.count += 1


@pytest.fixture(scope="module")
def samples(database: Database) -> Database:
    engine = sa.create_engine(process_settings().migrate_database("probe").replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        connection.execute(sa.text(TABLES))
        for table in ("samples", "sample_parts"):
            protect(table)
    engine.dispose()
    return database


@pytest.fixture
def alone(database: Database) -> Iterator[Database]:
    """The same database by one connection that is only looked through, so that what it was told before is still there."""
    only = Database("probe", pool_size=1)
    yield only
    only.dispose()


# --- what a row is -----------------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12), st.sampled_from(['"\\{},', "𬭎㛃😀", "a'b%s"])
)
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
FACTS = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**31), 2**31), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=3,
)
COLUMNS = st.fixed_dictionaries(
    {
        "other_id": st.none() | st.uuids(),
        "words": TEXTS,
        "right_or_wrong": st.none() | st.booleans(),
        "share": st.none() | st.floats(-1e9, 1e9),
        "price": st.none() | st.decimals(Decimal("-99999.99"), Decimal("99999.99"), places=2),
        "at": st.none() | INSTANTS,
        "day": st.none() | st.dates(date(1970, 1, 1), date(2100, 1, 1)),
        "length": st.none() | st.timedeltas(timedelta(days=-900), timedelta(days=9000)),
        "tags": st.lists(TEXTS, max_size=3),
        "instants": st.none() | st.lists(INSTANTS, max_size=3),
        "people": st.none() | st.lists(st.uuids(), max_size=3),
        "facts": st.none() | st.dictionaries(TEXTS, FACTS, max_size=2),
    }
)


def insert(tx: Transaction, table: sa.Table, tree: Tree, **values: Any) -> UUID:
    place = {"id": new_id(), "group_id": tree.group_id, "company_id": tree.company_id, "estate_id": tree.estate_id}
    tx.session.execute(sa.insert(table).values({**place, **values}))
    return place["id"]


def same(row: Any, entity: Any) -> None:
    """Every column that the row shows has the value and the type it has in the entity."""
    for name in row._fields:
        ours, theirs = getattr(row, name), getattr(entity, name)
        if name == "parts":
            assert len(ours) == len(theirs)
            for part, other in zip(ours, theirs, strict=True):
                same(part, other)
        else:
            assert (ours, type(ours)) == (theirs, type(theirs)), name


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(own=COLUMNS, count=st.integers(-(2**31), 2**31 - 1), parts=st.lists(st.tuples(st.integers(0, 3), COLUMNS), max_size=4))
def test_a_row_of_a_view_is_what_the_entity_would_be_with_all_that_belongs_to_it(
    samples: Database, own: dict[str, Any], count: int, parts: list[tuple[int, dict[str, Any]]]
) -> None:
    tree = SimpleNamespace(group_id=uuid4(), company_id=uuid4(), estate_id=uuid4())
    with samples.transaction(WHO) as tx:
        found = insert(tx, Sample.__table__, tree, count=count, **own)  # type: ignore[arg-type]
        for place, columns in parts:
            insert(tx, Part.__table__, tree, sample_id=found, place=place, **columns)  # type: ignore[arg-type]
    query = sa.select(Sample).where(Sample.id == found)
    with samples.look(WHO, EVERYTHING) as tx:
        (row,) = view_of(Sample).find(tx, query)
        entity = tx.session.execute(query).scalar_one()
        assert set(row._fields) == {*sa.inspect(Sample).column_attrs.keys(), "parts"}  # type: ignore[attr-defined]
        same(row, entity)
        assert (row.shouted, row.total, [part.reckoned for part in row.parts]) == (
            entity.shouted,
            entity.total,
            [part.reckoned for part in entity.parts],
        )


def test_a_row_has_what_its_class_has_and_cannot_be_changed(samples: Database, tree: Tree) -> None:
    with samples.transaction(WHO) as tx:
        found = insert(tx, Sample.__table__, tree, count=1, words="x", tags=[])
    with samples.look(WHO, EVERYTHING) as tx:
        (row,) = view_of(Sample).find(tx, sa.select(Sample).where(Sample.id == found))
    assert (row.KIND, row.parts, row.count) == ("sample", [], 1)
    with pytest.raises(AttributeError):
        row.grow()
    with pytest.raises(AttributeError):
        row.words = "y"
    with pytest.raises(UnmappedInstanceError), samples.transaction(WHO) as tx:
        tx.add(row)


@pytest.mark.parametrize("kind", [sa.LargeBinary(), ARRAY(sa.Numeric(12, 2)), ARRAY(sa.Interval()), sa.Enum("a", "b", name="letters")])
def test_what_would_not_be_the_same_in_a_row_is_refused_when_the_view_is_made(kind: Any) -> None:
    """Bytes and the like cannot pass through JSON; an enumeration would be a text in the row and a member in the entity."""

    class Apart(DeclarativeBase):
        """Of these classes alone: nothing of them stays."""

    class Scan(Apart):
        __tablename__ = "scans"
        id: Mapped[UUID] = mapped_column(primary_key=True)
        of_id: Mapped[UUID]
        content: Mapped[Any] = mapped_column(kind)

    class Scanned(Apart):
        __tablename__ = "scanned"
        id: Mapped[UUID] = mapped_column(primary_key=True)
        scans: Mapped[list[Scan]] = relationship(Scan, primaryjoin=lambda: sa.orm.foreign(Scan.of_id) == Scanned.id, lazy="selectin")

    with pytest.raises(TypeError, match="content"):
        view_of(Scanned)


def make(database: Database, tree: Tree, title: str = "drip") -> Probe:
    with database.transaction(WHO) as tx:
        return tx.add(Probe.create(tx.act(), tree.estate, title))


@pytest.mark.rule("X-34")
def test_the_clocks_of_a_case_are_shown_as_the_case_has_them(database: Database, tree: Tree) -> None:
    """Running, paused, breached, stopped and cancelled; the instant that is shown as due is reckoned in both worlds."""
    probes = [make(database, tree) for _ in range(5)]
    with database.transaction(WHO) as tx:
        _, started, paused, late, ended = (tx.get(Probe, probe.id) for probe in probes)
        started.start(tx.act(), 1)
        for clock in paused.clocks:
            clock.pause(tx.act())
        for clock in late.clocks:
            clock.breached_at = tx.now
        ended.clocks[0].stop(tx.act(), cancelled=True)
    by_system = Scope(estates=frozenset({tree.estate_id}))
    with database.look(WHO, by_system) as tx:
        rows, _ = tx.page(sa.select(Probe), Probe, page())
        entities = tx.session.execute(sa.select(Probe).where(tx.inside(Probe)).order_by(Probe.id.desc())).scalars().all()
        assert len(rows) == 5
        for row, entity in zip(rows, entities, strict=True):
            assert (row.subject, row.etag, row.handler, row.is_urgent) == (entity.subject, entity.etag, entity.handler, entity.is_urgent)
            assert len(row.clocks) == len(entity.clocks) > 0
            for shown, clock in zip(row.clocks, entity.clocks, strict=True):
                same(shown, clock)
        assert {clock.paused for row in rows for clock in row.clocks} == {True, False}
        assert {clock.due_at is None for row in rows for clock in row.clocks} == {True, False}


# --- pages -------------------------------------------------------------------------------------------------------------


def page(token: str = "", size: int = 0) -> Any:
    from steward.probe.v1 import probe_pb2 as pb

    return pb.ListProbesRequest(parent="estates/-", page_token=token, page_size=size)


@pytest.mark.parametrize("order", [(), (Probe.created_at, Probe.id)], ids=["by id", "by instant"])
def test_pages_in_any_order_show_every_row_once_the_newest_first(database: Database, tree: Tree, order: tuple[Any, ...]) -> None:
    made = [make(database, tree).id for _ in range(7)]
    with database.transaction() as tx:  # three of them at one instant: the id decides
        tx.execute("UPDATE probes SET created_at = now() WHERE id = ANY(%s)", ([made[5], made[1], made[3]],))
    scope, shown, token = Scope(estates=frozenset({tree.estate_id})), [], ""
    while True:
        with database.look(WHO, scope) as tx:
            rows, token = tx.page(sa.select(Probe), Probe, page(token, 2), order)
        shown += rows
        if not token:
            break
    expected = sorted(shown, key=lambda row: (row.created_at, row.id) if order else row.id, reverse=True)
    assert [row.id for row in shown] == [row.id for row in expected]
    assert {row.id for row in shown} == set(made)


def test_a_token_of_another_query_is_refused(database: Database, tree: Tree) -> None:
    for _ in range(3):
        make(database, tree)
    scope = Scope(estates=frozenset({tree.estate_id}))
    with database.look(WHO, scope) as tx:
        _, token = tx.page(sa.select(Probe), Probe, page(size=2))
        with pytest.raises(InvalidInput) as refused:
            tx.page(sa.select(Probe), Probe, page(("A" if token[0] != "A" else "B") + token[1:]))
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


def test_what_lies_outside_the_scope_is_neither_listed_nor_seen(database: Database, tree: Tree) -> None:
    own, foreign = make(database, tree), make(database, a_tree(database))
    owned = make(database, tree)
    with database.look(WHO, Scope(estates=frozenset({tree.estate_id}))) as tx:
        assert [row.id for row in tx.page(sa.select(Probe), Probe, page())[0]] == [owned.id, own.id]
        assert tx.see(Probe, str(own.id)).title == "drip"
        for nothing in (foreign.id, uuid4(), "no id"):
            with pytest.raises(NotFound) as refused:
                tx.see(Probe, nothing)
            assert refused.value.reason == "PROBE_NOT_FOUND"
    resident = Scope(estates=frozenset({tree.estate_id}), person=uuid4())
    with database.look(WHO, resident) as tx:
        assert tx.page(sa.select(Probe), Probe, page()) == ([], "")


def test_rows_that_belong_to_a_person_are_found_by_what_is_said_instead_of_the_scope(database: Database, tree: Tree) -> None:
    probe = make(database, tree)
    with database.look(WHO, Scope()) as tx:
        assert tx.page(sa.select(Probe), Probe, page(), within=Probe.id == probe.id)[0] == []  # row-level security stands behind it
    with database.look(WHO, EVERYTHING) as tx:
        assert [row.id for row in tx.page(sa.select(Probe), Probe, page(), within=Probe.id == probe.id)[0]] == [probe.id]


# --- looks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[bytes | str]:
    """What is sent to the database, one entry for every round trip."""
    sent: list[bytes | str] = []
    real: Callable[..., None] = watch._Cursor.execute

    def execute(cursor: Any, query: Any, vars: Any = None) -> None:
        if query != "NOTIFY steward_events":  # the thread that wakes the relay
            sent.append(query)
        real(cursor, query, vars)

    monkeypatch.setattr(watch._Cursor, "execute", execute)
    return sent


def test_a_list_with_all_that_belongs_to_it_is_one_round_trip_and_one_that_needs_the_time_begins_as_any_other(
    database: Database, tree: Tree, round_trips: list[bytes | str]
) -> None:
    probe = make(database, tree)
    round_trips.clear()
    with database.look(WHO, Scope(estates=frozenset({tree.estate_id}))) as tx:
        assert tx.page(sa.select(Probe), Probe, page())[0][0].clocks
        assert len(round_trips) == 1
        assert tx.see(Probe, probe.id).clocks
        assert len(round_trips) == 2
        assert abs(tx.now - datetime.now(UTC)) < timedelta(days=400)
        assert tx.see(Probe, probe.id).clocks
        assert len(round_trips) == 4
    assert len(round_trips) == 5  # and ends as any other


@pytest.mark.parametrize("begun", [False, True])
def test_a_look_does_not_write_and_tells_the_connection_nothing_that_stays(
    alone: Database, database: Database, tree: Tree, begun: bool
) -> None:
    make(database, tree)
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction), alone.look(WHO, EVERYTHING) as tx:
        assert not begun or tx.now
        tx.ask(Statement("DELETE FROM probes WHERE id IS NOT NULL RETURNING id", ()))
    with alone.look(WHO, Scope(estates=frozenset({tree.estate_id}))) as tx:
        assert not begun or tx.now
        assert len(tx.page(sa.select(Probe), Probe, page())[0]) == 1
    raw = alone.engine.raw_connection()
    with raw.cursor() as cursor:
        said = "SELECT id FROM probes UNION ALL SELECT NULL WHERE current_setting('steward.nodes', true) <> ''"
        cursor.execute(said + " OR current_setting('transaction_read_only') = 'on'")
        assert cursor.fetchall() == []
    raw.close()


@pytest.mark.parametrize("begun", [False, True])
def test_a_statement_of_a_look_ends_in_time(database: Database, begun: bool) -> None:
    began = datetime.now(UTC)
    with pytest.raises(Unavailable) as refused, database.look(WHO, EVERYTHING, timeout=0.2) as tx:
        assert not begun or tx.now
        tx.ask(Statement("SELECT pg_sleep(10)", ()))
    assert refused.value.reason == "DEADLINE"
    assert datetime.now(UTC) - began < timedelta(seconds=5)


def test_connections_that_died_in_the_pool_are_not_noticed(database: Database, postgres: Postgres, tree: Tree) -> None:
    own = Database("probe", pool_size=3)
    kill = killing(own, postgres)
    try:
        probe = make(own, tree)
        for _ in range(2):
            assert kill() > 0
            with own.look(WHO, EVERYTHING) as tx:
                assert tx.see(Probe, probe.id).id == probe.id
            with own.look(WHO, EVERYTHING) as tx:
                assert tx.see(Probe, probe.id).id == probe.id
    finally:
        own.dispose()


def test_a_look_has_no_attributes_that_nobody_gave_it(database: Database) -> None:
    with database.look(WHO, EVERYTHING) as tx, pytest.raises(AttributeError):
        tx.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert isinstance(tx, Look)


# --- prepared statements -----------------------------------------------------------------------------------------------


def statements(tx: Transaction) -> dict[str, tuple[int, int]]:
    """(general plans, plans of their own) of the statements that the connection keeps, by their text."""
    return {row[0]: (row[1], row[2]) for row in tx.execute("SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements")}


def test_a_shape_is_prepared_once_whatever_its_values_and_a_list_of_values_has_no_general_plan(
    alone: Database, database: Database, tree: Tree
) -> None:
    probe = make(database, tree)
    scope = Scope(estates=frozenset({tree.estate_id}))
    for number in range(20):
        for states in (["NEW"], ["NEW", "DONE"]):
            with alone.look(WHO, scope) as tx:
                query = sa.select(Probe).where(Probe.state.in_(states), Probe.title == f"{number}%s")
                assert tx.page(query, Probe, page())[0] == []
    with alone.look(WHO, scope) as tx:
        assert tx.page(sa.select(Probe).where(Probe.state.in_(["NEW"]), Probe.title == "drip"), Probe, page())[0][0].id == probe.id
        kept = {text: plans for text, plans in statements(tx).items() if "FROM probes" in text}
    one, two = (next(counts for text, counts in kept.items() if f"${n}" in text and f"${n + 1}" not in text) for n in (3, 4))
    assert len(kept) == 2
    assert one[0] > one[1], "a plan for all values"
    assert two[0] == 0, "a plan for these values, each time"


def test_a_connection_keeps_so_many_statements_and_no_more(alone: Database) -> None:
    with alone.look(WHO, EVERYTHING) as tx:
        assert tx.now
        for number in range(KEPT + 10):
            assert tx.ask(Statement(f"SELECT {number}, '100 %'", ())) == [(number, "100 %")]
            assert tx.ask(Statement(f"SELECT {number}, '100 %'", ())) == [(number, "100 %")]
        assert 0 < len(statements(tx)) <= KEPT


def test_statements_that_the_connection_has_lost_are_prepared_again(alone: Database, database: Database, tree: Tree) -> None:
    probe = make(database, tree)

    def see() -> UUID:
        with alone.look(WHO, EVERYTHING) as tx:
            return tx.see(Probe, probe.id).id

    assert see() == probe.id
    raw = alone.engine.raw_connection()
    with raw.cursor() as cursor:
        cursor.execute("DISCARD ALL")
    raw.close()
    with pytest.raises(Unavailable) as refused:
        see()
    assert refused.value.reason == "TRANSACTION_RETRY"  # which the server does by itself
    assert see() == probe.id


def test_a_migration_that_changes_a_type_is_not_noticed_but_by_one_more_try(alone: Database, postgres: Postgres) -> None:
    postgres.sql("probe", "CREATE TABLE passing (a integer); GRANT SELECT ON passing TO probe; INSERT INTO passing VALUES (1)")
    ask = Statement("SELECT a FROM passing", ())
    with alone.look(WHO, EVERYTHING) as tx:
        assert tx.ask(ask) == [(1,)]
    postgres.sql("probe", "ALTER TABLE passing ALTER a TYPE text USING a::text")
    with pytest.raises(Unavailable) as refused, alone.look(WHO, EVERYTHING) as tx:
        tx.ask(ask)
    assert refused.value.reason == "TRANSACTION_RETRY"
    with alone.look(WHO, EVERYTHING) as tx:
        assert tx.ask(ask) == [("1",)]
    postgres.sql("probe", "DROP TABLE passing")


def test_a_statement_that_failed_at_its_first_use_can_be_used_again(alone: Database) -> None:
    divide = "SELECT 1 / $1::integer"
    with pytest.raises(InvalidInput), alone.look(WHO, EVERYTHING) as tx:
        tx.ask(Statement(divide, (0,)))
    with alone.look(WHO, EVERYTHING) as tx:
        assert tx.ask(Statement(divide, (1,))) == [(1,)]
        assert tx.ask(Statement(divide, (1,))) == [(1,)]


def test_what_has_no_shape_is_refused_and_shapes_are_not_kept_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "WRITTEN", 3)
    shapes = prepared.Shapes()
    for number in range(10):
        shapes.statement(sa.select(Probe).where(*[Probe.title == "x"] * number), lambda query: query)
    assert len(shapes._known) <= 3

    class Odd(sa.types.UserDefinedType[int]):
        cache_ok = False

        def get_col_spec(self) -> str:
            return "integer"

    with pytest.raises(TypeError, match="no shape of its own"):
        shapes.statement(sa.select(sa.cast(Probe.effort, Odd())), lambda query: query)
