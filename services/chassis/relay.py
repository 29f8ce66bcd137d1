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

Under load a cycle takes what has come in a BEAT: small ones cost as much as large ones, here, in the broker and in the workers.

One asyncio loop drives all services of the process over one AMQP connection; each database has a thread of its own. `event_log`
is the way to the database, `broker` the way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
from pika.exceptions import AMQPError
from prometheus_client import Counter, Gauge, Histogram

from services.chassis import observe
from services.chassis.broker import CONFIRM_WITHIN, Broker, Lost, Outgoing
from services.chassis.event_log import Entry, Log
from services.chassis.settings import Settings

log = logging.getLogger(__name__)

BATCH = 500  # events that get their positions in one transaction
WINDOW = 2_000  # events in hand that nothing holds back
PATIENCE = 20_000  # events in hand altogether; so many held back mean that the broker's topology is gone
BEAT = 0.04  # s from one batch to the next: what comes meanwhile goes together, what comes after a rest at once
MARK_AT = 250  # confirms that are marked at once; fewer wait LINGER
LINGER = 0.05  # s; meanwhile the next event may take the marks along
BUSY, IDLE = 0.05, 1.0  # s between looks at the log, when nobody says that there is something
RETRY_FIRST, RETRY_MOST = 0.2, 5.0  # s until a refused event is tried again
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 3.0  # s until a lost database or broker is tried again
STANDBY = 1.0  # s between asking for the lock
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
            began = time.monotonic()
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
            if found:
                await self._rest(began + BEAT - time.monotonic())
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
        if seconds <= 0:
            return
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
