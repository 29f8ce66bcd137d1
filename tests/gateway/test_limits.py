"""Rates, places and sizes."""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.binding import Binding
from gateway.descriptors import Contract
from gateway.limits import Buckets, Places, body_limit, neighbourhood
from services.chassis.errors import TooMany, Unavailable
from tests.gateway.conftest import Process
from tests.gateway.standin import Standin

Strict = tuple[Process, httpx.Client]
URL = "/v1/estates/TFHY/repairs"
REPORT = b"POST /v1/estates/TFHY/repairs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate():
    clock, refused = Clock(), []
    buckets = Buckets(2, 3, lambda: refused.append(1), now=clock)
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(TooMany) as refusal:
        buckets.take("a")
    assert (refusal.value.retry_after, len(refused)) == (1, 1)
    buckets.take("b")
    clock.now = 0.5
    buckets.take("a")
    with pytest.raises(TooMany):
        buckets.take("a")
    clock.now = 1000
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(TooMany):
        buckets.take("a")


def test_a_slow_bucket_says_how_long_to_wait():
    buckets = Buckets(0.1, 1, lambda: None, now=Clock())
    buckets.take("a")
    with pytest.raises(TooMany) as refusal:
        buckets.take("a")
    assert refusal.value.retry_after == 10


def test_buckets_forget_the_keys_used_longest_ago():
    buckets = Buckets(1, 1, lambda: None, capacity=2, now=Clock())
    for key in ("a", "b", "c"):
        buckets.take(key)
    buckets.take("a")
    with pytest.raises(TooMany):
        buckets.take("c")


def test_a_rate_of_zero_is_no_limit():
    buckets = Buckets(0, 1, lambda: None)
    for _ in range(100):
        buckets.take("a")


def test_places_are_given_back_even_after_an_error():
    places = Places(1, lambda: None)
    with pytest.raises(ZeroDivisionError), places:
        _ = 1 // 0
    with places, pytest.raises(Unavailable), places:
        pass
    with places:
        pass


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_the_addresses_of_one_ipv6_host_share_a_bucket(address: str, key: str):
    assert neighbourhood(address) == key


def test_body_limits_follow_from_the_files_a_message_may_hold(contract: Contract, kitchen: Contract, bindings: list[Binding]):
    limits = {binding.rpc.name: binding.body_limit for binding in bindings}
    default = 1 << 20
    assert limits["ReportRepair"] == limits["AcceptRepair"] == default
    file = 33554432
    assert file * 4 / 3 + default <= limits["StartImport"] < file * 4 / 3 + default + 100_000
    rules = kitchen.pool.FindMessageTypeByName("steward.kitchen.v1.Rules")
    assert 3_001_000 * 4 / 3 < body_limit(kitchen, rules, default) < 3_001_000 * 4 / 3 + 2 * default


def test_one_callers_flood_does_not_slow_another(strict: Strict):
    process, client = strict
    statuses = [client.get(f"{URL}/0192").status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429, 429]
    answer = client.get(f"{URL}/0192")
    assert answer.json()["reason"] == "TOO_MANY_REQUESTS"
    assert answer.headers["retry-after"] in ("1", "2")
    assert client.get(f"{URL}/0192", headers={"authorization": "Bearer good-other"}).status_code == 200
    page = httpx.get(f"{process.inside}/metrics", trust_env=False).text
    assert 'steward_gateway_refusals_total{reason="principal_rate"} 3.0' in page


def test_guessing_tokens_is_limited_by_address_before_residents_is_asked(started: Callable[..., Any], standin: Standin):
    with started(STEWARD_GATEWAY_ADDRESS_RATE="0.01", STEWARD_GATEWAY_ADDRESS_BURST="3") as (_, client):
        statuses = [client.get(f"{URL}/0192", headers={"authorization": f"Bearer guess-{i}"}).status_code for i in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert len(standin.called("ExchangeSession")) == 3


def test_beyond_its_places_the_gateway_refuses_at_once(strict: Strict, standin: Standin):
    process, client = strict
    release = threading.Event()

    def wait(request: Any, context: Any) -> Any:
        release.wait(5)
        return standin.contract.message_class("steward.work_orders.v1.Repair")()

    standin.answers["GetRepair"] = wait
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(client.get, f"{URL}/0192") for _ in range(2)]
        while len(standin.called("GetRepair")) < 2:
            time.sleep(0.01)
        began = time.monotonic()
        answer = client.get(f"{URL}/0192")
        assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "OVERLOADED", "1")
        assert time.monotonic() - began < 0.5
        assert client.get("/healthz").status_code == 200
        assert "steward_gateway_in_flight 2.0" in httpx.get(f"{process.inside}/metrics", trust_env=False).text
        release.set()
        assert [future.result().status_code for future in running] == [200, 200]
        assert client.get(f"{URL}/0192").status_code == 200


