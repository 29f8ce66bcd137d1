"""Messages to JSON: the compiled encoders against json_format, on every message of the contract."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.descriptors import Contract
from gateway.encoder import Encoders
from tests.gateway.strategies import Messages

QUICK = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.target]
)


def assert_same(contract: Contract, encoders: Encoders, message: Any) -> None:
    expected = json.loads(json_format.MessageToJson(message, descriptor_pool=contract.pool))
    written = orjson.dumps(encoders.of(message.DESCRIPTOR)(message))
    assert json.loads(written) == expected
    assert list(json.loads(written)) == list(expected)


@QUICK
@given(data=st.data())
def test_messages_of_the_contract_are_written_as_json_format_writes_them(contract: Contract, data: st.DataObject):
    message = data.draw(st.sampled_from(list(contract.messages())).flatmap(Messages(contract).of))
    assert_same(contract, Encoders(contract.pool), message)


@QUICK
@given(data=st.data())
def test_every_kind_of_field_is_written_as_json_format_writes_it(kitchen: Contract, data: st.DataObject):
    dish = kitchen.pool.FindMessageTypeByName("steward.kitchen.v1.Dish")
    assert_same(kitchen, Encoders(kitchen.pool), data.draw(Messages(kitchen).of(dish)))


def test_every_message_of_the_contract_is_written_when_all_its_fields_are_set(contract: Contract):
    encoders, seen = Encoders(contract.pool), 0
    for descriptor in contract.messages():
        message = contract.message_class(descriptor.full_name)()
        fill_all(message)
        assert_same(contract, encoders, message)
        seen += 1
    assert seen >= 60


def test_every_kind_of_field_is_written_when_all_are_set(kitchen: Contract):
    dish = kitchen.message_class("steward.kitchen.v1.Dish")()
    fill_all(dish)
    assert_same(kitchen, Encoders(kitchen.pool), dish)


def fill_all(message: Any, depth: int = 2) -> None:
    """Sets every field; of a oneof the last one stays."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        return
    for field in message.DESCRIPTOR.fields:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            content, items = kind.fields_by_name["value"], getattr(message, field.name)
            key = scalar(kind.fields_by_name["key"])
            if content.message_type is None:
                items[key] = scalar(content)
            else:
                items[key].SetInParent()
        elif kind is not None:
            part = getattr(message, field.name)
            part = part.add() if field.is_repeated else part
            part.SetInParent()
            if depth and not kind.full_name.startswith("google.protobuf."):
                fill_all(part, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).append(scalar(field))
        else:
            setattr(message, field.name, scalar(field))


def scalar(field: FieldDescriptor) -> Any:
    return {FieldDescriptor.TYPE_STRING: "值", FieldDescriptor.TYPE_BYTES: b"\xff\x00", FieldDescriptor.TYPE_BOOL: True}.get(field.type, 1)


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (-1, 1, "1969-12-31T23:59:59.000000001Z"),
        (-62135596800, 0, "0001-01-01T00:00:00Z"),
        (253402300799, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
        (1_795_316_400, 120_000_000, "2026-11-22T03:00:00.120Z"),
        (1_795_316_400, 120_000, "2026-11-22T03:00:00.000120Z"),
    ],
)
def test_instants_are_written_in_utc_with_as_many_digits_as_they_need(contract: Contract, seconds: int, nanos: int, text: str):
    instant = contract.message_class("google.protobuf.Timestamp")(seconds=seconds, nanos=nanos)
    assert Encoders(contract.pool).of(instant.DESCRIPTOR)(instant) == text


@pytest.mark.parametrize(("seconds", "nanos"), [(253402300800, 0), (-62135596801, 0), (0, -1), (0, 1_000_000_000)])
def test_an_instant_that_has_no_form_in_json_is_an_error(contract: Contract, seconds: int, nanos: int):
    instant = contract.message_class("google.protobuf.Timestamp")(seconds=seconds, nanos=nanos)
    with pytest.raises(ValueError, match="years 1 to 9999"):
        Encoders(contract.pool).of(instant.DESCRIPTOR)(instant)
