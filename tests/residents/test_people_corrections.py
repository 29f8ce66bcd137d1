"""Wrong records are put right, with history: people, memberships, units (ARC-07)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest

from services.chassis.testing import Api, Refused
from services.residents import sessions
from services.residents.people import Membership, identity_index
from tests.residents import workbooks as make
from tests.residents.desk import Desk
from tests.residents.registers import events, rows

NewDesk = Callable[..., Desk]
ARCHIVIST = "ARCHIVIST"


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """张三 (60 %) and 李四 (40 %) own 0101; 王五 rents 0102."""
    owners = [
        make.owner(person=1, 业主姓名="张三", 手机号="13911116666", 产权份额="60%"),
        make.owner(person=2, 业主姓名="李四", 手机号="13922227777", 产权份额="40%"),
    ]
    tenants = [make.tenant("1-1-0102", 3, 租户姓名="王五", 手机号="13933338888")]
    return new_desk(units=[make.unit(), make.unit("1-1-0102")], owners=owners, tenants=tenants)


def correct(desk: Desk, name: str, who: Any = ARCHIVIST, **fields: Any) -> Any:
    return desk.call(who, "CorrectPerson", **{"name": desk.name_of(name), "reason": "业主来电更正", **fields})


def history(desk: Desk, record: str, who: Any = ARCHIVIST) -> list[tuple[str, str, dict[str, tuple[str, str]]]]:
    """(record's collection, reason, changes), newest first."""
    lines = desk.call(who, "ListCorrections", parent=desk.parent, record=record).corrections
    return [(line.record.partition("/")[0], line.reason, {c.field: (c.before, c.after) for c in line.changes}) for line in lines]


# --- people -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ARC-07", "ARC-12")
def test_a_correction_takes_what_is_given_leaves_the_rest_and_is_kept_with_what_stood_there(desk: Desk) -> None:
    before = correct(desk, "张三", display_name="张 珊", phone="139-2222-3333", other_phones={"phones": ["028 85551234"]})
    assert (before.display_name, before.phone, list(before.other_phones), before.birthday) == (
        "张珊", "139****3333", ["028*****1234"], "1980-01-01",
    )  # fmt: skip
    assert before.etag == "2"
    assert history(desk, f"people/{desk.person_id('张珊')}") == [
        (
            "people",
            "业主来电更正",
            {"name": ("张三", "张珊"), "phone": ("139****6666", "139****3333"), "other_phones": ("", "028*****1234")},
        )
    ]
    [line] = desk.call(ARCHIVIST, "ListCorrections", parent=desk.parent, record=f"people/{desk.person_id('张珊')}").corrections
    assert (line.version, line.actor, line.actor_name) == (2, desk.who(ARCHIVIST).name, "档案员2")
    assert rows(desk.database, "SELECT phone FROM people WHERE id = %s", desk.person_id("张珊")) == [("13922223333",)]


def test_an_identity_number_is_corrected_and_found_and_never_shown(desk: Desk) -> None:
    corrected = correct(desk, "张三", identity=make.identity(77, "19790505"))
    assert corrected.birthday == "1979-05-05", "the birthday had come from the wrong number"
    [found] = rows(desk.database, "SELECT identity_index FROM people WHERE id = %s", desk.person_id("张三"))
    assert bytes(found[0]) == identity_index(make.identity(77, "19790505"))
    [(_, _, changes)] = history(desk, f"people/{desk.person_id('张三')}")
    assert changes == {"identity": ("***", "***"), "birthday": ("1980-01-01", "1979-05-05")}
    assert correct(desk, "张三", identity=make.identity(77, "19790505")).etag == "2", "the same number again corrects nothing"
    assert correct(desk, "张三", identity="").has_identity is False


def test_a_number_that_is_somebody_elses_is_no_correction(desk: Desk, new_desk: NewDesk) -> None:
    wrong = {"name": desk.name_of("张三"), "reason": "更正", "identity": make.identity(2)}
    refusal = desk.refused(ARCHIVIST, "CorrectPerson", **wrong)
    assert (refusal.http, refusal.reason) == (409, "IDENTITY_OF_ANOTHER")
    other = new_desk(owners=[make.owner(person=2)])
    assert other.codes, "another group may have him too"
    beside = new_desk(estates=2)
    beside.take_in(owners=[make.owner(person=5, 业主姓名="甲"), make.owner(person=6, 业主姓名="乙", 项目编号=beside.codes[1])])
    unseen = {"name": beside.name_of("甲"), "reason": "更正", "identity": make.identity(6)}
    assert beside.refused(ARCHIVIST, "CorrectPerson", **unseen).reason == "IDENTITY_OF_ANOTHER", "wherever in the group he stands"


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({}, "NOTHING_TO_CORRECT", None),
        ({"phone": "1390000"}, "INVALID_PHONE", "phone"),
        ({"phone": "13911112222/13933334444"}, "INVALID_PHONE", "phone"),
        ({"other_phones": {"phones": ["x"]}}, "INVALID_PHONE", "other_phones"),
        ({"identity": make.identity(1)[:17] + ("0" if make.identity(1)[17] != "0" else "1")}, "IDENTITY_CHECKSUM", "identity"),
        ({"display_name": "123"}, "INVALID_NAME", "display_name"),
        ({"birthday": "1985-13-40"}, "INVALID_DATE", "birthday"),
        ({"birthday": "2999-01-01"}, "DATE_OUT_OF_RANGE", "birthday"),
        ({"phone": "", "identity": ""}, "PERSON_NOT_IDENTIFIABLE", "phone"),
    ],
)
def test_what_a_register_would_refuse_is_refused_here(desk: Desk, fields: dict[str, Any], reason: str, field: str | None) -> None:
    refusal = desk.refused(ARCHIVIST, "CorrectPerson", name=desk.name_of("张三"), reason="更正", **fields)
    assert (refusal.http, refusal.reason, refusal.fields) == (400, reason, {field} if field else set())
    assert desk.call(ARCHIVIST, "GetPerson", name=desk.name_of("张三")).etag == "1", "nothing is half-saved"


