"""What an import did, and what stands in the register afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.chassis.db import Database

TABLES = ("groups", "companies", "estates", "buildings", "units", "people", "memberships", "parking_spaces", "staff", "posts")


@dataclass
class Imported:
    """An import that has ended."""

    id: UUID
    state: str
    error: str
    sheets: dict[str, dict[str, int]]
    refusals: list[tuple[str, int, str, str]]
    remarks: list[tuple[str, int, str]]

    def total(self, what: str) -> int:
        """Rows `created`, `changed`, `unchanged` or `refused` in all sheets."""
        return sum(sheet[what] for sheet in self.sheets.values())


def look(database: Database, identifier: UUID) -> Imported:
    with database.read() as tx:
        state, error, progress = tx.execute("SELECT state, error, progress FROM operations WHERE id = %s", (identifier,))[0]
        rows = tx.execute(
            'SELECT sheet, row, "column", reason, taken FROM import_refusals WHERE import_id = %s ORDER BY position', (identifier,)
        )
    sheets = {sheet.pop("sheet"): sheet for sheet in progress.get("sheets", [])}
    refusals = [row[:4] for row in rows if not row[4]]
    return Imported(identifier, state, error, sheets, refusals, [(row[0], row[1], row[3]) for row in rows if row[4]])


def rows(database: Database, sql: str, *values: Any) -> list[tuple]:
    with database.read() as tx:
        return tx.execute(sql, values)


def contents(database: Database) -> dict[str, list[tuple]]:
    """Everything the register holds, to compare before and after."""
    return {table: rows(database, f"SELECT * FROM {table} ORDER BY id") for table in (*TABLES, "dir_nodes", "dir_members", "dir_posts")}


def counts(database: Database) -> dict[str, int]:
    return {table: rows(database, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


def events(database: Database) -> list[list[dict[str, Any]]]:
    """The entries of every DirectoryChanged of the log, event by event."""
    return [row[0]["entries"] for row in rows(database, "SELECT data FROM events WHERE type = 'DirectoryChanged' ORDER BY recorded_at, id")]
