"""The rows of the opening register as values, one class per sheet, and the words of the register with their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class EstateRow:
    code: str
    name: str
    property_type: str  # name in steward.residents.v1.PropertyType
    company: str
    group: str
    time_zone: str
    has_committee: bool


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """房屋状态 as the separate facts of CEN-01."""

    taken_over: bool
    occupancy: str  # name in steward.residents.v1.UnitStatus.Occupancy
    under_renovation: bool


@dataclass(frozen=True, slots=True)
class UnitRow:
    estate: str
    building: str
    entrance: str  # 单元; "" where a building has one entrance
    floor: int | None
    number: str  # 房号, unique in the estate
    area: Decimal  # m²
    property_type: str
    status: UnitStatus
    move_in_date: date | None
    fee_rate: Decimal | None  # CNY per m² and month


@dataclass(frozen=True, slots=True)
class PersonCells:
    """Who a row is about. `identity` is complete: rows live in memory only; the database keeps it encrypted."""

    name: str
    kind: str  # INDIVIDUAL | COMPANY
    identity: str  # "" when not given
    phones: tuple[str, ...]  # the first is the one that calls, codes and notices go to
    birthday: date | None

    def key(self, estate: str) -> tuple[str, ...]:
        """What makes two rows be about one person: the identity number, else name and telephone in the estate."""
        return ("identity", self.identity) if self.identity else ("name", estate, self.name, self.phones[0] if self.phones else "")


@dataclass(frozen=True, slots=True)
class OwnerRow:
    estate: str
    unit: str
    person: PersonCells
    share: Decimal | None  # per cent; None: jointly, or not stated
    care_marks: tuple[str, ...]
    emergency_name: str
    emergency_phone: str
    payment_method: str


@dataclass(frozen=True, slots=True)
class TenantRow:
    estate: str
    unit: str
    person: PersonCells
    start: date
    end: date | None  # last day; None: open-ended (Civil Code 730)
    owner_consent: bool


@dataclass(frozen=True, slots=True)
class ParkingRow:
    estate: str
    space: str
    unit: str
    plate: str
    kind: str  # OWNER_SPACE | MONTHLY_RENTAL
    monthly_fee: Decimal | None


@dataclass(frozen=True, slots=True)
class StaffRow:
    number: str
    name: str
    post: str  # as the register calls it
    roles: tuple[str, ...]  # names in steward.options.v1.Role
    level: str  # GROUP | COMPANY | ESTATE
    place: str  # name of the group or company, code of the estate
    phone: str
    email: str
    state: str  # ACTIVE | ON_LEAVE | LEFT


Row = EstateRow | UnitRow | OwnerRow | TenantRow | ParkingRow | StaffRow


@dataclass(frozen=True, slots=True)
class Refusal:
    """A cell that cannot be taken, or a remark on one that was. `row` as Excel counts."""

    sheet: str
    row: int
    column: str
    value: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Taken:
    row: Row
    remarks: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    refusals: tuple[Refusal, ...]


Verdict = Taken | Refused


PROPERTY_TYPES = {
    "住宅": "RESIDENTIAL",
    "写字楼": "OFFICE",
    "商务公寓": "BUSINESS_APARTMENT",
    "办公楼": "OFFICE",
    "办公": "OFFICE",
    "公寓": "BUSINESS_APARTMENT",
}
UNIT_STATES = {
    "自住": UnitStatus(True, "OWNER_OCCUPIED", False),
    "出租": UnitStatus(True, "LET", False),
    "装修中": UnitStatus(True, "VACANT", True),
    "未接房": UnitStatus(False, "VACANT", False),
    "空置": UnitStatus(True, "VACANT", False),
    "自用": UnitStatus(True, "OWNER_OCCUPIED", False),
    "住家": UnitStatus(True, "OWNER_OCCUPIED", False),
    "办公": UnitStatus(True, "OWNER_OCCUPIED", False),
    "已出租": UnitStatus(True, "LET", False),
    "租户": UnitStatus(True, "LET", False),
    "正在装修": UnitStatus(True, "VACANT", True),
    "装修": UnitStatus(True, "VACANT", True),
    "未收房": UnitStatus(False, "VACANT", False),
    "未交房": UnitStatus(False, "VACANT", False),
    "闲置": UnitStatus(True, "VACANT", False),
}
OWNER_KINDS = {"个人": "INDIVIDUAL", "企业": "COMPANY", "自然人": "INDIVIDUAL", "公司": "COMPANY", "单位": "COMPANY", "法人": "COMPANY"}
PARKING_KINDS = {
    "业主车位": "OWNER_SPACE",
    "月租": "MONTHLY_RENTAL",
    "自有": "OWNER_SPACE",
    "产权车位": "OWNER_SPACE",
    "月租车位": "MONTHLY_RENTAL",
}
STAFF_STATES = {
    "在职": "ACTIVE", "试用": "ACTIVE", "试用期": "ACTIVE", "正式": "ACTIVE", "休假": "ON_LEAVE", "请假": "ON_LEAVE", "产假": "ON_LEAVE",
    "病假": "ON_LEAVE", "离职": "LEFT", "已离职": "LEFT", "退休": "LEFT",
}  # fmt: skip
# Names of posts, the other names of ORG-09 and among them.
POSTS: Mapping[str, tuple[str, ...]] = {
    post: roles
    for roles, posts in (
        (("CUSTOMER_ASSISTANT",), "客服助理 前台接待 客户助理 客服专员 前台 接待员"),
        (("BUILDING_BUTLER",), "楼栋管家 物业管家 管家"),
        (("EARLY_SHIFT_CLERK",), "早班 早班员 早班客服"),
        (("ARCHIVIST",), "档案员 档案负责人 档案管理员"),
        (("CASHIER", "FEE_COLLECTOR"), "收银员 出纳"),
        (("FEE_COLLECTOR",), "收费员"),
        (("TECHNICIAN",), "维修员 维修工 工程人员 水电工 维修技工"),
        (("SECURITY_GUARD",), "保安 保安员 秩序维护员 门岗"),
        (("ENVIRONMENT_SUPERVISOR",), "管家服务主管 环境主管"),
        (("CS_SUPERVISOR",), "客服主管 客户服务主管"),
        (("ENGINEERING_SUPERVISOR",), "工程主管"),
        (("SECURITY_SUPERVISOR",), "保安主管 保安队长 秩序主管"),
        (("CUSTOMER_MANAGER",), "客户经理 客服经理"),
        (("PROJECT_MANAGER",), "项目经理 服务中心经理 项目负责人 项目中心负责人 主管经理"),
        (("ENGINEERING_MANAGER",), "工程经理 工程部经理"),
        (("MANAGEMENT_DEPT_MANAGER",), "管理部经理 公司管理部经理"),
        (("QUALITY_MANAGER",), "品质督导部经理 品质部经理 品质经理 品质管理部经理 质量管理部经理 品质管理中心经理"),
        (("FINANCE",), "财务 财务部经理 财务经理 财务主管 财务人员 会计"),
        (("ADMIN_HR",), "行政人事 行政人事部经理 人事行政 行政人事专员"),
        (("BRANCH_LEADER",), "分管领导"),
        (("COMPANY_LEADER",), "公司领导 公司负责人"),
        (("GENERAL_MANAGER",), "总经理"),
        (("GROUP_OPERATIONS",), "集团运营 集团运营经理"),
    )
    for post in posts.split()
}
HEADQUARTERS = frozenset(("集团", "总部", "集团总部", "集团本部"))
