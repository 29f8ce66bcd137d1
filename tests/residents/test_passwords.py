"""What a password may be (NIST SP 800-63B), and how it is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import argon2
import pytest

from services.chassis.errors import InvalidInput, Unavailable
from services.residents import passwords

OWN = ("TFHY-003", "欧阳明远", "13900001111")


def why(password: str) -> str:
    """What is wrong with a password; empty when nothing is."""
    try:
        passwords.refuse_weak(password, OWN, "new_password")
    except InvalidInput as refused:
        assert (refused.reason, refused.violations[0].field) == ("WEAK_PASSWORD", "new_password")
        return refused.violations[0].description
    return ""


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "今天小区门口的桂花开了",
        "🐼🐼 eats 竹子 🎋🎋",
        "lowercase only",
        "20260314159",
        "TFHY-003 walks the dog",
        "欧阳明远家的猫叫汤圆",
        "x" * 4 + "-nine-lives",
        "a" * 120 + "b" * 136,
    ],
)
def test_any_long_password_will_do_whatever_it_is_made_of(password: str) -> None:
    assert why(password) == ""


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("123456789", "at least 10"),
        ("九个汉字还不够长啊", "at least 10"),
        ("🐼" * 9, "at least 10"),
        ("password123", "most common"),
        ("Woaini1314520", "most common"),
        ("Admin@123456", "most common"),
        ("1qaz2wsx3edc", "most common"),
        ("１ｑａｚ２ｗｓｘ３ｅｄｃ", "most common"),
        ("pass-word-123", "most common"),
        ("aaaaaaaaaaaa", "sequence"),
        ("13131313131313", "sequence"),
        ("天府天府天府天府天府", "sequence"),
        ("1234567890123", "sequence"),
        ("zyxwvutsrqpo", "sequence"),
        ("abcdefghijkl", "sequence"),
        ("----------", "sequence"),
        ("TFHY-003-2026", "your own"),
        ("tfhy003tfhy003", "your own"),
        ("欧阳明远13900001111", "your own"),
        ("13900001111", "your own"),
    ],
)
def test_short_common_sequential_and_own_ones_are_refused_with_the_reason(password: str, says: str) -> None:
    assert says in why(password)


def test_ten_characters_are_enough_and_nine_are_not() -> None:
    assert why("qx7 mbz4 t") == ""
    assert "at least 10" in why("qx7 mbz4t")


def test_the_list_of_common_ones_holds_none_that_another_rule_refuses_first() -> None:
    listed = [line for line in passwords.COMMON.read_text().splitlines() if not line.startswith("# ")]
    assert len(listed) > 1000
    assert [line for line in listed if "most common" not in why(line)] == []


def test_full_width_and_composed_letters_open_the_same_door() -> None:
    stored = passwords.hashed("Ｃａｆé 二〇二六 号院")
    assert passwords.fits(stored, "Cafe\u0301 二〇二六 号院")
    assert not passwords.fits(stored, "Cafe 二〇二六 号院")
    assert not passwords.fits(stored, "café 二〇二六 号院"), "case counts"


def test_nobodys_password_fits_nothing_and_a_damaged_hash_is_no_password() -> None:
    assert not passwords.fits(None, "correct horse battery staple")
    assert not passwords.fits("not a hash", "correct horse battery staple")


def test_a_hash_says_when_it_was_made_with_other_parameters() -> None:
    assert not passwords.is_outdated(passwords.hashed("correct horse"))
    assert passwords.is_outdated(argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse"))


def test_temporary_passwords_are_never_the_same_and_never_weak() -> None:
    made = {passwords.temporary() for _ in range(200)}
    assert len(made) == 200
    assert {why(password) for password in made} == {""}
    assert set("".join(made)) <= set(passwords.READABLE) | {"-"}


def test_a_burst_of_sign_ins_takes_only_so_much_memory_at_once() -> None:
    stored = passwords.hashed("correct horse")

    def sign_in(_: int) -> str:
        try:
            return str(passwords.fits(stored, "correct horse"))
        except Unavailable as busy:
            return busy.reason

    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(sign_in, range(24)))
    assert set(answers) == {"True", "BUSY"}
    assert answers.count("True") >= passwords.AT_ONCE
    assert passwords.fits(stored, "correct horse"), "every place was given back"
