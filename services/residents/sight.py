"""What of the register a caller sees, and the records that names in requests mean.

A person is in sight wherever one of his memberships is, past ones included; where he was first registered does not matter. A
duplicate that was merged is in sight where its survivor is. Records are found in the order of checks: 404, 412, then what was
wrong with the request. Whoever is about to change something gets it locked, after his turn has come (`records.take_turn`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from services.chassis.db import Transaction
from services.chassis.errors import Conflict, InvalidInput, NotFound, StaleEtag, Violation
from services.residents.people import Membership, Person
from services.residents.records import Record, take_turn
from services.residents.tree import Unit

R = TypeVar("R", bound=Record)
Where = sa.ColumnElement[bool]

_LOOK = ("SELECT set_config('steward.system', 'on', true)", "SELECT set_config('steward.system', %s, true)")


def people_in_sight(tx: Transaction, *that: Callable[[Any], Where]) -> Where:
    """Of a resident: himself. `that`: what else is to be true of the membership that puts somebody in sight.

    OFFSET 0, and CASE for the coalesce that counts as leaky, keep the planner from making of one look at an index for each person
    found a scan of all memberships.
    """
    if tx.scope.person is not None:
        return Person.id == tx.scope.person
    of_his = aliased(Membership)
    whose = of_his.person_id == sa.case((Person.merged_into.is_(None), Person.id), else_=Person.merged_into)
    return sa.exists(sa.select(1).where(whose, tx.inside(of_his), *(condition(of_his) for condition in that)).offset(0))


def nodes_in_sight(tx: Transaction) -> tuple[str, list[Any]]:
    """The scope as a condition in SQL, with its values; of staff."""
    if tx.scope.everything:
        return "true", []
    levels = (("estate_id", tx.scope.estates), ("company_id", tx.scope.companies), ("group_id", tx.scope.groups))
    held = [(column, list(ids)) for column, ids in levels if ids]
    return "(" + " OR ".join(f"{column} = ANY(%s)" for column, _ in held) + ")", [ids for _, ids in held]


def in_whole_register(tx: Transaction, sql: str, values: Sequence[Any]) -> list[tuple]:
    """A look-up by key beyond the caller's sight: whether a person is there already must not depend on who asks.

    What it finds is compared with, never shown. An error ends the transaction and with it the wider sight.
    """
    tx.execute(_LOOK[0])
    found = tx.execute(sql, values)
    tx.execute(_LOOK[1], ("on" if tx.scope.everything else "off",))
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """An estate as records are filed under it."""

    id: UUID
    code: str
    zone: str

    def today(self, tx: Transaction) -> date:
        return tx.now.astimezone(ZoneInfo(self.zone)).date()


def places(tx: Transaction, estates: Sequence[UUID]) -> dict[UUID, Place]:
    rows = tx.execute("SELECT id, code, zone FROM dir_nodes WHERE id = ANY(%s)", (list(set(estates)),))
    return {identifier: Place(identifier, code, zone) for identifier, code, zone in rows}


def place_of(tx: Transaction, record: Unit | Membership) -> Place:
    return places(tx, [record.estate_id])[record.estate_id]


def person(tx: Transaction, text: str) -> Person:
    """As he is. Raises NotFound(PERSON_NOT_FOUND)."""
    return _see(tx, Person, people_in_sight(tx), _key(Person, text, "PERSON_NOT_FOUND"), "PERSON_NOT_FOUND")


def person_to_change(tx: Transaction, text: str, etag: str = "") -> Person:
    """Raises NotFound(PERSON_NOT_FOUND), StaleEtag, InvalidInput, Conflict(PERSON_MERGED)."""
    found = _take(tx, Person, people_in_sight(tx), _key(Person, text, "PERSON_NOT_FOUND"), "PERSON_NOT_FOUND", etag)
    return living(found)


def living(found: Person) -> Person:
    """Raises Conflict(PERSON_MERGED) for a duplicate."""
    if found.merged_into is not None:
        raise Conflict(f"this record was a duplicate: it is people/{found.merged_into} now", reason="PERSON_MERGED")
    return found


def person_named(tx: Transaction, name: str, field: str) -> Person:
    """`people/<id>` of a request's field. Raises InvalidInput(PERSON_NOT_FOUND), Conflict(PERSON_MERGED)."""
    head, _, tail = name.rpartition("/")
    try:
        if head != "people":
            raise NotFound("not a person")
        return living(person(tx, tail))
    except NotFound:
        what = [Violation(field, "is nobody in your sight; must be people/<id>")]
        raise InvalidInput("there is no such person in your sight", reason="PERSON_NOT_FOUND", violations=what) from None


