"""Which rows of the rule book the tests prove: read from the marks in the tests' source, without running anything.

A test says `@pytest.mark.rule("REP-10", "REP-38")`, at most three ids. The rule book lies beside the repository or where
`STEWARD_RULES` says; what needs it is skipped where it is not there.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOOK = Path(os.environ.get("STEWARD_RULES", ROOT.parent / "shared" / "rules"))
ID = re.compile(r"[A-Z]{1,3}-[0-9]{2}")
MOST = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the rule book; `kind` (deadline, permission, threshold, …) decides what its proof looks like."""

    id: str
    service: str
    kind: str
    text: str
    file: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A test that marks rules."""

    file: str  # tests/work_orders/test_process.py
    test: str
    line: int
    rules: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return self.test.removeprefix("test_").replace("_", " ")


def proofs(folder: Path = ROOT / "tests") -> list[Proof]:
    """Every marked test. Raises ValueError for a mark whose ids are not plain texts."""
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                rules = tuple(rule for mark in node.decorator_list for rule in _marked(mark, path))
                if rules:
                    found.append(Proof(str(path.relative_to(ROOT)), node.name, node.lineno, rules))
    return found


def _marked(mark: ast.expr, path: Path) -> Iterator[str]:
    if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != "pytest.mark.rule":
        return
    for argument in mark.args:
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            raise ValueError(f"{path}:{mark.lineno}: rules are named by plain texts")
        yield argument.value


def rows(book: Path = BOOK) -> list[Row]:
    """The rows of the rule book in its own order; empty when it is not there."""
    found = []
    for path in sorted(book.glob("*.md")):
        for line in path.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("|") and ID.fullmatch(cells[0]):
                if cells[0].startswith("X-"):
                    found.append(Row(cells[0], "", "decision", f"{cells[2]}: {cells[-1]}", path.stem))
                else:
                    found.append(Row(cells[0], cells[1], cells[2], cells[4], path.stem))
    return found
