"""The command `wait`: ends when what `migrate` makes for these services is there, so that a process may start.

A pod of a new release waits by it for the migration of that release, which runs beside it. Two things must be there: the schema,
and the note of which of the service's events find a queue, because `migrate` writes that when every queue of every service is
bound. A service that emitted a new event before would see it confirmed and lost. Only the database is asked: a pod that starts
while the broker is down need not wait for it.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading

import psycopg2

from services.chassis import migrate, topology
from services.chassis.settings import Settings

log = logging.getLogger(__name__)

PAUSE = 1.0  # s between looks


def run(services: list[str], settings: Settings) -> int:
    """0 when everything is there; 1 when a signal came first. The log says what it waits for, each thing once."""
    if not settings.database_url:
        sys.stderr.write("cannot wait: STEWARD_DATABASE_URL must be set (docs/settings.md)\n")
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for service in services:
        said = ""
        while why := not_there(service, settings.database(service)):
            if why != said:
                log.info("waiting for %s: %s", service, why)
            said = why
            if stop.wait(PAUSE):
                return 1
    return 0


def not_there(service: str, database_url: str) -> str:
    """What of a service is not there yet; empty when everything is."""
    from services.chassis.__main__ import SERVICES

    try:
        revisions, consumed = _found(database_url)
    except psycopg2.Error as error:  # no server, no role, no table
        return str(error).strip().partition("\n")[0]
    if missing := migrate.behind(service, revisions):
        return f"the schema lacks {', '.join(sorted(missing))}"
    if unbound := topology.consumed(service, SERVICES) - consumed:
        return f"the broker's topology lacks {', '.join(sorted(unbound))}"
    return ""


def _found(database_url: str) -> tuple[set[str], set[str]]:
    """The revisions of the schema, and the types of events that find a queue. Raises psycopg2.Error."""
    options = "-c steward.principal=system/wait -c steward.system=on"
    connection = psycopg2.connect(topology.driver_url(database_url), connect_timeout=5, options=options)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT version_num FROM schema_revisions")
            revisions = {revision for (revision,) in cursor.fetchall()}
            cursor.execute("SELECT unnest(consumed) FROM relay_state")
            return revisions, {type for (type,) in cursor.fetchall()}
    finally:
        connection.close()
