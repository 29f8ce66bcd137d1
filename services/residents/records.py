"""What every record of the register has: a version, its place in the tree, and a line of history for each change.

A record is no case: it has no lifecycle and no number. It is made by an import or a procedure, corrected when it was wrong,
and every correction is kept with what stood there before (ARC-07).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.db import Transaction, new_id
from services.chassis.lifecycle import Act

# Columns whose values never leave the vault: the history says that they changed, not from what to what.
SECRET = frozenset(("identity_sealed", "identity_index"))

# Advisory locks. Batches of imports take turns on REGISTER; what people correct, merge and transfer shares it among
# themselves and takes turns on GROUP, one for each group, so that nobody looks for a person whom another is just making.
REGISTER, GROUP = 7101, 7102


@dataclass(slots=True)
class Correction:
    """One line of the history of a record."""

    version: int
    before: dict[str, Any]
    after: dict[str, Any]


class Record:
    """Mixin of the register's mapped classes. `group_id`, `company_id` and `estate_id` say where row-level security puts it."""

    __tablename__: str

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    group_id: Mapped[UUID]
    if TYPE_CHECKING:  # each class says whether it may be above an estate
        company_id: Any
        estate_id: Any
    version: Mapped[int] = mapped_column(sa.BigInteger, default=1)
    # HMAC of the register row it was last imported from: the same row again is passed over, even after the record was
    # corrected here, so that an old file does not undo what was corrected since.
    register_digest: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))

    @property
    def etag(self) -> str:
        return str(self.version)

    def correct(self, act: Act, **values: Any) -> bool:
        """Takes the values that differ. Returns whether there were any; then the version grows and the history gets a line."""
        before = {name: getattr(self, name) for name, value in values.items() if getattr(self, name) != value}
        if not before:
            return False
        for name in before:
            setattr(self, name, values[name])
        self.version += 1
        self.updated_at = act.now
        self._remember(before, {name: values[name] for name in before})
        return True

    def note(self, act: Act, before: dict[str, Any], after: dict[str, Any]) -> None:
        """A line of history, and a version, for what is no column of its own: two people became one, a unit changed hands."""
        self.version += 1
        self.updated_at = act.now
        self._remember(before, after)

    def begin(self, act: Act, **values: Any) -> None:
        """The first line of the history of a record that somebody made by hand: who, and why."""
        self.version, self.created_at, self.updated_at = 1, act.now, act.now
        self._remember({}, values)

    def _remember(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        self.__dict__.setdefault("_corrections", []).append(Correction(self.version, _written(before), _written(after)))

    def taken_corrections(self) -> list[Correction]:
        return self.__dict__.pop("_corrections", [])  # type: ignore[no-any-return]


def _written(values: dict[str, Any]) -> dict[str, Any]:
    return {name: "***" if name in SECRET and value is not None else _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value


def take_turn(tx: Transaction, group_id: UUID) -> None:
    """Held until the commit. Raises Unavailable(LOCKED) while a batch of an import takes longer than the lock's patience."""
    tx.execute("SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock(%s, hashtext(%s))", (REGISTER, GROUP, str(group_id)))


def keep_history(tx: Transaction, records: Iterable[Record], reason: str) -> None:
    """Writes what was corrected on these records; what an import creates is no correction and is told by its own dates."""
    rows: list[Any] = []
    count = 0
    for record in records:
        for line in record.taken_corrections():
            count += 1
            rows += [new_id(), record.group_id, record.company_id, record.estate_id, record.__tablename__, record.id, line.version]
            rows += [tx.now, str(tx.principal), reason, orjson.dumps(line.before).decode(), orjson.dumps(line.after).decode()]
    if count:
        one = "(" + ", ".join(["%s"] * 12) + ")"
        tx.finally_execute(
            "INSERT INTO corrections (id, group_id, company_id, estate_id, record, record_id, version, at, actor, reason, before, after)"
            " VALUES " + ", ".join([one] * count),
            rows,
        )
