"""The folder that everything of one platform on this machine lives in: `.steward/` in the checkout, or what STEWARD_STATE says.

    README  lock  ports.json  secrets/  postgres/  rabbitmq/  logs/  processes/

One supervisor at a time works in a folder: it holds the lock (flock) for as long as it lives, and the kernel lets go of it
however the supervisor ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_README = """This folder belongs to Steward on this machine (make run): its databases, its broker, its secrets and its logs.
`make stop` ends what runs from here; `make wipe` removes the folder with all data.
"""


class InUse(RuntimeError):
    """Another supervisor works in this folder."""


class NotOurs(RuntimeError):
    """The folder holds something else, which must be neither filled nor removed."""


class State:
    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("STEWARD_STATE") or ROOT / ".steward").absolute()
        self._lock: int | None = None

    def exists(self) -> bool:
        return (self.root / "README").is_file()

    def prepare(self) -> None:
        """Makes the folder, readable for its owner alone. Raises NotOurs when it holds other things."""
        if not self.exists():
            if self.root.is_dir() and any(self.root.iterdir()):
                raise NotOurs(f"{self.root} holds other things: let STEWARD_STATE name an empty or a new folder")
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            (self.root / "README").write_text(_README)

    def folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        return self.folder("logs") / f"{name}.log"

    def lock(self) -> None:
        """Raises InUse at once when another process holds the lock."""
        if self._lock is not None:
            return
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InUse(f"Steward is already running from {self.root}: `make status` shows it, `make stop` ends it") from None
        self._lock = handle

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def wipe(self) -> None:
        """Removes the folder with all data. Raises NotOurs when it is no folder of Steward's."""
        if not self.exists():
            raise NotOurs(f"{self.root} is no folder of Steward's: nothing was removed")
        shutil.rmtree(self.root)


def tell(line: str) -> None:
    """Prints a line for people, at once also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read: whole or not at all, whatever happens meanwhile."""
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(fresh, path)
