"""JSON Schemas (of OpenAPI 3.0) of the contract's messages, as they are read and as they are written.

Written (`-input`): without output-only fields, with buf.validate's rules, unknown fields refused. Read: everything a reply
may carry, nothing required, because ProtoJSON leaves out what has its default, and without rules, which bind input only.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.descriptors import Contract

Schema = dict[str, Any]

RULES = "buf.validate.field"
IGNORE_IF_ZERO, IGNORE_ALWAYS = 1, 3

EXAMPLES = {"estate": "TFHY", "unit": "1-1-0101", "service": "work_orders", "policy": "repair.pickup", "change": "17"}
EXAMPLE_ID = "0192f0c0-7a2e-7c3d-9f4b-2f1d6a1c9e01"  # a UUIDv7, as resources without a code have

TEXT: Schema = {"type": "string"}
INSTANT: Schema = {"type": "string", "format": "date-time", "example": "2026-11-22T03:10:00Z"}
BASE64: Schema = {"type": "string", "format": "byte"}

_INTEGERS: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"},
}
_NUMBER: Schema = {"type": "number", "format": "double"}
_NO_NUMBER: Schema = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}

_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": INSTANT,
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$", "example": "3600s"},
    "google.protobuf.FieldMask": {"type": "string", "example": "description,contactPhone"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": TEXT}},
    "google.protobuf.Empty": {"type": "object"},
}


class Schemas:
    """Collects the components that the operations refer to."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self.components: dict[str, Schema] = {}

    def written(self, message: Descriptor) -> Schema:
        return self._reference(message, written=True)

    def read(self, message: Descriptor) -> Schema:
        return self._reference(message, written=False)

    def body(self, message: Descriptor, bound: set[str]) -> Schema:
        """A request message as a body, without the fields that the path binds."""
        return self._object(message, written=True, without=bound)

    def parameter(self, field: FieldDescriptor) -> tuple[Schema, bool]:
        """Schema of a field as a query parameter, and whether it must be given."""
        return self._field(field, written=True, described=False), self.needed(field)

    def needed(self, field: FieldDescriptor) -> bool:
        """Whether a request is refused without this field: it says so, or its rules refuse the default that absence means."""
        rules = self._rules(field)
        if "REQUIRED" in self._contract.behaviours(field) or (rules is not None and rules.required):
            return True
        return rules is not None and not field.has_presence and rules.ignore != IGNORE_IF_ZERO and _refuses_default(field, rules)

    def _reference(self, message: Descriptor, written: bool) -> Schema:
        if message.full_name in _KNOWN:
            return dict(_KNOWN[message.full_name])
        if message.file.name == "google/protobuf/wrappers.proto":
            return self._single(message.fields_by_name["value"], written, None)
        name = re.sub(r"^steward\.|\.v\d+(?=\.)", "", message.full_name) + ("-input" if written else "")
        if name not in self.components:
            self.components[name] = {}  # named before it is made: a message may contain itself
            self.components[name] = self._object(message, written, set())
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, message: Descriptor, written: bool, without: set[str]) -> Schema:
        properties, needed = {}, []
        resource = self._contract.message_option(message, "google.api.resource")
        for field in message.fields:
            behaviours = self._contract.behaviours(field)
            if field.name in without or (written and behaviours & {"OUTPUT_ONLY", "IDENTIFIER"}):
                continue
            schema = self._field(field, written, described=True)
            if "OUTPUT_ONLY" in behaviours:
                schema = {**_beside(schema), "readOnly": True}
            if field.name == "name" and resource is not None and resource.pattern:
                schema = {**schema, "example": re.sub(r"\{(\w+)\}", lambda m: EXAMPLES.get(m[1], EXAMPLE_ID), resource.pattern[0])}
            properties[field.json_name] = schema
            if written and self.needed(field):
                needed.append(field.json_name)
        result: Schema = {"type": "object", "properties": properties}
        if needed:
            result["required"] = needed
        if written:
            result["additionalProperties"] = False
        if comment := self._contract.comment(message.full_name):
            result["description"] = comment
        return result

    def _field(self, field: FieldDescriptor, written: bool, described: bool) -> Schema:
        rules = self._rules(field) if written else None
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            content = message.fields_by_name["value"]
            schema: Schema = {"type": "object", "additionalProperties": self._single(content, written, rules.map.values if rules else None)}
            if rules is not None:
                _copy(rules.map, schema, min_pairs="minProperties", max_pairs="maxProperties")
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, written, rules.repeated.items if rules else None)}
            if rules is not None:
                _copy(rules.repeated, schema, min_items="minItems", max_items="maxItems", unique="uniqueItems")
        else:
            schema = self._single(field, written, rules)
        if described and (comment := self.describe(field)):
            schema = {**_beside(schema), "description": comment}
        return schema

    def _single(self, field: FieldDescriptor, written: bool, rules: Any) -> Schema:
        """One value of a field: the field's own, an item's, a map value's."""
        if field.message_type is not None:
            return self._reference(field.message_type, written)
        if rules is not None and rules.ignore == IGNORE_ALWAYS:
            rules = None
        if field.enum_type is not None:
            return _enum(field, rules.enum if rules is not None else None, written)
        if field.type == FieldDescriptor.TYPE_BYTES:
            schema = dict(BASE64)
            if rules is not None:
                _bytes_rules(rules.bytes, schema)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            schema = dict(TEXT)
            if rules is not None:
                _text_rules(rules.string, schema)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            schema = {"type": "boolean"}
        elif field.cpp_type in _INTEGERS:
            schema = dict(_INTEGERS[field.cpp_type])
            if rules is not None and (kind := rules.WhichOneof("type")):
                _number_rules(getattr(rules, kind), schema)
        else:
            schema = dict(_NUMBER)
            if rules is not None and (kind := rules.WhichOneof("type")):
                _number_rules(getattr(rules, kind), schema)
            if not (rules is not None and kind and getattr(rules, kind).finite):
                schema = {"anyOf": [schema, _NO_NUMBER]}
        if rules is not None and rules.ignore == IGNORE_IF_ZERO and len(schema) > 1:
            schema = {"anyOf": [schema, {"type": schema["type"], "enum": [_default(field)]}]}
        return schema

    def _rules(self, field: FieldDescriptor) -> Any:
        return self._contract.field_option(field, RULES)

    def describe(self, field: FieldDescriptor) -> str:
        lines = [self._contract.comment(field.full_name)]
        enum = field.enum_type
        if enum is not None:
            meanings = ((value.name, self._contract.comment(f"{enum.full_name}.{value.name}")) for value in enum.values)
            lines += [f"- `{name}` {meaning}" for name, meaning in meanings if meaning]
        return "\n".join(line for line in lines if line)


