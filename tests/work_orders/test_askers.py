"""To whom a follow-up falls, by roster and by post; delegation; and what midnight changes (REP-25, FUP-02, FUP-04, X-04, X-05)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.chassis import reactions
from services.chassis.names import stamp
from services.chassis.testing import Caller, event_body, published, set_time
from services.work_orders import askers, policies
from steward.options.v1 import options_pb2
from steward.residents.v1 import directory_pb2
from steward.residents.v1 import events_pb2 as residents
from steward.work_orders.v1 import followups_pb2 as pb
from tests.rostered import absence, arrive
from tests.work_orders.asking import (
    CHINA,
    DAY,
    HOUR,
    NOON,
    SATISFIED,
    SECOND,
    UNHAPPY,
    case,
    early,
    employ,
    filed,
    follow_up_of,
    living,
    name,
    override,
    pass_to,
    seen,
    vacate,
)  # fmt: skip
from tests.work_orders.conftest import PNG, Desk, instant

pytestmark = pytest.mark.usefixtures("moving_time")

MIDNIGHT = datetime(2026, 11, 24, tzinfo=CHINA)


@pytest.fixture
def day(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An estate whose time goes by from Monday noon on."""
    with living(desk, monkeypatch, NOON):
        yield desk


def role(follow_up: pb.FollowUp) -> str:
    return options_pb2.Role.Name(follow_up.assigned_role)


@pytest.mark.rule("REP-25", "FUP-25")
def test_it_falls_to_who_is_on_the_early_shift_of_the_day_although_that_shift_is_over(desk: Desk) -> None:
    assistant = desk.tree.hire(desk.database, "CUSTOMER_ASSISTANT")
    early(desk, assistant, 23)
    follow_up = follow_up_of(desk, filed(desk, NOON.replace(hour=16, minute=30)))
    assert (follow_up.assignee, role(follow_up)) == (assistant.name, "EARLY_SHIFT_CLERK")
    event = published(desk.database, case(follow_up), "FollowUpOpened")[0]
    assert (event.data["assignee"], event.data["round"]) == (assistant.name, 1)
    assert [clock.clock for clock in follow_up.clocks] == ["follow_up"]


@pytest.mark.rule("REP-25", "X-05")
def test_what_is_returned_late_falls_to_the_early_shift_of_the_next_duty_day(desk: Desk) -> None:
    today, wednesday = desk.tree.hire(desk.database, "CUSTOMER_ASSISTANT"), desk.tree.hire(desk.database, "CUSTOMER_ASSISTANT")
    early(desk, today, 23)
    early(desk, wednesday, 25)  # on Tuesday nobody is on duty
    follow_up = follow_up_of(desk, filed(desk, NOON.replace(hour=17, minute=0, second=1)))
    assert (follow_up.assignee, instant(follow_up.due_time)) == (wednesday.name, datetime(2026, 11, 26, tzinfo=CHINA))


@pytest.mark.rule("X-05")
def test_five_o_clock_itself_is_not_late(desk: Desk) -> None:
    five = NOON.replace(hour=17)
    with desk.database.read() as tx:
        days = [askers.due_day(tx, desk.tree.estate, tx.terms(), at).day for at in (five - SECOND, five, five + SECOND)]
    assert days == [23, 23, 24]


@pytest.mark.rule("FUP-04", "FUP-02")
def test_where_nobody_has_the_early_shift_it_is_the_butlers_then_the_assistants_then_the_supervisors(desk: Desk) -> None:
    found = []
    for vacant in ("", "EARLY_SHIFT_CLERK", "BUILDING_BUTLER", "CUSTOMER_ASSISTANT", "CS_SUPERVISOR"):
        if vacant:
            vacate(desk, vacant)
        with desk.database.read() as tx:
            turn = askers.turn(tx, desk.tree.estate, tx.terms(), NOON.date(), ())
        found.append((turn.role, turn.staff_id))
    staff = desk.tree.staff
    assert found == [
        *((role, staff[role].id) for role in ("EARLY_SHIFT_CLERK", "BUILDING_BUTLER", "CUSTOMER_ASSISTANT", "CS_SUPERVISOR")),
        ("EARLY_SHIFT_CLERK", None),
    ]


