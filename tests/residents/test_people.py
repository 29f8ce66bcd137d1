"""People are found, seen with masked telephones, and whoever sees more leaves a line (ARC-08, ARC-12, ORG-10)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from services.chassis import directory
from services.chassis.access import Scope
from services.residents import search
from services.residents.register_cells import masked_phone
from steward.residents.v1 import people_pb2 as pb
from tests.residents import workbooks as make
from tests.residents.desk import Desk
from tests.residents.registers import rows

NewDesk = Callable[..., Desk]


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """张三 and 李四 own 0101, 张小三 rents 0102, 天府置业有限公司 owns 0103."""
    units = [make.unit(f"1-1-010{n}") for n in (1, 2, 3)]
    owners = [
        make.owner(person=1, 业主姓名="张三", 手机号="13911116666/02885551234", 产权份额="60%", 特殊关怀="VIP、独居老人"),
        make.owner(person=2, 业主姓名="李四", 手机号="13922227777", 产权份额="40%"),
        make.owner("1-1-0103", 9, 业主姓名="天府置业有限公司", 业主类型="企业", 证件号码=make.credit_code(1), 手机号="02866661234"),
    ]
    return new_desk(units=units, owners=owners, tenants=[make.tenant("1-1-0102", 3, 租户姓名="张小三", 手机号="13933338888")])


# --- units ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ARC-07", "CEN-01")
def test_a_unit_shows_who_belongs_to_it_and_no_telephone_in_clear(desk: Desk) -> None:
    unit = desk.call("CUSTOMER_ASSISTANT", "GetUnit", name=desk.unit())
    assert (unit.name, unit.number, unit.building, unit.area, unit.etag) == (desk.unit(), "1-1-0101", "1栋", "98.50", "1")
    assert (unit.fee_rate.units, unit.fee_rate.nanos, unit.move_in_date) == (2, 800_000_000, "2023-08-29")
    first = unit.members[0]
    assert (first.display_name, first.phone, first.share, first.current) == ("张三", "139****6666", "60", True)
    assert (first.emergency_name, first.emergency_phone, list(first.care_marks)) == ("亲友", "139****2222", ["VIP", "独居老人"])
    assert "13911116666" not in str(unit)
    assert make.identity(1) not in str(unit)
    [tenant] = desk.call("BUILDING_BUTLER", "GetUnit", name=desk.unit("1-1-0102")).members
    assert (tenant.display_name, tenant.start_date, tenant.end_date, tenant.owner_consent) == ("张小三", "2026-01-01", "2027-12-31", True)


def test_units_are_listed_by_number_in_pages_and_by_what_they_are(desk: Desk) -> None:
    first = desk.call("CASHIER", "ListUnits", parent=desk.parent, page_size=2)
    assert [unit.number for unit in first.units] == ["1-1-0101", "1-1-0102"]
    assert [member.display_name for member in first.units[0].members] == ["张三", "李四"]
    second = desk.call("CASHIER", "ListUnits", parent=desk.parent, page_size=2, page_token=first.next_page_token)
    assert ([unit.number for unit in second.units], second.next_page_token) == (["1-1-0103"], "")
    desk.take_in(units=[make.unit("2-0001", 楼栋="2栋", 房屋状态="装修中", 物业类型="写字楼")])

    def numbers(**asked: Any) -> list[str]:
        return [unit.number for unit in desk.call("CASHIER", "ListUnits", parent=desk.parent, **asked).units]

    for asked in (
        {"building": "2栋"}, {"number": "2-"}, {"property_type": "OFFICE"}, {"occupancy": "VACANT"}, {"under_renovation": True},
    ):  # fmt: skip
        assert numbers(**asked) == ["2-0001"], asked
    assert len(numbers(under_renovation=False)) == 3
    assert numbers(taken_over=False) == numbers(building="9栋") == []
    assert len(desk.call("GROUP_OPERATIONS", "ListUnits", parent="estates/-").units) == 4


def test_a_unit_goes_by_number_or_id_and_another_estates_is_not_found(new_desk: NewDesk) -> None:
    desk, other = new_desk(), new_desk()
    identifier = rows(desk.database, "SELECT u.id FROM units u JOIN estates e ON e.id = u.estate_id WHERE e.code = %s", desk.code)[0][0]
    assert desk.call("ARCHIVIST", "GetUnit", name=desk.unit(str(identifier))).number == "1-1-0101"
    assert desk.call("GROUP_OPERATIONS", "GetUnit", name=f"estates/-/units/{identifier}").number == "1-1-0101"
    for who, name in ((desk.who("ARCHIVIST"), desk.unit("9")), (other.who("ARCHIVIST"), other.unit(str(identifier)))):
        refusal = desk.refused(who, "GetUnit", name=name)
        assert (refusal.http, refusal.reason) == (404, "UNIT_NOT_FOUND")


# --- search -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("张", ["张三", "张小三"]),
        ("三", ["张三", "张小三"]),
        ("小三", ["张小三"]),
        ("张 三", ["张三"]),
        ("张三", ["张三"]),
        ("置业", ["天府置业有限公司"]),
        ("王", []),
        ("6666", ["张三"]),
        ("13911116666", ["张三"]),
        ("139-1111-6666", ["张三"]),
        ("+86 13911116666", ["张三"]),
        ("１３９１１１１６６６６", ["张三"]),
        ("666", []),
        ("1234", ["天府置业有限公司", "张三"]),
        ("028-85551234", ["张三"]),
        ("1-1-0101", ["张三", "李四"]),
        ("1-1-0102", ["张小三"]),
        ("%", []),
        ("' OR 1=1 --", []),
    ],
)
def test_people_are_found_by_name_telephone_or_unit(desk: Desk, query: str, found: list[str]) -> None:
    assert sorted(desk.search(query)) == sorted(found)


def test_a_query_is_read_as_all_that_it_can_be() -> None:
    assert search.read("1001") == search.Wanted("", "1001", "1001")
    assert search.read("张 三") == search.Wanted("张三", "", "")
    assert search.read("+86 139 1111 6666").digits == search.read("008613911116666").digits == "13911116666"
    assert search.read("a101") == search.Wanted("a101", "", "A101")
    assert search.read("12") == search.Wanted("", "", "12")


@pytest.mark.parametrize(("query", "parent"), [("6666", "estate"), ("6666", "-"), ("张", "-"), ("1-1-0101", "estate"), ("张", "estate")])
def test_a_search_needs_no_scan_of_everybody_behind_row_level_security(desk: Desk, query: str, parent: str) -> None:
    """Every condition can go by an index in the eyes of the service's own role: none is leaky, and no policy reads all memberships."""
    clerk, statements = desk.who("CUSTOMER_ASSISTANT"), []
    with desk.database.read() as tx:
        estate = directory.estate_by_code(tx, desk.code)
    with desk.database.read(clerk.principal, Scope(estates=frozenset({clerk.grants[0].node}))) as tx:
        tx.estate = estate if parent == "estate" else None
        tx.execute("SET LOCAL enable_seqscan = off")

        @sa.event.listens_for(desk.database.engine, "before_cursor_execute")
        def keep(_c: Any, cursor: Any, statement: str, values: Any, _x: Any, _m: bool) -> None:
            if "NOTIFY" not in statement:  # the waker of the relay speaks too
                statements.append(cursor.mogrify(statement, values).decode())

        found = search.people(tx, search.read(query), search.Filter(), None, 10)
        sa.event.remove(desk.database.engine, "before_cursor_execute", keep)
        plan = "\n".join(row[0] for row in tx.execute(f"EXPLAIN {statements[-1]}"))
    assert found
    assert not re.search(r"Seq Scan on (people|memberships|units|people_phones)", plan), plan


