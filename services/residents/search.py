"""People by one field: name, telephone or unit number, whichever the query can be.

Within an estate a name is looked for anywhere in the names of its members, whose number is bounded; across estates from its
beginning, in the order of an index. A telephone is looked for by its last digits, in a table that keeps all telephones last
digit first. Nothing here relies on LIKE: its operator may not be moved before row-level security, so it would cost a scan of
everybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from services.chassis.db import Transaction
from services.residents.people import Membership, Person
from services.residents.register_cells import Wrong, code, name
from services.residents.sight import people_in_sight
from services.residents.tree import Unit

LAST = "\U0010ffff"  # after every character, in the order of bytes of UTF-8
FEWEST_DIGITS = 4

_TELEPHONE = re.compile(r"(?:\+|00)?[\d\s().-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query as it is read. Empty: it can be none of that."""

    name: str
    digits: str
    unit: str


def read(query: str) -> Wanted:
    """What a query may mean; `1001` may be a unit and the end of a telephone, 张三 only a name: a unit has a digit."""
    text = query.strip()
    digits = re.sub(r"\D", "", text.translate(_HALF_WIDTH)) if _TELEPHONE.fullmatch(text.translate(_HALF_WIDTH)) else ""
    digits = re.sub(r"^(?:86|0086)(?=1\d{10}$)", "", digits)
    unit = _clean(code, text) if any(character.isdecimal() for character in text) else ""
    return Wanted(_clean(name, text), digits if len(digits) >= FEWEST_DIGITS else "", unit)


_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}


def _clean(rule: Any, text: str) -> str:
    try:
        return rule(text, "")  # type: ignore[no-any-return]
    except Wrong:
        return ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of those found are wanted."""

    kind: str = ""  # of membership
    person_kind: str = ""
    include_past: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    person: Person
    place: tuple[int, str, str]  # in the order of the list


def people(tx: Transaction, wanted: Wanted, asked: Filter, after: tuple[int, str, str] | None, size: int) -> list[Hit]:
    """In order: at an estate names that begin with the query come first; then by name, then by id."""
    fits = _fits(tx, asked)
    found = [*_by_name(tx, wanted, fits), *_by_telephone(wanted), *_by_unit(tx, wanted)]
    if not found:
        return []
    query = sa.select(Person).where(
        found[0] if len(found) == 1 else Person.id.in_(sa.union(*(sa.select(Person.id).where(f) for f in found)))
    )
    query = query.where(Person.merged_into.is_(None), people_in_sight(tx, fits))
    if asked.person_kind:
        query = query.where(Person.kind == asked.person_kind)
    name = Person.name.collate("C")
    order: list[Any] = [name, Person.id]
    place: list[Any] = [after[1], UUID(after[2])] if after else []
    rank: sa.ColumnElement[int] = sa.literal(0)
    if wanted.name and tx.estate is not None:
        rank = sa.case((name.between(wanted.name, wanted.name + LAST), 0), else_=1)
        order, place = [rank, *order], [after[0], *place] if after else []
    if after is not None:
        query = query.where(sa.tuple_(*order) > sa.tuple_(*(sa.literal(value) for value in place)))
    rows = tx.session.execute(query.add_columns(rank).order_by(*order).limit(size))
    return [Hit(person, (first, person.name, str(person.id))) for person, first in rows]


def _fits(tx: Transaction, asked: Filter) -> Callable[[Any], sa.ColumnElement[bool]]:
    """Of a membership: of the kind that is asked for and, unless past ones count, one that has not ended."""
    today = tx.now.astimezone(ZoneInfo(tx.estate.zone) if tx.estate else UTC).date()

    def fits(membership: Any) -> sa.ColumnElement[bool]:
        conditions: list[sa.ColumnElement[bool]] = [sa.true()]
        if asked.kind:
            conditions.append(membership.kind == asked.kind)
        if not asked.include_past:
            conditions.append(sa.or_(membership.ends_on.is_(None), membership.ends_on >= today))
        return sa.and_(*conditions)

    return fits


def _by_name(tx: Transaction, wanted: Wanted, fits: Callable[[Any], sa.ColumnElement[bool]]) -> list[sa.ColumnElement[bool]]:
    if not wanted.name:
        return []
    if tx.estate is None:
        name = Person.name.collate("C")
        return [sa.and_(Person.group_id.in_(_groups(tx)), name >= wanted.name, name < wanted.name + LAST)]
    # The estate's members are collected first: their names are looked at, and nobody else's.
    members = sa.select(Membership.person_id).where(tx.inside(Membership), fits(Membership)).distinct().cte("members")
    named = aliased(Person)
    with_members = sa.select(named.id).select_from(members.prefix_with("MATERIALIZED")).join(named, named.id == members.c.person_id)
    return [Person.id.in_(with_members.where(sa.func.strpos(named.name, wanted.name) > 0))]


def _by_telephone(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    if not wanted.digits:
        return []
    phones = sa.table("people_phones", sa.column("person_id", sa.Uuid), sa.column("ending", sa.Text))
    end = wanted.digits[::-1]
    has = sa.select(phones.c.person_id).where(phones.c.ending >= end, phones.c.ending < end + ":")  # which comes after 9
    return [Person.id.in_(has)]


def _by_unit(tx: Transaction, wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    if not wanted.unit:
        return []
    lives = sa.select(Membership.person_id).join(Unit, Unit.id == Membership.unit_id)
    return [Person.id.in_(lives.where(tx.inside(Unit), tx.inside(Membership), Unit.number == wanted.unit))]


def _groups(tx: Transaction) -> list[UUID]:
    nodes = [*tx.scope.groups, *tx.scope.companies, *tx.scope.estates]
    return [row[0] for row in tx.execute("SELECT DISTINCT group_id FROM dir_nodes WHERE id = ANY(%s)", (nodes,))]
