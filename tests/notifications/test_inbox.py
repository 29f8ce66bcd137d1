"""The inbox over its real port: what a person sees of his messages, and that nobody else sees them."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy.exc import ProgrammingError

from services.chassis.access import Scope
from services.chassis.testing import Api, Caller, Refused, Tree, a_tree
from services.notifications import api as functions
from steward.notifications.v1 import messages_pb2 as pb
from steward.work_orders.v1 import events_pb2 as events
from tests.notifications.inboxes import AT, NUMBER, Inboxes, minutes, reported


def fill(inboxes: Inboxes, tree: Tree, count: int, *, urgent: int = 0) -> None:
    """`count` messages for the technician, a minute apart from AT on; the first `urgent` of them urgent."""
    for place in range(count):
        message = events.RepairDispatched(number=f"WX-{place:04d}", technician=tree.technician.name, urgent=place < urgent)
        inboxes.happens(message, tree, at=AT + minutes(place))


def numbers(reply: Any) -> list[str]:
    return [message.number for message in reply.messages]


def test_a_message_says_what_happened_when_and_to_which_case(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    subject = f"{tree.parent}/repairs/{uuid4()}"
    inboxes.happens(reported(tree, urgent=True), tree, at=AT, subject=subject)

    (message,) = api.call(tree.owner, "ListMessages").messages

    assert message.kind == pb.Message.REPAIR_RECEIVED
    assert message.title == f"【紧急】报修 {NUMBER} 已受理"
    assert (message.subject, message.number, message.urgent) == (subject, NUMBER, True)
    assert message.event_time.ToDatetime() == AT.replace(tzinfo=None)
    assert message.HasField("create_time")
    assert not message.HasField("read_time")


def test_the_inbox_lists_the_newest_happening_first_though_it_arrived_first(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    for place in (2, 0, 1):
        message = events.RepairDispatched(number=f"WX-{place:04d}", technician=tree.technician.name)
        inboxes.happens(message, tree, at=AT + minutes(place))

    assert numbers(api.call(tree.technician, "ListMessages")) == ["WX-0002", "WX-0001", "WX-0000"]


def test_pages_show_every_message_once_while_new_ones_arrive(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 5)
    seen: list[str] = []
    token = ""
    for _ in range(3):
        page = api.call(tree.technician, "ListMessages", page_size=2, page_token=token)
        seen, token = seen + numbers(page), page.next_page_token
        inboxes.happens(events.RepairDispatched(number="WX-LATER", technician=tree.technician.name), tree, at=AT + minutes(60))

    assert seen == ["WX-0004", "WX-0003", "WX-0002", "WX-0001", "WX-0000"]
    assert token == ""


def test_messages_of_one_instant_are_paged_without_loss(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    for place in range(3):
        inboxes.happens(events.RepairDispatched(number=f"WX-{place:04d}", technician=tree.technician.name), tree, at=AT)
    first = api.call(tree.technician, "ListMessages", page_size=1)
    rest = api.call(tree.technician, "ListMessages", page_size=2, page_token=first.next_page_token)

    assert sorted(numbers(first) + numbers(rest)) == ["WX-0000", "WX-0001", "WX-0002"]
    assert rest.next_page_token == ""


def test_unread_only_leaves_out_what_has_been_read(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 3)
    middle = api.call(tree.technician, "ListMessages").messages[1]

    api.call(tree.technician, "MarkMessageRead", name=middle.name)

    assert numbers(api.call(tree.technician, "ListMessages", unread_only=True)) == ["WX-0002", "WX-0000"]
    assert numbers(api.call(tree.technician, "ListMessages")) == ["WX-0002", "WX-0001", "WX-0000"]


def test_reading_a_message_again_keeps_the_time_it_was_first_read(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 1)
    name = api.call(tree.technician, "ListMessages").messages[0].name

    first = api.call(tree.technician, "MarkMessageRead", name=name)
    again = api.call(tree.technician, "MarkMessageRead", name=name)

    assert first.HasField("read_time")
    assert again == first


def test_the_same_command_sent_twice_is_done_once(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 2)
    key = str(uuid4())

    first = api.call(tree.technician, "MarkAllMessagesRead", request_id=key)
    fill(inboxes, tree, 1)

    assert (first.marked_count, first.unread_count) == (2, 0)
    assert api.call(tree.technician, "MarkAllMessagesRead", request_id=key) == first
    assert api.call(tree.technician, "CountUnreadMessages").unread_count == 1


def test_the_badge_counts_unread_and_urgent_messages(inboxes: Inboxes, tree: Tree, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.call(tree.technician, "CountUnreadMessages") == pb.CountUnreadMessagesResponse()
    fill(inboxes, tree, 4, urgent=1)

    assert api.call(tree.technician, "CountUnreadMessages") == pb.CountUnreadMessagesResponse(unread_count=4, urgent_count=1)
    monkeypatch.setattr(functions, "COUNTED", 3)
    assert api.call(tree.technician, "CountUnreadMessages").unread_count == 3


def test_what_arrives_after_the_person_looked_stays_unread(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 2)
    shown = api.call(tree.technician, "ListMessages").messages
    inboxes.happens(events.RepairDispatched(number="WX-LATER", technician=tree.technician.name), tree, at=AT)

    reply = api.call(tree.technician, "MarkAllMessagesRead", until_time=shown[0].create_time)

    assert (reply.marked_count, reply.unread_count) == (2, 1)
    assert numbers(api.call(tree.technician, "ListMessages", unread_only=True)) == ["WX-LATER"]


def test_reading_all_takes_a_bounded_number_the_oldest_first(
    inboxes: Inboxes, tree: Tree, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(inboxes, tree, 3)
    monkeypatch.setattr(functions, "MARKED", 2)

    assert api.call(tree.technician, "MarkAllMessagesRead") == pb.MarkAllMessagesReadResponse(marked_count=2, unread_count=1)
    assert numbers(api.call(tree.technician, "ListMessages", unread_only=True)) == ["WX-0002"]
    assert api.call(tree.technician, "MarkAllMessagesRead") == pb.MarkAllMessagesReadResponse(marked_count=1, unread_count=0)
    assert api.call(tree.technician, "MarkAllMessagesRead") == pb.MarkAllMessagesReadResponse()


def test_nobody_sees_or_marks_the_messages_of_another_however_high_his_post(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 1)
    name = api.call(tree.technician, "ListMessages").messages[0].name
    namesake = Caller("people", tree.technician.id)  # the same id in another collection

    for other in (tree.staff["GENERAL_MANAGER"], tree.staff["GROUP_OPERATIONS"], tree.owner, namesake):
        assert api.call(other, "ListMessages").messages == []
        assert api.call(other, "CountUnreadMessages").unread_count == 0
        assert api.call(other, "MarkAllMessagesRead").marked_count == 0
        with pytest.raises(Refused) as refused:
            api.call(other, "MarkMessageRead", name=name)
        assert (refused.value.http, refused.value.reason) == (404, "MESSAGE_NOT_FOUND")
    assert api.call(tree.technician, "CountUnreadMessages").unread_count == 1


def test_who_has_not_signed_in_has_no_inbox(api: Api) -> None:
    for rpc in ("ListMessages", "CountUnreadMessages", "MarkAllMessagesRead"):
        with pytest.raises(Refused) as refused:
            api.call(None, rpc)
        assert refused.value.http == 401


@pytest.mark.parametrize("name", ["messages/1", "messages/", "x", "messages/00000000-0000-0000-0000-000000000000", "repairs/𬭎'; --"])
def test_a_message_that_is_not_there_is_not_found(tree: Tree, api: Api, name: str) -> None:
    with pytest.raises(Refused) as refused:
        api.call(tree.owner, "MarkMessageRead", name=name)
    assert (refused.value.http, refused.value.reason) == (404, "MESSAGE_NOT_FOUND")


@pytest.mark.parametrize("fields", [{"page_size": -1}, {"page_size": 101}, {"page_token": "x" * 501}])
def test_a_page_that_cannot_be_is_refused(tree: Tree, api: Api, fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        api.call(tree.owner, "ListMessages", **fields)
    assert refused.value.http == 400
    assert refused.value.fields == set(fields)


def test_a_page_token_of_another_query_or_one_tampered_with_is_refused(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    fill(inboxes, tree, 2)
    token = api.call(tree.technician, "ListMessages", page_size=1).next_page_token
    raw = base64.urlsafe_b64decode(token + "==")
    seal, (at, identifier) = raw[:12], json.loads(raw[12:])
    forged = [[], [at], ["yesterday", identifier], [at, "1"], [1, 2], [at, identifier, at], [None, None]]
    tokens = [base64.urlsafe_b64encode(seal + json.dumps(content).encode()).decode().rstrip("=") for content in forged]

    for fields in [{"page_token": token, "unread_only": True}, {"page_token": "x"}, *({"page_token": t} for t in tokens)]:
        with pytest.raises(Refused) as refused:
            api.call(tree.technician, "ListMessages", **fields)
        assert (refused.value.http, refused.value.reason) == (400, "INVALID_PAGE_TOKEN"), fields


def test_the_database_itself_shows_a_person_his_own_messages_only(inboxes: Inboxes, tree: Tree, postgres: Any) -> None:
    fill(inboxes, tree, 2)
    whole_group = Scope(groups=frozenset({tree.group_id}), companies=frozenset({tree.company_id}), estates=frozenset({tree.estate_id}))
    count = "SELECT count(*) FROM messages"

    with inboxes.database.read(tree.staff["GENERAL_MANAGER"].principal, whole_group) as tx:
        assert tx.execute(count) == [(0,)]
    with inboxes.database.read(tree.technician.principal, Scope()) as tx:
        assert tx.execute(count) == [(2,)]
    assert postgres.sql("notifications", count, role="notifications") == [(0,)], "who has not said who he is sees nothing"


def test_the_database_lets_nobody_write_into_an_inbox_but_steward_and_nothing_of_a_message_change(inboxes: Inboxes, tree: Tree) -> None:
    fill(inboxes, tree, 1)
    copy = (
        "INSERT INTO messages SELECT gen_random_uuid(), group_id, company_id, estate_id, recipient, kind, title, body, subject, number,"
        " urgent, skipped_roles, gen_random_uuid(), occurred_at, created_at, read_at FROM messages"
    )
    refusals = {
        copy: "row-level security",
        "UPDATE messages SET body = '改过'": "permission denied",
        "UPDATE messages SET recipient = 'staff/00000000-0000-0000-0000-000000000000'": "permission denied",
    }
    for statement, why in refusals.items():
        with (
            pytest.raises((psycopg2.Error, ProgrammingError), match=why),
            inboxes.database.transaction(tree.technician.principal, Scope()) as tx,
        ):
            tx.execute(statement)
    with inboxes.database.transaction(tree.technician.principal, Scope()) as tx:
        assert tx.execute("DELETE FROM messages RETURNING 1") == [], "only Steward removes what is old"
    with pytest.raises(psycopg2.Error, match="permission denied"), inboxes.database.transaction() as tx:
        tx.execute("UPDATE messages SET body = '改过'")


def test_another_estates_messages_do_not_mix_with_these(inboxes: Inboxes, tree: Tree, api: Api) -> None:
    next_door = a_tree(inboxes.database, beside=tree)
    inboxes.happens(reported(tree), tree)
    inboxes.happens(reported(next_door), next_door, at=AT + timedelta(hours=1))

    (message,) = api.call(next_door.staff["ENGINEERING_SUPERVISOR"], "ListMessages").messages
    assert next_door.code in message.subject
