"""One household after another in the same unit, and what staff say among themselves about its repairs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.chassis import reactions
from services.chassis.access import Grant
from services.chassis.testing import Caller, event_body
from steward.residents.v1 import events_pb2 as residents
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import Desk, case_id, state

MOVED_IN = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def belonging(desk: Desk, kind: str, since: datetime | None, unit: str = "") -> Caller:
    """Somebody who belongs to a unit since an instant, as his identity says."""
    return Caller("people", uuid4(), (Grant(kind, "unit", desk.tree.units[unit or desk.tree.unit], desk.tree.estate_id, since),))


def reported(desk: Desk, at: datetime, who: Caller | None = None) -> pb.Repair:
    """A repair of the unit that was reported at an instant, by the front desk unless by somebody named."""
    if who is not None:
        repair = desk.report(who)
    else:
        repair = desk.report(desk.tree.staff["CUSTOMER_ASSISTANT"], contact_phone="13800000000", reporter_name="前住户")
    with desk.database.transaction() as tx:
        tx.execute("UPDATE repairs SET reported_at = %s WHERE id = %s", (at, case_id(repair)))
    return repair


def seen(desk: Desk, who: Caller) -> set[str]:
    """Names of what somebody finds in the list, each of which he may also read."""
    names = {repair.name for repair in desk.call(who, "ListRepairs", parent=desk.tree.parent, page_size=100).repairs}
    for name in names:
        assert desk.call(who, "GetRepair", name=name).name == name
        assert desk.call(who, "ListRepairHistory", parent=name).entries
    return names


@pytest.mark.parametrize("kind", ["TENANT", "OWNER", "FAMILY_MEMBER"])
def test_a_new_household_sees_what_was_reported_since_it_came_and_nothing_older(desk: Desk, kind: str) -> None:
    older, at_once, later = (reported(desk, MOVED_IN + after) for after in (-SECOND, timedelta(0), SECOND))
    newcomer, resident = belonging(desk, kind, MOVED_IN), belonging(desk, kind, None)
    assert seen(desk, newcomer) == {at_once.name, later.name}
    assert seen(desk, resident) == {older.name, at_once.name, later.name}
    assert seen(desk, desk.tree.neighbour) == set()
    for rpc, fields in (
        ("GetRepair", {"name": older.name}),
        ("ListRepairHistory", {"parent": older.name}),
        ("UrgeRepair", {"name": older.name}),
        ("CommentRepair", {"name": older.name, "text": "什么情况"}),
    ):
        refusal = desk.refused(newcomer, rpc, **fields)
        assert (refusal.http, refusal.reason) == (404, "REPAIR_NOT_FOUND"), rpc
    assert desk.call(newcomer, "CommentRepair", name=later.name, text="请带手电").name == later.name


def test_what_somebody_has_reported_himself_he_sees_however_old_it_is(desk: Desk) -> None:
    former = belonging(desk, "FAMILY_MEMBER", None)
    own, others = reported(desk, MOVED_IN - SECOND, former), reported(desk, MOVED_IN - SECOND)
    now_tenant = replace(former, grants=belonging(desk, "TENANT", MOVED_IN).grants)
    assert seen(desk, now_tenant) == {own.name}
    assert desk.refused(now_tenant, "GetRepair", name=others.name).http == 404


def test_of_several_ways_to_belong_to_a_unit_the_longest_counts(desk: Desk) -> None:
    repair = reported(desk, MOVED_IN - SECOND)
    tenant, family = belonging(desk, "TENANT", MOVED_IN), belonging(desk, "FAMILY_MEMBER", MOVED_IN - timedelta(days=30))
    assert seen(desk, replace(tenant, grants=tenant.grants + family.grants)) == {repair.name}
    assert seen(desk, replace(tenant, grants=tenant.grants + belonging(desk, "OWNER", None).grants)) == {repair.name}
    assert seen(desk, tenant) == set()


def test_each_unit_of_somebody_has_a_start_of_its_own(desk: Desk) -> None:
    here, there = desk.tree.units
    repair = reported(desk, MOVED_IN - SECOND)
    old_here, new_here = belonging(desk, "OWNER", None, here), belonging(desk, "OWNER", MOVED_IN, here)
    old_there, new_there = belonging(desk, "OWNER", None, there), belonging(desk, "OWNER", MOVED_IN, there)
    assert seen(desk, replace(old_here, grants=old_here.grants + new_there.grants)) == {repair.name}
    assert seen(desk, replace(new_here, grants=new_here.grants + old_there.grants)) == set()


# --- comments for staff alone -------------------------------------------------------------------------------------------


def test_an_internal_comment_stands_in_the_timeline_of_staff_and_not_in_that_of_residents(desk: Desk) -> None:
    repair = desk.at("TAKEN")
    desk.call(desk.tree.technician, "CommentRepair", name=repair.name, text="户主态度恶劣，注意方式", internal=True)
    desk.call(desk.tree.technician, "CommentRepair", name=repair.name, text="明天带配件来")
    entries = desk.history(repair)[-2:]
    assert [(e.action, e.note, e.internal) for e in entries] == [
        ("remark", "户主态度恶劣，注意方式", True), ("comment", "明天带配件来", False),
    ]  # fmt: skip
    theirs = desk.call(desk.tree.owner, "ListRepairHistory", parent=repair.name).entries
    assert [e.note for e in theirs if e.action == "comment"] == ["明天带配件来"]
    assert "恶劣" not in str(theirs)
    assert {e.action for e in theirs} == {"report", "take", "comment"}
    assert state(desk.now(repair)) == "TAKEN"


def test_residents_write_no_internal_comments(desk: Desk) -> None:
    repair = desk.report()
    refusal = desk.refused(desk.tree.owner, "CommentRepair", name=repair.name, text="请带手电", internal=True)
    assert (refusal.http, refusal.reason, refusal.fields) == (400, "INTERNAL_COMMENT", {"internal"})
    assert len(desk.history(repair)) == 1


@pytest.mark.parametrize("state", ["REPORTED", "ON_SITE", "FILED"])
def test_an_internal_comment_is_possible_wherever_a_comment_is(desk: Desk, state: str) -> None:
    repair = desk.at(state)
    changed = desk.call(desk.tree.staff["CS_SUPERVISOR"], "CommentRepair", name=repair.name, text="回访时提一下", internal=True)
    assert changed.etag != repair.etag


def test_internal_comments_stay_internal_when_a_duplicate_is_merged(desk: Desk) -> None:
    duplicate, survivor = desk.report(), desk.report()
    desk.call(desk.tree.staff["CUSTOMER_ASSISTANT"], "CommentRepair", name=duplicate.name, text="欠费户，先请示", internal=True)
    merged = desk.call(desk.tree.staff["CS_SUPERVISOR"], "MergeRepair", name=duplicate.name, duplicate_of=survivor.name)
    assert merged.duplicate_of == survivor.name
    assert [e.note for e in desk.history(survivor) if e.internal] == [f"{duplicate.number}: 欠费户，先请示"]
    assert "欠费" not in str(desk.call(desk.tree.owner, "ListRepairHistory", parent=survivor.name))


def test_what_somebody_reported_stays_his_when_two_records_of_him_become_one(desk: Desk) -> None:
    duplicate, survivor = belonging(desk, "TENANT", MOVED_IN), belonging(desk, "TENANT", MOVED_IN)
    mine, his = reported(desk, MOVED_IN - SECOND, duplicate), reported(desk, MOVED_IN - SECOND, desk.tree.owner)
    assert seen(desk, survivor) == set()
    merged = residents.PersonMerged(duplicate=duplicate.name, survivor=survivor.name)
    for _ in range(2):
        reactions.handle(desk.database, "work_orders", event_body(merged, tree=desk.tree, aggregate="person", aggregate_id=duplicate.id))
        assert seen(desk, survivor) == {mine.name}
    assert his.name in seen(desk, desk.tree.owner)
