"""A private RabbitMQ node of this platform alone, made from the binaries of Debian's package and never the system's own node.

It has its own home, cookie, folders and ports, all on loopback, and a name server for Erlang nodes (epmd) of its own: that one runs in the
foreground as a program like any other, because the one that a node would start by itself outlives it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from services.local.keeper import Program
from services.local.state import State, write_private

if TYPE_CHECKING:
    from services.local.keys import Keys

BINARIES = Path("/usr/lib/rabbitmq/bin")
PORTS = ("rabbitmq.amqp", "rabbitmq.nodes", "rabbitmq.epmd")
USER = VHOST = "steward"

# The write-ahead log of quorum queues is kept in memory too, up to its largest size: 512 MB unless told.
_CONFIGURATION = """listeners.tcp.1 = 127.0.0.1:{amqp}
default_user = {user}
default_pass = {password}
default_vhost = {vhost}
default_user_tags.administrator = true
raft.wal_max_size_bytes = 33554432
log.file = false
log.console = true
log.console.level = info
"""

# Two schedulers are plenty here; +L leaves out line numbers (12 MB); atoms and processes as many as a small broker needs.
_MACHINE = "+S 2:2 +SDcpu 1:1 +L -kernel inet_dist_use_interface {127,0,0,1}"


class NotInstalled(RuntimeError):
    """RabbitMQ is not on this machine; the message says what to do."""


class RabbitMQ:
    def __init__(self, state: State, keys: Keys, ports: dict[str, int]) -> None:
        self._folder = state.folder("rabbitmq")
        self._keys = keys
        self._amqp, self._nodes, self._epmd = (ports[name] for name in PORTS)
        self.url = f"amqp://{USER}:{keys.broker_password}@127.0.0.1:{self._amqp}/{VHOST}"

    def prepare(self) -> None:
        """Writes what the node reads at its start. Raises NotInstalled."""
        if not (BINARIES / "rabbitmq-server").exists():
            raise NotInstalled("RabbitMQ is not installed: make run installs it as root, or `apt-get install rabbitmq-server`")
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, self._keys.broker_cookie)
            cookie.chmod(0o400)
        configuration = _CONFIGURATION.format(amqp=self._amqp, user=USER, password=self._keys.broker_password, vhost=VHOST)
        write_private(self._folder / "rabbitmq.conf", configuration)
        write_private(self._folder / "rabbitmq-env.conf", "")  # in place of the system node's, which would otherwise be read
        write_private(self._folder / "enabled_plugins", "[].\n")

    def programs(self) -> list[Program]:
        """The name server, then the node."""
        epmd = shutil.which("epmd", path=f"{os.environ.get('PATH', '')}:/usr/lib/erlang/bin") or "epmd"
        names = Program(
            name="epmd",
            argv=[epmd, "-port", str(self._epmd), "-address", "127.0.0.1"],
            environment=self.environment(),
            order=81,
            stop=((signal.SIGTERM, 5.0),),
            folder=self._folder,
            ready=lambda: _answers(self._epmd, b"\x00\x01n", 4),
        )
        node = Program(
            name="rabbitmq",
            argv=[str(BINARIES / "rabbitmq-server")],
            environment=self.environment(),
            order=80,
            stop=((signal.SIGTERM, 25.0),),
            folder=self._folder,
            ready=lambda: _answers(self._amqp, b"AMQP\x00\x00\x09\x01", 1),
        )
        return [names, node]

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says about this node; for tests and for people. Raises CalledProcessError."""
        command = [str(BINARIES / "rabbitmqctl"), *arguments]
        made = subprocess.run(command, env=self.environment(), check=True, capture_output=True, text=True, timeout=60)  # noqa: S603 - ours
        return made.stdout

    def environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "RABBITMQ_NODENAME": "steward@localhost",
            "RABBITMQ_DIST_PORT": str(self._nodes),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MAX_NUMBER_OF_PROCESSES": "131072",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _MACHINE,
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script then becomes the node, instead of a shell that waits for it
        }


def _answers(port: int, greeting: bytes, first: int) -> bool:
    """Whether a server says `first` bytes after a greeting: it listens, and it works."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(greeting)
            return bool(connection.recv(first))
    except OSError:
        return False