def test_a_person_may_become_a_company_with_a_credit_code(desk: Desk) -> None:
    assert (
        desk.refused(ARCHIVIST, "CorrectPerson", name=desk.name_of("张三"), reason="更正", kind="COMPANY", identity=make.identity(9)).http
        == 400
    )
    assert correct(desk, "张三", kind="COMPANY", display_name="张三商贸有限公司", identity=make.credit_code(3)).kind == 2


def test_a_stale_correction_is_refused_and_of_two_at_once_one_is_made(desk: Desk) -> None:
    name = desk.name_of("张三")
    correct(desk, "张三", phone="13900009999", etag="1")
    refusal = desk.refused(ARCHIVIST, "CorrectPerson", name=name, reason="更正", phone="13900008888", etag="1")
    assert (refusal.http, refusal.reason) == (412, "STALE_ETAG")

    def attempt(number: int) -> str:
        try:
            desk.call(ARCHIVIST, "CorrectPerson", name=name, reason="更正", phone=f"1390000777{number}", etag="2")
        except Refused as refused:
            return refused.reason
        return "made"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == ["STALE_ETAG"] * 3 + ["made"]


def test_a_correction_is_made_once_however_often_it_is_sent(desk: Desk) -> None:
    first = correct(desk, "张三", phone="13900009999", request_id="once")
    assert correct(desk, "张三", phone="13900009999", request_id="once") == first
    assert len(history(desk, f"people/{desk.person_id('张三')}")) == 1
    again = {"name": desk.name_of("张三"), "reason": "业主来电更正", "phone": "13900008888", "request_id": "once"}
    assert desk.refused(ARCHIVIST, "CorrectPerson", **again).reason == "IDEMPOTENCY_KEY_REUSED"


def test_a_corrected_telephone_ends_the_sessions_and_a_corrected_name_does_not(desk: Desk) -> None:
    with desk.database.transaction() as tx:
        sessions.open_session(tx, f"people/{desk.person_id('张三')}")
    open_ones = "SELECT count(*) FROM sessions WHERE principal = %s AND ended_at IS NULL"
    who = f"people/{desk.person_id('张三')}"
    correct(desk, "张三", display_name="张珊")
    assert rows(desk.database, open_ones, who) == [(1,)]
    correct(desk, "张珊", phone="13900009999")
    assert rows(desk.database, open_ones, who) == [(0,)]


