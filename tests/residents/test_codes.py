"""One-time codes: made for anybody, sent to residents, by way of an SMS company that may be slow, down, or wrong."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from services.chassis.db import Database
from services.chassis.settings import read
from services.chassis.testing import INTERNAL, a_tree, eventually, serving
from services.residents import codes, jobs
from services.residents.sms import Company, Refused, Unreachable
from tests.conftest import FOLDER, ROOT
from tests.residents.doors import Doors, SmsCompany, in_production, sms_company

COMPANY_TOKEN = "of-the-sms-company"  # noqa: S105


@pytest.fixture
def company() -> Iterator[SmsCompany]:
    with sms_company() as company:
        yield company


@pytest.fixture
def doors(database: Database) -> Iterator[Doors]:
    """A database of the test's own: whoever sends takes whatever is due."""
    with serving_alone(database) as api:
        yield Doors(api, database, a_tree(database))


@contextmanager
def serving_alone(database: Database) -> Iterator[Any]:
    with serving("residents") as (server, api):
        usual = server.databases["residents"]
        server.databases["residents"] = database
        try:
            yield api
        finally:
            server.databases["residents"] = usual


@pytest.fixture
def production(company: SmsCompany) -> Iterator[None]:
    with in_production(sms_url=company.url, sms_token=COMPANY_TOKEN, sms_sender="天府物业", sms_template="SMS_1234", sms_timeout=1):
        yield


def ask(doors: Doors, phone: str) -> None:
    doors.call(INTERNAL, "RequestCode", phone=phone)


def send_all(doors: Doors) -> int:
    """What a jobs process would do until there is nothing due; how many messages it took in hand."""
    return sum(1 for _ in iter(lambda: jobs.send_codes(doors.database), False))


def due_now(doors: Doors) -> None:
    """Time passes until the next try."""
    doors.sql("UPDATE code_messages SET next_at = now() WHERE next_at IS NOT NULL")


def states(doors: Doors) -> list[tuple]:
    return doors.sql("SELECT state, attempts, error FROM code_messages ORDER BY created_at")


def code_in(body: dict[str, Any]) -> str:
    found = re.search(r"验证码 (\d{6})，", body["text"])
    assert found
    return found[1]


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("steward_sms_attempts_total", {"result": result}) or 0.0


def sign_in(doors: Doors, phone: str, code: str) -> Any:
    return doors.call(INTERNAL, "CreateSession", resident={"phone": phone, "code": code})


def not_signed_in(doors: Doors, phone: str, code: str) -> str:
    return doors.refused(INTERNAL, "CreateSession", resident={"phone": phone, "code": code}).reason


# --- from asking to signing in ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("production")
def test_a_resident_asks_gets_an_sms_and_signs_in_with_its_code_once(doors: Doors, company: SmsCompany) -> None:
    phone, sent = doors.housed(doors.tree.owner), counted("sent")
    ask(doors, phone)
    assert company.requests == [], "the answer does not wait for the company"
    assert send_all(doors) == 1
    ((headers, body),) = company.requests
    code = code_in(body)
    text = f"【天府物业】验证码 {code}，5 分钟内有效，用于登录。请勿告诉他人，工作人员不会向您索取。"
    assert body == {
        "id": body["id"], "to": phone, "text": text, "sender": "天府物业", "template": "SMS_1234",
        "parameters": {"code": code, "minutes": "5"},
    }  # fmt: skip
    assert UUID(body["id"])
    assert (headers["authorization"], headers["idempotency-key"]) == (f"Bearer {COMPANY_TOKEN}", body["id"])
    assert (states(doors), counted("sent")) == ([("SENT", 1, "")], sent + 1)
    session = sign_in(doors, phone, code)
    assert doors.principal(session.access_token).grants == doors.tree.owner.grants
    assert not_signed_in(doors, phone, code) == "BAD_CREDENTIALS", "a code is good once"
    assert send_all(doors) == 0


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize("typed", ["+86 138 {} {}", "0086138{}{}", "138-{}-{}", "１３８{}{}", " 138{}{}"])
def test_a_telephone_may_be_typed_in_any_way_an_import_understands(doors: Doors, company: SmsCompany, typed: str) -> None:
    phone = doors.housed(doors.tree.owner)
    written = typed.format(phone[3:7], phone[7:])
    ask(doors, written)
    send_all(doors)
    assert company.requests[0][1]["to"] == phone
    assert sign_in(doors, written, code_in(company.requests[0][1])).access_token


