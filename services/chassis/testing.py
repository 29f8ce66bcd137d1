"""What tests of every service build on: databases with a small register in them, signed callers, a client, events.

Tests run against real PostgreSQL and real ports. They need no cleaning up: each makes a group, company and estate of its own
(`a_tree`) and looks only at what lies below it. Nothing here is imported by a running process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import string
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import grpc
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import message_factory
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.chassis import access, directory
from services.chassis.access import Grant, Principal
from services.chassis.db import Database, Transaction
from services.chassis.errors import Violation
from services.chassis.rpc import Server, proto_services
from services.chassis.settings import settings
from steward.options.v1 import options_pb2
from steward.residents.v1 import directory_pb2 as pb

T = TypeVar("T")

INTERNAL = "internal"  # as `who` of a call: another process of Steward
RESIDENT_KINDS = ("OWNER", "TENANT", "FAMILY_MEMBER")
COMPANY_ROLES = frozenset(
    {"MANAGEMENT_DEPT_MANAGER", "QUALITY_MANAGER", "FINANCE", "ADMIN_HR", "BRANCH_LEADER", "COMPANY_LEADER", "GENERAL_MANAGER"}
)
GROUP_ROLES = frozenset({"GROUP_OPERATIONS"})
STAFF_ROLES = tuple(
    name for name, number in options_pb2.Role.items() if number >= 10 and name not in ("DEVELOPER", "RENOVATION_HEAD", "VENDOR")
)


# --- settings ---------------------------------------------------------------------------------------------------------


def key_pair() -> tuple[str, str]:
    """A fresh Ed25519 key that signs internal identities: (private PEM, public PEM)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


@contextlib.contextmanager
def configured(**changes: object) -> Iterator[None]:
    """Runs a block under other settings: `configured(api_threads=2)`. `None` takes a setting away."""
    names = {f"STEWARD_{name.upper()}": value for name, value in changes.items()}
    before = {name: os.environ.get(name) for name in names}
    _set(names)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)
    settings.cache_clear()


# --- people and their part of the tree --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """Somebody who calls: a resident or a member of staff, with the grants of the moment."""

    kind: str
    id: UUID
    grants: tuple[Grant, ...] = ()

    @property
    def name(self) -> str:
        """`staff/<id>`, `people/<id>`: as it is recorded."""
        return f"{self.kind}/{self.id}"

    @property
    def principal(self) -> Principal:
        return Principal(self.kind, str(self.id), self.grants)

    @cached_property
    def identity(self) -> str:
        """The internal identity, signed for an hour."""
        return access.sign(self.principal, lifetime=3600)[0]


@dataclass
class Tree:
    """One group with a company and an estate: ids, and somebody for every role.

    `staff["TECHNICIAN"]` holds that role by a post at the estate (or company, group: where the role belongs);
    `residents["OWNER"]` belongs to the first unit, `neighbour` owns the last one.
    """

    group_id: UUID
    company_id: UUID
    estate_id: UUID
    code: str
    zone: str
    units: dict[str, UUID]
    staff: dict[str, Caller] = field(default_factory=dict)
    residents: dict[str, Caller] = field(default_factory=dict)

    @property
    def parent(self) -> str:
        return f"estates/{self.code}"

    @property
    def unit(self) -> str:
        """Number of the first unit."""
        return next(iter(self.units))

    @property
    def owner(self) -> Caller:
        return self.residents["OWNER"]

    @property
    def neighbour(self) -> Caller:
        return self.residents["NEIGHBOUR"]

    @property
    def technician(self) -> Caller:
        return self.staff["TECHNICIAN"]

    @property
    def estate(self) -> directory.Estate:
        return directory.Estate(self.estate_id, self.code, "天府花园", self.company_id, self.group_id, self.zone, "RESIDENTIAL")

    def node_of(self, role: str) -> tuple[str, UUID]:
        """(level, id) of the node at which a role is usually held."""
        if role in GROUP_ROLES:
            return "group", self.group_id
        return ("company", self.company_id) if role in COMPANY_ROLES else ("estate", self.estate_id)

    def by_role(self, role: str) -> Caller:
        return self.residents[role] if role in self.residents else self.staff[role]

    def hire(self, into: Database | Transaction, role: str) -> Caller:
        """One more member of staff with a post."""
        caller, entry = self._member_of_staff(role)
        _apply(into, [entry])
        return caller

    def move_in(self, into: Database | Transaction, kind: str, unit: str) -> Caller:
        """One more person who belongs to a unit: OWNER, TENANT or FAMILY_MEMBER."""
        caller, entry = self._occupant(kind, unit)
        _apply(into, [entry])
        return caller

    def _member_of_staff(self, role: str) -> tuple[Caller, pb.DirectoryEntry]:
        level, node = self.node_of(role)
        caller = Caller("staff", uuid4(), (Grant(role, level, node),))
        post = pb.Post(staff_id=str(caller.id), role=role, node_id=str(node))
        return caller, pb.DirectoryEntry(id=str(uuid4()), version=1, post=post)

    def _occupant(self, kind: str, unit: str) -> tuple[Caller, pb.DirectoryEntry]:
        caller = Caller("people", uuid4(), (Grant(kind, "unit", self.units[unit], self.estate_id),))
        membership = pb.Membership(person_id=str(caller.id), unit_id=str(self.units[unit]), estate_id=str(self.estate_id), kind=kind)
        return caller, pb.DirectoryEntry(id=str(uuid4()), version=1, membership=membership)


