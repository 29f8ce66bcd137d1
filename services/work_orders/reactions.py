"""What work_orders does when something happens in residents, and what it keeps of what billing says."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.names import last
from services.chassis.reactions import Event, on
from services.work_orders import askers, paid_repairs, spot_checks
from services.work_orders.followups import PENDING, FollowUp
from services.work_orders.repairs import IN_HAND, Repair
from services.work_orders.spot_checks import OPEN, SpotCheck
from steward.billing_reminders.v1 import events_pb2 as billing
from steward.options.v1 import options_pb2
from steward.residents.v1 import events_pb2 as residents


@on(residents.StaffRetired)
def hand_over_orders(event: Event[residents.StaffRetired], tx: Transaction) -> None:
    """The orders a technician had in hand go to his successor, where that one is a technician, else back to the pool.

    The posts that have ended come with the event, so that nothing is dispatched to him after this, whatever arrives when.
    """
    directory.apply(tx, event.data.ended_posts)
    left, successor = UUID(last(event.data.staff)), event.data.successor
    nodes = {UUID(post.node_id) for post in event.data.successor_posts if post.role == options_pb2.TECHNICIAN}
    act = tx.act(f"{event.data.staff} has left")
    in_hand = sa.select(Repair.id).where(Repair.technician_id == left, Repair.state.in_(IN_HAND)).order_by(Repair.id)
    for identifier in tx.session.execute(in_hand).scalars().all():
        repair = tx.get(Repair, identifier)
        if repair.technician_id == left and repair.state in IN_HAND:
            there = nodes & {repair.estate_id, repair.company_id, repair.group_id}
            tx.estate = directory.estate_by_id(tx, repair.estate_id)
            repair.hand_over(tx.act(act.reason), UUID(last(successor)) if there else None)


@on(residents.StaffRetired)
def hand_over_follow_ups(event: Event[residents.StaffRetired], tx: Transaction) -> None:
    """What somebody who has left was to ask or to check goes to his successor, where that one may, else to whose turn it is."""
    directory.apply(tx, event.data.ended_posts)
    left = UUID(last(event.data.staff))
    successor = UUID(last(event.data.successor)) if event.data.successor else None
    waiting = sa.select(FollowUp.id).where(FollowUp.assignee_id == left, FollowUp.state == PENDING).order_by(FollowUp.id)
    for identifier in tx.session.execute(waiting).scalars().all():
        follow_up = tx.get(FollowUp, identifier)
        tx.estate = directory.estate_by_id(tx, follow_up.estate_id)
        if follow_up.assignee_id == left and follow_up.state == PENDING and tx.estate is not None:
            askers.reassign(tx, tx.estate, tx.act(f"{event.data.staff} has left"), follow_up, successor)
    unchecked = sa.select(SpotCheck.id).where(SpotCheck.checker_id == left, SpotCheck.state == OPEN).order_by(SpotCheck.id)
    for identifier in tx.session.execute(unchecked).scalars().all():
        check = tx.get(SpotCheck, identifier)
        tx.estate = directory.estate_by_id(tx, check.estate_id)
        if check.checker_id == left and check.state == OPEN and tx.estate is not None:
            spot_checks.reassign(tx, tx.estate, tx.act(f"{event.data.staff} has left"), check)


@on(billing.ReceivableRaised)
def note_raised(event: Event[billing.ReceivableRaised], tx: Transaction) -> None:
    """REP-02: the record says what became of the charge."""
    paid_repairs.hear(tx, event, paid_repairs.State.PROVISIONAL)


@on(billing.ReceivableFellDue)
def note_due(event: Event[billing.ReceivableFellDue], tx: Transaction) -> None:
    """REP-02, REP-37: on the next payment notice."""
    paid_repairs.hear(tx, event, paid_repairs.State.DUE)


@on(billing.ReceivableVoided)
def note_voided(event: Event[billing.ReceivableVoided], tx: Transaction) -> None:
    """REP-02, REP-21."""
    paid_repairs.hear(tx, event, paid_repairs.State.VOID)


@on(residents.PersonMerged)
def keep_reporter(event: Event[residents.PersonMerged], tx: Transaction) -> None:
    """What somebody reported stays his when his two records become one. The duplicate's sessions have ended: nothing new comes from it."""
    duplicate, survivor = UUID(last(event.data.duplicate)), UUID(last(event.data.survivor))
    tx.execute("UPDATE repairs SET reporter_id = %s WHERE reporter_id = %s", (survivor, duplicate))
