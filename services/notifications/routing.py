"""Who is told what when: the rule book's word on it, one line each.

The reactions follow this table and the README shows it (`python -m services.notifications.routing` prints it anew).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from services.chassis.reactions import Event
from services.notifications.audiences import (
    ASSIGNEE,
    ASSISTANTS,
    DUTY,
    ENGINEERING,
    HANDLER,
    LADDER,
    REPORTER,
    SUPERVISOR,
    TECHNICIAN,
    TECHNICIANS,
    Audience,
)
from services.notifications.templates import TEMPLATES
from steward.chassis.v1.events_pb2 import ClockBreached, ClockEscalated, ClockWarned, DutyOpened
from steward.work_orders.v1.events_pb2 import (
    FaultRecurring,
    FollowUpAnswered,
    FollowUpAssigned,
    FollowUpDelegated,
    FollowUpMissed,
    FollowUpOpened,
    RepairAccepted,
    RepairAppointed,
    RepairCancelled,
    RepairCheckCompleted,
    RepairCompleted,
    RepairCorrected,
    RepairDispatched,
    RepairMerged,
    RepairPaused,
    RepairRejected,
    RepairReopened,
    RepairReplanned,
    RepairReported,
    RepairResumed,
    RepairReturned,
    RepairTaken,
    RepairTransferred,
    RepairUrged,
    SpotCheckDeviated,
    SpotCheckRoundOpened,
)

CLOCK_SOURCES = ("work_orders",)  # services whose clocks and duties are listened to


def urgent(event: Event[Any]) -> bool:
    """it is urgent"""
    return event.data.urgent


def in_public_area(event: Event[Any]) -> bool:
    """in a public area"""
    return not event.data.unit_id


def nobody_has_it(event: Event[Any]) -> bool:
    """nobody has the case"""
    return not event.data.clock.handler


def not_collected(event: Event[Any]) -> bool:
    """it is the clock `pickup`"""
    return event.data.clock.clock == "pickup"


def not_solved(event: Event[Any]) -> bool:
    """it is the clock `resolve`"""
    return event.data.clock.clock == "resolve"


def dissatisfied_again(event: Event[Any]) -> bool:
    """the household was dissatisfied in the last round that is tolerated"""
    return event.data.escalated


@dataclass(frozen=True, slots=True)
class Route:
    """One line: when `event` happens (and `when` holds), `audience` is sent the wording `kind`. `when`'s docstring is its README cell."""

    event: type[Message]
    audience: Audience
    kind: str
    rules: str
    when: Callable[[Event[Any]], bool] | None = None

    def __post_init__(self) -> None:
        if self.kind not in TEMPLATES:
            raise ValueError(f"there is no wording {self.kind}")


