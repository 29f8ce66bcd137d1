"""Bad input over REST on the real platform: each gets its status and its stable reason, and leaves nothing behind in any database.

The table reads: who sends what where, and what he is told. `{reported}` and its like are cases that exist (see `stage`).
"""

from __future__ import annotations

import base64
import io
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import openpyxl
import pytest

from services.chassis.__main__ import SERVICES
from services.chassis.testing import eventually
from services.local.platform import Platform
from services.local.story import Cast, Person
from tests.journeys.people import Neighbours
from tests.journeys.stores import Stores

RARE = "𬭎㛃 👩‍🔧🏠 e\u0301 ﷺ \u202e𠮷野家 「ＡＢＣ」"
HALL = {"location": "大堂", "category": "OTHER", "description": "吊顶灯不亮", "contactPhone": "13800000000"}
PRICE = {"currencyCode": "CNY", "units": "86", "nanos": 500_000_000}
CHARGE = {"item": "角阀 DN15", "quantity": 2, "unitPrice": PRICE, "reason": "原阀门锈蚀断裂"}
DESK, FITTER, MANAGER, OWNER = "CUSTOMER_ASSISTANT", "TECHNICIAN", "PROJECT_MANAGER", "OWNER"
REPAIRS = "/v1/estates/{estate}/repairs"


@dataclass(frozen=True)
class Bad:
    """One request that must be refused. `body` is sent as JSON, bytes as they are."""

    what: str
    who: str
    request: str
    status: int
    reason: str
    body: Any = None
    wrong: str = ""  # the field that is named
    headers: dict[str, str] = field(default_factory=dict)


def priced(**money: Any) -> dict[str, Any]:
    return {"charge": {**CHARGE, "unitPrice": {**PRICE, **money}}}


def appointed(instant: Any) -> dict[str, Any]:
    return {**HALL, "appointmentTime": instant}


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in HALL.items() if key != name}


