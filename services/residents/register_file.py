"""Reading the opening register's Excel file row by row, however the office has laid it out.

A sheet is recognised by its name (`2.房屋台账(天府花园)` is a 房屋台账), its header row by its content, wherever it stands
below titles and notes; columns may come in any order, with spaces, units in brackets or required-marks in their names, and
with columns of the office's own between them, which are ignored. Hidden rows are rows like any other (a filter hides them);
hidden sheets hold lists and old copies and are left out. Rows are streamed: memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import html
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any, cast

from services.residents.register_cells import NotCalculated, Wrong, plain

# A register of 100,000 rows unpacks to about 80 MB. What unpacks to more than this is a bomb, not a register.
MOST_UNPACKED = 1 << 30
# Titles, notes and empty rows that may stand above a header.
ROWS_ABOVE_HEADER = 30


class NotARegister(Exception):
    """Not an .xlsx file, or none of its sheets is known. The message is for people."""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    aliases: tuple[str, ...] = ()
    needed: bool = True  # the sheet cannot be read without this column


@dataclass(frozen=True, slots=True)
class SheetKind:
    """One of the register's sheets: its name, other names offices give it, and its columns in the usual order."""

    name: str
    aliases: tuple[str, ...]
    columns: tuple[Column, ...]


ESTATES = SheetKind(
    "项目",
    ("项目一览", "项目信息"),
    (
        Column("项目编号", ("项目编码", "项目代码", "编号")),
        Column("项目名称", ("项目", "名称")),
        Column("物业类型", ("项目类型", "业态")),
        Column("所属公司", ("公司", "分公司")),
        Column("所属集团", ("集团",)),
        Column("时区", needed=False),
        Column("有无业委会", ("业委会", "是否有业委会"), needed=False),
    ),
)
UNITS = SheetKind(
    "房屋台账",
    ("房产台账", "房屋清单", "房屋信息"),
    (
        Column("项目编号", ("项目编码", "项目代码", "所属项目")),
        Column("楼栋", ("楼栋号", "楼号", "栋号", "楼宇")),
        Column("单元", ("单元号",), needed=False),
        Column("楼层", ("层", "所在楼层"), needed=False),
        Column("房号", ("房屋编号", "房间号", "室号")),
        Column("建筑面积", ("面积", "产权面积")),
        Column("物业类型", ("房屋类型", "业态")),
        Column("房屋状态", ("状态", "入住状态")),
        Column("入伙日期", ("入住日期", "交房日期", "接房日期")),
        Column("物业费单价", ("物业费", "收费标准", "单价"), needed=False),
    ),
)
OWNERS = SheetKind(
    "业主信息登记表",
    ("业主信息", "业主清册", "业主台账"),
    (
        Column("项目编号", ("项目编码", "项目代码", "所属项目")),
        Column("房号", ("房屋编号", "房间号", "室号")),
        Column("业主姓名", ("姓名", "业主", "业主名称")),
        Column("业主类型", ("类型", "产权人类型")),
        Column("证件号码", ("证件号", "身份证号", "身份证号码")),
        Column("手机号", ("手机", "手机号码", "联系电话", "电话")),
        Column("紧急联系人", needed=False),
        Column("紧急联系电话", ("紧急联系人电话", "紧急电话"), needed=False),
        Column("生日", ("出生日期",), needed=False),
        Column("产权份额", ("份额", "产权比例"), needed=False),
        Column("特殊关怀", ("关怀", "特殊关怀对象"), needed=False),
        Column("缴费方式", ("付款方式", "交费方式"), needed=False),
    ),
)
TENANTS = SheetKind(
    "租户信息表",
    ("租户信息", "租户台账", "租户信息登记表"),
    (
        Column("项目编号", ("项目编码", "项目代码", "所属项目")),
        Column("房号", ("房屋编号", "房间号", "室号")),
        Column("租户姓名", ("姓名", "租户", "承租人")),
        Column("身份证号", ("证件号码", "证件号", "身份证号码")),
        Column("手机号", ("手机", "手机号码", "联系电话", "电话")),
        Column("租期开始", ("起租日期", "租赁开始", "开始日期")),
        Column("租期结束", ("到期日期", "租赁结束", "结束日期")),
        Column("业主同意书", ("业主同意", "同意书"), needed=False),
    ),
)
PARKING = SheetKind(
    "车位台账",
    ("车位信息", "停车位台账"),
    (
        Column("项目编号", ("项目编码", "项目代码", "所属项目")),
        Column("车位号", ("车位", "车位编号")),
        Column("房号", ("房屋编号", "房间号", "室号")),
        Column("车牌号", ("车牌", "车牌号码")),
        Column("类型", ("车位类型",)),
        Column("月费", ("月租金", "租金", "费用"), needed=False),
    ),
)
STAFF = SheetKind(
    "员工花名册",
    ("花名册", "员工信息", "人员花名册"),
    (
        Column("工号", ("员工编号", "员工号")),
        Column("姓名", ("员工姓名",)),
        Column("岗位", ("职务", "职位", "岗位名称")),
        Column("所属项目", ("项目编号", "项目", "所在项目")),
        Column("手机号", ("手机", "手机号码", "联系电话", "电话"), needed=False),
        Column("邮箱", ("电子邮箱", "EMAIL", "E-MAIL"), needed=False),
        Column("状态", ("在职状态", "员工状态")),
    ),
)
# In the order in which they are taken in, whatever their order in the file: later ones refer to earlier ones.
KINDS = (ESTATES, UNITS, OWNERS, TENANTS, PARKING, STAFF)
# Columns that the report of an import adds to a sheet of refused rows (refusals.py).
REASON, ROW = "原因", "原行号"
NO_SHEET = f"工作簿中没有可识别的工作表（应包含：{'、'.join(kind.name for kind in KINDS)}）"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it stands in the file. `number` is the row as Excel counts; `cells` has the columns of the sheet's kind."""

    sheet: str
    number: int
    cells: dict[str, object]


