"""`POST /v1/dev/time:advance`, in the development profile alone: business time walks forward and everything due happens.

From due instant to due instant: shift every service there, wait until every log is published, every declared reaction to its
events is in an inbox (or dead) and no long-running operation is left, go on. The answer says what fired. Machine time (tokens,
leases, retries) never moves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import orjson

from gateway.descriptors import Contract, Rpc
from gateway.upstream import Upstream
from gateway.web import JSON, Request, Response
from services.chassis.errors import InvalidInput, Unavailable, Violation

PATH = "/v1/dev/time:advance"
PROTO = "steward.chassis.v1.BusinessTime"
LONGEST = timedelta(days=400)  # of one walk
SETTLED_WITHIN = 60.0  # seconds of machine time for one instant
BODY_LIMIT = 1024


class MovedTime:
    """The walker; one walk at a time."""

    def __init__(self, contract: Contract, upstream: Upstream, services: list[str], internal_token: str) -> None:
        self._rpcs = {rpc.path.rpartition("/")[2]: rpc for rpc in contract.rpcs if rpc.path.startswith(f"/{PROTO}/")}
        self._upstream, self._services, self._token = upstream, services, internal_token
        self._walking = asyncio.Lock()

    async def advance(self, request: Request) -> Response:
        """`{"duration": "3600s"}` → `{"now", "fired": [{"time", "type", "subject", "clock"}]}`. Raises InvalidInput, Unavailable."""
        by = self._duration(await request.body(BODY_LIMIT, 5.0))
        async with self._walking:
            began = datetime.now(UTC) - timedelta(seconds=1)
            await self._settle(began)
            target = max(state.now.ToDatetime(tzinfo=UTC) for state in await self._states()) + by
            while (due := await self._next_due()) is not None and due <= target:
                await self._shift(due)
                await self._settle(began)
            await self._shift(target)
            await self._settle(began)
            fired = await self._fired(began)
        body = {"now": target.isoformat().replace("+00:00", "Z"), "fired": fired}
        return Response(200, orjson.dumps(body), JSON)

    async def _next_due(self) -> datetime | None:
        return min((s.next_due.ToDatetime(tzinfo=UTC) for s in await self._states() if s.HasField("next_due")), default=None)

    async def _shift(self, to: datetime) -> None:
        await asyncio.gather(*(self._ask("ShiftBusinessTime", service, to=to) for service in self._services))

    async def _settle(self, since: datetime) -> None:
        """Waits until nothing is due, unpublished, unhandled or under way. Raises Unavailable after a minute, saying what hangs.

        A change of policy is under way until it has looked at the running clocks twice, some twenty seconds. Two looks in a row must
        find nothing: what a reaction has begun between the two questions of the first is seen by the second.
        """
        deadline, why, quiet = time.monotonic() + SETTLED_WITHIN, "", False
        while time.monotonic() < deadline:
            states = await self._states(events_since=since)
            by_service = list(zip(self._services, states, strict=True))
            waiting = {service: state.unpublished for service, state in by_service if state.unpublished}
            working = {service: state.operations for service, state in by_service if state.operations}
            events = [event for state in states for event in state.events]
            replies = await asyncio.gather(*(self._ask("ListUnhandled", service, events=events) for service in self._services))
            unhandled = [line for reply in replies for line in reply.unhandled]
            late = any(s.HasField("next_due") and s.next_due.ToDatetime() < s.now.ToDatetime() - timedelta(seconds=3) for s in states)
            if not (waiting or unhandled or working or late):
                if quiet:
                    return
                quiet = True
                continue
            quiet = False
            hangs = {"unpublished": waiting, "unhandled": unhandled[:5], "operations": working, "clocks that are due": late}
            why = "; ".join(f"{what} {which}" for what, which in hangs.items() if which)
            await asyncio.sleep(0.05)
        raise Unavailable(f"time was moved, but the platform did not settle: {why}", reason="NOT_SETTLED")

    async def _fired(self, since: datetime) -> list[dict[str, str]]:
        events = [event for state in await self._states(events_since=since) for event in state.events if event.type.startswith("Clock")]
        events.sort(key=lambda event: event.occurred_at.ToDatetime())
        return [
            {
                "time": e.occurred_at.ToDatetime(tzinfo=UTC).isoformat().replace("+00:00", "Z"),
                "type": e.type,
                "subject": e.subject,
                "clock": e.clock,
            }
            for e in events
        ]

    async def _states(self, **fields: Any) -> list[Any]:
        return list(await asyncio.gather(*(self._ask("GetBusinessTime", service, **fields) for service in self._services)))

    async def _ask(self, name: str, service: str, **fields: Any) -> Any:
        rpc: Rpc = dataclasses.replace(self._rpcs[name], service=service)
        message = rpc.input(service=service, **fields)
        try:
            return await self._upstream.call(rpc)(message, timeout=30.0, metadata=[("x-steward-internal", self._token)])
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{service} does not move its time: {error.details()}", reason="NOT_SETTLED") from error

    @staticmethod
    def _duration(body: bytes | None) -> timedelta:
        try:
            text = orjson.loads(body or b"")["duration"]
            if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,9})?s", text):
                raise ValueError
            by = timedelta(seconds=float(text[:-1]))
            if by > LONGEST:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            what = [Violation("duration", "must be seconds like 3600s, forward, 400 days at most")]
            raise InvalidInput("the duration is wrong", violations=what) from None
        return by
