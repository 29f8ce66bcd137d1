"""Which process a number means: pid and start time together, because a pid alone may be another process's tomorrow.

Each started process has a record `processes/<name>.json`. What a killed supervisor left behind is found by it, and a
process of somebody else that has got the same pid meanwhile is not touched.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from services.local.state import write_private

Stopping = tuple[tuple[int, float], ...]  # signals in order, each with the seconds it is given; SIGKILL comes after the last


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    pid: int
    started: str  # clock ticks since boot (field 22 of /proc/<pid>/stat) and the boot's id
    order: int  # where it stands in the order of stopping; small ones first
    stop: Stopping
    http_port: int = 0  # of its /readyz; 0 when it has none

    @staticmethod
    def of(name: str, pid: int, order: int, stop: Stopping, http_port: int = 0) -> Record:
        return Record(name, pid, started(pid), order, stop, http_port)

    @staticmethod
    def read(file: Path) -> Record | None:
        """None when there is none."""
        try:
            values = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        return Record(**{**values, "stop": tuple((number, seconds) for number, seconds in values["stop"])})

    def write(self, folder: Path) -> None:
        write_private(folder / f"{self.name}.json", json.dumps(asdict(self)) + "\n")

    def alive(self) -> bool:
        return bool(self.started) and started(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Sends it a signal, if it still is the process that was recorded."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # ended in between

    def end(self) -> None:
        """Ends a process that is no child of ours, politely at first; returns when it is gone."""
        for number, seconds in (*self.stop, (signal.SIGKILL, 10.0)):
            self.signal(number)
            self.signal(signal.SIGCONT)
            deadline = time.monotonic() + seconds
            while self.alive():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return


def started(pid: int) -> str:
    """When a process was started, or '' when there is none (a zombie is none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    state, start_time = fields[0], fields[19]
    return "" if state in "ZX" else f"{start_time}@{_boot()}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def records(folder: Path) -> list[Record]:
    """What stands recorded, in the order of stopping."""
    found = [record for file in folder.glob("*.json") if (record := Record.read(file)) is not None]
    return sorted(found, key=lambda record: (record.order, record.name))


def end_leftovers(folder: Path) -> list[str]:
    """Ends what an earlier supervisor left running and forgets what is gone. Returns the names of what it ended."""
    ended = []
    for record in records(folder):
        if record.alive():
            record.end()
            ended.append(record.name)
        (folder / f"{record.name}.json").unlink(missing_ok=True)
    return ended
