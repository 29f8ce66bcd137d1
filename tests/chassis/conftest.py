"""A service of the tests' own, `probe`, so that the chassis is proven without any of the real ones.

It stands in `tests/chassis/services/probe` and is imported as `services.probe`; its proto is compiled for the run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import google.api.annotations_pb2
import grpc_tools
import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from grpc_tools import protoc

import services
from tests.conftest import FOLDER, ROOT, Databases, Postgres

HERE = Path(__file__).parent
PROTOS = FOLDER / "protos"


def _compile() -> None:
    place, gen = PROTOS / "steward/probe/v1", FOLDER / "gen"
    place.mkdir(parents=True)
    gen.mkdir()
    (place / "probe.proto").write_text((HERE / "services/probe/probe.proto").read_text())
    googleapis = Path(google.api.annotations_pb2.__file__).parents[2]
    includes = [PROTOS, ROOT / "protos", googleapis, Path(grpc_tools.__file__).parent / "_proto"]
    if protoc.main(["protoc", *(f"-I{path}" for path in includes), f"--python_out={gen}", "steward/probe/v1/probe.proto"]):
        raise pytest.UsageError("the proto of the probe service does not compile")
    sys.path.append(str(gen))
    services.__path__.append(str(HERE / "services"))


_compile()

from services.chassis import testing  # noqa: E402
from services.chassis.db import Database  # noqa: E402
from services.chassis.migrate import protect  # noqa: E402
from services.chassis.rpc import Server  # noqa: E402
from services.chassis.settings import settings  # noqa: E402
from services.chassis.testing import Api, Tree  # noqa: E402

TABLE = """
CREATE TABLE probes (
    id uuid PRIMARY KEY, group_id uuid NOT NULL, company_id uuid NOT NULL, estate_id uuid NOT NULL, estate_code text NOT NULL,
    version integer NOT NULL, event_count integer NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    number text, state text NOT NULL, title text NOT NULL, unit_id uuid, owner_id uuid, effort integer NOT NULL,
    in_hours boolean NOT NULL, created_by text NOT NULL
);
"""


@pytest.fixture(scope="session")
def database(postgres: Postgres, database_of: Databases) -> Database:
    """The migrated database of the probe service."""
    postgres.make("probe")
    found = database_of("probe")
    engine = sa.create_engine(settings().migrate_database("probe").replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        connection.execute(sa.text(TABLE))
        protect("probes")
    engine.dispose()
    return found


def killing(database: Database, postgres: Postgres) -> Callable[[], int]:
    """From now on knows the connections of one pool; the call ends them all, as a database that goes away does, and says how many."""
    pids: list[int] = []
    sa.event.listen(database.engine, "connect", lambda connection, _: pids.append(connection.info.backend_pid))

    def kill() -> int:
        return sum(row[0] for row in postgres.sql("postgres", "SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (pids,)))

    return kill


@pytest.fixture
def tree(database: Database) -> Tree:
    return testing.a_tree(database)


@pytest.fixture(scope="session")
def server(database: Database) -> Iterator[tuple[Server, Api]]:
    with testing.serving("probe") as running:
        yield running


@pytest.fixture
def api(server: tuple[Server, Api]) -> Api:
    return server[1]
