"""What an estate's people owe day by day, what Steward does for them at set times, and what the 17:00 check (REP-26) finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.duties import Duty, DutyTask
from services.chassis.errors import InvalidInput, Violation
from services.chassis.lifecycle import Act
from services.work_orders import askers, policies, spot_checks
from services.work_orders.repairs import ACCEPTED, OPEN, Repair
from steward.work_orders.v1 import events_pb2 as events

REPAIR_CHECK = "repair_check"
MOST = 1000  # orders of one check; an estate with more has another problem

DUTIES = (
    Duty(REPAIR_CHECK, "FREQ=DAILY", at=policies.CHECK_AT, opens=timedelta(minutes=30), roles=("EARLY_SHIFT_CLERK", "CUSTOMER_ASSISTANT"),
         early_shift=True, superiors=("CS_SUPERVISOR",), ladder=("CS_SUPERVISOR", "PROJECT_MANAGER", "MANAGEMENT_DEPT_MANAGER"), rules="REP-26"),
    Duty("follow_up_plan", "FREQ=DAILY", at="00:00", opens=timedelta(0), roles=(), ladder=(), instead=askers.plan_day, rules="REP-25"),
    Duty("spot_check_draw", "FREQ=MONTHLY;BYMONTHDAY=1", at="09:00", opens=timedelta(0), roles=(), ladder=(), instead=spot_checks.draw, rules="FUP-18"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """An order that has not been handled, or whose paper has not come back; as it was when it was found."""

    repair_id: UUID
    number: str
    state: str
    technician_id: UUID | None
    urgent: bool
    reported_today: bool

    @property
    def problem(self) -> str:
        return "NOT_RETURNED" if self.state == ACCEPTED else "NOT_HANDLED"


def findings(tx: Transaction, task: DutyTask, zone: str) -> list[Finding]:
    """Every order of the estate that nobody has filed or cancelled yet, oldest first; of the day or left over from before."""
    day = task.due_at.astimezone(ZoneInfo(zone)).date()
    rows = tx.session.execute(
        sa.select(Repair.id, Repair.number, Repair.state, Repair.technician_id, Repair.urgent, Repair.reported_at)
        .where(Repair.estate_id == task.estate_id, Repair.state.in_([*OPEN, ACCEPTED]))
        .order_by(Repair.id)
        .limit(MOST)
    )
    return [
        Finding(i, number or "", state, who, urgent, at.astimezone(ZoneInfo(zone)).date() == day)
        for i, number, state, who, urgent, at in rows
    ]


def complete_check(task: DutyTask, act: Act, found: list[Finding], remarks: dict[UUID, str], remark: str) -> None:
    """REP-26: compiled with the reason asked from engineering for every order, and reported to the head of the department.

    Raises InvalidInput(REMARK_MISSING) naming the orders that have none.
    """
    task.LIFECYCLE.legal(task, "complete", act.principal)
    if missing := [line.number for line in found if not remarks.get(line.repair_id)]:
        what = [Violation("remarks", f"must say why {number} stands open") for number in missing]
        raise InvalidInput("every order that is not done needs its reason", reason="REMARK_MISSING", rule="REP-26", violations=what)
    task.complete(act, remark, {"lines": [kept(line, remarks[line.repair_id]) for line in found]})
    not_returned = sum(line.problem == "NOT_RETURNED" for line in found)
    task.record(
        events.RepairCheckCompleted(
            repair_check=str(task.id),
            number=task.number or "",
            count=len(found),
            not_handled=len(found) - not_returned,
            not_returned=not_returned,
        ),
        act,
    )


def kept(line: Finding, remark: str) -> dict[str, Any]:
    """A line as the task keeps it."""
    return {
        "repair": str(line.repair_id),
        "number": line.number,
        "state": line.state,
        "technician": str(line.technician_id) if line.technician_id else None,
        "urgent": line.urgent,
        "today": line.reported_today,
        "remark": remark,
    }


def read(line: dict[str, Any]) -> tuple[Finding, str]:
    """The line again, and its remark."""
    who = UUID(line["technician"]) if line["technician"] else None
    return Finding(UUID(line["repair"]), line["number"], line["state"], who, line["urgent"], line["today"]), line["remark"]
