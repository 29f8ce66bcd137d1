"""The AsyncAPI 3.0.0 document of the events, made from the descriptors: what the relay publishes is what it says.

Every message at the top of an `events.proto` is an event. What an event means stands above it in the proto; who reacts to it in
`consumers.json`, which `make docs` writes from the reactions of the services (the gateway must not load a service's code).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor

from gateway.descriptors import Contract
from gateway.examples import INSTANT, Examples
from gateway.schemas import EXAMPLE_ID, EXAMPLES, Schema, Schemas, sentence

EXCHANGE = "events"
CONSUMERS = Path(__file__).with_name("consumers.json")
CHASSIS = "chassis"  # events that every service emits stand there
MEDIA_TYPE = "application/cloudevents+json"

Consumers = dict[str, list[str]]  # routing key → queues, `notifications.events`

INTRODUCTION = """What happens in Steward (管家), for who wants to know it at once: every event of every service.

**Where.** Events are published to the topic exchange `events` (AMQP 0-9-1). The routing key is the service and the type of the event,
`work_orders.RepairReported`: bind a queue of your own with the keys you need, `work_orders.*` for all of a service. Make it a durable
quorum queue, or what happens while you are away is lost to you.

**What.** The body is a CloudEvents 1.0 document in JSON; `data` is the event's message in ProtoJSON: fields that have their default are
left out, 64-bit integers are texts, instants are RFC 3339. There are ids in it and no personal data: who needs a name or a telephone
asks the REST API, where it is seen who asks.

**How often.** At least once: remember `id` and pass over what you have had. The events of one case (`aggregateid`) are numbered by
`sequence`, upwards, and are first sent in that order; between cases, and when something is sent again, there is no order: go by
`sequence`, or by `time`, which is when it happened (of a deadline: when it was due). `recordedtime` is when it was written down.

**For how long.** New fields and new types come without notice: pass over what you do not know. What is there does not change its meaning.
"""

_ID: Schema = {"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "examples": [EXAMPLE_ID]}
_TIME: Schema = {"type": "string", "format": "date-time", "examples": [INSTANT]}
_AGGREGATES = {"entries": "directory"}  # where the first field is not called as what it happened to
_SUBJECTS = {"staff": "staff/{staff}"}  # staff belong to no estate alone
ENVELOPE: Schema = {
    "type": "object",
    "description": "A CloudEvents 1.0 document with Steward's extensions.",
    "required": [
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "recordedtime", "sequence", "position", "aggregate",
        "aggregateid", "actor", "data",
    ],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {**_ID, "description": "Of the event. Whoever has seen it has had the event."},
        "source": {"type": "string", "pattern": "^steward/[a-z_]+$", "description": "The service that emitted it.", "examples": ["steward/work_orders"]},
        "type": {"type": "string", "description": "Full name of the message in `data`."},
        "subject": {"type": "string", "description": "Name of what it happened to, as in the REST API."},
        "time": {**_TIME, "description": "When it happened, in business time; of a deadline the instant it was due."},
        "datacontenttype": {"const": "application/json"},
        "recordedtime": {**_TIME, "description": "When it was written down, in machine time."},
        "sequence": {"type": "integer", "minimum": 1, "description": "Grows with every event of the aggregate."},
        "position": {"type": "integer", "minimum": 1, "description": "Place in the log of the source, without gaps."},
        "aggregate": {"type": "string", "description": "Kind of what it happened to.", "examples": ["repair"]},
        "aggregateid": {**_ID, "description": "Its id."},
        "groupid": {**_ID, "description": "The group it happened in."},
        "companyid": {**_ID, "description": "The company it happened in."},
        "estateid": {**_ID, "description": "The estate it happened in."},
        "actor": {"type": "string", "description": "Who did it: `staff/…`, `people/…`, or `system/work_orders` for what follows by rule."},
        "traceparent": {"type": "string", "description": "Trace of the request that caused it (W3C)."},
        "data": {"type": "object"},
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """One type of event. `service` is `chassis` for those that every service emits."""

    service: str
    message: Descriptor

    @property
    def type(self) -> str:
        return self.message.name

    @property
    def key(self) -> str:
        """`work_orders.RepairReported`: the routing key, except for the chassis's."""
        return f"{self.service}.{self.type}"


def consumers() -> Consumers:
    """Raises OSError when the file is missing."""
    return orjson.loads(CONSUMERS.read_bytes())  # type: ignore[no-any-return]


def events(contract: Contract) -> list[Event]:
    """Every event of the contract, the chassis's last. A message that another one contains, such as the reading of a clock, is none."""
    messages = [message for message in contract.messages() if message.file.name.endswith("/v1/events.proto")]
    parts = {field.message_type.full_name for message in messages for field in message.fields if field.message_type is not None}
    found = [
        Event(message.file.package.split(".")[1], message)
        for message in messages
        if message.containing_type is None and message.full_name not in parts
    ]
    return sorted(found, key=lambda event: (event.service == CHASSIS, event.service))


