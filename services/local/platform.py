"""The whole platform on this machine, as one object: `make run` and the tests use the same.

    with Platform(folder, port=0) as platform:
        platform.start_stores()                 # PostgreSQL and RabbitMQ, a few seconds
        platform.migrate()
        platform.start()                        # every process of the plan
        platform.wait_ready()
        platform.kill("worker", signal.SIGKILL) # it is started again

Everything is stopped when the block is left, in the order: who takes work in, who works, the broker, the databases.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from services.chassis.__main__ import SERVICES
from services.local import keys as key_files
from services.local import plan, ports, records
from services.local.keeper import Keeper, Program, ended, last_lines, launch, reap
from services.local.postgres import Postgres
from services.local.rabbitmq import PORTS as RABBITMQ_PORTS
from services.local.rabbitmq import RabbitMQ
from services.local.records import Record
from services.local.state import State, tell

STORES = ("postgres", "epmd", "rabbitmq")
USUAL_PORT = 8080
HOPELESS = 6  # ends in a row after which nobody waits any longer for a process to become ready


class NotReady(RuntimeError):
    """Something did not become ready in time; the message holds the last lines of its log."""


class Failed(RuntimeError):
    """A command that had to succeed did not; the message holds the last lines of its log."""


class Platform:
    def __init__(
        self,
        state: Path | str | None = None,
        *,
        port: int | None = None,
        grouping: str | None = None,
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] = tell,
    ) -> None:
        """Takes the folder over: locks it, ends what an earlier supervisor left running there, chooses ports.

        `port`: of the gateway; 0 for any free one, None for STEWARD_PORT or 8080. `grouping`: see plan.py. `environment`: added to that
        of every process. `say`: gets a line for each thing that people should know, such as a restart.

        Raises InUse, NotOurs, Taken, BadGrouping or CannotRun, each with a sentence for people.
        """
        self.say = say
        self.state = State(state)
        self.state.prepare()
        self.state.lock()
        try:
            for name in records.end_leftovers(self.state.folder("processes")):
                say(f"{name} was still running from an earlier start, and has been ended")
            self.parts = plan.parts(grouping or os.environ.get("STEWARD_GROUPING") or plan.USUAL_GROUPING)
            wanted = int(os.environ.get("STEWARD_PORT") or USUAL_PORT) if port is None else port
            names = [*RABBITMQ_PORTS, *(name for part in self.parts for name in part.ports)]
            fixed = {"gateway": (wanted, "STEWARD_PORT")} if wanted else {}
            self.ports = ports.choose(self.state.root / "ports.json", names, fixed)
            self.keys = key_files.read_or_make(self.state.folder("secrets"))
            self.postgres = Postgres(self.state, self.keys, SERVICES)
            self.rabbitmq = RabbitMQ(self.state, self.keys, self.ports)
        except BaseException:
            self.state.unlock()
            raise
        self._added = dict(environment or {})
        self._keepers: dict[str, Keeper] = {}
        self._commands: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.Lock()
        self._closed = False

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Where things are

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def amqp_url(self) -> str:
        return self.rabbitmq.url

    def database_url(self, service: str, *, owner: bool = False) -> str:
        return self.postgres.url(service, owner=owner)

    def http_port(self, name: str) -> int:
        """Port of /metrics, /healthz and /readyz of the named process."""
        return self.ports[f"{name}.http"]

    def log(self, name: str) -> Path:
        return self.state.log(name)

    def pid(self, name: str) -> int | None:
        """None while it is not running."""
        keeper = self._keepers.get(name)
        return keeper.pid if keeper else None

    def restarts(self, name: str) -> int:
        return self._keepers[name].restarts

    def environment(self, role: str, services: Iterable[str] = SERVICES, *, http_port: int = 0, grpc_port: int = 0) -> dict[str, str]:
        """Of a process with this role (api, worker, relay, jobs, migrate, gateway) and these services."""
        result = plan.common_environment() | plan.settings_of(
            role,
            tuple(services),
            self.keys,
            database=self.postgres.url("{service}"),
            owner=self.postgres.url("{service}", owner=True),
            broker=self.rabbitmq.url,
            addresses=plan.addresses(self.parts, self.ports),
        )
        if http_port:
            result["STEWARD_HTTP_PORT"] = str(http_port)
        if grpc_port:
            result["STEWARD_GRPC_PORT"] = str(grpc_port)
        if role == "gateway":
            result["STEWARD_PORT"] = str(self.ports["gateway"])
        return result | self._added

    # Starting

    def start_stores(self) -> None:
        """PostgreSQL and RabbitMQ at the same time, until both are ready. Raises NotReady, CannotRun or NotInstalled."""
        at_once(self.start_postgres, self.start_rabbitmq)

    def start_postgres(self) -> None:
        self.postgres.prepare()
        self.keep(self.postgres.program())
        self.wait_ready("postgres")
        self.postgres.provision()

    def start_rabbitmq(self) -> None:
        self.rabbitmq.prepare()
        for program in self.rabbitmq.programs():
            self.keep(program)
            self.wait_ready(program.name)

    def migrate(self, *services: str) -> None:
        """Schema and topology of these services, or of all. Raises Failed."""
        chosen = services or SERVICES
        command = [sys.executable, "-m", "services.chassis", "migrate", *chosen]
        self.run("migrate", command, self.environment("migrate", chosen), seconds=300)

    def start(self, *names: str) -> None:
        """Starts processes of the plan, or all of them; does not wait. Names: see `parts`, and STORES for what was stopped by name."""
        planned = {part.name: part for part in self.parts}
        for name in names or planned:
            if name in planned:
                self.keep(self._program(planned[name]))
            else:
                self.keep(next(program for program in (self.postgres.program(), *self.rabbitmq.programs()) if program.name == name))

    def keep(self, program: Program) -> None:
        """Starts a program and keeps it running until `stop`. Does nothing when it is kept already. Raises Failed after `close`."""
        with self._changing:
            self._refuse_when_closed()
            if program.name not in self._keepers:
                keeper = Keeper(program, self.state, self.say)
                self._keepers[program.name] = keeper
                keeper.start()

    def wait_ready(self, *names: str, seconds: float = 60.0) -> None:
        """Waits until these, or all that are kept, are ready. Raises NotReady when time is up, or one ends again and again."""
        deadline = time.monotonic() + seconds
        waiting = {self._keepers[name]: self._keepers[name].restarts for name in names or tuple(self._keepers)}
        while True:
            waiting = {keeper: restarts for keeper, restarts in waiting.items() if not (keeper.pid and keeper.program.ready())}
            if not waiting:
                return
            hopeless = [keeper for keeper, restarts in waiting.items() if keeper.restarts - restarts >= HOPELESS]
            if hopeless or time.monotonic() > deadline:
                keeper = next(iter(hopeless or waiting))
                why = "cannot be started" if hopeless else "is not ready"
                raise NotReady(f"{keeper.program.name} {why}; the end of {keeper.log}:\n{last_lines(keeper.log)}")
            time.sleep(0.05)

    def run(self, name: str, argv: Sequence[str], environment: Mapping[str, str], *, seconds: float) -> str:
        """Runs a command to its end. Returns its standard output; the rest goes to a log of its name. Raises Failed."""
        program = Program(name, argv, environment)
        log = self.log(name)
        folder = self.state.folder("processes")
        with self._changing:
            self._refuse_when_closed()
            process = launch(program, log, capture=True)
            self._commands.add(process)
        Record.of(name, process.pid, program.order, program.stop).write(folder)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{name} has not ended after {seconds:g} s; the end of {log}:\n{last_lines(log)}") from None
        finally:
            if process.poll() is None:
                process.kill()
                reap(process)
            with self._changing:
                self._commands.discard(process)
            (folder / f"{name}.json").unlink(missing_ok=True)
        if process.returncode != 0:
            raise Failed(f"{name} {ended(process.returncode)}; the end of {log}:\n{last_lines(log)}")
        return output.decode(errors="replace")

    # Disturbing and stopping

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Sends a process a signal; if that ends it, it is started again. Raises ProcessLookupError when it is not running."""
        self._keepers[name].signal(number)

    def stop(self, *names: str) -> None:
        """Stops these, or everything, and waits until they are gone. `start` starts them again."""
        with self._changing:
            if not names:
                for command in self._commands:  # of another thread that is still starting things
                    command.kill()
            stopping = [self._keepers.pop(name) for name in names or tuple(self._keepers)]
        for order in sorted({keeper.program.order for keeper in stopping}):
            together = [keeper for keeper in stopping if keeper.program.order == order]
            for keeper in together:
                keeper.ask_to_stop()
            for keeper in together:
                keeper.wait_stopped()

    def close(self) -> None:
        """Stops everything and lets go of the folder; nothing can be started any more, not even by a thread that is still about to."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
        self.stop()
        self.postgres.forget_socket()
        folder = self.state.folder("processes")
        for record in records.records(folder):
            if record.pid == os.getpid() or not record.alive():
                (folder / f"{record.name}.json").unlink(missing_ok=True)
        self.state.unlock()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Failed("the platform is being stopped")

    def _program(self, part: plan.Part) -> Program:
        http_port = self.ports[f"{part.name}.http"]
        grpc_port = self.ports[f"{part.name}.grpc"] if part.role == "api" else 0
        return Program(
            name=part.name,
            argv=part.argv,
            environment=self.environment(part.role, part.services, http_port=http_port, grpc_port=grpc_port),
            order=plan.ORDER[part.role],
            stop=((signal.SIGTERM, plan.DRAIN),),
            http_port=http_port,
            ready=partial(answers_ready, http_port),
        )


def at_once(*steps: Callable[[], None]) -> None:
    """Takes these steps at the same time, until all are done or one has failed. Raises what that one has raised."""
    results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def attempt(step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # goes to the caller's thread
            results.put(error)
        else:
            results.put(None)

    for step in steps:
        threading.Thread(target=attempt, args=(step,), daemon=True).start()
    for _ in steps:
        if (error := results.get()) is not None:
            raise error


def answers_ready(port: int) -> bool:
    """Whether /readyz on a port of this machine answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
