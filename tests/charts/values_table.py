"""The table of values in charts/README.md, from the sentences in the chart's values.yaml. `make docs` writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parents[2] / "charts"
MARK = "<!-- From here on `make docs` writes; see values.yaml. -->\n"


def page() -> str:
    """The README as it should be: what people wrote above the mark, and the table below. Raises ValueError without a mark."""
    written, mark, _ = (CHARTS / "README.md").read_text().partition(MARK)
    if not mark:
        raise ValueError(f"charts/README.md lacks the line {MARK}")
    lines = [f"| `{name}` | `{default}` | {sentence} |" for name, default, sentence in rows()]
    return "\n".join([written + MARK, "| value | default | |", "|---|---|---|", *lines]) + "\n"


def rows() -> list[tuple[str, str, str]]:
    """(name, default as JSON, sentence) of every value with a sentence above it, in the order of the file."""
    text = (CHARTS / "steward" / "values.yaml").read_text()
    values = yaml.safe_load(text)
    found, path, sentence = [], [""], ""
    for line in text.splitlines():
        if said := re.fullmatch(r"\s*# -- (.+)", line):
            sentence = said[1]
        elif key := re.match(r"(\s*)([A-Za-z_]+):", line):
            depth = len(key[1]) // 2
            path[depth:] = [key[2]]
            if sentence:
                found.append((".".join(path), _default(values, path), sentence))
            sentence = ""
    return found


def without_sentence() -> list[str]:
    """Values that no sentence is about, neither their own nor one of what they stand in."""
    said = {name for name, _, _ in rows()}

    def leaves(value: Any, path: str) -> list[str]:
        if path in said:
            return []
        if isinstance(value, dict) and value:
            return [name for key, inner in value.items() for name in leaves(inner, f"{path}.{key}".lstrip("."))]
        return [path]

    return leaves(yaml.safe_load((CHARTS / "steward" / "values.yaml").read_text()), "")


def _default(values: dict[str, Any], path: list[str]) -> str:
    value: Any = values
    for key in path:
        value = value[key]
    return json.dumps(value, ensure_ascii=False)
