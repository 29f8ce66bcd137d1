"""Services of another process, for the gateway to talk to: a real gRPC server made from the descriptors, with canned answers.

`answers[rpc name]` is a function `(request, context) -> reply` that a test may replace; `calls` remembers what arrived.
"""

from __future__ import annotations

import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import orjson
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from gateway.descriptors import Contract, Rpc
from services.chassis.errors import KeyReused, NotFound, StewardError, TooMany, Unauthenticated

INTERNAL_TOKEN = "shared-between-our-own"  # noqa: S105
Answer = Callable[[Any, grpc.ServicerContext], Any]


class Standin:
    """Knows one member of staff, `staff-1` with the token `good`, and answers every operation plausibly."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, Any, dict[str, str], float]] = []  # rpc, request, metadata, seconds left
        self.identity_seconds = 30.0
        self.exchange_delay = 0.0
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self.port = 0

    def start(self) -> None:
        """On the same port as before when it has run before."""
        server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 48 << 20), ("grpc.so_reuseport", 0)])
        by_service: dict[str, dict[str, Any]] = {}
        for rpc in self.contract.rpcs:
            by_service.setdefault(rpc.path.split("/")[1], {})[rpc.name] = grpc.unary_unary_rpc_method_handler(
                self._handler(rpc), request_deserializer=rpc.input.FromString, response_serializer=lambda reply: reply.SerializeToString()
            )
        for name, handlers in by_service.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    @contextmanager
    def down(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def reset(self) -> None:
        self.answers, self.calls, self.identity_seconds, self.exchange_delay = {}, [], 30.0, 0.0

    def called(self, name: str) -> list[Any]:
        return [request for rpc, request, _, _ in self.calls if rpc == name]

    @property
    def last(self) -> tuple[Any, dict[str, str], float]:
        """Request, metadata and seconds left of the last call that was not an exchange."""
        return next((request, metadata, left) for rpc, request, metadata, left in reversed(self.calls) if rpc != "ExchangeSession")

    def _handler(self, rpc: Rpc) -> Answer:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            with self._lock:
                self.calls.append((rpc.name, request, metadata, context.time_remaining()))
            try:
                if rpc.scope in ("INTERNAL", "PUBLIC") and metadata.get("x-steward-internal") != INTERNAL_TOKEN:
                    raise Unauthenticated("for our own processes", reason="INTERNAL_ONLY")
                if rpc.scope not in ("INTERNAL", "PUBLIC") and not metadata.get("x-steward-identity", "").startswith("e30."):
                    raise Unauthenticated("no identity")
                answer = self.answers.get(rpc.name) or getattr(self, f"_{rpc.name}", None)
                return answer(request, context) if answer else self._anything(rpc, request)
            except StewardError as error:
                refuse(context, error)

        return handle

    def _anything(self, rpc: Rpc, request: Any) -> Any:
        reply = rpc.output()
        for field in reply.DESCRIPTOR.fields:
            if field.name == "name":
                reply.name = getattr(request, "name", "") or f"{getattr(request, 'parent', '')}/things/1"
            elif field.name == "etag":
                reply.etag = "7"
        return reply

    def _ExchangeSession(self, request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(self.exchange_delay)
        if not request.access_token.startswith("good"):
            raise Unauthenticated("this session has ended", reason="SESSION_ENDED")
        reply = self.contract.message_class("steward.residents.v1.Identity")()
        claims = urlsafe_b64encode(orjson.dumps({"sub": f"staff/{request.access_token}"})).decode().rstrip("=")
        reply.token = f"e30.{claims}.signature"
        reply.expire_time.FromNanoseconds(int((time.time() + self.identity_seconds) * 1e9))
        return reply

    def _CreateSession(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.WhichOneof("credentials") == "staff":
            if request.staff.number == "LOCKED-001":
                raise TooMany("too many tries", reason="TOO_MANY_ATTEMPTS", retry_after=900)
            right = (request.staff.number, request.staff.password) == ("TFHY-003", "s3cret 密码")
        else:
            right = (request.resident.phone, request.resident.code) == ("13800000001", "123456")
        if not right:
            raise Unauthenticated("number or password is wrong", reason="BAD_CREDENTIALS")
        return self._session()

    def _RefreshSession(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.refresh_token != "again":  # noqa: S105
            raise Unauthenticated("used before", reason="SESSION_ENDED")
        return self._session()

    def _session(self) -> Any:
        return self.contract.message_class("steward.residents.v1.Session")(access_token="good", refresh_token="again", expires_in=900)  # noqa: S106

    def _ReportRepair(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.parent == "estates/NOWHERE":
            raise NotFound("there is no estate NOWHERE that you may see", reason="ESTATE_NOT_FOUND")
        if request.request_id == "reused":
            raise KeyReused("this key came with another body")
        repair = self.contract.message_class("steward.work_orders.v1.Repair")()
        repair.CopyFrom(request.repair)
        repair.name, repair.number, repair.state, repair.etag = f"{request.parent}/repairs/0192", "WX-20261122-0007", 1, "1"
        repair.report_time.FromSeconds(1_795_316_400)
        return repair

    def _GetRepair(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not request.name.endswith("/repairs/0192"):
            raise NotFound("there is no such repair")
        return self._anything(next(rpc for rpc in self.contract.rpcs if rpc.name == "GetRepair"), request)

    def _DownloadRefusals(self, request: Any, context: grpc.ServicerContext) -> Any:
        body = self.contract.message_class("google.api.HttpBody")
        return body(content_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", data=b"PK\x03\x04 refused rows")


def eventually(true: Callable[[], bool], within: float = 8) -> None:
    """Waits until something is so. Raises AssertionError when it is not within `within` seconds."""
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within} s")
        time.sleep(0.05)


def refuse(context: grpc.ServicerContext, error: StewardError, *more: Any) -> NoReturn:
    """As services do (AIP-193)."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain="steward", metadata={"http": str(error.http), "rule": error.rule})
    details = [info, *more]
    if error.violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if error.retry_after:
        details.append(error_details_pb2.RetryInfo())
        details[-1].retry_delay.FromSeconds(error.retry_after)
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message, details=packed)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


if __name__ == "__main__":  # for measuring: serves on the port given until it is killed
    import sys

    from gateway.settings import GatewaySettings

    alone = Standin(Contract.load(GatewaySettings().descriptors))
    alone.port = int(sys.argv[1])
    alone.start()
    threading.Event().wait()
