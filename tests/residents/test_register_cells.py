"""What one cell may hold: cleaned without a word, or refused for a stable reason."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.residents import register_cells as cell
from services.residents.register_cells import NotCalculated, Wrong
from tests.residents.workbooks import day, wide

TODAY = date(2026, 11, 22)


def reason(rule: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(Wrong) as refused:
        rule(*arguments, **named)
    assert refused.value.message, "every refusal has a sentence for people"
    return refused.value.reason


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("13924743394", "13924743394"),
        (13924743394, "13924743394"),
        (13924743394.0, "13924743394"),
        (" 139-2474-3394", "13924743394"),
        ("139 2474 3394", "13924743394"),
        (wide("139-2474 3394"), "13924743394"),
        ("139—2474—3394", "13924743394"),
        ("+86 139 2474 3394", "13924743394"),
        ("86-13924743394", "13924743394"),
        ("0086 13924743394", "13924743394"),
        ("\u200b13924743394", "13924743394"),
        ("028-85551234", "028-85551234"),
        ("(028)85551234", "028-85551234"),
        ("02885551234", "028-85551234"),
        ("0591-87654321-801", "0591-87654321-801"),
        ("028-85551234转801", "028-85551234-801"),
        ("400-800-1234", "4008001234"),
        ("+852 9123 4567", "+85291234567"),
        ("+86-28-85551234", "028-85551234"),
    ],
)
def test_a_telephone_is_cleaned(written: object, meant: str) -> None:
    assert cell.phones(written, "手机号") == (meant,)


def test_two_telephones_in_a_cell_are_both_kept() -> None:
    assert cell.phones("13924743394 / 028-85551234", "手机号") == ("13924743394", "028-85551234")
    assert cell.phones("13924743394、13924743395", "手机号") == ("13924743394", "13924743395")
    assert cell.phones("13924743394 13924743395", "手机号") == ("13924743394", "13924743395")
    assert cell.phones("13924743394;13924743394", "手机号") == ("13924743394",)


@pytest.mark.parametrize(
    "written", ["12345", "1390963106", "139247433941", "12924743394", "电话", "0285555", "13924743394/12345", day("2020-01-01")]
)
def test_what_is_no_telephone_is_refused(written: object) -> None:
    assert reason(cell.phones, written, "手机号") == "INVALID_PHONE"


@pytest.mark.parametrize(
    ("phone", "masked"),
    [("13924743394", "139****3394"), ("028-85551234", "028*****1234"), ("12345", "*****"), ("4008001234", "400***1234")],
)
def test_a_masked_telephone_keeps_its_ends(phone: str, masked: str) -> None:
    assert cell.masked_phone(phone) == masked


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (day("2023-08-29"), date(2023, 8, 29)),
        (date(2023, 8, 29), date(2023, 8, 29)),
        ("2023.08.29", date(2023, 8, 29)),
        ("2023.8.29", date(2023, 8, 29)),
        ("2023-08-29", date(2023, 8, 29)),
        ("2023—8—29", date(2023, 8, 29)),
        ("2023/8/29", date(2023, 8, 29)),
        ("2023年8月29日", date(2023, 8, 29)),
        ("2023年 8月 29日", date(2023, 8, 29)),
        (wide("2023年8月29日"), date(2023, 8, 29)),
        (wide("2023-8-29"), date(2023, 8, 29)),
        ("2023、8、29", date(2023, 8, 29)),
        ("2023-08-29 00:00:00", date(2023, 8, 29)),
        ("20230829", date(2023, 8, 29)),
        (20230829, date(2023, 8, 29)),
        (45167, date(2023, 8, 29)),  # Excel's day number in a cell that lost its format
        (45167.0, date(2023, 8, 29)),
        ("45167", date(2023, 8, 29)),
    ],
)
def test_a_day_is_read_in_every_form(written: object, meant: date) -> None:
    assert cell.day(written, "入伙日期", earliest=date(1950, 1, 1), latest=TODAY) == meant


@pytest.mark.parametrize(
    "written", ["待定", "1985年13月40日", "2023.02.29", "2023年8月", "23.8.29", "8/29/2023", "明天", 12, "2023.08.29左右"]
)
def test_what_is_no_day_is_refused(written: object) -> None:
    assert reason(cell.day, written, "生日", earliest=date(1900, 1, 1), latest=TODAY) == "INVALID_DATE"


def test_a_day_must_lie_in_the_range() -> None:
    assert cell.day(TODAY, "生日", earliest=date(1900, 1, 1), latest=TODAY) == TODAY
    assert reason(cell.day, TODAY + timedelta(days=1), "生日", earliest=date(1900, 1, 1), latest=TODAY) == "DATE_OUT_OF_RANGE"
    assert reason(cell.day, "1899-12-31", "生日", earliest=date(1900, 1, 1), latest=TODAY) == "DATE_OUT_OF_RANGE"


@given(st.dates(date(1950, 1, 1), TODAY), st.sampled_from(["%Y.%m.%d", "%Y-%m-%d", "%Y/%m/%d", "%Y年%m月%d日", "%Y%m%d"]))
def test_every_day_survives_every_form(meant: date, form: str) -> None:
    assert cell.day(meant.strftime(form), "入伙日期", earliest=date(1950, 1, 1), latest=TODAY) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (129.6, "129.60"),
        (138, "138.00"),
        ("128.52㎡", "128.52"),
        ("128.52 m²", "128.52"),
        ("128.52平方米", "128.52"),
        (wide("128.52"), "128.52"),
        ("1,280.5", "1280.50"),
        (0.1 + 0.2, "0.30"),
        (128.525, "128.53"),
    ],
)
def test_an_area_is_cleaned(written: object, meant: str) -> None:
    assert cell.area(written) == Decimal(meant)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (-153.83, "AREA_NOT_POSITIVE"),
        ("-89.42㎡", "AREA_NOT_POSITIVE"),
        (0, "AREA_NOT_POSITIVE"),
        (0.004, "AREA_NOT_POSITIVE"),
        (100_000.01, "AREA_TOO_LARGE"),
        (1e15, "NUMBER_TOO_LARGE"),
        ("约120", "NOT_A_NUMBER"),
        ("12,80", "NOT_A_NUMBER"),
        ("120元", "NOT_A_NUMBER"),
        (day("2026-01-01"), "NOT_A_NUMBER"),
        ("#REF!", "CELL_ERROR"),
        (NotCalculated("=F3*2"), "FORMULA_NOT_CALCULATED"),
    ],
)
def test_a_wrong_area_is_refused(written: object, why: str) -> None:
    assert reason(cell.area, written) == why


@pytest.mark.parametrize(
    ("written", "meant"), [(2.8, "2.8000"), ("2.8元/㎡", "2.8000"), ("¥4.50", "4.5000"), (0, "0.0000"), ("18元/平方米/月", "18.0000")]
)
def test_a_fee_is_cleaned(written: object, meant: str) -> None:
    assert cell.amount(written, "物业费单价", places=4) == Decimal(meant)


def test_a_fee_is_never_negative() -> None:
    assert reason(cell.amount, -0.01, "月费") == "AMOUNT_NEGATIVE"


@pytest.mark.parametrize(
    ("written", "meant"),
    [(9, 9), ("9层", 9), ("11 层", 11), ("9F", 9), ("第3层", 3), (wide("9"), 9), ("B1", -1), ("-2", -2), ("地下2层", -2)],
)
def test_a_floor_is_cleaned(written: object, meant: int) -> None:
    assert cell.floor(written) == meant


@pytest.mark.parametrize("written", [0, 201, -11, "顶层", "11-12", 3.5])
def test_a_floor_that_cannot_be_is_refused(written: object) -> None:
    assert reason(cell.floor, written) == "INVALID_FLOOR"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("  余军平 ", "余军平"),
        ("张 三", "张三"),
        ("张\u3000三", "张三"),
        ("𬭎伟", "𬭎伟"),
        ("𬭎 伟", "𬭎伟"),
        ("㛃雨", "㛃雨"),
        ("司马长风", "司马长风"),
        ("Smith  John", "Smith John"),
        (wide("Smith John"), "Smith John"),
        ("阿卜杜拉·买买提", "阿卜杜拉·买买提"),
        ("中建\uff08成都\uff09有限公司", "中建\uff08成都\uff09有限公司"),
        ("张三\u200b", "张三"),
        ("\uf900", "\u8c48"),
    ],
)
def test_a_name_is_cleaned_and_rare_characters_stay(written: str, meant: str) -> None:
    assert cell.name(written, "业主姓名") == meant


@pytest.mark.parametrize("written", ["123", "---", "12:30", 42, day("2020-01-01"), True])
def test_what_is_no_name_is_refused(written: object) -> None:
    assert reason(cell.name, written, "业主姓名") == "INVALID_NAME"


def test_a_name_has_a_length() -> None:
    assert reason(cell.name, "名" * 101, "业主姓名") == "TEXT_TOO_LONG"


@pytest.mark.parametrize("written", [None, "", "  ", "无", "/", "-", "—", "待定", "N/A", "\u3000"])
def test_the_ways_to_say_nothing(written: object) -> None:
    assert cell.is_empty(written)
    assert reason(cell.required, written, "业主姓名") == "VALUE_MISSING"


def test_an_uncalculated_formula_is_not_nothing() -> None:
    assert not cell.is_empty(NotCalculated("=A1"))


def test_identity_numbers_are_checked_by_their_last_character() -> None:
    assert cell.citizen_identity("11010519491231002X", "证件号码", today=TODAY) == "11010519491231002X"  # the example of GB 11643
    assert cell.citizen_identity(wide(" 110105 19491231 002x "), "证件号码", today=TODAY) == "11010519491231002X"
    assert reason(cell.citizen_identity, "110105194912310021", "证件号码", today=TODAY) == "IDENTITY_CHECKSUM"


@given(st.integers(0, 10**17 - 1), st.integers(0, 17), st.integers(1, 9))
def test_any_single_wrong_digit_breaks_the_checksum(number: int, place: int, by: int) -> None:
    first17 = f"{number:017d}"
    whole = first17 + cell.citizen_check_digit(first17)
    if place == 17 or not whole[place].isdigit():
        return
    broken = whole[:place] + str((int(whole[place]) + by) % 10) + whole[place + 1 :]
    assert cell.citizen_check_digit(broken[:17]) != broken[17]


def test_a_fifteen_digit_number_becomes_the_eighteen_digit_one_of_the_same_person() -> None:
    assert cell.citizen_identity("110105491231002", "证件号码", today=TODAY) == "11010519491231002X"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("51010419731340543", "INVALID_IDENTITY"),
        ("abc", "INVALID_IDENTITY"),
        (510104200004134442, "DIGITS_LOST"),
        (5.10104200004134e17, "DIGITS_LOST"),
        (day("2000-01-01"), "TURNED_INTO_DATE"),
    ],
)
def test_a_wrong_identity_number_is_refused(written: object, why: str) -> None:
    assert reason(cell.citizen_identity, written, "证件号码", today=TODAY) == why


def test_an_identity_number_with_an_impossible_birthday_is_refused() -> None:
    for born in ("19851340", "20270101", "17000101"):
        first17 = f"510104{born}001"
        assert reason(cell.citizen_identity, first17 + cell.citizen_check_digit(first17), "证件号码", today=TODAY) == "INVALID_IDENTITY"


@pytest.mark.parametrize("written", ["E12345678", "H12345678", "M12345678", "G12345678", "USA123456789012"])
def test_passports_and_permits_are_identity_papers(written: str) -> None:
    assert cell.citizen_identity(written, "证件号码", today=TODAY) == written


def test_credit_codes_are_checked_by_their_last_character() -> None:
    assert cell.company_identity("91350100M000100Y43", "证件号码") == "91350100M000100Y43"  # the example of GB 32100
    assert cell.company_identity(" 91350100m000100y43 ", "证件号码") == "91350100M000100Y43"
    assert cell.company_identity("510100000012345", "证件号码") == "510100000012345"
    assert reason(cell.company_identity, "91350100M000100Y44", "证件号码") == "CREDIT_CODE_CHECKSUM"
    assert reason(cell.company_identity, "91350100I000100Y43", "证件号码") == "INVALID_CREDIT_CODE"
    assert reason(cell.company_identity, "9135", "证件号码") == "INVALID_CREDIT_CODE"


def test_a_birthday_is_read_from_the_identity_number() -> None:
    assert cell.birthday_of("11010519491231002X") == date(1949, 12, 31)
    assert cell.birthday_of("E12345678") is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("50%", "50"),
        (wide("50%"), "50"),
        (0.5, "50"),
        (1, "100"),
        (1.0, "100"),
        (50, "50"),
        ("50", "50"),
        ("0.5", "50"),
        ("1/3", "33.3333"),
        ("33.3333 %", "33.3333"),
        ("100%", "100"),
    ],
)
def test_a_share_is_cleaned(written: object, meant: str) -> None:
    assert cell.share(written) == Decimal(meant).quantize(Decimal("0.0001"))


def test_joint_ownership_has_no_share() -> None:
    assert cell.share("共同共有") is None


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("120%", "SHARE_OUT_OF_RANGE"),
        (0, "SHARE_OUT_OF_RANGE"),
        (-0.5, "SHARE_OUT_OF_RANGE"),
        (101, "SHARE_OUT_OF_RANGE"),
        ("3/2", "SHARE_OUT_OF_RANGE"),
        ("一半", "INVALID_SHARE"),
        ("1/0", "INVALID_SHARE"),
    ],
)
def test_a_wrong_share_is_refused(written: object, why: str) -> None:
    assert reason(cell.share, written) == why


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("川A12345", "川A12345"),
        ("川A·12345", "川A12345"),
        ("川a 123-45", "川A12345"),
        (wide("川A12345"), "川A12345"),
        ("川AD12345", "川AD12345"),
        ("闽CG69EG5", "闽CG69EG5"),
        ("粤B1234学", "粤B1234学"),
        ("粤Z1234港", "粤Z1234港"),
    ],
)
def test_a_plate_is_cleaned(written: str, meant: str) -> None:
    assert cell.plate(written) == meant


@pytest.mark.parametrize("written", ["A12345", "川12345", "川A1234", "川A123456X", "川AI2345", "无牌", "川A1234O"])
def test_a_wrong_plate_is_refused(written: str) -> None:
    assert reason(cell.plate, written) == "INVALID_PLATE"


def test_mail_addresses() -> None:
    assert cell.mail(" TFHY001@Wanhe.example ") == "tfhy001@wanhe.example"
    for wrong in ("tfhy001", "tfhy001@", "@wanhe.example", "a@b", "a b@@c.example", "a@-b.example"):
        assert reason(cell.mail, wrong) == "INVALID_EMAIL"


def test_a_unit_number_that_excel_made_a_date_is_refused() -> None:
    assert reason(cell.code, day("2026-01-01"), "房号") == "TURNED_INTO_DATE"
    assert cell.code(wide("1-1-0101"), "房号") == "1-1-0101"
    assert cell.code(" 1 – 1 — 0101 ", "房号") == "1-1-0101"
    assert cell.code(101.0, "房号") == "101"


@given(st.text(max_size=60) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.datetimes() | st.booleans() | st.none())
def test_no_cell_breaks_a_rule(value: object) -> None:
    """Whatever stands in a cell, a rule gives a value or says Wrong."""
    rules = [
        cell.area, cell.share, cell.plate, cell.mail, cell.floor, lambda v: cell.name(v, "x"), lambda v: cell.phones(v, "x"),
        lambda v: cell.code(v, "x"), lambda v: cell.citizen_identity(v, "x", today=TODAY), lambda v: cell.company_identity(v, "x"),
        lambda v: cell.day(v, "x", earliest=date(1900, 1, 1), latest=TODAY), lambda v: cell.amount(v, "x"), lambda v: cell.marks(v, "x"),
        lambda v: cell.choice(v, "x", {"是": True}, "NO"), cell.is_empty, cell.shown,
    ]  # fmt: skip
    for rule in rules:
        try:
            rule(value)
        except Wrong as wrong:
            said = (wrong.reason.isupper(), bool(wrong.message))
        else:
            said = (True, True)
        assert said == (True, True)


@given(st.text(max_size=40))
def test_cleaning_a_clean_name_changes_nothing(text: str) -> None:
    try:
        once = cell.name(text, "x")
    except Wrong:
        return
    assert cell.name(once, "x") == once
