"""The role `api`: a thread-pool gRPC server that binds each RPC of a service's protos to a function by name.

`DispatchRepair` is `dispatch_repair(request, tx)` in `services/<service>/api`; the server does not start when a function or an
access rule is missing. One RPC is one database transaction. The order of checks is fixed: authenticated (401), role held
somewhere (403), exists and is in scope (404), etag (412), input (400), state (409).
"""

from __future__ import annotations

import hmac
import importlib
import inspect
import json
import logging
import pkgutil
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast
from uuid import UUID

import grpc
from google.api import annotations_pb2
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from protovalidate import Validator

from services.chassis import directory, figures, observe, policy_api
from services.chassis.access import EVERYTHING, Access, Grant, Principal, Scope, Verifier, covers, declared, opened
from services.chassis.business_time import Walk
from services.chassis.db import Database, Key, Transaction, with_retries
from services.chassis.errors import Forbidden, InvalidInput, NotFound, StewardError, Unauthenticated, Unavailable, Violation
from services.chassis.policy_api import Node, node_named
from services.chassis.settings import Settings, settings
from steward.chassis.v1 import business_time_pb2, policies_pb2
from steward.residents.v1.directory_pb2 import LookUpRequest, LookUpResponse

log = logging.getLogger(__name__)

MAX_MESSAGE = 48 * 1024 * 1024  # bytes; an import of 32 MiB with room around it
NOTICE = 1.0  # s from saying that the process ends to taking no more calls
ANSWERING = 0.9  # of the caller's time is the database's; the rest is for saying that it was not enough
LONGEST_MESSAGE, MOST_VIOLATIONS = 200, 3000  # characters of an error's sentence; bytes of its field violations
READS = ("Get", "List", "Search", "Count", "Download", "Exchange", "Preview")
EVERY = "chassis"  # owner of the operations that each service answers for itself

Function = Callable[[Any, Transaction], Message]


@dataclass(frozen=True)
class Operation:
    """One RPC, ready to be called."""

    service: str
    method: MethodDescriptor
    access: Access
    function: Function

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def reads(self) -> bool:
        return self.method.name.startswith(READS)

    @cached_property
    def naming(self) -> tuple[str, re.Pattern[str]] | None:
        """The field that names a resource and what its names look like: `{name=estates/*/repairs/*}` of the route."""
        rule = self.method.GetOptions().Extensions[annotations_pb2.http]
        path = getattr(rule, rule.WhichOneof("pattern") or "", "")
        found = re.search(r"\{(name|parent)=([^}]+)\}", path)
        return (found[1], re.compile(re.escape(found[2]).replace(r"\*", "[^/]+"))) if found else None

    def check_name(self, request: Any) -> None:
        """Raises NotFound when the name below an estate is of something else: an id behind another collection names nothing."""
        if (
            self.access.scope == "ESTATE"
            and self.naming
            and (name := getattr(request, self.naming[0]))
            and not self.naming[1].fullmatch(name)
        ):
            raise NotFound(f"{self.method.name} works on nothing of that name", reason="NAME_NOT_FOUND")


def snake(name: str) -> str:
    """`DispatchRepair` → `dispatch_repair`; `GetSQI` stays readable because names are words."""
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


def proto_services(service: str) -> list[ServiceDescriptor]:
    """The gRPC services a Steward service's protos define."""
    package = importlib.import_module(f"steward.{service}.v1")
    found: list[ServiceDescriptor] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.endswith("_pb2")):
        found += importlib.import_module(f"steward.{service}.v1.{module}").DESCRIPTOR.services_by_name.values()
    return found


def operations(service: str) -> list[Operation]:
    """Every RPC of a service with its function. Raises LookupError naming what is missing."""
    functions = _functions(service)
    found = []
    for proto in proto_services(service):
        for method in proto.methods:
            access, function = declared(method), functions.get(snake(method.name))
            if access is None:
                raise LookupError(f"{method.full_name} declares no access rule")
            if function is None:
                raise LookupError(f"services.{service}.api has no {snake(method.name)} for {method.full_name}")
            found.append(Operation(service, method, access, function))
    return found


