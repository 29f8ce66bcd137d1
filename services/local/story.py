"""The story of a burst pipe, played on the running platform through its public API and told as it happens (`make demo`).

03:10: a resident of 天府花园 reports it; nobody picks it up; the night's clocks remind and escalate; a technician takes it,
replaces a valve with the household's consent; the owner rejects, accepts, rates; the follow-up asks; billing has the
receivable; the inboxes show who was told what and when.
"""

from __future__ import annotations

import base64
import math
import struct
import sys
import time
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx

ZONE = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: the estate's code, a unit, its owner's phone, staff numbers by role."""

    estate: str
    unit: str
    owner_phone: str
    staff: dict[str, str]
    password: str
    code: str


class Refused(Exception):
    """The platform answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]):
        super().__init__(f"{status} {problem.get('reason', '')}: {problem.get('detail', '')}")
        self.status, self.problem = status, problem


class Person:
    """Somebody signed in."""

    def __init__(self, http: httpx.Client, form: dict[str, str]):
        answer = http.post("/v1/auth/token", data=form)
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json())
        self._http, self._token = http, answer.json()["access_token"]

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._answer(self._http.get(path, params=query, headers=self._headers()))

    def post(self, path: str, body: dict[str, Any] | None = None, *, key: str = "") -> dict[str, Any]:
        """A command under an idempotency key; asked again after 503, as a careful client does."""
        headers = {**self._headers(), "Idempotency-Key": key or str(uuid.uuid4())}
        for attempt in range(5):
            answer = self._http.post(path, json=body or {}, headers=headers)
            if answer.status_code != 503:
                break
            time.sleep(0.3 * (attempt + 1))
        return self._answer(answer)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    @staticmethod
    def _answer(answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json())
        return answer.json()


@dataclass(slots=True)
class Outcome:
    """What the story left behind, for whoever checks it."""

    repair: dict[str, Any] = field(default_factory=dict)
    follow_up: dict[str, Any] = field(default_factory=dict)
    receivables: list[dict[str, Any]] = field(default_factory=list)
    fired: list[dict[str, str]] = field(default_factory=list)
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)


