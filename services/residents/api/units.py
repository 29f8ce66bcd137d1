"""The service Units: units of an estate, who moves in and out, who buys and sells."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.names import identifier, last, page_position, page_token
from services.residents import correcting, households, sight, stated
from services.residents.api import shown
from services.residents.households import Deed, NewOwner, Terms
from services.residents.register_cells import area, code
from services.residents.stated import Party
from services.residents.tree import Building, Unit
from steward.residents.v1 import directory_pb2
from steward.residents.v1 import people_pb2 as pb

PAGE = 20


def get_unit(request: pb.GetUnitRequest, tx: Transaction) -> pb.Unit:
    return shown.units(tx, [sight.unit(tx, last(request.name))], past=request.include_past)[0]


def list_units(request: pb.ListUnitsRequest, tx: Transaction) -> pb.ListUnitsResponse:
    size = request.page_size or PAGE
    query = sa.select(Unit).where(tx.inside(Unit)).order_by(Unit.estate_id, Unit.number).limit(size + 1)
    if request.building:
        query = query.where(Unit.building_id.in_(sa.select(Building.id).where(tx.inside(Building), Building.name == request.building)))
    if request.number:
        query = query.where(sa.func.starts_with(Unit.number, request.number))
    if request.property_type:
        query = query.where(Unit.property_type == directory_pb2.PropertyType.Name(request.property_type))
    if request.occupancy:
        query = query.where(Unit.occupancy == directory_pb2.UnitStatus.Occupancy.Name(request.occupancy))
    for fact, column in (("taken_over", Unit.taken_over), ("under_renovation", Unit.under_renovation)):
        if request.HasField(fact):
            query = query.where(column.is_(getattr(request, fact)))
    if position := page_position(request):
        query = query.where(sa.tuple_(Unit.estate_id, Unit.number) > sa.tuple_(sa.literal(UUID(position[0])), sa.literal(position[1])))
    found = list(tx.session.execute(query).scalars())
    reply = pb.ListUnitsResponse(units=shown.units(tx, found[:size]))
    if len(found) > size:
        reply.next_page_token = page_token(request, found[size - 1].estate_id, found[size - 1].number)
    return reply


def correct_unit(request: pb.CorrectUnitRequest, tx: Transaction) -> pb.Unit:
    unit = sight.unit_to_change(tx, last(request.name), request.etag)
    place = sight.place_of(tx, unit)
    values: dict[str, Any] = {}
    for fact in ("floor", "taken_over", "under_renovation"):
        if request.HasField(fact):
            values[fact] = getattr(request, fact)
    if request.HasField("entrance"):
        values["entrance"] = stated.taken("entrance", lambda: code(request.entrance, "单元"))
    if request.HasField("area"):
        values["area"] = stated.taken("area", lambda: area(request.area))
    if request.HasField("property_type"):
        values["property_type"] = directory_pb2.PropertyType.Name(request.property_type)
    if request.HasField("occupancy"):
        values["occupancy"] = directory_pb2.UnitStatus.Occupancy.Name(request.occupancy)
    if request.HasField("move_in_date"):
        ahead = place.today(tx) + timedelta(days=5 * 366)  # as a register may say
        values["move_in_date"] = stated.day("move_in_date", request.move_in_date, latest=ahead)
    if request.HasField("fee_rate"):
        values["fee_rate"] = stated.fee_rate("fee_rate", request.fee_rate)
    building = stated.taken("building", lambda: code(request.building, "楼栋")) if request.HasField("building") else None
    correcting.correct_unit(tx, tx.act(request.reason), place, unit, correcting.Facts(values, building))
    return shown.units(tx, [unit])[0]


def transfer_unit(request: pb.TransferUnitRequest, tx: Transaction) -> pb.Unit:
    unit = sight.unit_to_change(tx, last(request.name), request.etag)
    place = sight.place_of(tx, unit)
    today = place.today(tx)
    starts_on = stated.day("from_date", request.from_date, latest=stated.furthest(today))
    assert starts_on is not None, "the request was checked"
    owners = tuple(_owner(tx, owner, f"owners[{at}]", today) for at, owner in enumerate(request.owners))
    assigned = request.charges == pb.TransferUnitRequest.ASSIGNED
    deed = Deed(starts_on, owners, request.tenants_leave, request.parking_stays, assigned)
    households.transfer(tx, tx.act(request.reason), place, unit, deed)
    return shown.units(tx, [unit])[0]


def add_member(request: pb.AddMemberRequest, tx: Transaction) -> pb.Member:
    unit = sight.unit_to_change(tx, last(request.name), request.etag)
    place = sight.place_of(tx, unit)
    today = place.today(tx)
    kind = directory_pb2.Membership.Kind.Name(request.kind)
    terms = Terms(
        starts_on=stated.day("start_date", request.start_date, latest=stated.furthest(today)) or today,
        ends_on=stated.day("end_date", request.end_date, latest=stated.furthest(today)),
        owner_consent=request.owner_consent,
        care_marks=tuple(stated.marks("care_marks", request.care_marks)),
        emergency_name=stated.name("emergency_name", request.emergency_name) if request.emergency_name else "",
        emergency_phone=stated.phone("emergency_phone", request.emergency_phone) or "",
        payment_method=stated.words("payment_method", request.payment_method, 20),
        household_id=identifier(request.household, "memberships", "household") if request.household else None,
    )
    made = households.add(tx, tx.act(request.reason), place, unit, _party(tx, request.party, "party", today), kind, terms)
    return shown.member(tx, made)


def end_membership(request: pb.EndMembershipRequest, tx: Transaction) -> pb.Member:
    membership, unit = sight.membership_to_change(tx, last(request.name), request.etag)
    place = sight.place_of(tx, unit)
    ends_on = stated.day("end_date", request.end_date, latest=stated.furthest(place.today(tx)))
    households.end(tx, tx.act(request.reason), place, unit, membership, ends_on)
    return shown.member(tx, membership)


def correct_membership(request: pb.CorrectMembershipRequest, tx: Transaction) -> pb.Member:
    membership, unit = sight.membership_to_change(tx, last(request.name), request.etag)
    place = sight.place_of(tx, unit)
    latest = stated.furthest(place.today(tx))
    values: dict[str, Any] = {}
    if request.HasField("share"):
        values["share"] = stated.share("share", request.share)
    if request.HasField("start_date"):
        values["starts_on"] = stated.day("start_date", request.start_date, latest=latest)
    if request.HasField("end_date"):
        values["ends_on"] = stated.day("end_date", request.end_date, latest=latest)
    if request.HasField("owner_consent"):
        values["owner_consent"] = request.owner_consent
    if request.HasField("care_marks"):
        values["care_marks"] = stated.marks("care_marks", request.care_marks.marks)
    if request.HasField("emergency_name"):
        values["emergency_name"] = stated.name("emergency_name", request.emergency_name) if request.emergency_name else ""
    if request.HasField("emergency_phone"):
        values["emergency_phone"] = stated.phone("emergency_phone", request.emergency_phone) or ""
    if request.HasField("payment_method"):
        values["payment_method"] = stated.words("payment_method", request.payment_method, 20)
    correcting.correct_membership(tx, tx.act(request.reason), place, membership, unit, values)
    return shown.member(tx, membership)


def _owner(tx: Transaction, owner: pb.TransferUnitRequest.Owner, field: str, today: Any) -> NewOwner:
    return NewOwner(
        _party(tx, owner.party, f"{field}.party", today),
        stated.share(f"{field}.share", owner.share),
        stated.name(f"{field}.emergency_name", owner.emergency_name) if owner.emergency_name else "",
        stated.phone(f"{field}.emergency_phone", owner.emergency_phone) or "",
        stated.words(f"{field}.payment_method", owner.payment_method, 20),
    )


def _party(tx: Transaction, party: pb.Party, field: str, today: Any) -> Party:
    if party.person:
        return Party(sight.person_named(tx, party.person, f"{field}.person"), field=field)
    kind = pb.Person.Kind.Name(party.kind or pb.Person.INDIVIDUAL)
    return Party(
        name=stated.name(f"{field}.display_name", party.display_name),
        kind=kind,
        identity=stated.identity(f"{field}.identity", party.identity, kind, today) if party.identity else "",
        phone=stated.phone(f"{field}.phone", party.phone),
        birthday=stated.day(f"{field}.birthday", party.birthday, earliest=stated.FIRST_BIRTHDAY, latest=today),
        field=field,
    )
