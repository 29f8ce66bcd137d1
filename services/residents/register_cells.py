"""What one cell of the opening register may hold: harmless cleaning, then a value or the reason why there is none.

Offices fill the register by hand, so the same thing is written in many ways: 全角 digits, spaces inside a name to make it
line up, `128.52㎡`, `9层`, `2023.08.29`, numbers stored as text and text stored as numbers. Whatever keeps its meaning is
cleaned without a word; whatever could mean two things, or nothing, raises `Wrong` with a stable reason and a sentence
that the archivist who has to correct the cell understands. Nothing here knows of rows, sheets or a database.

Sources of the formats: GB 11643-1999 (citizen identity number), GB 32100-2015 (unified social credit code), GA 36-2018
(number plates), the numbering plan of the MIIT (telephones), Civil Code 705 (a lease ends after 20 years at the latest).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TypeVar

T = TypeVar("T")


class Wrong(Exception):
    """A cell that cannot be taken: `reason` is stable, `message` a sentence for people."""

    def __init__(self, reason: str, message: str):
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class NotCalculated(str):
    """What stands in a formula cell whose result the file does not hold (it was written by a program, not by Excel)."""


# 全角 ASCII and the ideographic space. Not NFKC, which would also change ㎡, ① and the 全角 brackets of company names.
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xFFE5: "¥"}
_HALF_WIDTH_ALPHANUMERIC = {code: half for code, half in _HALF_WIDTH.items() if chr(code).isalnum() or code == 0x3000}
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣ー﹘", "-"))
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060\ufeff\x00-\x08\x0b-\x1f\x7f]")
_SPACES = re.compile(r"\s+")
# A space between two ideographs only lines up a two-character name with a three-character one: 张 三.
_SPACE_IN_CHINESE = re.compile(
    r"(?<=[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]) (?=[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_NOTHING = frozenset(("", "-", "--", "---", "/", "//", "\\", "无", "暂无", "没有", "n/a", "na", "null", "none", "空", "待定", "未定"))
_NOTHING |= frozenset(("待补", "待补充", "不详", "未知", "?", "??", "未填", "未提供"))
_EXCEL_ERRORS = frozenset(("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!", "#CALC!", "#GETTING_DATA"))


def shown(value: object) -> str:
    """The cell as a person sees it, for reports: at most 200 characters, no control characters."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d" if value.time() == datetime.min.time() else "%Y-%m-%d %H:%M:%S")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e18:
        return str(int(value))
    return _INVISIBLE.sub("", str(value))[:200]


