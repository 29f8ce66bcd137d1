"""Whatever is sent, nothing is a 500 and nothing is half-saved: every operation of every service gets nonsense by the hundred."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis.__main__ import SERVICES
from services.chassis.access import declared
from services.chassis.rpc import Server
from services.chassis.testing import INTERNAL, Api, Refused, Tree, a_tree
from tests.conftest import Databases

NASTY = [
    "", "x", "\x00", "a\x00b", "𬭎㛃", "👩‍🔧", "\u202e", "' OR 1=1 --", "\"; DROP TABLE repairs; --", "%s%s", "${jndi:x}", "../../etc/passwd", "-", "estates/-",
    "<script>", "1-1-0101", "999999999999999999999", "2026-13", "2026-00", "0000-01", "9999-12", "NaN", "A" * 5000, "\n", " ",
    "staff/00000000-0000-0000-0000-000000000000", "people/x", "eyJhIjogMX0", "estates//repairs/",
]  # fmt: skip
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.sampled_from([0, 1, -1, 5, 100, 2**31 - 1, -(2**31)]),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from([0, 1, -1, 5, 2**63 - 1, -(2**63)]),
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from([0, 1, 2**32 - 1]),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from([0, 1, 2**64 - 1]),
}


def texts(tree: Tree) -> st.SearchStrategy[str]:
    case = "00000000-0000-0000-0000-000000000000"
    names = [
        tree.parent,
        f"{tree.parent}/repairs/{case}",
        f"{tree.parent}/repairs/x",
        tree.technician.name,
        tree.owner.name,
        tree.code,
        tree.unit,
        "2026-11",
    ]
    return st.sampled_from(names + NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def values(field: FieldDescriptor, tree: Tree, depth: int) -> st.SearchStrategy[Any]:
    if field.cpp_type in INTEGERS:
        return INTEGERS[field.cpp_type]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values] + [99, -1])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.sampled_from([0.0, 0.5, -1.0, 1e300 if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else 1e30, math.inf, math.nan])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.sampled_from([b"", b"\x00", b"\x89PNG\r\n\x1a\nx", b"PK\x03\x04broken", b"x" * 70_000])
        return texts(tree)
    return messages(field.message_type, tree, depth + 1)


def messages(descriptor: Descriptor, tree: Tree, depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a kind with anything in their fields that protobuf itself can carry."""

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            named = depth == 0 and field.name in ("name", "parent")
            if draw(st.integers(0, 9)) < (1 if named else 5) or (
                field.message_type and (depth > 2 or field.message_type.GetOptions().map_entry)
            ):
                continue
            found = values(field, tree, depth)
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(found, max_size=2)))
            elif field.message_type:
                getattr(message, field.name).CopyFrom(draw(found))
            else:
                setattr(message, field.name, draw(st.just(tree.parent) | found if named else found))
        return message

    return build()


@pytest.mark.parametrize("service", SERVICES)
def test_no_request_however_senseless_is_a_500(
    service: str, database_of: Databases, serving_of: Callable[[str], tuple[Server, Api]], caplog: pytest.LogCaptureFixture
) -> None:
    tree = a_tree(database_of(service))
    api = serving_of(service)[1]
    callers = {}
    for method in api.methods.values():
        rule = declared(method)
        assert rule
        allowed = [tree.by_role(role) for role in sorted(rule.roles) if role in tree.staff or role in tree.residents]
        callers[method.name] = allowed or ([INTERNAL] if rule.scope in ("INTERNAL", "PUBLIC") else [tree.technician, tree.owner])

    @given(st.data())
    @settings(max_examples=250 if len(api.methods) > 10 else 60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def send(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(api.methods)))
        who = data.draw(st.sampled_from(callers[name]))
        request = data.draw(messages(api.methods[name].input_type, tree))
        caplog.clear()
        try:
            api.send(who, name, request)
        except Refused as refused:
            assert 400 <= refused.http < 500, f"{name}: {refused}\n{request}\n{caplog.text}"
            assert refused.reason

    send()
