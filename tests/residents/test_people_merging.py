"""Two records that are one person become one, whatever else happens at the same moment, and stay so when a register comes again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import directory
from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.jobs import work_once
from services.chassis.testing import Caller, Refused, eventually, published
from services.residents import importing, sessions
from services.residents.merging import runs
from services.residents.people import Membership, identity_index
from services.residents.records import REGISTER
from steward.residents.v1 import events_pb2
from steward.residents.v1 import people_pb2 as pb
from tests.residents import workbooks as make
from tests.residents.desk import Desk
from tests.residents.registers import events, rows

NewDesk = Callable[..., Desk]


def owner(number: str, name: str, phone: str, identity: str | None = None, **more: Any) -> dict[str, Any]:
    row = {
        "业主姓名": name,
        "手机号": phone,
        "证件号码": identity,
        "特殊关怀": None,
        "紧急联系人": None,
        "紧急联系电话": None,
        "生日": None,
    }
    return make.owner(number, **(row | {"缴费方式": None} | more))


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """张三 stands twice: as 张三 with number and telephone at 0101, and as 张山 without number at 0102. 李四 owns 0103."""
    units = [make.unit(f"1-1-010{n}") for n in (1, 2, 3)]
    return new_desk(
        units=units,
        owners=[
            owner("1-1-0101", "张三", "13911116666", make.identity(1), 生日="1980-01-01"),
            owner("1-1-0102", "张山", "13922227777", 紧急联系人="张母", 紧急联系电话="13933334444"),
            owner("1-1-0103", "李四", "13955558888", make.identity(2)),
        ],
    )


def merge(desk: Desk, duplicate: str, survivor: str, who: Any = "CS_SUPERVISOR", **more: Any) -> pb.Person:
    fields = {"name": desk.name_of(duplicate), "survivor": f"people/{desk.person_id(survivor)}", "reason": "同一人重复登记"}
    return desk.call(who, "MergePeople", **(fields | more))


def refused(desk: Desk, duplicate: str, survivor: str, who: Any = "CS_SUPERVISOR", **more: Any) -> Refused:
    fields = {"name": desk.name_of(duplicate), "survivor": f"people/{desk.person_id(survivor)}", "reason": "同一人重复登记"}
    return desk.refused(who, "MergePeople", **(fields | more))


def owners_of(desk: Desk) -> dict[str, list[tuple[str, str]]]:
    """Unit → (name, share) of its owners."""
    units = desk.call("CS_SUPERVISOR", "ListUnits", parent=desk.parent).units
    return {unit.number: [(m.display_name, m.share) for m in unit.members if m.kind == 1] for unit in units}


@pytest.mark.rule("ARC-07")
def test_the_survivor_has_everything_and_the_duplicate_names_him(desk: Desk) -> None:
    duplicate = desk.name_of("张山")
    survivor = merge(desk, "张山", "张三")
    assert (survivor.display_name, survivor.phone, list(survivor.other_phones), survivor.has_identity, survivor.birthday) == (
        "张三", "139****6666", ["139****7777"], True, "1980-01-01",
    )  # fmt: skip
    assert sorted(m.unit for m in survivor.members) == [desk.unit("1-1-0101"), desk.unit("1-1-0102")]
    tomb = desk.call("CUSTOMER_ASSISTANT", "GetPerson", name=duplicate)
    assert (tomb.display_name, tomb.merged_into, list(tomb.members), tomb.has_identity) == ("张山", survivor.person, [], False)
    assert desk.search("张山") == []
    assert desk.search("13922227777") == ["张三"], "who calls from the duplicate's telephone is found"


def test_a_merge_is_written_on_both_and_told_to_every_service(desk: Desk) -> None:
    duplicate, survivor = desk.person_id("张山"), desk.person_id("张三")
    before = len(events(desk.database))
    merge(desk, "张山", "张三")
    lines = desk.call("ARCHIVIST", "ListCorrections", parent=desk.parent, record=f"people/{duplicate}").corrections
    assert [(c.field, c.before, c.after) for line in lines for c in line.changes] == [("merged_into", "", str(survivor))]
    lines = desk.call("ARCHIVIST", "ListCorrections", parent=desk.parent, record=f"people/{survivor}").corrections
    changes = {c.field: (c.before, c.after) for line in lines for c in line.changes}
    assert changes["took_over"] == ("", f"people/{duplicate}")
    assert changes["person_id"] == (str(duplicate), str(survivor))
    assert {line.reason for line in lines} == {"同一人重复登记"}
    told = [entry for event in events(desk.database)[before:] for entry in event]
    assert [(entry["version"], entry["membership"]["personId"]) for entry in told] == [("2", str(survivor))]
    [merged] = published(desk.database, duplicate, "PersonMerged")
    assert merged.data == {"duplicate": f"people/{duplicate}", "survivor": f"people/{survivor}"}


def test_another_service_that_hears_of_it_sees_the_survivor_in_the_unit(desk: Desk, database_of: Callable[[str], Database]) -> None:
    other = database_of("surveys")
    merge(desk, "张山", "张三")
    here = rows(desk.database, "SELECT id FROM estates WHERE code = %s", desk.code)[0][0]
    told = [data for event in events(desk.database) for data in event if data.get("membership", {}).get("estateId") == str(here)]
    with other.transaction() as tx:  # in whatever order they come
        directory.apply(tx, ParseDict({"entries": told[::-1]}, events_pb2.DirectoryChanged()).entries)
    sql = "SELECT u.id FROM units u JOIN estates e ON e.id = u.estate_id WHERE e.code = %s AND number = '1-1-0102'"
    with other.read() as tx:
        assert directory.occupants(tx, rows(desk.database, sql, desk.code)[0][0]) == [(desk.person_id("张三"), "OWNER")]


def test_the_survivor_takes_the_number_and_telephone_that_he_lacks(desk: Desk) -> None:
    survivor = merge(desk, "张三", "张山")
    assert (survivor.display_name, survivor.has_identity, survivor.birthday, list(survivor.other_phones)) == (
        "张山", True, "1980-01-01", ["139****6666"],
    )  # fmt: skip
    found = desk.call("ARCHIVIST", "LookUpPersonByIdentity", parent=desk.parent, identity=make.identity(1), reason="核对").person
    assert found.display_name == "张山"


def test_two_numbers_a_person_and_a_company_and_one_record_are_no_duplicates(desk: Desk) -> None:
    desk.take_in(owners=[owner("1-1-0103", "张三公司", "02866660000", make.credit_code(1), 业主类型="企业", 产权份额=None)])
    for duplicate, survivor, reason in (
        ("李四", "张三", "IDENTITIES_DIFFER"),
        ("张三公司", "张山", "KINDS_DIFFER"),
        ("张三", "张三", "SAME_PERSON"),
    ):
        refusal = refused(desk, duplicate, survivor)
        assert (refusal.http, refusal.reason) == (409, reason)
    for nobody in (f"people/{uuid4()}", "people/x", "张三"):
        refusal = desk.refused("CS_SUPERVISOR", "MergePeople", name=desk.name_of("张山"), survivor=nobody, reason="重复登记")
        assert (refusal.http, refusal.reason, refusal.fields) == (400, "PERSON_NOT_FOUND", {"survivor"})
    assert owners_of(desk)["1-1-0102"] == [("张山", "100")], "nothing is half-done"


def test_a_stale_merge_is_refused(desk: Desk) -> None:
    assert refused(desk, "张山", "张三", etag="7").http == 412
    assert refused(desk, "张山", "张三", etag="1", survivor_etag="7").http == 412
    assert merge(desk, "张山", "张三", etag="1", survivor_etag="1").display_name == "张三"


def test_the_duplicates_sessions_end_and_his_grants_are_the_survivors(desk: Desk) -> None:
    with desk.database.transaction() as tx:
        session = sessions.open_session(tx, f"people/{desk.person_id('张山')}")
    merge(desk, "张山", "张三")
    with desk.database.read() as tx, pytest.raises(Exception, match="the session has ended"):
        sessions.behind(tx, session.access)
    with desk.database.read() as tx:
        live = sessions.live(tx, f"people/{desk.person_id('张三')}")
    assert live is not None
    assert len(live.grants) == 2


# --- memberships of one unit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "after"),
    [(("50%", "50%"), "100"), (("100%", "100%"), "100"), (("30%", "20%"), "50"), ((None, "40%"), "40"), ((None, None), "")],
)
def test_one_who_stands_twice_in_a_unit_owns_it_once(new_desk: NewDesk, shares: tuple[str | None, str | None], after: str) -> None:
    """Two shares count together where the unit has room for both; otherwise one was the other, written twice."""
    rows_of = [owner("1-1-0101", "赵六", "13911110001", make.identity(1), 产权份额=shares[0], 特殊关怀="VIP")]
    desk = new_desk(owners=[*rows_of, owner("1-1-0101", "赵陆", "13911110002", 产权份额=shares[1], 缴费方式="微信", 特殊关怀="独居老人")])
    if shares == ("100%", "100%"):
        desk.take_in(owners=[owner("1-1-0101", "赵陆", "13911110002", 产权份额="100%")])  # by a file of its own: the judge sees one
    merge(desk, "赵陆", "赵六")
    assert owners_of(desk) == {"1-1-0101": [("赵六", after)]}
    member = desk.members()["赵六"]
    if shares != ("100%", "100%"):
        assert (sorted(member.care_marks), member.payment_method) == (["VIP", "独居老人"], "微信")


def test_a_third_owners_share_decides_whether_two_fit(new_desk: NewDesk) -> None:
    desk = new_desk(owners=[owner("1-1-0101", "甲", "13911110001", 产权份额="50%"), owner("1-1-0101", "乙", "13911110003", 产权份额="50%")])
    desk.take_in(owners=[owner("1-1-0101", "甲甲", "13911110002", 产权份额="50%")])
    merge(desk, "甲甲", "甲")
    assert sorted(owners_of(desk)["1-1-0101"]) == [("乙", "50"), ("甲", "50")]


def test_leases_that_overlap_become_one_and_others_stay_apart(new_desk: NewDesk) -> None:
    def lease(name: str, phone: str, first: str, last: str | None) -> dict[str, Any]:
        return make.tenant(租户姓名=name, 身份证号=None, 手机号=phone, 租期开始=first, 租期结束=last, 业主同意书="否")

    desk = new_desk(units=[make.unit(房屋状态="出租")])
    desk.take_in(
        tenants=[
            lease("孙一", "13911110001", "2024-01-01", "2024-06-30"),
            lease("孙一", "13911110001", "2024-09-01", "2025-08-31"),
            lease("孙乙", "13911110002", "2024-06-01", "2024-10-31"),
            lease("孙乙", "13911110002", "2026-01-01", None),
        ]
    )
    merge(desk, "孙乙", "孙一")
    found = desk.call("CS_SUPERVISOR", "GetUnit", name=desk.unit(), include_past=True).members
    assert sorted((m.display_name, m.start_date, m.end_date) for m in found) == [
        ("孙一", "2024-01-01", "2025-08-31"),
        ("孙一", "2026-01-01", ""),
    ]
    kept = rows(desk.database, "SELECT m.id FROM memberships m JOIN estates e ON e.id = m.estate_id WHERE e.code = %s", desk.code)
    known = rows(
        desk.database,
        "SELECT m.id FROM dir_members m JOIN dir_nodes e ON e.id = m.estate_id WHERE e.code = %s AND NOT m.deleted",
        desk.code,
    )
    assert sorted(kept) == sorted(known), "the directory has what the register has"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8), st.booleans()), min_size=1, max_size=8))
def test_memberships_that_overlap_and_no_others_become_one(spans: list[tuple[int, int, bool]]) -> None:
    day = date(2026, 1, 1)
    leases = [
        Membership(id=UUID(int=n), starts_on=None if first == 0 else day + timedelta(first), ends_on=None if forever else day + timedelta(first + long))
        for n, (first, long, forever) in enumerate(spans)
    ]  # fmt: skip
    found = runs(leases)
    assert sorted(lease.id for run in found for lease in run) == sorted(lease.id for lease in leases)
    for n, run in enumerate(found):
        for other in found[n + 1 :]:
            assert not any(mine.overlaps(theirs.starts_on, theirs.ends_on) for mine in run for theirs in other)
        for lease in run[1:]:
            assert any(lease.overlaps(before.starts_on, before.ends_on) for before in run if before is not lease)


def test_a_household_follows_the_membership_it_belongs_to(new_desk: NewDesk) -> None:
    desk = new_desk(
        owners=[owner("1-1-0101", "钱一", "13911110001", 产权份额="50%"), owner("1-1-0101", "钱乙", "13911110002", 产权份额="50%")]
    )
    child = desk.call(
        "CUSTOMER_ASSISTANT", "AddMember", name=desk.unit(), kind="FAMILY_MEMBER", party={"display_name": "钱小宝"}, reason="家庭成员登记",
        household=f"memberships/{desk.members()['钱乙'].name.rpartition('/')[2]}",
    )  # fmt: skip
    assert child.household
    merge(desk, "钱乙", "钱一")
    members = desk.members()
    assert members["钱小宝"].household == f"memberships/{members['钱一'].name.rpartition('/')[2]}"


# --- whose people they are ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(new_desk: NewDesk) -> Desk:
    """吴丽 owns a unit at both estates; 吴莉, without a number, at the first."""
    desk = new_desk(estates=2)
    here, there = desk.codes
    identity = make.identity(1)
    desk.take_in(
        owners=[
            owner("1-1-0101", "吴丽", "13911116666", identity, 项目编号=here, 产权份额=None),
            owner("1-1-0101", "吴丽", "13911116666", identity, 项目编号=there, 产权份额=None),
            owner("1-1-0101", "吴莉", "13922227777", 项目编号=here, 产权份额=None),
        ]
    )
    return desk


def test_whoever_belongs_to_an_estate_out_of_sight_is_merged_from_above(two: Desk) -> None:
    refusal = refused(two, "吴莉", "吴丽")
    assert (refusal.http, refusal.reason) == (409, "MEMBER_ELSEWHERE")
    for who in ("MANAGEMENT_DEPT_MANAGER", "GROUP_OPERATIONS"):
        assert refused(two, "吴莉", "吴丽", who).reason == "MEMBER_ELSEWHERE", "at one estate they see no more than the supervisor"
    name = f"estates/-/people/{two.person_id('吴莉')}"
    survivor = merge(two, "吴莉", "吴丽", "MANAGEMENT_DEPT_MANAGER", name=name)
    assert sorted(m.unit for m in survivor.members) == sorted(two.unit(code=code) for code in two.codes)
    there = two.codes[1]
    clerk = two.who("CUSTOMER_ASSISTANT", there)
    assert two.search("13922227777", clerk, parent=f"estates/{there}") == ["吴丽"]


def test_the_duplicate_is_in_sight_where_the_survivor_is(two: Desk) -> None:
    duplicate = two.person_id("吴莉")
    merge(two, "吴莉", "吴丽", "GROUP_OPERATIONS", name=f"estates/-/people/{duplicate}")
    there = two.codes[1]
    seen = two.call(two.who("CASHIER", there), "GetPerson", name=f"estates/{there}/people/{duplicate}")
    assert seen.merged_into == f"people/{two.person_id('吴丽')}"
    for rpc, more in (("CorrectPerson", {"phone": "13900000000"}), ("RevealPhone", {}), ("MergePeople", {"survivor": seen.merged_into})):
        refusal = two.refused("CS_SUPERVISOR", rpc, name=f"{two.parent}/people/{duplicate}", reason="更正", **more)
        assert (refusal.http, refusal.reason) == (409, "PERSON_MERGED"), rpc


def test_what_was_disclosed_of_the_duplicate_the_survivor_may_know(desk: Desk) -> None:
    desk.call("CASHIER", "RevealPhone", name=desk.name_of("张山"), reason="催缴物业费")
    merge(desk, "张山", "张三")
    lines = desk.call(desk.resident("张三"), "ListDisclosures", parent=desk.name_of("张三")).disclosures
    assert [line.reason for line in lines] == ["催缴物业费"]


def test_duplicates_of_a_duplicate_name_the_last_survivor(desk: Desk) -> None:
    first, second = desk.person_id("张山"), desk.person_id("张三")
    desk.call("ARCHIVIST", "CorrectPerson", name=desk.name_of("李四"), identity="", reason="号码登记错误")
    merge(desk, "张山", "张三")
    merge(desk, "张三", "李四")
    for duplicate in (first, second):
        seen = desk.call("CASHIER", "GetPerson", name=f"{desk.parent}/people/{duplicate}")
        assert seen.merged_into == f"people/{desk.person_id('李四')}"
    assert {name for owners in owners_of(desk).values() for name, _ in owners} == {"李四"}


# --- at the same moment -------------------------------------------------------------------------------------------------------


def test_of_merges_at_once_one_is_made_and_the_others_hear_so(new_desk: NewDesk) -> None:
    units = [make.unit(str(n)) for n in range(4)]
    desk = new_desk(units=units, owners=[owner(str(n), f"周{n}号", f"1391111000{n}") for n in range(4)])
    ids = [desk.person_id(f"周{n}号") for n in range(4)]
    pairs = [(ids[a], ids[b]) for a in range(4) for b in range(4) if a != b]

    def attempt(pair: tuple[Any, Any]) -> str:
        try:
            desk.call(
                "CS_SUPERVISOR", "MergePeople", name=f"{desk.parent}/people/{pair[0]}", survivor=f"people/{pair[1]}", reason="重复登记"
            )
        except Refused as refused:
            return refused.reason
        return "merged"

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(attempt, pairs))
    assert results.count("merged") == 3, "four records become one by three merges, in whatever order"
    assert set(results) <= {"merged", "PERSON_MERGED"}
    living = rows(desk.database, "SELECT id FROM people WHERE id = ANY(%s) AND merged_into IS NULL", ids)
    assert len(living) == 1
    assert {
        row[0] for row in rows(desk.database, "SELECT merged_into FROM people WHERE id = ANY(%s) AND merged_into IS NOT NULL", ids)
    } == {living[0][0]}
    assert rows(desk.database, "SELECT count(*) FROM memberships WHERE person_id = %s", living[0][0]) == [(4,)]


def test_a_merge_waits_for_the_batch_of_an_import_and_gives_up_when_it_takes_too_long(desk: Desk) -> None:
    with ThreadPoolExecutor(1) as pool:
        with desk.database.transaction() as batch:
            batch.execute("SELECT pg_advisory_xact_lock(%s)", (REGISTER,))
            merged = pool.submit(merge, desk, "张山", "张三")
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            eventually(lambda: rows(desk.database, waiting, REGISTER))
            assert not merged.done()
        assert merged.result().display_name == "张三"
        with desk.database.transaction() as batch:
            batch.execute("SELECT pg_advisory_xact_lock(%s)", (REGISTER,))
            refusal = refused(desk, "李四", "张三")
    assert (refusal.http, refusal.reason) == (503, "LOCKED")


def test_a_merge_and_an_import_that_name_the_same_people_come_one_after_the_other(desk: Desk) -> None:
    """Whichever is first, there is one living record with the number, and the import does not fail."""
    file = make.workbook(
        estates=[], units=[],
        owners=[
            owner("1-1-0101", "张三", "13911116666", make.identity(1), 项目编号=desk.code, 缴费方式="现金"),
            owner("1-1-0102", "张山", "13922227777", 项目编号=desk.code, 缴费方式="现金"),
        ],
    )  # fmt: skip

    def take_in() -> None:
        with desk.database.transaction() as tx:
            importing.start(tx, "again.xlsx", file, None)
        while work_once(desk.database, "test"):
            pass

    with ThreadPoolExecutor(2) as pool:
        taken, merged = pool.submit(take_in), pool.submit(merge, desk, "张三", "张山")
        taken.result()
        merged.result()
    states = rows(
        desk.database, "SELECT state, error FROM operations WHERE created_by = 'system/residents' ORDER BY created_at DESC LIMIT 1"
    )
    assert states == [("SUCCEEDED", "")]
    assert desk.search("张") == ["张山"]
    assert owners_of(desk)["1-1-0101"] == [("张山", "100")]


# --- the register comes again ---------------------------------------------------------------------------------------------------


def register(code: str, **changes: Any) -> list[dict[str, Any]]:
    """The rows by which the desk's people came in; `changes` of 张山's."""
    return [
        owner("1-1-0101", "张三", "13911116666", make.identity(1), 生日="1980-01-01", 项目编号=code),
        owner("1-1-0102", "张山", "13922227777", 紧急联系人="张母", 紧急联系电话="13933334444", 项目编号=code, **changes),
        owner("1-1-0103", "李四", "13955558888", make.identity(2), 项目编号=code),
    ]


@pytest.mark.parametrize(("duplicate", "survivor"), [("张山", "张三"), ("张三", "张山")])
def test_the_same_register_again_changes_nothing_after_a_merge(desk: Desk, duplicate: str, survivor: str) -> None:
    before = merge(desk, duplicate, survivor)
    done = desk.take_in(owners=register(desk.code))
    assert (done.total("unchanged"), done.total("changed"), done.total("created"), done.total("refused")) == (3, 0, 0, 0)
    assert desk.search("张") == [survivor]
    assert desk.call("CASHIER", "GetPerson", name=desk.name_of(survivor)).etag == before.etag


def test_a_corrected_row_of_the_duplicate_goes_to_the_survivor_and_leaves_his_name(desk: Desk) -> None:
    merge(desk, "张山", "张三")
    changed = register(desk.code, 缴费方式="微信")
    assert desk.take_in(owners=changed).total("changed") == 1
    assert (desk.search("张"), desk.members("1-1-0102")["张三"].payment_method) == (["张三"], "微信")
    person = desk.call("CASHIER", "GetPerson", name=desk.name_of("张三"))
    assert (person.phone, list(person.other_phones)) == ("139****6666", ["139****7777"])
    assert desk.take_in(owners=changed).total("unchanged") == 3, "repeating it changes nothing"


def test_a_duplicate_with_a_wrong_number_in_the_register_is_not_brought_back(new_desk: NewDesk) -> None:
    """His number was wrong and taken away before the merge; the office's file still has it."""

    def files(code: str, payment: str) -> list[dict[str, Any]]:
        return [
            owner("1-1-0101", "陈一", "13911110001", make.identity(1), 项目编号=code, 产权份额="50%"),
            owner("1-1-0101", "陈乙", "13911110002", make.identity(9), 项目编号=code, 产权份额="50%", 缴费方式=payment),
        ]

    desk = new_desk()
    desk.take_in(owners=files(desk.code, "现金"))
    desk.call("ARCHIVIST", "CorrectPerson", name=desk.name_of("陈乙"), identity="", reason="号码登记错误")
    merge(desk, "陈乙", "陈一")
    for payment, outcome in (("现金", "unchanged"), ("微信", "changed"), ("微信", "unchanged")):
        done = desk.take_in(owners=files(desk.code, payment))
        assert done.total("created") == 0
        assert done.total(outcome) >= 1, payment
        assert owners_of(desk)["1-1-0101"] == [("陈一", "100")], "neither row speaks of the whole share"
    [found] = rows(desk.database, "SELECT identity_index FROM people WHERE id = %s", desk.person_id("陈一"))
    assert bytes(found[0]) == identity_index(make.identity(1))


def test_a_newcomer_with_the_duplicates_name_and_telephone_is_the_survivor(desk: Desk) -> None:
    merge(desk, "张山", "张三")
    member = desk.call(
        "CUSTOMER_ASSISTANT", "AddMember", name=desk.unit("1-1-0103"), kind="TENANT", start_date="2026-01-01", reason="租赁合同",
        party={"display_name": "张山", "phone": "13922227777"},
    )  # fmt: skip
    assert (member.person, member.display_name) == (f"people/{desk.person_id('张三')}", "张三")


def test_no_grant_of_a_company_far_away_merges(desk: Desk) -> None:
    stranger = Caller("staff", uuid4(), (Grant("CS_SUPERVISOR", "company", uuid4()),))
    assert refused(desk, "张山", "张三", stranger).http in (403, 404)
