"""Policies as a product: who may change what where, what a preview promises, what a change does to clocks that run."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import hypothesis
import pytest
import sqlalchemy as sa
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gateway.descriptors import Contract
from gateway.settings import GatewaySettings
from services.chassis import clocks, jobs, policy_api, rpc
from services.chassis.__main__ import SERVICES
from services.chassis.access import Grant, Principal, declared
from services.chassis.clocks import RUNG_STEP, WARN, Clock
from services.chassis.db import Database
from services.chassis.lifecycle import Act
from services.chassis.policies import HOLIDAYS, HOURS, Policy, Terms, policies_of
from services.chassis.rpc import Server, proto_services
from services.chassis.settings import settings
from services.chassis.testing import Api, Caller, Refused, Tree, a_tree, business_now, clock_events, eventually, published, set_time
from services.probe.policies import CUTOFF, QUIET, RATE, SHORT, SIGNATURE, STRICT, WORK
from services.probe.probes import Probe
from steward.chassis.v1 import policies_pb2 as pb
from steward.residents.v1 import auth_pb2
from tests.chassis.conftest import HERE
from tests.chassis.test_bad_input import messages
from tests.conftest import FOLDER, ROOT, Databases, Postgres
from tests.gateway.conftest import NO_RATES, Process
from tests.gateway.standin import Standin

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
STAFF = Principal("staff", str(uuid4()))
READERS = [
    "CS_SUPERVISOR",
    "ENGINEERING_SUPERVISOR",
    "CUSTOMER_MANAGER",
    "PROJECT_MANAGER",
    "QUALITY_MANAGER",
    "COMPANY_LEADER",
    "GROUP_OPERATIONS",
]


@pytest.fixture(autouse=True)
def no_other_operations(database: Database, postgres: Postgres, moving_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to carry out, and one look at the clocks suffices unless the test says otherwise."""
    postgres.sql("probe", "DELETE FROM operations")
    monkeypatch.setattr(policy_api, "SETTLED", 0)
    database.policies.forget()


class Policies:
    """The API as somebody calls it."""

    def __init__(self, server: tuple[Server, Api], database: Database):
        self.api = copy.copy(server[1])
        self.api.methods = {method.name: method for proto in proto_services("chassis") for method in proto.methods}
        self.database = database

    def get(self, who: Caller, policy: Policy, node: str) -> pb.Policy:
        return self.api.call(who, "GetPolicy", name=name(policy), node=node)

    def value(self, who: Caller, policy: Policy, node: str) -> Any:
        return plain(self.get(who, policy, node).value)

    def set(self, who: Caller, policy: Policy, node: str, value: Any, reason: str = "summer", **more: Any) -> pb.Policy:
        return self.api.call(who, "SetPolicy", name=name(policy), node=node, value=wrapped(value), reason=reason, **more)

    def reset(self, who: Caller, policy: Policy, node: str, reason: str = "autumn") -> pb.Policy:
        return self.api.call(who, "ResetPolicy", name=name(policy), node=node, reason=reason)

    def preview(self, who: Caller, policy: Policy, node: str, value: Any = None) -> pb.PolicyPreview:
        return self.api.call(who, "PreviewPolicy", name=name(policy), node=node, value=None if value is None else wrapped(value))

    def changes(self, who: Caller, node: str, policy: Policy | None = None, **page: Any) -> pb.ListPolicyChangesResponse:
        parent = name(policy) if policy else "services/probe/policies/-"
        return self.api.call(who, "ListPolicyChanges", parent=parent, node=node, **page)

    def refusal(self, who: Caller | None, call: str, /, **fields: Any) -> Refused:
        with pytest.raises(Refused) as refused:
            self.api.call(who, call, **fields)
        return refused.value

    def recompute(self) -> None:
        """The role `jobs` does what there is to do."""
        while jobs.work_once(self.database, "jobs"):
            continue


@pytest.fixture
def policies(server: tuple[Server, Api], database: Database) -> Policies:
    return Policies(server, database)


def name(policy: Policy) -> str:
    return f"services/probe/policies/{policy.key}"


def wrapped(value: Any) -> Value:
    return json_format.ParseDict(value, Value())


def plain(value: Value) -> Any:
    return json_format.MessageToDict(value)


def places(tree: Tree) -> tuple[str, str, str]:
    return f"groups/{tree.group_id}", f"companies/{tree.company_id}", tree.parent


def leads(tree: Tree) -> tuple[Caller, Caller, Caller]:
    """Who may change policies at the group, the company and the estate."""
    return tree.staff["GROUP_OPERATIONS"], tree.staff["GENERAL_MANAGER"], tree.staff["PROJECT_MANAGER"]


def a_probe(database: Database, tree: Tree, **how: bool) -> UUID:
    with database.transaction(STAFF) as tx:
        tx.estate = tree.estate
        probe = tx.add(Probe.create(tx.act(), tree.estate, "drip", **how))
    return probe.id


def clock_of(database: Database, probe: UUID) -> Clock:
    with database.read() as tx:
        found = tx.session.execute(sa.select(Clock).where(Clock.aggregate_id == probe)).scalars().one()
        tx.session.expunge_all()
    return found


def shift(database: Database, by: timedelta) -> None:
    set_time(database, business_now(database) + by)


# --- the nearest wins --------------------------------------------------------------------------------------------------


def test_the_nearest_override_wins_over_all_three_levels_and_says_where_it_comes_from(policies: Policies, tree: Tree) -> None:
    manager = tree.staff["GROUP_OPERATIONS"]
    before = policies.get(manager, WORK, tree.parent)
    assert (plain(before.value), plain(before.default_value), before.source, before.changer) == (3600, 3600, "", "")
    for value, (node, who) in enumerate(zip(places(tree), leads(tree), strict=True), 1):
        policies.set(who, WORK, node, value * 1000)
        found = policies.get(manager, WORK, tree.parent)
        assert (plain(found.value), found.source, found.changer) == (value * 1000, node, who.name)
    assert [policies.value(manager, WORK, node) for node in places(tree)] == [1000, 2000, 3000]
    assert plain(policies.get(manager, WORK, tree.parent).inherited_value) == 2000


def test_a_reset_falls_back_to_what_stands_above(policies: Policies, tree: Tree) -> None:
    group, company, estate = leads(tree)
    for value, (node, who) in enumerate(zip(places(tree), leads(tree), strict=True), 1):
        policies.set(who, WORK, node, value * 1000)
    assert plain(policies.reset(estate, WORK, tree.parent).value) == 2000
    assert plain(policies.reset(company, WORK, places(tree)[1]).value) == 1000
    policies.reset(group, WORK, places(tree)[0])
    after = policies.get(estate, WORK, tree.parent)
    assert (plain(after.value), after.source) == (3600, "")


