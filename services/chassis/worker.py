"""The role `worker`: gives events to reactions and runs what runs periodically. Built on nameko, one container per service.

What nameko's own consumer does not do, and this one does: a message is acknowledged only after its reactions have committed;
a failed one comes back after 1, 5, 30 and 300 s and then becomes a dead letter, one that no attempt can mend at once; a
worker that dies on a message has it delivered again, 20 times at most. A lost broker or database costs nothing but time: no
attempt is counted while the database is away. SIGTERM lets what is being worked on finish and be acknowledged.

The process must be monkey-patched by eventlet before anything else is imported; `services.chassis.__main__` does that. Then
psycopg2 waits cooperatively, and a slow statement holds up its own message only.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import amqp
import eventlet
import eventlet.patcher
from amqp.exceptions import AMQPError, NotFound
from eventlet.semaphore import Semaphore
from kombu.utils.url import url_to_parts
from nameko import config as nameko_config
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension, register_entrypoint
from nameko.runners import ServiceRunner
from prometheus_client import Counter, Gauge, Histogram

from services.chassis import observe, reactions
from services.chassis.db import Database
from services.chassis.dead_letters import CONTENT_TYPE, bury
from services.chassis.errors import Unavailable
from services.chassis.reactions import Failed, Periodic, Permanent, handle, reactions_of
from services.chassis.settings import Settings
from services.chassis.topology import DELAYS, DELIVERY_LIMIT

log = logging.getLogger(__name__)

PREFETCH = {"directory": 5, "events": 20, "dead": 1}  # messages a worker holds of a queue
HEARTBEAT = 10  # s; 2 s gave spurious reconnects
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 2.0  # s until a lost broker is tried again
DATABASE_AWAY = 20.0  # s that a message is held while the database is away, before it is put off without counting
PUT_OFF = 30  # s; one of DELAYS
DRAIN_WITHIN = 12.0  # s for what is being worked on at SIGTERM; the supervisor kills after 15
ATTEMPT, FIRST_FAILED = "x-steward-attempt", "x-steward-first-failed"
_BROKER_TROUBLE = (OSError, AMQPError)

HANDLED = Counter("steward_events_handled_total", "Events whose reactions are committed.", ["service", "type"])
DUPLICATES = Counter("steward_events_duplicate_total", "Reactions that were skipped because they had had the event.", ["service", "type"])
RETRIES = Counter("steward_events_retried_total", "Events that failed and come back later.", ["service", "type"])
PUT_OFFS = Counter("steward_events_put_off_total", "Events put off because the database was away; no attempt was counted.", ["service"])
DEAD = Counter("steward_dead_letters_total", "Events that became dead letters.", ["service", "type"])
IN_FLIGHT = Gauge("steward_events_in_flight", "Messages held, worked on or waiting for their turn.", ["service", "queue"])
LAG = Histogram(
    "steward_event_lag_seconds",
    "From the writing of an event to the end of its reactions.",
    ["service", "type"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600),
)
TIMER_SECONDS = Histogram(
    "steward_timer_seconds", "Time a periodic function took.", ["service", "timer"], buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 30)
)
TIMER_FAILURES = Counter("steward_timer_failures_total", "Runs of a periodic function that raised.", ["service", "timer"])


class Verdict(enum.Enum):
    """What becomes of a delivery."""

    DONE = "done"  # acknowledged: its effects, or a copy of it, are safe elsewhere
    BACK = "back"  # returned to its queue; that counts against the delivery limit


@dataclass(frozen=True, slots=True)
class Delivery:
    channel: Any
    tag: int
    queue: str
    body: bytes
    headers: dict[str, Any]
    message_id: str

    @property
    def attempts(self) -> int:
        """How often it has failed before."""
        attempts = self.headers.get(ATTEMPT, 0)
        return attempts if isinstance(attempts, int) else 0


class Desk:
    """Works on the messages of one service and says what becomes of them."""

    def __init__(self, service: str, database: Database, amqp_url: str, stopping: Callable[[], bool]):
        self.service, self._database, self._stopping = service, database, stopping
        self._sender = Sender(amqp_url)

    def react(self, delivery: Delivery) -> Verdict:
        """Reacts to a message from one of the event queues."""
        lost = 0
        while True:
            try:
                outcome = handle(self._database, self.service, delivery.body)
            except Exception as error:
                if _database_away(error):
                    lost += 1
                    if not self._answers():
                        if self._back_in_time():
                            continue
                        return self._put_off(delivery)
                    if lost == 1:
                        continue  # only this connection had died; but a message that kills every connection does count
                return self._failed(delivery, error)
            event = f"{outcome.source}.{outcome.type}"
            HANDLED.labels(self.service, event).inc()
            LAG.labels(self.service, event).observe(max(0.0, (datetime.now(UTC) - outcome.recorded).total_seconds()))
            if outcome.duplicates:
                DUPLICATES.labels(self.service, event).inc(outcome.duplicates)
            return Verdict.DONE

    def bury_undeliverable(self, delivery: Delivery) -> Verdict:
        """Takes a message that killed its worker again and again, from the queue where the broker put it."""
        deaths = delivery.headers.get("x-death") or [{}]
        queue = deaths[0].get("queue") or f"{self.service}.events"
        error = f"delivered {DELIVERY_LIMIT} times without an answer: the worker died on it or was cut off each time"
        return self._bury(delivery, queue, error, DELIVERY_LIMIT + delivery.attempts, None)

    def _failed(self, delivery: Delivery, error: Exception) -> Verdict:
        permanent = isinstance(error, Permanent) or (isinstance(error, Failed) and error.permanent)
        attempt = delivery.attempts + 1
        cause = next(iter(error.failures.values())) if isinstance(error, Failed) else error
        if permanent or attempt > len(DELAYS):
            log.error("%s: dead letter after attempt %d: %s", self.service, attempt, error, exc_info=cause)
            names = ", ".join(error.failures) if isinstance(error, Failed) else None
            return self._bury(delivery, delivery.queue, f"{type(cause).__name__}: {error}" if not names else str(error), attempt, names)
        delay = DELAYS[attempt - 1]
        log.warning("%s: attempt %d failed, again in %d s: %s", self.service, attempt, delay, error)
        headers = {FIRST_FAILED: datetime.now(UTC).isoformat()} | delivery.headers | {ATTEMPT: attempt}
        verdict = self._send_round(delivery, delay, headers)
        if verdict is Verdict.DONE:
            RETRIES.labels(self.service, self._type(delivery)).inc()
        return verdict

    def _put_off(self, delivery: Delivery) -> Verdict:
        verdict = self._send_round(delivery, DELAYS[0] if self._stopping() else PUT_OFF, delivery.headers)
        if verdict is Verdict.DONE:
            PUT_OFFS.labels(self.service).inc()
        return verdict

    def _send_round(self, delivery: Delivery, delay: int, headers: dict[str, Any]) -> Verdict:
        """Puts a copy into the retry queue that sends it back after `delay` seconds."""
        try:
            self._sender.send(f"retry.{delay}", delivery.queue, delivery.body, headers, delivery.message_id)
        except _BROKER_TROUBLE as trouble:
            log.warning("%s: the broker does not take a retry: %r", self.service, trouble)
            eventlet.sleep(1)
            return Verdict.BACK
        return Verdict.DONE

    def _bury(self, delivery: Delivery, queue: str, error: str, attempts: int, reaction: str | None) -> Verdict:
        while True:
            try:
                first = _time(delivery.headers.get(FIRST_FAILED))
                bury(self._database, queue, delivery.body, error=error, attempts=attempts, reaction=reaction, first_failed_at=first)
            except Unavailable as unavailable:
                log.warning("%s: the dead letter cannot be written yet: %s", self.service, unavailable)
                if self._back_in_time():
                    continue
                if delivery.queue != queue:  # it came from the dead, where there are no retry queues
                    return Verdict.BACK
                return self._put_off(delivery)
            DEAD.labels(self.service, self._type(delivery)).inc()
            return Verdict.DONE

    def _answers(self) -> bool:
        try:
            with self._database.read():
                return True
        except Unavailable:
            return False

    def _back_in_time(self) -> bool:
        """Waits for the database; False when that takes too long or the process is to end."""
        until, pause = time.monotonic() + DATABASE_AWAY, BACKOFF_FIRST
        while time.monotonic() < until and not self._stopping():
            eventlet.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - nothing has to be secret about a pause
            if self._answers():
                return True
            pause = min(pause * 1.5, BACKOFF_MOST)
        return False

    def _type(self, delivery: Delivery) -> str:
        """The event's type for a label: only those that the service reacts to, or anybody could fill the metrics."""
        name = reactions.glance(delivery.body)[1]
        source, _, type = name.partition(".")
        return name if (source, type) in reactions_of(self.service).by_event else "unknown"


