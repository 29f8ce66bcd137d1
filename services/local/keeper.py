"""One program, kept running: started again when it ends, told to stop when its time has come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.local.records import Record, Stopping
from services.local.state import ROOT, State

FIRST_DELAY, LAST_DELAY = 0.2, 5.0  # seconds between an end and the next start; doubled each time
STEADY = 30.0  # seconds after which a program counts as running well, and the delay begins anew
LARGEST_LOG = 20 * 1024 * 1024  # bytes; a larger log is moved to <name>.log.1 when its program starts


def _always() -> bool:
    return True


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    order: int = 0  # in which it is stopped: small ones first, equal ones together
    stop: Stopping = ((signal.SIGTERM, 15.0),)
    folder: Path = ROOT  # its working directory
    http_port: int = 0  # where /readyz is, for people
    ready: Callable[[], bool] = field(default=_always)
    before: Callable[[], None] = field(default=_nothing)  # done before each start


class Keeper:
    def __init__(self, program: Program, state: State, say: Callable[[str], None]) -> None:
        self.program = program
        self.log = state.log(program.name)
        self.restarts = 0
        self._records = state.folder("processes")
        self._say = say
        self._stopping = threading.Event()
        self._launching = threading.Lock()
        self._reaping = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {program.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def signal(self, number: int) -> None:
        """Sends the running process a signal. Raises ProcessLookupError when it is not running."""
        with self._reaping:  # so that its pid is still its own
            pid = self.pid
            if pid is None:
                raise ProcessLookupError(f"{self.program.name} is not running")
            os.kill(pid, number)

    def ask_to_stop(self) -> None:
        """Begins the stop; `wait_stopped` sees it through."""
        with self._launching:
            self._stopping.set()
        self._send(self.program.stop[0][0])

    def wait_stopped(self) -> None:
        """Waits for the end, with harsher signals as time goes by; SIGKILL is the last."""
        for nth, (number, seconds) in enumerate(self.program.stop):
            if nth > 0:
                self._send(number)
            self._thread.join(seconds)
            if not self._thread.is_alive():
                return
        self._say(f"{self.program.name} did not stop in time and is killed")
        self._send(signal.SIGKILL)
        self._thread.join(10)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # ended by itself: just what is wanted
            self.signal(number)
            self.signal(signal.SIGCONT)  # a process that was halted hears nothing else

    def _keep(self) -> None:
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            began = time.monotonic()
            how = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY:
                delay = FIRST_DELAY
            self.restarts += 1
            self._say(f"{self.program.name} {how}: starting it again in {delay:g} s (log: {self.log})")
            self._stopping.wait(delay)
            delay = min(delay * 2, LAST_DELAY)

    def _run_once(self) -> str:
        """Starts the program and waits for its end. Returns how it ended."""
        try:
            with self._launching:
                if self._stopping.is_set():
                    return "was not wanted any more"
                self.program.before()
                self._process = launch(self.program, self.log)
            program = self.program
            Record.of(program.name, self._process.pid, program.order, program.stop, program.http_port).write(self._records)
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping:
                return ended(reap(self._process))
        except OSError as error:  # not to be started just now: no memory, a full disk, a missing binary
            return f"could not be started ({error})"
        finally:
            (self._records / f"{self.program.name}.json").unlink(missing_ok=True)


def launch(program: Program, log: Path, *, capture: bool = False) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own (a Ctrl-C on the terminal is the supervisor's alone to hear).

    What it writes goes to its log; with `capture` its standard output goes to a pipe instead.
    """
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the programs of plan.py and the stores
            program.argv,
            env=dict(program.environment),
            cwd=program.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else output,
            stderr=output,
            start_new_session=True,
        )


def reap(process: subprocess.Popen[bytes]) -> int:
    """Collects the status of a process that has ended or is being killed, and ends what it left in its group.

    While it is not collected, its number and that of its group cannot have become somebody else's.
    """
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def last_lines(log: Path, count: int = 15) -> str:
    if not log.exists():
        return ""
    return "\n".join(log.read_bytes()[-20_000:].decode(errors="replace").splitlines()[-count:])
