"""What was wrong on a record is put right: of people, of how they belong to units, of units (ARC-07, CEN-01).

Each correction is a line of the record's history with what stood there before. A register that is imported again passes over
rows it has brought already, so that an old file does not undo what was corrected here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.errors import Conflict, InvalidInput
from services.chassis.lifecycle import Act
from services.residents import sessions
from services.residents.households import OWNER, TENANT, of_unit, refuse_overlap, tell
from services.residents.people import Membership, Person, identity_index, sealed_identity
from services.residents.records import keep_history
from services.residents.register_cells import birthday_of
from services.residents.sight import Place, in_whole_register
from services.residents.stated import SLACK, lease, refused
from services.residents.tree import Building, Unit

_ANOTHER = "SELECT 1 FROM people WHERE group_id = %s AND identity_index = %s AND id <> %s"


def _given(values: dict[str, Any]) -> None:
    if not values:
        raise InvalidInput("say what is to be corrected", reason="NOTHING_TO_CORRECT")


# People


def correct_person(tx: Transaction, act: Act, person: Person, values: dict[str, Any], identity: str | None) -> None:
    """`values`: of the columns name, kind, phone, other_phones, birthday; `identity`: None leaves it, "" takes it away.

    Raises InvalidInput(NOTHING_TO_CORRECT, PERSON_NOT_IDENTIFIABLE), Conflict(IDENTITY_OF_ANOTHER).
    """
    values = dict(values)
    if identity is not None:
        values |= _identity(tx, person, values, identity)
    _given(values)
    _telephones(person, values)
    if not values.get("phone", person.phone) and not values.get("identity_index", person.identity_index) and _had_key(person):
        raise refused("phone", "PERSON_NOT_IDENTIFIABLE", "证件号码和电话至少保留一项")
    before = person.phone
    person.correct(act, **values)
    keep_history(tx, [person], act.reason)
    if person.phone != before:
        sessions.end_sessions(tx, f"people/{person.id}")  # whoever has the wrong telephone must not go on as him


def _had_key(person: Person) -> bool:
    """A child of a household may have neither number nor telephone, and its name may be corrected all the same."""
    return bool(person.phone or person.identity_index)


def _identity(tx: Transaction, person: Person, values: dict[str, Any], identity: str) -> dict[str, Any]:
    if not identity:
        return {"identity_sealed": None, "identity_index": None}
    index = identity_index(identity)
    if index == person.identity_index:  # sealed anew each time: the same number is no correction
        return {"identity_index": index}
    if in_whole_register(tx, _ANOTHER, (person.group_id, index, person.id)):
        raise Conflict("somebody of the group has this identity number: merge the two", reason="IDENTITY_OF_ANOTHER")
    changes: dict[str, Any] = {"identity_sealed": sealed_identity(identity), "identity_index": index}
    followed = person.birthday is None or person.birthday == birthday_of(person.identity)
    if "birthday" not in values and followed and (born := birthday_of(identity)):
        changes["birthday"] = born  # the old one came from the old number
    return changes


def _telephones(person: Person, values: dict[str, Any]) -> None:
    """The first telephone is not among the others, and none stands twice."""
    if "phone" in values or "other_phones" in values:
        first = values.get("phone", person.phone)
        others = dict.fromkeys(values.get("other_phones", person.other_phones))
        others.pop(first, None)
        values["other_phones"] = list(others)


# How they belong to a unit


def correct_membership(tx: Transaction, act: Act, place: Place, membership: Membership, unit: Unit, values: dict[str, Any]) -> None:
    """`values`: of the columns share, starts_on, ends_on, owner_consent, care_marks, emergency_name, emergency_phone, payment_method.

    Raises InvalidInput(NOTHING_TO_CORRECT, NOT_OF_THIS_KIND, END_BEFORE_START, LEASE_TOO_LONG, VALUE_MISSING),
    Conflict(SHARES_EXCEED_WHOLE, ALREADY_MEMBER).
    """
    _given(values)
    for column, kind in (("share", OWNER), ("owner_consent", TENANT)):
        if column in values and membership.kind != kind:
            raise refused(column, "NOT_OF_THIS_KIND", f"belongs to a membership of the kind {kind}")
    first = values.get("starts_on", membership.starts_on)
    last = values.get("ends_on", membership.ends_on)
    others = of_unit(tx, unit)
    if "starts_on" in values or "ends_on" in values:
        _days(membership, first, last)
        refuse_overlap(others, membership.person_id, membership.kind, first, last, but=membership)
    if membership.kind == OWNER:
        _shares(others, membership, values.get("share", membership.share), first, last)
    membership.correct(act, **values)
    keep_history(tx, [membership], act.reason)
    tell(tx, place, unit, [membership])


def _days(membership: Membership, first: date | None, last: date | None) -> None:
    if membership.kind == TENANT:
        if first is None:
            raise refused("start_date", "VALUE_MISSING", "租期开始不能为空")
        lease(first, last)
    elif first is not None and last is not None and last < first:
        raise refused("end_date", "END_BEFORE_START", f"不得早于 {first}")


def _shares(others: list[Membership], membership: Membership, share: Decimal | None, first: date | None, last: date | None) -> None:
    """What was above the whole already, by a register, may be made less. Raises Conflict(SHARES_EXCEED_WHOLE)."""
    mine = share or Decimal(0)
    if mine <= (membership.share or Decimal(0)) and (first, last) == (membership.starts_on, membership.ends_on):
        return
    beside = [m for m in others if m.kind == OWNER and m is not membership and m.overlaps(first, last)]
    begins = {max(m.starts_on or date.min, first or date.min) for m in [*beside, membership]}
    total = max(sum((m.share or Decimal(0) for m in beside if m.covers(day)), mine) for day in begins)
    if total > 100 + SLACK:
        raise Conflict(f"the owners of this unit would have {total.normalize():f} % together", reason="SHARES_EXCEED_WHOLE", rule="TEN-09")


# Units


@dataclass(frozen=True, slots=True)
class Facts:
    """Columns of a unit that are given, and its building by name."""

    values: dict[str, Any]
    building: str | None = None


def correct_unit(tx: Transaction, act: Act, place: Place, unit: Unit, facts: Facts) -> None:
    """Raises InvalidInput(NOTHING_TO_CORRECT, BUILDING_NOT_FOUND, MOVE_IN_DATE_MISSING)."""
    values = dict(facts.values)
    if facts.building is not None:
        query = sa.select(Building.id).where(Building.estate_id == unit.estate_id, Building.name == facts.building)
        building = tx.session.execute(query).scalar_one_or_none()
        if building is None:
            raise refused("building", "BUILDING_NOT_FOUND", "本项目没有这栋楼")
        values["building_id"] = building
    _given(values)
    taken_over, move_in = values.get("taken_over", unit.taken_over), values.get("move_in_date", unit.move_in_date)
    if taken_over and move_in is None and {"taken_over", "move_in_date"} & values.keys():
        raise refused("move_in_date", "MOVE_IN_DATE_MISSING", "已接房的房屋须有入伙日期，物业费自该日起计", rule="MIN-05")
    if unit.correct(act, **values):
        keep_history(tx, [unit], act.reason)
        tell(tx, place, unit, [])
