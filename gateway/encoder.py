"""Messages to JSON: closures compiled once from the descriptors, with the result of json_format.MessageToDict at a third
of its cost (findings: a 20-row page took 2.2 ms). tests/gateway compares the two on every message of the contract.

ProtoJSON: lowerCamelCase names, unset fields left out, 64-bit integers as text, bytes as base64, enums by name.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from struct import pack, unpack
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

Encoder = Callable[[Any], Any]

WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value" for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
LEFT_TO_JSON_FORMAT = frozenset(f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue", "FieldMask", "Duration"))

_ROUNDS_TO_INFINITY = 3.4028235677973366e38  # as a 32-bit float
_EPOCH = date(1970, 1, 1).toordinal()
_TWO_DIGITS = [f"{number:02d}" for number in range(60)]


class Encoders:
    """Encoders of a pool, compiled when first asked for."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._known: dict[str, Encoder] = {"google.protobuf.Timestamp": encode_timestamp}

    def of(self, message: Descriptor) -> Encoder:
        """A function from a message to what orjson writes. It raises ValueError on an instant outside years 1 to 9999."""
        name = message.full_name
        if name not in self._known:
            if name in LEFT_TO_JSON_FORMAT:
                pool = self._pool
                self._known[name] = lambda value: json_format.MessageToDict(value, descriptor_pool=pool)
            elif name in WRAPPERS:
                encode = _scalar(message.fields_by_name["value"])
                self._known[name] = (lambda value: encode(value.value)) if encode else (lambda value: value.value)
            else:
                self._known[name] = self._message(message)
        return self._known[name]

    def _message(self, message: Descriptor) -> Encoder:
        fields: dict[int, tuple[str, Encoder | None]] = {}

        def encode(value: Message) -> dict[str, Any]:
            result = {}
            for field, content in value.ListFields():
                name, convert = fields[field.number]
                result[name] = content if convert is None else convert(content)
            return result

        self._known[message.full_name] = encode  # before its fields: a message may contain itself
        for field in message.fields:
            fields[field.number] = (field.json_name, self._field(field))
        return encode

    def _field(self, field: FieldDescriptor) -> Encoder | None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type)
        convert = self.of(field.message_type) if field.message_type is not None else _scalar(field)
        if not field.is_repeated:
            return convert
        return (lambda values: [convert(value) for value in values]) if convert else list

    def _map(self, entry: Descriptor) -> Encoder:
        key, content = entry.fields_by_name["key"], entry.fields_by_name["value"]
        convert = self.of(content.message_type) if content.message_type is not None else _scalar(content)
        name: Encoder = (lambda value: "true" if value else "false") if key.type == FieldDescriptor.TYPE_BOOL else str
        if convert is None:
            return lambda values: {name(key): value for key, value in values.items()}
        return lambda values: {name(key): convert(value) for key, value in values.items()}


def _scalar(field: FieldDescriptor) -> Encoder | None:
    """None: the Python value is the JSON value."""
    if field.enum_type is not None:
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return lambda value: None
        names = {value.number: value.name for value in reversed(field.enum_type.values)}  # of aliases the first one counts
        return lambda value: names.get(value, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: b64encode(value).decode("ascii")
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        return str
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _double
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return lambda value: _double(_shortest(value))
    return None


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _shortest(value: float) -> float:
    """The shortest decimal that is this 32-bit float: 0.1, not 0.10000000149011612."""
    if not math.isfinite(value):
        return value
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) < _ROUNDS_TO_INFINITY and unpack("<f", pack("<f", short))[0] == value:
            return short
    return float(f"{value:.9g}")


@lru_cache(maxsize=8192)
def _minute(minutes: int) -> str:
    """`2026-11-22T03:10:` of a count since 1970; instants that are shown together lie together. Raises ValueError outside years 1 to 9999."""
    days, minute = divmod(minutes, 1440)
    if not -719162 <= days <= 2932896:
        raise ValueError(f"no instant of years 1 to 9999: {minutes} min")
    return f"{date.fromordinal(_EPOCH + days).isoformat()}T{_TWO_DIGITS[minute // 60]}:{_TWO_DIGITS[minute % 60]}:"


def encode_timestamp(value: Any) -> str:
    """RFC 3339 in UTC with 0, 3, 6 or 9 digits of fraction, as Timestamp.ToJsonString."""
    minutes, second = divmod(value.seconds, 60)
    nanos = value.nanos
    if not 0 <= nanos < 1_000_000_000:
        raise ValueError(f"no instant of years 1 to 9999: {value.seconds} s {nanos} ns")
    whole = _minute(minutes) + _TWO_DIGITS[second]
    if not nanos:
        return whole + "Z"
    if not nanos % 1_000_000:
        return f"{whole}.{nanos // 1_000_000:03d}Z"
    if not nanos % 1000:
        return f"{whole}.{nanos // 1000:06d}Z"
    return f"{whole}.{nanos:09d}Z"
