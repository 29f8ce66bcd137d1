"""Two records that are one person become one: the survivor has everything, the duplicate stays and names him.

Both are locked after the group's turn has come, so that two merges at once, or a merge and an import, come one after the
other. Memberships move; of one unit and kind those that overlap become one. The register's next import finds the survivor
under every name, telephone and number that the duplicate had, and passes over the rows it has brought already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from services.chassis.db import Transaction
from services.chassis.errors import Conflict
from services.chassis.events import Happened, append
from services.chassis.lifecycle import Act
from services.residents import sessions
from services.residents.directory import publish
from services.residents.households import OWNER
from services.residents.people import Membership, Person
from services.residents.records import keep_history
from services.residents.sight import in_whole_register, places
from services.residents.stated import SLACK
from steward.residents.v1 import events_pb2 as events


def merge(tx: Transaction, act: Act, duplicate: Person, survivor: Person) -> None:
    """Both are locked and in sight.

    Raises Conflict(SAME_PERSON, KINDS_DIFFER, IDENTITIES_DIFFER, MEMBER_ELSEWHERE).
    """
    if duplicate.id == survivor.id:
        raise Conflict("that is the same record", reason="SAME_PERSON")
    if duplicate.group_id != survivor.group_id:
        raise Conflict("they are of different groups", reason="MEMBER_ELSEWHERE")
    if duplicate.kind != survivor.kind:
        raise Conflict("one is a person and one a company: correct that first", reason="KINDS_DIFFER")
    if duplicate.identity_index and survivor.identity_index:  # an index is one person's in a group, so they differ
        raise Conflict("they have different identity numbers: correct the wrong one first", reason="IDENTITIES_DIFFER")
    both = (duplicate.id, survivor.id)
    query = sa.select(Membership).where(Membership.person_id.in_(both)).order_by(Membership.id).with_for_update()
    memberships = list(tx.session.execute(query.execution_options(populate_existing=True)).scalars())
    everywhere = in_whole_register(tx, "SELECT count(*) FROM memberships WHERE person_id = ANY(%s)", (list(both),))[0][0]
    if everywhere != len(memberships):
        raise Conflict("one of them belongs to a unit out of your sight: somebody above both estates merges", reason="MEMBER_ELSEWHERE")

    _hand_over(tx, act, duplicate, survivor)
    folding = _Folding(act, survivor.id)
    for _, group in groupby(sorted(memberships, key=_household), key=_household):
        folding.fold(tx, list(group))
    folding.write(tx)
    sessions.end_sessions(tx, f"people/{duplicate.id}")
    keep_history(tx, [duplicate, survivor, *folding.changed, *folding.gone], act.reason)
    _tell(tx, act, duplicate, survivor, folding)


def _household(membership: Membership) -> tuple[UUID, str]:
    return membership.unit_id, membership.kind


def _hand_over(tx: Transaction, act: Act, duplicate: Person, survivor: Person) -> None:
    """The survivor takes what he lacks. Written one after the other: a number is one person's at any moment."""
    taken: dict[str, Any] = {}
    if duplicate.identity_index:
        taken |= {"identity_index": duplicate.identity_index, "identity_sealed": duplicate.identity_sealed}
    if survivor.birthday is None and duplicate.birthday is not None:
        taken["birthday"] = duplicate.birthday
    phones = dict.fromkeys(p for p in (survivor.phone, duplicate.phone, *survivor.other_phones, *duplicate.other_phones) if p)
    first = survivor.phone or duplicate.phone
    phones.pop(first, None)  # type: ignore[arg-type]
    taken |= {"phone": first, "other_phones": list(phones)}
    # While the duplicate's memberships are his, both are in sight of row-level security; afterwards he is by the survivor.
    duplicate.correct(act, merged_into=survivor.id, identity_index=None, identity_sealed=None)
    repointed = sa.select(Person).where(Person.merged_into == duplicate.id).with_for_update()
    for older in tx.session.execute(repointed).scalars():
        older.correct(act, merged_into=survivor.id)
        keep_history(tx, [older], act.reason)
    tx.session.flush()
    survivor.correct(act, **taken)
    survivor.note(act, {}, {"took_over": f"people/{duplicate.id}"})
    tx.session.flush()


