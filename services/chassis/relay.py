"""The role `relay`: carries each service's event log to the broker, at least once, in order per aggregate, losing nothing.

One relay per service is active; it holds a session advisory lock on the very connection that does all its database work, so
it stops being the relay in the moment the database says so. A standby asks for the lock every second. A cycle is

    1  one transaction: mark what the broker confirmed; give the next events their positions (no gaps, ever)
    2  publish, many at once, but of one aggregate only one at a time: the next goes when this one is confirmed
    3  confirms come in at any time and are marked by the next cycle; no transaction is open meanwhile

Why this loses nothing and keeps order: an event is published only after its position is committed, and marked only after its
confirm; whoever takes over starts with the lowest position that is not marked. So each relay's run through an aggregate is
without gaps and starts behind what is known to be at the broker: repeated runs, even of a relay that does not yet know that
it has lost the lock, make duplicates, but never a first delivery out of order. What the broker refuses holds back its own
aggregate only.

One asyncio loop drives all services of the process over one AMQP connection; each database has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
import pika
import psycopg2
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError
from prometheus_client import Counter, Gauge, Histogram

from services.chassis import observe
from services.chassis.settings import Settings
from services.chassis.topology import EVENTS, driver_url, parameters
from steward.chassis.v1 import events_pb2 as chassis_events

log = logging.getLogger(__name__)

LOCK = 7003  # advisory, in each service's database: whoever holds it is the relay
BATCH = 500  # events that get their positions in one transaction
WINDOW = 2_000  # events in hand that nothing holds back
PATIENCE = 20_000  # events in hand altogether; so many held back mean that the broker's topology is gone
MARK_AT = 250  # confirms that are marked at once; fewer wait LINGER
LINGER = 0.05  # s; meanwhile the next event may take the marks along
BUSY, IDLE = 0.05, 1.0  # s between looks at the log, when nobody says that there is something
RETRY_FIRST, RETRY_MOST = 0.2, 5.0  # s until a refused event is tried again
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 3.0  # s until a lost database or broker is tried again
STANDBY = 1.0  # s between asking for the lock
CONFIRM_WITHIN = 30.0  # s; a broker that neither confirms nor says that it is blocked is lost
DRAIN_WITHIN = 10.0  # s for outstanding confirms at SIGTERM
LOOK_EVERY = 5.0  # s between readings of the gauges

PENDING = Gauge("steward_relay_pending", "Events of the log that are not at the broker yet (counted up to 100,000).", ["service"])
LAG = Gauge("steward_relay_lag_seconds", "Age of the oldest event that is not at the broker yet.", ["service"])
HELD = Gauge("steward_relay_held", "Events that wait behind a refused one of their aggregate, or are refused.", ["service"])
ACTIVE = Gauge("steward_relay_active", "1 if this process is the service's relay, 0 if it stands by.", ["service"])
PUBLISHED = Counter("steward_relay_published_total", "Events confirmed by the broker.", ["service"])
REFUSED = Counter("steward_relay_refused_total", "Events the broker nacked, or returned for want of a queue.", ["service", "how"])
RESTARTS = Counter("steward_relay_restarts_total", "Times the relay started over because database or broker was lost.", ["service"])
CONFIRM_SECONDS = Histogram(
    "steward_relay_confirm_seconds",
    "From publishing to the broker's confirm.",
    ["service"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)

# Row-level security hides from the planner how many rows there are, and rows change state within a second: left to itself it
# sorts the whole backlog for each batch (130 ms instead of 2). It is told to walk the partial indexes.
_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        *("steward.system=on", "steward.principal=system/relay", "statement_timeout=10s", "lock_timeout=5s"),
        *("enable_seqscan=off", "enable_bitmapscan=off", "enable_sort=off", "enable_hashjoin=off", "enable_mergejoin=off"),
    )
)
_SHARED_TYPES = frozenset(chassis_events.DESCRIPTOR.message_types_by_name)


class Lost(Exception):
    """Database or broker is gone, or cannot be trusted any more: start over."""


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


class Lanes:
    """Which event may go: of each aggregate one at a time, the next when it is confirmed. Knows no broker."""

    def __init__(self, send: Callable[[Entry], None]):
        self._send = send
        self._lanes: dict[str, deque[Entry]] = {}  # aggregate → what waits behind the one that is out
        self._refused: set[str] = set()  # aggregates whose foremost event was refused
        self.size = 0
        self.held = 0  # of these, in lanes of refused ones, which count too

    def add(self, entry: Entry) -> None:
        """Events of one aggregate must come in order."""
        self.size += 1
        lane = self._lanes.get(entry.aggregate_id)
        if lane is None:
            self._lanes[entry.aggregate_id] = deque()
            self._send(entry)
        else:
            lane.append(entry)
            self.held += entry.aggregate_id in self._refused

    def confirmed(self, entry: Entry) -> None:
        """It is at the broker: the next of its aggregate goes."""
        self.size -= 1
        lane = self._lanes[entry.aggregate_id]
        if entry.aggregate_id in self._refused:
            self._refused.remove(entry.aggregate_id)
            self.held -= 1 + len(lane)
        if lane:
            self._send(lane.popleft())
        else:
            del self._lanes[entry.aggregate_id]

    def refused(self, entry: Entry) -> float:
        """It is not at the broker: its aggregate waits. Returns the seconds until it should be sent again."""
        entry.refusals += 1
        if entry.aggregate_id not in self._refused:
            self._refused.add(entry.aggregate_id)
            self.held += 1 + len(self._lanes[entry.aggregate_id])
        return min(RETRY_FIRST * 2.0 ** min(entry.refusals - 1, 10), RETRY_MOST)

    @property
    def room(self) -> int:
        """How many more events may be taken in hand now."""
        return max(0, min(BATCH, WINDOW - (self.size - self.held), PATIENCE - self.size))


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
        self._execute("LISTEN steward_events")

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

# Should a crash of the server lose marks, the events are published twice, which is allowed: they need not wait for the disk.
_MARK = """BEGIN; SET LOCAL synchronous_commit = off;
UPDATE events e SET published_at = clock_timestamp() FROM unnest(%s::timestamptz[], %s::uuid[]) AS done (recorded_at, id)
 WHERE e.recorded_at = done.recorded_at AND e.id = done.id;
