"""Every row of the register is taken or refused for an exact reason, whatever the file looks like."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from services.residents import register_file
from services.residents.register import EndOfSheet, judged
from services.residents.register_file import KINDS, OWNERS, NotARegister, RegisterFile, check
from services.residents.register_judge import Judge, NothingKnown
from services.residents.register_rows import OwnerRow, ParkingRow, Refusal, StaffRow, Taken, TenantRow, UnitRow
from tests.residents import workbooks as make

TODAY = date(2026, 11, 22)
SAMPLE = Path(__file__).parents[2] / "services" / "residents" / "sample_register.xlsx"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "register.xlsx"


class Read:
    """A register read to its end."""

    def __init__(self, content: bytes, known: Any = None):
        self.taken: list[Any] = []
        self.refused: list[Refusal] = []
        self.remarks: list[Refusal] = []
        self.taken_rows: Counter[str] = Counter()
        self.refused_rows: Counter[str] = Counter()
        file, judge = RegisterFile(content), Judge(known or NothingKnown(), TODAY)
        for found in judged(file, judge):
            if isinstance(found, EndOfSheet):
                self.remarks += judge.remarks_on_shares() if found.last and found.kind is OWNERS else []
            elif isinstance(found.verdict, Taken):
                self.taken.append(found.verdict.row)
                self.remarks += found.verdict.remarks
                self.taken_rows[found.sheet] += 1
            else:
                self.refused += found.verdict.refusals
                self.refused_rows[found.sheet] += 1
        file.close()

    def of(self, cls: type) -> list[Any]:
        return [row for row in self.taken if isinstance(row, cls)]

    def reasons(self) -> list[tuple[str, int, str, str]]:
        return [(r.sheet, r.row, r.column, r.reason) for r in self.refused]


def test_a_right_register_is_taken_whole() -> None:
    read = Read(
        make.workbook(
            owners=[make.owner()],
            units=[make.unit(房屋状态="出租")],
            tenants=[make.tenant()],
            spaces=[make.space()],
            employees=[make.staff()],
        )
    )
    assert read.refused == []
    assert read.remarks == []
    assert read.taken_rows == {kind.name: 1 for kind in KINDS}
    unit = read.of(UnitRow)[0]
    assert (unit.estate, unit.building, unit.entrance, unit.floor, unit.number) == ("TFHY", "1栋", "1单元", 1, "1-1-0101")
    assert (unit.area, unit.fee_rate, unit.move_in_date) == (Decimal("98.50"), Decimal("2.8000"), date(2023, 8, 29))
    assert (unit.status.taken_over, unit.status.occupancy, unit.status.under_renovation) == (True, "LET", False)
    owner = read.of(OwnerRow)[0]
    assert (owner.person.identity, owner.person.phones, owner.share) == (make.identity(1), ("13900000001",), Decimal(100))
    assert (owner.person.birthday, owner.emergency_phone, owner.payment_method) == (date(1980, 1, 1), "13911112222", "微信")
    tenant = read.of(TenantRow)[0]
    assert (tenant.start, tenant.end, tenant.owner_consent) == (date(2026, 1, 1), date(2027, 12, 31), True)
    assert read.of(ParkingRow)[0].kind == "MONTHLY_RENTAL"
    staff = read.of(StaffRow)[0]
    assert (staff.roles, staff.level, staff.place, staff.state) == (("PROJECT_MANAGER",), "ESTATE", "TFHY", "ACTIVE")


@pytest.mark.rule("CEN-01")
@pytest.mark.parametrize(
    ("written", "facts"),
    [
        ("自住", (True, "OWNER_OCCUPIED", False)),
        ("自 住", (True, "OWNER_OCCUPIED", False)),
        ("自\u3000住", (True, "OWNER_OCCUPIED", False)),
        ("出租", (True, "LET", False)),
        ("空置", (True, "VACANT", False)),
        ("装修中", (True, "VACANT", True)),
        ("未接房", (False, "VACANT", False)),
    ],
)
def test_the_status_of_a_unit_is_kept_as_separate_facts(written: str, facts: tuple[bool, str, bool]) -> None:
    status = Read(make.workbook(units=[make.unit(房屋状态=written)])).of(UnitRow)[0].status
    assert (status.taken_over, status.occupancy, status.under_renovation) == facts


ONE_CELL = [
    ("estates", "项目", make.estate, "项目编号", "天府", "INVALID_CODE"),
    ("estates", "项目", make.estate, "项目名称", None, "VALUE_MISSING"),
    ("estates", "项目", make.estate, "物业类型", "别墅", "UNKNOWN_PROPERTY_TYPE"),
    ("estates", "项目", make.estate, "时区", "Asia/Chengdu", "UNKNOWN_TIME_ZONE"),
    ("estates", "项目", make.estate, "有无业委会", "也许", "NOT_YES_OR_NO"),
    ("units", "房屋台账", make.unit, "项目编号", "XXXX", "UNKNOWN_ESTATE"),
    ("units", "房屋台账", make.unit, "楼栋", None, "VALUE_MISSING"),
    ("units", "房屋台账", make.unit, "楼层", "顶层", "INVALID_FLOOR"),
    ("units", "房屋台账", make.unit, "房号", "/", "VALUE_MISSING"),
    ("units", "房屋台账", make.unit, "房号", make.day("2026-01-01"), "TURNED_INTO_DATE"),
    ("units", "房屋台账", make.unit, "建筑面积", -153.83, "AREA_NOT_POSITIVE"),
    ("units", "房屋台账", make.unit, "建筑面积", "约一百", "NOT_A_NUMBER"),
    ("units", "房屋台账", make.unit, "建筑面积", 100001, "AREA_TOO_LARGE"),
    ("units", "房屋台账", make.unit, "物业类型", "别墅", "UNKNOWN_PROPERTY_TYPE"),
    ("units", "房屋台账", make.unit, "房屋状态", "拆迁", "UNKNOWN_UNIT_STATUS"),
    ("units", "房屋台账", make.unit, "入伙日期", "待定", "INVALID_DATE"),
    ("units", "房屋台账", make.unit, "入伙日期", "2023年13月1日", "INVALID_DATE"),
    ("units", "房屋台账", make.unit, "入伙日期", None, "VALUE_MISSING"),
    ("units", "房屋台账", make.unit, "入伙日期", "2123-01-01", "DATE_OUT_OF_RANGE"),
    ("units", "房屋台账", make.unit, "物业费单价", -2.8, "AMOUNT_NEGATIVE"),
    ("owners", "业主信息登记表", make.owner, "项目编号", "XXXX", "UNKNOWN_ESTATE"),
    ("owners", "业主信息登记表", make.owner, "房号", "1-1-0101X", "UNKNOWN_UNIT"),
    ("owners", "业主信息登记表", make.owner, "业主姓名", None, "VALUE_MISSING"),
    ("owners", "业主信息登记表", make.owner, "业主姓名", "12345", "INVALID_NAME"),
    ("owners", "业主信息登记表", make.owner, "业主类型", "国家", "UNKNOWN_OWNER_KIND"),
    ("owners", "业主信息登记表", make.owner, "证件号码", "510107197309095430", "IDENTITY_CHECKSUM"),
    ("owners", "业主信息登记表", make.owner, "证件号码", "51010719730909", "INVALID_IDENTITY"),
    ("owners", "业主信息登记表", make.owner, "手机号", "1390963106", "INVALID_PHONE"),
    ("owners", "业主信息登记表", make.owner, "紧急联系电话", "12345", "INVALID_PHONE"),
    ("owners", "业主信息登记表", make.owner, "生日", "1985年13月40日", "INVALID_DATE"),
    ("owners", "业主信息登记表", make.owner, "生日", "2026-11-23", "DATE_OUT_OF_RANGE"),
    ("owners", "业主信息登记表", make.owner, "产权份额", "120%", "SHARE_OUT_OF_RANGE"),
    ("owners", "业主信息登记表", make.owner, "产权份额", "一半", "INVALID_SHARE"),
    ("owners", "业主信息登记表", make.owner, "特殊关怀", "很" * 21, "TEXT_TOO_LONG"),
    ("tenants", "租户信息表", make.tenant, "房号", "99-9-9999", "UNKNOWN_UNIT"),
    ("tenants", "租户信息表", make.tenant, "租户姓名", "", "VALUE_MISSING"),
    ("tenants", "租户信息表", make.tenant, "身份证号", "350102197603055840", "IDENTITY_CHECKSUM"),
    ("tenants", "租户信息表", make.tenant, "手机号", "12345", "INVALID_PHONE"),
    ("tenants", "租户信息表", make.tenant, "租期开始", None, "VALUE_MISSING"),
    ("tenants", "租户信息表", make.tenant, "租期开始", "去年", "INVALID_DATE"),
    ("tenants", "租户信息表", make.tenant, "租期结束", "2020-01-01", "END_BEFORE_START"),
    ("tenants", "租户信息表", make.tenant, "租期结束", "2046-01-02", "LEASE_TOO_LONG"),
    ("tenants", "租户信息表", make.tenant, "业主同意书", "口头", "NOT_YES_OR_NO"),
    ("spaces", "车位台账", make.space, "车位号", None, "VALUE_MISSING"),
    ("spaces", "车位台账", make.space, "房号", "99-9-9999", "UNKNOWN_UNIT"),
    ("spaces", "车位台账", make.space, "车牌号", "川A123", "INVALID_PLATE"),
    ("spaces", "车位台账", make.space, "类型", "随便停", "UNKNOWN_PARKING_KIND"),
    ("spaces", "车位台账", make.space, "月费", -300, "AMOUNT_NEGATIVE"),
    ("employees", "员工花名册", make.staff, "工号", None, "VALUE_MISSING"),
    ("employees", "员工花名册", make.staff, "姓名", "无", "VALUE_MISSING"),
    ("employees", "员工花名册", make.staff, "岗位", "宇航员", "UNKNOWN_POST"),
    ("employees", "员工花名册", make.staff, "所属项目", "XXXX", "UNKNOWN_ESTATE"),
    ("employees", "员工花名册", make.staff, "手机号", "12345", "INVALID_PHONE"),
    ("employees", "员工花名册", make.staff, "邮箱", "tfhy001", "INVALID_EMAIL"),
    ("employees", "员工花名册", make.staff, "状态", "失踪", "UNKNOWN_STAFF_STATE"),
    ("employees", "员工花名册", make.staff, "手机号", "#REF!", "CELL_ERROR"),
]


@pytest.mark.parametrize(("part", "sheet", "row", "column", "value", "why"), ONE_CELL)
def test_a_wrong_cell_refuses_its_row(part: str, sheet: str, row: Any, column: str, value: Any, why: str) -> None:
    """Sheet, row as Excel counts, column, the value as it stands there, and the reason."""
    read = Read(make.workbook(**{part: [row(**{column: value})]}))
    mine = [r for r in read.refused if r.sheet == sheet]
    assert [(r.row, r.column, r.reason) for r in mine] == [(3, column, why)]
    shown = value.strftime("%Y-%m-%d") if isinstance(value, datetime) else "" if value is None else str(value)
    assert mine[0].value == shown
    assert mine[0].message
    assert read.taken_rows[sheet] == 0


def test_an_identity_number_stored_as_a_number_is_refused() -> None:
    """Excel keeps fifteen digits of a number: the last three are gone."""
    read = Read(make.workbook(owners=[make.owner(证件号码=float(make.identity(7).replace("X", "0")))]))
    assert read.reasons() == [("业主信息登记表", 3, "证件号码", "DIGITS_LOST")]
    assert re.fullmatch(r"9901011980010\d{5}", read.refused[0].value)


def test_every_wrong_cell_of_a_row_is_named_and_the_row_counts_once() -> None:
    read = Read(make.workbook(units=[make.unit(建筑面积=-1, 物业类型="别墅", 楼层="顶层")]))
    assert [(r.column, r.reason) for r in read.refused] == [
        ("楼层", "INVALID_FLOOR"),
        ("建筑面积", "AREA_NOT_POSITIVE"),
        ("物业类型", "UNKNOWN_PROPERTY_TYPE"),
    ]
    assert read.refused_rows == {"房屋台账": 1}


@pytest.mark.rule("MIN-05")
def test_the_move_in_date_may_be_open_only_for_a_unit_not_taken_over() -> None:
    read = Read(
        make.workbook(
            units=[
                make.unit("1", 房屋状态="未接房", 入伙日期="待定"),
                make.unit("2", 房屋状态="未接房", 入伙日期=None),
                make.unit("3", 房屋状态="空置", 入伙日期="待定"),
            ]
        )
    )
    assert [(unit.number, unit.move_in_date) for unit in read.of(UnitRow)] == [("1", None), ("2", None)]
    assert read.reasons() == [("房屋台账", 5, "入伙日期", "INVALID_DATE")]


def test_rows_that_depend_on_a_refused_unit_say_which_row_that_is() -> None:
    read = Read(
        make.workbook(
            units=[make.unit(), make.unit("1-1-0102", 建筑面积=-1)],
            owners=[make.owner("1-1-0102")],
            tenants=[make.tenant("1-1-0102")],
            spaces=[make.space(房号="1-1-0102")],
        )
    )
    assert read.reasons() == [
        ("房屋台账", 4, "建筑面积", "AREA_NOT_POSITIVE"),
        ("业主信息登记表", 3, "房号", "UNIT_REFUSED"),
        ("租户信息表", 3, "房号", "UNIT_REFUSED"),
        ("车位台账", 3, "房号", "UNIT_REFUSED"),
    ]
    assert all("《房屋台账》第 4 行" in r.message for r in read.refused[1:])


def test_rows_that_depend_on_a_refused_estate_say_so() -> None:
    read = Read(make.workbook(estates=[make.estate(物业类型="别墅")], owners=[make.owner()], employees=[make.staff()]))
    assert read.reasons() == [
        ("项目", 3, "物业类型", "UNKNOWN_PROPERTY_TYPE"),
        ("房屋台账", 3, "项目编号", "ESTATE_REFUSED"),
        ("业主信息登记表", 3, "项目编号", "ESTATE_REFUSED"),
        ("员工花名册", 3, "所属项目", "ESTATE_REFUSED"),
    ]
    assert all("《项目》第 3 行" in r.message for r in read.refused[1:])


def test_of_two_rows_for_a_unit_the_first_is_taken() -> None:
    read = Read(make.workbook(units=[make.unit(建筑面积=80), make.unit(建筑面积=90)], owners=[make.owner()]))
    assert [unit.area for unit in read.of(UnitRow)] == [Decimal("80.00")]
    assert read.reasons() == [("房屋台账", 4, "房号", "DUPLICATE_UNIT")]
    assert "《房屋台账》第 3 行" in read.refused[0].message
    assert len(read.of(OwnerRow)) == 1, "the unit itself was taken"


def test_a_right_row_after_a_wrong_one_for_the_same_unit_is_taken() -> None:
    read = Read(make.workbook(units=[make.unit(建筑面积=-80), make.unit(建筑面积=80)], owners=[make.owner()]))
    assert read.reasons() == [("房屋台账", 3, "建筑面积", "AREA_NOT_POSITIVE")]
    assert len(read.of(UnitRow)) == len(read.of(OwnerRow)) == 1


def test_shares_may_not_exceed_the_whole() -> None:
    read = Read(
        make.workbook(
            owners=[make.owner(person=1, 产权份额="60%"), make.owner(person=2, 产权份额="40%"), make.owner(person=3, 产权份额="1%")]
        )
    )
    assert [owner.share for owner in read.of(OwnerRow)] == [60, 40]
    assert read.reasons() == [("业主信息登记表", 5, "产权份额", "SHARES_EXCEED_WHOLE")]


def test_three_thirds_are_the_whole() -> None:
    read = Read(make.workbook(owners=[make.owner(person=n, 产权份额="1/3") for n in (1, 2, 3)]))
    assert read.refused == []
    assert read.remarks == []


def test_shares_below_the_whole_keep_their_owners_and_are_remarked() -> None:
    read = Read(make.workbook(owners=[make.owner(person=1, 产权份额="50%"), make.owner(person=2, 产权份额="120%")]))
    assert read.reasons() == [("业主信息登记表", 4, "产权份额", "SHARE_OUT_OF_RANGE")]
    assert [(r.row, r.reason) for r in read.remarks] == [(3, "SHARES_INCOMPLETE")]
    assert len(read.of(OwnerRow)) == 1


def test_owners_together_without_shares_are_right() -> None:
    read = Read(make.workbook(owners=[make.owner(person=1, 产权份额="共同共有"), make.owner(person=2, 产权份额=None)]))
    assert read.refused == []
    assert [owner.share for owner in read.of(OwnerRow)] == [None, None]


def test_the_same_owner_twice_in_a_unit_is_refused_and_the_identity_number_is_not_repeated() -> None:
    read = Read(make.workbook(owners=[make.owner(产权份额="50%"), make.owner(产权份额="50%")]))
    assert read.reasons() == [("业主信息登记表", 4, "证件号码", "DUPLICATE_OWNER")]
    assert read.refused[0].value == "990101********" + make.identity(1)[-4:]
    assert make.identity(1) not in read.refused[0].message


def test_an_identity_number_belongs_to_one_name() -> None:
    units = [make.unit("1-1-0101"), make.unit("1-1-0102", 房屋状态="出租")]
    read = Read(
        make.workbook(
            units=units, owners=[make.owner("1-1-0101", 1, 业主姓名="张三")], tenants=[make.tenant("1-1-0102", 1, 租户姓名="李四")]
        )
    )
    assert read.reasons() == [("租户信息表", 3, "身份证号", "IDENTITY_OF_ANOTHER")]
    assert "《业主信息登记表》第 3 行" in read.refused[0].message


def test_one_person_may_own_several_units_and_rent_one_and_all_telephones_are_kept() -> None:
    units = [make.unit("1"), make.unit("2"), make.unit("3", 房屋状态="出租")]
    owners = [make.owner("1", 1), make.owner("2", 1, 手机号="13911110000")]
    read = Read(make.workbook(units=units, owners=owners, tenants=[make.tenant("3", 1, 租户姓名=owners[0]["业主姓名"], 手机号=None)]))
    assert read.refused == []
    assert read.remarks == []
    assert [owner.person.phones for owner in read.of(OwnerRow)] == [("13900000001",), ("13900000001", "13911110000")]
    assert read.of(TenantRow)[0].person.phones == ("13900000001",)


def test_an_owner_without_a_telephone_is_taken_with_a_remark() -> None:
    read = Read(make.workbook(owners=[make.owner(手机号=None)]))
    assert read.refused == []
    assert [(r.row, r.column, r.reason) for r in read.remarks] == [(3, "手机号", "PHONE_MISSING")]


def test_an_owner_without_an_identity_number_is_known_by_name_and_telephone() -> None:
    read = Read(make.workbook(owners=[make.owner(证件号码=None, 产权份额="50%"), make.owner(证件号码="/", 产权份额="50%")]))
    assert read.reasons() == [("业主信息登记表", 4, "业主姓名", "DUPLICATE_OWNER")]
    assert [r.reason for r in read.remarks] == ["IDENTITY_MISSING", "SHARES_INCOMPLETE"]


def test_nobody_is_known_by_a_name_alone() -> None:
    read = Read(make.workbook(owners=[make.owner(证件号码=None, 手机号=None)]))
    assert read.reasons() == [("业主信息登记表", 3, "证件号码", "PERSON_NOT_IDENTIFIABLE")]


def test_a_company_has_a_credit_code_and_no_birthday() -> None:
    read = Read(make.workbook(owners=[make.owner(业主类型="企业", 业主姓名="郭思贸易有限公司", 证件号码=make.credit_code(1))]))
    assert read.refused == []
    person = read.of(OwnerRow)[0].person
    assert (person.kind, person.identity, person.birthday) == ("COMPANY", make.credit_code(1), None)
    read = Read(make.workbook(owners=[make.owner(业主类型="企业", 业主姓名="郭思贸易有限公司", 证件号码=make.credit_code(1)[:-1] + "X")]))
    assert [r.reason for r in read.refused] == ["CREDIT_CODE_CHECKSUM"]
    read = Read(make.workbook(owners=[make.owner(业主类型="企业", 业主姓名="郭思贸易有限公司")]))
    assert [r.reason for r in read.refused] == ["CREDIT_CODE_CHECKSUM"], "a person's identity number is no credit code"


def test_a_company_may_be_a_tenant() -> None:
    read = Read(
        make.workbook(units=[make.unit(房屋状态="出租")], tenants=[make.tenant(租户姓名="云安科技有限公司", 身份证号=make.credit_code(2))])
    )
    assert read.refused == []
    assert read.of(TenantRow)[0].person.kind == "COMPANY"


@pytest.mark.rule("MIN-11")
def test_a_birthday_may_differ_from_the_identity_number_and_is_remarked() -> None:
    """Many want to be congratulated by the lunar calendar."""
    read = Read(make.workbook(owners=[make.owner(生日="1980.02.16")]))
    assert read.of(OwnerRow)[0].person.birthday == date(1980, 2, 16)
    assert [r.reason for r in read.remarks] == ["BIRTHDAY_DIFFERS"]
    assert Read(make.workbook(owners=[make.owner(生日=None)])).of(OwnerRow)[0].person.birthday == date(1980, 1, 1)


def test_leases_of_one_tenant_may_follow_but_not_overlap() -> None:
    units = [make.unit(房屋状态="出租")]
    first, follows = make.tenant(租期结束="2026-12-31"), make.tenant(租期开始="2027-01-01", 租期结束=None)
    assert Read(make.workbook(units=units, tenants=[first, follows])).refused == []
    read = Read(make.workbook(units=units, tenants=[first, make.tenant(租期开始="2026-12-31")]))
    assert read.reasons() == [("租户信息表", 4, "租期开始", "DUPLICATE_TENANCY")]
    assert Read(make.workbook(units=units, tenants=[first, make.tenant(person=502)])).refused == [], "flatmates"


def test_a_lease_of_twenty_years_is_the_longest() -> None:
    units = [make.unit(房屋状态="出租")]
    assert Read(make.workbook(units=units, tenants=[make.tenant(租期开始="2026-01-01", 租期结束="2046-01-01")])).refused == []
    read = Read(make.workbook(units=units, tenants=[make.tenant(租期开始="2026-01-01", 租期结束="2046-01-02")]))
    assert [r.reason for r in read.refused] == ["LEASE_TOO_LONG"]


def test_a_current_tenant_of_a_unit_that_is_not_let_is_remarked() -> None:
    assert [r.reason for r in Read(make.workbook(tenants=[make.tenant()])).remarks] == ["UNIT_NOT_LET"]
    past = make.tenant(租期开始="2024-01-01", 租期结束="2025-01-01")
    assert Read(make.workbook(tenants=[past])).remarks == []


@pytest.mark.rule("PRK-02")
def test_a_household_has_one_parking_space() -> None:
    units = [make.unit("1"), make.unit("2")]
    spaces = [
        make.space("B1", 房号="1"),
        make.space("B2", 房号="1", 车牌号="川A54321", 类型="业主车位"),
        make.space("B3", 房号="2", 车牌号="川A54322"),
    ]
    read = Read(make.workbook(units=units, spaces=spaces))
    assert read.reasons() == [("车位台账", 4, "房号", "HOUSEHOLD_HAS_SPACE")]
    assert [space.space for space in read.of(ParkingRow)] == ["B1", "B3"]


def test_a_space_and_a_plate_are_given_once() -> None:
    units = [make.unit("1"), make.unit("2")]
    read = Read(make.workbook(units=units, spaces=[make.space("B1", 房号="1"), make.space("B1", 房号="2", 车牌号="川A·12345")]))
    assert read.reasons() == [("车位台账", 4, "车位号", "DUPLICATE_SPACE"), ("车位台账", 4, "车牌号", "DUPLICATE_PLATE")]


@pytest.mark.rule("ORG-09")
@pytest.mark.parametrize(
    ("post", "roles"),
    [
        ("项目经理", ("PROJECT_MANAGER",)),
        ("客服主管", ("CS_SUPERVISOR",)),
        ("客服助理", ("CUSTOMER_ASSISTANT",)),
        ("前台接待", ("CUSTOMER_ASSISTANT",)),
        ("楼栋管家", ("BUILDING_BUTLER",)),
        ("工程主管", ("ENGINEERING_SUPERVISOR",)),
        ("维修员", ("TECHNICIAN",)),
        ("保安主管", ("SECURITY_SUPERVISOR",)),
        ("保安", ("SECURITY_GUARD",)),
        ("收银员", ("CASHIER", "FEE_COLLECTOR")),
        ("档案员", ("ARCHIVIST",)),
        ("总经理", ("GENERAL_MANAGER",)),
        ("分管领导", ("BRANCH_LEADER",)),
        ("品质督导部经理", ("QUALITY_MANAGER",)),
        ("财务部经理", ("FINANCE",)),
        ("管理部经理", ("MANAGEMENT_DEPT_MANAGER",)),
        ("集团运营", ("GROUP_OPERATIONS",)),
        ("客服助理/前台接待", ("CUSTOMER_ASSISTANT",)),
        ("客服主管、档案员", ("CS_SUPERVISOR", "ARCHIVIST")),
        ("收银员兼收费员", ("CASHIER", "FEE_COLLECTOR")),
    ],
)
def test_posts_are_roles(post: str, roles: tuple[str, ...]) -> None:
    read = Read(make.workbook(employees=[make.staff(岗位=post)]))
    assert read.refused == []
    assert read.of(StaffRow)[0].roles == roles


@pytest.mark.parametrize(
    ("written", "level", "place"),
    [
        ("TFHY", "ESTATE", "TFHY"),
        ("tfhy ", "ESTATE", "TFHY"),
        ("集团", "GROUP", "安居物业集团"),
        ("安居物业集团", "GROUP", "安居物业集团"),
        ("西部公司", "COMPANY", "西部公司"),
    ],
)
def test_staff_work_at_an_estate_a_company_or_the_group(written: str, level: str, place: str) -> None:
    row = Read(make.workbook(employees=[make.staff(所属项目=written)])).of(StaffRow)[0]
    assert (row.level, row.place) == (level, place)


def test_the_group_must_be_named_where_there_are_two() -> None:
    estates = [make.estate(), make.estate("XTSJ", 所属集团="万和物业集团")]
    read = Read(make.workbook(estates=estates, employees=[make.staff(所属项目="集团")]))
    assert [r.reason for r in read.refused] == ["UNKNOWN_ESTATE"]


def test_a_staff_number_and_a_mail_address_are_given_once() -> None:
    read = Read(
        make.workbook(
            employees=[
                make.staff(),
                make.staff(姓名="别人", 邮箱="other@anju.example"),
                make.staff("TFHY-002", 邮箱="TFHY001@anju.example"),
            ]
        )
    )
    assert read.reasons() == [("员工花名册", 4, "工号", "DUPLICATE_STAFF_NUMBER"), ("员工花名册", 5, "邮箱", "DUPLICATE_EMAIL")]


def test_somebody_elses_group_cannot_be_written() -> None:
    class Mine(NothingKnown):
        def may_write(self, group: str) -> bool:
            return group == "万和物业集团"

    read = Read(make.workbook(), Mine())
    assert read.reasons() == [("项目", 3, "所属集团", "GROUP_NOT_YOURS"), ("房屋台账", 3, "项目编号", "ESTATE_REFUSED")]


def test_what_the_database_knows_need_not_stand_in_the_file() -> None:
    class Knows(NothingKnown):
        def has_estate(self, code: str) -> bool:
            return code == "TFHY"

        def has_unit(self, estate: str, number: str) -> bool:
            return (estate, number) == ("TFHY", "1-1-0101")

    read = Read(make.workbook(estates=[], units=[], owners=[make.owner(), make.owner("1-1-0102", 2)]), Knows())
    assert len(read.of(OwnerRow)) == 1
    assert read.reasons() == [("业主信息登记表", 4, "房号", "UNKNOWN_UNIT")]


# What files look like


def book(content: bytes) -> Workbook:
    return load_workbook(BytesIO(content))


def test_columns_may_come_in_any_order_with_others_between_and_notes_above() -> None:
    workbook = book(make.workbook())
    sheet = workbook["房屋台账"]
    sheet.delete_rows(1, 10)
    for row in (
        ["房 屋 台 账"],
        [],
        ["说明:红色为必填", None, "2026年制"],
        ["序号", " 房  号 ", "*建筑面积(㎡)", "物业类型:", "备注", "房屋 状态", "入伙日期", "楼栋号", "项目编号"],
    ):
        sheet.append(row)
    sheet.append([1, "1-1-0101", "98.5", "住宅", "新", "自住", "2023-08-29", "1栋", "TFHY"])
    sheet.append([2, "1-1-0102", "-98.5", "住宅", "旧", "自住", "2023-08-29", "1栋", "TFHY"])
    read = Read(make.saved(workbook))
    assert [(unit.number, unit.area, unit.fee_rate) for unit in read.of(UnitRow)] == [("1-1-0101", Decimal("98.50"), None)]
    assert read.reasons() == [("房屋台账", 6, "建筑面积", "AREA_NOT_POSITIVE")]


def test_rows_are_numbered_as_excel_counts_over_blank_and_hidden_rows() -> None:
    workbook = book(
        make.workbook(units=[make.unit("1"), {}, make.unit("2", 建筑面积=-1), {}, {}, make.unit("3"), make.unit("4", 建筑面积=0)])
    )
    workbook["房屋台账"].row_dimensions[8].hidden = True
    workbook["房屋台账"].cell(200, 3).value = "   "
    read = Read(make.saved(workbook))
    assert [unit.number for unit in read.of(UnitRow)] == ["1", "3"]
    assert [(r.row, r.column) for r in read.refused] == [(5, "建筑面积"), (9, "建筑面积")]


def test_sheets_may_come_in_any_order_be_numbered_and_be_split_by_estate() -> None:
    workbook = book(
        make.workbook(
            estates=[make.estate(), make.estate("BJGY")], owners=[make.owner(), make.owner("B101", 2, 项目编号="BJGY")], units=[make.unit()]
        )
    )
    second = workbook.copy_worksheet(workbook["房屋台账"])
    second.title = "房屋台账-滨江"
    second["A3"], second["E3"] = "BJGY", "B101"
    workbook["房屋台账"].title = "2.房屋台账(天府)"
    workbook.move_sheet("项目", 6)
    hidden = workbook.copy_worksheet(second)
    hidden.title, hidden.sheet_state = "房屋台账旧", "hidden"
    read = Read(make.saved(workbook))
    assert read.refused == []
    assert read.taken_rows == {"项目": 2, "2.房屋台账(天府)": 1, "房屋台账-滨江": 1, "业主信息登记表": 2}


def test_a_sheet_without_a_needed_column_is_refused_once() -> None:
    workbook = book(make.workbook(units=[make.unit("1"), make.unit("2")]))
    workbook["房屋台账"].delete_cols(6)
    read = Read(make.saved(workbook))
    assert read.reasons() == [("房屋台账", 2, "建筑面积", "COLUMN_MISSING")]
    workbook["房屋台账"].delete_rows(1, 2)
    assert Read(make.saved(workbook)).reasons() == [("房屋台账", 1, "", "HEADER_MISSING")]


def test_formulas_count_by_their_results_and_are_refused_without() -> None:
    workbook = book(make.workbook(units=[make.unit("1"), make.unit("2"), make.unit("3", 单元=None)]))
    sheet = workbook["房屋台账"]
    sheet["F3"], sheet["F4"], sheet["C5"] = "=40+2.5", "=1/3*0", '="1"&"单元"'
    content = make.saved(workbook)
    with_result = BytesIO()  # as Excel would have saved the first of them
    with zipfile.ZipFile(BytesIO(content)) as source, zipfile.ZipFile(with_result, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename == "xl/worksheets/sheet2.xml":
                data, count = re.subn(rb"<f>40\+2\.5</f><v ?/>|<f>40\+2\.5</f><v></v>", b"<f>40+2.5</f><v>42.5</v>", data)
                assert count == 1
            target.writestr(item, data)
    read = Read(with_result.getvalue())
    assert [(unit.number, unit.area) for unit in read.of(UnitRow)] == [("1", Decimal("42.50"))]
    assert read.reasons() == [("房屋台账", 4, "建筑面积", "FORMULA_NOT_CALCULATED"), ("房屋台账", 5, "单元", "FORMULA_NOT_CALCULATED")]
    assert read.refused[0].value == "=1/3*0"


@pytest.mark.parametrize("content", [b"", b"PK", b"%PDF-1.4", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600])
def test_what_is_no_workbook_is_no_register(content: bytes) -> None:
    with pytest.raises(NotARegister):
        check(content)
    with pytest.raises(NotARegister):
        RegisterFile(content)


def test_a_workbook_without_known_sheets_is_no_register() -> None:
    content = make.saved(Workbook())
    for look in (check, RegisterFile):
        with pytest.raises(NotARegister, match="工作表"):
            look(content)
    check(make.workbook())


def test_a_zip_that_unpacks_to_more_than_a_register_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_file, "MOST_UNPACKED", 1 << 20)
    bomb = BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("xl/workbook.xml", b" " * ((1 << 20) + 1))
    assert len(bomb.getvalue()) < 5000
    with pytest.raises(NotARegister, match="过大"):
        check(bomb.getvalue())


def test_a_workbook_that_breaks_in_the_middle_is_no_register() -> None:
    broken = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(make.workbook(units=[make.unit(str(n)) for n in range(1000)]))) as source,
        zipfile.ZipFile(broken, "w") as target,
    ):
        for item in source.infolist():
            data = source.read(item)
            target.writestr(item, data[: len(data) // 2] if item.filename == "xl/worksheets/sheet2.xml" else data)
    with pytest.raises(NotARegister):
        Read(broken.getvalue())


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), max_size=4))
def test_wrong_rows_never_change_what_becomes_of_right_ones(order: list[int], wrong: list[int]) -> None:
    """Right units in any order, with wrong rows anywhere between them: the right ones are taken, each wrong one is refused."""
    rows = [make.unit(f"1-1-010{n}") for n in order]
    for place in wrong:
        rows.insert(place, make.unit(f"9-9-{len(rows):04d}", 建筑面积=-1))
    read = Read(make.workbook(units=rows))
    assert [unit.number for unit in read.of(UnitRow)] == [f"1-1-010{n}" for n in order]
    assert read.refused_rows["房屋台账"] == len(wrong)
    assert len(read.taken) + sum(read.refused_rows.values()) == len(rows) + 1


# The registers that come with Steward

SHIPPED = [
    ("房屋台账", 13, "物业类型", "别墅", "UNKNOWN_PROPERTY_TYPE"),
    ("房屋台账", 24, "房号", "1-1-0203", "DUPLICATE_UNIT"),
    ("房屋台账", 30, "建筑面积", "-96.2", "AREA_NOT_POSITIVE"),
    ("房屋台账", 52, "入伙日期", "待定", "INVALID_DATE"),
    ("业主信息登记表", 15, "房号", "1-2-0101", "UNIT_REFUSED"),
    ("业主信息登记表", 20, "业主姓名", "", "VALUE_MISSING"),
    ("业主信息登记表", 23, "证件号码", "990101195804050201", "IDENTITY_CHECKSUM"),
    ("业主信息登记表", 26, "生日", "1985年13月40日", "INVALID_DATE"),
    ("业主信息登记表", 29, "产权份额", "120%", "SHARE_OUT_OF_RANGE"),
    ("业主信息登记表", 32, "房号", "2-1-0201X", "UNKNOWN_UNIT"),
    ("业主信息登记表", 36, "房号", "2-1-0302", "UNIT_REFUSED"),
    ("业主信息登记表", 48, "项目编号", "XXXX", "UNKNOWN_ESTATE"),
    ("业主信息登记表", 59, "房号", "A座0304", "UNIT_REFUSED"),
    ("业主信息登记表", 60, "手机号", "1390000123", "INVALID_PHONE"),
    ("租户信息表", 6, "房号", "2-1-0302", "UNIT_REFUSED"),
    ("租户信息表", 7, "租期结束", "2020-01-01", "END_BEFORE_START"),
    ("租户信息表", 8, "手机号", "12345", "INVALID_PHONE"),
    ("租户信息表", 15, "房号", "99-9-9999", "UNKNOWN_UNIT"),
    ("车位台账", 6, "房号", "1-2-0101", "UNIT_REFUSED"),
    ("车位台账", 22, "房号", "1-1-0101", "HOUSEHOLD_HAS_SPACE"),
]


def test_the_small_register_in_the_repository() -> None:
    read = Read(SAMPLE.read_bytes())
    assert read.taken_rows == {"项目": 3, "房屋台账": 53, "业主信息登记表": 54, "租户信息表": 9, "车位台账": 18, "员工花名册": 54}
    assert [(r.sheet, r.row, r.column, r.value, r.reason) for r in read.refused] == SHIPPED


def refused(sheet: str, column: str, reason: str, *rows: tuple[int, str]) -> list[tuple[str, int, str, str, str]]:
    return [(sheet, row, column, value, reason) for row, value in rows]


@pytest.mark.skipif(not SHARED.exists(), reason="the large sample register is not beside this checkout")
def test_the_large_sample_register_row_by_row() -> None:
    """3,884 rows: each of the 89 wrong ones by its row, column, value and reason."""
    units, owners, tenants = "房屋台账", "业主信息登记表", "租户信息表"
    expected = [
        *refused(units, "物业类型", "UNKNOWN_PROPERTY_TYPE", *((row, "别墅") for row in (38, 194, 346, 648, 884))),
        *refused(
            units,
            "建筑面积",
            "AREA_NOT_POSITIVE",
            (59, "-153.83"),
            (124, "-89.42"),
            (170, "-98.27"),
            (547, "-114.29"),
            (1043, "-574.2"),
            (1398, "-50.86"),
        ),
        *refused(units, "入伙日期", "INVALID_DATE", *((row, "待定") for row in (214, 319, 911, 1218))),
        *refused(
            units,
            "房号",
            "DUPLICATE_UNIT",
            (296, "4-1-0103"),
            (654, "7-2-0604"),
            (895, "10-1-0701"),
            (958, "9-2-0302"),
            (1058, "9-2-1101"),
            (1362, "B座1003"),
        ),
        *refused(owners, "业主姓名", "VALUE_MISSING", *((row, "") for row in (39, 93, 973, 980, 1691))),
        *refused(
            owners,
            "房号",
            "UNKNOWN_UNIT",
            (55, "1-1-1102X"),
            (122, "1-2-1201X"),
            (371, "4-1-0301X"),
            (609, "6-1-0501X"),
            (891, "8-2-0202X"),
            (943, "8-2-1203X"),
            (1094, "10-1-0601X"),
            (1310, "A座1705X"),
        ),
        *refused(owners, "项目编号", "UNKNOWN_ESTATE", *((row, "XXXX") for row in (108, 127, 259, 349))),
        *refused(owners, "生日", "INVALID_DATE", *((row, "1985年13月40日") for row in (89, 524, 1672))),
        *refused(
            owners, "产权份额", "SHARE_OUT_OF_RANGE", *((row, "120%") for row in (132, 230, 393, 683, 761, 977, 1086, 1425, 1488, 1659))
        ),
        *refused(
            owners, "证件号码", "IDENTITY_CHECKSUM", (338, "510107197309095430"), (908, "510104200105098710"), (997, "510107198805270440")
        ),
        *refused(owners, "手机号", "INVALID_PHONE", (1197, "1390963106"), (1233, "1776820722")),
        *refused(
            owners,
            "房号",
            "UNIT_REFUSED",
            (47, "1-1-0903"),
            (74, "1-2-0203"),
            (75, "1-2-0203"),
            (154, "2-1-0604"),
            (204, "2-2-0602"),
            (234, "2-2-1202"),
            (254, "3-1-0502"),
            (390, "4-1-0702"),
            (391, "4-1-0702"),
            (426, "4-2-0201"),
        ),
        *refused(
            owners,
            "房号",
            "UNIT_REFUSED",
            (664, "6-2-0401"),
            (793, "7-2-0502"),
            (1084, "10-1-0402"),
            (1119, "10-1-1101"),
            (1120, "10-1-1101"),
            (1276, "A座1303"),
            (1489, "A座0203"),
            (1490, "A座0203"),
            (1701, "B座1603"),
        ),
        *refused(tenants, "房号", "UNIT_REFUSED", (9, "1-1-0903"), (105, "6-2-0401")),
        *refused(tenants, "房号", "UNKNOWN_UNIT", (68, "99-9-9999"), (70, "99-9-9999")),
        *refused(tenants, "租期结束", "END_BEFORE_START", (43, "2020-01-01"), (179, "2020-01-01")),
        *refused(tenants, "手机号", "INVALID_PHONE", *((row, "12345") for row in (46, 190, 193, 194))),
        *refused("车位台账", "房号", "UNIT_REFUSED", (29, "1-2-0203"), (58, "2-1-0604"), (74, "2-2-0602"), (365, "A座1303")),
    ]
    read = Read(SHARED.read_bytes())
    assert read.taken_rows == {"项目": 3, units: 1377, owners: 1641, tenants: 240, "车位台账": 480, "员工花名册": 54}
    assert read.refused_rows == {units: 21, owners: 54, tenants: 10, "车位台账": 4}
    order = [kind.name for kind in KINDS]
    assert [(r.sheet, r.row, r.column, r.value, r.reason) for r in read.refused] == sorted(
        expected, key=lambda r: (order.index(r[0]), r[1])
    )
    assert Counter(r.reason for r in read.remarks) == {"PHONE_MISSING": 8, "SHARES_INCOMPLETE": 19}
    names = {owner.person.name for owner in read.of(OwnerRow)}
    assert {"𬭎伟", "㛃雨", "司马长风", "Smith John", "余军平", "叶怡"} <= names, "what only looks wrong is taken"


def test_a_large_register_is_streamed() -> None:
    """5,000 rows pass while only a handful of rows is held at a time."""
    workbook = Workbook(write_only=True)
    for kind in KINDS[:2]:
        workbook.create_sheet(kind.name).append(make.HEADERS[kind.name])
    workbook["项目"].append(list(make.estate().values()))
    for n in range(5_000):
        workbook["房屋台账"].append(list(make.unit(f"{n:05d}").values()))
    file = RegisterFile(make.saved(workbook))
    assert 5_000 <= file.row_count() <= 5_010
    rows = file.rows(file.sheets[1])
    assert [next(rows).number for _ in range(3)] == [2, 3, 4], "the first rows come without the last ones being read"
    assert sum(1 for _ in rows) == 4_997
