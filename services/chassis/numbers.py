"""The numbers people say (`WX-20261122-0007`): counted per estate, kind and day, one after the other.

A number is taken on a connection of its own and committed at once. Within the case's transaction the counter's row would be
locked until that commits, and all who open cases at one estate would stand in line for it. The commit need not wait for
the disk: the case's own commit, which does, comes later in the same log and takes it along. So a number is never given
twice, whatever is lost; one whose transaction fails after all is left out.
"""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import psycopg2

from services.chassis.watch import Watched

TAKE = (
    "INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, %s, %s, 1)"
    " ON CONFLICT (estate_id, kind, day) DO UPDATE SET last = numbers.last + 1 RETURNING last"
)
OPTIONS = " ".join(
    f"-c {setting}" for setting in ("steward.principal=system/numbers", "synchronous_commit=off", "statement_timeout=2s", "lock_timeout=1s")
)


class Numbers:
    """The counters of one service's database."""

    def __init__(self, service: str, url: str):
        self._service, self._url = service, url
        self._taking = threading.Lock()
        self._connection: Any = None

    def next(self, estate_id: UUID, kind: str, day: str) -> int:
        """Raises psycopg2.Error."""
        with self._taking:
            try:
                return self._take(estate_id, kind, day)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if self._connection is not None and not self._connection.closed:
                    raise  # it stands: too slow, or locked
                self.close()
                return self._take(estate_id, kind, day)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take(self, estate_id: UUID, kind: str, day: str) -> int:
        if self._connection is None:
            self._connection = psycopg2.connect(
                self._url,
                fallback_application_name=f"steward-{self._service}",
                options=OPTIONS,
                connect_timeout=3,
                connection_factory=Watched,
            )
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(TAKE, (estate_id, kind, day))
            return int(cursor.fetchone()[0])