def a_tree(
    into: Database | Transaction,
    *,
    units: Iterable[str] = ("1-1-0101", "1-1-0102"),
    zone: str = "Asia/Shanghai",
    beside: Tree | None = None,
) -> Tree:
    """A new estate with everybody in it, written to a service's directory. `beside` puts it in the company of another."""
    code = "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))
    tree = Tree(
        group_id=beside.group_id if beside else uuid4(),
        company_id=beside.company_id if beside else uuid4(),
        estate_id=uuid4(),
        code=code,
        zone=zone,
        units={number: uuid4() for number in units},
    )
    group, company, estate = str(tree.group_id), str(tree.company_id), str(tree.estate_id)
    building = str(uuid4())
    nodes = {
        estate: pb.Node(
            kind=pb.Node.ESTATE,
            parent_id=company,
            code=code,
            name="天府花园",
            time_zone=zone,
            property_type=pb.RESIDENTIAL,
            estate_id=estate,
        ),
        building: pb.Node(kind=pb.Node.BUILDING, parent_id=estate, code="1栋", estate_id=estate),
    }
    if beside is None:
        nodes[group] = pb.Node(kind=pb.Node.GROUP, code=f"G{code}", name="集团")
        nodes[company] = pb.Node(kind=pb.Node.COMPANY, parent_id=group, code=f"C{code}", name="公司")
    for number, unit in tree.units.items():
        nodes[str(unit)] = pb.Node(kind=pb.Node.UNIT, parent_id=building, code=number, estate_id=estate, property_type=pb.RESIDENTIAL)
    entries = []
    for identifier, node in nodes.items():
        node.group_id = group
        if node.kind != pb.Node.GROUP:
            node.company_id = company
        entries.append(pb.DirectoryEntry(id=identifier, version=1, node=node))
    for role in STAFF_ROLES:
        tree.staff[role], entry = tree._member_of_staff(role)
        entries.append(entry)
    numbers = list(tree.units)
    for who, kind, where in [(kind, kind, numbers[0]) for kind in RESIDENT_KINDS] + [("NEIGHBOUR", "OWNER", numbers[-1])]:
        tree.residents[who], entry = tree._occupant(kind, where)
        entries.append(entry)
    _apply(into, entries)
    return tree


def _apply(into: Database | Transaction, entries: list[pb.DirectoryEntry]) -> None:
    if isinstance(into, Transaction):
        directory.apply(into, entries)
        return
    with into.transaction() as tx:
        directory.apply(tx, entries)
        directory.mark_filled(tx)


# --- a client of a running server -------------------------------------------------------------------------------------


class Refused(Exception):
    """A call that was answered with an error, in the words of the error table."""

    def __init__(self, error: grpc.RpcError):
        self.code: str = error.code().name
        self.message: str = error.details() or ""
        self.reason = self.rule = ""
        self.http = 0
        self.retry_after = 0
        self.violations: list[Violation] = []
        status = rpc_status.from_call(cast(Any, error))
        for detail in status.details if status else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                self.reason, self.rule, self.http = info.reason, info.metadata["rule"], int(info.metadata["http"])
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                wrong = error_details_pb2.BadRequest.FromString(detail.value).field_violations
                self.violations = [Violation(v.field, v.description) for v in wrong]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                self.retry_after = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.seconds
        super().__init__(f"{self.http} {self.code} {self.reason}: {self.message} {self.violations or ''}".rstrip())

    @property
    def fields(self) -> set[str]:
        """The paths of the fields that were wrong."""
        return {violation.field for violation in self.violations}