COMMIT"""
_LEFT_OVER = f"SELECT {_COLUMNS} FROM events e WHERE published_at IS NULL AND position > %s ORDER BY position LIMIT %s"
_NEW = f"SELECT {_COLUMNS} FROM events e WHERE position IS NULL ORDER BY e.recorded_at, e.aggregate_id, e.sequence LIMIT %s"
# The sub-select with OFFSET is looked up once for each aggregate; as a plain join the whole backlog is read.
_BEHIND = f"""SELECT e.* FROM unnest(%s::uuid[], %s::int[]) AS cut (aggregate_id, sequence), LATERAL (
SELECT {_COLUMNS} FROM events e WHERE e.aggregate_id = cut.aggregate_id AND e.sequence < cut.sequence
   AND coalesce(e.position, 0) = 0 AND e.recorded_at >= %s OFFSET 0) e"""
_PLACE = """BEGIN; UPDATE relay_state SET last_position = %s;
UPDATE events e SET position = placed.position FROM unnest(%s::timestamptz[], %s::uuid[], %s::bigint[]) AS placed (recorded_at, id, position)
 WHERE e.recorded_at = placed.recorded_at AND e.id = placed.id;
COMMIT"""


def _entry(columns: Any) -> Entry:
    recorded_at, identifier, aggregate_id, sequence, type, position, *values, data = columns
    body = {name: value for name, value in zip(_ATTRIBUTES, values, strict=True) if value is not None}
    return Entry(recorded_at, identifier, aggregate_id, sequence, type, {**body, "data": orjson.Fragment(data)}, position or 0)


class Broker:
    """The process's AMQP connection, opened anew when somebody needs a channel and it is gone."""

    def __init__(self, amqp_url: str):
        self._parameters = parameters(amqp_url)
        self._connection: AsyncioConnection | None = None
        self._opening = asyncio.Lock()
        self._closed: asyncio.Future[object] = asyncio.get_running_loop().create_future()  # why the connection ended
        self.blocked = False  # the broker has asked to wait: its memory or disk alarm is on

    async def channel(self) -> Channel:
        """A new channel. Raises Lost."""
        async with self._opening:
            connection = self._connection
            if connection is None or not connection.is_open:
                connection = await self._connect()
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        connection.channel(on_open_callback=opened.set_result)
        return await self._answer(opened)

    async def confirming(self, channel: Channel, answer: Callable[[Any], None]) -> None:
        """Puts a channel into confirm mode; `answer` gets the acks and nacks. Raises Lost."""
        confirming: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        channel.confirm_delivery(answer, callback=confirming.set_result)
        await self._answer(confirming)

    async def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            await asyncio.wait([self._closed], timeout=2)

    async def _connect(self) -> AsyncioConnection:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[object] = loop.create_future()
        closed = self._closed = loop.create_future()
        self.blocked = False

        def end(connection: object, reason: object) -> None:
            if not closed.done():
                closed.set_result(reason)

        self._connection = connection = AsyncioConnection(
            self._parameters,
            on_open_callback=opened.set_result,
            on_open_error_callback=end,
            on_close_callback=end,
            custom_ioloop=loop,
        )
        connection.add_on_connection_blocked_callback(lambda connection, method: self._block(True))
        connection.add_on_connection_unblocked_callback(lambda connection, method: self._block(False))
        await self._answer(opened)
        return connection

    def _block(self, blocked: bool) -> None:
        self.blocked = blocked
        log.warning("the broker %s", "is short of memory or disk and takes nothing" if blocked else "takes messages again")

    async def _answer(self, future: asyncio.Future[Any]) -> Any:
        """The future's result, unless the connection ends first or ten seconds pass. Raises Lost."""
        await asyncio.wait([future, self._closed], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise Lost(f"broker: {self._closed.result()!r}" if self._closed.done() else "broker: no answer for 10 s")
        return future.result()


class Outgoing:
    """One relay's way to the broker: a channel in confirm mode and what is out on it."""

    def __init__(self, service: str, broker: Broker, mandatory: Callable[[str], bool], done: Callable[[Entry, str], None]):
        self._service, self._broker, self._mandatory, self._done = service, broker, mandatory, done
        self._channel: Channel | None = None
        self._tag = 0
        self.out: dict[int, Entry] = {}  # delivery tag → entry, oldest first
        self.ended = ""  # why nothing goes out any more

    async def open(self) -> None:
        """Raises Lost."""
        self._channel = channel = await self._broker.channel()
        channel.add_on_close_callback(lambda channel, reason: self.end(f"channel: {reason!r}"))
        channel.add_on_return_callback(self._returned)
        await self._broker.confirming(channel, self._answered)

    def send(self, entry: Entry) -> None:
        """Publishes, unless this way has ended; `done` will be told "" or why it was refused."""
        if self.ended or self._channel is None or not self._channel.is_open:
            return
        self._tag += 1
        entry.returned, entry.sent_at = False, time.monotonic()
        self.out[self._tag] = entry
        self._channel.basic_publish(
            EVENTS,
            f"{self._service}.{entry.type}",
            entry.envelope(self._service),
            pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2, message_id=entry.id),
            mandatory=self._mandatory(entry.type),
        )

    def end(self, why: str) -> None:
        """Nothing goes out any more; late answers are not heard."""
        self.ended = self.ended or why
        if self._channel is not None and self._channel.is_open:
            self._channel.close()

    def overdue(self) -> bool:
        oldest = next(iter(self.out.values()), None)
        return oldest is not None and not self._broker.blocked and time.monotonic() - oldest.sent_at > CONFIRM_WITHIN

    def _returned(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        """Comes before the confirm of the same message."""
        for entry in self.out.values():
            if entry.id == properties.message_id:
                entry.returned = True

    def _answered(self, frame: Any) -> None:
        if self.ended:
            return
        tag, nacked = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Nack)
        tags = list(itertools.takewhile(lambda known: known <= tag, self.out)) if frame.method.multiple else [tag]
        for entry in [self.out.pop(known) for known in tags]:
            self._done(entry, "nacked" if nacked else "returned" if entry.returned else "")


