"""The tree group → company → estate → building → unit, as residents owns it (CEN-01, ORG-11).

Groups and companies are known by name, estates by a code that is unique everywhere (it stands in addresses), buildings and
units by name and number within their estate.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction
from services.residents.records import Record
from steward.residents.v1 import directory_pb2 as pb


class Group(Record, Base):
    """集团: the top of the tree. `group_id` is its own id."""

    __tablename__ = "groups"

    company_id: Mapped[UUID | None]
    estate_id: Mapped[UUID | None]
    name: Mapped[str]

    def entry(self) -> pb.DirectoryEntry:
        node = pb.Node(kind=pb.Node.GROUP, name=self.name, group_id=str(self.id))
        return pb.DirectoryEntry(id=str(self.id), version=self.version, node=node)


class Company(Record, Base):
    """公司: manages estates of its group. `company_id` is its own id."""

    __tablename__ = "companies"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID | None]
    name: Mapped[str]

    def entry(self) -> pb.DirectoryEntry:
        node = pb.Node(
            kind=pb.Node.COMPANY, parent_id=str(self.group_id), name=self.name, company_id=str(self.id), group_id=str(self.group_id)
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, node=node)


class Estate(Record, Base):
    """项目. `estate_id` is its own id."""

    __tablename__ = "estates"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    code: Mapped[str]
    name: Mapped[str]
    property_type: Mapped[str]  # name in steward.residents.v1.PropertyType
    time_zone: Mapped[str]  # IANA
    has_committee: Mapped[bool]

    def entry(self) -> pb.DirectoryEntry:
        node = pb.Node(
            kind=pb.Node.ESTATE,
            parent_id=str(self.company_id),
            code=self.code,
            name=self.name,
            estate_id=str(self.id),
            company_id=str(self.company_id),
            group_id=str(self.group_id),
            time_zone=self.time_zone,
            property_type=self.property_type,
            has_committee=self.has_committee,
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, node=node)


class Building(Record, Base):
    """楼栋."""

    __tablename__ = "buildings"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    name: Mapped[str]

    def entry(self) -> pb.DirectoryEntry:
        node = pb.Node(
            kind=pb.Node.BUILDING,
            parent_id=str(self.estate_id),
            code=self.name,
            estate_id=str(self.estate_id),
            company_id=str(self.company_id),
            group_id=str(self.group_id),
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, node=node)


class Unit(Record, Base):
    """房屋. Its status is kept as separate facts (CEN-01): taken over or not, who lives there, under renovation or not."""

    __tablename__ = "units"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    building_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Building.id))
    entrance: Mapped[str]  # 单元; "" where a building has one entrance
    floor: Mapped[int | None]
    number: Mapped[str]  # 房号, unique in the estate
    area: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))  # m²
    property_type: Mapped[str]
    taken_over: Mapped[bool]
    occupancy: Mapped[str]  # name in steward.residents.v1.UnitStatus.Occupancy
    under_renovation: Mapped[bool]
    move_in_date: Mapped[date | None]  # the fee accrues from this day (MIN-05)
    fee_rate: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 4))  # CNY per m² and month

    def entry(self) -> pb.DirectoryEntry:
        status = pb.UnitStatus(
            taken_over=self.taken_over,
            occupancy=self.occupancy,
            under_renovation=self.under_renovation,
        )
        node = pb.Node(
            kind=pb.Node.UNIT,
            parent_id=str(self.building_id),
            code=self.number,
            estate_id=str(self.estate_id),
            company_id=str(self.company_id),
            group_id=str(self.group_id),
            property_type=self.property_type,
            unit_status=status,
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, node=node)


# Everything that lies below an estate and carries its company and group for row-level security.
BELOW_AN_ESTATE = ("buildings", "units", "people", "memberships", "parking_spaces", "staff", "posts", "shifts", "leaves")


def follow_estate(tx: Transaction, estate: Estate) -> list[Building | Unit]:
    """The estate has come to another company: what lies below follows. Returns the nodes whose entries have changed."""
    tx.session.flush()
    for table in BELOW_AN_ESTATE:
        grows = ", version = version + 1, updated_at = %s" if table in ("buildings", "units") else ""
        values = [estate.group_id, estate.company_id, *([tx.now] if grows else []), estate.id]
        tx.execute(f"UPDATE {table} SET group_id = %s, company_id = %s{grows} WHERE estate_id = %s", values)
    buildings = sa.select(Building).where(Building.estate_id == estate.id).execution_options(populate_existing=True)
    units = sa.select(Unit).where(Unit.estate_id == estate.id).execution_options(populate_existing=True)
    return [*tx.session.execute(buildings).scalars(), *tx.session.execute(units).scalars()]