class Sender:
    """Publishes one message at a time and waits for the broker's confirm; connects when first needed."""

    def __init__(self, amqp_url: str):
        self._url = amqp_url
        self._one_at_a_time = Semaphore()
        self._connection: Any = None
        self._channel: Any = None

    def send(self, exchange: str, routing_key: str, body: bytes, headers: dict[str, Any], message_id: str) -> None:
        """Raises OSError or AMQPError when the broker is away, refuses, or has no queue for it."""
        kept = {name: value for name, value in headers.items() if name not in ("x-death", "x-delivery-count") and "first-death" not in name}
        message = amqp.Message(body, content_type=CONTENT_TYPE, delivery_mode=2, message_id=message_id, application_headers=kept)
        with self._one_at_a_time:
            for last in (False, True):  # a connection that has been idle may be dead without knowing
                try:
                    if self._connection is None:
                        self._connection = connected(self._url, heartbeat=0, confirm_publish=True)
                        self._channel = self._connection.channel()
                    self._channel.basic_publish(message, exchange, routing_key, mandatory=True, confirm_timeout=10)
                    return
                except _BROKER_TROUBLE:
                    self._drop()  # after a returned message its confirm is still to come: the channel cannot be used again
                    if last:
                        raise

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.collect()  # closes the socket without a good-bye, which could wait for a broker that is gone