def test_what_a_search_shows_is_masked_and_has_no_birthday(desk: Desk) -> None:
    [person] = desk.call("CUSTOMER_ASSISTANT", "SearchPeople", parent=desk.parent, query="张三").people
    assert (person.phone, list(person.other_phones), person.has_identity, person.birthday) == ("139****6666", ["028*****1234"], True, "")
    assert [(m.unit, m.kind) for m in person.members] == [(desk.unit(), 1)]
    assert (person.name, person.person) == (desk.name_of("张三"), f"people/{desk.person_id('张三')}")


def test_a_search_may_be_narrowed_and_is_paged_without_gaps(desk: Desk) -> None:
    assert desk.search("张", kind="TENANT") == ["张小三"]
    assert desk.search("有限", person_kind="INDIVIDUAL") == []
    assert desk.search("有限", person_kind="COMPANY") == ["天府置业有限公司"]
    units = [make.unit(f"9-{n:02d}") for n in range(25)]
    desk.take_in(units=units, owners=[make.owner(f"9-{n:02d}", 100 + n, 业主姓名=f"钱{chr(0x5000 + n % 7)}") for n in range(25)])
    seen, token = [], ""
    for _ in range(10):
        page = desk.call("CUSTOMER_ASSISTANT", "SearchPeople", parent=desk.parent, query="钱", page_size=4, page_token=token)
        seen += [person.person for person in page.people]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 25
    other = {"parent": desk.parent, "query": "赵", "page_token": page_token(desk)}
    assert desk.refused("CUSTOMER_ASSISTANT", "SearchPeople", **other).reason == "INVALID_PAGE_TOKEN"


