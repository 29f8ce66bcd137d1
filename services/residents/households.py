"""Who moves in and out: tenants and family by the front desk, owners by the transfer of a unit (TEN-09, OCC-02, MIN-10).

A household is an owner's or a tenant's family and ends with his membership. What changes is written to the history of the
unit and its memberships and told to every service by the directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction, new_id
from services.chassis.errors import Conflict
from services.chassis.events import Happened, append
from services.chassis.lifecycle import Act
from services.chassis.names import stamp
from services.residents import newcomers
from services.residents.directory import publish
from services.residents.parking import ParkingSpace
from services.residents.people import Membership, midnight
from services.residents.records import Record, keep_history
from services.residents.sight import Place
from services.residents.stated import SLACK, Party, lease, refused
from services.residents.tree import Unit
from steward.residents.v1 import events_pb2 as events

OWNER, TENANT, FAMILY = "OWNER", "TENANT", "FAMILY_MEMBER"
FURTHEST = timedelta(days=366)  # ahead; a transfer beyond is a typing error
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Terms:
    """How somebody is to belong to a unit."""

    starts_on: date | None
    ends_on: date | None = None
    share: Decimal | None = None
    owner_consent: bool | None = None
    care_marks: tuple[str, ...] = ()
    emergency_name: str = ""
    emergency_phone: str = ""
    payment_method: str = ""
    household_id: UUID | None = None


def of_unit(tx: Transaction, unit: Unit) -> list[Membership]:
    """Everybody who ever belonged to it, locked."""
    query = sa.select(Membership).where(Membership.unit_id == unit.id).order_by(Membership.id).with_for_update()
    return list(tx.session.execute(query.execution_options(populate_existing=True)).scalars())


def tell(tx: Transaction, place: Place, unit: Unit, memberships: Iterable[Membership], *, deleted: Iterable[Membership] = ()) -> None:
    """Other services learn how the unit and its memberships are now."""
    entries = [unit.entry(), *(m.entry(place.zone) for m in memberships), *(m.entry(place.zone, deleted=True) for m in deleted)]
    publish(tx, entries, group_id=unit.group_id, company_id=unit.company_id, estate_id=unit.estate_id)


# Moving in


def add(tx: Transaction, act: Act, place: Place, unit: Unit, party: Party, kind: str, terms: Terms) -> Membership:
    """A tenant or a member of a household moves in.

    Raises InvalidInput(END_BEFORE_START, LEASE_TOO_LONG, HOUSEHOLD_REQUIRED, PERSON_NOT_IDENTIFIABLE), Conflict(ALREADY_MEMBER,
    IDENTITY_OF_ANOTHER, PERSON_AMBIGUOUS).
    """
    first = terms.starts_on or place.today(tx)
    lease(first, terms.ends_on)
    others = of_unit(tx, unit)
    if kind == FAMILY:
        terms = replace(terms, household_id=_household(others, terms.household_id, first, terms.ends_on).id, owner_consent=None)
        _refuse_namesake(tx, others, party, first, terms.ends_on)
    person_id = newcomers.settle(tx, act, unit, party, needs_key=kind != FAMILY)
    refuse_overlap(others, person_id, kind, first, terms.ends_on)
    made = _join(tx, act, unit, person_id, kind, replace(terms, starts_on=first))
    newcomers.complete(tx, act, person_id, party)
    if kind == TENANT and made.covers(place.today(tx)):
        unit.correct(act, occupancy="LET")  # CEN-06: at once; the census only reconciles
    keep_history(tx, [unit], act.reason)
    tell(tx, place, unit, [made])
    return made


def refuse_overlap(
    memberships: Iterable[Membership], person_id: UUID, kind: str, first: date | None, last: date | None, *, but: Membership | None = None
) -> None:
    """Raises Conflict(ALREADY_MEMBER)."""
    for other in memberships:
        if other is not but and (other.person_id, other.kind) == (person_id, kind) and other.overlaps(first, last):
            raise Conflict("he belongs to this unit at that time already, in the same way", reason="ALREADY_MEMBER")


def _refuse_namesake(tx: Transaction, others: Sequence[Membership], party: Party, first: date, last: date | None) -> None:
    """A child has neither number nor telephone: the same name in the same unit is the same child. Raises Conflict(ALREADY_MEMBER)."""
    if party.person is not None or party.identity or party.phone:
        return
    family = [m.person_id for m in others if m.kind == FAMILY and m.overlaps(first, last)]
    if tx.execute("SELECT 1 FROM people WHERE id = ANY(%s) AND name = %s", (family, party.name)):
        raise Conflict("a member of the household has this name already", reason="ALREADY_MEMBER")


def _household(others: Sequence[Membership], wanted: UUID | None, first: date, last: date | None) -> Membership:
    """Whose family it is. Raises InvalidInput(HOUSEHOLD_REQUIRED)."""
    heads = [m for m in others if m.kind in (OWNER, TENANT) and m.overlaps(first, last) and wanted in (None, m.id)]
    if len(heads) != 1:
        raise refused("household", "HOUSEHOLD_REQUIRED", "must be the membership of an owner or tenant of this unit at that time")
    return heads[0]


def _join(tx: Transaction, act: Act, unit: Unit, person_id: UUID, kind: str, terms: Terms) -> Membership:
    made = Membership(
        id=new_id(), group_id=unit.group_id, company_id=unit.company_id, estate_id=unit.estate_id, unit_id=unit.id, person_id=person_id,
        kind=kind, starts_on=terms.starts_on, ends_on=terms.ends_on, share=terms.share, owner_consent=terms.owner_consent,
        care_marks=list(terms.care_marks), emergency_name=terms.emergency_name, emergency_phone=terms.emergency_phone,
        payment_method=terms.payment_method, household_id=terms.household_id, former_digests=[],
    )  # fmt: skip
    made.begin(act, person_id=person_id, kind=kind, starts_on=terms.starts_on, ends_on=terms.ends_on, share=terms.share)
    tx.add(made)
    tx.session.flush()
    keep_history(tx, [made], act.reason)
    return made


# Moving out


def end(tx: Transaction, act: Act, place: Place, unit: Unit, membership: Membership, last: date | None) -> None:
    """The last day of a tenant or of a member of a household; his own household ends with him.

    Raises InvalidInput(END_BEFORE_START, END_LATER), Conflict(OWNER_ENDS_BY_TRANSFER, MEMBERSHIP_ENDED).
    """
    today = place.today(tx)
    last = last or today
    if membership.kind == OWNER:
        raise Conflict("owners change when the unit is transferred", reason="OWNER_ENDS_BY_TRANSFER", rule="TEN-09")
    if membership.ends_on is not None and membership.ends_on < today:
        raise Conflict("this membership has ended", reason="MEMBERSHIP_ENDED")
    if membership.starts_on is not None and last < membership.starts_on:
        raise refused("end_date", "END_BEFORE_START", f"不得早于 {membership.starts_on}")
    if membership.ends_on is not None and last > membership.ends_on:
        raise refused("end_date", "END_LATER", f"不得晚于 {membership.ends_on}；延长租期请更正该记录")
    others = of_unit(tx, unit)
    changes = _Changes()
    changes.end(act, membership, last)
    for member in others:
        if member.household_id == membership.id:
            changes.end(act, member, last)
    let = any(m.kind == TENANT and m is not membership and (m.ends_on is None or m.ends_on > last) for m in others)
    if membership.kind == TENANT and not let and last <= today and unit.occupancy == "LET":
        unit.correct(act, occupancy="VACANT")  # TEN-07
    changes.write(tx, act, place, unit)


@dataclass(slots=True)
class _Changes:
    """Memberships that end, and those that never were; what is written about them at the end."""

    changed: list[Membership] = field(default_factory=list)
    struck: list[Membership] = field(default_factory=list)
    renewed: dict[UUID, Membership] = field(default_factory=dict)  # by the id of the one that it goes on from

    def end(self, act: Act, membership: Membership, last: date) -> None:
        """Ends with `last`, or with its own earlier day; one that would begin later is struck out."""
        if membership.starts_on is not None and membership.starts_on > last:
            membership.note(act, {"ends_on": membership.ends_on}, {"struck_out": True})
            self.struck.append(membership)
        elif membership.ends_on is None or membership.ends_on > last:
            membership.correct(act, ends_on=last)
            self.changed.append(membership)

    def write(self, tx: Transaction, act: Act, place: Place, unit: Unit, *others: Record) -> None:
        tx.session.flush()
        for membership in self.struck:
            tx.session.delete(membership)
        tx.session.flush()
        keep_history(tx, [*self.changed, *self.struck, unit, *others], act.reason)
        tell(tx, place, unit, dict.fromkeys(self.changed), deleted=self.struck)


# Other owners


@dataclass(frozen=True, slots=True)
class NewOwner:
    party: Party
    share: Decimal | None
    emergency_name: str = ""
    emergency_phone: str = ""
    payment_method: str = ""


@dataclass(frozen=True, slots=True)
class Deed:
    """A transfer as the desk states it. `starts_on`: the first day of the owners named, who are all there are from then on."""

    starts_on: date
    owners: tuple[NewOwner, ...]
    tenants_leave: bool
    parking_stays: bool
    charges_assigned: bool


def transfer(tx: Transaction, act: Act, place: Place, unit: Unit, deed: Deed) -> None:
    """The unit has other owners (TEN-09).

    Raises InvalidInput(DATE_OUT_OF_RANGE, SHARES_EXCEED_WHOLE, OWNER_TWICE), Conflict(TRANSFER_BEFORE_OWNERSHIP,
    NOTHING_TRANSFERRED), and what `newcomers.settle` raises.
    """
    today, eve = place.today(tx), deed.starts_on - DAY
    if deed.starts_on > today + FURTHEST:
        raise refused("from_date", "DATE_OUT_OF_RANGE", f"不得晚于 {today + FURTHEST}")
    if sum((owner.share or Decimal(0) for owner in deed.owners), Decimal(0)) > 100 + SLACK:
        raise refused("owners", "SHARES_EXCEED_WHOLE", "产权份额合计超过 100%", rule="TEN-09")
    others = of_unit(tx, unit)
    before = [m for m in others if m.kind == OWNER and (m.ends_on is None or m.ends_on >= deed.starts_on)]
    people = _settled(tx, act, unit, deed.owners)
    leaving = [m for m in before if m.person_id not in people]
    staying = {m.person_id: m for m in before if m.person_id in people}
    if any(m.starts_on is not None and m.starts_on >= deed.starts_on for m in leaving):
        raise Conflict("an owner who leaves began that day or later", reason="TRANSFER_BEFORE_OWNERSHIP", rule="TEN-09")
    if not leaving and len(staying) == len(people):
        raise Conflict("these are its owners; a wrong share is corrected", reason="NOTHING_TRANSFERRED", rule="TEN-09")

    changes = _Changes()
    for membership in leaving:
        changes.end(act, membership, eve)
    tx.session.flush()  # an owner is one once: the old membership has ended before the new one begins
    for person_id, owner in people.items():
        _own(tx, act, unit, person_id, owner, deed.starts_on, staying, changes)
    _end_households(act, others, leaving, staying, deed, changes)
    spaces = _spaces(tx, unit) if not deed.parking_stays else []
    for space in spaces:
        space.correct(act, ended_at=midnight(deed.starts_on, place.zone))
    _occupancy(act, unit, others, before, staying, deed, today)
    unit.note(act, {"owners": _names(m.person_id for m in before)}, {"owners": _names(people), "from": deed.starts_on})
    changes.write(tx, act, place, unit, *spaces)
    done = events.UnitTransferred(
        unit_id=str(unit.id),
        effective_time=stamp(midnight(deed.starts_on, place.zone)),
        old_owners=_names(m.person_id for m in leaving),
        new_owners=_names(people),
        charges_assigned=deed.charges_assigned,
    )
    where = (unit.group_id, unit.company_id, unit.estate_id)
    append(tx, Happened("unit", unit.id, unit.version, f"estates/{place.code}/units/{unit.number}", done, act.now, *where))


def _settled(tx: Transaction, act: Act, unit: Unit, owners: Sequence[NewOwner]) -> dict[UUID, NewOwner]:
    people: dict[UUID, NewOwner] = {}
    for owner in owners:
        person_id = newcomers.settle(tx, act, unit, owner.party)
        if person_id in people:
            raise refused(owner.party.field, "OWNER_TWICE", "这位业主已在名单中")
        people[person_id] = owner
    return people


def _own(
    tx: Transaction, act: Act, unit: Unit, person_id: UUID, owner: NewOwner, first: date, staying: dict[UUID, Membership], changes: _Changes
) -> None:
    """Whoever stays with the same share goes on; with another one he has it from that day, by a membership of its own."""
    terms = Terms(first, None, owner.share, None, (), owner.emergency_name, owner.emergency_phone, owner.payment_method)
    old = staying.get(person_id)
    if old is not None:
        if old.share == owner.share and old.ends_on is None:
            return
        if old.starts_on is not None and old.starts_on >= first:
            old.correct(act, share=owner.share, ends_on=None)
            changes.changed.append(old)
            return
        changes.end(act, old, first - DAY)
        tx.session.flush()
        contact = (old.emergency_name, old.emergency_phone) if not owner.emergency_phone else (owner.emergency_name, owner.emergency_phone)
        terms = Terms(first, None, owner.share, None, tuple(old.care_marks), *contact, owner.payment_method or old.payment_method)
    made = _join(tx, act, unit, person_id, OWNER, terms)
    changes.changed.append(made)
    if old is not None:
        staying[person_id] = changes.renewed[old.id] = made
    newcomers.complete(tx, act, person_id, owner.party)


def _end_households(
    act: Act, others: Sequence[Membership], leaving: Sequence[Membership], staying: dict[UUID, Membership], deed: Deed, changes: _Changes
) -> None:
    """Family of the owners who left goes with them, or belongs to an owner who stays; tenants stay unless they leave too."""
    eve, gone = deed.starts_on - DAY, {m.id for m in leaving}
    tenants = [m for m in others if m.kind == TENANT] if deed.tenants_leave else []
    for tenant in tenants:
        changes.end(act, tenant, eve)
    tenant_ids = {m.id for m in tenants}
    heir = min(staying.values(), key=lambda m: m.id, default=None)
    for member in others:
        if member.household_id is None or not member.overlaps(deed.starts_on, None):
            continue
        head = changes.renewed.get(member.household_id, heir if member.household_id in gone else None)
        if member.household_id in tenant_ids or (member.household_id in gone and head is None):
            changes.end(act, member, eve)
        elif head is not None:
            member.correct(act, household_id=head.id)
            changes.changed.append(member)


def _occupancy(
    act: Act,
    unit: Unit,
    others: Sequence[Membership],
    before: Sequence[Membership],
    staying: dict[UUID, Membership],
    deed: Deed,
    today: date,
) -> None:
    """Once nobody of the old household lives there it is vacant; of what is to come the census tells (CEN-06)."""
    let = any(m.kind == TENANT and m.covers(today) for m in others)
    if deed.starts_on <= today and before and not staying and not let:
        unit.correct(act, occupancy="VACANT")


def _spaces(tx: Transaction, unit: Unit) -> list[ParkingSpace]:
    query = sa.select(ParkingSpace).where(ParkingSpace.unit_id == unit.id, ParkingSpace.ended_at.is_(None)).with_for_update()
    return list(tx.session.execute(query).scalars())


def _names(people: Iterable[Any]) -> list[str]:
    return sorted(f"people/{person}" for person in people)
