"""JSON to messages: the compiled decoders against json_format.ParseDict, and what they refuse beyond it."""

from __future__ import annotations

import copy
import math
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.decoder import MAX_DEPTH, MAX_VIOLATIONS, Decoders, Wrong, parse
from gateway.descriptors import Contract
from services.chassis.errors import InvalidInput
from tests.gateway.strategies import NEARLY, Messages

QUICK = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.target]
)
DISH = "steward.kitchen.v1.Dish"


class Kitchen:
    """Decodes dishes, by ours and by json_format."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.dish = contract.message_class(DISH)
        self.fill = Decoders(contract.pool).of(self.dish.DESCRIPTOR)

    def ours(self, value: Any) -> Any:
        dish = self.dish()
        self.fill(dish, value, 1)
        return dish

    def theirs(self, value: Any) -> Any:
        return json_format.ParseDict(copy.deepcopy(value), self.dish(), descriptor_pool=self.contract.pool)

    def wrong(self, value: Any) -> list[tuple[str, str]]:
        with pytest.raises(Wrong) as refusal:
            self.ours(value)
        return [(v.field, v.description) for v in refusal.value.refusal().violations]


@pytest.fixture(scope="module")
def dishes(kitchen: Contract) -> Kitchen:
    return Kitchen(kitchen)


@QUICK
@given(data=st.data())
def test_what_json_format_writes_is_read_back_the_same(dishes: Kitchen, data: st.DataObject):
    message = data.draw(Messages(dishes.contract).of(dishes.dish.DESCRIPTOR))
    value = json_format.MessageToDict(message, descriptor_pool=dishes.contract.pool)
    assert same(dishes.ours(value), dishes.theirs(value))


@QUICK
@given(data=st.data())
def test_messages_of_the_contract_are_read_back_the_same(contract: Contract, data: st.DataObject):
    message = data.draw(st.sampled_from(list(contract.messages())).flatmap(Messages(contract).of))
    value = orjson.loads(json_format.MessageToJson(message, descriptor_pool=contract.pool))
    ours, theirs = type(message)(), json_format.ParseDict(value, type(message)(), descriptor_pool=contract.pool)
    Decoders(contract.pool).of(message.DESCRIPTOR)(ours, value, 1)
    assert ours == theirs


@settings(QUICK, max_examples=1000)
@given(data=st.data())
def test_whatever_is_taken_is_what_json_format_takes_it_for(dishes: Kitchen, data: st.DataObject):
    """Nearly right values: what json_format refuses is refused; what is taken means the same."""
    fields: list[Any] = list(dishes.dish.DESCRIPTOR.fields)
    chosen = data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=2))
    value = {data.draw(st.sampled_from([field.json_name, field.name])): data.draw(NEARLY) for field in chosen}
    try:
        ours = dishes.ours(value)
    except Wrong:
        return
    if value.get("values", 0) is not None:  # on null for a list of Value json_format 7.36 breaks
        assert same(ours, dishes.theirs(value))


RIGHT: list[dict[str, Any]] = [
    *({"anInt32": value} for value in (3, 3.0, "3", "3e2", -1)),
    {"anInt64": "-9223372036854775808"},
    {"aUint64": 2**64 - 1},
    {"an_int32": -1},
    *({"aDouble": value} for value in ("NaN", "-Infinity", 1, "1.5e3")),
    {"aFloat": 3.4e38},
    *({"taste": value} for value in ("SUGARY", 2, 77, "1")),
    {"tastes": ["SWEET", 2]},
    *({"someBytes": value} for value in ("_-8=", "/+8", "")),
    {"maybeText": ""},
    {"maybeNumber": 0},
    {"sideDish": {"sideDish": {}}},
    {"sideDish": None},
    {"texts": None},
    {"byNumber": {"-7": {"name": "a"}}},
    {"byBool": {"true": "SOUR"}},
    *({"timestamp": t} for t in ("2026-11-22T03:10:00.5+08:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z")),
    {"duration": "-3.5s"},
    {"duration": "0s"},
    {"mask": "aB,c.dE"},
    {"value": None},
    {"value": [1, None, {"a": "𬭎"}]},
    {"values": [None, 1]},
    {"struct": {"a": None}},
    {"list": [[]]},
    {"any": {}},
    {"any": {"@type": "type.googleapis.com/google.type.Money", "units": "3"}},
    {"nothing": {}},
    {"boolValue": False},
    {"int64Value": "3"},
    {"bytesValue": "aGk="},
    {"textChoice": "x", "numberChoice": None},
    {"name": '𬭎㛃😀\u2028\\"/'},
    {"money": {"units": "-3", "nanos": -1}},
]


@pytest.mark.parametrize("value", RIGHT, ids=str)
def test_what_is_right_in_any_of_its_forms_is_taken(dishes: Kitchen, value: dict[str, Any]):
    assert same(dishes.ours(value), dishes.theirs(value))


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ({"name": 3}, "name", "must be a text"),
        ({"name": "a\0b"}, "name", "NUL"),
        ({"anInt32": 3.5}, "anInt32", "whole number"),
        ({"anInt32": True}, "anInt32", "whole number"),
        ({"anInt32": "1_000"}, "anInt32", "whole number"),
        ({"anInt32": "３"}, "anInt32", "whole number"),
        ({"anInt32": " 3"}, "anInt32", "whole number"),
        ({"anInt32": 2**31}, "anInt32", "between"),
        ({"anInt64": "1e999"}, "anInt64", "whole number"),
        ({"aUint32": -1}, "aUint32", "between"),
        ({"aDouble": "nan"}, "aDouble", "must be a number"),
        ({"aDouble": "1e400"}, "aDouble", "too large"),
        ({"aFloat": 1e39}, "aFloat", "too large"),
        ({"aDouble": True}, "aDouble", "must be a number"),
        ({"aBool": "true"}, "aBool", "true or false"),
        ({"aBool": 1}, "aBool", "true or false"),
        ({"someBytes": "a b="}, "someBytes", "base64"),
        ({"someBytes": "A"}, "someBytes", "base64"),
        ({"someBytes": "值"}, "someBytes", "base64"),
        ({"taste": "BITTER"}, "taste", "one of SWEET"),
        ({"taste": True}, "taste", "one of"),
        ({"taste": 1.5}, "taste", "one of"),
        ({"taste": 2**40}, "taste", "one of"),
        ({"sideDish": "text"}, "sideDish", "object"),
        ({"sideDish": []}, "sideDish", "object"),
        ({"texts": "a"}, "texts", "array"),
        ({"texts": ["a", None, 3]}, "texts[1]", "text"),
        ({"dishes": [{}, {"anInt32": "x"}]}, "dishes[1].anInt32", "whole number"),
        ({"byNumber": {"a": {}}}, 'byNumber["a"]', "whole number"),
        ({"byNumber": {"1": {"name": 1}}}, 'byNumber["1"].name', "text"),
        ({"byBool": {"TRUE": 1}}, 'byBool["TRUE"]', "true or false"),
        ({"byText": {"a\0": "b"}}, 'byText["a�"]', "NUL"),
        ({"byText": []}, "byText", "object"),
        ({"textChoice": "a", "numberChoice": 1}, "numberChoice", "excludes textChoice"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "timestamp", "no such day"),
        ({"timestamp": "2026-11-22 03:10:00Z"}, "timestamp", "RFC 3339"),
        ({"timestamp": "2026-11-22T03:10:60Z"}, "timestamp", "RFC 3339"),
        ({"timestamp": "2026-11-22T03:10:00"}, "timestamp", "RFC 3339"),
        ({"timestamp": "0001-01-01T00:00:00+00:01"}, "timestamp", "years 1 to 9999"),
        ({"timestamp": 1795316400}, "timestamp", "RFC 3339"),
        ({"duration": "5m"}, "duration", "seconds"),
        ({"duration": "999999999999s"}, "duration", "10000 years"),
        ({"mask": "a_b"}, "mask", "FieldMask"),
        ({"struct": {"a": {"b": ["\0"]}}}, "struct", "NUL"),
        ({"struct": []}, "struct", "Struct"),
        ({"any": {"@type": "type.googleapis.com/no.Such"}}, "any", "Any"),
        ({"money": {"units": "1.5"}}, "money.units", "whole number"),
        ({"nope": 1}, "nope", "no such field"),
        ({"sideDish": {"nope\n": 1}}, "sideDish.nope�", "no such field"),
    ],
)
def test_what_is_wrong_is_refused_by_its_path(dishes: Kitchen, value: Any, field: str, says: str):
    path, description = dishes.wrong(value)[0]
    assert path == field
    assert says in description


def test_all_wrong_fields_are_named_not_only_the_first(dishes: Kitchen):
    found = dishes.wrong({"anInt32": "x", "name": "right", "dishes": [{"aBool": 3}, {"name": 4, "nope": 5}]})
    assert [path for path, _ in found] == ["anInt32", "dishes[0].aBool", "dishes[1].name", "dishes[1].nope"]


def test_an_unknown_field_is_a_reason_of_its_own(dishes: Kitchen):
    with pytest.raises(Wrong) as refusal:
        dishes.ours({"nope": 1, "anInt32": "x"})
    assert refusal.value.refusal().reason == "UNKNOWN_FIELD"
    with pytest.raises(Wrong) as refusal:
        dishes.ours({"anInt32": "x"})
    assert refusal.value.refusal().reason == "INVALID_INPUT"


def test_a_flood_of_wrong_fields_is_reported_in_part(dishes: Kitchen):
    assert len(dishes.wrong({"anInt32": "x", "texts": [1] * 100_000})) == MAX_VIOLATIONS
    assert len(dishes.wrong({f"nope{i}": 1 for i in range(1000)})) == MAX_VIOLATIONS


def test_messages_may_be_nested_as_deep_as_json_format_allows(dishes: Kitchen):
    def nested(levels: int, field: str) -> Any:
        value: Any = {}
        for _ in range(levels):
            value = {field: value}
        return value

    assert dishes.ours(nested(MAX_DEPTH - 1, "sideDish")) == dishes.theirs(nested(MAX_DEPTH - 1, "sideDish"))
    assert "too deeply" in dishes.wrong(nested(MAX_DEPTH, "sideDish"))[0][1]
    assert dishes.wrong({"struct": nested(1000, "a")})
    assert dishes.wrong({"value": nested(1000, "a")})


def test_output_only_fields_are_passed_over(kitchen: Contract):
    decoders = Decoders(kitchen.pool, lambda field: "OUTPUT_ONLY" in kitchen.behaviours(field))
    dish = kitchen.message_class(DISH)()
    decoders.of(dish.DESCRIPTOR)(dish, {"secret": {"of": "any type"}, "dishes": [{"secret": "x", "name": "a"}]}, 1)
    assert dish == kitchen.message_class(DISH)(dishes=[{"name": "a"}])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": 1,}',
        b"\xff",
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 5000,
        b"{'a': 1}",
    ],
)
def test_broken_json_is_refused(body: bytes):
    with pytest.raises(InvalidInput, match="not JSON") as refusal:
        parse(body)
    assert refusal.value.reason == "INVALID_JSON"


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"3", b"true"])
def test_json_that_is_no_object_is_refused(body: bytes):
    with pytest.raises(InvalidInput, match="must be a JSON object"):
        parse(body)


def test_of_a_key_given_twice_the_last_value_counts():
    assert parse(b'{"a": 1, "a": 2}') == {"a": 2}


def same(ours: Any, theirs: Any) -> bool:
    """Equal, where NaN equals NaN."""
    return (
        ours == theirs
        or ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
        or both_nan(ours, theirs)
    )


def both_nan(ours: Any, theirs: Any) -> bool:
    return math.isnan(ours.a_double) and math.isnan(theirs.a_double)
