"""The log of who looked at whose data (ARC-12): a telephone in clear, an opened record, a number that was looked up.

Lists show masked telephones and are not logged. A line is written before anything is shown; without it nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction, new_id
from services.residents.people import Membership, Person
from services.residents.sight import in_whole_register, nodes_in_sight

PHONE, OTHER_PHONES, EMERGENCY_PHONE, RECORD, IDENTITY_LOOK_UP = "PHONE", "OTHER_PHONES", "EMERGENCY_PHONE", "RECORD", "IDENTITY_LOOK_UP"


@dataclass(frozen=True, slots=True)
class Disclosed:
    """One line of the log."""

    id: UUID
    person_id: UUID | None
    field: str
    at: datetime
    actor: str
    reason: str


_INSERT = (
    "INSERT INTO disclosures (id, group_id, company_id, estate_id, person_id, field, at, actor, reason)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


def keep(tx: Transaction, person: Person | None, field: str, reason: str) -> None:
    """With the commit. Filed at the estate that the request names; across estates, where one sees him."""
    if tx.estate is not None:
        place = (tx.estate.group_id, tx.estate.company_id, tx.estate.id)
    else:
        assert person is not None, "a look-up names an estate"
        query = sa.select(Membership.group_id, Membership.company_id, Membership.estate_id).order_by(Membership.id).limit(1)
        query = query.where(Membership.person_id == (person.merged_into or person.id), tx.inside(Membership))
        group, company, estate = tx.session.execute(query).one()
        place = (group, company, estate)
    values = (new_id(), *place, person.id if person else None, field, tx.now, str(tx.principal), reason)
    tx.finally_execute(_INSERT, values)


def keep_look(tx: Transaction, person: Person) -> None:
    """A record is opened by an operation that only reads: the line has a transaction of its own, and stands before the answer."""
    with tx.database.transaction(tx.principal, tx.scope) as log:
        log.estate = tx.estate
        keep(log, person, RECORD, "")


def listed(tx: Transaction, person: Person | None, actor: str, before: UUID | None, size: int) -> list[Disclosed]:
    """Newest first, at estates in sight; of himself a resident gets those of all estates. None: of everybody."""
    inside, values = nodes_in_sight(tx) if tx.scope.person is None else ("true", [])
    where = [inside]
    if person is not None:
        where.append("person_id IN (SELECT id FROM people WHERE id = %s OR merged_into = %s)")
        values += [person.id, person.id]
    if actor:
        where.append("actor = %s")
        values.append(actor)
    if before is not None:
        where.append("id < %s")
        values.append(before)
    sql = f"SELECT id, person_id, field, at, actor, reason FROM disclosures WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT %s"
    return [Disclosed(*row) for row in tx.execute(sql, (*values, size))]


def names_of(tx: Transaction, actors: Iterable[str]) -> dict[str, str]:
    """Of staff, wherever they work: the person concerned may know who it was."""
    ids = [UUID(actor.removeprefix("staff/")) for actor in set(actors) if actor.startswith("staff/")]
    return {f"staff/{i}": name for i, name in in_whole_register(tx, "SELECT id, name FROM staff WHERE id = ANY(%s)", (ids,))}
