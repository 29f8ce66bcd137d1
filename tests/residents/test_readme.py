"""The service's page names every reason an archivist can meet."""

from __future__ import annotations

import re
from pathlib import Path

SERVICE = Path(__file__).parents[2] / "services" / "residents"
NO_REASONS = {"INDIVIDUAL", "COMPANY", "ESTATE", "TENANT"}


def test_every_reason_of_an_import_is_explained() -> None:
    sources = ("register_cells.py", "register_judge.py", "register.py", "missing.py")
    code = {reason for name in sources for reason in re.findall(r'"([A-Z][A-Z_]{5,})"', (SERVICE / name).read_text())} - NO_REASONS
    page = (SERVICE / "README.md").read_text().split("## Import rules")[1].split("## Runbook")[0]
    explained = {
        reason for line in page.splitlines() if line.startswith("| `") for reason in re.findall(r"`([A-Z_]{5,})`", line.split("|")[1])
    }
    assert explained == code
