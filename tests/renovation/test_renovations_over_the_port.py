"""Who sees which renovations, over the service's port."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from services.chassis import testing
from services.chassis.db import Database
from services.chassis.directory import apply
from services.renovation.reactions import catch_up
from services.renovation.renovations import REMARK
from steward.renovation.v1 import renovations_pb2
from steward.residents.v1 import directory_pb2 as pb

SERVICE = "renovation"


@pytest.fixture(scope="module")
def database(database_of: Any) -> Database:
    return database_of(SERVICE)


@pytest.fixture(scope="module")
def api(serving_of: Any) -> testing.Api:
    return serving_of(SERVICE)[1]


@pytest.fixture
def tree(database: Database) -> testing.Tree:
    """An estate of four units; the first three are being renovated, and one of them no longer."""
    tree = testing.a_tree(database, units=("1-1-0101", "1-1-0102", "1-1-0103", "1-1-0104"))
    for version, under_renovation in ((2, ("1-1-0101", "1-1-0102", "1-1-0103")), (3, ("1-1-0101", "1-1-0103"))):
        nodes = {
            str(unit): pb.Node(
                kind=pb.Node.UNIT, code=number, unit_status=pb.UnitStatus(under_renovation=number in under_renovation),
                estate_id=str(tree.estate_id), company_id=str(tree.company_id), group_id=str(tree.group_id),
            )
            for number, unit in tree.units.items()
        }  # fmt: skip
        with database.transaction() as tx:
            apply(tx, [pb.DirectoryEntry(id=unit, version=version, node=node) for unit, node in nodes.items()])
        catch_up(database)
    return tree


def units(api: testing.Api, who: testing.Caller, **fields: Any) -> list[str]:
    return sorted(found.unit for found in api.call(who, "ListRenovations", **fields).renovations)


def test_a_renovation_shows_that_its_papers_are_outstanding(api: testing.Api, tree: testing.Tree) -> None:
    (found,) = api.call(tree.staff["CUSTOMER_ASSISTANT"], "ListRenovations", parent=tree.parent, unit="1-1-0101").renovations
    assert api.call(tree.staff["SECURITY_GUARD"], "GetRenovation", name=found.name) == found
    assert found.name.startswith(f"{tree.parent}/renovations/")
    pb2 = renovations_pb2.Renovation
    assert (found.state, found.origin, found.unit) == (pb2.IN_PROGRESS, pb2.REGISTER, "1-1-0101")
    assert (found.papers_outstanding, found.remark) == (True, REMARK)
    assert found.HasField("create_time")
    assert not found.HasField("end_time")


def test_renovations_are_filtered_by_state_and_unit(api: testing.Api, tree: testing.Tree) -> None:
    guard = tree.staff["SECURITY_GUARD"]
    assert units(api, guard, parent=tree.parent) == ["1-1-0101", "1-1-0102", "1-1-0103"]
    assert units(api, guard, parent=tree.parent, states=["IN_PROGRESS"]) == ["1-1-0101", "1-1-0103"]
    assert units(api, guard, parent=tree.parent, states=["ENDED"]) == ["1-1-0102"]
    assert units(api, guard, parent=tree.parent, unit="1-1-0104") == []


def test_pages_show_every_renovation_once(api: testing.Api, tree: testing.Tree) -> None:
    seen, token = [], ""
    while True:
        page = api.call(tree.staff["PROJECT_MANAGER"], "ListRenovations", parent=tree.parent, page_size=2, page_token=token)
        seen += [found.unit for found in page.renovations]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == ["1-1-0101", "1-1-0102", "1-1-0103"]


def test_owners_and_tenants_see_those_of_their_units_only(api: testing.Api, tree: testing.Tree) -> None:
    assert units(api, tree.owner, parent=tree.parent) == ["1-1-0101"]
    assert units(api, tree.residents["TENANT"], parent="estates/-") == ["1-1-0101"]
    assert units(api, tree.neighbour, parent=tree.parent) == []
    (other,) = api.call(tree.staff["PROJECT_MANAGER"], "ListRenovations", parent=tree.parent, unit="1-1-0103").renovations
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.owner, "GetRenovation", name=other.name)
    assert (refused.value.http, refused.value.reason) == (404, "RENOVATION_NOT_FOUND")


def test_family_members_are_not_asked(api: testing.Api, tree: testing.Tree) -> None:
    with pytest.raises(testing.Refused) as refused:
        api.call(tree.residents["FAMILY_MEMBER"], "ListRenovations", parent=tree.parent)
    assert refused.value.http == 403


def test_another_estate_does_not_exist(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    other = testing.a_tree(database)
    (found,) = api.call(tree.owner, "ListRenovations", parent=tree.parent).renovations
    for name in (found.name, found.name.replace(tree.code, other.code)):
        with pytest.raises(testing.Refused) as refused:
            api.call(other.staff["PROJECT_MANAGER"], "GetRenovation", name=name)
        assert refused.value.http == 404


def test_an_estate_without_a_name_yet_is_left_out_of_the_list_over_all(database: Database, api: testing.Api, tree: testing.Tree) -> None:
    node = pb.Node(
        kind=pb.Node.UNIT, code="9-9-0909", unit_status=pb.UnitStatus(under_renovation=True),
        estate_id=str(uuid4()), company_id=str(tree.company_id), group_id=str(tree.group_id),
    )  # fmt: skip
    with database.transaction() as tx:
        apply(tx, [pb.DirectoryEntry(id=str(uuid4()), version=1, node=node)])
    catch_up(database)
    manager = tree.staff["GENERAL_MANAGER"]
    assert units(api, manager, parent="estates/-") == ["1-1-0101", "1-1-0102", "1-1-0103"]
    named = pb.Node(
        kind=pb.Node.ESTATE, code=f"{tree.code}B", name="乙", estate_id=node.estate_id, company_id=node.company_id, group_id=node.group_id
    )
    with database.transaction() as tx:
        apply(tx, [pb.DirectoryEntry(id=node.estate_id, version=1, node=named)])
    assert "9-9-0909" in units(api, manager, parent="estates/-")
    assert units(api, manager, parent=f"estates/{tree.code}B") == ["9-9-0909"]