@pytest.mark.usefixtures("production")
def test_an_unknown_telephone_is_answered_like_a_known_one_and_nobody_is_written_to(doors: Doors, company: SmsCompany) -> None:
    """The same rows are written by the same statements; who it is is looked up when the message is sent."""
    known, unknown = doors.housed(doors.tree.owner), "13700000000"
    seen: list[list[str]] = []
    for phone in (known, unknown):
        with statements(doors.database) as said:
            ask(doors, phone)
        seen.append(said)
    assert seen[0] == seen[1]
    assert any("code_messages" in statement for statement in seen[0])
    nobody = counted("nobody")
    assert send_all(doors) == 2
    assert [body["to"] for _, body in company.requests] == [known]
    assert [row[0] for row in states(doors)] == ["SENT", "NOBODY"]
    assert counted("nobody") == nobody + 1
    assert not_signed_in(doors, unknown, "123456") == "BAD_CREDENTIALS"


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """The statements of `Transaction.execute` meanwhile, without their values."""
    from services.chassis.db import Transaction

    said: list[str] = []
    real = Transaction.execute

    def execute(self: Any, sql: str, values: Any = ()) -> list[tuple]:
        said.append(sql)
        return real(self, sql, values)

    Transaction.execute = execute  # type: ignore[method-assign]
    try:
        yield said
    finally:
        Transaction.execute = real  # type: ignore[method-assign]


@pytest.mark.usefixtures("production")
def test_three_codes_in_ten_minutes_are_enough_for_known_and_unknown(doors: Doors) -> None:
    for phone in (doors.housed(doors.tree.owner), "13700000001"):
        for _ in range(3):
            ask(doors, phone)
        refusal = doors.refused(INTERNAL, "RequestCode", phone=f"+86{phone}")
        assert (refusal.http, refusal.reason, refusal.retry_after) == (429, "TOO_MANY_CODES", 600)
    doors.sql("UPDATE sign_in_codes SET created_at = created_at - interval '10 minutes'")
    ask(doors, "13700000001")


@pytest.mark.usefixtures("production")
def test_codes_asked_for_at_once_are_counted_too(doors: Doors) -> None:
    def try_it(_: int) -> str:
        try:
            ask(doors, "13700000002")
        except Exception as refused:
            return getattr(refused, "reason", "")
        return "made"

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(try_it, range(8)))
    assert answers.count("made") == 3


@pytest.mark.usefixtures("production")
def test_a_code_is_good_for_its_telephone_for_five_minutes_and_for_five_tries(doors: Doors, company: SmsCompany) -> None:
    owner, neighbour = doors.housed(doors.tree.owner), doors.housed(doors.tree.neighbour)
    ask(doors, owner)
    send_all(doors)
    code = code_in(company.requests[0][1])
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    assert not_signed_in(doors, neighbour, code) == "BAD_CREDENTIALS"
    doors.sql("UPDATE sign_in_codes SET expires_at = now()")
    assert not_signed_in(doors, owner, code) == "BAD_CREDENTIALS"
    doors.sql("UPDATE sign_in_codes SET expires_at = now() + interval '1 second'")
    for _ in range(3):
        assert not_signed_in(doors, owner, wrong) == "BAD_CREDENTIALS"
    assert sign_in(doors, owner, code).access_token
    ask(doors, owner)
    send_all(doors)
    for _ in range(5):
        not_signed_in(doors, owner, wrong)
    assert not_signed_in(doors, owner, code_in(company.requests[1][1])) == "TOO_MANY_ATTEMPTS"


