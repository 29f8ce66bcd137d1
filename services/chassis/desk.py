"""What a worker does with messages: it reacts to them, and says what becomes of each.

A failed one comes back after 1, 5, 30 and 300 s and then becomes a dead letter, one that no attempt can mend at once; a worker
that dies on a message has it delivered again, 20 times at most. No attempt is counted while the database is away.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import amqp
import eventlet
from eventlet.semaphore import Semaphore
from prometheus_client import Counter, Histogram

from services.chassis import reactions
from services.chassis.consuming import BACKOFF_FIRST, BACKOFF_MOST, BROKER_TROUBLE, connected
from services.chassis.db import Database
from services.chassis.dead_letters import CONTENT_TYPE, bury
from services.chassis.deliveries import ATTEMPT, Delivery, Verdict
from services.chassis.errors import Unavailable
from services.chassis.reactions import Failed, Outcome, Permanent, handle, handle_together, reactions_of
from services.chassis.topology import DELAYS, DELIVERY_LIMIT

log = logging.getLogger(__name__)

DATABASE_AWAY = 20.0  # s that a message is held while the database is away, before it is put off without counting
PUT_OFF = 30  # s; one of DELAYS
FIRST_FAILED = "x-steward-first-failed"

HANDLED = Counter("steward_events_handled_total", "Events whose reactions are committed.", ["service", "type"])
TOGETHER = Counter("steward_events_handled_together_total", "Events of these that shared a transaction with others.", ["service"])
APART = Counter("steward_events_apart_total", "Events that were to share a transaction, and are handled each by itself.", ["service"])
DUPLICATES = Counter("steward_events_duplicate_total", "Reactions that were skipped because they had had the event.", ["service", "type"])
RETRIES = Counter("steward_events_retried_total", "Events that failed and come back later.", ["service", "type"])
PUT_OFFS = Counter("steward_events_put_off_total", "Events put off because the database was away; no attempt was counted.", ["service"])
DEAD = Counter("steward_dead_letters_total", "Events that became dead letters.", ["service", "type"])
LAG = Histogram(
    "steward_event_lag_seconds",
    "From the writing of an event to the end of its reactions.",
    ["service", "type"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600),
)


class Desk:
    """Works on the messages of one service and says what becomes of them."""

    def __init__(self, service: str, database: Database, amqp_url: str, stopping: Callable[[], bool]):
        self.service, self._database, self._stopping = service, database, stopping
        self._sender = Sender(amqp_url)

    def react(self, deliveries: Sequence[Delivery]) -> list[Verdict]:
        """Reacts to messages from one of the event queues: one, or several that may share a transaction."""
        if len(deliveries) == 1:
            return [self._react(deliveries[0])]
        try:
            outcomes = handle_together(self._database, self.service, [delivery.body for delivery in deliveries])
        except Exception as error:
            log.warning("%s: %d events go each by itself, as together they fail: %s", self.service, len(deliveries), error)
            APART.labels(self.service).inc(len(deliveries))
            return [Verdict.APART] * len(deliveries)
        TOGETHER.labels(self.service).inc(len(deliveries))
        self._count(outcomes)
        return [Verdict.DONE] * len(deliveries)

    def _react(self, delivery: Delivery) -> Verdict:
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
            self._count([outcome])
            return Verdict.DONE

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        now = datetime.now(UTC)
        handled: Tally[str] = Tally()
        for outcome in outcomes:
            event = f"{outcome.source}.{outcome.type}"
            handled[event] += 1
            LAG.labels(self.service, event).observe(max(0.0, (now - outcome.recorded).total_seconds()))
            if outcome.duplicates:
                DUPLICATES.labels(self.service, event).inc(outcome.duplicates)
        for event, count in handled.items():
            HANDLED.labels(self.service, event).inc(count)

    def bury_undeliverable(self, deliveries: Sequence[Delivery]) -> list[Verdict]:
        """Takes messages that killed their worker again and again, from the queue where the broker put them."""
        return [self._bury_undeliverable(delivery) for delivery in deliveries]

    def _bury_undeliverable(self, delivery: Delivery) -> Verdict:
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
        except BROKER_TROUBLE as trouble:
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
                except BROKER_TROUBLE:
                    self._drop()  # after a returned message its confirm is still to come: the channel cannot be used again
                    if last:
                        raise

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.collect()  # closes the socket without a good-bye, which could wait for a broker that is gone


def _database_away(error: Exception) -> bool:
    causes = error.failures.values() if isinstance(error, Failed) else (error,)
    return any(isinstance(cause, Unavailable) and cause.reason == "DATABASE_DOWN" for cause in causes)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
