"""Receivables (应收) of chargeable repairs: raised when the repair is finished, due when the household accepts (REP-37).

Events of a repair may overtake each other and come twice, so nothing here asks what came before. `RepairBill` keeps the
newest word about a repair and the newest price, each by the `sequence` of the event that said it; `Receivable` follows the
bill. Whatever the order, the same events lead to the same receivable.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from google.type.date_pb2 import Date
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, column_property, mapped_column

from services.billing_reminders import policies
from services.chassis.db import Base, Transaction, new_id
from services.chassis.directory import Estate
from services.chassis.errors import Unavailable
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move
from services.chassis.names import money
from services.chassis.policies import Terms
from steward.billing_reminders.v1 import events_pb2 as events


class State(enum.StrEnum):
    PROVISIONAL = "PROVISIONAL"
    DUE = "DUE"
    VOID = "VOID"


PROVISIONAL, DUE, VOID = State

# No move is illegal: a rejection that arrives after the second acceptance leads from VOID to DUE, and so on.
LIFECYCLE = Lifecycle(State, PROVISIONAL, [
    #    action      from                       to                        rules
    Move("raise",    {PROVISIONAL, DUE, VOID},  PROVISIONAL,  by=SYSTEM,  rules="REP-37"),
    Move("fall_due", {PROVISIONAL, DUE, VOID},  DUE,          by=SYSTEM,  rules="REP-37"),
    Move("void",     {PROVISIONAL, DUE, VOID},  VOID,         by=SYSTEM,  rules="REP-21 REP-37"),
])  # fmt: skip
LEADS_TO = {move.target: move.action for move in LIFECYCLE.moves}

DIR_NODES = sa.table(
    "dir_nodes", sa.column("id", sa.Uuid), sa.column("code", sa.Text), sa.column("kind", sa.Text), sa.column("estate_id", sa.Uuid)
)


@dataclass(frozen=True, slots=True)
class News:
    """What one event of a repair says about its charge. `charge` is None when it names none."""

    sequence: int
    at: datetime
    state: State
    charge: Decimal | None = None
    unit_id: UUID | None = None
    reporter: str = ""
    repair_number: str = ""


class RepairBill(Base):
    """What has been heard of the charge of one repair; also of a free one, or a late older event would bring it back."""

    __tablename__ = "repair_bills"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # the repair's
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    sequence: Mapped[int]
    state: Mapped[str]
    state_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    charge_sequence: Mapped[int]
    charge: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    unit_id: Mapped[UUID | None]
    reporter: Mapped[str]
    repair_number: Mapped[str]

    @classmethod
    def blank(cls, repair_id: UUID, group_id: UUID | None, company_id: UUID | None, estate_id: UUID | None, at: datetime) -> RepairBill:
        """Of a repair nothing has been heard of: sequence 0 is older than every event."""
        return cls(
            id=repair_id, group_id=group_id, company_id=company_id, estate_id=estate_id, sequence=0, state=VOID, state_at=at,
            charge_sequence=0, charge=None, unit_id=None, reporter="", repair_number="",
        )  # fmt: skip

    def hear(self, news: News) -> None:
        """Keeps what is newer than what is known: in any order, any number of times."""
        if news.sequence > self.sequence:
            self.sequence, self.state, self.state_at = news.sequence, news.state, news.at
        if news.charge is not None and news.sequence > self.charge_sequence:
            self.charge_sequence, self.charge = news.sequence, news.charge
            self.unit_id, self.reporter, self.repair_number = news.unit_id, news.reporter, news.repair_number


class Receivable(Case, Base):
    """What a household owes for one repair."""

    __tablename__ = "receivables"
    KIND, COLLECTION, PREFIX = "receivable", "receivables", "YS"
    LIFECYCLE = LIFECYCLE

    kind: Mapped[str]
    repair_id: Mapped[UUID]
    repair_number: Mapped[str]
    unit_id: Mapped[UUID | None] = mapped_column()
    # The unit's number, from the directory as it is when the receivable is read.
    unit: Mapped[str | None] = column_property(sa.select(DIR_NODES.c.code).where(DIR_NODES.c.id == unit_id).scalar_subquery())
    reporter: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    state_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    month: Mapped[date]  # the first day of the month of `state_at`, as the estate counts days
    notice_on: Mapped[date | None]
    due_on: Mapped[date | None]

    @classmethod
    def owned_by(cls) -> tuple[Any, Any]:
        return None, cls.unit_id

    @classmethod
    def of(cls, bill: RepairBill, estate: Estate, act: Act) -> Receivable:
        """REP-37: the amount is fixed on the order. The first state is always PROVISIONAL; `follow` goes on from there."""
        receivable = cls(
            id=new_id(), group_id=estate.group_id, company_id=estate.company_id, estate_id=estate.id, estate_code=estate.code,
            created_at=act.now, updated_at=act.now, version=0, event_count=0, number=None, kind="REPAIR", repair_id=bill.id,
            **_standing(bill, PROVISIONAL, act.terms),
        )  # fmt: skip
        receivable.open(act, "raise")
        receivable._tell(act)
        return receivable

    def follow(self, bill: RepairBill, act: Act) -> bool:
        """Comes to stand as the bill says. Returns whether that changed anything."""
        standing = _standing(bill, State(bill.state), act.terms)
        if self.state == bill.state and all(getattr(self, name) == value for name, value in standing.items()):
            return False
        self.move(LEADS_TO[State(bill.state)], act, **standing)
        self._tell(act)
        return True

    def _tell(self, act: Act) -> None:
        facts: dict[str, Any] = {
            "receivable": str(self.id), "number": self.number or "", "repair": str(self.repair_id), "unit_id": str(self.unit_id or ""),
            "reporter": self.reporter, "amount": money(self.amount),
        }  # fmt: skip
        if self.state == PROVISIONAL:
            self.record(events.ReceivableRaised(**facts), act)
        elif self.state == DUE:
            self.record(events.ReceivableFellDue(**facts, notice_date=civil(self.notice_on), due_date=civil(self.due_on)), act)
        else:
            self.record(events.ReceivableVoided(**facts), act)


def settle(tx: Transaction, repair_id: UUID, scope: tuple[UUID | None, UUID | None, UUID | None], news: News) -> None:
    """Takes one event in. `scope` is (group, company, estate) of the repair.

    Raises Unavailable(ESTATE_UNKNOWN) when there is something to charge and the directory lacks the estate, whose time zone
    decides the month: the event is tried again.
    """
    bill = _locked(tx, RepairBill.blank(repair_id, *scope, news.at))
    bill.hear(news)
    if bill.charge is None:
        return
    if tx.estate is None:
        raise Unavailable("the directory does not know the estate yet", reason="ESTATE_UNKNOWN", retry_after=1)
    receivable = tx.session.execute(sa.select(Receivable).where(Receivable.repair_id == repair_id)).scalar_one_or_none()
    if receivable is None:
        receivable = tx.add(Receivable.of(bill, tx.estate, tx.act()))
        receivable.number_in(tx, tx.estate.zone)
    receivable.follow(bill, tx.act())


def next_day(after: date, day: int) -> date:
    """The first `day` of a month that comes after a date; `day` is at most 28."""
    return after.replace(day=day) if after.day < day else (after.replace(day=28) + timedelta(days=4)).replace(day=day)


def civil(day: date | None) -> Date | None:
    """A date as the contract writes it (AIP-142); None stays None."""
    return Date(year=day.year, month=day.month, day=day.day) if day else None


def _standing(bill: RepairBill, state: State, terms: Terms) -> dict[str, Any]:
    """What of a receivable follows from its bill."""
    day = bill.state_at.astimezone(ZoneInfo(terms.zone)).date()
    notice = next_day(day, int(terms.number(policies.NOTICE_DAY))) if state == DUE else None  # FEE-01
    due = next_day(notice, int(terms.number(policies.PAY_BY_DAY))) if notice else None  # FEE-02
    return {
        "amount": bill.charge, "unit_id": bill.unit_id, "reporter": bill.reporter, "repair_number": bill.repair_number,
        "state_at": bill.state_at, "month": day.replace(day=1), "notice_on": notice, "due_on": due,
    }  # fmt: skip


def _locked(tx: Transaction, blank: RepairBill) -> RepairBill:
    """The bill of a repair, its row locked until commit, so that events of one repair are taken in one after the other."""
    values = {column.key: getattr(blank, column.key) for column in sa.inspect(RepairBill).columns}
    tx.session.execute(insert(RepairBill).values(values).on_conflict_do_nothing())
    return tx.session.execute(sa.select(RepairBill).where(RepairBill.id == blank.id).with_for_update()).scalar_one()
