"""A service's event log as its relay sees it: the events to publish, their positions and their marks. Knows no broker."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg2

from services.chassis.topology import driver_url
from steward.chassis.v1 import events_pb2 as chassis_events

LOCK = 7003  # advisory, in each service's database: whoever holds it is the relay

# Row-level security hides from the planner how many rows there are, and rows change state within a second: left to itself it
# sorts the whole backlog for each batch (130 ms instead of 2). It is told to walk the partial indexes. The plans are made once
# for each connection: over the partitions of the log, planning costs as much as a small batch.
_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        *("steward.system=on", "steward.principal=system/relay", "statement_timeout=10s", "lock_timeout=5s"),
        *("enable_seqscan=off", "enable_bitmapscan=off", "enable_sort=off", "enable_hashjoin=off", "enable_mergejoin=off"),
        "plan_cache_mode=force_generic_plan",
    )
)
_SHARED_TYPES = frozenset(chassis_events.DESCRIPTOR.message_types_by_name)


@dataclass(slots=True, eq=False)
class Entry:
    """A row of the log on its way."""

    recorded_at: str  # RFC 3339 with microseconds; half of the row's key
    id: str
    aggregate_id: str
    sequence: int
    type: str
    body: dict[str, Any]
    position: int = 0
    refusals: int = 0
    returned: bool = False
    sent_at: float = 0.0

    def envelope(self, service: str) -> bytes:
        """The CloudEvents 1.0 JSON document."""
        package = "chassis" if self.type in _SHARED_TYPES else service
        fixed = {
            "specversion": "1.0",
            "id": self.id,
            "source": f"steward/{service}",
            "type": f"steward.{package}.v1.{self.type}",
            "datacontenttype": "application/json",
            "recordedtime": self.recorded_at,
            "sequence": self.sequence,
            "position": self.position,
            "aggregateid": self.aggregate_id,
        }
        return orjson.dumps({**fixed, **self.body})


class Log:
    """A service's event log, seen from its relay. Blocking; every method runs in the log's one thread."""

    def __init__(self, service: str, database_url: str):
        self.service = service
        self._url = driver_url(database_url)
        self._connection: Any = None
        self._last_position = 0
        self._recovered_to = 0
        self._recovering = True
        self.consumed: frozenset[str] = frozenset()

    def connect(self) -> None:
        """Raises psycopg2.Error."""
        self.close()
        self._connection = psycopg2.connect(
            self._url,
            application_name=f"steward-{self.service}-relay",
            connect_timeout=3,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=5000,
            options=_OPTIONS,
        )
        self._connection.autocommit = True
        self._execute(f"LISTEN steward_events; {_PREPARED}")

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def fileno(self) -> int:
        return self._connection.fileno()

    def heard(self) -> bool:
        """Takes in what the server sent by itself: whether somebody wrote events. Raises psycopg2.Error if the server is gone."""
        self._connection.poll()
        heard = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return heard

    def lead(self) -> bool:
        """Whether this connection holds the lock now; then the log is read from what a predecessor left."""
        if not self._execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))[0][0]:
            return False
        # Asked for apart: a snapshot taken before the lock was free could miss the predecessor's last positions.
        self._last_position = self._execute("SELECT last_position FROM relay_state")[0][0]
        self._recovered_to, self._recovering = 0, True
        return True

    def look(self) -> tuple[int, float]:
        """(events not published, age of the oldest in seconds); also reads anew which types must find a queue."""
        rows = self._execute(
            "SELECT (SELECT count(*) FROM (SELECT FROM events WHERE published_at IS NULL LIMIT 100000) AS unpublished),"
            " extract(epoch FROM clock_timestamp() - least("
            "  (SELECT recorded_at FROM events WHERE position IS NULL ORDER BY recorded_at LIMIT 1),"
            "  (SELECT recorded_at FROM events WHERE published_at IS NULL AND position IS NOT NULL ORDER BY position LIMIT 1))),"
            " consumed FROM relay_state"
        )
        pending, age, consumed = rows[0]
        self.consumed = frozenset(consumed)
        return pending, float(age or 0)

    def advance(self, confirmed: list[Entry], room: int) -> list[Entry]:
        """Marks what is confirmed and returns up to about `room` events that come next, in order, their positions committed.

        One round trip, and a second one when there are new events. On an exception the connection is to be given up, and the
        transaction and the lock with it.
        """
        with self._connection.cursor() as cursor:
            look = []
            if confirmed:
                look.append(cursor.mogrify(_MARK, ([entry.recorded_at for entry in confirmed], [entry.id for entry in confirmed])))
            if room and self._recovering:
                look.append(cursor.mogrify(_LEFT_OVER, (self._recovered_to, room)))
            elif room:
                look.append(cursor.mogrify(_NEW, (room,)))
            if look:
                cursor.execute(b";".join(look))
            if not room:
                return []
            found = [_entry(columns) for columns in cursor.fetchall()]
            if self._recovering and found:
                self._recovered_to = found[-1].position
            elif self._recovering:
                self._recovering = False
                return self.advance([], room)
            elif found:
                found = self._placed(cursor, in_sequence(self._closed(cursor, found) if len(found) == room else found))
            return found

    def _closed(self, cursor: Any, found: list[Entry]) -> list[Entry]:
        """Adds to a batch, behind which there may be more, earlier events of its aggregates that carry a later time."""
        last: dict[str, int] = {}
        for entry in found:
            last[entry.aggregate_id] = max(entry.sequence, last.get(entry.aggregate_id, 0))
        cursor.execute(_BEHIND, (list(last), list(last.values()), found[-1].recorded_at))
        known = {entry.id for entry in found}
        return found + [entry for entry in map(_entry, cursor.fetchall()) if entry.id not in known]

    def _placed(self, cursor: Any, found: list[Entry]) -> list[Entry]:
        """Gives events the next positions and commits them."""
        first = self._last_position + 1
        for position, entry in enumerate(found, first):
            entry.position = position
        keys = [entry.recorded_at for entry in found], [entry.id for entry in found], [entry.position for entry in found]
        cursor.execute(_PLACE, (found[-1].position, *keys))
        self._last_position = found[-1].position
        return found

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []


def in_sequence(entries: list[Entry]) -> list[Entry]:
    """The same entries with those of each aggregate in order of sequence, in the places the aggregate has.

    Times alone will not do: after a step of the clock a later event may carry an earlier time.
    """
    by_aggregate: dict[str, list[Entry]] = {}
    for entry in entries:
        by_aggregate.setdefault(entry.aggregate_id, []).append(entry)
    ordered = {aggregate: iter(sorted(mine, key=lambda e: e.sequence)) for aggregate, mine in by_aggregate.items()}
    return [next(ordered[entry.aggregate_id]) for entry in entries]


_TIME = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
_COLUMNS = (
    f"{_TIME.format('e.recorded_at')}, e.id::text, e.aggregate_id::text, e.sequence, e.type, e.position, e.aggregate, e.subject,"
    f" {_TIME.format('e.occurred_at')}, e.group_id::text, e.company_id::text, e.estate_id::text, e.actor, e.trace, e.data::text"
)
_ATTRIBUTES = ("aggregate", "subject", "time", "groupid", "companyid", "estateid", "actor", "traceparent")

_PREPARED = f"""
PREPARE mark (timestamptz[], uuid[]) AS
UPDATE events e SET published_at = clock_timestamp() FROM unnest($1, $2) AS done (recorded_at, id)
 WHERE e.recorded_at = done.recorded_at AND e.id = done.id;

