"""What the fault tests stand on: stores of their own, because they kill them, and two services that exist only here.

`emitter` emits events, `ledger` reacts to them (`ledger.py`); both have the chassis's tables and run the chassis's real roles,
each process started as `process.py` so that it knows the ledger's reactions and can be told where to die.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import orjson
import pika
import psycopg2
import pytest

from services.chassis import topology
from services.chassis.db import Database
from services.chassis.event_log import Entry
from services.chassis.migrate import migrate
from services.chassis.testing import eventually
from services.local.platform import Platform
from services.local.postgres import Postgres
from tests.faults import ledger

ROOT = Path(__file__).parents[2]
SERVICES = ("emitter", "ledger")
COUNTED = (
    "steward_events_handled_total",
    "steward_events_handled_together_total",
    "steward_events_apart_total",
    "steward_events_duplicate_total",
    "steward_events_retried_total",
    "steward_dead_letters_total",
    "steward_timer_failures_total",
)


class Stores:
    """PostgreSQL with the databases of emitter and ledger, RabbitMQ with their topology; both can be killed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.platform = Platform(folder / "state", port=0, say=lambda line: None)
        self.platform.start_stores()
        self.postgres = Postgres(self.platform.state, self.platform.keys, SERVICES)
        self.postgres.provision()
        self.amqp_url = self.platform.amqp_url
        for service in SERVICES:
            migrate(service, self.postgres.url(service, owner=True))
        self.sql("ledger", ledger.TABLES)
        self.declare()

    def declare(self) -> None:
        """Topology as `migrate` makes it."""
        topology.declare(self.amqp_url, SERVICES)
        topology.record_consumed(self.postgres.url("emitter", owner=True), "emitter", SERVICES)

    def sql(self, database: str, statement: str, values: Sequence[object] = ()) -> list[tuple]:
        """One statement as the superuser, in a connection of its own."""
        connection = psycopg2.connect(self.postgres.superuser_url(database), connect_timeout=5)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def emit(self, aggregates: Sequence[UUID], *, events: int = 1, type: str = "RepairReported", data: str = "{}", start: int = 1) -> int:
        """Writes `events` events of each aggregate as services do, in one transaction, round robin. Returns how many."""
        self.sql(
            "emitter",
            "INSERT INTO events (id, aggregate, aggregate_id, sequence, type, subject, group_id, company_id, estate_id, occurred_at, actor,"
            " data)"
            " SELECT gen_random_uuid(), 'repair', a.id, n, %s, 'estates/TFHY/repairs/' || a.id, a.id, a.id, a.id, now(), 'staff/1', %s"
            " FROM generate_series(%s, %s) AS n, unnest(%s::uuid[]) WITH ORDINALITY AS a (id, nth) ORDER BY n, nth; NOTIFY steward_events",
            (type, data, start, start + events - 1, [str(a) for a in aggregates]),
        )
        return events * len(aggregates)

    def forget_events(self) -> None:
        self.sql("emitter", "TRUNCATE events; UPDATE relay_state SET last_position = 0")
        self.sql("ledger", "TRUNCATE inbox, dead_letters, effects, holders, totals, switches, batches")
        with self.channel() as channel:
            for name in topology.declared(SERVICES).queues:
                channel.queue_purge(name)

    def published(self) -> tuple[int, int]:
        """(events, of which marked as published)."""
        return self.sql("emitter", "SELECT count(*), count(published_at) FROM events")[0]  # type: ignore[return-value]

    def all_published(self, *, within: float = 20) -> None:
        eventually(lambda: len(set(self.published())) == 1, within=within)

    def positions_have_no_gaps(self) -> None:
        rows = self.sql("emitter", "SELECT position FROM events ORDER BY position")
        assert [position for (position,) in rows] == list(range(1, len(rows) + 1))

    @contextlib.contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        connection = pika.BlockingConnection(topology.parameters(self.amqp_url))
        try:
            yield connection.channel()
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError):
                connection.close()

    def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        with self.channel() as channel:
            return channel.queue_declare(queue, passive=True).method.message_count

    def control(self, *arguments: str) -> str:
        return self.platform.rabbitmq.control("-q", "-p", "steward", *arguments)

    def publish(self, body: bytes, *, queue: str = "ledger.events", headers: dict[str, object] | None = None) -> None:
        """Straight into a queue, confirmed."""
        with self.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, headers=headers), mandatory=True)

    def publish_many(self, bodies: Sequence[bytes], *, queue: str = "ledger.events") -> None:
        """The same for many: the commit comes back when the queue has them all."""
        self._publish_many("", queue, bodies)

    def publish_events(self, type: str, bodies: Sequence[bytes]) -> None:
        """Events of one type, as the relay publishes them: by their routing key."""
        self._publish_many(topology.EVENTS, f"emitter.{type}", bodies)

    def _publish_many(self, exchange: str, routing_key: str, bodies: Sequence[bytes]) -> None:
        with self.channel() as channel:
            channel.tx_select()
            for body in bodies:
                channel.basic_publish(exchange, routing_key, body, pika.BasicProperties(delivery_mode=2))
            channel.tx_commit()

    def drain(self, queue: str, count: int, *, within: float = 20) -> list[dict]:
        """Takes messages out of a queue until there were `count` different ones, and what else is there; in order of arrival."""
        taken: list[dict] = []
        until = time.monotonic() + within
        with self.channel() as channel:
            for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.05):
                if body is not None:
                    taken.append(json.loads(body))
                elif len({event["id"] for event in taken}) >= count:
                    return taken
                assert time.monotonic() < until, f"{len(taken)} of {count} messages within {within} s"
        raise AssertionError("the broker ended the consumer")

    def drain_raw(self, queue: str) -> list[bytes]:
        with self.channel() as channel:
            found = []
            while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
                found.append(body)
            return found

    def kill_broker(self) -> None:
        """kill -9; it is started again at once."""
        self.platform.kill("rabbitmq")

    def broker_answers(self) -> None:
        eventually(self._broker_answers, within=40, every=0.1)

    def _broker_answers(self) -> bool:
        with contextlib.suppress(pika.exceptions.AMQPError, OSError), self.channel() as channel:
            channel.queue_declare("ledger.events", passive=True)
            return True
        return False

    def close(self) -> None:
        self.platform.close()