def test_an_override_holds_below_its_node_and_nowhere_else(policies: Policies, database: Database, tree: Tree) -> None:
    sister, stranger = a_tree(database, beside=tree), a_tree(database)
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 1000)
    policies.set(tree.staff["GENERAL_MANAGER"], SHORT, places(tree)[1], 50)
    found = [
        (policies.value(t.staff["PROJECT_MANAGER"], WORK, t.parent), policies.value(t.staff["PROJECT_MANAGER"], SHORT, t.parent))
        for t in (tree, sister, stranger)
    ]
    assert found == [(1000, 50), (3600, 50), (3600, 100)]


def test_a_list_shows_all_there_is_to_know_of_each_policy(policies: Policies, tree: Tree) -> None:
    policies.set(tree.staff["PROJECT_MANAGER"], HOURS, tree.parent, "09:00-18:00")
    reply = policies.api.call(tree.staff["CS_SUPERVISOR"], "ListPolicies", parent="services/probe", node=tree.parent)
    assert list(reply.line) == list(places(tree))
    found = {policy.name.rpartition("/")[2]: policy for policy in reply.policies}
    assert list(found) == sorted(found)
    assert set(found) >= {p.key for p in (CUTOFF, HOLIDAYS, HOURS, QUIET, RATE, RUNG_STEP, SHORT, SIGNATURE, STRICT, WARN, WORK)}
    work = found[WORK.key]
    assert (work.unit, work.says, work.rules, work.law, work.least, work.most) == (
        "seconds",
        "a probe is started",
        "X-34",
        "law of probes",
        60,
        7200,
    )
    assert not found[SHORT.key].HasField("most"), "there is no bound"
    assert {key: found[key].unit for key in (RATE.key, QUIET.key, CUTOFF.key, SIGNATURE.key, STRICT.key)} == {
        RATE.key: "ratio", QUIET.key: "hours", CUTOFF.key: "time", SIGNATURE.key: "text", STRICT.key: "count",
    }  # fmt: skip
    assert (list(found[HOLIDAYS.key].choices), plain(found[HOURS.key].value), found[HOURS.key].source) == (
        ["CN", "NONE", "DAILY"],
        "09:00-18:00",
        tree.parent,
    )
    role = type(work).DESCRIPTOR.fields_by_name["changed_by"].enum_type.values_by_number
    assert [role[n].name for n in found[STRICT.key].changed_by] == ["BRANCH_LEADER", "GENERAL_MANAGER"]
    assert "PROJECT_MANAGER" in [role[n].name for n in work.changed_by]


def test_a_list_comes_in_pages(policies: Policies, tree: Tree) -> None:
    who, seen, token = tree.staff["PROJECT_MANAGER"], [], ""
    while True:
        page = policies.api.call(who, "ListPolicies", parent="services/probe", node=tree.parent, page_size=4, page_token=token)
        seen += [policy.name for policy in page.policies]
        if not (token := page.next_page_token):
            break
    assert seen == [f"services/probe/policies/{key}" for key in policies_of("probe")]
    again = policies.refusal(who, "ListPolicies", parent="services/probe", node=f"companies/{tree.company_id}", page_token="eyJ4")  # noqa: S106
    assert again.http in (400, 404)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_policies_it_reads_and_those_of_every_service(service: str) -> None:
    found = policies_of(service)
    assert {HOURS.key, HOLIDAYS.key, RUNG_STEP.key, WARN.key} <= set(found)
    assert not [key for key in found if key.startswith("probe.")]
    setters = declared(pb.DESCRIPTOR.services_by_name["Policies"].methods_by_name["SetPolicy"])
    assert setters
    for policy in found.values():
        assert set(policy.changed_by) <= setters.roles, f"{policy.key} may narrow who changes it, not widen"
        assert policy.says, f"{policy.key} does not say what it is"
        assert not policy.law or policy.bounds != (None, None), f"{policy.key} names a law, so it has a bound"


def test_every_operation_that_all_services_answer_has_a_function_and_a_rule() -> None:
    assert {operation.method.name for operation in rpc.mounted()} == set(pb.DESCRIPTOR.services_by_name["Policies"].methods_by_name)
    assert all(operation.access.scope == "NODE" and operation.access.roles for operation in rpc.mounted())


# --- bounds and kinds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [59.9, 7200.5, 0, -1, 10**12])
def test_a_value_beyond_the_bounds_is_refused_and_law_and_rule_are_named(policies: Policies, tree: Tree, value: float) -> None:
    for call, more in (("SetPolicy", {"reason": "why not"}), ("PreviewPolicy", {})):
        refused = policies.refusal(tree.staff["PROJECT_MANAGER"], call, name=name(WORK), node=tree.parent, value=wrapped(value), **more)
        assert (refused.http, refused.reason, refused.rule, refused.fields) == (400, "OUT_OF_BOUNDS", "X-34", {"value"})
        assert "law of probes" in refused.message
        assert "60" in refused.message
    assert policies.value(tree.staff["PROJECT_MANAGER"], WORK, tree.parent) == 3600


@pytest.mark.parametrize("value", [60, 60.5, 7200])
def test_a_value_at_or_inside_the_bounds_is_taken(policies: Policies, tree: Tree, value: float) -> None:
    assert plain(policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, value).value) == value


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        (WORK, "3600"), (WORK, True), (WORK, None), (WORK, [60]), (WORK, {"seconds": 60}), (STRICT, 2.5), (STRICT, 0), (RATE, 1.01), (RATE, -0.1), (SHORT, -1),
        (HOURS, 8), (HOURS, ""), (HOURS, "17:00-09:00"), (HOURS, "9-17"), (HOURS, "09:00-12:00 11:00-17:00"), (HOURS, "09:00-09:30"), (HOURS, "08:30+08:00-17:00"),
        (HOLIDAYS, "US"), (CUTOFF, "25:00"), (CUTOFF, "5 pm"), (QUIET, "17:00"), (SIGNATURE, ""), (SIGNATURE, "A" * 1001), (SIGNATURE, "a\x00b"), (SIGNATURE, 5),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(policies: Policies, tree: Tree, policy: Policy, value: Any) -> None:
    who = tree.staff["GENERAL_MANAGER"]
    given = Value(null_value=0) if value is None else wrapped(value)  # type: ignore[arg-type]
    refused = policies.refusal(who, "SetPolicy", name=name(policy), node=tree.parent, value=given, reason="why not")
    assert (refused.http, refused.code) == (400, "INVALID_ARGUMENT")
    assert any(field.startswith("value") for field in refused.fields)
    assert plain(policies.get(who, policy, tree.parent).value) == policy.default


def test_numbers_that_are_none_are_refused(policies: Policies, tree: Tree) -> None:
    for nonsense in (float("nan"), float("inf"), float("-inf")):
        refused = policies.refusal(
            tree.staff["PROJECT_MANAGER"], "SetPolicy", name=name(SHORT), node=tree.parent, value=Value(number_value=nonsense), reason="x"
        )
        assert refused.http == 400


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        (HOURS, "09:00-12:00 13:30-18:00"),
        (HOLIDAYS, "DAILY"),
        (CUTOFF, "16:30"),
        (QUIET, "10:00-19:00"),
        (RATE, 1),
        (STRICT, 9),
        (SIGNATURE, "𬭎㛃 管家"),
    ],
)
def test_a_value_of_the_right_kind_is_kept_as_it_is(policies: Policies, tree: Tree, policy: Policy, value: Any) -> None:
    who = tree.staff["GENERAL_MANAGER"]
    policies.set(who, policy, tree.parent, value)
    assert policies.value(who, policy, tree.parent) == value


