"""The relay's way to the broker: one connection for the process, a channel in confirm mode for each service."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

from services.chassis.event_log import Entry
from services.chassis.topology import EVENTS, parameters

log = logging.getLogger(__name__)

CONFIRM_WITHIN = 30.0  # s; a broker that neither confirms nor says that it is blocked is lost


class Lost(Exception):
    """Database or broker is gone, or cannot be trusted any more: start over."""


class Broker:
    """The process's AMQP connection, opened anew when somebody needs a channel and it is gone."""

    def __init__(self, amqp_url: str):
        self._parameters = parameters(amqp_url)
        self._connection: AsyncioConnection | None = None
        self._opening = asyncio.Lock()
        self._closed: asyncio.Future[object] = asyncio.get_running_loop().create_future()  # why the connection ended
        self.blocked = False  # the broker has asked to wait: its memory or disk alarm is on

    async def channel(self) -> Channel:
        """A new channel. Raises Lost."""
        async with self._opening:
            connection = self._connection
            if connection is None or not connection.is_open:
                connection = await self._connect()
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        connection.channel(on_open_callback=opened.set_result)
        return await self._answer(opened)

    async def confirming(self, channel: Channel, answer: Callable[[Any], None]) -> None:
        """Puts a channel into confirm mode; `answer` gets the acks and nacks. Raises Lost."""
        confirming: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        channel.confirm_delivery(answer, callback=confirming.set_result)
        await self._answer(confirming)

    async def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            await asyncio.wait([self._closed], timeout=2)

    async def _connect(self) -> AsyncioConnection:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[object] = loop.create_future()
        closed = self._closed = loop.create_future()
        self.blocked = False

        def end(connection: object, reason: object) -> None:
            if not closed.done():
                closed.set_result(reason)

        self._connection = connection = AsyncioConnection(
            self._parameters,
            on_open_callback=opened.set_result,
            on_open_error_callback=end,
            on_close_callback=end,
            custom_ioloop=loop,
        )
        connection.add_on_connection_blocked_callback(lambda connection, method: self._block(True))
        connection.add_on_connection_unblocked_callback(lambda connection, method: self._block(False))
        await self._answer(opened)
        return connection

    def _block(self, blocked: bool) -> None:
        self.blocked = blocked
        log.warning("the broker %s", "is short of memory or disk and takes nothing" if blocked else "takes messages again")

    async def _answer(self, future: asyncio.Future[Any]) -> Any:
        """The future's result, unless the connection ends first or ten seconds pass. Raises Lost."""
        await asyncio.wait([future, self._closed], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise Lost(f"broker: {self._closed.result()!r}" if self._closed.done() else "broker: no answer for 10 s")
        return future.result()


class Outgoing:
    """One relay's way to the broker: a channel in confirm mode and what is out on it."""

    def __init__(self, service: str, broker: Broker, mandatory: Callable[[str], bool], done: Callable[[Entry, str], None]):
        self._service, self._broker, self._mandatory, self._done = service, broker, mandatory, done
        self._channel: Channel | None = None
        self._tag = 0
        self.out: dict[int, Entry] = {}  # delivery tag → entry, oldest first
        self.ended = ""  # why nothing goes out any more

    async def open(self) -> None:
        """Raises Lost."""
        self._channel = channel = await self._broker.channel()
        channel.add_on_close_callback(lambda channel, reason: self.end(f"channel: {reason!r}"))
        channel.add_on_return_callback(self._returned)
        await self._broker.confirming(channel, self._answered)

    def send(self, entry: Entry) -> None:
        """Publishes, unless this way has ended; `done` will be told "" or why it was refused."""
        if self.ended or self._channel is None or not self._channel.is_open:
            return
        self._tag += 1
        entry.returned, entry.sent_at = False, time.monotonic()
        self.out[self._tag] = entry
        self._channel.basic_publish(
            EVENTS,
            f"{self._service}.{entry.type}",
            entry.envelope(self._service),
            pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2, message_id=entry.id),
            mandatory=self._mandatory(entry.type),
        )

    def end(self, why: str) -> None:
        """Nothing goes out any more; late answers are not heard."""
        self.ended = self.ended or why
        if self._channel is not None and self._channel.is_open:
            self._channel.close()

    def overdue(self) -> bool:
        oldest = next(iter(self.out.values()), None)
        return oldest is not None and not self._broker.blocked and time.monotonic() - oldest.sent_at > CONFIRM_WITHIN

    def _returned(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        """Comes before the confirm of the same message."""
        for entry in self.out.values():
            if entry.id == properties.message_id:
                entry.returned = True

    def _answered(self, frame: Any) -> None:
        if self.ended:
            return
        tag, nacked = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Nack)
        tags = list(itertools.takewhile(lambda known: known <= tag, self.out)) if frame.method.multiple else [tag]
        for entry in [self.out.pop(known) for known in tags]:
            self._done(entry, "nacked" if nacked else "returned" if entry.returned else "")