def signature() -> str:
    """A drawn line as a PNG, base64: 64 × 16 pixels, grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + bytes(0 if abs(x // 4 - y) < 2 else 255 for x in range(64)) for y in range(16))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 16, 8, 0, 0, 0, 0))
    return base64.b64encode(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")).decode()


def play(base: str, cast: Cast, tell: Callable[[str], None]) -> Outcome:
    """Plays the story against a gateway. Raises Refused when the platform answers otherwise than the story expects."""
    with httpx.Client(base_url=base, timeout=90, trust_env=False) as http:
        return _play(http, cast, tell)


def _play(http: httpx.Client, cast: Cast, tell: Callable[[str], None]) -> Outcome:
    outcome = Outcome()

    def staff(role: str) -> Person:
        return Person(http, {"grant_type": "password", "username": cast.staff[role], "password": cast.password})

    def advance(by: timedelta) -> datetime:
        answer = http.post("/v1/dev/time:advance", json={"duration": f"{max(math.ceil(by.total_seconds()), 0)}s"})
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json())
        outcome.fired += answer.json()["fired"]
        return datetime.fromisoformat(answer.json()["now"]).astimezone(ZONE)

    now = advance(timedelta(0))
    outcome.fired.clear()
    night = now.replace(hour=3, minute=10, second=0, microsecond=0)
    now = advance((night if night > now else night + timedelta(days=1)) - now)
    outcome.fired.clear()
    tell(f"{now:%H:%M}  It is night in {cast.estate}. The owner of {cast.unit} wakes to water on the floor.")

    http.post("/v1/auth/code", json={"phone": cast.owner_phone})
    owner = Person(http, {"grant_type": "urn:steward:params:oauth:grant-type:otp", "phone": cast.owner_phone, "code": cast.code})
    body = {"unit": cast.unit, "category": "BURST_PIPE", "description": "厨房水管爆裂,地上全是水", "location": "厨房"}
    repair = owner.post(f"/v1/estates/{cast.estate}/repairs", body)
    name = f"/v1/{repair['name']}"
    tell(f"{now:%H:%M}  Reported as {repair['number']}; urgent: {repair['urgent']}. Clocks: {_clocks(repair)}")

    now = advance(timedelta(minutes=50))
    for event in outcome.fired:
        if event["subject"] == repair["name"]:
            at = datetime.fromisoformat(event["time"]).astimezone(ZONE)
            tell(f"{at:%H:%M}  {event['type']}: {event['clock']}")

    technician = staff("TECHNICIAN")
    repair = technician.post(f"{name}:take")
    tell(f"{now:%H:%M}  A technician takes it. Clocks: {_clocks(repair)}")
    now = advance(timedelta(minutes=12))
    repair = technician.post(f"{name}:arrive")
    price = {"currencyCode": "CNY", "units": "86", "nanos": 500000000}
    technician.post(
        f"{name}:charge", {"charge": {"item": "角阀 DN15", "quantity": 2, "unitPrice": price, "reason": "原阀门锈蚀断裂,需更换"}}
    )
    try:
        technician.post(f"{name}:complete", _done("更换角阀"))
    except Refused as refused:
        tell(f"{now:%H:%M}  He wants to finish without consent: {refused}")
    owner.post(f"{name}:consent")
    now = advance(timedelta(minutes=40))
    valves = {"name": "角阀 DN15", "quantity": 2, "qualified": True, "certificate": "合格证 20260817-0931", "shownToOwner": True}
    repair = technician.post(f"{name}:complete", _done("更换角阀两只,试压正常", valves))
    tell(f"{now:%H:%M}  Two valves replaced and shown, {_money(repair['chargeTotal'])}, with the owner's consent.")
    repair = owner.post(f"{name}:reject", {"reason": "接口处还在滴水"})
    tell(f"{now:%H:%M}  The owner rejects: {repair['state']}.")
    technician.post(f"{name}:arrive")
    now = advance(timedelta(minutes=20))
    technician.post(f"{name}:complete", _done("重新缠绕生料带,紧固接口,观察二十分钟无渗漏"))
    repair = owner.post(f"{name}:accept", {"rating": {"attitude": 5, "quality": 4, "comment": "来得晚了点"}, "signature": signature()})
    tell(f"{now:%H:%M}  After rework the owner accepts, signs and rates: {repair['rating']}. Clocks: {_clocks(repair)}")

    morning = now.replace(hour=9, minute=30)
    now = advance(morning - now)
    clerk = staff("CUSTOMER_ASSISTANT")
    repair = clerk.post(f"{name}:file")
    follow_ups = clerk.get(f"/v1/estates/{cast.estate}/followUps", states="PENDING")["followUps"]
    follow_up = next(f for f in follow_ups if f["repair"] == repair["name"])
    answers = {"method": "TELEPHONE", "dealtWith": True, "grade": "SATISFIED", "opinion": "师傅态度很好"}
    outcome.follow_up = clerk.post(f"/v1/{follow_up['name']}:answer", answers)
    tell(f"{now:%H:%M}  The front desk files the order and telephones: {outcome.follow_up['attempts'][-1]['grade']}.")

    advance(timedelta(0))
    cashier = staff("CASHIER")
    every = cashier.get(f"/v1/estates/{cast.estate}/receivables", pageSize=100)["receivables"]
    outcome.receivables = [r for r in every if r.get("repair", "").endswith(repair["name"].rpartition("/")[2])]
    for receivable in outcome.receivables:
        tell(f"        Billing: receivable {receivable['number']} {_money(receivable['amount'])} is {receivable['state']}.")
    for role in ("owner", "TECHNICIAN", "ENGINEERING_SUPERVISOR", "PROJECT_MANAGER"):
        person = owner if role == "owner" else staff(role)
        messages = [m for m in person.get("/v1/messages", pageSize=100).get("messages", []) if m.get("subject") == repair["name"]]
        outcome.told[role] = messages
        tell(f"        Inbox of {role}:")
        for message in reversed(messages):
            at = datetime.fromisoformat(message["eventTime"].replace("Z", "+00:00")).astimezone(ZONE)
            tell(f"          {at:%H:%M} {message['title']}")
    outcome.timeline = owner.get(f"{name}/history")["entries"]
    tell("        Timeline:")
    for entry in outcome.timeline:
        at = datetime.fromisoformat(entry["eventTime"].replace("Z", "+00:00")).astimezone(ZONE)
        tell(f"          {at:%H:%M} {entry['action']:<9} {entry.get('toState', ''):<10} {entry.get('note', '')}")
    outcome.repair = owner.get(name)
    return outcome


def _done(what: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"workDone": what, "selfCheck": {"faultRemoved": True, "functionRestored": True, "siteCleared": True}, "parts": parts}


def _money(value: dict[str, Any]) -> str:
    return f"¥{int(value.get('units', 0))}.{value.get('nanos', 0) // 10_000_000:02d}"


def _clocks(repair: dict[str, Any]) -> str:
    def one(clock: dict[str, Any]) -> str:
        state = "breached" if clock.get("breached") else "met" if clock.get("stopTime") else "running"
        return f"{clock['clock']} {state}"

    return ", ".join(one(clock) for clock in repair["clocks"])


def main() -> int:
    """Finds the platform of this checkout and plays on it."""
    from services.local.demo_cast import find

    base, cast = find()
    play(base, cast, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