def mounted() -> list[Operation]:
    """The operations that each service answers for itself; the request's name (`services/work_orders/…`) says which."""
    return [
        Operation(EVERY, method, cast(Access, declared(method)), getattr(policy_api, snake(method.name)))
        for method in policies_pb2.DESCRIPTOR.services_by_name["Policies"].methods
    ]


def _functions(service: str) -> dict[str, Function]:
    """The functions of `services/<service>/api`, a module or a folder of modules."""
    api = importlib.import_module(f"services.{service}.api")
    modules = [api] + [importlib.import_module(f"{api.__name__}.{m.name}") for m in pkgutil.iter_modules(getattr(api, "__path__", ()))]
    return {name: function for module in modules for name, function in vars(module).items() if inspect.isfunction(function)}


class Recent:
    """Answers of the last `seconds`, so that a busy caller costs one look at the directory, not one per call."""

    def __init__(self, seconds: float = 5.0, capacity: int = 10_000):
        self._seconds, self._capacity = seconds, capacity
        self._answers: dict[Any, tuple[float, Any]] = {}

    def get(self, key: Any, ask: Callable[[], Any]) -> Any:
        """The remembered answer, or a new one; None is not remembered."""
        known = self._answers.get(key)
        if known and known[0] > time.monotonic():
            return known[1]
        answer = ask()
        if answer is not None:
            if len(self._answers) >= self._capacity:
                self._answers.clear()
            self._answers[key] = (time.monotonic() + self._seconds, answer)
        return answer

    def first(self, key: Any) -> bool:
        """Whether this is the first time within the seconds that the key is asked for."""
        known = self._answers.get(key)
        self.get(key, lambda: True)
        return known is None or known[0] <= time.monotonic()


