"""Who somebody at the desk is in the register: found by identity number, else by name and telephone in the group, else made.

The whole group is looked through, whatever the caller sees of it: a buyer who owns a unit elsewhere is one person, not two.
What the desk states completes his record and overwrites nothing of it; that is what a correction is for.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction, new_id
from services.chassis.errors import Conflict
from services.chassis.lifecycle import Act
from services.residents.people import Person, identity_index, sealed_identity
from services.residents.records import keep_history
from services.residents.register_cells import birthday_of
from services.residents.sight import in_whole_register
from services.residents.stated import Party, refused
from services.residents.tree import Unit

_BY_IDENTITY = "SELECT id, name FROM people WHERE group_id = %s AND identity_index = %s"
_BY_NAME = (
    "SELECT DISTINCT s.id, s.estate_id, s.identity_index IS NOT NULL FROM people p JOIN people s ON s.id = coalesce(p.merged_into, p.id)"
    " WHERE p.group_id = %s AND p.name = %s AND (p.phone = %s OR %s = ANY(p.other_phones))"
)


def settle(tx: Transaction, act: Act, unit: Unit, party: Party, *, needs_key: bool = True) -> UUID:
    """The person's id. Who belongs to no unit in sight yet is not seen: `complete` comes after the membership is written.

    Raises InvalidInput(PERSON_NOT_FOUND, PERSON_NOT_IDENTIFIABLE), Conflict(IDENTITY_OF_ANOTHER, PERSON_AMBIGUOUS).
    """
    if party.person is not None:
        if party.person.group_id != unit.group_id:
            raise refused(f"{party.field}.person", "PERSON_NOT_FOUND", "is of another group")
        return party.person.id
    if needs_key and not (party.identity or party.phone):
        raise refused(party.field, "PERSON_NOT_IDENTIFIABLE", "证件号码和电话至少填写一项")
    known = _known(tx, unit, party)
    if known is not None:
        return known
    made = Person(
        id=new_id(),
        group_id=unit.group_id,
        company_id=unit.company_id,
        estate_id=unit.estate_id,
        name=party.name,
        kind=party.kind,
        identity_sealed=sealed_identity(party.identity) if party.identity else None,
        identity_index=identity_index(party.identity) if party.identity else None,
        phone=party.phone,
        other_phones=[],
        birthday=party.birthday or birthday_of(party.identity),
    )
    made.begin(act, name=party.name)
    tx.add(made)
    tx.session.flush()
    keep_history(tx, [made], act.reason)
    return made.id


def _known(tx: Transaction, unit: Unit, party: Party) -> UUID | None:
    if party.identity:
        for identifier, name in in_whole_register(tx, _BY_IDENTITY, (unit.group_id, identity_index(party.identity))):
            if name != party.name:
                raise Conflict("this identity number stands in the register under another name", reason="IDENTITY_OF_ANOTHER")
            return identifier  # type: ignore[no-any-return]
    if not party.phone:
        return None
    found = in_whole_register(tx, _BY_NAME, (unit.group_id, party.name, party.phone, party.phone))
    found = [row for row in found if not (party.identity and row[2])]  # the same name and telephone, but another number: another person
    here = [row for row in found if row[1] == unit.estate_id]
    found = here or found
    if len(found) > 1:
        raise Conflict("several records have this name and telephone: merge them, or name one of them", reason="PERSON_AMBIGUOUS")
    return found[0][0] if found else None


def complete(tx: Transaction, act: Act, person_id: UUID, party: Party) -> Person:
    """The record of somebody who belongs here now, with what it lacked and the desk knows."""
    query = sa.select(Person).where(Person.id == person_id).with_for_update().execution_options(populate_existing=True)
    person = tx.session.execute(query).scalar_one()
    if party.person is not None:
        return person
    values: dict[str, Any] = {}
    if party.identity and person.identity_index is None:
        values |= {"identity_sealed": sealed_identity(party.identity), "identity_index": identity_index(party.identity)}
    if party.phone and person.phone is None:
        values["phone"] = party.phone
    elif party.phone and party.phone not in (person.phone, *person.other_phones):
        values["other_phones"] = [*person.other_phones, party.phone]
    birthday = party.birthday or birthday_of(party.identity)
    if birthday and person.birthday is None:
        values["birthday"] = birthday
    person.correct(act, **values)
    keep_history(tx, [person], act.reason)
    return person
