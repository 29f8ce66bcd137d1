"""The data of events is read as protobuf's own reader reads it, whatever it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import event_data
from steward.work_orders.v1 import events_pb2 as work_orders

ROOT = Path(__file__).parents[2]
ODD = (
    None,
    "",
    "x",
    "12",
    "-7",
    7,
    -1,
    1.5,
    1 << 40,
    True,
    [],
    ["x"],
    [None],
    [1],
    {},
    {"units": "5"},
    {"units": 5},
    "9" * 25,
    "１２",
    "_1",
    " 1",
)


def events() -> list[type[Message]]:
    """Every event of the contract."""
    found = []
    for file in sorted((ROOT / "gen/steward").glob("*/v1/events_pb2.py")):
        module = importlib.import_module(f"steward.{file.parts[-3]}.v1.events_pb2")
        found += [message_factory.GetMessageClass(message) for message in module.DESCRIPTOR.message_types_by_name.values()]
    return found


def filled(message: Descriptor, depth: int = 0) -> Message:
    """A message with something in every field, two of everything that repeats."""
    made = message_factory.GetMessageClass(message)()
    for field in message.fields:
        if field.message_type is not None and (field.message_type.GetOptions().map_entry or depth > 3):
            continue
        if field.containing_oneof is not None and made.WhichOneof(field.containing_oneof.name):
            continue
        values = [_value(field, depth), _value(field, depth)] if field.is_repeated else [_value(field, depth)]
        if field.message_type is not None:
            for value in values:
                (getattr(made, field.name).add() if field.is_repeated else getattr(made, field.name)).CopyFrom(value)
        elif field.is_repeated:
            getattr(made, field.name).extend(values)
        else:
            setattr(made, field.name, values[0])
    return made


def _value(field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        return filled(field.message_type, depth + 1)
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {
        FieldDescriptor.CPPTYPE_STRING: b"\x00\xff" if field.type == FieldDescriptor.TYPE_BYTES else "𬭎",
        FieldDescriptor.CPPTYPE_BOOL: True,
    }.get(field.cpp_type, 7)


def outcome(read: Any, message: type[Message], data: dict[str, Any]) -> Any:
    try:
        return read(message, data)
    except json_format.ParseError:
        return "refused"


def by_protobuf(message: type[Message], data: dict[str, Any]) -> Message:
    return json_format.ParseDict(data, message(), ignore_unknown_fields=True)


@pytest.mark.parametrize("message", events(), ids=lambda message: message.DESCRIPTOR.full_name)
def test_an_event_with_everything_in_it_is_read_as_it_was_written(message: type[Message]) -> None:
    written = filled(message.DESCRIPTOR)
    assert event_data.read(message, json_format.MessageToDict(written)) == written
    assert event_data.read(message, {}) == message()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_stands_in_the_data_is_taken_or_refused_as_protobuf_does(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(events()))
    written = json_format.MessageToDict(filled(message.DESCRIPTOR))
    for name in data.draw(st.lists(st.sampled_from([*written, "fieldOfTomorrow"]), max_size=3)):
        written[name] = data.draw(st.sampled_from(ODD))
    assert outcome(event_data.read, message, written) == outcome(by_protobuf, message, written)


def test_usual_events_are_read_without_protobufs_own_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the table is of no use."""
    written = json_format.MessageToDict(
        work_orders.RepairReported(repair="0193", number="WX-1", category="OTHER", urgent=True, reporter="people/1")  # type: ignore[arg-type]
    )
    accepted = work_orders.RepairAccepted(number="WX-1", attitude=5)
    accepted.charge_total.currency_code, accepted.charge_total.units = "CNY", 12
    monkeypatch.delattr(json_format, "ParseDict")
    assert event_data.read(work_orders.RepairReported, written).reporter == "people/1"
    assert event_data.read(work_orders.RepairAccepted, json_format.MessageToDict(accepted)) == accepted
