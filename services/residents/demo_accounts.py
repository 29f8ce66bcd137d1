"""`python -m services.residents.demo_accounts`: who can sign in to a development installation, one account per role.

Prints names and telephones, so it runs under the development profile alone.
"""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass

from services.chassis.db import Database, Transaction
from services.chassis.settings import settings

PREFERRED = "TFHY-003"  # the customer assistant whom the documentation signs in as


@dataclass(frozen=True, slots=True)
class Account:
    role: str
    sign_in: str  # staff number, or telephone of a resident
    name: str
    where: str


def main() -> int:
    if not settings().development:
        sys.stderr.write("demo accounts are shown under the development profile only\n")
        return 1
    database = Database("residents")
    try:
        with database.read() as tx:
            found = accounts(tx)
    finally:
        database.dispose()
    sys.stdout.write(table(found) if found else "there is no register yet, and so nobody who could sign in\n")
    return 0


def accounts(tx: Transaction) -> list[Account]:
    """One member of staff per role of the first estate, then of the group, then an owner and a tenant."""
    estates = tx.execute(
        "SELECT e.id, e.group_id, e.code FROM estates e LEFT JOIN staff s ON s.estate_id = e.id AND s.number = %s"
        " ORDER BY s.id IS NULL, e.created_at, e.id LIMIT 1",
        (PREFERRED,),
    )
    if not estates:
        return []
    estate, group, code = estates[0]
    found = [Account(role, number, name, code) for role, number, name in _staff(tx, "p.node_id = %s", estate)]
    above = "p.group_id = %s AND p.estate_id IS NULL"
    found += [Account(role, number, name, "group") for role, number, name in _staff(tx, above, group)]
    return found + [Account(*row) for kind in ("OWNER", "TENANT") for row in _resident(tx, estate, code, kind)]


def _staff(tx: Transaction, where: str, node: object) -> list[tuple]:
    """(role, number, name), one per role."""
    return tx.execute(
        "SELECT DISTINCT ON (p.role) p.role, s.number, s.name FROM posts p JOIN staff s ON s.id = p.staff_id AND s.active"
        f" WHERE {where} AND p.ends_at IS NULL ORDER BY p.role, s.number <> %s, s.number",
        (node, PREFERRED),
    )


def _resident(tx: Transaction, estate: object, code: str, kind: str) -> list[tuple]:
    """Somebody of the first unit that has such a person now, with a telephone that is nobody else's."""
    today = tx.now.date()
    return tx.execute(
        "SELECT m.kind, p.phone, p.name, %s || ' ' || u.number FROM memberships m JOIN people p ON p.id = m.person_id"
        " JOIN units u ON u.id = m.unit_id WHERE m.estate_id = %s AND m.kind = %s AND p.kind = 'INDIVIDUAL' AND p.phone IS NOT NULL"
        " AND (m.starts_on IS NULL OR m.starts_on < %s) AND (m.ends_on IS NULL OR m.ends_on > %s)"
        " AND (SELECT count(*) FROM people same WHERE same.phone = p.phone) = 1 ORDER BY u.number, p.id LIMIT 1",
        (code, estate, kind, today, today),
    )


def table(found: list[Account]) -> str:
    rows = [("role", "sign in as", "name", "at"), *((a.role, a.sign_in, a.name, a.where) for a in found)]
    widths = [max(_width(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join(text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


def _width(text: str) -> int:
    """Columns on a terminal: ideographs take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


if __name__ == "__main__":
    sys.exit(main())
