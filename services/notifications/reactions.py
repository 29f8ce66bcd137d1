"""Tells the people concerned, as the routing table says."""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prometheus_client import Counter

from services.chassis.db import Transaction
from services.chassis.names import last
from services.chassis.reactions import Event, on
from services.notifications.audiences import Found, find
from services.notifications.messages import deliver
from services.notifications.routing import ROUTES, Route, routes_of, sources
from services.notifications.templates import TEMPLATES, case_name, clock_name, role_name, span

log = logging.getLogger(__name__)

TOLD = Counter("steward_messages_told_total", "Messages put into inboxes, by kind.", ["kind"])
VACANT = Counter(
    "steward_ladder_vacant_total",
    "Times nobody could be told because nobody holds the role nor one above it; service: whose case it is, post: the topmost one tried.",
    ["service", "post"],
)


def tell(events: Sequence[Event[Any]], tx: Transaction) -> None:
    """Of each event, sends each person concerned one message. Raises Unavailable while the directory does not know an estate."""
    lines = [(event, route) for event in events for route in routes_of(event)]
    messages: dict[tuple[UUID, str], dict[str, Any]] = {}
    for (event, route), found in zip(lines, find(tx, [(event, route.audience) for event, route in lines]), strict=True):
        if found.vacant:
            _warn_of_vacancy(event, found, tx)
        for recipient in found.recipients:
            if (event.id, recipient) not in messages:
                messages[event.id, recipient] = _message(event, route, found, recipient)
    _count(deliver(tx, list(messages.values())), tx)


for _event in dict.fromkeys(route.event for route in ROUTES):
    for _source in sources(_event):
        on(_event, source=_source, together=True)(tell)


def _message(event: Event[Any], route: Route, found: Found, recipient: str) -> dict[str, Any]:
    clock, urgent = getattr(event.data, "clock", None), bool(getattr(event.data, "urgent", False))
    number = event.data.number if clock is None else clock.number
    parameters: dict[str, str | int] = {
        "number": number or last(event.subject),
        "estate": event.subject.split("/")[1],
        "count": next((getattr(event.data, name) for name in ("rework_count", "urge_count", "count") if hasattr(event.data, name)), 0),
        "role": role_name(found.role),
    }
    if clock is not None:
        urgent = clock.urgent
        parameters |= {"case": case_name(clock.aggregate), "clock": clock_name(clock.clock), "limit": span(clock.target_seconds)}
    title, body = TEMPLATES[route.kind].text(parameters, urgent=urgent, skipped=found.skipped)
    return {
        "group_id": event.group_id,
        "company_id": event.company_id,
        "estate_id": event.estate_id,
        "recipient": recipient,
        "kind": route.kind,
        "title": title,
        "body": body,
        "subject": event.subject,
        "number": number,
        "urgent": urgent,
        "skipped_roles": list(found.skipped),
        "event_id": event.id,
        "occurred_at": event.time,
    }


def _count(kinds: list[str], tx: Transaction) -> None:
    def count() -> None:
        for kind, number in Tally(kinds).items():
            TOLD.labels(kind).inc(number)

    tx.after_commit.append(count)


def _warn_of_vacancy(event: Event[Any], found: Found, tx: Transaction) -> None:
    def count() -> None:
        VACANT.labels(event.source, found.role).inc()
        log.warning("%s of %s: nobody holds %s", event.type, event.subject, ", nor ".join(found.skipped))

    tx.after_commit.append(count)
