"""What a service does when something happened elsewhere, and what it does by itself every so often.

A reaction is a function under `@on(EventMessage)`; it runs in one transaction together with its row in the inbox, so that it
has its effect once however often the event arrives. A reaction to events that come in great numbers may say `together=True`:
it is given all that have arrived, in one transaction with the inbox rows of all (ADR 8). Nothing here knows the broker: the
worker hands over bodies, and the topology reads the same table to bind queues. Reactions must not rely on the order of events.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast
from uuid import UUID

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from services.chassis import event_data

if TYPE_CHECKING:
    from services.chassis.db import Database, Transaction

Queue = Literal["directory", "events"]
React = Callable[["Event[Any]", "Transaction"], None]
ReactTogether = Callable[[Sequence["Event[Any]"], "Transaction"], None]
Run = Callable[["Database"], object]
M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=Callable[..., Any])

# These register for every service.
CHASSIS_MODULES = tuple(f"services.chassis.{name}" for name in ("directory", "clocks", "duties", "events", "figures", "retention"))

TOGETHER_WITHIN = 2.0  # s for several events; where one of them takes longer, each is handled by itself


class Permanent(Exception):
    """A failure that another attempt cannot mend: the message becomes a dead letter at once."""


class Malformed(Permanent):
    """The body is no event: broken JSON, a missing attribute, data that the event's message cannot hold."""


class Unexpected(Exception):
    """No reaction of this service wants the event.

    Not permanent: while a release rolls out, a queue may already be bound to a type that this replica is too old to know.
    """


