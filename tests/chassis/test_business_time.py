"""Moved time: forward only, in the development profile alone, and what is due by then fires."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest

from services.chassis import jobs
from services.chassis.access import Principal
from services.chassis.business_time import Walk
from services.chassis.db import Database
from services.chassis.errors import InvalidInput, NotFound
from services.chassis.names import instant, stamp
from services.chassis.rpc import Server
from services.chassis.settings import settings
from services.chassis.testing import Api, Tree, business_now, clock_events, configured, serving
from services.probe.probes import Probe
from steward.chassis.v1 import business_time_pb2 as pb
from tests.conftest import Postgres

pytestmark = pytest.mark.usefixtures("moving_time")

WHO = Principal("staff", str(uuid4()))
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def walk(database: Database) -> Walk:
    return Walk({"probe": database})


def shift(walk: Walk, to: datetime) -> int:
    return walk.shift_business_time(pb.ShiftBusinessTimeRequest(service="probe", to=stamp(to)), None).fired


def look(walk: Walk, **how: Any) -> pb.BusinessTimeState:
    return walk.get_business_time(pb.GetBusinessTimeRequest(service="probe", **how), None)


def test_time_moves_forward_and_never_back(walk: Walk, database: Database) -> None:
    start = business_now(database)
    shift(walk, start + timedelta(hours=5))
    assert timedelta(0) <= business_now(database) - (start + timedelta(hours=5)) < 5 * SECOND
    shift(walk, start)
    assert business_now(database) >= start + timedelta(hours=5)


def test_a_shift_fires_what_is_due_by_then_and_the_look_says_what_is_due_next(walk: Walk, database: Database, tree: Tree) -> None:
    shift(walk, business_now(database) + timedelta(days=400))  # past every clock of other tests
    with database.transaction(WHO) as tx:
        probe = tx.add(Probe.create(tx.act(), tree.estate, "drip"))
    warned, breached = probe.created_at + 48 * MINUTE, probe.created_at + 60 * MINUTE
    assert instant(look(walk), "next_due") <= warned
    since = datetime.now(UTC)
    shift(walk, warned)
    assert clock_events(database, probe.id) == [("work", "ClockWarned", warned)]
    assert instant(look(walk), "next_due") <= breached
    [event] = [event for event in look(walk, events_since=since).events if str(probe.id) in event.subject]
    assert (event.type, event.source, event.clock, instant(event, "occurred_at")) == ("ClockWarned", "probe", "work", warned)


def test_the_look_counts_long_running_operations_until_they_have_ended(walk: Walk, database: Database, postgres: Postgres) -> None:
    postgres.sql("probe", "DELETE FROM operations")
    with database.transaction() as tx:
        jobs.enqueue(tx, "nobody carries this out", {})
        jobs.enqueue(tx, "nor this", {})
    assert look(walk).operations == 2
    postgres.sql("probe", "UPDATE operations SET state = 'RUNNING' WHERE kind = 'nor this'")
    assert look(walk).operations == 2
    for state, left in (("SUCCEEDED", 1), ("FAILED", 0)):
        postgres.sql(
            "probe",
            "UPDATE operations SET state = %s WHERE id = (SELECT min(id::text) FROM operations WHERE state IN ('QUEUED', 'RUNNING'))::uuid",
            (state,),
        )
        assert look(walk).operations == left


def test_a_shift_to_no_instant_or_far_ahead_is_refused_and_moves_nothing(walk: Walk, database: Database) -> None:
    start = business_now(database)
    for request in (
        pb.ShiftBusinessTimeRequest(service="probe"),
        pb.ShiftBusinessTimeRequest(service="probe", to=stamp(start + timedelta(days=801))),
    ):
        with pytest.raises(InvalidInput) as refused:
            walk.shift_business_time(request, None)
        assert [violation.field for violation in refused.value.violations] == ["to"]
    assert business_now(database) - start < MINUTE


def test_an_event_without_an_id_is_bad_input(walk: Walk) -> None:
    event = pb.LoggedEvent(id="x", source="residents", type="DirectoryChanged")
    with pytest.raises(InvalidInput):
        walk.list_unhandled(pb.ListUnhandledRequest(service="probe", events=[event]), None)


def test_a_service_that_lives_elsewhere_is_not_moved_here(walk: Walk) -> None:
    with pytest.raises(NotFound) as refused:
        walk.shift_business_time(pb.ShiftBusinessTimeRequest(service="surveys", to=stamp(datetime.now(UTC))), None)
    assert refused.value.reason == "NOT_SERVED_HERE"


def ask(api: Api, *metadata: tuple[str, str]) -> grpc.StatusCode:
    """The gRPC code of a look at the business time."""
    stub = api._channel.unary_unary("/steward.chassis.v1.BusinessTime/GetBusinessTime")
    try:
        stub(pb.GetBusinessTimeRequest(service="probe").SerializeToString(), timeout=5, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined]
    return grpc.StatusCode.OK


def test_it_is_asked_by_stewards_own_processes_alone(server: tuple[Server, Api], tree: Tree) -> None:
    api = server[1]
    assert ask(api, ("x-steward-internal", settings().internal_token)) == grpc.StatusCode.OK
    assert ask(api, ("x-steward-identity", tree.staff["GENERAL_MANAGER"].identity)) == grpc.StatusCode.UNAUTHENTICATED
    assert ask(api) == grpc.StatusCode.UNAUTHENTICATED


def test_in_production_nobody_moves_time(database: Database) -> None:
    with configured(profile="production"), serving("probe") as (_, api):
        assert ask(api, ("x-steward-internal", settings().internal_token)) == grpc.StatusCode.UNIMPLEMENTED