def test_a_change_without_value_or_reason_is_refused(policies: Policies, tree: Tree) -> None:
    refused = policies.refusal(tree.staff["PROJECT_MANAGER"], "SetPolicy", name=name(WORK), node=tree.parent)
    assert (refused.http, refused.fields) == (400, {"value", "reason"})


# --- who may -----------------------------------------------------------------------------------------------------------


def test_supervisors_and_managers_of_a_node_and_above_read_others_do_not(policies: Policies, database: Database, tree: Tree) -> None:
    for role in READERS:
        assert policies.value(tree.staff[role], WORK, tree.parent) == 3600
    for stranger in (tree.technician, tree.owner, tree.staff["CASHIER"]):
        assert policies.refusal(stranger, "GetPolicy", name=name(WORK), node=tree.parent).http == 403
    assert policies.refusal(None, "GetPolicy", name=name(WORK), node=tree.parent).http == 401
    elsewhere = a_tree(database, beside=tree).staff["CS_SUPERVISOR"]
    assert policies.refusal(elsewhere, "GetPolicy", name=name(WORK), node=tree.parent).reason == "NODE_NOT_FOUND"
    for node in places(tree)[:2]:
        assert policies.refusal(tree.staff["CS_SUPERVISOR"], "GetPolicy", name=name(WORK), node=node).reason == "NODE_NOT_FOUND", (
            "what is above is not his"
        )


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("PROJECT_MANAGER", (False, False, True)),
        ("MANAGEMENT_DEPT_MANAGER", (False, True, True)),
        ("QUALITY_MANAGER", (False, True, True)),
        ("BRANCH_LEADER", (False, True, True)),
        ("GENERAL_MANAGER", (False, True, True)),
        ("GROUP_OPERATIONS", (True, True, True)),
    ],
)
def test_each_changes_what_lies_below_his_post(policies: Policies, tree: Tree, role: str, allowed: tuple[bool, ...]) -> None:
    for node, may in zip(places(tree), allowed, strict=True):
        fields: dict[str, Any] = {"name": name(WORK), "node": node, "value": wrapped(4000), "reason": "why not"}
        if may:
            policies.api.call(tree.staff[role], "SetPolicy", **fields)
        else:
            assert policies.refusal(tree.staff[role], "SetPolicy", **fields).reason == "NODE_NOT_FOUND"


@pytest.mark.parametrize("role", ["CS_SUPERVISOR", "CUSTOMER_MANAGER", "COMPANY_LEADER", "TECHNICIAN", "OWNER"])
def test_whoever_only_reads_or_less_changes_and_previews_nothing(policies: Policies, tree: Tree, role: str) -> None:
    for call, more in (
        ("SetPolicy", {"value": wrapped(4000), "reason": "x"}),
        ("ResetPolicy", {"reason": "x"}),
        ("PreviewPolicy", {"value": wrapped(4000)}),
    ):
        refused = policies.refusal(tree.by_role(role), call, name=name(WORK), node=tree.parent, **more)
        assert (refused.http, refused.reason) == (403, "ROLE_REQUIRED")


def test_a_project_manager_of_another_estate_changes_nothing_here(policies: Policies, database: Database, tree: Tree) -> None:
    for other in (a_tree(database), a_tree(database, beside=tree)):
        refused = policies.refusal(
            other.staff["PROJECT_MANAGER"], "SetPolicy", name=name(WORK), node=tree.parent, value=wrapped(4000), reason="x"
        )
        assert (refused.http, refused.reason) == (404, "NODE_NOT_FOUND")


def test_a_policy_may_be_for_fewer(policies: Policies, database: Database, tree: Tree) -> None:
    for role in ("PROJECT_MANAGER", "QUALITY_MANAGER", "GROUP_OPERATIONS"):
        refused = policies.refusal(tree.staff[role], "SetPolicy", name=name(STRICT), node=tree.parent, value=wrapped(5), reason="x")
        assert (refused.http, refused.reason) == (403, "ROLE_REQUIRED")
        assert "GENERAL_MANAGER" in refused.message
    policies.set(tree.staff["GENERAL_MANAGER"], STRICT, tree.parent, 5)
    two_posts = replace(
        tree.staff["PROJECT_MANAGER"], grants=(*tree.staff["PROJECT_MANAGER"].grants, Grant("GENERAL_MANAGER", "company", uuid4()))
    )
    assert policies.refusal(two_posts, "SetPolicy", name=name(STRICT), node=tree.parent, value=wrapped(6), reason="x").http == 403, (
        "his other post is elsewhere"
    )
    revoked = replace(
        tree.staff["PROJECT_MANAGER"], grants=(*tree.staff["PROJECT_MANAGER"].grants, Grant("GENERAL_MANAGER", "company", tree.company_id))
    )
    assert policies.refusal(revoked, "SetPolicy", name=name(STRICT), node=tree.parent, value=wrapped(6), reason="x").http == 403, (
        "he holds it no more"
    )


@pytest.mark.parametrize(
    "node",
    [
        "",
        "TFHY",
        "estates/",
        "estates/NOWHERE",
        "groups/x",
        f"groups/{uuid4()}",
        "units/1",
        "estates/A/repairs/1",
        "estates/a\x00",
        "estates/-",
    ],
)
def test_a_node_that_is_none_is_refused(policies: Policies, tree: Tree, node: str) -> None:
    assert policies.refusal(tree.staff["GROUP_OPERATIONS"], "GetPolicy", name=name(WORK), node=node).http in (400, 404)


def test_a_service_or_policy_that_is_none_is_not_found(policies: Policies, tree: Tree) -> None:
    who = tree.staff["PROJECT_MANAGER"]
    for wrong in ("services/nowhere/policies/probe.work", "probe.work", "services/probe", "services/surveys/policies/probe.work"):
        assert policies.refusal(who, "GetPolicy", name=wrong, node=tree.parent).reason in ("SERVICE_NOT_FOUND", "POLICY_NOT_FOUND")
    for wrong in (
        "services/probe/policies/none",
        "services/probe/policies/probe.work/more",
        "services/probe/clocks/probe.work",
        "services/probe/policies/",
    ):
        assert policies.refusal(who, "GetPolicy", name=wrong, node=tree.parent).reason == "POLICY_NOT_FOUND"
    assert policies.refusal(who, "ListPolicies", parent="services/probe/policies", node=tree.parent).reason == "SERVICE_NOT_FOUND"
    assert policies.refusal(who, "ListPolicyChanges", parent="services/probe/other/-", node=tree.parent).reason == "POLICY_NOT_FOUND"


