"""One RPC or reaction, one transaction; everything the chassis adds costs two round trips.

The *prelude* opens the transaction, tells row-level security the scope, bounds its time, takes the idempotency key and
reads the business time; the *flush* writes events, history and the stored reply and commits. Between them the domain works
on mapped classes. The connection is in driver autocommit and the two strings carry BEGIN and COMMIT themselves, because the
driver's own BEGIN and COMMIT would be two round trips more.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import psycopg2
import sqlalchemy as sa
import uuid_utils
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from psycopg2.extras import register_uuid
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, QueryableAttribute, Session, sessionmaker

from services.chassis import prepared, rows
from services.chassis.access import EVERYTHING, Principal, Scope, covers, system
from services.chassis.errors import InvalidInput, KeyReused, NotFound, StaleEtag, Unavailable, Violation
from services.chassis.names import PAGE, page_position, page_token
from services.chassis.numbers import Numbers
from services.chassis.policies import Policies
from services.chassis.settings import settings
from services.chassis.watch import Silent, Watched

if TYPE_CHECKING:
    from services.chassis.directory import Estate
    from services.chassis.lifecycle import Act, Aggregate
    from services.chassis.policies import Terms
    from services.chassis.prepared import Statement

log = logging.getLogger(__name__)

register_uuid()

A = TypeVar("A")
G = TypeVar("G", bound="Aggregate")
R = TypeVar("R")

LOCK_TIMEOUT = 1000  # ms; a lock that is held longer is answered with 503, not waited for
STATEMENT_TIMEOUT = 5000  # ms, when the caller brings no deadline
RETRIED = {"40001", "40P01"}  # serialization_failure, deadlock_detected


class Base(DeclarativeBase):
    """Mapped classes of all services; each service's database holds its own tables and the chassis's."""


def new_id() -> UUID:
    """A UUIDv7: sortable by time, so new rows land at the end of the index."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


@dataclass(slots=True)
class Replay:
    """The stored reply of a command that was already done under the same key."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key: one per principal, operation and `request_id`; the body's hash guards against reuse."""

    rpc: str
    request_id: str
    body: bytes

    @property
    def body_hash(self) -> bytes:
        return hashlib.sha256(self.body).digest()


