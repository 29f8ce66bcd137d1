"""Who plays the story: found in the register of a platform on this machine, whatever register that is."""

from __future__ import annotations

import json

from services.chassis.__main__ import SERVICES
from services.chassis.db import Database
from services.local.keys import Keys, read_or_make
from services.local.platform import Platform
from services.local.postgres import Postgres
from services.local.state import State
from services.local.story import Cast

OWNER = """
SELECT e.code, u.number, p.phone FROM estates e JOIN units u ON u.estate_id = e.id
  JOIN memberships m ON m.unit_id = u.id AND m.kind = 'OWNER' AND m.ends_on IS NULL JOIN people p ON p.id = m.person_id
 WHERE p.phone ~ '^1[0-9]{10}$' AND e.property_type = 'RESIDENTIAL' AND u.occupancy = 'OWNER_OCCUPIED'
   AND (SELECT count(DISTINCT o.id) FROM people o WHERE o.phone = p.phone) = 1
 ORDER BY e.code <> 'TFHY', e.code, u.number, p.phone LIMIT 1
"""
STAFF = """
SELECT DISTINCT ON (p.role) p.role, s.number FROM posts p JOIN staff s ON s.id = p.staff_id JOIN estates e ON e.id = p.node_id
 WHERE e.code = %s AND s.active AND p.ends_at IS NULL ORDER BY p.role, s.number
"""


class NoStage(RuntimeError):
    """There is no running platform here, or its register has nobody to play."""


def cast_of(platform: Platform) -> Cast:
    return _cast(platform.database_url("residents"), platform.keys)


def find() -> tuple[str, Cast]:
    """(address of the gateway, cast) of the platform of this checkout. Raises NoStage."""
    state = State()
    if not state.exists():
        raise NoStage("nothing has been started here yet: `make run` first")
    keys = read_or_make(state.folder("secrets"))
    port = json.loads((state.root / "ports.json").read_text())["gateway"]
    return f"http://127.0.0.1:{port}", _cast(Postgres(state, keys, SERVICES).url("residents"), keys)


def _cast(url: str, keys: Keys) -> Cast:
    database = Database("residents", url)
    try:
        with database.read() as tx:
            owner = tx.execute(OWNER)
            if not owner:
                raise NoStage("the register has no estate with an owner who has a telephone of his own")
            estate, unit, phone = owner[0]
            staff = dict(tx.execute(STAFF, (estate,)))
    finally:
        database.dispose()
    return Cast(estate, unit, phone, staff, keys.demo_password, keys.demo_code)
