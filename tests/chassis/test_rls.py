"""Row-level security of every table of every service: the database itself is asked, nobody's list is trusted."""

from __future__ import annotations

import psycopg2
import pytest

from services.chassis.__main__ import SERVICES
from services.chassis.access import Scope, system
from services.chassis.db import Database
from tests.conftest import Databases, Postgres

TABLES = """
SELECT c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, pg_get_userbyid(c.relowner),
       EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid),
       c.relispartition, coalesce((SELECT array_agg(a.attname::text) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), '{}')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.relname
"""
SCOPED = {"group_id", "company_id", "estate_id"}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, database_of: Databases) -> str:
    database_of(request.param)
    return request.param


def rows(postgres: Postgres, service: str, statement: str, *settings: tuple[str, str]) -> list[tuple]:
    """A statement as the service's own role, in a connection that has said only `settings` about itself."""
    connection = psycopg2.connect(postgres.url(service, service))
    try:
        with connection.cursor() as cursor:
            for name, value in settings:
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def test_every_table_of_the_service_is_protected_and_belongs_to_the_owner(postgres: Postgres, service: str) -> None:
    found = postgres.sql(service, TABLES)
    assert len(found) > 15
    for name, kind, enabled, forced, owner, has_policy, is_partition, _ in found:
        assert owner == f"{service}_owner", name
        assert kind in "rp", f"{name}: a view would read with its owner's rights"
        if not is_partition and name != "schema_revisions":
            assert (enabled, forced, has_policy) == (True, True, True), f"{name} passed by protect()"


def test_no_table_shows_a_row_to_a_connection_that_has_not_said_who_it_is(postgres: Postgres, service: str) -> None:
    for name, _, _, _, _, _, is_partition, _ in postgres.sql(service, TABLES):
        if is_partition or name == "schema_revisions":
            continue
        assert rows(postgres, service, f'SELECT 1 FROM "{name}" LIMIT 1') == [], name
        assert rows(postgres, service, f'SELECT 1 FROM "{name}" LIMIT 1', ("steward.system", "off"), ("steward.principal", "")) == [], name
    assert rows(postgres, service, "SELECT 1 FROM business_time", ("steward.principal", "system/test")), (
        "so it is the policy, not an empty table"
    )


def test_every_table_with_the_columns_of_the_tree_is_seen_by_scope_or_by_its_one_owner(postgres: Postgres, service: str) -> None:
    """Whoever has said only who he is, but has no part of the tree, gets nothing of what belongs to an estate."""
    policies = "SELECT polpermissive, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = %s::regclass AND polqual IS NOT NULL"
    for name, _, _, _, _, _, is_partition, columns in postgres.sql(service, TABLES):
        if is_partition or not set(columns) >= SCOPED or name == "dir_nodes":
            continue
        found = postgres.sql(service, policies, (name,))
        by_scope = any(permissive and "steward.nodes" in text for permissive, text in found)
        by_owner = any(not permissive and "steward.principal" in text for permissive, text in found)
        assert by_scope or by_owner, f"{name} has the columns of the tree: protect(…, scoped=True)"
        for _, text in found:
            assert "current_setting(" not in outside_sub_selects(text), f"{name}: settings are read once a statement, in a sub-select"


def outside_sub_selects(text: str) -> str:
    """An expression without what stands in its `( SELECT … )`."""
    before, opened, rest = text.partition("( SELECT")
    if not opened:
        return text
    depth, end = 1, 0
    while depth:
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    return before + outside_sub_selects(rest[end:])


def test_partitions_cannot_be_read_around_the_policy_of_their_table(postgres: Postgres, service: str) -> None:
    partitions = [row[0] for row in postgres.sql(service, TABLES) if row[6]]
    assert partitions
    for name in partitions:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            rows(postgres, service, f'SELECT 1 FROM "{name}" LIMIT 1', ("steward.system", "on"))


def test_the_role_of_running_processes_is_neither_superuser_nor_owner_and_may_make_nothing(postgres: Postgres, service: str) -> None:
    role = postgres.sql(
        service, "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = %s", (service,)
    )
    assert role == [(False,) * 5]
    assert (
        postgres.sql(service, "SELECT 1 FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s", (service,)) == []
    )
    connection = psycopg2.connect(postgres.url(service, service))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in (
            "CREATE TABLE mine (x int)",
            "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
            "DROP TABLE inbox",
            "SET ROLE postgres",
            f'SET ROLE "{service}_owner"',
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    connection.close()


def test_the_role_reads_its_schemas_revision_and_cannot_change_it(postgres: Postgres, service: str, database_of: Databases) -> None:
    assert rows(postgres, service, "SELECT version_num FROM schema_revisions")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        rows(postgres, service, "DELETE FROM schema_revisions RETURNING 1")


def test_a_process_with_a_privileged_role_is_not_ready(postgres: Postgres, database_of: Databases) -> None:
    from services.chassis.rpc import Server

    database_of("work_orders")
    server = Server(["work_orders"])
    server.databases["work_orders"].dispose()
    server.databases["work_orders"] = Database("work_orders", postgres.url("work_orders"))
    assert "must not be a superuser" in server.why_not_ready()
    server.stop()


def test_partitions_of_the_log_are_made_ahead_by_the_unprivileged_role(postgres: Postgres, service: str, database_of: Databases) -> None:
    with database_of(service).transaction(system(service), Scope(everything=True)) as tx:
        tx.execute("SELECT keep_event_partitions(30)")
    names = [row[0] for row in postgres.sql(service, "SELECT relname FROM pg_class WHERE relname ~ '^events_[0-9]{8}$'")]
    assert len(names) >= 3
