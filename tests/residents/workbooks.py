"""Registers made for tests: right by default, with what a test changes."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO
from typing import Any

from openpyxl import Workbook

from services.residents.register_cells import citizen_check_digit, credit_check_character
from services.residents.register_file import KINDS

HEADERS = {kind.name: [column.name for column in kind.columns] for kind in KINDS}


def wide(text: str) -> str:
    """全角: how ASCII comes out of an input method that was left in Chinese."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


def day(text: str) -> datetime:
    """A date cell as Excel has it: naive, at midnight."""
    return datetime.fromisoformat(text)


def identity(number: int, born: str = "19800101") -> str:
    """A valid identity number of a region that does not exist, one for each `number` below 9,000."""
    first17 = f"{990101 + number // 1000}{born}{number % 1000:03d}"
    return first17 + citizen_check_digit(first17)


def credit_code(number: int) -> str:
    first17 = f"91990100MA{number:07d}"
    return first17 + credit_check_character(first17)


def estate(code: str = "TFHY", **changes: Any) -> dict[str, Any]:
    row = {"项目编号": code, "项目名称": "天府花园", "物业类型": "住宅", "所属公司": "西部公司", "所属集团": "安居物业集团"}
    return row | {"时区": "Asia/Shanghai", "有无业委会": "有"} | changes


def unit(number: str = "1-1-0101", **changes: Any) -> dict[str, Any]:
    row = {"项目编号": "TFHY", "楼栋": "1栋", "单元": "1单元", "楼层": 1, "房号": number, "建筑面积": 98.5, "物业类型": "住宅"}
    return row | {"房屋状态": "自住", "入伙日期": "2023.08.29", "物业费单价": 2.8} | changes


def owner(number: str = "1-1-0101", person: int = 1, **changes: Any) -> dict[str, Any]:
    row = {"项目编号": "TFHY", "房号": number, "业主姓名": f"业主{chr(0x4E00 + person)}", "业主类型": "个人", "证件号码": identity(person)}
    row |= {"手机号": f"1390000{person:04d}", "紧急联系人": "亲友", "紧急联系电话": "13911112222", "生日": "1980-01-01"}
    return row | {"产权份额": "100%", "特殊关怀": None, "缴费方式": "微信"} | changes


def tenant(number: str = "1-1-0101", person: int = 501, **changes: Any) -> dict[str, Any]:
    row = {"项目编号": "TFHY", "房号": number, "租户姓名": f"租户{chr(0x4E00 + person)}", "身份证号": identity(person)}
    return row | {"手机号": f"1380000{person:04d}", "租期开始": "2026-01-01", "租期结束": "2027-12-31", "业主同意书": "是"} | changes


def space(number: str = "B1-0001", **changes: Any) -> dict[str, Any]:
    return {"项目编号": "TFHY", "车位号": number, "房号": "1-1-0101", "车牌号": "川A12345", "类型": "月租", "月费": 300} | changes


def staff(number: str = "TFHY-001", **changes: Any) -> dict[str, Any]:
    row = {"工号": number, "姓名": "钟明", "岗位": "项目经理", "所属项目": "TFHY", "手机号": "13700000001"}
    return row | {"邮箱": f"{number.lower().replace('-', '')}@anju.example", "状态": "在职"} | changes


def workbook(
    *,
    estates: list[dict[str, Any]] | None = None,
    units: list[dict[str, Any]] | None = None,
    owners: list[dict[str, Any]] | None = None,
    tenants: list[dict[str, Any]] | None = None,
    spaces: list[dict[str, Any]] | None = None,
    employees: list[dict[str, Any]] | None = None,
) -> bytes:
    """An .xlsx as offices keep them: a merged title, the header in row 2, data from row 3."""
    rows = ([estate()] if estates is None else estates, [unit()] if units is None else units, owners or [], tenants or [], spaces or [])
    book = Workbook()
    book.remove(book.worksheets[0])
    for kind, data in zip(KINDS, (*rows, employees or []), strict=True):
        sheet = book.create_sheet(kind.name)
        header = HEADERS[kind.name]
        sheet.append([kind.name])
        sheet.merge_cells(start_row=1, start_column=1, end_row=1, end_column=len(header))
        sheet.append(header)
        for row in data:
            sheet.append([row.get(column) for column in header])
    return saved(book)


def saved(book: Workbook) -> bytes:
    content = BytesIO()
    book.save(content)
    return content.getvalue()
