"""One process, one role, one or several services: `python -m services.chassis <role> <service> …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

ROLES = ("api", "worker", "relay", "jobs", "migrate")
SERVICES = ("residents", "work_orders", "renovation", "billing_reminders", "surveys", "notifications", "governance")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.chassis", description=__doc__)
    commands = parser.add_subparsers(dest="role", required=True, metavar="role")
    says = {
        "api": "answer RPCs",
        "worker": "react to events and run timers",
        "relay": "publish the event log to RabbitMQ",
        "jobs": "work on long-running operations",
        "migrate": "bring schema and broker topology up to date, then end",
    }
    for role in ROLES:
        command = commands.add_parser(role, help=says[role])
        command.add_argument("services", nargs="+", choices=SERVICES, metavar="service", help=", ".join(SERVICES))
    waits = commands.add_parser("wait", help="end when what `migrate` makes for these services is there")
    waits.add_argument("services", nargs="+", choices=SERVICES, metavar="service", help=", ".join(SERVICES))
    letters = commands.add_parser("dead-letters", help="list, show or replay what could not be handled", add_help=False)
    letters.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)

    if options.role == "worker":
        import eventlet

        eventlet.monkey_patch()

    from services.chassis import observe
    from services.chassis.settings import Settings, settings

    config = settings()
    if options.role in ROLES and (lacking := config.lacking(options.role, options.services)):
        sys.stderr.write(f"cannot start: {', '.join(lacking)} must be set (docs/settings.md)\n")
        return 1
    observe.log_to_stderr(config.log_format)
    if options.role == "dead-letters":
        from services.chassis import dead_letters

        return dead_letters.main(options.rest)
    if options.role == "api":
        from services.chassis import rpc

        run: Callable[[list[str], Settings], int] = rpc.run
    elif options.role == "worker":
        from services.chassis import worker

        run = worker.run
    elif options.role == "relay":
        from services.chassis import relay

        run = relay.run
    elif options.role == "jobs":
        from services.chassis import jobs

        run = jobs.run
    elif options.role == "wait":
        from services.chassis import waiting

        run = waiting.run
    else:
        from services.chassis import migrate

        run = migrate.run
    return run(options.services, config)


if __name__ == "__main__":
    sys.exit(main())
