"""What a later file no longer has is told, with masked names, and stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from openpyxl import load_workbook

from services.chassis import jobs
from services.chassis.db import Database
from services.chassis.testing import advance
from services.residents import importing
from services.residents.register_cells import masked_name
from services.residents.vault import vault
from tests.residents import workbooks as make
from tests.residents.registers import Imported, contents, look, rows

Import = Callable[..., Imported]

UNITS = [make.unit(str(number)) for number in range(1, 6)]
OWNERS = [make.owner(str(number), number, 业主姓名=f"王{'一二三四五'[number - 1]}") for number in range(1, 6)]


def missing(database: Database, done: Imported) -> list[tuple[str, str, str]]:
    """(sheet, value, reason) of what the import says is missing, in the order of the report."""
    return rows(
        database,
        "SELECT sheet, value, reason FROM import_refusals WHERE import_id = %s AND taken AND reason IN ('NOT_IN_FILE', 'PART_OF_REGISTER')"
        " ORDER BY position",
        done.id,
    )


def report(database: Database, done: Imported) -> Any:
    [[sealed]] = rows(database, "SELECT report FROM imports WHERE id = %s", done.id)
    return load_workbook(BytesIO(vault().open(bytes(sealed), importing.REPORT)))


def days(later: int) -> str:
    """A day so many days from today."""
    return (datetime.now(UTC) + timedelta(days=later)).date().isoformat()


def without(rows_of_sheet: list[dict[str, Any]], *left_out: int) -> list[dict[str, Any]]:
    return [row for number, row in enumerate(rows_of_sheet, start=1) if number not in left_out]


def test_what_the_file_no_longer_has_is_listed_in_a_sheet_of_its_own_and_counted(database: Database, import_file: Import) -> None:
    people = {
        "tenants": [make.tenant(str(number), 500 + number, 租户姓名=f"李{'一二三'[number - 1]}某") for number in range(1, 4)],
        "spaces": [make.space(f"B{number}", 房号=str(number), 车牌号=f"川A1234{number}") for number in range(1, 4)],
        "employees": [make.staff(f"T-{number}", 姓名="欧阳修远", 邮箱=None) for number in range(1, 4)],
    }
    first = import_file(make.workbook(units=UNITS, owners=OWNERS, **people))
    assert missing(database, first) == []
    before = contents(database)
    done = import_file(
        make.workbook(units=without(UNITS, 5), owners=without(OWNERS, 2, 5), **{name: listed[:2] for name, listed in people.items()})
    )
    assert missing(database, done) == [
        ("房屋台账", "TFHY 5", "NOT_IN_FILE"),
        ("业主信息登记表", "TFHY 2 王*", "NOT_IN_FILE"),
        ("业主信息登记表", "TFHY 5 王*", "NOT_IN_FILE"),
        ("租户信息表", "TFHY 3 李**", "NOT_IN_FILE"),
        ("车位台账", "TFHY B3（房号 3）", "NOT_IN_FILE"),
        ("员工花名册", "TFHY T-3 欧***", "NOT_IN_FILE"),
    ]
    assert {name: sheet["missing"] for name, sheet in done.sheets.items()} == {
        "项目": 0, "房屋台账": 1, "业主信息登记表": 2, "租户信息表": 1, "车位台账": 1, "员工花名册": 1
    }  # fmt: skip
    assert contents(database) == before, "nothing is removed"
    book = report(database, done)
    assert book.sheetnames == ["缺失", "提示"], "the tenants' units are not let: a remark of its own"
    lines = [[cell.value for cell in row] for row in book["缺失"].iter_rows()]
    assert lines[0] == ["工作表", "列", "内容", "说明"]
    assert lines[2] == ["业主信息登记表", "房号", "TFHY 2 王*", "此前登记的业主未出现在本次文件中，未作删除；如已转让，请办理过户"]
    assert len(lines) == 7
    assert "王二" not in str(lines)


def test_the_same_file_and_a_corrected_one_miss_nothing(database: Database, import_file: Import) -> None:
    import_file(make.workbook(units=UNITS, owners=OWNERS))
    changed = [OWNERS[0] | {"手机号": "13911110000"}, OWNERS[1] | {"证件号码": make.identity(77)}, *OWNERS[2:]]
    for owners in (OWNERS, changed, changed):
        done = import_file(make.workbook(units=[UNITS[0] | {"建筑面积": 120}, *UNITS[1:]], owners=owners))
        assert (missing(database, done), done.total("missing")) == ([], 0)


def test_a_sheet_that_the_file_has_not_or_leaves_empty_says_nothing(database: Database, import_file: Import) -> None:
    import_file(make.workbook(units=UNITS, owners=OWNERS))
    assert missing(database, import_file(make.workbook(units=UNITS))) == []
    book = load_workbook(BytesIO(make.workbook(units=without(UNITS, 5), owners=OWNERS)))
    for name in ("业主信息登记表", "租户信息表", "车位台账", "员工花名册"):
        del book[name]
    assert missing(database, import_file(make.saved(book))) == [("房屋台账", "TFHY 5", "NOT_IN_FILE")]


def test_another_estate_than_those_of_the_sheet_is_left_alone(database: Database, import_file: Import) -> None:
    estates = [make.estate(), make.estate("BYXC", 项目名称="碧云新城")]
    both = [*UNITS, *(make.unit(str(number), 项目编号="BYXC") for number in range(1, 4))]
    import_file(make.workbook(estates=estates, units=both))
    done = import_file(make.workbook(units=without(UNITS, 1)))
    assert missing(database, done) == [("房屋台账", "TFHY 1", "NOT_IN_FILE")]


def test_who_is_named_by_a_refused_row_is_in_the_file(database: Database, import_file: Import) -> None:
    import_file(make.workbook(units=UNITS, owners=OWNERS))
    units = [UNITS[0] | {"建筑面积": -1}, *without(UNITS, 1, 2)]
    owners = [*without(OWNERS, 3), OWNERS[2] | {"手机号": "12", "业主姓名": "王 三"}]
    done = import_file(make.workbook(units=units, owners=owners))
    assert missing(database, done) == [("房屋台账", "TFHY 2", "NOT_IN_FILE")]
    assert done.total("refused") == 3, "a unit, its owner, and the owner without a telephone that can be"


def test_who_has_left_is_not_missing(database: Database, import_file: Import) -> None:
    units = [make.unit(str(number), 房屋状态="出租") for number in range(1, 4)]
    ends = (days(-2), days(300), None)
    tenants = [make.tenant(str(number), 500 + number, 租期开始=days(-300), 租期结束=end) for number, end in enumerate(ends, 1)]
    staff = [make.staff(f"T-{number}", 邮箱=None, 状态=state) for number, state in enumerate(("在职", "在职", "离职"), 1)]
    spaces = [make.space(f"B{number}", 房号=str(number), 车牌号=f"川A1234{number}") for number in (1, 2, 3)]
    import_file(make.workbook(units=units, owners=OWNERS[:3], tenants=tenants, employees=staff, spaces=spaces))
    with database.transaction() as tx:
        tx.execute("UPDATE parking_spaces SET ended_at = now() WHERE number = 'B3'")
        tx.execute(
            "UPDATE memberships SET ends_on = current_date WHERE kind = 'OWNER' AND unit_id = (SELECT id FROM units WHERE number = '3')"
        )
    done = import_file(make.workbook(units=units, owners=OWNERS[:2], tenants=tenants[1:], employees=staff[:2], spaces=spaces[:2]))
    assert missing(database, done) == []


def test_a_lease_that_is_over_by_the_day_of_the_import_is_not_missing(database: Database, import_file: Import) -> None:
    tenants = [make.tenant("1", 501, 租期结束=None), make.tenant("2", 502, 租期结束=days(300))]
    units = [make.unit(str(number), 房屋状态="出租") for number in (1, 2)]
    import_file(make.workbook(units=units, tenants=tenants))
    assert missing(database, import_file(make.workbook(units=units, tenants=tenants[:1]))) == [("租户信息表", "TFHY 2 租**", "NOT_IN_FILE")]
    advance(database, timedelta(days=301))
    assert missing(database, import_file(make.workbook(units=units, tenants=tenants[:1]))) == []


@pytest.mark.parametrize(("kept", "expected"), [(3, "NOT_IN_FILE"), (2, "PART_OF_REGISTER")])
def test_less_than_half_of_what_is_registered_is_a_part_and_no_list(
    database: Database, import_file: Import, kept: int, expected: str
) -> None:
    import_file(make.workbook(units=UNITS))
    done = import_file(make.workbook(units=UNITS[:kept]))
    found = missing(database, done)
    assert {reason for *_, reason in found} == {expected}
    if expected == "NOT_IN_FILE":
        assert (len(found), done.total("missing")) == (2, 2)
    else:
        assert ([value for _, value, _ in found], done.total("missing")) == (["TFHY"], 0)
        assert "5 条中有 3 条" in report(database, done)["缺失"]["D2"].value


def test_corrected_refusals_that_come_back_are_a_part_however_many(database: Database, import_file: Import) -> None:
    first = import_file(make.workbook(units=[UNITS[0], *(unit | {"建筑面积": 0} for unit in UNITS[1:3])]))
    book = report(database, first)
    for row in (2, 3):
        book["房屋台账"].cell(row, 6).value = 88
    done = import_file(make.saved(book))
    assert (done.total("created"), done.total("missing"), missing(database, done)) == (2, 0, [])


def test_what_was_made_by_hand_was_never_in_a_file(database: Database, import_file: Import) -> None:
    import_file(make.workbook(units=UNITS))
    with database.transaction() as tx:
        tx.execute("UPDATE units SET register_digest = NULL WHERE number = '5'")
    assert missing(database, import_file(make.workbook(units=UNITS[:4]))) == []


def test_an_import_that_died_and_went_on_misses_what_the_whole_file_misses(
    database: Database, import_file: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    import_file(make.workbook(units=UNITS, owners=OWNERS))
    with database.transaction() as tx:
        identifier = importing.start(tx, "register.xlsx", make.workbook(units=UNITS, owners=without(OWNERS, 4)), None)
    step, steps = jobs.Job.step, iter(range(100))

    def dying(self: jobs.Job) -> Any:
        if next(steps) == 6:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(jobs.Job, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        jobs.work_once(database, "dies")
    with database.transaction() as tx:
        tx.execute("UPDATE operations SET lease_until = now() - interval '1 second' WHERE state = 'RUNNING'")
    assert jobs.work_once(database, "goes on")
    done = look(database, identifier)
    assert (done.state, missing(database, done)) == ("SUCCEEDED", [("业主信息登记表", "TFHY 4 王*", "NOT_IN_FILE")])


@pytest.mark.parametrize(
    ("name", "masked"),
    [("张三", "张*"), ("欧阳修", "欧**"), ("𬭎", "𬭎"), ("成都安居物业有限公司", "成都***"), ("John Smith", "Jo***"), ("", "")],
)
def test_a_masked_name_shows_its_beginning(name: str, masked: str) -> None:
    assert masked_name(name) == masked
