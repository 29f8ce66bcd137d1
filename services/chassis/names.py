"""Resource names and page tokens (AIP-122, AIP-158), and the protobuf values every api module needs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from services.chassis.errors import InvalidInput, Violation
from services.chassis.settings import settings

PAGE = 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SEAL = 12  # bytes of a page token that prove it was made here


def last(name: str) -> str:
    """The id at the end of a resource name, as text; what is not an id will not be found."""
    return name.rsplit("/", 1)[-1]


def identifier(name: str, collection: str, field: str) -> UUID:
    """`staff/<id>` → id. Raises InvalidInput naming the field."""
    head, _, tail = name.rpartition("/")
    try:
        if head != collection:
            raise ValueError
        return UUID(tail)
    except ValueError:
        raise InvalidInput(f"{field} must be {collection}/<id>", violations=[Violation(field, f"must be {collection}/<id>")]) from None


def page_token(request: Message, *position: object) -> str:
    """A token that is good for the same query only, and that only Steward can have made: its position may be trusted."""
    place = json.dumps(position, default=str, separators=(",", ":"))
    return base64.urlsafe_b64encode(_seal(request, place) + place.encode()).decode().rstrip("=")


def page_position(request: Message) -> list[str]:
    """Where the next page begins; empty for the first. Raises InvalidInput(INVALID_PAGE_TOKEN)."""
    token: str = request.page_token  # type: ignore[attr-defined]
    if not token:
        return []
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        place = raw[SEAL:].decode()
        if not hmac.compare_digest(raw[:SEAL], _seal(request, place)):
            raise ValueError
        return json.loads(place)
    except ValueError:
        what = [Violation("page_token", "must be the next_page_token of the same query")]
        raise InvalidInput("the page token is not one of this query", reason="INVALID_PAGE_TOKEN", violations=what) from None


def page_after(request: Message) -> UUID | None:
    """The id after which the next page begins, for lists ordered by id. Raises InvalidInput(INVALID_PAGE_TOKEN)."""
    position = page_position(request)
    return UUID(position[0]) if position else None


def _seal(request: Message, place: str) -> bytes:
    same = type(request)()
    same.CopyFrom(request)
    for name in ("page_token", "page_size"):
        same.ClearField(name)
    text = type(request).__name__.encode() + b"\0" + same.SerializeToString(deterministic=True) + b"\0" + place.encode()
    return hmac.new(settings().internal_token.encode(), text, hashlib.sha256).digest()[:SEAL]


def stamp(at: datetime | None) -> Timestamp | None:
    """None stays None: an unset field."""
    if at is None:
        return None
    since = at - EPOCH
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000)


def stamp_seconds(at: float) -> Timestamp:
    """From seconds since the epoch."""
    value = Timestamp()
    value.FromMilliseconds(int(at * 1000))
    return value


def instant(message: Message, field: str) -> datetime | None:
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def money(amount: Decimal, currency: str = "CNY") -> Money:
    units = int(amount)
    return Money(currency_code=currency, units=units, nanos=int((amount - units) * 1_000_000_000))


def amount(value: Money, field: str) -> Decimal:
    """Two decimals, not negative, CNY. Raises InvalidInput naming the field."""

    def wrong(why: str) -> InvalidInput:
        return InvalidInput(f"{field} {why}", reason="BAD_MONEY", violations=[Violation(field, why)])

    if value.currency_code not in ("", "CNY"):
        raise wrong("must be in CNY")
    result = Decimal(value.units) + Decimal(value.nanos) / 1_000_000_000
    if value.units < 0 or value.nanos < 0 or value.nanos > 999_999_999:
        raise wrong("must not be negative")
    if result > Decimal("99999999.99") or result != result.quantize(Decimal("0.01")):
        raise wrong("must have at most two decimals and eight digits")
    return result.quantize(Decimal("0.01"))
