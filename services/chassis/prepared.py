"""Statements that a connection has understood before.

To read and plan a statement costs PostgreSQL more than to answer it: a list of twenty cases with what belongs to them takes
0.7 ms, of which 0.4 ms are spent before the first row is looked at. Both depend on the shape of a statement, not on the ids
and states in it. So a statement is written out once for each shape, prepared once on each connection, and from then on
executed by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg2.errors
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from services.chassis.errors import Unavailable

KEPT = 128  # statements that a connection keeps; each takes 10 to 100 kilobytes there
MANY = 100  # values; a command with more hardly ever comes again with as many rows, and its text and its plan are long
WRITTEN = 1000  # shapes that are kept written out

_NUMBERED = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Statement:
    """A text with $1, $2 … and their values. `settled`: the plan that is best for some values is best for all."""

    text: str
    values: Sequence[Any]
    settled: bool = True


class Shapes:
    """The statements of one place, each shape written out when it first comes."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def statement(self, query: sa.Select[Any], finish: Callable[[sa.Select[Any]], sa.Select[Any]], *finished: Hashable) -> Statement:
        """`query` after `finish`, which depends on `finished` alone and does its work only for a new shape.

        A list of several values has no settled plan: it depends on how rare they are whether their index or the order of the
        rows is the better way.
        """
        shape = query._generate_cache_key()  # as SQLAlchemy's own cache of statements does
        if shape is None:
            raise TypeError(f"this statement has no shape of its own: {query}")
        compiled = self._known.get((shape.key, finished))
        if compiled is None:
            if len(self._known) >= WRITTEN:
                self._known.clear()
            compiled = finish(query).compile(dialect=_NUMBERED, cache_key=shape)  # type: ignore[call-arg]
            self._known[shape.key, finished] = compiled
        expanded = compiled.construct_expanded_state(compiled.construct_params(extracted_parameters=shape.bindparams))
        settled = all(len(values) == 1 for values in expanded.parameter_expansion.values())
        return Statement(expanded.statement, expanded.positional_parameters, settled)


def ask(connection: Any, statement: Statement, *before: bytes) -> list[tuple[Any, ...]]:
    """The rows of a statement, in one round trip with what is to be said `before` it."""
    with connection.cursor() as cursor:
        message = _Message(connection, cursor)
        message.said += before
        if not statement.settled:
            message.said.append(b"SET LOCAL plan_cache_mode = force_custom_plan")
        message.by_name(statement.text, statement.values)
        message.send()
        return cursor.fetchall()


def tell(
    connection: Any, commands: Iterable[tuple[str, Sequence[Any]]], *, before: Iterable[bytes] = (), after: Iterable[bytes] = ()
) -> list[tuple[Any, ...]]:
    """Several commands in the driver's words (`%s`), in one round trip with what is to be said around them; the rows of the last.

    From the second time on that a command comes to a connection it is sent by name: what comes once is not worth one.
    """
    with connection.cursor() as cursor:
        message = _Message(connection, cursor)
        message.said += before
        for sql, values in commands:
            message.command(sql, values)
        message.said += after
        message.send()
        return cursor.fetchall() if cursor.description else []


class _Message:
    """What is said to a connection in one string, and the names that it gives to statements."""

    def __init__(self, connection: Any, cursor: Any):
        self.said: list[bytes] = []
        self._cursor = cursor
        self._names, self._seen = _known.setdefault(connection, ({}, set()))
        self._given: dict[str, str] = {}

    def command(self, sql: str, values: Sequence[Any]) -> None:
        if sql in self._seen:
            self.by_name(_numbered(sql), values)
            return
        if len(values) > MANY:
            self.said.append(self._cursor.mogrify(sql, values))
            return
        if len(self._seen) >= WRITTEN:
            self._seen.clear()
        self._seen.add(sql)
        self.said.append(self._cursor.mogrify(sql, values))

    def by_name(self, text: str, values: Sequence[Any]) -> None:
        name = self._names.get(text) or self._given.get(text)
        if name is None:
            if len(self._names) + len(self._given) >= KEPT:
                self._names.clear()
                self._given.clear()
                self.said.append(b"DEALLOCATE ALL")
            name = f"steward_{next(_numbers)}"  # never one that was tried before: it may be there although its first use failed
            self.said.append(f"PREPARE {name} AS {text}".encode())
            self._given[text] = name
        places = f"({', '.join(['%s'] * len(values))})" if values else ""
        self.said.append(self._cursor.mogrify(f"EXECUTE {name}{places}", values))

    def send(self) -> None:
        try:
            self._cursor.execute(b";\n".join(self.said))
        except (psycopg2.errors.InvalidSqlStatementName, psycopg2.errors.FeatureNotSupported) as error:
            self._names.clear()  # a migration has changed a type, or somebody between us and the database has changed the connection
            raise Unavailable("the statement must be prepared again", reason="TRANSACTION_RETRY", retry_after=1) from error
        self._names.update(self._given)


_known: WeakKeyDictionary[Any, tuple[dict[str, str], set[str]]] = WeakKeyDictionary()  # of a connection: text → name, commands that came
_numbers = itertools.count(1)


@lru_cache(maxsize=WRITTEN)
def _numbered(sql: str) -> str:
    """`%s, %s` → `$1, $2`. Commands hold no other percent sign."""
    first, *others = sql.split("%s")
    return first + "".join(f"${n}{text}" for n, text in enumerate(others, start=1))
