"""What the tests of notifications share: events as they arrive, and a look into every inbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from google.protobuf import message as protobuf

from services.chassis import directory, reactions, testing
from services.chassis.db import Database
from services.chassis.testing import Caller, Tree
from services.notifications.messages import Message
from steward.chassis.v1 import events_pb2 as clock_events
from steward.residents.v1 import directory_pb2
from steward.work_orders.v1 import events_pb2 as repair_events
from steward.work_orders.v1.repairs_pb2 import Repair

NUMBER = "WX-20261122-0007"
AT = datetime(2026, 11, 22, 3, 10, tzinfo=UTC)
LADDER = ("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER", "MANAGEMENT_DEPT_MANAGER", "GENERAL_MANAGER")


def reported(tree: Tree, **fields: Any) -> repair_events.RepairReported:
    """A burst pipe that its household reported, unless `fields` say otherwise."""
    unit, category = str(tree.units[tree.unit]), Repair.BURST_PIPE
    return repair_events.RepairReported(**{"number": NUMBER, "unit_id": unit, "category": category, "reporter": tree.owner.name, **fields})


def reading(**fields: Any) -> clock_events.ClockReading:
    """A clock of an order that nobody has, unless `fields` say otherwise."""
    return clock_events.ClockReading(
        **{"clock": "on_site", "aggregate": "repair", "number": NUMBER, "target_seconds": 1800, "ladder": LADDER, **fields}
    )


def breached(**fields: Any) -> clock_events.ClockBreached:
    return clock_events.ClockBreached(clock=reading(**fields))


def escalated(rung: int, **fields: Any) -> clock_events.ClockEscalated:
    return clock_events.ClockEscalated(clock=reading(**fields), rung=rung, role=LADDER[rung - 1])


@dataclass(frozen=True)
class Inboxes:
    """The service as a whole: events in, inboxes out."""

    database: Database

    def event(
        self, message: protobuf.Message, tree: Tree, *, id: UUID | None = None, at: datetime = AT, subject: str = ""
    ) -> tuple[UUID, bytes]:
        """(id, body) of an event of work_orders."""
        event_id = id or uuid4()
        subject = subject or f"{tree.parent}/repairs/{uuid4()}"
        return event_id, testing.event_body(message, source="work_orders", tree=tree, id=event_id, at=at, subject=subject)

    def arrives(self, body: bytes) -> reactions.Outcome:
        return reactions.handle(self.database, "notifications", body)

    def happens(self, message: protobuf.Message, tree: Tree, **options: Any) -> dict[str, str]:
        """The event arrives; who was told of it, and by which kind."""
        event_id, body = self.event(message, tree, **options)
        self.arrives(body)
        return {recipient: row["kind"] for recipient, row in self.told_of(event_id).items()}

    def told_of(self, event_id: UUID) -> dict[str, dict[str, Any]]:
        """recipient → message, of one event."""
        rows = self._rows(Message.event_id == event_id)
        told = {row["recipient"]: row for row in rows}
        assert len(told) == len(rows), "somebody was told twice of one event"
        return told

    def of(self, who: Caller) -> list[dict[str, Any]]:
        """An inbox, newest happening first."""
        return self._rows(Message.recipient == who.name)

    def estate(self, tree: Tree) -> set[tuple[str, str, str, str, str]]:
        """Everything anybody was told about an estate, without what depends on when it arrived."""
        return {(r["recipient"], r["event_id"], r["kind"], r["title"], r["body"]) for r in self._rows(Message.estate_id == tree.estate_id)}

    def vacate(self, tree: Tree, *roles: str) -> None:
        """Nobody of this tree holds these roles any more."""
        with self.database.transaction() as tx:
            for role in roles:
                node = tree.node_of(role)[1]
                tx.execute("UPDATE dir_posts SET deleted = true, version = version + 1 WHERE role = %s AND node_id = %s", (role, node))

    def post(self, who: Caller, role: str, node: UUID, *, ended: datetime | None = None) -> None:
        """Gives somebody a post, which may have ended."""
        post = directory_pb2.Post(staff_id=str(who.id), role=role, node_id=str(node))  # type: ignore[arg-type]
        if ended:
            post.end_time.FromDatetime(ended)
        with self.database.transaction() as tx:
            directory.apply(tx, [directory_pb2.DirectoryEntry(id=str(uuid4()), version=1, post=post)])

    def _rows(self, where: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
        query = sa.select(sa.func.to_jsonb(sa.literal_column("messages"))).select_from(Message).where(where)
        with self.database.read() as tx:
            return list(tx.session.execute(query.order_by(Message.occurred_at.desc(), Message.id.desc())).scalars())


def a_story(tree: Tree) -> list[protobuf.Message]:
    """One order from report to acceptance, with a limit missed and a rework."""
    technician, owner = tree.technician.name, tree.owner.name
    pickup = {"clock": "pickup", "target_seconds": 900, "urgent": True}
    return [
        reported(tree, urgent=True),
        clock_events.ClockWarned(clock=reading(**pickup)),
        breached(**pickup),
        escalated(2, **pickup),
        repair_events.RepairDispatched(number=NUMBER, technician=technician, urgent=True),
        repair_events.RepairTaken(number=NUMBER, technician=technician, reporter=owner),
        repair_events.RepairCompleted(number=NUMBER, technician=technician, reporter=owner, unit_id=str(tree.units[tree.unit])),
        repair_events.RepairRejected(number=NUMBER, technician=technician, reporter=owner, rework_count=1),
        repair_events.RepairAccepted(number=NUMBER, technician=technician, reporter=owner),
    ]


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)
