"""An inbox forgets what is a year old, and nobody but Steward can take a message out of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.chassis.access import Scope
from services.chassis.retention import forget
from services.chassis.testing import Api, Tree, advance
from tests.notifications.inboxes import Inboxes, reported


def test_a_message_goes_when_it_is_a_year_old_read_or_not(inboxes: Inboxes, tree: Tree, api: Api, moving_time: None) -> None:
    now = datetime.now(UTC)
    for at in (now, now - timedelta(days=1)):
        inboxes.happens(reported(tree), tree, at=at)
    told = tree.staff["ENGINEERING_SUPERVISOR"]
    assert len(inboxes.of(told)) == 2
    api.call(told, "MarkAllMessagesRead")
    advance(inboxes.database, timedelta(days=365) - timedelta(minutes=1))
    forget(inboxes.database)
    [young] = inboxes.of(told)
    assert datetime.fromisoformat(young["occurred_at"]) == now
    advance(inboxes.database, timedelta(minutes=2))
    forget(inboxes.database)
    assert inboxes.of(told) == []


def test_who_was_told_cannot_make_it_unsaid(inboxes: Inboxes, tree: Tree) -> None:
    inboxes.happens(reported(tree), tree, at=datetime.now(UTC))
    told = tree.staff["ENGINEERING_SUPERVISOR"]
    with inboxes.database.transaction(told.principal, Scope()) as tx:
        assert tx.execute("SELECT count(*) FROM messages") == [(1,)]
        assert tx.execute("DELETE FROM messages RETURNING 1") == []
    assert len(inboxes.of(told)) == 1