def test_no_request_however_senseless_is_a_500(policies: Policies, tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    calls = ("ListPolicies", "GetPolicy", "SetPolicy", "ResetPolicy", "PreviewPolicy", "ListPolicyChanges")
    names = ["services/probe", *(name(policy) for policy in (WORK, HOURS, CUTOFF, STRICT)), "services/probe/policies/-"]

    @given(st.data())
    @hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def send(data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(calls))
        request: Any = data.draw(messages(policies.api.methods[call].input_type, tree))
        if data.draw(st.integers(0, 3)):
            setattr(request, "name" if "name" in request.DESCRIPTOR.fields_by_name else "parent", data.draw(st.sampled_from(names)))
            request.node = data.draw(st.sampled_from(places(tree)))
        caplog.clear()
        try:
            policies.api.send(tree.staff["GENERAL_MANAGER"], call, request)
        except Refused as refused:
            assert 400 <= refused.http < 500, f"{call}: {refused}\n{request}\n{caplog.text}"
            assert refused.reason

    send()


# --- the audit ---------------------------------------------------------------------------------------------------------


def test_the_audit_shows_who_changed_what_when_and_why(policies: Policies, database: Database, tree: Tree) -> None:
    company, estate = leads(tree)[1:]
    before = business_now(database)
    policies.set(company, WORK, places(tree)[1], 1800, "storm season")
    policies.set(estate, WORK, tree.parent, 900, "lifts are old")
    policies.set(estate, RATE, tree.parent, 0.5, "few hands")
    policies.reset(estate, WORK, tree.parent, "lifts are new")
    policies.recompute()
    changes = policies.changes(tree.staff["CS_SUPERVISOR"], tree.parent, WORK).changes
    assert [
        (c.node, pb.PolicyChange.Action.Name(c.action), plain(c.old_value), plain(c.new_value), c.reason, c.changer) for c in changes
    ] == [
        (tree.parent, "RESET", 900, 1800, "lifts are new", estate.name),
        (tree.parent, "SET", 1800, 900, "lifts are old", estate.name),
        (places(tree)[1], "SET", 3600, 1800, "storm season", company.name),
    ]
    instants = [c.change_time.ToDatetime(tzinfo=UTC) for c in changes]
    assert before < instants[2] < instants[1] < instants[0] <= business_now(database)
    assert {c.recomputation for c in changes} == {pb.PolicyChange.SUCCEEDED}
    everything = policies.changes(estate, tree.parent)
    assert [c.name.split("/")[3] for c in everything.changes] == [WORK.key, RATE.key, WORK.key, WORK.key]
    assert everything.changes[1].recomputation == pb.PolicyChange.STATE_UNSPECIFIED, "no clock goes by a rate"
    first = policies.changes(estate, tree.parent, page_size=3)
    second = policies.changes(estate, tree.parent, page_size=3, page_token=first.next_page_token)
    assert [*first.changes, *second.changes] == list(everything.changes)
    assert [c.node for c in policies.changes(company, places(tree)[1]).changes] == [places(tree)[1]], "what is below is not this node's"


def test_a_change_is_an_event_of_the_service(policies: Policies, database: Database, tree: Tree) -> None:
    estate = tree.staff["PROJECT_MANAGER"]
    policies.set(estate, WORK, tree.parent, 900, "secret reasons")
    policies.reset(estate, WORK, tree.parent)
    with database.read() as tx:
        rows = tx.execute(
            "SELECT aggregate_id, aggregate, estate_id FROM events WHERE type = 'PolicyChanged' AND actor = %s", (estate.name,)
        )
    assert {row[1:] for row in rows} == {("policy", tree.estate_id)}
    events = published(database, rows[0][0])
    assert [(e.sequence, e.subject, e.data) for e in events] == [
        (1, name(WORK), {"policy": WORK.key, "node": tree.parent, "oldValue": 3600, "newValue": 900}),
        (2, name(WORK), {"policy": WORK.key, "node": tree.parent, "oldValue": 900, "newValue": 3600, "reset": True}),
    ]


def test_what_changes_nothing_leaves_no_trace(policies: Policies, tree: Tree) -> None:
    who = tree.staff["PROJECT_MANAGER"]
    policies.reset(who, WORK, tree.parent)
    policies.set(who, WORK, tree.parent, 900)
    policies.set(who, WORK, tree.parent, 900.0)
    assert len(policies.changes(who, tree.parent).changes) == 1


def test_setting_what_is_inherited_pins_it(policies: Policies, tree: Tree) -> None:
    company, estate = leads(tree)[1:]
    policies.set(estate, WORK, tree.parent, 3600)
    policies.set(company, WORK, places(tree)[1], 60)
    assert policies.value(estate, WORK, tree.parent) == 3600


def test_a_retry_with_the_same_key_changes_once(policies: Policies, tree: Tree) -> None:
    who = tree.staff["PROJECT_MANAGER"]
    first = policies.set(who, WORK, tree.parent, 900, request_id="again")
    policies.set(who, WORK, tree.parent, 1000)
    assert policies.set(who, WORK, tree.parent, 900, request_id="again") == first, "the first answer once more"
    assert policies.value(who, WORK, tree.parent) == 1000
    assert len(policies.changes(who, tree.parent).changes) == 2


def test_of_changes_at_the_same_time_the_last_holds_and_the_audit_has_all(policies: Policies, tree: Tree) -> None:
    who, values = tree.staff["PROJECT_MANAGER"], [100, 200, 300, 400, 500, 600]
    together = threading.Barrier(len(values))

    def change(value: int) -> None:
        together.wait()
        policies.set(who, WORK, tree.parent, value, f"to {value}")

    with ThreadPoolExecutor(len(values)) as threads:
        list(threads.map(change, values))
    changes = list(reversed(policies.changes(who, tree.parent).changes))
    assert sorted(plain(c.new_value) for c in changes) == values
    assert [plain(c.old_value) for c in changes] == [3600, *(plain(c.new_value) for c in changes[:-1])], "one after the other"
    assert policies.value(who, WORK, tree.parent) == plain(changes[-1].new_value)


# --- it takes hold -----------------------------------------------------------------------------------------------------


def test_a_change_takes_hold_in_every_process_within_five_seconds_of_machine_time(
    policies: Policies, database: Database, tree: Tree
) -> None:
    other = Database("probe")  # as another process has it

    def target(place: Database) -> timedelta:
        with place.read() as tx:
            tx.estate = tree.estate
            return tx.terms().duration(WORK)

    try:
        assert (target(other), target(database)) == (HOUR, HOUR)
        shift(database, HOUR)  # moved time makes no snapshot older
        policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 600)
        changed = time.monotonic()
        assert target(other) == HOUR, "no query for each use"
        eventually(lambda: target(other) == 10 * MINUTE, within=5.3)
        assert time.monotonic() - changed < 5.3
    finally:
        other.dispose()


