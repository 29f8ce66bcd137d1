"""The service's own copy of the register: the tree, who belongs to which unit, who holds which post, who is on duty. Ids, no names.

`residents` owns all of it and sends every entry whole and with a version (`DirectoryChanged`); the higher version wins, so
order and repetition do not matter. A service with an empty copy fills it by asking once; from then on events keep it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.access import Grant
from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput, NotFound, Violation
from services.chassis.on_duty import DESK, EARLY_SHIFT, roster
from services.chassis.reactions import Event, on
from steward.options.v1 import options_pb2
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2

LEVELS = {"GROUP": "group", "COMPANY": "company", "ESTATE": "estate"}
LONGEST_REST = timedelta(days=14)  # a roster with no shift for longer is not resting: it has not been planned


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


def estates_by_id(tx: Transaction, identifiers: Iterable[UUID]) -> dict[UUID, Estate]:
    """Of several estates those that are known; none before this service has had its first copy (`filled`)."""
    known = "id = ANY(%s::uuid[]) AND (SELECT filled_at IS NOT NULL FROM dir_state)"
    return {row[0]: Estate(*row) for row in tx.execute(_ESTATE + known, ([str(identifier) for identifier in identifiers],))}


def estates(tx: Transaction) -> list[Estate]:
    """Every estate this service knows."""
    return [Estate(*row) for row in tx.execute(_ESTATE + "true ORDER BY id")]


class UnknownUnit(InvalidInput):
    """A request names a unit this copy does not know. The api asks residents once before the caller hears it."""

    reason = "UNIT_NOT_FOUND"

    def __init__(self, estate: Estate, number: str, field: str):
        super().__init__(
            f"{estate.name} has no unit {number}", rule="REP-03", violations=[Violation(field, "is not a unit of this estate")]
        )
        self.asks = pb.LookUpRequest(estate_code=estate.code, unit=number)


class UnknownEstate(NotFound):
    """The same for an estate."""

    reason = "ESTATE_NOT_FOUND"

    def __init__(self, code: str, *, asked: bool):
        """`asked`: the copy knows it; the caller may not see it, and hears the same."""
        super().__init__(f"there is no estate {code} that you may see")
        self.asks = None if asked else pb.LookUpRequest(estate_code=code)


def unit_by_number(tx: Transaction, estate: Estate, number: str, field: str) -> Unit:
    """The unit a request names in `field`. Raises UnknownUnit."""
    rows = tx.execute(
        "SELECT id, code, estate_id FROM dir_nodes WHERE estate_id = %s AND code = %s AND kind = 'UNIT' AND NOT deleted",
        (estate.id, number),
    )
    if not rows:
        raise UnknownUnit(estate, number, field)
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
    """Whether a member of staff holds a role at the estate or above it now, on behalf of somebody on leave included."""
    nodes = (estate.id, estate.company_id, estate.group_id)
    return any(role == name and node in nodes for name, node in held(tx, staff_id))


def _runs(row: str) -> str:
    """SQL: a post, shift or absence stands at the instant `at`."""
    return f"NOT {row}.deleted AND ({row}.starts_at IS NULL OR {row}.starts_at <= %(at)s) AND ({row}.ends_at IS NULL OR {row}.ends_at > %(at)s)"


_HELD = f"""
SELECT p.role, p.node_id FROM dir_posts p WHERE p.staff_id = %(staff)s AND {_runs("p")}
UNION
SELECT %(early)s, s.estate_id FROM dir_shifts s JOIN dir_nodes e ON e.id = s.estate_id
  JOIN dir_posts p ON p.staff_id = s.staff_id AND p.node_id IN (e.id, e.company_id, e.group_id) AND p.role IN %(desk)s AND {_runs("p")}
 WHERE s.staff_id = %(staff)s AND s.early_shift AND {_runs("s")}
UNION
SELECT p.role, p.node_id FROM dir_absences a JOIN dir_posts p ON p.staff_id = a.staff_id AND {_runs("p")}
  JOIN dir_posts own ON own.staff_id = a.deputy_id AND own.node_id = p.node_id AND {_runs("own")}
 WHERE a.deputy_id = %(staff)s AND {_runs("a")}
