"""Sign-in by OAuth 2 (RFC 6749, RFC 7009): form in, token out; the only two operations that speak this dialect.

    grant_type=password       username=TFHY-003  password=…
    grant_type=urn:steward:params:oauth:grant-type:otp  phone=…  code=…
    grant_type=refresh_token  refresh_token=…

Refusals have OAuth's form, `{"error": "invalid_grant", "error_description": "…"}`, with our stable `reason` and the
trace id beside it. A wrong password is 400 invalid_grant (RFC 6749 §5.2), not 401.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import grpc
import orjson

from gateway import problems
from gateway.descriptors import Contract, Rpc
from gateway.identity import Identities, auth_rpc
from gateway.limits import Buckets
from gateway.upstream import Upstream
from gateway.web import FORM, JSON, Request, Response
from services.chassis.errors import InvalidInput, StewardError, Unavailable, Violation

OTP = "urn:steward:params:oauth:grant-type:otp"
GRANTS = ("password", OTP, "refresh_token")
BODY_LIMIT = 16 * 1024  # bytes
BODY_TIMEOUT = 10.0  # seconds
NEVER_STORED = [(b"cache-control", b"no-store"), (b"pragma", b"no-cache")]


class OAuthError(Exception):
    """A refusal with an error code of RFC 6749 §5.2."""

    def __init__(self, error: str, description: str, *, status: int = 400, reason: str = "", retry_after: int = 0) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status
        self.reason, self.retry_after = reason or error.upper(), retry_after


class SignIn:
    """The endpoints below /v1/auth that are not RPCs."""

    def __init__(
        self, contract: Contract, upstream: Upstream, identities: Identities, limit: Buckets, internal_token: str, deadline: float
    ) -> None:
        self._create, self._refresh, self._end = (auth_rpc(contract, name) for name in ("CreateSession", "RefreshSession", "EndSession"))
        self._calls = {rpc: upstream.call(rpc) for rpc in (self._create, self._refresh, self._end)}
        self._identities, self._limit, self._deadline = identities, limit, deadline
        self._internal_token = internal_token

    async def token(self, request: Request) -> Response:
        """POST /v1/auth/token"""
        try:
            form = await self._form(request)
            match form.get("grant_type", ""):
                case "password":
                    staff = {"number": _needed(form, "username"), "password": _needed(form, "password")}
                    session = await self._call(request, self._create, self._create.input(staff=staff))
                case grant if grant == OTP:
                    resident = {"phone": _needed(form, "phone"), "code": _needed(form, "code")}
                    session = await self._call(request, self._create, self._create.input(resident=resident))
                case "refresh_token":
                    refresh = self._refresh.input(refresh_token=_needed(form, "refresh_token"))
                    session = await self._call(request, self._refresh, refresh)
                case "":
                    raise OAuthError("invalid_request", "grant_type is missing")
                case _:
                    raise OAuthError("unsupported_grant_type", f"grant_type must be one of {', '.join(GRANTS)}")
        except OAuthError as error:
            return _refusal(request, error)
        answer = {
            "access_token": session.access_token,
            "token_type": "Bearer",
            "expires_in": session.expires_in,
            "refresh_token": session.refresh_token,
        }
        if session.password_change_required:
            answer["password_change_required"] = True
        return Response(200, orjson.dumps(answer), JSON, list(NEVER_STORED))

    async def revoke(self, request: Request) -> Response:
        """POST /v1/auth/revoke: ends the session of an access token; a token that is none is no error (RFC 7009 §2.2)."""
        try:
            form = await self._form(request)
            token = _needed(form, "token")
            if form.get("token_type_hint") == "refresh_token":
                raise OAuthError("unsupported_token_type", "send the access token: it ends the session with both its tokens")
            if token.isascii() and token.isprintable():
                self._identities.forget(b"Bearer " + token.encode())
            try:
                await self._call(request, self._end, self._end.input(access_token=token))
            except OAuthError as error:
                if error.error != "invalid_grant":
                    raise
        except OAuthError as error:
            return _refusal(request, error)
        return Response(200, b"", headers=list(NEVER_STORED))

    async def _form(self, request: Request) -> dict[str, str]:
        """The form's fields. Raises OAuthError."""
        try:
            self._limit.take(request.address)
        except StewardError as error:
            raise OAuthError("slow_down", error.message, status=429, reason=error.reason, retry_after=error.retry_after) from None
        if request.media_type() != FORM:
            raise OAuthError("invalid_request", "send a form (Content-Type: application/x-www-form-urlencoded); JSON is not taken here")
        try:
            body = await request.body(BODY_LIMIT, BODY_TIMEOUT)
        except TimeoutError:
            raise OAuthError("invalid_request", "the form took too long to arrive", status=408) from None
        if body is None:
            raise OAuthError("invalid_request", f"the form is larger than {BODY_LIMIT} bytes", status=413)
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
        except ValueError:
            raise OAuthError("invalid_request", "the form is not percent-encoded UTF-8") from None
        form = dict(pairs)
        if len(form) != len(pairs):
            raise OAuthError("invalid_request", "a parameter is given twice")
        if any("\0" in value for value in form.values()):
            raise OAuthError("invalid_request", "a parameter holds the NUL character")
        return form

    async def _call(self, request: Request, rpc: Rpc, message: Any) -> Any:
        metadata = (("x-steward-internal", self._internal_token), ("traceparent", request.traceparent))
        try:
            return await self._calls[rpc](message, timeout=self._deadline, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            refusal = problems.from_rpc(error)
        except Unavailable as error:
            refusal = error
        raise _as_oauth(refusal)


def _needed(form: dict[str, str], name: str) -> str:
    if not (value := form.get(name, "")):
        raise OAuthError("invalid_request", f"{name} is missing")
    return value


def _as_oauth(refusal: StewardError) -> OAuthError:
    if refusal.http == 429:
        return OAuthError("slow_down", refusal.message, status=429, reason=refusal.reason, retry_after=refusal.retry_after or 1)
    if refusal.http >= 500 or refusal.reason == "INTERNAL_ONLY":
        return OAuthError("temporarily_unavailable", problems.BUSY, status=503, reason="UNAVAILABLE", retry_after=refusal.retry_after or 1)
    if isinstance(refusal, InvalidInput) or refusal.http == 400:
        return OAuthError("invalid_request", _sentence(refusal.message, refusal.violations), reason=refusal.reason)
    return OAuthError("invalid_grant", refusal.message, reason=refusal.reason)


def _sentence(message: str, violations: tuple[Violation, ...]) -> str:
    return "; ".join([message, *(f"{v.field} {v.description}" for v in violations)])


def _refusal(request: Request, error: OAuthError) -> Response:
    body = {"error": error.error, "error_description": error.description, "reason": error.reason, "traceId": request.trace_id}
    headers = list(NEVER_STORED)
    if error.retry_after:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    return Response(error.status, orjson.dumps(body), JSON, headers, reason=error.reason)


def openapi() -> dict[str, Any]:
    """The paths of this module for the OpenAPI document."""
    text: dict[str, Any] = {"type": "string", "minLength": 1}
    pair = {"grant_type": {"type": "string", "enum": ["password"]}, "username": {**text, "example": "TFHY-003"}, "password": text}
    otp = {"grant_type": {"type": "string", "enum": [OTP]}, "phone": text, "code": text}
    refresh = {"grant_type": {"type": "string", "enum": ["refresh_token"]}, "refresh_token": text}
    forms = [_form_schema(form, list(form)) for form in (pair, otp, refresh)]
    revoked = _form_schema({"token": text, "token_type_hint": {"type": "string"}}, ["token"])
    return {
        "/v1/auth/token": {
            "post": {
                "operationId": "Token",
                "tags": ["Auth"],
                "summary": "Sign in, or renew a session (OAuth 2, RFC 6749).",
                "description": "Staff sign in by number and password, residents by phone and one-time code (see RequestCode). "
                "A refresh token is used up by its use; if the answer was lost, it may be sent again within 30 seconds. After a temporary "
                "password `password_change_required` is true, and until SetPassword every other operation answers 403 "
                "`PASSWORD_CHANGE_REQUIRED`. Anybody may call it.",
                "security": [],
                "requestBody": {"required": True, "content": {FORM.decode(): {"schema": {"oneOf": forms}}}},
                "responses": {
                    "200": {
                        "description": "A session.",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Token"}}},
                    },
                    **_error_responses(),
                },
            }
        },
        "/v1/auth/revoke": {
            "post": {
                "operationId": "Revoke",
                "tags": ["Auth"],
                "summary": "Sign out (RFC 7009).",
                "description": "Ends the session of an access token. Anybody who has the token may call it.",
                "security": [],
                "requestBody": {"required": True, "content": {FORM.decode(): {"schema": revoked}}},
                "responses": {"200": {"description": "The token is worth nothing any more."}, **_error_responses()},
            }
        },
    }


def _form_schema(fields: dict[str, Any], needed: list[str]) -> dict[str, Any]:
    """Parameters nobody knows are passed over (RFC 6749 §3.2)."""
    return {"type": "object", "properties": fields, "required": needed, "additionalProperties": {"type": "string"}}


def _error_responses() -> dict[str, Any]:
    meanings = {
        "400": "The form is wrong, or the credentials are.",
        "408": "The form took too long to arrive.",
        "413": "The form is too large.",
        "429": "Too many tries.",
        "503": "Signing in is not possible at the moment.",
    }
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}}
    return {status: {"description": meaning, "content": schema} for status, meaning in meanings.items()}


def schemas() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "Token": {
            "type": "object",
            "required": ["access_token", "token_type", "expires_in", "refresh_token"],
            "properties": {
                "access_token": text,
                "token_type": {**text, "enum": ["Bearer"]},
                "expires_in": {"type": "integer"},
                "refresh_token": text,
                "password_change_required": {"type": "boolean"},
            },
        },
        "OAuthError": {
            "type": "object",
            "required": ["error", "error_description", "reason", "traceId"],
            "properties": {"error": text, "error_description": text, "reason": text, "traceId": text},
        },
    }