def plain(value: object) -> str:
    """Any cell as half-width text without leading, trailing, doubled or invisible spaces; `""` for an empty cell."""
    if value is None:
        return ""
    if isinstance(value, NotCalculated):
        raise Wrong("FORMULA_NOT_CALCULATED", f"单元格是公式“{value}”，文件中没有计算结果，请用 Excel 打开并保存后再导入")
    if isinstance(value, bool):
        return "是" if value else "否"
    if isinstance(value, (datetime, date)):
        return shown(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e18:
        return str(int(value))
    text = str(value)
    if text.strip().upper() in _EXCEL_ERRORS:
        raise Wrong("CELL_ERROR", f"单元格是 Excel 错误值“{text.strip()}”")
    return _SPACES.sub(" ", _INVISIBLE.sub("", text.translate(_HALF_WIDTH))).strip()


def is_empty(value: object) -> bool:
    """Empty, or one of the words and strokes by which people say so (`无`, `/`, `待定` …)."""
    return value is None or (not isinstance(value, (NotCalculated, datetime)) and plain(value).translate(_DASHES).casefold() in _NOTHING)


def required(value: object, what: str) -> object:
    if is_empty(value):
        written = shown(value).strip()
        raise Wrong("VALUE_MISSING", f"{what}不能为空" + (f"（填写的是“{written}”）" if written else ""))
    return value


def code(value: object, what: str, *, limit: int = 40) -> str:
    """A code or number that people copy from elsewhere: upper case, no spaces, one kind of dash."""
    if isinstance(value, (datetime, date)):
        raise Wrong("TURNED_INTO_DATE", f"{what}被 Excel 自动转换成了日期“{shown(value)}”，请将单元格设为文本后重新填写")
    text = plain(value).translate(_DASHES).replace(" ", "").upper()
    if len(text) > limit:
        raise Wrong("TEXT_TOO_LONG", f"{what}超过 {limit} 个字符")
    return text


def words(value: object, what: str, *, limit: int = 100) -> str:
    """Free text."""
    text = plain(value)
    if len(text) > limit:
        raise Wrong("TEXT_TOO_LONG", f"{what}超过 {limit} 个字符")
    return text


def name(value: object, what: str, *, limit: int = 100) -> str:
    """A name of a person, company or place. Rare characters (𬭎, 㛃), Latin names and 全角 brackets stay as they are."""
    if isinstance(value, (NotCalculated, bool, datetime, date)):
        plain(value)  # raises for a formula
        raise Wrong("INVALID_NAME", f"{what}“{shown(value)}”不是名称")
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", str(value)).translate(_HALF_WIDTH_ALPHANUMERIC))
    plain(text)  # raises for an error value
    text = _SPACE_IN_CHINESE.sub("", _SPACES.sub(" ", text).strip())
    if len(text) > limit:
        raise Wrong("TEXT_TOO_LONG", f"{what}超过 {limit} 个字符")
    if not any(unicodedata.category(character).startswith("L") for character in text):
        raise Wrong("INVALID_NAME", f"{what}“{shown(value)}”中没有文字")
    return text


def choice(value: object, what: str, meanings: Mapping[str, T], reason: str) -> T:
    """One of a few words. Spaces inside do not count: 自 住 is 自住."""
    text = plain(value).replace(" ", "")
    if text not in meanings:
        usual: dict[T, str] = {}
        for word, meaning in meanings.items():
            usual.setdefault(meaning, word)
        raise Wrong(reason, f"{what}“{shown(value)}”不在可选范围内（{'、'.join(usual.values())}）")
    return meanings[text]


YES_NO: Mapping[str, bool] = {"是": True, "否": False, "有": True, "无": False, "√": True, "×": False, "Y": True, "N": False, "没有": False}

_NUMBER = re.compile(r"¥?([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|[+-]?\.\d+)(.*)")


def number(value: object, what: str, *, units: frozenset[str], places: int) -> Decimal:
    """A number with or without its unit of measure, rounded to `places` (half up; a float carries noise beyond that)."""
    if isinstance(value, (datetime, date)):
        raise Wrong("NOT_A_NUMBER", f"{what}“{shown(value)}”是日期，不是数字")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        result = Decimal(repr(value))
    else:
        match = _NUMBER.fullmatch(plain(value).translate(_DASHES).replace(" ", ""))
        if match is None or match[2].lower() not in units:
            raise Wrong("NOT_A_NUMBER", f"{what}“{shown(value)}”不是数字")
        result = Decimal(match[1].replace(",", ""))
    if abs(result) >= 10**12:
        raise Wrong("NUMBER_TOO_LARGE", f"{what}“{shown(value)}”过大")
    return result.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


_AREA_UNITS = frozenset(("", "㎡", "m²", "m2", "平方米", "平米", "平方", "平"))
_MONEY_UNITS = frozenset(
    ("", "元", "元/月", "元/㎡", "元/m²", "元/m2", "元/平方米", "元/㎡/月", "元/㎡·月", "元/平方米/月", "元/平方米·月", "/月", "元每月")
)


def area(value: object) -> Decimal:
    """Floor area in m², NUMERIC(12,2). An exhibition hall has 100,000; more is a slip of the finger."""
    result = number(value, "建筑面积", units=_AREA_UNITS, places=2)
    if result <= 0:
        raise Wrong("AREA_NOT_POSITIVE", f"建筑面积必须大于零，填写的是“{shown(value)}”")
    if result > 100_000:
        raise Wrong("AREA_TOO_LARGE", f"建筑面积“{shown(value)}”超过 10 万平方米")
    return result


def amount(value: object, what: str, *, places: int = 2) -> Decimal:
    """Money in CNY, never negative."""
    result = number(value, what, units=_MONEY_UNITS, places=places)
    if result < 0:
        raise Wrong("AMOUNT_NEGATIVE", f"{what}不能为负数，填写的是“{shown(value)}”")
    return result


_FLOOR = re.compile(r"第?(-?\d{1,3})(?:层|楼|F)?")
_BASEMENT = re.compile(r"(?:B|负|地下)(\d{1,2})(?:层|楼|F)?")


def floor(value: object) -> int:
    """`9`, `9层`, `9F`, `B1` (= -1). A unit on two floors is registered at its entrance floor."""
    text = code(value, "楼层")
    if match := _BASEMENT.fullmatch(text):
        result = -int(match[1])
    elif match := _FLOOR.fullmatch(text):
        result = int(match[1])
    else:
        raise Wrong("INVALID_FLOOR", f"楼层“{shown(value)}”不是楼层")
    if not -10 <= result <= 200 or result == 0:
        raise Wrong("INVALID_FLOOR", f"楼层“{shown(value)}”不存在")
    return result


_DATE_PATTERNS = (
    re.compile(r"(\d{4})\s?[-./、,年]\s?(\d{1,2})\s?[-./、,月]\s?(\d{1,2})\s?日?(?:[ T]?0{1,2}:00(?::00)?)?"),
    re.compile(r"(\d{4})(\d{2})(\d{2})"),
)
_EXCEL_EPOCH = date(1899, 12, 30)


def day(value: object, what: str, *, earliest: date, latest: date) -> date:
    """A calendar day in any of the ways an office writes it, Excel's day numbers included.

    A two-digit year or a month without a day could mean several days and is refused.
    """
    if isinstance(value, datetime):
        result = value.date()
    elif isinstance(value, date):
        result = value
    else:
        text = plain(value).translate(_DASHES)
        match = next((found for pattern in _DATE_PATTERNS if (found := pattern.fullmatch(text))), None)
        if match is not None:
            try:
                result = date(int(match[1]), int(match[2]), int(match[3]))
            except ValueError:
                raise Wrong("INVALID_DATE", f"{what}“{shown(value)}”不存在这一天") from None
        elif re.fullmatch(r"\d{5}", text) and 10_000 <= int(text) <= 80_000:
            result = _EXCEL_EPOCH + timedelta(days=int(text))
        else:
            raise Wrong("INVALID_DATE", f"{what}“{shown(value)}”不是日期")
    if not earliest <= result <= latest:
        raise Wrong("DATE_OUT_OF_RANGE", f"{what}“{shown(value)}”不在合理范围内（{earliest} 至 {latest}）")
    return result


_MOBILE = re.compile(r"(?:\+86|0086|86)?(1[3-9]\d{9})")
_LANDLINE = re.compile(r"(0(?:10|2\d|[3-9]\d{2}))-?([2-9]\d{6,7})(?:(?:-|转|EXT\.?)(\d{1,6}))?")
_SERVICE_LINE = re.compile(r"[48]00-?\d{3}-?\d{4}|[48]00-?\d{4}-?\d{3}")
_ABROAD = re.compile(r"\+(?!86)[1-9]\d{6,14}")
_BETWEEN_PHONES = re.compile(r"[;,、/|]|或|(?<=\d{11})\s(?=1[3-9]\d{9})")


def phones(value: object, what: str) -> tuple[str, ...]:
    """Telephone numbers of a cell, the first one first: `13924743394`, `028-85551234`, `028-85551234-801`, `+85291234567`.

    Two numbers in one cell are common (`13900000000/028-85551234`); one wrong one makes the cell wrong.
    """
    if isinstance(value, (datetime, date)):
        raise Wrong("INVALID_PHONE", f"{what}“{shown(value)}”不是电话号码")
    parts = [part.strip() for part in _BETWEEN_PHONES.split(plain(value).translate(_DASHES)) if part.strip()]
    if not parts:
        raise Wrong("INVALID_PHONE", f"{what}“{shown(value)}”不是电话号码")
    return tuple(dict.fromkeys(_phone(part, value, what) for part in parts))


def _phone(part: str, value: object, what: str) -> str:
    text = re.sub(r"[\s().]", "", part).upper()
    digits = text.replace("-", "")
    if match := _MOBILE.fullmatch(digits):
        return match[1]
    text = re.sub(r"^(?:\+86|0086)-?(?!0)", "0", text)  # +86-28-85551234 is 028-85551234
    if match := _LANDLINE.fullmatch(text):
        return f"{match[1]}-{match[2]}" + (f"-{match[3]}" if match[3] else "")
    if _SERVICE_LINE.fullmatch(text) or _ABROAD.fullmatch(digits):
        return digits
    if re.fullmatch(r"1\d*", digits) and len(digits) != 11:
        raise Wrong("INVALID_PHONE", f"{what}“{shown(value)}”有 {len(digits)} 位，手机号应为 11 位")
    raise Wrong("INVALID_PHONE", f"{what}“{shown(value)}”不是电话号码")


def masked_phone(phone: str) -> str:
    """`139****6666`; numbers of other shapes keep their first three and last four characters (DESIGN: phones are masked)."""
    if len(phone) <= 7:
        return "*" * len(phone)
    return phone[:3] + "*" * (len(phone) - 7) + phone[-4:]


def masked_name(name: str) -> str:
    """`张*`, `欧**`; of long names, companies' mostly, the first two characters: `成都***`."""
    return name[:1] + "*" * (len(name) - 1) if len(name) <= 4 else name[:2] + "***"


_CITIZEN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CREDIT_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)


