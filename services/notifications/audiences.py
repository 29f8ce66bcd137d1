"""Who is meant by a line of the routing table: a person the event names, those who hold a post, or a rung of the ladder.

An audience is found from the event and this service's copy of the directory, never from what an earlier event said, so
that it does not matter in which order events arrive. Of those who hold a role the ones on duty are told, by the roster of the
moment at which it happened (of a time limit: at which it was due), not of the moment at which it is heard of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import Unavailable
from services.chassis.reactions import Event


@dataclass(frozen=True, slots=True)
class Found:
    """Recipients (`staff/<id>`, `people/<id>`), the role they are told as, and the roles passed over because nobody answers for them.

    `vacant`: a role should have been told, and nobody answers for it nor for any above it.
    """

    recipients: tuple[str, ...] = ()
    role: str = ""
    skipped: tuple[str, ...] = ()
    vacant: bool = False


@dataclass(frozen=True, slots=True)
class Audience:
    """`says` is its cell in the table of the README."""

    says: str
    find: Callable[[Event[Any], Transaction], Found]


def named(field: str, says: str) -> Audience:
    """Whom a field of the event names (`technician`, `clock.handler`); nobody when it is empty."""
    value = attrgetter(field)

    def find(event: Event[Any], tx: Transaction) -> Found:
        name: str = value(event.data)
        return Found((name,)) if name else Found()

    return Audience(says, find)


def holders(*roles: str) -> Audience:
    """All who are on duty in the first of `roles` that anybody answers for at the estate (`directory.on_duty`)."""

    def find(event: Event[Any], tx: Transaction) -> Found:
        return _first_held(roles, event, tx)

    return Audience(", else ".join(f"`{role}`" for role in roles), find)


def ladder() -> Audience:
    """The rung of the ladder that is due: 1 at the breach, then as the event says. A vacant one is passed over at once."""

    def find(event: Event[Any], tx: Transaction) -> Found:
        rungs = tuple(event.data.clock.ladder)[max(getattr(event.data, "rung", 1), 1) - 1 :]
        return _first_held(rungs, event, tx) if rungs else Found()

    return Audience("the rung that is due, else the next one that is held", find)


def _first_held(roles: tuple[str, ...], event: Event[Any], tx: Transaction) -> Found:
    """Raises Unavailable while the directory has no first copy or does not know the estate: the event comes again."""
    estate = directory.estate_by_id(tx, event.estate_id) if event.estate_id and directory.filled(tx) else None
    if estate is None:
        raise Unavailable(f"the directory does not know the estate of {event.subject} yet", reason="ESTATE_UNKNOWN", retry_after=1)
    for place, role in enumerate(roles):
        if staff := directory.on_duty(tx, role, estate, event.time):
            return Found(tuple(f"staff/{member}" for member in staff), role, roles[:place])
    return Found(role=roles[-1], skipped=roles, vacant=True)


REPORTER = named("reporter", "the reporter")
TECHNICIAN = named("technician", "the technician")
HANDLER = named("clock.handler", "who has the case")
LADDER = ladder()
ENGINEERING = holders("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER")
TECHNICIANS = holders("TECHNICIAN")
ASSISTANTS = holders("CUSTOMER_ASSISTANT", "CS_SUPERVISOR", "PROJECT_MANAGER")
SUPERVISOR = holders("CS_SUPERVISOR", "PROJECT_MANAGER")