"""


def held(tx: Transaction, staff_id: UUID) -> set[tuple[str, UUID]]:
    """(role, node) of everything a member of staff may act as now.

    His posts; the early shift while he is on it (REP-25); and the posts of those he is the deputy of, at nodes where he has
    one himself.
    """
    values = {"staff": staff_id, "at": tx.now, "early": EARLY_SHIFT, "desk": DESK}
    return {(row[0], row[1]) for row in tx.execute(_HELD, values)}  # type: ignore[arg-type]


def on_duty(tx: Transaction, role: str, estate: Estate, at: datetime | None = None) -> list[UUID]:
    """Whom to tell or send when `role` is asked for at an instant (now, unless said otherwise); nobody is an empty list.

    Those on shift in that role, deputies taking the shift of those on leave; if nobody is, those with the post at the
    estate who are not on leave, else their deputies; then the same at its company, and at the group.
    """
    instant = at or tx.now
    return roster(tx, [(role, estate)], instant, instant).on_duty(role, estate.id, instant)


_DUTY_DAY = """
SELECT EXISTS (SELECT 1 FROM dir_shifts s WHERE s.estate_id = %(estate)s AND NOT s.deleted AND s.starts_at < %(ends)s AND s.ends_at > %(begins)s
           AND NOT EXISTS (SELECT 1 FROM dir_absences a WHERE a.staff_id = s.staff_id AND NOT a.deleted AND a.deputy_id IS NULL
                              AND a.starts_at <= greatest(s.starts_at, %(begins)s) AND (a.ends_at IS NULL OR a.ends_at >= least(s.ends_at, %(ends)s)))),
       EXISTS (SELECT 1 FROM dir_shifts s WHERE s.estate_id = %(estate)s AND NOT s.deleted AND s.starts_at >= %(ends)s AND s.starts_at < %(rested)s)
"""


def is_duty_day(tx: Transaction, estate: Estate, day: date) -> bool:
    """Whether the estate's roster has somebody on duty on a day of its own calendar (X-05).

    Where the roster goes on later, a day without a shift is a day of rest; where it does not (no roster, or not planned so
    far), every day counts.
    """
    zone = ZoneInfo(estate.zone)
    begins, ends = (datetime.combine(day + timedelta(days=n), time(), zone) for n in (0, 1))
    values = {"estate": estate.id, "begins": begins, "ends": ends, "rested": ends + LONGEST_REST}
    somebody, goes_on = tx.execute(_DUTY_DAY, values)[0]  # type: ignore[arg-type]
    return somebody or not goes_on


def next_duty_day(tx: Transaction, estate: Estate, day: date) -> date:
    """The first duty day after `day`; the next day when a month has none, for a time limit must end."""
    following = (day + timedelta(days=n) for n in range(1, 32))
    return next((found for found in following if is_duty_day(tx, estate, found)), day + timedelta(days=1))


def occupants(tx: Transaction, unit_id: UUID) -> list[tuple[UUID, str]]:
    """(person, OWNER | TENANT | FAMILY_MEMBER) of a unit now."""
    return tx.execute(
        "SELECT person_id, kind FROM dir_members WHERE unit_id = %s AND NOT deleted"
        " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at > %s) ORDER BY kind, person_id",
        (unit_id, tx.now, tx.now),
    )


def revoked(tx: Transaction, principal_id: UUID, grants: Iterable[Grant]) -> set[Grant]:
    """Grants of a member of staff that this directory no longer knows, although the identity still carries them."""
    known = held(tx, principal_id)
    return {grant for grant in grants if (grant.role, grant.node) not in known}


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
    rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in _TABLES}
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
    "shift": ("dir_shifts", "staff_id role estate_id early_shift starts_at ends_at"),
    "absence": ("dir_absences", "staff_id deputy_id starts_at ends_at"),
}


def _columns(kind: str, entry: Any) -> tuple[Any, ...]:
    if kind == "node":
        status = entry.unit_status
        return (
            pb.Node.Kind.Name(entry.kind), _uuid(entry.parent_id), entry.code, entry.name, _uuid(entry.estate_id), _uuid(entry.company_id),
            _uuid(entry.group_id), entry.time_zone, pb.PropertyType.Name(entry.property_type), entry.has_committee, status.taken_over,
            pb.UnitStatus.Occupancy.Name(status.occupancy), status.under_renovation,
        )  # fmt: skip
    times = (_time(entry, "start_time"), _time(entry, "end_time"))
    if kind == "membership":
        return _uuid(entry.person_id), _uuid(entry.unit_id), _uuid(entry.estate_id), pb.Membership.Kind.Name(entry.kind), *times
    if kind == "shift":
        return _uuid(entry.staff_id), options_pb2.Role.Name(entry.role), _uuid(entry.estate_id), entry.early_shift, *times
    if kind == "absence":
        return _uuid(entry.staff_id), _uuid(entry.deputy_id), *times
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