def document(contract: Contract, reacting: Consumers) -> dict[str, Any]:
    """`reacting`: the queues that each routing key goes to."""
    schemas, examples = Schemas(contract), Examples(contract)
    emitters = sorted({rpc.service for rpc in contract.rpcs} - {CHASSIS})
    patterns = dict(contract.resources())
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    tags: dict[str, str] = {}
    for event in events(contract):
        shared = event.service == CHASSIS
        payload = _payload(event, schemas)
        messages[event.key] = _message(contract, event, payload, _example(event, examples, patterns))
        channels[event.key] = _channel(contract, event, emitters if shared else [])
        tags[event.service] = contract.comment(event.message.file.name)
        operations |= _operations(event, reacting, emitters if shared else [event.service])
    for operation in operations.values():
        for tag in operation["tags"]:
            tags.setdefault(tag["name"], "")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Steward 管家 · events",
            "version": "1",
            "description": INTRODUCTION,
            "tags": [{"name": name, **({"description": tags[name]} if tags[name] else {})} for name in sorted(tags)],
        },
        "defaultContentType": MEDIA_TYPE,
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {"CloudEvent": ENVELOPE, **{name: draft7(schema) for name, schema in sorted(schemas.components.items())}},
        },
    }


def draft7(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 in the JSON Schema (draft 7) that AsyncAPI goes by."""
    if isinstance(schema, list):
        return [draft7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties":  # their names are no keywords
            result[name] = {field: draft7(part) for field, part in value.items()}
        elif name == "example":
            result["examples"] = [value]
        elif name == "format" and value == "byte":
            result["contentEncoding"] = "base64"
        elif name != "nullable":  # only of null itself, which its enum says
            result[name] = draft7(value)
    return result


def _payload(event: Event, schemas: Schemas) -> Schema:
    service = "[a-z_]+" if event.service == CHASSIS else event.service
    own = {
        "source": {"type": "string", "pattern": f"^steward/{service}$"},
        "type": {"const": event.message.full_name},
        "data": schemas.read(event.message),
    }
    return {"allOf": [{"$ref": "#/components/schemas/CloudEvent"}, {"type": "object", "properties": own}]}


def _message(contract: Contract, event: Event, payload: Schema, example: dict[str, Any]) -> dict[str, Any]:
    comment = contract.comment(event.message.full_name)
    return {
        "name": event.message.full_name,
        "title": event.type,
        "summary": sentence(comment) or event.type,
        "description": comment or event.type,
        "contentType": MEDIA_TYPE,
        "tags": [{"name": event.service}],
        "payload": payload,
        "examples": [{"name": event.type, "payload": example}],
    }


def _channel(contract: Contract, event: Event, emitters: list[str]) -> dict[str, Any]:
    exchange = {"name": EXCHANGE, "type": "topic", "durable": True, "autoDelete": False}
    result: dict[str, Any] = {
        "address": f"{{service}}.{event.type}" if emitters else event.key,
        "title": event.type,
        "description": contract.comment(event.message.full_name) or event.type,
        "messages": {event.type: {"$ref": f"#/components/messages/{event.key}"}},
        "tags": [{"name": event.service}],
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}},
    }
    if emitters:
        result["parameters"] = {"service": {"enum": emitters, "description": "The service that emits it."}}
    return result


def _operations(event: Event, reacting: Consumers, emitters: list[str]) -> dict[str, Any]:
    """Sending it, and each queue of a service that takes it in."""
    channel = {"$ref": f"#/channels/{event.key}"}
    messages = [{"$ref": f"#/channels/{event.key}/messages/{event.type}"}]
    result: dict[str, Any] = {
        f"{event.service}.sends.{event.type}": {
            "action": "send",
            "channel": channel,
            "messages": messages,
            "summary": f"{'Every service' if event.service == CHASSIS else event.service} publishes {event.type}.",
            "tags": [{"name": event.service}],
            "bindings": {"amqp": {"deliveryMode": 2, "bindingVersion": "0.3.0"}},
        }
    }
    for emitter in emitters:
        for queue in reacting.get(f"{emitter}.{event.type}", ()):
            service = queue.partition(".")[0]
            result[f"{service}.receives.{emitter}.{event.type}"] = {
                "action": "receive",
                "channel": channel,
                "messages": messages,
                "summary": f"{service} reacts to {event.type} of {emitter}, from its queue `{queue}`.",
                "tags": [{"name": service}],
                "bindings": {"amqp": {"ack": True, "bindingVersion": "0.3.0"}},
            }
    return result


def _example(event: Event, examples: Examples, patterns: dict[str, str]) -> dict[str, Any]:
    """A whole event. What it happened to is called as its first field: `repair`, `clock`, `policy`."""
    service = "work_orders" if event.service == CHASSIS else event.service
    data = examples.of(event.message)
    kind = next((field.name for field in event.message.fields), "case")
    aggregate = _AGGREGATES.get(kind, kind)
    pattern = (
        _SUBJECTS.get(aggregate) or patterns.get(aggregate) or (patterns["repair"] if event.service == CHASSIS else f"{aggregate}/{{id}}")
    )
    return {
        "specversion": "1.0",
        "id": "0192f0c0-7b10-7d4e-8a51-6c0f3b2e9d77",
        "source": f"steward/{service}",
        "type": event.message.full_name,
        "subject": re.sub(r"\{(\w+)\}", lambda m: EXAMPLES.get(m[1], EXAMPLE_ID), pattern),
        "time": INSTANT,
        "datacontenttype": "application/json",
        "recordedtime": "2026-11-22T03:10:00.184213Z",
        "sequence": 1,
        "position": 48213,
        "aggregate": aggregate,
        "aggregateid": EXAMPLE_ID,
        "groupid": "0192f0b0-11aa-7c01-9e55-0a4bb1f3c201",
        "companyid": "0192f0b0-11ab-7f32-8d06-9b6c21e4d802",
        "estateid": "0192f0b0-11ac-7a93-b217-5d7e32f5e903",
        "actor": "staff/0192f0b1-40de-7b64-a0c8-7e9f43a6fa04",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data": data,
    }
