"""One function per RPC of notifications: a person reads his own inbox, and only his."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.errors import NotFound
from services.chassis.names import instant, last, stamp
from services.notifications.messages import Message, inbox_of, unread_of
from steward.notifications.v1 import messages_pb2 as pb

COUNTED = 1000  # a badge needs no more, and a person who was away for years costs no more
MARKED = 1000


def list_messages(request: pb.ListMessagesRequest, tx: Transaction) -> pb.ListMessagesResponse:
    mine = unread_of(tx.principal) if request.unread_only else inbox_of(tx.principal)
    found, token = tx.page(sa.select(Message), Message, request, (Message.occurred_at, Message.id), within=mine)
    return pb.ListMessagesResponse(messages=[message(m) for m in found], next_page_token=token)


def count_unread_messages(request: pb.CountUnreadMessagesRequest, tx: Transaction) -> pb.CountUnreadMessagesResponse:
    unread, urgent = _unread(tx)
    return pb.CountUnreadMessagesResponse(unread_count=unread, urgent_count=urgent)


def mark_message_read(request: pb.MarkMessageReadRequest, tx: Transaction) -> pb.Message:
    found = _own(tx, last(request.name))
    tx.check_input()
    if found.read_at is None:
        found.read_at = tx.now
    return message(found)


def mark_all_messages_read(request: pb.MarkAllMessagesReadRequest, tx: Transaction) -> pb.MarkAllMessagesReadResponse:
    shown = sa.select(Message.id).where(unread_of(tx.principal)).order_by(Message.occurred_at, Message.id).limit(MARKED)
    if until := instant(request, "until_time"):
        shown = shown.where(Message.created_at <= until)
    marked = tx.session.execute(
        sa.update(Message)
        .where(Message.id.in_(shown.with_for_update()), unread_of(tx.principal))
        .values(read_at=tx.now)
        .returning(Message.id)
        .execution_options(synchronize_session=False)
    ).all()
    return pb.MarkAllMessagesReadResponse(marked_count=len(marked), unread_count=_unread(tx)[0])


def message(found: Message) -> pb.Message:
    """The resource as its recipient sees it."""
    return pb.Message(
        name=found.name,
        kind=found.kind,
        title=found.title,
        body=found.body,
        subject=found.subject,
        number=found.number,
        urgent=found.urgent,
        skipped_roles=found.skipped_roles,
        event_time=stamp(found.occurred_at),
        create_time=stamp(found.created_at),
        read_time=stamp(found.read_at),
    )


def _own(tx: Transaction, identifier: str) -> Message:
    """The caller's message, locked. Somebody else's does not exist for him. Raises NotFound."""
    try:
        key = UUID(identifier)
    except ValueError:
        key = None
    query = sa.select(Message).where(Message.id == key, inbox_of(tx.principal)).with_for_update()
    found = tx.session.execute(query).scalar_one_or_none() if key else None
    if found is None:
        raise NotFound("there is no such message in your inbox", reason="MESSAGE_NOT_FOUND")
    return found


def _unread(tx: Transaction) -> tuple[int, int]:
    """(unread, urgent ones of them), counted up to COUNTED."""
    newest = sa.select(Message.urgent).where(unread_of(tx.principal)).order_by(Message.occurred_at.desc(), Message.id.desc()).limit(COUNTED)
    counted = newest.subquery()
    row = tx.session.execute(sa.select(sa.func.count(), sa.func.count().filter(counted.c.urgent)).select_from(counted)).one()
    return row[0], row[1]
