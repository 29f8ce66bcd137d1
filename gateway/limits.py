"""What one caller may take: requests per second, bytes of a body, a place among the operations in flight.

The buckets are those of one gateway process: behind a load balancer with n of them a caller gets up to n times the rate.
That is enough for their purpose, which is to keep one caller from crowding out the others.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.descriptors import Contract
from services.chassis.errors import TooMany, Unavailable

SLACK = 64 * 1024  # bytes of JSON around a file


class Buckets:
    """Token buckets by key: `rate` a second, `burst` at once, the keys used last kept. `refused` is called for every refusal."""

    def __init__(
        self, rate: float, burst: int, refused: Callable[[], None], capacity: int = 50_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._capacity, self._now, self._refused = rate, float(max(burst, 1)), capacity, now, refused
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → tokens left, when

    def take(self, key: str) -> None:
        """Raises TooMany, saying in how many seconds there is a token again. A rate of 0 refuses nothing."""
        if not self._rate:
            return
        now = self._now()
        tokens, then = self._levels.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        self._levels[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._levels) > self._capacity:
            self._levels.popitem(last=False)
        if tokens < 1:
            self._refused()
            raise TooMany("too many requests; slow down", retry_after=math.ceil((1 - tokens) / self._rate))


class Places:
    """At most `count` at once, as a context manager; who comes beyond that is refused at once instead of waiting."""

    def __init__(self, count: int, refused: Callable[[], None]) -> None:
        self._free, self._refused = count, refused

    def __enter__(self) -> None:
        """Raises Unavailable OVERLOADED."""
        if self._free <= 0:
            self._refused()
            raise Unavailable("too much is being worked on at the moment; try again", reason="OVERLOADED", retry_after=1)
        self._free -= 1

    def __exit__(self, *_: object) -> None:
        self._free += 1


def neighbourhood(address: str) -> str:
    """Key of an address in a bucket: itself, or the /64 of an IPv6 address, as one host has all of that."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(IPv6Address(int(parsed) >> 64 << 64)) if isinstance(parsed, IPv6Address) else address


def body_limit(contract: Contract, body: Descriptor, default: int) -> int:
    """Bytes a JSON body of this message may have: `default`, or what base64 makes of the largest files it may hold."""
    files = _bytes_in(contract, body, set())
    return default if files * 4 // 3 + SLACK <= default else -(-files // 3) * 4 + SLACK + default


def _bytes_in(contract: Contract, message: Descriptor, above: set[str]) -> int:
    """Sum of buf.validate's max_len over the bytes fields in a message and the messages in it."""
    if message.full_name in above:
        return 0
    total = 0
    for field in message.fields:
        rules: Any = contract.field_option(field, "buf.validate.field")
        times = 1
        if field.is_repeated and rules is not None and rules.HasField("repeated"):
            times, rules = rules.repeated.max_items or 1, rules.repeated.items
        if field.type == FieldDescriptor.TYPE_BYTES and rules is not None:
            total += times * rules.bytes.max_len
        elif field.message_type is not None:
            total += times * _bytes_in(contract, field.message_type, above | {message.full_name})
    return total