class Transaction:
    """What a domain function works with. `now` is business time: the only clock rules may read."""

    def __init__(self, session: Session, database: Database, principal: Principal, scope: Scope):
        self.session = session
        self.database = database
        self.service = database.service
        self.principal = principal
        self.scope = scope
        self.now: datetime = datetime.min.replace(tzinfo=UTC)
        self.estate: Estate | None = None  # the one the request or event is about
        self.trace = ""  # W3C traceparent of the request, carried into its events
        self.request_id = ""
        self.replay: Replay | None = None
        self.violations: Sequence[Violation] = ()  # of the request; raised once 404 and 412 are ruled out
        self.before_flush: list[Callable[[], None]] = []  # what takes a hot lock, so that it is held briefly
        self.after_commit: list[Callable[[], None]] = []  # counters and in-process caches
        self.wrote = False  # events, that is: the relay is woken
        self.touched: dict[int, Any] = {}  # entities that were new or changed: a session holds them only until they are flushed
        self._final: list[tuple[str, Sequence[Any]]] = []  # statements of the flush
        self._key: Key | None = None

    def act(self, reason: str = "") -> Act:
        """Who acts, when and why, with the policies and the calendar of the estate at hand."""
        from services.chassis.lifecycle import Act

        return Act(self.principal, self.now, reason, self.terms())

    def as_system(self) -> Act:
        """For moves that follow from another by rule; the reason names who caused it."""
        from services.chassis.lifecycle import Act

        return Act(system(self.service), self.now, f"by {self.principal}", self.terms())

    def terms(self) -> Terms:
        """The policy values in force at `self.estate`."""
        return self.database.policies.terms(self, self.estate)

    def add(self, entity: A) -> A:
        self.session.add(entity)
        return entity

    def get(self, cls: type[G], identifier: UUID | str, etag: str = "") -> G:
        """The aggregate, its row locked until commit. Raises NotFound, StaleEtag, then what was wrong with the request."""
        entity: G | None = rows.locked(self.session, cls, _key(cls, identifier))
        if entity is None or not sees(self.scope, entity):
            raise _not_found(cls)
        if etag and etag != entity.etag:
            raise StaleEtag("it has changed since it was read; read it again")
        self.check_input()
        rows.with_children(self.session, entity)
        return entity

    def see(self, cls: type[G], identifier: UUID | str) -> G:
        """The aggregate as it is, without a lock, for reading: a row of its view (`views.py`), not an entity. Raises NotFound."""
        from services.chassis.views import view_of

        found = view_of(cls).find(self, sa.select(cls).where(cls.id == _key(cls, identifier), self.inside(cls)))
        if not found:
            raise _not_found(cls)
        return found[0]

    def page(
        self,
        query: sa.Select[Any],
        cls: type[A],
        request: Any,
        newest: Sequence[QueryableAttribute[Any]] = (),
        *,
        within: sa.ColumnElement[bool] | None = None,
    ) -> tuple[list[A], str]:
        """One page of what `query` finds within the scope, and the token of the next (AIP-158). Raises InvalidInput.

        Rows of the view of `cls`, as in `see`; the newest first: the greatest id, or the greatest of the columns named. `within`
        stands for the scope where rows belong to a person and not to a part of the tree.
        """
        from services.chassis.views import older, view_of

        newest = newest or (cast(Any, cls).id,)
        size = request.page_size or PAGE
        query = query.where(self.inside(cls) if within is None else within)
        if position := page_position(request):
            query = query.where(older(newest, position))
        found = view_of(cls).find(self, query, newest, size + 1)
        if len(found) <= size:
            return found, ""
        return found[:size], page_token(request, *(getattr(found[size - 1], column.key) for column in newest))

    def ask(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a statement that the connection prepares once."""
        return prepared.ask(_raw(self.session), statement)

    def inside(self, cls: type[Any]) -> sa.ColumnElement[bool]:
        """The scope as a predicate, to be repeated in every query: without it row-level security costs a full scan."""
        return inside(self.scope, cast(Any, cls))

    def prepare(self) -> None:
        """What is taken last, now: case numbers. A reply that shows them is built after this."""
        while self.before_flush:
            self.before_flush.pop(0)()

    def check_input(self) -> None:
        if self.violations:
            raise InvalidInput("the request is not valid", violations=self.violations)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        """A statement in the driver's own words, for what the mapped classes would only make longer."""
        return _execute(self.session, sql, values)

    def finally_execute(self, sql: str, values: Sequence[Any]) -> None:
        """Adds a statement to the flush: written last, in one round trip with the commit."""
        self._final.append((sql, values))

    def store_reply(self, reply: bytes) -> None:
        if self._key:
            self.finally_execute(
                "UPDATE idempotency SET reply = %s WHERE principal = %s AND rpc = %s AND request_id = %s",
                (reply, str(self.principal), self._key.rpc, self._key.request_id),
            )


@lru_cache(maxsize=256)  # to build an expression takes longer than to look it up
def inside(scope: Scope, cls: type[Any]) -> sa.ColumnElement[bool]:
    """`scope` as a predicate on a class with the scope columns; of owned rows a resident gets his own, of his time in the unit."""
    if scope.everything:
        return sa.true()
    nodes: list[sa.ColumnElement[bool]] = []
    for column, ids in ((cls.estate_id, scope.estates), (cls.company_id, scope.companies), (cls.group_id, scope.groups)):
        if len(ids) == 1:
            nodes.append(column == next(iter(ids)))
        elif ids:
            nodes.append(column.in_(ids))
    where = sa.or_(*nodes) if nodes else sa.false()
    if scope.person is None:
        return where
    person, unit = cls.owned_by()
    mine = [column == scope.person for column in (person,) if column is not None]
    if unit is not None:
        ever = scope.units - {later for later, _ in scope.since}
        mine += [unit.in_(ever)] if ever else []
        mine += [sa.and_(unit == later, cls.began_at() >= since) for later, since in sorted(scope.since)]
    return sa.and_(where, sa.or_(*mine) if mine else sa.false())


def sees(scope: Scope, entity: Any) -> bool:
    """Whether an entity that was read by its id lies inside `scope`: what `inside` says of rows."""
    if not covers(scope, estate=entity.estate_id, company=entity.company_id, group=entity.group_id):
        return False
    if scope.everything or scope.person is None:
        return True
    cls = type(entity)
    person, unit = (None if column is None else getattr(entity, column.key) for column in cls.owned_by())
    if person == scope.person:
        return True
    if unit not in scope.units:
        return False
    since = dict(scope.since).get(unit)
    return since is None or getattr(entity, cls.began_at().key) >= since


def _key(cls: type[Any], identifier: UUID | str) -> UUID:
    try:
        return identifier if isinstance(identifier, UUID) else UUID(identifier)
    except ValueError:
        raise NotFound("that is not the id of anything", reason=f"{cls.KIND.upper()}_NOT_FOUND") from None


def _not_found(cls: type[Any]) -> NotFound:
    return NotFound(f"there is no such {cls.__tablename__.rstrip('s')}", reason=f"{cls.KIND.upper()}_NOT_FOUND")


class Database:
    """One service's database: an engine, its transactions, and the wake-up of the relay."""

    def __init__(self, service: str, url: str = "", *, pool_size: int = 0):
        self.service = service
        self.url = url or settings().database(service)
        self.engine = sa.create_engine(
            self.url.replace("postgresql://", "postgresql+psycopg2://", 1),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size or settings().pool_size,
            max_overflow=4,
            pool_timeout=2,
            pool_reset_on_return=None,
            connect_args={"fallback_application_name": f"steward-{service}", "connect_timeout": 3, "connection_factory": Watched},
        )
        sa.event.listen(self.engine, "checkin", _rollback_leftovers)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        sa.event.listen(self._sessions, "before_flush", _hold)
        self._wake = _Waker(self)
        self.policies = Policies()
        self.numbers = Numbers(service, self.url)

    @contextlib.contextmanager
    def transaction(
        self,
        principal: Principal | None = None,
        scope: Scope = EVERYTHING,
        *,
        key: Key | None = None,
        timeout: float = 0,
        inbox: tuple[str, UUID] | None = None,
        read_only: bool = False,
    ) -> Iterator[Transaction]:
        """Everything inside happens once or not at all.

        `key` makes a command idempotent: if it was already done, `transaction.replay` holds the stored reply and the body
        must do nothing. `inbox` (reaction, event id) does the same for reactions. `timeout` in seconds bounds every
        statement. Raises Unavailable when the database does not answer or a lock is held too long.
        """
        principal = principal or system(self.service)
        session = self._sessions()
        with translated():
            _raw(session)  # from the pool or new; where none can be had there is nothing to abandon
        tx = Transaction(session, self, principal, scope)
        session.info["touched"] = tx.touched
        try:
            with translated():
                self._begin(tx, key, timeout, inbox, read_only)
            with translated():
                yield tx
                if read_only or tx.replay is not None:
                    _execute(session, "ROLLBACK" if tx.replay is not None else "COMMIT")
                    return
                self._flush(tx)
        except BaseException:
            _abandon(session)
            raise
        finally:
            session.close()
        for done in tx.after_commit:
            done()
        if tx.wrote:
            self._wake.soon()

    @contextlib.contextmanager
    def read(self, principal: Principal | None = None, scope: Scope = EVERYTHING, *, timeout: float = 0) -> Iterator[Transaction]:
        """A consistent look without writing."""
        with self.transaction(principal, scope, timeout=timeout, read_only=True) as tx:
            yield tx

    @contextlib.contextmanager
    def look(self, principal: Principal, scope: Scope, *, timeout: float = 0) -> Iterator[Transaction]:
        """The same for one call: nothing is sent before something is asked (`views.Look`)."""
        from services.chassis.views import Look

        with contextlib.ExitStack() as opened:
            tx = Look(self, principal, scope, timeout, opened)
            yield tx
        for done in tx.after_commit:
            done()

    @contextlib.contextmanager
    def reaction(self, name: str, event_id: UUID) -> Iterator[Transaction | None]:
        """The transaction of a reaction to one event; None when this reaction has already had it."""
        with self.transaction(inbox=(name, event_id)) as tx:
            yield None if tx.replay is not None else tx

    def _begin(self, tx: Transaction, key: Key | None, timeout: float, inbox: tuple[str, UUID] | None, read_only: bool) -> None:
        """The prelude; once more on a new connection when the one from the pool turns out to be dead, as nothing was done on it."""
        try:
            self._prelude(tx, key, timeout, inbox, read_only)
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if not _raw(tx.session).closed or isinstance(error, Silent):
                raise
            _abandon(tx.session)  # which also tells the pool that connections of this age are dead
            self._prelude(tx, key, timeout, inbox, read_only)

    def _prelude(self, tx: Transaction, key: Key | None, timeout: float, inbox: tuple[str, UUID] | None, read_only: bool) -> None:
        connection = _raw(tx.session)
        connection.bound(seconds_of(timeout), together=timeout > 0)
        settings, told = settings_of(tx.scope, tx.principal, timeout)
        with connection.cursor() as cursor:
            before = [b"BEGIN READ ONLY" if read_only else b"BEGIN", cursor.mogrify(settings, told)]
        taking, taken, values = "", "1", []
        if key:
            taking = (
                "WITH taken AS (INSERT INTO idempotency (principal, rpc, request_id, body_hash) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING RETURNING 1) "
            )
            values = [str(tx.principal), key.rpc, key.request_id, key.body_hash]
        elif inbox:
            taking = "WITH taken AS (INSERT INTO inbox (reaction, event_id) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1) "
            values = [inbox[0], str(inbox[1])]
        if taking:
            taken = "(SELECT count(*) FROM taken)"
        sql = f"{taking}SELECT clock_timestamp() + shifted_by, {taken} FROM business_time"
        now, fresh = prepared.tell(connection, [(sql, values)], before=before)[0]
        tx.now = now
        if fresh:
            tx._key = key
        elif inbox:
            tx.replay = Replay(b"")
        elif key:
            tx.replay = self._stored(tx, key)

    def _stored(self, tx: Transaction, key: Key) -> Replay:
        rows = _execute(
            tx.session,
            "SELECT body_hash, reply FROM idempotency WHERE principal = %s AND rpc = %s AND request_id = %s",
            (str(tx.principal), key.rpc, key.request_id),
        )
        if not rows:
            raise Unavailable("the same command is being worked on", reason="COMMAND_IN_PROGRESS", retry_after=1)
        body_hash, reply = rows[0]
        if bytes(body_hash) != key.body_hash:
            raise KeyReused("this idempotency key was used for another request")
        return Replay(bytes(reply))

    def _flush(self, tx: Transaction) -> None:
        from services.chassis.events import collect

        tx.prepare()
        _hold(tx.session)
        written = rows.statements(tx.session)
        collect(tx)
        prepared.tell(_raw(tx.session), (*written, *tx._final), after=[b"COMMIT"])

    def dispose(self) -> None:
        self._wake.stop()
        self.numbers.close()
        self.engine.dispose()


def seconds_of(timeout: float) -> float:
    """What one statement may take, of somebody who waits for `timeout` seconds; 0 is nobody."""
    return min(timeout or STATEMENT_TIMEOUT / 1000, 600)


def settings_of(scope: Scope, principal: Principal, timeout: float) -> tuple[str, list[Any]]:
    """What PostgreSQL is told of a transaction before anything else: its time, and whose it is and what he may see."""
    nodes = "{" + ",".join(str(node) for node in scope.groups | scope.companies | scope.estates) + "}"
    return (
        "SET LOCAL statement_timeout = %s; SET LOCAL lock_timeout = %s;"
        " SET LOCAL steward.system = %s; SET LOCAL steward.nodes = %s; SET LOCAL steward.principal = %s",
        [max(int(seconds_of(timeout) * 1000), 1), LOCK_TIMEOUT, "on" if scope.everything else "off", nodes, str(principal)],
    )


def with_retries(work: Callable[[], R], attempts: int = 3) -> R:
    """Runs a whole transaction again after a serialization failure or a deadlock."""
    for attempt in range(attempts):
        try:
            return work()
        except Unavailable as error:
            if error.reason != "TRANSACTION_RETRY" or attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def _hold(session: Session, *_: object) -> None:
    """Keeps what is about to be flushed: an entity that only the weak identity map knew would take its events with it."""
    session.info["touched"].update((id(entity), entity) for entity in (*session.new, *session.dirty))


_raw = rows.driven_by


def _execute(session: Session, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
    with _raw(session).cursor() as cursor:
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []


def _abandon(session: Session) -> None:
    with contextlib.suppress(Exception):
        _execute(session, "ROLLBACK")
    with contextlib.suppress(Exception):
        session.rollback()
    session.info.pop(rows.CONNECTION, None)


def _rollback_leftovers(connection: Any, record: Any) -> None:
    if connection is not None:
        connection.unbound()
    if connection is not None and not connection.closed and connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
        connection.rollback()
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Database trouble in the words of the error table."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise Unavailable("no database connection is free", reason="BUSY", retry_after=1) from error
    except (DBAPIError, psycopg2.Error) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(original, "pgcode", None)
        if state in RETRIED:
            raise Unavailable("the transaction must be run again", reason="TRANSACTION_RETRY", retry_after=1) from error
        if state and state.startswith("22"):  # data_exception: a value no rule has caught and no column can hold
            log.exception("a value that should have been refused earlier reached the database")
            raise InvalidInput("a value cannot be stored", reason="VALUE_REFUSED") from error
        if state == "55P03":
            raise Unavailable("somebody else is changing the same thing", reason="LOCKED", retry_after=1) from error
        if state == "57014" or isinstance(original, Silent):
            raise Unavailable("the database did not answer in time", reason="DEADLINE", retry_after=1) from error
        if isinstance(original, (psycopg2.OperationalError, psycopg2.InterfaceError)) or isinstance(error, OperationalError):
            raise Unavailable("the database does not answer", reason="DATABASE_DOWN", retry_after=2) from error
        raise


class _Waker:
    """Tells the relay that events wait: one NOTIFY for a burst, outside every transaction (inside, it serialises commits)."""

    def __init__(self, database: Database, pause: float = 0.02):
        self._database, self._pause = database, pause
        self._asked = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"waker-{self._database.service}", daemon=True)
            self._thread.start()
        self._asked.set()

    def stop(self) -> None:
        self._stopped = True
        self._asked.set()

    def _run(self) -> None:
        while not self._stopped:
            self._asked.wait()
            self._asked.clear()
            with contextlib.suppress(Exception), self._database.engine.connect() as connection:
                connection.exec_driver_sql("NOTIFY steward_events")
            threading.Event().wait(self._pause)
