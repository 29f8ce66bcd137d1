"""Who moves in and out, and units that change hands (TEN-09, OCC-02, MIN-10)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.chassis.testing import Refused, published
from services.residents import sessions
from services.residents.people import Membership
from steward.residents.v1 import people_pb2 as pb
from tests.residents import workbooks as make
from tests.residents.desk import Desk
from tests.residents.registers import events, rows

NewDesk = Callable[..., Desk]
TODAY = datetime.now(ZoneInfo("Asia/Shanghai")).date()
DAY = timedelta(days=1)


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """张三 and his wife 李四 own 0101 and park there; 王五 rents 0102 of 赵六."""
    return new_desk(
        units=[make.unit(), make.unit("1-1-0102", 房屋状态="出租")],
        owners=[
            make.owner(person=1, 业主姓名="张三", 手机号="13911116666", 产权份额="60%"),
            make.owner(person=2, 业主姓名="李四", 手机号="13922227777", 产权份额="40%"),
            make.owner("1-1-0102", 4, 业主姓名="赵六", 手机号="13944449999"),
        ],
        tenants=[make.tenant("1-1-0102", 3, 租户姓名="王五", 手机号="13933338888", 租期开始="2024-01-01", 租期结束=None)],
        spaces=[make.space()],
    )


def person(name: str, phone: str = "", number: int = 0, **more: Any) -> dict[str, Any]:
    return {"display_name": name, "phone": phone, "identity": make.identity(number) if number else "", **more}


def add(desk: Desk, kind: str, party: dict[str, Any], number: str = "1-1-0101", who: Any = "CUSTOMER_ASSISTANT", **more: Any) -> pb.Member:
    return desk.call(who, "AddMember", **{"name": desk.unit(number), "kind": kind, "party": party, "reason": "凭租赁合同", **more})


def refused_add(desk: Desk, kind: str, party: dict[str, Any], number: str = "1-1-0101", **more: Any) -> Refused:
    fields = {"name": desk.unit(number), "kind": kind, "party": party, "reason": "凭租赁合同", **more}
    return desk.refused("CUSTOMER_ASSISTANT", "AddMember", **fields)


def end(desk: Desk, name: str, number: str = "1-1-0101", **more: Any) -> pb.Member:
    return desk.call("CUSTOMER_ASSISTANT", "EndMembership", **{"name": desk.members(number)[name].name, "reason": "搬离", **more})


def occupancy(desk: Desk, number: str = "1-1-0101") -> str:
    sql = "SELECT occupancy FROM units u JOIN estates e ON e.id = u.estate_id WHERE e.code = %s AND number = %s"
    return rows(desk.database, sql, desk.code, number)[0][0]


def head(desk: Desk, name: str, number: str = "1-1-0101") -> str:
    return f"memberships/{desk.members(number)[name].name.rpartition('/')[2]}"


# --- moving in ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OCC-02", "OCC-12", "CEN-06")
def test_a_tenant_moves_in_and_the_unit_is_let_at_once(desk: Desk) -> None:
    before = len(events(desk.database))
    member = add(
        desk, "TENANT", person("孙 七", "139 0000 1234", 7), start_date="2026-01-01", end_date="2027-12-31", owner_consent=True,
        care_marks=["独居老人"], emergency_name="孙父", emergency_phone="13900005678",
    )  # fmt: skip
    assert (member.display_name, member.phone, member.start_date, member.end_date, member.owner_consent, member.current) == (
        "孙七", "139****1234", "2026-01-01", "2027-12-31", True, date(2026, 1, 1) <= TODAY <= date(2027, 12, 31),
    )  # fmt: skip
    assert (list(member.care_marks), member.emergency_phone) == (["独居老人"], "139****5678")
    assert occupancy(desk) == ("LET" if member.current else "OWNER_OCCUPIED")
    told = [entry["membership"] for event in events(desk.database)[before:] for entry in event if "membership" in entry]
    assert [(m["kind"], m["startTime"]) for m in told] == [("TENANT", "2025-12-31T16:00:00Z")]
    assert desk.resident("孙七").grants[-1].role == "TENANT"
    [line] = desk.call(
        "ARCHIVIST", "ListCorrections", parent=desk.parent, record=member.name.partition("/")[2].partition("/")[2]
    ).corrections
    assert (line.version, line.reason, line.actor) == (1, "凭租赁合同", desk.who("CUSTOMER_ASSISTANT").name)


def test_a_lease_that_begins_later_leaves_the_unit_as_it_is(desk: Desk) -> None:
    begins = TODAY + 30 * DAY
    member = add(desk, "TENANT", person("孙七", "13900001234"), start_date=begins.isoformat())
    assert (member.current, occupancy(desk)) == (False, "OWNER_OCCUPIED")


def test_somebody_of_the_group_is_the_person_that_he_is_wherever_he_stands(new_desk: NewDesk) -> None:
    desk = new_desk(estates=2)
    there = desk.codes[1]
    desk.take_in(
        owners=[
            make.owner(person=1, 业主姓名="甲", 手机号="13911110001", 项目编号=there, 产权份额=None),
            make.owner(person=2, 业主姓名="乙", 手机号="13911110002", 证件号码=None, 项目编号=there, 产权份额=None),
        ]
    )
    assert desk.search("甲") == [], "the clerk does not see him before"
    by_number = add(desk, "TENANT", person("甲", "13999990001", 1))
    assert by_number.person == f"people/{desk.person_id('甲')}"
    assert desk.call("CASHIER", "GetPerson", name=desk.name_of("甲")).phone == "139****0001", "what he has is not overwritten"
    [phones] = rows(desk.database, "SELECT phone, other_phones FROM people WHERE id = %s", desk.person_id("甲"))
    assert phones == ("13911110001", ["13999990001"])
    by_name = add(desk, "TENANT", person("乙", "13911110002", 22))
    assert by_name.person == f"people/{desk.person_id('乙')}"
    assert desk.call("CASHIER", "GetPerson", name=desk.name_of("乙")).has_identity, "what he lacked is there now"


def test_two_people_with_one_name_and_telephone_but_two_numbers_are_two(desk: Desk) -> None:
    member = add(desk, "TENANT", person("赵六", "13944449999", 44), "1-1-0101")
    owner = desk.members("1-1-0102")["赵六"]
    assert member.person != owner.person, "father and son"


@pytest.mark.parametrize(
    ("kind", "party", "more", "reason"),
    [
        ("TENANT", {"display_name": "孙七"}, {}, "PERSON_NOT_IDENTIFIABLE"),
        ("TENANT", {"display_name": "", "phone": "13900001234"}, {}, "INVALID_NAME"),
        ("TENANT", {"display_name": "孙七", "phone": "12"}, {}, "INVALID_PHONE"),
        ("TENANT", {"display_name": "孙七", "identity": "51010019800101999X"}, {}, "IDENTITY_CHECKSUM"),
        ("TENANT", {"person": "people/x"}, {}, "PERSON_NOT_FOUND"),
        (
            "TENANT",
            {"display_name": "孙七", "phone": "13900001234"},
            {"start_date": "2026-05-01", "end_date": "2026-04-30"},
            "END_BEFORE_START",
        ),
        (
            "TENANT",
            {"display_name": "孙七", "phone": "13900001234"},
            {"start_date": "2026-01-01", "end_date": "2047-01-01"},
            "LEASE_TOO_LONG",
        ),
        ("TENANT", {"display_name": "孙七", "phone": "13900001234"}, {"start_date": "1900-01-01"}, "DATE_OUT_OF_RANGE"),
        ("FAMILY_MEMBER", {"display_name": "小宝"}, {}, "HOUSEHOLD_REQUIRED"),
        (
            "FAMILY_MEMBER",
            {"display_name": "小宝"},
            {"household": "memberships/01a20235-57cf-7530-8a55-43b350a1decb"},
            "HOUSEHOLD_REQUIRED",
        ),
        ("OWNER", {"display_name": "孙七", "phone": "13900001234"}, {}, "INVALID_INPUT"),
    ],
)
def test_nobody_moves_in_by_nonsense(desk: Desk, kind: str, party: dict[str, Any], more: dict[str, Any], reason: str) -> None:
    refusal = refused_add(desk, kind, party, **more)
    assert (refusal.http, refusal.reason) == (400, reason)


def test_who_belongs_there_already_does_not_move_in_again(desk: Desk) -> None:
    assert refused_add(desk, "TENANT", person("王五", "13933338888", 3), "1-1-0102").reason == "ALREADY_MEMBER"
    assert refused_add(desk, "TENANT", person("张三三", "13911116666", 1)).reason == "IDENTITY_OF_ANOTHER"
    end(desk, "王五", "1-1-0102", end_date=(TODAY - DAY).isoformat())
    again = add(desk, "TENANT", person("王五", "13933338888", 3), "1-1-0102")
    assert again.start_date == TODAY.isoformat(), "he comes back by a lease of its own"


@pytest.mark.rule("MIN-10")
def test_a_family_is_registered_with_its_household_children_too(desk: Desk) -> None:
    child = add(desk, "FAMILY_MEMBER", person("张小宝", birthday="2020-05-01"), household=head(desk, "张三"))
    assert (child.display_name, child.phone, child.household) == ("张小宝", "", head(desk, "张三"))
    assert refused_add(desk, "FAMILY_MEMBER", person("张小宝"), household=head(desk, "李四")).reason == "ALREADY_MEMBER"
    only = add(desk, "FAMILY_MEMBER", person("王母", "13900007777"), "1-1-0102", household=head(desk, "王五", "1-1-0102"))
    assert only.household == head(desk, "王五", "1-1-0102")
    wrong = refused_add(desk, "FAMILY_MEMBER", person("王父"), "1-1-0102", household=only.name.partition("/")[2].partition("/")[2])
    assert wrong.reason == "HOUSEHOLD_REQUIRED", "family of family is family of the head"


def test_of_two_clerks_who_register_the_same_newcomer_at_once_one_makes_him(desk: Desk) -> None:
    def attempt(number: str) -> str:
        try:
            return add(desk, "TENANT", person("孙七", "13900001234", 7), number, start_date="2026-01-01").person
        except Refused as refused:
            return refused.reason

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(attempt, ["1-1-0101", "1-1-0102"] * 2))
    who = f"people/{desk.person_id('孙七')}"
    assert sorted(results) == sorted([who, who, "ALREADY_MEMBER", "ALREADY_MEMBER"])


def test_moving_in_twice_by_one_request_is_once(desk: Desk) -> None:
    fields = {"start_date": "2026-01-01", "request_id": "k1"}
    first = add(desk, "TENANT", person("孙七", "13900001234"), **fields)
    assert add(desk, "TENANT", person("孙七", "13900001234"), **fields) == first
    assert refused_add(desk, "TENANT", person("孙七", "13900001234"), start_date="2026-01-01").reason == "ALREADY_MEMBER"


# --- moving out ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("TEN-07", "CEN-06")
def test_the_last_tenant_leaves_with_his_family_and_the_unit_is_vacant(desk: Desk) -> None:
    mother = add(desk, "FAMILY_MEMBER", person("王母", "13900007777"), "1-1-0102", household=head(desk, "王五", "1-1-0102"))
    ended = end(desk, "王五", "1-1-0102")
    assert (ended.end_date, ended.current) == (TODAY.isoformat(), True), "the last day is his"
    members = desk.members("1-1-0102", include_past=True)
    assert members["王母"].end_date == TODAY.isoformat()
    assert mother.name == members["王母"].name
    assert occupancy(desk, "1-1-0102") == "VACANT"
    until = rows(desk.database, "SELECT ends_at FROM dir_members WHERE person_id = %s", desk.person_id("王五"))[0][0]
    assert until.astimezone(ZoneInfo("Asia/Shanghai")).date() == TODAY + DAY


def test_a_tenant_who_stays_keeps_the_unit_let(desk: Desk) -> None:
    add(desk, "TENANT", person("孙七", "13900001234"), "1-1-0102", start_date="2026-01-01")
    end(desk, "王五", "1-1-0102")
    assert occupancy(desk, "1-1-0102") == "LET"


def test_a_lease_may_end_in_advance_and_not_twice(desk: Desk) -> None:
    last = TODAY + 60 * DAY
    assert end(desk, "王五", "1-1-0102", end_date=last.isoformat()).end_date == last.isoformat()
    assert occupancy(desk, "1-1-0102") == "LET", "until then"
    name = desk.members("1-1-0102")["王五"].name
    for day, http, reason in ((last + DAY, 400, "END_LATER"), (date(2023, 12, 31), 400, "END_BEFORE_START")):
        refusal = desk.refused("CS_SUPERVISOR", "EndMembership", name=name, reason="搬离", end_date=day.isoformat())
        assert (refusal.http, refusal.reason) == (http, reason)
    end(desk, "王五", "1-1-0102", end_date=(TODAY - DAY).isoformat())
    assert desk.refused("CS_SUPERVISOR", "EndMembership", name=name, reason="搬离").reason == "MEMBERSHIP_ENDED"
    assert desk.refused("CS_SUPERVISOR", "EndMembership", name=name, reason="搬离", etag="1").http == 412


@pytest.mark.rule("TEN-09")
def test_an_owner_does_not_end_he_sells(desk: Desk) -> None:
    name = desk.members()["张三"].name
    refusal = desk.refused("PROJECT_MANAGER", "EndMembership", name=name, reason="搬离")
    assert (refusal.http, refusal.reason, refusal.rule) == (409, "OWNER_ENDS_BY_TRANSFER", "TEN-09")


# --- other owners -------------------------------------------------------------------------------------------------------------


def owner(party: dict[str, Any], share: str = "", **more: Any) -> dict[str, Any]:
    return {"party": party, "share": share, **more}


def transfer(desk: Desk, *owners: dict[str, Any], number: str = "1-1-0101", who: Any = "CS_SUPERVISOR", **more: Any) -> pb.Unit:
    fields = {"name": desk.unit(number), "owners": owners, "from_date": TODAY.isoformat(), "charges": "SETTLED", "reason": "房产过户"}
    return desk.call(who, "TransferUnit", **(fields | more))


def refused_transfer(desk: Desk, *owners: dict[str, Any], number: str = "1-1-0101", **more: Any) -> Refused:
    fields = {"name": desk.unit(number), "owners": owners, "from_date": TODAY.isoformat(), "charges": "SETTLED", "reason": "房产过户"}
    return desk.refused("CS_SUPERVISOR", "TransferUnit", **(fields | more))


def existing(desk: Desk, name: str) -> dict[str, Any]:
    return {"person": f"people/{desk.person_id(name)}"}


BUYERS = (owner(person("钱一", "13900000001", 11), "50"), owner(person("钱二", "13900000002", 12), "50"))


@pytest.mark.rule("TEN-08", "TEN-09")
def test_a_sold_unit_has_its_new_owners_from_the_day_and_the_old_household_ends_the_day_before(desk: Desk) -> None:
    add(desk, "FAMILY_MEMBER", person("张小宝"), household=head(desk, "张三"), start_date="2020-05-01")
    add(desk, "FAMILY_MEMBER", person("张小贝"), household=head(desk, "张三"))
    unit = transfer(desk, *BUYERS)
    assert [(m.display_name, m.share, m.start_date, m.end_date) for m in unit.members] == [
        ("钱一", "50", TODAY.isoformat(), ""),
        ("钱二", "50", TODAY.isoformat(), ""),
    ]
    eve = (TODAY - DAY).isoformat()
    past = desk.members(include_past=True)
    assert {name: past[name].end_date for name in ("张三", "李四", "张小宝")} == {"张三": eve, "李四": eve, "张小宝": eve}
    assert "张小贝" not in past, "who was to come on that very day never was"
    assert rows(desk.database, "SELECT deleted FROM dir_members WHERE person_id = %s", desk.person_id("张小贝")) == [(True,)]
    assert occupancy(desk) == "VACANT"
    with desk.database.read() as tx:
        assert sessions.live(tx, f"people/{desk.person_id('张三')}") is None, "he may do nothing here any more"
        assert sessions.live(tx, f"people/{desk.person_id('钱一')}") is not None


@pytest.mark.rule("TEN-09", "PRK-02")
def test_parking_ends_with_the_household_unless_it_stays(desk: Desk) -> None:
    def spaces() -> list[tuple]:
        sql = "SELECT p.number, ended_at IS NULL FROM parking_spaces p JOIN estates e ON e.id = p.estate_id WHERE e.code = %s"
        return rows(desk.database, sql, desk.code)

    transfer(desk, *BUYERS, parking_stays=True)
    assert spaces() == [("B1-0001", True)]
    transfer(desk, owner(existing(desk, "张三")), from_date=(TODAY + DAY).isoformat())
    assert spaces() == [("B1-0001", False)]


@pytest.mark.rule("TEN-09")
def test_tenants_stay_by_law_unless_they_leave_too(desk: Desk) -> None:
    add(desk, "FAMILY_MEMBER", person("王母", "13900007777"), "1-1-0102", household=head(desk, "王五", "1-1-0102"))
    transfer(desk, *BUYERS, number="1-1-0102")
    members = desk.members("1-1-0102")
    assert (members["王五"].end_date, members["王母"].end_date, occupancy(desk, "1-1-0102")) == ("", "", "LET")
    day = (TODAY + 10 * DAY).isoformat()
    transfer(desk, owner(existing(desk, "张三")), number="1-1-0102", from_date=day, tenants_leave=True)
    members = desk.members("1-1-0102")
    assert members["王五"].end_date == members["王母"].end_date == (TODAY + 9 * DAY).isoformat()


@pytest.mark.rule("TEN-09")
def test_the_transfer_is_told_and_kept_with_what_became_of_the_charges(desk: Desk) -> None:
    before, olds = len(events(desk.database)), sorted(f"people/{desk.person_id(name)}" for name in ("张三", "李四"))
    transfer(desk, *BUYERS, charges="ASSIGNED")
    news = sorted(f"people/{desk.person_id(name)}" for name in ("钱一", "钱二"))
    sql = "SELECT u.id FROM units u JOIN estates e ON e.id = u.estate_id WHERE e.code = %s AND number = '1-1-0101'"
    [event] = published(desk.database, rows(desk.database, sql, desk.code)[0][0], "UnitTransferred")
    assert (event.data["oldOwners"], event.data["newOwners"], event.data["chargesAssigned"]) == (olds, news, True)
    assert event.subject == desk.unit()
    told = [entry["membership"] for event in events(desk.database)[before:] for entry in event if "membership" in entry]
    assert {m["personId"]: "endTime" in m for m in told} == {who.removeprefix("people/"): who in olds for who in (*olds, *news)}
    lines = desk.call("ARCHIVIST", "ListCorrections", parent=desk.parent, record="units/1-1-0101").corrections
    [line] = [line for line in lines if any(c.field == "owners" for c in line.changes)]
    assert (line.reason, line.record.partition("/")[0]) == ("房产过户", "units")
    assert {(c.field, c.before, c.after) for c in line.changes} == {
        ("owners", "、".join(olds), "、".join(news)),
        ("from", "", TODAY.isoformat()),
    }


@pytest.mark.rule("TEN-09")
def test_who_stays_an_owner_has_his_new_share_from_the_day_and_keeps_his_household(desk: Desk) -> None:
    add(desk, "FAMILY_MEMBER", person("张小宝"), household=head(desk, "张三"))
    add(desk, "FAMILY_MEMBER", person("李母"), household=head(desk, "李四"))
    transfer(desk, owner(existing(desk, "李四"), "100"))
    found = desk.call("CS_SUPERVISOR", "GetUnit", name=desk.unit(), include_past=True).members
    shares = {(m.display_name, m.share, m.end_date) for m in found if m.kind == 1}
    eve = (TODAY - DAY).isoformat()
    assert shares == {("张三", "60", eve), ("李四", "40", eve), ("李四", "100", "")}
    members = desk.members()
    assert (members["李四"].share, members["李四"].start_date, members["李四"].emergency_name) == ("100", TODAY.isoformat(), "亲友")
    assert members["李母"].household == members["张小宝"].household == head(desk, "李四"), "the family lives with who stays"
    assert occupancy(desk) == "OWNER_OCCUPIED"


def test_a_wife_comes_into_the_deed_and_the_same_share_goes_on_untouched(desk: Desk) -> None:
    transfer(desk, owner(existing(desk, "张三"), "60"), owner(existing(desk, "李四"), "20"), owner(person("张母", "13900000009"), "20"))
    members = desk.members()
    assert (members["张三"].start_date, members["张三"].etag) == ("", "1")
    assert {name: members[name].share for name in members} == {"张三": "60", "李四": "20", "张母": "20"}


@pytest.mark.parametrize(
    ("owners", "more", "http", "reason"),
    [
        ((owner(person("钱一", "13900000001"), "60"), owner(person("钱二", "13900000002"), "40.02")), {}, 400, "SHARES_EXCEED_WHOLE"),
        ((owner(person("钱一", "13900000001"), "50"), owner(person("钱一", "13900000001"), "50")), {}, 400, "OWNER_TWICE"),
        ((owner({"display_name": "钱一"}, "100"),), {}, 400, "PERSON_NOT_IDENTIFIABLE"),
        ((owner(person("钱一", "13900000001"), "101"),), {}, 400, "SHARE_OUT_OF_RANGE"),
        ((owner(person("钱一", "13900000001")),), {"from_date": (TODAY + 400 * DAY).isoformat()}, 400, "DATE_OUT_OF_RANGE"),
        ((owner(person("钱一", "13900000001")),), {"from_date": "2026-02-30"}, 400, "INVALID_DATE"),
        ((), {}, 400, "INVALID_INPUT"),
        ((owner(person("钱一", "13900000001")),), {"charges": "CHARGES_UNSPECIFIED"}, 400, "INVALID_INPUT"),
        ((owner(person("钱一", "13900000001")),), {"etag": "9"}, 412, "STALE_ETAG"),
    ],
)
def test_a_transfer_that_cannot_be_changes_nothing(
    desk: Desk, owners: tuple[dict[str, Any], ...], more: dict[str, Any], http: int, reason: str
) -> None:
    refusal = refused_transfer(desk, *owners, **more)
    assert (refusal.http, refusal.reason) == (http, reason)
    assert desk.members().keys() == {"张三", "李四"}
    assert desk.search("钱一", include_past=True) == []


def test_the_same_owners_are_no_transfer_and_nobody_sells_before_he_bought(desk: Desk) -> None:
    same = (owner(existing(desk, "张三"), "60"), owner(existing(desk, "李四"), "40"))
    assert refused_transfer(desk, *same).reason == "NOTHING_TRANSFERRED"
    transfer(desk, *BUYERS)
    refusal = refused_transfer(desk, owner(existing(desk, "张三")))
    assert (refusal.http, refusal.reason, refusal.rule) == (409, "TRANSFER_BEFORE_OWNERSHIP", "TEN-09")


def test_of_two_transfers_at_once_one_is_made(desk: Desk) -> None:
    def attempt(n: int) -> str:
        try:
            transfer(desk, owner(person(f"买家{n}号", f"1390000010{n}"), "100"), etag="1")
        except Refused as refused:
            return refused.reason
        return "made"

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(attempt, range(3))) == ["STALE_ETAG", "STALE_ETAG", "made"]
    assert len(desk.members()) == 1


@pytest.mark.rule("TEN-09")
def test_an_old_register_does_not_bring_the_seller_back(desk: Desk) -> None:
    transfer(desk, *BUYERS)
    old = [
        make.owner(person=1, 业主姓名="张三", 手机号="13911116666", 产权份额="60%"),
        make.owner(person=2, 业主姓名="李四", 手机号="13922227777", 产权份额="40%"),
    ]
    done = desk.take_in(owners=old, spaces=[make.space()])
    assert (done.total("unchanged"), done.total("changed"), done.total("created")) == (3, 0, 0)
    assert desk.members().keys() == {"钱一", "钱二"}
    bought = [make.owner(person=11, 业主姓名="钱一", 手机号="13900000001", 产权份额="50%")]
    assert desk.take_in(owners=bought).total("created") == 0, "and finds the buyer"


def test_nobody_but_supervisors_and_managers_transfers(desk: Desk) -> None:
    for role in ("CUSTOMER_ASSISTANT", "BUILDING_BUTLER", "ARCHIVIST", "CASHIER"):
        fields = {"name": desk.unit(), "owners": BUYERS, "from_date": TODAY.isoformat(), "charges": "SETTLED", "reason": "过户"}
        assert desk.refused(role, "TransferUnit", **fields).http == 403, role


def test_a_membership_knows_its_days() -> None:
    lease = Membership(starts_on=date(2026, 1, 1), ends_on=date(2026, 12, 31))
    assert [lease.covers(day) for day in (date(2025, 12, 31), date(2026, 1, 1), date(2026, 12, 31), date(2027, 1, 1))] == [
        False, True, True, False,
    ]  # fmt: skip
