"""The authorisation matrix, generated from the protos: every operation × every role × own and other estate × no token.

Every operation that a server answers is in it: the service's own, and those of the chassis that each service answers for itself.
A call is denied unless the operation's proto declares the role. What is not denied may still be refused for other reasons: the
case does not exist, the request is empty. Those are not this test's matter, a 500 is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from services.chassis.__main__ import SERVICES
from services.chassis.access import Access, Grant
from services.chassis.rpc import Operation, Server, proto_services
from services.chassis.testing import COMPANY_ROLES, GROUP_ROLES, INTERNAL, STAFF_ROLES, Api, Caller, Refused, Tree, a_tree, configured
from steward.options.v1 import options_pb2
from tests.conftest import Databases

ROLES = tuple(name for name, number in options_pb2.Role.items() if number)
OUTSIDERS = {"DEVELOPER": "vendors", "RENOVATION_HEAD": "vendors", "VENDOR": "vendors"}
PLACED = ("ESTATE", "NODE")  # scopes of operations that name a place of the tree

pytestmark = pytest.mark.parametrize("service", SERVICES)


@pytest.fixture(scope="module")
def world(database_of: Databases) -> Callable[[str], tuple[Tree, Tree]]:
    """Two estates of different groups in the directory of a service."""
    made: dict[str, tuple[Tree, Tree]] = {}

    def trees(service: str) -> tuple[Tree, Tree]:
        if service not in made:
            made[service] = a_tree(database_of(service)), a_tree(database_of(service))
        return made[service]

    return trees


@pytest.fixture
def here(service: str, world: Callable[[str], tuple[Tree, Tree]]) -> Tree:
    return world(service)[0]


@pytest.fixture
def there(service: str, world: Callable[[str], tuple[Tree, Tree]]) -> Tree:
    return world(service)[1]


@pytest.fixture
def server(service: str, serving_of: Callable[[str], tuple[Server, Api]]) -> Server:
    return serving_of(service)[0]


@pytest.fixture
def api(service: str, server: Server, serving_of: Callable[[str], tuple[Server, Api]]) -> Api:
    """A client that knows everything the server answers, by the full name."""
    known = copy.copy(serving_of(service)[1])
    known.methods = {operation.method.full_name: operation.method for operation in server.operations}
    return known


def caller(tree: Tree, role: str) -> Caller:
    """Somebody who holds this role alone, where it is usually held."""
    if role in STAFF_ROLES:
        return tree.staff[role]
    if role in OUTSIDERS:
        return Caller(OUTSIDERS[role], uuid4(), (Grant(role, "estate", tree.estate_id),))
    if role in tree.residents:
        return tree.residents[role]
    return Caller("people", uuid4(), (Grant(role, "unit", tree.units[tree.unit], tree.estate_id),))


def a_request(operation: Operation, service: str, tree: Tree, node: str = "") -> Any:
    """Names the place and a case that does not exist, and says nothing else."""
    method = operation.method
    request = message_factory.GetMessageClass(method.input_type)()
    fields = method.input_type.fields_by_name
    if "node" in fields:
        request.node = node or tree.parent
    if "service" in fields:
        request.service = service
    if operation.naming:
        field, pattern = operation.naming
        setattr(request, field, named(pattern.pattern, service, tree))
    elif named_by := next((name for name in ("parent", "name") if name in fields), ""):
        setattr(request, named_by, tree.parent)
    else:
        for field in fields.values():
            if field.message_type and "name" in field.message_type.fields_by_name and not field.is_repeated:
                getattr(request, field.name).name = f"{tree.parent}/things/{uuid4()}"
    return request


def named(pattern: str, service: str, tree: Tree) -> str:
    """`estates/[^/]+/repairs/[^/]+`, filled in."""
    here, *below = pattern.replace("[^/]+", "*").split("/*")
    known = {"estates": tree.code, "services": service}
    return here + "".join(f"/{known.pop(here, None) or uuid4()}{part}" for part in below)


def answer(api: Api, who: Caller | str | None, operation: Operation, request: Any) -> tuple[int, str]:
    """(HTTP status, reason); 200 when it was allowed and did not fail."""
    try:
        api.send(who, operation.method.full_name, request)
    except Refused as refused:
        assert refused.http not in (0, 500), f"{operation.method.name}: {refused}"
        return refused.http, refused.reason
    return 200, ""


def denied(result: tuple[int, str]) -> bool:
    """Refused for who called, not for what was asked (a session that has ended, say, is what was asked)."""
    who = ("UNAUTHENTICATED", "BAD_IDENTITY", "IDENTITY_EXPIRED", "INTERNAL_ONLY", "ROLE_REQUIRED", "GROUP_ROLE_REQUIRED", "POST_REVOKED")
    return result[1] in (*who, "ESTATE_NOT_FOUND", "NODE_NOT_FOUND")


def expected(rule: Access, role: str) -> bool:
    """Whether a holder of a role, at the place where it is usually held, may call."""
    if rule.scope == "SELF":
        return True
    if rule.scope in ("PUBLIC", "INTERNAL") or role not in rule.roles:
        return False
    return rule.scope != "GROUP" or role in GROUP_ROLES


def test_every_operation_is_denied_to_every_role_that_its_proto_does_not_name(
    service: str, server: Server, api: Api, here: Tree, there: Tree
) -> None:
    wrong = []
    for operation in server.operations:
        rule, name = operation.access, operation.method.name
        for role in ROLES:
            who = caller(here, role)
            own = answer(api, who, operation, a_request(operation, service, here))
            if denied(own) == expected(rule, role):
                wrong.append(f"{name} for {role}: {own}")
            other = answer(api, who, operation, a_request(operation, service, there))
            if rule.scope in PLACED and (not denied(other) or other[0] not in (403, 404)):
                wrong.append(f"{name} for {role} at another estate: {other}")
            if rule.scope not in PLACED and other != own and denied(other) != denied(own):
                wrong.append(f"{name} for {role} depends on an estate that it does not name: {other}")
    assert wrong == []


def test_nobody_calls_without_a_token(service: str, server: Server, api: Api, here: Tree) -> None:
    for operation in server.operations:
        for who in (None, "forged.token.value"):
            assert answer(api, who, operation, a_request(operation, service, here))[0] == 401, operation.method.name


def test_what_is_public_or_internal_is_called_by_stewards_own_processes_alone(service: str, server: Server, api: Api, here: Tree) -> None:
    for operation in server.operations:
        ours = operation.access.scope in ("PUBLIC", "INTERNAL")
        assert denied(answer(api, INTERNAL, operation, a_request(operation, service, here))) is not ours, operation.method.name
        with configured(internal_token="guessed"):  # noqa: S106
            assert answer(api, INTERNAL, operation, a_request(operation, service, here))[0] == 401, operation.method.name


def test_a_role_held_elsewhere_in_the_tree_opens_what_lies_below_and_nothing_beside(
    service: str, server: Server, api: Api, here: Tree, database_of: Databases
) -> None:
    """Managers of company and group reach every estate below; nobody's post at a sister estate counts here."""
    sister = a_tree(database_of(service), beside=here)
    for operation in server.operations:
        if operation.access.scope not in PLACED:
            continue
        for role in sorted(operation.access.roles):
            reaches = role in COMPANY_ROLES | GROUP_ROLES
            found = answer(api, caller(here, role), operation, a_request(operation, service, sister))
            assert denied(found) is not reaches, f"{operation.method.name} for {role}"


