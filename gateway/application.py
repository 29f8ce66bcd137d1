"""The ASGI application: finds the handler of a request and turns whatever it answers or raises into one HTTP response."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway import problems
from gateway.cors import Cors
from gateway.limits import neighbourhood
from gateway.logs import AccessLog
from gateway.metrics import Metrics
from gateway.problems import AddressTooLong, SlowBody
from gateway.routes import Router, Template
from gateway.web import ClientAddress, Headers, Request, Response
from services.chassis.errors import StewardError

log = logging.getLogger(__name__)

MAX_ADDRESS = 16 * 1024  # bytes of path and query
SMALL = 1024 * 1024  # bytes of an unread body that are read and forgotten so that the connection can go on
LINGER_BYTES, LINGER_SECONDS = 64 * 1024 * 1024, 2.0  # of a larger one, before the connection is closed
GONE = 499  # in logs: the client has left before the answer

Send = Callable[[Any], Awaitable[None]]


class Handler(Protocol):
    label: str  # template of the route

    async def __call__(self, request: Request, segments: list[str]) -> Response: ...


class Endpoint:
    """A hand-written endpoint."""

    def __init__(self, label: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self.label, self._answer = label, answer

    async def __call__(self, request: Request, segments: list[str]) -> Response:
        return await self._answer(request)


Endpoints = dict[tuple[str, str], Callable[[Request], Awaitable[Response]]]  # (method, path) → what answers


class Application:
    """Routes, with metrics and a log line for every answer."""

    def __init__(self, cors: Cors, clients: ClientAddress, metrics: Metrics | None, access: AccessLog | None) -> None:
        self.router: Router[Handler] = Router()
        self._cors, self._clients, self._metrics, self._access = cors, clients, metrics, access

    def add(self, endpoints: Endpoints) -> None:
        for (method, path), answer in endpoints.items():
            self.router.add(method, Template.parse(path), Endpoint(path, answer))

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """ASGI 3; only HTTP comes here."""
        began = time.perf_counter()
        request = Request(scope, receive)
        request.address = neighbourhood(self._clients.of(request))
        if self._metrics is not None:
            self._metrics.in_flight.inc()
        try:
            response = await self._answer(request)
            await self._send(request, response, send)
        finally:
            if self._metrics is not None:
                self._metrics.in_flight.dec()
        seconds = time.perf_counter() - began
        if self._metrics is not None:
            self._metrics.answered(request.route, request.method, response.status, seconds)
        if self._access is not None:
            self._access(request, response, seconds)

    async def _answer(self, request: Request) -> Response:
        try:
            if len(request.path) + len(request.query) > MAX_ADDRESS:
                raise AddressTooLong(f"path and query must not exceed {MAX_ADDRESS} bytes")
            if request.method == "OPTIONS":
                return self._cors.options(request, self.router.methods(request.path))
            handler, segments = self.router.find(request.method, request.path)
            request.route = handler.label
            return await handler(request, segments)
        except StewardError as error:
            return problems.response(error, request.path, request.trace_id)
        except TimeoutError:
            return problems.response(SlowBody("the body took too long to arrive"), request.path, request.trace_id)
        except ConnectionError:
            return Response(GONE)
        except Exception:
            log.exception("%s %s failed, trace %s", request.method, request.route, request.trace_id)
            return problems.response(StewardError(problems.OURS), request.path, request.trace_id)

    async def _send(self, request: Request, response: Response, send: Send) -> None:
        headers: Headers = [
            *response.headers,
            (b"x-trace-id", request.trace_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            *self._cors.headers(request),
        ]
        if response.status not in (204, 304):
            headers.append((b"content-length", str(len(response.body)).encode()))
        close, linger = ending(request)
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if linger:
            await send({"type": "http.response.body", "body": response.body, "more_body": True})
            await request.discard(LINGER_BYTES, LINGER_SECONDS)
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": response.body})


def ending(request: Request) -> tuple[bool, bool]:
    """Whether the connection must end after the answer, and whether to read on for a while before.

    What is left of a small body is read and forgotten by the server, and the connection goes on. A client that waits for
    `100 Continue` may or may not send its body now: nobody can tell where its next request would begin.
    """
    if not request.unread:
        return False, False
    if b"expect" in request.headers:
        return True, False
    announced = request.headers.get(b"content-length")
    large = announced is None or int(announced) > SMALL
    return large, large
