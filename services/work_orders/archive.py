"""What stays of a repair: the parts that were put in (REP-16) and the set of documents that is archived with it (REP-28)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Base, Transaction, new_id
from services.chassis.errors import InvalidInput, Violation
from services.chassis.lifecycle import Act

if TYPE_CHECKING:
    from services.work_orders.repairs import Repair

MATERIAL, LABOUR = "MATERIAL", "LABOUR"  # what a charge is for


class Part(Base):
    """A part that was put in: a qualified product, and shown to the household."""

    __tablename__ = "repair_parts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    repair_id: Mapped[UUID] = mapped_column(sa.ForeignKey("repairs.id"))
    name: Mapped[str]
    quantity: Mapped[int]
    qualified: Mapped[bool]
    certificate: Mapped[str]
    shown_to_owner: Mapped[bool]
    bought: Mapped[bool]
    voucher: Mapped[str]
    recorded_by: Mapped[str]
    recorded_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class PutIn:
    """What the technician says of a part."""

    name: str
    quantity: int
    qualified: bool
    shown_to_owner: bool
    certificate: str = ""
    bought: bool = False
    voucher: str = ""


def parts_of(tx: Transaction, repairs: Sequence[UUID]) -> list[Part]:
    """What was put in, in the order in which it was said. Read when an order is completed, filed and archived alone."""
    query = sa.select(Part).where(Part.repair_id.in_(repairs), tx.inside(Part)).order_by(Part.recorded_at, Part.id)
    return list(tx.session.execute(query).scalars())


def recorded(repair: Repair, said: Sequence[PutIn], before: Sequence[Part], act: Act) -> list[Part]:
    """The parts of a completion. Raises InvalidInput when one is not qualified, was not shown, or charged material is not among them
    or those of `before`.

    In a public area nobody is there to be shown a part: its responsible manager accepts the work (REP-22).
    """
    shown = repair.unit_id is None
    wrong = [Violation(f"parts[{place}].qualified", "must be a qualified product") for place, part in enumerate(said) if not part.qualified]
    wrong += [
        Violation(f"parts[{place}].shown_to_owner", "must have been shown to the household")
        for place, part in enumerate(said)
        if not (part.shown_to_owner or shown)
    ]
    if wrong:
        raise InvalidInput("a part is not as it must be", reason="PARTS_INCOMPLETE", rule="REP-16", violations=wrong)
    known = {part.name for part in before} | {part.name for part in said}
    if missing := sorted({charge.item for charge in repair.charges if charge.kind == MATERIAL} - known):
        what = [Violation("parts", f"must list {item}, which is charged as material") for item in missing]
        raise InvalidInput("material that is charged has not been recorded", reason="PARTS_MISSING", rule="REP-16", violations=what)
    return [
        Part(
            id=new_id(), group_id=repair.group_id, company_id=repair.company_id, estate_id=repair.estate_id, repair_id=repair.id,
            name=part.name, quantity=part.quantity, qualified=part.qualified, certificate=part.certificate,
            shown_to_owner=part.shown_to_owner, bought=part.bought, voucher=part.voucher, recorded_by=str(act.principal), recorded_at=act.now,
        )
        for part in said
    ]  # fmt: skip


class Kind(enum.StrEnum):
    """The documents of the set."""

    REPORT_FORM = "REPORT_FORM"
    DISPATCH_ORDER = "DISPATCH_ORDER"
    ACCEPTANCE_FORM = "ACCEPTANCE_FORM"
    PURCHASE_VOUCHER = "PURCHASE_VOUCHER"


@dataclass(frozen=True, slots=True)
class Document:
    """One of them: what it is known by, or an empty reference when it is not there."""

    kind: Kind
    reference: str
    at: datetime | None = None
    part: str = ""

    @property
    def present(self) -> bool:
        return bool(self.reference)


def documents(repair: Repair, parts: Iterable[Part]) -> list[Document]:
    """The set of an order; a voucher for each part that was bought for it."""
    accepted = repair.signed_by if repair.accepted_at is not None else ""
    return [
        Document(Kind.REPORT_FORM, repair.number or str(repair.id), repair.reported_at),
        Document(Kind.DISPATCH_ORDER, repair.handler or "", repair.arrived_at),
        Document(Kind.ACCEPTANCE_FORM, accepted, repair.accepted_at),
        *(Document(Kind.PURCHASE_VOUCHER, part.voucher, part.recorded_at, part.name) for part in parts if part.bought),
    ]


def hand_in(parts: Sequence[Part], vouchers: Mapping[str, str]) -> None:
    """Vouchers (by the part's name) that come with the paper. Raises InvalidInput for a part that was not bought, or has one."""
    waiting = {part.name for part in parts if part.bought and not part.voucher}
    if unknown := [name for name in vouchers if name not in waiting]:
        what = [Violation("vouchers", f"{name} was not bought for this order, or has its voucher") for name in unknown]
        raise InvalidInput("a voucher belongs to nothing", reason="PART_NOT_FOUND", rule="REP-28", violations=what)
    for part in parts:
        if part.bought and not part.voucher:
            part.voucher = vouchers.get(part.name, "")


def gap(repair: Repair, parts: Sequence[Part], reason: str) -> str:
    """Why the set has a gap; empty when it has none. Raises InvalidInput(DOCUMENT_MISSING) when nobody says why."""
    missing = [document for document in documents(repair, parts) if not document.present]
    if missing and not reason.strip():
        what = [Violation("vouchers" if d.part else "missing_reason", f"{d.kind} {_of(d)}is missing") for d in missing]
        raise InvalidInput(
            "a document of the order is missing; hand it in or say why", reason="DOCUMENT_MISSING", rule="REP-28", violations=what
        )
    return reason.strip() if missing else ""


def _of(document: Document) -> str:
    return f"of {document.part} " if document.part else ""


def complete(found: Iterable[Document]) -> bool:
    return all(document.present for document in found)


def signed(tx: Transaction, repairs: Sequence[UUID]) -> set[UUID]:
    """Orders of which a signature is kept."""
    rows = tx.execute(
        "SELECT DISTINCT aggregate_id FROM attachments WHERE aggregate_id = ANY(%s) AND purpose = 'signature'", (list(repairs),)
    )
    return {row[0] for row in rows}
