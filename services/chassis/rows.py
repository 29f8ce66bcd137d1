"""Rows and entities: a case is read for a change, and what became of it is written, in the driver's own words.

The mapping says which column is which attribute; the session knows what is new and what changed. Its own way of reading and
writing that is most of the time a command would spend in Python, and a round trip a table: here the same statements are
worked out once per class. Reading locks the case, then its clocks, and attaches them to the session. Writing is the last
thing a transaction does, in the one string of its flush, so nothing is read back; a row that is changed was read in the same
transaction and locked: it is there. Everything else goes through the session as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from psycopg2.extras import Json
from sqlalchemy.orm import RelationshipProperty, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from services.chassis import prepared

Statement = tuple[str, list[Any]]

CONNECTION = "the driver's connection"  # key in a session's info


def driven_by(session: Session) -> Any:
    """The driver's connection under a session, as long as the transaction keeps it."""
    connection = session.info.get(CONNECTION)
    if connection is None:
        connection = session.info[CONNECTION] = session.connection().connection.dbapi_connection
    return connection


def locked(session: Session, cls: type[Any], identifier: UUID) -> Any:
    """The row of that id as an entity, locked until commit; None when there is none in the transaction's scope."""
    found = rows_of(cls).select(session, "id = %s FOR UPDATE", (identifier,))
    return found[0] if found else None


def with_children(session: Session, entity: Any) -> None:
    """What belongs to a locked entity, each kind by its own statement (a lock that was waited for has moved on); clocks are locked too."""
    for child in rows_of(entity.__class__).children:
        lock = " FOR UPDATE" if child.locks else ""
        found = child.rows.select(session, f"{child.column} = %s ORDER BY {child.order}{lock}", (entity.id,))
        set_committed_value(entity, child.attribute, found)


def statements(session: Session) -> list[Statement]:
    """Inserts in the order of the foreign keys, then updates. Nothing is to be read through the session afterwards."""
    new: dict[Rows, list[Any]] = {}
    for entity in session.new:
        new.setdefault(rows_of(entity.__class__), []).append(entity)
    found = [rows.insert(new[rows]) for rows in sorted(new, key=lambda rows: rows.place)]
    changed = (rows_of(entity.__class__).update(entity) for entity in session.dirty)
    return found + [update for update in changed if update is not None]


class Rows:
    """How entities of one mapped class and rows of its table become each other."""

    def __init__(self, cls: type[Any]):
        mapper = sa.inspect(cls)
        table = mapper.local_table
        if filled := [column.name for column in table.columns if column.server_default is not None]:
            raise TypeError(f"{cls.__name__}: a default of {filled} must be the mapping's, not the database's")
        self.cls, self.mapper = cls, mapper
        self.place = table.metadata.sorted_tables.index(table)
        self.children = [Child(relation) for relation in mapper.relationships if relation.uselist]
        columns_of = {prop.key: prop.columns[0] for prop in mapper.column_attrs if isinstance(prop.columns[0], sa.Column)}
        self._attributes: dict[str, Any] = dict(columns_of)  # what is worked out by a query (column_property) is read, never written
        self._names = {attribute: column.name for attribute, column in self._attributes.items()}
        self._handed = {name: write for name, column in self._attributes.items() if (write := _handing(column.type))}
        self._key = [mapper.get_property_by_column(column).key for column in table.primary_key]
        columns = ", ".join(self._names.values())
        self._select = f"SELECT {columns} FROM {table.name} WHERE "
        self._insert = f"INSERT INTO {table.name} ({columns}) VALUES "
        self._row = f"({', '.join(['%s'] * len(self._names))})"
        self._update = f"UPDATE {table.name} SET "
        self._where = " WHERE " + " AND ".join(f"{self._names[attribute]} = %s" for attribute in self._key)

    def select(self, session: Session, where: str, values: tuple[Any, ...]) -> list[Any]:
        found = prepared.tell(driven_by(session), [(self._select + where, values)])
        return [self._entity(session, row) for row in found]

    def _entity(self, session: Session, row: tuple[Any, ...]) -> Any:
        """A row as an entity of the session. One that the session has already is brought up to date, unless it was changed here."""
        values = dict(zip(self._names, row, strict=True))
        known = session.identity_map.get(identity_key(self.cls, [values[name] for name in self._key]))
        if known is not None:
            if not session.is_modified(known):
                for name, value in values.items():
                    set_committed_value(known, name, value)
            return known
        entity = self.mapper.class_manager.new_instance()
        entity.__dict__.update(values)
        make_transient_to_detached(entity)
        session.add(entity)
        return entity

    def insert(self, entities: list[Any]) -> Statement:
        """One statement for all of them. What was never set takes the column's default."""
        values: list[Any] = []
        for entity in entities:
            values += self._values(entity, self._names)
        return self._insert + ", ".join([self._row] * len(entities)), values

    def update(self, entity: Any) -> Statement | None:
        """The columns whose values differ from what was read; None when none do."""
        state, before = entity.__dict__, sa.inspect(entity).committed_state
        names = [name for name in before if name in self._names and before[name] != state[name]]
        if not names:
            return None
        sets = ", ".join(f"{self._names[name]} = %s" for name in names)
        return self._update + sets + self._where, self._values(entity, (*names, *self._key))

    def _values(self, entity: Any, names: Iterable[str]) -> list[Any]:
        state, handed = entity.__dict__, self._handed
        values = []
        for name in names:
            value = state[name] if name in state else self._default(entity, name)
            values.append(handed[name](value) if name in handed and value is not None else value)
        return values

    def _default(self, entity: Any, name: str) -> Any:
        """The mapping's default, which the entity then has."""
        default: Any = self._attributes[name].default
        if default is None:
            return None
        value = default.arg(None) if default.is_callable else default.arg
        setattr(entity, name, value)
        return value


def _handing(kind: sa.types.TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """How a value is handed to the driver; None: as it is. Documents it does not know; of ids and instants it is slow to make literals."""
    if isinstance(kind, sa.JSON):
        return Json
    if isinstance(kind, sa.Uuid):
        return str
    if isinstance(kind, sa.ARRAY) and isinstance(kind.item_type, sa.DateTime):
        return lambda instants: "{" + ",".join([instant.isoformat() for instant in instants]) + "}"
    return None


class Child:
    """One kind of rows that belong to an entity."""

    def __init__(self, relation: RelationshipProperty[Any]):
        self.attribute = relation.key
        self.column = relation.local_remote_pairs[0][1].name
        self.order = ", ".join(column.name for column in relation.order_by or ())
        self.locks = relation.info.get("locked", False)
        self._target = relation.mapper.class_

    @property
    def rows(self) -> Rows:
        return rows_of(self._target)


def rows_of(cls: type[Any]) -> Rows:
    if cls not in _known:
        _known[cls] = Rows(cls)
    return _known[cls]


_known: dict[type[Any], Rows] = {}
