"""How a worker takes messages from its queues: nameko entrypoints on one AMQP connection for each service.

What nameko's own consumer does not do, and this one does: a message is acknowledged only after what it leads to has been
committed, and what has arrived meanwhile is handed over at once. Messages that may be handled together (`Consume.together`)
are one batch: whatever is there when the worker comes to it, nobody waits for more. While a batch is worked on the next one
gathers, so batches are as large as the load is heavy, and one that hangs is soon joined by another.

SIGTERM lets what is being worked on finish and be acknowledged; what has not begun goes back. A lost connection costs
nothing but time: the broker delivers again what was not acknowledged, and the inbox knows it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import amqp
import eventlet
from amqp.exceptions import AMQPError, NotFound
from eventlet.semaphore import Semaphore
from kombu.utils.url import url_to_parts
from nameko import config as nameko_config
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, SharedExtension
from prometheus_client import Gauge

from services.chassis.deliveries import Delivery, Line, Verdict

log = logging.getLogger(__name__)

MOST_TOGETHER = 50  # messages of a batch
PATIENCE = 0.05  # s that the next batch leaves the one before it alone
HEARTBEAT = 10  # s; 2 s gave spurious reconnects
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 2.0  # s until a lost broker is tried again
CHUNK = 8192  # bytes read from the socket at a time
BROKER_TROUBLE = (OSError, AMQPError)

CONSUMING = Gauge(
    "steward_worker_consuming", "1 while the worker takes the service's messages, 0 while it lacks the broker or the queues.", ["service"]
)
IN_FLIGHT = Gauge("steward_events_in_flight", "Messages held, worked on or waiting for their turn.", ["service", "queue"])


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
        """Returns when what was taken is answered, or the connection was lost, and the connection is closed."""
        if self._thread is not None:
            self._thread.wait()

    def settle(self, line: Line, verdicts: Mapping[int, Verdict]) -> None:
        """Answers deliveries of one line. If its connection is gone, the broker delivers them again and the inbox knows them."""
        self.held -= len(verdicts)
        try:
            with self._writing:
                if line.channel.connection is not None:
                    line.answer(verdicts)
        except BROKER_TROUBLE as trouble:
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
            except BROKER_TROUBLE as error:
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
                tag = channel.basic_consume(consumer.queue, callback=partial(consumer.take, Line(channel)))
            cancel.append(partial(channel.basic_cancel, tag))
        self.trouble, self._pause = "", BACKOFF_FIRST
        CONSUMING.labels(self.container.service_name).set(1)
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
        CONSUMING.labels(self.container.service_name).set(0)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until:
            eventlet.sleep(0.1)


class Consume(Entrypoint):
    """A queue: of the `prefetch` messages that are held, batches and single ones are worked on by up to `slots` greenlets.

    Its method gets a list of deliveries and returns the verdict of each. `together`: routing keys of messages that share a
    batch. One that has failed before, or that a worker has died on, goes alone, so that it drags no other along.
    """

    intake = Intake()

    def __init__(self, queue: str, *, prefetch: int, slots: int, together: frozenset[str] = frozenset(), **options: Any):
        super().__init__(**options)
        self.queue, self.prefetch, self.slots, self.together = queue, prefetch, slots, together

    def setup(self) -> None:
        self._alone: deque[Delivery] = deque()
        self._gathered: deque[Delivery] = deque()
        self._busy = 0  # greenlets at work
        self._batches = 0  # of these, with a batch
        self._begun_at = 0.0  # when the last batch began (monotonic)
        self._batch_last = False  # what was begun last
        self._asked = self._patient = False  # whether `_begin` will run as soon as it can, or when patience has ended
        self._in_flight = IN_FLIGHT.labels(self.container.service_name, self.queue)
        self.intake.consumers.append(self)

    def stop(self) -> None:
        """Gives back what has not begun, and waits for what has."""
        self.intake.stopping = True
        self._begin()
        self.intake.drain()

    def take(self, line: Line, message: Any) -> None:
        """Called by the intake for each delivery; must not wait, or heartbeats would."""
        info, properties = message.delivery_info, message.properties
        line.took(info["delivery_tag"])
        if self.intake.stopping:
            return  # unanswered: it goes back when the connection closes
        body = message.body if isinstance(message.body, bytes) else bytes(message.body or b"")
        headers = properties.get("application_headers") or {}
        message_id = properties.get("message_id") or ""
        delivery = Delivery(line, info["delivery_tag"], self.queue, body, info["routing_key"], headers, message_id)
        shares = delivery.routing_key in self.together and delivery.first_time
        (self._gathered if shares else self._alone).append(delivery)
        self.intake.held += 1
        self._in_flight.inc()
        if not self._asked:  # it runs when the intake waits for the socket: then everything that has come is here
            self._asked = True
            self.container.spawn_managed_thread(self._begin, identifier=f"{self.queue}: what has come")

    def _begin(self) -> None:
        """Starts whatever may start now."""
        self._asked = False
        if self.intake.stopping:
            waiting = [*self._alone, *self._gathered]
            self._alone.clear()
            self._gathered.clear()
            self._answer(dict.fromkeys(waiting, Verdict.BACK))
            return
        while self._busy < self.slots:
            batch = bool(self._gathered) and (not self._batches or time.monotonic() >= self._begun_at + PATIENCE)
            if batch and not (self._alone and self._batch_last):
                self._begun_at = time.monotonic()
                self._start([self._gathered.popleft() for _ in range(min(len(self._gathered), MOST_TOGETHER))], batch=True)
            elif self._alone:
                self._start([self._alone.popleft()])
            else:
                break
        if self._gathered and not self._patient:
            self._patient = True
            eventlet.spawn_after(PATIENCE, self._impatient)

    def _impatient(self) -> None:
        self._patient = False
        self._begin()

    def _start(self, deliveries: list[Delivery], *, batch: bool = False) -> None:
        self._busy += 1
        self._batches += batch
        self._batch_last = batch
        try:
            self.container.spawn_worker(self, (deliveries,), {}, handle_result=partial(self._result, deliveries, batch))
        except ContainerBeingKilled:
            self.intake.stopping = True
            self._end(dict.fromkeys(deliveries, Verdict.BACK), batch)

    def _result(
        self, deliveries: list[Delivery], batch: bool, worker_ctx: Any, result: list[Verdict] | None, exc_info: Any
    ) -> tuple[Any, Any]:
        if exc_info is not None:  # a fault of this module: nameko has logged it
            eventlet.sleep(1)
        verdicts = result or [Verdict.BACK] * len(deliveries)
        self._end(dict(zip(deliveries, verdicts, strict=True)), batch)
        return result, exc_info

    def _end(self, verdicts: dict[Delivery, Verdict], batch: bool) -> None:
        self._busy -= 1
        self._batches -= batch
        self._alone.extendleft(reversed([delivery for delivery, verdict in verdicts.items() if verdict is Verdict.APART]))
        self._answer({delivery: verdict for delivery, verdict in verdicts.items() if verdict is not Verdict.APART})
        self._begin()

    def _answer(self, verdicts: dict[Delivery, Verdict]) -> None:
        self._in_flight.dec(len(verdicts))
        by_line: dict[Line, dict[int, Verdict]] = {}
        for delivery, verdict in verdicts.items():
            by_line.setdefault(delivery.line, {})[delivery.tag] = verdict
        for line, answers in by_line.items():
            self.intake.settle(line, answers)


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
        _read_ahead(connection.transport)
    except BaseException:
        connection.collect()
        raise
    return connection


def _read_ahead(transport: Any) -> None:
    """Lets the driver read what is there, up to CHUNK, into the buffer that it has. Left to itself it asks the kernel for each of
    the nine parts of a message, which takes as long as all else that it does.
    """
    receive = transport.sock.recv
    transport._quick_recv = lambda wanted: receive(max(wanted, CHUNK))
