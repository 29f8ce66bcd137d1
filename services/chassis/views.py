"""What is shown of cases without taking them in hand.

A page of twenty repairs with their clocks and charges would be more than eighty entities, each of them watched for changes
that a reader never makes, in three statements. A *view* of a mapped class reads the same columns in one statement, what
belongs to a row with it, and gives each row the attributes, properties and methods of its class: whatever turns an entity
into a message turns a row of its view into the same message. Nothing is declared twice; a class may say with `SHOWN` which of
its attributes are worth reading where it belongs to another.

A *look* is a transaction that only reads. It begins when something needs it to. What a view is asked before that goes to the
database together with the scope, in one round trip: the statements of one string are a transaction of their own.
"""

from __future__ import annotations

import contextlib
from collections import namedtuple
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

import orjson
import psycopg2
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper, QueryableAttribute, RelationshipProperty, Session

from services.chassis import prepared
from services.chassis.access import Principal, Scope
from services.chassis.db import Database, Transaction, seconds_of, settings_of, translated
from services.chassis.prepared import Shapes, Statement
from services.chassis.watch import Silent

A = TypeVar("A")
Convert = Callable[[Any], Any]


class View(Generic[A]):
    """The rows of a mapped class as values: all its columns, and its children that a session would load with it."""

    def __init__(self, cls: type[A]):
        mapper = sa.inspect(cls)
        fields: dict[str, property | None] = {}
        self._columns: list[Any] = []
        for name, attribute in _shown(cls):
            lazily = _from_text(attribute.type)
            fields[name] = _converted(len(fields), lazily) if lazily else None
            self._columns.append(sa.cast(attribute, sa.Text).label(name) if lazily else attribute)
        for relation in mapper.relationships:
            if relation.lazy == "selectin":
                self._columns.append(_children(cls, relation))
                fields[relation.key] = _made(len(fields), _child(relation.mapper.class_))
        self._make = cast(Callable[[Sequence[Any]], A], _row_class(cls, fields)._make)  # type: ignore[attr-defined]
        self._shapes = Shapes()

    def find(self, tx: Transaction, query: sa.Select[Any], newest: Sequence[QueryableAttribute[Any]] = (), limit: int = 0) -> list[A]:
        """What a query of the class finds; with `newest` the greatest of these columns first, at most `limit`."""

        def finish(query: sa.Select[Any]) -> sa.Select[Any]:
            query = query.with_only_columns(*self._columns).order_by(*(column.desc() for column in newest))
            return query.limit(sa.literal_column(str(limit))) if limit else query  # as a value it would have to be guessed by the planner

        statement = self._shapes.statement(query, finish, tuple(column.key for column in newest), limit)
        return [self._make(row) for row in tx.ask(statement)]


def view_of(cls: type[A]) -> View[A]:
    if cls not in _known:
        _known[cls] = View(cls)
    return _known[cls]


_known: dict[type[Any], View[Any]] = {}


def older(newest: Sequence[QueryableAttribute[Any]], position: Sequence[str]) -> sa.ColumnElement[bool]:
    """What comes after a position in the order `newest` first; it was written into a page token as text."""
    values = [(_from_json(column.type) or str)(text) for column, text in zip(newest, position, strict=True)]
    return newest[0] < values[0] if len(newest) == 1 else sa.tuple_(*newest) < sa.tuple_(*values)


# --- rows ---------------------------------------------------------------------------------------------------------------


def _row_class(cls: type[Any], fields: dict[str, property | None]) -> type[tuple[Any, ...]]:
    """A tuple with the names of the columns, and with everything that the class has beside its columns."""
    mapped = sa.inspect(cls).all_orm_descriptors
    own = {
        name: value
        for base in reversed(cls.__mro__[:-1])
        for name, value in vars(base).items()
        if not name.startswith("_") and name not in mapped
    }
    reckoned = {name: property(found.fget) for name, found in mapped.items() if isinstance(found, hybrid_property) and name not in fields}
    lazily = {name: value for name, value in fields.items() if value is not None}
    return type(cls.__name__, (namedtuple(cls.__name__, fields),), {"__slots__": (), **own, **reckoned, **lazily})  # type: ignore[misc]


def _converted(place: int, convert: Convert) -> property:
    def value(row: tuple[Any, ...]) -> Any:
        raw = row[place]
        return None if raw is None else convert(raw)

    return property(value)


def _made(place: int, make: Convert) -> property:
    return property(lambda row: [make(values) for values in orjson.loads(row[place])] if row[place] else [])


