"""The data of an event, from JSON to its protobuf message.

Most events hold texts, flags and whole numbers. Those are read by a table made once for each message; protobuf's own reader
takes forty times as long, and has the rest, and the last word on everything that the table does not expect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
Take = Callable[[Any], Any]

_SMALL = {FieldDescriptor.TYPE_INT32: (-(1 << 31), 1 << 31), FieldDescriptor.TYPE_UINT32: (0, 1 << 32)}  # least, end


class _Unexpected(Exception):
    """The table has no word on this."""


def read(message: type[M], data: dict[str, Any]) -> M:
    """What json_format.ParseDict makes of it, fields passed over that this release does not know. Raises ParseError."""
    try:
        return message(**_arguments(message.DESCRIPTOR, data))
    except _Unexpected:
        return json_format.ParseDict(data, message(), ignore_unknown_fields=True)


def _arguments(message: Any, data: Any) -> dict[str, Any]:
    if type(data) is not dict:
        raise _Unexpected
    fields = _fields(message)
    arguments = {}
    for name, value in data.items():
        field = fields.get(name)
        if field is None:
            raise _Unexpected
        arguments[field[0]] = field[1](value)
    return arguments


@cache
def _fields(message: Any) -> dict[str, tuple[str, Take]]:
    """JSON name → the field's own, and how its value is taken; nothing of a message that JSON writes in a way of its own."""
    if message.file.package == "google.protobuf":
        return {}
    alone = [field for field in message.fields if field.containing_oneof is None]
    return {field.json_name: (field.name, take) for field in alone if (take := _taking(field)) is not None}


def _taking(field: Any) -> Take | None:
    one = _taking_one(field)
    if one is None or not field.is_repeated:
        return one
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return None

    def several(value: Any) -> list[Any]:
        if type(value) is not list:
            raise _Unexpected
        return [one(item) for item in value]

    return several


def _taking_one(field: Any) -> Take | None:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _flag
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return lambda value: _arguments(field.message_type, value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        numbers = {value.name: value.number for value in field.enum_type.values}

        def choice(value: Any) -> int:
            if type(value) is not str or value not in numbers:
                raise _Unexpected
            return numbers[value]

        return choice
    if field.type in _SMALL:
        least, end = _SMALL[field.type]

        def small(value: Any) -> int:
            if type(value) is not int or not least <= value < end:
                raise _Unexpected
            return value

        return small
    return _large if field.type == FieldDescriptor.TYPE_INT64 else None


def _text(value: Any) -> str:
    if type(value) is not str:
        raise _Unexpected
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _Unexpected
    return value


def _large(value: Any) -> int:
    """JSON writes 64 bits as a text."""
    if type(value) is not str or not (value.isascii() and value.isdigit() and len(value) < 19):
        raise _Unexpected
    return int(value)