def unit(tx: Transaction, text: str) -> Unit:
    """By its id, or by its number where the request names one estate. Raises NotFound(UNIT_NOT_FOUND)."""
    return _see(tx, Unit, tx.inside(Unit), _unit_key(tx, text), "UNIT_NOT_FOUND")


def unit_to_change(tx: Transaction, text: str, etag: str = "") -> Unit:
    """Raises NotFound(UNIT_NOT_FOUND), StaleEtag, InvalidInput."""
    return _take(tx, Unit, tx.inside(Unit), _unit_key(tx, text), "UNIT_NOT_FOUND", etag)


def membership(tx: Transaction, text: str) -> Membership:
    """As it is. Raises NotFound(MEMBERSHIP_NOT_FOUND)."""
    return _see(tx, Membership, tx.inside(Membership), _key(Membership, text, "MEMBERSHIP_NOT_FOUND"), "MEMBERSHIP_NOT_FOUND")


def membership_to_change(tx: Transaction, text: str, etag: str = "") -> tuple[Membership, Unit]:
    """With its unit, which is locked first. Raises NotFound(MEMBERSHIP_NOT_FOUND), StaleEtag, InvalidInput."""
    key, missing = _key(Membership, text, "MEMBERSHIP_NOT_FOUND"), "MEMBERSHIP_NOT_FOUND"
    seen = _see(tx, Membership, tx.inside(Membership), key, missing)
    take_turn(tx, seen.group_id)
    home = _one(tx, Unit, tx.inside(Unit), Unit.id == seen.unit_id, missing, locked=True)
    return _take(tx, Membership, tx.inside(Membership), key, missing, etag), home


def _key(cls: type[Person | Membership], text: str, reason: str) -> Where:
    try:
        return cls.id == UUID(text)
    except ValueError:
        raise NotFound("there is nothing of that name here", reason=reason) from None


def _unit_key(tx: Transaction, text: str) -> Where:
    try:
        return Unit.id == UUID(text)
    except ValueError:
        if tx.estate is None or "\x00" in text:
            raise NotFound("across estates a unit goes by its id", reason="UNIT_NOT_FOUND") from None
        return sa.and_(Unit.estate_id == tx.estate.id, Unit.number == text)


def _see(tx: Transaction, cls: type[R], sight: Where, key: Where, reason: str) -> R:
    return _one(tx, cls, sight, key, reason, locked=False)


def _take(tx: Transaction, cls: type[R], sight: Where, key: Where, reason: str, etag: str) -> R:
    """Locked, and as the last who had his turn left it."""
    take_turn(tx, _see(tx, cls, sight, key, reason).group_id)
    found = _one(tx, cls, sight, key, reason, locked=True)
    if etag and etag != found.etag:
        raise StaleEtag("it has changed since it was read; read it again")
    tx.check_input()
    return found


def _one(tx: Transaction, cls: type[R], sight: Where, key: Where, reason: str, *, locked: bool) -> R:
    query = sa.select(cls).where(key, sight).execution_options(populate_existing=True)
    found = tx.session.execute(query.with_for_update(of=cls) if locked else query).scalar_one_or_none()
    if found is None:
        raise NotFound("there is nothing of that name here", reason=reason)
    return found
