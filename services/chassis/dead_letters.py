"""Messages that no reaction could handle, kept in the consuming service's own database until somebody has looked at them.

A row says where the message came from, why and how often it failed. Replaying puts it back into its queue; the inbox keeps
the reactions that did succeed from having their effect again. A message that dies again opens its row again.

    python -m services.chassis dead-letters list notifications
    python -m services.chassis dead-letters show notifications 0193…
    python -m services.chassis dead-letters replay notifications 0193…      (or --all)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO
from uuid import UUID

from services.chassis.db import Database
from services.chassis.reactions import glance
from services.chassis.settings import settings

CONTENT_TYPE = "application/cloudevents+json"
_FIELDS = "id, queue, event_id, type, subject, body, error, attempts, reaction, first_failed_at, died_at, replayed_at"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: UUID
    queue: str  # `notifications.events`: where it is replayed to
    event_id: UUID | None  # None: the body is no event
    type: str  # `work_orders.RepairReported`
    subject: str
    body: bytes
    error: str
    attempts: int
    reaction: str | None  # those that failed, comma separated; None when it never came so far
    first_failed_at: datetime
    died_at: datetime
    replayed_at: datetime | None


def bury(
    database: Database, queue: str, body: bytes, *, error: str, attempts: int, reaction: str | None, first_failed_at: datetime | None
) -> UUID:
    """Keeps a message that died. The same message of the same queue has one row, however often it is delivered or dies.

    Raises Unavailable when the database does not answer.
    """
    identifier = UUID(bytes=hashlib.sha256(queue.encode() + b"\0" + body).digest()[:16], version=5)
    event_id, type, subject = glance(body)
    died_at = datetime.now(UTC)
    with database.transaction() as tx:
        tx.execute(
            f"INSERT INTO dead_letters ({_FIELDS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, NULL)"
            " ON CONFLICT (id) DO UPDATE SET error = EXCLUDED.error, attempts = EXCLUDED.attempts, reaction = EXCLUDED.reaction,"
            " died_at = EXCLUDED.died_at, replayed_at = NULL",
            (identifier, queue, event_id, type, subject, body, error[:4000], attempts, reaction, first_failed_at or died_at, died_at),
        )
    return identifier


def listed(database: Database, *, replayed: bool = False, limit: int = 1000) -> list[DeadLetter]:
    """The oldest dead letters first; those that were replayed only if asked for."""
    with database.read() as tx:
        rows = tx.execute(
            f"SELECT {_FIELDS} FROM dead_letters WHERE replayed_at IS NULL OR %s ORDER BY died_at, id LIMIT %s", (replayed, limit)
        )
    return [_letter(row) for row in rows]


def found(database: Database, identifier: UUID) -> DeadLetter | None:
    with database.read() as tx:
        rows = tx.execute(f"SELECT {_FIELDS} FROM dead_letters WHERE id = %s", (identifier,))
    return _letter(rows[0]) if rows else None


def replay(database: Database, amqp_url: str, letters: Iterable[DeadLetter]) -> int:
    """Puts messages back into the queues they came from; each is marked once the broker has confirmed it. Returns how many.

    Raises pika.exceptions.UnroutableError when a queue is gone, NackError when the broker refuses, AMQPConnectionError when it
    does not answer; letters before the failing one are marked, it and the rest are not.
    """
    import pika  # not by the worker, which only buries

    from services.chassis.topology import parameters

    count = 0
    connection = pika.BlockingConnection(parameters(amqp_url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for letter in letters:
            properties = pika.BasicProperties(content_type=CONTENT_TYPE, delivery_mode=2, message_id=str(letter.event_id or letter.id))
            channel.basic_publish("", letter.queue, letter.body, properties, mandatory=True)
            with database.transaction() as tx:
                # Not if it has died again meanwhile: that is a newer letter in the same row.
                tx.execute(
                    "UPDATE dead_letters SET replayed_at = clock_timestamp() WHERE id = %s AND died_at = %s", (letter.id, letter.died_at)
                )
            count += 1
    finally:
        if connection.is_open:
            connection.close()
    return count


def main(arguments: list[str], out: TextIO = sys.stdout) -> int:
    """The command line. Returns 0, or 1 when there is no such letter."""
    parser = argparse.ArgumentParser(prog="python -m services.chassis dead-letters", description="What could not be handled.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in (("list", "one line each, oldest first"), ("show", "everything about one"), ("replay", "back into their queues")):
        command = commands.add_parser(name, help=says)
        command.add_argument("service")
        if name == "list":
            command.add_argument("--replayed", action="store_true", help="those that were replayed too")
        else:
            command.add_argument("id", type=UUID, nargs="?" if name == "replay" else None)
        if name == "replay":
            command.add_argument("--all", action="store_true", help="every letter that was not replayed yet")
    options = parser.parse_args(arguments)
    if options.command == "replay" and bool(options.id) == options.all:
        parser.error("replay needs either an id or --all")

    database = Database(options.service, pool_size=1)
    try:
        if options.command == "list":
            for letter in listed(database, replayed=options.replayed):
                print(_line(letter), file=out)
            return 0
        letters = listed(database) if options.command == "replay" and options.all else _one(database, options.id)
        if options.command == "replay":
            print(f"replayed {replay(database, settings().amqp_url, letters)}", file=out)
            return 0 if letters or options.all else 1
        for letter in letters:
            print(_page(letter), file=out)
        return 0 if letters else 1
    finally:
        database.dispose()


def _one(database: Database, identifier: UUID) -> list[DeadLetter]:
    letter = found(database, identifier)
    if letter is None:
        sys.stderr.write(f"{database.service} has no dead letter {identifier}\n")
    return [letter] if letter else []


def _letter(row: tuple) -> DeadLetter:
    identifier, queue, event_id, type, subject, body, *rest = row
    return DeadLetter(identifier, queue, event_id, type, subject, bytes(body), *rest)


def _line(letter: DeadLetter) -> str:
    state = "replayed" if letter.replayed_at else "dead"
    when, error = f"{letter.died_at:%Y-%m-%d %H:%M:%S}", " ".join(letter.error.split())[:100]
    return "  ".join([str(letter.id), when, state, letter.type, letter.subject or "-", f"attempts={letter.attempts}", error])


def _page(letter: DeadLetter) -> str:
    try:
        body = json.dumps(json.loads(letter.body), ensure_ascii=False, indent=2)
    except ValueError:
        body = repr(letter.body)
    lines = [f"{name:16}{getattr(letter, name)}" for name in DeadLetter.__slots__ if name != "body"]
    return "\n".join([*lines, "", body])