class Api:
    """Calls the RPCs of one service by their names, over its port."""

    def __init__(self, service: str, port: int):
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
        )
        self.methods = {method.name: method for proto in proto_services(service) for method in proto.methods}

    def request(self, rpc: str, **fields: Any) -> Any:
        return message_factory.GetMessageClass(self.methods[rpc].input_type)(**fields)

    def call(self, who: Caller | str | None, rpc: str, /, *, timeout: float = 10, trace: str = "", **fields: Any) -> Any:
        """Calls `ReportRepair` with the fields of its request. `who` is somebody, a raw identity, INTERNAL or nobody.

        Raises Refused.
        """
        return self.send(who, rpc, self.request(rpc, **fields), timeout=timeout, trace=trace)

    def send(self, who: Caller | str | None, rpc: str, request: Message, *, timeout: float = 10, trace: str = "") -> Any:
        method = self.methods[rpc]
        stub = self._channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        metadata = [("traceparent", trace)] if trace else []
        if who == INTERNAL:
            metadata.append(("x-steward-internal", settings().internal_token))
        elif who is not None:
            metadata.append(("x-steward-identity", who.identity if isinstance(who, Caller) else who))
        try:
            return stub(request, timeout=timeout, metadata=tuple(metadata))
        except grpc.RpcError as error:
            raise Refused(error) from None

    def close(self) -> None:
        self._channel.close()


@contextlib.contextmanager
def serving(*services: str) -> Iterator[tuple[Server, Api]]:
    """A server on a free port, and a client of the first service it serves."""
    server = Server(list(services))
    api = Api(services[0], server.start())
    try:
        yield server, api
    finally:
        api.close()
        server.stop(grace=1)


# --- events and time --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logged:
    """One row of the event log."""

    id: UUID
    type: str
    sequence: int
    subject: str
    data: dict[str, Any]
    occurred_at: datetime
    actor: str
    trace: str | None


def published(database: Database, aggregate_id: UUID | str, *types: str) -> list[Logged]:
    """What the log says about a case, in the order of its sequence; only `types` if any are named."""
    with database.read() as tx:
        rows = tx.execute(
            "SELECT id, type, sequence, subject, data, occurred_at, actor, trace FROM events WHERE aggregate_id = %s ORDER BY sequence",
            (str(aggregate_id),),
        )
    return [event for event in (Logged(*row) for row in rows) if not types or event.type in types]


def clock_events(database: Database, case_id: UUID | str) -> list[tuple[str, str, datetime]]:
    """(clock, event type, when it was due) of every mark that the clocks of a case have fired, in due order."""
    with database.read() as tx:
        rows = tx.execute(
            "SELECT data->'clock'->>'clock', type, occurred_at FROM events WHERE aggregate = 'clock' AND data->'clock'->>'aggregateId' = %s"
            " ORDER BY occurred_at, sequence",
            (str(case_id),),
        )
    return [(row[0], row[1], row[2]) for row in rows]


def event_body(
    message: Message,
    *,
    source: str = "",
    tree: Tree | None = None,
    id: UUID | None = None,
    aggregate: str = "",
    aggregate_id: UUID | None = None,
    sequence: int = 1,
    position: int = 1,
    at: datetime | None = None,
    actor: str = "",
    subject: str = "",
) -> bytes:
    """A CloudEvents document as the relay publishes it, for `reactions.handle`.

    `source` is the service that emits it, read from the message's package when left out.
    """
    source = source or message.DESCRIPTOR.file.package.split(".")[1]
    at = at or datetime.now(UTC)
    aggregate_id = aggregate_id or uuid4()
    aggregate = aggregate or next((f.name for f in message.DESCRIPTOR.fields if f.number == 1), "case")
    document = {
        "specversion": "1.0",
        "id": str(id or uuid4()),
        "source": f"steward/{source}",
        "type": f"{message.DESCRIPTOR.file.package}.{message.DESCRIPTOR.name}",
        "subject": subject or (f"estates/{tree.code}/{aggregate}s/{aggregate_id}" if tree else f"{aggregate}s/{aggregate_id}"),
        "time": at.isoformat(),
        "datacontenttype": "application/json",
        "data": MessageToDict(message),
        "sequence": sequence,
        "position": position,
        "aggregate": aggregate,
        "aggregateid": str(aggregate_id),
        "recordedtime": datetime.now(UTC).isoformat(),
        "actor": actor or f"system/{source}",
    }
    if tree:
        document |= {"estateid": str(tree.estate_id), "companyid": str(tree.company_id), "groupid": str(tree.group_id)}
    return orjson.dumps(document)


def eventually(look: Callable[[], T], *, within: float = 10, every: float = 0.02) -> T:
    """The first true thing that `look` returns. Fails with the last untrue one after `within` seconds."""
    until = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {within} s: {found!r}")
        time.sleep(every)
    return found


def set_time(database: Database, at: datetime) -> None:
    """Sets the business time of a service to an instant; it goes on from there."""
    with database.transaction() as tx:
        tx.execute("UPDATE business_time SET shifted_by = %s - clock_timestamp()", (at,))


def advance(database: Database, by: timedelta) -> None:
    with database.transaction() as tx:
        tx.execute("UPDATE business_time SET shifted_by = shifted_by + %s", (by,))


def business_now(database: Database) -> datetime:
    with database.read() as tx:
        return tx.now
