"""The shape of a process: which action leads from which state to which, and what a case carries along.

A process module states its table once (`Lifecycle([Move(…), …])`); the guard, the authorisation matrix, the clocks, the
diagram in the README and the random-walk test all come from it. Mapped classes are the entities: they are constructed with
explicit values, unit-tested without a database, raise when they must not do what is asked, and record their events; the
transaction collects them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from google.protobuf.message import Message
from prometheus_client import Counter
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, relationship

from services.chassis import clocks, observe
from services.chassis.access import Principal
from services.chassis.db import Transaction, new_id
from services.chassis.errors import Forbidden, IllegalMove
from services.chassis.policies import Terms

SYSTEM = "SYSTEM"


@dataclass(frozen=True, slots=True)
class Act:
    """Who acts, when (business time) and why; under which policies."""

    principal: Principal
    now: datetime
    reason: str = ""
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True)
class Move:
    """One line of a lifecycle. `when` narrows by the case, `only` by the caller; `by=SYSTEM` has no RPC.

    `unless` of a narrowing is the sentence a refused caller reads.
    """

    action: str
    sources: frozenset[Any]
    target: Any
    rules: str
    when: Callable[[Any], bool] | None = None
    only: Callable[[Any, Principal], bool] | None = None
    by: str = ""
    unless: str = ""

    def __init__(
        self,
        action: str,
        sources: Iterable[Any],
        target: Any,
        *,
        rules: str,
        when: Callable[[Any], bool] | None = None,
        only: Callable[[Any, Principal], bool] | None = None,
        by: str = "",
        unless: str = "",
    ) -> None:
        for name, value in (
            ("action", action), ("sources", frozenset(sources)), ("target", target), ("rules", rules),
            ("when", when), ("only", only), ("by", by), ("unless", unless),
        ):  # fmt: skip
            object.__setattr__(self, name, value)


def stays(action: str, states: Iterable[Any], **narrows: Any) -> list[Move]:
    """An action that leaves the state as it is: one line for each state."""
    return [Move(action, {state}, state, **narrows) for state in sorted(states)]


class Lifecycle:
    """The moves of a process. Raises ValueError when the table contradicts itself or leaves a state unreachable."""

    def __init__(self, states: type[enum.StrEnum], initial: Any, moves: Sequence[Move]):
        self.states, self.initial, self.moves = states, initial, tuple(moves)
        reachable, frontier = {initial}, [initial]
        while frontier:
            state = frontier.pop()
            for move in self.moves:
                if state in move.sources and move.target not in reachable:
                    reachable.add(move.target)
                    frontier.append(move.target)
        if lost := set(states) - reachable:
            raise ValueError(f"no way leads to {sorted(lost)}")

    def actions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(move.action for move in self.moves))

    def legal(self, case: Any, action: str, principal: Principal) -> Move:
        """The move that applies. Raises IllegalMove (state or case forbids) or Forbidden (not this caller)."""
        named = [move for move in self.moves if move.action == action]
        if not named:
            raise ValueError(f"{action} is not an action of this process")
        fitting = [m for m in named if case.state in m.sources and (m.when is None or m.when(case))]
        rules = ", ".join(dict.fromkeys(move.rules for move in named))
        if not fitting:
            sources = ", ".join(sorted({str(s) for m in named for s in m.sources}))
            raise IllegalMove(f"{action} is possible in {sources}; this case is {case.state}", rule=rules)
        for move in fitting:
            if (principal.kind == "system") == (move.by == SYSTEM) and (move.only is None or move.only(case, principal)):
                return move
        raise Forbidden(fitting[0].unless or f"{action} is not yours to do on this case", reason="NOT_YOURS", rule=fitting[0].rules)

    def diagram(self) -> str:
        """A Mermaid state diagram, for the service's README."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        for move in self.moves:
            lines += [f"    {source} --> {move.target}: {move.action}" for source in sorted(move.sources)]
        return "\n".join(lines)


@dataclass(slots=True)
class Change:
    """One line of the history: audit and timeline in one."""

    action: str
    from_state: str
    to_state: str
    at: datetime
    actor: str
    note: str


