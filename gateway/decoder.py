"""JSON to messages: closures compiled once from the descriptors.

What is accepted, is accepted with the result of json_format.ParseDict (tests/gateway compares the two). What ParseDict
lets through by accident is refused here: base64 with foreign characters, a text or list where an object belongs, numbers
written with `_` or blanks or as other scripts' digits, `true` or 1.5 for an enum, instants not in RFC 3339's form. So is
what PostgreSQL cannot store: the character NUL. A refusal names every wrong field by its JSON path, not only the first.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from gateway.encoder import LEFT_TO_JSON_FORMAT, WRAPPERS
from services.chassis.errors import InvalidInput, Violation

MAX_DEPTH = 100  # messages in one another; the same as json_format's
MAX_VIOLATIONS = 20  # reported at once

Convert = Callable[[Any], Any]  # a JSON value to a scalar; raises Wrong
Fill = Callable[[Message, Any, int], None]  # a JSON object into a message, at a depth; raises Wrong
Put = Callable[[Message, Any, int], None]  # a JSON value into a field of a message; raises Wrong


class Wrong(Exception):
    """Fields that cannot be taken: (path below the value at hand, description, whether the field is unknown)."""

    def __init__(self, *found: tuple[str, str, bool]) -> None:
        super().__init__(found)
        self.found = found

    @classmethod
    def here(cls, description: str) -> Wrong:
        return cls(("", description, False))

    def below(self, step: str) -> list[tuple[str, str, bool]]:
        """The same, seen from the parent: `step` is a field's name or an index in brackets."""
        return [(step + ("" if path[:1] in ("", "[") else ".") + path, text, unknown) for path, text, unknown in self.found]

    def refusal(self) -> InvalidInput:
        violations = [Violation(path, text) for path, text, _ in self.found[:MAX_VIOLATIONS]]
        if any(unknown for _, _, unknown in self.found):
            return InvalidInput("the request has a field that does not exist", reason="UNKNOWN_FIELD", violations=violations)
        return InvalidInput("the request has a wrong value", violations=violations)


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput INVALID_JSON on broken JSON (lone surrogates and NaN are), and on anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}", reason="INVALID_JSON"
        ) from None
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object", reason="INVALID_JSON")
    return value


