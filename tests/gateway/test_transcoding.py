"""REST to gRPC and back, over sockets: where fields come from and what an answer looks like."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import httpx
import pytest

from tests.gateway.standin import Standin

REPORT = {
    "unit": "1-1-0101",
    "category": "BURST_PIPE",
    "description": "厨房水管爆裂 𬭎㛃😀",
    "urgent": True,
    "appointmentTime": "2026-11-22T10:00:00+08:00",
}


def test_a_report_arrives_as_its_message_and_comes_back_as_json(client: httpx.Client, standin: Standin):
    answer = client.post("/v1/estates/TFHY/repairs", json=REPORT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "name": "estates/TFHY/repairs/0192",
        "number": "WX-20261122-0007",
        "state": "REPORTED",
        "etag": "1",
        "unit": "1-1-0101",
        "category": "BURST_PIPE",
        "description": "厨房水管爆裂 𬭎㛃😀",
        "urgent": True,
        "appointmentTime": "2026-11-22T02:00:00Z",
        "reportTime": "2026-11-22T03:00:00Z",
    }
    request, metadata, _ = standin.last
    assert request.parent == "estates/TFHY"
    assert request.repair.appointment_time.seconds == 1795312800
    assert metadata["x-steward-identity"].startswith("e30.")
    assert "x-steward-internal" not in metadata
    assert "authorization" not in metadata


def test_what_only_the_service_may_set_is_not_passed_on(client: httpx.Client, standin: Standin):
    client.post("/v1/estates/TFHY/repairs", json=REPORT | {"state": "FILED", "number": "WX-1", "chargeTotal": {"units": "-1"}})
    request, _, _ = standin.last
    assert (request.repair.state, request.repair.number) == (0, "")
    assert not request.repair.HasField("charge_total")


def test_a_verb_reaches_its_operation_with_the_name_of_the_path(client: httpx.Client, standin: Standin):
    assert client.post("/v1/estates/TFHY/repairs/0192:dispatch", json={"technician": "staff/9", "precautions": "有狗"}).status_code == 200
    request, _, _ = standin.last
    assert (request.name, request.technician, request.precautions) == ("estates/TFHY/repairs/0192", "staff/9", "有狗")


def test_a_verb_without_a_body_is_an_empty_message(client: httpx.Client, standin: Standin):
    assert client.post("/v1/estates/TFHY/repairs/0192:take").status_code == 200
    assert standin.last[0].name == "estates/TFHY/repairs/0192"


def test_the_body_may_repeat_the_path_but_not_contradict_it(client: httpx.Client, standin: Standin):
    url = "/v1/estates/TFHY/repairs/0192:take"
    assert client.post(url, json={"name": "estates/TFHY/repairs/0192"}).status_code == 200
    answer = client.post(url, json={"name": "estates/TFHY/repairs/OTHER"})
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "name"
    assert len(standin.called("TakeRepair")) == 1


def test_query_parameters_fill_the_rest_in_either_spelling(client: httpx.Client, standin: Standin):
    query = "pageSize=5&page_token=abc%3D%3D&states=REPORTED&states=TAKEN&unit=1%E6%A0%8B&urgentOnly=true"
    assert client.get(f"/v1/estates/-/repairs?{query}").status_code == 200
    request, _, _ = standin.last
    assert (request.parent, request.page_size, request.page_token, list(request.states)) == ("estates/-", 5, "abc==", [1, 4])
    assert (request.unit, request.urgent_only) == ("1栋", True)


def test_query_parameters_reach_into_messages_and_take_every_kind_of_value(client: httpx.Client, standin: Standin):
    query = "window.startTime=2026-11-22T03:10:00Z&window.inner.open=false&tastes=SWEET&tastes=2"
    query += "&readMask=aB,c&hot=true&marks=_-8&within=1.5s&size=3"
    assert client.get(f"/v1/kitchens/1/dishes/2?{query}").status_code == 200
    request, _, _ = standin.last
    assert request.window.start_time.seconds == 1795317000
    assert request.window.inner.open is False
    assert request.window.HasField("inner")
    assert (list(request.tastes), list(request.read_mask.paths), request.hot.value, list(request.marks)) == (
        [1, 2],
        ["a_b", "c"],
        True,
        [b"\xff\xef"],
    )
    assert (request.within.nanos, request.size) == (500_000_000, 3)


def test_an_additional_binding_is_a_second_address(client: httpx.Client, standin: Standin):
    assert client.get("/v1/dishes/kitchens%2F1%2Fdishes%2F2").status_code == 200
    assert standin.last[0].name == "kitchens/1/dishes/2"


def test_the_path_may_bind_a_field_inside_the_body(client: httpx.Client, standin: Standin):
    answer = client.patch("/v1/kitchens/1/dishes/2?requestId=abc", json={"anInt32": 3, "name": "kitchens/1/dishes/2"})
    assert answer.status_code == 200
    request, _, _ = standin.last
    assert (request.dish.name, request.dish.an_int32, request.request_id) == ("kitchens/1/dishes/2", 3, "abc")


def test_an_empty_reply_is_an_empty_object(client: httpx.Client):
    answer = client.delete("/v1/kitchens/1/dishes/2")
    assert (answer.status_code, answer.json()) == (200, {})


def test_a_file_comes_back_as_it_is_and_cannot_run_as_a_page(client: httpx.Client):
    answer = client.get("/v1/imports/7/refusals:download")
    assert answer.content == b"PK\x03\x04 refused rows"
    assert answer.headers["content-type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_files_content_type_cannot_break_the_answer(client: httpx.Client, standin: Standin):
    body = standin.contract.message_class("google.api.HttpBody")
    standin.answers["DownloadRefusals"] = lambda request, context: body(content_type="text/html\r\nx-evil: 1", data=b"x")
    answer = client.get("/v1/imports/7/refusals:download")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "x-evil" not in answer.headers


def test_a_file_goes_up_as_it_is(client: httpx.Client, standin: Standin):
    picture = bytes(range(256)) * 100
    standin.answers["UploadPicture"] = lambda request, context: request.picture
    answer = client.put("/v1/kitchens/1/pictures/2", content=picture, headers={"content-type": "image/png"})
    assert (answer.content, answer.headers["content-type"]) == (picture, "image/png")


def test_a_large_file_in_json_arrives_whole(client: httpx.Client, standin: Standin):
    content = b"PK\x03\x04" + bytes(5 << 20)
    answer = client.post("/v1/imports", json={"filename": "register.xlsx", "content": b64encode(content).decode()})
    assert answer.status_code == 200
    assert standin.last[0].content == content


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/v1/estates/TFHY/repairs", {"unitt": "1"}, "unitt"),
        ("POST", "/v1/estates/TFHY/repairs/1:charge", {"charge": {"unitPrice": {"unit": "1"}}}, "charge.unitPrice.unit"),
        ("GET", "/v1/estates/TFHY/repairs?state=REPORTED", None, "state"),
        ("GET", "/v1/estates/TFHY/repairs/1?x=1", None, "x"),
        ("POST", "/v1/estates/TFHY/repairs/1:take?etag=1", {}, "etag"),
        ("GET", "/v1/kitchens/1/dishes/2?window=1", None, "window"),
        ("GET", "/v1/kitchens/1/dishes/2?name=3", None, "name"),
    ],
)
def test_unknown_fields_and_parameters_are_refused(client: httpx.Client, standin: Standin, method: str, path: str, body: Any, field: str):
    answer = client.request(method, path, json=body)
    assert answer.status_code == 400
    assert answer.json()["reason"] == "UNKNOWN_FIELD"
    assert answer.json()["violations"][0]["field"] == field
    assert [name for name, *_ in standin.calls if name != "ExchangeSession"] == []


@pytest.mark.parametrize(
    ("query", "reason", "field"),
    [
        ("pageSize=x", "INVALID_INPUT", "pageSize"),
        ("pageSize=99999999999", "INVALID_INPUT", "pageSize"),
        ("pageSize=1&pageSize=2", "INVALID_INPUT", "pageSize"),
        ("urgentOnly=yes", "INVALID_INPUT", "urgentOnly"),
        ("states=REPORTED&states=BROKEN", "INVALID_INPUT", "states[1]"),
        ("unit=a%00b", "INVALID_INPUT", "unit"),
        ("unit=%ff", "INVALID_QUERY", None),
        ("&".join(f"states={i}" for i in range(300)), "INVALID_QUERY", None),
    ],
)
def test_wrong_query_parameters_are_refused(client: httpx.Client, query: str, reason: str, field: str | None):
    answer = client.get(f"/v1/estates/TFHY/repairs?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    if field:
        assert answer.json()["violations"][0]["field"] == field


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "INVALID_JSON"),
        (b"[]", "INVALID_JSON"),
        (b"null", "INVALID_JSON"),
        (b'{"description": "\\ud800"}', "INVALID_JSON"),
        (b'{"description": NaN}', "INVALID_JSON"),
        (b'{"description": "\xff"}', "INVALID_JSON"),
        (b"[" * 100_000, "INVALID_JSON"),
        (b'{"description": "a\\u0000b"}', "INVALID_INPUT"),
        (b'{"description": ["a"]}', "INVALID_INPUT"),
        (b'{"appointmentTime": "2026-13-01T00:00:00Z"}', "INVALID_INPUT"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(client: httpx.Client, standin: Standin, body: bytes, reason: str):
    answer = client.post("/v1/estates/TFHY/repairs", content=body, headers={"content-type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert standin.called("ReportRepair") == []


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "application/xml"])
def test_a_body_of_another_kind_is_refused(client: httpx.Client, kind: str):
    answer = client.post("/v1/estates/TFHY/repairs", content=b"{}", headers={"content-type": kind})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE repairs; --", "<script>alert(1)</script>", "${jndi:ldap://x}", "../../etc/passwd", "\u202e\u200b"]
)
def test_attempts_at_injection_are_only_text(client: httpx.Client, standin: Standin, text: str):
    assert client.post("/v1/estates/TFHY/repairs", json=REPORT | {"description": text}).json()["description"] == text
    assert standin.last[0].repair.description == text


def test_dots_and_encoded_slashes_in_the_path_stay_in_their_segment(client: httpx.Client, standin: Standin):
    assert client.get("/v1/estates/%2E%2E%2FTFHY/repairs").status_code == 200
    assert standin.last[0].parent == "estates/..%2FTFHY"
    assert client.get("/v1/estates/a%00b/repairs").status_code == 400


def test_the_entity_tag_goes_out_and_comes_back(client: httpx.Client, standin: Standin):
    answer = client.get("/v1/estates/TFHY/repairs/0192")
    assert answer.headers["etag"] == '"7"'
    assert client.post("/v1/estates/TFHY/repairs/0192:take", headers={"if-match": answer.headers["etag"]}).status_code == 200
    assert standin.last[0].etag == "7"
    assert client.post("/v1/estates/TFHY/repairs/0192:take", json={"etag": "7"}, headers={"if-match": 'W/"7"'}).status_code == 200
    assert client.post("/v1/estates/TFHY/repairs/0192:take", json={}, headers={"if-match": "8"}).status_code == 200
    assert standin.last[0].etag == "8"
    assert client.post("/v1/estates/TFHY/repairs/0192:take", headers={"if-match": "*"}).status_code == 200
    assert standin.last[0].etag == ""


@pytest.mark.parametrize(
    ("path", "body", "header"),
    [
        ("/v1/estates/TFHY/repairs/1:take", {}, '"7", "8"'),
        ("/v1/estates/TFHY/repairs/1:take", {}, "{}"),
        ("/v1/estates/TFHY/repairs/1:take", {}, '""'),
        ("/v1/estates/TFHY/repairs", REPORT, '"7"'),
    ],
)
def test_a_condition_that_cannot_be_kept_is_refused(client: httpx.Client, standin: Standin, path: str, body: Any, header: str):
    answer = client.post(path, json=body, headers={"if-match": header})
    assert (answer.status_code, answer.json()["reason"], answer.json()["violations"][0]["field"]) == (400, "INVALID_HEADER", "If-Match")


def test_two_conditions_that_differ_cannot_both_hold(client: httpx.Client):
    answer = client.post("/v1/estates/TFHY/repairs/1:take", json={"etag": "8"}, headers={"if-match": '"7"'})
    assert (answer.status_code, answer.json()["reason"]) == (412, "STALE_ETAG")


def test_the_idempotency_key_fills_the_field_that_the_body_left_empty(client: httpx.Client, standin: Standin):
    url = "/v1/estates/TFHY/repairs/0192:take"
    client.post(url, headers={"idempotency-key": "0192f0c0-7a2e"})
    assert standin.last[0].request_id == "0192f0c0-7a2e"
    client.post(url, headers={"idempotency-key": '"quoted"'})
    assert standin.last[0].request_id == "quoted"
    client.post(url, json={"requestId": "of-the-body"}, headers={"idempotency-key": "of-the-header"})
    assert standin.last[0].request_id == "of-the-body"
    client.get("/v1/estates/TFHY/repairs/0192", headers={"idempotency-key": "ignored"})


@pytest.mark.parametrize("key", ["x" * 65, "", '""', "a b", "schlüssel".encode("latin-1")])
def test_an_idempotency_key_that_cannot_be_stored_is_refused(client: httpx.Client, key: Any):
    answer = client.post(
        "/v1/estates/TFHY/repairs/0192:take", headers={b"idempotency-key": key if isinstance(key, bytes) else key.encode()}
    )
    assert (answer.status_code, answer.json()["violations"][0]["field"]) == (400, "Idempotency-Key")


def test_the_deadline_is_five_seconds_and_a_client_may_lower_it(client: httpx.Client, standin: Standin):
    client.get("/v1/estates/TFHY/repairs/0192")
    assert 4.5 < standin.last[2] < 5.1
    client.get("/v1/estates/TFHY/repairs/0192", headers={"x-request-timeout": "1.5"})
    assert 1 < standin.last[2] < 1.6
    client.get("/v1/estates/TFHY/repairs/0192", headers={"x-request-timeout": "60"})
    assert 4.5 < standin.last[2] < 5.1


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf", ""])
def test_a_deadline_that_is_none_is_refused(client: httpx.Client, text: str):
    answer = client.get("/v1/estates/TFHY/repairs/0192", headers={"x-request-timeout": text})
    assert (answer.status_code, answer.json()["violations"][0]["field"]) == (400, "X-Request-Timeout")


def test_the_callers_trace_goes_on_and_comes_back(client: httpx.Client, standin: Standin):
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = client.get("/v1/estates/TFHY/repairs/0192", headers={"traceparent": parent})
    assert answer.headers["x-trace-id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert standin.last[1]["traceparent"] == parent
    assert all(metadata["traceparent"] == parent for _, _, metadata, _ in standin.calls)


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
    ],
)
def test_without_a_usable_trace_one_begins(client: httpx.Client, standin: Standin, parent: str | None):
    answer = client.get("/v1/estates/TFHY/repairs/0192", headers={"traceparent": parent} if parent else {})
    trace = answer.headers["x-trace-id"]
    assert re.fullmatch("[0-9a-f]{32}", trace)
    assert trace.lower() != "4bf92f3577b34da6a3ce929d0e0e4736"
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-01", standin.last[1]["traceparent"])


def test_a_trace_of_a_later_version_is_understood(client: httpx.Client, standin: Standin):
    client.get("/v1/estates/TFHY/repairs/0192", headers={"traceparent": "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"})
    assert standin.last[1]["traceparent"] == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_language_is_passed_on(client: httpx.Client, standin: Standin):
    client.get("/v1/estates/TFHY/repairs/0192", headers={"accept-language": "zh-CN,zh;q=0.9"})
    assert standin.last[1]["accept-language"] == "zh-CN,zh;q=0.9"
    client.get("/v1/estates/TFHY/repairs/0192", headers={"accept-language": "x" * 1000})
    assert "accept-language" not in standin.last[1]


def test_head_is_get_without_the_body(client: httpx.Client, standin: Standin):
    answer = client.head("/v1/estates/TFHY/repairs/0192")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 10
    assert len(standin.called("GetRepair")) == 1
