"""Other services fill and mend their copy of the register from what residents lists."""

from __future__ import annotations

from collections.abc import Callable

from services.chassis import directory
from services.chassis.db import Database
from services.residents.api.directory import list_entries
from steward.residents.v1 import directory_pb2 as pb
from tests.residents import workbooks as make
from tests.residents.registers import Imported, rows

COPIES = ("dir_nodes", "dir_members", "dir_posts")


def register(count: int = 7) -> bytes:
    units = [make.unit(f"{n:04d}", 房屋状态="出租" if n == 0 else "自住") for n in range(count)]
    owners = [make.owner(f"{n:04d}", n + 1) for n in range(count)]
    return make.workbook(
        units=units, owners=owners, tenants=[make.tenant("0000")], employees=[make.staff(), make.staff("G-1", 所属项目="集团")]
    )


def everything(database: Database, page_size: int, after: int = 0) -> list[pb.DirectoryEntry]:
    entries: list[pb.DirectoryEntry] = []
    token = ""
    while True:
        with database.read() as tx:
            page = list_entries(pb.ListEntriesRequest(page_size=page_size, page_token=token, after_position=after), tx)
        assert len(page.entries) <= max(page_size, 500)
        entries += page.entries
        token = page.next_page_token
        if not token:
            return entries


def copied(database: Database) -> dict[str, list[tuple]]:
    return {table: rows(database, f"SELECT * FROM {table} ORDER BY id") for table in COPIES}


def test_a_new_copy_filled_page_by_page_equals_the_original(
    database: Database, import_file: Callable[..., Imported], database_of: Callable[[str], Database]
) -> None:
    import_file(register())
    original = copied(database)
    for page_size in (1, 3, 1000):
        entries = everything(database, page_size)
        assert len(entries) == len({entry.id for entry in entries}) == sum(map(len, original.values())) == 4 + 7 + 8 + 2
        with database.transaction() as tx:
            for table in COPIES:
                tx.execute(f"DELETE FROM {table}")
        with database.transaction() as tx:
            directory.apply(tx, entries)
        assert copied(database) == original


def test_what_is_listed_carries_no_names_and_no_telephones(database: Database, import_file: Callable[..., Imported]) -> None:
    import_file(register())
    text = str(everything(database, 1000))
    assert "1390000" not in text
    assert make.owner()["业主姓名"] not in text
    assert make.staff()["姓名"] not in text


def positioned(database: Database) -> int:
    """Gives the log positions, as the relay does, and returns the last one."""
    with database.transaction() as tx:
        tx.execute(
            "WITH o AS (SELECT id, row_number() OVER (ORDER BY recorded_at, id) + (SELECT coalesce(max(position), 0) FROM events) AS n"
            " FROM events WHERE position IS NULL) UPDATE events SET position = o.n FROM o WHERE events.id = o.id"
        )
        return tx.execute("SELECT max(position) FROM events")[0][0]


def test_a_copy_that_fell_behind_gets_the_entries_of_later_events(database: Database, import_file: Callable[..., Imported]) -> None:
    import_file(register())
    position = positioned(database)
    assert everything(database, 1000, after=position) == []
    import_file(make.workbook(units=[make.unit("0000", 房屋状态="空置"), make.unit("9999")]))
    positioned(database)
    later = everything(database, 1000, after=position)
    assert [(entry.node.code, entry.version) for entry in later] == [("0000", 2), ("9999", 1)]
    assert later[0].node.unit_status.occupancy == pb.UnitStatus.VACANT


def test_a_copy_that_fell_behind_the_log_gets_everything(database: Database, import_file: Callable[..., Imported]) -> None:
    import_file(register())
    position = positioned(database)
    import_file(make.workbook(units=[make.unit("0001", 房屋状态="空置"), make.unit("9999")]))
    positioned(database)
    with database.transaction() as tx:
        tx.execute("DELETE FROM events WHERE position <= %s", (position + 1,))
    assert len(everything(database, 3, after=position)) == 4 + 8 + 8 + 2