def test_an_old_register_does_not_undo_a_corrected_identity_number(desk: Desk) -> None:
    owner = make.owner(person=1, 业主姓名="张三", 手机号="13911116666", 产权份额="60%", 项目编号=desk.code)
    correct(desk, "张三", identity=make.identity(88))
    done = desk.take_in(owners=[owner])
    assert (done.total("unchanged"), done.total("changed"), done.total("created")) == (1, 0, 0)
    [found] = rows(desk.database, "SELECT identity_index FROM people WHERE id = %s", desk.person_id("张三"))
    assert bytes(found[0]) == identity_index(make.identity(88))


@pytest.mark.rule("ORG-05", "ORG-10")
@pytest.mark.parametrize("rpc", ["CorrectPerson", "MergePeople"])
def test_the_front_desk_sees_and_does_not_correct(desk: Desk, rpc: str) -> None:
    for role in ("CUSTOMER_ASSISTANT", "BUILDING_BUTLER", "CASHIER", "TECHNICIAN"):
        assert desk.refused(role, rpc, name=desk.name_of("张三"), reason="更正").http == 403, role


# --- how somebody belongs to a unit -----------------------------------------------------------------------------------------


def correct_member(desk: Desk, name: str, number: str = "1-1-0101", who: Any = "CS_SUPERVISOR", **fields: Any) -> Any:
    return desk.call(who, "CorrectMembership", **{"name": desk.members(number)[name].name, "reason": "核对产权证", **fields})


def refused_member(desk: Desk, name: str, number: str = "1-1-0101", **fields: Any) -> Refused:
    return desk.refused("CS_SUPERVISOR", "CorrectMembership", name=desk.members(number)[name].name, reason="核对", **fields)


def test_shares_marks_and_contacts_are_corrected_with_history(desk: Desk) -> None:
    member = correct_member(
        desk, "张三", share="50.5", care_marks={"marks": ["VIP", "独居老人"]}, emergency_name="张父", emergency_phone="13966665555",
        payment_method="银行托收",
    )  # fmt: skip
    assert (member.share, list(member.care_marks), member.emergency_name, member.emergency_phone, member.payment_method) == (
        "50.5", ["VIP", "独居老人"], "张父", "139****5555", "银行托收",
    )  # fmt: skip
    assert member.etag == "2"
    [(record, reason, changes)] = history(desk, f"people/{desk.person_id('张三')}")
    assert (record, reason) == ("memberships", "核对产权证")
    assert changes["share"] == ("60.0000", "50.5000")
    assert changes["emergency_phone"] == ("139****2222", "139****5555")
    assert history(desk, member.name.partition("/")[2].partition("/")[2]) == history(desk, "units/1-1-0101")
    assert correct_member(desk, "张三", share="").share == ""


def test_the_owners_of_a_unit_never_have_more_than_the_whole(desk: Desk) -> None:
    refusal = refused_member(desk, "张三", share="60.02")
    assert (refusal.http, refusal.reason, refusal.rule) == (409, "SHARES_EXCEED_WHOLE", "TEN-09")
    correct_member(desk, "张三", share="60.01")
    desk.take_in(owners=[make.owner(person=9, 业主姓名="多余", 产权份额="50%", 项目编号=desk.code)])  # taken with a remark
    assert correct_member(desk, "多余", share="30").share == "30", "what is too much may be made less"
    assert refused_member(desk, "多余", share="31").reason == "SHARES_EXCEED_WHOLE"


def test_a_corrected_lease_is_told_to_every_service(desk: Desk) -> None:
    before = len(events(desk.database))
    correct_member(desk, "王五", "1-1-0102", end_date="2028-06-30")
    told = [entry for event in events(desk.database)[before:] for entry in event if "membership" in entry]
    assert [(entry["version"], entry["membership"]["endTime"]) for entry in told] == [("2", "2028-06-30T16:00:00Z")]
    assert correct_member(desk, "王五", "1-1-0102", end_date="", owner_consent=False).owner_consent is False


