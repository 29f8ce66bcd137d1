"""The platform on one machine keeps its promises: private stores, processes that come back, and an end that ends just what was started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import psycopg2
import pytest

from services.chassis.__main__ import SERVICES
from services.local import plan, ports, records
from services.local.keeper import Program
from services.local.plan import BadGrouping
from services.local.platform import Failed, NotReady, Platform
from services.local.rabbitmq import PORTS as RABBITMQ_PORTS
from services.local.state import ROOT, InUse, NotOurs, State

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Platform]:
    """A platform of which only PostgreSQL and RabbitMQ run."""
    with Platform(tmp_path_factory.mktemp("stores"), port=0, say=said.append) as platform:
        platform.start_stores()
        yield platform


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Platform]:
    """A platform of which nothing runs yet."""
    with Platform(tmp_path / "state", port=0, say=lambda line: None) as platform:
        yield platform


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    return records.started(pid) != ""


# PostgreSQL


@pytest.mark.parametrize("service", SERVICES)
def test_the_role_of_a_service_is_unprivileged_and_owns_nothing(stores: Platform, service: str) -> None:
    attributes = "rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication, rolinherit"
    found = query(
        stores.database_url(service), f"SELECT current_user, current_database(), {attributes} FROM pg_roles WHERE rolname = current_user"
    )
    assert found == [(service, service, False, False, False, False, False, False)]
    owners = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert query(stores.database_url(service), owners) == [(f"{service}_owner",)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(stores.database_url(service), "CREATE TABLE mine (id int)")


def test_a_service_cannot_connect_to_the_database_of_another(stores: Platform) -> None:
    own, other = stores.database_url("surveys"), stores.database_url("residents")
    credentials = own.split("@")[0]
    for database in ("residents", "postgres", "template1"):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            query(f"{credentials}@{other.split('@')[1].replace('/residents?', f'/{database}?')}", "SELECT 1")


def test_row_level_security_binds_the_role_of_a_service(stores: Platform) -> None:
    owner, service = stores.database_url("renovation", owner=True), stores.database_url("renovation")
    query(owner, "CREATE TABLE guarded (id int); INSERT INTO guarded VALUES (1); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY")
    query(owner, 'GRANT SELECT ON guarded TO "renovation"')
    assert query(owner, "SELECT count(*) FROM guarded") == [(1,)]
    assert query(service, "SELECT count(*) FROM guarded") == [(0,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(service, "SET row_security = off; SELECT count(*) FROM guarded")


def test_postgres_is_reached_by_a_private_socket_and_a_password_alone(stores: Platform) -> None:
    names = ("fsync", "listen_addresses", "max_connections")
    shown = [query(stores.postgres.superuser_url("postgres"), f"SHOW {name}")[0][0] for name in names]
    assert shown == ["on", "", "300"]
    assert stat.S_IMODE(stores.postgres.socket_folder.stat().st_mode) == 0o700
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        query(f"postgresql://residents:wrong@/residents?host={stores.postgres.socket_folder}", "SELECT 1")


def test_a_folder_too_long_for_a_socket_gets_a_short_private_one_elsewhere(tmp_path: Path) -> None:
    with Platform(tmp_path / ("long" * 30), port=0) as platform:
        folder = platform.postgres.socket_folder
        assert len(str(folder)) < 80
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        platform.start_postgres()
        assert query(platform.database_url("surveys"), "SELECT 1") == [(1,)]
    assert not folder.exists()


def test_a_lock_file_of_a_killed_server_does_not_keep_the_next_from_starting(empty: Platform) -> None:
    empty.start_postgres()
    empty.stop("postgres")
    lock = empty.state.root / "postgres" / "data" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{lock.parent}\n")  # the pid now means a process that is alive and no server
    empty.start("postgres")
    empty.wait_ready("postgres", seconds=10)


# RabbitMQ


def test_the_broker_takes_confirmed_messages_into_a_quorum_queue(stores: Platform) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(stores.amqp_url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("quorum", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "quorum", "满意".encode(), mandatory=True)
    _, _, body = channel.basic_get("quorum", auto_ack=True)
    connection.close()
    assert body.decode() == "满意"


def test_the_broker_listens_on_loopback_alone_and_knows_no_guest(stores: Platform) -> None:
    listening = {
        (address, int(port, 16))
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in (line.split() for line in Path(table).read_text().splitlines()[1:])
        if fields[3] == "0A"
        for address, _, port in (fields[1].partition(":"),)
    }
    loopback = {"0100007F", "00000000000000000000000001000000"}
    for name in ("rabbitmq.amqp", "rabbitmq.nodes", "rabbitmq.epmd"):
        addresses = {address for address, port in listening if port == stores.ports[name]}
        assert addresses, f"nobody listens on {name}"
        assert addresses <= loopback
    guest = pika.ConnectionParameters(port=stores.ports["rabbitmq.amqp"], credentials=pika.PlainCredentials("guest", "guest"))
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(guest)
    assert stores.rabbitmq.control("-q", "list_users").split() == ["user", "tags", "steward", "[administrator]"]


# Processes


def test_stores_that_are_killed_come_back_with_their_data_and_a_line_says_so(stores: Platform, said: list[str]) -> None:
    query(stores.database_url("surveys", owner=True), "CREATE TABLE kept AS SELECT 7 AS answer")
    connection = pika.BlockingConnection(pika.URLParameters(stores.amqp_url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "kept", b"seven", mandatory=True)
    time.sleep(1.5)  # RabbitMQ 3.10 writes the name of a new quorum queue to disk only half a second later, and loses the queue otherwise
    stores.kill("postgres", signal.SIGKILL)
    stores.kill("rabbitmq", signal.SIGKILL)
    assert eventually(lambda: stores.restarts("postgres") > 0 and stores.restarts("rabbitmq") > 0)
    stores.wait_ready()
    assert query(stores.database_url("surveys", owner=True), "SELECT answer FROM kept") == [(7,)]
    again = pika.BlockingConnection(pika.URLParameters(stores.amqp_url))
    assert again.channel().basic_get("kept", auto_ack=True)[2] == b"seven"
    again.close()
    for name in ("postgres", "rabbitmq"):
        assert any(line.startswith(f"{name} was ended by SIGKILL: starting it again in 0.2 s") for line in said)


def test_a_process_that_keeps_failing_is_started_again_with_a_growing_delay(tmp_path: Path) -> None:
    said: list[str] = []
    with Platform(tmp_path / "state", port=0, say=said.append) as platform:
        platform.keep(Program("failing", [sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"], dict(os.environ)))
        assert eventually(lambda: len(said) >= 3)
        assert [line.partition(" (log")[0] for line in said[:3]] == [
            f"failing ended with status 3: starting it again in {delay} s" for delay in ("0.2", "0.4", "0.8")
        ]
        assert platform.log("failing").read_text().splitlines()[:2] == ["no luck", "no luck"]
        with pytest.raises(NotReady, match="no luck"):
            platform.wait_ready("failing", seconds=0.1)


def test_stopping_ends_what_was_started_with_its_children_and_nothing_else(tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    with Platform(tmp_path / "state", port=0) as platform:
        stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        stubborn += "child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); time.sleep(600)"
        platform.keep(Program("stubborn", [sys.executable, "-c", stubborn], dict(os.environ), stop=((signal.SIGTERM, 0.5),)))
        platform.keep(Program("halted", SLEEP, dict(os.environ)))
        assert eventually(lambda: bool(platform.log("stubborn").read_text()) if platform.log("stubborn").exists() else False)
        child = int(platform.log("stubborn").read_text())
        assert eventually(lambda: platform.pid("halted") is not None)
        platform.kill("halted", signal.SIGSTOP)
        pids = [pid for name in ("stubborn", "halted") if (pid := platform.pid(name)) is not None]
        assert [alive(pid) for pid in (*pids, child)] == [True, True, True]
    assert eventually(lambda: not any(alive(pid) for pid in (*pids, child)))
    assert alive(stranger.pid)
    assert list((tmp_path / "state" / "processes").iterdir()) == []
    stranger.kill()
    stranger.wait()


def test_a_command_that_fails_shows_the_end_of_its_log(empty: Platform) -> None:
    with pytest.raises(Failed, match=r"ended with status 4; the end of .*\nit is broken"):
        empty.run(
            "broken",
            [sys.executable, "-c", "import sys; print('it is broken', file=sys.stderr); sys.exit(4)"],
            dict(os.environ),
            seconds=10,
        )
    with pytest.raises(Failed, match="has not ended after"):
        empty.run("slow", SLEEP, dict(os.environ), seconds=0.2)
    assert empty.run("fine", [sys.executable, "-c", "print('管家')"], dict(os.environ), seconds=10) == "管家\n"


# Folders


SUPERVISOR = """
import os, sys, time
from services.local.keeper import Program
from services.local.platform import Platform
platform = Platform(sys.argv[1], port=0)
platform.start_postgres()
platform.keep(Program("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"), dict(os.environ)))
while platform.pid("sleeper") is None:
    time.sleep(0.01)