def test_the_process_that_changed_it_goes_by_it_at_once(policies: Policies, server: tuple[Server, Api], tree: Tree) -> None:
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 600)
    made = server[1].call(tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"})
    clock = clock_of(policies.database, UUID(made.name.rsplit("/", 1)[1]))
    assert (clock.target, clock.policy) == (10 * MINUTE, WORK.key)


# --- what a clock makes of it, without a database ----------------------------------------------------------------------

NIGHT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC) - timedelta(hours=8)  # a Monday, 10:00 in Shanghai


def running(after: timedelta = timedelta(0), **how: Any) -> Clock:
    """A clock of one hour that began at NIGHT; marks up to `after` have fired."""
    terms = how.pop("terms", Terms())
    tree = Tree(uuid4(), uuid4(), uuid4(), "TFHY", "Asia/Shanghai", {})
    clock: Clock = Probe.create(Act(STAFF, NIGHT, "", terms), tree.estate, "drip", **how).clocks[0]
    clock.level = sum(mark <= NIGHT + after for mark in clock.marks)
    if clock.level > 1:
        clock.breached_at = clock.marks[1]
    return clock


def minutes(clock: Clock) -> list[float]:
    return [(mark - NIGHT) / MINUTE for mark in clock.marks]


def test_a_longer_limit_moves_what_has_not_fired() -> None:
    clock = running(50 * MINUTE)
    assert clock.reckon_anew(Terms(overrides={WORK.key: 7200}), WORK.key, NIGHT + 50 * MINUTE)
    assert (minutes(clock), clock.target, clock.spent) == ([48, 120, 135, 150], 2 * HOUR, timedelta(0))
    assert clock.next_at == NIGHT + 120 * MINUTE, "the reminder that has fired does not fire again"


def test_a_limit_made_shorter_than_what_is_spent_is_missed_at_the_change() -> None:
    clock = running(30 * MINUTE)
    clock.reckon_anew(Terms(overrides={WORK.key: 600}), WORK.key, NIGHT + 30 * MINUTE)
    assert minutes(clock) == [30, 30, 45, 60], "not twenty minutes before anybody knew"


def test_a_breached_clock_keeps_its_limit_and_its_breach() -> None:
    clock = running(65 * MINUTE)
    assert not clock.reckon_anew(Terms(overrides={WORK.key: 7200}), WORK.key, NIGHT + 65 * MINUTE)
    assert (minutes(clock), clock.target, clock.breached_at, clock.level) == ([48, 60, 75, 90], HOUR, NIGHT + HOUR, 2)


def test_a_mark_that_has_come_due_stays_due_though_no_sweep_has_seen_it() -> None:
    clock = running()
    clock.reckon_anew(Terms(overrides={WORK.key: 7200}), WORK.key, NIGHT + 61 * MINUTE)
    assert (minutes(clock), clock.next_at) == ([48, 60, 75, 90], NIGHT + 48 * MINUTE)


def test_another_step_moves_the_rungs_that_are_left() -> None:
    fresh, breached, late = running(), running(65 * MINUTE), running(74 * MINUTE)
    for clock, at in ((fresh, 0), (breached, 65), (late, 74)):
        assert clock.reckon_anew(Terms(overrides={RUNG_STEP.key: 600}), RUNG_STEP.key, NIGHT + at * MINUTE)
    assert [minutes(clock) for clock in (fresh, breached, late)] == [[48, 60, 70, 80], [48, 60, 70, 80], [48, 60, 74, 84]]


def test_another_share_moves_the_reminder_until_it_has_fired() -> None:
    fresh, warned = running(), running(50 * MINUTE)
    assert fresh.reckon_anew(Terms(overrides={WARN.key: 0.5}), WARN.key, NIGHT)
    assert not warned.reckon_anew(Terms(overrides={WARN.key: 0.5}), WARN.key, NIGHT + 50 * MINUTE)
    assert (minutes(fresh)[:2], minutes(warned)[:2]) == ([30, 60], [48, 60])


def test_other_hours_change_what_remains_and_not_what_was_spent_before() -> None:
    clock = running(in_hours=True, terms=Terms(overrides={WORK.key: 7200}))  # 10:00 to 12:00
    assert minutes(clock)[1] == 120
    short = Terms(overrides={WORK.key: 7200, HOURS.key: "10:30-11:00 15:00-16:00"})
    clock.reckon_anew(short, HOURS.key, NIGHT + 45 * MINUTE)
    assert clock.spent == 45 * MINUTE, "counted by the hours it was spent in"
    assert minutes(clock)[1] == 6 * 60, "a quarter of an hour until 11:00 and the whole one from 15:00"


def test_around_the_clock_no_hours_count() -> None:
    clock = running()
    assert not clock.reckon_anew(Terms(overrides={HOURS.key: "10:30-11:30"}), HOURS.key, NIGHT + 5 * MINUTE)


@pytest.mark.parametrize("after", [0, 30, 50, 65, 80, 200])
@pytest.mark.parametrize(
    ("policy", "value"), [(WORK, 600), (WORK, 7200), (RUNG_STEP, 60), (RUNG_STEP, 7200), (WARN, 0.3), (HOURS, "10:30-11:00 15:00-16:00")]
)
@pytest.mark.parametrize("in_hours", [False, True])
def test_reckoning_twice_is_reckoning_once_and_nothing_new_is_due_in_the_past(
    after: int, policy: Policy, value: Any, in_hours: bool
) -> None:
    clock, at = running(after * MINUTE, in_hours=in_hours), NIGHT + after * MINUTE
    fired = clock.marks[: clock.level]
    terms = Terms(overrides={policy.key: value})
    clock.reckon_anew(terms, policy.key, at)
    once = (clock.marks, clock.spent, clock.next_at, clock.target, clock.running_since)
    assert not clock.reckon_anew(terms, policy.key, at)
    assert (clock.marks, clock.spent, clock.next_at, clock.target, clock.running_since) == once
    assert clock.marks[: len(fired)] == fired
    assert all(mark >= at for mark in clock.marks[len(fired) :])
    assert clock.marks == sorted(clock.marks)
    assert len(clock.marks) == 4


# --- what a change does to clocks that run -----------------------------------------------------------------------------


def test_a_clock_that_runs_is_due_at_another_time_and_has_spent_what_it_had_spent(
    policies: Policies, database: Database, tree: Tree
) -> None:
    probe = a_probe(database, tree)
    begun = clock_of(database, probe)
    shift(database, 20 * MINUTE)
    with database.transaction(STAFF) as tx:
        case = tx.get(Probe, probe)
        case.clocks[0].pause(tx.act())
    shift(database, 10 * MINUTE)
    with database.transaction(STAFF) as tx:
        case = tx.get(Probe, probe)
        case.clocks[0].resume(tx.act())
    before = clock_of(database, probe)
    assert 20 * MINUTE <= before.spent < 21 * MINUTE
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 7200)
    policies.recompute()
    after = clock_of(database, probe)
    assert (after.spent, after.running_since, after.started_at) == (before.spent, before.running_since, begun.started_at)
    assert before.due_at
    assert after.due_at == before.due_at + HOUR
    assert after.target == 2 * HOUR


