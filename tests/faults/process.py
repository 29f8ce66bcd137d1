"""`python tests/faults/process.py <role> <service>`: a real role of the chassis that knows the ledger's reactions.

The environment's FAULT makes the relay die with SIGKILL at one instant:

    placed     positions are committed, nothing is published
    confirmed  the broker has confirmed, nothing is marked
"""

from __future__ import annotations

import os
import signal
import sys


def main(role: str, service: str) -> int:
    if role == "worker":
        import eventlet

        eventlet.monkey_patch()
    from services.chassis import observe
    from services.chassis.settings import settings

    observe.log_to_stderr("text")
    if role == "worker":
        from services.chassis.worker import run
        from tests.faults import ledger  # noqa: F401 - registers its reactions
    else:
        from services.chassis.relay import run

        _break_relay(os.environ["FAULT"])
    return run([service], settings())


def _break_relay(fault: str) -> None:
    from services.chassis.event_log import Log

    advance = Log.advance

    def dying(self: Log, confirmed: list, room: int) -> list:
        if fault == "confirmed" and len(confirmed) >= 50:
            os.kill(os.getpid(), signal.SIGKILL)
        found = advance(self, confirmed, room)
        if fault == "placed" and found:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    Log.advance = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
