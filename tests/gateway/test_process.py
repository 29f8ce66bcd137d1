"""The process: health, metrics, logs, settings, cross-origin rules, draining."""

from __future__ import annotations

import ast
import json
import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import settings as gateway_settings
from gateway.descriptors import Contract
from gateway.upstream import target
from tests.gateway.conftest import Process
from tests.gateway.standin import Standin, eventually

URL = "/v1/estates/TFHY/repairs/0192"


def test_health_and_readiness_are_on_both_ports(gateway: Process):
    for base in (gateway.url, gateway.inside):
        for path in ("/healthz", "/readyz"):
            assert httpx.get(base + path, trust_env=False).status_code == 200


def test_metrics_are_inside_only_in_production(gateway: Process):
    assert httpx.get(f"{gateway.url}/metrics", trust_env=False).status_code == 404
    assert httpx.get(f"{gateway.inside}/metrics", trust_env=False).status_code == 200
    assert httpx.get(f"{gateway.inside}{URL}", trust_env=False).status_code == 404


def test_in_development_metrics_are_on_the_rest_port_too(development_gateway: Process):
    assert httpx.get(f"{development_gateway.url}/metrics", trust_env=False).status_code == 200


def test_requests_are_counted_by_route_and_status_class(client: httpx.Client, gateway: Process):
    def count(line: str) -> float:
        page = httpx.get(f"{gateway.inside}/metrics", trust_env=False).text
        return next((float(found.split()[-1]) for found in page.splitlines() if found.startswith(line)), 0)

    route = 'route="/v1/{name=estates/*/repairs/*}"'
    counter = f'steward_gateway_requests_total{{method="GET",{route},status="2xx"}}'
    seconds = f'steward_gateway_request_seconds_count{{method="GET",{route}}}'
    hits = 'steward_gateway_identities_total{outcome="hit"}'
    before = [count(line) for line in (counter, seconds, hits)]
    client.get("/v1/me")
    for number in range(3):
        client.get(f"{URL}?", headers={"x-number": str(number)})
    assert [count(line) - was for line, was in zip((counter, seconds, hits), before, strict=True)] >= [3, 3, 3]


def test_labels_stay_few_whatever_clients_send(client: httpx.Client, gateway: Process):
    for number in range(20):
        client.get(f"/v1/nowhere/{number}")
        client.request(f"METHOD{number}" if number < 3 else "PURGE", "/v1/me")
    page = httpx.get(f"{gateway.inside}/metrics", trust_env=False).text
    assert "nowhere" not in page
    assert "PURGE" not in page
    assert 'method="GET",route="unmatched",status="4xx"' in page


def test_a_log_line_has_route_status_and_trace(client: httpx.Client, gateway: Process):
    answer = client.get(f"{URL}?x=13800000001")
    line = last_line(gateway, answer.headers["x-trace-id"])
    assert " GET /v1/{name=estates/*/repairs/*} 400 " in line
    assert "reason=UNKNOWN_FIELD" in line


def test_log_lines_are_json_when_asked_for(strict: tuple[Process, httpx.Client]):
    process, client = strict
    answer = client.get("/v1/nowhere")
    line = json.loads(last_line(process, answer.headers["x-trace-id"]))
    assert (line["status"], line["route"], line["reason"], line["method"]) == (404, "unmatched", "ROUTE_NOT_FOUND", "GET")
    assert all(json.loads(text)["time"] for text in process.lines)


PREFLIGHT = {"origin": "https://app.example", "access-control-request-method": "POST"}


def test_other_origins_may_not_call(client: httpx.Client):
    for origin in ("https://app.example", "http://localhost:3000"):
        answer = client.options("/v1/imports", headers=PREFLIGHT | {"origin": origin})
        assert answer.status_code == 204
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_origins_that_are_named_may_call(strict: tuple[Process, httpx.Client]):
    _, allowed = strict
    answer = allowed.options("/v1/imports", headers=PREFLIGHT)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "https://app.example")
    assert "POST" in answer.headers["access-control-allow-methods"]
    for header in ("authorization", "idempotency-key", "if-match"):
        assert header in answer.headers["access-control-allow-headers"]
    answer = allowed.get(URL, headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "etag" in answer.headers["access-control-expose-headers"]
    assert "origin" in answer.headers["vary"]
    refusal = allowed.get("/v1/nowhere", headers={"origin": "https://other.example"})
    assert refusal.headers["access-control-allow-origin"] == "https://other.example"
    for stranger in ("https://evil.example", "https://app.example.evil", "null", "http://localhost:3000"):
        assert "access-control-allow-origin" not in allowed.get(URL, headers={"origin": stranger}).headers
    assert allowed.options("/v1/nowhere", headers=PREFLIGHT).status_code == 404


def test_in_development_local_pages_may_call(development_gateway: Process):
    for origin, may in [("http://localhost:5173", True), ("http://127.0.0.1:3000", True), ("http://localhost.evil.example", False)]:
        answer = httpx.get(f"{development_gateway.url}/healthz", headers={"origin": origin}, trust_env=False)
        assert ("access-control-allow-origin" in answer.headers) == may


def test_options_without_an_origin_lists_the_methods(client: httpx.Client):
    answer = client.options("/v1/imports")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


def test_on_sigterm_what_is_in_flight_ends_and_the_exit_code_is_zero(started: Callable[..., Any], standin: Standin):
    def slow(request: Any, context: Any) -> Any:
        time.sleep(1)
        return standin.contract.message_class("steward.work_orders.v1.Repair")(number="WX-1")

    standin.answers["GetRepair"] = slow
    with started() as (process, client), ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.get, URL)
        while not standin.called("GetRepair"):
            time.sleep(0.01)
        process.signal(signal.SIGTERM)
        answer = running.result()
        assert (answer.status_code, answer.json()) == (200, {"number": "WX-1"})
        assert answer.headers["connection"] == "close"
        assert process.wait() == 0
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", process.port), timeout=1)


