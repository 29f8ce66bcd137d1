"""What is generated into the repository is what the code says now; settings are explained and needed ones asked for."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from services.chassis.__main__ import main
from services.chassis.settings import NEEDED, OF_RESIDENTS, READ_BY, Settings, read
from tests.generated import ROLES, ROOT, settings_page


def test_what_is_generated_is_up_to_date() -> None:
    """In an interpreter of its own: tests register reactions too."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.generated", "--check"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), f"run `make docs`: {done.stdout}{done.stderr}"


def test_every_setting_says_which_roles_read_it() -> None:
    assert list(READ_BY) == [field.name for field in dataclasses.fields(Settings)], "say so in READ_BY of services/chassis/settings.py"
    assert {role for roles in READ_BY.values() for role in roles.split()} == set(ROLES)


def test_every_setting_has_a_line_of_its_own_with_a_meaning() -> None:
    page = settings_page()
    for field in dataclasses.fields(Settings):
        [line] = [line for line in page.splitlines() if line.startswith(f"| `STEWARD_{field.name.upper()}` | ")]
        assert len(line.rstrip(" |").rpartition("| ")[2]) > 8, line


def test_what_a_role_needs_it_reads() -> None:
    for role in ROLES:
        for name in (*NEEDED[role], *OF_RESIDENTS.get(role, ())):
            assert role in READ_BY[name].split(), f"{role} needs {name}"


def test_no_profile_is_production_and_lacks_what_is_not_set() -> None:
    config = read({"STEWARD_DATABASE_URL": "postgresql://x", "STEWARD_GRPC_PORT": "7000"})
    assert not config.development
    assert config.lacking("api", ["surveys"]) == ["STEWARD_ADDRESSES", "STEWARD_IDENTITY_PUBLIC_KEYS", "STEWARD_INTERNAL_TOKEN"]
    assert config.lacking("api", ["residents"])[-2:] == ["STEWARD_IDENTITY_KEY", "STEWARD_DATA_KEY"]
    assert config.lacking("jobs", ["surveys"]) == []
    assert read({"STEWARD_PROFILE": "development"}).lacking("api", ["residents"]) == []


@pytest.mark.parametrize("role", [role for role in ROLES if role != "gateway"])
def test_a_process_that_lacks_a_setting_names_it_and_ends(role: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEWARD_")}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'gen'}"
    command = [sys.executable, "-W", "ignore", "-m", "services.chassis", role, "residents"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot start: STEWARD_"), done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_knows_no_other_role() -> None:
    with pytest.raises(SystemExit):
        main(["gateway", "residents"])
