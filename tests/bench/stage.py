"""The platform that is measured, with a register and people who are signed in."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pika
import psycopg2

from services.chassis import topology
from services.chassis.__main__ import SERVICES
from services.local.demo_cast import cast_of
from services.local.first_import import SHIPPED
from services.local.platform import Platform
from services.local.story import Person
from tests.bench.processes import Processes, Usage

NO_LIMITS = {f"STEWARD_GATEWAY_{what}_RATE": "0" for what in ("PRINCIPAL", "ADDRESS", "SIGN_IN")}
GROUP_MANAGER = "G-006"  # sees every estate
REPORT = {"location": "大堂", "category": "OTHER", "description": "灯不亮", "contactPhone": "13800000000"}


class Measured(Platform):
    """A platform whose database connections say which role has opened them."""

    def environment(self, role: str, services: Iterable[str] = SERVICES, *, http_port: int = 0, grpc_port: int = 0) -> dict[str, str]:
        return super().environment(role, services, http_port=http_port, grpc_port=grpc_port) | {"PGAPPNAME": role}


class Stage:
    """What the measurements stand on."""

    def __init__(self, platform: Platform, folder: Path):
        self.platform, self.folder = platform, folder
        self.processes = Processes(platform)
        self.cast = cast_of(platform)
        self.estate = self.cast.estate
        self._http = httpx.Client(base_url=platform.gateway_url, timeout=30, trust_env=False)
        self._signed_in: dict[str, tuple[float, Person]] = {}
        self._databases: dict[str, Any] = {}
        parameters = topology.parameters(platform.amqp_url)
        parameters.heartbeat = 0
        self._broker = pika.BlockingConnection(parameters).channel()

    @cached_property
    def template(self) -> str:
        """Id of a repair that was reported through the API: what is filled in is copied from it."""
        name: str = self.person("CUSTOMER_ASSISTANT").post(f"/v1/estates/{self.estate}/repairs", REPORT)["name"]
        return name.rpartition("/")[2]

    def person(self, role: str) -> Person:
        """Somebody of the estate who holds the role, or GROUP; signed in anew before his 15 minutes are over."""
        since, person = self._signed_in.get(role, (0.0, None))
        if person is None or time.monotonic() - since > 300:
            number = GROUP_MANAGER if role == "GROUP" else self.cast.staff[role]
            person = Person(self._http, {"grant_type": "password", "username": number, "password": self.cast.password})
            self._signed_in[role] = time.monotonic(), person
        return person

    def request(self, method: str, path: str, role: str, body: Any = None, key: str = "") -> bytes:
        """A request as bytes, with the headers that an ordinary client sends."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*", "Accept-Encoding: gzip", "User-Agent: steward-bench"]
        lines += [f"{name}: {value}" for name, value in self.person(role)._headers().items()]
        content = b""
        if key:
            lines.append(f"Idempotency-Key: {key}")
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return "\r\n".join([*lines, "", ""]).encode() + content

    def sql(self, service: str, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Rows of a statement in a service's database, seen from above and committed at once."""
        with self._database(service).cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def settle(self, seconds: float = 180.0) -> Usage:
        """Waits until every event is published and reacted to, so that it does not weigh on what is measured next.

        Returns the usage at that moment. Raises TimeoutError.
        """
        deadline, empty = time.monotonic() + seconds, 0
        while empty < 2:  # what a worker has in hand is not in the queue any more: it gets another moment
            if time.monotonic() > deadline:
                raise TimeoutError(f"events are still on their way after {seconds:.0f} s")
            time.sleep(0.25)
            empty = 0 if self.unpublished() or any(map(self.waiting, self._queues)) else empty + 1
        return self.processes.usage()

    def unpublished(self) -> bool:
        return any(self.sql(service, "SELECT 1 FROM events WHERE published_at IS NULL LIMIT 1") for service in SERVICES)

    def waiting(self, queue: str) -> int:
        """Messages that no worker has taken yet."""
        return self._broker.queue_declare(queue, passive=True).method.message_count

    @cached_property
    def _queues(self) -> list[str]:
        return [name for name in topology.declared(SERVICES).queues if name.endswith((".events", ".directory"))]

    def _database(self, service: str) -> Any:
        if service not in self._databases:
            connection = psycopg2.connect(self.platform.postgres.superuser_url(service), application_name="bench")
            connection.autocommit = True
            self._databases[service] = connection
        return self._databases[service]


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A platform of its own in a temporary folder, on free ports, with the register that the repository ships."""
    with (
        tempfile.TemporaryDirectory(prefix="steward-bench-") as folder,
        Measured(Path(folder), port=0, environment=NO_LIMITS, say=lambda line: None) as platform,
    ):
        platform.start_stores()
        _note_commits(platform)
        platform.migrate()
        platform.start()
        platform.wait_ready(seconds=120)
        argv = [sys.executable, "-m", "services.residents.first_import", str(SHIPPED)]
        platform.run("first_import", argv, platform.environment("jobs"), seconds=120)
        yield Stage(platform, Path(folder))


def _note_commits(platform: Platform) -> None:
    """PostgreSQL keeps the instant of each commit from now on: a row's own time is that of its statement."""
    connection = psycopg2.connect(platform.postgres.superuser_url("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    connection.close()
    platform.stop("postgres")
    platform.start("postgres")
    platform.wait_ready("postgres")