def page_token(desk: Desk) -> str:
    return desk.call("CUSTOMER_ASSISTANT", "SearchPeople", parent=desk.parent, query="钱", page_size=1).next_page_token


def test_names_that_begin_with_the_query_come_first(desk: Desk) -> None:
    desk.take_in(owners=[make.owner("1-1-0102", 50, 业主姓名="小张"), make.owner("1-1-0102", 51, 业主姓名="张飞", 产权份额=None)])
    assert desk.search("张") == ["张三", "张小三", "张飞", "小张"]


def test_former_members_are_found_only_when_asked_for(desk: Desk) -> None:
    desk.take_in(tenants=[make.tenant("1-1-0102", 60, 租户姓名="孙七", 租期开始="2024-01-01", 租期结束="2024-12-31")])
    assert desk.search("孙七") == []
    assert desk.search("孙七", include_past=True) == ["孙七"]
    assert "孙七" not in desk.members("1-1-0102")
    assert "孙七" in desk.members("1-1-0102", include_past=True)


# --- whose people they are --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(new_desk: NewDesk) -> Desk:
    """吴丽 owns a unit at both estates and was registered at the first, 周明 at the first alone."""
    desk = new_desk(estates=2)
    here, there = desk.codes
    owners = [
        make.owner(person=n, 业主姓名=name, 项目编号=code) for n, name, code in ((1, "吴丽", here), (2, "周明", here), (1, "吴丽", there))
    ]
    for row in owners:
        row["产权份额"] = None
    desk.take_in(owners=owners)
    return desk


@pytest.mark.rule("ORG-10", "ORG-11")
def test_a_person_is_seen_at_every_estate_he_belongs_to_and_at_no_other(two: Desk) -> None:
    there = two.codes[1]
    clerk = two.who("CUSTOMER_ASSISTANT", there)
    assert two.search("吴丽", clerk, parent=f"estates/{there}") == ["吴丽"]
    seen = two.call(clerk, "GetPerson", name=two.name_of("吴丽", there))
    assert [m.unit for m in seen.members] == [two.unit(code=there)], "of her unit at the other estate the clerk learns nothing"
    assert two.search("周明", clerk, parent=f"estates/{there}") == []
    assert two.search("周明", clerk, parent="estates/-") == []
    for rpc, more in (
        ("GetPerson", {}),
        ("RevealPhone", {"reason": "回访"}),
        ("CorrectPerson", {"reason": "更正", "phone": "13955556666"}),
        ("MergePeople", {"reason": "重复", "survivor": f"people/{two.person_id('吴丽')}"}),
    ):
        who = two.who("CS_SUPERVISOR", there)
        refusal = two.refused(who, rpc, name=two.name_of("周明", there), **more)
        assert (refusal.http, refusal.reason) == (404, "PERSON_NOT_FOUND"), rpc
    assert two.refused("CUSTOMER_ASSISTANT", "GetPerson", name=two.name_of("吴丽", "NOWHERE")).reason == "ESTATE_NOT_FOUND"


