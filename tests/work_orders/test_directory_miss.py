"""What the copy of the register does not know yet is asked for once; with residents down an unknown id is 503, not 4xx."""

from __future__ import annotations

import pytest

from services.chassis import testing
from services.chassis.testing import Refused, Tree


def behind(database_of, tree: Tree, unit: str) -> None:
    """work_orders loses a unit of the register that residents still has."""
    with database_of("work_orders").transaction() as tx:
        tx.execute("DELETE FROM dir_nodes WHERE id = %s", (tree.units[unit],))


@pytest.fixture
def tree(database_of) -> Tree:
    """The same tree in residents and in work_orders."""
    database_of("residents")
    tree = testing.a_tree(database_of("residents"))
    with database_of("residents").read() as tx:
        rows = {table: tx.execute(f"SELECT * FROM {table}") for table in ("dir_nodes", "dir_members", "dir_posts")}
    with database_of("work_orders").transaction() as tx:
        for table, found in rows.items():
            for row in found:
                tx.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))}) ON CONFLICT DO NOTHING", row)
    return tree


def report(api: testing.Api, tree: Tree, unit: str) -> object:
    repair = {"unit": unit, "category": "LEAK", "description": "漏水", "contact_phone": "13800000000"}
    return api.call(tree.by_role("CUSTOMER_ASSISTANT"), "ReportRepair", parent=tree.parent, repair=repair)


def test_a_unit_that_only_residents_knows_is_asked_for_and_found(database_of, tree: Tree) -> None:
    with testing.serving("residents") as (residents, _):
        port = residents.port
        with testing.configured(addresses=f"residents=127.0.0.1:{port}"), testing.serving("work_orders") as (_, api):
            behind(database_of, tree, "1-1-0102")
            assert report(api, tree, "1-1-0102").unit == "1-1-0102"
            with pytest.raises(Refused) as refused:
                report(api, tree, "9-9-9999")
    assert (refused.value.http, refused.value.reason, refused.value.fields) == (400, "UNIT_NOT_FOUND", {"repair.unit"})


def test_with_residents_down_an_unknown_unit_is_unavailable_and_a_known_one_is_served(database_of, tree: Tree) -> None:
    with testing.configured(addresses="residents=127.0.0.1:1"), testing.serving("work_orders") as (_, api):
        assert report(api, tree, "1-1-0101").unit == "1-1-0101"
        with pytest.raises(Refused) as refused:
            report(api, tree, "9-9-9999")
    assert (refused.value.http, refused.value.reason) == (503, "RESIDENTS_DOWN")
