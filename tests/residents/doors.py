"""An estate whose staff and residents sign in, over the real port; and an SMS company."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.access import Principal, Verifier
from services.chassis.db import Database
from services.chassis.settings import settings
from services.chassis.testing import INTERNAL, Api, Caller, Refused, Tree, configured
from services.residents import accounts

PASSWORD = "云上的 3 只白鹭"  # noqa: S105 - ten characters, of these tests alone
_phones = count(10_000_001)


@dataclass
class Doors:
    api: Api
    database: Database
    tree: Tree

    def call(self, who: Caller | str | None, rpc: str, /, **fields: Any) -> Any:
        return self.api.call(who, rpc, **fields)

    def refused(self, who: Caller | str | None, rpc: str, /, **fields: Any) -> Refused:
        with pytest.raises(Refused) as refused:
            self.api.call(who, rpc, **fields)
        return refused.value

    def enrolled(self, who: Caller | str, password: str = "", *, name: str = "钟明远") -> str:
        """Puts somebody whom the directory knows into the register of staff, and gives him a password. Returns his number."""
        who = self.tree.staff[who] if isinstance(who, str) else who
        number, level = f"{self.tree.code}-{who.id.hex[:6]}".upper(), who.grants[0].level
        with self.database.transaction() as tx:
            tx.execute(
                "INSERT INTO staff (id, group_id, company_id, estate_id, version, created_at, updated_at, number, name, title, phone, email,"
                " state) VALUES (%s, %s, %s, %s, 1, now(), now(), %s, %s, '', '13900001111', '', 'ACTIVE') ON CONFLICT DO NOTHING",
                (who.id, self.tree.group_id, self.tree.company_id if level != "group" else None,
                 self.tree.estate_id if level == "estate" else None, number, name),
            )  # fmt: skip
        if password:
            self.give(who, password)
        return number

    def give(self, who: Caller, password: str) -> None:
        with self.database.transaction() as tx:
            accounts._give(tx, who.id, password, "SET")

    def housed(self, who: Caller) -> str:
        """Gives a resident whom the directory knows a name and a telephone of his own, which is returned."""
        phone = f"138{next(_phones)}"
        with self.database.transaction() as tx:
            tx.execute(
                "INSERT INTO people (id, group_id, company_id, estate_id, version, created_at, updated_at, name, kind, phone, other_phones)"
                " VALUES (%s, %s, %s, %s, 1, now(), now(), '王远安', 'INDIVIDUAL', %s, '{}')",
                (who.id, self.tree.group_id, self.tree.company_id, self.tree.estate_id, phone),
            )
        return phone

    def sign_in(self, number: str, password: str) -> Any:
        return self.call(INTERNAL, "CreateSession", staff={"number": number, "password": password})

    def not_signed_in(self, number: str, password: str) -> Refused:
        return self.refused(INTERNAL, "CreateSession", staff={"number": number, "password": password})

    def identity(self, access_token: str) -> str:
        """What the gateway gets for an access token, and sends with every call."""
        return self.call(INTERNAL, "ExchangeSession", access_token=access_token).token  # type: ignore[no-any-return]

    def principal(self, access_token: str) -> Principal:
        return Verifier(settings().identity_public_keys).principal(self.identity(access_token))

    def ended(self, access_token: str) -> bool:
        try:
            self.identity(access_token)
        except Refused as refused:
            assert (refused.http, refused.reason) == (401, "SESSION_ENDED")
            return True
        return False

    def name_of(self, who: Caller) -> str:
        below = self.tree.parent if who.grants[0].level == "estate" else "estates/-"
        return f"{below}/staff/{who.id}"

    def sql(self, statement: str, values: tuple = ()) -> list[tuple]:
        with self.database.transaction() as tx:
            return tx.execute(statement, values)


def nobodys_number() -> str:
    return f"NOBODY-{uuid4().hex[:6]}"


@contextmanager
def in_production(**changes: object) -> Iterator[None]:
    """Without anything of the development profile; the server that is running takes it up at once."""
    with configured(profile="production", demo_password=None, demo_code=None, **changes):
        yield


@dataclass
class SmsCompany:
    """A small real HTTP server. `answer(number of the request)` is its status, or None to say nothing at all."""

    answer: Callable[[int], int | None] = lambda _: 200
    requests: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)  # headers, body
    url: str = ""
    let_go: threading.Event = field(default_factory=threading.Event)

    def ids(self) -> list[str]:
        return [body["id"] for _, body in self.requests]


@contextmanager
def sms_company() -> Iterator[SmsCompany]:
    company = SmsCompany()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            company.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = company.answer(len(company.requests))
            if status is None:
                company.let_go.wait(30)
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{company.url}/elsewhere")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    company.url = f"http://127.0.0.1:{server.server_address[1]}/messages"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield company
    finally:
        company.let_go.set()
        server.shutdown()
        server.server_close()