@pytest.mark.rule("FUP-04")
def test_an_estate_may_say_that_its_butlers_follow_up_first(desk: Desk) -> None:
    early(desk, desk.tree.staff["CUSTOMER_ASSISTANT"], 23)
    override(desk, policies.FOLLOWUP_FIRST, "BUILDING_BUTLER")
    follow_up = follow_up_of(desk, filed(desk))
    assert (follow_up.assignee, role(follow_up)) == (desk.tree.staff["BUILDING_BUTLER"].name, "BUILDING_BUTLER")


@pytest.mark.rule("FUP-02", "FUP-04")
@pytest.mark.parametrize(
    "who", ["CUSTOMER_ASSISTANT", "BUILDING_BUTLER", "TECHNICIAN", "ENGINEERING_SUPERVISOR", "SECURITY_GUARD", "OWNER"]
)
def test_assistants_and_butlers_ask_whomever_it_falls_to_and_other_departments_do_not(desk: Desk, who: str) -> None:
    follow_up = follow_up_of(desk, filed(desk))
    if who in ("CUSTOMER_ASSISTANT", "BUILDING_BUTLER"):
        assert name(desk.call(desk.tree.by_role(who), "AnswerFollowUp", name=follow_up.name, **SATISFIED)) == "CLOSED"
    else:
        assert desk.refused(desk.tree.by_role(who), "AnswerFollowUp", name=follow_up.name, **SATISFIED).http == 403
        assert desk.refused(desk.tree.by_role(who), "MissFollowUp", name=follow_up.name, method="APP").http == 403


@pytest.mark.rule("REP-25")
def test_of_several_on_the_shift_each_gets_as_many(desk: Desk) -> None:
    crew = [desk.tree.hire(desk.database, "CUSTOMER_ASSISTANT") for _ in range(3)]
    for who in crew:
        early(desk, who, 23)
    assert Counter(follow_up_of(desk, filed(desk)).assignee for _ in range(6)) == {who.name: 2 for who in crew}


@pytest.mark.rule("FUP-26", "X-04")
def test_who_had_a_hand_in_the_work_is_neither_given_it_nor_may_he_ask(desk: Desk) -> None:
    """Somebody who is technician and on the early shift at once; after a transfer that holds for both who worked."""
    first, second = employ(desk, "TECHNICIAN", "CUSTOMER_ASSISTANT"), employ(desk, "TECHNICIAN", "EARLY_SHIFT_CLERK")
    for who in (first, second):
        early(desk, who, 23)
    set_time(desk.database, NOON)
    repair = desk.call(first, "TakeRepair", name=desk.report().name)
    desk.call(first, "ArriveRepair", name=repair.name)
    desk.call(first, "TransferRepair", name=repair.name, technician=second.name, reason="交班")
    for rpc in ("TakeRepair", "ArriveRepair"):
        desk.call(second, rpc, name=repair.name)
    checked = {"fault_removed": True, "function_restored": True, "site_cleared": True}
    desk.call(second, "CompleteRepair", name=repair.name, work_done="换了阀门", self_check=checked)
    desk.call(desk.tree.owner, "AcceptRepair", name=repair.name, rating={"attitude": 5, "quality": 5}, signature=PNG)
    follow_up = follow_up_of(desk, desk.step(desk.now(repair)))
    assert (follow_up.assignee, follow_up.technician) == (desk.tree.staff["BUILDING_BUTLER"].name, second.name)
    for who in (first, second):
        for rpc, said in (("AnswerFollowUp", SATISFIED), ("MissFollowUp", {"method": "TELEPHONE"})):
            answer = desk.refused(who, rpc, name=follow_up.name, **said)
            assert (answer.http, answer.reason) == (403, "NOT_YOURS")
    assert name(desk.call(desk.tree.staff["CUSTOMER_ASSISTANT"], "AnswerFollowUp", name=follow_up.name, **SATISFIED)) == "CLOSED"