@dataclass(slots=True)
class _Folding:
    """What becomes of the memberships: `changed` are the survivor's, `gone` were folded into one of them."""

    act: Act
    survivor_id: UUID
    changed: list[Membership] = field(default_factory=list)
    gone: list[Membership] = field(default_factory=list)
    into: dict[UUID, Membership] = field(default_factory=dict)

    def fold(self, tx: Transaction, memberships: list[Membership]) -> None:
        """Those of one unit and kind."""
        for run in runs(memberships):
            moved = [m for m in run if m.person_id != self.survivor_id]
            if not moved:
                continue
            # The one that lasts longest stays: an owner's open membership is one at any moment.
            own = [m for m in run if m.person_id == self.survivor_id]
            keeper = max(own or run, key=lambda m: m.ends_on or date.max)
            rest = [m for m in run if m is not keeper]
            values = _folded(tx, keeper, rest) if rest else {}
            keeper.correct(self.act, person_id=self.survivor_id, **values)
            keeper.former_digests = _digests(keeper, rest)
            self.changed.append(keeper)
            for membership in rest:
                membership.note(self.act, {"person_id": membership.person_id}, {"folded_into": f"memberships/{keeper.id}"})
                self.gone.append(membership)
                self.into[membership.id] = keeper

    def write(self, tx: Transaction) -> None:
        """Households of what was folded follow; then the folded ones are no more, and their history says where they went."""
        tx.session.flush()
        if self.into:
            family = sa.select(Membership).where(Membership.household_id.in_(self.into)).with_for_update()
            for member in tx.session.execute(family).scalars():
                member.correct(self.act, household_id=self.into[member.household_id].id)  # type: ignore[index]
                if member not in self.changed and member not in self.gone:
                    self.changed.append(member)
        tx.session.flush()
        for membership in self.gone:
            tx.session.delete(membership)
        tx.session.flush()


def runs(memberships: Sequence[Membership]) -> list[list[Membership]]:
    """Memberships that overlap, one after the other, belong together."""
    found: list[list[Membership]] = []
    last = date.min
    for membership in sorted(memberships, key=lambda m: (m.starts_on or date.min, m.id)):
        if found and (membership.starts_on or date.min) <= last:
            found[-1].append(membership)
            last = max(last, membership.ends_on or date.max)
        else:
            found.append([membership])
            last = membership.ends_on or date.max
    return found


def _folded(tx: Transaction, keeper: Membership, rest: Sequence[Membership]) -> dict[str, Any]:
    """What the one that stays says afterwards: from the first day to the last, and whatever only the other knew."""
    run = [keeper, *rest]
    starts, ends = [m.starts_on for m in run], [m.ends_on for m in run]
    consents = [m.owner_consent for m in run if m.owner_consent is not None]
    contact = next((m for m in run if m.emergency_phone), keeper)
    return {
        "starts_on": None if None in starts else min(day for day in starts if day is not None),
        "ends_on": None if None in ends else max(day for day in ends if day is not None),
        "share": _share(tx, keeper, rest),
        "owner_consent": any(consents) if consents else None,
        "care_marks": list(dict.fromkeys(mark for m in run for mark in m.care_marks)),
        "emergency_name": contact.emergency_name,
        "emergency_phone": contact.emergency_phone,
        "payment_method": next((m.payment_method for m in run if m.payment_method), ""),
        "household_id": next((m.household_id for m in run if m.household_id), None),
    }


def _share(tx: Transaction, keeper: Membership, rest: Sequence[Membership]) -> Decimal | None:
    """The two shares together where the unit has room for them; otherwise one was the other written twice, and one counts."""
    shares = [m.share for m in (keeper, *rest) if m.share is not None]
    if keeper.kind != OWNER or not shares:
        return None
    ids = [m.id for m in (keeper, *rest)]
    beside = tx.execute(
        "SELECT coalesce(sum(share), 0) FROM memberships WHERE unit_id = %s AND kind = 'OWNER' AND ends_on IS NULL AND NOT id = ANY(%s)",
        (keeper.unit_id, ids),
    )[0][0]
    return sum(shares) if sum(shares) + beside <= 100 + SLACK else shares[0]  # type: ignore[return-value]


def _digests(keeper: Membership, rest: Iterable[Membership]) -> list[bytes]:
    known = [*keeper.former_digests]
    for membership in rest:
        known += [digest for digest in (membership.register_digest, *membership.former_digests) if digest]
    return list(dict.fromkeys(known))


def _tell(tx: Transaction, act: Act, duplicate: Person, survivor: Person, folding: _Folding) -> None:
    touched = [*folding.changed, *folding.gone]
    homes = places(tx, [m.estate_id for m in touched])
    where: tuple[UUID, UUID | None, UUID | None] = (survivor.group_id, None, None)
    for estate, group in groupby(sorted(touched, key=lambda m: m.estate_id), key=lambda m: m.estate_id):
        members = list(group)
        where = (members[0].group_id, members[0].company_id, estate)
        entries = [m.entry(homes[estate].zone, deleted=m in folding.gone) for m in members]
        publish(tx, entries, group_id=where[0], company_id=where[1], estate_id=where[2])
    merged = events.PersonMerged(duplicate=f"people/{duplicate.id}", survivor=f"people/{survivor.id}")
    append(tx, Happened("person", duplicate.id, duplicate.version, f"people/{duplicate.id}", merged, act.now, *where))