def test_a_role_opens_the_node_where_it_is_held_and_no_node_above(service: str, server: Server, api: Api, here: Tree, there: Tree) -> None:
    levels: dict[str, Callable[[Tree], UUID]] = {"groups": lambda tree: tree.group_id, "companies": lambda tree: tree.company_id}
    tried = 0
    for operation in server.operations:
        if operation.access.scope != "NODE":
            continue
        for role in sorted(operation.access.roles):
            for level, of in levels.items():
                own, other = (
                    answer(api, caller(here, role), operation, a_request(operation, service, here, f"{level}/{of(tree)}"))
                    for tree in (here, there)
                )
                reaches = role in GROUP_ROLES or (role in COMPANY_ROLES and level == "companies")
                assert denied(own) is not reaches, f"{operation.method.name} for {role} at {level}"
                assert denied(other), f"{operation.method.name} for {role} at {level} of another group"
                tried += 1
    assert tried, "policies are set at nodes"


def test_every_operation_says_who_may_call_it(service: str, server: Server) -> None:
    for operation in server.operations:
        rule, name = operation.access, operation.method.name
        assert rule.scope != "SCOPE_UNSPECIFIED", name
        assert bool(rule.roles) is (rule.scope in ("ESTATE", "GROUP", "NODE")), f"{name}: roles go with ESTATE, GROUP and NODE"


def test_a_server_answers_its_own_operations_and_those_of_the_chassis_and_no_other(service: str, server: Server, api: Api) -> None:
    """So the matrix above is whole; beside it stands only the health service of gRPC, which says whether the process serves."""
    known = {operation.method.full_name for operation in server.operations}
    assert known >= {method.full_name for own in (service, "chassis") for proto in proto_services(own) for method in proto.methods}
    foreign: list[MethodDescriptor] = [
        method for other in SERVICES for proto in proto_services(other) for method in proto.methods if method.full_name not in known
    ]
    assert foreign
    api.methods |= {method.full_name: method for method in foreign}
    for method in foreign:
        with pytest.raises(Refused) as refused:
            api.send(INTERNAL, method.full_name, message_factory.GetMessageClass(method.input_type)())
        assert refused.value.code == grpc.StatusCode.UNIMPLEMENTED.name, method.full_name
