"""One REST route of one RPC: an HTTP request becomes its request message, its reply becomes an HTTP response.

Where a field comes from (google/api/http.proto): the path template binds some, `body` names one or `*` for all the rest,
what is left are query parameters. Headers fill two more: `Idempotency-Key` → `request_id`, `If-Match` → `etag`.
Everything about the messages is worked out once, when the route is made; a request only runs what was found then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.decoder import Decoders, Put, Wrong, parse
from gateway.descriptors import Contract, Rpc
from gateway.encoder import LEFT_TO_JSON_FORMAT, WRAPPERS, Encoders
from gateway.limits import body_limit
from gateway.problems import UnsupportedMediaType, camel
from gateway.routes import Template
from gateway.web import JSON, Request, Response
from services.chassis.errors import InvalidInput, StaleEtag, Violation

HTTP_BODY = "google.api.HttpBody"
MAX_PARAMETERS = 200
QUERY_DEPTH = 4  # messages in one another that query parameters reach into

# Messages that are one value in JSON, so one query parameter.
_ONE_VALUE = (
    WRAPPERS
    | {"google.protobuf.Timestamp"}
    | (LEFT_TO_JSON_FORMAT - {f"google.protobuf.{n}" for n in ("Any", "Struct", "Value", "ListValue")})
)
_ETAG = re.compile(r"[\x21\x23-\x7e]+")
# One entity tag; no comma, which separates several. Clients that forget the quotes are understood when the tag is a plain word.
_IF_MATCH = re.compile(r'(?:W/)?"([\x21\x23-\x2b\x2d-\x7e]+)"|([\w.~-]+)', re.ASCII)
_VISIBLE = re.compile(r"[\x20-\x7e]+")
KEY = "[A-Za-z0-9._~:/+=-]{1,64}"  # an Idempotency-Key; a text of the header's structured form may have quotes around it


class Codecs:
    """The compiled encoders and decoders of a contract."""

    def __init__(self, contract: Contract) -> None:
        self.encoders = Encoders(contract.pool)
        self.decoders = Decoders(contract.pool, lambda field: "OUTPUT_ONLY" in contract.behaviours(field))


class Parameter:
    """A query parameter: the way to its field, and how to set it."""

    __slots__ = ("field", "name", "path", "put", "repeated")

    def __init__(self, path: tuple[str, ...], name: str, field: FieldDescriptor, put: Put) -> None:
        self.path, self.name, self.field, self.put, self.repeated = path, name, field, put, field.is_repeated


class Binding:
    """`method` and `template` are the route; `body` is "", "*" or the name of a field."""

    def __init__(self, contract: Contract, codecs: Codecs, rpc: Rpc, rule: Any, default_body_limit: int) -> None:
        """Raises ValueError on a rule that cannot be served."""
        kind = rule.WhichOneof("pattern")
        if kind not in ("get", "put", "post", "delete", "patch") or rule.response_body:
            raise ValueError(f"{rpc.path}: its HTTP rule is of a kind the gateway does not serve")
        self.rpc, self.method, self.template, self.body = rpc, kind.upper(), Template.parse(getattr(rule, kind)), rule.body
        fields = rpc.input.DESCRIPTOR.fields_by_name
        self._paths = [(_Field(rpc.input.DESCRIPTOR, v.field), v.start, v.stop) for v in self.template.variables]
        self.body_message: Descriptor | None = None
        if self.body == "*":
            self.body_message = rpc.input.DESCRIPTOR
        elif self.body:
            field = fields.get(self.body)
            if field is None or field.message_type is None or field.is_repeated:
                raise ValueError(f"{rpc.path}: its body {self.body!r} is not a message field of the request")
            self.body_message = field.message_type
        self._fill = codecs.decoders.of(self.body_message) if self.body_message is not None else None
        self.raw_body = self.body_message is not None and self.body_message.full_name == HTTP_BODY
        self.body_limit = body_limit(contract, self.body_message, default_body_limit) if self.body_message is not None else 0
        bound = {variable.field for variable in self.template.variables}
        self.parameters: list[Parameter] = []
        if self.body != "*":
            self.parameters = list(_parameters(codecs.decoders, rpc.input.DESCRIPTOR, (), "", bound | {self.body}))
        self._by_name = {name: p for p in self.parameters for name in (p.name, ".".join((*p.path, p.field.name)))}
        self.takes_key = _is_text(fields.get("request_id"))
        self.takes_etag = _is_text(fields.get("etag"))
        self.gives_etag = _is_text(rpc.output.DESCRIPTOR.fields_by_name.get("etag"))
        self.gives_raw = rpc.output.DESCRIPTOR.full_name == HTTP_BODY
        self._encode = codecs.encoders.of(rpc.output.DESCRIPTOR)

    def message(self, request: Request, segments: list[str], body: bytes) -> Message:
        """The request message. Raises InvalidInput, UnsupportedMediaType."""
        message = self.rpc.input()
        if self._fill is not None and body:
            self._read_body(message, request, body)
        if request.query:
            self._read_query(message, request.query)
        for field, start, stop in self._paths:
            value = segments[start] if stop == start + 1 else "/".join(segments[start:stop])
            field.put(message, value.replace("%2F", "/") if stop == start + 1 else value)
        self._read_headers(message, request.headers)
        return message

    def response(self, reply: Any) -> Response:
        """Raises ValueError when the reply holds what JSON has no form for (an instant in the year 10000)."""
        headers = [(b"cache-control", b"no-store")]
        if self.gives_raw:
            kind = reply.content_type if _VISIBLE.fullmatch(reply.content_type) else "application/octet-stream"
            # Whatever was uploaded is not to run in the origin of the documentation page.
            headers.append((b"content-security-policy", b"default-src 'none'; sandbox"))
            return Response(200, reply.data, kind.encode(), headers)
        if self.gives_etag and _ETAG.fullmatch(reply.etag):
            headers.append((b"etag", b'"' + reply.etag.encode() + b'"'))
        return Response(200, orjson.dumps(self._encode(reply)), JSON, headers)

    def client_path(self, path: str) -> str:
        """A field's path in the proto (`repair.contact_phone`) as the client knows it (`contactPhone` when the body is the repair)."""
        if self.body not in ("", "*") and path.startswith(self.body + "."):
            path = path[len(self.body) + 1 :]
        return camel(path)

    def _read_body(self, message: Any, request: Request, body: bytes) -> None:
        target = message if self.body == "*" else getattr(message, self.body)
        if self.raw_body:
            target.content_type, target.data = request.media_type().decode("latin-1"), body
            return
        kind = request.media_type()
        if kind and kind != JSON and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
            raise UnsupportedMediaType("send JSON (Content-Type: application/json)")
        value = parse(body)
        target.SetInParent()
        try:
            self._fill(target, value, 1)  # type: ignore[misc]
        except Wrong as wrong:
            raise wrong.refusal() from None

    def _read_query(self, message: Message, query: bytes) -> None:
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
        except ValueError:
            raise InvalidInput("the query is not percent-encoded UTF-8, or has too many parameters", reason="INVALID_QUERY") from None
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        wrong: list[tuple[str, str, bool]] = []
        for name, given in values.items():
            parameter = self._by_name.get(name)
            try:
                if parameter is None:
                    raise Wrong(("", "there is no such parameter", True))
                if not parameter.repeated and len(given) > 1:
                    raise Wrong.here("is given twice")
                target: Any = message
                for step in parameter.path:
                    target = getattr(target, step)
                plain = [_plain(parameter.field, value) for value in given]
                parameter.put(target, plain if parameter.repeated else plain[0], 1)
            except Wrong as error:
                wrong += error.below("".join(c for c in name[:60] if c.isprintable()))
        if wrong:
            raise Wrong(*wrong).refusal()

    def _read_headers(self, message: Any, headers: dict[bytes, bytes]) -> None:
        if self.takes_key and (key := headers.get(b"idempotency-key")) is not None:
            text = key.decode("latin-1").strip('"')
            if not re.fullmatch(KEY, text):
                violation = Violation("Idempotency-Key", "must be 1 to 64 letters, digits or one of ._~:/+=-")
                raise InvalidInput("the header Idempotency-Key is wrong", reason="INVALID_HEADER", violations=[violation])
            message.request_id = message.request_id or text
        if (match := headers.get(b"if-match")) is not None and self.method != "GET":
            self._read_if_match(message, match.decode("latin-1").strip())

    def _read_if_match(self, message: Any, text: str) -> None:
        if text == "*":
            return
        match = _IF_MATCH.fullmatch(text)
        if not self.takes_etag or match is None:
            wrong = "must be one entity tag in quotes" if self.takes_etag else "this operation cannot be made conditional"
            raise InvalidInput("the header If-Match is wrong", reason="INVALID_HEADER", violations=[Violation("If-Match", wrong)])
        etag = match[1] or match[2]
        if message.etag and message.etag != etag:
            raise StaleEtag("the etag in the body and the one in If-Match differ, so one of them is stale")
        message.etag = etag