class Guard:
    """Decides who calls and what of the data the call may touch."""

    def __init__(self, config: Settings):
        self._verifier = Verifier(config.identity_public_keys)
        self._internal = config.internal_token
        self._estates, self._nodes, self._gone = Recent(), Recent(), Recent()

    def principal(self, operation: Operation, metadata: dict[str, str]) -> Principal:
        """Raises Unauthenticated, Forbidden."""
        access = operation.access
        if access.scope in ("INTERNAL", "PUBLIC"):
            if not self._internal or not hmac.compare_digest(metadata.get("x-steward-internal", ""), self._internal):
                raise Unauthenticated("this operation is for Steward's own processes", reason="INTERNAL_ONLY")
            return Principal("system", "gateway")
        token = metadata.get("x-steward-identity")
        if not token:
            raise Unauthenticated("sign in first")
        principal = self._verifier.principal(token)
        if principal.temporary and not access.with_temporary_password:
            raise Forbidden("change your temporary password first (SetPassword)", reason="PASSWORD_CHANGE_REQUIRED")
        if access.scope != "SELF" and not principal.holds(access.roles):
            raise Forbidden("none of your roles may do this")
        return principal

    def enter(self, operation: Operation, principal: Principal, request: Any, database: Database, timeout: float) -> tuple[Scope, Any]:
        """The scope of the call and the estate it names. Raises NotFound when that is outside the caller's part of the tree."""
        access = operation.access
        if access.scope in ("INTERNAL", "PUBLIC"):
            return EVERYTHING, None
        if access.scope == "SELF":  # no part of the tree; rows of one's own are protected by the principal
            return Scope(), None
        scope = opened(principal, access.roles)
        if principal.is_staff:
            scope = self._still_held(principal, access, scope, database, timeout)
        if access.scope == "GROUP":
            if not scope.groups:
                raise Forbidden("the role that allows this is one held at the group, not below it", reason="GROUP_ROLE_REQUIRED")
            return replace(scope, companies=frozenset(), estates=frozenset()), None
        if access.scope == "NODE":
            return self._at_node(scope, request.node, database, timeout), None
        code = estate_code(request)
        if code is None or "\x00" in code:
            raise InvalidInput(
                "the request names no estate", violations=[Violation(_naming_field(request), "must begin with estates/{code}")]
            )
        if code == "-":
            return scope, None
        estate = self._estates.get((database.service, code), lambda: self._estate(database, code, timeout))
        if estate is None or not covers(scope, estate=estate.id, company=estate.company_id, group=estate.group_id):
            raise directory.UnknownEstate(code, asked=estate is not None)
        return replace(scope, groups=frozenset(), companies=frozenset(), estates=frozenset({estate.id})), estate

    def _at_node(self, scope: Scope, name: str, database: Database, timeout: float) -> Scope:
        """The part of the tree below the node named. Raises InvalidInput, NotFound."""
        if name.count("/") != 1 or "\x00" in name:
            what = [Violation("node", "must be groups/{id}, companies/{id} or estates/{code}")]
            raise InvalidInput("the request names no node of the tree", violations=what)
        node = self._nodes.get((database.service, name), lambda: self._node(database, name, timeout))
        if node is None or not covers(scope, estate=node.estate_id, company=node.company_id, group=node.group_id):
            raise NotFound(f"there is no {name} that you may see", reason="NODE_NOT_FOUND")
        inside = {level: frozenset({node.id}) if level == node.level else frozenset() for level in ("group", "company", "estate")}
        return replace(scope, groups=inside["group"], companies=inside["company"], estates=inside["estate"])

    def _node(self, database: Database, name: str, timeout: float) -> Node | None:
        with database.read(timeout=timeout) as tx:
            return node_named(tx, name)

    def _still_held(self, principal: Principal, access: Access, scope: Scope, database: Database, timeout: float) -> Scope:
        """Drops grants the directory has lost since the identity was signed. Raises Forbidden when none is left."""
        gone = self._gone.get((database.service, principal), lambda: self._revoked(database, principal, timeout))
        if not gone:
            return scope
        left = replace(principal, grants=tuple(g for g in principal.grants if g not in gone))
        if not left.holds(access.roles):
            raise Forbidden("the post that allowed this has been revoked", reason="POST_REVOKED")
        return opened(left, access.roles)

    def _revoked(self, database: Database, principal: Principal, timeout: float) -> set[Grant]:
        with database.read(timeout=timeout) as tx:
            return directory.revoked(tx, UUID(principal.id), principal.grants)

    def _estate(self, database: Database, code: str, timeout: float) -> directory.Estate | None:
        with database.read(timeout=timeout) as tx:
            return directory.estate_by_code(tx, code)


def _naming_field(request: Any) -> str:
    return "parent" if "parent" in request.DESCRIPTOR.fields_by_name else "name"


def estate_code(request: Any) -> str | None:
    """`TFHY` of `estates/TFHY/repairs/…` in the field `parent`, `name`, or the `name` of the resource being updated."""
    fields = request.DESCRIPTOR.fields_by_name
    text = ""
    for field in ("parent", "name"):
        if field in fields:
            text = getattr(request, field)
    if not text:
        for field in fields.values():
            if field.message_type and "name" in field.message_type.fields_by_name and not field.is_repeated:
                text = getattr(request, field.name).name
    parts = text.split("/")
    return parts[1] if len(parts) > 1 and parts[0] == "estates" and parts[1] else None


