"""Which rows of the opening register are right: every row is judged by its own cells and by the rows before it.

A row is taken, with cleaned values, or refused with every cell that is wrong. What a row refers to must have been taken:
an owner of a unit whose row was refused is refused too and says which row that was. Of two rows that contradict each other
the first is taken, because which of them is wrong cannot be known from the file and the archivist reads from the top.
Remarks go with rows that are taken but want completing.

Decisions that could have gone another way (README.md lists all reasons):
- Shares are judged row by row; a unit whose shares add up to less than 100 % keeps its owners and gets a remark, since each
  row is right by itself and the missing owner is usually one that was refused. The row that takes a unit above 100 % is refused.
- An owner without a telephone is an owner (remark). An owner without a name is nobody.
- 入伙日期 may be left open (`待定`) only for a unit that is 未接房: the fee accrues from that day (MIN-05).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Protocol, TypeVar, cast
from zoneinfo import available_timezones

from services.residents import register_cells as cell
from services.residents.register_cells import Wrong
from services.residents.register_file import ESTATES, OWNERS, PARKING, STAFF, TENANTS, UNITS, RawRow, SheetKind
from services.residents.register_rows import (
    HEADQUARTERS,
    OWNER_KINDS,
    PARKING_KINDS,
    POSTS,
    PROPERTY_TYPES,
    STAFF_STATES,
    UNIT_STATES,
    EstateRow,
    OwnerRow,
    ParkingRow,
    PersonCells,
    Refusal,
    Refused,
    Row,
    StaffRow,
    Taken,
    TenantRow,
    UnitRow,
    UnitStatus,
    Verdict,
)

T = TypeVar("T")


class Known(Protocol):
    """What the database holds already: rows may refer to it without its standing in the file."""

    def has_estate(self, code: str) -> bool: ...

    def has_unit(self, estate: str, number: str) -> bool: ...

    def groups(self) -> frozenset[str]: ...

    def companies(self) -> frozenset[str]: ...

    def may_write(self, group: str) -> bool:
        """Whether who imports may change this group: an archivist of one group must not write another's register."""
        ...

    def is_foreign(self, estate: str = "", staff: str = "") -> bool:
        """Whether an estate's code or a staff number belongs to a group that who imports may not change."""
        ...


class NothingKnown:
    """An empty database, filled by Steward itself."""

    def has_estate(self, code: str) -> bool:
        return False

    def has_unit(self, estate: str, number: str) -> bool:
        return False

    def groups(self) -> frozenset[str]:
        return frozenset()

    def companies(self) -> frozenset[str]:
        return frozenset()

    def may_write(self, group: str) -> bool:
        return True

    def is_foreign(self, estate: str = "", staff: str = "") -> bool:
        return False


EARLIEST_MOVE_IN = date(1950, 1, 1)
NOTHING: tuple[str, ...] = ()
LONGEST_LEASE = 20  # years, Civil Code 705
SLACK = Decimal("0.01")  # per cent: three times a third is 99.9999


@dataclass(frozen=True, slots=True)
class _Place:
    """A row that later rows refer to."""

    sheet: str
    row: int
    taken: bool
    occupancy: str = ""

    def __str__(self) -> str:
        return f"《{self.sheet}》第 {self.row} 行"


class _Cells:
    """The cells of one row on their way to values; collects what is wrong with them."""

    def __init__(self, raw: RawRow):
        self.raw = raw
        self.refusals: list[Refusal] = []
        self.remarks: list[Refusal] = []

    def need(self, column: str, rule: Callable[[object], T]) -> T:
        return self._take(column, lambda value: rule(cell.required(value, column)))

    def maybe(self, column: str, rule: Callable[[object], T], otherwise: T) -> T:
        return self._take(column, lambda value: otherwise if cell.is_empty(value) else rule(value))

    def text(self, column: str, *, limit: int = 100) -> str:
        return self.maybe(column, lambda value: cell.words(value, column, limit=limit), "")

    def refuse(self, column: str, reason: str, message: str, value: str | None = None) -> None:
        self.refusals.append(self._refusal(column, reason, message, value))

    def remark(self, column: str, reason: str, message: str, value: str | None = None) -> None:
        self.remarks.append(self._refusal(column, reason, message, value))

    def _take(self, column: str, rule: Callable[[object], T]) -> T:
        try:
            return rule(self.raw.cells.get(column))
        except Wrong as wrong:
            self.refuse(column, wrong.reason, wrong.message)
            return cast(T, None)  # never seen: a row with a refusal becomes no dataclass

    def _refusal(self, column: str, reason: str, message: str, value: str | None) -> Refusal:
        written = cell.shown(self.raw.cells.get(column)) if value is None else value
        return Refusal(self.raw.sheet, self.raw.number, column, written, reason, message)


