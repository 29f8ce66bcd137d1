"""The AsyncAPI document: says what the relay publishes, and the relay publishes what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import asyncapi, event_pages
from gateway.descriptors import Contract
from services.chassis import clocks, topology
from services.chassis.__main__ import SERVICES
from services.chassis.db import Database
from services.chassis.event_log import Log
from services.chassis.testing import Tree, a_tree, advance, event_body
from tests.conftest import Databases
from tests.gateway.strategies import Messages

SCHEMA = Path(__file__).with_name("asyncapi-3.0.0.json")  # see asyncapi-3.0.0.NOTICE.md


@pytest.fixture(scope="module")
def document(contract: Contract) -> dict[str, Any]:
    return orjson.loads(orjson.dumps(asyncapi.document(contract, asyncapi.consumers())))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def judge() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(orjson.loads(SCHEMA.read_bytes()))


Wrong = Callable[[bytes | dict[str, Any]], list[str]]


@pytest.fixture(scope="module")
def wrong(document: dict[str, Any]) -> Wrong:
    """What is wrong with a body by the document: that of the message whose `type` it has."""
    messages = document["components"]["messages"]
    judges = {
        message["name"]: jsonschema_rs.Draft7Validator({**message["payload"], "components": document["components"]}, validate_formats=True)
        for message in messages.values()
    }

    def check(body: bytes | dict[str, Any]) -> list[str]:
        value = orjson.loads(body) if isinstance(body, bytes) else body
        return [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in judges[value["type"]].iter_errors(value)]

    return check


def test_the_document_is_valid_asyncapi(document: dict[str, Any], judge: jsonschema_rs.Draft7Validator) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert [error.message for error in judge.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("channels", "work_orders.RepairTaken", "bindings", "amqp", "is"), "nonsense"),
        (("operations", "work_orders.sends.RepairTaken", "action"), "publish"),
        (("components", "messages", "work_orders.RepairTaken", "payload", "allOf"), 7),
    ],
)
def test_the_judge_refuses_what_is_wrong(
    document: dict[str, Any], judge: jsonschema_rs.Draft7Validator, path: tuple[str, ...], value: object
) -> None:
    broken = orjson.loads(orjson.dumps(document))
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not judge.is_valid(broken)


def test_every_event_that_can_be_published_has_its_channel(document: dict[str, Any]) -> None:
    """As many as `migrate` knows, by the same routing keys; the reading of a clock is a part of events and none itself."""
    addresses = set()
    for channel in document["channels"].values():
        emitters = channel.get("parameters", {}).get("service", {}).get("enum", [""])
        addresses |= {channel["address"].replace("{service}", emitter) for emitter in emitters}
    known = {key for key in topology.contract() if not key.endswith(".ClockReading")}
    assert {key for key in known if key.partition(".")[0] in SERVICES} <= addresses
    assert len(addresses) >= len(known)


def test_every_event_says_in_the_proto_what_it_means(document: dict[str, Any]) -> None:
    for message in document["components"]["messages"].values():
        assert message["description"] != message["title"], f"{message['name']} needs a comment in its events.proto"
        assert len(message["summary"]) > 8
    assert all(tag.get("description") for tag in document["info"]["tags"] if tag["name"] in {"work_orders", "residents", "chassis"})


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    found = 0
    for reference in re.findall(rb'"\$ref":"#/([^"]+)"', orjson.dumps(document)):
        place: Any = document
        for step in reference.decode().split("/"):
            place = place[step]
        found += 1
    assert found > 100


def test_who_reacts_is_an_operation_of_his_own(document: dict[str, Any]) -> None:
    operations = document["operations"]
    assert operations["work_orders.sends.RepairAccepted"]["action"] == "send"
    received = operations["billing_reminders.receives.work_orders.RepairAccepted"]
    assert (received["action"], received["channel"]) == ("receive", {"$ref": "#/channels/work_orders.RepairAccepted"})
    assert "`billing_reminders.events`" in received["summary"]
    assert operations["notifications.receives.work_orders.ClockBreached"]["channel"] == {"$ref": "#/channels/chassis.ClockBreached"}
    taken_in = sum(operation["action"] == "receive" for operation in operations.values())
    assert taken_in == sum(map(len, asyncapi.consumers().values()))


def test_every_example_is_an_event_that_the_relay_could_publish(document: dict[str, Any], contract: Contract, wrong: Wrong) -> None:
    for message in document["components"]["messages"].values():
        for example in message["examples"]:
            payload = example["payload"]
            assert wrong(payload) == []
            parsed = json_format.ParseDict(payload["data"], contract.message_class(payload["type"])())
            assert json_format.MessageToDict(parsed) == payload["data"], "no defaults, every field known"


def test_an_event_that_is_not_as_promised_is_seen(document: dict[str, Any], wrong: Wrong) -> None:
    good = document["components"]["messages"]["work_orders.RepairReported"]["examples"][0]["payload"]
    assert wrong(good) == []
    for change in ({"id": "7"}, {"sequence": "1"}, {"source": "steward/billing_reminders"}, {"time": "yesterday"}, {"data": "text"}):
        assert wrong({**good, **change}), change
    assert wrong({**good, "data": {**good["data"], "category": "HAUNTED"}})
    assert wrong({name: value for name, value in good.items() if name != "aggregateid"})
    assert wrong({**good, "invented": 1, "data": {**good["data"], "invented": 1}}) == [], "new fields may come"


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_an_event_holds_fits_its_schema(contract: Contract, wrong: Wrong, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(asyncapi.events(contract)))
    message = data.draw(Messages(contract).of(event.message))
    source = "surveys" if event.service == "chassis" else event.service
    assert wrong(event_body(message, source=source)) == []


def test_what_the_relay_publishes_validates_against_the_document(
    database_of: Databases, serving_of: Callable[[str], Any], moving_time: None, wrong: Wrong
) -> None:
    """A repair, reported and taken late: every event of it, in the very bytes that go to the broker."""
    database = database_of("work_orders")
    tree, (_, api) = a_tree(database), serving_of("work_orders")
    fields = {"unit": tree.unit, "category": "LEAK", "description": "厨房水管漏水"}
    repair = api.call(tree.owner, "ReportRepair", parent=tree.parent, repair=fields, trace=f"00-{'4b' * 16}-{'0a' * 8}-01")
    advance(database, timedelta(days=4))
    clocks.sweep(database)
    api.call(tree.staff["TECHNICIAN"], "TakeRepair", name=repair.name)
    bodies = [orjson.loads(body) for body in published_bodies(database, tree)]
    assert {"RepairReported", "ClockWarned", "ClockBreached", "RepairTaken"} <= {body["type"].rpartition(".")[2] for body in bodies}
    for body in bodies:
        assert wrong(body) == [], body


def published_bodies(database: Database, tree: Tree) -> list[bytes]:
    """What the relay would send next of an estate: it reads the log and gives positions; only the broker is not there."""
    log = Log(database.service, database.url)
    log.connect()
    try:
        assert log.lead()
        found: list[bytes] = []
        while entries := log.advance([], 500):
            found += [entry.envelope(database.service) for entry in entries if entry.body.get("estateid") == str(tree.estate_id)]
        return found
    finally:
        log.close()


def test_the_document_and_its_page_are_served(client: httpx.Client) -> None:
    served = client.get("/asyncapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.json()["channels"]["work_orders.RepairReported"]["address"] == "work_orders.RepairReported"
    page = client.get("/docs/events")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'href="/docs/events"' in client.get("/").text


def test_the_page_shows_each_event_with_its_key_its_takers_and_an_example(document: dict[str, Any]) -> None:
    text = event_pages.page(document).decode()
    for key, channel in document["channels"].items():
        article = text[text.index(f'<article id="{key}">') :].partition("</article>")[0]
        assert channel["title"] in article
        assert document["components"]["messages"][key]["name"] in article
        assert "&quot;specversion&quot;: &quot;1.0&quot;" in article
        if not channel["address"].startswith("{"):
            assert f"<code>{channel['address']}</code>" in article
    accepted = text[text.index('<article id="work_orders.RepairAccepted">') :].partition("</article>")[0]
    assert "billing_reminders, governance, notifications, surveys" in accepted


def test_the_page_cannot_be_made_to_run_what_a_comment_says(document: dict[str, Any]) -> None:
    hostile = orjson.loads(orjson.dumps(document))
    for message in hostile["components"]["messages"].values():
        message["description"] = "<script>alert(1)</script> `<img src=x>`"
    text = event_pages.page(hostile).decode()
    assert "<script" not in text
    assert "<img" not in text