def test_across_estates_a_name_is_searched_from_its_beginning(two: Desk) -> None:
    for who in ("GROUP_OPERATIONS", "MANAGEMENT_DEPT_MANAGER"):
        person = two.call(who, "SearchPeople", parent="estates/-", query="吴").people[0]
        assert {m.unit for m in person.members} == {two.unit(code=code) for code in two.codes}
        assert two.search("丽", who, parent="estates/-") == []
        assert two.search("吴丽", who, parent="estates/-") == ["吴丽"]
        assert two.search("0001", who, parent="estates/-") == ["吴丽"]


def test_another_groups_people_are_out_of_sight_for_everybody(new_desk: NewDesk) -> None:
    ours, theirs = new_desk(owners=[make.owner(业主姓名="冯一")]), new_desk(owners=[make.owner(业主姓名="冯二")])
    assert ours.search("冯", "GROUP_OPERATIONS", parent="estates/-") == ["冯一"]
    name = f"{ours.parent}/people/{theirs.person_id('冯二')}"
    assert ours.refused("GROUP_OPERATIONS", "GetPerson", name=name).reason == "PERSON_NOT_FOUND"


def test_the_same_number_is_one_person_at_each_estate_and_a_clerk_of_one_sees_the_correction_of_the_other(two: Desk) -> None:
    here, there = two.codes
    two.call(two.who("CS_SUPERVISOR", there), "CorrectPerson", name=two.name_of("吴丽", there), phone="13977778888", reason="业主来电更正")
    assert two.call(two.who("CASHIER", here), "GetPerson", name=two.name_of("吴丽")).phone == "139****8888"
    for code in two.codes:
        lines = two.call(
            two.who("ARCHIVIST", code), "ListCorrections", parent=f"estates/{code}", record=f"people/{two.person_id('吴丽')}"
        ).corrections
        assert [line.reason for line in lines] == ["业主来电更正"], code


# --- looking closer ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ARC-08", "ARC-12", "ORG-10")
def test_a_telephone_is_shown_for_a_reason_and_leaves_a_line(desk: Desk) -> None:
    name, clerk = desk.name_of("张三"), desk.who("CUSTOMER_ASSISTANT")
    refusal = desk.refused("CUSTOMER_ASSISTANT", "RevealPhone", name=name)
    assert (refusal.http, refusal.fields) == (400, {"reason"})
    assert desk.call("CUSTOMER_ASSISTANT", "RevealPhone", name=name, reason="管道漏水，联系业主").phone == "13911116666"
    lines = desk.call("PROJECT_MANAGER", "ListDisclosures", parent=name).disclosures
    assert [(line.actor, line.actor_name, line.person, line.field, line.reason) for line in lines] == [
        (clerk.name, "客服助理0", f"people/{desk.person_id('张三')}", pb.Disclosure.PHONE, "管道漏水，联系业主")
    ]
    assert lines[0].disclose_time.seconds > 0


def test_other_telephones_and_emergency_contacts_are_asked_for_by_name(desk: Desk) -> None:
    name = desk.name_of("张三")
    reply = desk.call("BUILDING_BUTLER", "RevealPhone", name=name, field="OTHER_PHONES", reason="手机不通")
    assert (reply.phone, list(reply.other_phones)) == ("", ["028-85551234"])
    [contact] = desk.call("BUILDING_BUTLER", "RevealPhone", name=name, field="EMERGENCY_PHONE", reason="手机不通").emergency_contacts
    assert (contact.unit, contact.display_name, contact.phone) == (desk.unit(), "亲友", "13911112222")
    fields = [line.field for line in desk.call("CS_SUPERVISOR", "ListDisclosures", parent=name).disclosures]
    assert fields == [pb.Disclosure.EMERGENCY_PHONE, pb.Disclosure.OTHER_PHONES]
    for field in ("RECORD", "IDENTITY_LOOK_UP"):
        assert desk.refused("CASHIER", "RevealPhone", name=name, field=field, reason="缴费").http == 400