class Judge:
    """Judges the rows of one file in their order: sheets as in `register_file.KINDS`, rows as in the sheet.

    Deterministic: the same rows, the same `known` and the same day give the same verdicts, which is how an import that was
    killed finds its way again.
    """

    def __init__(self, known: Known, today: date):
        self._known = known
        self._today = today
        self._latest = today + timedelta(days=5 * 366)  # a move-in date or a lease is agreed a few years ahead at most
        self._estates: dict[str, _Place] = {}
        self._units: dict[tuple[str, str], _Place] = {}
        self._groups: set[str] = set()
        self._companies: set[str] = set()
        self._people: dict[str, tuple[str, str, _Place]] = {}  # identity → name, first telephone, where
        self._owners: dict[tuple[str, str], dict[tuple[str, ...], _Place]] = {}
        self._shares: dict[tuple[str, str], tuple[Decimal, bool, _Place, str]] = {}  # sum, all stated, first row, its cell
        self._leases: dict[tuple[str, str], dict[tuple[str, ...], list[tuple[date, date, _Place]]]] = {}
        self._spaces: dict[tuple[str, str], _Place] = {}
        self._households: dict[tuple[str, str], _Place] = {}
        self._plates: dict[str, _Place] = {}
        self._numbers: dict[str, _Place] = {}
        self._mails: dict[str, _Place] = {}

    def judge(self, kind: SheetKind, raw: RawRow) -> Verdict:
        cells = _Cells(raw)
        row = self._RULES[kind.name](self, cells)
        if cells.refusals or row is None:
            return Refused(tuple(cells.refusals))
        return Taken(row, tuple(cells.remarks))

    def people_of(self, estate: str, unit: str) -> set[tuple[str, ...]]:
        """Keys (`PersonCells.key`) of everybody the file has named in a unit so far."""
        return {*self._owners.get((estate, unit), ()), *self._leases.get((estate, unit), ())}

    def estates_with_owners(self) -> list[str]:
        """Codes of the estates of which owners were taken."""
        return sorted({estate for estate, _ in self._shares})

    def remarks_on_shares(self, totals: Mapping[tuple[str, str], Decimal] | None = None) -> list[Refusal]:
        """Units whose owners, when all have been read, do not make up the whole. `totals` by (estate, unit): the sums of all
        owners that the register holds by now, where those of the file are not the only ones."""
        remarks = []
        for (estate, unit), (of_file, stated, first, written) in self._shares.items():
            total = of_file if totals is None else totals.get((estate, unit), of_file)
            about = f"项目 {estate} 房号 {unit} 的产权份额合计 {total.normalize():f}%，"
            if stated and total < 100 - SLACK:
                remarks.append(Refusal(first.sheet, first.row, "产权份额", written, "SHARES_INCOMPLETE", about + "不足 100%"))
            elif total > 100 + SLACK:
                message = about + "连同此前登记的业主超过 100%，请核对"
                remarks.append(Refusal(first.sheet, first.row, "产权份额", written, "SHARES_EXCEED_WHOLE", message))
        return remarks

    # 项目

    def _estate(self, cells: _Cells) -> Row | None:
        code = cells.need("项目编号", _estate_code)
        name = cells.need("项目名称", lambda value: cell.name(value, "项目名称"))
        kind = cells.need("物业类型", lambda value: cell.choice(value, "物业类型", PROPERTY_TYPES, "UNKNOWN_PROPERTY_TYPE"))
        company = cells.need("所属公司", lambda value: cell.name(value, "所属公司"))
        group = cells.need("所属集团", lambda value: cell.name(value, "所属集团"))
        zone = cells.maybe("时区", _time_zone, "Asia/Shanghai")
        committee = cells._take("有无业委会", lambda value: bool(cell.plain(value)) and _yes_no(value, "有无业委会"))
        if code and (before := self._estates.get(code)) and before.taken:
            cells.refuse("项目编号", "DUPLICATE_ESTATE", f"项目编号“{code}”已在{before}登记")
        elif not cells.refusals and not self._known.may_write(group):
            cells.refuse("所属集团", "GROUP_NOT_YOURS", f"您无权导入“{group}”的项目")
        elif not cells.refusals and self._known.is_foreign(estate=code):
            cells.refuse("项目编号", "CODE_TAKEN", f"项目编号“{code}”已被其他集团使用")
        if code and not (code in self._estates and self._estates[code].taken):
            self._estates[code] = _Place(cells.raw.sheet, cells.raw.number, not cells.refusals)
        if cells.refusals:
            return None
        self._groups.add(group)
        self._companies.add(company)
        return EstateRow(code, name, kind, company, group, zone, committee)

    # 房屋台账

    def _unit(self, cells: _Cells) -> Row | None:
        estate = self._estate_of(cells)
        building = cells.need("楼栋", lambda value: cell.code(value, "楼栋"))
        entrance = cells.maybe("单元", lambda value: cell.code(value, "单元"), "")
        floor = cells.maybe("楼层", cell.floor, None)
        number = cells.need("房号", lambda value: cell.code(value, "房号"))
        area = cells.need("建筑面积", cell.area)
        kind = cells.need("物业类型", lambda value: cell.choice(value, "物业类型", PROPERTY_TYPES, "UNKNOWN_PROPERTY_TYPE"))
        status = cells.need("房屋状态", lambda value: cell.choice(value, "房屋状态", UNIT_STATES, "UNKNOWN_UNIT_STATUS"))
        move_in = cells._take("入伙日期", lambda value: self._move_in_date(value, status, cells.raw.cells.get("房屋状态")))
        fee_rate = cells.maybe("物业费单价", lambda value: cell.amount(value, "物业费单价", places=4), None)
        key = (estate, number)
        before = self._units.get(key) if estate and number else None
        if before and before.taken:
            cells.refuse("房号", "DUPLICATE_UNIT", f"房号“{number}”已在{before}登记")
        elif estate and number:
            self._units[key] = _Place(cells.raw.sheet, cells.raw.number, not cells.refusals, status.occupancy if status else "")
        if cells.refusals:
            return None
        return UnitRow(estate, building, entrance, floor, number, area, kind, status, move_in, fee_rate)

    def _move_in_date(self, value: object, status: UnitStatus | None, written_status: object) -> date | None:
        if cell.is_empty(value):
            if status is None or not status.taken_over:
                return None
            if text := cell.shown(value).strip():
                why = f"房屋状态“{cell.shown(written_status)}”表示已接房，物业费自入伙之日起计，须填写具体日期"
                raise Wrong("INVALID_DATE", f"入伙日期“{text}”不是日期：{why}")
            raise Wrong("VALUE_MISSING", f"房屋状态为“{cell.shown(written_status)}”时入伙日期不能为空")
        return cell.day(value, "入伙日期", earliest=EARLIEST_MOVE_IN, latest=self._latest)

    # 业主信息登记表

    def _owner(self, cells: _Cells) -> Row | None:
        estate, unit = self._unit_of(cells)
        kind = cells.need("业主类型", lambda value: cell.choice(value, "业主类型", OWNER_KINDS, "UNKNOWN_OWNER_KIND"))
        person = self._person(cells, estate, "业主姓名", "证件号码", kind or "INDIVIDUAL")
        contact = cells.maybe("紧急联系人", lambda value: cell.name(value, "紧急联系人"), "")
        contact_phone = cells.maybe("紧急联系电话", lambda value: cell.phones(value, "紧急联系电话")[0], "")
        share = cells.maybe("产权份额", cell.share, None)
        care = cells.maybe("特殊关怀", lambda value: cell.marks(value, "特殊关怀"), NOTHING)
        payment = cells.text("缴费方式", limit=20)
        if cells.refusals or person is None:
            return None
        place = self._here(cells)
        owners, key = self._owners.setdefault((estate, unit), {}), person.key(estate)
        if before := owners.get(key):
            column, value = ("证件号码", _masked(person.identity)) if person.identity else ("业主姓名", person.name)
            cells.refuse(column, "DUPLICATE_OWNER", f"该业主在房号“{unit}”下已于{before}登记", value)
            return None
        total, stated, first, written = self._shares.get(
            (estate, unit), (Decimal(0), True, place, cell.shown(cells.raw.cells.get("产权份额")))
        )
        if share is not None and total + share > 100 + SLACK:
            message = f"房号“{unit}”的产权份额合计将达到 {(total + share).normalize():f}%,超过 100%(自{first}起已有 {total.normalize():f}%)"
            cells.refuse("产权份额", "SHARES_EXCEED_WHOLE", message)
            return None
        self._shares[(estate, unit)] = (total + (share or 0), stated and share is not None, first, written)
        owners[key] = place
        self._remember(person, place)
        return OwnerRow(estate, unit, person, share, care, contact, contact_phone, payment)

    def _person(self, cells: _Cells, estate: str, name_column: str, identity_column: str, kind: str) -> PersonCells | None:
        """The person of a row; telephones of one identity number are brought together under the first row's."""
        name = cells.need(name_column, lambda value: cell.name(value, name_column))
        if kind == "COMPANY":
            identity = cells.maybe(identity_column, lambda value: cell.company_identity(value, identity_column), "")
        else:
            identity = cells.maybe(identity_column, lambda value: cell.citizen_identity(value, identity_column, today=self._today), "")
        phones = cells.maybe("手机号", lambda value: cell.phones(value, "手机号"), NOTHING)
        birthday = self._birthday(cells, identity, kind)
        if cells.refusals:
            return None
        if not identity and not phones:
            cells.refuse(identity_column, "PERSON_NOT_IDENTIFIABLE", f"{identity_column}和手机号至少填写一项，否则无法识别此人")
            return None
        if identity and (same := self._people.get(identity)):
            known_name, first_phone, where = same
            if known_name.casefold() != name.casefold():
                message = f"{identity_column}已登记在“{known_name}”名下（{where}），与本行姓名“{name}”不一致"
                cells.refuse(identity_column, "IDENTITY_OF_ANOTHER", message, _masked(identity))
                return None
            phones = tuple(dict.fromkeys((first_phone, *phones))) if first_phone else phones
        if not phones:
            cells.remark("手机号", "PHONE_MISSING", "未填写手机号，请补充（无法接收通知，也不能用手机号登录）")
        if not identity:
            cells.remark(identity_column, "IDENTITY_MISSING", f"未填写{identity_column}，请补充")
        return PersonCells(name, kind, identity, phones, birthday)

    def _birthday(self, cells: _Cells, identity: str, kind: str) -> date | None:
        written = cells.maybe("生日", lambda value: cell.day(value, "生日", earliest=date(1880, 1, 1), latest=self._today), None)
        if kind == "COMPANY":  # a company's founding day is no birthday
            return None
        of_identity = cell.birthday_of(identity) if identity else None
        if written and of_identity and written != of_identity:
            # Often a birthday by the lunar calendar, which is the one people want to be congratulated on (MIN-11).
            cells.remark("生日", "BIRTHDAY_DIFFERS", f"生日与证件号码中的出生日期 {of_identity} 不一致，请核对（按填写的生日保存）")
        return written or of_identity

    def _remember(self, person: PersonCells, place: _Place) -> None:
        if person.identity and person.identity not in self._people:
            self._people[person.identity] = (person.name, person.phones[0] if person.phones else "", place)

    # 租户信息表

    def _tenant(self, cells: _Cells) -> Row | None:
        estate, unit = self._unit_of(cells)
        person = self._person(cells, estate, "租户姓名", "身份证号", _kind_of_name(cells.raw))
        start = cells.need("租期开始", lambda value: cell.day(value, "租期开始", earliest=EARLIEST_MOVE_IN, latest=self._latest))
        last = self._latest + timedelta(days=LONGEST_LEASE * 366)
        end = cells.maybe("租期结束", lambda value: cell.day(value, "租期结束", earliest=EARLIEST_MOVE_IN, latest=last), None)
        consent = cells._take("业主同意书", lambda value: bool(cell.plain(value)) and _yes_no(value, "业主同意书"))
        if start and end and end < start:
            cells.refuse("租期结束", "END_BEFORE_START", f"租期结束 {end} 早于租期开始 {start}")
        elif start and end and end > _years_later(start, LONGEST_LEASE):
            cells.refuse("租期结束", "LEASE_TOO_LONG", f"租期 {start} 至 {end} 超过 {LONGEST_LEASE} 年（民法典第七百零五条）")
        if cells.refusals or person is None:
            return None
        place = self._here(cells)
        leases = self._leases.setdefault((estate, unit), {}).setdefault(person.key(estate), [])
        for other_start, other_end, where in leases:
            if start <= other_end and (end or date.max) >= other_start:
                cells.refuse("租期开始", "DUPLICATE_TENANCY", f"该租户在房号“{unit}”的租期与{where}重叠")
                return None
        known = self._units.get((estate, unit))
        if known and known.occupancy != "LET" and (end is None or end >= self._today) and start <= self._today:
            cells.remark("房号", "UNIT_NOT_LET", f"房号“{unit}”在{known}的房屋状态不是“出租”，请核对")
        leases.append((start, end or date.max, place))
        self._remember(person, place)
        return TenantRow(estate, unit, person, start, end, consent)

    # 车位台账

    def _parking(self, cells: _Cells) -> Row | None:
        estate, unit = self._unit_of(cells)
        space = cells.need("车位号", lambda value: cell.code(value, "车位号"))
        plate = cells.need("车牌号", cell.plate)
        kind = cells.need("类型", lambda value: cell.choice(value, "类型", PARKING_KINDS, "UNKNOWN_PARKING_KIND"))
        fee = cells.maybe("月费", lambda value: cell.amount(value, "月费"), None)
        if cells.refusals:
            return None
        if before := self._spaces.get((estate, space)):
            cells.refuse("车位号", "DUPLICATE_SPACE", f"车位“{space}”已在{before}登记")
        if before := self._households.get((estate, unit)):
            cells.refuse("房号", "HOUSEHOLD_HAS_SPACE", f"每户仅办理一个车位：房号“{unit}”已在{before}登记车位")
        if before := self._plates.get(plate):
            cells.refuse("车牌号", "DUPLICATE_PLATE", f"车牌“{plate}”已在{before}登记")
        if cells.refusals:
            return None
        place = self._here(cells)
        self._spaces[(estate, space)] = self._households[(estate, unit)] = self._plates[plate] = place
        return ParkingRow(estate, space, unit, plate, kind, fee)

    # 员工花名册

    def _staff(self, cells: _Cells) -> Row | None:
        number = cells.need("工号", lambda value: cell.code(value, "工号"))
        name = cells.need("姓名", lambda value: cell.name(value, "姓名", limit=60))
        posts = cells.need("岗位", _posts)
        level, place = cells.need("所属项目", self._workplace) or ("", "")
        phone = cells.maybe("手机号", lambda value: cell.phones(value, "手机号")[0], "")
        mail = cells.maybe("邮箱", cell.mail, "")
        state = cells.need("状态", lambda value: cell.choice(value, "状态", STAFF_STATES, "UNKNOWN_STAFF_STATE"))
        if number and (before := self._numbers.get(number)):
            cells.refuse("工号", "DUPLICATE_STAFF_NUMBER", f"工号“{number}”已在{before}登记（兼任的岗位请用“、”写在同一行）")
        elif number and self._known.is_foreign(staff=number):
            cells.refuse("工号", "NUMBER_TAKEN", f"工号“{number}”已被其他集团使用")
        if mail and (before := self._mails.get(mail)):
            cells.refuse("邮箱", "DUPLICATE_EMAIL", f"邮箱“{mail}”已在{before}登记")
        if cells.refusals:
            return None
        here = self._here(cells)
        self._numbers[number] = here
        if mail:
            self._mails[mail] = here
        roles = tuple(dict.fromkeys(role for post in posts for role in POSTS[post]))
        return StaffRow(number, name, "、".join(posts), roles, level, place, phone, mail, state)

    def _workplace(self, value: object) -> tuple[str, str]:
        """集团, a company's name, or an estate's code."""
        text = cell.plain(value).replace(" ", "")
        if text in self._groups or text in self._known.groups():
            return "GROUP", text
        groups = self._groups or self._known.groups()  # 集团 is the group of this file, if it names one
        if text in HEADQUARTERS:
            if len(groups) != 1:
                raise Wrong("UNKNOWN_ESTATE", f"所属项目“{text}”无法对应到唯一的集团，请填写集团全称")
            return "GROUP", next(iter(groups))
        if text in self._companies or text in self._known.companies():
            return "COMPANY", text
        return "ESTATE", self._known_estate(cell.code(value, "所属项目"), "所属项目")

    # What rows have in common

    def _here(self, cells: _Cells) -> _Place:
        return _Place(cells.raw.sheet, cells.raw.number, True)

    def _estate_of(self, cells: _Cells) -> str:
        return cells.need("项目编号", lambda value: self._known_estate(cell.code(value, "项目编号"), "项目编号"))

    def _known_estate(self, code: str, column: str) -> str:
        place = self._estates.get(code)
        if place and not place.taken:
            raise Wrong("ESTATE_REFUSED", f"{column}“{code}”所在的{place}未被接受，请先更正该行")
        if not place and not self._known.has_estate(code):
            raise Wrong("UNKNOWN_ESTATE", f"{column}“{code}”不存在")
        return code

    def _unit_of(self, cells: _Cells) -> tuple[str, str]:
        estate = self._estate_of(cells)
        unit = cells.need("房号", lambda value: self._known_unit(estate, cell.code(value, "房号")))
        return estate, unit

    def _known_unit(self, estate: str, number: str) -> str:
        if not estate:  # refused already for its estate; the unit cannot be judged
            return number
        place = self._units.get((estate, number))
        if place and not place.taken:
            raise Wrong("UNIT_REFUSED", f"房号“{number}”所在的{place}未被接受，请先更正该行")
        if not place and not self._known.has_unit(estate, number):
            raise Wrong("UNKNOWN_UNIT", f"项目 {estate} 没有房号“{number}”")
        return number

    _RULES: Mapping[str, Callable[[Judge, _Cells], Row | None]] = {
        ESTATES.name: _estate,
        UNITS.name: _unit,
        OWNERS.name: _owner,
        TENANTS.name: _tenant,
        PARKING.name: _parking,
        STAFF.name: _staff,
    }