@pytest.mark.rule("REP-25")
def test_what_was_not_asked_that_day_falls_to_the_next_days_early_shift_at_midnight_and_not_a_second_before(day: Desk) -> None:
    monday, tuesday = (day.tree.hire(day.database, "CUSTOMER_ASSISTANT") for _ in range(2))
    early(day, monday, 23)
    early(day, tuesday, 24)
    follow_up = follow_up_of(day, filed(day))
    assert follow_up.assignee == monday.name
    pass_to(day, MIDNIGHT - SECOND)
    assert seen(day, follow_up).assignee == monday.name
    pass_to(day, MIDNIGHT)
    now = seen(day, follow_up)
    assert (now.assignee, instant(now.due_time)) == (tuesday.name, MIDNIGHT)
    assert now.clocks[0].breached, "the day was missed all the same"
    [event] = published(day.database, case(follow_up), "FollowUpAssigned")
    assert (event.data["assignee"], event.data["previousAssignee"], event.occurred_at) == (tuesday.name, monday.name, MIDNIGHT)


@pytest.mark.rule("REP-25")
def test_a_roster_that_changes_over_night_is_followed_and_one_that_does_not_changes_nothing(day: Desk) -> None:
    planned, stands_in = (day.tree.hire(day.database, "CUSTOMER_ASSISTANT") for _ in range(2))
    early(day, planned, 24)
    ill, well = (follow_up_of(day, filed(day, NOON.replace(hour=18))) for _ in range(2))
    assert ill.assignee == well.assignee == planned.name
    day.call(day.tree.staff["EARLY_SHIFT_CLERK"], "AnswerFollowUp", name=well.name, **SATISFIED)
    etag = seen(day, ill).etag
    pass_to(day, MIDNIGHT)
    assert (seen(day, ill).assignee, seen(day, ill).etag) == (planned.name, etag)
    arrive(day.database, absence(planned, MIDNIGHT + 6 * HOUR, deputy=stands_in))
    pass_to(day, MIDNIGHT + DAY)
    assert seen(day, well).assignee == planned.name, "what has been asked stays as it was"
    assert seen(day, ill).assignee == day.tree.staff["EARLY_SHIFT_CLERK"].name, "Wednesday has no roster"


@pytest.mark.rule("REP-25")
def test_who_cannot_do_it_that_day_gives_it_to_a_colleague_and_the_time_limit_stays(day: Desk) -> None:
    clerk, butler = day.tree.staff["EARLY_SHIFT_CLERK"], day.tree.staff["BUILDING_BUTLER"]
    follow_up = follow_up_of(day, filed(day))
    given = day.call(clerk, "DelegateFollowUp", name=follow_up.name, assignee=butler.name, reason="下午在外")
    assert (given.assignee, role(given), given.delegated_by) == (butler.name, "BUILDING_BUTLER", clerk.name)
    assert instant(given.due_time) == MIDNIGHT
    [event] = published(day.database, case(follow_up), "FollowUpDelegated")
    assert (event.data["assignee"], event.data["previousAssignee"]) == (butler.name, clerk.name)
    back = day.call(butler, "DelegateFollowUp", name=follow_up.name, assignee=day.tree.staff["CUSTOMER_ASSISTANT"].name, reason="也不行")
    assert back.delegated_by == butler.name
    pass_to(day, MIDNIGHT)
    assert (seen(day, follow_up).assignee, seen(day, follow_up).delegated_by) == (clerk.name, ""), "the next day is the roster's again"


@pytest.mark.rule("REP-25")
def test_what_was_delegated_for_tomorrow_is_still_his_tomorrow(day: Desk) -> None:
    clerk, butler = day.tree.staff["EARLY_SHIFT_CLERK"], day.tree.staff["BUILDING_BUTLER"]
    follow_up = follow_up_of(day, filed(day, NOON.replace(hour=18)))
    day.call(clerk, "DelegateFollowUp", name=follow_up.name, assignee=butler.name, reason="明天休息")
    pass_to(day, MIDNIGHT)
    assert seen(day, follow_up).assignee == butler.name
    pass_to(day, MIDNIGHT + DAY)
    assert seen(day, follow_up).assignee == clerk.name