def citizen_check_digit(first17: str) -> str:
    """The eighteenth character of an identity number (GB 11643, ISO 7064 MOD 11-2)."""
    return "10X98765432"[sum(int(digit) * weight for digit, weight in zip(first17, _CITIZEN_WEIGHTS, strict=True)) % 11]


def credit_check_character(first17: str) -> str:
    """The eighteenth character of a unified social credit code (GB 32100)."""
    total = sum(_CREDIT_ALPHABET.index(character) * weight for character, weight in zip(first17, _CREDIT_WEIGHTS, strict=True))
    return _CREDIT_ALPHABET[-total % 31]


# Papers of people without an identity number: passports, travel permits of Hong Kong, Macao and Taiwan (letter or two,
# then digits), and the former foreigners' permanent residence card (three letters, twelve digits).
_OTHER_PAPERS = re.compile(r"[A-Z]{1,2}\d{7,9}|[A-Z]{3}\d{12}")
_TOO_LONG_FOR_EXCEL = 10**15  # Excel keeps 15 digits of a number


def citizen_identity(value: object, what: str, *, today: date) -> str:
    """An identity number in its 18-character form, or the number of another identity paper.

    A 15-digit number (before 1999) is raised to 18 characters, so that both forms are found as one person.
    """
    _refuse_digits_lost_by_excel(value, what)
    text = code(value, what)
    if re.fullmatch(r"\d{15}", text):
        first17 = f"{text[:6]}19{text[6:]}"
        text = first17 + citizen_check_digit(first17)
    if re.fullmatch(r"\d{17}[\dX]", text):
        if citizen_check_digit(text[:17]) != text[17]:
            raise Wrong("IDENTITY_CHECKSUM", f"{what}“{shown(value)}”校验码不符，请核对证件原件")
        if _birthday_in(text, today) is None:
            raise Wrong("INVALID_IDENTITY", f"{what}“{shown(value)}”中的出生日期不存在")
        return text
    if _OTHER_PAPERS.fullmatch(text):
        return text
    raise Wrong("INVALID_IDENTITY", f"{what}“{shown(value)}”不是有效的证件号码（身份证应为 18 位，现为 {len(text)} 位）")


