"""Exchanges, queues and bindings on the broker, worked out from the reactions of the services and nothing else.

For a service that reacts to anything (all queues are quorum queues, so they survive a node):

    events ──work_orders.RepairAccepted──▶ billing_reminders.events      what it reacts to
           ──residents.DirectoryChanged──▶ billing_reminders.directory   apart, so that a flood delays no revoked post
    retry.30 ──billing_reminders.events──▶ billing_reminders.retry.30    waits 30 s, then goes back to where it came from
    more deliveries than the limit ──────▶ billing_reminders.dead        a worker that dies on a message; see dead_letters

The retry queues are shared by the two queues of a service: a message is put there through the direct exchange `retry.<s>`
under the *name of its queue* as routing key, and a dead-lettered message keeps its routing key, so the default exchange
takes it back. (A retry queue for each queue would be twice as many; a routing key fixed in the queue's arguments would send
all of them to one of the two.)

Dead-lettering is at-least-once, which needs overflow reject-publish: the default strategy may drop a message on the way.

Nothing is remembered between releases: what is stale follows from the contract. Every event type in the protos that a queue
should not get is unbound from it (unbinding what is not bound is no error), and every queue of a service that should not be
there is removed when it is empty and unused. A queue name that a release gives up altogether goes into RETIRED.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import pika
import psycopg2
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from services.chassis import reactions
from services.chassis.reactions import reactions_of

log = logging.getLogger(__name__)

EVENTS = "events"
DELAYS = (1, 5, 30, 300)  # seconds between the attempts of a reaction; the last failure makes a dead letter
DELIVERY_LIMIT = 20  # deliveries without an answer: the worker died on it, or its connection did
RETIRED: tuple[str, ...] = ()

_NOT_FOUND, _ARGUMENTS_DIFFER = 404, 406
_QUORUM = {"x-queue-type": "quorum"}
_AT_LEAST_ONCE = {"x-dead-letter-exchange": "", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


class Conflict(RuntimeError):
    """A queue exists with other arguments and holds messages or has consumers, so it cannot be made anew."""


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: str
    routing_key: str
    queue: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What should be on the broker; two of them add up."""

    exchanges: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))  # name → kind
    queues: MappingProxyType[str, dict[str, Any]] = field(default_factory=lambda: MappingProxyType({}))  # name → arguments
    bindings: frozenset[Binding] = frozenset()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            MappingProxyType({**self.exchanges, **other.exchanges}),
            MappingProxyType({**self.queues, **other.queues}),
            self.bindings | other.bindings,
        )


def declared(services: Iterable[str]) -> Topology:
    """The exchanges, and the queues and bindings that these services need."""
    exchanges = {EVENTS: "topic"} | {f"retry.{delay}": "direct" for delay in DELAYS}
    topology = Topology(MappingProxyType(exchanges))
    for service in services:
        topology += _of_service(service)
    return topology


def consumed(source: str, services: Iterable[str]) -> frozenset[str]:
    """The event types of `source` that somebody reacts to: the relay publishes them as mandatory."""
    return frozenset(type for service in services for emitter, type in reactions_of(service).by_event if emitter == source)


def declare(amqp_url: str, services: Iterable[str]) -> None:
    """Makes the broker match, for these services: declares what should be there, removes what should not.

    Safe to repeat and to run beside running workers. Raises pika.exceptions.AMQPConnectionError when the broker does not
    answer, Conflict when a queue that is in use has other arguments.
    """
    services = list(services)
    wanted = declared(services)
    connection = pika.BlockingConnection(parameters(amqp_url))
    try:
        broker = _Broker(connection)
        for name, kind in wanted.exchanges.items():
            broker.channel.exchange_declare(name, kind, durable=True)
        for name in sorted(wanted.queues):
            broker.declare(name, wanted.queues[name])
        for binding in sorted(wanted.bindings, key=str):
            broker.channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
        for name in sorted(stale_queues(wanted, services)):
            broker.remove(name)
        for binding in sorted(stale_bindings(wanted), key=str):
            broker.channel.queue_unbind(binding.queue, binding.exchange, binding.routing_key)
    finally:
        if connection.is_open:
            connection.close()


def record_consumed(database_url: str, source: str, services: Iterable[str]) -> None:
    """Tells the relay of `source` which of its event types must find a queue; `migrate` does it after `declare`.

    It stands in the database because the relay need not import the domain of every service to know it.
    """
    connection = psycopg2.connect(driver_url(database_url), options="-c steward.principal=system/migrate -c steward.system=on")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE relay_state SET consumed = %s", (sorted(consumed(source, services)),))
    finally:
        connection.close()


def stale_queues(wanted: Topology, services: Iterable[str]) -> set[str]:
    """Names that a service's queues can have and that are not wanted."""
    return ({name for service in services for name in _names(service)} | set(RETIRED)) - set(wanted.queues)


