"""The OpenAPI document: says what the routes do, and the routes do what it says."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks

from gateway import openapi
from gateway.binding import Binding, Codecs
from gateway.descriptors import Contract
from gateway.schemas import Schemas
from tests.gateway.conftest import GOOD, Process
from tests.gateway.standin import Standin
from tests.gateway.strategies import Messages

QUICK = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.target]
)


@pytest.fixture(scope="module")
def document(contract: Contract, bindings: list[Binding]) -> dict[str, Any]:
    return openapi.document(contract, bindings)


@pytest.fixture(scope="module")
def kitchen_document(kitchen: Contract) -> dict[str, Any]:
    codecs = Codecs(kitchen)
    rules = [(rpc, rule) for rpc in kitchen.rpcs if rpc.routed for rule in rpc.rules]
    return openapi.document(kitchen, [Binding(kitchen, codecs, rpc, rule, 1 << 20) for rpc, rule in rules])


def operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(op for path in document["paths"].values() for op in path.values() if op["operationId"] == name)


def test_every_route_is_an_operation_with_who_may_call(document: dict[str, Any], bindings: list[Binding]):
    operations = {op["operationId"]: op for path in document["paths"].values() for op in path.values()}
    assert {binding.rpc.name for binding in bindings} | {"Token", "Revoke"} == set(operations)
    for binding in bindings:
        assert "Who may call: " in operations[binding.rpc.name]["description"]
        assert all(role in operations[binding.rpc.name]["description"] for role in binding.rpc.roles)
        assert operations[binding.rpc.name]["tags"] == [binding.rpc.group]


def test_paths_carry_a_parameter_for_every_wildcard(document: dict[str, Any]):
    take = document["paths"]["/v1/estates/{estate}/repairs/{repair}:take"]["post"]
    assert [(p["name"], p["in"]) for p in take["parameters"]] == [
        ("estate", "path"),
        ("repair", "path"),
        ("Idempotency-Key", "header"),
        ("If-Match", "header"),
    ]
    assert "/v1/imports/{import}/refusals:download" in document["paths"]


def test_comments_become_descriptions(document: dict[str, Any]):
    report = operation(document, "ReportRepair")
    assert report["summary"] == "Takes in a report"
    assert "Rules: REP-01" in report["description"]
    repair = document["components"]["schemas"]["work_orders.Repair"]["properties"]
    assert "telephone" in repair["number"]["description"]
    assert repair["name"]["example"].startswith("estates/TFHY/repairs/0192")
    assert any(tag["name"] == "Repairs" and "REP-nn" in tag["description"] for tag in document["tags"])


def test_a_body_is_described_without_what_only_the_service_may_set(document: dict[str, Any]):
    written, read = (document["components"]["schemas"][f"work_orders.Repair{suffix}"] for suffix in ("-input", ""))
    assert {"state", "number", "etag", "name", "clocks"} & set(written["properties"]) == set()
    assert {"state", "number", "etag", "name", "clocks"} <= set(read["properties"])
    assert read["properties"]["state"]["readOnly"] is True
    assert written["additionalProperties"] is False
    assert {"category", "description"} <= set(written["required"])
    assert "required" not in read


def test_rules_are_carried_over(document: dict[str, Any]):
    written = document["components"]["schemas"]["work_orders.Repair-input"]["properties"]
    assert (written["description"]["minLength"], written["description"]["maxLength"]) == (2, 2000)
    assert written["contactPhone"]["pattern"].startswith("^$|")
    assert "CATEGORY_UNSPECIFIED" not in written["category"]["enum"]
    assert "BURST_PIPE" in written["category"]["enum"]
    rating = document["components"]["schemas"]["work_orders.Rating-input"]
    assert (rating["properties"]["attitude"]["minimum"], rating["properties"]["attitude"]["maximum"]) == (1, 5)
    assert {"attitude", "quality"} <= set(rating["required"])  # absent is 0, and 0 is refused
    content = operation(document, "StartImport")["requestBody"]["content"]["application/json"]["schema"]["properties"]["content"]
    assert (content["format"], content["maxLength"]) == ("byte", 44739244)
    states = next(p for p in operation(document, "ListRepairs")["parameters"] if p["name"] == "states")
    assert states["schema"]["maxItems"] == 12
    assert "STATE_UNSPECIFIED" not in states["schema"]["items"]["enum"]


def test_every_kind_of_rule_has_its_form(kitchen: Contract):
    schemas = Schemas(kitchen)
    schemas.written(kitchen.pool.FindMessageTypeByName("steward.kitchen.v1.Rules"))
    rules = schemas.components["kitchen.Rules-input"]
    properties = rules["properties"]
    assert properties["code"] == {"type": "string", "pattern": "^[A-Z]{4}$"}
    assert properties["mail"] == {"anyOf": [{"type": "string", "format": "email"}, {"type": "string", "enum": [""]}]}
    between = {"type": "integer", "format": "int32", "minimum": 0, "maximum": 10, "exclusiveMinimum": True, "exclusiveMaximum": True}
    assert properties["between"] == between
    assert properties["big"] == {"type": "string", "format": "int64", "pattern": "^[0-9]{1,19}$", "description": "≥ 0"}
    assert properties["taste"]["enum"] == ["SWEET", "SOUR"]
    tags = {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1, "maxItems": 3, "uniqueItems": True}
    assert properties["tags"] == tags
    assert properties["counts"]["maxProperties"] == 2
    assert properties["counts"]["additionalProperties"]["minimum"] == 1
    assert properties["file"] == {"type": "string", "format": "byte", "maxLength": 1336}
    assert properties["share"] == {"type": "number", "format": "double", "minimum": 0, "maximum": 1}
    assert properties["kind"]["enum"] == ["a", "b"]
    assert sorted(rules["required"]) == ["between", "code", "kind", "needed", "tags", "taste"]


def test_refusals_are_documented_as_they_can_happen(document: dict[str, Any]):
    def statuses(name: str) -> set[str]:
        return set(operation(document, name)["responses"])

    always = {"200", "400", "429", "500", "501", "503", "504"}
    assert statuses("GetMe") == always | {"401"}
    assert statuses("GetRepair") == always | {"401", "403", "404"}
    assert statuses("TakeRepair") == always | {"401", "403", "404", "408", "409", "412", "413", "415", "422"}
    assert statuses("RequestCode") == always | {"408", "409", "413", "415"}
    assert operation(document, "RequestCode")["security"] == []
    assert statuses("Token") == {"200", "400", "408", "413", "429", "503"}


def test_two_bindings_of_one_rpc_are_two_operations(kitchen_document: dict[str, Any]):
    names = [op["operationId"] for path in kitchen_document["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))
    assert {"Kitchen_GetDish_1", "Kitchen_GetDish_2"} <= set(names)
    upload = operation(kitchen_document, "UploadPicture")
    assert upload["requestBody"]["content"] == {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    assert "Poison" not in names


@pytest.mark.parametrize("which", ["document", "kitchen_document"])
def test_the_document_is_valid_and_every_operation_can_be_read(which: str, request: pytest.FixtureRequest):
    document = request.getfixturevalue(which)
    schema = schemathesis.openapi.from_dict(document)
    schema.validate()
    results = list(schema.get_all_operations())
    assert len(results) == sum(len(path) for path in document["paths"].values())
    assert [result.err() for result in results if not hasattr(result, "ok")] == []


def test_every_reference_has_its_target(document: dict[str, Any]):
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for part in value.values() for found in references(part)]
        return [found for part in value for found in references(part)] if isinstance(value, list) else []

    for reference in references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


@QUICK
@given(data=st.data())
def test_replies_fit_their_schema_to_the_last_field(contract: Contract, data: st.DataObject):
    """Whatever a service answers; the schema is made stricter here, so that a field it does not know is seen."""
    descriptor = data.draw(st.sampled_from(list(contract.messages())))
    assert_fits(contract, descriptor, data.draw(Messages(contract).of(descriptor)))


@QUICK
@given(data=st.data())
def test_replies_with_every_kind_of_field_fit_their_schema(kitchen: Contract, data: st.DataObject):
    descriptor = kitchen.pool.FindMessageTypeByName("steward.kitchen.v1.Dish")
    assert_fits(kitchen, descriptor, data.draw(Messages(kitchen).of(descriptor)))


def assert_fits(contract: Contract, descriptor: Any, message: Any) -> None:
    schemas = Schemas(contract)
    schema = schemas.read(descriptor)
    components = copy.deepcopy(schemas.components)
    for component in components.values():
        component["additionalProperties"] = False
    validator = jsonschema_rs.Draft4Validator({**schema, "components": {"schemas": components}}, validate_formats=True)
    value = orjson.loads(orjson.dumps(Codecs(contract).encoders.of(descriptor)(message)))
    errors = [error for error in validator.iter_errors(value) if error.instance != 4711]
    assert [str(error) for error in errors] == []


CHECKS = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


def test_generated_requests_meet_no_surprise(gateway: Process, standin: Standin):
    """A few of schemathesis's requests for every operation: nothing breaks, no status, header or body is undocumented."""
    with httpx.Client(trust_env=False) as client:
        raw = client.get(f"{gateway.url}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(raw)
    schema.config.update(base_url=gateway.url)
    tried = 0
    for result in schema.get_all_operations():
        found = result.ok()  # type: ignore[union-attr]
        case_strategy = found.as_strategy()

        @settings(QUICK, max_examples=4, database=None)
        @given(case=case_strategy)
        def try_operation(case: Any) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=CHECKS, headers=GOOD, timeout=10)

        try_operation()
    assert tried > 100
