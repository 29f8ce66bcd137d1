"""A few hundred commands while every part of the platform is killed in turn: what was acknowledged exists once, and so does each effect."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.chassis.db import Database
from services.local.platform import Platform
from services.local.story import Cast, Person

COMMANDS, CLIENTS = 240, 6
VICTIMS = ("api-work_orders", "worker", "relay", "jobs", "rabbitmq", "postgres", "api", "gateway")
PATIENCE = 90.0  # seconds that one command is tried again


class Reporter:
    """The front desk, as a careful client: the same key until there is an answer that is not "try again"."""

    def __init__(self, platform: Platform, cast: Cast):
        self._http = httpx.Client(base_url=platform.gateway_url, timeout=10, trust_env=False)
        self._cast = cast
        self._person: Person | None = None
        self._lock = threading.Lock()

    def report(self, place: str) -> str:
        """Reports a repair in a public area and returns its name."""
        key, until = str(uuid.uuid4()), time.monotonic() + PATIENCE
        body = {"location": place, "category": "OTHER", "description": "路灯不亮", "contactPhone": "13800000000"}
        while True:
            try:
                answer = self._http.post(
                    f"/v1/estates/{self._cast.estate}/repairs", json=body, headers={**self._token(), "Idempotency-Key": key}
                )
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 200:
                return answer.json()["name"]
            if answer is not None and answer.status_code in (400, 403, 404, 409, 422):
                raise AssertionError(f"refused: {answer.text}")
            if time.monotonic() > until:
                raise AssertionError(f"no answer within {PATIENCE:g} s; the last was {answer and answer.text}")
            time.sleep(0.2)

    def _token(self) -> dict[str, str]:
        with self._lock:
            if self._person is None:
                form = {"grant_type": "password", "username": self._cast.staff["CUSTOMER_ASSISTANT"], "password": self._cast.password}
                self._person = Person(self._http, form)
        return self._person._headers()


def rows(platform: Platform, service: str, sql: str, values: tuple[Any, ...] = ()) -> list[tuple]:
    database = Database(service, platform.database_url(service), pool_size=1)
    try:
        with database.read() as tx:
            return tx.execute(sql, values)
    finally:
        database.dispose()


def eventually(what: Any, within: float = 60.0) -> Any:
    """Waits until `what()` is true and returns it; fails showing the last value."""
    until = time.monotonic() + within
    while not (value := what()):
        assert time.monotonic() < until, f"still {value!r} after {within:g} s"
        time.sleep(0.3)
    return value


@pytest.mark.timeout(300)
def test_every_acknowledged_command_and_each_of_its_effects_exists_once_though_everything_was_killed(
    platform: Platform, cast: Cast
) -> None:
    reporter, run = Reporter(platform, cast), uuid.uuid4().hex[:8]
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [clients.submit(reporter.report, f"{run} 路灯 {n}") for n in range(COMMANDS)]
        for victim in VICTIMS:
            time.sleep(1.5)
            platform.kill(victim, signal.SIGKILL)
        names = [answer.result() for answer in answers]
    platform.wait_ready(seconds=60)

    assert len(set(names)) == COMMANDS
    kept = rows(platform, "work_orders", "SELECT id::text, number FROM repairs WHERE location LIKE %s", (f"{run} %",))
    assert {identifier for identifier, _ in kept} == {name.rpartition("/")[2] for name in names}
    assert len({number for _, number in kept}) == COMMANDS

    ids = [identifier for identifier, _ in kept]
    reported = "SELECT count(*), count(DISTINCT aggregate_id) FROM events WHERE type = 'RepairReported' AND aggregate_id = ANY(%s::uuid[])"
    assert rows(platform, "work_orders", reported, (ids,)) == [(COMMANDS, COMMANDS)]
    unpublished = "SELECT count(*) FROM events WHERE published_at IS NULL"
    eventually(lambda: rows(platform, "work_orders", unpublished) == [(0,)])
    positions = rows(platform, "work_orders", "SELECT count(*), count(DISTINCT position), max(position) - min(position) + 1 FROM events")
    assert positions[0][0] == positions[0][1] == positions[0][2]

    figures = "SELECT count(*) FROM service_cases WHERE id = ANY(%s::uuid[])"
    eventually(lambda: rows(platform, "governance", figures, (ids,)) == [(COMMANDS,)])
    subjects = [f"estates/{cast.estate}/repairs/{identifier}" for identifier in ids]
    # One REPAIR_REPORTED a case for each engineering supervisor of the estate, who is one person in the register.
    told = "SELECT count(*), count(DISTINCT subject) FROM messages WHERE kind = 'REPAIR_REPORTED' AND subject = ANY(%s)"
    eventually(lambda: rows(platform, "notifications", told, (subjects,)) == [(COMMANDS, COMMANDS)])
    for service in ("notifications", "governance", "surveys", "billing_reminders"):
        assert rows(platform, service, "SELECT queue, type, error FROM dead_letters") == []