class Process:
    """A process of Steward under test."""

    def __init__(self, stores: Stores, role: str, service: str, fault: str, name: str):
        self.log = stores.folder / f"{name}.log"
        self._before: dict[str, float] = {}
        self.http_port = _free_port()
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}",
            "PYTHONWARNINGS": "ignore",
            "STEWARD_PROFILE": "development",
            "STEWARD_AMQP_URL": stores.amqp_url,
            "STEWARD_DATABASE_URL": stores.postgres.url("{service}"),
            "STEWARD_HTTP_PORT": str(self.http_port),
            "FAULT": fault,
        }
        command = [sys.executable, str(Path(__file__).with_name("process.py")), role, service]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=ROOT)
        self.pid = self._process.pid

    def ready(self) -> Process:
        eventually(lambda: self._ready() or self._process.poll() is not None, within=20)
        assert self._process.poll() is None, self.log.read_text()[-4000:]
        return self

    def _ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=5) as answer:
            return answer.status == 200
        return False

    def begin(self) -> Process:
        """From here on `metric` counts."""
        self._before = {}
        self._before = {name: self.metric(name) for name in COUNTED}
        return self

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, of a counter since `begin`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        now = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return now - self._before.get(name, 0)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self, within: float = 15) -> int:
        """SIGTERM. Returns the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(within)

    def ended(self, within: float = 15) -> int:
        """Waits for an end that comes by itself. Returns the exit status."""
        return self._process.wait(within)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


_counter = itertools.count(1)


def cloud_event(
    type: str = "RepairReported", *, aggregate: UUID | None = None, sequence: int = 1, data: dict | None = None, id: UUID | None = None
) -> bytes:
    """An event of the emitter, word for word as its relay writes it."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    aggregate = aggregate or uuid4()
    body = {
        "aggregate": "repair",
        "subject": f"estates/TFHY/repairs/{aggregate}",
        "time": now,
        "estateid": str(uuid4()),
        "actor": "staff/1",
    }
    entry = Entry(
        now, str(id or uuid4()), str(aggregate), sequence, type, {**body, "data": orjson.Fragment(json.dumps(data or {}))}, next(_counter)
    )
    return entry.envelope("emitter")


def id_of(body: bytes) -> UUID:
    return UUID(json.loads(body)["id"])


@pytest.fixture(scope="session")
def all_stores() -> Iterator[Stores]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))  # short: a socket path must stay below 100 bytes
    made = Stores(folder)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stores(all_stores: Stores) -> Stores:
    """The stores, up, with the topology declared and no events in them."""
    all_stores.platform.wait_ready("postgres", "rabbitmq")
    all_stores.broker_answers()
    all_stores.forget_events()
    return all_stores


@pytest.fixture(scope="session")
def workers(all_stores: Stores) -> Iterator[list[Process]]:
    """The worker that several tests share; the last one, when tests have ended it."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.stop()


Start = Callable[..., Process]


@pytest.fixture
def start(stores: Stores, workers: list[Process], request: pytest.FixtureRequest) -> Iterator[Start]:
    """`start("relay")`, `start("worker")`: a process, ready, ended with the test; its log is shown when the test fails.

    It is alone: the shared worker is ended, unless the test asks for that too.
    """
    if "worker" not in request.fixturenames:
        for process in workers:
            process.stop()
    processes: list[Process] = []

    def begin(role: str, *, fault: str = "", ready: bool = True) -> Process:
        service = "emitter" if role == "relay" else "ledger"
        process = Process(stores, role, service, fault, f"{request.node.name}-{len(processes)}")
        processes.append(process)
        return process.ready() if ready else process

    yield begin
    for process in processes:
        process.stop()
        sys.stderr.write(f"--- {process.log.name}\n{process.log.read_text()[-6000:]}\n")


@pytest.fixture
def worker(stores: Stores, workers: list[Process]) -> Iterator[Process]:
    """A running worker that has been at it for a while: starting one takes a second of CPU."""
    if not workers or not workers[-1].running:
        workers.append(Process(stores, "worker", "ledger", "", f"worker-{len(workers)}"))
    yield workers[-1].ready().begin()
    sys.stderr.write(f"--- {workers[-1].log.name}\n{workers[-1].log.read_text()[-6000:]}\n")


@pytest.fixture
def ledger_database(stores: Stores) -> Iterator[Database]:
    """With connections of its own: the database may have been killed before."""
    database = Database("ledger", stores.postgres.url("ledger"), pool_size=1)
    yield database
    database.dispose()
