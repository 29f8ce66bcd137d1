"""What an earlier register brought and this file no longer has: the report says so, and nothing is removed.

A record remembers the row it came from (its digest). When the last sheet of a kind has been read, the records of the estates that the
sheet names are compared with the rows that were taken: whose row is not among them, and who is not named by a refused row either, is
missing. Who has left meanwhile (a lease that ended, a transfer, 离职) is not.

A file that has less than half of what the register holds of an estate is a part of it, such as the owners of a new building: then one
line says how much it lacks, instead of a list. Refused rows that come back corrected are such a part however many they are, and say
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from services.chassis.db import Transaction
from services.residents import register_cells as cell
from services.residents.register_cells import Wrong, masked_name
from services.residents.register_file import OWNERS, PARKING, STAFF, TENANTS, UNITS, Sheet, SheetKind
from services.residents.register_rows import EstateRow, Refusal, Row, StaffRow
from services.residents.taking import digest

NOT_IN_FILE, PART_OF_REGISTER = "NOT_IN_FILE", "PART_OF_REGISTER"
AT_ONCE = 10_000  # records whose details are read in one statement

Place = tuple[str, str]  # ("ESTATE", its code), or ("COMPANY" | "GROUP", its name) of staff
Key = tuple[str, ...]


@dataclass(slots=True)
class _Said:
    """What the file says of one kind of sheet."""

    digests: set[bytes] = field(default_factory=set)  # of the rows taken
    places: set[Place] = field(default_factory=set)  # that they name
    refused: set[Key] = field(default_factory=set)  # whom refused rows name: those are in the file too


class Missing:
    """Collects what the file says, row by row; `of` compares it with the register as it is on a day. `groups`: those that the import
    may write; None, all."""

    def __init__(self, sheets: Sequence[Sheet], today: date, groups: frozenset[UUID] | None) -> None:
        self._today, self._groups = today, None if groups is None else list(groups)
        self._partial = {sheet.kind.name for sheet in sheets if sheet.corrections}
        self._said: dict[str, _Said] = {kind.name: _Said() for kind in KINDS}

    def took(self, kind: SheetKind, row: Row) -> None:
        said = self._said.get(kind.name)
        if said is not None and not isinstance(row, EstateRow):
            said.digests.add(digest(row))
            said.places.add((row.level, row.place) if isinstance(row, StaffRow) else ("ESTATE", row.estate))

    def refused(self, kind: SheetKind, cells: Mapping[str, object]) -> None:
        said = self._said.get(kind.name)
        if said is not None:
            with suppress(Wrong):  # who cannot be read names nobody
                said.refused.add(tuple(_cleaned(column, cells.get(column)) for column in KINDS[kind].key))

    def of(self, kind: SheetKind, sheet: str, tx: Transaction) -> list[Refusal]:
        """Remarks on what is missing of a kind, when its last sheet, `sheet`, has been taken."""
        if kind not in KINDS or kind.name in self._partial:
            return []
        said = self._said[kind.name]
        found: list[Refusal] = []
        for place in sorted(said.places):
            found += self._of_place(KINDS[kind], sheet, place, said, tx)
        return found

    def _of_place(self, kind: _Kind, sheet: str, place: Place, said: _Said, tx: Transaction) -> Iterator[Refusal]:
        level, name = place
        column = kind.key[min(1, len(kind.key) - 1)]
        refused = sum(len(key) == 1 or key[0] == name for key in said.refused)
        for (at,) in _found(tx, _PLACES[level], name=name, groups=self._groups):
            standing = _found(tx, kind.standing, at=at, today=self._today)
            gone = [identifier for identifier, digests in standing if not any(bytes(one) in said.digests for one in digests)]
            if (len(gone) - refused) * 2 > len(standing):
                about = f"此前登记的{kind.what} {len(standing)} 条中有 {len(gone)} 条未出现在本次文件中，视为部分文件，未逐条列出，未作删除"
                yield Refusal(sheet, 0, column, name, PART_OF_REGISTER, about)
                continue
            message = f"此前登记的{kind.what}未出现在本次文件中，未作删除；{kind.advice}"
            for start in range(0, len(gone), AT_ONCE):
                for row in _found(tx, kind.details, ids=gone[start : start + AT_ONCE]):
                    if tuple(row[: len(kind.key)]) not in said.refused:
                        yield Refusal(sheet, 0, column, f"{name} {kind.show(row)}", NOT_IN_FILE, message)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How records of a kind are found. Statements take the ids of estate, company or group (`%(at)s`) and of records (`%(ids)s`)."""

    key: tuple[str, ...]  # columns of the file by which a refused row names a record
    what: str
    advice: str
    standing: str  # SELECT id, digests of the records that stand
    details: str  # SELECT the columns of `key`, then what else is shown
    show: Callable[[Sequence[Any]], str]