TABLE = [
    # places that are not the caller's
    Bad("an unknown estate", DESK, f"POST {REPAIRS.format(estate='NOWHERE')}", 404, "ESTATE_NOT_FOUND", HALL),
    Bad("an unknown estate, read", DESK, f"GET {REPAIRS.format(estate='NOWHERE')}", 404, "ESTATE_NOT_FOUND"),
    Bad("another estate", DESK, f"POST {REPAIRS.format(estate='TFHY')}", 404, "ESTATE_NOT_FOUND", HALL),
    Bad("another estate, read", DESK, f"GET {REPAIRS.format(estate='TFHY')}", 404, "ESTATE_NOT_FOUND"),
    Bad("another estate's case by its own name", FITTER, "POST /v1/{foreign}:take", 404, "ESTATE_NOT_FOUND"),
    Bad("another estate's id below one's own estate", FITTER, f"POST {REPAIRS}/{{foreign_id}}:take", 404, "REPAIR_NOT_FOUND"),
    Bad("another estate's id, read", MANAGER, f"GET {REPAIRS}/{{foreign_id}}", 404, "REPAIR_NOT_FOUND"),
    Bad("another household's case", OWNER, "GET /v1/{public}", 404, "REPAIR_NOT_FOUND"),
    Bad("another household's case, changed", OWNER, "POST /v1/{public}:cancel", 404, "REPAIR_NOT_FOUND", {"reason": "不修了"}),
    Bad("a neighbour's unit", OWNER, f"POST {REPAIRS}", 400, "UNIT_NOT_FOUND", {**HALL, "unit": "{neighbour}"}, "unit"),
    Bad("a unit of another estate", DESK, f"POST {REPAIRS}", 400, "UNIT_NOT_FOUND", {**HALL, "unit": "1-1-0101"}, "unit"),
    Bad("a unit that is none", DESK, f"POST {REPAIRS}", 400, "UNIT_NOT_FOUND", {**HALL, "unit": "99-9-9999"}, "unit"),
    Bad("a technician of another estate", MANAGER, "POST /v1/{reported}:dispatch", 400, "TECHNICIAN_NOT_FOUND", {"technician": "{stranger}"}, "technician"),
    Bad("an id of something else", DESK, f"GET {REPAIRS}/{{estate}}", 404, "REPAIR_NOT_FOUND"),
    # states that do not allow it
    Bad("accepting what is not done", OWNER, "POST /v1/{reported}:accept", 409, "ILLEGAL_MOVE", {"rating": {"attitude": 5, "quality": 5}}),
    Bad("arriving before taking", FITTER, "POST /v1/{reported}:arrive", 409, "ILLEGAL_MOVE"),
    Bad("taking twice", FITTER, "POST /v1/{taken}:take", 409, "ILLEGAL_MOVE"),
    Bad("a version that is gone", FITTER, "POST /v1/{taken}:arrive", 412, "STALE_ETAG", headers={"If-Match": '"99"'}),
    # roles
    Bad("a resident who takes repairs", OWNER, "POST /v1/{reported}:take", 403, "ROLE_REQUIRED"),
    Bad("a cashier who reports", "CASHIER", f"POST {REPAIRS}", 403, "ROLE_REQUIRED", HALL),
    # fields
    Bad("nothing at all", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", b"", "repair"),
    Bad("an empty report", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", {}, "category"),
    Bad("no description", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", without("description"), "description"),
    Bad("no telephone", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", without("contactPhone"), "contactPhone"),
    Bad("a field that does not exist", DESK, f"POST {REPAIRS}", 400, "UNKNOWN_FIELD", {**HALL, "isAdmin": True}, "isAdmin"),
    Bad("a parameter that does not exist", DESK, f"GET {REPAIRS}?orderBy=id%3BDROP%20TABLE%20repairs", 400, "UNKNOWN_FIELD", None, "orderBy"),
    Bad("a number for a text", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", {**HALL, "description": 7}, "description"),
    Bad("a category that is none", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", {**HALL, "category": "UFO"}, "category"),
    Bad("a text beyond its limit", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", {**HALL, "description": "水" * 2001}, "description"),
    Bad("a rating of six", OWNER, "POST /v1/{reported}:accept", 400, "INVALID_INPUT", {"rating": {"attitude": 6, "quality": 5}}, "rating.attitude"),
    Bad("a signature that is no picture", OWNER, "POST /v1/{done}:accept", 400, "SIGNATURE_INVALID", {"rating": {"attitude": 5, "quality": 5}, "signature": "PHN2Zz4="}, "signature"),
    Bad("a page of minus one", DESK, f"GET {REPAIRS}?pageSize=-1", 400, "INVALID_INPUT", None, "pageSize"),
    # bodies
    Bad("ten megabytes", DESK, f"POST {REPAIRS}", 413, "BODY_TOO_LARGE", {**HALL, "description": "x" * 10_000_000}),
    Bad("JSON that breaks off", DESK, f"POST {REPAIRS}", 400, "INVALID_JSON", b'{"location": "\xe5\xa4\xa7", "category": '),
    Bad("JSON that is not UTF-8", DESK, f"POST {REPAIRS}", 400, "INVALID_JSON", b'{"location": "\xb4\xf3\xcc\xc3"}'),
    Bad("half a surrogate pair", DESK, f"POST {REPAIRS}", 400, "INVALID_JSON", b'{"location": "\\ud869"}'),
    Bad("a list for an object", DESK, f"POST {REPAIRS}", 400, "INVALID_JSON", b"[]"),
    Bad("a hundred thousand brackets", DESK, f"POST {REPAIRS}", 400, "INVALID_JSON", b"[" * 100_000),
    Bad("not a number", FITTER, "POST /v1/{taken}:charge", 400, "INVALID_JSON", b'{"charge": {"quantity": NaN}}'),
    Bad("XML", DESK, f"POST {REPAIRS}", 415, "UNSUPPORTED_MEDIA_TYPE", b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", headers={"Content-Type": "application/xml"}),
    Bad("the NUL character", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", {**HALL, "description": "灯\x00不亮"}, "description"),
    Bad("an import that is no workbook", "GENERAL_MANAGER", "POST /v1/imports", 400, "NOT_A_REGISTER", {"filename": "../../etc/passwd\r\nX-Evil: 1.xlsx", "content": "PHN2Zz4="}),
    # injection, where a name or a parameter would be read as something else
    Bad("SQL for an estate", DESK, "GET /v1/estates/BJGY'%20OR%201=1--/repairs", 404, "ESTATE_NOT_FOUND"),
    Bad("SQL for an id", DESK, f"POST {REPAIRS}/'%3BDELETE%20FROM%20repairs--:take", 403, "ROLE_REQUIRED"),
    Bad("SQL for an id, by who may", FITTER, f"POST {REPAIRS}/'%3BDELETE%20FROM%20repairs--:take", 404, "REPAIR_NOT_FOUND"),
    Bad("SQL for a page", DESK, f"GET {REPAIRS}?pageToken='%20OR%20'1'='1", 400, "INVALID_PAGE_TOKEN", None, "pageToken"),
    Bad("SQL for a unit", DESK, f"POST {REPAIRS}", 400, "UNIT_NOT_FOUND", {**HALL, "unit": "'; DROP TABLE units; --"}, "unit"),
    Bad("a template for a unit", DESK, f"POST {REPAIRS}", 400, "UNIT_NOT_FOUND", {**HALL, "unit": "{{7*7}}${jndi:ldap://x}"}, "unit"),
    Bad("a path out of the estates", DESK, "GET /v1/estates/..%2F..%2Fetc%2Fpasswd/repairs", 404, "ESTATE_NOT_FOUND"),
    Bad("a path out of the repairs", DESK, f"GET {REPAIRS}/..%2F..%2F..%2F..%2Fetc%2Fpasswd", 404, "REPAIR_NOT_FOUND"),
    Bad("a path out of the documentation", DESK, "GET /docs/%2e%2e/%2e%2e/etc/passwd", 404, "ROUTE_NOT_FOUND"),
    Bad("a line break in the path", DESK, "GET /v1/estates/BJGY%0d%0aX-Evil:%201/repairs", 400, "INVALID_INPUT", None, "path"),
    Bad("a NUL in the path", DESK, "GET /v1/estates/BJGY%00/repairs", 400, "INVALID_INPUT", None, "path"),
    Bad("blanks in a key", DESK, f"POST {REPAIRS}", 400, "INVALID_HEADER", HALL, "Idempotency-Key", {"Idempotency-Key": "a b"}),
    Bad("two etags", FITTER, "POST /v1/{taken}:arrive", 400, "INVALID_HEADER", None, "If-Match", {"If-Match": '"1", "2"'}),
    # money
    Bad("a negative price", FITTER, "POST /v1/{taken}:charge", 400, "BAD_MONEY", priced(units="-86", nanos=0), "charge.unitPrice"),
    Bad("negative cents", FITTER, "POST /v1/{taken}:charge", 400, "BAD_MONEY", priced(units="0", nanos=-500_000_000), "charge.unitPrice"),
    Bad("signs that differ", FITTER, "POST /v1/{taken}:charge", 400, "BAD_MONEY", priced(units="5", nanos=-1), "charge.unitPrice"),
    Bad("less than a cent", FITTER, "POST /v1/{taken}:charge", 400, "BAD_MONEY", priced(nanos=1), "charge.unitPrice"),
    Bad("dollars", FITTER, "POST /v1/{taken}:charge", 400, "BAD_MONEY", priced(currencyCode="USD"), "charge.unitPrice"),
    Bad("more than there is", FITTER, "POST /v1/{taken}:charge", 400, "BAD_MONEY", priced(units=str(2**63 - 1)), "charge.unitPrice"),
    Bad("more than a number holds", FITTER, "POST /v1/{taken}:charge", 400, "INVALID_INPUT", priced(units=str(2**63)), "charge.unitPrice.units"),
    Bad("a negative quantity", FITTER, "POST /v1/{taken}:charge", 400, "INVALID_INPUT", {"charge": {**CHARGE, "quantity": -2}}, "charge.quantity"),
    # times
    Bad("the thirtieth of February", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("2026-02-30T10:00:00Z"), "appointmentTime"),
    Bad("the year 0", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("0000-01-01T00:00:00Z"), "appointmentTime"),
    Bad("the year 9999", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("9999-12-31T23:59:59Z"), "appointmentTime"),
    Bad("before there were such times", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("1969-12-31T23:59:59Z"), "appointmentTime"),
    Bad("the 25th hour", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("2026-11-22T25:00:00Z"), "appointmentTime"),
    Bad("an offset of 99 hours", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("2026-11-22T10:00:00+99:00"), "appointmentTime"),
    Bad("a time without its zone", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("2026-11-22T10:00:00"), "appointmentTime"),
    Bad("a time in words", DESK, f"POST {REPAIRS}", 400, "INVALID_INPUT", appointed("明天上午"), "appointmentTime"),
    Bad("a shift that ends before it begins", MANAGER, "POST /v1/estates/{estate}/shifts", 400, "INVALID_SHIFT",
        {"staff": "{somebody}", "role": "TECHNICIAN", "startTime": "2026-12-01T10:00:00Z", "endTime": "2026-12-01T09:00:00Z"}, "endTime"),
    Bad("a leave that ends before it begins", MANAGER, "POST /v1/estates/{estate}/leaves", 400, "INVALID_LEAVE",
        {"staff": "{somebody}", "kind": "ANNUAL", "startTime": "2026-12-01T10:00:00Z", "endTime": "2026-12-01T09:00:00Z"}, "endTime"),
    Bad("a day that is none", MANAGER, "GET /v1/estates/{estate}/shifts?fromDay=2026-02-30", 400, "INVALID_DAYS", None, "fromDay"),
    Bad("a month that is none", MANAGER, "GET /v1/estates/{estate}/receivables:report?month=2026-13", 400, "INVALID_INPUT", None, "month"),
    Bad("a deadline in words", DESK, f"GET {REPAIRS}", 400, "INVALID_HEADER", None, "X-Request-Timeout", {"X-Request-Timeout": "soon"}),
    # who calls
    Bad("nobody", "", f"POST {REPAIRS}", 401, "UNAUTHENTICATED", HALL),
    Bad("a token that was made up", "", f"POST {REPAIRS}", 401, "SESSION_ENDED", HALL, headers={"Authorization": "Bearer forged"}),
    Bad("a token signed by nobody", "", f"POST {REPAIRS}", 401, "SESSION_ENDED", HALL, headers={"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdGFmZi8xIn0."}),
    Bad("a password for a token", "", f"POST {REPAIRS}", 401, "BAD_AUTHORIZATION", HALL, headers={"Authorization": "Basic QkpHWS0wMDE6eA=="}),
    Bad("the headers between our own processes", "", f"POST {REPAIRS}", 401, "UNAUTHENTICATED", HALL, headers={"X-Steward-Identity": "e30.e30.x", "X-Steward-Internal": "{internal}"}),
]  # fmt: skip


class Stage:
    """What stands in the estate before anything bad comes, and the requests against it."""

    def __init__(self, who: Neighbours, platform: Platform, cast: Cast, stores: Stores):
        self.who, self.stores, began = who, stores, datetime.now(UTC)
        estate = f"/v1/estates/{who.estate}/repairs"
        at_home = {**HALL, "unit": who.units[0]}
        reported, taken, done = (who.post(OWNER, estate, at_home)["name"] for _ in range(3))
        for name in (taken, done):
            who.post(FITTER, f"/v1/{name}:take")
        who.post(FITTER, f"/v1/{done}:arrive")
        self_check = {"faultRemoved": True, "functionRestored": True, "siteCleared": True}
        who.post(FITTER, f"/v1/{done}:complete", {"workDone": "修好了", "selfCheck": self_check})
        their_desk = Person(who.http, {"grant_type": "password", "username": cast.staff[DESK], "password": cast.password})
        foreign = their_desk.post(f"/v1/estates/{cast.estate}/repairs", HALL)["name"]
        [(stranger,)] = stores.rows("residents", "SELECT id::text FROM staff WHERE number = %s", (cast.staff[FITTER],))
        [(somebody,)] = stores.rows("residents", "SELECT id::text FROM staff WHERE number = %s", (who.staff[FITTER],))
        self.names = {
            "estate": who.estate, "reported": reported, "taken": taken, "done": done, "public": who.post(DESK, estate, HALL)["name"],
            "foreign": foreign, "foreign_id": foreign.rpartition("/")[2], "neighbour": who.units[-1],
            "stranger": f"staff/{stranger}", "somebody": f"staff/{somebody}", "internal": platform.keys.internal_token,
        }  # fmt: skip
        eventually(lambda: not stores.under_way(began), within=60)

    def filled(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def send(self, bad: Bad) -> httpx.Response:
        method, _, path = self.filled(bad.request).partition(" ")
        headers = {**self.who.as_(bad.who), "Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        headers |= {name: self.filled(value) for name, value in bad.headers.items()}
        if bad.body is None or isinstance(bad.body, bytes):
            return self.who.http.request(method, path, content=bad.body, headers=headers)
        body = {key: self.filled(value) if isinstance(value, str) else value for key, value in bad.body.items()}
        return self.who.http.request(method, path, json=body, headers=headers)

    def saved(self) -> tuple[dict[str, int], list[tuple]]:
        """How many rows every table of every service has, and the versions of all repairs."""
        return self.stores.counts(), self.stores.rows("work_orders", "SELECT id, version FROM repairs ORDER BY id")

    def refused(self, bad: Bad) -> httpx.Response:
        """The answer; fails when the request has left anything. Tried again then: a timer may write at the same moment, but not always."""
        for _ in range(3):
            before = self.saved()
            answer = self.send(bad)
            if (after := self.saved()) == before:
                return answer
        more = {table: after[0][table] - count for table, count in before[0].items() if after[0][table] != count}
        raise AssertionError(f"it was answered {answer.status_code} {answer.text} and yet left {more or 'a changed repair'}")


@pytest.fixture(scope="module")
def stage(neighbours: Neighbours, platform: Platform, cast: Cast, stores: Stores) -> Stage:
    return Stage(neighbours, platform, cast, stores)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.what)
def test_it_is_refused_with_its_reason_and_leaves_nothing_behind(bad: Bad, stage: Stage) -> None:
    answer = stage.refused(bad)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["reason"]) == (bad.status, bad.status, bad.reason), answer.text
    assert problem["type"] == f"urn:steward:problem:{bad.reason.lower().replace('_', '-')}"
    assert bad.wrong in [violation["field"] for violation in problem.get("violations", [])] or not bad.wrong, answer.text
    assert "x-evil" not in answer.headers


def test_ten_megabytes_of_unknown_length_are_not_read_to_their_end(stage: Stage) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"description": "'
        while sent < 10_000_000:
            sent += 65_536
            yield b"x" * 65_536

    before = stage.saved()
    url = f"/v1/estates/{stage.who.estate}/repairs"
    answer = stage.who.http.post(url, content=endless(), headers={**stage.who.as_(DESK), "Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")
    assert stage.saved() == before


@pytest.mark.parametrize("broken", [b"k\rX-Evil: 1", b"k\nX-Evil: 1", b"k\x00", b"k\r\n X-Evil: 1"], ids=["CR", "LF", "NUL", "folded"])
def test_a_line_break_in_a_header_makes_no_other_header(broken: bytes, stage: Stage) -> None:
    before, url = stage.saved(), stage.who.http.base_url
    head = f"POST /v1/estates/{stage.who.estate}/repairs HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    token = stage.who.as_(DESK)["Authorization"]
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(
            head.encode() + f"Authorization: {token}\r\nIdempotency-Key: ".encode() + broken + b"\r\nConnection: close\r\n\r\n{}"
        )
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-evil" not in answer.lower().partition(b"\r\n\r\n")[0]
    assert stage.saved() == before


# --- the same key ------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_answer_and_with_another_body_it_is_refused(stage: Stage) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    url, began, empty = f"/v1/estates/{stage.who.estate}/repairs", datetime.now(UTC), stage.saved()
    first = stage.who.post(DESK, url, HALL, **key)
    assert stage.saved() != empty, "what is saved is seen"
    eventually(lambda: not stage.stores.under_way(began), within=30)
    before = stage.saved()
    assert stage.who.post(DESK, url, HALL, **key) == first
    for other in ({**HALL, "location": "电梯厅"}, {**HALL, "unit": "99-9-9999"}):
        answer = stage.who.http.post(url, json=other, headers={**stage.who.as_(DESK), **key})
        assert (answer.status_code, answer.json()["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert stage.saved() == before


# --- tokens ------------------------------------------------------------------------------------------------------------


def knocked(stage: Stage, token: str) -> tuple[int, str]:
    """Status and reason that a token gets for a report; nothing may be left."""
    answer = stage.refused(Bad("", "", f"POST {REPAIRS}", 401, "", HALL, headers={"Authorization": f"Bearer {token}"}))
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    return answer.status_code, answer.json()["reason"]


def test_a_token_that_has_expired_opens_nothing(stage: Stage) -> None:
    token = stage.who.sign_in(DESK)
    latest = "(SELECT id FROM sessions ORDER BY created_at DESC LIMIT 1)"
    expired = f"UPDATE sessions SET access_expires_at = now() - interval '1 second' WHERE id = {latest} RETURNING 1"
    assert stage.stores.rows("residents", expired) == [(1,)]
    assert knocked(stage, token) == (401, "SESSION_ENDED")


def test_a_token_that_was_signed_out_opens_nothing(stage: Stage) -> None:
    token = stage.who.sign_in(DESK)
    assert stage.who.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert stage.who.http.post("/v1/auth/revoke", data={"token": token}).status_code == 200
    assert knocked(stage, token) == (401, "SESSION_ENDED")


@pytest.mark.parametrize("at", [0, 10, -1])
def test_a_token_with_one_letter_changed_opens_nothing(at: int, stage: Stage) -> None:
    token = stage.who.as_(DESK)["Authorization"].removeprefix("Bearer ")
    letters = list(token)
    letters[at] = "x" if letters[at] != "x" else "y"
    assert knocked(stage, "".join(letters)) == (401, "SESSION_ENDED")


# --- what is harmless is kept as it is ---------------------------------------------------------------------------------


def test_emoji_and_rare_characters_are_kept_byte_for_byte_through_to_the_timeline(stage: Stage) -> None:
    who, url = stage.who, f"/v1/estates/{stage.who.estate}/repairs"
    name = who.post(OWNER, url, {**HALL, "unit": who.units[0], "location": RARE, "description": RARE * 3, "reporterName": RARE})["name"]
    who.post(OWNER, f"/v1/{name}:comment", {"text": RARE})
    who.post(OWNER, f"/v1/{name}:cancel", {"reason": RARE})
    repair = who.http.get(f"/v1/{name}", headers=who.as_(OWNER))
    assert (repair.json()["location"], repair.json()["description"], repair.json()["reporterName"]) == (RARE, RARE * 3, RARE)
    assert RARE.encode() in repair.content
    notes = [entry.get("note", "") for entry in who.get(MANAGER, f"/v1/{name}/history")["entries"]]
    assert sum(RARE in note for note in notes) >= 2, notes
    stored = "SELECT location = %s AND description = %s FROM repairs WHERE id = %s"
    assert stage.stores.rows("work_orders", stored, (RARE, RARE * 3, name.rpartition("/")[2])) == [(True,)]


def test_a_rare_name_in_the_register_comes_byte_for_byte_into_every_service(stage: Stage) -> None:
    who, named = stage.who, "滨江𬭎㛃公寓"
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "项目"
    sheet.append(["项目编号", "项目名称", "物业类型", "所属公司", "所属集团", "时区", "有无业委会"])
    sheet.append([who.estate, named, "商务公寓", "东部公司", "安居物业集团", "Asia/Shanghai", "无"])
    file = io.BytesIO()
    book.save(file)
    job = who.post("GENERAL_MANAGER", "/v1/imports", {"filename": "改名.xlsx", "content": base64.b64encode(file.getvalue()).decode()})
    eventually(lambda: who.get("GENERAL_MANAGER", f"/v1/{job['name']}")["state"] not in ("QUEUED", "RUNNING"), within=60)
    ended = who.get("GENERAL_MANAGER", f"/v1/{job['name']}")
    assert ended["state"] == "SUCCEEDED", ended
    asked = "SELECT convert_to(name, 'UTF8') FROM dir_nodes WHERE code = %s"

    def known(service: str) -> bool:
        return bytes(stage.stores.rows(service, asked, (who.estate,))[0][0]) == named.encode()

    for service in SERVICES:
        if service != "residents":
            eventually(partial(known, service), within=30)


NASTY = "'; DROP TABLE repairs; -- {{7*7}} {number} %(estate)s ${jndi:ldap://x} <script>alert(1)</script> ../../etc/passwd\r\nX-Evil: 1"


def test_what_people_write_is_text_and_nothing_else_and_no_inbox_shows_it(stage: Stage) -> None:
    who, began = stage.who, datetime.now(UTC)
    report = {**HALL, "unit": who.units[0], "location": NASTY, "description": NASTY}
    name = who.post(OWNER, f"/v1/estates/{who.estate}/repairs", report)["name"]
    answer = who.http.get(f"/v1/{name}", headers=who.as_(OWNER))
    assert (answer.json()["location"], answer.json()["description"]) == (NASTY, NASTY)
    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("application/json", "nosniff")
    assert "x-evil" not in answer.headers
    eventually(lambda: not stage.stores.under_way(began), within=30)
    written = stage.stores.rows("notifications", "SELECT title || body FROM messages WHERE subject = %s", (name,))
    assert written
    assert not [text for (text,) in written if any(part in text for part in ("DROP", "{", "jndi", "script", "passwd"))]


def test_what_only_the_service_may_say_is_passed_over(stage: Stage) -> None:
    """AIP-203: a client may send back what it has read."""
    said = {**HALL, "state": "ACCEPTED", "number": "WX-20200101-0001", "urgent": True, "chargeTotal": PRICE}
    repair = stage.who.post(DESK, f"/v1/estates/{stage.who.estate}/repairs", said)
    assert repair["state"] == "REPORTED"
    assert repair["number"] != said["number"]
    assert "chargeTotal" not in repair
