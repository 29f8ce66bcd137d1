"""Steward on this machine. `make run`, `make stop`, `make status` and `make wipe` call this.

Settings (environment):
  STEWARD_PORT           the gateway's port (8080); every other port is chosen free
  STEWARD_STATE          the folder of all data (.steward)
  STEWARD_GROUPING       which processes there are (api=work_orders api=* worker=* relay=* jobs=*; see services/local/plan.py)
  STEWARD_REGISTER       the register to import at the first start
  STEWARD_DEMO_PASSWORD  password of the demo accounts (random)
  STEWARD_DEMO_CODE      one-time code of every resident (random)
and every setting of a process (services/chassis/settings.py), which is handed on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from services.local import records
from services.local.records import Record
from services.local.state import InUse, NotOurs, State, tell

if TYPE_CHECKING:
    from services.local.platform import Platform

SUPERVISOR = "supervisor"  # the name of its record
STOP_SECONDS = 120.0  # what a supervisor gets to stop everything; it has bounds of its own


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.local", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    up = commands.add_parser("up", help="start everything and keep it running until Ctrl-C or `stop`")
    up.add_argument("--empty", action="store_true", help="import no register")
    commands.add_parser("stop", help="end everything that runs from the state folder, and nothing else")
    commands.add_parser("status", help="list the processes; ends with status 0 when all are ready, else 1")
    commands.add_parser("wipe", help="stop, then remove the state folder with all data")
    for command in commands.choices.values():
        command.add_argument("--state", type=Path, help="the state folder (STEWARD_STATE, .steward)")
    options = parser.parse_args(arguments)
    state = State(options.state)
    if options.command == "up":
        return start(state.root, import_register=not options.empty)
    if options.command == "status":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # make status | head
        return status(state)
    try:
        stop(state)
        if options.command == "wipe":
            state.wipe()
            tell(f"Removed {state.root}.")
    except (InUse, NotOurs) as error:
        return fail(error)
    return 0


# up


def start(folder: Path, *, import_register: bool) -> int:
    from services.local.plan import BadGrouping
    from services.local.platform import Failed, NotReady, Platform
    from services.local.ports import Taken
    from services.local.postgres import CannotRun
    from services.local.rabbitmq import NotInstalled
    from services.local.welcome import page

    began = time.monotonic()
    tell("Starting Steward …")
    hear_signals()
    platform = None
    try:
        platform = Platform(folder, say=teller(folder))
        Record.of(SUPERVISOR, os.getpid(), 0, ((signal.SIGTERM, STOP_SECONDS),)).write(platform.state.folder("processes"))
        accounts = bring_up(platform, import_register=import_register)
        platform.say(page(platform, accounts, time.monotonic() - began))
        while True:
            signal.pause()
    except (InUse, NotOurs, Taken, BadGrouping, CannotRun, NotInstalled, Failed, NotReady) as error:
        return fail(error)
    except KeyboardInterrupt:
        return 0
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # each step of stopping has a bound of its own
        if platform is not None:
            platform.say("Stopping Steward …")
            platform.close()
            platform.say("Stopped.")


def bring_up(platform: Platform, *, import_register: bool) -> str:
    """Everything, until all is ready. Returns the table of demo accounts. Raises what `start` names."""
    from services.local.first_import import demo_accounts, first_import
    from services.local.platform import at_once

    accounts = []

    def fill() -> None:
        if import_register:
            first_import(platform)
        accounts.append(demo_accounts(platform))

    platform.start_stores()
    platform.migrate()
    platform.start()
    at_once(platform.wait_ready, fill)
    return accounts[0]


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def hear_signals() -> None:
    """SIGTERM and a closed terminal mean the same as Ctrl-C, which is heard even by a background job of a shell."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in _SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup make run
        signal.signal(number, interrupt)


def teller(folder: Path) -> Callable[[str], None]:
    """Prints a line and keeps it in logs/supervisor.log, also when nobody reads our output any more."""

    def say(line: str) -> None:
        try:
            tell(line)
        except OSError:  # the terminal or the pipe has gone: the log is enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with State(folder).log(SUPERVISOR).open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")

    return say


# stop, status


def stop(state: State) -> None:
    """Raises InUse when something other than `up` works in the folder, such as tests."""
    supervisor = Record.read(record_file(state))
    running = supervisor is not None and supervisor.alive()
    if supervisor is not None and running:
        tell("Stopping Steward …")
        supervisor.end()
    ended = []
    if state.exists():
        state.lock()  # free from the moment in which its holder has ended
        ended = records.end_leftovers(state.folder("processes"))
        state.unlock()
    if ended:
        tell(f"Ended what an earlier start had left running: {', '.join(ended)}.")
    tell("Stopped." if running or ended else f"Nothing runs from {state.root}.")


def status(state: State) -> int:
    from services.local.platform import answers_ready

    found = [record for record in records.records(state.root / "processes") if record.alive()]
    if not found:
        tell(f"Nothing runs from {state.root}.")
        return 1
    all_ready = True
    for record in found:
        ready = not record.http_port or answers_ready(record.http_port)
        all_ready &= ready
        place = f"http://127.0.0.1:{record.http_port}/metrics" if record.http_port else ""
        tell(f"{record.name:<24} pid {record.pid:<8} {'ready' if ready else 'not ready':<10} {place}".rstrip())
    return 0 if all_ready else 1


def record_file(state: State) -> Path:
    return state.root / "processes" / f"{SUPERVISOR}.json"


def fail(error: Exception) -> int:
    sys.stderr.write(f"Steward: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
