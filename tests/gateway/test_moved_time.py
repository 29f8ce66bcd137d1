"""Moved time: from due instant to due instant, and no step before the one before it has settled everywhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import orjson
import pytest

from gateway import moved_time
from gateway.descriptors import Contract
from gateway.moved_time import MovedTime
from gateway.upstream import Upstream
from gateway.web import Request
from services.chassis.errors import StewardError, Unavailable
from tests.gateway.conftest import Process
from tests.gateway.standin import INTERNAL_TOKEN, Standin

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clockwork:
    """Services behind the stand-in, as far as BusinessTime sees them. `due` are instants of work_orders at which clocks fire."""

    def __init__(self, standin: Standin, *due: datetime) -> None:
        self.now = dict.fromkeys(("work_orders", "surveys"), NOON)
        self.due = sorted(due)
        self.shifts: list[tuple[str, datetime]] = []
        self.looks: Counter[str] = Counter()
        self.busy: dict[str, int] = {}  # what there is left to wait for, and how many more looks it takes
        self.asked_unhandled: Callable[[], None] = lambda: None
        self._message = standin.contract.message_class
        standin.answers |= {"GetBusinessTime": self.look, "ShiftBusinessTime": self.shift, "ListUnhandled": self.unhandled}

    def left(self, what: str) -> int:
        left = self.busy.get(what, 0)
        self.busy[what] = max(left - 1, 0)
        return left

    def look(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.looks[request.service] += 1
        state = self._message("steward.chassis.v1.BusinessTimeState")()
        state.now.FromDatetime(self.now.get(request.service, NOON))
        if request.service == "work_orders":
            state.unpublished, state.operations = self.left("unpublished"), self.left("operations")
            if self.due:
                state.next_due.FromDatetime(self.due[0])
            if request.HasField("events_since"):
                event = state.events.add(id="1", source="work_orders", type="ClockWarned", subject="estates/TFHY/repairs/1", clock="pickup")
                event.occurred_at.FromDatetime(NOON)
                state.events.add(id="2", source="work_orders", type="RepairReported", subject="estates/TFHY/repairs/1")
        return state

    def shift(self, request: Any, context: grpc.ServicerContext) -> Any:
        to = request.to.ToDatetime(tzinfo=UTC)
        assert not any(self.busy.values()), f"{request.service} is moved while something is under way: {self.busy}"
        self.shifts.append((request.service, to))
        self.now[request.service] = to
        if request.service == "work_orders":
            self.due = [at for at in self.due if at > to]
        return self._message("steward.chassis.v1.ShiftBusinessTimeResponse")()

    def unhandled(self, request: Any, context: grpc.ServicerContext) -> Any:
        reply = self._message("steward.chassis.v1.ListUnhandledResponse")()
        if request.service == "surveys":
            self.asked_unhandled()
            if self.left("unhandled"):
                reply.unhandled.append("surveys.reactions.keep_grades 2")
        return reply

    def instants(self, service: str) -> list[datetime]:
        return [at for its, at in self.shifts if its == service]


@pytest.fixture(scope="module")
def moving(base_settings: dict[str, str], _standin: Standin) -> Iterator[Process]:
    """A gateway of the development profile before the services of the clockwork."""
    addresses = ",".join(f"{service}=127.0.0.1:{_standin.port}" for service in ("work_orders", "surveys", "residents"))
    process = Process(base_settings | {"STEWARD_PROFILE": "development", "STEWARD_ADDRESSES": addresses})
    yield process
    process.stop()


def advance(gateway: Process, **body: Any) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/dev/time:advance", json=body, timeout=30, trust_env=False)


def test_time_stops_at_every_due_instant_in_every_service_and_the_answer_says_what_fired(moving: Process, standin: Standin):
    clocks = Clockwork(standin, NOON + HOUR / 2, NOON + HOUR / 4, NOON + 2 * HOUR)
    answer = advance(moving, duration="3600s")
    assert answer.status_code == 200, answer.text
    for service in ("work_orders", "surveys"):
        assert clocks.instants(service) == [NOON + HOUR / 4, NOON + HOUR / 2, NOON + HOUR]
    assert answer.json() == {
        "now": "2026-11-22T13:00:00Z",
        "fired": [{"time": "2026-11-22T12:00:00Z", "type": "ClockWarned", "subject": "estates/TFHY/repairs/1", "clock": "pickup"}],
    }


@pytest.mark.parametrize("what", ["unpublished", "unhandled", "operations"])
def test_no_step_is_taken_while_a_log_a_reaction_or_a_long_running_operation_is_under_way(what: str, moving: Process, standin: Standin):
    clocks = Clockwork(standin)
    clocks.busy[what] = 3
    assert advance(moving, duration="60s").status_code == 200
    assert clocks.busy[what] == 0
    assert clocks.instants("work_orders") == [NOON + timedelta(minutes=1)]


def test_what_a_reaction_begins_between_two_questions_is_waited_for(moving: Process, standin: Standin):
    clocks = Clockwork(standin)

    def begin() -> None:
        """The reaction ends just before it is asked for, and has begun an operation after the look that counts them."""
        clocks.asked_unhandled = lambda: None
        clocks.busy["operations"] = 3

    clocks.asked_unhandled = begin
    assert advance(moving, duration="60s").status_code == 200  # `shift` would have seen it under way
    assert clocks.busy["operations"] == 0


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("unpublished", "unpublished {'work_orders':"),
        ("unhandled", "unhandled ['surveys.reactions.keep_grades 2']"),
        ("operations", "operations {'work_orders':"),
        ("late", "clocks that are due True"),
    ],
)
def test_what_never_settles_is_503_and_named(what: str, says: str, contract: Contract, standin: Standin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moved_time, "SETTLED_WITHIN", 0.3)
    clocks = Clockwork(standin, *([NOON - HOUR] if what == "late" else []))
    clocks.busy[what] = 1_000_000

    async def walk() -> StewardError:
        upstream = Upstream(dict.fromkeys(clocks.now, f"127.0.0.1:{standin.port}"))
        try:
            await MovedTime(contract, upstream, list(clocks.now), INTERNAL_TOKEN).advance(request({"duration": "60s"}))
        except StewardError as refused:
            return refused
        finally:
            await upstream.close()
        raise AssertionError("it settled")

    refused = asyncio.run(walk())
    assert isinstance(refused, Unavailable)
    assert refused.reason == "NOT_SETTLED"
    assert says in refused.message
    assert clocks.shifts == []


def request(body: dict[str, Any]) -> Request:
    data = orjson.dumps(body)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    headers = [(b"content-length", str(len(data)).encode())]
    return Request({"method": "POST", "raw_path": b"/", "query_string": b"", "headers": headers, "client": None}, receive)


@pytest.mark.parametrize("duration", [None, "", "1h", "-60s", "60", 60, ["60s"], "1e3s", "34560001s", "NaNs", "٣s"])
def test_a_duration_that_is_none_moves_nothing(duration: Any, moving: Process, standin: Standin):
    clocks = Clockwork(standin)
    answer = advance(moving, **({} if duration is None else {"duration": duration}))
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_INPUT")
    assert [v["field"] for v in answer.json()["violations"]] == ["duration"]
    assert clocks.shifts == []


def test_in_production_there_is_no_such_address(gateway: Process, standin: Standin):
    clocks = Clockwork(standin)
    assert advance(gateway, duration="60s").status_code == 404
    assert clocks.shifts == []
