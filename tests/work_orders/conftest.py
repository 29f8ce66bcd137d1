"""The service work_orders over its real port, and repairs carried to any state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from services.chassis import clocks
from services.chassis.db import Database
from services.chassis.rpc import Server
from services.chassis.testing import Api, Caller, Refused, Tree, a_tree, set_time
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.conftest import Databases

PNG = b"\x89PNG\r\n\x1a\n" + b"signed"
CHECKED = {"fault_removed": True, "function_restored": True, "site_cleared": True}
WAY = ("REPORTED", "TAKEN", "ON_SITE", "DONE", "ACCEPTED", "FILED")


@dataclass
class Desk:
    """An estate with its people, and what they do with repairs."""

    server: Server
    api: Api
    database: Database
    tree: Tree

    def call(self, who: Caller | str | None, rpc: str, /, **fields: Any) -> Any:
        return self.api.call(who, rpc, **fields)

    def refused(self, who: Caller | str | None, rpc: str, /, **fields: Any) -> Refused:
        """The refusal of a call. Fails when it is allowed."""
        with pytest.raises(Refused) as refused:
            self.api.call(who, rpc, **fields)
        return refused.value

    def report(self, who: Caller | None = None, **repair: Any) -> pb.Repair:
        """A leak in the owner's kitchen, by the owner, unless told otherwise."""
        fields = {"unit": self.tree.unit, "category": "LEAK", "description": "厨房水管漏水"} | repair
        return self.call(who or self.tree.owner, "ReportRepair", parent=self.tree.parent, repair=fields)

    def in_public(self, **repair: Any) -> pb.Repair:
        fields = {"unit": "", "location": "1栋大堂", "category": "PUBLIC_FACILITY", "contact_phone": "13800000000"} | repair
        return self.report(self.tree.staff["CUSTOMER_ASSISTANT"], **fields)

    def step(self, repair: pb.Repair) -> pb.Repair:
        """The next step of the main line."""
        staff, state, name = self.tree.staff, pb.Repair.State.Name(repair.state), repair.name
        if state == "REPORTED":
            return self.call(staff["TECHNICIAN"], "TakeRepair", name=name)
        if state in ("TAKEN", "REWORK"):
            return self.call(staff["TECHNICIAN"], "ArriveRepair", name=name)
        if state == "ON_SITE":
            return self.call(
                staff["TECHNICIAN"], "CompleteRepair", name=name, work_done="换了阀门", self_check=CHECKED, parts=parts_of(repair)
            )
        if state == "DONE":
            who = self.tree.owner if repair.unit else staff["ENGINEERING_SUPERVISOR"]
            return self.call(who, "AcceptRepair", name=name, rating={"attitude": 5, "quality": 4}, signature=PNG)
        if state == "ACCEPTED":
            return self.call(staff["CUSTOMER_ASSISTANT"], "FileRepair", name=name)
        raise AssertionError(f"nothing follows {state}")

    def carry(self, repair: pb.Repair, to: str) -> pb.Repair:
        while pb.Repair.State.Name(repair.state) != to:
            repair = self.step(repair)
        return repair

    def at(self, state: str, **repair: Any) -> pb.Repair:
        """A new repair, carried along the main line to a state."""
        return self.carry(self.report(**repair), state)

    def now(self, repair: pb.Repair) -> pb.Repair:
        """The repair as everybody in charge sees it."""
        return self.call(self.tree.staff["PROJECT_MANAGER"], "GetRepair", name=repair.name)

    def history(self, repair: pb.Repair) -> list[Any]:
        return list(self.call(self.tree.staff["PROJECT_MANAGER"], "ListRepairHistory", parent=repair.name).entries)

    def sweep_at(self, at: datetime) -> None:
        """The estate's clocks at an instant of business time."""
        set_time(self.database, at)
        clocks.sweep(self.database)


def parts_of(repair: pb.Repair) -> list[dict[str, Any]]:
    """What has been charged as material, as a technician records it: qualified, and shown to the household."""
    charged = [charge for charge in repair.charges if charge.kind != pb.Charge.LABOUR]
    return [{"name": c.item, "quantity": c.quantity, "qualified": True, "shown_to_owner": True} for c in charged]


def case_id(repair: pb.Repair) -> str:
    return repair.name.rsplit("/", 1)[-1]


def state(repair: pb.Repair) -> str:
    return pb.Repair.State.Name(repair.state)


def clock(repair: pb.Repair, name: str) -> pb.Clock:
    """The clock of that name that was started last."""
    return [found for found in repair.clocks if found.clock == name][-1]


def instant(stamp: Any) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


@pytest.fixture(scope="session")
def work_orders(database_of: Databases, serving_of: Callable[[str], tuple[Server, Api]]) -> tuple[Server, Api, Database]:
    database = database_of("work_orders")
    return *serving_of("work_orders"), database


@pytest.fixture
def desk(work_orders: tuple[Server, Api, Database]) -> Desk:
    """An estate of the test's own."""
    server, api, database = work_orders
    return Desk(server, api, database, a_tree(database))


@pytest.fixture
def elsewhere(work_orders: tuple[Server, Api, Database]) -> Desk:
    """Another estate, of another group."""
    server, api, database = work_orders
    return Desk(server, api, database, a_tree(database))
