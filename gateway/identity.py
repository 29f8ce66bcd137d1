"""Who calls: the access token of a request is exchanged with `residents` for a signed internal identity (30 s).

An identity is used for at most 20 s and never past its own end, so that a revoked post stops within 30 s. While residents
does not answer, a known caller goes on until the end of the identity. Requests that come with the same token at the same
time share one exchange.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import logging
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import orjson

from gateway import problems
from gateway.descriptors import Contract, Rpc
from gateway.upstream import Upstream
from services.chassis.errors import Unauthenticated, Unavailable

log = logging.getLogger(__name__)

FRESH = 20.0  # seconds an identity is used without asking again
MARGIN = 2.0  # seconds before its end from which it is not sent any more: it has to be valid on arrival
PAUSE = 1.0  # seconds between tries while residents does not answer
MAX_TOKEN = 4096  # bytes

GOES_ON = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(slots=True)
class Identity:
    token: str  # JWT, the value of the metadata x-steward-identity
    subject: str  # `staff/…`: key of rate limits
    fresh_until: float
    good_until: float


def auth_rpc(contract: Contract, name: str) -> Rpc:
    """An RPC of residents' Auth. Raises LookupError when the contract has none."""
    for rpc in contract.rpcs:
        if (rpc.service, rpc.group, rpc.name) == ("residents", "Auth", name):
            return rpc
    raise LookupError(f"the descriptor set has no steward.residents.v1.Auth/{name}")


class Identities:
    """The identities of recent callers, by access token."""

    def __init__(
        self,
        contract: Contract,
        upstream: Upstream,
        internal_token: str,
        timeout: float,
        count: Callable[[str], None],
        capacity: int = 10_000,
    ) -> None:
        """`count` is told of every outcome: hit, shared, exchanged, kept, refused, unavailable."""
        rpc = auth_rpc(contract, "ExchangeSession")
        self._request = rpc.input
        self._exchange = upstream.call(rpc)
        self._metadata = (("x-steward-internal", internal_token),)
        self._timeout, self._count, self._capacity = timeout, count, capacity
        self._known: OrderedDict[str, Identity] = OrderedDict()
        self._running: dict[str, asyncio.Task[Identity]] = {}

    async def of(self, authorization: bytes | None, trace: str, on_miss: Callable[[], None]) -> Identity:
        """The identity behind an Authorization header. `on_miss` is called before residents is asked and may raise.

        Raises Unauthenticated, Unavailable.
        """
        token = access_token(authorization)
        known = self._known.get(token)
        if known is not None and known.fresh_until > time.time():
            self._known.move_to_end(token)
            self._count("hit")
            return known
        running = self._running.get(token)
        if running is None:
            on_miss()
            # A task of its own: when the request that began it is cancelled, the others still get their answer.
            running = self._running[token] = asyncio.create_task(self._ask(token, known, trace))
            running.add_done_callback(lambda task: self._finished(token, task))
        else:
            self._count("shared")
        return await asyncio.shield(running)

    def forget(self, authorization: bytes | None) -> None:
        """Asks again next time: a service has refused the identity, or the session was ended here."""
        if authorization is not None:
            self._known.pop(access_token(authorization), None)

    def _finished(self, token: str, task: asyncio.Task[Identity]) -> None:
        self._running.pop(token, None)
        if not task.cancelled():
            task.exception()  # looked at even if every request that waited for it has gone

    async def _ask(self, token: str, known: Identity | None, trace: str) -> Identity:
        metadata = (*self._metadata, ("traceparent", trace))
        try:
            reply = await self._exchange(self._request(access_token=token), timeout=self._timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in GOES_ON and known is not None and known.good_until > time.time():
                known.fresh_until = min(time.time() + PAUSE, known.good_until)
                self._count("kept")
                return known
            self._known.pop(token, None)
            refusal = problems.from_rpc(error)
            if refusal.reason == "INTERNAL_ONLY":
                log.error("residents does not know this gateway: STEWARD_INTERNAL_TOKEN differs between the two")
            elif refusal.http in (401, 429):
                self._count("refused")
                raise refusal from None
            self._count("unavailable")
            raise Unavailable(
                "who you are cannot be checked at the moment; try again", reason="IDENTITY_UNAVAILABLE", retry_after=1
            ) from error
        self._count("exchanged")
        good_until = reply.expire_time.seconds + reply.expire_time.nanos / 1e9 - MARGIN
        identity = Identity(reply.token, subject(reply.token), min(time.time() + FRESH, good_until), good_until)
        self._known[token] = identity
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return identity


def access_token(authorization: bytes | None) -> str:
    """The token of `Authorization: Bearer …` (RFC 6750). Raises Unauthenticated."""
    if authorization is None:
        raise Unauthenticated("sign in first: POST /v1/auth/token")
    scheme, _, token = authorization.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or len(token) > MAX_TOKEN or not token.isascii() or not token.decode().isprintable():
        raise Unauthenticated("the Authorization header must be `Bearer` and an access token", reason="BAD_AUTHORIZATION")
    return token.decode()


def subject(jwt: str) -> str:
    """Whom an identity speaks of. It is not verified here: it only names a bucket, and services verify it themselves."""
    try:
        payload = jwt.split(".")[1]
        claims: Any = orjson.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return hashlib.sha256(jwt.encode()).hexdigest()