def sentence(comment: str) -> str:
    """The first sentence of a comment, without its full stop."""
    return re.split(r"(?<=[.;:])\s", comment, maxsplit=1)[0].rstrip(".;:")


def _beside(schema: Schema) -> Schema:
    """A schema to which members can be added: beside `$ref` they would not count."""
    return {"allOf": [schema]} if "$ref" in schema else dict(schema)


def _copy(rules: Any, schema: Schema, **names: str) -> None:
    for rule, name in names.items():
        if rules.HasField(rule):
            schema[name] = getattr(rules, rule)


def _text_rules(rules: Any, schema: Schema) -> None:
    _copy(rules, schema, min_len="minLength", max_len="maxLength", pattern="pattern")
    if rules.HasField("len"):
        schema["minLength"] = schema["maxLength"] = rules.len
    affixes = [("prefix", "^{}"), ("suffix", "{}$"), ("contains", "{}")]
    if found := [form.format(re.escape(getattr(rules, name))) for name, form in affixes if rules.HasField(name)]:
        schema.setdefault("pattern", found[0])
    for name in ("email", "hostname", "ipv4", "ipv6", "uri", "uuid"):
        if getattr(rules, name):
            schema["format"] = name
    _choices(rules, schema)
    if rules.example:
        schema["example"] = rules.example[0]


