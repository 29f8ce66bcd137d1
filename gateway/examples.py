"""An example value of any message of the contract, as ProtoJSON, made from what its fields are called and say of themselves.

A comment that shows a value (`` `YS-20261122-0007` ``, `` `staff/…` ``) is believed; else the name says what it is: an id, a number,
a person. What has no name that helps gets the plainest value of its type. The same message gives the same example always.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.descriptors import Contract
from gateway.schemas import EXAMPLE_ID

INSTANT = "2026-11-22T03:10:00Z"

_KNOWN: dict[str, Any] = {
    "google.protobuf.Timestamp": INSTANT,
    "google.protobuf.Duration": "3600s",
    "google.protobuf.Struct": {},
    "google.protobuf.Value": 45.0,
    "google.protobuf.ListValue": [],
    "google.protobuf.Empty": {},
    "google.protobuf.FieldMask": "description",
    "google.type.Money": {"currencyCode": "CNY", "units": "85"},
    "google.type.Date": {"year": 2026, "month": 11, "day": 22},
}
_NAMED = {
    "number": "WX-20261122-0007",
    "code": "TFHY",
    "name": "天府花园",
    "time_zone": "Asia/Shanghai",
    "role": "CS_SUPERVISOR",
    "ladder": "CS_SUPERVISOR",
    "reason": "缺少配件",
    "changed": "unit",
    "reporter": "people/…",
    "item": "角阀",
    "duty": "repair_check",
    "duplicate_of": "…",
}
_ENUMS = {"steward.options.v1.Role": "TECHNICIAN", "steward.residents.v1.Node.Kind": "ESTATE"}
_COUNTS = {"attitude": 5, "quality": 5, "days": 30}
_LEFT_OUT = {"deleted", "unit_status"}  # true of few
_STAFF = re.compile(r"(technician|receiver|surveyor|handler|staff|assignee|actor)s?$")
_SHOWN = re.compile(r"`([^`{}\s]+)`")
_WORDS = re.compile(r"[A-Z][A-Z_]{3,}")


class Examples:
    """`of(message)` is an example of a message; every field has a value, of a oneof the first."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._resources = {name for name, _ in contract.resources()} - {"policy"}

    def of(self, message: Descriptor) -> dict[str, Any]:
        return self._message(message, ())

    def _message(self, message: Descriptor, inside: tuple[str, ...]) -> Any:
        if message.full_name in _KNOWN:
            return _KNOWN[message.full_name]
        result = {}
        for field in message.fields:
            oneof = field.containing_oneof
            if field.name in _LEFT_OUT or (oneof is not None and oneof.fields[0] is not field):
                continue
            if field.message_type is not None and (field.message_type.full_name in inside or field.message_type.GetOptions().map_entry):
                continue  # a message that contains itself ends there; a map may be empty
            value = self._single(field, (*inside, message.full_name))
            result[field.json_name] = [value] if field.is_repeated else value
        return result

    def _single(self, field: FieldDescriptor, inside: tuple[str, ...]) -> Any:
        if field.message_type is not None:
            return self._message(field.message_type, inside)
        if field.enum_type is not None:
            names = [value.name for value in field.enum_type.values]
            return _ENUMS.get(field.enum_type.full_name, names[min(1, len(names) - 1)])
        if field.type == FieldDescriptor.TYPE_BYTES:
            return "iVBORw0KGgo="
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self._text(field).replace("…", EXAMPLE_ID)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return True
        if kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
            return "1800"
        return _COUNTS.get(field.name, 1) if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 1.5

    def _text(self, field: FieldDescriptor) -> str:
        comment = self._contract.comment(field.full_name)
        if "options.v1.Role" in comment:
            return _NAMED["role"]
        if re.match(r"(UUID|(The )?[Ii]d of)\b", comment):
            return "…"
        if shown := _SHOWN.search(comment):
            return shown[1]
        if field.name in _NAMED:
            return _NAMED[field.name]
        if field.name.endswith("_number"):
            return _NAMED["number"]
        if _STAFF.search(field.name):
            return "staff/…"
        if field.name == "id" or field.name.endswith("_id") or field.name in self._resources:
            return "…"
        if words := _WORDS.search(comment):  # `SATISFIED, BASICALLY_SATISFIED, NOT_SATISFIED`
            return words[0]
        return "…" if field.number == 1 else field.name  # the first field of an event: what it happened to