def stale_bindings(wanted: Topology) -> Iterator[Binding]:
    """Every binding of the contract's event types to a wanted queue that is not wanted."""
    for queue in wanted.queues:
        if queue.endswith(tuple(f".{kind}" for kind in get_args(reactions.Queue))):
            for routing_key in contract():
                binding = Binding(EVENTS, routing_key, queue)
                if binding not in wanted.bindings:
                    yield binding


@cache
def contract() -> frozenset[str]:
    """The routing key of every event that any service can emit, from the protos; those of the chassis under every service."""
    types: dict[str, list[str]] = {}
    for folder in importlib.import_module("steward").__path__:  # a package without __init__: pkgutil does not see into it
        for file in Path(folder).glob("*/v1/events_pb2.py"):
            name = file.parts[-3]
            types[name] = list(importlib.import_module(f"steward.{name}.v1.events_pb2").DESCRIPTOR.message_types_by_name)
    shared = types.pop("chassis", [])
    return frozenset(f"{service}.{type}" for service, own in types.items() for type in [*own, *shared])


def parameters(amqp_url: str) -> pika.URLParameters:
    """How Steward connects: a heartbeat of 10 s (2 s gave spurious reconnects), one attempt (callers have their own patience)."""
    result = pika.URLParameters(amqp_url)
    result.heartbeat = 10
    result.socket_timeout = 5
    result.stack_timeout = 8
    result.connection_attempts = 1
    return result


def driver_url(database_url: str) -> str:
    """A database URL as the driver reads it."""
    return database_url.replace("postgresql+psycopg2://", "postgresql://", 1)


def _of_service(service: str) -> Topology:
    table = reactions_of(service)
    queues: dict[str, dict[str, Any]] = {}
    bindings: set[Binding] = set()
    for kind in get_args(reactions.Queue):
        routing_keys = table.routing_keys(kind)
        if not routing_keys:
            continue
        name = f"{service}.{kind}"
        queues[name] = {**_QUORUM, **_AT_LEAST_ONCE, "x-dead-letter-routing-key": f"{service}.dead", "x-delivery-limit": DELIVERY_LIMIT}
        bindings |= {Binding(EVENTS, routing_key, name) for routing_key in routing_keys}
        bindings |= {Binding(f"retry.{delay}", name, f"{service}.retry.{delay}") for delay in DELAYS}
    if queues:
        queues[f"{service}.dead"] = dict(_QUORUM)
        for delay in DELAYS:
            queues[f"{service}.retry.{delay}"] = {**_QUORUM, **_AT_LEAST_ONCE, "x-message-ttl": delay * 1000}
    return Topology(queues=MappingProxyType(queues), bindings=frozenset(bindings))


def _names(service: str) -> set[str]:
    return {f"{service}.{kind}" for kind in (*get_args(reactions.Queue), "dead", *(f"retry.{delay}" for delay in DELAYS))}


class _Broker:
    """A blocking channel that is opened anew after the broker has closed it, which is how AMQP answers "no"."""

    def __init__(self, connection: pika.BlockingConnection):
        self._connection = connection
        self._channel: BlockingChannel | None = None

    @property
    def channel(self) -> BlockingChannel:
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        return self._channel

    def declare(self, name: str, arguments: dict[str, Any]) -> None:
        """Raises Conflict."""
        try:
            self.channel.queue_declare(name, durable=True, arguments=arguments)
        except ChannelClosedByBroker as refusal:
            if refusal.reply_code != _ARGUMENTS_DIFFER:
                raise
            if not self.remove(name):
                raise Conflict(f"queue {name} has other arguments and is in use; drain it first: {refusal.reply_text}") from refusal
            self.channel.queue_declare(name, durable=True, arguments=arguments)

    def remove(self, name: str) -> bool:
        """Cuts a queue off from the events and deletes it; one with messages or consumers stays, with a warning.

        Returns whether it is gone. Quorum queues do not take the flags if-empty and if-unused, so it is looked at first.
        """
        if self._state(name) is None:
            return True
        for routing_key in contract():
            self.channel.queue_unbind(name, EVENTS, routing_key)
        state = self._state(name)
        if state is None:
            return True
        if state.message_count or state.consumer_count:
            log.warning("queue %s is stale but has %d messages, %d consumers: left", name, state.message_count, state.consumer_count)
            return False
        self.channel.queue_delete(name)
        log.info("queue %s was stale and is gone", name)
        return True

    def _state(self, name: str) -> pika.spec.Queue.DeclareOk | None:
        try:
            return self.channel.queue_declare(name, passive=True).method
        except ChannelClosedByBroker as refusal:
            if refusal.reply_code != _NOT_FOUND:
                raise
            return None