def test_a_body_above_the_limit_is_refused_with_a_problem(client: httpx.Client, standin: Standin):
    for size in (1 << 20, 10 << 20):
        answer = client.post(URL, json={"description": "x" * size})
        assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")
    assert standin.called("ReportRepair") == []
    assert client.post(URL, json={"description": "x" * 1_000_000}).status_code == 200


def test_a_body_that_hides_its_length_is_counted_while_it_comes(client: httpx.Client):
    def chunks() -> Iterator[bytes]:
        yield b'{"description": "'
        for _ in range(80):
            yield b"x" * 65536

    answer = client.post(URL, content=chunks(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


def test_a_file_above_its_own_limit_is_refused(client: httpx.Client):
    answer = client.post("/v1/imports", json={"filename": "a", "content": b64encode(bytes(36 << 20)).decode()})
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


def test_the_connection_of_a_small_refused_body_goes_on(gateway: Any):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as place:
        for _ in range(2):
            place.sendall(b"POST /v1/estates/TFHY/repairs HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n")
            assert read_head(place).startswith(b"HTTP/1.1 401")
            place.sendall(b"hello")


def test_a_client_that_waits_for_continue_gets_its_refusal_at_once(gateway: Any):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as place:
        place.sendall(REPORT + b"expect: 100-continue\r\ncontent-length: 99999999\r\n\r\n")
        answer = read_head(place)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer


def test_a_client_that_waits_for_continue_is_asked_for_a_right_body(gateway: Any):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as place:
        place.sendall(REPORT + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert place.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        place.sendall(b"{}")
        assert read_head(place).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_given_up(strict: Strict):
    process, _ = strict
    with socket.create_connection(("127.0.0.1", process.port), timeout=5) as place:
        place.sendall(REPORT + b"content-length: 9\r\n\r\n{")
        assert read_head(place).startswith(b"HTTP/1.1 408")


def test_only_a_few_large_uploads_are_read_at_once(strict: Strict, standin: Standin):
    _, client = strict
    release = threading.Event()

    def wait(request: Any, context: Any) -> Any:
        release.wait(5)
        return standin.contract.message_class("steward.residents.v1.Import")()

    standin.answers["StartImport"] = wait
    large = {"filename": "a", "content": b64encode(bytes(2 << 20)).decode()}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/v1/imports", json=large)
        while not standin.called("StartImport"):
            time.sleep(0.01)
        answer = client.post("/v1/imports", json=large)
        assert (answer.status_code, answer.json()["reason"]) == (503, "OVERLOADED")
        release.set()
        assert running.result().status_code == 200
        assert client.post("/v1/imports", json={"filename": "a", "content": "aGk="}).status_code == 200


def test_a_head_that_does_not_end_is_given_up(strict: Strict):
    process, _ = strict
    for begun in (b"", b"GET / HTTP/1.1\r\nhost: x\r\n"):
        with socket.create_connection(("127.0.0.1", process.port), timeout=5) as place:
            place.sendall(begun)
            assert read_head(place).startswith(b"HTTP/1.1 408")


def test_between_two_requests_a_connection_may_rest(strict: Strict):
    process, _ = strict
    with socket.create_connection(("127.0.0.1", process.port), timeout=5) as place:
        for rest in (0.7, 0):
            place.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert read_head(place).startswith(b"HTTP/1.1 200")
            assert place.recv(100) == b'{"status":"alive"}'
            time.sleep(rest)


def test_a_head_that_is_too_large_is_refused(gateway: Any):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as place:
        place.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-filler: " + b"y" * 65536)
        assert place.recv(1000).startswith(b"HTTP/1.1 431")
        assert place.recv(1000) == b""


def test_an_address_that_is_too_long_is_refused(client: httpx.Client):
    answer = client.get(f"{URL}?unit={'x' * 17_000}")
    assert (answer.status_code, answer.json()["reason"]) == (414, "ADDRESS_TOO_LONG")


def test_nonsense_on_the_wire_gets_a_400_and_the_gateway_lives(gateway: Any, client: httpx.Client):
    for nonsense in (
        b"\x16\x03\x01\x00\xa5\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as place:
            place.sendall(nonsense)
            assert place.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 505", b""))
    assert client.get("/healthz").status_code == 200


def read_head(place: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = place.recv(1)
        if not part:
            break
        head += part
    if (length := [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]) and head.startswith(
        b"HTTP/1.1 4"
    ):
        rest = int(length[0].split(b": ")[1])
        while rest:
            rest -= len(place.recv(rest))
    return head