class _Field:
    """A text field bound by the path, perhaps inside other messages (`repair.name`)."""

    def __init__(self, message: Descriptor, path: str) -> None:
        *self._steps, self._name = path.split(".")
        for step in self._steps:
            message = message.fields_by_name[step].message_type  # type: ignore[assignment]
        if not _is_text(message.fields_by_name.get(self._name)):
            raise ValueError(f"{message.full_name} has no text field {self._name!r} for the path to bind")
        self._path = path

    def put(self, message: Any, value: str) -> None:
        for step in self._steps:
            message = getattr(message, step)
        if (other := getattr(message, self._name)) and other != value:
            violation = Violation(camel(self._path), "differs from what the path says; leave it out of the body")
            raise InvalidInput("the body contradicts the path", violations=[violation])
        setattr(message, self._name, value)


def _parameters(decoders: Decoders, message: Descriptor, path: tuple[str, ...], prefix: str, bound: set[str]) -> Iterator[Parameter]:
    """Fields that a query can set: scalars, lists of them, and those inside messages, as `appointment.startTime`."""
    for field in message.fields:
        if ".".join((*path, field.name)) in bound:
            continue
        name = prefix + field.json_name
        kind = field.message_type
        if kind is None or (kind.full_name in _ONE_VALUE and not field.is_repeated):
            yield Parameter(path, name, field, decoders.field(field))
        elif not field.is_repeated and kind.full_name not in LEFT_TO_JSON_FORMAT and len(path) < QUERY_DEPTH:
            yield from _parameters(decoders, kind, (*path, field.name), name + ".", bound)


def _plain(field: FieldDescriptor, value: str) -> Any:
    """The JSON value that a parameter's text stands for; numbers are read from text by their decoders."""
    boolean = field.cpp_type == FieldDescriptor.CPPTYPE_BOOL
    if field.message_type is not None:
        boolean = field.message_type.full_name == "google.protobuf.BoolValue"
    return {"true": True, "false": False}.get(value, value) if boolean else value


def _is_text(field: FieldDescriptor | None) -> bool:
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
