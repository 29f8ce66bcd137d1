"""The table of wordings and the table of who is told what when, as tables."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import services.work_orders
from services.chassis.lifecycle import Case
from services.chassis.reactions import reactions_of
from services.chassis.testing import STAFF_ROLES
from services.notifications import routing, templates
from services.notifications.templates import PARAMETERS, TEMPLATES, Template, span
from steward.notifications.v1 import messages_pb2 as pb

README = Path(routing.__file__).with_name("README.md")
FILLED = {name: f"<{name}>" for name in PARAMETERS}


def test_every_kind_of_message_has_one_wording_and_is_sent_by_some_line_of_the_table() -> None:
    kinds = set(pb.Message.Kind.keys()) - {"KIND_UNSPECIFIED"}

    assert set(TEMPLATES) == kinds
    assert {route.kind for route in routing.ROUTES} == kinds


@pytest.mark.parametrize("asked", ["{reason}", "{reporter_name}", "{phone}", "{}", "{0}"])
def test_a_wording_may_ask_for_ids_numbers_and_roles_only(asked: str) -> None:
    with pytest.raises(ValueError, match="no wording may hold"):
        Template("报修", asked)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_wording_names_the_case_and_can_be_filled_in(kind: str) -> None:
    title, body = TEMPLATES[kind].text(FILLED, urgent=False)

    assert "<number>" in title
    assert "<number>" in body
    assert "{" not in title + body


@pytest.mark.rule("REP-08")
def test_emphasis_stands_first_and_only_where_it_is_urgent() -> None:
    template = TEMPLATES["REPAIR_REPORTED"]
    plain, _ = template.text(FILLED, urgent=False)

    assert template.text(FILLED, urgent=True)[0] == "【紧急】" + plain
    assert "紧急" not in plain


def test_every_role_of_staff_has_the_name_the_company_gives_it() -> None:
    assert set(templates.ROLES) == set(STAFF_ROLES)


def test_every_process_and_clock_of_work_orders_has_a_chinese_name() -> None:
    for module in pkgutil.iter_modules(services.work_orders.__path__):
        if not module.ispkg:
            importlib.import_module(f"services.work_orders.{module.name}")
    cases = [case for case in Case.__subclasses__() if case.__module__.startswith("services.work_orders.")]

    assert cases
    assert {case.KIND for case in cases} <= set(templates.CASES)
    assert {clock.name for case in cases for clock in case.CLOCKS} <= set(templates.CLOCKS)


def test_what_is_newer_than_this_release_is_told_in_general_words() -> None:
    assert templates.case_name("complaint_of_tomorrow") == "工单"
    assert templates.clock_name("tomorrow") == "办理"
    assert templates.role_name("TOMORROWS_MANAGER") == "负责人"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(900, "15分钟"), (7200, "2小时"), (5400, "1小时30分钟"), (259_200, "72小时"), (89, "1分钟"), (-5, "1分钟")],
)
def test_a_time_limit_is_written_in_hours_and_minutes(seconds: int, text: str) -> None:
    assert span(seconds) == text


def test_the_service_listens_to_what_the_table_says_and_to_the_directory() -> None:
    wanted = {(source, route.event.DESCRIPTOR.name) for route in routing.ROUTES for source in routing.sources(route.event)}

    assert set(reactions_of("notifications").by_event) == wanted | {("residents", "DirectoryChanged")}


def test_the_readme_shows_the_table_as_it_is() -> None:
    assert routing.table() in README.read_text(encoding="utf-8"), "print it anew: python -m services.notifications.routing"
