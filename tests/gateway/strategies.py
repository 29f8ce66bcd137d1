"""Hypothesis strategies: messages of any type of a contract, and JSON that fits or nearly fits them."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from gateway.descriptors import Contract

TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["", "𬭎㛃😀", '"\\/\u2028', "é"]),
)
BYTES = st.binary(max_size=9)
INT32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, -(2**31), 2**31 - 1]))
INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 2**53 + 1, -(2**63), 2**63 - 1]))
UINT32 = st.one_of(st.integers(0, 2**32 - 1), st.just(2**32 - 1))
UINT64 = st.one_of(st.integers(0, 2**64 - 1), st.just(2**64 - 1))
DOUBLE = st.floats()
FLOAT = st.floats(width=32)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: INT32,
    FieldDescriptor.CPPTYPE_INT64: INT64,
    FieldDescriptor.CPPTYPE_UINT32: UINT32,
    FieldDescriptor.CPPTYPE_UINT64: UINT64,
    FieldDescriptor.CPPTYPE_DOUBLE: DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT: FLOAT,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}


class Messages:
    """Strategies for the messages of a contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def of(self, message: Descriptor, depth: int = 2) -> st.SearchStrategy[Any]:
        """Messages with some of their fields set, nested up to `depth`."""

        @st.composite
        def build(draw: st.DrawFn) -> Any:
            target = self._contract.message_class(message.full_name)()
            self._fill(draw, target, message, depth)
            return target

        return build()

    def _fill(self, draw: st.DrawFn, target: Any, message: Descriptor, depth: int) -> None:
        match message.full_name:
            case "google.protobuf.Timestamp":
                target.seconds = draw(st.one_of(st.integers(-62135596800, 253402300799), st.sampled_from([0, -1, 951782400, 253402300799])))
                target.nanos = draw(st.sampled_from([0, 1, 10_000_000, 120_000, 999_999_999]))
            case "google.protobuf.Duration":
                nanos = draw(st.integers(-999_999_999_000_000_000, 999_999_999_000_000_000))
                target.FromNanoseconds(nanos)
            case "google.protobuf.FieldMask":
                target.paths.extend(draw(st.lists(st.from_regex(r"[a-z]+(_[a-z]+)*(\.[a-z]+)?", fullmatch=True), max_size=3)))
            case "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue":
                kinds: dict[str, st.SearchStrategy[Any]] = {
                    "Struct": st.dictionaries(TEXTS, JSON, max_size=3),
                    "ListValue": st.lists(JSON, max_size=3),
                    "Value": JSON,
                }
                json_format.ParseDict(draw(kinds[message.name]), target)
            case "google.protobuf.Any":
                if draw(st.booleans()):
                    inner = self._contract.message_class("google.type.Money")
                    target.Pack(inner(currency_code="CNY", units=draw(INT64)))
            case _:
                fields = list(message.fields)
                for field in draw(st.lists(st.sampled_from(fields), max_size=6, unique_by=lambda f: f.number)) if depth and fields else ():
                    self._set(draw, target, field, depth)

    def _set(self, draw: st.DrawFn, target: Any, field: FieldDescriptor, depth: int) -> None:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            items, content = getattr(target, field.name), kind.fields_by_name["value"]
            for key in draw(st.lists(self._scalar(kind.fields_by_name["key"]), max_size=2)):
                if content.message_type is not None:
                    self._fill(draw, items[key], content.message_type, depth - 1)
                else:
                    items[key] = draw(self._scalar(content))
        elif field.is_repeated:
            items = getattr(target, field.name)
            for _ in range(draw(st.integers(1, 2))):
                if kind is not None:
                    self._fill(draw, items.add(), kind, depth - 1)
                else:
                    items.append(draw(self._scalar(field)))
        elif kind is not None:
            part = getattr(target, field.name)
            part.SetInParent()
            self._fill(draw, part, kind, depth - 1)
        else:
            setattr(target, field.name, draw(self._scalar(field)))

    def _scalar(self, field: FieldDescriptor) -> st.SearchStrategy[Any]:
        if field.enum_type is not None:
            return st.sampled_from([*(value.number for value in field.enum_type.values), 4711])
        if field.type == FieldDescriptor.TYPE_BYTES:
            return BYTES
        return SCALARS.get(field.cpp_type, TEXTS)


NEARLY = st.one_of(
    JSON,
    st.sampled_from([3, 3.0, 3.5, -1, 2**31, 2**63, 2**64, 1e300, "3", "3.0", "3.5", "1e2", "NaN", "Infinity", "-Infinity", "true", "7"]),
    st.sampled_from(["SWEET", "SUGARY", "NOPE", "aGk=", "aGk", "_-8", "A", "3.5s", "-1s", "0.000000001s", "aB,cD", True, False, None]),
    st.sampled_from(["2026-11-22T03:10:00Z", "2026-11-22T03:10:00.123456789+08:00", "2026-02-30T00:00:00Z", "2026-11-22"]),
    st.sampled_from([[], {}, [1], ["SWEET", 2], {"1": {}}, {"true": "SOUR"}, {"a": "2026-11-22T03:10:00Z"}]),
)
"""JSON values of which each fits some kind of field and fits others badly."""
