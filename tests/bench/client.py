"""The load: an HTTP/1.1 client that does next to nothing, in a process of its own.

Requests are bytes made beforehand; of an answer it reads status and length. It costs less than 0.1 ms of CPU per request, so that on two
cores the platform is measured and not the client; its own CPU is reported apart.

    with Client(Load(port, requests, seconds=8)) as client:
        client.wait_started()    # the warm-up is over: what counts begins now
        client.wait_ended()      # what counts is over
        outcome = client.outcome()
"""

from __future__ import annotations

import asyncio
import pickle
import re
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be sent. Each of the `clients` asks again as soon as it has its answer; with a `rate` they share so many a second."""

    port: int
    requests: Sequence[bytes]
    seconds: float
    warm_up: float = 1.0  # seconds before what counts
    clients: int = 16
    rate: float = 0.0  # requests per second of all clients together
    again: bool = False  # from the first request anew after the last one (reads); else the load ends there


@dataclass(slots=True)
class Outcome:
    """`took`: seconds of each counted answer 200, sorted. `first_refusal`: status and body of the first answer that was not one."""

    elapsed: float = 0.0
    cpu: float = 0.0  # seconds, of the client
    took: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    first_refusal: str = ""
    sent: int = 0  # with those of the warm-up


class Client:
    """The process that sends a load."""

    def __init__(self, load: Load):
        self._process = subprocess.Popen([sys.executable, "-m", "tests.bench.client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        with self._process.stdin as stdin:
            pickle.dump(load, stdin)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def wait_started(self) -> None:
        assert self._heard() == "started"

    def wait_ended(self) -> None:
        assert self._heard() == "ended"

    def outcome(self) -> Outcome:
        outcome = self._heard()
        assert isinstance(outcome, Outcome)
        return outcome

    def _heard(self) -> Any:
        assert self._process.stdout
        try:
            return pickle.load(self._process.stdout)  # noqa: S301 - of our own child
        except EOFError:
            raise RuntimeError(f"the client ended with {self._process.wait()}") from None


class Run:
    """One load, from the first connection to the last answer."""

    def __init__(self, load: Load):
        self.load, self.outcome = load, Outcome()
        self.counting = self.stopping = False
        self._left = self._requests()
        self._idle: deque[Connection] = deque()  # taken in turn: one that rests for long would be closed by the gateway
        self._owed = 0  # requests whose time has come while every connection was busy
        self.open = 0
        self.lost = ""
        self.done = asyncio.Event()

    async def play(self) -> Outcome:
        loop = asyncio.get_running_loop()
        connections = [await self._connect(loop) for _ in range(self.load.clients)]
        self._idle = deque(connections if self.load.rate else ())
        pace = loop.create_task(self._pace()) if self.load.rate else None
        if not self.load.rate:
            for connection in connections:
                connection.ask()
        if self.load.warm_up:
            await self._until(self.load.warm_up)
        say("started")
        began, cpu, self.counting = time.perf_counter(), time.process_time(), True
        await self._until(self.load.seconds)
        self.counting = False
        self.outcome.elapsed, self.outcome.cpu = time.perf_counter() - began, time.process_time() - cpu
        say("ended")
        self.stopping = True
        if pace:
            pace.cancel()
            self.open = sum(connection.busy for connection in connections)
        if self.open:
            await asyncio.wait_for(self.done.wait(), 30)
        if self.lost:
            raise ConnectionError(self.lost)
        self.outcome.took.sort()
        return self.outcome

    def next(self, connection: Connection) -> bytes | None:
        """The next request for a connection that has just got its answer; None: it rests."""
        if self.load.rate and not self.stopping and not self._owed:
            self._idle.append(connection)
            return None
        request = None if self.stopping else next(self._left, None)
        if request is None:
            self.open -= 1
            if self.open <= 0:
                self.done.set()
            return None
        self._owed = max(0, self._owed - 1)
        self.outcome.sent += 1
        return request

    def _requests(self) -> Iterator[bytes]:
        while True:
            yield from self.load.requests
            if not self.load.again:
                return

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.load.port)
        self.open += 1
        return connection

    async def _until(self, seconds: float) -> None:
        """Waits so long, or until there is nothing more to ask."""
        try:
            await asyncio.wait_for(self.done.wait(), seconds)
        except TimeoutError:
            return

    async def _pace(self) -> None:
        began, due = time.perf_counter(), 0
        while True:
            due += 1
            await asyncio.sleep(max(0.0, began + due / self.load.rate - time.perf_counter()))
            self._owed += 1
            if self._idle:
                self._idle.popleft().ask()


class Connection(asyncio.Protocol):
    """A client: one connection that is kept, one request at a time."""

    def __init__(self, run: Run):
        self._run, self._outcome = run, run.outcome
        self._received, self._whole, self._asked = b"", 0, 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        request = self._run.next(self)
        self.busy = request is not None
        if request is not None:
            self._asked = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        if not self._whole:
            head = received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = LENGTH.search(received, 0, head)
            self._whole = head + 4 + (int(length.group(1)) if length else 0)
        if len(received) >= self._whole:
            self._answered(received)
            self._received, self._whole = b"", 0
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.stopping:
            self._run.lost = f"the gateway closed a connection: {error}"
            self._run.done.set()

    def _answered(self, answer: bytes) -> None:
        if answer[9:12] != b"200":
            self._outcome.refused[int(answer[9:12])] += 1
            self._outcome.first_refusal = (
                self._outcome.first_refusal or answer[9:12].decode() + " " + answer.partition(b"\r\n\r\n")[2].decode()
            )
        elif self._run.counting:
            self._outcome.took.append(time.perf_counter() - self._asked)


def say(what: object) -> None:
    pickle.dump(what, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    from tests.bench import client  # under its own name, so that what is pickled is the same to both sides

    client.say(asyncio.run(client.Run(pickle.load(sys.stdin.buffer)).play()))  # noqa: S301 - of our own parent