def test_a_paused_clock_has_the_new_limit_when_it_is_resumed(policies: Policies, database: Database, tree: Tree) -> None:
    probe = a_probe(database, tree)
    with database.transaction(STAFF) as tx:
        tx.get(Probe, probe).clocks[0].pause(tx.act())
    preview = policies.preview(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 600)
    assert (preview.clocks, len(preview.earliest)) == (1, 0), "it changes, and is not due"
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 600)
    policies.recompute()
    with database.transaction(STAFF) as tx:
        tx.get(Probe, probe).clocks[0].resume(tx.act())
    clock = clock_of(database, probe)
    assert clock.running_since
    assert clock.due_at == clock.running_since + 10 * MINUTE - clock.spent


def test_a_breached_clock_stays_breached(policies: Policies, database: Database, tree: Tree) -> None:
    probe = a_probe(database, tree)
    shift(database, 65 * MINUTE)
    clocks.sweep(database)
    before = clock_of(database, probe)
    assert before.breached_at
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 7200)
    policies.recompute()
    after = clock_of(database, probe)
    assert (after.breached_at, after.level, after.marks, after.target) == (before.breached_at, 2, before.marks, HOUR)
    shift(database, HOUR)
    clocks.sweep(database)
    assert [type for _, type, _ in clock_events(database, probe)] == ["ClockWarned", "ClockBreached", "ClockEscalated", "ClockEscalated"], (
        "each once"
    )


def test_changed_hours_move_working_clocks_only(policies: Policies, database: Database, tree: Tree) -> None:
    around, working = a_probe(database, tree), a_probe(database, tree, in_hours=True)
    before = clock_of(database, around), clock_of(database, working)
    policies.set(tree.staff["PROJECT_MANAGER"], HOLIDAYS, tree.parent, "DAILY")
    policies.set(tree.staff["PROJECT_MANAGER"], HOURS, tree.parent, "03:00-03:30 22:00-22:30")
    policies.recompute()
    after = clock_of(database, around), clock_of(database, working)
    assert (after[0].marks, after[0].hours) == (before[0].marks, None)
    assert after[1].hours == "Asia/Shanghai DAILY 03:00-03:30 22:00-22:30"
    assert after[1].due_at != before[1].due_at
    assert after[1].due_at
    assert after[1].due_at.astimezone(UTC).strftime("%H:%M") in ("19:30", "14:30")


def test_clocks_of_other_estates_and_of_nearer_overrides_do_not_move(policies: Policies, database: Database, tree: Tree) -> None:
    sister, stranger = a_tree(database, beside=tree), a_tree(database)
    policies.set(sister.staff["PROJECT_MANAGER"], WORK, sister.parent, 1800)
    probes = [a_probe(database, t) for t in (tree, sister, stranger)]
    preview = policies.preview(tree.staff["GENERAL_MANAGER"], WORK, places(tree)[1], 900)
    assert preview.clocks == 1
    policies.set(tree.staff["GENERAL_MANAGER"], WORK, places(tree)[1], 900)
    policies.recompute()
    assert [clock_of(database, probe).target for probe in probes] == [15 * MINUTE, 30 * MINUTE, HOUR]


def test_a_clock_with_a_limit_of_its_own_follows_no_policy(policies: Policies, database: Database, tree: Tree) -> None:
    probe = a_probe(database, tree)
    with database.transaction(STAFF) as tx:
        tx.get(Probe, probe).clocks[0].aim(tx.now + 3 * HOUR, tx.act())
    before = clock_of(database, probe)
    assert before.policy is None
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 900)
    policies.recompute()
    assert clock_of(database, probe).marks == before.marks


def test_a_limit_taken_from_another_policy_follows_that(policies: Policies, database: Database, tree: Tree) -> None:
    probe = a_probe(database, tree)
    with database.transaction(STAFF) as tx:
        tx.get(Probe, probe).clocks[0].retarget(SHORT, Act(STAFF, tx.now, "", Terms()))
    assert (clock_of(database, probe).policy, clock_of(database, probe).target) == (SHORT.key, timedelta(seconds=100))
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 900)
    policies.set(tree.staff["PROJECT_MANAGER"], SHORT, tree.parent, 50)
    policies.recompute()
    assert clock_of(database, probe).target == timedelta(seconds=50)


def test_what_a_preview_promises_is_what_then_happens(policies: Policies, database: Database, tree: Tree) -> None:
    who = tree.staff["PROJECT_MANAGER"]
    probes = {}
    for begun in range(0, 60, 5):
        probes[begun] = a_probe(database, tree)
        if begun < 55:
            shift(database, 5 * MINUTE)
    shift(database, 6 * MINUTE)  # the first is missed by a minute
    clocks.sweep(database)
    before = {begun: clock_of(database, probe) for begun, probe in probes.items()}
    preview = policies.preview(who, WORK, tree.parent, 1800)
    assert {begun: clock_of(database, probe).marks for begun, probe in probes.items()} == {
        begun: clock.marks for begun, clock in before.items()
    }, "nothing is written"
    assert policies.changes(who, tree.parent).changes == []
    assert (plain(preview.value), preview.complete, preview.looked_at) == (1800, True, 12)
    policies.set(who, WORK, tree.parent, 1800)
    policies.recompute()
    clocks.sweep(database)
    after = {begun: clock_of(database, probe) for begun, probe in probes.items()}
    assert preview.clocks == sum(after[b].due_at != before[b].due_at for b in probes) == 11
    assert preview.breaches == sum(bool(after[b].breached_at and not before[b].breached_at) for b in probes) == 6
    later = [shift for shift in preview.earliest if shift.due_time.ToDatetime(tzinfo=UTC) > business_now(database)]
    due = sorted((c.due_at, c.subject) for c in after.values() if c.due_at and not c.breached_at)
    assert [(round(s.due_time.ToDatetime(tzinfo=UTC).timestamp(), 3), s.subject) for s in later] == [
        (round(at.timestamp(), 3), subject) for at, subject in due
    ][: len(later)]
    assert len(preview.earliest) == policy_api.SHOWN
    assert all(shift.clock == "work" and shift.previous_due_time.seconds > shift.due_time.seconds for shift in preview.earliest)


def test_a_preview_without_a_value_shows_what_a_reset_would_do(policies: Policies, database: Database, tree: Tree) -> None:
    who = tree.staff["PROJECT_MANAGER"]
    policies.set(who, WORK, tree.parent, 600)
    a_probe(database, tree)
    assert policies.preview(who, WORK, tree.parent, 600).clocks == 0, "that is how it is"
    preview = policies.preview(who, WORK, tree.parent)
    assert (plain(preview.value), preview.clocks, preview.breaches) == (3600, 1, 0)


