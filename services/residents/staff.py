"""Staff and their posts. A post is a role (ORG-09) at a node of the tree, from–to; who leaves loses all of them at once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base
from services.chassis.names import stamp
from services.residents.records import Record
from steward.residents.v1 import directory_pb2 as pb


class Staff(Record, Base):
    """员工. Group, company and estate are those of the workplace; `number` is unique everywhere, people sign in with it."""

    __tablename__ = "staff"

    company_id: Mapped[UUID | None]
    estate_id: Mapped[UUID | None]
    number: Mapped[str]
    name: Mapped[str]
    title: Mapped[str]  # 岗位 as the register calls it
    phone: Mapped[str]
    email: Mapped[str]
    state: Mapped[str]  # ACTIVE | ON_LEAVE | LEFT; the column `active` of the table follows it
    intake_trained: Mapped[bool] = mapped_column(default=False)  # may be put on the intake roster (REP-36)
    retired_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))  # what he had in hand was handed over


class Post(Record, Base):
    """A role at a node. Those of the register end when the register no longer has them; appointed ones do not."""

    __tablename__ = "posts"

    company_id: Mapped[UUID | None]
    estate_id: Mapped[UUID | None]
    staff_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Staff.id))
    role: Mapped[str]  # name in steward.options.v1.Role
    node_id: Mapped[UUID]
    starts_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    ends_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    from_register: Mapped[bool]

    def entry(self) -> pb.DirectoryEntry:
        post = pb.Post(
            staff_id=str(self.staff_id),
            role=self.role,
            node_id=str(self.node_id),
            start_time=stamp(self.starts_at),
            end_time=stamp(self.ends_at),
        )
        return pb.DirectoryEntry(id=str(self.id), version=self.version, post=post)