class Server:
    """The gRPC server of one process, for one or several services."""

    def __init__(self, services: list[str], config: Settings | None = None):
        self.config = config or settings()
        connections = self.config.api_threads + 2  # a thread each: one that is made and closed again costs more than a command
        self.databases = {service: Database(service, self.config.database(service), pool_size=connections) for service in services}
        self.operations = [operation for service in services for operation in operations(service)] + mounted()
        self._guard = Guard(self.config)
        self._asked, self._residents = Recent(), Client("residents", self.config)
        self._validator = Validator()
        self.draining = False
        self._grpc = grpc.server(
            ThreadPoolExecutor(self.config.api_threads, thread_name_prefix="rpc"),
            maximum_concurrent_rpcs=self.config.api_threads + self.config.api_queue,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients ping every 30 s
                *((("grpc.max_connection_age_ms", self.config.api_connection_age * 1000),) if self.config.api_connection_age else ()),
            ],
        )
        if self.config.development:
            self.operations += self._moved_time()
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._grpc)
        by_service: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
        for operation in self.operations:
            request = message_factory.GetMessageClass(operation.method.input_type)
            handler = grpc.unary_unary_rpc_method_handler(
                self._handler(operation), request_deserializer=request.FromString, response_serializer=lambda reply: reply
            )
            by_service.setdefault(operation.method.containing_service.full_name, {})[operation.method.name] = handler
        for name, handlers in by_service.items():
            self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    def _moved_time(self) -> list[Operation]:
        """The operations of BusinessTime; they open their own transactions, in the database of the service they name."""
        walk = Walk(self.databases)
        proto = business_time_pb2.DESCRIPTOR.services_by_name["BusinessTime"]
        first = next(iter(self.databases))
        return [Operation(first, m, cast(Access, declared(m)), getattr(walk, snake(m.name))) for m in proto.methods]

    def start(self) -> int:
        """Listens, and returns the port."""
        self.port = self._grpc.add_insecure_port(f"{self.config.bind}:{self.config.grpc_port}")
        self._grpc.start()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        return self.port

    def stop(self, grace: float = 10, notice: float = 0.0) -> None:
        """Finishes what is being worked on, takes nothing new.

        `notice`: seconds between saying so and doing so, in which clients go elsewhere. A call that arrives with the end itself
        is lost: gRPC cancels what no thread has taken up yet.
        """
        self.draining = True
        self.health.enter_graceful_shutdown()
        time.sleep(notice)
        self._grpc.stop(grace).wait()
        for database in self.databases.values():
            database.dispose()

    def why_not_ready(self) -> str:
        """Empty when every database answers as an unprivileged role with the right schema and a filled directory."""
        from services.chassis.migrate import behind

        if self.draining:
            return "draining"
        for service, database in self.databases.items():
            with database.read() as tx:
                privileged = tx.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")[0][0]
                if privileged:
                    return f"{service}: the database role must not be a superuser nor bypass row-level security"
                heads = {row[0] for row in tx.execute("SELECT version_num FROM schema_revisions")}
                if missing := behind(service, heads):
                    return f"{service}: the schema lacks {', '.join(sorted(missing))}"
                if service != "residents" and not directory.filled(tx):
                    return f"{service}: the directory has had no first copy yet"
        return ""

    def _handler(self, operation: Operation) -> Callable[[Message, grpc.ServicerContext], bytes]:
        labels = (operation.service, operation.method.name)
        in_flight = observe.RPC_IN_FLIGHT.labels(operation.service)

        def handle(request: Message, context: grpc.ServicerContext) -> bytes:
            started, code = time.perf_counter(), "OK"
            in_flight.inc()
            try:
                return with_retries(lambda: self._call(operation, request, context))
            except StewardError as error:
                code = error.code
                refuse(context, error)
            except Exception:
                code = "INTERNAL"
                log.exception("%s failed", operation.method.name)
                refuse(context, StewardError("something broke on our side; it has been logged"))
            finally:
                in_flight.dec()
                observe.RPC_SECONDS.labels(*labels, code).observe(time.perf_counter() - started)
            raise AssertionError("unreachable")

        return handle

    def _call(self, operation: Operation, request: Any, context: grpc.ServicerContext) -> bytes:
        try:
            return self._once(operation, request, context)
        except (directory.UnknownUnit, directory.UnknownEstate) as unknown:
            if not self._learned(operation.service, unknown.asks):
                raise
        return self._once(operation, request, context)

    def _learned(self, service: str, asks: LookUpRequest | None) -> bool:
        """Asks residents once, outside any transaction, about what the copy does not know. Raises Unavailable when it is down."""
        if asks is None or service not in self.databases or service == "residents" or "residents" not in self.config.addresses:
            return False
        if not self._asked.first((service, asks.estate_code, asks.unit)):
            return False
        reply = self._residents.call("Directory", "LookUp", asks, LookUpResponse.DESCRIPTOR, timeout=1.0)
        with self.databases[service].transaction() as tx:
            return directory.apply(tx, reply.entries) > 0

    def _once(self, operation: Operation, request: Any, context: grpc.ServicerContext) -> bytes:
        metadata = {str(k): str(v) for k, v in context.invocation_metadata()}
        timeout = (context.time_remaining() or 0.0) * ANSWERING
        principal = self._guard.principal(operation, metadata)
        database = self._named(request) if operation.service == EVERY else self.databases[operation.service]
        scope, estate = self._guard.enter(operation, principal, request, database, timeout)
        operation.check_name(request)
        violations = self._violations(request)
        request_id: str = getattr(request, "request_id", "")
        key = None
        if request_id and not operation.reads and "\x00" not in request_id:  # that is among the violations
            key = Key(operation.method.name, request_id, request.SerializeToString(deterministic=True))
        if operation.reads:
            opened = database.look(principal, scope, timeout=timeout)
        else:
            opened = database.transaction(principal, scope, key=key, timeout=timeout)
        with opened as tx:
            if tx.replay is not None:
                return tx.replay.reply
            tx.estate, tx.violations, tx.trace, tx.request_id = estate, violations, metadata.get("traceparent", ""), request_id
            if violations and not _names_existing(request):
                tx.check_input()
            reply = operation.function(request, tx)
            data = reply.SerializeToString()
            tx.store_reply(data)
        return data

    def _named(self, request: Any) -> Database:
        """The database of the service in the request's name or parent. Raises NotFound when this process does not serve it."""
        parts = str(getattr(request, _naming_field(request))).split("/")
        if len(parts) < 2 or parts[0] != "services" or parts[1] not in self.databases:
            raise NotFound("there is no such service here", reason="SERVICE_NOT_FOUND")
        return self.databases[parts[1]]

    def _violations(self, request: Message) -> list[Violation]:
        return [
            Violation(_path(v.proto.field), v.proto.message or v.proto.rule_id) for v in self._validator.collect_violations(request)
        ] + list(_impossible(request))