def test_a_preview_says_when_it_has_not_looked_at_all(
    policies: Policies, database: Database, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        a_probe(database, tree)
    monkeypatch.setattr(policy_api, "PREVIEWED", 3)
    preview = policies.preview(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 600)
    assert (preview.looked_at, preview.complete, preview.clocks) == (3, False, 3)


# --- the operation -----------------------------------------------------------------------------------------------------


def end_lease(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("UPDATE operations SET lease_until = now() - interval '1 second' WHERE state = 'RUNNING'")


def operation(database: Database) -> tuple[str, dict[str, Any]]:
    with database.read() as tx:
        return tx.execute("SELECT state, progress FROM operations WHERE kind = %s", (policy_api.KIND,))[0]


@pytest.mark.parametrize("where", ["before the commit", "after the commit"])
def test_killed_in_the_middle_it_goes_on_and_ends_as_if_nothing_had_been(
    policies: Policies, database: Database, tree: Tree, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in the third batch of five: two are kept, nothing is counted twice."""
    probes = [a_probe(database, tree) for _ in range(20)]
    before = {probe: clock_of(database, probe) for probe in probes}
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 7200)
    program = f"""
import os, signal
import services; services.__path__.append({str(HERE / "services")!r})
from services.chassis import jobs, policy_api
from services.chassis.db import Database
policy_api.BATCH, policy_api.SETTLED, reckon, calls = 4, 0, policy_api._reckon, []
def die(tx=None): os.kill(os.getpid(), signal.SIGKILL)
def reckon_and_die(work, tx, ids):
    left = reckon(work, tx, ids)
    calls.append(ids)
    if len(calls) == 3:
        tx.session.flush()
        die() if {where == "before the commit"} else tx.after_commit.append(die)
    return left
policy_api._reckon = reckon_and_die
jobs.work_once(Database("probe"), "the one that dies")
"""
    died = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}:{FOLDER / 'gen'}"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    done = sum(clock_of(database, probe).target == 2 * HOUR for probe in probes)
    assert done == (8 if where == "before the commit" else 12)
    assert (operation(database)[0], operation(database)[1]["changed"]) == ("RUNNING", done)
    assert jobs.work_once(database, "another") is False, "its lease still runs"
    end_lease(database)
    monkeypatch.setattr(policy_api, "BATCH", 4)
    policies.recompute()
    for probe in probes:
        after, was = clock_of(database, probe), before[probe]
        assert (after.due_at, after.spent, after.started_at) == (was.started_at + 2 * HOUR, was.spent, was.started_at)
    assert operation(database)[0] == "SUCCEEDED"
    assert policies.changes(tree.staff["PROJECT_MANAGER"], tree.parent).changes[0].clocks == 20


def test_it_passes_by_a_case_that_is_being_changed_and_comes_back(
    policies: Policies, database: Database, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = [a_probe(database, tree) for _ in range(6)]
    policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 7200)
    monkeypatch.setattr(policy_api, "BATCH", 2)
    with ThreadPoolExecutor(1) as threads:
        with database.transaction(STAFF) as tx:
            case = tx.get(Probe, probes[1])
            working = threads.submit(policies.recompute)
            eventually(lambda: all(clock_of(database, probe).target == 2 * HOUR for probe in probes if probe != probes[1]))
            case.clocks[0].pause(tx.act())  # the command goes on undisturbed
        working.result(timeout=20)
    assert (clock_of(database, probes[1]).target, clock_of(database, probes[1]).paused) == (2 * HOUR, True)


def test_commands_sweeps_and_recomputations_together_never_deadlock(
    policies: Policies, database: Database, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_api, "BATCH", 7)
    monkeypatch.setattr(policy_api, "COME_BACK", 0.01)
    probes = [a_probe(database, tree) for _ in range(30)]
    stop = threading.Event()

    def command(probe: UUID) -> None:
        with database.transaction(STAFF) as tx:
            case = tx.get(Probe, probe)
            clock = case.clocks[-1]
            (clock.resume if clock.paused else clock.pause)(tx.act())

    def commands() -> int:
        done = 0
        while not stop.is_set():
            command(probes[done % 30])
            done += 1
        return done

    def sweeps() -> None:
        while not stop.is_set():
            clocks.sweep(database)
            time.sleep(0.01)

    with ThreadPoolExecutor(5) as threads:
        busy = [threads.submit(commands), threads.submit(commands)]
        sweeping = threads.submit(sweeps)
        try:
            for value in (1000, 2000, 3000, 4000):
                policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, value)
                list(threads.map(lambda _: policies.recompute(), range(2)))
        finally:
            stop.set()
        assert all(worker.result(timeout=20) > 10 for worker in busy)
        sweeping.result(timeout=20)
    assert {clock_of(database, probe).target for probe in probes} == {timedelta(seconds=4000)}


def test_it_looks_again_for_clocks_started_by_a_process_that_did_not_know_yet(
    policies: Policies, database: Database, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_api, "SETTLED", 15.0)
    stale = Database("probe")
    try:
        a_probe(stale, tree)  # its snapshot is taken
        policies.set(tree.staff["PROJECT_MANAGER"], WORK, tree.parent, 7200)
        policies.recompute()
        late = a_probe(stale, tree)
        assert (clock_of(database, late).target, operation(database)[0]) == (HOUR, "RUNNING")
        end_lease(database)
        with database.transaction() as tx:
            tx.execute("UPDATE operations SET created_at = created_at - interval '15 seconds'")
        policies.recompute()
        assert (clock_of(database, late).target, operation(database)[0]) == (2 * HOUR, "SUCCEEDED")
        assert operation(database)[1]["look"] == 2
    finally:
        stale.dispose()


def test_several_changes_end_in_the_last_whatever_the_order_they_are_carried_out_in(
    policies: Policies, database: Database, tree: Tree
) -> None:
    probe = a_probe(database, tree, in_hours=True)
    who = tree.staff["PROJECT_MANAGER"]
    for hours in ("09:00-18:00", "01:00-02:00", "10:00-16:00"):
        policies.set(who, HOURS, tree.parent, hours)
    with database.transaction() as tx:
        first, _, third = (row[0] for row in tx.execute("SELECT id FROM operations ORDER BY created_at"))
        tx.execute("UPDATE operations SET created_at = created_at + interval '1 second' WHERE id = %s", (first,))
        tx.execute("UPDATE operations SET created_at = created_at - interval '1 second' WHERE id = %s", (third,))
    policies.recompute()
    clock = clock_of(database, probe)
    assert clock.hours == "Asia/Shanghai CN 10:00-16:00"
    expected = Terms(overrides={HOURS.key: "10:00-16:00"}).calendar.add(clock.running_since, HOUR - clock.spent)  # type: ignore[arg-type]
    assert clock.due_at == expected


# --- over REST ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rest(database_of: Databases) -> Iterator[tuple[httpx.Client, dict[str, Caller]]]:
    """The gateway before a real api of work_orders and surveys; only sessions are made up: a token is somebody's name."""
    people: dict[str, Caller] = {}
    standin = Standin(Contract.load(GatewaySettings().descriptors))

    def exchange(request: Any, context: Any) -> Any:
        reply = auth_pb2.Identity(token=people[request.access_token].identity)
        reply.expire_time.FromDatetime(datetime.now(UTC) + HOUR)
        return reply

    standin.answers["ExchangeSession"] = exchange
    standin.start()
    for service in ("work_orders", "surveys"):
        database_of(service)
    both = Server(["work_orders", "surveys"])
    port = both.start()
    process = Process(
        {"STEWARD_ADDRESSES": f"residents=127.0.0.1:{standin.port},work_orders=127.0.0.1:{port},surveys=127.0.0.1:{port}", **NO_RATES}
    )
    try:
        with httpx.Client(base_url=process.url, timeout=20, trust_env=False) as client:
            yield client, people
    finally:
        process.stop()
        both.stop(grace=1)
        standin.stop()


@pytest.mark.rule("REP-38")
def test_the_whole_way_over_rest(rest: tuple[httpx.Client, dict[str, Caller]], database_of: Databases) -> None:
    client, people = rest
    tree = a_tree(database_of("work_orders"))
    people["pm"], people["technician"] = tree.staff["PROJECT_MANAGER"], tree.technician
    pm, technician = {"authorization": "Bearer pm"}, {"authorization": "Bearer technician"}
    path = "/v1/services/work_orders/policies/repair.pickup"

    listed = client.get("/v1/services/work_orders/policies", params={"node": tree.parent}, headers=pm)
    assert listed.status_code == 200, listed.text
    pickup = next(p for p in listed.json()["policies"] if p["name"].endswith("/repair.pickup"))
    assert (pickup["value"], pickup["unit"], pickup["rules"], pickup["most"]) == (7200, "seconds", "REP-10", 86400)

    body = {"node": tree.parent, "value": 3600, "reason": "new staff"}
    assert client.post(f"{path}:preview", json={"node": tree.parent, "value": 3600}, headers=pm).json()["complete"] is True
    answer = client.post(f"{path}:set", json=body, headers={**pm, "idempotency-key": "k-1"})
    assert (answer.status_code, answer.json()["value"], answer.json()["source"]) == (200, 3600, tree.parent)
    assert client.get(path, params={"node": tree.parent}, headers=pm).json()["value"] == 3600
    changes = client.get("/v1/services/work_orders/policies/-/changes", params={"node": tree.parent}, headers=pm).json()["changes"]
    assert [(c["oldValue"], c["newValue"], c["reason"], c["changer"]) for c in changes] == [
        (7200, 3600, "new staff", tree.staff["PROJECT_MANAGER"].name)
    ]
    assert client.post(f"{path}:reset", json={"node": tree.parent, "reason": "old staff"}, headers=pm).json()["value"] == 7200

    refused = client.post("/v1/services/work_orders/policies/repair.on_site.urgent:set", json={**body, "value": 3600}, headers=pm)
    assert (refused.status_code, refused.json()["reason"], refused.json()["rule"]) == (400, "OUT_OF_BOUNDS", "REP-38")
    assert "等级标准" in refused.json()["detail"]
    assert client.post(f"{path}:set", json=body, headers=technician).status_code == 403
    assert client.post(f"{path}:set", json=body).status_code == 401
    assert client.get("/v1/services/nowhere/policies", params={"node": tree.parent}, headers=pm).json()["reason"] == "SERVICE_NOT_FOUND"
    assert client.get("/v1/services/work_orders/policies", headers=pm).status_code == 400


def test_the_process_of_long_operations_reckons_clocks_of_every_service_anew(
    rest: tuple[httpx.Client, dict[str, Caller]], database_of: Databases
) -> None:
    client, people = rest
    database = database_of("surveys")
    tree = a_tree(database)
    people["head"] = tree.staff["PROJECT_MANAGER"]
    now, limit = business_now(database), 30 * MINUTE
    with database.transaction(STAFF) as tx:
        tx.session.add(
            Clock(
                id=uuid4(), group_id=tree.group_id, company_id=tree.company_id, estate_id=tree.estate_id, aggregate="survey", aggregate_id=uuid4(), subject="",
                name="answer", number=None, handler=None, urgent=False, target=HOUR, policy=None, working=False, hours=None, warn=0.8, ladder=["A", "B"],
                started_at=now, running_since=now, marks=[now + limit, now + HOUR, now + HOUR + 15 * MINUTE], next_at=now + limit, level=0, cancelled=False,
            )
        )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    process = subprocess.Popen([sys.executable, "-m", "services.chassis", "jobs", "surveys", "work_orders"], cwd=ROOT, env=environment)
    try:
        path, head = "/v1/services/surveys/policies/escalation.step", {"authorization": "Bearer head"}
        assert client.post(f"{path}:set", json={"node": tree.parent, "value": 60, "reason": "haste"}, headers=head).status_code == 200

        def changed() -> bool:
            change = client.get(f"{path}/changes", params={"node": tree.parent}, headers=head).json()["changes"][0]
            return change.get("clocks") == 1

        eventually(changed, within=20, every=0.1)
        with database.read() as tx:
            marks = tx.execute("SELECT marks FROM clocks WHERE estate_id = %s", (tree.estate_id,))[0][0]
        assert marks[1:] == [now + HOUR, now + HOUR + MINUTE]
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_the_name_of_the_service_in_the_path_chooses_whose_policies_are_meant(
    rest: tuple[httpx.Client, dict[str, Caller]], database_of: Databases
) -> None:
    """Two services in one process, each with its own database."""
    client, people = rest
    tree, elsewhere = a_tree(database_of("work_orders")), a_tree(database_of("surveys"))
    people["here"], people["there"] = tree.staff["PROJECT_MANAGER"], elsewhere.staff["PROJECT_MANAGER"]

    def keys(service: str, who: str, node: str) -> set[str]:
        reply = client.get(f"/v1/services/{service}/policies", params={"node": node}, headers={"authorization": f"Bearer {who}"})
        return {p["name"].removeprefix(f"services/{service}/policies/") for p in reply.json().get("policies", ())}

    assert {"repair.pickup", "followup.hours", "calendar.hours"} <= keys("work_orders", "here", tree.parent)
    there = keys("surveys", "there", elsewhere.parent)
    assert {"satisfaction.satisfied_from", "calendar.hours"} <= there
    assert "repair.pickup" not in there
    assert keys("surveys", "here", tree.parent) == set(), "that register does not know his estate"


def test_the_api_is_documented_with_who_may_call_it(rest: tuple[httpx.Client, dict[str, Caller]]) -> None:
    document = rest[0].get("/openapi.json").json()
    paths = {path: set(methods) for path, methods in document["paths"].items() if path.startswith("/v1/services/")}
    assert paths == {
        "/v1/services/{service}/policies": {"get"},
        "/v1/services/{service}/policies/{policy}": {"get"},
        "/v1/services/{service}/policies/{policy}:set": {"post"},
        "/v1/services/{service}/policies/{policy}:reset": {"post"},
        "/v1/services/{service}/policies/{policy}:preview": {"post"},
        "/v1/services/{service}/policies/{policy}/changes": {"get"},
    }
    said = document["paths"]["/v1/services/{service}/policies/{policy}:set"]["post"]["description"]
    assert "Who may call: PROJECT_MANAGER" in said
    assert "at the node named, or above it" in said
    assert settings().development
