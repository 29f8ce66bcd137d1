"""What work_orders does when something happens in residents."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.names import last
from services.chassis.reactions import Event, on
from services.work_orders.repairs import IN_HAND, Repair
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
