"""The service People: load, look or change, and show what may be shown."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.errors import Conflict, InvalidInput, NotFound, StaleEtag, Violation
from services.chassis.names import identifier, last, page_after, page_position, page_token, stamp
from services.residents import correcting, disclosures, histories, merging, search, sight, stated
from services.residents.api.shown import memberships_of, persons, unit_name
from services.residents.people import Membership, Person, identity_index
from services.residents.tree import Unit
from steward.residents.v1 import directory_pb2
from steward.residents.v1 import people_pb2 as pb

PAGE, LINES = 20, 50


def search_people(request: pb.SearchPeopleRequest, tx: Transaction) -> pb.SearchPeopleResponse:
    size, position = request.page_size or PAGE, page_position(request)
    asked = search.Filter(
        directory_pb2.Membership.Kind.Name(request.kind) if request.kind else "",
        pb.Person.Kind.Name(request.person_kind) if request.person_kind else "",
        request.include_past,
    )
    after = (int(position[0]), position[1], position[2]) if position else None
    found = search.people(tx, search.read(request.query), asked, after, size + 1)
    reply = pb.SearchPeopleResponse(people=persons(tx, [hit.person for hit in found[:size]], past=request.include_past))
    if len(found) > size:
        reply.next_page_token = page_token(request, *found[size - 1].place)
    return reply


def look_up_person_by_identity(request: pb.LookUpPersonByIdentityRequest, tx: Transaction) -> pb.LookUpPersonByIdentityResponse:
    estate = one_estate(tx)
    today = sight.Place(estate.id, estate.code, estate.zone).today(tx)
    indexes = [identity_index(number) for number in stated.identities("identity", request.identity, today)]
    query = sa.select(Person).where(Person.group_id == estate.group_id, Person.identity_index.in_(indexes), sight.people_in_sight(tx))
    found = tx.session.execute(query.order_by(Person.id).limit(1)).scalar_one_or_none()
    disclosures.keep(tx, found, disclosures.IDENTITY_LOOK_UP, request.reason)
    return pb.LookUpPersonByIdentityResponse(person=persons(tx, [found])[0] if found else None)


def get_person(request: pb.GetPersonRequest, tx: Transaction) -> pb.Person:
    person = sight.person(tx, last(request.name))
    if not tx.principal.is_resident:
        disclosures.keep_look(tx, person)
    return persons(tx, [person], whole=person.merged_into is None)[0]


def reveal_phone(request: pb.RevealPhoneRequest, tx: Transaction) -> pb.RevealPhoneResponse:
    """Raises Conflict(PHONE_MISSING)."""
    person = sight.living(sight.person(tx, last(request.name)))
    tx.check_input()
    field = pb.Disclosure.Field.Name(request.field or pb.Disclosure.PHONE)
    reply = _clear(tx, person, field)
    if not reply.ByteSize():
        raise Conflict("there is none in the register; it should be completed", reason="PHONE_MISSING", rule="ARC-07")
    disclosures.keep(tx, person, field, request.reason)
    return reply


def _clear(tx: Transaction, person: Person, field: str) -> pb.RevealPhoneResponse:
    if field == disclosures.PHONE:
        return pb.RevealPhoneResponse(phone=person.phone or "")
    if field == disclosures.OTHER_PHONES:
        return pb.RevealPhoneResponse(other_phones=person.other_phones)
    contacts = [m for m in memberships_of(tx, Membership.person_id == person.id, past=False) if m.emergency_phone]
    homes = sight.places(tx, [m.estate_id for m in contacts])
    rows = tx.session.execute(sa.select(Unit.id, Unit.number).where(Unit.id.in_([m.unit_id for m in contacts])))
    numbers = dict(rows.all())
    reply = pb.RevealPhoneResponse()
    for m in contacts:
        name = unit_name(homes[m.estate_id], m.unit_id, numbers[m.unit_id])
        reply.emergency_contacts.add(unit=name, display_name=m.emergency_name, phone=m.emergency_phone)
    return reply


def list_disclosures(request: pb.ListDisclosuresRequest, tx: Transaction) -> pb.ListDisclosuresResponse:
    size, wanted = request.page_size or LINES, last(request.parent)
    if wanted == "-" and tx.principal.is_resident:
        raise NotFound("of others you see nothing", reason="PERSON_NOT_FOUND")
    person = None if wanted == "-" else sight.person(tx, wanted)
    actor = f"staff/{identifier(request.actor, 'staff', 'actor')}" if request.actor else ""
    lines = disclosures.listed(tx, person, actor, page_after(request), size + 1)
    names = disclosures.names_of(tx, (line.actor for line in lines))
    reply = pb.ListDisclosuresResponse()
    for line in lines[:size]:
        reply.disclosures.add(
            disclose_time=stamp(line.at),
            actor=line.actor,
            actor_name=names.get(line.actor, ""),
            person=f"people/{line.person_id}" if line.person_id else "",
            field=line.field,
            reason=line.reason,
        )
    if len(lines) > size:
        reply.next_page_token = page_token(request, lines[size - 1].id)
    return reply


def correct_person(request: pb.CorrectPersonRequest, tx: Transaction) -> pb.Person:
    person = sight.person_to_change(tx, last(request.name), request.etag)
    today = tx.now.date()
    values: dict[str, Any] = {}
    if request.HasField("display_name"):
        values["name"] = stated.name("display_name", request.display_name)
    if request.HasField("kind"):
        values["kind"] = pb.Person.Kind.Name(request.kind)
    if request.HasField("phone"):
        values["phone"] = stated.phone("phone", request.phone)
    if request.HasField("other_phones"):
        values["other_phones"] = [stated.phone("other_phones", phone) for phone in request.other_phones.phones]
    if request.HasField("birthday"):
        values["birthday"] = stated.day("birthday", request.birthday, earliest=stated.FIRST_BIRTHDAY, latest=today)
    identity = None
    if request.HasField("identity"):
        kind = values.get("kind", person.kind)
        identity = stated.identity("identity", request.identity, kind, today) if request.identity else ""
    correcting.correct_person(tx, tx.act(request.reason), person, values, identity)
    return persons(tx, [person], whole=True)[0]


def merge_people(request: pb.MergePeopleRequest, tx: Transaction) -> pb.Person:
    duplicate = sight.person_to_change(tx, last(request.name), request.etag)
    survivor = sight.person_named(tx, request.survivor, "survivor")
    survivor = sight.person_to_change(tx, str(survivor.id))
    if request.survivor_etag and request.survivor_etag != survivor.etag:
        raise StaleEtag("the survivor has changed since it was read; read it again")
    merging.merge(tx, tx.act(request.reason), duplicate, survivor)
    return persons(tx, [survivor], whole=True)[0]


def list_corrections(request: pb.ListCorrectionsRequest, tx: Transaction) -> pb.ListCorrectionsResponse:
    size, before = request.page_size or LINES, page_after(request)
    collection, _, key = request.record.partition("/")
    if not request.record:
        lines = histories.of_scope(tx, before, size + 1)
    elif collection == "people":
        lines = histories.of_person(tx, sight.person(tx, key), before, size + 1)
    elif collection == "units":
        lines = histories.of_unit(tx, sight.unit(tx, key), before, size + 1)
    elif collection == "memberships":
        lines = histories.of_membership(tx, sight.membership(tx, key), before, size + 1)
    else:
        what = [Violation("record", "must be people/…, memberships/… or units/…")]
        raise InvalidInput("of that there is no history here", violations=what)
    names = disclosures.names_of(tx, (line.actor for line in lines))
    reply = pb.ListCorrectionsResponse()
    for line in lines[:size]:
        changes = [pb.Correction.Change(field=field, before=old, after=new) for field, (old, new) in line.changes.items()]
        reply.corrections.add(
            correct_time=stamp(line.at),
            actor=line.actor,
            actor_name=names.get(line.actor, ""),
            reason=line.reason,
            record=line.record,
            version=line.version,
            changes=changes,
        )
    if len(lines) > size:
        reply.next_page_token = page_token(request, lines[size - 1].id)
    return reply


def one_estate(tx: Transaction) -> directory.Estate:
    if tx.estate is None:
        raise InvalidInput("name one estate, not estates/-", reason="ESTATE_REQUIRED")
    return tx.estate
