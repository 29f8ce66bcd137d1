"""People, units and memberships of the register as messages: telephones masked, identity numbers never."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.names import money
from services.residents.people import Membership, Person
from services.residents.register_cells import masked_phone
from services.residents.sight import Place, places
from services.residents.tree import Building, Unit
from steward.residents.v1 import directory_pb2
from steward.residents.v1 import people_pb2 as pb

_ORDER = {"OWNER": 0, "TENANT": 1, "FAMILY_MEMBER": 2}


def unit_name(place: Place, identifier: UUID, number: str) -> str:
    return f"estates/{place.code}/units/{identifier if '/' in number else number}"


def _day(day: date | None) -> str:
    return day.isoformat() if day else ""


class Shown:
    """What several messages of one answer have in common: the estates, units and people they speak of."""

    def __init__(self, tx: Transaction, memberships: Iterable[Membership], people: Iterable[Person] = (), units: Iterable[Unit] = ()):
        self.tx = tx
        self.memberships = sorted(memberships, key=lambda m: (_ORDER[m.kind], m.starts_on or date.min, m.id))
        self._people = {person.id: person for person in people}
        self._units = {unit.id: unit.number for unit in units}
        if missing := {m.person_id for m in self.memberships} - self._people.keys():
            self._people |= {p.id: p for p in tx.session.execute(sa.select(Person).where(Person.id.in_(missing))).scalars()}
        if missing := {m.unit_id for m in self.memberships} - self._units.keys():
            rows = tx.session.execute(sa.select(Unit.id, Unit.number).where(Unit.id.in_(missing)))
            self._units |= dict(rows.all())
        estates = (
            [m.estate_id for m in self.memberships] + [unit.estate_id for unit in units] + [p.estate_id for p in self._people.values()]
        )
        self._places = places(tx, estates)
        self._today = {place.id: place.today(tx) for place in self._places.values()}

    def member(self, membership: Membership) -> pb.Member:
        place, person = self._places[membership.estate_id], self._people[membership.person_id]
        message = pb.Member(
            name=f"estates/{place.code}/memberships/{membership.id}",
            person=f"people/{person.id}",
            display_name=person.name,
            person_kind=person.kind,
            phone=person.masked_phone,
            unit=unit_name(place, membership.unit_id, self._units[membership.unit_id]),
            kind=membership.kind,
            start_date=_day(membership.starts_on),
            end_date=_day(membership.ends_on),
            current=membership.covers(self._today[place.id]),
            share="" if membership.share is None else f"{membership.share.normalize():f}",
            care_marks=membership.care_marks,
            emergency_name=membership.emergency_name,
            emergency_phone=masked_phone(membership.emergency_phone),
            payment_method=membership.payment_method,
            household=f"memberships/{membership.household_id}" if membership.household_id else "",
            etag=membership.etag,
        )
        if membership.owner_consent is not None:
            message.owner_consent = membership.owner_consent
        return message

    def person(self, person: Person, *, whole: bool = False) -> pb.Person:
        """`whole`: with the birthday, for who opened the record."""
        of_his = [m for m in self.memberships if m.person_id == person.id]
        place = self.tx.estate.code if self.tx.estate else self._places[of_his[0].estate_id].code if of_his else "-"
        return pb.Person(
            name=f"estates/{place}/people/{person.id}",
            person=f"people/{person.id}",
            display_name=person.name,
            kind=person.kind,
            phone=person.masked_phone,
            other_phones=[masked_phone(phone) for phone in person.other_phones],
            birthday=_day(person.birthday) if whole else "",
            has_identity=person.identity_index is not None,
            members=[self.member(m) for m in of_his],
            merged_into=f"people/{person.merged_into}" if person.merged_into else "",
            etag=person.etag,
        )

    def unit(self, unit: Unit, building: str) -> pb.Unit:
        message = pb.Unit(
            name=unit_name(self._places[unit.estate_id], unit.id, unit.number),
            number=unit.number,
            building=building,
            entrance=unit.entrance,
            floor=unit.floor,
            area=str(unit.area),
            property_type=unit.property_type,
            status=directory_pb2.UnitStatus(taken_over=unit.taken_over, occupancy=unit.occupancy, under_renovation=unit.under_renovation),
            move_in_date=_day(unit.move_in_date),
            members=[self.member(m) for m in self.memberships if m.unit_id == unit.id],
            etag=unit.etag,
        )
        if unit.fee_rate is not None:
            message.fee_rate.CopyFrom(money(unit.fee_rate))
        return message


def memberships_of(tx: Transaction, *where: sa.ColumnElement[bool], past: bool) -> list[Membership]:
    """In sight; without `past` those that have not ended on their estate's calendar."""
    query = sa.select(Membership).where(tx.inside(Membership), *where).execution_options(populate_existing=True)
    found = list(tx.session.execute(query).scalars())
    today = {place.id: place.today(tx) for place in places(tx, [m.estate_id for m in found]).values()}
    return [m for m in found if past or m.ends_on is None or m.ends_on >= today[m.estate_id]]


def persons(tx: Transaction, people: Sequence[Person], *, past: bool = True, whole: bool = False) -> list[pb.Person]:
    ids = [person.id for person in people]
    own = tx.scope.person is not None  # a resident's scope has the estate for his own rows alone: these are his
    found = _own(tx, ids) if own else memberships_of(tx, Membership.person_id.in_(ids), past=past)
    shown = Shown(tx, found, people)
    return [shown.person(person, whole=whole) for person in people]


def _own(tx: Transaction, ids: Sequence[UUID]) -> list[Membership]:
    inside = sa.and_(Membership.person_id.in_(ids), Membership.estate_id.in_(tx.scope.estates))
    return list(tx.session.execute(sa.select(Membership).where(inside)).scalars())


def units(tx: Transaction, found: Sequence[Unit], *, past: bool = False) -> list[pb.Unit]:
    shown = Shown(tx, memberships_of(tx, Membership.unit_id.in_([unit.id for unit in found]), past=past), units=found)
    rows = tx.session.execute(sa.select(Building.id, Building.name).where(Building.id.in_({unit.building_id for unit in found})))
    names = dict(rows.all())
    return [shown.unit(unit, names[unit.building_id]) for unit in found]


def member(tx: Transaction, membership: Membership) -> pb.Member:
    return Shown(tx, [membership]).member(membership)
