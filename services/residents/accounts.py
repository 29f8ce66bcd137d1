"""Accounts and sessions: who may sign in, and for how long.

Staff sign in by number and password (argon2id, RFC 9106), residents by the registered phone and a one-time code. A session
has a short-lived access token and a refresh token that changes with every use; both are random, and only their hashes are
kept. What the session may do is never in it: every exchange asks the register of the moment. All times are machine time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from services.chassis import directory
from services.chassis.access import Grant, Principal
from services.chassis.db import Database, Transaction, new_id
from services.chassis.errors import TooMany, Unauthenticated, Unavailable
from services.chassis.settings import settings

log = logging.getLogger(__name__)

ACCESS_LIFETIME = timedelta(minutes=15)
REFRESH_LIFETIME = timedelta(days=30)
CODE_LIFETIME = timedelta(minutes=5)
CODE_ATTEMPTS = 5
CODES = (3, timedelta(minutes=10))  # at most so many for a phone in that time
FAILURES = (5, timedelta(minutes=15))  # after so many in that time the account is locked for as long

_hasher = PasswordHasher()
_NOBODY = _hasher.hash(secrets.token_hex(16))  # verified for unknown numbers, so that they take as long as known ones


@dataclass(frozen=True, slots=True)
class Tokens:
    """A session as the client gets it."""

    access: str
    refresh: str
    expires_in: int  # seconds


def now() -> datetime:
    return datetime.now(UTC)


def sign_in_staff(database: Database, number: str, password: str) -> Tokens:
    """Raises Unauthenticated(BAD_CREDENTIALS), TooMany(TOO_MANY_ATTEMPTS)."""
    key = f"number:{number.strip().upper()}"
    with database.transaction() as tx:
        _refuse_if_locked(tx, key)
        rows = tx.execute(
            "SELECT s.id, a.password_hash FROM staff s LEFT JOIN accounts a ON a.principal = 'staff/' || s.id"
            " WHERE upper(s.number) = %s AND s.active",
            (number.strip().upper(),),
        )
    identifier, stored = rows[0] if rows else (None, None)
    if not _password_fits(stored, password, known=identifier is not None):
        _failed(database, key)
        raise Unauthenticated("number or password is wrong", reason="BAD_CREDENTIALS")
    with database.transaction() as tx:
        tx.execute("DELETE FROM failed_sign_ins WHERE key = %s", (key,))
        return open_session(tx, f"staff/{identifier}")


def _password_fits(stored: str | None, password: str, *, known: bool) -> bool:
    demo = settings().demo_password if settings().development else ""
    if known and stored is None and demo:
        return hmac.compare_digest(password.encode(), demo.encode())
    try:
        return _hasher.verify(stored or _NOBODY, password) and known and stored is not None
    except (VerifyMismatchError, InvalidHashError):
        return False


def set_password(tx: Transaction, staff_id: UUID, password: str) -> None:
    tx.execute(
        "INSERT INTO accounts (principal, password_hash) VALUES (%s, %s) ON CONFLICT (principal) DO UPDATE SET password_hash = EXCLUDED.password_hash",
        (f"staff/{staff_id}", _hasher.hash(password)),
    )


def request_code(database: Database, phone: str) -> None:
    """Makes and sends a one-time code; for an unknown phone it does nothing, and looks the same.

    Raises TooMany(TOO_MANY_CODES), Unavailable(NO_CODE_CHANNEL).
    """
    if not settings().development:
        raise Unavailable("no SMS channel is configured", reason="NO_CODE_CHANNEL")
    code = settings().demo_code or f"{secrets.randbelow(1_000_000):06d}"
    with database.transaction() as tx:
        tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (phone,))
        sent = tx.execute(
            "SELECT count(*) FROM sign_in_codes WHERE phone_hash = %s AND created_at > %s", (_index(phone), now() - CODES[1])
        )[0][0]
        if sent >= CODES[0]:
            raise TooMany(
                "too many codes were asked for; wait a few minutes", reason="TOO_MANY_CODES", retry_after=int(CODES[1].total_seconds())
            )
        tx.execute(
            "INSERT INTO sign_in_codes (id, phone_hash, code_hash, expires_at) VALUES (%s, %s, %s, %s)",
            (new_id(), _index(phone), _index(code), now() + CODE_LIFETIME),
        )
        known = _person(tx, phone) is not None
    if known:
        log.info("development: the one-time code for a phone ending in %s is %s", phone[-4:], code)


def sign_in_resident(database: Database, phone: str, code: str) -> Tokens:
    """Raises Unauthenticated(BAD_CREDENTIALS), TooMany(TOO_MANY_ATTEMPTS)."""
    key = f"phone:{phone}"
    with database.transaction() as tx:
        _refuse_if_locked(tx, key)
        person = _person(tx, phone)
        demo = settings().demo_code if settings().development else ""
        fits = bool(demo) and hmac.compare_digest(code.encode(), demo.encode())
        if not fits:
            fits = bool(
                tx.execute(
                    "UPDATE sign_in_codes SET used_at = now() WHERE id = (SELECT id FROM sign_in_codes WHERE phone_hash = %s AND code_hash = %s"
                    " AND used_at IS NULL AND expires_at > %s LIMIT 1 FOR UPDATE) RETURNING 1",
                    (_index(phone), _index(code), now()),
                )
            )
        if fits and person is not None:
            tx.execute("DELETE FROM failed_sign_ins WHERE key = %s", (key,))
            return open_session(tx, f"people/{person}")
    _failed(database, key)
    raise Unauthenticated("phone or code is wrong", reason="BAD_CREDENTIALS")


def open_session(tx: Transaction, principal: str) -> Tokens:
    session, tokens = new_id(), _tokens()
    tx.execute(
        "INSERT INTO sessions (id, principal, access_hash, access_expires_at, expires_at) VALUES (%s, %s, %s, %s, %s)",
        (session, principal, _hash(tokens.access), now() + ACCESS_LIFETIME, now() + REFRESH_LIFETIME),
    )
    tx.execute("INSERT INTO refresh_tokens (hash, session_id) VALUES (%s, %s)", (_hash(tokens.refresh), session))
    return tokens


def refresh_session(database: Database, refresh: str) -> Tokens:
    """New tokens for old. A refresh token that comes a second time was stolen or replayed: the session ends.

    Raises Unauthenticated(SESSION_ENDED).
    """
    ended = Unauthenticated("the session has ended; sign in again", reason="SESSION_ENDED")
    with database.transaction() as tx:
        rows = tx.execute(
            "SELECT s.id, r.used_at, s.ended_at, s.expires_at FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id"
            " WHERE r.hash = %s FOR UPDATE OF s, r",
            (_hash(refresh),),
        )
        if not rows:
            raise ended
        session, used_at, ended_at, expires_at = rows[0]
        good = used_at is None and ended_at is None and expires_at > now()
        if good:
            tokens = _tokens()
            tx.execute("UPDATE refresh_tokens SET used_at = now() WHERE hash = %s", (_hash(refresh),))
            tx.execute("INSERT INTO refresh_tokens (hash, session_id) VALUES (%s, %s)", (_hash(tokens.refresh), session))
            tx.execute(
                "UPDATE sessions SET access_hash = %s, access_expires_at = %s WHERE id = %s",
                (_hash(tokens.access), now() + ACCESS_LIFETIME, session),
            )
            return tokens
        tx.execute("UPDATE sessions SET ended_at = coalesce(ended_at, now()) WHERE id = %s", (session,))
    raise ended


def end_session(tx: Transaction, access: str) -> None:
    """Signing out; an unknown token is no error (RFC 7009)."""
    tx.execute("UPDATE sessions SET ended_at = now() WHERE access_hash = %s AND ended_at IS NULL", (_hash(access),))
    tx.execute(
        "UPDATE sessions SET ended_at = now() WHERE ended_at IS NULL AND id = (SELECT session_id FROM refresh_tokens WHERE hash = %s)",
        (_hash(access),),
    )


def end_sessions(tx: Transaction, principal: str) -> None:
    """All of somebody's at once: he has left."""
    tx.execute("UPDATE sessions SET ended_at = now() WHERE principal = %s AND ended_at IS NULL", (principal,))


