"""Refusals on their way out: a gRPC status or an error of the table becomes a problem document (RFC 9457).

    {"type": "urn:steward:problem:illegal-move", "title": "Illegal move", "status": 409, "detail": "…", "reason": "ILLEGAL_MOVE",
     "rule": "REP-09", "violations": [{"field": "contactPhone", "description": "…"}], "instance": "/v1/…", "traceId": "…"}

Services say what they mean in google.rpc.Status (AIP-193): ErrorInfo with `reason` and the metadata `http` and `rule`,
BadRequest, RetryInfo. A status without details comes from gRPC itself, and its text (addresses, stack) is not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from gateway.web import Response
from services.chassis.errors import Forbidden, InvalidInput, NotFound, StewardError, Unauthenticated, Unavailable, Violation

PROBLEM_JSON = b"application/problem+json"
OURS = "Something broke on our side; it has been logged under the trace id."
BUSY = "A part that is needed does not answer at the moment; try again."


# The gateway's own rows of the error table (services/chassis/errors.py): what goes wrong in HTTP before a service is asked.


class MethodNotAllowed(StewardError):
    code, http, reason = "UNIMPLEMENTED", 405, "METHOD_NOT_ALLOWED"

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(f"this address takes {', '.join(methods)}")
        self.methods = tuple(methods)


class SlowBody(StewardError):
    code, http, reason = "DEADLINE_EXCEEDED", 408, "BODY_TOO_SLOW"


class BodyTooLarge(StewardError):
    code, http, reason = "INVALID_ARGUMENT", 413, "BODY_TOO_LARGE"


class AddressTooLong(StewardError):
    code, http, reason = "INVALID_ARGUMENT", 414, "ADDRESS_TOO_LONG"


class UnsupportedMediaType(StewardError):
    code, http, reason = "INVALID_ARGUMENT", 415, "UNSUPPORTED_MEDIA_TYPE"


class NotServed(StewardError):
    """The contract has the operation, the running service does not yet: the two are of different versions."""

    code, http, reason = "UNIMPLEMENTED", 501, "NOT_SERVED"


class TooSlow(StewardError):
    """Whether the operation took effect is not known; the same Idempotency-Key makes a second try safe."""

    code, http, reason = "DEADLINE_EXCEEDED", 504, "DEADLINE_EXCEEDED"


class Conflicting(StewardError):
    code, http, reason = "ABORTED", 409, "ABORTED"


class Existing(StewardError):
    code, http, reason = "ALREADY_EXISTS", 409, "ALREADY_EXISTS"


def _plain(status: grpc.StatusCode) -> StewardError:
    """What a status without details means."""
    match status:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.RESOURCE_EXHAUSTED | grpc.StatusCode.CANCELLED:
            return Unavailable(BUSY, retry_after=1)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TooSlow("the operation did not answer in time")
        case grpc.StatusCode.UNIMPLEMENTED:
            return NotServed("this operation is not served yet")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidInput("the request is not valid")
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated("sign in first")
        case grpc.StatusCode.PERMISSION_DENIED:
            return Forbidden("you may not do this")
        case grpc.StatusCode.NOT_FOUND:
            return NotFound("there is no such thing")
        case grpc.StatusCode.ALREADY_EXISTS:
            return Existing("it exists already")
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ABORTED:
            return Conflicting("the state of things does not allow it")
    return StewardError(OURS)


def from_rpc(error: grpc.aio.AioRpcError, field: Callable[[str], str] = lambda path: path) -> StewardError:
    """The refusal behind a failed call; `field` turns a path of the proto into the one the client knows."""
    result = _plain(error.code())
    trailing: Any = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == "grpc-status-details-bin":
            try:
                status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode("latin-1"))
            except DecodeError:
                return result
            return _detailed(status, result, field)
    return result


def _detailed(status: Any, plain: StewardError, field: Callable[[str], str]) -> StewardError:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for known in (info, bad, retry):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    if not info.reason:
        return plain
    http = dict(info.metadata).get("http", "")
    number = int(http) if http in _STATUSES else plain.http
    result = StewardError(
        status.message if number < 500 or number == 503 else OURS,
        reason=info.reason,
        rule=dict(info.metadata).get("rule", ""),
        violations=[Violation(field(v.field), v.description) for v in bad.field_violations],
        retry_after=retry.retry_delay.seconds + (retry.retry_delay.nanos > 0),
    )
    result.code, result.http = plain.code, number
    return result


_STATUSES = frozenset(str(status.value) for status in HTTPStatus if 400 <= status.value < 600)


def document(error: StewardError, instance: str, trace_id: str) -> dict[str, Any]:
    """Members without a value are left out."""
    body: dict[str, Any] = {
        "type": f"urn:steward:problem:{error.reason.lower().replace('_', '-')}",
        "title": error.reason.replace("_", " ").capitalize(),
        "status": error.http,
        "detail": error.message,
        "reason": error.reason,
    }
    if error.rule:
        body["rule"] = error.rule
    if error.violations:
        body["violations"] = [{"field": v.field, "description": v.description} for v in error.violations]
    if instance:
        body["instance"] = instance
    body["traceId"] = trace_id
    return body


def headers(error: StewardError) -> list[tuple[bytes, bytes]]:
    found = [(b"cache-control", b"no-store")]
    if error.http == 401:
        found.append((b"www-authenticate", b'Bearer realm="steward", error="invalid_token"'))
    if isinstance(error, MethodNotAllowed):
        found.append((b"allow", ", ".join(error.methods).encode()))
    if error.retry_after or error.http in (429, 503):
        found.append((b"retry-after", str(error.retry_after or 1).encode()))
    return found


def response(error: StewardError, instance: str, trace_id: str) -> Response:
    body = orjson.dumps(document(error, instance, trace_id))
    return Response(error.http, body, PROBLEM_JSON, headers(error), reason=error.reason)


def camel(path: str) -> str:
    """`repair.charges[0].unit_price` → `repair.charges[0].unitPrice`, as protobuf forms JSON names; map keys stay."""
    return "".join(
        part if part.startswith("[") else re.sub(r"_(.)", lambda m: m[1].upper(), part) for part in re.split(r"(\[[^\]]*\])", path)
    )