class Failed(Exception):
    """One or several reactions to an event failed; what the others did is committed and will not be done again."""

    def __init__(self, failures: Mapping[str, Exception]):
        self.failures = dict(failures)
        super().__init__("; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in self.failures.items()))

    @property
    def permanent(self) -> bool:
        return all(isinstance(error, Permanent) for error in self.failures.values())


@dataclass(frozen=True, slots=True)
class Event(Generic[M]):
    """An event as it arrived: the CloudEvents envelope, and `data` as the protobuf message of the contract."""

    id: UUID
    source: str  # the service that emitted it, `work_orders`
    type: str  # `RepairReported`
    subject: str  # `estates/TFHY/repairs/…`
    time: datetime  # when it happened in business time; for timers the due instant
    recorded: datetime  # when it was written, machine time
    sequence: int  # counts the events of its aggregate, from 1
    position: int  # its place in the log of its source
    aggregate: str
    aggregate_id: UUID
    group_id: UUID | None
    company_id: UUID | None
    estate_id: UUID | None
    actor: str
    trace: str  # W3C traceparent, or empty
    data: M


@dataclass(frozen=True, slots=True)
class Reaction:
    """A line of the table that `@on` fills."""

    name: str  # `billing_reminders.reactions.bill_accepted_repair`: part of the inbox key, so renaming repeats effects
    source: str
    message: type[Message]
    function: React | ReactTogether
    queue: Queue
    together: bool = False  # the function takes several events at once

    def run(self, events: Sequence[Event[Any]], tx: Transaction) -> None:
        if self.together:
            cast(ReactTogether, self.function)(events, tx)
        else:
            for event in events:
                cast(React, self.function)(event, tx)

    @property
    def type(self) -> str:
        return self.message.DESCRIPTOR.name

    @property
    def routing_key(self) -> str:
        return f"{self.source}.{self.type}"


@dataclass(frozen=True, slots=True)
class Periodic:
    """A function that every replica runs every `seconds`; it takes its own claims (SKIP LOCKED), or replicas do the work twice."""

    name: str
    seconds: float
    function: Run


@dataclass(frozen=True, slots=True)
class Reactions:
    """Everything one service reacts to."""

    service: str
    by_event: Mapping[tuple[str, str], tuple[Reaction, ...]]  # (source, type)
    periodic: tuple[Periodic, ...]

    def queue_of(self, source: str, type: str) -> Queue:
        """One event type comes by one queue; `directory` if any of its reactions asks for that."""
        return "directory" if any(r.queue == "directory" for r in self.by_event[source, type]) else "events"

    def routing_keys(self, queue: Queue) -> frozenset[str]:
        return frozenset(f"{source}.{type}" for source, type in self.by_event if self.queue_of(source, type) == queue)

    @property
    def together(self) -> frozenset[str]:
        """The routing keys of events that may be handled together: all their reactions take several at once."""
        return frozenset(f"{source}.{type}" for (source, type), wanted in self.by_event.items() if all(r.together for r in wanted))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `handle` did with a body."""

    source: str
    type: str
    recorded: datetime
    applied: int
    duplicates: int  # reactions that had had the event before


_reactions: dict[tuple[str, str, str], tuple[str, Reaction]] = {}  # (name, source, type) → (owner, reaction)
_periodic: dict[tuple[str, str], Periodic] = {}  # (owner, name)


def on(message: type[Message], *, source: str = "", queue: Queue = "events", service: str = "", together: bool = False) -> Callable[[F], F]:
    """Makes `function(event, tx)` a reaction to an event.

    The message's package names the service that emits it; events of the chassis, which every service emits, need `source`.
    The reaction belongs to the service whose folder it stands in; one in the chassis belongs to every service but the source.
    `service` overrides that, for functions that stand elsewhere. Raises TypeError when it is unclear who emits the event.

    `together` makes it `function(events, tx)`, for events that come in great numbers: it gets several, in the order in which
    they came, and does for them what it would do for each alone. Their inbox rows and those of the service's other reactions
    to them stand in the same transaction. If it raises, it is called again with each event by itself.
    """
    emitter = source or _package(message)
    if emitter == "chassis":
        raise TypeError(f"every service emits {message.DESCRIPTOR.name}: say whose with source=")

    def register(function: F) -> F:
        reaction = Reaction(_name(function), emitter, message, cast(React, function), queue, together)
        key = (reaction.name, emitter, reaction.type)
        if key in _reactions:
            raise TypeError(f"there are two reactions called {reaction.name} to {reaction.routing_key}")
        _reactions[key] = (service or _owner(function), reaction)
        reactions_of.cache_clear()
        return function

    return register


def every(seconds: float, *, name: str = "", service: str = "") -> Callable[[F], F]:
    """Makes `function(database)` run every `seconds` in every worker of the service; a count it returns is put in the metrics."""

    def register(function: F) -> F:
        periodic, owner = Periodic(name or function.__name__, seconds, cast(Run, function)), service or _owner(function)
        if (owner, periodic.name) in _periodic:
            raise TypeError(f"there are two periodic functions called {periodic.name}")
        _periodic[owner, periodic.name] = periodic
        reactions_of.cache_clear()
        return function

    return register


@cache
def reactions_of(service: str) -> Reactions:
    """The reactions of a service: its own and those of the chassis. Imports `services.<service>.reactions` if there is one."""
    for module in CHASSIS_MODULES:
        importlib.import_module(module)
    if importlib.util.find_spec(f"services.{service}") and importlib.util.find_spec(f"services.{service}.reactions"):
        importlib.import_module(f"services.{service}.reactions")
    by_event: dict[tuple[str, str], list[Reaction]] = {}
    for owner, reaction in list(_reactions.values()):
        if owner == service or (owner == "chassis" and reaction.source != service):
            by_event.setdefault((reaction.source, reaction.type), []).append(reaction)
    periodic = tuple(p for (owner, _), p in list(_periodic.items()) if owner in (service, "chassis"))
    return Reactions(service, MappingProxyType({key: tuple(found) for key, found in by_event.items()}), periodic)


def handle(database: Database, service: str, body: bytes) -> Outcome:
    """Gives an event to each reaction that wants it, each in a transaction of its own with its inbox row.

    One failing reaction does not keep the event from the others. Raises Malformed for a body that is no event, Unexpected
    when nobody wants it, Failed when a reaction raised.
    """
    from services.chassis.db import with_retries  # here, so that the relay can read this table without SQLAlchemy

    event, wanted = _read(service, body)
    failures: dict[str, Exception] = {}
    applied = 0
    for reaction in wanted:
        try:
            applied += with_retries(lambda reaction=reaction: _once(database, reaction, event))  # type: ignore[misc]
        except Exception as error:
            failures[reaction.name] = error
    if failures:
        raise Failed(failures)
    return Outcome(event.source, event.type, event.recorded, applied, len(wanted) - applied)


def handle_together(database: Database, service: str, bodies: Sequence[bytes]) -> list[Outcome]:
    """Gives several events to their reactions in one transaction; for events whose reactions are all `together`.

    All or nothing: when it raises, whatever it raises, nothing has happened, and each event is to be handled by itself.
    """
    from services.chassis.db import with_retries  # as above

    arrived = [_read(service, body) for body in bodies]
    return with_retries(lambda: _all(database, arrived))


def glance(body: bytes) -> tuple[UUID | None, str, str]:
    """(event id, `work_orders.RepairReported`, subject) as far as a body shows them: for lists of what could not be handled."""
    try:
        envelope = orjson.loads(body)
        source, type = str(envelope["source"]).rpartition("/")[2], str(envelope["type"]).rpartition(".")[2]
        return UUID(envelope["id"]), f"{source}.{type}", str(envelope.get("subject", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, "unreadable", ""


def _once(database: Database, reaction: Reaction, event: Event[Any]) -> bool:
    """Whether the reaction ran; False when its inbox row was there."""
    with database.reaction(reaction.name, event.id) as tx:
        if tx is not None:
            reaction.run((event,), tx)
    return tx is not None


# In order of the key, as every replica takes them: of two that have the same events one waits for the other.
_TAKE = (
    "INSERT INTO inbox (reaction, event_id) SELECT * FROM unnest(%s::text[], %s::uuid[])"
    " ON CONFLICT DO NOTHING RETURNING reaction, event_id"
)


def _all(database: Database, arrived: Sequence[tuple[Event[Any], tuple[Reaction, ...]]]) -> list[Outcome]:
    wanted = sorted({(reaction.name, event.id) for event, reactions in arrived for reaction in reactions})
    outcomes: list[Outcome] = []
    work: dict[str, tuple[Reaction, list[Event[Any]]]] = {}
    with database.transaction(timeout=TOGETHER_WITHIN) as tx:
        fresh = set(tx.execute(_TAKE, ([name for name, _ in wanted], [str(identifier) for _, identifier in wanted])))
        for event, reactions in arrived:
            mine = [reaction for reaction in reactions if (reaction.name, event.id) in fresh]
            for reaction in mine:
                fresh.remove((reaction.name, event.id))  # should the same event have arrived twice
                work.setdefault(reaction.name, (reaction, []))[1].append(event)
            outcomes.append(Outcome(event.source, event.type, event.recorded, len(mine), len(reactions) - len(mine)))
        for reaction, events in work.values():
            reaction.run(events, tx)
    return outcomes


def _read(service: str, body: bytes) -> tuple[Event[Any], tuple[Reaction, ...]]:
    """An event, and who wants it. Raises Malformed, Unexpected."""
    source, type, envelope = _opened(body)
    wanted = reactions_of(service).by_event.get((source, type))
    if not wanted:
        raise Unexpected(f"{service} has no reaction to {source}.{type}")
    return _event(source, type, envelope, wanted[0].message), wanted


def _opened(body: bytes) -> tuple[str, str, dict[str, Any]]:
    try:
        envelope = orjson.loads(body)
        source, type = envelope["source"], envelope["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"not a CloudEvents document: {error!r}") from error
    if not isinstance(source, str) or not isinstance(type, str):
        raise Malformed("source and type of an event are texts")
    return source.removeprefix("steward/"), type.rpartition(".")[2], envelope


def _event(source: str, type: str, envelope: dict[str, Any], message: type[Message]) -> Event[Any]:
    try:
        if not isinstance(envelope["data"], dict):  # a text would be taken for a message without fields
            raise TypeError("data is no object")
        return Event(
            id=UUID(envelope["id"]),
            source=source,
            type=type,
            subject=envelope["subject"],
            time=datetime.fromisoformat(envelope["time"]),
            recorded=datetime.fromisoformat(envelope["recordedtime"]),
            sequence=int(envelope["sequence"]),
            position=int(envelope["position"]),
            aggregate=envelope["aggregate"],
            aggregate_id=UUID(envelope["aggregateid"]),
            group_id=_uuid(envelope.get("groupid")),
            company_id=_uuid(envelope.get("companyid")),
            estate_id=_uuid(envelope.get("estateid")),
            actor=envelope["actor"],
            trace=envelope.get("traceparent") or "",
            data=event_data.read(message, envelope["data"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, json_format.ParseError) as error:
        raise Malformed(f"{source}.{type}: {error!r}") from error


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def _package(message: type[Message]) -> str:
    """`work_orders` of the package `steward.work_orders.v1`."""
    return message.DESCRIPTOR.file.package.split(".")[1]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__.removeprefix('services.')}.{function.__qualname__}"


def _owner(function: Callable[..., Any]) -> str:
    parts = function.__module__.split(".")
    if len(parts) < 3 or parts[0] != "services":
        raise TypeError(f"{_name(function)} stands in no service's folder: say whose it is with service=")
    return parts[1]