def _bytes_rules(rules: Any, schema: Schema) -> None:
    """Lengths are of the bytes: every three of them are four characters of base64."""
    if rules.HasField("min_len"):
        schema["minLength"] = -(-rules.min_len * 4 // 3)
    if rules.HasField("max_len"):
        schema["maxLength"] = -(-rules.max_len // 3) * 4


def _number_rules(rules: Any, schema: Schema) -> None:
    if schema["type"] == "string":  # 64-bit integers are text in ProtoJSON, and text has no minimum
        bounds = [
            f"{sign} {getattr(rules, name)}"
            for name, sign in (("gt", ">"), ("gte", "≥"), ("lt", "<"), ("lte", "≤"))
            if rules.HasField(name)
        ]
        if bounds:
            schema["description"] = ", ".join(bounds)
        if (rules.HasField("gt") and rules.gt >= 0) or (rules.HasField("gte") and rules.gte >= 0):
            schema["pattern"] = schema["pattern"].replace("-?", "")
        return
    _copy(rules, schema, gte="minimum", lte="maximum", gt="minimum", lt="maximum")
    if rules.HasField("gt"):
        schema["exclusiveMinimum"] = True
    if rules.HasField("lt"):
        schema["exclusiveMaximum"] = True
    _choices(rules, schema)


def _choices(rules: Any, schema: Schema) -> None:
    if rules.HasField("const"):
        schema["enum"] = [rules.const]
    elif allowed := getattr(rules, "in"):
        schema["enum"] = list(allowed)


def _enum(field: FieldDescriptor, rules: Any, written: bool) -> Schema:
    enum: Any = field.enum_type
    if enum.full_name == "google.protobuf.NullValue":
        return {"nullable": True, "enum": [None]}
    values = {value.number: value.name for value in reversed(enum.values)}
    allowed = set(values)
    if rules is not None:
        if rules.HasField("const"):
            allowed &= {rules.const}
        if included := getattr(rules, "in"):
            allowed &= set(included)
        allowed -= set(rules.not_in)
    elif not written and _left_out_by_default(field) and values.get(0, "").endswith("_UNSPECIFIED"):
        allowed -= {0}
    return {
        "type": "string",
        "enum": [value.name for value in enum.values if value.number in allowed and values[value.number] == value.name],
    }


def _left_out_by_default(field: FieldDescriptor) -> bool:
    """Whether a reply never carries the default: neither in a list or map, nor where presence is known."""
    in_map = field.containing_type is not None and field.containing_type.GetOptions().map_entry
    return not (field.has_presence or field.is_repeated or in_map)


def _default(field: FieldDescriptor) -> Any:
    return "" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 0


def _refuses_default(field: FieldDescriptor, rules: Any) -> bool:
    """Whether rules refuse the default of a field without presence: "", 0, no items, the first enum value."""
    kind = rules.WhichOneof("type")
    if kind is None:
        return False
    given = getattr(rules, kind)
    if field.is_repeated:
        return bool(getattr(given, "min_items", 0) or getattr(given, "min_pairs", 0))
    if kind == "string":
        refused = given.min_len > 0 or given.len > 0 or given.min_bytes > 0 or given.len_bytes > 0
        refused = (
            refused or (given.HasField("pattern") and re.search(given.pattern, "") is None) or given.WhichOneof("well_known") is not None
        )
        return refused or bool(given.prefix or given.suffix or given.contains) or _not_among(given, "")
    if kind == "bytes":
        return bool(given.min_len or given.len)
    if kind == "enum":
        return 0 in given.not_in or _not_among(given, 0)
    if kind == "bool":
        return given.HasField("const") and given.const
    if not hasattr(given, "gte"):
        return False
    above = (given.HasField("gt") and given.gt >= 0) or (given.HasField("gte") and given.gte > 0)
    below = (given.HasField("lt") and given.lt <= 0) or (given.HasField("lte") and given.lte < 0)
    return above or below or 0 in given.not_in or _not_among(given, 0)


def _not_among(rules: Any, default: Any) -> bool:
    among = getattr(rules, "in")
    return (rules.HasField("const") and rules.const != default) or (bool(among) and default not in among)
