"""`python -m services.residents.set_password <number>`: gives a member of staff a password, from the machine itself.

For operations: the first administrator of an installation (everybody else gets a temporary password from HR or the project
manager), and the way back in when nobody is left who could give one. Asks for the password on a terminal, else reads one line
of stdin; never takes it from the command line, which other users of the machine can see. Needs STEWARD_DATABASE_URL as the
role `api` does. Ends the person's sessions; the change is kept with `system/residents` as its author.
"""

from __future__ import annotations

import argparse
import getpass
import sys

from services.chassis.db import Database
from services.chassis.errors import StewardError
from services.residents import accounts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.residents.set_password", description=__doc__)
    parser.add_argument("number", help="the number the person signs in with, such as TFHY-003")
    number: str = parser.parse_args(arguments).number
    password = _asked_for() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not password:
        return _failed("no password was given")
    database = Database("residents")
    try:
        return set_password(database, number, password)
    finally:
        database.dispose()


def set_password(database: Database, number: str, password: str) -> int:
    """0: done; 1: not, and stderr says why."""
    try:
        with database.transaction() as tx:
            name = accounts.set_password(tx, number, password)
    except StewardError as error:
        return _failed("; ".join([error.message, *(f"the {v.field} {v.description}" for v in error.violations)]))
    sys.stdout.write(f"{name} ({number}) signs in with the new password from now on\n")
    return 0


def _asked_for() -> str:
    """Empty when the two were not the same."""
    first = getpass.getpass("New password: ")
    if first != getpass.getpass("Once more: "):
        sys.stderr.write("the two were not the same\n")
        return ""
    return first


def _failed(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
