"""Who decides on whose roster, leave and departure: each department on its own people (ORG-05, ORG-06)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from uuid import UUID

from services.chassis.db import Transaction
from services.chassis.errors import Forbidden

CUSTOMER_SERVICE = frozenset(
    {"CUSTOMER_ASSISTANT", "BUILDING_BUTLER", "EARLY_SHIFT_CLERK", "ARCHIVIST", "CASHIER", "FEE_COLLECTOR", "CS_SUPERVISOR"}
)
ENGINEERING = frozenset({"TECHNICIAN", "ENGINEERING_SUPERVISOR"})
SERVICE_CENTRE = (
    CUSTOMER_SERVICE
    | ENGINEERING
    | {"SECURITY_GUARD", "ENVIRONMENT_SUPERVISOR", "SECURITY_SUPERVISOR", "CUSTOMER_MANAGER", "ENGINEERING_MANAGER", "PROJECT_MANAGER"}
)
# Role → the roles it decides on. HR decides on everybody.
DECIDES = {"CS_SUPERVISOR": CUSTOMER_SERVICE, "ENGINEERING_SUPERVISOR": ENGINEERING, "PROJECT_MANAGER": SERVICE_CENTRE}


def lineage(tx: Transaction, nodes: Iterable[UUID]) -> dict[UUID, frozenset[UUID]]:
    """Groups, companies and estates with what stands above each, itself included."""
    rows = tx.execute("SELECT id, company_id, group_id FROM dir_nodes WHERE id = ANY(%s)", (list(set(nodes)),))
    return {node: frozenset(above for above in (node, company, group) if above) for node, company, group in rows}


def decides_on(tx: Transaction, posts: Collection[tuple[str, UUID]]) -> None:
    """Raises Forbidden(NOT_YOUR_DEPARTMENT) unless the caller decides on each of these (role, node)."""
    if tx.principal.kind == "system":
        return
    above = lineage(tx, (node for _, node in posts))
    for role, node in posts:
        if not any(
            grant.node in above.get(node, ()) and (grant.role == "ADMIN_HR" or role in DECIDES.get(grant.role, ()))
            for grant in tx.principal.grants
        ):
            raise Forbidden(f"a {role} is not of your department", reason="NOT_YOUR_DEPARTMENT", rule="ORG-06")