def _names_existing(request: Any) -> bool:
    return "name" in request.DESCRIPTOR.fields_by_name


def _path(field: Any) -> str:
    parts = []
    for element in field.elements:
        subscript = element.subscript
        index = f"[{subscript.value}]" if subscript is not None and hasattr(subscript, "value") else ""
        parts.append(element.field_name + index)
    return ".".join(parts)


def _impossible(message: Message, prefix: str = "") -> Iterator[Violation]:
    """What no field rule says: texts PostgreSQL cannot store, instants no calendar has."""
    for field, value in message.ListFields():
        for item in value if field.is_repeated else (value,):
            if isinstance(item, str) and "\x00" in item:
                yield Violation(prefix + field.name, "must not contain the NUL character")
            elif isinstance(item, Message):
                if item.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
                    if not 0 <= item.seconds < 4_102_444_800 or not 0 <= item.nanos < 1_000_000_000:  # type: ignore[attr-defined]
                        yield Violation(prefix + field.name, "must lie between 1970 and 2100")
                elif not (field.message_type and field.message_type.GetOptions().map_entry):
                    yield from _impossible(item, f"{prefix}{field.name}.")


def refuse(context: grpc.ServicerContext, error: StewardError) -> None:
    """Ends the call with a google.rpc.Status (AIP-193) that carries reason, rule, fields and when to come back.

    It travels in the trailers, of which a gRPC peer takes 8 KiB: what a caller wrote may come back in it, but only so much.
    """
    sentence = error.message if len(error.message) <= LONGEST_MESSAGE else error.message[: LONGEST_MESSAGE - 1] + "…"
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain="steward", metadata={"http": str(error.http), "rule": error.rule})
    ]
    if error.violations:
        wrong = error_details_pb2.BadRequest()
        for v in error.violations:
            violation = error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            if wrong.ByteSize() + violation.ByteSize() > MOST_VIOLATIONS:
                break
            wrong.field_violations.append(violation)
        details.append(wrong)
    if error.retry_after:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromSeconds(error.retry_after)
        details.append(info)
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=sentence, details=packed)
    context.abort_with_status(rpc_status.to_status(status))


