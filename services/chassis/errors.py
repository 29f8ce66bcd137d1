"""The one error table: what a domain may raise, and what a caller gets for it.

Each class fixes the gRPC code and the HTTP status; `reason` is the stable word a client switches on (AIP-193), `rule` the
row of the rule book that refused, if one did. The gateway turns it into a problem document (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that is wrong: path as in the proto (`repair.unit`), and a sentence."""

    field: str
    description: str


class StewardError(Exception):
    """A refusal with a stable reason. Subclasses are the rows of the table below."""

    code = "INTERNAL"
    http = 500
    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str = "", rule: str = "", violations: Sequence[Violation] = (), retry_after: int = 0):
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.rule = rule
        self.violations = tuple(violations)
        self.retry_after = retry_after  # seconds


class InvalidInput(StewardError):
    code, http, reason = "INVALID_ARGUMENT", 400, "INVALID_INPUT"


class Unauthenticated(StewardError):
    code, http, reason = "UNAUTHENTICATED", 401, "UNAUTHENTICATED"


class Forbidden(StewardError):
    code, http, reason = "PERMISSION_DENIED", 403, "ROLE_REQUIRED"


class NotFound(StewardError):
    code, http, reason = "NOT_FOUND", 404, "NOT_FOUND"


class Conflict(StewardError):
    """The request is well formed but the state of things does not allow it."""

    code, http, reason = "FAILED_PRECONDITION", 409, "CONFLICT"


class IllegalMove(Conflict):
    """An action its lifecycle does not allow from the present state."""

    reason = "ILLEGAL_MOVE"


class StaleEtag(StewardError):
    code, http, reason = "ABORTED", 412, "STALE_ETAG"


class KeyReused(StewardError):
    """An idempotency key came back with another body."""

    code, http, reason = "ALREADY_EXISTS", 422, "IDEMPOTENCY_KEY_REUSED"


class TooMany(StewardError):
    code, http, reason = "RESOURCE_EXHAUSTED", 429, "TOO_MANY_REQUESTS"


class Unavailable(StewardError):
    """A part that is needed does not answer; the same request may succeed later."""

    code, http, reason = "UNAVAILABLE", 503, "UNAVAILABLE"


TABLE = (
    InvalidInput,
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    IllegalMove,
    StaleEtag,
    KeyReused,
    TooMany,
    Unavailable,
    StewardError,
)
