"""The service's own copy of the register: the tree, who belongs to which unit, who holds which post. Ids, no names.

`residents` owns all of it and sends every entry whole and with a version (`DirectoryChanged`); the higher version wins, so
order and repetition do not matter. A service with an empty copy fills it by asking once; from then on events keep it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.access import Grant
from services.chassis.db import Transaction
from services.chassis.errors import NotFound
from services.chassis.reactions import Event, on
from steward.options.v1 import options_pb2
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2

LEVELS = {"GROUP": "group", "COMPANY": "company", "ESTATE": "estate"}


@dataclass(frozen=True, slots=True)
class Estate:
    """An estate of the directory, with its place in the tree."""

    id: UUID
    code: str
    name: str
    company_id: UUID
    group_id: UUID
    zone: str
    property_type: str


@dataclass(frozen=True, slots=True)
class Unit:
    id: UUID
    number: str
    estate_id: UUID


_ESTATE = "SELECT id, code, name, company_id, group_id, zone, property_type FROM dir_nodes WHERE kind = 'ESTATE' AND NOT deleted AND "


def estate_by_code(tx: Transaction, code: str) -> Estate | None:
    rows = tx.execute(_ESTATE + "code = %s", (code,))
    return Estate(*rows[0]) if rows else None


def estate_by_id(tx: Transaction, identifier: UUID) -> Estate | None:
    rows = tx.execute(_ESTATE + "id = %s", (identifier,))
    return Estate(*rows[0]) if rows else None


def unit_by_number(tx: Transaction, estate: Estate, number: str) -> Unit:
    """Raises NotFound(UNIT_NOT_FOUND)."""
    rows = tx.execute(
        "SELECT id, code, estate_id FROM dir_nodes WHERE estate_id = %s AND code = %s AND kind = 'UNIT' AND NOT deleted", (estate.id, number)
    )
    if not rows:
        raise NotFound(f"{estate.name} has no unit {number}", reason="UNIT_NOT_FOUND")
    return Unit(*rows[0])


def unit_number(tx: Transaction, unit_id: UUID) -> str:
    rows = tx.execute("SELECT code FROM dir_nodes WHERE id = %s", (unit_id,))
    return rows[0][0] if rows else ""


def holders(tx: Transaction, role: str, estate: Estate) -> list[UUID]:
    """Staff who hold a role for an estate: those with a post there, else at its company, else at the group."""
    for node in (estate.id, estate.company_id, estate.group_id):
        rows = tx.execute(
            "SELECT staff_id FROM dir_posts WHERE node_id = %s AND role = %s AND NOT deleted"
            " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at > %s) ORDER BY staff_id",
            (node, role, tx.now, tx.now),
        )
        if rows:
            return [row[0] for row in rows]
    return []


def holds_post(tx: Transaction, staff_id: UUID, role: str, estate: Estate) -> bool:
    """Whether a member of staff holds a role at the estate or above it now."""
    return bool(
        tx.execute(
            "SELECT 1 FROM dir_posts WHERE staff_id = %s AND role = %s AND node_id IN (%s, %s, %s) AND NOT deleted"
            " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at > %s)",
            (staff_id, role, estate.id, estate.company_id, estate.group_id, tx.now, tx.now),
        )
    )


def occupants(tx: Transaction, unit_id: UUID) -> list[tuple[UUID, str]]:
    """(person, OWNER | TENANT | FAMILY_MEMBER) of a unit now."""
    return tx.execute(
        "SELECT person_id, kind FROM dir_members WHERE unit_id = %s AND NOT deleted"
        " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at > %s) ORDER BY kind, person_id",
        (unit_id, tx.now, tx.now),
    )  # type: ignore[return-value]


def revoked(tx: Transaction, principal_id: UUID, grants: Iterable[Grant]) -> set[Grant]:
    """Grants of a member of staff that this directory no longer knows, although the identity still carries them."""
    rows = tx.execute(
        "SELECT role, node_id FROM dir_posts WHERE staff_id = %s AND NOT deleted"
        " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at > %s)",
        (principal_id, tx.now, tx.now),
    )
    posts = {(row[0], row[1]) for row in rows}
    return {grant for grant in grants if (grant.role, grant.node) not in posts}


def filled(tx: Transaction) -> bool:
    """Whether this service has had its first copy; until then it is not ready."""
    return tx.execute("SELECT filled_at IS NOT NULL FROM dir_state")[0][0]


def mark_filled(tx: Transaction) -> None:
    tx.execute("UPDATE dir_state SET filled_at = clock_timestamp()")


@on(events_pb2.DirectoryChanged, queue="directory")
def take_over(event: Event[events_pb2.DirectoryChanged], tx: Transaction) -> None:
    """Every service but residents keeps its copy by this."""
    apply(tx, event.data.entries)


def apply(tx: Transaction, entries: Iterable[pb.DirectoryEntry]) -> int:
    """Takes entries in; older versions than those held change nothing. Returns how many were newer."""
    rows: dict[str, list[tuple[Any, ...]]] = {"node": [], "membership": [], "post": []}
    for entry in entries:
        kind = entry.WhichOneof("entry")
        if kind:
            rows[kind].append((UUID(entry.id), entry.version, entry.deleted, *_columns(kind, getattr(entry, kind))))
    return sum(_upsert(tx, kind, values) for kind, values in rows.items() if values)


_TABLES = {
    "node": (
        "dir_nodes",
        "kind parent_id code name estate_id company_id group_id zone property_type has_committee taken_over occupancy under_renovation",
    ),
    "membership": ("dir_members", "person_id unit_id estate_id kind starts_at ends_at"),
    "post": ("dir_posts", "staff_id role node_id starts_at ends_at"),
}


def _columns(kind: str, entry: Any) -> tuple[Any, ...]:
    if kind == "node":
        status = entry.unit_status
        return (
            pb.Node.Kind.Name(entry.kind), _uuid(entry.parent_id), entry.code, entry.name, _uuid(entry.estate_id), _uuid(entry.company_id),
            _uuid(entry.group_id), entry.time_zone, pb.PropertyType.Name(entry.property_type), entry.has_committee, status.taken_over,
            pb.UnitStatus.Occupancy.Name(status.occupancy), status.under_renovation,
        )  # fmt: skip
    if kind == "membership":
        times = (_time(entry, "start_time"), _time(entry, "end_time"))
        return _uuid(entry.person_id), _uuid(entry.unit_id), _uuid(entry.estate_id), pb.Membership.Kind.Name(entry.kind), *times
    times = (_time(entry, "start_time"), _time(entry, "end_time"))
    return _uuid(entry.staff_id), options_pb2.Role.Name(entry.role), _uuid(entry.node_id), *times


def _upsert(tx: Transaction, kind: str, values: list[tuple[Any, ...]]) -> int:
    table, names = _TABLES[kind]
    columns = ["id", "version", "deleted", *names.split()]
    newest: dict[UUID, tuple[Any, ...]] = {}
    for row in values:
        if row[0] not in newest or row[1] > newest[row[0]][1]:
            newest[row[0]] = row
    one = "(" + ", ".join(["%s"] * len(columns)) + ")"
    sets = ", ".join(f"{column} = EXCLUDED.{column}" for column in columns[1:])
    changed = tx.execute(
        f"WITH taken AS (INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * len(newest))}"
        f" ON CONFLICT (id) DO UPDATE SET {sets} WHERE {table}.version < EXCLUDED.version RETURNING 1) SELECT count(*) FROM taken",
        [value for _, row in sorted(newest.items()) for value in row],
    )
    return changed[0][0]


def _uuid(text: str) -> UUID | None:
    return UUID(text) if text else None


def _time(entry: Any, name: str) -> datetime | None:
    stamp: Timestamp = getattr(entry, name)
    return stamp.ToDatetime(tzinfo=UTC) if entry.HasField(name) else None