def test_without_a_company_production_says_so_and_development_shows_the_code(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    phone = doors.housed(doors.tree.owner)
    with in_production():
        refusal = doors.refused(INTERNAL, "RequestCode", phone=phone)
        assert (refusal.http, refusal.reason) == (503, "NO_CODE_CHANNEL")
        assert doors.sql("SELECT 1 FROM sign_in_codes") == []
    with caplog.at_level(logging.INFO):
        ask(doors, phone)
        ask(doors, "13700000003")
    told = [record.getMessage() for record in caplog.records if "one-time code" in record.getMessage()]
    assert told == [f"development: the one-time code for a phone ending in {phone[-4:]} is 246810"]
    assert doors.sql("SELECT 1 FROM code_messages") == []
    assert sign_in(doors, phone, "246810").access_token


def test_development_uses_a_company_too_when_it_has_one(doors: Doors, company: SmsCompany) -> None:
    from services.chassis.testing import configured

    phone = doors.housed(doors.tree.owner)
    with configured(sms_url=company.url):
        ask(doors, phone)
        send_all(doors)
    ((headers, body),) = company.requests
    assert (body["to"], code_in(body)) == (phone, "246810")
    assert set(body) == {"id", "to", "text"}
    assert body["text"].startswith("验证码 246810，")
    assert "authorization" not in headers


@pytest.mark.parametrize("url", ["ftp://sms.example", "file:///etc/passwd", "sms.example/messages"])
def test_an_address_that_is_none_ends_the_process_at_its_start(url: str) -> None:
    with pytest.raises(ValueError, match="STEWARD_SMS_URL"):
        read({"STEWARD_SMS_URL": url})


# --- when the company does not take it ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("production")
def test_an_error_of_the_company_is_tried_again_after_a_growing_delay_under_the_same_id(doors: Doors, company: SmsCompany) -> None:
    company.answer = lambda number: 500 if number < 4 else 202
    retried = counted("retried")
    ask(doors, doors.housed(doors.tree.owner))
    waits = []
    for _ in range(3):
        assert send_all(doors) == 1, "and not again before its time"
        waits.append(doors.sql("SELECT round(extract(epoch FROM next_at - now())) FROM code_messages")[0][0])
        due_now(doors)
    assert send_all(doors) == 1
    assert [int(wait) for wait in waits] == [1, 2, 4]
    assert states(doors) == [("SENT", 4, "HTTP 500")] or states(doors) == [("SENT", 4, "")]
    assert len(company.ids()) == 4
    assert len(set(company.ids())) == 1
    assert counted("retried") == retried + 3


@pytest.mark.usefixtures("production")
def test_a_company_that_says_nothing_is_not_waited_for_longer_than_its_time(doors: Doors, company: SmsCompany) -> None:
    company.answer = lambda number: None if number == 1 else 200
    ask(doors, doors.housed(doors.tree.owner))
    began = time.monotonic()
    assert send_all(doors) == 1
    assert 0.9 < time.monotonic() - began < 5
    assert states(doors)[0][:2] == ("QUEUED", 1)
    due_now(doors)
    send_all(doors)
    assert states(doors)[0][0] == "SENT"
    assert len(set(company.ids())) == 1


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301, 307])
def test_what_the_company_refuses_is_recorded_and_not_tried_again(doors: Doors, company: SmsCompany, status: int) -> None:
    company.answer = lambda _: status
    refused = counted("refused")
    ask(doors, doors.housed(doors.tree.owner))
    send_all(doors)
    due_now(doors)
    assert send_all(doors) == 0
    assert states(doors) == [("FAILED", 1, f"HTTP {status}")]
    assert len(company.requests) == 1, "and no redirect is followed with the token"
    assert counted("refused") == refused + 1


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize("status", [408, 425, 429, 502, 503])
def test_what_the_company_cannot_do_now_is_tried_again(doors: Doors, company: SmsCompany, status: int) -> None:
    company.answer = lambda number: status if number == 1 else 200
    ask(doors, doors.housed(doors.tree.owner))
    send_all(doors)
    due_now(doors)
    send_all(doors)
    assert states(doors)[0][:2] == ("SENT", 2)


def test_a_company_that_is_down_or_breaks_off_is_unreachable_and_a_refusal_is_not() -> None:
    identifier = UUID(int=7)
    with pytest.raises(Unreachable, match="ConnectionRefusedError"):
        Company("http://127.0.0.1:9/").send_code(identifier, "13800000001", "123456", 5)
    with sms_company() as company:
        company.answer = lambda _: 400
        with pytest.raises(Refused, match="HTTP 400"):
            Company(company.url).send_code(identifier, "13800000001", "123456", 5)


@pytest.mark.usefixtures("production")
def test_a_code_that_has_expired_is_not_sent_any_more(doors: Doors, company: SmsCompany) -> None:
    company.answer = lambda _: 500
    expired = counted("expired")
    ask(doors, doors.housed(doors.tree.owner))
    send_all(doors)
    doors.sql("UPDATE code_messages SET expires_at = now(), next_at = now()")
    send_all(doors)
    assert states(doors)[0][0] == "EXPIRED"
    assert len(company.requests) == 1
    assert counted("expired") == expired + 1


@pytest.mark.usefixtures("production")
def test_an_answer_that_comes_after_somebody_else_has_the_message_records_nothing(doors: Doors, company: SmsCompany) -> None:
    """The lease ended while the company was slow; the second process, whose answer is the later one, records."""
    second_done = threading.Event()

    def answer(number: int) -> int:
        if number == 1:
            doors.sql("UPDATE code_messages SET next_at = now()")
            assert jobs.send_codes(doors.database)
            second_done.set()
            return 400
        return 200

    company.answer = answer
    ask(doors, doors.housed(doors.tree.owner))
    assert jobs.send_codes(doors.database)
    assert second_done.is_set()
    assert states(doors) == [("SENT", 2, "")]


