"""A container engine for the tests, and a base image for what they build.

Whoever has a running engine uses that. Where there is none but Debian's `docker.io` is installed, root starts a private one: socket and data in
a folder of the test's own, no bridge and no packet filter rules, so that nothing is left behind; containers and builds then
share the machine's network. Without either the check fails; it is not skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

MISSING = "there is no container engine: start Docker, or as root `apt-get install --no-install-recommends docker.io mmdebstrap`"
USUAL_BASE = "python:3.11-slim-bookworm"  # as docker/Dockerfile has it
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Engine:
    def __init__(self, folder: Path):
        """Raises AssertionError where no engine can be had."""
        # Debian's client first: a newer one builds with a plug-in that may not be there.
        self.client = next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and Path(path).exists()), None)
        assert self.client, MISSING
        self._environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        if self._run(["info"], check=False).returncode:
            self._start()

    def __call__(self, *arguments: str, seconds: float = 60) -> str:
        """What the client prints. Raises AssertionError with its errors."""
        done = self._run(arguments, check=False, seconds=seconds)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout.strip()

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """The same, whatever its end."""
        return self._run(arguments, check=False, seconds=seconds)

    def base(self) -> str:
        """An image of Python to build on: BASE_IMAGE, the usual one where it can be pulled, else one made of Debian's packages."""
        if chosen := os.environ.get("BASE_IMAGE"):
            return chosen
        if self.run("image", "inspect", USUAL_BASE).returncode == 0 or self.run("pull", "--quiet", USUAL_BASE, seconds=300).returncode == 0:
            return USUAL_BASE
        maker = shutil.which("mmdebstrap")
        assert maker, f"{USUAL_BASE} cannot be pulled, and mmdebstrap is missing, which would make another"
        archive = self._folder / "base.tar"
        packages = "--include=ca-certificates,python3-venv,python-is-python3"
        made = subprocess.run(
            [maker, "--variant=minbase", packages, "bookworm", str(archive)],
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert made.returncode == 0, made.stderr[-3000:]
        self("import", str(archive), "steward-base:test", seconds=120)
        archive.unlink()
        return "steward-base:test"

    def close(self) -> None:
        if self._daemon is None:
            return
        for container in self("ps", "--all", "--quiet").split():
            self("rm", "--force", container)
        self._daemon.send_signal(signal.SIGTERM)
        self._daemon.wait(60)
        for line in Path("/proc/mounts").read_text().splitlines():  # the daemon leaves a network namespace mounted
            place = line.split()[1]
            if place.startswith(f"{self._folder}/"):
                subprocess.run(["/usr/bin/umount", place], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        daemon = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert daemon, MISSING
        assert os.geteuid() == 0, "an engine of the test's own needs root; or start Docker"
        address = f"unix://{self._folder}/docker.sock"
        places = ["--data-root", f"{self._folder}/data", "--exec-root", f"{self._folder}/run", "--pidfile", f"{self._folder}/pid"]
        alone = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        with (self._folder / "log").open("wb") as log:
            self._daemon = subprocess.Popen([daemon, "--host", address, *places, *alone], stdout=log, stderr=log, start_new_session=True)
        self._environment["DOCKER_HOST"] = address
        deadline = time.monotonic() + 60
        while self._run(["info"], check=False).returncode:
            working = self._daemon.poll() is None and time.monotonic() < deadline
            assert working, (self._folder / "log").read_text()[-3000:]
            time.sleep(0.3)

    def _run(self, arguments: Sequence[str], *, check: bool, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        assert self.client
        command = [self.client, *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=check, timeout=seconds)
