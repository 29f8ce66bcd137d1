"""A gateway in a process of its own, services to stand behind it, and a way to talk to it over a socket."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]
import httpx
import pytest
from google.api import annotations_pb2  # type: ignore[import-untyped]
from grpc_tools import protoc  # type: ignore[import-untyped]

from gateway.binding import Binding, Codecs
from gateway.descriptors import Contract
from gateway.settings import ROOT, GatewaySettings
from tests.gateway.standin import INTERNAL_TOKEN, Standin

HERE = Path(__file__).parent
GOOD = {"authorization": "Bearer good"}
NO_RATES = {"STEWARD_GATEWAY_PRINCIPAL_RATE": "0", "STEWARD_GATEWAY_ADDRESS_RATE": "0", "STEWARD_GATEWAY_SIGN_IN_RATE": "0"}


class Process:
    """`python -m gateway`, running; its log lines are kept."""

    def __init__(self, settings: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STEWARD_")}
        environ = clean | {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "STEWARD_PORT": "0", "STEWARD_INTERNAL_TOKEN": INTERNAL_TOKEN} | settings
        self._process = subprocess.Popen([sys.executable, "-m", "gateway"], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        ports: queue.Queue[re.Match[str] | None] = queue.Queue()
        threading.Thread(target=self._read, args=(ports,), daemon=True).start()
        found = ports.get(timeout=20)
        if found is None:
            raise RuntimeError("the gateway did not start:\n" + "".join(self.lines))
        self.port, self.inside_port = int(found[1]), int(found[2])
        self.url, self.inside = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.inside_port}"

    def _read(self, ports: queue.Queue[re.Match[str] | None]) -> None:
        for line in self._process.stderr or ():
            self.lines.append(line)
            if match := re.search(r"gateway on http://127\.0\.0\.1:(\d+), metrics on port (\d+)", line):
                ports.put(match)
        ports.put(None)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 15) -> int:
        return self._process.wait(seconds)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract.load(GatewaySettings().descriptors)


@pytest.fixture(scope="session")
def bindings(contract: Contract) -> list[Binding]:
    codecs = Codecs(contract)
    return [Binding(contract, codecs, rpc, rule, 1 << 20) for rpc in contract.rpcs if rpc.routed for rule in rpc.rules]


@pytest.fixture(scope="session")
def kitchen_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Descriptor set of Steward's protos and of kitchen.proto beside them."""
    result = tmp_path_factory.mktemp("kitchen") / "kitchen.binpb"
    google_api = Path(annotations_pb2.__file__).parents[2]
    includes = [f"-I{folder}" for folder in (HERE, ROOT / "protos", google_api, Path(grpc_tools.__file__).parent / "_proto")]
    arguments = ["protoc", *includes, "--include_imports", "--include_source_info", f"--descriptor_set_out={result}"]
    code = protoc.main([*arguments, str(HERE / "kitchen.proto"), *map(str, sorted((ROOT / "protos" / "steward").rglob("*.proto")))])
    if code:
        raise RuntimeError("kitchen.proto does not compile")
    return result


@pytest.fixture(scope="session")
def kitchen(kitchen_file: Path) -> Contract:
    return Contract.load(kitchen_file)


@pytest.fixture(scope="session")
def _standin(kitchen: Contract) -> Iterator[Standin]:
    server = Standin(kitchen)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def standin(_standin: Standin) -> Standin:
    _standin.reset()
    return _standin


Start = Callable[..., "Process"]


@pytest.fixture(scope="session")
def base_settings(_standin: Standin, kitchen: Contract, kitchen_file: Path) -> dict[str, str]:
    addresses = ",".join(f"{service}=127.0.0.1:{_standin.port}" for service in sorted({rpc.service for rpc in kitchen.rpcs}))
    return {"STEWARD_ADDRESSES": addresses, "STEWARD_DESCRIPTORS": str(kitchen_file), **NO_RATES}


@pytest.fixture(scope="session")
def shared_gateway(base_settings: dict[str, str]) -> Iterator[Process]:
    process = Process(base_settings)
    yield process
    process.stop()


@pytest.fixture(scope="session")
def strict_gateway(base_settings: dict[str, str]) -> Iterator[Process]:
    strict = {
        "STEWARD_LOG_FORMAT": "json",
        "STEWARD_CORS_ORIGINS": "https://app.example, https://other.example",
        "STEWARD_GATEWAY_BODY_TIMEOUT": "1",
        "STEWARD_GATEWAY_HEADER_TIMEOUT": "0.5",
        "STEWARD_GATEWAY_LARGE_UPLOADS": "1",
        "STEWARD_GATEWAY_IN_FLIGHT": "2",
        "STEWARD_GATEWAY_PRINCIPAL_RATE": "0.5",
        "STEWARD_GATEWAY_PRINCIPAL_BURST": "5",
        "STEWARD_GATEWAY_SIGN_IN_RATE": "0.01",
        "STEWARD_GATEWAY_SIGN_IN_BURST": "2",
    }
    process = Process(base_settings | strict)
    yield process
    process.stop()


@pytest.fixture
def strict(strict_gateway: Process, standin: Standin, request: pytest.FixtureRequest) -> Iterator[tuple[Process, httpx.Client]]:
    """A gateway of low limits, shared: every test is somebody else to it."""
    headers = {"authorization": f"Bearer good-{request.node.name}"}
    with httpx.Client(base_url=strict_gateway.url, headers=headers, timeout=20, trust_env=False) as client:
        yield strict_gateway, client


@pytest.fixture(scope="session")
def development_gateway(base_settings: dict[str, str]) -> Iterator[Process]:
    process = Process(base_settings | {"STEWARD_PROFILE": "development"})
    yield process
    process.stop()


@pytest.fixture
def gateway(shared_gateway: Process, standin: Standin) -> Process:
    """The gateway of most tests: production profile, no rate limits."""
    return shared_gateway


@pytest.fixture
def client(gateway: Process) -> Iterator[httpx.Client]:
    """Signed in as `staff/good`; no proxy of the environment stands between."""
    with httpx.Client(base_url=gateway.url, headers=GOOD, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def started(base_settings: dict[str, str], standin: Standin) -> Callable[..., object]:
    """`with started(STEWARD_…="…") as (process, client)`: a gateway with settings of its own."""

    @contextmanager
    def start(**settings: str) -> Iterator[tuple[Process, httpx.Client]]:
        process = Process(base_settings | settings)
        try:
            with httpx.Client(base_url=process.url, headers=GOOD, timeout=20, trust_env=False) as client:
                yield process, client
        finally:
            process.stop()

    return start
