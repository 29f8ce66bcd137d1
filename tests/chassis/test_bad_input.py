"""Whatever is sent, nothing is a 500 and nothing is half-saved: every operation that a service answers gets nonsense by the dozen,
its own and those of the chassis."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis.__main__ import SERVICES
from services.chassis.rpc import EVERY, Operation, Server
from services.chassis.testing import INTERNAL, Api, Caller, Refused, Tree, a_tree
from tests.conftest import Databases, Postgres

EXAMPLES = 10  # for each operation
REFUSALS_WRITE = ("failed_sign_ins",)  # tables that are there to remember refusals
NASTY = [
    "", "x", "\x00", "a\x00b", "𬭎㛃", "👩‍🔧", "\u202e", "' OR 1=1 --", "\"; DROP TABLE repairs; --", "%s%s", "${jndi:x}", "../../etc/passwd", "-", "estates/-",
    "<script>", "1-1-0101", "999999999999999999999", "2026-13", "2026-00", "0000-01", "9999-12", "NaN", "A" * 5000, "\n", " ",
    "staff/00000000-0000-0000-0000-000000000000", "people/x", "eyJhIjogMX0", "estates//repairs/",
]  # fmt: skip
PLACES = [f"services/{service}" for service in SERVICES] + [
    "services/work_orders/policies/-", "services/work_orders/policies/repair.pickup", "services/residents/policies/calendar.hours",
    "services/surveys/policies/nothing", "services/billing_reminders/policies/", "services/notifications/policies/a/b",
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
        f"groups/{tree.group_id}",
        f"companies/{tree.company_id}",
        *PLACES,
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


def messages(descriptor: Descriptor, tree: Tree, depth: int = 0, place: str = "") -> st.SearchStrategy[Message]:
    """Messages of a kind with anything in their fields that protobuf itself can carry; `place` is what they often name."""

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
                setattr(message, field.name, draw(st.just(place or tree.parent) | found if named else found))
        return message

    return build()


def caller_of(operation: Operation, tree: Tree) -> list[Caller | str]:
    """Everybody who may call."""
    rule = operation.access
    if rule.scope in ("INTERNAL", "PUBLIC"):
        return [INTERNAL]
    return [tree.by_role(role) for role in sorted(rule.roles) if role in tree.staff or role in tree.residents] or [
        tree.technician,
        tree.owner,
    ]


class Rows:
    """How many rows each table of a database has."""

    def __init__(self, postgres: Postgres, service: str):
        self._connection = psycopg2.connect(postgres.url(service))
        self._connection.autocommit = True
        tables = self._fetch(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        self._tables = [table for (table,) in tables if table not in REFUSALS_WRITE]
        self._query = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in self._tables)

    def count(self) -> dict[str, int]:
        return dict(zip(self._tables, self._fetch(self._query)[0], strict=True))

    def close(self) -> None:
        self._connection.close()

    def _fetch(self, sql: str) -> list[tuple]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


@pytest.fixture
def rows(service: str, postgres: Postgres, database_of: Databases) -> Iterator[Rows]:
    """Afterwards the long-running operations that nonsense has begun are gone: the jobs of other tests would do them."""
    database_of(service)
    known = [identifier for (identifier,) in postgres.sql(service, "SELECT id::text FROM operations")]
    counted = Rows(postgres, service)
    yield counted
    counted.close()
    postgres.sql(service, "DELETE FROM operations WHERE id::text <> ALL(%s)", (known,))


@pytest.mark.parametrize("service", SERVICES)
def test_no_request_however_senseless_is_a_500_or_leaves_anything_behind_when_it_is_refused(
    service: str, database_of: Databases, serving_of: Callable[[str], tuple[Server, Api]], rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    tree = a_tree(database_of(service))
    server, client = serving_of(service)
    api = copy.copy(client)
    api.methods = {operation.path: operation.method for operation in server.operations}
    before = rows.count()

    def send(path: str, who: Caller | str, request: Message) -> None:
        nonlocal before
        caplog.clear()
        try:
            api.send(who, path, request)
        except Refused as refused:
            assert 400 <= refused.http < 500, f"{path}: {refused}\n{request}\n{caplog.text}"
            assert refused.reason
            assert rows.count() == before, f"{path} was refused, {refused}, and yet saved something\n{request}"
        else:
            before = rows.count()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(data=st.data())
    def nonsense(data: st.DataObject, operation: Operation) -> None:
        place = f"services/{service}/policies/-" if operation.service == EVERY else tree.parent
        who = data.draw(st.sampled_from(caller_of(operation, tree)))
        send(operation.path, who, data.draw(messages(operation.method.input_type, tree, place=place)))

    for operation in server.operations:
        nonsense(operation=operation)
