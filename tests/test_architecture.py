"""What the design forbids and demands, asked of the code itself and of started processes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.rpc import code_pb2

from services.chassis.__main__ import SERVICES
from services.chassis.errors import TABLE
from steward.options.v1 import options_pb2

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"grpc", "grpc_status", "nameko", "kombu", "amqp", "eventlet", "pika", "os", "subprocess", "socket", "threading", "time"}
BANNED_NAMES = re.compile(r"^(utils?|helpers?|common|manager|base|misc|core)(_.*)?$|_(utils?|helpers?|manager)$")
TECHNICAL = {"__init__", "api", "jobs", "reactions", "migrations"}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, with what it takes from it: `services.chassis.db.Database`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# --- processes ---------------------------------------------------------------------------------------------------------

WORKER = """
import eventlet
eventlet.monkey_patch()
import services.chassis.worker
from services.chassis.reactions import reactions_of
for service in SERVICES:
    reactions_of(service)
"""
API = """
import importlib
import services.chassis.rpc
for service in SERVICES:
    services.chassis.rpc.operations(service)
"""
RELAY = "import services.chassis.relay"
JOBS = """
import contextlib, importlib
import services.chassis.jobs
for service in SERVICES:
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(f"services.{service}.jobs")
"""
GATEWAY = """
import importlib, pkgutil
import gateway
for module in pkgutil.iter_modules(gateway.__path__):
    if module.name != "__main__":
        importlib.import_module(f"gateway.{module.name}")
