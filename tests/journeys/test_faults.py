"""A few hundred commands while every part of the platform is killed in turn: what was acknowledged exists once, and so does each effect.

A third of the commands report faults of public areas; the others carry repairs in homes through charge and consent to their end, or
to the point where the household has refused, or has not answered yet. Meanwhile a corrected register is imported.
"""

from __future__ import annotations

import base64
import io
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import openpyxl
import pytest

from services.chassis.__main__ import SERVICES
from services.chassis.testing import eventually
from services.local.first_import import SHIPPED
from services.local.platform import Platform
from services.local.story import signature
from tests.journeys.people import Neighbours
from tests.journeys.stores import Stores

CLIENTS = 6
PUBLIC, ACCEPTED, REJECTED, UNANSWERED = 72, 8, 8, 8  # cases; of 1, 8, 7 and 6 commands
CATEGORIES = ("ELECTRICAL", "DRAINAGE", "DOORS_AND_WINDOWS", "APPLIANCE")  # a fault that comes back is free, so each home has one of each
VICTIMS = ("api-work_orders", "worker", "relay", "jobs", "rabbitmq", "postgres", "api", "gateway")
SELF_CHECK = {"faultRemoved": True, "functionRestored": True, "siteCleared": True}
PACE = 0.25  # seconds that a client pauses before a command, so that some are under way at every kill
PATIENCE = 90.0  # seconds that one command is tried again
DESK, FITTER = "CUSTOMER_ASSISTANT", "TECHNICIAN"

pytestmark = pytest.mark.timeout(300)


