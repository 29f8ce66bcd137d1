"""`python -m services.residents.first_import <file>`: the opening register of an installation that has none.

For operations and development: queues the import as Steward itself and waits until the jobs process has carried it out.
Progress goes to stderr, what came of it to stdout. Does nothing when there are estates already, so that it can stand in
every start; an import that an earlier start left unfinished is waited for, not begun again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from services.chassis.db import Database
from services.chassis.errors import InvalidInput, Unavailable
from services.residents import importing

PAUSE = 0.5  # seconds between looks
PATIENCE = 30  # seconds without a database before giving up


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.residents.first_import", description=__doc__)
    parser.add_argument("file", type=Path, help="the register, an .xlsx file")
    path: Path = parser.parse_args(arguments).file
    database = Database("residents")
    try:
        return first_import(database, path)
    finally:
        database.dispose()


def first_import(database: Database, path: Path) -> int:
    """0: the register is there; 1: the import failed, and stderr says why."""
    identifier = _unfinished(database)
    if identifier is None:
        with database.read() as tx:
            estates = tx.execute("SELECT count(*) FROM estates")[0][0]
        if estates:
            _say(f"the register is there already: {estates} estates")
            return 0
        try:
            with database.transaction() as tx:
                identifier = importing.start(tx, path.name, path.read_bytes(), None)
        except (InvalidInput, OSError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            return 1
    return _wait(database, identifier, path.name)


def _unfinished(database: Database) -> UUID | None:
    with database.read() as tx:
        rows = tx.execute(
            "SELECT id FROM operations WHERE kind = %s AND state IN ('QUEUED', 'RUNNING') AND created_by = %s ORDER BY created_at LIMIT 1",
            (importing.KIND, str(tx.principal)),
        )
    return rows[0][0] if rows else None


def _wait(database: Database, identifier: UUID, filename: str) -> int:
    said, lost = "", 0.0
    while True:
        try:
            with database.read() as tx:
                state, progress, error = tx.execute("SELECT state, progress, error FROM operations WHERE id = %s", (identifier,))[0]
            lost = 0.0
        except Unavailable:
            lost += PAUSE
            if lost > PATIENCE:
                raise
            time.sleep(PAUSE)
            continue
        now = _progress(state, progress)
        if now != said:
            sys.stderr.write(f"{filename}: {now}\n")
            said = now
        if state == "SUCCEEDED":
            _report(filename, progress["sheets"])
            return 0
        if state == "FAILED":
            sys.stderr.write(f"{filename}: {error}\n")
            return 1
        time.sleep(PAUSE)


def _progress(state: str, progress: dict[str, Any]) -> str:
    if state != "RUNNING" or not progress.get("sheets"):
        return state.lower()
    rows = sum(sheet["rows"] for sheet in progress["sheets"])
    return f"{rows} of about {progress['total']} rows, {progress['sheets'][-1]['sheet']}"


def _report(filename: str, sheets: list[dict[str, Any]]) -> None:
    _say(f"{filename} is imported:")
    for sheet in sheets:
        if sheet["rows"]:
            _say(f"  {sheet['sheet']}: {sheet['rows'] - sheet['refused']} rows taken, {sheet['refused']} refused")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
