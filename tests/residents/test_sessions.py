"""Sessions: refreshing them, answers that were lost, tokens that were stolen, and what a resident's identity carries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.retention import forget
from services.chassis.testing import INTERNAL, Caller
from services.residents import sessions
from steward.residents.v1 import directory_pb2 as pb
from tests.residents.doors import Doors
from tests.rostered import arrive

DAY = timedelta(days=1)


@pytest.fixture
def session(doors: Doors) -> sessions.Tokens:
    doors.enrolled("TECHNICIAN")
    with doors.database.transaction() as tx:
        return sessions.open_session(tx, doors.tree.technician.name)


def refreshed(doors: Doors, token: str) -> Any:
    return doors.call(INTERNAL, "RefreshSession", refresh_token=token)


def refused(doors: Doors, token: str) -> str:
    refusal = doors.refused(INTERNAL, "RefreshSession", refresh_token=token)
    assert refusal.http == 401
    return refusal.reason


def later(doors: Doors, seconds: float) -> None:
    """Machine time goes by for every refresh token."""
    doors.sql("UPDATE refresh_tokens SET used_at = used_at - make_interval(secs => %s)", (seconds,))


def test_a_refresh_gives_new_tokens_and_uses_up_both_old_ones(doors: Doors, session: sessions.Tokens) -> None:
    new = refreshed(doors, session.refresh)
    assert len({session.access, session.refresh, new.access_token, new.refresh_token}) == 4
    assert doors.ended(session.access)
    assert not doors.ended(new.access_token)
    assert refreshed(doors, new.refresh_token).access_token


def test_an_access_token_lives_a_quarter_of_an_hour_and_the_session_a_month(doors: Doors, session: sessions.Tokens) -> None:
    lives = "SELECT access_expires_at - created_at, expires_at - created_at FROM sessions WHERE principal = %s"
    who = doors.tree.technician.name
    access, whole = doors.sql(lives, (who,))[0]
    assert timedelta(minutes=14, seconds=59) < access <= timedelta(minutes=15)
    assert 30 * DAY - timedelta(seconds=1) < whole <= 30 * DAY
    doors.sql("UPDATE sessions SET access_expires_at = now() - interval '1 second' WHERE principal = %s", (who,))
    assert doors.ended(session.access)
    assert refreshed(doors, session.refresh).access_token
    doors.sql("UPDATE sessions SET expires_at = now() - interval '1 second' WHERE principal = %s", (who,))
    assert refused(doors, session.refresh) == "SESSION_ENDED"


def test_when_the_answer_was_lost_the_same_token_gives_another_successor(doors: Doors, session: sessions.Tokens) -> None:
    lost = refreshed(doors, session.refresh)
    later(doors, 29)
    again = refreshed(doors, session.refresh)
    assert again.refresh_token != lost.refresh_token
    assert doors.ended(lost.access_token)
    assert not doors.ended(again.access_token)
    assert refreshed(doors, again.refresh_token).access_token


def test_answers_may_be_lost_more_than_once_within_the_grace_that_the_first_use_began(doors: Doors, session: sessions.Tokens) -> None:
    refreshed(doors, session.refresh)
    later(doors, 20)
    refreshed(doors, session.refresh)
    later(doors, 9)
    last = refreshed(doors, session.refresh)
    later(doors, 2)
    assert refused(doors, session.refresh) == "SESSION_ENDED"
    assert doors.ended(last.access_token)


def test_a_replay_after_the_grace_ends_the_session(doors: Doors, session: sessions.Tokens) -> None:
    new = refreshed(doors, session.refresh)
    later(doors, 31)
    assert refused(doors, session.refresh) == "SESSION_ENDED"
    assert doors.ended(new.access_token)
    assert refused(doors, new.refresh_token) == "SESSION_ENDED"


def test_a_replay_after_its_successor_was_used_ends_the_session_even_within_the_grace(doors: Doors, session: sessions.Tokens) -> None:
    newest = refreshed(doors, refreshed(doors, session.refresh).refresh_token)
    assert refused(doors, session.refresh) == "SESSION_ENDED"
    assert doors.ended(newest.access_token)


def test_a_thief_who_uses_the_grace_is_found_out_when_the_owner_goes_on(doors: Doors, session: sessions.Tokens) -> None:
    owners = refreshed(doors, session.refresh)
    thiefs = refreshed(doors, session.refresh)
    assert refused(doors, owners.refresh_token) == "SESSION_ENDED"
    assert doors.ended(thiefs.access_token)
    assert refused(doors, thiefs.refresh_token) == "SESSION_ENDED"


def test_of_two_refreshes_at_once_both_are_answered_and_one_successor_lives(doors: Doors, session: sessions.Tokens) -> None:
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: refreshed(doors, session.refresh), range(2)))
    assert [doors.ended(answer.access_token) for answer in both].count(False) == 1
    alive = next(answer for answer in both if not doors.ended(answer.access_token))
    successors = doors.sql("SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL AND revoked_at IS NULL AND session_id ="
                           " (SELECT id FROM sessions WHERE principal = %s)", (doors.tree.technician.name,))  # fmt: skip
    assert successors == [(1,)]
    assert refreshed(doors, alive.refresh_token).access_token


def test_signing_out_works_by_either_token_and_an_unknown_one_is_no_error(doors: Doors, session: sessions.Tokens) -> None:
    doors.call(INTERNAL, "EndSession", access_token="sa_unknown")  # noqa: S106
    doors.call(INTERNAL, "EndSession", access_token=session.refresh)
    assert doors.ended(session.access)
    assert refused(doors, session.refresh) == "SESSION_ENDED"


@pytest.mark.parametrize("token", ["", "sr_unknown", "sr_" + "x" * 43])
def test_a_token_of_nobody_is_refused(doors: Doors, token: str) -> None:
    assert refused(doors, token) == "SESSION_ENDED"


def test_neither_token_stands_in_the_database(doors: Doors, session: sessions.Tokens) -> None:
    for table in ("sessions", "refresh_tokens"):
        text = str(doors.sql(f"SELECT {table}::text FROM {table}"))
        assert session.access not in text
        assert session.refresh not in text


# --- since when a resident belongs to a unit ----------------------------------------------------------------------------


@pytest.fixture
def newcomer() -> Caller:
    return Caller("people", uuid4())


def belongs(doors: Doors, who: Caller, kind: str, start: datetime | None, end: datetime | None = None, unit: str = "") -> None:
    membership = pb.Membership(
        person_id=str(who.id), unit_id=str(doors.tree.units[unit or doors.tree.unit]), estate_id=str(doors.tree.estate_id), kind=kind
    )
    if start:
        membership.start_time.FromDatetime(start)
    if end:
        membership.end_time.FromDatetime(end)
    arrive(doors.database, pb.DirectoryEntry(id=str(uuid4()), version=1, membership=membership))


def held(doors: Doors, who: Caller) -> dict[str, datetime | None]:
    """Role → since when, of the first unit."""
    with doors.database.transaction() as tx:
        live = sessions.live(tx, who.name)
        token = sessions.open_session(tx, who.name).access
    if live is None:
        assert doors.ended(token)
        return {}
    principal = doors.principal(token)
    assert principal == live, "the identity carries what the register says"
    return {grant.role: grant.since for grant in principal.grants if grant.node == doors.tree.units[doors.tree.unit]}


NOON = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def test_a_tenant_is_there_since_his_lease_began_and_somebody_without_a_start_since_ever(doors: Doors, newcomer: Caller) -> None:
    belongs(doors, newcomer, "TENANT", NOON - 30 * DAY)
    assert held(doors, newcomer) == {"TENANT": NOON - 30 * DAY}
    assert held(doors, doors.tree.owner) == {"OWNER": None}
    belongs(doors, newcomer, "FAMILY_MEMBER", None)
    assert held(doors, newcomer) == {"TENANT": None, "FAMILY_MEMBER": None}


def test_a_lease_that_is_renewed_without_a_gap_goes_on_and_one_after_a_gap_begins_anew(doors: Doors, newcomer: Caller) -> None:
    belongs(doors, newcomer, "TENANT", NOON - 900 * DAY, NOON - 700 * DAY)
    belongs(doors, newcomer, "TENANT", NOON - 600 * DAY, NOON - 300 * DAY)
    belongs(doors, newcomer, "TENANT", NOON - 300 * DAY, NOON - 10 * DAY)
    belongs(doors, newcomer, "OWNER", NOON - 10 * DAY)
    assert held(doors, newcomer) == {"OWNER": NOON - 600 * DAY}


def test_a_lease_to_come_and_one_that_has_ended_open_nothing(doors: Doors, newcomer: Caller) -> None:
    belongs(doors, newcomer, "TENANT", NOON - 20 * DAY, NOON - 10 * DAY)
    belongs(doors, newcomer, "TENANT", NOON + 10 * DAY)
    assert held(doors, newcomer) == {}


def test_another_unit_of_the_same_person_has_a_start_of_its_own(doors: Doors, newcomer: Caller) -> None:
    other = list(doors.tree.units)[-1]
    belongs(doors, newcomer, "OWNER", NOON - 5 * DAY)
    belongs(doors, newcomer, "OWNER", NOON - 500 * DAY, unit=other)
    assert held(doors, newcomer) == {"OWNER": NOON - 5 * DAY}
    with doors.database.read() as tx:
        live = sessions.live(tx, newcomer.name)
    assert live
    assert Grant("OWNER", "unit", doors.tree.units[other], doors.tree.estate_id, NOON - 500 * DAY) in live.grants


def test_housekeeping_forgets_what_is_over(database: Database) -> None:
    with database.transaction() as tx:
        for name, over in (("staff/old", "2 days"), ("staff/new", "1 hour")):
            sessions.open_session(tx, name)
            tx.execute("UPDATE sessions SET ended_at = now() - %s::interval WHERE principal = %s", (over, name))
        for age in ("2 hours", "10 minutes"):
            tx.execute(
                "INSERT INTO code_messages (id, sealed, expires_at, created_at) VALUES (%s, '', now(), now() - %s::interval)",
                (uuid4(), age),
            )
    forget(database)
    with database.read() as tx:
        assert tx.execute("SELECT principal FROM sessions") == [("staff/new",)]
        assert tx.execute("SELECT count(*) FROM refresh_tokens") == [(1,)]
        assert tx.execute("SELECT count(*) FROM code_messages") == [(1,)]