def test_while_draining_it_says_so_and_still_answers(started: Callable[..., Any]):
    with started(STEWARD_GATEWAY_DRAIN_DELAY="1") as (process, client):
        process.signal(signal.SIGTERM)
        time.sleep(0.3)
        answer = httpx.get(f"{process.inside}/readyz", trust_env=False)
        assert (answer.status_code, answer.json()["why"]) == (503, "draining")
        assert client.get(URL).status_code == 200
        assert process.wait() == 0


def test_draining_ends_even_when_a_request_does_not(started: Callable[..., Any], standin: Standin):
    with (
        started(STEWARD_GATEWAY_DRAIN_TIMEOUT="1") as (process, _),
        socket.create_connection(("127.0.0.1", process.port), timeout=5) as place,
    ):
        place.sendall(b"POST /v1/imports HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 100\r\n\r\n{")
        while not standin.called("ExchangeSession"):
            time.sleep(0.01)
        process.signal(signal.SIGINT)
        assert process.wait(6) == 0


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("STEWARD_PORT", "eighty", "STEWARD_PORT"),
        ("STEWARD_GATEWAY_DEADLINE", "-1", "STEWARD_GATEWAY_DEADLINE"),
        ("STEWARD_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/99", "STEWARD_GATEWAY_TRUSTED_PROXIES"),
        ("STEWARD_GATEWAY_METRICS_OUTSIDE", "maybe", "STEWARD_GATEWAY_METRICS_OUTSIDE"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(variable: str, value: str, says: str):
    with pytest.raises(ValueError, match=says):
        gateway_settings.read({variable: value})


def test_settings_are_read_from_the_environment():
    read = gateway_settings.read(
        {
            "STEWARD_PORT": "9",
            "STEWARD_GATEWAY_DEADLINE": "2.5",
            "STEWARD_CORS_ORIGINS": "https://a, https://b",
            "STEWARD_GATEWAY_TRUSTED_PROXIES": "10.0.0.1,fd00::/8",
            "STEWARD_GATEWAY_METRICS_OUTSIDE": "true",
        }
    )
    assert (read.port, read.deadline, read.cors_origins, read.metrics_outside) == (9, 2.5, ("https://a", "https://b"), True)
    assert [str(network) for network in read.trusted_proxies] == ["10.0.0.1/32", "fd00::/8"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"STEWARD_DESCRIPTORS": __file__}, "is not a complete descriptor set"),
        ({"STEWARD_PROFILE": "demo"}, "STEWARD_PROFILE"),
        ({"STEWARD_INTERNAL_TOKEN": ""}, "STEWARD_ADDRESSES, STEWARD_INTERNAL_TOKEN must be set"),
    ],
)
def test_a_gateway_that_cannot_start_says_why_and_ends(settings: dict[str, str], says: str):
    with pytest.raises(RuntimeError, match=re.escape(says)) as refusal:
        Process(settings)
    assert "Traceback" not in str(refusal.value)


def test_a_missing_descriptor_set_and_addresses_that_cannot_be_used_are_errors():
    with pytest.raises(OSError, match="nowhere"):
        Contract.load("/nowhere.binpb")
    for text in ("a.example:1;b.example:2", "", ";"):
        with pytest.raises(ValueError, match="address"):
            target(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5000", "ipv4:127.0.0.1:5000"),
        ("localhost:5000;127.0.0.1:5001", "ipv4:127.0.0.1:5000,127.0.0.1:5001"),
        ("work-orders-api:50051", "dns:///work-orders-api:50051"),
    ],
)
def test_addresses_become_grpc_targets(text: str, expected: str):
    assert target(text) == expected


def test_several_processes_of_a_service_share_the_work(started: Callable[..., Any], standin: Standin, base_settings: dict[str, str]):
    other = Standin(standin.contract)
    other.start()
    both = base_settings["STEWARD_ADDRESSES"].replace(
        f"work_orders=127.0.0.1:{standin.port}", f"work_orders=127.0.0.1:{standin.port};127.0.0.1:{other.port}"
    )
    with started(STEWARD_ADDRESSES=both) as (_, client):
        assert client.get(URL).status_code == 200
        time.sleep(0.2)  # until both connections stand
        assert [client.get(URL).status_code for _ in range(10)] == [200] * 10
        assert len(other.called("GetRepair")) >= 4
        assert len(standin.called("GetRepair")) >= 4
        other.stop()
        eventually(lambda: [client.get(URL).status_code for _ in range(4)] == [200] * 4)
        assert [client.get(URL).status_code for _ in range(10)] == [200] * 10


def test_the_gateway_imports_nothing_of_the_services_but_settings_and_errors():
    allowed = {"services.chassis.settings", "services.chassis.errors"}
    folder = Path(gateway_settings.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {m for m in modules if m and m.startswith("services")} - allowed, file


def last_line(process: Process, trace: str) -> str:
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        for line in reversed(process.lines):
            if trace in line:
                return line
        time.sleep(0.01)
    raise AssertionError(f"no line with trace {trace} in {''.join(process.lines[-5:])}")