def company_identity(value: object, what: str) -> str:
    """A unified social credit code, or the 15-digit registration number that licences carried before 2015."""
    _refuse_digits_lost_by_excel(value, what)
    text = code(value, what)
    if re.fullmatch(r"\d{15}", text):
        return text
    if not re.fullmatch(f"[{_CREDIT_ALPHABET}]{{18}}", text):
        raise Wrong("INVALID_CREDIT_CODE", f"{what}“{shown(value)}”不是统一社会信用代码（应为 18 位，不含 I、O、S、V、Z）")
    if credit_check_character(text[:17]) != text[17]:
        raise Wrong("CREDIT_CODE_CHECKSUM", f"{what}“{shown(value)}”校验码不符，请核对营业执照")
    return text


def _refuse_digits_lost_by_excel(value: object, what: str) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) >= _TOO_LONG_FOR_EXCEL:
        raise Wrong("DIGITS_LOST", f"{what}被存成了数字，Excel 只保留前 15 位，请将单元格设为文本后重新填写")


def _birthday_in(identity: str, today: date) -> date | None:
    try:
        birthday = date(int(identity[6:10]), int(identity[10:12]), int(identity[12:14]))
    except ValueError:
        return None
    return birthday if date(1880, 1, 1) <= birthday <= today else None