class Relay:
    """The relay of one service. `trouble` says what it lacks; a standby lacks nothing."""

    def __init__(self, service: str, database_url: str, broker: Broker):
        self.service = service
        self.trouble = "starting"
        self.active = False
        self._log = Log(service, database_url)
        self._broker = broker
        self._thread = ThreadPoolExecutor(1, f"relay-{service}")
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._confirmed: list[Entry] = []
        self._lingering: asyncio.TimerHandle | None = None
        self._outgoing: Outgoing | None = None
        self._descriptor = -1
        self._lanes = Lanes(lambda entry: None)
        self._backoff = BACKOFF_FIRST
        self._published, self._confirm_seconds = PUBLISHED.labels(service), CONFIRM_SECONDS.labels(service)

    def stop(self) -> None:
        """Takes no more events in hand, waits for what is out, marks it and ends."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._in_thread(self._log.connect)
                while not await self._work(self._log.lead) and not self._stopping.is_set():
                    self.trouble = ""
                    await self._rest(STANDBY)
                if not self._stopping.is_set():
                    await self._lead()
            except Exception as error:
                known = isinstance(error, Lost | psycopg2.OperationalError | psycopg2.InterfaceError | AMQPError | OSError)
                self.trouble = f"{type(error).__name__}: {error}".strip()
                log.warning("%s: %s; again in %.1f s", self.service, self.trouble, self._backoff, exc_info=None if known else error)
                RESTARTS.labels(self.service).inc()
                await self._rest(self._backoff)
                self._backoff = min(self._backoff * 1.5, BACKOFF_MOST)
            finally:
                self._unlisten()
                await self._in_thread(self._log.close)
        self._thread.shutdown()

    async def _lead(self) -> None:
        """The service's relay until told to stop. Raises Lost, psycopg2.Error, AMQPError."""
        outgoing = self._outgoing = Outgoing(self.service, self._broker, lambda type: type in self._log.consumed, self._done)
        self._lanes, self._confirmed = Lanes(outgoing.send), []
        try:
            await outgoing.open()
            log.info("%s: this is the relay now", self.service)
            self.active = True
            await self._look()
            await self._cycles(outgoing)
        finally:
            outgoing.end("the relay stopped")
            self.active = False
            ACTIVE.labels(self.service).set(0)
            for gauge in (PENDING, LAG, HELD):
                with contextlib.suppress(KeyError):
                    gauge.remove(self.service)
            self._unlisten()
            with contextlib.suppress(psycopg2.Error):  # unmarked, they are published again
                await self._in_thread(self._log.advance, self._confirmed, 0)

    async def _cycles(self, outgoing: Outgoing) -> None:
        pause, look_at, drained_by = BUSY, time.monotonic() + LOOK_EVERY, 0.0
        while True:
            if outgoing.ended or outgoing.overdue():
                raise Lost(outgoing.ended or f"broker: no confirm for {CONFIRM_WITHIN:.0f} s")
            if self._stopping.is_set():
                drained_by = drained_by or time.monotonic() + DRAIN_WITHIN
                if not outgoing.out or time.monotonic() > drained_by:
                    return
                await self._pause(0.02)
                continue
            confirmed, self._confirmed = self._confirmed, []
            room = self._lanes.room
            found = await self._work(self._log.advance, confirmed, room)
            for entry in found:
                self._lanes.add(entry)
            self.trouble, self._backoff = "", BACKOFF_FIRST
            if time.monotonic() > look_at:
                await self._look()
                look_at = time.monotonic() + LOOK_EVERY
            if found and len(found) >= room:
                await asyncio.sleep(0)  # there is more; the broker's answers have their turn in between
                continue
            pause = BUSY if found else min(pause * 2, IDLE)
            await self._pause(pause)

    async def _look(self) -> None:
        pending, age = await self._work(self._log.look)
        ACTIVE.labels(self.service).set(1)
        PENDING.labels(self.service).set(pending)
        LAG.labels(self.service).set(age)
        HELD.labels(self.service).set(self._lanes.held)

    def _done(self, entry: Entry, refusal: str) -> None:
        if refusal:
            REFUSED.labels(self.service, refusal).inc()
            again_in = self._lanes.refused(entry)
            if entry.refusals == 1:
                log.warning("%s: the broker %s %s %s; its case waits", self.service, refusal, entry.type, entry.id)
            if self._outgoing is not None:
                asyncio.get_running_loop().call_later(again_in, self._again, self._outgoing, entry)
            return
        self._published.inc()
        self._confirm_seconds.observe(time.monotonic() - entry.sent_at)
        self._confirmed.append(entry)
        if not self._stopping.is_set():
            self._lanes.confirmed(entry)
        if len(self._confirmed) >= MARK_AT:
            self._wake.set()
        elif self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER, self._lingered)

    def _again(self, outgoing: Outgoing, entry: Entry) -> None:
        if not self._stopping.is_set():
            outgoing.send(entry)

    def _lingered(self) -> None:
        self._lingering = None
        self._wake.set()

    async def _rest(self, seconds: float) -> None:
        """Waits, whatever happens but the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _pause(self, seconds: float) -> None:
        """Waits until there is something to do, or so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()

    async def _work(self, function: Callable[..., Any], *values: Any) -> Any:
        """Runs a method of the log in its thread. Between two of them the connection is listened to: a NOTIFY, or its end."""
        self._unlisten()
        result = await self._in_thread(function, *values)
        self._descriptor = self._log.fileno()
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
        self._readable()
        return result

    def _unlisten(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        try:
            if self._log.heard():
                self._wake.set()
        except psycopg2.Error as error:
            self._unlisten()
            if self._outgoing is not None:
                self._outgoing.end(f"database: {error}".strip())
            self._wake.set()

    async def _in_thread(self, function: Callable[..., Any], *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *values)


def run(services: list[str], settings: Settings) -> int:
    """The process: relays until SIGTERM, then lets what is out be confirmed."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it prints a traceback for every attempt to connect
    return asyncio.run(_run(services, settings))


async def _run(services: list[str], settings: Settings) -> int:
    broker = Broker(settings.amqp_url)
    relays = [Relay(service, settings.database(service), broker) for service in services]

    def stop() -> None:
        for relay in relays:
            relay.stop()

    def why_not_ready() -> str:
        return "; ".join(f"{relay.service}: {relay.trouble}" for relay in relays if relay.trouble)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    observe.serve(settings.http_port, settings.bind, why_not_ready)
    log.info("relay of %s", ", ".join(services))
    await asyncio.gather(*(relay.run() for relay in relays))
    await broker.close()
    return 0
