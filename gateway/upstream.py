"""The services behind the gateway: one channel each, round robin over their processes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import grpc
from google.protobuf.message import Message

from gateway.descriptors import Rpc
from services.chassis.errors import NotFound, Unavailable

MAX_MESSAGE = 48 * 1024 * 1024  # bytes, as in services/chassis/rpc.py
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A process that is about to end says so by its health, and gets no new calls from then on.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})),
    ("grpc.enable_http_proxy", 0),
    # A process that was restarted is found again within 2 s; the default grows to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # One that has come is found when a connection ends, which services see to; the default looks every 30 s at most.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # Pings go while a call runs, and the watch of the health is one; services allow them (services/chassis/rpc.py). This also
    # sets TCP_USER_TIMEOUT, so that a machine that vanished is noticed after 5 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]

EVERY = "chassis"  # the package of what each service answers for itself

Call = Any  # grpc.aio.UnaryUnaryMultiCallable


class Upstream:
    """Channels by service name. Made inside the running event loop."""

    def __init__(self, addresses: dict[str, str]) -> None:
        """Raises ValueError on an address that cannot be used."""
        self._channels = {service: grpc.aio.insecure_channel(target(text), OPTIONS) for service, text in addresses.items()}

    def call(self, rpc: Rpc) -> Call:
        """A callable `(request, timeout=…, metadata=…)` that raises grpc.aio.AioRpcError."""
        if rpc.service == EVERY:
            return _Named({service: self.call(replace(rpc, service=service)) for service in self._channels if service != EVERY})
        channel = self._channels.get(rpc.service)
        if channel is None:
            return _Absent(rpc.service)
        return channel.unary_unary(rpc.path, request_serializer=_serialize, response_deserializer=rpc.output.FromString)

    async def reachable(self, service: str, within: float) -> bool:
        """Whether a connection to at least one process of the service stands, or can be made within `within` seconds."""
        channel = self._channels.get(service)
        if channel is None:
            return False
        try:
            async with asyncio.timeout(within):
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))


class _Absent:
    """Stands where no address was configured, so that one missing service costs its own operations only."""

    def __init__(self, service: str) -> None:
        self._service = service

    async def __call__(self, request: Message, *, timeout: float, metadata: Any) -> Message:
        raise Unavailable(f"{self._service} is not connected", reason="SERVICE_NOT_CONNECTED", retry_after=5)


class _Named:
    """An operation that every service answers for itself: the request's name (`services/work_orders/…`) says which."""

    def __init__(self, calls: dict[str, Call]) -> None:
        self._calls = calls

    async def __call__(self, request: Any, *, timeout: float, metadata: Any) -> Message:
        fields = request.DESCRIPTOR.fields_by_name
        parts = (request.name if "name" in fields else request.parent).split("/")
        call = self._calls.get(parts[1]) if len(parts) > 1 else None
        if call is None:
            raise NotFound("there is no such service", reason="SERVICE_NOT_FOUND")
        return await call(request, timeout=timeout, metadata=metadata)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def target(text: str) -> str:
    """`host:port[;host:port…]` as a gRPC target: one name is resolved to all its addresses, several must be IPv4 addresses."""
    places = [place.strip().replace("localhost:", "127.0.0.1:") for place in text.split(";") if place.strip()]
    if not places:
        raise ValueError("STEWARD_ADDRESSES names a service without an address")
    hosts = [place.rpartition(":")[0] for place in places]
    if all(_is_ipv4(host) for host in hosts):
        return "ipv4:" + ",".join(places)
    if len(places) > 1:
        raise ValueError(f"several addresses of a service must be IPv4 addresses: {text!r}; or give one name that resolves to all")
    return f"dns:///{places[0]}"


def _is_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4
    except ValueError:
        return False
