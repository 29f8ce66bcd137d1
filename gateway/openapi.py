"""The OpenAPI 3.0.3 document, made from the descriptors: what the routes take and give is what it says, as both are made
from the same bindings."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from gateway import sign_in
from gateway.binding import HTTP_BODY, KEY, Binding
from gateway.descriptors import PUBLIC, SELF, Contract
from gateway.schemas import EXAMPLE_ID, EXAMPLES, TEXT, Schema, Schemas, sentence

INTRODUCTION = """The API of Steward (管家).

**Signing in.** `POST /v1/auth/token` gives an access token; send it as `Authorization: Bearer …`.

**Names.** Resources are named as in AIP-122, `estates/TFHY/repairs/0192…`; `estates/-` reads across every estate the caller may see.

**Values** are ProtoJSON: fields that have their default are left out of replies, 64-bit integers are texts, instants are RFC 3339.
Unknown fields and parameters are refused. Texts must not contain the NUL character.

**Safe retries.** Send `Idempotency-Key` with a change; the same key with the same body gets the first answer again for 24 hours, with
another body 422. **No lost updates.** Send the `ETag` of what you saw as `If-Match`; if it has changed meanwhile the answer is 412.

**Refusals** are problem documents (RFC 9457) with a stable `reason`. `X-Request-Timeout` (seconds) lowers the deadline of 5 s;
`traceparent` (W3C) is taken up, and every answer carries `X-Trace-Id`.
"""

REFUSALS = {
    "400": ("InvalidInput", "The request is wrong; `violations` names the fields."),
    "401": ("Unauthenticated", "No access token, or one that is not valid any more."),
    "403": ("Forbidden", "None of the caller's roles may do this."),
    "404": ("NotFound", "It does not exist, or not in the caller's part of the tree."),
    "408": ("BodyTooSlow", "The body took too long to arrive."),
    "409": ("Conflict", "The state of things does not allow it, such as ILLEGAL_MOVE."),
    "412": ("StaleEtag", "It has changed since it was read."),
    "413": ("BodyTooLarge", "The body is too large."),
    "415": ("UnsupportedMediaType", "The body is not JSON."),
    "422": ("KeyReused", "The Idempotency-Key came with another body before."),
    "429": ("TooMany", "Too many requests."),
    "500": ("Broken", "Something broke on our side."),
    "501": ("NotServed", "The service that runs does not know this operation yet."),
    "503": ("Unavailable", "A part that is needed does not answer, or too much is going on; try again."),
    "504": ("TooSlow", "No answer in time; whether it took effect is not known. The same Idempotency-Key makes a second try safe."),
}

SCOPES = {
    "ESTATE": "at the estate named, or above it",
    "GROUP": "at the group",
    "NODE": "at the node named, or above it",
    SELF: "Anybody who is signed in.",
    PUBLIC: "Anybody, without signing in.",
}

# What a path segment may be: no separators, nothing invisible.
SEGMENT = r"^[^\x00-\x20/:?#%\x7f]+$"


def document(contract: Contract, bindings: list[Binding]) -> dict[str, Any]:
    schemas = Schemas(contract)
    singulars = _singulars(contract)
    names = Counter(binding.rpc.name for binding in bindings)
    seen: Counter[str] = Counter()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for binding in bindings:
        rpc = binding.rpc
        tags.setdefault(rpc.group, contract.comment(rpc.input.DESCRIPTOR.file.package + "." + rpc.group))
        operation_id = rpc.name
        if names[rpc.name] > 1:  # further bindings of one RPC, or the same name in two services
            seen[rpc.name] += 1
            operation_id = f"{rpc.group}_{rpc.name}_{seen[rpc.name]}"
        path, parameters = _path(binding, singulars)
        paths.setdefault(path, {})[binding.method.lower()] = _operation(binding, schemas, operation_id, parameters)
    paths.update(sign_in.openapi())
    return {
        "openapi": "3.0.3",
        "info": {"title": "Steward 管家", "version": "1", "description": INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": comment} for name, comment in sorted(tags.items())],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The access token of `POST /v1/auth/token`."},
                "password": {
                    "type": "oauth2",
                    "flows": {"password": {"tokenUrl": "/v1/auth/token", "refreshUrl": "/v1/auth/token", "scopes": {}}},
                },
            },
            "headers": {
                "X-Trace-Id": {
                    "description": "What to quote when something is wrong.",
                    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                },
                "ETag": {"description": "The version, for If-Match.", "schema": TEXT},
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
            },
            "responses": {name: _refusal(status, text) for status, (name, text) in REFUSALS.items()},
            "schemas": {"Problem": PROBLEM, **sign_in.schemas(), **dict(sorted(schemas.components.items()))},
        },
    }


PROBLEM: Schema = {
    "type": "object",
    "description": "Why it was refused (RFC 9457).",
    "required": ["type", "title", "status", "detail", "reason", "traceId"],
    "properties": {
        "type": {**TEXT, "format": "uri", "example": "urn:steward:problem:illegal-move"},
        "title": {**TEXT, "example": "Illegal move"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {**TEXT, "description": "A sentence for people."},
        "reason": {**TEXT, "description": "Stable, for programs.", "pattern": "^[A-Z][A-Z0-9_]*$", "example": "ILLEGAL_MOVE"},
        "rule": {**TEXT, "description": "Row of the rule book that refused.", "example": "REP-09"},
        "violations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "properties": {"field": {**TEXT, "description": "JSON path, parameter or header."}, "description": TEXT},
            },
        },
        "instance": {**TEXT, "description": "The path of the request."},
        "traceId": {**TEXT, "pattern": "^[0-9a-f]{32}$"},
    },
}


def _refusal(status: str, text: str) -> Schema:
    headers = {"X-Trace-Id": {"$ref": "#/components/headers/X-Trace-Id"}}
    if status in ("429", "503"):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "headers": headers, "content": {"application/problem+json": {"schema": schema}}}


def _operation(binding: Binding, schemas: Schemas, operation_id: str, parameters: list[Schema]) -> Schema:
    rpc = binding.rpc
    operation: Schema = {
        "operationId": operation_id,
        "tags": [rpc.group],
        "summary": sentence(rpc.comment) or rpc.name,
        "description": "\n\n".join(filter(None, (rpc.comment, _who(rpc.scope, rpc.roles)))),
        "parameters": parameters + _query(binding, schemas) + _headers(binding),
        "responses": {
            "200": _success(binding, schemas),
            **{s: {"$ref": f"#/components/responses/{REFUSALS[s][0]}"} for s in _statuses(binding)},
        },
    }
    if rpc.scope == PUBLIC:
        operation["security"] = []
    else:
        operation["security"] = [{"token": []}, {"password": []}]
    if binding.body_message is not None:
        operation["requestBody"] = _body(binding, schemas)
    return operation


def _who(scope: str, roles: tuple[str, ...]) -> str:
    if not roles:
        return f"Who may call: {SCOPES[scope][0].lower() + SCOPES[scope][1:]}"
    return f"Who may call: {', '.join(roles)} {SCOPES[scope]}."


def _statuses(binding: Binding) -> list[str]:
    """Refusals that the operation can meet; which of them its own rules cause is in its comment."""
    statuses = {"400", "429", "500", "501", "503", "504"}
    if binding.rpc.scope != PUBLIC:
        statuses |= {"401"}
        if binding.rpc.scope != SELF:
            statuses |= {"403"}
        if binding.template.variables or binding.body:
            statuses |= {"404"}
    if binding.method != "GET":
        statuses |= {"409"}
    if binding.takes_etag:
        statuses |= {"412"}
    if binding.takes_key:
        statuses |= {"422"}
    if binding.body:
        statuses |= {"408", "413", "415"}
    return sorted(statuses)


def _success(binding: Binding, schemas: Schemas) -> Schema:
    headers = {"X-Trace-Id": {"$ref": "#/components/headers/X-Trace-Id"}}
    if binding.gives_raw:
        return {"description": "The file.", "headers": headers, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    if binding.gives_etag:
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    schema = schemas.read(binding.rpc.output.DESCRIPTOR)
    return {"description": "Done.", "headers": headers, "content": {"application/json": {"schema": schema}}}


def _body(binding: Binding, schemas: Schemas) -> Schema:
    message: Any = binding.body_message
    if message.full_name == HTTP_BODY:
        return {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    if binding.body == "*":
        schema = schemas.body(message, {variable.field for variable in binding.template.variables})
        needed = bool(schema.get("required"))
    else:
        schema = schemas.written(message)
        needed = schemas.needed(binding.rpc.input.DESCRIPTOR.fields_by_name[binding.body])
    return {"required": needed, "content": {"application/json": {"schema": schema}}}


def _query(binding: Binding, schemas: Schemas) -> list[Schema]:
    found = []
    for parameter in binding.parameters:
        schema, needed = schemas.parameter(parameter.field)
        entry: Schema = {"name": parameter.name, "in": "query", "required": needed and not parameter.path, "schema": schema}
        if text := schemas.describe(parameter.field):
            entry["description"] = text
        found.append(entry)
    return found


def _headers(binding: Binding) -> list[Schema]:
    found = []
    if binding.takes_key:
        key = {"type": "string", "pattern": f"^{KEY}$"}
        found.append({"name": "Idempotency-Key", "in": "header", "description": "Makes a retry safe; a UUID.", "schema": key})
    if binding.takes_etag:
        tag = {"type": "string", "pattern": '^("[A-Za-z0-9._~-]+"|[A-Za-z0-9._~-]+)$', "example": '"7"'}
        found.append({"name": "If-Match", "in": "header", "description": "The ETag of what was seen.", "schema": tag})
    return found


def _path(binding: Binding, singulars: dict[str, str]) -> tuple[str, list[Schema]]:
    """`/v1/{name=estates/*/repairs/*}:take` → `/v1/estates/{estate}/repairs/{repair}:take` and its two parameters."""
    template = binding.template
    segments = list(template.segments)
    parameters: list[Schema] = []
    taken: Counter[str] = Counter()
    for variable in template.variables:
        for at in range(variable.start, variable.stop):
            if segments[at] != "*":
                continue
            collection = template.segments[at - 1] if at > variable.start else ""
            name = singulars.get(collection) or singular(collection) or variable.field.rpartition(".")[2]
            taken[name] += 1
            if taken[name] > 1:
                name = f"{name}{taken[name]}"
            segments[at] = "{" + name + "}"
            schema: Schema = {"type": "string", "pattern": SEGMENT}
            entry: Schema = {"name": name, "in": "path", "required": True, "schema": schema}
            entry["example"] = EXAMPLES.get(name, EXAMPLE_ID)
            parameters.append(entry)
    verb = f":{template.verb}" if template.verb else ""
    return "/" + "/".join(segments) + verb, parameters


def _singulars(contract: Contract) -> dict[str, str]:
    """`repairs` → `repair`, as the resource patterns (AIP-123) of the contract name them."""
    return dict(pair for _, pattern in contract.resources() for pair in re.findall(r"([^/{}]+)/\{([^{}]+)\}", pattern))


def singular(collection: str) -> str:
    if collection.endswith("ies"):
        return collection[:-3] + "y"
    if collection.endswith(("sses", "xes", "ches", "shes")):
        return collection[:-2]
    return collection.removesuffix("s")
