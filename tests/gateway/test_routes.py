"""Templates and matching."""

from __future__ import annotations

import pytest

from gateway.binding import Binding
from gateway.descriptors import Contract
from gateway.problems import MethodNotAllowed
from gateway.routes import Router, Template
from services.chassis.errors import InvalidInput, NotFound


def router(*templates: str) -> Router[str]:
    made: Router[str] = Router()
    for template in templates:
        made.add("GET", Template.parse(template), template)
    return made


def test_a_template_gives_segments_variables_and_verb():
    template = Template.parse("/v1/{name=estates/*/repairs/*}:dispatch")
    assert template.segments == ("v1", "estates", "*", "repairs", "*")
    assert [(v.field, v.start, v.stop) for v in template.variables] == [("name", 1, 5)]
    assert template.verb == "dispatch"


def test_a_bare_variable_takes_one_segment_and_may_name_a_nested_field():
    template = Template.parse("/v1/dishes/{dish.name}/parts")
    assert template.segments == ("v1", "dishes", "*", "parts")
    assert [(v.field, v.start, v.stop) for v in template.variables] == [("dish.name", 2, 3)]


def test_a_literal_last_segment_may_have_a_verb():
    assert Template.parse("/v1/{name=imports/*}/refusals:download").verb == "download"


@pytest.mark.parametrize("text", ["v1/x", "/v1/{name=a/**}", "/v1/{Name}", "/v1/{name=a/*}x", "/v1/a b", "/v1//x", "/v1/{name"])
def test_a_template_outside_the_grammar_is_refused_at_the_start(text: str):
    with pytest.raises(ValueError, match="cannot read the route template"):
        Template.parse(text)


def test_literals_win_over_wildcards_and_wildcards_are_tried_when_literals_lead_nowhere():
    made = router("/v1/{name=imports/*}", "/v1/imports/latest", "/v1/{parent=imports/*}/rows")
    assert made.find("GET", "/v1/imports/latest")[0] == "/v1/imports/latest"
    assert made.find("GET", "/v1/imports/7")[0] == "/v1/{name=imports/*}"
    assert made.find("GET", "/v1/imports/latest/rows")[0] == "/v1/{parent=imports/*}/rows"


@pytest.mark.parametrize(
    "path", ["/v1/imports/", "/v1/imports//rows", "/v1", "/", "", "/v1/imports/7/", "//v1/imports/7", "/v1/imports/7:explode"]
)
def test_what_no_template_covers_is_not_found(path: str):
    with pytest.raises(NotFound):
        router("/v1/{name=imports/*}", "/v1/{parent=imports/*}/rows").find("GET", path)


def test_another_method_is_refused_with_the_methods_there_are():
    made = router("/v1/imports")
    made.add("POST", Template.parse("/v1/imports"), "post")
    with pytest.raises(MethodNotAllowed) as refusal:
        made.find("DELETE", "/v1/imports")
    assert refusal.value.methods == ("GET", "HEAD", "OPTIONS", "POST")
    assert made.find("HEAD", "/v1/imports")[0] == "/v1/imports"


def test_verbs_are_told_apart_and_an_encoded_colon_is_no_verb():
    made = router("/v1/{name=repairs/*}", "/v1/{name=repairs/*}:take")
    assert made.find("GET", "/v1/repairs/7:take")[0] == "/v1/{name=repairs/*}:take"
    target, segments = made.find("GET", "/v1/repairs/7%3Atake")
    assert (target, segments) == ("/v1/{name=repairs/*}", ["v1", "repairs", "7:take"])


def test_segments_are_decoded_and_an_encoded_slash_stays_within_its_segment():
    assert router("/v1/{name=units/*}").find("GET", "/v1/units/1%E6%A0%8B%2F2")[1] == ["v1", "units", "1栋%2F2"]


@pytest.mark.parametrize("path", ["/v1/units/%FF", "/v1/units/a%00b", "/v1/units/%0A"])
def test_a_path_that_is_not_text_is_bad_input(path: str):
    with pytest.raises(InvalidInput):
        router("/v1/{name=units/*}").find("GET", path)


def test_the_same_route_twice_is_refused_at_the_start():
    made = router("/v1/{name=imports/*}")
    with pytest.raises(ValueError, match="routed twice"):
        made.add("GET", Template.parse("/v1/{other=imports/*}"), "other")


def test_internal_operations_have_no_route(contract: Contract, kitchen: Contract, bindings: list[Binding]):
    internal = {rpc.path for rpc in contract.rpcs if rpc.scope == "INTERNAL"}
    assert internal
    assert not internal & {binding.rpc.path for binding in bindings}
    assert not next(rpc for rpc in kitchen.rpcs if rpc.name == "Poison").routed


def test_every_other_operation_of_the_contract_has_one(contract: Contract, bindings: list[Binding]):
    assert {rpc.path for rpc in contract.rpcs if rpc.scope != "INTERNAL"} == {binding.rpc.path for binding in bindings}
