"""Resource names, page tokens, money and instants at the edge between protobuf and the domain."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import InvalidInput
from services.chassis.names import amount, identifier, instant, last, money, page_position, page_token, stamp
from steward.probe.v1 import probe_pb2 as pb


def test_the_last_part_of_a_name_is_the_id() -> None:
    assert last("estates/TFHY/repairs/42") == "42"
    assert last("42") == "42"
    assert last("") == ""


def test_an_identifier_is_read_from_its_collection_alone() -> None:
    some = uuid4()
    assert identifier(f"staff/{some}", "staff", "technician") == some
    for wrong in (f"people/{some}", str(some), "staff/", "staff/7", f"x/staff/{some}", f"staff/{some}/", ""):
        with pytest.raises(InvalidInput) as refused:
            identifier(wrong, "staff", "technician")
        assert [violation.field for violation in refused.value.violations] == ["technician"]


# --- page tokens -------------------------------------------------------------------------------------------------------


def a_query(**fields: Any) -> pb.ListProbesRequest:
    return pb.ListProbesRequest(**({"parent": "estates/TFHY", "title": "drip"} | fields))


def test_a_page_token_leads_to_its_place_in_the_same_query_whatever_the_page_size() -> None:
    place = uuid4()
    token = page_token(a_query(), place)
    assert page_position(a_query(page_token=token)) == [str(place)]
    assert page_position(a_query(page_token=token, page_size=7)) == [str(place)]
    assert page_position(a_query()) == [], "without a token: the beginning"


@pytest.mark.parametrize("other", [{"parent": "estates/OTHER"}, {"title": "drop"}, {"title": ""}])
def test_a_page_token_of_another_query_is_refused(other: dict[str, str]) -> None:
    token = page_token(a_query(), uuid4())
    with pytest.raises(InvalidInput) as refused:
        page_position(a_query(page_token=token, **other))
    assert (refused.value.reason, refused.value.violations[0].field) == ("INVALID_PAGE_TOKEN", "page_token")


@pytest.mark.parametrize(
    "token", ["x", "!", "e30", "W10", "bnVsbA", "InRleHQi", "ⅳ", "=", "W11d", "NQ", "\udcff".encode("utf-8", "replace").decode()]
)
def test_a_page_token_that_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        page_position(a_query(page_token=token))


@given(st.text(max_size=60).filter(bool))
def test_no_text_is_a_page_token_by_chance(token: str) -> None:
    with pytest.raises(InvalidInput):
        page_position(a_query(page_token=token))


def test_a_page_token_with_another_position_is_refused() -> None:
    raw = base64.urlsafe_b64decode(page_token(a_query(), "a") + "==")
    forged = base64.urlsafe_b64encode(raw[:12] + b'["not an id"]').decode().rstrip("=")
    with pytest.raises(InvalidInput) as refused:
        page_position(a_query(page_token=forged))
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


# --- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "nanos", "expected"),
    [(0, 0, "0.00"), (35, 500_000_000, "35.50"), (0, 10_000_000, "0.01"), (99_999_999, 990_000_000, "99999999.99"), (1, 0, "1.00")],
)
def test_money_has_two_decimals(units: int, nanos: int, expected: str) -> None:
    assert amount(Money(currency_code="CNY", units=units, nanos=nanos), "price") == Decimal(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"units": -1},
        {"nanos": -10_000_000},
        {"units": -1, "nanos": -500_000_000},
        {"units": 5, "nanos": -1},
        {"nanos": 1_000_000_000},
        {"nanos": 5_000_000},
        {"nanos": 1},
        {"units": 100_000_000},
        {"units": 2**63 - 1},
        {"units": 99_999_999, "nanos": 999_999_999},
        {"units": 1, "currency_code": "USD"},
        {"units": 1, "currency_code": "cny"},
    ],
)
def test_money_that_cannot_be_is_refused_with_its_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        amount(Money(**wrong), "charge.unit_price")
    assert (refused.value.reason, refused.value.violations[0].field) == ("BAD_MONEY", "charge.unit_price")


def test_money_without_a_currency_is_yuan() -> None:
    assert amount(Money(units=3), "price") == 3


@given(st.decimals(0, Decimal("99999999.99"), places=2))
def test_money_comes_back_as_it_went(value: Decimal) -> None:
    assert amount(money(value), "price") == value


# --- instants ----------------------------------------------------------------------------------------------------------


def test_an_unset_instant_is_none_both_ways() -> None:
    assert stamp(None) is None
    assert instant(pb.Probe(), "create_time") is None
    assert instant(pb.Probe(create_time=Timestamp()), "create_time") == datetime(1970, 1, 1, tzinfo=UTC), "set to the epoch is set"


@given(st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)))
def test_an_instant_comes_back_as_it_went(at: datetime) -> None:
    assert instant(pb.Probe(create_time=stamp(at)), "create_time") == at


def test_a_uuid_is_read_in_any_of_its_spellings_as_one_id() -> None:
    some = UUID("0192f0c4-7b1e-7c3a-8a1b-0123456789ab")
    assert identifier(f"staff/{str(some).upper()}", "staff", "technician") == some
