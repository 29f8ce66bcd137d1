"""People of 滨江公寓, the estate of the shipped register where tests may do what they like, and of the group above it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

from services.chassis.db import Database
from services.local.platform import Platform

ESTATE = "BJGY"
STAFF = """
SELECT DISTINCT ON (p.role) p.role, s.number FROM posts p JOIN staff s ON s.id = p.staff_id LEFT JOIN estates e ON e.id = p.node_id
 WHERE s.active AND p.ends_at IS NULL AND (e.code = %s OR e.id IS NULL) ORDER BY p.role, e.id IS NULL, s.number
"""
OWNERS = """
SELECT u.number, p.phone FROM estates e JOIN units u ON u.estate_id = e.id
  JOIN memberships m ON m.unit_id = u.id AND m.kind = 'OWNER' AND m.ends_on IS NULL JOIN people p ON p.id = m.person_id
 WHERE e.code = %s AND p.phone ~ '^1[0-9]{10}$' ORDER BY u.number, p.phone
"""
OTP = "urn:steward:params:oauth:grant-type:otp"


class Neighbours:
    """`neighbours.as_("TECHNICIAN")` is the header of somebody signed in; `units` and `owners` (phones) go together."""

    def __init__(self, platform: Platform):
        self._platform = platform
        self.estate = ESTATE
        self.http = httpx.Client(base_url=platform.gateway_url, timeout=20, trust_env=False)
        database = Database("residents", platform.database_url("residents"), pool_size=1)
        with database.read() as tx:
            self.staff: dict[str, str] = dict(tx.execute(STAFF, (ESTATE,)))
            found = tx.execute(OWNERS, (ESTATE,))
            numbers = list(self.staff.values())
            self.staff_ids = {row[0] for row in tx.execute("SELECT id::text FROM staff WHERE number = ANY(%s)", (numbers,))}
        database.dispose()
        self.units, self.owners = [unit for unit, _ in found], [phone for _, phone in found]
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> Neighbours:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()

    def as_(self, who: str) -> dict[str, str]:
        """`who` is a role of the staff, an owner's telephone, OWNER for the first of them, or "" for nobody."""
        if not who:
            return {}
        if who not in self._tokens:
            self._tokens[who] = self.sign_in(who)
        return {"Authorization": f"Bearer {self._tokens[who]}"}

    def sign_in(self, who: str) -> str:
        """A new session's access token."""
        phone = self.owners[0] if who == "OWNER" else who
        if phone in self.owners:
            self.http.post("/v1/auth/code", json={"phone": phone})
            form = {"grant_type": OTP, "phone": phone, "code": self._platform.keys.demo_code}
        else:
            form = {"grant_type": "password", "username": self.staff[who], "password": self._platform.keys.demo_password}
        answer = self.http.post("/v1/auth/token", data=form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def get(self, who: str, path: str, **query: Any) -> dict[str, Any]:
        answer = self.http.get(path, params=query, headers=self.as_(who))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, who: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        answer = self.http.post(path, json=body or {}, headers={**self.as_(who), **headers})
        assert answer.status_code == 200, answer.text
        return answer.json()
