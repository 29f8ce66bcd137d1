"""The one aggregate of the tests' own service."""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from services.chassis.access import Principal
from services.chassis.clocks import ClockRule
from services.chassis.db import Base, new_id
from services.chassis.directory import Estate
from services.chassis.lifecycle import SYSTEM, Act, Case, Lifecycle, Move
from services.chassis.names import stamp
from services.chassis.policies import Policy
from steward.probe.v1 import probe_pb2 as pb

WORK = Policy("probe.work", "seconds", 3600, "X-34", least=60, most=7200, law="law of probes", says="a probe is started")
SHORT = Policy("probe.short", "seconds", 100, "X-34")


class State(enum.StrEnum):
    NEW = "NEW"
    STARTED = "STARTED"
    DONE = "DONE"
    EXPIRED = "EXPIRED"


NEW, STARTED, DONE, EXPIRED = State


def light(probe: Probe) -> bool:
    return (probe.effort or 0) < 5


def not_creator(probe: Probe, who: Principal) -> bool:
    return probe.created_by != str(who)


LIFECYCLE = Lifecycle(State, NEW, [
    Move("start",  {NEW},          STARTED,                                   rules="X-34"),
    Move("note",   {NEW, STARTED}, STARTED,                                   rules="X-34"),
    Move("finish", {STARTED},      DONE,    when=light, only=not_creator,     rules="X-34", unless="somebody else finishes it"),
    Move("expire", {NEW, STARTED}, EXPIRED, by=SYSTEM,                        rules="X-34"),
])  # fmt: skip

CLOCKS = [
    ClockRule("work", starts=frozenset({"create"}), stops=frozenset({"start"}), restarts=frozenset({"note"}), cancels=frozenset({"expire"}),
              target=lambda p: WORK, working=lambda p: p.in_hours, ladder=("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER", "GENERAL_MANAGER"), rules="X-34"),
    ClockRule("finish", starts=frozenset({"start"}), stops=frozenset({"finish"}), cancels=frozenset({"expire"}), target=lambda p: SHORT, rules="X-34"),
]  # fmt: skip


class Probe(Case, Base):
    __tablename__ = "probes"
    KIND, COLLECTION, PREFIX = "probe", "probes", "PB"
    LIFECYCLE, CLOCKS = LIFECYCLE, CLOCKS

    title: Mapped[str]
    unit_id: Mapped[UUID | None]
    owner_id: Mapped[UUID | None]
    effort: Mapped[int] = mapped_column(default=0)
    in_hours: Mapped[bool] = mapped_column(default=False)
    created_by: Mapped[str]

    @classmethod
    def owned_by(cls) -> tuple[Any, Any]:
        return cls.owner_id, cls.unit_id

    @classmethod
    def create(
        cls, act: Act, estate: Estate, title: str, *, owner_id: UUID | None = None, unit_id: UUID | None = None, in_hours: bool = False
    ) -> Probe:
        probe = cls(
            id=new_id(), group_id=estate.group_id, company_id=estate.company_id, estate_id=estate.id, estate_code=estate.code, version=0,
            event_count=0, created_at=act.now, updated_at=act.now, number=None, title=title, owner_id=owner_id, unit_id=unit_id, effort=0,
            in_hours=in_hours, created_by=str(act.principal),
        )  # fmt: skip
        probe.open(act, "create")
        probe.record(pb.ProbeCreated(probe=str(probe.id), title=title, create_time=stamp(act.now)), act)
        return probe

    def start(self, act: Act, effort: int) -> None:
        self.move("start", act, effort=effort)
        self.record(pb.ProbeStarted(probe=str(self.id), effort=effort), act)

    def finish(self, act: Act) -> None:
        self.move("finish", act)

    def expire(self, act: Act) -> None:
        self.move("expire", act)
        self.record(pb.ProbeExpired(probe=str(self.id)), act)


LONG = timedelta(seconds=3600)  # WORK
