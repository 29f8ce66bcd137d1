"""Parking spaces in use: one per household (PRK-02), rented by the month or the owner's own (X-28)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base
from services.residents.records import Record
from services.residents.tree import Unit


class ParkingSpace(Record, Base):
    """车位. A unique index keeps a household to one space that is in use."""

    __tablename__ = "parking_spaces"

    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    number: Mapped[str]
    unit_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Unit.id))
    plate: Mapped[str]
    kind: Mapped[str]  # OWNER_SPACE | MONTHLY_RENTAL
    monthly_fee: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))  # CNY
    ended_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
