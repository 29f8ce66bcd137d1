"""Who works here: the training mark (REP-36), and what follows when somebody leaves or is on leave by the register."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Database, Transaction
from services.chassis.errors import Conflict, Forbidden, InvalidInput, Violation
from services.chassis.events import Happened, append
from services.chassis.lifecycle import Act
from services.chassis.reactions import every
from services.residents import leave, rosters, sessions
from services.residents.departments import decides_on, lineage
from services.residents.directory import publish
from services.residents.leave import Leave, standing_posts
from services.residents.records import keep_history
from services.residents.rosters import Shift
from services.residents.staff import Post, Staff
from steward.residents.v1 import directory_pb2 as pb
from steward.residents.v1 import events_pb2 as events

BATCH = 50  # people of one round


def mark_trained(tx: Transaction, act: Act, person: Staff, trained: bool) -> None:
    """REP-36. Raises Forbidden(NOT_YOUR_DEPARTMENT)."""
    decides_on(tx, standing_posts(tx, person.id))
    person.correct(act, intake_trained=trained)
    keep_history(tx, [person], act.reason)


def retire(tx: Transaction, act: Act, person: Staff, successor_id: UUID | None = None) -> None:
    """He leaves the company: posts, sessions, shifts and leaves end at once, and StaffRetired tells who has what he had in hand.

    Raises Forbidden(OWN_RETIREMENT, NOT_YOUR_DEPARTMENT), Conflict(STAFF_LEFT), InvalidInput(SUCCESSOR_UNFIT).
    """
    if str(tx.principal) == f"staff/{person.id}":
        raise Forbidden("somebody else lets you go", reason="OWN_RETIREMENT", rule="ORG-06")
    if person.retired_at is not None:
        raise Conflict("he has left already", reason="STAFF_LEFT")
    rosters.lock(tx, person.id)
    standing = standing_posts(tx, person.id)
    decides_on(tx, standing)
    taken_over = _takes_over(tx, person, standing, successor_id) if successor_id else []
    ended = _end_posts(tx, act, person)
    person.correct(act, state="LEFT", retired_at=act.now)
    keep_history(tx, [person], act.reason)
    sessions.end_sessions(tx, f"staff/{person.id}")
    rosters.tell(tx, rosters.clear(tx, act, person.id))
    leave.clear(tx, act, person.id)
    if not tx.execute("SELECT 1 FROM dir_posts WHERE staff_id = %s LIMIT 1", (person.id,)):
        return  # he never had a post, and so nothing in hand: a former colleague in an opening register
    retired = events.StaffRetired(
        staff=f"staff/{person.id}",
        successor=f"staff/{successor_id}" if successor_id else "",
        successor_posts=[pb.Post(staff_id=str(successor_id), role=role, node_id=str(node)) for role, node in taken_over],
        ended_posts=ended,
    )
    place = (person.group_id, person.company_id, person.estate_id)
    append(tx, Happened("staff", person.id, person.version, f"staff/{person.id}", retired, act.now, *place))


def _takes_over(tx: Transaction, person: Staff, standing: list[tuple[str, UUID]], successor_id: UUID) -> list[tuple[str, UUID]]:
    """The successor's posts in the same roles, at the same nodes or above. Raises InvalidInput(SUCCESSOR_UNFIT) when there is none."""
    above = lineage(tx, (node for _, node in standing))
    wanted = {(role, upper) for role, node in standing for upper in above.get(node, ())}
    found = [post for post in standing_posts(tx, successor_id) if post in wanted]
    if not found or successor_id == person.id:
        what = [Violation("successor", "must hold one of his roles at the same node or above")]
        raise InvalidInput("that is no successor for him", reason="SUCCESSOR_UNFIT", violations=what)
    return found


def _end_posts(tx: Transaction, act: Act, person: Staff) -> list[pb.DirectoryEntry]:
    open_ones = sa.or_(Post.ends_at.is_(None), Post.ends_at > act.now)
    posts = list(tx.session.execute(sa.select(Post).where(Post.staff_id == person.id, open_ones).with_for_update()).scalars())
    for post in posts:
        post.correct(act, ends_at=act.now)
    keep_history(tx, posts, act.reason)
    entries = [post.entry() for post in posts]
    publish(tx, entries, group_id=person.group_id, company_id=person.company_id, estate_id=person.estate_id)
    return entries


@every(60, name="follow the register")
def follow_register(database: Database) -> int:
    """What an import said of people has its consequences: 离职 hands over, 休假 is a leave without a deputy, 在职 ends it.

    Also ends what a retirement did not see because it lay outside its caller's part of the tree.
    """
    with database.transaction() as tx:
        act = tx.act("as the register says")
        tx.execute("UPDATE staff SET retired_at = NULL WHERE active AND retired_at IS NOT NULL")  # hired again
        left = _people(tx, Staff.state == "LEFT", Staff.retired_at.is_(None))
        for person in left:
            retire(tx, act, person)
        running = sa.select(Leave.staff_id).where(~Leave.deleted, sa.or_(Leave.ends_at.is_(None), Leave.ends_at > tx.now))
        away = _people(tx, Staff.state == "ON_LEAVE", Staff.id.not_in(running))
        for person in away:
            leave.record(tx, act, person, "OTHER", tx.now, None, None, from_register=True)
        back = _people(tx, Staff.state == "ACTIVE", Staff.id.in_(running.where(Leave.from_register)))
        for person in back:
            ended = sa.select(Leave).where(Leave.staff_id == person.id, Leave.from_register, ~Leave.deleted, Leave.ends_at.is_(None))
            for found in tx.session.execute(ended.with_for_update()).scalars():
                leave.end(tx, act, person, found, None)
        on_roster = sa.select(Shift.staff_id).where(~Shift.deleted, Shift.ends_at > tx.now)
        posted = sa.select(Post.staff_id).where(sa.or_(Post.ends_at.is_(None), Post.ends_at > tx.now))
        gone = _people(tx, Staff.state == "LEFT", Staff.retired_at.is_not(None), Staff.id.in_(on_roster) | Staff.id.in_(posted))
        for person in gone:
            _end_posts(tx, act, person)
            for shift in rosters.clear(tx, act, person.id):
                rosters.tell(tx, [shift])
    return len(left) + len(away) + len(back) + len(gone)


def _people(tx: Transaction, *where: sa.ColumnElement[bool]) -> list[Staff]:
    """Some of them, claimed: another replica passes them over."""
    query = sa.select(Staff).where(*where).order_by(Staff.id).limit(BATCH).with_for_update(skip_locked=True)
    return list(tx.session.execute(query).scalars())
