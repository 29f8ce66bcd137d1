"""Where the time goes: samples of the running Python processes by py-spy, as milliseconds per request (or event) and function.

py-spy reads the stacks of threads that are on a CPU from outside; nothing in the platform knows of it. It does not stop the process to
look: a stopped one wakes all its threads, and those that wait would be counted as working. It needs the right to look at other
processes: those of the same account, where the kernel allows that, or root. Threads of gRPC's core run no Python: what they cost is
told beside, from the kernel's own count.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PROFILED = ("gateway", "api-work_orders", "worker", "relay")
RATE = 200  # samples a second
SITE = re.compile(r"^.*/(?:site-packages|lib/python3\.\d+)/")
PACKAGE = {"services": 3, "gateway": 2}  # so many parts of a module's name say whose it is; else one


@dataclass(slots=True)
class Profile:
    """Samples of one process: by function on top of the stack (self), and with everything below it."""

    name: str
    samples: int = 0
    own: Counter[str] = field(default_factory=Counter)
    packages: Counter[str] = field(default_factory=Counter)
    under: Counter[str] = field(default_factory=Counter)


class Sampling:
    """py-spy on one process, until `stop`."""

    def __init__(self, name: str, pid: int, folder: Path, seconds: float):
        self.name, self._file = name, folder / f"{name}.stacks"
        program = Path(sysconfig.get_path("scripts")) / "py-spy"
        options = ["--format", "raw", "--function", "--full-filenames", "--nonblocking", "--gil", "--rate", str(RATE)]
        options += ["--duration", str(max(1, round(seconds)))]
        self._process = subprocess.Popen(
            [str(program), "record", *options, "--pid", str(pid), "--output", str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def profile(self) -> Profile:
        """Raises RuntimeError with what py-spy said."""
        _, said = self._process.communicate(timeout=60)
        if self._process.returncode != 0 or not self._file.exists():
            raise RuntimeError(f"py-spy of {self.name}: {said.strip()}")
        return read(self.name, self._file.read_text())


def read(name: str, stacks: str) -> Profile:
    """A profile from lines of `frame;frame;frame count`, a frame being `function (file:line)`."""
    profile = Profile(name)
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_function(frame) for frame in stack.split(";") if "(" in frame]
        if not frames:
            continue
        samples = int(count)
        profile.samples += samples
        profile.own[frames[-1]] += samples
        profile.packages[_package(frames[-1])] += samples
        for function in set(frames):
            profile.under[function] += samples
    return profile


def table(profile: Profile, milliseconds: float, rows: int = 14) -> list[str]:
    """Lines for people; `milliseconds` of CPU per request or event are shared out by samples."""
    if not profile.samples:
        return [f"{profile.name}: idle"]
    each = milliseconds / profile.samples
    lines = [f"{profile.name}: {milliseconds:.2f} ms CPU each, {profile.samples} samples"]
    lines.append("  by package: " + ", ".join(f"{package} {count * each:.2f}" for package, count in profile.packages.most_common(10)))
    lines += [f"  {'self':>6} {'with':>6}  function"]
    lines += [
        f"  {count * each:6.3f} {profile.under[function] * each:6.3f}  {function}" for function, count in profile.own.most_common(rows)
    ]
    lines += [f"  {'':6} {'with':>6}  ours"]
    ours = [(f, count) for f, count in profile.under.most_common() if f.startswith(("services.", "gateway.")) and profile.own[f] < count]
    lines += [f"  {'':6} {count * each:6.3f}  {function}" for function, count in ours[:rows]]
    return lines


def _function(frame: str) -> str:
    """`module.function` of `function (/path/module.py:12)`."""
    function, _, place = frame.rpartition(" (")
    path = place.rstrip(")").rpartition(":")[0]
    return f"{_module(path)}.{function}"


def _module(path: str) -> str:
    for root in sys.path:
        if root and path.startswith(root + "/"):
            path = path[len(root) + 1 :]
            break
    path = SITE.sub("", path)
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _package(function: str) -> str:
    parts = function.split(".")
    return ".".join(parts[: PACKAGE.get(parts[0], 1)])
