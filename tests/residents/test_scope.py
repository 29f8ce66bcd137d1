"""Row-level security of the register: a transaction sees the part of the tree that its scope opens, and no other."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from services.chassis.access import Principal, Scope
from services.chassis.db import Database
from tests.residents import workbooks as make
from tests.residents.registers import TABLES, Imported, rows

WHO = Principal("staff", "0")


@pytest.fixture
def two_groups(database: Database, import_file: Callable[..., Imported]) -> Database:
    """天府花园 and 滨江公寓 of one group, 新天世纪 of another, each with a unit, an owner, a space and staff."""
    estates = [make.estate(), make.estate("BJGY"), make.estate("XTSJ", 所属集团="万和物业集团")]
    codes = [row["项目编号"] for row in estates]
    import_file(
        make.workbook(
            estates=estates,
            units=[make.unit(项目编号=code) for code in codes],
            owners=[make.owner(person=n, 项目编号=code) for n, code in enumerate(codes)],
            spaces=[make.space(项目编号=code, 车牌号=f"川A1234{n}") for n, code in enumerate(codes)],
            employees=[make.staff(f"{code}-001", 所属项目=code) for code in codes],
        )
    )
    return database


def seen(database: Database, scope: Scope, sql: str = "SELECT count(*) FROM {}") -> dict[str, int]:
    with database.read(WHO, scope) as tx:
        return {table: tx.execute(sql.format(table))[0][0] for table in TABLES}


def node(database: Database, table: str, column: str, value: str) -> UUID:
    return rows(database, f"SELECT id FROM {table} WHERE {column} = %s", value)[0][0]


def test_nothing_is_seen_without_a_scope(two_groups: Database) -> None:
    assert seen(two_groups, Scope()) == dict.fromkeys(TABLES, 0)


def test_an_estate_sees_its_own(two_groups: Database) -> None:
    scope = Scope(estates=frozenset({node(two_groups, "estates", "code", "TFHY")}))
    assert seen(two_groups, scope) == dict.fromkeys(TABLES, 1) | {"groups": 0, "companies": 0}


def test_a_group_sees_all_of_its_estates_and_none_of_another(two_groups: Database) -> None:
    scope = Scope(groups=frozenset({node(two_groups, "groups", "name", "安居物业集团")}))
    assert seen(two_groups, scope) == dict.fromkeys(TABLES, 2) | {"groups": 1, "companies": 1}


def test_an_owner_of_two_estates_is_seen_at_both(database: Database, import_file: Callable[..., Imported]) -> None:
    """The record was made at the first estate; the membership shows it at the second."""
    units = [make.unit(), make.unit(项目编号="BJGY")]
    import_file(
        make.workbook(estates=[make.estate(), make.estate("BJGY")], units=units, owners=[make.owner(), make.owner(项目编号="BJGY")])
    )
    for code in ("TFHY", "BJGY"):
        assert seen(database, Scope(estates=frozenset({node(database, "estates", "code", code)})))["people"] == 1


def test_nobody_writes_outside_the_scope(two_groups: Database) -> None:
    scope = Scope(estates=frozenset({node(two_groups, "estates", "code", "TFHY")}))
    with two_groups.transaction(WHO, scope) as tx:
        changed = tx.execute("UPDATE people SET name = 'x' RETURNING 1")
    assert len(changed) == 1


def test_the_history_of_corrections_cannot_be_changed(two_groups: Database) -> None:
    for statement in ("UPDATE corrections SET actor = 'x'", "DELETE FROM corrections"):
        with pytest.raises(Exception, match="permission denied"), two_groups.transaction() as tx:
            tx.execute(statement)
