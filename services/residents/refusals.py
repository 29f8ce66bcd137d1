"""The refused rows of an import as an Excel file that can be corrected and imported again."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Font, PatternFill

from services.residents.register_cells import NotCalculated
from services.residents.register_file import REASON, ROW, SheetKind
from services.residents.register_rows import Refusal

REMARKS, MISSING = "提示", "缺失"  # no sheet of a register is called so: an import of this file passes over them
_WRONG = PatternFill("solid", fgColor="FFFFC7CE")
_BOLD = Font(bold=True)


class RefusalsWorkbook:
    """Written row by row: openpyxl keeps rows in a temporary file, so memory does not grow with the number of refusals.

    Each sheet has the register's columns, then the reason and the row it stood in; wrong cells are marked. Importing the
    corrected file takes these rows alone: what was right is in the database already.
    """

    def __init__(self) -> None:
        self._workbook = Workbook(write_only=True)
        self._sheets: dict[str, Any] = {}

    def refuse(self, kind: SheetKind, title: str, row: int, cells: dict[str, object], refusals: Sequence[Refusal]) -> None:
        columns = [column.name for column in kind.columns]
        if title not in self._sheets:
            sheet = self._sheets[title] = self._workbook.create_sheet(title)
            for letter in "ABCDEFGHIJKLMNOP"[: len(columns)]:
                sheet.column_dimensions[letter].width = 16
            sheet.append([self._cell(title, heading, font=_BOLD) for heading in (*columns, REASON, ROW)])
        wrong = {refusal.column for refusal in refusals}
        values = [self._cell(title, cells.get(column), fill=_WRONG if column in wrong else None) for column in columns]
        reasons = "；".join(refusal.message for refusal in refusals)
        self._sheets[title].append([*values, self._cell(title, reasons), row])

    def content(self, remarks: Sequence[Refusal], missing: Sequence[Refusal] = ()) -> bytes:
        """The .xlsx file, with a sheet of what was taken but wants completing, and one of what an earlier file had and this one has not."""
        if missing:
            sheet = self._workbook.create_sheet(MISSING)
            sheet.column_dimensions["C"].width, sheet.column_dimensions["D"].width = 32, 70
            sheet.append([WriteOnlyCell(sheet, heading) for heading in ("工作表", "列", "内容", "说明")])
            for r in missing:
                sheet.append([r.sheet, r.column, _text(r.value), r.message])
        if remarks or not (self._sheets or missing):
            sheet = self._workbook.create_sheet(REMARKS)
            sheet.append([WriteOnlyCell(sheet, heading) for heading in ("工作表", "行号", "列", "内容", REMARKS)])
            for r in remarks:
                sheet.append([r.sheet, r.row, r.column, _text(r.value), r.message])
        result = BytesIO()
        self._workbook.save(result)
        return result.getvalue()

    def discard(self) -> None:
        """Gives the temporary files up: the import has failed."""
        for sheet in self._workbook.worksheets:
            sheet.close()  # type: ignore[union-attr]
            sheet._writer.cleanup()  # type: ignore[attr-defined]

    def _cell(self, title: str, value: Any, *, font: Font | None = None, fill: PatternFill | None = None) -> Any:
        cell = WriteOnlyCell(self._sheets[title], None)
        if isinstance(value, str):
            cell.value = _text(value)
            cell.data_type = "s"  # text that begins with = stays text: the report must not calculate what somebody typed
        else:
            cell.value = value
        if font is not None:
            cell.font = font
        if fill is not None:
            cell.fill = fill
        return cell


def _text(value: str) -> str:
    """Without the control characters that a sheet cannot hold."""
    text = str(value) if isinstance(value, NotCalculated) else value
    return "".join(character for character in text if character >= " " or character in "\t\n")