class Intake(SharedExtension):
    """A container's AMQP connection: brings messages to its consumers and takes back their acknowledgements.

    It declares nothing: `migrate` did, and where the queues are not there yet it waits for them.
    """

    def __init__(self) -> None:
        self.trouble = "starting"  # what it lacks; empty when it consumes
        self.stopping = False
        self.consumers: list[Consume] = []
        self.held = 0  # deliveries without an answer
        self._pause = BACKOFF_FIRST
        self._thread: Any = None
        self._writing = Semaphore()  # greenlets must not write to one connection at the same time

    def start(self) -> None:
        self._thread = self.container.spawn_managed_thread(self._run, identifier="intake")

    def drain(self) -> None:
        """Takes nothing more; returns when what was taken is answered, or the connection was lost, and the connection is closed."""
        self.stopping = True
        if self._thread is not None:
            self._thread.wait()

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Answers a delivery. If its connection is gone, the broker delivers it again and the inbox knows it."""
        self.held -= 1
        try:
            with self._writing:
                if delivery.channel.connection is None:
                    return
                if verdict is Verdict.DONE:
                    delivery.channel.basic_ack(delivery.tag)
                else:
                    delivery.channel.basic_reject(delivery.tag, requeue=True)
        except _BROKER_TROUBLE as trouble:
            log.warning("an answer did not reach the broker, it will deliver again: %r", trouble)

    def _run(self) -> None:
        while not self.stopping:
            connection = None
            try:
                connection = connected(nameko_config["AMQP_URI"], heartbeat=HEARTBEAT)
                self._consume(connection)
            except NotFound as missing:
                self._lacks(f"queues are not declared yet: {missing}")
                self._sleep(1)
            except _BROKER_TROUBLE as error:
                self._lacks(f"broker: {error!r}")
                self._sleep(self._pause)
                self._pause = min(self._pause * 2, BACKOFF_MOST)
            finally:
                if connection is not None:
                    with self._writing:
                        connection.collect()
        while self.held:  # their connection is gone, but the effects are worth waiting for
            eventlet.sleep(0.02)

    def _consume(self, connection: Any) -> None:
        cancel = []
        for consumer in self.consumers:
            with self._writing:
                channel = connection.channel()
                channel.auto_decode = False
                channel.basic_qos(0, consumer.prefetch, False)
                tag = channel.basic_consume(consumer.queue, callback=partial(consumer.take, channel))
            cancel.append(partial(channel.basic_cancel, tag))
        self.trouble, self._pause = "", BACKOFF_FIRST
        log.info("%s: consuming %s", self.container.service_name, ", ".join(consumer.queue for consumer in self.consumers))
        while not (self.stopping and not self.held):
            if self.stopping and cancel:
                with self._writing:
                    for one in cancel:
                        one()
                cancel = []
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.05 if self.stopping else 0.5)
            with self._writing:
                connection.heartbeat_tick()
        with self._writing:
            connection.close()

    def _lacks(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("%s: %s", self.container.service_name, trouble)
        self.trouble = trouble

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until:
            eventlet.sleep(0.1)


class Consume(Entrypoint):
    """A queue, worked on by a bounded number of greenlets: `slots` of them, of the `prefetch` messages that are held."""

    intake = Intake()

    def __init__(self, queue: str, *, prefetch: int, slots: int, **options: Any):
        super().__init__(**options)
        self.queue, self.prefetch, self.slots = queue, prefetch, slots

    def setup(self) -> None:
        self._turn = Semaphore(self.slots)
        self._in_flight = IN_FLIGHT.labels(self.container.service_name, self.queue)
        self.intake.consumers.append(self)

    def stop(self) -> None:
        self.intake.drain()

    def take(self, channel: Any, message: Any) -> None:
        """Called by the intake for each delivery; must not wait, or heartbeats would."""
        if self.intake.stopping:
            return  # unanswered: it goes back when the connection closes
        body = message.body if isinstance(message.body, bytes) else bytes(message.body or b"")
        properties = message.properties
        headers = properties.get("application_headers") or {}
        message_id = properties.get("message_id") or ""
        delivery = Delivery(channel, message.delivery_info["delivery_tag"], self.queue, body, headers, message_id)
        self.intake.held += 1
        self._in_flight.inc()
        self.container.spawn_managed_thread(partial(self._in_turn, delivery), identifier=f"{self.queue} in turn")

    def _in_turn(self, delivery: Delivery) -> None:
        self._turn.acquire()
        if self.intake.stopping:
            self._answer(delivery, Verdict.BACK)
            return
        try:
            self.container.spawn_worker(self, (delivery,), {}, handle_result=partial(self._result, delivery))
        except ContainerBeingKilled:
            self._answer(delivery, Verdict.BACK)

    def _result(self, delivery: Delivery, worker_ctx: Any, result: Verdict | None, exc_info: Any) -> tuple[Any, Any]:
        if exc_info is not None:  # a fault of this module: nameko has logged it
            eventlet.sleep(1)
        self._answer(delivery, result or Verdict.BACK)
        return result, exc_info

    def _answer(self, delivery: Delivery, verdict: Verdict) -> None:
        self._turn.release()
        self._in_flight.dec()
        self.intake.settle(delivery, verdict)


class Every(Entrypoint):
    """Runs its method every so often, a little off the beat so that replicas spread out; never twice at once, never to catch up."""

    def __init__(self, seconds: float, **options: Any):
        super().__init__(**options)
        self.seconds = seconds

    def setup(self) -> None:
        self._stopped = threading.Event()

    def start(self) -> None:
        self._thread = self.container.spawn_managed_thread(self._run, identifier=f"every {self.seconds} s")

    def stop(self) -> None:
        self._stopped.set()
        self._thread.wait()

    def _run(self) -> None:
        pause = min(self.seconds, 30) * random.random()  # noqa: S311 - nothing has to be secret about a beat
        while not self._stopped.wait(pause):
            done = threading.Event()
            try:
                self.container.spawn_worker(self, (), {}, handle_result=partial(self._result, done))
            except ContainerBeingKilled:
                return
            done.wait()
            pause = self.seconds * random.uniform(0.9, 1.1)  # noqa: S311 - as above

    def _result(self, done: threading.Event, worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        done.set()
        return result, exc_info


def service_class(service: str, database: Database, settings: Settings, stopping: Callable[[], bool]) -> type:
    """The nameko service of a Steward service: a method for each queue it has and for each function that runs periodically."""
    table = reactions_of(service)
    members: dict[str, Any] = {"name": service}
    desk = Desk(service, database, settings.amqp_url, stopping)
    slots = {"directory": 2, "events": max(1, settings.pool_size - 3), "dead": 1}
    queues = [kind for kind in ("directory", "events") if table.routing_keys(kind)]  # type: ignore[arg-type]
    for kind in [*queues, "dead"] if queues else []:
        work = desk.bury_undeliverable if kind == "dead" else desk.react
        members[kind] = _method(kind, work, Consume(f"{service}.{kind}", prefetch=PREFETCH[kind], slots=slots[kind]))
    for number, periodic in enumerate(table.periodic):
        name = f"every_{number}_{periodic.name}"
        members[name] = _method(name, partial(_run_periodic, service, database, periodic), Every(periodic.seconds))
    return type(f"Service_{service}", (), members)


def run(services: list[str], settings: Settings) -> int:
    """The process: reacts until SIGTERM, then finishes what it has in hand. Returns 1 when nameko gave up on a service."""
    if not eventlet.patcher.is_monkey_patched("socket"):
        raise RuntimeError("a worker needs eventlet.monkey_patch() before its first import")
    databases = {service: Database(service, settings.database(service), pool_size=settings.pool_size) for service in services}
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    classes = [service_class(service, databases[service], settings, asked.is_set) for service in services]
    most = max(sum(1 for name in vars(c) if not name.startswith("_")) for c in classes)
    nameko_config.setup({"AMQP_URI": settings.amqp_url, "max_workers": sum(PREFETCH.values()) + most})
    runner = ServiceRunner()
    for one in classes:
        runner.add_service(one)
    observe.serve(settings.http_port, settings.bind, lambda: _why_not_ready(runner, databases))
    log.info("worker of %s", ", ".join(services))
    runner.start()
    ended = eventlet.spawn(runner.wait)
    while not asked.wait(0.2) and not ended.dead:
        pass
    if ended.dead:
        log.critical("a service's container has died")
        return 1
    with eventlet.Timeout(DRAIN_WITHIN, False):
        runner.stop()
        return 0
    log.error("not everything was finished within %.0f s", DRAIN_WITHIN)
    return 0


def connected(amqp_url: str, *, heartbeat: int, confirm_publish: bool = False) -> Any:
    """An open AMQP connection. Raises OSError or AMQPError."""
    parts = url_to_parts(amqp_url)
    connection = amqp.Connection(
        host=f"{parts.hostname or '127.0.0.1'}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}",
        userid=parts.username or "guest",
        password=parts.password or "guest",
        virtual_host=parts.path or "/",
        ssl=parts.scheme == "amqps",
        connect_timeout=5,
        heartbeat=heartbeat,
        confirm_publish=confirm_publish,
    )
    try:
        connection.connect()
    except BaseException:
        connection.collect()
        raise
    return connection


def _method(name: str, work: Callable[..., Any], entrypoint: Entrypoint) -> Callable[..., Any]:
    def method(self: object, *arguments: Any) -> Any:
        return work(*arguments)

    method.__name__ = name
    register_entrypoint(method, entrypoint)
    return method


def _run_periodic(service: str, database: Database, periodic: Periodic) -> None:
    started = time.monotonic()
    try:
        periodic.function(database)
    except Unavailable as unavailable:
        TIMER_FAILURES.labels(service, periodic.name).inc()
        log.warning("%s: %s: %s", service, periodic.name, unavailable)
    except Exception:
        TIMER_FAILURES.labels(service, periodic.name).inc()
        log.exception("%s: %s failed", service, periodic.name)
    finally:
        TIMER_SECONDS.labels(service, periodic.name).observe(time.monotonic() - started)


def _database_away(error: Exception) -> bool:
    causes = error.failures.values() if isinstance(error, Failed) else (error,)
    return any(isinstance(cause, Unavailable) and cause.reason == "DATABASE_DOWN" for cause in causes)


def _why_not_ready(runner: ServiceRunner, databases: dict[str, Database]) -> str:
    intakes = ((container.service_name, container.shared_extensions.get(Intake)) for container in runner.containers)
    lacking = [f"{service}: {intake.trouble}" for service, intake in intakes if intake and intake.trouble]
    for database in databases.values():
        with database.read():
            pass
    return "; ".join(lacking)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
