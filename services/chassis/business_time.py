"""Moved time, in the development profile: what the gateway asks of every service while it walks time forward.

Business time is machine time plus `shifted_by`, one row in each database, read at the beginning of every transaction; so all
processes of a service see a shift at once, and it stays with the data. It only ever moves forward.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from services.chassis import clocks, duties
from services.chassis.db import Database, Transaction
from services.chassis.errors import InvalidInput, NotFound, Violation
from services.chassis.names import instant, stamp
from services.chassis.reactions import reactions_of
from steward.chassis.v1 import business_time_pb2 as pb

EPOCH_EVENTS = 5000  # events of one walk that are looked at
FARTHEST = timedelta(days=800)  # of one shift; the gateway walks half of it at most


class Walk:
    """The functions of the gRPC service BusinessTime, for the databases of one process."""

    def __init__(self, databases: dict[str, Database]):
        self._databases = databases

    def _database(self, service: str) -> Database:
        if service not in self._databases:
            raise NotFound(f"this process does not serve {service}", reason="NOT_SERVED_HERE")
        return self._databases[service]

    def get_business_time(self, request: pb.GetBusinessTimeRequest, _: Transaction | None) -> pb.BusinessTimeState:
        since = instant(request, "events_since")
        duties.plan(self._database(request.service))  # of an estate that has just come too, or time would be moved past its duties
        with self._database(request.service).read() as tx:
            mark = tx.execute("SELECT min(next_at) FROM clocks WHERE next_at IS NOT NULL")[0][0]
            due = min((at for at in (mark, duties.next_instant(tx)) if at is not None), default=None)
            waiting = tx.execute("SELECT count(*) FROM events WHERE position IS NULL OR published_at IS NULL")[0][0]
            working = tx.execute("SELECT count(*) FROM operations WHERE state IN ('QUEUED', 'RUNNING')")[0][0]
            state = pb.BusinessTimeState(now=stamp(tx.now), next_due=stamp(due), unpublished=waiting, operations=working)
            if since is not None:
                rows = tx.execute(
                    "SELECT id, type, subject, occurred_at, coalesce(data -> 'clock' ->> 'clock', '') FROM events WHERE recorded_at >= %s"
                    " ORDER BY recorded_at LIMIT %s",
                    (since, EPOCH_EVENTS),
                )
                for identifier, kind, subject, at, clock in rows:
                    state.events.add(
                        id=str(identifier), source=request.service, type=kind, subject=subject, occurred_at=stamp(at), clock=clock
                    )
        return state

    def shift_business_time(self, request: pb.ShiftBusinessTimeRequest, _: Transaction | None) -> pb.ShiftBusinessTimeResponse:
        database, to = self._database(request.service), instant(request, "to")
        with database.transaction() as tx:
            if to is None or to > tx.now + FARTHEST:
                raise InvalidInput("time is not moved so far", violations=[Violation("to", f"must lie {FARTHEST.days} days ahead at most")])
            tx.execute("UPDATE business_time SET shifted_by = greatest(shifted_by, %s - clock_timestamp())", (to,))
        fired = duties.run_duties(database)
        return pb.ShiftBusinessTimeResponse(fired=fired + clocks.run_clocks(database))

    def list_unhandled(self, request: pb.ListUnhandledRequest, _: Transaction | None) -> pb.ListUnhandledResponse:
        table = reactions_of(request.service).by_event
        try:
            wanted = {(reaction.name, UUID(event.id)) for event in request.events for reaction in table.get((event.source, event.type), ())}
        except ValueError:
            raise InvalidInput("an event has no id", violations=[Violation("events.id", "must be a UUID")]) from None
        with self._database(request.service).read() as tx:
            ids = [identifier for _, identifier in wanted]
            done = set(tx.execute("SELECT reaction, event_id FROM inbox WHERE event_id = ANY(%s)", (ids,)))
            dead = {row[0] for row in tx.execute("SELECT event_id FROM dead_letters WHERE event_id = ANY(%s)", (ids,))}
        return pb.ListUnhandledResponse(unhandled=sorted(f"{name} {event}" for name, event in wanted - done if event not in dead))