"""
MIGRATE = "import services.chassis.migrate, services.chassis.topology"


def started(program: str) -> str:
    """What a fresh interpreter prints after a program. Fails with what it said when it ended in an error."""
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "PATH": ""}
    command = [sys.executable, "-W", "ignore", "-c", f"SERVICES = {SERVICES!r}\n{program}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("role", "program", "never"),
    [
        ("worker", WORKER, {"grpc", "grpc_status", "grpc_health", "protovalidate", "uvicorn"}),
        ("api", API, {"eventlet", "nameko", "kombu", "uvicorn"}),
        ("relay", RELAY, {"eventlet", "nameko", "kombu", "grpc", "sqlalchemy"}),
        ("jobs", JOBS, {"eventlet", "nameko", "kombu", "uvicorn"}),
        ("migrate", MIGRATE, {"eventlet", "nameko", "grpc"}),
        ("gateway", GATEWAY, {"eventlet", "nameko", "kombu", "pika", "sqlalchemy", "psycopg2", "alembic"}),
    ],
)
def test_a_process_loads_nothing_that_cannot_live_with_it_however_indirectly(role: str, program: str, never: set[str]) -> None:
    """grpc and eventlet never meet in one process; every role stays as small as it can be."""
    loaded = {name.partition(".")[0] for name in json.loads(started(f"{program}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"))}
    assert loaded & never == set()


def test_services_of_one_process_share_a_registry_and_do_not_collide() -> None:
    """Locally one process serves several: two tables, policies or timers of one name would end it at the start."""
    strict = "import warnings, sqlalchemy.exc, sqlalchemy.orm\nwarnings.simplefilter('error', sqlalchemy.exc.SAWarning)"
    reactions = "from services.chassis.reactions import reactions_of\nfor service in SERVICES: reactions_of(service)"
    started(f"{strict}\n{API}\n{JOBS}\n{reactions}\nsqlalchemy.orm.configure_mappers()")


# --- who imports whom --------------------------------------------------------------------------------------------------


def test_no_service_imports_another() -> None:
    for path in modules("services"):
        parts = path.relative_to(ROOT).parts
        if parts[1] in SERVICES:
            for name in imports(path):
                if name.startswith("services."):
                    assert name.split(".")[1] in (parts[1], "chassis"), f"{dotted(path)} imports {name}"


def test_the_chassis_knows_no_service() -> None:
    for path in modules("services/chassis"):
        for name in imports(path):
            if name.startswith("services."):
                assert name.split(".")[1] == "chassis", f"{dotted(path)} imports {name}"


def test_nothing_but_tests_uses_what_is_made_for_tests() -> None:
    for path in modules("services", "gateway"):
        for name in imports(path):
            assert not name.startswith(("services.chassis.testing", "tests", "pytest", "hypothesis")) or path.name == "testing.py", (
                f"{dotted(path)} imports {name}"
            )


def test_the_gateway_takes_nothing_of_the_chassis_but_settings_errors_and_what_every_process_shows() -> None:
    allowed = {"services.chassis.settings", "services.chassis.errors", "services.chassis.observe"}
    for path in modules("gateway"):
        for name in imports(path):
            if name.startswith("services"):
                assert any(name == module or name.startswith(f"{module}.") for module in allowed), f"{dotted(path)} imports {name}"


def test_running_processes_use_nothing_of_the_local_platform() -> None:
    for path in modules("services", "gateway"):
        if "local" not in path.relative_to(ROOT).parts:
            for name in imports(path):
                assert not name.startswith("services.local"), f"{dotted(path)} imports {name}"


def domain_modules() -> list[Path]:
    """Modules of a process: rules and entities; not what binds them to ports and jobs, nor what is started by itself."""
    found = []
    for path in modules(*(f"services/{service}" for service in SERVICES)):
        parts = {part.removesuffix(".py") for part in path.relative_to(ROOT).parts[2:]}
        if not parts & TECHNICAL and '__name__ == "__main__"' not in path.read_text():
            found.append(path)
    return found


def test_the_domain_knows_no_port_no_broker_no_process_and_no_wall_clock() -> None:
    assert len(domain_modules()) > 10
    for path in domain_modules():
        text = path.read_text()
        for name in imports(path):
            random_bytes = name == "os" and set(re.findall(r"\bos\.(\w+)", text)) == {"urandom"}
            assert random_bytes or name.partition(".")[0] not in FRAMEWORKS, f"{dotted(path)} imports {name}"
        for clock in ("datetime.now(", "utcnow(", "date.today(", "time.time("):
            assert clock not in text, f"{dotted(path)} reads the wall clock: {clock}"


def test_no_module_has_a_name_that_says_nothing() -> None:
    for path in modules("services", "gateway", "tests"):
        for part in path.relative_to(ROOT).with_suffix("").parts:
            assert not BANNED_NAMES.search(part), f"{path.relative_to(ROOT)}: name it by what it is"


def test_every_module_says_what_it_is_for_and_can_be_read_in_one_sitting() -> None:
    for path in modules("services", "gateway"):
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no docstring"
        assert text.count("\n") < 700, f"{path.relative_to(ROOT)} is too long for one sitting"


def test_nothing_is_left_to_do_later_or_swallowed() -> None:
    for path in modules("services", "gateway", "tests"):
        text = path.read_text()
        if path.name != "test_architecture.py":
            assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text), f"{path.relative_to(ROOT)} leaves something to do"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name | None) and len(node.body) == 1:
                broad = node.type is None or node.type.id in ("Exception", "BaseException")
                assert not (broad and isinstance(node.body[0], ast.Pass)), f"{path.relative_to(ROOT)}:{node.lineno} swallows every error"


# --- errors and migrations ---------------------------------------------------------------------------------------------


def test_the_error_table_names_real_codes_and_each_code_one_status() -> None:
    statuses: dict[str, set[int]] = {}
    for error in TABLE:
        assert code_pb2.Code.Value(error.code), error
        statuses.setdefault(error.code, set()).add(error.http)
    assert {code: len(found) for code, found in statuses.items() if len(found) > 1} == {}


@pytest.mark.parametrize("service", ["chassis", *SERVICES])
def test_every_table_of_every_migration_is_protected_in_the_same_revision(service: str) -> None:
    folder = ROOT / "services" / service / "migrations"
    found = 0
    for path in sorted(folder.rglob("0*.py")):
        text = path.read_text()
        made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)(?! PARTITION OF)\b(?!\s+PARTITION OF)", text)) - {"%I"}
        tree = ast.parse(text)
        protecting = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "protect"]
        named = {
            c.value
            for n in ast.walk(tree)
            if isinstance(n, ast.For | ast.Call)
            for c in ast.walk(n.iter if isinstance(n, ast.For) else n)
            if isinstance(c, ast.Constant)
        }
        assert not made or protecting, f"{path.name} protects nothing"
        assert made <= {str(value) for value in named}, f"{path.name}: {made - {str(value) for value in named}} not passed to protect()"
        found += len(made)
        assert re.search(r"^Revision ID: \w+", ast.get_docstring(tree) or "", re.M), f"{path.name} names its revision"
    assert found or service == "governance"


# --- the contract ------------------------------------------------------------------------------------------------------


def contract() -> list[FileDescriptorProto]:
    files = FileDescriptorSet.FromString((ROOT / "gen" / "steward.binpb").read_bytes()).file
    return [file for file in files if file.package.startswith("steward.")]


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(at.path): (at.leading_comments or at.trailing_comments).strip() for at in file.source_code_info.location}


def services_of(file: FileDescriptorProto) -> Iterator[tuple[int, ServiceDescriptorProto]]:
    yield from enumerate(file.service)


FILES = pytest.mark.parametrize("file", contract(), ids=lambda file: file.name)
RESOURCES = pytest.mark.parametrize("file", [f for f in contract() if f.package != "steward.chassis.v1"], ids=lambda file: file.name)


@FILES
def test_every_operation_is_explained_and_declares_who_may_call_it(file: FileDescriptorProto) -> None:
    said = comments(file)
    for s, service in services_of(file):
        assert said.get((6, s)), f"{service.name} has no comment"
        for m, method in enumerate(service.method):
            assert len(said.get((6, s, 2, m), "")) > 10, f"{service.name}.{method.name} has no comment"
            assert method.options.HasExtension(options_pb2.access), f"{service.name}.{method.name} declares no access"
            internal = method.options.Extensions[options_pb2.access].scope == options_pb2.INTERNAL
            assert method.options.HasExtension(annotations_pb2.http) is not internal, (
                f"{service.name}.{method.name}: internal operations alone have no route"
            )


@RESOURCES
def test_names_of_operations_messages_and_routes_belong_together(file: FileDescriptorProto) -> None:
    for _, service in services_of(file):
        assert re.fullmatch(r"[A-Z][A-Za-z]+", service.name)
        for method in service.method:
            assert re.fullmatch(r"([A-Z][a-z]+){2,}", method.name), f"{method.name}: verb and noun"
            assert method.input_type.rsplit(".", 1)[-1] == f"{method.name}Request", f"{method.name} has a request of its own"
            assert not method.client_streaming
            route = method.options.Extensions[annotations_pb2.http]
            kind = route.WhichOneof("pattern")
            if kind is None:
                continue
            path = getattr(route, kind)
            assert path.startswith("/v1/"), path
            verb = re.match(r"[A-Z][a-z]+", method.name)[0].lower()  # type: ignore[index]
            if ":" in path.rsplit("}", 1)[-1] and "estates/*" in path and kind == "post":
                assert path.rsplit(":", 1)[1].startswith(verb), f"{method.name} is :{verb}"
            if kind == "get":
                assert verb in ("get", "list", "search", "count", "download"), f"{method.name} only reads"
                assert not route.body


def all_messages(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    open: list[tuple[str, DescriptorProto]] = [(message.name, message) for message in file.message_type]
    while open:
        name, message = open.pop()
        yield name, message
        open += [(f"{name}.{inner.name}", inner) for inner in message.nested_type]


@RESOURCES
def test_packages_fields_and_enums_are_written_as_everybody_writes_them(file: FileDescriptorProto) -> None:
    assert file.package == ".".join(Path(file.name).parts[:-1]), "a file lies where its package says"
    assert file.syntax == "proto3"
    for name, message in all_messages(file):
        for field in message.field:
            assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name), f"{name}.{field.name}"
            if field.type_name == ".google.protobuf.Timestamp":
                assert field.name.endswith(("_time", "_by", "_at", "_date", "time")), f"{name}.{field.name} is an instant"
            assert field.type not in (FieldDescriptorProto.TYPE_GROUP, FieldDescriptorProto.TYPE_FIXED32), f"{name}.{field.name}"
        for enum in message.enum_type:
            _check_enum(name, enum)
    for enum in file.enum_type:
        _check_enum(file.package, enum)


def _check_enum(where: str, enum: object) -> None:
    values = list(enum.value)  # type: ignore[attr-defined]
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()  # type: ignore[attr-defined]
    assert (values[0].number, values[0].name) == (0, f"{prefix}_UNSPECIFIED"), f"{where}.{enum.name}"  # type: ignore[attr-defined]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", value.name) for value in values), f"{where}.{enum.name}"  # type: ignore[attr-defined]


@RESOURCES
def test_lists_are_paged_and_changes_take_an_etag_or_a_key(file: FileDescriptorProto) -> None:
    by_name = {message.name: {field.name for field in message.field} for message in file.message_type}
    for _, service in services_of(file):
        for method in service.method:
            fields = by_name.get(f"{method.name}Request", set())
            if method.name.startswith("List") and "History" not in method.name:
                assert {"page_size", "page_token"} <= fields, method.name
                assert "next_page_token" in by_name[f"{method.name}Response"], method.name


def test_every_event_names_something_that_happened_and_carries_no_personal_data() -> None:
    personal = re.compile(r"phone|display_name|person_name|id_card|address|description|comment")
    happened = re.compile(r"(ed|en|Done|Begun|Over|Set|Left|FellDue|Recurring)$")
    for file in contract():
        if not file.name.endswith("events.proto"):
            continue
        for name, message in all_messages(file):
            if "." in name or name.endswith(("Reading", "Entry")):
                continue
            assert happened.search(name), f"{file.package}.{name} is no past participle"
            for field in message.field:
                assert not personal.search(field.name), f"{file.package}.{name}.{field.name} looks personal"
