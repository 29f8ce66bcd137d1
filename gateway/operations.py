"""The operations of the contract behind their routes: who calls, may he call this often, what does he send, ask, answer."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import NoReturn

import grpc

from gateway import problems
from gateway.binding import Binding
from gateway.descriptors import PUBLIC
from gateway.identity import Identities
from gateway.limits import Buckets, Places
from gateway.problems import BodyTooLarge
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from gateway.web import Request, Response
from services.chassis.errors import InvalidInput, Violation

log = logging.getLogger(__name__)

MAX_LANGUAGE = 200  # bytes of Accept-Language that are passed on


@dataclass(frozen=True, slots=True)
class Guards:
    """What all operations share."""

    settings: GatewaySettings
    identities: Identities
    internal_token: str
    principals: Buckets  # by who is signed in
    addresses: Buckets  # by address: tokens not seen before, reads that need no token
    sign_ins: Buckets  # by address: changes that need no token
    places: Places
    large_uploads: Places


class Operation:
    """One route of one RPC."""

    def __init__(self, binding: Binding, upstream: Upstream, guards: Guards) -> None:
        self.label = binding.template.text
        self._binding, self._guards = binding, guards
        self._call = upstream.call(binding.rpc)
        self._public = binding.rpc.scope == PUBLIC
        self._large = binding.body_limit > guards.settings.body_limit

    async def __call__(self, request: Request, segments: list[str]) -> Response:
        """Raises StewardError."""
        guards, headers = self._guards, request.headers
        with guards.places:
            caller = self._anybody(request) if self._public else await self._somebody(request)
            timeout = self._timeout(headers.get(b"x-request-timeout"))
            with guards.large_uploads if self._large and self._is_large(headers) else contextlib.nullcontext():
                body = await self._body(request)
                message = self._binding.message(request, segments, body)
                metadata = [caller, ("traceparent", request.traceparent)]
                if (language := headers.get(b"accept-language")) is not None and len(language) <= MAX_LANGUAGE and language.isascii():
                    metadata.append(("accept-language", language.decode()))
                try:
                    reply = await self._call(message, timeout=timeout, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    self._refuse(request, error)
            return self._binding.response(reply)

    def _anybody(self, request: Request) -> tuple[str, str]:
        guards = self._guards
        (guards.addresses if self._binding.method == "GET" else guards.sign_ins).take(request.address)
        return ("x-steward-internal", guards.internal_token)

    async def _somebody(self, request: Request) -> tuple[str, str]:
        guards = self._guards
        identity = await guards.identities.of(
            request.headers.get(b"authorization"), request.traceparent, lambda: guards.addresses.take(request.address)
        )
        guards.principals.take(identity.subject)
        return ("x-steward-identity", identity.token)

    def _timeout(self, header: bytes | None) -> float:
        """Seconds; a client may ask for less than the gateway allows."""
        allowed = self._guards.settings.deadline
        if header is None:
            return allowed
        try:
            asked = float(header)
        except ValueError:
            asked = math.nan
        if not 0 < asked < math.inf:
            violation = Violation("X-Request-Timeout", "must be a number of seconds above 0")
            raise InvalidInput("the header X-Request-Timeout is wrong", reason="INVALID_HEADER", violations=[violation])
        return min(asked, allowed)

    def _is_large(self, headers: dict[bytes, bytes]) -> bool:
        return b"transfer-encoding" in headers or int(headers.get(b"content-length", b"0")) > self._guards.settings.body_limit

    async def _body(self, request: Request) -> bytes:
        if not self._binding.body:
            return b""
        body = await request.body(self._binding.body_limit, self._guards.settings.body_timeout)
        if body is None:
            raise BodyTooLarge(f"the body must not exceed {self._binding.body_limit} bytes")
        return body

    def _refuse(self, request: Request, error: grpc.aio.AioRpcError) -> NoReturn:
        """Raises the refusal the service meant."""
        refusal = problems.from_rpc(error, self._binding.client_path)
        if refusal.http == 401 and not self._public:
            self._guards.identities.forget(request.headers.get(b"authorization"))
        if refusal.http >= 500:
            log.warning("%s: %s %s, trace %s", self._binding.rpc.path, error.code().name, error.details(), request.trace_id)
        raise refusal from None
