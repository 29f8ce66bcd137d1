"""Who is meant by a line of the routing table: a person the event names, those who hold a post, or a rung of the ladder.

An audience is found from the event and this service's copy of the directory, never from what an earlier event said, so
that it does not matter in which order events arrive. Of those who hold a role the ones on duty are told, by the roster of the
moment at which it happened (of a time limit: at which it was due), not of the moment at which it is heard of.

What a line means is worked out from the event alone; then the directory is asked once for all lines of all events at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import Unavailable
from services.chassis.on_duty import Roster, roster
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
class Post:
    """All who are on duty in the first of `roles` that anybody answers for at the event's estate."""

    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audience:
    """`says` is its cell in the table of the README."""

    says: str
    meant: Callable[[Event[Any]], Found | Post]


def named(field: str, says: str) -> Audience:
    """Whom a field of the event names (`technician`, `clock.handler`); nobody when it is empty."""
    value = attrgetter(field)

    def meant(event: Event[Any]) -> Found:
        name: str = value(event.data)
        return Found((name,)) if name else Found()

    return Audience(says, meant)


def holders(*roles: str) -> Audience:
    """All who are on duty in the first of `roles` that anybody answers for at the estate."""
    post = Post(roles)
    return Audience(", else ".join(f"`{role}`" for role in roles), lambda event: post)


def ladder() -> Audience:
    """The rung of the ladder that is due: 1 at the breach, then as the event says. A vacant one is passed over at once."""

    def meant(event: Event[Any]) -> Found | Post:
        rungs = tuple(event.data.clock.ladder)[max(getattr(event.data, "rung", 1), 1) - 1 :]
        return Post(rungs) if rungs else Found()

    return Audience("the rung that is due, else the next one that is held", meant)


def assignees() -> Audience:
    """Those whom the event names; where it names nobody, those in its role."""

    def meant(event: Event[Any]) -> Found | Post:
        return Found(tuple(event.data.assignees), event.data.role) if event.data.assignees else Post((event.data.role,))

    return Audience("those to whom the duty falls", meant)


def find(tx: Transaction, wanted: Sequence[tuple[Event[Any], Audience]]) -> list[Found]:
    """Who each audience is, in the order asked.

    Raises Unavailable while the directory has no first copy or does not know an estate: the event comes again.
    """
    meant = [(event, audience.meant(event)) for event, audience in wanted]
    posts = [(event, who) for event, who in meant if isinstance(who, Post)]
    if not posts:
        return [who for _, who in meant if isinstance(who, Found)]
    estates = _estates(tx, [event for event, _ in posts])
    asked = {(role, event.estate_id): (role, estates[event.estate_id]) for event, post in posts for role in post.roles if event.estate_id}
    instants = [event.time for event, _ in posts]
    on_duty = roster(tx, asked.values(), min(instants), max(instants))
    return [who if isinstance(who, Found) else _first_held(who, event, on_duty) for event, who in meant]


def _estates(tx: Transaction, events: Sequence[Event[Any]]) -> dict[UUID, directory.Estate]:
    known = directory.estates_by_id(tx, {event.estate_id for event in events if event.estate_id})
    for event in events:
        if event.estate_id not in known:
            raise Unavailable(f"the directory does not know the estate of {event.subject} yet", reason="ESTATE_UNKNOWN", retry_after=1)
    return known


def _first_held(post: Post, event: Event[Any], on_duty: Roster) -> Found:
    for place, role in enumerate(post.roles):
        if event.estate_id and (staff := on_duty.on_duty(role, event.estate_id, event.time)):
            return Found(tuple(f"staff/{member}" for member in staff), role, post.roles[:place])
    return Found(role=post.roles[-1], skipped=post.roles, vacant=True)


REPORTER = named("reporter", "the reporter")
TECHNICIAN = named("technician", "the technician")
HANDLER = named("clock.handler", "who has the case")
ASSIGNEE = named("assignee", "whom it falls to")
LADDER = ladder()
DUTY = assignees()
ENGINEERING = holders("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER")
TECHNICIANS = holders("TECHNICIAN")
ASSISTANTS = holders("CUSTOMER_ASSISTANT", "CS_SUPERVISOR", "PROJECT_MANAGER")
SUPERVISOR = holders("CS_SUPERVISOR", "PROJECT_MANAGER")
