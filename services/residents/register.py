"""The opening register, from an Excel file to a verdict on every row. Pure: no database, no clock of its own.

`register_file` reads, `register_cells` knows what one cell may hold, `register_judge` judges rows; this module walks them
through a file in the order in which they must be taken in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.residents.register_file import RegisterFile, Sheet, SheetKind
from services.residents.register_judge import Judge
from services.residents.register_rows import Refusal, Refused, Taken, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One row with its verdict. `index` counts what the walk yields from 0 and is what an import resumes by."""

    index: int
    sheet: str
    row: int
    verdict: Verdict
    cells: dict[str, object]  # as they stand in the file


@dataclass(frozen=True, slots=True)
class EndOfSheet:
    """All rows of a sheet have been judged; with `last`, all rows of its kind."""

    index: int
    sheet: str
    kind: SheetKind
    last: bool


def judged(file: RegisterFile, judge: Judge) -> Iterator[Judged | EndOfSheet]:
    """Every row of the register, in the order in which it is to be taken in. Raises register_file.NotARegister."""
    index = 0
    for position, sheet in enumerate(file.sheets):
        if refusals := _unreadable(sheet):
            yield Judged(index, sheet.title, max(sheet.header_row, 1), Refused(refusals), {})
            index += 1
        for raw in file.rows(sheet):
            yield Judged(index, sheet.title, raw.number, judge.judge(sheet.kind, raw), raw.cells)
            index += 1
        last = position + 1 == len(file.sheets) or file.sheets[position + 1].kind is not sheet.kind
        yield EndOfSheet(index, sheet.title, sheet.kind, last)
        index += 1


def _unreadable(sheet: Sheet) -> tuple[Refusal, ...]:
    if sheet.header_row == 0:
        columns = "、".join(column.name for column in sheet.kind.columns if column.needed)
        return (Refusal(sheet.title, 1, "", "", "HEADER_MISSING", f"找不到表头（应包含：{columns}），整张表未导入"),)
    return tuple(
        Refusal(sheet.title, sheet.header_row, column, "", "COLUMN_MISSING", f"表头缺少“{column}”列，整张表未导入")
        for column in sheet.missing
    )


__all__ = ["EndOfSheet", "Judged", "Refusal", "Refused", "Taken", "judged"]