@pytest.mark.parametrize(
    ("name", "number", "fields", "reason"),
    [
        ("王五", "1-1-0102", {"end_date": "2025-12-31"}, "END_BEFORE_START"),
        ("王五", "1-1-0102", {"end_date": "2050-01-01"}, "LEASE_TOO_LONG"),
        ("王五", "1-1-0102", {"start_date": ""}, "VALUE_MISSING"),
        ("王五", "1-1-0102", {"share": "50"}, "NOT_OF_THIS_KIND"),
        ("张三", "1-1-0101", {"owner_consent": True}, "NOT_OF_THIS_KIND"),
        ("张三", "1-1-0101", {"start_date": "2026-05-01", "end_date": "2026-04-01"}, "END_BEFORE_START"),
        ("张三", "1-1-0101", {"share": "0"}, "SHARE_OUT_OF_RANGE"),
        ("张三", "1-1-0101", {"share": "100.1"}, "SHARE_OUT_OF_RANGE"),
        ("张三", "1-1-0101", {"emergency_phone": "x"}, "INVALID_PHONE"),
        ("张三", "1-1-0101", {}, "NOTHING_TO_CORRECT"),
    ],
)
def test_a_membership_cannot_be_corrected_to_nonsense(desk: Desk, name: str, number: str, fields: dict[str, Any], reason: str) -> None:
    refusal = refused_member(desk, name, number, **fields)
    assert (refusal.http, refusal.reason) == (400, reason)


def test_two_leases_of_one_tenant_do_not_overlap(desk: Desk) -> None:
    desk.take_in(tenants=[make.tenant("1-1-0102", 3, 租户姓名="王五", 手机号="13933338888", 租期开始="2028-01-01", 租期结束="2028-12-31")])
    first = next(m for m in desk.call("CS_SUPERVISOR", "GetUnit", name=desk.unit("1-1-0102")).members if m.end_date == "2027-12-31")
    fields = {"name": first.name, "reason": "续租", "end_date": "2028-03-31"}
    assert desk.refused("CS_SUPERVISOR", "CorrectMembership", **fields).reason == "ALREADY_MEMBER"


def test_another_estates_membership_is_not_found(desk: Desk, new_desk: NewDesk) -> None:
    other = new_desk()
    name = f"{other.parent}/memberships/{desk.members()['张三'].name.rpartition('/')[2]}"
    for rpc in ("CorrectMembership", "EndMembership"):
        refusal = other.refused("CS_SUPERVISOR", rpc, name=name, reason="更正")
        assert (refusal.http, refusal.reason) == (404, "MEMBERSHIP_NOT_FOUND")


# --- units ------------------------------------------------------------------------------------------------------------------


def correct_unit(desk: Desk, who: Any = ARCHIVIST, **fields: Any) -> Any:
    return desk.call(who, "CorrectUnit", **{"name": desk.unit(), "reason": "复核图纸", **fields})


@pytest.mark.rule("CEN-01", "ARC-07")
def test_a_units_facts_are_corrected_and_told_to_every_service(desk: Desk) -> None:
    desk.take_in(units=[make.unit("2-0101", 楼栋="2栋")])
    unit = correct_unit(
        desk, area="101.25㎡", floor=12, entrance="2单元", building="2栋", property_type="OFFICE", occupancy="LET", under_renovation=True,
        move_in_date="2024-01-01", fee_rate={"units": 3, "nanos": 125_500_000},
    )  # fmt: skip
    assert (unit.area, unit.floor, unit.entrance, unit.building, unit.move_in_date) == ("101.25", 12, "2单元", "2栋", "2024-01-01")
    assert (unit.fee_rate.units, unit.fee_rate.nanos, unit.etag) == (3, 125_500_000, "2")
    [(record, reason, changes)] = history(desk, "units/1-1-0101")
    assert (record, reason) == ("units", "复核图纸")
    assert changes["area"] == ("98.50", "101.25")
    assert changes["under_renovation"] == ("false", "true")
    node = events(desk.database)[-1][0]["node"]
    assert (node["code"], node["unitStatus"]["occupancy"], node["propertyType"]) == ("1-1-0101", "LET", "OFFICE")
    assert rows(desk.database, "SELECT occupancy, under_renovation FROM dir_nodes n WHERE code = '1-1-0101' AND estate_id ="
                " (SELECT id FROM estates WHERE code = %s)", desk.code) == [("LET", True)]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "NOTHING_TO_CORRECT"),
        ({"area": "-5"}, "AREA_NOT_POSITIVE"),
        ({"area": "1000000"}, "AREA_TOO_LARGE"),
        ({"building": "99栋"}, "BUILDING_NOT_FOUND"),
        ({"move_in_date": ""}, "MOVE_IN_DATE_MISSING"),
        ({"move_in_date": "2026-02-30"}, "INVALID_DATE"),
        ({"fee_rate": {"units": -1}}, "BAD_MONEY"),
        ({"fee_rate": {"currency_code": "USD", "units": 1}}, "BAD_MONEY"),
        ({"floor": 0}, "INVALID_INPUT"),
    ],
)
def test_a_unit_cannot_be_corrected_to_nonsense(desk: Desk, fields: dict[str, Any], reason: str) -> None:
    refusal = desk.refused(ARCHIVIST, "CorrectUnit", name=desk.unit(), reason="更正", **fields)
    assert (refusal.http, refusal.reason) == (400, reason)