@pytest.mark.rule("REP-25")
def test_only_whom_it_falls_to_or_the_supervisor_delegates_with_a_reason_and_to_the_front_line_alone(desk: Desk, elsewhere: Desk) -> None:
    clerk, butler, supervisor = (desk.tree.staff[role] for role in ("EARLY_SHIFT_CLERK", "BUILDING_BUTLER", "CS_SUPERVISOR"))
    doer = employ(desk, "TECHNICIAN", "CUSTOMER_ASSISTANT")
    set_time(desk.database, NOON)
    repair = desk.report()
    for rpc in ("TakeRepair", "ArriveRepair"):
        desk.call(doer, rpc, name=repair.name)
    desk.call(doer, "CompleteRepair", name=repair.name, work_done="换了阀门", self_check=dict.fromkeys(CHECKS, True))
    follow_up = follow_up_of(desk, desk.carry(desk.now(repair), "FILED"))

    answer = desk.refused(butler, "DelegateFollowUp", name=follow_up.name, assignee=butler.name, reason="我来")
    assert (answer.http, answer.reason) == (403, "NOT_YOURS")
    assert desk.refused(desk.tree.technician, "DelegateFollowUp", name=follow_up.name, assignee=butler.name, reason="请您").http == 403
    assert desk.refused(clerk, "DelegateFollowUp", name=follow_up.name, assignee=butler.name).fields == {"reason"}
    for nobody in (clerk, doer, desk.tree.staff["SECURITY_GUARD"], elsewhere.tree.staff["BUILDING_BUTLER"]):
        refusal = desk.refused(clerk, "DelegateFollowUp", name=follow_up.name, assignee=nobody.name, reason="下午在外")
        assert (refusal.http, refusal.reason, refusal.fields) == (400, "ASSIGNEE_NOT_FOUND", {"assignee"})
    assert desk.call(supervisor, "DelegateFollowUp", name=follow_up.name, assignee=butler.name, reason="另派").assignee == butler.name
    desk.call(butler, "AnswerFollowUp", name=follow_up.name, **SATISFIED)
    assert desk.refused(butler, "DelegateFollowUp", name=follow_up.name, assignee=clerk.name, reason="晚了").reason == "ILLEGAL_MOVE"


CHECKS = ("fault_removed", "function_restored", "site_cleared")


def retired(desk: Desk, who: Caller, successor: Caller | None = None) -> bytes:
    with desk.database.read() as tx:
        rows = tx.execute("SELECT id, version, role, node_id FROM dir_posts WHERE staff_id = %s", (who.id,))
        now = tx.now
    event = residents.StaffRetired(staff=who.name, successor=successor.name if successor else "")
    for identifier, version, held, node in rows:
        ended = directory_pb2.Post(staff_id=str(who.id), role=held, node_id=str(node), end_time=stamp(now))
        event.ended_posts.add(id=str(identifier), version=version + 1, post=ended)
    return event_body(event, tree=desk.tree, aggregate="staff", aggregate_id=who.id)


@pytest.mark.rule("ORG-06")
def test_what_somebody_who_leaves_was_to_ask_goes_to_his_successor_of_the_front_line_else_by_turn(desk: Desk) -> None:
    clerk, successor = desk.tree.staff["EARLY_SHIFT_CLERK"], desk.tree.hire(desk.database, "CUSTOMER_ASSISTANT")
    waiting = follow_up_of(desk, filed(desk))
    done = follow_up_of(desk, filed(desk))
    desk.call(clerk, "AnswerFollowUp", name=done.name, **SATISFIED)
    reactions.handle(desk.database, "work_orders", retired(desk, clerk, successor))
    assert (seen(desk, waiting).assignee, seen(desk, done).assignee) == (successor.name, clerk.name)
    reactions.handle(desk.database, "work_orders", retired(desk, successor, desk.tree.technician))
    assert seen(desk, waiting).assignee == desk.tree.staff["BUILDING_BUTLER"].name, "a technician is no front line"


