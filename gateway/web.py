"""A request as handlers see it, and what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from gateway import trace

Receive = Callable[[], Awaitable[Any]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"


class Response:
    """`reason` is the stable word of a refusal, for the log."""

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: bytes = b"", headers: Headers | None = None, *, reason: str = ""
    ) -> None:
        self.status, self.body, self.reason = status, body, reason
        self.headers: Headers = headers or []
        if content_type:
            self.headers.append((b"content-type", content_type))


class Request:
    """One HTTP request. `path` is as sent, percent-encoded; of a header sent twice the last one counts."""

    __slots__ = ("_receive", "address", "headers", "method", "path", "query", "route", "trace_id", "traceparent", "unread")

    def __init__(self, scope: Any, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("ascii")
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.address: str = scope["client"][0] if scope["client"] else ""
        self.traceparent, self.trace_id = trace.begin(self.headers.get(b"traceparent"))
        self.route = "unmatched"  # template of the route, for logs and metrics
        self.unread = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self._receive = receive

    def media_type(self) -> bytes:
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

    async def body(self, limit: int, timeout: float) -> bytes | None:
        """The whole body; None when it is larger than `limit` (announced or found so while reading).

        Raises TimeoutError when it has not come within `timeout` seconds, ConnectionError when the client has gone.
        """
        if not self.unread:
            return b""
        if int(self.headers.get(b"content-length", b"0")) > limit:
            return None
        async with asyncio.timeout(timeout):
            chunks, size = [], 0
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client has gone")
                chunks.append(message["body"])
                size += len(message["body"])
                if size > limit:
                    return None
                if not message["more_body"]:
                    self.unread = False
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def discard(self, limit: int, timeout: float) -> None:
        """Reads and forgets what is left of the body, so that closing the connection does not destroy the answer on its way."""
        try:
            async with asyncio.timeout(timeout):
                while limit > 0:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message["more_body"]:
                        return
                    limit -= len(message["body"])
        except TimeoutError:
            return


class ClientAddress:
    """Who is at the other end: the peer, or what trusted proxies say in X-Forwarded-For, read from the right."""

    def __init__(self, trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._trusted = trusted

    def of(self, request: Request) -> str:
        if not self._trusted or not self._is_trusted(request.address):
            return request.address
        hops = [hop.strip() for hop in request.headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",") if hop.strip()]
        for hop in reversed(hops):
            if not _is_address(hop):
                break
            if not self._is_trusted(hop):
                return hop
        return request.address

    def _is_trusted(self, text: str) -> bool:
        return _is_address(text) and any(ip_address(text) in network for network in self._trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
