"""The opening register at the first start (a platform without a single estate shows nothing), and who is in it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from services.local.platform import Platform
from services.local.state import ROOT

GIVEN = ROOT.parent / "shared" / "data" / "register.xlsx"
SHIPPED = ROOT / "services" / "residents" / "sample_register.xlsx"
SECONDS = 600.0


def register() -> Path:
    """The file that STEWARD_REGISTER names, else the one handed over beside the checkout, else the small one of the repository."""
    named = os.environ.get("STEWARD_REGISTER")
    if named:
        return Path(named)
    return GIVEN if GIVEN.is_file() else SHIPPED


def first_import(platform: Platform) -> None:
    """Imports the register; when there are estates already, nothing changes. Raises Failed."""
    file = register()
    argv = [sys.executable, "-m", "services.residents.first_import", str(file)]
    slow = threading.Timer(3.0, platform.say, [f"Importing {file} …"])
    slow.start()
    try:
        output = platform.run("first_import", argv, platform.environment("jobs"), seconds=SECONDS)
    finally:
        slow.cancel()
    for line in output.splitlines():
        platform.say(line)


def demo_accounts(platform: Platform) -> str:
    """A table of who can sign in, by role. Raises Failed."""
    argv = [sys.executable, "-m", "services.residents.demo_accounts"]
    return platform.run("demo_accounts", argv, platform.environment("jobs"), seconds=60)
