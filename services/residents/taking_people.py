"""Owners and tenants of a register file become people and memberships.

Who a row is about is found by the identity number in the group; without one by name and telephone in the estate; and when
neither is found but the unit has exactly one member of that name whom the file does not name otherwise, the row corrects
that person's number. Two people of one name in one unit are kept apart by what the file says of both.

A row that a membership of its unit remembers is passed over before anybody is looked for: what was corrected, merged or
transferred in Steward since stays. A name and telephone of a record that was merged mean the survivor, whose own name and
telephones such a row does not touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import new_id
from services.residents.people import Membership, Person, identity_index, sealed_identity
from services.residents.register_rows import OwnerRow, PersonCells, TenantRow
from services.residents.taking import CHANGED, CREATED, UNCHANGED, Taking, digest
from services.residents.tree import Estate, Unit


def take_owners(taking: Taking, rows: Sequence[OwnerRow]) -> list[str]:
    return _Crowd(taking, rows, "OWNER").take(rows)


def take_tenants(taking: Taking, rows: Sequence[TenantRow]) -> list[str]:
    return _Crowd(taking, rows, "TENANT").take(rows)


class _Crowd:
    """The people of a batch: those who are in the database already, then those the batch adds."""

    def __init__(self, taking: Taking, rows: Sequence[OwnerRow | TenantRow], kind: str):
        self.taking = taking
        self.kind = kind
        self.estates = taking.estates_of(row.estate for row in rows)
        self.units = taking.units_of(self.estates, ((row.estate, row.unit) for row in rows))
        groups = [estate.group_id for estate in self.estates.values()]
        indexes = [identity_index(row.person.identity) for row in rows if row.person.identity]
        phones = {row.person.phones[0] for row in rows if row.person.phones}
        people = taking.found(Person, Person.group_id.in_(groups), Person.identity_index.in_(indexes))
        people += taking.found(Person, Person.group_id.in_(groups), Person.phone.in_(phones))
        of_units = Membership.unit_id.in_([unit.id for unit in self.units.values()])
        memberships = taking.found(Membership, of_units, Membership.kind == kind)
        known = {person.id for person in people}
        others = {membership.person_id for membership in memberships} | {p.merged_into for p in people if p.merged_into}
        others -= known
        people += taking.found(Person, Person.id.in_(others)) if others else []
        self.people = {person.id: person for person in people}
        self.by_index = {(p.group_id, p.identity_index): p for p in people if p.identity_index}
        self.by_name = {(p.estate_id, p.name, p.phone): self._survivor(p) for p in people if p.phone}
        self.duplicates = {(p.estate_id, p.name, p.phone) for p in people if p.phone and p.merged_into}
        self.memberships: dict[UUID, list[Membership]] = {}
        for membership in memberships:
            self.memberships.setdefault(membership.unit_id, []).append(membership)

    def take(self, rows: Sequence[OwnerRow | TenantRow]) -> list[str]:
        return [self._row(row) for row in rows]

    def _row(self, row: OwnerRow | TenantRow) -> str:
        estate, unit = self.estates[row.estate], self.units[row.estate, row.unit]
        brought = digest(row)
        if any(brought in (m.register_digest, *m.former_digests) for m in self.memberships.get(unit.id, ())):
            return UNCHANGED
        person = self._known(row.person, estate)
        membership = self._membership(row, unit, person) if person else None
        if person is None:
            person = self._corrected(row, unit)
            membership = self._membership(row, unit, person) if person else None
        changed = False
        merged = self._names_duplicate(row.person, estate)
        if person is None:
            person = self._person(row.person, estate)
        elif merged:
            changed = self._complete(person, row.person)
        else:
            changed = self._correct(person, row.person)
        if membership is None:
            self._join(row, unit, estate, person)
            return CREATED
        if merged and membership.register_digest:  # the file has rows of both: neither is to undo the other each time
            membership.former_digests = [*membership.former_digests, membership.register_digest]
        membership.register_digest = brought
        values = _values(row)
        if membership.former_digests:  # two of the register's memberships in one: neither row speaks of all of its share
            values.pop("share", None)
        if self.taking.correct(membership, **values):
            self.taking.tell(membership.entry(estate.time_zone))
            changed = True
        return CHANGED if changed else UNCHANGED

    # Who it is

    def _survivor(self, person: Person) -> Person:
        return self.people[person.merged_into] if person.merged_into else person

    def _names_duplicate(self, cells: PersonCells, estate: Estate) -> bool:
        """Whether name and telephone are those of a record that was merged into another."""
        return bool(cells.phones) and (estate.id, cells.name, cells.phones[0]) in self.duplicates

    def _known(self, cells: PersonCells, estate: Estate) -> Person | None:
        named = self.by_name.get((estate.id, cells.name, cells.phones[0])) if cells.phones else None
        if not cells.identity:
            return named
        person = self.by_index.get((estate.group_id, identity_index(cells.identity)))
        if person is None and named is not None and (named.identity_index is None or self._names_duplicate(cells, estate)):
            return named  # the number that was missing is there now, or the number was the duplicate's
        return person

    def _corrected(self, row: OwnerRow | TenantRow, unit: Unit) -> Person | None:
        """The member of the unit whose number (or telephone, without a number) this row corrects."""
        claimed = {(identity_index(key[1]),) if key[0] == "identity" else key[2:] for key in self.taking.people_of(row.estate, row.unit)}
        fitting = []
        for membership in self.memberships.get(unit.id, []):
            person = self.people[membership.person_id]
            key: tuple[Any, ...] = (person.identity_index,) if person.identity_index else (person.name, person.phone or "")
            still = membership.ends_on is None or self.kind == "TENANT"
            if still and key not in claimed and (person.name, person.kind) == (row.person.name, row.person.kind):
                fitting.append(membership)
        if len({membership.person_id for membership in fitting}) != 1:
            return None
        person = self.people[fitting[0].person_id]
        elsewhere = sa.select(sa.func.count()).where(Membership.person_id == person.id, Membership.unit_id != unit.id)
        if self.taking.tx.session.execute(elsewhere).scalar_one() == 0:
            return person
        # The person belongs to other units too, whose rows still have the old number: here somebody else of that name was meant.
        for membership in fitting:
            today = self.taking.act.now.date()
            starts = membership.starts_on or today
            if self.taking.correct(membership, ends_on=max(today, starts)):
                self.taking.tell(membership.entry(self.estates[row.estate].time_zone))
        return None

    def _person(self, cells: PersonCells, estate: Estate) -> Person:
        person = Person(
            id=new_id(),
            group_id=estate.group_id,
            company_id=estate.company_id,
            estate_id=estate.id,
            name=cells.name,
            kind=cells.kind,
            identity_sealed=sealed_identity(cells.identity) if cells.identity else None,
            identity_index=identity_index(cells.identity) if cells.identity else None,
            phone=cells.phones[0] if cells.phones else None,
            other_phones=list(cells.phones[1:]),
            birthday=cells.birthday,
        )
        self._remember(self.taking.new(person))
        return person

    def _correct(self, person: Person, cells: PersonCells) -> bool:
        """An empty cell takes nothing away: a telephone or a birthday may have come from elsewhere."""
        values: dict[str, Any] = {"name": cells.name, "kind": cells.kind}
        if cells.identity and identity_index(cells.identity) != person.identity_index:
            values |= {"identity_index": identity_index(cells.identity), "identity_sealed": sealed_identity(cells.identity)}
        if cells.phones:
            others = dict.fromkeys((*person.other_phones, *cells.phones[1:]))
            others.pop(cells.phones[0], None)
            values |= {"phone": cells.phones[0], "other_phones": list(others)}
        if cells.birthday:
            values["birthday"] = cells.birthday
        changed = self.taking.correct(person, **values)
        self._remember(person)
        return changed

    def _complete(self, person: Person, cells: PersonCells) -> bool:
        """What the survivor of a merge lacks; what he has was decided when the two became one."""
        values: dict[str, Any] = {}
        if cells.identity and person.identity_index is None:
            values |= {"identity_index": identity_index(cells.identity), "identity_sealed": sealed_identity(cells.identity)}
        if cells.birthday and person.birthday is None:
            values["birthday"] = cells.birthday
        changed = self.taking.correct(person, **values)
        self._remember(person)
        return changed

    def _remember(self, person: Person) -> None:
        self.people[person.id] = person
        if person.identity_index:
            self.by_index[person.group_id, person.identity_index] = person
        if person.phone:
            self.by_name[person.estate_id, person.name, person.phone] = person

    # How they belong to the unit

    def _membership(self, row: OwnerRow | TenantRow, unit: Unit, person: Person) -> Membership | None:
        """An owner is one once; a tenant may come back, so the lease is the one of that beginning, else one that overlaps."""
        mine = [m for m in self.memberships.get(unit.id, []) if m.person_id == person.id]
        if isinstance(row, OwnerRow):
            return next((m for m in mine if m.ends_on is None), next(iter(mine), None))
        same = next((m for m in mine if m.starts_on == row.start), None)
        first, last = row.start, row.end or date.max
        return same or next((m for m in mine if (m.starts_on or date.min) <= last and (m.ends_on or date.max) >= first), None)

    def _join(self, row: OwnerRow | TenantRow, unit: Unit, estate: Estate, person: Person) -> None:
        place = {"group_id": unit.group_id, "company_id": unit.company_id, "estate_id": unit.estate_id, "unit_id": unit.id}
        membership = self.taking.new(
            Membership(id=new_id(), person_id=person.id, kind=self.kind, register_digest=digest(row), **place, **(_NOTHING | _values(row)))
        )
        self.memberships.setdefault(unit.id, []).append(membership)
        self.taking.tell(membership.entry(estate.time_zone))


_NOTHING: dict[str, Any] = {
    "starts_on": None, "ends_on": None, "share": None, "owner_consent": None, "care_marks": [], "emergency_name": "", "emergency_phone": "",
    "payment_method": "", "household_id": None, "former_digests": [],
}  # fmt: skip


def _values(row: OwnerRow | TenantRow) -> dict[str, Any]:
    """The columns of a membership that the row speaks of."""
    if isinstance(row, TenantRow):
        return {"starts_on": row.start, "ends_on": row.end, "owner_consent": row.owner_consent}
    return {
        "share": row.share,
        "care_marks": list(row.care_marks),
        "emergency_name": row.emergency_name,
        "emergency_phone": row.emergency_phone,
        "payment_method": row.payment_method,
    }
