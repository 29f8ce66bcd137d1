"""Databases of residents that are empty to begin with: an import sees everything there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from services.chassis.db import Database
from services.chassis.jobs import work_once
from services.chassis.migrate import migrate
from services.chassis.testing import Api, a_tree, serving
from services.residents import importing, jobs  # noqa: F401 - registers the operation
from tests.residents.desk import Desk, a_desk
from tests.residents.doors import Doors
from tests.residents.registers import Imported, look

_numbers = count(1)


@pytest.fixture(scope="session")
def blank(postgres: Any) -> str:
    """Name of a migrated database without a row, to be copied; its name is the role that all copies know."""
    name = "residents_blank"
    postgres.make(name)
    migrate("residents", postgres.url(name, f"{name}_owner"))
    return name


@pytest.fixture
def database(postgres: Any, blank: str) -> Iterator[Database]:
    """A residents database of the test's own."""
    name = f"{blank}_{next(_numbers)}"
    postgres.sql("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{blank}" OWNER "{blank}_owner"')
    made = Database("residents", postgres.url(name, blank))
    yield made
    made.dispose()


@pytest.fixture
def import_file(database: Database) -> Callable[..., Imported]:
    """Imports a workbook to its end, as Steward itself; returns what came of it."""

    def run(content: bytes, filename: str = "register.xlsx", groups: Any = None) -> Imported:
        with database.transaction() as tx:
            identifier = importing.start(tx, filename, content, groups)
        assert work_once(database, "test")
        return look(database, identifier)

    return run


@pytest.fixture(scope="session")
def api(database_of: Callable[[str], Database]) -> Iterator[Api]:
    """A running server of residents over the database that all tests of the service share."""
    database_of("residents")
    with serving("residents") as (_, client):
        yield client


@pytest.fixture
def doors(api: Api, database_of: Callable[[str], Database]) -> Doors:
    database = database_of("residents")
    return Doors(api, database, a_tree(database))


@pytest.fixture
def new_desk(api: Api, database_of: Callable[[str], Database]) -> Callable[..., Desk]:
    """`new_desk(estates=2, owners=[…])`: a group of the test's own in the database that the server has."""
    return lambda **options: a_desk(api, database_of("residents"), **options)
