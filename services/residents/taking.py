"""Right rows of a register file become records: created, corrected, or left as they are.

A batch of rows of one sheet is taken in one transaction with a handful of statements: what is there is loaded by its natural
key, compared and written back. A record remembers a digest of the row it came from; the same row again is passed over, so
importing a file twice changes nothing, and importing a corrected file changes what was corrected and nothing else.
Rows that a file no longer has are not removed: owners change by transfer (TEN-09), leases by their end, staff by 离职.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction, new_id
from services.chassis.lifecycle import Act
from services.residents.directory import publish
from services.residents.parking import ParkingSpace
from services.residents.people import Membership, follow_zone
from services.residents.records import Record, keep_history
from services.residents.register_rows import EstateRow, OwnerRow, ParkingRow, Row, StaffRow, TenantRow, UnitRow
from services.residents.staff import Post, Staff
from services.residents.tree import Building, Company, Estate, Group, Unit, follow_estate
from services.residents.vault import vault
from steward.residents.v1 import directory_pb2 as pb

CREATED, CHANGED, UNCHANGED = "created", "changed", "unchanged"

R = TypeVar("R", bound=Record)
PeopleOf = Callable[[str, str], set[tuple[str, ...]]]
"""Keys (`PersonCells.key`) of everybody whom the file names in a unit, (estate, unit number)."""


def digest(row: Row) -> bytes:
    """What a record remembers of the row it came from; keyed, because rows hold identity numbers."""
    return vault().index(repr(row), "register row")


class Taking:
    """Takes rows within one transaction. `people_of` keeps apart two people of one name in a unit."""

    def __init__(self, tx: Transaction, act: Act, people_of: PeopleOf):
        self.tx = tx
        self.act = act
        self.people_of = people_of
        self.group_ids: set[UUID] = set()  # of the estates and staff taken
        self._entries: list[pb.DirectoryEntry] = []
        self._corrected: list[Record] = []
        self._children: list[Record] = []  # new records that refer to other new ones, which are written first

    def take(self, rows: Sequence[Row]) -> list[str]:
        """Rows of one sheet, in order; what became of each."""
        from services.residents.taking_people import take_owners, take_tenants

        kinds: dict[type, Callable[..., list[str]]] = {
            EstateRow: Taking._estates,
            UnitRow: Taking._units,
            OwnerRow: take_owners,
            TenantRow: take_tenants,
            ParkingRow: Taking._parking,
            StaffRow: Taking._staff,
        }
        outcome = kinds[type(rows[0])](self, rows) if rows else []
        self.tx.session.flush()
        self.tx.session.add_all(self._children)
        self._children.clear()
        return outcome

    def finish(self, reason: str) -> None:
        """Writes everything, publishes what other services keep of it, and adds the history of corrections."""
        self.tx.session.flush()
        groups = self.group_ids if len(self.group_ids) == 1 else set()
        publish(self.tx, self._entries, group_id=next(iter(groups), None))
        keep_history(self.tx, self._corrected, reason)

    # What every kind of row needs

    def new(self, record: R) -> R:
        record.version = 1
        record.created_at = record.updated_at = self.act.now
        if isinstance(record, (Unit, Membership, ParkingSpace, Post)):
            self._children.append(record)
        else:
            self.tx.add(record)
        return record

    def correct(self, record: Record, **values: Any) -> bool:
        """Corrects, and remembers to write the history of it."""
        changed = record.correct(self.act, **values)
        if changed and record not in self._corrected:
            self._corrected.append(record)
        return changed

    def tell(self, *entries: pb.DirectoryEntry) -> None:
        self._entries += entries

    def found(self, cls: type[R], *where: sa.ColumnElement[bool]) -> list[R]:
        """Records, locked until the commit."""
        return list(self.tx.session.execute(sa.select(cls).where(*where).with_for_update()).scalars())

    def estates_of(self, codes: Iterable[str]) -> dict[str, Estate]:
        estates = {estate.code: estate for estate in self.found(Estate, Estate.code.in_(set(codes)))}
        self.group_ids |= {estate.group_id for estate in estates.values()}
        return estates

    def units_of(self, estates: dict[str, Estate], keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Unit]:
        """Units by (estate code, number)."""
        numbers: dict[str, set[str]] = {}
        for code, number in keys:
            numbers.setdefault(code, set()).add(number)
        return {
            (code, unit.number): unit
            for code, wanted in numbers.items()
            for unit in self.found(Unit, Unit.estate_id == estates[code].id, Unit.number.in_(wanted))
        }

    # 项目

    def _estates(self, rows: Sequence[EstateRow]) -> list[str]:
        groups = {group.name: group for group in self.found(Group, Group.name.in_({row.group for row in rows}))}
        named = self.found(Company, Company.name.in_({row.company for row in rows}))
        companies = {(company.group_id, company.name): company for company in named}
        estates = self.estates_of(row.code for row in rows)
        outcome = []
        for row in rows:
            group = groups.get(row.group) or groups.setdefault(row.group, self._group(row.group))
            key = (group.id, row.company)
            company = companies.get(key) or companies.setdefault(key, self._company(group, row.company))
            estate = estates.get(row.code)
            outcome.append(self._estate(row, group, company, estate))
        return outcome

    def _group(self, name: str) -> Group:
        identifier = new_id()
        group = self.new(Group(id=identifier, group_id=identifier, name=name))
        self.tell(group.entry())
        return group

    def _company(self, group: Group, name: str) -> Company:
        identifier = new_id()
        company = self.new(Company(id=identifier, group_id=group.id, company_id=identifier, name=name))
        self.tell(company.entry())
        return company

    def _estate(self, row: EstateRow, group: Group, company: Company, estate: Estate | None) -> str:
        self.group_ids.add(group.id)
        values: dict[str, Any] = {"group_id": group.id, "company_id": company.id, "name": row.name, "property_type": row.property_type}
        values |= {"time_zone": row.time_zone, "has_committee": row.has_committee}
        if estate is None:
            identifier = new_id()
            estate = self.new(Estate(id=identifier, estate_id=identifier, code=row.code, register_digest=digest(row), **values))
            self.tell(estate.entry())
            return CREATED
        if estate.register_digest == digest(row):
            return UNCHANGED
        moved = estate.company_id != company.id
        other_zone = estate.time_zone != row.time_zone
        estate.register_digest = digest(row)
        if not self.correct(estate, **values):
            return UNCHANGED
        self.tell(estate.entry())
        if moved:
            self.tell(*(node.entry() for node in follow_estate(self.tx, estate)))
        if other_zone:
            self.tell(*(membership.entry(estate.time_zone) for membership in follow_zone(self.tx, estate.id)))
        return CHANGED

    # 房屋台账

    def _units(self, rows: Sequence[UnitRow]) -> list[str]:
        estates = self.estates_of(row.estate for row in rows)
        buildings = {(b.estate_id, b.name): b for b in self.found(Building, Building.estate_id.in_([e.id for e in estates.values()]))}
        units = self.units_of(estates, ((row.estate, row.number) for row in rows))
        outcome = []
        for row in rows:
            estate = estates[row.estate]
            building = buildings.get((estate.id, row.building))
            if building is None:
                place = {"group_id": estate.group_id, "company_id": estate.company_id, "estate_id": estate.id}
                building = self.new(Building(id=new_id(), name=row.building, **place))
                buildings[(estate.id, row.building)] = building
                self.tell(building.entry())
            outcome.append(self._unit(row, estate, building, units.get((row.estate, row.number))))
        return outcome

    def _unit(self, row: UnitRow, estate: Estate, building: Building, unit: Unit | None) -> str:
        values: dict[str, Any] = {
            "building_id": building.id, "entrance": row.entrance, "floor": row.floor, "area": row.area, "property_type": row.property_type,
            "taken_over": row.status.taken_over, "occupancy": row.status.occupancy, "under_renovation": row.status.under_renovation,
            "move_in_date": row.move_in_date, "fee_rate": row.fee_rate,
        }  # fmt: skip
        if unit is None:
            place = {"group_id": estate.group_id, "company_id": estate.company_id, "estate_id": estate.id}
            unit = self.new(Unit(id=new_id(), number=row.number, register_digest=digest(row), **place, **values))
            self.tell(unit.entry())
            return CREATED
        if unit.register_digest == digest(row):
            return UNCHANGED
        unit.register_digest = digest(row)
        if not self.correct(unit, **values):
            return UNCHANGED
        self.tell(unit.entry())
        return CHANGED

    # 车位台账

    def _parking(self, rows: Sequence[ParkingRow]) -> list[str]:
        estates = self.estates_of(row.estate for row in rows)
        units = self.units_of(estates, ((row.estate, row.unit) for row in rows))
        numbers = {row.space for row in rows}
        in_estates = ParkingSpace.estate_id.in_([estate.id for estate in estates.values()])
        same = self.found(ParkingSpace, in_estates, ParkingSpace.number.in_(numbers))
        spaces = {(space.estate_id, space.number): space for space in same}
        of_units = ParkingSpace.unit_id.in_([unit.id for unit in units.values()])
        in_use = {space.unit_id: space for space in self.found(ParkingSpace, of_units, ParkingSpace.ended_at.is_(None))}
        wanted: dict[tuple[UUID, str], tuple[ParkingRow, Unit]] = {}
        outcome = []
        for row in rows:
            unit = units[row.estate, row.unit]
            space = spaces.get((unit.estate_id, row.space))
            if space is not None and space.register_digest == digest(row):
                outcome.append(UNCHANGED)
                continue
            wanted[unit.estate_id, row.space] = (row, unit)
            outcome.append(CREATED if space is None else CHANGED)
        # A household that has another space gives it up first: the file says which one it has now (PRK-02).
        for _, unit in wanted.values():
            other = in_use.get(unit.id)
            if other is not None and (other.estate_id, other.number) not in {key for key, (_, u) in wanted.items() if u is unit}:
                self.correct(other, ended_at=self.act.now)
                other.register_digest = None  # should the same row come back, it is taken
        self.tx.session.flush()
        for key, (row, unit) in wanted.items():
            self._space(row, unit, spaces.get(key))
        return outcome

    def _space(self, row: ParkingRow, unit: Unit, space: ParkingSpace | None) -> None:
        values = {"unit_id": unit.id, "plate": row.plate, "kind": row.kind, "monthly_fee": row.monthly_fee, "ended_at": None}
        if space is None:
            place = {"group_id": unit.group_id, "company_id": unit.company_id, "estate_id": unit.estate_id}
            self.new(ParkingSpace(id=new_id(), number=row.space, register_digest=digest(row), **place, **values))
            return
        space.register_digest = digest(row)
        self.correct(space, **values)

    # 员工花名册

    def _staff(self, rows: Sequence[StaffRow]) -> list[str]:
        places = self._workplaces(rows)
        staff = {person.number: person for person in self.found(Staff, Staff.number.in_({row.number for row in rows}))}
        posts: dict[UUID, list[Post]] = {}
        for post in self.found(Post, Post.staff_id.in_([person.id for person in staff.values()]), Post.ends_at.is_(None)):
            posts.setdefault(post.staff_id, []).append(post)
        outcome = []
        for row in rows:
            person = staff.get(row.number)
            outcome.append(self._member(row, places[row.level, row.place], person, posts.get(person.id, []) if person else []))
        return outcome

    def _workplaces(self, rows: Sequence[StaffRow]) -> dict[tuple[str, str], Group | Company | Estate]:
        wanted: dict[str, set[str]] = {"GROUP": set(), "COMPANY": set(), "ESTATE": set()}
        for row in rows:
            wanted[row.level].add(row.place)
        places: dict[tuple[str, str], Group | Company | Estate] = {}
        places |= {("ESTATE", code): estate for code, estate in self.estates_of(wanted["ESTATE"]).items()}
        places |= {("GROUP", group.name): group for group in self.found(Group, Group.name.in_(wanted["GROUP"]))}
        places |= {("COMPANY", company.name): company for company in self.found(Company, Company.name.in_(wanted["COMPANY"]))}
        return places

    def _member(self, row: StaffRow, node: Group | Company | Estate, person: Staff | None, posts: list[Post]) -> str:
        self.group_ids.add(node.group_id)
        place = {"group_id": node.group_id, "company_id": node.company_id, "estate_id": node.estate_id}
        values = {"name": row.name, "title": row.post, "phone": row.phone, "email": row.email, "state": row.state, **place}
        wanted = {(role, node.id) for role in row.roles} if row.state != "LEFT" else set()
        if person is None:
            person = self.new(Staff(id=new_id(), number=row.number, register_digest=digest(row), **values))
            for role, at in sorted(wanted):
                self._post(person, role, at, place, since=None)
            return CREATED
        if person.register_digest == digest(row):
            return UNCHANGED
        person.register_digest = digest(row)
        changed = self.correct(person, **values)
        for post in posts:
            if (post.role, post.node_id) in wanted:
                wanted.remove((post.role, post.node_id))
            elif post.from_register or row.state == "LEFT":
                changed |= self.correct(post, ends_at=self.act.now)
                self.tell(post.entry())
        for role, at in sorted(wanted):
            self._post(person, role, at, place, since=self.act.now)
            changed = True
        return CHANGED if changed else UNCHANGED

    def _post(self, person: Staff, role: str, node_id: UUID, place: dict[str, Any], *, since: Any) -> None:
        values = {"staff_id": person.id, "role": role, "node_id": node_id, "starts_at": since, "from_register": True}
        self.tell(self.new(Post(id=new_id(), **values, **place)).entry())