@pytest.mark.usefixtures("production")
def test_several_senders_take_each_message_once(doors: Doors, company: SmsCompany) -> None:
    for who in (*doors.tree.residents.values(),):
        ask(doors, doors.housed(who))
    with ThreadPoolExecutor(6) as threads:
        took = list(threads.map(lambda _: send_all(doors), range(6)))
    assert sum(took) == len(doors.tree.residents) == len(set(company.ids())) == len(company.ids())


@pytest.mark.usefixtures("production")
def test_telephone_and_code_are_sealed_until_it_is_sent_forgotten_afterwards_and_never_logged(
    doors: Doors, company: SmsCompany, caplog: pytest.LogCaptureFixture
) -> None:
    company.answer = lambda number: {1: 500, 2: 400}.get(number, 200)
    owner, neighbour = doors.housed(doors.tree.owner), doors.housed(doors.tree.neighbour)
    with caplog.at_level(logging.DEBUG):
        ask(doors, owner)
        (before,) = doors.sql("SELECT sealed FROM code_messages")[0]
        send_all(doors)
        due_now(doors)
        send_all(doors)
        ask(doors, neighbour)
        send_all(doors)
    assert [row[0] for row in states(doors)] == ["FAILED", "SENT"]
    assert doors.sql("SELECT DISTINCT octet_length(sealed) FROM code_messages") == [(0,)]
    secrets = {owner, neighbour, *(code_in(body) for _, body in company.requests)}
    kept = str(doors.sql("SELECT c::text FROM code_messages c")) + str(doors.sql("SELECT c::text FROM sign_in_codes c"))
    for secret in secrets:
        assert secret.encode() not in bytes(before)
        assert secret not in kept
        assert secret not in caplog.text
    assert "refuses the message" in caplog.text
    assert COMPANY_TOKEN not in caplog.text


@pytest.mark.usefixtures("production")
def test_a_message_sealed_under_another_key_fails_and_does_not_stop_the_others(doors: Doors, company: SmsCompany) -> None:
    ask(doors, doors.housed(doors.tree.owner))
    doors.sql("UPDATE code_messages SET sealed = '\\x01' || repeat('x', 60)::bytea, created_at = created_at - interval '1 second'")
    ask(doors, doors.housed(doors.tree.neighbour))
    assert send_all(doors) == 2
    assert sorted(row[0] for row in states(doors)) == ["FAILED", "SENT"]


# --- the process --------------------------------------------------------------------------------------------------------


@contextmanager
def jobs_process(database: Database, company: SmsCompany) -> Iterator[subprocess.Popen[str]]:
    environ = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "STEWARD_PROFILE": "production", "STEWARD_DATABASE_URL": database.url,
        "STEWARD_SMS_URL": company.url, "STEWARD_SMS_TIMEOUT": "10", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    log = (FOLDER / "jobs.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "services.chassis", "jobs", "residents"], cwd=ROOT, env=environ, stderr=log, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        log.close()


def once(company: SmsCompany, requests: int) -> Callable[[], bool]:
    return lambda: len(company.requests) >= requests


@pytest.mark.usefixtures("production")
def test_a_sender_killed_before_it_could_record_leaves_the_message_to_the_next_one_under_the_same_id(
    doors: Doors, company: SmsCompany
) -> None:
    company.answer = lambda number: None if number == 1 else 200
    phone = doors.housed(doors.tree.owner)
    ask(doors, phone)
    with jobs_process(doors.database, company) as first:
        eventually(once(company, 1), within=30)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    assert states(doors) == [("QUEUED", 1, "")]
    waits = doors.sql("SELECT extract(epoch FROM next_at - now()) FROM code_messages")[0][0]
    assert 0 < waits <= codes.LEASE.total_seconds() + 10, "until then it is thought to be on its way"
    due_now(doors)
    with jobs_process(doors.database, company):
        eventually(lambda: states(doors) == [("SENT", 2, "")], within=30)
        assert len(company.ids()) == 2
        assert len(set(company.ids())) == 1, "the company knows the second for the first"
        assert sign_in(doors, phone, code_in(company.requests[1][1])).access_token

        ask(doors, doors.housed(doors.tree.neighbour))  # at rest now: how long until the company has it
        eventually(lambda: [row[0] for row in states(doors)] == ["SENT"] * 2, within=10)
        took = doors.sql("SELECT max(ended_at - created_at) FROM code_messages WHERE attempts = 1")[0][0]
        assert took.total_seconds() < 3, "a second at rest; this machine is shared"
