"""What the tests of follow-ups share: filed orders, what households say, rosters, and a working day that goes by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from services.chassis import clocks, directory, duties
from services.chassis.access import Grant
from services.chassis.testing import Caller, set_time
from services.work_orders import policies
from steward.work_orders.v1 import followups_pb2 as pb
from steward.work_orders.v1 import repairs_pb2
from tests.rostered import arrive, post, shift
from tests.work_orders.conftest import Desk

CHINA = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=CHINA)  # a Monday
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
SATISFIED = {"method": "TELEPHONE", "dealt_with": True, "grade": "SATISFIED", "opinion": "很快"}
UNHAPPY = {"method": "TELEPHONE", "dealt_with": False, "grade": "NOT_SATISFIED", "opinion": "又漏了", "reason": "NOT_SOLVED"}
VALVE = {"item": "角阀", "quantity": 1, "unit_price": {"currency_code": "CNY", "units": 35}, "reason": "更换"}


def filed(desk: Desk, at: datetime = NOON, repair: Any = None) -> repairs_pb2.Repair:
    set_time(desk.database, at)
    return desk.carry(repair or desk.report(), "FILED")


def charged(desk: Desk, repair: repairs_pb2.Repair | None = None, **charge: Any) -> repairs_pb2.Repair:
    """An order on site with a charge that the household has agreed to."""
    repair = repair or desk.at("ON_SITE")
    desk.call(desk.tree.technician, "ChargeRepair", name=repair.name, charge=VALVE | charge)
    return desk.call(desk.tree.technician, "ConsentRepair", name=repair.name, method="TELEPHONE", given_by="王女士")


def follow_up_of(desk: Desk, repair: repairs_pb2.Repair) -> pb.FollowUp:
    found = desk.call(desk.tree.staff["CS_SUPERVISOR"], "ListFollowUps", parent=desk.tree.parent, page_size=100).follow_ups
    [one] = [follow_up for follow_up in found if follow_up.repair == repair.name]
    return one


def asked(desk: Desk, at: datetime = NOON, *, who: Caller | None = None, repair: Any = None, **said: Any) -> pb.FollowUp:
    """A follow-up of a new order, answered an hour after it was filed."""
    follow_up = follow_up_of(desk, filed(desk, at, repair))
    set_time(desk.database, at + HOUR)
    return desk.call(who or desk.tree.staff["EARLY_SHIFT_CLERK"], "AnswerFollowUp", name=follow_up.name, **(SATISFIED | said))


def seen(desk: Desk, follow_up: pb.FollowUp) -> pb.FollowUp:
    return desk.call(desk.tree.staff["CS_SUPERVISOR"], "GetFollowUp", name=follow_up.name)


def name(follow_up: pb.FollowUp) -> str:
    return pb.FollowUp.State.Name(follow_up.state)


def kind(follow_up: pb.FollowUp) -> str:
    return pb.FollowUp.Class.Name(getattr(follow_up, "class"))


def case(message: Any) -> str:
    """The id in the name of a resource."""
    return message.name.rsplit("/", 1)[-1]


def early(desk: Desk, who: Caller, day: int, *, month: int = 11) -> None:
    """Somebody is on the early shift of a day of the year 2026."""
    begins = datetime(2026, month, day, 7, tzinfo=CHINA)
    arrive(desk.database, shift(who, desk.tree, "EARLY_SHIFT_CLERK", begins, begins + 8 * HOUR, early=True))


def employ(desk: Desk, *roles: str) -> Caller:
    """Somebody with several posts at the estate."""
    who = Caller("staff", uuid4(), tuple(Grant(role, "estate", desk.tree.estate_id) for role in roles))
    arrive(desk.database, *(post(who, role, desk.tree.estate_id) for role in roles))
    return who


def vacate(desk: Desk, *roles: str) -> None:
    """Nobody of the estate's tree holds these roles any more."""
    with desk.database.transaction() as tx:
        for role in roles:
            tx.execute("UPDATE dir_posts SET deleted = true WHERE node_id = %s AND role = %s", (desk.tree.node_of(role)[1], role))


def override(desk: Desk, policy: policies.Policy, value: float | str) -> None:
    """The estate's own value of a policy, in force at once."""
    with desk.database.transaction() as tx:
        tx.execute(
            "INSERT INTO policy_overrides (key, node_id, value, changed_by) VALUES (%s, %s, %s, 'test')",
            (policy.key, desk.tree.estate_id, json.dumps(value)),
        )
    desk.server.databases["work_orders"].policies.forget()
    desk.database.policies.forget()


@contextmanager
def living(desk: Desk, monkeypatch: pytest.MonkeyPatch, at: datetime) -> Iterator[None]:
    """Time goes by at this estate alone: its duties are planned from an instant on."""
    monkeypatch.setattr(directory, "estates", lambda tx: [desk.tree.estate])
    set_time(desk.database, at)
    duties.plan(desk.database)
    yield
    with desk.database.transaction() as tx:
        tx.execute("DELETE FROM duties")


def pass_to(desk: Desk, at: datetime) -> None:
    """What Steward does by itself until an instant, is done."""
    set_time(desk.database, at)
    duties.run_duties(desk.database)
    clocks.sweep(desk.database)