def test_a_telephone_that_is_not_there_is_not_disclosed(desk: Desk) -> None:
    desk.take_in(owners=[make.owner("1-1-0102", 70, 业主姓名="无号", 手机号=None)])
    refusal = desk.refused("CASHIER", "RevealPhone", name=desk.name_of("无号"), reason="催缴物业费")
    assert (refusal.http, refusal.reason) == (409, "PHONE_MISSING")
    assert not desk.call("PROJECT_MANAGER", "ListDisclosures", parent=desk.name_of("无号")).disclosures


def test_the_same_request_reveals_once(desk: Desk) -> None:
    asked = {"name": desk.name_of("张三"), "reason": "回访", "request_id": "reveal-1"}
    assert desk.call("CASHIER", "RevealPhone", **asked) == desk.call("CASHIER", "RevealPhone", **asked)
    assert len(desk.call("PROJECT_MANAGER", "ListDisclosures", parent=asked["name"]).disclosures) == 1


@pytest.mark.rule("ARC-12")
def test_opening_a_record_leaves_a_line_and_shows_no_secret(desk: Desk) -> None:
    name = desk.name_of("张三")
    person = desk.call("CASHIER", "GetPerson", name=name)
    assert (person.birthday, person.phone, person.etag, person.merged_into) == ("1980-01-01", "139****6666", "1", "")
    assert make.identity(1) not in str(person)
    [line] = desk.call("PROJECT_MANAGER", "ListDisclosures", parent=name).disclosures
    assert (line.field, line.actor) == (pb.Disclosure.RECORD, desk.who("CASHIER").name)


def test_a_look_from_above_all_estates_is_filed_where_the_person_is_seen(two: Desk) -> None:
    name = f"estates/-/people/{two.person_id('周明')}"
    assert two.call("MANAGEMENT_DEPT_MANAGER", "RevealPhone", name=name, reason="投诉升级核实").phone
    assert two.call("GROUP_OPERATIONS", "GetPerson", name=name).name == two.name_of("周明")
    lines = two.call(two.who("PROJECT_MANAGER"), "ListDisclosures", parent=two.name_of("周明")).disclosures
    assert [line.field for line in lines] == [pb.Disclosure.RECORD, pb.Disclosure.PHONE]


def test_what_was_looked_at_can_be_listed_by_estate_and_by_who_did(desk: Desk) -> None:
    for who, name in (("CASHIER", "张三"), ("CASHIER", "李四"), ("CUSTOMER_ASSISTANT", "张三")):
        desk.call(who, "RevealPhone", name=desk.name_of(name), reason="回访")
    everybody = f"{desk.parent}/people/-"
    first = desk.call("PROJECT_MANAGER", "ListDisclosures", parent=everybody, page_size=2)
    rest = desk.call("PROJECT_MANAGER", "ListDisclosures", parent=everybody, page_size=2, page_token=first.next_page_token)
    assert [len(first.disclosures), len(rest.disclosures), len(rest.next_page_token)] == [2, 1, 0]
    by_cashier = desk.call("PROJECT_MANAGER", "ListDisclosures", parent=everybody, actor=desk.who("CASHIER").name).disclosures
    assert len(by_cashier) == 2