def birthday_of(identity: str) -> date | None:
    """Birthday that an 18-character identity number holds; None for other papers."""
    return _birthday_in(identity, date.max) if re.fullmatch(r"\d{17}[\dX]", identity) else None


_JOINT = frozenset(("共同共有", "共有", "共同所有"))


def share(value: object) -> Decimal | None:
    """Share of the ownership in per cent, NUMERIC(7,4). None: owned jointly without shares (共同共有, Civil Code 299).

    Excel keeps `50%` as 0.5: a number up to 1 is a fraction, a larger one is per cent.
    """
    if isinstance(value, str) and plain(value).replace(" ", "") in _JOINT:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        result = Decimal(repr(value)) * (100 if abs(value) <= 1 else 1)
    else:
        text = plain(value).replace(" ", "")
        if match := re.fullmatch(r"(\d{1,4})/(\d{1,4})", text):
            if int(match[2]) == 0:
                raise Wrong("INVALID_SHARE", f"产权份额“{shown(value)}”不是份额")
            result = Decimal(100) * int(match[1]) / int(match[2])
        elif match := re.fullmatch(r"([+-]?\d+(?:\.\d+)?)%", text):
            result = Decimal(match[1])
        elif re.fullmatch(r"[+-]?\d+(?:\.\d+)?", text):
            result = Decimal(text) * (100 if abs(Decimal(text)) <= 1 else 1)
        else:
            raise Wrong("INVALID_SHARE", f"产权份额“{shown(value)}”不是份额")
    if not 0 < result <= 100:
        raise Wrong("SHARE_OUT_OF_RANGE", f"产权份额“{shown(value)}”应大于 0 且不超过 100%")
    return result.quantize(Decimal("0.0001"), ROUND_HALF_UP)


_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE = re.compile(
    rf"[{_PROVINCES}][A-Z](?:[A-HJ-NP-Z0-9]{{4}}[A-HJ-NP-Z0-9挂学警港澳领试超]|[A-HJ-NP-Z0-9]{{6}})"  # 8 characters: new energy
    rf"|[使领]\d{{6}}|\d{{6}}[使领]|WJ[{_PROVINCES}]?[A-Z0-9]{{5}}|[A-Z]{{2}}\d{{5}}"  # embassies, armed police, forces
)


def plate(value: object) -> str:
    """A number plate without the dot, the spaces and the dashes people put in: 川A·12345 is 川A12345."""
    text = re.sub(r"[-·•・.。]", "", code(value, "车牌号"))
    if not _PLATE.fullmatch(text):
        raise Wrong("INVALID_PLATE", f"车牌号“{shown(value)}”不符合车牌格式")
    return text


_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{1,62}")


def mail(value: object) -> str:
    """An e-mail address, in lower case (RFC 5321 without quoted local parts)."""
    text = plain(value).replace(" ", "").lower()
    if len(text) > 254 or not _MAIL.fullmatch(text):
        raise Wrong("INVALID_EMAIL", f"邮箱“{shown(value)}”不是邮箱地址")
    return text


def marks(value: object, what: str) -> tuple[str, ...]:
    """Several short words in one cell: `VIP、独居老人`."""
    return tuple(dict.fromkeys(words(part, what, limit=20) for part in re.split(r"[;,、/|]", plain(value)) if part.strip()))