class Decoders:
    """Decoders of a pool, compiled when first asked for. `ignored` says which fields to pass over (AIP-203: output only)."""

    def __init__(self, pool: DescriptorPool, ignored: Callable[[FieldDescriptor], bool] = lambda field: False) -> None:
        self._pool, self._ignored = pool, ignored
        self._known: dict[str, Fill] = {"google.protobuf.Timestamp": _fill_timestamp, "google.protobuf.Duration": _fill_duration}

    def of(self, message: Descriptor) -> Fill:
        """A function that fills a message from a JSON value; what it has filled before it raises Wrong is of no use."""
        name = message.full_name
        if name not in self._known:
            if name in LEFT_TO_JSON_FORMAT:
                self._known[name] = self._by_json_format
            elif name in WRAPPERS:
                convert = _scalar(message.fields_by_name["value"])

                def fill_wrapper(target: Any, value: Any, depth: int) -> None:
                    target.value = convert(value)

                self._known[name] = fill_wrapper
            else:
                self._known[name] = self._message(message)
        return self._known[name]

    def field(self, field: FieldDescriptor) -> Put:
        """A function that sets a field from a JSON value; null clears it."""
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            put = self._map(field)
        elif field.is_repeated:
            put = self._repeated(field)
        elif field.message_type is not None:
            put = self._submessage(field)
        else:
            put = _singular(field)
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Value" and not field.is_repeated:
            return put  # null is a value there
        name = field.name

        def put_or_clear(target: Message, value: Any, depth: int) -> None:
            if value is None:
                target.ClearField(name)
            else:
                put(target, value, depth)

        return put_or_clear

    def _message(self, message: Descriptor) -> Fill:
        fields: dict[str, tuple[Put, str]] = {}  # by JSON name and by proto name: how to set it, and the oneof it is of

        def fill(target: Message, value: Any, depth: int) -> None:
            if not isinstance(value, dict):
                raise Wrong.here("must be an object")
            if depth > MAX_DEPTH:
                raise Wrong.here("is nested too deeply")
            wrong: list[tuple[str, str, bool]] = []
            taken: dict[str, str] = {}
            for name, content in value.items():
                known = fields.get(name)
                if known is None:
                    wrong.append((_shown(name), "there is no such field", True))
                    continue
                put, oneof = known
                if oneof and content is not None and (other := taken.setdefault(oneof, name)) != name:
                    wrong.append((name, f"excludes {other}", False))
                    continue
                try:
                    put(target, content, depth + 1)
                except Wrong as error:
                    wrong += error.below(name)
                if len(wrong) > MAX_VIOLATIONS:
                    break
            if wrong:
                raise Wrong(*wrong)

        self._known[message.full_name] = fill  # before its fields: a message may contain itself
        for field in message.fields:
            put = _ignore if self._ignored(field) else self.field(field)
            oneof = field.containing_oneof
            fields[field.name] = fields[field.json_name] = (put, oneof.name if oneof is not None else "")
        return fill

    def _submessage(self, field: FieldDescriptor) -> Put:
        name, fill = field.name, self.of(field.message_type)  # type: ignore[arg-type]

        def put(target: Message, value: Any, depth: int) -> None:
            part = getattr(target, name)
            part.SetInParent()
            fill(part, value, depth)

        return put

    def _repeated(self, field: FieldDescriptor) -> Put:
        name = field.name
        fill = self.of(field.message_type) if field.message_type is not None else None
        convert = _scalar(field) if fill is None else None

        def put(target: Message, value: Any, depth: int) -> None:
            if not isinstance(value, list):
                raise Wrong.here("must be an array")
            target.ClearField(name)
            items = getattr(target, name)
            wrong: list[tuple[str, str, bool]] = []
            for index, item in enumerate(value):
                try:
                    if fill is not None:
                        fill(items.add(), item, depth)
                    elif convert is not None:
                        items.append(convert(item))
                except Wrong as error:
                    wrong += error.below(f"[{index}]")
                    if len(wrong) > MAX_VIOLATIONS:
                        break
            if wrong:
                raise Wrong(*wrong)

        return put

    def _map(self, field: FieldDescriptor) -> Put:
        name, entry = field.name, field.message_type.fields_by_name  # type: ignore[union-attr]
        key_of = _scalar(entry["key"])
        if entry["key"].type == FieldDescriptor.TYPE_BOOL:
            key_of = _bool_key
        content_type = entry["value"].message_type
        fill = self.of(content_type) if content_type is not None else None
        convert = _scalar(entry["value"]) if fill is None else None

        def put(target: Message, value: Any, depth: int) -> None:
            if not isinstance(value, dict):
                raise Wrong.here("must be an object")
            target.ClearField(name)
            items = getattr(target, name)
            wrong: list[tuple[str, str, bool]] = []
            for key, content in value.items():
                try:
                    if fill is not None:
                        fill(items[key_of(key)], content, depth)
                    elif convert is not None:
                        items[key_of(key)] = convert(content)
                except Wrong as error:
                    wrong += error.below(f'["{_shown(key)}"]')
                    if len(wrong) > MAX_VIOLATIONS:
                        break
            if wrong:
                raise Wrong(*wrong)

        return put

    def _by_json_format(self, target: Message, value: Any, depth: int) -> None:
        _refuse_unstorable(value, depth)
        try:
            json_format.ParseDict(value, target, descriptor_pool=self._pool, max_recursion_depth=MAX_DEPTH - depth + 1)
        except (json_format.ParseError, ValueError, TypeError, AttributeError, KeyError):
            raise Wrong.here(f"is not a {target.DESCRIPTOR.name}") from None


def _ignore(target: Message, value: Any, depth: int) -> None:
    """Output only: what a client sends there is not an error and has no effect (AIP-203)."""


def _singular(field: FieldDescriptor) -> Put:
    name, convert = field.name, _scalar(field)

    def put(target: Message, value: Any, depth: int) -> None:
        setattr(target, name, convert(value))

    return put


def _scalar(field: FieldDescriptor) -> Convert:
    if field.enum_type is not None:
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return _null
        return _enum({value.name: value.number for value in field.enum_type.values})
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool
    if field.cpp_type in _RANGES:
        return _integer(*_RANGES[field.cpp_type])
    return _float(_FLOAT_MAX if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else float("inf"))


_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOAT_MAX = 3.4028234663852886e38
_WHOLE = re.compile(r"-?[0-9]{1,25}")
_DECIMAL = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Wrong.here("must be a text")
    if "\0" in value:
        raise Wrong.here("must not contain the NUL character")
    return value


def _bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise Wrong.here("must be true or false")