@dataclass(slots=True)
class Sheet:
    """A sheet of the file that belongs to the register."""

    kind: SheetKind
    title: str
    header_row: int  # as Excel counts; 0: no header was found
    positions: dict[str, int] = field(default_factory=dict)  # column → index in a row
    missing: tuple[str, ...] = ()  # needed columns that the header lacks
    corrections: bool = False  # refused rows of an earlier import, corrected: a part of the register however many they are


class RegisterFile:
    """An opened register. `sheets` is in the order of `KINDS`; `rows(sheet)` streams its rows that are not blank."""

    def __init__(self, content: bytes):
        """`content`: an .xlsx file. Raises NotARegister."""
        self._content = content
        _refuse_bombs(content)
        self.sheets: list[Sheet] = []
        from openpyxl import load_workbook  # 12 MB that a process which never reads a register need not carry

        with _readable():
            self._workbook = load_workbook(BytesIO(content), read_only=True, data_only=True, keep_links=False)
            for kind in KINDS:
                for worksheet in self._workbook.worksheets:
                    if worksheet.sheet_state == "visible" and _kind_of(worksheet.title) is kind:
                        self.sheets.append(self._find_header(kind, worksheet))
        if not self.sheets:
            raise NotARegister(NO_SHEET)

    def rows(self, sheet: Sheet) -> Iterator[RawRow]:
        """Rows below the header in the order of the file. Blank ones are skipped, their numbers are not. Raises NotARegister."""
        if sheet.header_row == 0 or sheet.missing:
            return
        with _readable():
            yield from self._rows(sheet)

    def _rows(self, sheet: Sheet) -> Iterator[RawRow]:
        formulas = self._formulas(sheet)
        for number, values in enumerate(self._values(self._workbook, sheet.title), start=1):
            written = next(formulas) if formulas is not None else values
            if number <= sheet.header_row or _is_blank(values, written):
                continue
            cells = {name: values[index] if index < len(values) else None for name, index in sheet.positions.items()}
            if formulas is not None:
                for name, index in sheet.positions.items():
                    if cells[name] is None and index < len(written) and isinstance(written[index], str) and written[index].startswith("="):
                        cells[name] = NotCalculated(written[index])
            if any(value is not None and str(value).strip() for value in cells.values()):
                yield RawRow(sheet.title, number, cells)

    def row_count(self) -> int:
        """About how many rows there are, for progress: counted without parsing, blank ones included."""
        count = 0
        with _readable(), zipfile.ZipFile(BytesIO(self._content)) as package:
            for sheet in self.sheets:
                with package.open(cast(Any, self._workbook[sheet.title])._worksheet_path) as part:
                    while chunk := part.read(1 << 20):
                        count += chunk.count(b"<row ")
                count -= sheet.header_row
        return max(count, 0)

    def close(self) -> None:
        self._workbook.close()

    def _find_header(self, kind: SheetKind, worksheet: Any) -> Sheet:
        best = Sheet(kind, worksheet.title, 0)
        for number, values in enumerate(self._values(self._workbook, worksheet.title), start=1):
            if number > ROWS_ABOVE_HEADER:
                break
            positions = _columns_in(kind, values)
            if len(positions) > len(best.positions):
                missing = tuple(column.name for column in kind.columns if column.needed and column.name not in positions)
                corrections = {REASON, ROW} <= {_heading(value) for value in values}
                best = Sheet(kind, worksheet.title, number, positions, missing, corrections)
        if len(best.positions) < 3:  # a title that happens to be called like a column is no header
            return Sheet(kind, worksheet.title, 0, {}, tuple(column.name for column in kind.columns if column.needed))
        return best

    def _formulas(self, sheet: Sheet) -> Iterator[tuple[Any, ...]] | None:
        """The same rows with formulas instead of results, if the sheet has formulas at all (reading twice costs double)."""
        worksheet = cast(Any, self._workbook[sheet.title])
        with zipfile.ZipFile(BytesIO(self._content)) as package, package.open(worksheet._worksheet_path) as part:
            if not _contains(part, b"<f"):
                return None
        from openpyxl import load_workbook

        workbook = load_workbook(BytesIO(self._content), read_only=True, data_only=False, keep_links=False)
        return self._values(workbook, sheet.title)

    @staticmethod
    def _values(workbook: Any, title: str) -> Iterator[tuple[Any, ...]]:
        worksheet = workbook[title]
        worksheet.reset_dimensions()  # what the file says of its size is often wrong; rows come as long as they are
        return cast(Iterator[tuple[Any, ...]], worksheet.iter_rows(values_only=True))


