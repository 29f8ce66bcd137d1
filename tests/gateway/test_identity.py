"""Who calls: exchange, cache, residents down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import grpc
import httpx
import pytest

from gateway import identity
from gateway.descriptors import Contract, Rpc
from gateway.identity import Identities, subject
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
    answer = client.get(URL, headers={b"authorization": value.encode("latin-1")})
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
    other.identity_seconds = 4  # of which the last 2 are not used any more
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
            time.sleep(2)
            assert client.get(URL, headers=as_token("good")).status_code == 503
        eventually(lambda: client.get(URL, headers=as_token("good")).status_code == 200)
    other.stop()


class FailingResidents:
    """An upstream whose exchange answers until `code` is set."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.asked = contract, 0
        self.code: grpc.StatusCode | None = None

    def call(self, rpc: Rpc) -> Any:
        async def exchange(request: Any, *, timeout: float, metadata: Any) -> Any:
            self.asked += 1
            if self.code is not None:
                raise grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(), "", "")
            reply = rpc.output(token="e30.e30.x")  # noqa: S106
            reply.expire_time.FromNanoseconds(int((time.time() + 30) * 1e9))
            return reply

        return exchange


def test_an_identity_is_kept_beyond_its_freshness_only_while_residents_does_not_answer(contract: Contract, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(identity, "FRESH", 0.0)
    monkeypatch.setattr(identity, "PAUSE", 0.05)
    residents = FailingResidents(contract)
    outcomes: list[str] = []

    async def play() -> None:
        identities = Identities(contract, residents, "secret", 1, outcomes.append)  # type: ignore[arg-type]

        async def ask() -> identity.Identity:
            return await identities.of(b"Bearer good", "trace", lambda: None)

        first = await ask()
        last = await ask()
        assert last is not first
        residents.code = grpc.StatusCode.UNAVAILABLE
        assert await ask() is last
        assert await ask() is last  # residents is not asked again at once
        await asyncio.sleep(0.06)
        residents.code = grpc.StatusCode.DEADLINE_EXCEEDED
        assert await ask() is last
        await asyncio.sleep(0.06)
        residents.code = grpc.StatusCode.UNAUTHENTICATED  # it answers, and says no
        with pytest.raises(errors.Unauthenticated):
            await ask()
        residents.code = grpc.StatusCode.UNAVAILABLE
        with pytest.raises(errors.Unavailable):
            await ask()

    asyncio.run(play())
    assert outcomes == ["exchanged", "exchanged", "kept", "hit", "kept", "refused", "unavailable"]
    assert residents.asked == 6


def test_a_waiting_request_that_is_given_up_does_not_take_the_others_with_it(contract: Contract):
    async def play() -> None:
        identities = Identities(contract, FailingResidents(contract), "secret", 1, lambda outcome: None)  # type: ignore[arg-type]
        first, second = (asyncio.create_task(identities.of(b"Bearer good", "trace", lambda: None)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).token == "e30.e30.x"  # noqa: S105

    asyncio.run(play())


def test_the_identities_kept_are_bounded(contract: Contract):
    async def play() -> int:
        residents = FailingResidents(contract)
        identities = Identities(contract, residents, "secret", 1, lambda outcome: None, capacity=2)  # type: ignore[arg-type]
        for token in ("a", "b", "c", "b", "c", "a"):
            await identities.of(f"Bearer {token}".encode(), "trace", lambda: None)
        return residents.asked

    assert asyncio.run(play()) == 4


def test_a_gateway_with_a_wrong_secret_signs_nobody_out(started: Callable[..., Any]):
    with started(STEWARD_INTERNAL_TOKEN="another") as (process, client):  # noqa: S106
        answer = client.get(URL)
        assert (answer.status_code, answer.json()["reason"]) == (503, "IDENTITY_UNAVAILABLE")
        eventually(lambda: any("STEWARD_INTERNAL_TOKEN differs" in line for line in process.lines))


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
