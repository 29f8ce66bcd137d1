"""The authorisation matrix, generated from the protos: every operation × every role × own and other estate × no token.

A call is denied unless the operation's proto declares the role. What is not denied may still be refused for other reasons: the
case does not exist, the request is empty. Those are not this test's matter, a 500 is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from services.chassis.__main__ import SERVICES
from services.chassis.access import Access, Grant, declared
from services.chassis.rpc import Server
from services.chassis.testing import COMPANY_ROLES, GROUP_ROLES, INTERNAL, STAFF_ROLES, Api, Caller, Refused, Tree, a_tree, configured
from steward.options.v1 import options_pb2
from tests.conftest import Databases

ROLES = tuple(name for name, number in options_pb2.Role.items() if number)
OUTSIDERS = {"DEVELOPER": "vendors", "RENOVATION_HEAD": "vendors", "VENDOR": "vendors"}

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


def caller(tree: Tree, role: str) -> Caller:
    """Somebody who holds this role alone, where it is usually held."""
    if role in STAFF_ROLES:
        return tree.staff[role]
    if role in OUTSIDERS:
        return Caller(OUTSIDERS[role], uuid4(), (Grant(role, "estate", tree.estate_id),))
    if role in tree.residents:
        return tree.residents[role]
    return Caller("people", uuid4(), (Grant(role, "unit", tree.units[tree.unit], tree.estate_id),))


def a_request(method: MethodDescriptor, tree: Tree) -> Any:
    """Names the estate and a case that does not exist, and says nothing else."""
    request = message_factory.GetMessageClass(method.input_type)()
    fields = method.input_type.fields_by_name
    for field in ("parent", "name"):
        if field in fields:
            # Whether a parent is an estate or a case of one, its first two parts are what the guard reads.
            setattr(request, field, tree.parent if field == "parent" else f"{tree.parent}/things/{uuid4()}")
            return request
    for field in fields.values():
        if field.message_type and "name" in field.message_type.fields_by_name and not field.is_repeated:
            getattr(request, field.name).name = f"{tree.parent}/things/{uuid4()}"
    return request


def answer(api: Api, who: Caller | str | None, method: MethodDescriptor, tree: Tree) -> tuple[int, str]:
    """(HTTP status, reason); 200 when it was allowed and did not fail."""
    try:
        api.send(who, method.name, a_request(method, tree))
    except Refused as refused:
        assert refused.http not in (0, 500), f"{method.name}: {refused}"
        return refused.http, refused.reason
    return 200, ""


def denied(result: tuple[int, str]) -> bool:
    """Refused for who called, not for what was asked (a session that has ended, say, is what was asked)."""
    who = ("UNAUTHENTICATED", "BAD_IDENTITY", "IDENTITY_EXPIRED", "INTERNAL_ONLY", "ROLE_REQUIRED", "GROUP_ROLE_REQUIRED", "POST_REVOKED")
    return result[1] in (*who, "ESTATE_NOT_FOUND")


def expected(rule: Access, role: str) -> bool:
    """Whether a holder of a role, at the place where it is usually held, may call."""
    if rule.scope == "SELF":
        return True
    if rule.scope in ("PUBLIC", "INTERNAL") or role not in rule.roles:
        return False
    return rule.scope != "GROUP" or role in GROUP_ROLES


def methods(api: Api) -> list[tuple[MethodDescriptor, Access]]:
    found = []
    for method in api.methods.values():
        rule = declared(method)
        assert rule
        found.append((method, rule))
    return found


def test_every_operation_is_denied_to_every_role_that_its_proto_does_not_name(
    service: str, world: Callable[[str], tuple[Tree, Tree]], serving_of: Callable[[str], tuple[Server, Api]]
) -> None:
    api, (here, there) = serving_of(service)[1], world(service)
    wrong = []
    for method, rule in methods(api):
        for role in ROLES:
            who = caller(here, role)
            own = answer(api, who, method, here)
            if denied(own) == expected(rule, role):
                wrong.append(f"{method.name} for {role}: {own}")
            other = answer(api, who, method, there)
            names_an_estate = rule.scope == "ESTATE"
            if names_an_estate and (not denied(other) or other[0] not in (403, 404)):
                wrong.append(f"{method.name} for {role} at another estate: {other}")
            if not names_an_estate and other != own and denied(other) != denied(own):
                wrong.append(f"{method.name} for {role} depends on an estate that it does not name: {other}")
    assert wrong == []


def test_nobody_calls_without_a_token(
    service: str, world: Callable[[str], tuple[Tree, Tree]], serving_of: Callable[[str], tuple[Server, Api]]
) -> None:
    api, (here, _) = serving_of(service)[1], world(service)
    for method, _rule in methods(api):
        for who in (None, "forged.token.value"):
            assert answer(api, who, method, here)[0] == 401, method.name


def test_what_is_public_or_internal_is_called_by_stewards_own_processes_alone(
    service: str, world: Callable[[str], tuple[Tree, Tree]], serving_of: Callable[[str], tuple[Server, Api]]
) -> None:
    api, (here, _) = serving_of(service)[1], world(service)
    for method, rule in methods(api):
        ours = rule.scope in ("PUBLIC", "INTERNAL")
        assert denied(answer(api, INTERNAL, method, here)) is not ours, method.name
        with configured(internal_token="guessed"):  # noqa: S106
            assert answer(api, INTERNAL, method, here)[0] == 401, method.name


def test_a_role_held_elsewhere_in_the_tree_opens_what_lies_below_and_nothing_beside(
    service: str, world: Callable[[str], tuple[Tree, Tree]], serving_of: Callable[[str], tuple[Server, Api]], database_of: Databases
) -> None:
    """Managers of company and group reach every estate below; nobody's post at a sister estate counts here."""
    api, (here, _) = serving_of(service)[1], world(service)
    sister = a_tree(database_of(service), beside=here)
    for method, rule in methods(api):
        if rule.scope != "ESTATE":
            continue
        for role in sorted(rule.roles):
            reaches = role in COMPANY_ROLES | GROUP_ROLES
            assert denied(answer(api, caller(here, role), method, sister)) is not reaches, f"{method.name} for {role}"


def test_every_operation_says_who_may_call_it(service: str) -> None:
    importlib.import_module(f"services.{service}.api")
    for method, rule in methods(Api(service, 1)):
        assert rule.scope != "SCOPE_UNSPECIFIED", method.name
        assert bool(rule.roles) is (rule.scope in ("ESTATE", "GROUP")), f"{method.name}: roles go with ESTATE and GROUP"
