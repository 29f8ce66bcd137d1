"""Who calls: exchange, cache, residents down."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from gateway.identity import subject
from gateway.web import ClientAddress, Request
from services.chassis import errors
from tests.gateway.standin import INTERNAL_TOKEN, Standin, eventually

URL = "/v1/estates/TFHY/repairs/0192"


def as_token(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_without_a_token_one_is_asked_for(client: httpx.Client, standin: Standin):
    del client.headers["authorization"]
    answer = client.get(URL)
    assert (answer.status_code, answer.json()["reason"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert standin.calls == []


@pytest.mark.parametrize("value", ["Basic Z29vZDpnb29k", "Bearer", "good", "Bearer \xe9", "Bearer " + "x" * 5000, "Bearer a\tb"])
def test_another_kind_of_authorization_is_refused_without_asking_residents(client: httpx.Client, standin: Standin, value: str):
    answer = client.get(URL, headers={"authorization": value.encode("latin-1")})  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["reason"]) == (401, "BAD_AUTHORIZATION")
    assert standin.calls == []


def test_a_forged_or_ended_token_is_refused_with_residents_reason(client: httpx.Client, standin: Standin):
    answer = client.get(URL, headers=as_token("forged"))
    assert (answer.status_code, answer.json()["reason"]) == (401, "SESSION_ENDED")
    assert standin.called("GetRepair") == []


def test_authentication_comes_before_the_input_is_looked_at(client: httpx.Client):
    answer = client.post("/v1/estates/TFHY/repairs", content=b"{broken", headers=as_token("forged"))
    assert answer.status_code == 401


def test_the_exchange_is_made_once_and_kept(client: httpx.Client, standin: Standin):
    for _ in range(5):
        client.get(URL, headers=as_token("good-kept"))
    assert len(standin.called("ExchangeSession")) == 1
    _, metadata, _ = standin.last
    assert subject(metadata["x-steward-identity"]) == "staff/good-kept"
    exchange = next(metadata for name, _, metadata, _ in standin.calls if name == "ExchangeSession")
    assert exchange["x-steward-internal"] == INTERNAL_TOKEN


def test_requests_that_come_together_share_one_exchange(client: httpx.Client, standin: Standin):
    standin.exchange_delay = 0.3
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: client.get(URL, headers=as_token("good-together")).status_code, range(10)))
    assert answers == [200] * 10
    assert len(standin.called("ExchangeSession")) == 1


def test_an_identity_is_not_used_past_its_end(client: httpx.Client, standin: Standin):
    standin.identity_seconds = 3  # of which the last 2 are not used any more
    client.get(URL, headers=as_token("good-short"))
    client.get(URL, headers=as_token("good-short"))
    assert len(standin.called("ExchangeSession")) == 1
    time.sleep(1.1)
    client.get(URL, headers=as_token("good-short"))
    assert len(standin.called("ExchangeSession")) == 2


def test_an_identity_a_service_refuses_is_exchanged_anew(client: httpx.Client, standin: Standin):
    def refuse_once(request: Any, context: Any) -> Any:
        del standin.answers["GetRepair"]
        raise errors.Unauthenticated("the internal identity has expired", reason="IDENTITY_EXPIRED")

    standin.answers["GetRepair"] = refuse_once
    assert client.get(URL, headers=as_token("good-refused")).status_code == 401
    assert client.get(URL, headers=as_token("good-refused")).status_code == 200
    assert len(standin.called("ExchangeSession")) == 2


def test_an_operation_for_anybody_needs_no_token_and_carries_no_identity(client: httpx.Client, standin: Standin):
    del client.headers["authorization"]
    assert client.get("/v1/menu").status_code == 200
    _, metadata, _ = standin.last
    assert metadata["x-steward-internal"] == INTERNAL_TOKEN
    assert "x-steward-identity" not in metadata


def test_a_client_cannot_send_an_identity_of_its_own(client: httpx.Client, standin: Standin):
    forged = {"x-steward-identity": "e30.e30.x", "x-steward-internal": INTERNAL_TOKEN, "grpc-metadata-x-steward-identity": "x"}
    client.get("/v1/menu", headers=forged)
    assert "x-steward-identity" not in standin.last[1]
    client.get(URL, headers=forged)
    assert "x-steward-internal" not in standin.last[1]
    assert subject(standin.last[1]["x-steward-identity"]) == "staff/good"


def test_while_residents_is_down_known_callers_go_on_and_others_get_503(
    started: Callable[..., Any], standin: Standin, base_settings: dict[str, str]
):
    other = Standin(standin.contract)
    other.start()
    addresses = base_settings["STEWARD_ADDRESSES"].replace(f"residents=127.0.0.1:{standin.port}", f"residents=127.0.0.1:{other.port}")
    other.identity_seconds = 5  # fresh for 3
    with started(STEWARD_ADDRESSES=addresses) as (process, client):
        assert client.get(URL, headers=as_token("good")).status_code == 200
        assert httpx.get(f"{process.url}/readyz", trust_env=False).status_code == 200
        with other.down():
            assert client.get(URL, headers=as_token("good")).status_code == 200
            answer = client.get(URL, headers=as_token("good-stranger"))
            assert (answer.status_code, answer.json()["reason"]) == (503, "IDENTITY_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
            assert httpx.get(f"{process.url}/readyz", trust_env=False).status_code == 503
            assert httpx.get(f"{process.url}/healthz", trust_env=False).status_code == 200
            time.sleep(3.1)
            assert client.get(URL, headers=as_token("good")).status_code == 503
        eventually(lambda: client.get(URL, headers=as_token("good")).status_code == 200)
    other.stop()


def test_a_gateway_with_a_wrong_secret_signs_nobody_out(started: Callable[..., Any]):
    with started(STEWARD_INTERNAL_TOKEN="another") as (process, client):  # noqa: S106
        answer = client.get(URL)
        assert (answer.status_code, answer.json()["reason"]) == (503, "IDENTITY_UNAVAILABLE")
        assert any("STEWARD_INTERNAL_TOKEN differs" in line for line in process.lines)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client_address"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not a proxy of ours: whatever it claims
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),  # what stands further left was sent by the client
        ("10.0.0.1", "198.51.100.1, 10.0.0.7", "198.51.100.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, evil, 10.0.0.7", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_forwarded_addresses_are_believed_from_our_proxies_only(peer: str, forwarded: str, client_address: str):
    async def nothing() -> None: ...

    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"method": "GET", "raw_path": b"/", "query_string": b"", "headers": headers, "client": (peer, 5)}
    assert ClientAddress((ip_network("10.0.0.0/8"),)).of(Request(scope, nothing)) == client_address


def test_an_identity_that_is_no_jwt_still_has_a_key():
    assert len(subject("opaque")) == 64
    assert subject("a.b.c") != subject("a.d.c")