time.sleep(0.1)
print(platform.pid("postgres"), platform.pid("sleeper"), flush=True)
time.sleep(600)
"""


def test_what_a_killed_supervisor_has_left_is_ended_by_the_next_and_a_foreign_process_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(folder)], stdout=subprocess.PIPE, text=True, env=environment)
    assert supervisor.stdout is not None
    postgres, sleeper = (int(pid) for pid in supervisor.stdout.readline().split())
    with pytest.raises(InUse, match="already running"):
        Platform(folder, port=0)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    assert alive(postgres)
    assert alive(sleeper)

    stranger = subprocess.Popen(SLEEP)  # has got the pid of a process that was ours: same pid, another start
    records.Record("worker", stranger.pid, "1@yesterday", 40, ((signal.SIGTERM, 1.0),)).write(folder / "processes")
    said: list[str] = []
    with Platform(folder, port=0, say=said.append) as platform:
        assert not alive(postgres)
        assert not alive(sleeper)
        assert [line.split(" was still running")[0] for line in said] == ["sleeper", "postgres"]
        assert alive(stranger.pid)
        platform.start_postgres()
        assert query(platform.database_url("surveys"), "SELECT 1") == [(1,)]
    stranger.kill()
    stranger.wait()


def test_two_folders_run_side_by_side(stores: Platform, tmp_path: Path) -> None:
    with Platform(tmp_path / "other", port=0) as other:
        other.start_stores()
        used = {platform.ports[name] for platform in (stores, other) for name in RABBITMQ_PORTS}
        assert len(used) == 2 * len(RABBITMQ_PORTS)
        query(other.database_url("governance", owner=True), "CREATE TABLE only_here (id int)")
        for platform, count in ((other, 1), (stores, 0)):
            assert query(platform.database_url("governance"), "SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'") == [(count,)]
            pika.BlockingConnection(pika.URLParameters(platform.amqp_url)).close()
        assert other.keys.service_password != stores.keys.service_password
    stores.wait_ready(seconds=2)


def test_a_folder_with_other_things_is_neither_filled_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(NotOurs):
        Platform(tmp_path, port=0)
    with pytest.raises(NotOurs):
        State(tmp_path).wipe()
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_secrets_are_kept_for_their_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEWARD_DEMO_PASSWORD", raising=False)
    monkeypatch.delenv("STEWARD_DEMO_CODE", raising=False)
    with Platform(tmp_path / "state", port=0) as first:
        folder, before = first.state.root, first.keys
    files = list((folder / "secrets").iterdir())
    assert len(files) == 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with Platform(folder, port=0) as again:
        assert again.keys == before


# The whole platform, as `make run` and `make stop` start and stop it


def call(url: str, token: str = "", body: str | None = None, kind: str = "application/json") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(url, body.encode() if body else None, headers | ({"Content-Type": kind} if body else {}))
    with urllib.request.urlopen(asked, timeout=10) as response:
        return dict(json.load(response))


def sign_in(page: str) -> tuple[str, str]:
    """(address of the gateway, access token), by what the page says."""
    found = re.search(r"(http://[0-9.:]+)/v1/auth/token -d (grant_type=password) -d (username=\S+) -d (password=\S+)", page)
    assert found, page
    url, *form = found.groups()
    return url, call(f"{url}/v1/auth/token", body="&".join(form), kind="application/x-www-form-urlencoded")["access_token"]


@pytest.mark.timeout(300)
def test_a_second_start_finds_the_data_of_the_first(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    port = ports.choose(tmp_path / "port.json", ["gateway"])["gateway"]
    state, page = tmp_path / "state", tmp_path / "page"
    register = str(ROOT / "services" / "residents" / "sample_register.xlsx")
    environment = {**os.environ, "STEWARD_STATE": str(state), "STEWARD_PORT": str(port), "STEWARD_REGISTER": register}

    def local(command: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "services.local", command]
        return subprocess.run(argv, check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=90)

    def up() -> subprocess.Popen[bytes]:
        with page.open("w") as output:
            argv = [sys.executable, "-m", "services.local", "up"]
            started = subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=output, stderr=output)
        request.addfinalizer(lambda: local("stop"))
        assert eventually(lambda: "Try next" in page.read_text() or started.poll() is not None, seconds=100)
        assert started.poll() is None, page.read_text()
        return started

    first = up()
    assert len(page.read_text().partition("\n\n")[2].splitlines()) < 40
    url, token = sign_in(page.read_text())
    report = '{"location": "1栋大堂", "category": "LEAK", "description": "吊顶漏水", "contactPhone": "13800000000"}'
    name = call(f"{url}/v1/estates/TFHY/repairs", token, report)["name"]
    pids = {record.name: record.pid for record in records.records(state / "processes")}
    assert pids.keys() >= {"gateway", "api", "worker", "relay", "jobs", "postgres", "rabbitmq", "epmd", "supervisor"}
    assert local("status").returncode == 0
    assert "already running" in local("up").stderr
    os.kill(pids["worker"], signal.SIGKILL)
    assert eventually(lambda: "worker was ended by SIGKILL: starting it again in 0.2 s" in page.read_text())
    stopped = local("stop")
    assert (stopped.returncode, first.wait(5)) == (0, 0), stopped.stderr
    assert not any(alive(pid) for pid in pids.values())
    assert local("status").returncode == 1

    second = up()
    url, token = sign_in(page.read_text())
    assert call(f"{url}/v1/{name}", token)["description"] == "吊顶漏水"
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 0
    assert local("wipe").returncode == 0
    assert not state.exists()


# Ports and plan


def test_ports_are_kept_and_chosen_anew_when_somebody_else_has_them(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports.choose(file, ["a", "b"])
    assert ports.choose(file, ["a", "b"]) == first
    with socket.create_server(("127.0.0.1", first["a"])):
        second = ports.choose(file, ["a", "b"])
        assert second["a"] != first["a"]
        assert second["b"] == first["b"]
        with pytest.raises(ports.Taken, match="set STEWARD_PORT"):
            ports.choose(file, ["gateway"], {"gateway": (first["a"], "STEWARD_PORT")})


def test_the_usual_grouping_runs_each_role_of_each_service_once() -> None:
    parts = plan.parts(plan.USUAL_GROUPING)
    assert [part.name for part in parts] == ["gateway", "api-work_orders", "api", "worker", "relay", "jobs"]
    for role in plan.ROLES:
        assert sorted(service for part in parts if part.role == role for service in part.services) == sorted(SERVICES)


def test_a_service_can_run_apart_and_in_replicas() -> None:
    parts = plan.parts("api=surveys api=surveys api=* worker=surveys+governance worker=* relay=* relay=* jobs=*")
    assert [part.name for part in parts][1:] == [
        "api-surveys",
        "api-surveys-2",
        "api",
        "worker-surveys-governance",
        "worker",
        "relay",
        "relay-2",
        "jobs",
    ]
    numbers = {name: 20000 + index for index, name in enumerate(name for part in parts for name in part.ports)}
    addresses = dict(item.split("=") for item in plan.addresses(parts, numbers).split(","))
    assert addresses["surveys"] == f"127.0.0.1:{numbers['api-surveys.grpc']};127.0.0.1:{numbers['api-surveys-2.grpc']}"
    assert addresses["residents"] == f"127.0.0.1:{numbers['api.grpc']}"


@pytest.mark.parametrize(
    "grouping", ["api=*", "api=* worker=surveys relay=* jobs=*", "cook=*", "api=kitchen api=* worker=* relay=* jobs=*", "api"]
)
def test_a_grouping_that_leaves_something_out_is_refused(grouping: str) -> None:
    with pytest.raises(BadGrouping, match="STEWARD_GROUPING"):
        plan.parts(grouping)


def test_secrets_of_residents_go_to_processes_of_residents_alone(empty: Platform) -> None:
    secret = {"STEWARD_IDENTITY_KEY", "STEWARD_DATA_KEY", "STEWARD_DEMO_PASSWORD", "STEWARD_DEMO_CODE"}
    assert secret <= empty.environment("api", ["residents"]).keys()
    assert not secret & empty.environment("api", ["work_orders"]).keys()
    assert not secret & empty.environment("gateway", []).keys()
    assert "STEWARD_DATABASE_URL" not in empty.environment("gateway", [])
    assert "STEWARD_MIGRATE_URL" not in empty.environment("worker")
    assert "STEWARD_MIGRATE_URL" in empty.environment("migrate")