class Aggregate:
    """What every case has: its place in the tree, a version, its events and its history."""

    KIND: ClassVar[str]  # `repair`
    COLLECTION: ClassVar[str]  # `repairs`
    __tablename__: str

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    company_id: Mapped[UUID]
    estate_id: Mapped[UUID]
    estate_code: Mapped[str]
    version: Mapped[int] = mapped_column(default=0)
    event_count: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))

    @property
    def etag(self) -> str:
        return str(self.version)

    @property
    def subject(self) -> str:
        return f"estates/{self.estate_code}/{self.COLLECTION}/{self.id}"

    @classmethod
    def owned_by(cls) -> tuple[Any, Any]:
        """The columns (person, unit) by which a resident owns a row; (None, None) hides all from residents."""
        return None, None

    @classmethod
    def began_at(cls) -> Any:
        """The column that says when it began: a household sees nothing of its unit's that is older than itself (`Grant.since`)."""
        return cls.created_at

    def record(self, event: Message, act: Act) -> None:
        """The case says what happened; the transaction writes it to the event log."""
        self.event_count = (self.event_count or 0) + 1
        self.__dict__.setdefault("_events", []).append((self.event_count, event, act.now))

    def note(self, action: str, act: Act, *, from_state: str = "", to_state: str = "", note: str = "") -> None:
        """One line of history, and a new version."""
        self.version = (self.version or 0) + 1
        self.updated_at = act.now
        entry = Change(action, from_state, to_state, act.now, str(act.principal), note or act.reason)
        self.__dict__.setdefault("_history", []).append(entry)

    def count(self, counter: Counter, *labels: str) -> None:
        """A metric that moves once the transaction has committed."""
        self.__dict__.setdefault("_counts", []).append((counter, labels))

    def taken_counts(self) -> list[tuple[Counter, tuple[str, ...]]]:
        return self.__dict__.pop("_counts", [])

    def taken_events(self) -> list[tuple[int, Message, datetime]]:
        return self.__dict__.pop("_events", [])

    def taken_history(self) -> list[Change]:
        return self.__dict__.pop("_history", [])


class Case(Aggregate):
    """An aggregate with a lifecycle, a number and clocks."""

    LIFECYCLE: ClassVar[Lifecycle]
    CLOCKS: ClassVar[Sequence[clocks.ClockRule]] = ()
    PREFIX: ClassVar[str]  # of the number people say, `WX`

    number: Mapped[str | None]
    state: Mapped[str]

    @declared_attr
    def clocks(cls) -> Mapped[list[clocks.Clock]]:
        return relationship(
            clocks.Clock,
            primaryjoin=lambda: sa.orm.foreign(clocks.Clock.aggregate_id) == cls.id,
            order_by=(clocks.Clock.started_at, clocks.Clock.id),
            lazy="selectin" if cls.CLOCKS else "select",
            overlaps="clocks",  # every kind of case maps the same column
            info={"locked": True},  # after the case; the sweep skips them meanwhile
        )

    @property
    def handler(self) -> str | None:
        """Who has the case in hand (`staff/…`): the first to be told by its clocks."""
        return None

    @property
    def is_urgent(self) -> bool:
        return False

    def open(self, act: Act, action: str) -> None:
        """The first line of the history, and the clocks that start with the case."""
        self.state = self.LIFECYCLE.initial
        self.note(action, act, to_state=self.state)
        self.count(observe.CASES_MOVED, self.KIND, action)
        clocks.tick(self, self.CLOCKS, action, act)

    def move(self, action: str, act: Act, note: str = "", **changes: Any) -> None:
        """The guard, then the new state with `changes`, the history and the clocks. Raises IllegalMove, Forbidden."""
        move = self.LIFECYCLE.legal(self, action, act.principal)
        before, self.state = self.state, move.target
        for name, value in changes.items():
            setattr(self, name, value)
        self.note(action, act, from_state=before, to_state=self.state, note=note)
        self.count(observe.CASES_MOVED, self.KIND, action)
        clocks.tick(self, self.CLOCKS, action, act)

    def number_in(self, tx: Transaction, zone: str) -> None:
        """Takes the next number of the estate's day, at the end, when nothing refuses the case any more."""
        day = tx.now.astimezone(ZoneInfo(zone)).strftime("%Y%m%d")

        def take() -> None:
            self.number = f"{self.PREFIX}-{day}-{tx.database.numbers.next(self.estate_id, self.PREFIX, day):04d}"
            for clock in self.clocks:
                clock.number = self.number
            for _, event, _ in self.__dict__.get("_events", []):
                if "number" in event.DESCRIPTOR.fields_by_name:
                    event.number = self.number

        tx.before_flush.append(take)


def history(tx: Transaction, case: Aggregate) -> list[Change]:
    """The timeline of a case, oldest first."""
    rows = tx.execute(
        "SELECT action, from_state, to_state, at, actor, note FROM history WHERE aggregate_id = %s AND estate_id = %s ORDER BY version, id",
        (case.id, case.estate_id),
    )
    return [Change(*row) for row in rows]
