"""Accounts: who may sign in, and with what.

Staff sign in by number and password, residents by the registered telephone and a one-time code (`codes.py`). Who fails five
times in a quarter of an hour waits for as long. A member of staff has the password he has set himself, or a temporary one that
somebody who decides on him has asked for: that one opens nothing but its own change. Every change of a password is kept
(`password_changes`) and ends the sessions of the one whose it is. All times are machine time, the database's.

A refusal that must leave something behind — a failed attempt — is raised like any other; `api/auth.py` commits it.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from uuid import UUID

from services.chassis import directory
from services.chassis.db import Transaction, new_id
from services.chassis.errors import Conflict, Forbidden, InvalidInput, TooMany, Unauthenticated, Violation
from services.chassis.settings import settings
from services.residents import codes, passwords, sessions
from services.residents.departments import decides_on
from services.residents.leave import standing_posts
from services.residents.sessions import Tokens
from services.residents.staff import Staff
from services.residents.vault import vault

FAILURES = (5, timedelta(minutes=15))  # after so many in that time the account is locked for as long
TEMPORARY_LIFETIME = timedelta(hours=24)


def sign_in_staff(tx: Transaction, number: str, password: str) -> Tokens:
    """Raises Unauthenticated(BAD_CREDENTIALS, TEMPORARY_PASSWORD_EXPIRED), TooMany(TOO_MANY_ATTEMPTS), Unavailable(BUSY)."""
    key = _number_key(number)
    _refuse_if_locked(tx, key)
    rows = tx.execute(
        "SELECT s.id, a.password_hash, a.temporary_until, a.temporary_until <= now() FROM staff s"
        " LEFT JOIN accounts a ON a.principal = 'staff/' || s.id WHERE upper(s.number) = %s AND s.active",
        (number.strip().upper(),),
    )
    identifier, stored, temporary_until, expired = rows[0] if rows else (None, None, None, None)
    if not _fits(stored, password, known=identifier is not None):
        _failed(tx, key)
        raise Unauthenticated("number or password is wrong", reason="BAD_CREDENTIALS")
    if expired:
        raise Unauthenticated("the temporary password was good for a day; ask for another", reason="TEMPORARY_PASSWORD_EXPIRED")
    principal = f"staff/{identifier}"
    if stored is not None:
        # Locked until the session is there: a change of the password meanwhile either ends it, or is seen here.
        if not tx.execute("SELECT 1 FROM accounts WHERE principal = %s AND password_hash = %s FOR UPDATE", (principal, stored)):
            raise Unauthenticated("number or password is wrong", reason="BAD_CREDENTIALS")
        if passwords.is_outdated(stored):
            tx.execute("UPDATE accounts SET password_hash = %s WHERE principal = %s", (passwords.hashed(password), principal))
    _forget_failures(tx, key)
    return sessions.open_session(tx, principal, temporary_until=temporary_until)


def sign_in_resident(tx: Transaction, phone: str, code: str) -> Tokens:
    """Raises Unauthenticated(BAD_CREDENTIALS), TooMany(TOO_MANY_ATTEMPTS)."""
    key = "phone:" + vault().index(codes.dialled(phone), "failed sign-in").hex()
    _refuse_if_locked(tx, key)
    person = codes.resident_with(tx, phone)
    demo = settings().demo_code if settings().development else ""
    fits = bool(demo) and hmac.compare_digest(code.encode(), demo.encode())
    if (fits or codes.use(tx, phone, code)) and person is not None:
        _forget_failures(tx, key)
        return sessions.open_session(tx, f"people/{person}")
    _failed(tx, key)
    raise Unauthenticated("phone or code is wrong", reason="BAD_CREDENTIALS")


def change_password(tx: Transaction, staff_id: UUID, old: str, new: str) -> Tokens:
    """By himself: all his sessions end, and there is a new one.

    Raises InvalidInput(WRONG_PASSWORD, WEAK_PASSWORD, SAME_PASSWORD), TooMany(TOO_MANY_ATTEMPTS), Unavailable(BUSY).
    """
    with tx.database.read() as register:  # who calls for himself has no part of the tree in sight
        number, *words = _words(register, staff_id)
    key = _number_key(number)
    _refuse_if_locked(tx, key)
    # Locked: two changes at once take turns, and the second finds that its old password is none any more.
    stored = tx.execute("SELECT password_hash FROM accounts WHERE principal = %s FOR UPDATE", (f"staff/{staff_id}",))
    if not _fits(stored[0][0] if stored else None, old, known=True):
        _failed(tx, key)
        what = [Violation("old_password", "is not your password")]
        raise InvalidInput("the old password is wrong", reason="WRONG_PASSWORD", violations=what)
    if passwords.normalised(new) == passwords.normalised(old):
        what = [Violation("new_password", "is the old one")]
        raise InvalidInput("choose another password", reason="SAME_PASSWORD", violations=what)
    passwords.refuse_weak(new, (number, *words), "new_password")
    _forget_failures(tx, key)
    _give(tx, staff_id, new, "CHANGED")
    return sessions.open_session(tx, f"staff/{staff_id}")


def reset_password(tx: Transaction, person: Staff, reason: str) -> tuple[str, datetime]:
    """A temporary password and until when it is good. It is kept as a hash alone.

    Raises Forbidden(OWN_PASSWORD, NOT_YOUR_DEPARTMENT), Conflict(STAFF_LEFT), Unavailable(BUSY).
    """
    if str(tx.principal) == f"staff/{person.id}":
        raise Forbidden("change your own password with SetPassword", reason="OWN_PASSWORD")
    if person.state == "LEFT":
        raise Conflict("he has left", reason="STAFF_LEFT")
    # Everything he may act as, also for others: nobody gets at roles by a password that he does not decide on.
    decides_on(tx, {*standing_posts(tx, person.id), *directory.held(tx, person.id)})
    password = passwords.temporary()
    until = _give(tx, person.id, password, "RESET", reason, temporary=True)
    assert until is not None
    _forget_failures(tx, _number_key(person.number))
    return password, until


def set_password(tx: Transaction, number: str, password: str) -> str:
    """By the command of operations, for the first of an installation. Returns whose it is now.

    Raises InvalidInput(WEAK_PASSWORD, STAFF_NOT_FOUND), Unavailable(BUSY).
    """
    rows = tx.execute("SELECT id FROM staff WHERE upper(number) = %s AND active", (number.strip().upper(),))
    if not rows:
        raise InvalidInput(f"nobody who works here has the number {number}", reason="STAFF_NOT_FOUND")
    own = _words(tx, rows[0][0])
    passwords.refuse_weak(password, own, "password")
    _give(tx, rows[0][0], password, "SET", "set by the command set_password")
    _forget_failures(tx, _number_key(number))
    return own[1]


def _give(tx: Transaction, staff_id: UUID, password: str, action: str, reason: str = "", *, temporary: bool = False) -> datetime | None:
    """The password, its history, and the end of all sessions. Returns until when a temporary one is good."""
    principal = f"staff/{staff_id}"
    until: datetime | None = tx.execute(
        "INSERT INTO accounts (principal, password_hash, temporary_until) VALUES (%s, %s, now() + %s) ON CONFLICT (principal)"
        " DO UPDATE SET password_hash = EXCLUDED.password_hash, temporary_until = EXCLUDED.temporary_until RETURNING temporary_until",
        (principal, passwords.hashed(password), TEMPORARY_LIFETIME if temporary else None),
    )[0][0]
    tx.execute(
        "INSERT INTO password_changes (id, principal, action, actor, reason) VALUES (%s, %s, %s, %s, %s)",
        (new_id(), principal, action, str(tx.principal), reason),
    )
    sessions.end_sessions(tx, principal)
    return until


def _fits(stored: str | None, password: str, *, known: bool) -> bool:
    demo = settings().demo_password if settings().development else ""
    if known and stored is None and demo:
        return hmac.compare_digest(password.encode(), demo.encode())
    return passwords.fits(stored, password) and known


def _words(tx: Transaction, staff_id: UUID) -> tuple[str, str, str]:
    """(number, name, telephone): what his password must not be made of."""
    row = tx.execute("SELECT number, name, phone FROM staff WHERE id = %s AND active", (staff_id,))
    if not row:
        raise Conflict("only staff have passwords", reason="NO_PASSWORD")
    return row[0][0], row[0][1], row[0][2]


def _number_key(number: str) -> str:
    return f"number:{number.strip().upper()}"


def _refuse_if_locked(tx: Transaction, key: str) -> None:
    count = tx.execute("SELECT count(*) FROM failed_sign_ins WHERE key = %s AND at > now() - %s", (key, FAILURES[1]))[0][0]
    if count >= FAILURES[0]:
        wait = int(FAILURES[1].total_seconds())
        raise TooMany("too many failed attempts; wait a quarter of an hour", reason="TOO_MANY_ATTEMPTS", retry_after=wait)


def _failed(tx: Transaction, key: str) -> None:
    tx.execute("INSERT INTO failed_sign_ins (id, key) VALUES (%s, %s)", (new_id(), key))


def _forget_failures(tx: Transaction, key: str) -> None:
    tx.execute("DELETE FROM failed_sign_ins WHERE key = %s", (key,))
