"""POST /v1/auth/token and /v1/auth/revoke: OAuth 2 in form, in answers and in errors."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from services.chassis.errors import Forbidden, Unauthenticated
from tests.gateway.conftest import Process
from tests.gateway.standin import INTERNAL_TOKEN, Standin, eventually

OTP = "urn:steward:params:oauth:grant-type:otp"
STAFF = {"grant_type": "password", "username": "TFHY-003", "password": "s3cret 密码"}


@pytest.fixture
def nobody(client: httpx.Client) -> httpx.Client:
    """Not signed in."""
    del client.headers["authorization"]
    return client


@pytest.mark.parametrize(
    "form",
    [STAFF, {"grant_type": OTP, "phone": "13800000001", "code": "123456"}, {"grant_type": "refresh_token", "refresh_token": "again"}],
)
def test_every_grant_gives_a_session_that_is_not_stored(nobody: httpx.Client, standin: Standin, form: dict[str, str]):
    answer = nobody.post("/v1/auth/token", data=form)
    assert answer.status_code == 200
    assert answer.json() == {"access_token": "good", "token_type": "Bearer", "expires_in": 900, "refresh_token": "again"}
    assert answer.headers["cache-control"] == "no-store"
    assert standin.last[1]["x-steward-internal"] == INTERNAL_TOKEN


def test_who_signs_in_with_a_temporary_password_is_told_to_change_it(nobody: httpx.Client, standin: Standin):
    session = standin._session()
    session.password_change_required = True
    standin.answers["CreateSession"] = lambda request, context: session
    assert nobody.post("/v1/auth/token", data=STAFF).json()["password_change_required"] is True


def test_until_it_is_changed_every_operation_says_so_and_the_session_goes_on(client: httpx.Client, standin: Standin):
    def refuse_all(request: Any, context: Any) -> Any:
        raise Forbidden("change your temporary password first (SetPassword)", reason="PASSWORD_CHANGE_REQUIRED")

    standin.answers["ListRepairs"] = refuse_all
    answer = client.get("/v1/estates/TFHY/repairs")
    assert (answer.status_code, answer.json()["reason"]) == (403, "PASSWORD_CHANGE_REQUIRED")
    assert client.get("/v1/me").status_code == 200


def test_a_changed_password_is_answered_with_a_new_session_that_is_not_stored(client: httpx.Client, standin: Standin):
    session = standin.contract.message_class("steward.residents.v1.Session")
    standin.answers["SetPassword"] = lambda request, context: session(access_token="new", refresh_token="next", expires_in=900)  # noqa: S106
    answer = client.post("/v1/me:setPassword", json={"oldPassword": "alt 旧", "newPassword": "neu 新 🎋"})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {"accessToken": "new", "refreshToken": "next", "expiresIn": 900}
    assert (standin.last[0].old_password, standin.last[0].new_password) == ("alt 旧", "neu 新 🎋")


@pytest.mark.parametrize(
    ("form", "error", "says"),
    [
        (STAFF | {"password": "wrong"}, "invalid_grant", "number or password is wrong"),
        ({"grant_type": OTP, "phone": "13800000001", "code": "000000"}, "invalid_grant", "wrong"),
        ({"grant_type": "refresh_token", "refresh_token": "used"}, "invalid_grant", "used before"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "password"),
        ({"username": "TFHY-003"}, "invalid_request", "grant_type is missing"),
        ({"grant_type": "password", "username": "TFHY-003"}, "invalid_request", "password is missing"),
        ({"grant_type": "password", "username": "", "password": "x"}, "invalid_request", "username is missing"),
        ({"grant_type": OTP, "phone": "13800000001"}, "invalid_request", "code is missing"),
        ({"grant_type": "refresh_token"}, "invalid_request", "refresh_token is missing"),
        (STAFF | {"password": "a\0b"}, "invalid_request", "NUL"),
    ],
)
def test_what_is_wrong_is_said_in_oauths_words(nobody: httpx.Client, form: dict[str, str], error: str, says: str):
    answer = nobody.post("/v1/auth/token", data=form)
    assert answer.status_code == 400
    assert answer.json()["error"] == error
    assert says in answer.json()["error_description"]
    assert answer.json()["traceId"] == answer.headers["x-trace-id"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_stable_reason_stands_beside_oauths_word(nobody: httpx.Client):
    assert nobody.post("/v1/auth/token", data=STAFF | {"password": "wrong"}).json()["reason"] == "BAD_CREDENTIALS"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"grant_type":"password","username":"TFHY-003","password":"x"}', "application/json"),
        (b"grant_type=password", "text/plain"),
        (b"grant_type=password", ""),
        (b"--x--", "multipart/form-data; boundary=x"),
    ],
)
def test_anything_but_a_form_is_refused_with_a_hint(nobody: httpx.Client, standin: Standin, content: bytes, kind: str):
    answer = nobody.post("/v1/auth/token", content=content, headers={"content-type": kind} if kind else {})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert "application/x-www-form-urlencoded" in answer.json()["error_description"]
    assert standin.calls == []


@pytest.mark.parametrize(
    "content",
    [
        b"grant_type=password&grant_type=password&username=a&password=b",
        b"grant_type=password&username=%ff&password=b",
        b"grant_type=password&username=\xff&password=b",
        b"&".join(b"a%d=1" % i for i in range(50)),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(nobody: httpx.Client, content: bytes):
    answer = nobody.post("/v1/auth/token", content=content, headers={"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_huge_form_is_refused(nobody: httpx.Client):
    answer = nobody.post("/v1/auth/token", data=STAFF | {"password": "x" * 20_000})
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


def test_a_locked_account_is_told_when_to_come_back(nobody: httpx.Client):
    answer = nobody.post("/v1/auth/token", data=STAFF | {"username": "LOCKED-001"})
    assert (answer.status_code, answer.json()["error"], answer.json()["reason"]) == (429, "slow_down", "TOO_MANY_ATTEMPTS")
    assert answer.headers["retry-after"] == "900"


def test_signing_in_is_limited_by_address(strict: tuple[Process, httpx.Client], standin: Standin):
    _, client = strict
    assert [client.post("/v1/auth/token", data=STAFF).status_code for _ in range(2)] == [200, 200]
    answer = client.post("/v1/auth/token", data=STAFF)
    assert (answer.status_code, answer.json()["error"], answer.json()["reason"]) == (429, "slow_down", "TOO_MANY_REQUESTS")
    assert int(answer.headers["retry-after"]) > 30
    problem = client.post("/v1/auth/code", json={"phone": "13800000001"})
    assert (problem.status_code, problem.json()["reason"]) == (429, "TOO_MANY_REQUESTS")
    assert client.get("/v1/me").status_code == 200
    assert len(standin.called("CreateSession")) == 2


def test_while_residents_is_down_signing_in_is_unavailable(nobody: httpx.Client, standin: Standin):
    with standin.down():
        answer = nobody.post("/v1/auth/token", data=STAFF)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert "retry-after" in answer.headers
    assert "127.0.0.1" not in answer.text
    eventually(lambda: nobody.get("/readyz").status_code == 200)


def test_signing_out_ends_the_session_and_forgets_it_here(client: httpx.Client, standin: Standin):
    token = {"authorization": "Bearer good-leaving"}
    client.get("/v1/me", headers=token)
    answer = client.post("/v1/auth/revoke", data={"token": "good-leaving"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert standin.called("EndSession")[0].access_token == "good-leaving"  # noqa: S105
    client.get("/v1/me", headers=token)
    assert len([r for r in standin.called("ExchangeSession") if r.access_token == "good-leaving"]) == 2  # noqa: S105


def test_signing_out_with_a_token_that_is_none_is_no_error(client: httpx.Client, standin: Standin):
    def unknown(request: Any, context: Any) -> Any:
        raise Unauthenticated("no such session", reason="SESSION_ENDED")

    standin.answers["EndSession"] = unknown
    assert client.post("/v1/auth/revoke", data={"token": "whatever é"}).status_code == 200


def test_a_refresh_token_cannot_be_revoked_by_itself(client: httpx.Client):
    answer = client.post("/v1/auth/revoke", data={"token": "again", "token_type_hint": "refresh_token"})
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type")
    assert client.post("/v1/auth/revoke", data={}).json()["error"] == "invalid_request"


def test_asking_for_a_code_needs_no_token(nobody: httpx.Client, standin: Standin):
    assert nobody.post("/v1/auth/code", json={"phone": "13800000001"}).status_code == 200
    assert standin.last[0].phone == "13800000001"


def test_passwords_and_tokens_never_reach_the_log(nobody: httpx.Client, gateway: Any):
    nobody.post("/v1/auth/token", data=STAFF)
    nobody.post(
        "/v1/me:setPassword", json={"oldPassword": "s3cret-old", "newPassword": "密码-new"}, headers={"authorization": "Bearer good"}
    )
    nobody.get("/v1/estates/TFHY/repairs?unit=13800000001", headers={"authorization": "Bearer good-secret"})
    written = "".join(gateway.lines)
    for secret in ("s3cret", "密码", "good-secret", "13800000001", "TFHY-003"):
        assert secret not in written
