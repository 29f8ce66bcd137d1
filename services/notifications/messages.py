"""A message: one thing one person was told. Written once, changed only by being read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.access import Principal
from services.chassis.db import Base, Transaction, new_id


class Message(Base):
    """Unique by (recipient, event, kind): even an event that comes again after its inbox row is gone tells nobody twice.

    The scope columns say which estate it is about; who sees it follows from `recipient` alone.
    """

    __tablename__ = "messages"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    recipient: Mapped[str]  # `staff/<id>` or `people/<id>`
    kind: Mapped[str]
    title: Mapped[str]
    body: Mapped[str]
    subject: Mapped[str]
    number: Mapped[str]
    urgent: Mapped[bool]
    skipped_roles: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    event_id: Mapped[UUID]
    occurred_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    read_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))

    @property
    def name(self) -> str:
        return f"messages/{self.id}"


_COLUMNS = (
    *("id", "group_id", "company_id", "estate_id", "recipient", "kind", "title", "body", "subject", "number", "urgent"),
    *("skipped_roles", "event_id", "occurred_at", "created_at"),
)
_INSERT = f"INSERT INTO messages ({', '.join(_COLUMNS)}) VALUES "
_ROW = f"({', '.join(['%s'] * len(_COLUMNS))})"


def deliver(tx: Transaction, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Puts messages into their inboxes, leaving out those that are there. Returns the kind of each that is new."""
    if not rows:
        return []
    values = [value for row in rows for value in map({"id": new_id(), "created_at": tx.now, **row}.__getitem__, _COLUMNS)]
    sql = f"{_INSERT}{','.join([_ROW] * len(rows))} ON CONFLICT DO NOTHING RETURNING kind"
    return [kind for (kind,) in tx.execute(sql, values)]


def inbox_of(principal: Principal) -> sa.ColumnElement[bool]:
    """The principal's own messages; row-level security says the same behind it."""
    return Message.recipient == str(principal)


def unread_of(principal: Principal) -> sa.ColumnElement[bool]:
    return sa.and_(inbox_of(principal), Message.read_at.is_(None))