def behind(tx: Transaction, access: str) -> Principal:
    """The principal behind an access token with the grants of this moment. Raises Unauthenticated(SESSION_ENDED)."""
    rows = tx.execute(
        "SELECT principal FROM sessions WHERE access_hash = %s AND ended_at IS NULL AND access_expires_at > %s", (_hash(access), now())
    )
    principal = live(tx, rows[0][0]) if rows else None
    if principal is None:
        raise Unauthenticated("the session has ended; sign in again", reason="SESSION_ENDED")
    return principal


def live(tx: Transaction, name: str) -> Principal | None:
    """`staff/…` or `people/…` with what it holds now; None when it is nobody any more."""
    kind, _, text = name.partition("/")
    identifier = UUID(text)
    if kind == "staff":
        if not tx.execute("SELECT 1 FROM staff WHERE id = %s AND active", (identifier,)):
            return None
        held = sorted(directory.held(tx, identifier))
        rows = tx.execute("SELECT id, lower(kind) FROM dir_nodes WHERE id = ANY(%s) AND NOT deleted", ([node for _, node in held],))
        levels = dict(rows)
        return Principal(kind, text, tuple(Grant(role, levels[node], node) for role, node in held if node in levels))
    rows = tx.execute(
        "SELECT kind, unit_id, estate_id FROM dir_members WHERE person_id = %s AND NOT deleted"
        " AND (starts_at IS NULL OR starts_at <= %s) AND (ends_at IS NULL OR ends_at > %s) ORDER BY 1, 2",
        (identifier, tx.now, tx.now),
    )
    return Principal(kind, text, tuple(Grant(role, "unit", unit, estate) for role, unit, estate in rows)) if rows else None


def _person(tx: Transaction, phone: str) -> UUID | None:
    """The resident with a phone. A phone that two people registered belongs to the one who lives in most units, then the first."""
    rows = tx.execute(
        "SELECT p.id FROM people p JOIN dir_members m ON m.person_id = p.id AND NOT m.deleted WHERE p.phone = %s"
        " GROUP BY p.id ORDER BY count(*) DESC, p.id LIMIT 1",
        (phone,),
    )
    return rows[0][0] if rows else None


def _refuse_if_locked(tx: Transaction, key: str) -> None:
    count = tx.execute("SELECT count(*) FROM failed_sign_ins WHERE key = %s AND at > %s", (key, now() - FAILURES[1]))[0][0]
    if count >= FAILURES[0]:
        raise TooMany(
            "too many failed attempts; wait a quarter of an hour", reason="TOO_MANY_ATTEMPTS", retry_after=int(FAILURES[1].total_seconds())
        )


def _failed(database: Database, key: str) -> None:
    with database.transaction() as tx:
        tx.execute("INSERT INTO failed_sign_ins (id, key) VALUES (%s, %s)", (new_id(), key))


def _tokens() -> Tokens:
    return Tokens("sa_" + secrets.token_urlsafe(32), "sr_" + secrets.token_urlsafe(32), int(ACCESS_LIFETIME.total_seconds()))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _index(text: str) -> bytes:
    """Keyed: a stolen table of six-digit codes must not be a table of codes."""
    return hmac.new(base64.b64decode(settings().data_key), text.encode(), hashlib.sha256).digest()