# What a broken package makes zipfile, the XML parser (ParseError is a SyntaxError) and openpyxl stumble over.
_UNREADABLE: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, EOFError, SyntaxError, NotImplementedError, OSError)
_UNREADABLE += (KeyError, IndexError, ValueError, TypeError, AttributeError)  # openpyxl checks little of what it reads


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise NotARegister(f"文件无法读取：不是有效的 Excel 工作簿(.xlsx):{type(error).__name__}") from error


def check(content: bytes) -> None:
    """A quick look, without reading a row: raises NotARegister unless a sheet of the workbook is one of the register's."""
    _refuse_bombs(content)
    with _readable(), zipfile.ZipFile(BytesIO(content)) as package:
        part = next((name for name in package.namelist() if name.endswith("workbook.xml")), "")
        tags = re.findall(r"<(?:\w+:)?sheet\s[^>]*>", package.read(part).decode("utf-8", "replace"))
    titles = [html.unescape(name[1]) for tag in tags if "idden" not in tag and (name := re.search(r'\sname="([^"]*)"', tag))]
    if not any(_kind_of(title) for title in titles):
        raise NotARegister(NO_SHEET)


def _refuse_bombs(content: bytes) -> None:
    with _readable(), zipfile.ZipFile(BytesIO(content)) as package:
        unpacked = sum(part.file_size for part in package.infolist())
    if unpacked > MOST_UNPACKED:
        raise NotARegister("文件解压后过大，不是登记表")


def _contains(part: IO[bytes], needle: bytes) -> bool:
    tail = b""
    while chunk := part.read(1 << 20):
        # `<f>` and `<f t="shared" …>`; not `<family …>` or `<font>`, which a worksheet part does not have anyway.
        if re.search(re.escape(needle) + rb"[ />]", tail + chunk):
            return True
        tail = chunk[-8:]
    return False


def _kind_of(title: str) -> SheetKind | None:
    """`2.房屋台账(天府花园)` is a 房屋台账. A longer name wins, and 项目 must be the whole name: 项目说明 is none."""
    text = re.sub(r"^[\d.、_ -]+", "", plain(title)).replace(" ", "")
    for kind in KINDS:
        if text == kind.name or text in kind.aliases:
            return kind
    found = [(len(name), kind) for kind in KINDS[1:] for name in (kind.name, *kind.aliases) if text.startswith(name)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _heading(value: object) -> str:
    """`* 建筑面积 (㎡)` is 建筑面积."""
    try:
        text = re.sub(r"\(.*?\)|\[.*?\]|【.*?】", "", plain(value)) if isinstance(value, str) else ""
    except Wrong:  # an error value heads no column
        return ""
    return re.sub(r"[\s*:]", "", text).upper()


def _columns_in(kind: SheetKind, values: tuple[Any, ...]) -> dict[str, int]:
    headings = [_heading(value) for value in values]
    positions: dict[str, int] = {}
    for column in kind.columns:
        for name in (column.name, *column.aliases):
            if name in headings and headings.index(name) not in positions.values():
                positions[column.name] = headings.index(name)
                break
    return positions


def _is_blank(values: tuple[Any, ...], written: tuple[Any, ...]) -> bool:
    return not any(value is not None for value in values) and not any(value is not None for value in written)