@pytest.mark.rule("ARC-12")
def test_a_person_learns_who_looked_at_his_own_data_at_every_estate_and_nothing_of_others(two: Desk) -> None:
    here, there = two.codes
    two.call(two.who("CASHIER", here), "RevealPhone", name=two.name_of("吴丽"), reason="催缴")
    two.call(two.who("CASHIER", there), "RevealPhone", name=two.name_of("吴丽", there), reason="退款")
    two.call(two.who("CASHIER", here), "RevealPhone", name=two.name_of("周明"), reason="催缴")
    herself = two.resident("吴丽")
    for parent in (two.name_of("吴丽"), two.name_of("吴丽", there), f"estates/-/people/{two.person_id('吴丽')}"):
        assert [line.reason for line in two.call(herself, "ListDisclosures", parent=parent).disclosures] == ["退款", "催缴"], parent
    manager = two.who("PROJECT_MANAGER", there)
    assert [line.reason for line in two.call(manager, "ListDisclosures", parent=two.name_of("吴丽", there)).disclosures] == ["退款"]
    for parent in (two.name_of("周明"), f"{two.parent}/people/-"):
        assert two.refused(herself, "ListDisclosures", parent=parent).http == 404


def test_residents_see_their_own_record_and_no_other(desk: Desk) -> None:
    himself = desk.resident("张三")
    seen = desk.call(himself, "GetPerson", name=desk.name_of("张三"))
    assert (seen.display_name, [m.unit for m in seen.members]) == ("张三", [desk.unit()])
    assert not desk.call("PROJECT_MANAGER", "ListDisclosures", parent=desk.name_of("张三")).disclosures, "nobody looked but he"
    assert desk.refused(himself, "GetPerson", name=desk.name_of("李四")).reason == "PERSON_NOT_FOUND"
    assert desk.refused(himself, "SearchPeople", parent=desk.parent, query="李").http == 403


def test_an_identity_number_is_looked_up_exactly_and_each_time_leaves_a_line(desk: Desk) -> None:
    def look_up(identity: str, **more: Any) -> pb.LookUpPersonByIdentityResponse:
        return desk.call("ARCHIVIST", "LookUpPersonByIdentity", parent=desk.parent, identity=identity, reason="办理过户", **more)

    assert look_up(make.identity(1)).person.display_name == "张三"
    assert look_up(" " + make.identity(1).lower() + " ").person.display_name == "张三"
    assert look_up(make.credit_code(1)).person.display_name == "天府置业有限公司"
    assert not look_up(make.identity(4000)).HasField("person")
    lines = desk.call("PROJECT_MANAGER", "ListDisclosures", parent=f"{desk.parent}/people/-").disclosures
    assert [line.person != "" for line in lines] == [False, True, True, True]
    assert {(line.field, line.reason) for line in lines} == {(pb.Disclosure.IDENTITY_LOOK_UP, "办理过户")}
    wrong = {"parent": desk.parent, "identity": make.identity(1)[:17] + "Y", "reason": "办理过户"}
    assert desk.refused("ARCHIVIST", "LookUpPersonByIdentity", **wrong).reason == "INVALID_IDENTITY"
    asked = {"identity": make.identity(1), "reason": "办理过户"}
    assert desk.refused("ARCHIVIST", "LookUpPersonByIdentity", parent="estates/-", **asked).reason == "ESTATE_REQUIRED"
    assert desk.refused("BUILDING_BUTLER", "LookUpPersonByIdentity", parent=desk.parent, **asked).http == 403


def test_an_identity_number_of_another_estate_is_nobodys_here(two: Desk) -> None:
    there = two.codes[1]
    asked = {"parent": f"estates/{there}", "identity": make.identity(2), "reason": "办理过户"}
    assert not two.call(two.who("ARCHIVIST", there), "LookUpPersonByIdentity", **asked).HasField("person")


def test_the_log_of_disclosures_cannot_be_changed(desk: Desk) -> None:
    for statement in ("UPDATE disclosures SET actor = 'x'", "DELETE FROM disclosures"):
        with pytest.raises(Exception, match="permission denied"), desk.database.transaction() as tx:
            tx.execute(statement)


@pytest.mark.parametrize(
    ("phone", "shown"), [("13911116666", "139****6666"), ("028-85551234", "028*****1234"), ("95588", "*****"), ("", "")]
)
def test_telephones_are_masked(phone: str, shown: str) -> None:
    assert masked_phone(phone) == shown