def _bool_key(value: Any) -> bool:
    if value not in ("true", "false"):
        raise Wrong.here("must be true or false")
    return bool(value == "true")


def _null(value: Any) -> int:
    if value is not None and value != "NULL_VALUE":
        raise Wrong.here("must be null")
    return 0


def _integer(least: int, most: int) -> Convert:
    """ProtoJSON takes 3, 3.0, "3" and "3.0" alike."""

    def convert(value: Any) -> int:
        if type(value) is not int:
            if type(value) is str and _WHOLE.fullmatch(value):
                value = int(value)
            else:
                number = float(value) if type(value) is str and _DECIMAL.fullmatch(value) else value
                if type(number) is not float or not number.is_integer():
                    raise Wrong.here("must be a whole number")
                value = int(number)
        if not least <= value <= most:
            raise Wrong.here(f"must lie between {least} and {most}")
        return int(value)

    return convert


def _float(most: float) -> Convert:
    names = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

    def convert(value: Any) -> float:
        if type(value) is str:
            if value in names:
                return names[value]
            if not _DECIMAL.fullmatch(value):
                raise Wrong.here("must be a number")
        elif type(value) is not int and type(value) is not float:
            raise Wrong.here("must be a number")
        number = float(value)
        if abs(number) > most or number in (float("inf"), float("-inf")):
            raise Wrong.here("is too large")
        return number

    return convert


def _enum(names: dict[str, int]) -> Convert:
    """By name, or by number; a number that has no name is for the service to judge, as proto3 enums are open."""
    choices = ", ".join(name for name, number in names.items() if number) or "of this enum"

    def convert(value: Any) -> int:
        if type(value) is str:
            if (number := names.get(value)) is not None:
                return number
            if not _WHOLE.fullmatch(value):
                raise Wrong.here(f"must be one of {choices}")
            value = int(value)
        if type(value) is not int or not -(2**31) <= value < 2**31:
            raise Wrong.here(f"must be one of {choices}")
        return value

    return convert


def _bytes(value: Any) -> bytes:
    """Base64 of either alphabet, with or without its padding."""
    if type(value) is not str:
        raise Wrong.here("must be a text in base64")
    if "-" in value or "_" in value:
        value = value.replace("-", "+").replace("_", "/")
    value = value.removesuffix("=").removesuffix("=")
    try:
        return binascii.a2b_base64(value + "=" * (-len(value) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise Wrong.here("must be a text in base64") from None


_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d{1,9}))?(?:Z|([+-])((?:[01]\d|2[0-3])):([0-5]\d))", re.ASCII
)
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


def _fill_timestamp(target: Any, value: Any, depth: int) -> None:
    match = _INSTANT.fullmatch(value) if type(value) is str else None
    if match is None:
        raise Wrong.here("must be an instant as in RFC 3339, 2026-11-22T03:10:00+08:00")
    whole, fraction, sign, hours, minutes = match.groups()
    try:
        since = datetime.fromisoformat(whole + "+00:00") - _UNIX
    except ValueError:
        raise Wrong.here("there is no such day") from None
    seconds = since.days * 86400 + since.seconds
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
        if not -62135596800 <= seconds <= 253402300799:
            raise Wrong.here("must lie in the years 1 to 9999")
    target.seconds = seconds
    target.nanos = int(fraction.ljust(9, "0")) if fraction else 0


_SPAN = re.compile(r"-?\d{1,12}(\.\d{1,9})?s", re.ASCII)


def _fill_duration(target: Any, value: Any, depth: int) -> None:
    if type(value) is not str or not _SPAN.fullmatch(value):
        raise Wrong.here("must be a duration in seconds, 3600s or 1.5s")
    try:
        target.FromJsonString(value)
    except ValueError:
        raise Wrong.here("must not exceed 10000 years") from None


def _refuse_unstorable(value: Any, depth: int) -> None:
    """Free-form JSON (Struct and its kin): no NUL in any text or name, not too deep."""
    if depth > MAX_DEPTH:
        raise Wrong.here("is nested too deeply")
    if isinstance(value, str):
        _text(value)
    elif isinstance(value, dict | list):
        for part in value:
            _refuse_unstorable(part, depth + 1)
            if isinstance(value, dict):
                _refuse_unstorable(value[part], depth + 1)


def _shown(name: str) -> str:
    """A client's own name for a field, short enough and printable."""
    return "".join(c if c.isprintable() else "�" for c in name[:60])
