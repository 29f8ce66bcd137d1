"""Registers are imported, watched and corrected through the API, by those who hold the role at the group."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from openpyxl import load_workbook

from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.jobs import work_once
from services.chassis.testing import Api, Caller, Refused
from services.residents import importing
from steward.residents.v1 import imports_pb2 as pb
from tests.residents import workbooks as make
from tests.residents.registers import rows


class Group:
    """A group with one estate in the database that the server has, and its staff."""

    def __init__(self, database: Database):
        self.name, self.code = f"集团{secrets.token_hex(4)}", f"E{secrets.token_hex(4)}".upper()
        employees = [
            make.staff(f"{self.code}-1", 岗位="集团运营", 所属项目="集团"),
            make.staff(f"{self.code}-2", 岗位="档案员", 所属项目=self.code),
            make.staff(f"{self.code}-3", 岗位="维修员", 所属项目="集团"),
        ]
        with database.transaction() as tx:
            content = make.workbook(estates=[make.estate(self.code, 所属集团=self.name)], units=[], employees=employees)
            importing.start(tx, "first.xlsx", content, None)
        while work_once(database, "test"):
            pass
        posts = rows(
            database,
            "SELECT p.staff_id, p.role, lower(n.kind), n.id FROM posts p JOIN dir_nodes n ON n.id = p.node_id"
            " JOIN groups g ON g.id = p.group_id WHERE g.name = %s",
            self.name,
        )
        callers = {role: Caller("staff", who, (Grant(role, level, node),)) for who, role, level, node in posts}
        self.operations, self.archivist, self.technician = callers["GROUP_OPERATIONS"], callers["ARCHIVIST"], callers["TECHNICIAN"]


@pytest.fixture
def a_group(database_of: Callable[[str], Database]) -> Callable[[], Group]:
    return lambda: Group(database_of("residents"))


@pytest.fixture
def group(a_group: Callable[[], Group]) -> Group:
    return a_group()


@pytest.fixture
def finish(database_of: Callable[[str], Database]) -> Callable[[], None]:
    def run() -> None:
        while work_once(database_of("residents"), "test"):
            pass

    return run


def test_start_import_takes_a_file_and_get_import_tells_of_it(api: Api, group: Group, finish: Callable[[], None]) -> None:
    caller, code = group.operations, group.code
    units = [make.unit(str(n), 项目编号=code, 建筑面积=-1 if n == 3 else 80) for n in range(5)]
    started = api.call(caller, "StartImport", filename="房屋.xlsx", content=make.workbook(estates=[], units=units))
    assert (started.state, started.percent, started.filename, started.created_by) == (pb.Import.QUEUED, 0, "房屋.xlsx", caller.name)
    finish()
    done = api.call(caller, "GetImport", name=started.name)
    assert (done.state, done.percent, done.error) == (pb.Import.SUCCEEDED, 100, "")
    sheet = next(sheet for sheet in done.sheets if sheet.sheet == "房屋台账")
    assert (sheet.rows, sheet.created, sheet.changed, sheet.unchanged, sheet.refused) == (5, 4, 0, 0, 1)
    refusals = api.call(caller, "ListRefusals", parent=started.name).refusals
    assert [(r.sheet, r.row, r.column, r.value, r.reason) for r in refusals] == [("房屋台账", 6, "建筑面积", "-1", "AREA_NOT_POSITIVE")]
    assert refusals[0].message == "建筑面积必须大于零，填写的是“-1”"


def test_the_report_of_refused_rows_is_corrected_and_imported_again(api: Api, group: Group, finish: Callable[[], None]) -> None:
    caller, code = group.operations, group.code
    units = [make.unit("1", 项目编号=code), make.unit("2", 项目编号=code, 建筑面积=-2)]
    owners = [
        make.owner("1", 1, 项目编号=code),
        make.owner("2", 2, 项目编号=code),
        make.owner("1", 3, 项目编号=code, 产权份额="120%"),
    ]
    started = api.call(caller, "StartImport", filename="a.xlsx", content=make.workbook(estates=[], units=units, owners=owners))
    with pytest.raises(Refused) as early:
        api.call(caller, "DownloadRefusals", name=started.name)
    assert (early.value.http, early.value.reason) == (409, "IMPORT_NOT_ENDED")
    finish()
    body = api.call(caller, "DownloadRefusals", name=started.name)
    assert body.content_type == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    book = load_workbook(BytesIO(body.data))
    sheet = book["房屋台账"]
    assert [cell.value for cell in sheet[1]] == [*make.HEADERS["房屋台账"], "原因", "原行号"]
    assert [cell.value for cell in sheet[2]][4:6] == ["2", -2]
    assert (sheet["K2"].value, sheet["L2"].value) == ("建筑面积必须大于零，填写的是“-2”", 4)
    assert sheet["F2"].fill.fgColor.rgb == "FFFFC7CE"
    assert sheet["E2"].fill.fgColor.rgb != "FFFFC7CE"
    owners_sheet = book["业主信息登记表"]
    assert [row[0].row for row in owners_sheet.iter_rows(min_row=2)] == [2, 3]
    assert owners_sheet["B2"].value == "2"
    sheet["F2"], owners_sheet["J3"] = 92, "50%"
    sheet["J3"] = None
    again = api.call(caller, "StartImport", filename="b.xlsx", content=make.saved(book))
    finish()
    done = api.call(caller, "GetImport", name=again.name)
    assert {s.sheet: (s.rows, s.created, s.refused) for s in done.sheets} == {"房屋台账": (1, 1, 0), "业主信息登记表": (2, 2, 0)}


def test_text_that_looks_like_a_formula_is_not_calculated_in_the_report(api: Api, group: Group, finish: Callable[[], None]) -> None:
    caller, code = group.operations, group.code
    evil = '=HYPERLINK("http://example.org","x")'
    book = load_workbook(BytesIO(make.workbook(estates=[], units=[make.unit("1", 项目编号=code, 建筑面积=0)])))
    book["房屋台账"]["B3"].value = evil
    book["房屋台账"]["B3"].data_type = "s"
    started = api.call(caller, "StartImport", filename="a.xlsx", content=make.saved(book))
    finish()
    report = load_workbook(BytesIO(api.call(caller, "DownloadRefusals", name=started.name).data))["房屋台账"]
    assert (report["B2"].value, report["B2"].data_type) == (evil, "s")


def test_list_refusals_goes_page_by_page_in_the_order_of_the_file(api: Api, group: Group, finish: Callable[[], None]) -> None:
    caller, code = group.operations, group.code
    units = [make.unit(str(n), 项目编号=code, 建筑面积=0, 物业类型="别墅" if n == 2 else "住宅") for n in range(5)]
    name = api.call(caller, "StartImport", filename="a.xlsx", content=make.workbook(estates=[], units=units)).name
    finish()
    pages, token = [], ""
    while True:
        page = api.call(caller, "ListRefusals", parent=name, page_size=2, page_token=token)
        pages.append([(r.row, r.column) for r in page.refusals])
        token = page.next_page_token
        if not token:
            break
    assert pages == [[(3, "建筑面积"), (4, "建筑面积")], [(5, "建筑面积"), (5, "物业类型")], [(6, "建筑面积"), (7, "建筑面积")]]
    with pytest.raises(Refused) as refused:
        api.call(caller, "ListRefusals", parent=name, page_size=2, page_token="bm9uc2Vuc2U")  # noqa: S106 - a token of a page
    assert (refused.value.http, refused.value.reason) == (400, "INVALID_PAGE_TOKEN")


def test_list_imports_shows_those_of_the_group_newest_first(
    api: Api, group: Group, a_group: Callable[[], Group], finish: Callable[[], None]
) -> None:
    caller, code = group.operations, group.code
    stranger = a_group().operations
    content = make.workbook(estates=[], units=[make.unit("1", 项目编号=code)])
    names = [api.call(caller, "StartImport", filename=f"{n}.xlsx", content=content).name for n in range(3)]
    finish()
    first = api.call(caller, "ListImports", page_size=2)
    assert [found.name for found in first.imports] == [names[2], names[1]]
    second = api.call(caller, "ListImports", page_size=2, page_token=first.next_page_token)
    assert [found.filename for found in second.imports] == ["0.xlsx", "first.xlsx"], "the opening import is the group's too"
    assert not {found.name for found in api.call(stranger, "ListImports").imports} & set(names)
    for rpc, field in (("GetImport", "name"), ("ListRefusals", "parent"), ("DownloadRefusals", "name")):
        with pytest.raises(Refused) as refused:
            api.call(stranger, rpc, **{field: names[0]})
        assert (refused.value.http, refused.value.reason) == (404, "IMPORT_NOT_FOUND")


def test_the_role_must_be_held_at_the_group(api: Api, group: Group) -> None:
    owner = Caller("people", uuid4(), (Grant("OWNER", "unit", uuid4(), uuid4()),))
    for who, why in ((group.archivist, "GROUP_ROLE_REQUIRED"), (group.technician, "ROLE_REQUIRED"), (owner, "ROLE_REQUIRED")):
        calls: dict[str, dict[str, Any]] = {"StartImport": {"filename": "a.xlsx", "content": make.workbook()}, "ListImports": {}}
        for rpc, fields in calls.items():
            with pytest.raises(Refused) as refused:
                api.call(who, rpc, **fields)
            assert (refused.value.http, refused.value.reason) == (403, why)
    with pytest.raises(Refused) as refused:
        api.call(None, "ListImports")
    assert refused.value.http == 401


@pytest.mark.parametrize("content", [b"no workbook", b"PK\x03\x04", make.saved(load_workbook(BytesIO(make.workbook())))[:-100]])
def test_what_is_no_register_is_refused_at_once(api: Api, group: Group, content: bytes) -> None:
    caller = group.operations
    before = len(api.call(caller, "ListImports").imports)
    with pytest.raises(Refused) as refused:
        api.call(caller, "StartImport", filename="a.xlsx", content=content)
    assert (refused.value.http, refused.value.reason) == (400, "NOT_A_REGISTER")
    assert len(api.call(caller, "ListImports").imports) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("content", b""), ("content", b"x" * (32 * 1024 * 1024 + 1)), ("filename", "")],
    ids=["empty", "huge", "nameless"],
)
def test_an_empty_or_huge_file_and_a_nameless_one_are_refused(api: Api, group: Group, field: str, value: bytes | str) -> None:
    fields: dict[str, Any] = {"filename": "a.xlsx", "content": make.workbook()} | {field: value}
    with pytest.raises(Refused) as refused:
        api.call(group.operations, "StartImport", **fields)
    assert (refused.value.http, refused.value.fields) == (400, {field})


def test_the_same_request_id_starts_one_import(api: Api, group: Group) -> None:
    caller, code = group.operations, group.code
    content = make.workbook(estates=[], units=[make.unit("1", 项目编号=code)])
    names = {api.call(caller, "StartImport", filename="a.xlsx", content=content, request_id="once").name for _ in range(3)}
    assert len(names) == 1


def test_an_unknown_import_is_not_found(api: Api, group: Group) -> None:
    caller = group.operations
    for name in (f"imports/{UUID(int=7)}", "imports/nonsense"):
        with pytest.raises(Refused) as refused:
            api.call(caller, "GetImport", name=name)
        assert (refused.value.http, refused.value.reason) == (404, "IMPORT_NOT_FOUND")
