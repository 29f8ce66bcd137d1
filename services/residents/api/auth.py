"""Sign-in and identities: the service Auth."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import sqlalchemy as sa
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from services.chassis.access import sign
from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput, NotFound, Unauthenticated
from services.chassis.names import last, stamp, stamp_seconds
from services.residents import accounts, codes, sessions
from services.residents.staff import Staff
from steward.options.v1 import options_pb2
from steward.residents.v1 import auth_pb2 as pb

M = TypeVar("M", bound=Message)


def refused_after_commit(function: Callable[[Any, Transaction], M]) -> Callable[[Any, Transaction], M | Empty]:
    """For refusals that leave something behind (a failed attempt, a session that has ended): commit first, then refuse.

    In the transaction of the call, because a second one would want a second connection while the first is held.
    """

    @wraps(function)
    def call(request: Any, tx: Transaction) -> M | Empty:
        try:
            return function(request, tx)
        except (Unauthenticated, InvalidInput) as refusal:
            said = refusal

            def refuse() -> NoReturn:
                raise said

            tx.after_commit.append(refuse)
            return Empty()

    return call


def request_code(request: pb.RequestCodeRequest, tx: Transaction) -> Empty:
    codes.request(tx, request.phone)
    return Empty()


@refused_after_commit
def create_session(request: pb.CreateSessionRequest, tx: Transaction) -> pb.Session:
    kind = request.WhichOneof("credentials")
    if kind == "staff":
        return _session(accounts.sign_in_staff(tx, request.staff.number, request.staff.password))
    if kind == "resident":
        return _session(accounts.sign_in_resident(tx, request.resident.phone, request.resident.code))
    raise InvalidInput("no credentials were given")


@refused_after_commit
def refresh_session(request: pb.RefreshSessionRequest, tx: Transaction) -> pb.Session:
    return _session(sessions.refresh_session(tx, request.refresh_token))


def end_session(request: pb.EndSessionRequest, tx: Transaction) -> Empty:
    sessions.end_session(tx, request.access_token)
    return Empty()


def exchange_session(request: pb.ExchangeSessionRequest, tx: Transaction) -> pb.Identity:
    token, expires = sign(sessions.behind(tx, request.access_token))
    return pb.Identity(token=token, expire_time=stamp_seconds(expires))


@refused_after_commit
def set_password(request: pb.SetPasswordRequest, tx: Transaction) -> pb.Session:
    return _session(accounts.change_password(tx, UUID(tx.principal.id), request.old_password, request.new_password))


def reset_staff_password(request: pb.ResetStaffPasswordRequest, tx: Transaction) -> pb.TemporaryPassword:
    password, until = accounts.reset_password(tx, _member_of_staff(tx, request.name), request.reason)
    return pb.TemporaryPassword(password=password, expire_time=stamp(until))


def get_me(request: pb.GetMeRequest, tx: Transaction) -> pb.Me:
    me = pb.Me(name=str(tx.principal), password_change_required=tx.principal.temporary)
    with tx.database.read() as everything:
        identifier = UUID(tx.principal.id)
        if tx.principal.is_staff:
            for name, number in everything.execute("SELECT name, number FROM staff WHERE id = %s", (identifier,)):
                me.display_name, me.staff_number = name, number
        else:
            for (name,) in everything.execute("SELECT name FROM people WHERE id = %s", (identifier,)):
                me.display_name = name
        rows = everything.execute(
            "SELECT n.id, n.kind, n.code, e.code FROM dir_nodes n LEFT JOIN dir_nodes e ON e.id = n.estate_id WHERE n.id = ANY(%s)",
            ([grant.node for grant in tx.principal.grants],),
        )
    names = {node: _node_name(node, kind, code, estate) for node, kind, code, estate in rows}
    for grant in tx.principal.grants:
        me.grants.add(role=options_pb2.Role.Value(grant.role), node=names.get(grant.node, ""))
    return me


def _node_name(node: UUID, kind: str, code: str, estate: str | None) -> str:
    if kind == "ESTATE":
        return f"estates/{code}"
    if kind == "UNIT":
        return f"estates/{estate}/units/{code}"
    return f"{'groups' if kind == 'GROUP' else 'companies'}/{node}"


def _session(tokens: sessions.Tokens) -> pb.Session:
    return pb.Session(
        access_token=tokens.access,
        refresh_token=tokens.refresh,
        expires_in=tokens.expires_in,
        password_change_required=tokens.temporary,
    )


def _member_of_staff(tx: Transaction, name: str) -> Staff:
    """Locked, inside the scope. Raises NotFound(STAFF_NOT_FOUND), then what was wrong with the request."""
    missing = NotFound("there is no such member of staff here", reason="STAFF_NOT_FOUND")
    try:
        key = UUID(last(name))
    except ValueError:
        raise missing from None
    person = tx.session.execute(sa.select(Staff).where(Staff.id == key, tx.inside(Staff)).with_for_update()).scalar_one_or_none()
    if person is None:
        raise missing
    tx.check_input()
    return person
