"""Sessions: how long somebody who has signed in stays so, and what he may do at each moment.

A session has a short-lived access token and a refresh token that changes with every use; both are random, and only their
hashes are kept. What the session may do is never in it: every exchange asks the register of the moment. All times are machine
time, the database's.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.chassis import directory
from services.chassis.access import Grant, Principal
from services.chassis.db import Transaction, new_id
from services.chassis.errors import Unauthenticated

ACCESS_LIFETIME = timedelta(minutes=15)
REFRESH_LIFETIME = timedelta(days=30)
GRACE = timedelta(seconds=30)  # for a client to whom the answer with the next refresh token did not come


@dataclass(frozen=True, slots=True)
class Tokens:
    """A session as the client gets it."""

    access: str
    refresh: str
    expires_in: int  # seconds
    temporary: bool = False  # nothing can be done with it but changing the password


def open_session(tx: Transaction, principal: str, *, temporary_until: datetime | None = None) -> Tokens:
    """`temporary_until`: opened with a temporary password; it ends with that."""
    session, tokens = new_id(), _tokens(temporary_until is not None)
    tx.execute(
        "INSERT INTO sessions (id, principal, access_hash, access_expires_at, expires_at, temporary)"
        " VALUES (%s, %s, %s, now() + %s, least(now() + %s, %s), %s)",
        (session, principal, _hash(tokens.access), ACCESS_LIFETIME, REFRESH_LIFETIME, temporary_until, tokens.temporary),
    )
    tx.execute("INSERT INTO refresh_tokens (hash, session_id) VALUES (%s, %s)", (_hash(tokens.refresh), session))
    return tokens


def refresh_session(tx: Transaction, refresh: str) -> Tokens:
    """New tokens for old.

    A refresh token that comes a second time was stolen or replayed (RFC 9700 §4.14.2), or its answer was lost on the way: in a
    lift, say. Within GRACE, while nobody has used what was given for it, the second is assumed: what was given is revoked and
    something new is given. A thief and the owner cannot both go on: whoever comes with the revoked one ends the session.
    Otherwise the session ends at once. Raises Unauthenticated(SESSION_ENDED); what was ended is to be kept nevertheless.
    """
    old = _hash(refresh)
    # The session first: two that come at once with the same token take turns, and the second sees what the first has done.
    locked = tx.execute(
        "SELECT s.id, s.temporary, s.ended_at IS NULL AND s.expires_at > now() FROM sessions s"
        " WHERE s.id = (SELECT session_id FROM refresh_tokens WHERE hash = %s) FOR UPDATE",
        (old,),
    )
    if not locked or not locked[0][2]:
        raise _ended()
    session, temporary, _ = locked[0]
    used, revoked, repeated = tx.execute(
        "SELECT r.used_at IS NOT NULL, r.revoked_at IS NOT NULL, r.used_at > now() - %s AND n.hash IS NOT NULL AND n.used_at IS NULL"
        " FROM refresh_tokens r LEFT JOIN refresh_tokens n ON n.hash = r.successor WHERE r.hash = %s",
        (GRACE, old),
    )[0]
    if revoked or (used and not repeated):
        tx.execute("UPDATE sessions SET ended_at = now() WHERE id = %s", (session,))
        raise _ended()
    tokens = _tokens(temporary)
    tx.execute("UPDATE refresh_tokens SET revoked_at = now() WHERE hash = (SELECT successor FROM refresh_tokens WHERE hash = %s)", (old,))
    tx.execute("INSERT INTO refresh_tokens (hash, session_id) VALUES (%s, %s)", (_hash(tokens.refresh), session))
    tx.execute("UPDATE refresh_tokens SET used_at = coalesce(used_at, now()), successor = %s WHERE hash = %s", (_hash(tokens.refresh), old))
    tx.execute(
        "UPDATE sessions SET access_hash = %s, access_expires_at = now() + %s WHERE id = %s",
        (_hash(tokens.access), ACCESS_LIFETIME, session),
    )
    return tokens


def end_session(tx: Transaction, token: str) -> None:
    """Signing out, by either token; an unknown one is no error (RFC 7009)."""
    tx.execute(
        "UPDATE sessions SET ended_at = now() WHERE ended_at IS NULL"
        " AND (access_hash = %s OR id = (SELECT session_id FROM refresh_tokens WHERE hash = %s))",
        (_hash(token), _hash(token)),
    )


def end_sessions(tx: Transaction, principal: str) -> None:
    """All of somebody's at once: he has left, or has another password."""
    tx.execute("UPDATE sessions SET ended_at = now() WHERE principal = %s AND ended_at IS NULL", (principal,))


def behind(tx: Transaction, access: str) -> Principal:
    """The principal behind an access token with the grants of this moment. Raises Unauthenticated(SESSION_ENDED)."""
    rows = tx.execute(
        "SELECT principal, temporary FROM sessions"
        " WHERE access_hash = %s AND ended_at IS NULL AND access_expires_at > now() AND expires_at > now()",
        (_hash(access),),
    )
    principal = live(tx, rows[0][0]) if rows else None
    if principal is None:
        raise _ended()
    # Without a grant nothing is open to him even in a service that does not know the mark yet.
    return Principal(principal.kind, principal.id, temporary=True) if rows[0][1] else principal


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
        "SELECT kind, unit_id, estate_id, starts_at, ends_at, ends_at IS NULL OR ends_at > %s FROM dir_members"
        " WHERE person_id = %s AND NOT deleted AND (starts_at IS NULL OR starts_at <= %s) ORDER BY 1, 2, 4",
        (tx.now, identifier, tx.now),
    )
    now = {(role, unit, estate) for role, unit, estate, _, _, stands in rows if stands}
    spans = {unit: [(row[3], row[4]) for row in rows if row[1] == unit] for _, unit, _ in now}
    grants = tuple(Grant(role, "unit", unit, estate, _since(spans[unit])) for role, unit, estate in sorted(now))
    return Principal(kind, text, grants) if grants else None


def _since(spans: Iterable[tuple[datetime | None, datetime | None]]) -> datetime | None:
    """When somebody came to a unit to which he belongs now, None: since ever.

    A lease that is renewed, or a tenant who buys, has been there all along: memberships that follow each other without a gap
    count as one.
    """
    earliest = datetime.min.replace(tzinfo=UTC)
    began: datetime | None = None
    for starts, ends in sorted(spans, key=lambda span: span[0] or earliest, reverse=True):
        if began is not None and ends is not None and ends < began:
            break
        if starts is None:
            return None
        began = starts
    return began


def _tokens(temporary: bool = False) -> Tokens:
    lifetime = int(ACCESS_LIFETIME.total_seconds())
    return Tokens("sa_" + secrets.token_urlsafe(32), "sr_" + secrets.token_urlsafe(32), lifetime, temporary)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _ended() -> Unauthenticated:
    return Unauthenticated("the session has ended; sign in again", reason="SESSION_ENDED")