# Of one event a person is sent one message: the first line that finds him wins.
ROUTES = (
    #     event              audience      wording                  rules            when
    Route(RepairReported,    ENGINEERING,  "REPAIR_REPORTED",       "REP-08"),
    Route(RepairReported,    TECHNICIANS,  "REPAIR_CALLED",         "REP-07 REP-08", urgent),
    Route(RepairReported,    REPORTER,     "REPAIR_RECEIVED",       "REP-01 REC-06"),
    Route(RepairDispatched,  TECHNICIAN,   "REPAIR_DISPATCHED",     "REP-13"),
    Route(RepairTaken,       REPORTER,     "REPAIR_TAKEN",          "REP-09 REC-06"),
    Route(RepairReturned,    ENGINEERING,  "REPAIR_RETURNED",       "REP-08 REP-09"),
    Route(RepairCompleted,   REPORTER,     "REPAIR_COMPLETED",      "REP-19 REP-20"),
    Route(RepairCompleted,   ENGINEERING,  "REPAIR_INSPECTION_DUE", "REP-22",        in_public_area),
    Route(RepairRejected,    TECHNICIAN,   "REPAIR_REJECTED",       "REP-21"),
    Route(RepairRejected,    ENGINEERING,  "REPAIR_REJECTED",       "REP-21"),
    Route(RepairAccepted,    TECHNICIAN,   "REPAIR_ACCEPTED",       "REP-19 REP-24"),
    Route(RepairCancelled,   TECHNICIAN,   "REPAIR_CANCELLED",      "REP-35"),
    Route(RepairUrged,       TECHNICIAN,   "REPAIR_URGED",          "REP-10"),
    Route(RepairUrged,       ENGINEERING,  "REPAIR_URGED",          "REP-10"),
    Route(RepairTransferred, TECHNICIAN,   "REPAIR_TRANSFERRED",    "REP-13"),
    Route(RepairReplanned,   REPORTER,     "REPAIR_REPLANNED",      "REP-17"),
    Route(RepairReplanned,   ENGINEERING,  "REPAIR_REPLANNED_NOTICE", "REP-17"),
    Route(RepairPaused,      REPORTER,     "REPAIR_PAUSED",         "REC-11"),
    Route(RepairResumed,     REPORTER,     "REPAIR_RESUMED",        "REC-11"),
    Route(RepairReopened,    TECHNICIAN,   "REPAIR_REOPENED",       "FUP-12"),
    Route(RepairReopened,    ENGINEERING,  "REPAIR_REOPENED",       "FUP-12"),
    Route(RepairReopened,    SUPERVISOR,   "REPAIR_REOPENED",       "REP-31"),
    Route(RepairAppointed,   REPORTER,     "REPAIR_APPOINTED",      "REP-14"),
    Route(RepairCorrected,   TECHNICIAN,   "REPAIR_CORRECTED",      "REP-13"),
    Route(RepairCorrected,   ENGINEERING,  "REPAIR_CORRECTED",      "REP-08",        urgent),
    Route(RepairMerged,      REPORTER,     "REPAIR_MERGED",         "REP-35 REC-11"),
    Route(FaultRecurring,    ENGINEERING,  "FAULT_RECURRING",       "REP-30"),
    Route(DutyOpened,        DUTY,         "DUTY_OPENED",           "REP-26"),
    Route(RepairCheckCompleted, SUPERVISOR, "REPAIR_CHECK_COMPLETED", "REP-26"),
    Route(FollowUpOpened,    ASSIGNEE,     "FOLLOW_UP_ASSIGNED",    "REP-25"),
    Route(FollowUpAssigned,  ASSIGNEE,     "FOLLOW_UP_ASSIGNED",    "REP-25"),
    Route(FollowUpDelegated, ASSIGNEE,     "FOLLOW_UP_ASSIGNED",    "REP-25"),
    Route(FollowUpMissed,    SUPERVISOR,   "FOLLOW_UP_MISSED",      "FUP-27"),
    Route(FollowUpAnswered,  SUPERVISOR,   "FOLLOW_UP_ESCALATED",   "FUP-12",        dissatisfied_again),
    Route(SpotCheckRoundOpened, DUTY,      "SPOT_CHECKS_DUE",       "FUP-15 FUP-16 FUP-17"),
    Route(SpotCheckDeviated, SUPERVISOR,   "SPOT_CHECK_DEVIATED",   "FUP-15"),
    Route(ClockWarned,       HANDLER,      "CLOCK_WARNED",          "REP-10"),
    Route(ClockWarned,       ASSISTANTS,   "CLOCK_URGED",           "REP-10",        nobody_has_it),
    Route(ClockBreached,     LADDER,       "CLOCK_BREACHED",        "REP-09"),
    Route(ClockBreached,     ASSISTANTS,   "REPAIR_UNCOLLECTED",    "REP-10",        not_collected),
    Route(ClockBreached,     SUPERVISOR,   "REPAIR_OVERDUE",        "REP-31",        not_solved),
    Route(ClockEscalated,    LADDER,       "CLOCK_ESCALATED",       "REP-09"),
)  # fmt: skip


_BY_EVENT = {event: [route for route in ROUTES if route.event is event] for event in {route.event for route in ROUTES}}


def routes_of(event: Event[Any]) -> list[Route]:
    """The lines that hold for an event, in their order."""
    return [route for route in _BY_EVENT[type(event.data)] if route.when is None or route.when(event)]


def sources(event: type[Message]) -> tuple[str, ...]:
    """The services whose events of this type are listened to."""
    package = event.DESCRIPTOR.file.package.split(".")[1]
    return CLOCK_SOURCES if package == "chassis" else (package,)


def table() -> str:
    """The routing table as Markdown, with each approved wording."""
    lines = ["| When | Told | Title | Text | Rules |", "|---|---|---|---|---|"]
    for route in ROUTES:
        event, template = route.event.DESCRIPTOR.name, TEMPLATES[route.kind]
        when = f"`{event}`, if {route.when.__doc__}" if route.when else f"`{event}`"
        lines.append(f"| {when} | {route.audience.says} | {template.title} | {template.body} | {route.rules} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
