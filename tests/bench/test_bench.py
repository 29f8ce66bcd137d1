"""The instruments of `make bench`: the client that sends the load, the accounts of CPU, the tables of a profile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.bench.client import Client, Load, Outcome
from tests.bench.processes import ENDED, Usage, backend_name
from tests.bench.profiling import read, table


class Answers(BaseHTTPRequestHandler):
    """Answers 503 to /busy and 200 to everything else, in two pieces."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"once")
        self.wfile.flush()
        self.wfile.write(b"more")

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


def played(load: Load) -> Outcome:
    with Client(load) as client:
        client.wait_started()
        client.wait_ended()
        return client.outcome()


def test_a_load_ends_when_every_request_has_been_sent_once(port: int) -> None:
    outcome = played(Load(port, [get("/")] * 50, seconds=20, warm_up=0, clients=4))
    assert outcome.sent == 50
    assert len(outcome.took) == 50
    assert outcome.elapsed < 15
    assert outcome.took == sorted(outcome.took)


def test_answers_that_refuse_are_counted_apart(port: int) -> None:
    outcome = played(Load(port, [get("/"), get("/busy")] * 10, seconds=20, warm_up=0, clients=2))
    assert len(outcome.took) == 10
    assert outcome.refused == {503: 10}
    assert outcome.first_refusal == "503 oncemore"


def test_a_steady_load_keeps_its_rate_and_starts_over(port: int) -> None:
    began = time.monotonic()
    outcome = played(Load(port, [get("/")], seconds=1.5, warm_up=0.1, clients=4, rate=40, again=True))
    assert time.monotonic() - began > 1.5
    assert 20 <= len(outcome.took) <= 70  # 40 a second would be 60, and 4 that the warm-up may still owe


def test_a_server_that_goes_away_is_told() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        port = server.server_port
    with pytest.raises(RuntimeError, match="the client ended"):
        played(Load(port, [get("/")], seconds=1))


def test_what_a_connection_used_before_it_ended_is_not_counted_again() -> None:
    before = Usage(10.0, {("worker", 1): 5.0, ("postgres: residents api", 7): 2.0, (ENDED, 0): 1.0}, 100.0)
    after = Usage(12.0, {("worker", 1): 5.5, ("postgres: residents api", 8): 0.25, (ENDED, 0): 3.5}, 102.0)
    spent = after.since(before)
    assert spent.by_name == pytest.approx({"worker": 0.5, "postgres: residents api": 0.25, ENDED: 0.5})
    assert spent.total == pytest.approx(1.25)
    assert spent.others() == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("database", "application", "kind", "name"),
    [
        ("work_orders", "api", "client backend", "postgres: work_orders api"),
        ("work_orders", "steward-work_orders-relay", "client backend", "postgres: work_orders relay"),
        ("residents", "steward-residents", "client backend", "postgres: residents"),
        ("", "", "checkpointer", "postgres: background"),
        ("work_orders", "bench", "client backend", ""),
    ],
)
def test_a_backend_is_named_by_service_and_role(database: str, application: str, kind: str, name: str) -> None:
    assert backend_name(database, application, kind) == name


def test_a_profile_shares_the_time_out_by_samples() -> None:
    stacks = (
        "run (/x/lib/python3.11/threading.py:10);handle (/x/lib/python3.11/site-packages/grpc/_server.py:20) 1\n"
        "run (/x/lib/python3.11/threading.py:10);handle (/x/lib/python3.11/site-packages/grpc/_server.py:20);load (db.py:5) 3\n"
    )
    profile = read("api", stacks)
    assert profile.samples == 4
    assert profile.own == {"grpc._server.handle": 1, "db.load": 3}
    assert profile.under["threading.run"] == 4
    lines = table(profile, milliseconds=2.0)
    assert lines[0] == "api: 2.00 ms CPU each, 4 samples"
    assert " 1.500  1.500  db.load" in "\n".join(lines)


def test_a_process_that_did_nothing_is_called_idle() -> None:
    assert table(read("relay", ""), milliseconds=0.0) == ["relay: idle"]
