"""The databases of the running platform, seen from above: what stands in them, and whether anything is still under way."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Any

import psycopg2
from psycopg2.extensions import connection

from services.chassis.__main__ import SERVICES
from services.chassis.business_time import Walk
from services.chassis.db import Database
from services.chassis.names import stamp
from services.local.platform import Platform
from steward.chassis.v1 import business_time_pb2 as pb

TABLES = """
SELECT c.oid::regclass::text FROM pg_class c
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1
"""
# Who is or was signed in, and who was refused it.
KEPT_OF_CALLERS = tuple(f"residents.{table}" for table in ("accounts", "sessions", "refresh_tokens", "sign_in_codes", "failed_sign_ins"))


class Stores:
    """Reads as the superuser, whom row-level security does not bind."""

    def __init__(self, platform: Platform):
        self._platform = platform
        self._connections: dict[str, connection] = {}
        self._counting: dict[str, tuple[list[str], str]] = {}

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for known in self._connections.values():
            known.close()

    def rows(self, service: str, sql: str, values: tuple[Any, ...] = ()) -> list[tuple]:
        """Asked again in a new connection when the database has been killed since the last question."""
        try:
            return self._ask(service, sql, values)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self._connections.pop(service).close()
            return self._ask(service, sql, values)

    def counts(self) -> dict[str, int]:
        """How many rows each table of each service has, `work_orders.repairs` and so on."""
        found: dict[str, int] = {}
        for service in SERVICES:
            if service not in self._counting:
                tables = [table for (table,) in self.rows(service, TABLES) if f"{service}.{table}" not in KEPT_OF_CALLERS]
                self._counting[service] = tables, "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
            tables, query = self._counting[service]
            found |= {f"{service}.{table}": count for table, count in zip(tables, self.rows(service, query)[0], strict=True)}
        return found

    def under_way(self, since: datetime) -> list[str]:
        """Events recorded since then that are not published or have not had all their effects, and every dead letter."""
        databases = {service: Database(service, self._platform.database_url(service), pool_size=1) for service in SERVICES}
        walk = Walk(databases)
        try:
            states = [walk.get_business_time(pb.GetBusinessTimeRequest(service=s, events_since=stamp(since)), None) for s in SERVICES]
            events = [event for state in states for event in state.events]
            found = [f"{state.unpublished} unpublished" for state in states if state.unpublished]
            for service in SERVICES:
                found += walk.list_unhandled(pb.ListUnhandledRequest(service=service, events=events), None).unhandled
                found += [f"{service}: {' '.join(row)}" for row in self.rows(service, "SELECT queue, type, error FROM dead_letters")]
            return found
        finally:
            for database in databases.values():
                database.dispose()

    def _ask(self, service: str, sql: str, values: tuple[Any, ...]) -> list[tuple]:
        if service not in self._connections:
            self._connections[service] = psycopg2.connect(self._platform.postgres.superuser_url(service), connect_timeout=5)
            self._connections[service].autocommit = True
        with self._connections[service].cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall()
