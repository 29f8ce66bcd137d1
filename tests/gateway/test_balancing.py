"""Pods come and go behind one name: the gateway finds them by the name alone, and no call is lost on the way.

A name server of the test's own answers for a headless Service; its pods are servers of the role api on 127.0.0.2, .3 and .4.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NoReturn

import grpc
import pytest

from gateway.upstream import OPTIONS, target
from services.chassis.errors import Unauthenticated
from services.chassis.rpc import NOTICE, Server
from services.chassis.settings import settings


class NameServer:
    """Answers every question for an IPv4 address with `addresses`, and every other with nothing."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        while True:
            query, client = self._socket.recvfrom(2048)
            if not query:
                return
            end = query.index(b"\0", 12) + 5  # of the question: name, type, class
            [kind] = struct.unpack("!H", query[end - 4 : end - 2])
            found = self.addresses if kind == 1 else []
            head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
            records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address) for address in found)
            self._socket.sendto(head + query[12:end] + records, client)


class Pod:
    """The real server of the role api at an address of its own. It answers every call with who it is: no caller is signed in."""

    def __init__(self, address: str, port: int = 0):
        self.server = Server(["surveys"], replace(settings(), bind=address, grpc_port=port, api_connection_age=1))
        self.server._guard.principal = partial(refuse, address)  # type: ignore[method-assign]
        self.port = self.server.start()
        self.path = next(operation.path for operation in self.server.operations if operation.service == "surveys")

    def stop(self) -> None:
        self.server.stop(5, notice=NOTICE)


def refuse(address: str, *_: object) -> NoReturn:
    raise Unauthenticated(address)


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


def test_a_name_is_looked_up_by_dns_and_numbers_are_taken_as_they_are() -> None:
    assert target("steward-surveys-api.property:50051") == "dns:///steward-surveys-api.property:50051"
    assert target("127.0.0.2:1;127.0.0.3:1") == "ipv4:127.0.0.2:1,127.0.0.3:1"


def test_calls_go_to_every_pod_and_follow_them_when_they_come_and_go(names: NameServer) -> None:
    first = Pod("127.0.0.2")
    pods = {"127.0.0.2": first, "127.0.0.3": Pod("127.0.0.3", first.port)}
    names.addresses = list(pods)

    async def story() -> None:
        # The same target as in production but for the name server, which /etc/resolv.conf names there.
        async with grpc.aio.insecure_channel(f"dns://127.0.0.1:{names.port}/steward-surveys-api.property:{first.port}", OPTIONS) as channel:
            who = channel.unary_unary(first.path)

            async def one() -> str:
                with pytest.raises(grpc.aio.AioRpcError) as answer:
                    await who(b"", timeout=5)
                assert answer.value.code() is grpc.StatusCode.UNAUTHENTICATED, f"a call was lost: {answer.value}"
                return str(answer.value.details())

            async def reached() -> Counter[str]:
                return Counter(await asyncio.gather(*(one() for _ in range(24))))

            await until(reached, {"127.0.0.2", "127.0.0.3"})
            shares = await reached()
            assert min(shares.values()) >= 10, f"round robin: {shares}"

            pods["127.0.0.4"] = Pod("127.0.0.4", first.port)  # scaled up: nothing has ended, and it is found all the same
            names.addresses = list(pods)
            await until(reached, set(pods))

            for leaving in ("127.0.0.2", "127.0.0.3"):  # rolled: stopped while calls go on, and the name still has it
                stopping = asyncio.create_task(asyncio.to_thread(pods.pop(leaving).stop))
                while not stopping.done():
                    await reached()
                await stopping
            await until(reached, {"127.0.0.4"})

    try:
        asyncio.run(story())
    finally:
        for pod in pods.values():
            pod.stop()


async def until(reached: Callable[[], Awaitable[Counter[str]]], wanted: set[str]) -> None:
    """Calls until exactly these pods have answered. Every call on the way must be answered."""
    async with asyncio.timeout(20):
        while set(await reached()) != wanted:
            await asyncio.sleep(0.1)
