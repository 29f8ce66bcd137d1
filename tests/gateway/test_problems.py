"""Refusals as problem documents: the services' own words, and what is made of a bare gRPC status."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest

from gateway.problems import camel
from services.chassis import errors
from services.chassis.errors import StewardError, Violation
from tests.gateway.standin import Standin, eventually, refuse

URL = "/v1/estates/TFHY/repairs"


def raising(error: StewardError) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        raise error

    return answer


def aborting(code: grpc.StatusCode, text: str) -> Callable[[Any, grpc.ServicerContext], Any]:
    return lambda request, context: context.abort(code, text)


def test_a_refusal_says_everything_the_service_said(client: httpx.Client, standin: Standin):
    standin.answers["TakeRepair"] = raising(errors.IllegalMove("the order is taken already", rule="REP-09"))
    answer = client.post(f"{URL}/0192:take")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:steward:problem:illegal-move",
        "title": "Illegal move",
        "status": 409,
        "detail": "the order is taken already",
        "reason": "ILLEGAL_MOVE",
        "rule": "REP-09",
        "instance": "/v1/estates/TFHY/repairs/0192:take",
        "traceId": answer.headers["x-trace-id"],
    }


@pytest.mark.parametrize("error", errors.TABLE, ids=lambda error: error.__name__)
def test_every_row_of_the_error_table_keeps_its_status_and_reason(client: httpx.Client, standin: Standin, error: type[StewardError]):
    standin.answers["TakeRepair"] = raising(error("a sentence", retry_after=7 if error.http in (429, 503) else 0))
    answer = client.post(f"{URL}/0192:take")
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (error.http, error.http, error.reason)
    assert answer.json()["detail"] == (
        "a sentence" if error.http != 500 else "Something broke on our side; it has been logged under the trace id."
    )
    assert answer.headers.get("retry-after") == ("7" if error.http in (429, 503) else None)
    assert ("www-authenticate" in answer.headers) == (error.http == 401)


def test_wrong_fields_are_named_as_the_client_sent_them(client: httpx.Client, standin: Standin):
    violations = [
        Violation("repair.contact_phone", "must be a telephone number"),
        Violation("repair.charges[0].unit_price.currency_code", "must be CNY"),
        Violation("repair", "is missing"),
        Violation("parent", "must name an estate"),
        Violation("request_id", "is too long"),
    ]
    standin.answers["ReportRepair"] = raising(errors.InvalidInput("look again", violations=violations))
    found = client.post(URL, json={}).json()["violations"]
    assert [v["field"] for v in found] == ["contactPhone", "charges[0].unitPrice.currencyCode", "repair", "parent", "requestId"]
    standin.answers["ChargeRepair"] = raising(errors.InvalidInput("look again", violations=[Violation("charge.unit_price", "is negative")]))
    assert client.post(f"{URL}/0192:charge", json={}).json()["violations"] == [{"field": "charge.unitPrice", "description": "is negative"}]


def test_keys_of_maps_are_not_respelled():
    assert camel('by_text["a_b"].unit_price') == 'byText["a_b"].unitPrice'


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "UNAVAILABLE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503, "UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, 503, "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.UNIMPLEMENTED, 501, "NOT_SERVED"),
        (grpc.StatusCode.INTERNAL, 500, "INTERNAL"),
        (grpc.StatusCode.UNKNOWN, 500, "INTERNAL"),
        (grpc.StatusCode.DATA_LOSS, 500, "INTERNAL"),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "INVALID_INPUT"),
        (grpc.StatusCode.OUT_OF_RANGE, 400, "INVALID_INPUT"),
        (grpc.StatusCode.UNAUTHENTICATED, 401, "UNAUTHENTICATED"),
        (grpc.StatusCode.PERMISSION_DENIED, 403, "ROLE_REQUIRED"),
        (grpc.StatusCode.NOT_FOUND, 404, "NOT_FOUND"),
        (grpc.StatusCode.ALREADY_EXISTS, 409, "ALREADY_EXISTS"),
        (grpc.StatusCode.FAILED_PRECONDITION, 409, "ABORTED"),
        (grpc.StatusCode.ABORTED, 409, "ABORTED"),
    ],
)
def test_a_bare_status_is_mapped_and_its_text_is_kept_inside(
    client: httpx.Client, standin: Standin, code: grpc.StatusCode, status: int, reason: str
):
    standin.answers["TakeRepair"] = aborting(code, "ipv4:10.0.0.3:5000 password=secret Traceback")
    answer = client.post(f"{URL}/0192:take")
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert "secret" not in answer.text
    assert "10.0.0.3" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)


def test_an_exception_in_a_service_is_a_500_that_tells_nothing(client: httpx.Client, standin: Standin):
    def broken(request: Any, context: grpc.ServicerContext) -> Any:
        raise RuntimeError("secret of the database")

    standin.answers["TakeRepair"] = broken
    answer = client.post(f"{URL}/0192:take")
    assert (answer.status_code, answer.json()["reason"]) == (500, "INTERNAL")
    assert "secret" not in answer.text


def test_a_reply_that_has_no_form_in_json_is_a_500_and_is_logged(client: httpx.Client, standin: Standin, gateway: Any):
    broken = standin.contract.message_class("steward.work_orders.v1.Repair")()
    broken.report_time.seconds = 10**15
    standin.answers["GetRepair"] = lambda request, context: broken
    answer = client.get(f"{URL}/0192")
    assert (answer.status_code, answer.json()["reason"]) == (500, "INTERNAL")
    eventually(lambda: any(answer.json()["traceId"] in line and "failed" in line for line in gateway.lines))


def test_a_status_with_other_details_is_read_as_a_bare_one(client: httpx.Client, standin: Standin):
    def odd(request: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff nonsense"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "x")

    standin.answers["TakeRepair"] = odd
    assert client.post(f"{URL}/0192:take").json()["reason"] == "NOT_FOUND"


def test_a_status_number_that_is_no_refusal_is_not_believed(client: httpx.Client, standin: Standin):
    class Odd(errors.Conflict):
        http = 200

    standin.answers["TakeRepair"] = lambda request, context: refuse(context, Odd("odd"))
    answer = client.post(f"{URL}/0192:take")
    assert (answer.status_code, answer.json()["reason"]) == (409, "CONFLICT")


def test_a_service_that_is_too_slow_is_a_504(client: httpx.Client, standin: Standin):
    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        import time

        time.sleep(0.5)
        return standin.contract.message_class("steward.work_orders.v1.Repair")()

    standin.answers["GetRepair"] = slow
    answer = client.get(f"{URL}/0192", headers={"x-request-timeout": "0.1"})
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")


def test_a_route_that_does_not_exist_is_a_problem_too(client: httpx.Client):
    answer = client.get("/v1/nowhere")
    assert (answer.status_code, answer.json()["reason"]) == (404, "ROUTE_NOT_FOUND")
    assert answer.headers["content-type"] == "application/problem+json"
    answer = client.delete("/v1/imports")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    answer = client.post(f"{URL}/0192:explode")
    assert answer.status_code == 404


def test_an_internal_operation_cannot_be_reached_under_any_name(client: httpx.Client, standin: Standin):
    for path in ("/v1/poison", "/steward.residents.v1.Auth/ExchangeSession", "/v1/auth/exchange"):
        for method in ("GET", "POST"):
            assert client.request(method, path).status_code == 404
    assert standin.calls == []


def test_a_service_that_is_not_connected_costs_its_own_operations_only(started: Callable[..., Any], base_settings: dict[str, str]):
    residents_only = re.sub(r",work_orders=[^,]*|^work_orders=[^,]*,", "", base_settings["STEWARD_ADDRESSES"])
    with started(STEWARD_ADDRESSES=residents_only) as (_, client):
        answer = client.get(f"{URL}/0192")
        assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_NOT_CONNECTED")
        assert client.get("/v1/me").status_code == 200
