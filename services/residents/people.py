"""People and companies of the register, and how they belong to units: owners with shares, tenants with leases, family.

A person is one record per group, known by the identity number (kept encrypted, found by its index) or, without one, by name
and telephone. What concerns the household of a unit — share, emergency contact, special care, way of paying — stands on the
membership, because one person may own several units. Of two records that turned out to be one person the duplicate stays and
names the survivor, so that whoever knows the one finds the other.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction
from services.residents.records import Record
from services.residents.register_cells import masked_phone
from services.residents.tree import Unit
from services.residents.vault import vault
from steward.residents.v1 import directory_pb2 as pb

IDENTITY = "identity"  # the vault's purpose


class Person(Record, Base):
    """A person (个人) or a company (企业). `estate_id` is where it was first registered; more estates follow by membership."""

    __tablename__ = "people"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    name: Mapped[str]
    kind: Mapped[str]  # INDIVIDUAL | COMPANY
    identity_sealed: Mapped[bytes | None]
    identity_index: Mapped[bytes | None]
    phone: Mapped[str | None]  # the one for codes, calls and notices
    other_phones: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    birthday: Mapped[date | None]
    merged_into: Mapped[UUID | None] = mapped_column(sa.ForeignKey("people.id"))  # of whom this record was a duplicate

    @property
    def masked_phone(self) -> str:
        return masked_phone(self.phone or "")

    @property
    def identity(self) -> str:
        """The identity number in clear: for who was granted the full file (ARC-08), never for a list."""
        return vault().open(self.identity_sealed, IDENTITY).decode() if self.identity_sealed else ""


def identity_index(identity: str) -> bytes:
    """What an identity number is looked up by."""
    return vault().index(identity, IDENTITY)


def sealed_identity(identity: str) -> bytes:
    return vault().seal(identity.encode(), IDENTITY)


class Membership(Record, Base):
    """A person belongs to a unit, from–to (days in the estate's zone, the last one included)."""

    __tablename__ = "memberships"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    unit_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Unit.id))
    person_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Person.id))
    kind: Mapped[str]  # OWNER | TENANT | FAMILY_MEMBER
    starts_on: Mapped[date | None]  # None: since ever
    ends_on: Mapped[date | None]  # None: open
    share: Mapped[Decimal | None] = mapped_column(sa.Numeric(7, 4))  # of an owner, per cent; None: jointly or not stated
    owner_consent: Mapped[bool | None]  # of a tenant: the owner's undertaking is there (OCC-02)
    care_marks: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    emergency_name: Mapped[str]
    emergency_phone: Mapped[str]
    payment_method: Mapped[str]
    # Of family: the membership of the owner or tenant whose household it is, and with which it ends.
    household_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("memberships.id"))
    # Of register rows that spoke of this membership by another person's record: they are passed over like its own row.
    former_digests: Mapped[list[bytes]] = mapped_column(ARRAY(sa.LargeBinary), default=list)

    def covers(self, day: date) -> bool:
        return (self.starts_on or date.min) <= day <= (self.ends_on or date.max)

    def overlaps(self, first: date | None, last: date | None) -> bool:
        """None: since ever, open."""
        return (self.starts_on or date.min) <= (last or date.max) and (first or date.min) <= (self.ends_on or date.max)

    def entry(self, zone: str, *, deleted: bool = False) -> pb.DirectoryEntry:
        """`zone` of the estate: a lease ends with the midnight that ends its last day there."""
        membership = pb.Membership(person_id=str(self.person_id), unit_id=str(self.unit_id), estate_id=str(self.estate_id), kind=self.kind)
        if self.starts_on:
            membership.start_time.CopyFrom(_stamp(midnight(self.starts_on, zone)))
        if self.ends_on:
            membership.end_time.CopyFrom(_stamp(midnight(self.ends_on + timedelta(days=1), zone)))
        return pb.DirectoryEntry(id=str(self.id), version=self.version, deleted=deleted, membership=membership)


def follow_zone(tx: Transaction, estate_id: UUID) -> list[Membership]:
    """The estate has another time zone: leases begin and end at other instants. Returns the memberships that changed."""
    tx.session.flush()
    tx.execute(
        "UPDATE memberships SET version = version + 1, updated_at = %s"
        " WHERE estate_id = %s AND (starts_on IS NOT NULL OR ends_on IS NOT NULL)",
        (tx.now, estate_id),
    )
    dated = sa.or_(Membership.starts_on.is_not(None), Membership.ends_on.is_not(None))
    found = sa.select(Membership).where(Membership.estate_id == estate_id, dated).execution_options(populate_existing=True)
    return list(tx.session.execute(found).scalars())


def midnight(day: date, zone: str) -> datetime:
    """The instant at which a day of the estate begins."""
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def _stamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