@cache
def _child(cls: type[Any]) -> Convert:
    """How a list of JSON values becomes a row of the class."""
    fields: dict[str, property | None] = {}
    for place, (name, attribute) in enumerate(_shown(cls)):
        convert = _from_json(attribute.type)
        fields[name] = _converted(place, convert) if convert else None
    return _row_class(cls, fields)._make  # type: ignore[attr-defined, no-any-return]


# --- columns ------------------------------------------------------------------------------------------------------------


def _shown(cls: type[Any]) -> list[tuple[str, QueryableAttribute[Any]]]:
    names = getattr(cls, "SHOWN", None) or [column.key for column in cast(Mapper[Any], sa.inspect(cls)).column_attrs]
    found = [(name, getattr(cls, name)) for name in names]
    if odd := [name for name, attribute in found if isinstance(attribute.type, sa.Enum)]:
        raise TypeError(f"{cls.__name__}: a view shows {odd} as the driver reads them, which is not what the mapping says")
    return found


def _children(cls: type[Any], relation: RelationshipProperty[Any]) -> sa.Label[Any]:
    """The children of one kind as a list of lists, in their order."""
    child = relation.mapper.class_
    values = sa.func.json_build_array(*(_to_json(attribute) for _, attribute in _shown(child)))
    found = sa.func.json_agg(aggregate_order_by(values, *relation.order_by) if relation.order_by else values)
    query = sa.select(sa.cast(found, sa.Text)).where(relation.primaryjoin).correlate(cls)
    return query.scalar_subquery().label(relation.key)


def _from_text(kind: sa.types.TypeEngine[Any]) -> Convert | None:
    """Ids are most of what a row holds and few are looked at: they stay text until then."""
    return UUID if isinstance(kind, sa.Uuid) else None


def _to_json(attribute: QueryableAttribute[Any]) -> Any:
    """A column as JSON keeps it whole. Raises TypeError where it cannot."""
    kind = attribute.type
    value = kind.item_type if isinstance(kind, sa.ARRAY) else kind
    exact = isinstance(value, sa.Numeric) and not isinstance(value, sa.Float)
    if isinstance(value, sa.LargeBinary) or (value is not kind and (exact or isinstance(value, sa.Interval))):
        raise TypeError(f"{attribute} cannot be read with another row: JSON does not keep {kind} whole")
    if isinstance(value, sa.Interval):
        return sa.extract("epoch", attribute)
    return sa.cast(attribute, sa.Text) if exact else attribute


def _from_json(kind: sa.types.TypeEngine[Any]) -> Convert | None:
    """None: JSON's value is the value."""
    if isinstance(kind, sa.ARRAY):
        each = _from_json(kind.item_type)
        return None if each is None else lambda values: [None if value is None else each(value) for value in values]
    for type_, convert in _OF_TYPE.items():
        if isinstance(kind, type_):
            return convert
    return None


_OF_TYPE: dict[type[sa.types.TypeEngine[Any]], Convert] = {
    sa.Uuid: UUID,
    sa.DateTime: datetime.fromisoformat,
    sa.Date: date.fromisoformat,
    sa.Interval: lambda seconds: timedelta(seconds=seconds),
    sa.Float: float,  # which JSON writes without a point where it can
    sa.Numeric: Decimal,
}


# --- looks --------------------------------------------------------------------------------------------------------------


class Look(Transaction):
    """A transaction that only reads: one round trip where a view answers, begun as any other when more is needed."""

    session: Session
    now: datetime

    def __init__(self, database: Database, principal: Principal, scope: Scope, timeout: float, opened: contextlib.ExitStack):
        super().__init__(cast(Session, None), database, principal, scope)
        self._timeout, self._opened = timeout, opened
        del self.session, self.now  # until somebody asks for one of them

    def __getattr__(self, name: str) -> Any:
        if name not in ("session", "now"):
            raise AttributeError(name)
        begun = self._opened.enter_context(self.database.transaction(self.principal, self.scope, timeout=self._timeout, read_only=True))
        self.session, self.now = begun.session, begun.now
        return self.__dict__[name]

    def ask(self, statement: Statement) -> list[tuple[Any, ...]]:
        if "session" in self.__dict__:
            return super().ask(statement)
        with translated():
            lent = self.database.engine.raw_connection()
            connection: Any = lent.dbapi_connection
            try:
                connection.bound(seconds_of(self._timeout), together=self._timeout > 0)
                with connection.cursor() as cursor:
                    settings = cursor.mogrify(*settings_of(self.scope, self.principal, self._timeout))
                return prepared.ask(connection, statement, b"SET LOCAL transaction_read_only = on", settings)
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if not connection.closed or isinstance(error, Silent):
                    raise
                lent.invalidate(error)
            finally:
                lent.close()
        return super().ask(statement)  # that connection was dead when it came from the pool: nothing was done on it
