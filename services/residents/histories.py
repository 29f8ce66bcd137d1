"""The history of corrections as it may be shown: identity numbers as ***, telephones masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.chassis.db import Transaction
from services.residents.people import Membership, Person
from services.residents.records import SECRET
from services.residents.register_cells import masked_phone
from services.residents.sight import nodes_in_sight
from services.residents.tree import Unit

TABLES = ("people", "memberships", "units", "parking_spaces", "buildings", "estates")
TELEPHONES = frozenset(("phone", "other_phones", "emergency_phone"))


@dataclass(frozen=True, slots=True)
class Line:
    """One correction. `changes`: field → (before, after), as text."""

    id: UUID
    record: str
    version: int
    at: datetime
    actor: str
    reason: str
    changes: Mapping[str, tuple[str, str]]


def of_person(tx: Transaction, person: Person, before: UUID | None, size: int) -> list[Line]:
    """With those of his memberships in sight; one that was folded into another tells so in the other's line."""
    whose = "record = 'memberships' AND record_id IN (SELECT id FROM memberships WHERE person_id = %s)"
    return _lines(tx, f"((record = 'people' AND record_id = %s) OR ({whose}))", (person.id, person.id), before, size)


def of_unit(tx: Transaction, unit: Unit, before: UUID | None, size: int) -> list[Line]:
    whose = "record = 'memberships' AND record_id IN (SELECT id FROM memberships WHERE unit_id = %s)"
    return _lines(tx, f"((record = 'units' AND record_id = %s) OR ({whose}))", (unit.id, unit.id), before, size)


def of_membership(tx: Transaction, membership: Membership, before: UUID | None, size: int) -> list[Line]:
    return _lines(tx, "record = 'memberships' AND record_id = %s", (membership.id,), before, size)


def of_scope(tx: Transaction, before: UUID | None, size: int) -> list[Line]:
    """Everything filed at the estates in sight."""
    inside, values = nodes_in_sight(tx)
    return _lines(tx, f"{inside} AND record = ANY(%s)", (*values, list(TABLES)), before, size)


def _lines(tx: Transaction, where: str, values: tuple[Any, ...], before: UUID | None, size: int) -> list[Line]:
    rows = tx.execute(
        "SELECT id, record, record_id, version, at, actor, reason, before, after FROM corrections"
        f" WHERE {where} AND (%s::uuid IS NULL OR id < %s::uuid) ORDER BY id DESC LIMIT %s",
        (*values, before, before, size),
    )
    return [
        Line(key, f"{record}/{about}", version, at, actor, reason, _changes(old, new))
        for key, record, about, version, at, actor, reason, old, new in rows
    ]


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[str, str]]:
    changes: dict[str, tuple[str, str]] = {}
    for field in dict.fromkeys((*old, *new)):
        shown = "identity" if field in SECRET else field
        changes[shown] = (_text(field, old.get(field)), _text(field, new.get(field)))
    return changes


def _text(field: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "、".join(_text(field, one) for one in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return masked_phone(str(value)) if field in TELEPHONES else str(value)
