"""A database that falls silent: it neither answers nor hangs up, as when its machine is halted or the network swallows packets."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services.local.platform import Platform
from tests.journeys.people import Neighbours
from tests.journeys.stores import Stores

DESK, CLIENTS = "CUSTOMER_ASSISTANT", 8


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """Halts a process and its children."""
    every = [pid, *(int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit() and parent(folder) == pid)]
    for process in every:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in every:
            os.kill(process, signal.SIGCONT)


def parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.mark.timeout(180)
def test_a_silent_database_is_a_503_within_the_deadline_and_the_same_command_succeeds_when_it_speaks_again(
    platform: Platform, neighbours: Neighbours, stores: Stores
) -> None:
    place, url = f"大堂 {uuid.uuid4().hex[:8]}", f"/v1/estates/{neighbours.estate}/repairs"
    body = {"location": place, "category": "OTHER", "description": "吊顶灯不亮", "contactPhone": "13800000000"}
    keys = [str(uuid.uuid4()) for _ in range(CLIENTS)]

    def report(key: str) -> tuple[httpx.Response, float]:
        start = time.monotonic()
        answer = neighbours.http.post(url, json=body, headers={**neighbours.as_(DESK), "Idempotency-Key": key})
        return answer, time.monotonic() - start

    neighbours.get(DESK, url)  # who calls is known to the gateway for the next seconds
    database = platform.pid("postgres")
    assert database
    with halted(database), ThreadPoolExecutor(CLIENTS) as clients:
        refused = list(clients.map(report, keys))
        again, seconds = report(keys[0])  # on a new connection, which does not come about
        assert neighbours.http.get("/healthz").status_code == 200
    for answer, took in [*refused, (again, seconds)]:
        assert (answer.status_code, answer.json()["reason"] in ("DEADLINE", "DATABASE_DOWN")) == (503, True), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert took < 6

    def answered(key: str) -> str:
        """At once, or after what a careful client does: a connection may have been lost."""
        for _ in range(20):
            answer, _ = report(key)
            if answer.status_code == 200:
                return answer.json()["name"]
            assert answer.status_code == 503, answer.text
            time.sleep(0.5)
        raise AssertionError(answer.text)

    names = [answered(key) for key in keys]
    assert [answered(key) for key in keys] == names
    assert stores.rows("work_orders", "SELECT count(*) FROM repairs WHERE location = %s", (place,)) == [(CLIENTS,)]
    platform.wait_ready(seconds=60)