def test_a_unit_that_is_not_taken_over_needs_no_move_in_date(desk: Desk) -> None:
    unit = correct_unit(desk, taken_over=False, move_in_date="")
    assert (unit.status.taken_over, unit.move_in_date) == (False, "")
    assert desk.refused(ARCHIVIST, "CorrectUnit", name=desk.unit(), reason="接房", taken_over=True).rule == "MIN-05"
    assert desk.refused(ARCHIVIST, "CorrectUnit", name=desk.unit(), reason="接房", area="80", etag="1").http == 412


# --- the whole history ------------------------------------------------------------------------------------------------------


def test_the_history_of_an_estate_is_listed_newest_first_in_pages(desk: Desk, new_desk: NewDesk) -> None:
    for n in range(3):
        correct(desk, "张三", phone=f"1390000999{n}")
    correct_unit(desk, area="99")
    manager = desk.who("PROJECT_MANAGER")
    first = desk.call(manager, "ListCorrections", parent=desk.parent, page_size=3)
    rest = desk.call(manager, "ListCorrections", parent=desk.parent, page_size=3, page_token=first.next_page_token)
    records = [line.record.partition("/")[0] for line in (*first.corrections, *rest.corrections)]
    assert (records, rest.next_page_token) == (["units", "people", "people", "people"], "")
    assert not new_desk().call("PROJECT_MANAGER", "ListCorrections", parent="estates/-").corrections
    for record, http in (("people/x", 404), ("units/9", 404), ("memberships/x", 404), ("staff/x", 400)):
        assert desk.refused(manager, "ListCorrections", parent=desk.parent, record=record).http == http


def test_what_a_register_corrected_names_the_import(desk: Desk) -> None:
    done = desk.take_in(units=[make.unit(建筑面积=88)])
    [(_, reason, changes)] = history(desk, "units/1-1-0101")
    assert (reason, changes) == (f"imports/{done.id}", {"area": ("98.50", "88.00")})


# --- the domain, without a port ---------------------------------------------------------------------------------------------


def test_a_membership_covers_its_last_day_and_overlaps_what_touches_it() -> None:
    lease = Membership(starts_on=date(2026, 1, 1), ends_on=date(2026, 12, 31))
    assert lease.covers(date(2026, 12, 31))
    assert not lease.covers(date(2027, 1, 1))
    assert lease.overlaps(date(2026, 12, 31), None)
    assert lease.overlaps(None, date(2026, 1, 1))
    assert not lease.overlaps(date(2027, 1, 1), None)
    assert Membership(starts_on=None, ends_on=None).overlaps(None, None)


def test_every_change_says_why_and_may_be_sent_again(api: Api) -> None:
    for rpc in (
        "CorrectPerson",
        "MergePeople",
        "RevealPhone",
        "TransferUnit",
        "AddMember",
        "EndMembership",
        "CorrectMembership",
        "CorrectUnit",
    ):
        assert "reason" in api.methods[rpc].input_type.fields_by_name, f"{rpc} says why"
        assert "request_id" in api.methods[rpc].input_type.fields_by_name, f"{rpc} may be sent again"
