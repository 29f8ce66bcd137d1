"""One function per RPC of renovation; all of them read."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.names import last, stamp
from services.renovation.renovations import DIR_NODES, Renovation
from steward.renovation.v1 import renovations_pb2 as pb


def get_renovation(request: pb.GetRenovationRequest, tx: Transaction) -> pb.Renovation:
    return message(tx.see(Renovation, last(request.name)))


def list_renovations(request: pb.ListRenovationsRequest, tx: Transaction) -> pb.ListRenovationsResponse:
    query = sa.select(Renovation)
    if tx.estate is None:  # an estate the directory has not heard of yet has no name to show
        query = query.where(sa.exists().where(DIR_NODES.c.id == Renovation.estate_id))
    if request.states:
        query = query.where(Renovation.state.in_([pb.Renovation.State.Name(state) for state in request.states]))
    if request.unit:
        query = query.where(Renovation.unit_id.in_(_units(request.unit, tx)))
    found, token = tx.page(query, Renovation, request)
    return pb.ListRenovationsResponse(renovations=[message(renovation) for renovation in found], next_page_token=token)


def message(renovation: Renovation) -> pb.Renovation:
    """The resource as callers see it."""
    return pb.Renovation(
        name=renovation.subject,
        state=renovation.state,
        etag=renovation.etag,
        origin=renovation.origin,
        unit=renovation.unit,
        papers_outstanding=renovation.papers_outstanding,
        remark=renovation.remark,
        create_time=stamp(renovation.created_at),
        end_time=stamp(renovation.ended_at),
    )


def _units(number: str, tx: Transaction) -> sa.Select[tuple[UUID]]:
    units = sa.select(DIR_NODES.c.id).where(DIR_NODES.c.kind == "UNIT", DIR_NODES.c.code == number)
    return units.where(DIR_NODES.c.estate_id == tx.estate.id) if tx.estate else units
