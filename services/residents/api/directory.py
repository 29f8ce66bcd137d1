"""The register as other services keep it, for a copy that is new or has fallen behind."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from services.chassis.db import Transaction
from services.chassis.names import page_position, page_token, stamp
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2

PAGE, LARGEST_PAGE = 1000, 5000
EVENTS = 20  # of up to 500 entries, in one page
FIRST = "00000000-0000-0000-0000-000000000000"


def list_entries(request: pb.ListEntriesRequest, tx: Transaction) -> pb.ListEntriesResponse:
    position = page_position(request)
    if request.after_position and (position[:1] == ["log"] or (not position and _reaches_back(tx, request.after_position))):
        return _from_log(request, tx, int(position[1]) if position else request.after_position)
    return _from_tables(request, tx, *(position[-2:] or ["nodes", FIRST]))


def look_up(request: pb.LookUpRequest, tx: Transaction) -> pb.LookUpResponse:
    nodes = (
        "SELECT n.id FROM dir_nodes e JOIN dir_nodes n ON n.id IN (e.group_id, e.company_id, e.id)"
        " OR (n.estate_id = e.id AND n.id IN (SELECT unnest(ARRAY[u.id, u.parent_id]) FROM dir_nodes u"
        "      WHERE u.estate_id = e.id AND u.kind = 'UNIT' AND u.code = %s))"
        " WHERE e.kind = 'ESTATE' AND e.code = %s"
    )
    found = [row[0] for row in tx.execute(nodes, (request.unit, request.estate_code))]
    reply = pb.LookUpResponse()
    for name, key in (("nodes", "id"), ("members", "unit_id")):
        columns, entry = _TABLES[name]
        rows = tx.execute(f"SELECT id, version, deleted, {columns} FROM dir_{name} WHERE {key} = ANY(%s)", (found,))
        reply.entries.extend(entry(row) for row in rows)
    return reply


def _from_tables(request: pb.ListEntriesRequest, tx: Transaction, table: str, after: str) -> pb.ListEntriesResponse:
    """Every kind of entry, in the order of their ids: what is added meanwhile comes by event as well."""
    size = min(max(request.page_size, 0) or PAGE, LARGEST_PAGE)
    reply = pb.ListEntriesResponse()
    tables = list(_TABLES)
    for name in tables[tables.index(table) :] if table in _TABLES else []:
        columns, entry = _TABLES[name]
        wanted = size - len(reply.entries)
        rows = tx.execute(f"SELECT id, version, deleted, {columns} FROM dir_{name} WHERE id > %s ORDER BY id LIMIT %s", (after, wanted + 1))
        reply.entries.extend(entry(row) for row in rows[:wanted])
        if len(rows) > wanted:
            reply.next_page_token = page_token(request, name, rows[wanted - 1][0] if wanted else after)
            break
        after = FIRST
    return reply


def _reaches_back(tx: Transaction, position: int) -> bool:
    """Whether the log still holds everything after a position; it is kept for 30 days."""
    first = tx.execute("SELECT min(position) FROM events")[0][0]
    return first is not None and first <= position + 1


def _from_log(request: pb.ListEntriesRequest, tx: Transaction, after: int) -> pb.ListEntriesResponse:
    rows = tx.execute(
        "SELECT position, data FROM events WHERE position > %s AND type = 'DirectoryChanged' ORDER BY position LIMIT %s",
        (after, EVENTS + 1),
    )
    reply = pb.ListEntriesResponse()
    for _, data in rows[:EVENTS]:
        reply.entries.extend(json_format.ParseDict(data, events_pb2.DirectoryChanged(), ignore_unknown_fields=True).entries)
    if len(rows) > EVENTS:
        reply.next_page_token = page_token(request, "log", rows[EVENTS - 1][0])
    return reply


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _node(row: tuple[Any, ...]) -> pb.DirectoryEntry:
    identifier, version, deleted, kind, parent, code, name, estate, company, group, *facts = row
    zone, property_type, committee, taken, occupancy, renovation = facts
    node = pb.Node(
        kind=kind,
        parent_id=_text(parent),
        code=code,
        name=name,
        estate_id=_text(estate),
        company_id=_text(company),
        group_id=_text(group),
        time_zone=zone,
        property_type=property_type or "PROPERTY_TYPE_UNSPECIFIED",
        has_committee=committee,
    )
    if kind == "UNIT":
        status = pb.UnitStatus(taken_over=taken, occupancy=occupancy or "OCCUPANCY_UNSPECIFIED", under_renovation=renovation)
        node.unit_status.CopyFrom(status)
    return pb.DirectoryEntry(id=str(identifier), version=version, deleted=deleted, node=node)


def _membership(row: tuple[Any, ...]) -> pb.DirectoryEntry:
    identifier, version, deleted, person, unit, estate, kind, starts_at, ends_at = row
    membership = pb.Membership(
        person_id=str(person),
        unit_id=str(unit),
        estate_id=str(estate),
        kind=kind,
        start_time=stamp(starts_at),
        end_time=stamp(ends_at),
    )
    return pb.DirectoryEntry(id=str(identifier), version=version, deleted=deleted, membership=membership)


def _post(row: tuple[Any, ...]) -> pb.DirectoryEntry:
    identifier, version, deleted, staff, role, node, starts_at, ends_at = row
    post = pb.Post(staff_id=str(staff), role=role, node_id=str(node), start_time=stamp(starts_at), end_time=stamp(ends_at))
    return pb.DirectoryEntry(id=str(identifier), version=version, deleted=deleted, post=post)


def _shift(row: tuple[Any, ...]) -> pb.DirectoryEntry:
    identifier, version, deleted, staff, role, estate, early, starts_at, ends_at = row
    shift = pb.DirectoryEntry.Shift(
        staff_id=str(staff), role=role, estate_id=str(estate), early_shift=early, start_time=stamp(starts_at), end_time=stamp(ends_at)
    )
    return pb.DirectoryEntry(id=str(identifier), version=version, deleted=deleted, shift=shift)


def _absence(row: tuple[Any, ...]) -> pb.DirectoryEntry:
    identifier, version, deleted, staff, deputy, starts_at, ends_at = row
    absence = pb.DirectoryEntry.Absence(staff_id=str(staff), deputy_id=_text(deputy), start_time=stamp(starts_at), end_time=stamp(ends_at))
    return pb.DirectoryEntry(id=str(identifier), version=version, deleted=deleted, absence=absence)


_TABLES: dict[str, tuple[str, Any]] = {
    "nodes": (
        "kind, parent_id, code, name, estate_id, company_id, group_id, zone, property_type, has_committee, taken_over, occupancy,"
        " under_renovation",
        _node,
    ),
    "members": ("person_id, unit_id, estate_id, kind, starts_at, ends_at", _membership),
    "posts": ("staff_id, role, node_id, starts_at, ends_at", _post),
    "shifts": ("staff_id, role, estate_id, early_shift, starts_at, ends_at", _shift),
    "absences": ("staff_id, deputy_id, starts_at, ends_at", _absence),
}
