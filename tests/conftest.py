"""Fixtures of every test: a PostgreSQL of the run's own, the databases of the services, running servers, a broker.

Settings stand before the first import that reads them; the development profile is theirs alone.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "gen" / "steward.binpb").exists():
    raise pytest.UsageError("the code of the protos is not there: run `make gen` first")

FOLDER = Path(tempfile.mkdtemp(prefix="steward-tests-"))  # short: a socket path must stay below 100 bytes

from services.chassis import testing  # noqa: E402

PRIVATE, PUBLIC = testing.key_pair()
os.environ.update(
    STEWARD_PROFILE="development",
    STEWARD_DATABASE_URL=f"postgresql://{{service}}@/{{service}}?host={FOLDER}",
    STEWARD_MIGRATE_URL=f"postgresql://{{service}}_owner@/{{service}}?host={FOLDER}",
    STEWARD_IDENTITY_KEY=PRIVATE,
    STEWARD_IDENTITY_PUBLIC_KEYS=PUBLIC,
    STEWARD_INTERNAL_TOKEN=secrets.token_hex(16),
    STEWARD_DATA_KEY=base64.b64encode(secrets.token_bytes(32)).decode(),
    STEWARD_DEMO_PASSWORD="Demo-2026-steward",  # noqa: S106 - of these tests alone
    STEWARD_DEMO_CODE="246810",
)

from services.chassis.__main__ import SERVICES  # noqa: E402
from services.chassis.db import Database  # noqa: E402
from services.chassis.migrate import migrate  # noqa: E402
from services.chassis.rpc import Server  # noqa: E402
from services.chassis.settings import settings  # noqa: E402
from services.local import keys, ports, state  # noqa: E402
from services.local.keeper import Keeper  # noqa: E402
from services.local.postgres import Account, binaries  # noqa: E402
from services.local.rabbitmq import PORTS, RabbitMQ  # noqa: E402

settings.cache_clear()


class Postgres:
    """PostgreSQL of this run on a unix socket, without fsync: tests of logic may lose their data in a power cut."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir(mode=0o700)
        self._account = Account.find(folder)
        self._account.give(self.data)
        self._run(
            "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        settings = {
            "unix_socket_directories": folder, "listen_addresses": "''", "max_connections": 300, "timezone": "UTC", "deadlock_timeout": "200ms",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
        }  # fmt: skip
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", self.data / "log", "-w", "start")
        for service in SERVICES:
            self.make(service)

    def make(self, service: str) -> None:
        """A service's database and its two roles."""
        self.sql("postgres", f'CREATE ROLE "{service}_owner" LOGIN')
        self.sql("postgres", f'CREATE ROLE "{service}" LOGIN')
        self.sql("postgres", f'CREATE DATABASE "{service}" OWNER "{service}_owner"')

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def url(self, database: str, role: str = "postgres") -> str:
        return f"postgresql://{role}@/{database}?host={self.folder}"

    def sql(self, database: str, statement: str, values: tuple = (), *, role: str = "postgres") -> list[tuple]:
        """One statement as the superuser (or another role), in a connection of its own."""
        connection = psycopg2.connect(self.url(database, role))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _run(self, program: str, *arguments: object) -> None:
        user = self._account.user
        command = [*self._account.prefix, str(binaries() / program), *map(str, arguments)]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, user=user, group=user, cwd=self.data
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres(FOLDER)
    yield server
    server.stop()


class Databases:
    """`database_of("work_orders")`: the migrated database, connected as the unprivileged role. Made when first asked for."""

    def __init__(self) -> None:
        self.made: dict[str, Database] = {}

    def __call__(self, service: str) -> Database:
        if service not in self.made:
            migrate(service, settings().migrate_database(service))
            self.made[service] = Database(service)
        return self.made[service]


@pytest.fixture(scope="session")
def database_of(postgres: Postgres) -> Iterator[Databases]:
    databases = Databases()
    yield databases
    for database in databases.made.values():
        database.dispose()


@pytest.fixture(scope="session")
def serving_of(database_of: Databases) -> Iterator[Callable[[str], tuple[Server, testing.Api]]]:
    """`serving_of("work_orders")`: a running server with its port, and a client of it. Made when first asked for."""
    with ExitStack() as stack:
        made: dict[str, tuple[Server, testing.Api]] = {}

        def serve(service: str) -> tuple[Server, testing.Api]:
            if service not in made:
                database_of(service)
                made[service] = stack.enter_context(testing.serving(service))
            return made[service]

        yield serve


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A broker of the run's own: `rabbitmq.url`, `rabbitmq.control("list_queues")`."""
    place = state.State(FOLDER / "broker")
    place.prepare()
    secret = keys.read_or_make(place.folder("secrets"))
    node = RabbitMQ(place, secret, ports.choose(place.root / "ports.json", PORTS))
    node.prepare()
    keepers = []
    for program in node.programs():
        keepers.append(Keeper(program, place, lambda line: None))
        keepers[-1].start()
        testing.eventually(program.ready, within=60)
    yield node
    for keeper in reversed(keepers):
        keeper.ask_to_stop()
        keeper.wait_stopped()


@pytest.fixture
def moving_time(database_of: Databases) -> Iterator[None]:
    """For tests that move business time (`testing.set_time`, `advance`): put back afterwards in every database."""
    yield
    for database in database_of.made.values():
        with database.transaction() as tx:
            tx.execute("UPDATE business_time SET shifted_by = '0'")


def pytest_unconfigure() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
