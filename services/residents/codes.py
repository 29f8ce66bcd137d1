"""One-time codes of residents: made and answered at once, sent by the role `jobs`.

`request` does the same for every telephone: a code, and a message with both sealed by the vault, in the caller's transaction.
Whose telephone it is is looked up when the message is sent, so that neither the answer nor the time it takes says who lives
here, and a process that dies loses nothing it has acknowledged.

Messages are sent by `jobs` and not by a thread of `api`: an api process must answer whatever the company does, come and go with
the load and drain in seconds, while a message may wait for minutes; only jobs needs a way out to the company, and its token. It has
threads of its own there, beside the operations, because an import may take an hour and a code lives for 5 minutes; they look
every second, so at rest a message leaves within that.

A message is claimed for LEASE, sent with no transaction open, and recorded. Who dies in between leaves it to the next one, which
sends it again under the same id. All times are machine time, the database's.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson
from prometheus_client import Counter, Histogram

from services.chassis.db import Database, Transaction, new_id
from services.chassis.errors import TooMany, Unavailable
from services.chassis.settings import settings
from services.residents.register_cells import Wrong, phones
from services.residents.sms import Company, Refused, Unreachable
from services.residents.vault import Unreadable, vault

log = logging.getLogger(__name__)

LIFETIME = timedelta(minutes=5)
MOST = (3, timedelta(minutes=10))  # at most so many for a telephone in that time
LEASE = timedelta(seconds=15)  # beyond what the company may take
FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=1), timedelta(seconds=60)  # between tries; doubled each time
PURPOSE = "one-time code"  # the vault's

HANDED_OVER = Counter("steward_sms_attempts_total", "Messages with one-time codes taken in hand, by what came of it each time.", ["result"])
SECONDS = Histogram(
    "steward_sms_seconds", "Time from asking for a code until the SMS company had it.", buckets=(0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
)


def dialled(phone: str) -> str:
    """A telephone as the register writes it, however it was typed: `+86 138-0000-0001` is `13800000001`."""
    try:
        return phones(phone, "")[0]
    except Wrong:
        return phone.strip()


def resident_with(tx: Transaction, phone: str) -> UUID | None:
    """The resident with a telephone. One that two people registered belongs to the one who lives in most units, then the first."""
    rows = tx.execute(
        "SELECT p.id FROM people p JOIN dir_members m ON m.person_id = p.id AND NOT m.deleted WHERE p.phone = %s"
        " GROUP BY p.id ORDER BY count(*) DESC, p.id LIMIT 1",
        (dialled(phone),),
    )
    return rows[0][0] if rows else None


def request(tx: Transaction, phone: str) -> None:
    """Makes a code and sees to its sending. Raises TooMany(TOO_MANY_CODES), Unavailable(NO_CODE_CHANNEL)."""
    config, phone = settings(), dialled(phone)
    if not (config.sms_url or config.development):
        raise Unavailable("no SMS channel is configured", reason="NO_CODE_CHANNEL")
    code = config.demo_code if config.development and config.demo_code else f"{secrets.randbelow(1_000_000):06d}"
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (phone,))
    made = tx.execute("SELECT count(*) FROM sign_in_codes WHERE phone_hash = %s AND created_at > now() - %s", (_index(phone), MOST[1]))
    if made[0][0] >= MOST[0]:
        wait = int(MOST[1].total_seconds())
        raise TooMany("too many codes were asked for; wait a few minutes", reason="TOO_MANY_CODES", retry_after=wait)
    tx.execute(
        "INSERT INTO sign_in_codes (id, phone_hash, code_hash, expires_at) VALUES (%s, %s, %s, now() + %s)",
        (new_id(), _index(phone), _index(phone, code), LIFETIME),
    )
    if config.sms_url:
        sealed = vault().seal(orjson.dumps({"phone": phone, "code": code}), PURPOSE)
        tx.execute("INSERT INTO code_messages (id, sealed, expires_at) VALUES (%s, %s, now() + %s)", (new_id(), sealed, LIFETIME))
    if config.development and resident_with(tx, phone) is not None:
        log.info("development: the one-time code for a phone ending in %s is %s", phone[-4:], code)


def use(tx: Transaction, phone: str, code: str) -> bool:
    """Whether a code is good for a telephone; it is used up by that."""
    phone = dialled(phone)
    used = tx.execute(
        "UPDATE sign_in_codes SET used_at = now() WHERE id = (SELECT id FROM sign_in_codes WHERE phone_hash = %s AND code_hash = %s"
        " AND used_at IS NULL AND expires_at > now() LIMIT 1 FOR UPDATE) RETURNING 1",
        (_index(phone), _index(phone, code)),
    )
    return bool(used)


@dataclass(frozen=True, slots=True)
class Message:
    """One that this process has claimed; `attempt` counts the claims, so that only the last one records what came of it."""

    id: UUID
    sealed: bytes
    attempt: int
    expired: bool


def send_next(database: Database, company: Company) -> bool:
    """Sends one message that is due. Returns whether there was one."""
    with database.transaction() as tx:
        message = _claimed(tx, LEASE + timedelta(seconds=company.timeout))
        if message is None:
            return False
        if message.expired:
            _end(tx, message, "EXPIRED", "expired")
            return True
        try:
            said = orjson.loads(vault().open(message.sealed, PURPOSE))
        except Unreadable:
            log.error("the message %s was sealed under another STEWARD_DATA_KEY", message.id)
            _end(tx, message, "FAILED", "unreadable")
            return True
        if resident_with(tx, said["phone"]) is None:
            _end(tx, message, "NOBODY", "nobody")
            return True
    state, error = "SENT", ""
    try:
        company.send_code(message.id, said["phone"], said["code"], int(LIFETIME.total_seconds()) // 60)
    except Refused as refusal:
        state, error = "FAILED", str(refusal)
        log.error("the SMS company refuses the message %s: %s", message.id, error)
    except Unreachable as trouble:
        state, error = "QUEUED", str(trouble)
        log.warning("the SMS company has not taken the message %s at attempt %d: %s", message.id, message.attempt, error)
    with database.transaction() as tx:
        if not tx.execute("SELECT 1 FROM code_messages WHERE id = %s AND attempts = %s FOR UPDATE", (message.id, message.attempt)):
            return True  # it took longer than LEASE, and another process has it now
        if state == "QUEUED":
            _again(tx, message, error)
        else:
            _end(tx, message, state, "sent" if state == "SENT" else "refused", error)
    return True


def _claimed(tx: Transaction, lease: timedelta) -> Message | None:
    rows = tx.execute(
        "UPDATE code_messages SET attempts = attempts + 1, next_at = now() + %s WHERE id = ("
        "SELECT id FROM code_messages WHERE next_at <= now() ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)"
        " RETURNING id, sealed, attempts, expires_at <= now()",
        (lease,),
    )
    return Message(rows[0][0], bytes(rows[0][1]), *rows[0][2:]) if rows else None


def _end(tx: Transaction, message: Message, state: str, result: str, error: str = "") -> None:
    """Telephone and code are forgotten with the end."""
    took: timedelta = tx.execute(
        "UPDATE code_messages SET state = %s, error = %s, sealed = '', next_at = NULL, ended_at = clock_timestamp() WHERE id = %s"
        " RETURNING ended_at - created_at",
        (state, error, message.id),
    )[0][0]
    tx.after_commit.append(HANDED_OVER.labels(result).inc)
    if state == "SENT":
        tx.after_commit.append(lambda: SECONDS.observe(took.total_seconds()))


def _again(tx: Transaction, message: Message, error: str) -> None:
    delay = min(FIRST_DELAY * 2 ** (message.attempt - 1), LONGEST_DELAY)
    tx.execute("UPDATE code_messages SET next_at = now() + %s, error = %s WHERE id = %s", (delay, error, message.id))
    tx.after_commit.append(HANDED_OVER.labels("retried").inc)


def _index(*texts: str) -> bytes:
    """Keyed: a stolen table of six-digit codes must not be a table of codes."""
    return vault().index("\0".join(texts), PURPOSE)
