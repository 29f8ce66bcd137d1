"""Sign-in and identities: the service Auth."""

from __future__ import annotations

from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from services.chassis.access import sign
from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput
from services.chassis.names import stamp_seconds
from services.residents import accounts
from steward.options.v1 import options_pb2
from steward.residents.v1 import auth_pb2 as pb


def request_code(request: pb.RequestCodeRequest, tx: Transaction) -> Empty:
    accounts.request_code(tx.database, request.phone)
    return Empty()


def create_session(request: pb.CreateSessionRequest, tx: Transaction) -> pb.Session:
    kind = request.WhichOneof("credentials")
    if kind == "staff":
        return _session(accounts.sign_in_staff(tx.database, request.staff.number, request.staff.password))
    if kind == "resident":
        return _session(accounts.sign_in_resident(tx.database, request.resident.phone, request.resident.code))
    raise InvalidInput("no credentials were given")


def refresh_session(request: pb.RefreshSessionRequest, tx: Transaction) -> pb.Session:
    return _session(accounts.refresh_session(tx.database, request.refresh_token))


def end_session(request: pb.EndSessionRequest, tx: Transaction) -> Empty:
    accounts.end_session(tx, request.access_token)
    return Empty()


def exchange_session(request: pb.ExchangeSessionRequest, tx: Transaction) -> pb.Identity:
    token, expires = sign(accounts.behind(tx, request.access_token))
    return pb.Identity(token=token, expire_time=stamp_seconds(expires))


def get_me(request: pb.GetMeRequest, tx: Transaction) -> pb.Me:
    me = pb.Me(name=str(tx.principal))
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


def _session(tokens: accounts.Tokens) -> pb.Session:
    return pb.Session(access_token=tokens.access, refresh_token=tokens.refresh, expires_in=tokens.expires_in)
