"""Ports of one platform: chosen free at the first start, kept in `ports.json`, so that two checkouts run side by side."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

# Below the range from which Linux takes the local ports of outgoing connections (32768 on): a port from that range can be
# taken by any connection in the moment in which its process is being restarted.
_RANGE = range(20000, 32000)


class Taken(RuntimeError):
    """A port that a setting asks for is in use."""


def choose(file: Path, names: Iterable[str], fixed: Mapping[str, tuple[int, str]] | None = None) -> dict[str, int]:
    """A port for each name: the fixed one, else the one of last time if it is free, else another one.

    `fixed`: name → (port, the setting that says so). Raises Taken when a fixed port is in use.
    """
    fixed = fixed or {}
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    result: dict[str, int] = {}
    for name in names:
        if name in fixed:
            port, setting = fixed[name]
            if not free(port):
                raise Taken(f"port {port} is in use by another program: set {setting} to a free one")
        else:
            port = kept.get(name, 0)
            while port not in _RANGE or port in result.values() or not free(port):
                port = random.choice(_RANGE)  # noqa: S311 - nothing has to be secret about a port
        result[name] = port
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps({**kept, **result}, indent=2) + "\n")
    fresh.replace(file)
    return result


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of yesterday in TIME_WAIT do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
