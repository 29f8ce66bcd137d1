"""Nobody waits for ever for a database that has fallen silent.

PostgreSQL itself ends a statement that takes too long (`statement_timeout`), as long as it runs and can be reached. A server that
has been halted, or a network that swallows what is sent, says nothing at all: the connection stands, and libpq waits without end,
a thread of this process with every call. So one thread looks at the statements under way, ten times a second, and shuts the
socket of a connection whose statement is overdue; whoever waits for it gets `Silent`.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import psycopg2
from psycopg2.extensions import connection, cursor

LOOK = 0.1  # seconds between two looks
GRACE = 0.3  # seconds beyond a statement's time in which the server's own refusal should have come
USUAL = 5.0  # seconds that a statement may take, unless `bound` says otherwise


class Silent(psycopg2.OperationalError):
    """The database said nothing for so long that the connection was given up. Whether the statement took effect is not known."""


class Watched(connection):
    """A connection whose statements end in time: by their result, by the server's refusal, or by the loss of the connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = _Cursor
        self.cut = False  # whether it was lost because nobody would wait any longer
        self.overdue_at = math.inf  # instant (monotonic) after which the statement under way is given up
        self.unbound()
        _watcher.add(self)

    def bound(self, seconds: float, *, together: bool) -> None:
        """What each statement may take from now on; `together`: what all of them may take, the deadline of somebody who waits."""
        self._each = seconds + GRACE
        self._end = time.monotonic() + seconds + GRACE if together else math.inf

    def unbound(self) -> None:
        self.bound(USUAL, together=False)

    def begins(self, statements: int = 1) -> None:
        self.overdue_at = min(time.monotonic() + self._each * statements, self._end)

    def give_up(self) -> None:
        """Shuts the socket; closing it is left to the thread that waits for it."""
        self.cut = True
        with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(self.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)


class _Cursor(cursor):
    connection: Watched

    def execute(self, query: Any, vars: Any = None) -> None:
        self._watched(super().execute, query, vars, 1)

    def executemany(self, query: Any, vars_list: Any) -> None:
        values = list(vars_list)
        self._watched(super().executemany, query, values, len(values))

    def _watched(self, execute: Callable[[Any, Any], None], query: Any, values: Any, statements: int) -> None:
        watched = self.connection
        watched.begins(statements)
        try:
            execute(query, values)
        except psycopg2.Error as error:
            if watched.cut:
                raise Silent("the database did not answer in time") from error
            raise
        finally:
            watched.overdue_at = math.inf


class _Watcher:
    """Every watched connection of the process, and the thread that looks at them."""

    def __init__(self) -> None:
        self._connections: WeakSet[Watched] = WeakSet()
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, new: Watched) -> None:
        with self._changing:
            self._connections.add(new)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK)
            with self._changing:
                every = list(self._connections)
            now = time.monotonic()
            for watched in every:
                # A statement that ends between this look and the cut costs its connection, which is no loss after so long.
                if watched.overdue_at < now:
                    watched.overdue_at = math.inf
                    watched.give_up()


_watcher = _Watcher()