PREPARE left_over (bigint, integer) AS
SELECT {_COLUMNS} FROM events e WHERE published_at IS NULL AND position > $1 ORDER BY position LIMIT $2;

PREPARE unplaced (integer) AS
SELECT {_COLUMNS} FROM events e WHERE position IS NULL ORDER BY e.recorded_at, e.aggregate_id, e.sequence LIMIT $1;

PREPARE place (timestamptz[], uuid[], bigint[]) AS
UPDATE events e SET position = placed.position FROM unnest($1, $2, $3) AS placed (recorded_at, id, position)
 WHERE e.recorded_at = placed.recorded_at AND e.id = placed.id;
"""
# Should a crash of the server lose marks, the events are published twice, which is allowed: they need not wait for the disk.
_MARK = "BEGIN; SET LOCAL synchronous_commit = off; EXECUTE mark (%s::timestamptz[], %s::uuid[]); COMMIT"
_LEFT_OVER = "EXECUTE left_over (%s, %s)"
_NEW = "EXECUTE unplaced (%s)"
_PLACE = "BEGIN; UPDATE relay_state SET last_position = %s; EXECUTE place (%s::timestamptz[], %s::uuid[], %s); COMMIT"
# The sub-select with OFFSET is looked up once for each aggregate; as a plain join the whole backlog is read.
_BEHIND = f"""SELECT e.* FROM unnest(%s::uuid[], %s::int[]) AS cut (aggregate_id, sequence), LATERAL (
SELECT {_COLUMNS} FROM events e WHERE e.aggregate_id = cut.aggregate_id AND e.sequence < cut.sequence
   AND coalesce(e.position, 0) = 0 AND e.recorded_at >= %s OFFSET 0) e"""


def _entry(columns: Any) -> Entry:
    recorded_at, identifier, aggregate_id, sequence, type, position, *values, data = columns
    body = {name: value for name, value in zip(_ATTRIBUTES, values, strict=True) if value is not None}
    return Entry(recorded_at, identifier, aggregate_id, sequence, type, {**body, "data": orjson.Fragment(data)}, position or 0)