def _membership(kind: str, what: str, column: str, advice: str) -> _Kind:
    still = "(m.ends_on IS NULL OR m.ends_on > %(today)s)"
    return _Kind(
        key=("项目编号", "房号", column),
        what=what,
        advice=advice,
        standing="SELECT m.id, ARRAY[m.register_digest] || m.former_digests FROM memberships m"
        f" WHERE m.estate_id = %(at)s AND m.kind = '{kind}' AND m.register_digest IS NOT NULL AND {still}",
        details="SELECT e.code, u.number, p.name FROM memberships m JOIN units u ON u.id = m.unit_id JOIN estates e ON e.id = m.estate_id"
        " JOIN people p ON p.id = m.person_id WHERE m.id = ANY (%(ids)s) ORDER BY u.number, m.id",
        show=lambda row: f"{row[1]} {masked_name(row[2])}",
    )


KINDS: dict[SheetKind, _Kind] = {
    UNITS: _Kind(
        key=("项目编号", "房号"),
        what="房屋",
        advice="如已拆并，请与项目核对",
        standing="SELECT id, ARRAY[register_digest] FROM units WHERE estate_id = %(at)s AND register_digest IS NOT NULL",
        details="SELECT e.code, u.number FROM units u JOIN estates e ON e.id = u.estate_id WHERE u.id = ANY (%(ids)s) ORDER BY u.number",
        show=lambda row: str(row[1]),
    ),
    OWNERS: _membership("OWNER", "业主", "业主姓名", "如已转让，请办理过户"),
    TENANTS: _membership("TENANT", "租户", "租户姓名", "如已退租，请登记租期结束"),
    PARKING: _Kind(
        key=("项目编号", "车位号"),
        what="车位",
        advice="如已退租，请办理退还",
        standing="SELECT id, ARRAY[register_digest] FROM parking_spaces"
        " WHERE estate_id = %(at)s AND register_digest IS NOT NULL AND ended_at IS NULL",
        details="SELECT e.code, s.number, u.number FROM parking_spaces s JOIN estates e ON e.id = s.estate_id"
        " JOIN units u ON u.id = s.unit_id WHERE s.id = ANY (%(ids)s) ORDER BY s.number",
        show=lambda row: f"{row[1]}（房号 {row[2]}）",
    ),
    STAFF: _Kind(
        key=("工号",),
        what="员工",
        advice="如已离职，请将状态填为“离职”",
        standing="SELECT id, ARRAY[register_digest] FROM staff WHERE coalesce(estate_id, company_id, group_id) = %(at)s"
        " AND register_digest IS NOT NULL AND state <> 'LEFT'",
        details="SELECT number, name FROM staff WHERE id = ANY (%(ids)s) ORDER BY number",
        show=lambda row: f"{row[0]} {masked_name(row[1])}",
    ),
}
_PLACES = {
    "ESTATE": "SELECT id FROM estates WHERE code = %(name)s",
    "COMPANY": "SELECT id FROM companies WHERE name = %(name)s AND (%(groups)s::uuid[] IS NULL OR group_id = ANY (%(groups)s::uuid[]))",
    "GROUP": "SELECT id FROM groups WHERE name = %(name)s AND (%(groups)s::uuid[] IS NULL OR id = ANY (%(groups)s::uuid[]))",
}


def _found(tx: Transaction, sql: str, **values: Any) -> list[tuple]:
    return tx.execute(sql, values)  # type: ignore[arg-type]


def _cleaned(column: str, value: object) -> str:
    """As a row that was taken would have it. Raises Wrong."""
    return cell.name(value, column) if "姓名" in column else cell.code(value, column)
