"""The OpenAPI document is true of the real platform: generated requests for every operation, as several people, with real answers.

Generated requests name what exists, mostly, or they would not get beyond "there is no such thing". They come from an estate of its
own, where they may dismiss the staff and change the policies; nothing after them should need a quiet platform.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from gateway.descriptors import Contract
from gateway.settings import GatewaySettings
from services.chassis.__main__ import SERVICES
from services.chassis.testing import eventually
from tests.journeys.people import Neighbours
from tests.journeys.stores import Stores

EXAMPLES = 10  # for each operation
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,  # of a refusal too: a problem document with a reason
]
QUICK = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
MOSTLY = st.sampled_from([True] * 7 + [False])
STRANGERS = ["OWNER", "TECHNICIAN", ""]  # who try everything, whether they may or not; "" is nobody
DONE = {"workDone": "修好了", "selfCheck": {"faultRemoved": True, "functionRestored": True, "siteCleared": True}}


@pytest.fixture(scope="module")
def document(neighbours: Neighbours) -> dict[str, Any]:
    return neighbours.http.get("/openapi.json").json()


@pytest.fixture(scope="module")
def busy(neighbours: Neighbours) -> None:
    """Repairs in many states, so that there is something to name."""
    who, estate = neighbours, f"/v1/estates/{neighbours.estate}"
    home = {"unit": who.units[0], "category": "LEAK", "description": "厨房漏水", "location": "厨房"}
    hall = {"location": "大堂", "category": "OTHER", "description": "吊顶灯不亮", "contactPhone": "13800000000"}
    for steps in ((), ("take",), ("take", "arrive"), ("take", "arrive", "complete")):
        for reporter, body in (("OWNER", home), ("CUSTOMER_ASSISTANT", hall)):
            name = who.post(reporter, f"{estate}/repairs", body)["name"]
            for step in steps:
                who.post("TECHNICIAN", f"/v1/{name}:{step}", DONE if step == "complete" else {})


def existing(document: dict[str, Any], who: Neighbours) -> dict[str, list[str]]:
    """What stands in the estate, in the group and in work_orders, by the path parameter or field that takes it."""
    found: dict[str, list[str]] = {"service": list(SERVICES)}
    after = {collection: name for path in document["paths"] for collection, name in re.findall(r"([^/]+)/\{(\w+)\}", path)}
    for path, operations in document["paths"].items():
        collection = path.rpartition("/")[2]
        if "get" not in operations or collection not in after or set(re.findall(r"\{(\w+)\}", path)) - {"estate", "service"}:
            continue
        query = {p["name"]: f"estates/{who.estate}" for p in operations["get"]["parameters"] if p["name"] == "node"}
        answer = who.http.get(path.format(estate=who.estate, service="work_orders"), params=query, headers=who.as_("GENERAL_MANAGER"))
        for items in answer.json().values() if answer.status_code == 200 else ():
            names = [item["name"] for item in items if isinstance(item, dict) and "name" in item]
            found.setdefault(after[collection], []).extend(name.rpartition("/")[2] for name in names)
    found["staff"] = [staff for staff in found["staff"] if staff not in who.staff_ids]  # those who try must not be dismissed
    named = [f"staff/{staff}" for staff in found["staff"]]
    places = {"estate": [who.estate] * 4 + ["-"], "node": [f"estates/{who.estate}"], "unit": who.units}
    return {name: values for name, values in (found | places | {"technician": named, "deputy": named}).items() if values}


def name_what_exists(case: Any, real: dict[str, list[str]], draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Puts names that exist in the place of most generated ones, and leaves most conditions out."""

    def refine(values: Any) -> None:
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if isinstance(value, (dict, list)):
                refine(value)
            elif isinstance(value, str) and key in real and draw(MOSTLY):
                values[key] = draw(st.sampled_from(real[key]))

    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, (dict, list)):
            refine(part)
    for header in ("If-Match", "Idempotency-Key"):
        if header in (case.headers or ()) and draw(MOSTLY):
            del case.headers[header]


@pytest.mark.timeout(300)
def test_every_operation_answers_everybody_as_the_document_says_and_never_with_a_5xx(
    document: dict[str, Any], busy: None, neighbours: Neighbours, stores: Stores
) -> None:
    began, real = datetime.now(UTC), existing(document, neighbours)
    roles = {rpc.name: rpc.roles for rpc in Contract.load(GatewaySettings().descriptors).rpcs}
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=str(neighbours.http.base_url))
    answers: dict[str, set[int]] = defaultdict(set)
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]
        name = operation.definition.raw["operationId"]
        may = [role for role in roles.get(name, ()) if role in neighbours.staff or role == "OWNER"] or ["PROJECT_MANAGER"]
        right, wrong = operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @QUICK
        @given(data=st.data(), case=right | right | wrong, who=st.sampled_from(may * 3 + STRANGERS))
        def try_it(data: st.DataObject, case: Any, who: str) -> None:
            name_what_exists(case, real, data.draw)
            response = case.call_and_validate(checks=CHECKS, headers=neighbours.as_(who), timeout=20)
            answers[name].add(response.status_code)  # noqa: B023 - called at once

        try_it()
    succeeded = {name for name, statuses in answers.items() if 200 in statuses}
    assert len(succeeded) > len(answers) / 3, "requests get through to what they are about"
    eventually(lambda: not stores.under_way(began), within=30)  # no reaction chokes on what was taken