class Careful:
    """A client that sends the same key until there is an answer that is not "try again", and counts what it was promised."""

    def __init__(self, who: Neighbours):
        self._http = httpx.Client(base_url=who.http.base_url, timeout=10, trust_env=False)
        self._headers = {person: who.as_(person) for person in (DESK, FITTER, "GENERAL_MANAGER", *who.owners)}
        self.acknowledged: list[str] = []

    def does(self, person: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The resource as it is then."""
        time.sleep(PACE)
        headers, until = {**self._headers[person], "Idempotency-Key": str(uuid.uuid4())}, time.monotonic() + PATIENCE
        while True:
            try:
                answer = self._http.post(path, json=body or {}, headers=headers)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 200:
                self.acknowledged.append(path)
                return answer.json()
            if answer is not None and answer.status_code < 500 and answer.status_code != 429:
                raise AssertionError(f"{path} was refused: {answer.text}")
            if time.monotonic() > until:
                raise AssertionError(f"no answer within {PATIENCE:g} s; the last was {answer and answer.text}")
            time.sleep(0.2)


class Run:
    """The cases of this run."""

    def __init__(self, client: Careful, who: Neighbours):
        self._client, self.mark = client, uuid.uuid4().hex[:8]
        self._estate = f"/v1/estates/{who.estate}/repairs"
        homes = list(dict(zip(who.units, who.owners, strict=True)).items())  # one owner for each unit
        self._homes = [(unit, owner, category) for category in CATEGORIES for unit, owner in homes]

    def in_public(self, number: int) -> str:
        body = {"location": f"{self.mark} 路灯 {number}", "category": "OTHER", "description": "路灯不亮", "contactPhone": "13800000000"}
        return self._client.does(DESK, self._estate, body)["name"]

    def at_home(self, number: int, end: str) -> str:
        """`end` is accept, reject or nothing. Returns the name of the repair."""
        unit, owner, category = self._homes[number]
        does, price = self._client.does, {"currencyCode": "CNY", "units": "86", "nanos": 500_000_000}
        charge = {"item": "角阀 DN15", "quantity": 2, "unitPrice": price, "reason": "锈蚀断裂"}
        part = {"name": "角阀 DN15", "quantity": 2, "qualified": True, "certificate": "合格证 20260817-0931", "shownToOwner": True}
        done = {"workDone": "更换角阀两只", "selfCheck": SELF_CHECK, "parts": [part]}
        body = {"unit": unit, "location": f"{self.mark} {unit}", "category": category, "description": "坏了,请来修"}
        name = does(owner, self._estate, body)["name"]
        does(FITTER, f"/v1/{name}:take")
        does(FITTER, f"/v1/{name}:arrive")
        does(FITTER, f"/v1/{name}:charge", {"charge": charge})
        does(owner, f"/v1/{name}:consent")
        does(FITTER, f"/v1/{name}:complete", done)
        if end == "accept":
            does(owner, f"/v1/{name}:accept", {"rating": {"attitude": 5, "quality": 4}, "signature": signature()})
            does(DESK, f"/v1/{name}:file")
        if end == "reject":
            does(owner, f"/v1/{name}:reject", {"reason": "接口处还在滴水"})
        return name


def corrected_register(estate: str, units: list[str]) -> str:
    """The shipped register in which these homes are being renovated (装修中), base64."""
    book = openpyxl.load_workbook(SHIPPED)
    for row in book["房屋台账"].iter_rows():
        if row[0].value == estate and row[4].value in units:
            row[7].value = "装修中"
    file = io.BytesIO()
    book.save(file)
    return base64.b64encode(file.getvalue()).decode()


@dataclass
class After:
    """What the clients were promised, when everything runs again."""

    mark: str  # with which every place of the run begins
    acknowledged: int  # commands
    public: list[str]
    accepted: list[str]
    rejected: list[str]
    unanswered: list[str]
    register: str  # name of the import
    renovated: list[str]  # homes
    estate: str

    @property
    def homes(self) -> list[str]:
        return self.accepted + self.rejected + self.unanswered

    @property
    def every(self) -> list[str]:
        return self.public + self.homes


@pytest.fixture(scope="module")
def after(platform: Platform, neighbours: Neighbours, stores: Stores) -> After:
    began, client = datetime.now(UTC), Careful(neighbours)
    run, renovated = Run(client, neighbours), sorted(set(neighbours.units))[-3:]
    file = {"filename": "更正.xlsx", "content": corrected_register(neighbours.estate, renovated)}
    homes = [("accept", ACCEPTED), ("reject", REJECTED), ("", UNANSWERED)]
    ends = [end for end, count in homes for _ in range(count)]
    try:
        with ThreadPoolExecutor(CLIENTS + 1) as clients:
            at_home = [clients.submit(run.at_home, number, end) for number, end in enumerate(ends)]
            in_public = [clients.submit(run.in_public, number) for number in range(PUBLIC)]
            importing = None
            for victim in VICTIMS:
                time.sleep(1.5)
                platform.kill(victim, signal.SIGKILL)
                importing = importing or clients.submit(client.does, "GENERAL_MANAGER", "/v1/imports", file)
            names = {end: [case.result() for case, its in zip(at_home, ends, strict=True) if its == end] for end, _ in homes}
            public = [case.result() for case in in_public]
            assert importing is not None
            register = importing.result()["name"]
    finally:
        platform.wait_ready(seconds=60)
    eventually(lambda: not stores.under_way(began), within=60)
    promised = len(client.acknowledged)
    return After(run.mark, promised, public, names["accept"], names["reject"], names[""], register, renovated, neighbours.estate)


def ids(names: list[str]) -> list[str]:
    return sorted(name.rpartition("/")[2] for name in names)


def test_every_acknowledged_command_was_done_once(after: After, stores: Stores) -> None:
    assert after.acknowledged == PUBLIC + 8 * ACCEPTED + 7 * REJECTED + 6 * UNANSWERED + 1
    kept = stores.rows("work_orders", "SELECT id::text, number, state FROM repairs WHERE location LIKE %s", (f"{after.mark} %",))
    states = {identifier: state for identifier, _, state in kept}
    assert len(kept) == len({number for _, number, _ in kept}) == len(after.every)
    expected = [(after.public, "REPORTED"), (after.accepted, "FILED"), (after.rejected, "REWORK"), (after.unanswered, "DONE")]
    assert states == {identifier: state for names, state in expected for identifier in ids(names)}
    for table, whose in (("repair_charges", after.homes), ("follow_ups", after.accepted)):
        found = stores.rows("work_orders", f"SELECT repair_id::text FROM {table} WHERE repair_id = ANY(%s::uuid[])", (ids(after.every),))
        assert sorted(identifier for (identifier,) in found) == ids(whose), table


def test_every_event_is_in_the_log_once_and_published_without_a_gap(after: After, stores: Stores) -> None:
    logged = "SELECT aggregate_id::text FROM events WHERE type = %s AND aggregate_id = ANY(%s::uuid[])"
    happened = {
        "RepairReported": after.every, "RepairTaken": after.homes, "RepairArrived": after.homes, "RepairCompleted": after.homes,
        "RepairAccepted": after.accepted, "RepairFiled": after.accepted, "RepairRejected": after.rejected,
    }  # fmt: skip
    for kind, names in happened.items():
        assert sorted(row[0] for row in stores.rows("work_orders", logged, (kind, ids(after.every)))) == ids(names), kind
    for service in SERVICES:
        positions = "SELECT count(position), count(DISTINCT position), coalesce(max(position) - min(position) + 1, 0) FROM events"
        count, different, span = stores.rows(service, positions)[0]
        assert count == different == span, service


def test_governance_has_counted_every_case_once(after: After, stores: Stores) -> None:
    asked = "SELECT id::text, reported_at IS NOT NULL, accepted > 0, reworks, cancelled FROM service_cases WHERE id = ANY(%s::uuid[])"
    expected = [(after.public, False, 0), (after.accepted, True, 0), (after.rejected, False, 1), (after.unanswered, False, 0)]
    assert sorted(stores.rows("governance", asked, (ids(after.every),))) == sorted(
        (identifier, True, accepted, reworks, False) for names, accepted, reworks in expected for identifier in ids(names)
    )


@pytest.mark.rule("REP-37")
def test_billing_shows_every_charge_once_and_as_the_household_has_decided(after: After, stores: Stores) -> None:
    asked = "SELECT repair_id::text, state, amount::text FROM receivables WHERE repair_id = ANY(%s::uuid[])"
    expected = [(after.accepted, "DUE"), (after.rejected, "VOID"), (after.unanswered, "PROVISIONAL")]
    assert sorted(stores.rows("billing_reminders", asked, (ids(after.every),))) == sorted(
        (identifier, state, "173.00") for names, state in expected for identifier in ids(names)
    )


def test_surveys_keep_the_grades_of_every_acceptance_once(after: After, stores: Stores) -> None:
    asked = "SELECT id::text, attitude, quality FROM satisfaction_answers WHERE id = ANY(%s::uuid[])"
    assert sorted(stores.rows("surveys", asked, (ids(after.every),))) == [(identifier, 5, 4) for identifier in ids(after.accepted)]


def test_everybody_concerned_was_told_once(after: After, stores: Stores) -> None:
    asked = "SELECT subject, count(*), count(DISTINCT recipient) FROM messages WHERE kind = %s AND subject = ANY(%s) GROUP BY 1 ORDER BY 1"
    concerned = {  # and how many people of this estate each concerns
        "REPAIR_REPORTED": (after.every, 1), "REPAIR_RECEIVED": (after.homes, 1), "REPAIR_COMPLETED": (after.homes, 1),
        "REPAIR_ACCEPTED": (after.accepted, 1), "REPAIR_REJECTED": (after.rejected, 2),
    }  # fmt: skip
    for kind, (names, people) in concerned.items():
        assert stores.rows("notifications", asked, (kind, after.every)) == [(name, people, people) for name in sorted(names)], kind


def test_the_import_has_ended_and_every_service_knows_of_the_renovated_homes(after: After, stores: Stores) -> None:
    state = "SELECT state FROM operations WHERE id = %s"
    eventually(lambda: stores.rows("residents", state, (after.register.rpartition("/")[2],)) == [("SUCCEEDED",)], within=90)
    [(estate_id,)] = stores.rows("residents", "SELECT id FROM estates WHERE code = %s", (after.estate,))
    asked = "SELECT code FROM dir_nodes WHERE estate_id = %s AND code = ANY(%s) AND under_renovation ORDER BY 1"

    def known(service: str) -> bool:
        return [code for (code,) in stores.rows(service, asked, (estate_id, after.renovated))] == after.renovated

    for service in SERVICES:
        if service != "residents":
            eventually(partial(known, service), within=60)
    records = "SELECT n.code FROM renovations r JOIN dir_nodes n ON n.id = r.unit_id WHERE n.estate_id = %s AND n.code = ANY(%s) ORDER BY 1"
    eventually(lambda: [code for (code,) in stores.rows("renovation", records, (estate_id, after.renovated))] == after.renovated, within=60)