class Client:
    """Calls to another Steward service: asked before a transaction opens, with a deadline, never while a lock is held."""

    def __init__(self, service: str, config: Settings | None = None):
        config = config or settings()
        self._metadata = (("x-steward-internal", config.internal_token),)
        address = config.addresses.get(service, "")
        target = f"ipv4:{address.replace(';', ',')}" if address[:1].isdigit() else address
        balanced = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.service_config", json.dumps(balanced)),
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._service = service

    def call(self, proto: str, rpc: str, request: Message, reply: Any, timeout: float = 2.0) -> Any:
        """`reply` is the descriptor of what comes back. Raises Unavailable when the other side does not answer in `timeout` seconds."""
        cls = message_factory.GetMessageClass(reply)
        stub = self._channel.unary_unary(
            f"/steward.{self._service}.v1.{proto}/{rpc}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=cls.FromString,
        )
        try:
            return stub(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise Unavailable(f"{self._service} does not answer", reason=f"{self._service.upper()}_DOWN", retry_after=2) from error

    def close(self) -> None:
        self._channel.close()


def fill_directory(database: Database, client: Client) -> int:
    """The first copy of the register, page by page; repeating it is harmless. Returns how many entries came."""
    from steward.residents.v1 import directory_pb2 as pb

    token, total = "", 0
    while True:
        request = pb.ListEntriesRequest(page_size=2000, page_token=token)
        page = client.call("Directory", "ListEntries", request, pb.ListEntriesResponse.DESCRIPTOR, timeout=30)
        with database.transaction() as tx:
            directory.apply(tx, page.entries)
            if not page.next_page_token:
                directory.mark_filled(tx)
        total += len(page.entries)
        token = page.next_page_token
        if not token:
            return total


def _keep_filled(server: Server, stop: threading.Event) -> None:
    client = Client("residents", server.config)
    for service, database in server.databases.items():
        while service != "residents" and not stop.is_set():
            try:
                with database.read() as tx:
                    if directory.filled(tx):
                        break
                log.info("%s: directory filled with %d entries", service, fill_directory(database, client))
                break
            except StewardError as error:
                log.info("%s: directory not filled yet: %s", service, error.message)
                stop.wait(1)


@contextmanager
def ended_by_signal() -> Iterator[threading.Event]:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    yield stop


def run(services: list[str], config: Settings) -> int:
    """The process: serves until SIGTERM, then drains."""
    server = Server(services, config)
    for service in services:
        figures.announce(service)
    with ended_by_signal() as stop:
        observe.serve(config.http_port, config.bind, server.why_not_ready)
        port = server.start()
        log.info("api of %s on port %d", ", ".join(services), port)
        threading.Thread(target=_keep_filled, args=(server, stop), daemon=True).start()
        stop.wait()
        server.stop(notice=NOTICE)
    return 0