def _estate_code(value: object) -> str:
    text = cell.code(value, "项目编号", limit=20)
    if not re.fullmatch(r"[A-Z0-9][A-Z0-9-]*", text):  # it stands in addresses: /v1/estates/TFHY
        raise Wrong("INVALID_CODE", f"项目编号“{cell.shown(value)}”只能由字母、数字和“-”组成")
    return text


def _time_zone(value: object) -> str:
    text = cell.plain(value).replace(" ", "")
    if text not in available_timezones():
        raise Wrong("UNKNOWN_TIME_ZONE", f"时区“{cell.shown(value)}”不存在（例如 Asia/Shanghai）")
    return text


def _yes_no(value: object, what: str) -> bool:
    return cell.choice(cell.plain(value).upper(), what, cell.YES_NO, "NOT_YES_OR_NO")


def _posts(value: object) -> tuple[str, ...]:
    """`客服主管、档案员`: several posts of one person stand in one cell."""
    posts = tuple(dict.fromkeys(re.sub(r"\s", "", post) for post in re.split(r"[;,、/|+]|兼", cell.plain(value)) if post.strip()))
    for post in posts:
        if post not in POSTS:
            raise Wrong("UNKNOWN_POST", f"岗位“{post}”没有对应的系统角色")
    return posts


def _kind_of_name(raw: RawRow) -> str:
    """The tenants' sheet does not say who is a company; an 18-character credit code or a company's name does."""
    identity, name = (str(raw.cells.get(column) or "") for column in ("身份证号", "租户姓名"))
    named_so = re.search(r"公司|事务所|中心|银行|学校|医院|合作社|厂$|店$|工作室", name)
    return "COMPANY" if named_so and not re.fullmatch(r"\s*\d{17}[\dXx]\s*", identity) else "INDIVIDUAL"


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, month=3, day=1)


def _masked(identity: str) -> str:
    return identity[:6] + "*" * max(len(identity) - 10, 0) + identity[-4:] if len(identity) > 10 else "*" * len(identity)
