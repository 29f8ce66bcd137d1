"""Signing in by number and password, changing it, and being given another."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import argon2
import pytest

from services.chassis import access
from services.chassis.access import Grant, Principal
from services.chassis.db import Database
from services.chassis.testing import INTERNAL, Caller, Refused, a_tree, published
from services.residents import accounts, passwords, set_password
from tests.residents.doors import PASSWORD, Doors, in_production, nobodys_number
from tests.rostered import absence, arrive, post

NEW = "correct horse battery staple"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a hash costs is not what these tests are about (test_passwords.py), and they make hundreds."""
    monkeypatch.setattr(passwords, "_hasher", argon2.PasswordHasher(time_cost=2, memory_cost=64, parallelism=1))
    passwords._nobodys.cache_clear()
    yield
    passwords._nobodys.cache_clear()


# --- signing in ---------------------------------------------------------------------------------------------------------


def test_staff_sign_in_by_number_and_password_and_hold_what_their_posts_give(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    session = doors.sign_in(f" {number.lower()} ", PASSWORD)
    assert (session.expires_in, session.password_change_required) == (900, False)
    who = doors.principal(session.access_token)
    assert (str(who), who.grants, who.temporary) == (doors.tree.technician.name, doors.tree.technician.grants, False)
    me = doors.call(doors.identity(session.access_token), "GetMe")
    assert (me.staff_number, me.display_name, me.password_change_required) == (number, "钟明远", False)


def test_a_wrong_password_an_unknown_number_and_somebody_who_has_left_look_the_same(doors: Doors) -> None:
    number, left = doors.enrolled("TECHNICIAN", PASSWORD), doors.enrolled("SECURITY_GUARD", PASSWORD)
    doors.sql("UPDATE staff SET state = 'LEFT' WHERE number = %s", (left,))
    refusals = [doors.not_signed_in(*pair) for pair in ((number, NEW), (nobodys_number(), NEW), (left, PASSWORD))]
    assert {(r.http, r.reason, r.message) for r in refusals} == {(401, "BAD_CREDENTIALS", "number or password is wrong")}


def test_the_demo_password_opens_nothing_in_production_and_nothing_that_has_a_password_of_its_own(doors: Doors) -> None:
    demo = "Demo-2026-steward"
    with_own, without = doors.enrolled("TECHNICIAN", PASSWORD), doors.enrolled("SECURITY_GUARD")
    assert doors.sign_in(without, demo).access_token
    assert doors.not_signed_in(with_own, demo).reason == "BAD_CREDENTIALS"
    with in_production():
        assert doors.not_signed_in(without, demo).reason == "BAD_CREDENTIALS"
        assert doors.not_signed_in(without, "anything else").reason == "BAD_CREDENTIALS"
        assert doors.sign_in(with_own, PASSWORD).access_token


def test_after_five_failures_the_account_waits_for_a_quarter_of_an_hour_even_with_the_right_password(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    for _ in range(5):
        assert doors.not_signed_in(number, NEW).reason == "BAD_CREDENTIALS"
    locked = doors.not_signed_in(number, PASSWORD)
    assert (locked.http, locked.reason, locked.retry_after) == (429, "TOO_MANY_ATTEMPTS", 900)
    doors.sql("UPDATE failed_sign_ins SET at = at - interval '14 minutes 50 seconds' WHERE key = %s", (f"number:{number}",))
    assert doors.not_signed_in(number, PASSWORD).reason == "TOO_MANY_ATTEMPTS"
    doors.sql("UPDATE failed_sign_ins SET at = at - interval '10 seconds' WHERE key = %s", (f"number:{number}",))
    assert doors.sign_in(number, PASSWORD).access_token


def test_signing_in_forgets_the_failures_before_it(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    for _ in range(2):
        for _ in range(4):
            doors.not_signed_in(number, NEW)
        assert doors.sign_in(number, PASSWORD).access_token


def test_unknown_numbers_are_locked_like_known_ones(doors: Doors) -> None:
    number = nobodys_number()
    assert [doors.not_signed_in(number, NEW).reason for _ in range(6)] == ["BAD_CREDENTIALS"] * 5 + ["TOO_MANY_ATTEMPTS"]


def test_an_old_hash_is_made_anew_when_somebody_signs_in(doors: Doors) -> None:
    number, who = doors.enrolled("TECHNICIAN", PASSWORD), doors.tree.technician.name
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(passwords.normalised(PASSWORD))
    doors.sql("UPDATE accounts SET password_hash = %s WHERE principal = %s", (weak, who))
    doors.not_signed_in(number, NEW)
    assert doors.sql("SELECT password_hash FROM accounts WHERE principal = %s", (who,)) == [(weak,)]
    doors.sign_in(number, PASSWORD)
    (again,) = doors.sql("SELECT password_hash FROM accounts WHERE principal = %s", (who,))[0]
    assert again != weak
    assert not passwords.is_outdated(again)
    assert doors.sign_in(number, PASSWORD).access_token


def test_many_sign_in_at_once_on_the_connections_of_one_process(doors: Doors) -> None:
    """Each holds one connection, not two: with two, as many as there are would wait for each other until they fail."""
    number = doors.enrolled("TECHNICIAN", PASSWORD)

    def sign_in(_: int) -> str:
        try:
            return "in" if doors.sign_in(number, PASSWORD).access_token else ""
        except Refused as refused:
            return f"{refused.http} {refused.reason}"

    with ThreadPoolExecutor(32) as threads:
        answers = set(threads.map(sign_in, range(64)))
    assert answers <= {"in", "503 BUSY"}
    assert "in" in answers
    assert doors.sign_in(number, PASSWORD).access_token


# --- one's own password -------------------------------------------------------------------------------------------------


def changed(doors: Doors, access_token: str, old: str, new: str) -> str:
    """The reason why a change was refused; empty when it was not."""
    try:
        doors.call(doors.identity(access_token), "SetPassword", old_password=old, new_password=new)
    except Refused as refused:
        return refused.reason
    return ""


def test_a_changed_password_ends_every_session_and_gives_a_new_one(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    here, elsewhere = doors.sign_in(number, PASSWORD), doors.sign_in(number, PASSWORD)
    session = doors.call(doors.identity(here.access_token), "SetPassword", old_password=PASSWORD, new_password=NEW)
    assert doors.ended(here.access_token)
    assert doors.ended(elsewhere.access_token)
    assert doors.refused(INTERNAL, "RefreshSession", refresh_token=elsewhere.refresh_token).reason == "SESSION_ENDED"
    assert doors.principal(session.access_token).grants == doors.tree.technician.grants
    assert doors.call(INTERNAL, "RefreshSession", refresh_token=session.refresh_token).access_token
    assert doors.not_signed_in(number, PASSWORD).reason == "BAD_CREDENTIALS"
    assert doors.sign_in(number, NEW).access_token
    told = doors.sql("SELECT action, actor FROM password_changes WHERE principal = %s ORDER BY at", (doors.tree.technician.name,))
    assert told[-1] == ("CHANGED", doors.tree.technician.name)


def test_the_old_password_must_be_right_and_failures_count_as_those_of_signing_in(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    session = doors.sign_in(number, PASSWORD)
    wrong = doors.refused(doors.identity(session.access_token), "SetPassword", old_password="wrong", new_password=NEW)  # noqa: S106
    assert (wrong.http, wrong.reason, wrong.fields) == (400, "WRONG_PASSWORD", {"old_password"})
    for _ in range(4):
        assert changed(doors, session.access_token, "wrong", NEW) == "WRONG_PASSWORD"
    assert changed(doors, session.access_token, PASSWORD, NEW) == "TOO_MANY_ATTEMPTS"
    assert doors.not_signed_in(number, PASSWORD).reason == "TOO_MANY_ATTEMPTS"
    assert not doors.ended(session.access_token), "who is signed in stays so"


@pytest.mark.parametrize(
    ("new", "reason", "field"),
    [
        ("short", "WEAK_PASSWORD", "new_password"),
        ("password123", "WEAK_PASSWORD", "new_password"),
        ("钟明远13900001111", "WEAK_PASSWORD", "new_password"),
        (PASSWORD, "SAME_PASSWORD", "new_password"),
        ("云上的 ３ 只白鹭", "SAME_PASSWORD", "new_password"),
        ("x" * 257, "INVALID_INPUT", "new_password"),
        ("", "INVALID_INPUT", "new_password"),
        ("with NUL \0 in it", "INVALID_INPUT", "new_password"),
    ],
)
def test_a_password_that_will_not_do_is_refused_and_changes_nothing(doors: Doors, new: str, reason: str, field: str) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    session = doors.sign_in(number, PASSWORD)
    refusal = doors.refused(doors.identity(session.access_token), "SetPassword", old_password=PASSWORD, new_password=new)
    assert (refusal.http, refusal.reason, refusal.fields) == (400, reason, {field})
    assert not doors.ended(session.access_token)
    assert doors.sign_in(number, PASSWORD).access_token


def test_a_password_of_256_ideographs_is_taken(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    long = "雨打芭蕉落闲庭𬭎㛃🐼" * 25 + "尾声六字余韵"
    assert len(long) == 256
    assert changed(doors, doors.sign_in(number, PASSWORD).access_token, PASSWORD, long) == ""
    assert doors.sign_in(number, long).access_token
    assert doors.not_signed_in(number, long[:-1]).reason == "BAD_CREDENTIALS"


def test_residents_have_no_password_to_change(doors: Doors) -> None:
    refusal = doors.refused(doors.tree.owner, "SetPassword", old_password="x", new_password=NEW)  # noqa: S106
    assert (refusal.http, refusal.reason) == (409, "NO_PASSWORD")


def test_of_two_changes_at_once_one_wins_and_the_other_hears_that_its_old_password_is_none(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN", PASSWORD)
    identity = doors.identity(doors.sign_in(number, PASSWORD).access_token)

    def change(new: str) -> str:
        try:
            return str(bool(doors.call(identity, "SetPassword", old_password=PASSWORD, new_password=new).access_token))
        except Refused as refused:
            return refused.reason

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(change, [NEW, NEW + "!"])) in (["True", "WRONG_PASSWORD"], ["LOCKED", "True"])


def test_a_sign_in_with_the_old_password_does_not_outlive_its_change(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has read the old hash when the password changes, and would open its session after the others have ended."""
    number, fits = doors.enrolled("TECHNICIAN", PASSWORD), passwords.fits

    def changed_meanwhile(stored: str | None, password: str) -> bool:
        monkeypatch.undo()
        doors.give(doors.tree.technician, NEW)
        return fits(stored, password)

    monkeypatch.setattr(passwords, "fits", changed_meanwhile)
    assert doors.not_signed_in(number, PASSWORD).reason == "BAD_CREDENTIALS"


# --- a temporary one ----------------------------------------------------------------------------------------------------


def reset(doors: Doors, by: Caller | str, who: Caller) -> str:
    by = doors.tree.staff[by] if isinstance(by, str) else by
    return doors.call(by, "ResetStaffPassword", name=doors.name_of(who), reason="忘记密码").password  # type: ignore[no-any-return]


def test_hr_gives_a_temporary_password_that_opens_nothing_but_its_own_change(doors: Doors) -> None:
    number, who = doors.enrolled("TECHNICIAN", PASSWORD), doors.tree.technician
    before = doors.sign_in(number, PASSWORD)
    given = doors.call(doors.tree.staff["ADMIN_HR"], "ResetStaffPassword", name=doors.name_of(who), reason="忘记密码")
    left = given.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    assert doors.ended(before.access_token)
    assert doors.not_signed_in(number, PASSWORD).reason == "BAD_CREDENTIALS"

    session = doors.sign_in(number, given.password)
    assert session.password_change_required
    principal, identity = doors.principal(session.access_token), doors.identity(session.access_token)
    assert (principal.temporary, principal.grants) == (True, ())
    me = doors.call(identity, "GetMe")
    assert (me.password_change_required, me.staff_number, list(me.grants)) == (True, number, [])
    for rpc, fields in (("ListShifts", {"parent": doors.tree.parent}), ("ListStaff", {"parent": "estates/-"}), ("ListImports", {})):
        refusal = doors.refused(identity, rpc, **fields)
        assert (refusal.http, refusal.reason) == (403, "PASSWORD_CHANGE_REQUIRED"), rpc
    again = doors.call(INTERNAL, "RefreshSession", refresh_token=session.refresh_token)
    assert again.password_change_required
    assert changed(doors, again.access_token, given.password, given.password) == "SAME_PASSWORD"

    own = doors.call(doors.identity(again.access_token), "SetPassword", old_password=given.password, new_password=NEW)
    assert not own.password_change_required
    assert doors.principal(own.access_token).grants == who.grants
    assert doors.not_signed_in(number, given.password).reason == "BAD_CREDENTIALS"
    assert not doors.sign_in(number, NEW).password_change_required


def test_a_session_of_a_temporary_password_can_be_ended(doors: Doors) -> None:
    number = doors.enrolled("TECHNICIAN")
    session = doors.sign_in(number, reset(doors, "ADMIN_HR", doors.tree.technician))
    doors.call(INTERNAL, "EndSession", access_token=session.access_token)
    assert doors.ended(session.access_token)


def test_a_temporary_password_is_good_for_a_day_and_its_sessions_end_with_it(doors: Doors) -> None:
    number, who = doors.enrolled("TECHNICIAN"), doors.tree.technician
    password = reset(doors, "ADMIN_HR", who)
    session = doors.sign_in(number, password)
    over = "now() - interval '1 second'"
    doors.sql("UPDATE accounts SET temporary_until = now() + interval '5 seconds' WHERE principal = %s", (who.name,))
    assert doors.sign_in(number, password).access_token
    doors.sql(f"UPDATE accounts SET temporary_until = {over} WHERE principal = %s", (who.name,))
    refusal = doors.not_signed_in(number, password)
    assert (refusal.http, refusal.reason) == (401, "TEMPORARY_PASSWORD_EXPIRED")
    assert doors.not_signed_in(number, "wrong").reason == "BAD_CREDENTIALS", "said only to who has it"
    ((ends, limit),) = doors.sql(
        "SELECT expires_at, created_at + interval '24 hours' FROM sessions WHERE principal = %s ORDER BY id LIMIT 1", (who.name,)
    )
    assert ends <= limit
    doors.sql(f"UPDATE sessions SET expires_at = {over} WHERE principal = %s", (who.name,))
    assert doors.ended(session.access_token)
    assert doors.refused(INTERNAL, "RefreshSession", refresh_token=session.refresh_token).reason == "SESSION_ENDED"


def test_giving_a_password_unlocks_the_account_and_makes_the_one_before_worthless(doors: Doors) -> None:
    number, who = doors.enrolled("TECHNICIAN", PASSWORD), doors.tree.technician
    for _ in range(6):
        doors.not_signed_in(number, NEW)
    first, second = reset(doors, "PROJECT_MANAGER", who), reset(doors, "PROJECT_MANAGER", who)
    assert doors.not_signed_in(number, first).reason == "BAD_CREDENTIALS"
    assert doors.sign_in(number, second).password_change_required


def test_who_gave_whom_a_password_when_and_why_is_kept_and_the_password_is_not(doors: Doors) -> None:
    doors.enrolled("TECHNICIAN")
    who, by = doors.tree.technician, doors.tree.staff["ADMIN_HR"]
    password = reset(doors, by, who)
    kept = doors.sql(
        "SELECT action, actor, reason, at > now() - interval '1 minute' FROM password_changes WHERE principal = %s", (who.name,)
    )
    assert kept == [("RESET", by.name, "忘记密码", True)]
    with pytest.raises(Exception, match="permission denied"):
        doors.sql("DELETE FROM password_changes WHERE principal = %s", (who.name,))
    assert doors.sql("SELECT 1 FROM idempotency WHERE rpc = 'ResetStaffPassword'") == []
    assert doors.sql("SELECT 1 FROM accounts WHERE password_hash LIKE %s", (f"%{password}%",)) == []
    assert published(doors.database, who.id) == []


@pytest.mark.rule("ORG-06")
def test_hr_and_the_project_manager_give_passwords_to_those_they_decide_on_and_to_nobody_else(doors: Doors) -> None:
    tree = doors.tree
    allowed = {
        "ADMIN_HR": {"TECHNICIAN", "PROJECT_MANAGER", "GENERAL_MANAGER", "FINANCE"},
        "PROJECT_MANAGER": {"TECHNICIAN", "CS_SUPERVISOR", "SECURITY_GUARD"},
    }
    for role in ("TECHNICIAN", "CS_SUPERVISOR", "SECURITY_GUARD", "PROJECT_MANAGER", "GENERAL_MANAGER", "FINANCE", "ADMIN_HR"):
        doors.enrolled(role)
    for by, whom in allowed.items():
        for role in sorted(whom):
            assert reset(doors, by, tree.staff[role]), f"{by} for {role}"
    for role in ("GENERAL_MANAGER", "FINANCE"):  # they work at the company, which a project manager does not see
        assert (
            doors.refused(tree.staff["PROJECT_MANAGER"], "ResetStaffPassword", name=doors.name_of(tree.staff[role]), reason="试试").reason
            == "STAFF_NOT_FOUND"
        )
    for by in ("TECHNICIAN", "CS_SUPERVISOR", "GENERAL_MANAGER", "GROUP_OPERATIONS"):
        refusal = doors.refused(tree.staff[by], "ResetStaffPassword", name=doors.name_of(tree.technician), reason="试试")
        assert (refusal.http, refusal.reason) == (403, "ROLE_REQUIRED"), by
    own = doors.refused(tree.staff["ADMIN_HR"], "ResetStaffPassword", name=doors.name_of(tree.staff["ADMIN_HR"]), reason="自己来")
    assert (own.http, own.reason) == (403, "OWN_PASSWORD")


def test_nobody_gets_at_a_role_he_does_not_decide_on_by_the_password_of_who_holds_it_too(doors: Doors) -> None:
    """By a second post, or as somebody's deputy."""
    tree, now = doors.tree, datetime.now(UTC)
    twofold, deputy = tree.hire(doors.database, "TECHNICIAN"), tree.hire(doors.database, "CUSTOMER_MANAGER")
    hr = tree.hire(doors.database, "CUSTOMER_MANAGER")
    with doors.database.transaction() as tx:
        arrive(tx, post(twofold, "ADMIN_HR", tree.company_id), post(hr, "ADMIN_HR", tree.estate_id))
        arrive(tx, absence(hr, now - timedelta(hours=1), deputy=deputy))
    for who in (twofold, deputy):
        doors.enrolled(who)
        refusal = doors.refused(tree.staff["PROJECT_MANAGER"], "ResetStaffPassword", name=doors.name_of(who), reason="试试")
        assert (refusal.http, refusal.reason) == (403, "NOT_YOUR_DEPARTMENT")
        assert reset(doors, "ADMIN_HR", who)


def test_nobody_gives_a_password_at_another_estate_or_to_who_has_left(doors: Doors) -> None:
    doors.enrolled("TECHNICIAN")
    hr, name = doors.tree.staff["ADMIN_HR"], doors.name_of(doors.tree.technician)
    elsewhere = a_tree(doors.database)
    refusal = doors.refused(elsewhere.staff["ADMIN_HR"], "ResetStaffPassword", name=name, reason="试试")
    assert (refusal.http, refusal.reason) == (404, "ESTATE_NOT_FOUND")
    for wrong in (f"{doors.tree.parent}/staff/{uuid4()}", f"{doors.tree.parent}/staff/x"):
        assert doors.refused(hr, "ResetStaffPassword", name=wrong, reason="试试").reason == "STAFF_NOT_FOUND"
    doors.sql("UPDATE staff SET state = 'LEFT' WHERE id = %s", (doors.tree.technician.id,))
    gone = doors.refused(hr, "ResetStaffPassword", name=name, reason="试试")
    assert (gone.http, gone.reason) == (409, "STAFF_LEFT")


def test_a_temporary_identity_is_refused_by_every_operation_that_does_not_say_otherwise(doors: Doors) -> None:
    """Also by one that would be open to anybody who is signed in, and with grants in it."""
    grants = (Grant("ADMIN_HR", "company", doors.tree.company_id),)
    token, _ = access.sign(Principal("staff", str(uuid4()), grants, temporary=True))
    open_to_him = set()
    for name, method in doors.api.methods.items():
        rule = access.declared(method)
        assert rule
        if rule.scope in ("INTERNAL", "PUBLIC"):
            continue
        try:
            doors.call(token, name)
            open_to_him.add(name)
        except Refused as refused:
            if refused.reason != "PASSWORD_CHANGE_REQUIRED":
                open_to_him.add(name)
    assert open_to_him == {"GetMe", "SetPassword"}


# --- the command --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return False


def test_the_first_administrator_gets_a_password_from_the_machine_itself(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = doors.enrolled("ADMIN_HR")
    monkeypatch.setattr(sys, "stdin", Terminal(f"{NEW}\n"))
    with in_production():
        assert set_password.main([number]) == 0
        assert capsys.readouterr().out == f"钟明远 ({number}) signs in with the new password from now on\n"
        session = doors.sign_in(number, NEW)
        assert not session.password_change_required
        assert doors.principal(session.access_token).holds(frozenset({"ADMIN_HR"}))
    kept = doors.sql("SELECT action, actor FROM password_changes WHERE principal = %s", (doors.tree.staff["ADMIN_HR"].name,))
    assert kept == [("SET", "system/residents")]


@pytest.mark.parametrize(
    ("number", "line", "says"),
    [
        ("", "short\n", "choose another password; the password must have at least 10 characters"),
        ("NOBODY-1", f"{NEW}\n", "nobody who works here has the number NOBODY-1"),
        ("", "\n", "no password was given"),
        ("", "", "no password was given"),
    ],
)
def test_the_command_says_why_it_did_nothing(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: str, line: str, says: str
) -> None:
    mine = doors.enrolled("ADMIN_HR")
    monkeypatch.setattr(sys, "stdin", Terminal(line))
    assert set_password.main([number or mine]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", says + "\n")
    assert doors.sql("SELECT 1 FROM accounts WHERE principal = %s", (doors.tree.staff["ADMIN_HR"].name,)) == []


def test_the_command_takes_no_password_from_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        set_password.main(["TFHY-003", NEW])
    assert refused.value.code == 2
    assert NEW in capsys.readouterr().err, "argparse says what it does not take"


def test_accounts_live_in_the_databases_own_time(database: Database) -> None:
    """A replica whose clock is wrong must not lock or open anything."""
    with database.transaction() as tx:
        for minutes in (16, 14):
            tx.execute("INSERT INTO failed_sign_ins (id, key, at) VALUES (%s, 'k', now() - make_interval(mins => %s))", (uuid4(), minutes))
        accounts._refuse_if_locked(tx, "k")
        for _ in range(4):
            accounts._failed(tx, "k")
        with pytest.raises(Exception, match="too many failed attempts"):
            accounts._refuse_if_locked(tx, "k")