@pytest.mark.rule("REP-25", "FUP-27")
def test_nobody_reached_puts_it_off_to_the_end_of_the_next_duty_day_and_to_its_early_shift(day: Desk) -> None:
    wednesday = day.tree.hire(day.database, "CUSTOMER_ASSISTANT")
    early(day, day.tree.staff["CUSTOMER_ASSISTANT"], 23)
    early(day, wednesday, 25)
    follow_up = follow_up_of(day, filed(day))
    missed = day.call(day.tree.staff["CUSTOMER_ASSISTANT"], "MissFollowUp", name=follow_up.name, method="TELEPHONE")
    assert (instant(missed.due_time), missed.assignee) == (MIDNIGHT + 2 * DAY, day.tree.staff["CUSTOMER_ASSISTANT"].name)
    pass_to(day, MIDNIGHT)
    assert seen(day, follow_up).assignee == wednesday.name
    pass_to(day, MIDNIGHT + 2 * DAY - SECOND)
    assert not seen(day, follow_up).clocks[0].breached
    pass_to(day, MIDNIGHT + 2 * DAY)
    assert seen(day, follow_up).clocks[0].breached


@pytest.mark.rule("FUP-12", "REP-25")
def test_after_the_rework_it_falls_to_the_early_shift_of_that_day(desk: Desk) -> None:
    repair = filed(desk)
    desk.call(desk.tree.staff["EARLY_SHIFT_CLERK"], "AnswerFollowUp", name=follow_up_of(desk, repair).name, **UNHAPPY)
    thursday = desk.tree.hire(desk.database, "CUSTOMER_ASSISTANT")
    early(desk, thursday, 26)
    set_time(desk.database, NOON + 3 * DAY)
    again = follow_up_of(desk, desk.carry(desk.now(repair), "FILED"))
    assert (again.round, again.assignee, instant(again.due_time)) == (2, thursday.name, datetime(2026, 11, 27, tzinfo=CHINA))


def test_lists_show_whose_they_are_what_is_overdue_and_of_which_class_in_pages(desk: Desk) -> None:
    butler, supervisor = desk.tree.staff["BUILDING_BUTLER"], desk.tree.staff["CS_SUPERVISOR"]
    mine, other, public = (
        follow_up_of(desk, filed(desk)),
        follow_up_of(desk, filed(desk)),
        follow_up_of(desk, filed(desk, repair=desk.in_public())),
    )
    desk.call(supervisor, "DelegateFollowUp", name=mine.name, assignee=butler.name, reason="请您回访")

    def listed(**how: Any) -> list[str]:
        return [found.name for found in desk.call(supervisor, "ListFollowUps", parent=desk.tree.parent, **how).follow_ups]

    assert listed(assignee=butler.name) == [mine.name]
    assert listed(**{"class": "PUBLIC_AREA"}) == [public.name]
    assert listed(overdue_only=True) == []
    set_time(desk.database, MIDNIGHT + SECOND)
    assert listed(overdue_only=True) == [public.name, other.name, mine.name]
    assert desk.refused(supervisor, "ListFollowUps", parent=desk.tree.parent, assignee="nobody").fields == {"assignee"}
    page = desk.call(supervisor, "ListFollowUps", parent=desk.tree.parent, page_size=2)
    rest = desk.call(supervisor, "ListFollowUps", parent=desk.tree.parent, page_size=2, page_token=page.next_page_token)
    assert [found.name for found in (*page.follow_ups, *rest.follow_ups)] == [public.name, other.name, mine.name]


def test_the_turn_of_a_day_that_is_to_come_is_of_those_who_are_there_then(desk: Desk) -> None:
    clerk = desk.tree.staff["EARLY_SHIFT_CLERK"]
    arrive(desk.database, absence(clerk, NOON + DAY - HOUR, NOON + DAY + HOUR))
    with desk.database.read() as tx:
        found = [askers.turn(tx, desk.tree.estate, tx.terms(), (NOON + timedelta(days=n)).date(), ()).staff_id for n in range(3)]
    butler: UUID = desk.tree.staff["BUILDING_BUTLER"].id
    assert found == [clerk.id, butler, clerk.id]
