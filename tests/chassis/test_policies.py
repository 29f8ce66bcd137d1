"""Policies: the nearest override wins, bounds hold, a law cannot be overridden."""

from __future__ import annotations

import importlib
import json
import pkgutil
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.chassis import policies
from services.chassis.__main__ import SERVICES
from services.chassis.calendar import Calendar, parse_shifts
from services.chassis.db import Database
from services.chassis.directory import Estate
from services.chassis.errors import InvalidInput
from services.chassis.policies import HOURS, REGISTRY, Policies, Policy, Terms
from services.probe.probes import SHORT, WORK

ESTATE = Estate(uuid4(), "TFHY", "天府花园", uuid4(), uuid4(), "Asia/Urumqi", "RESIDENTIAL")


def override(database: Database, node: UUID, policy: Policy, value: float | str) -> None:
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO policy_overrides (key, node_id, value, changed_by) VALUES (%s, %s, %s, 'test') ON CONFLICT (key, node_id) DO UPDATE SET value = EXCLUDED.value",
            (policy.key, node, json.dumps(value)),
        )


def terms(database: Database, estate: Estate | None = ESTATE, snapshot: Policies | None = None) -> Terms:
    with database.read() as tx:
        return (snapshot or Policies()).terms(tx, estate)


def test_without_an_override_the_default_of_the_rule_book_holds(database: Database) -> None:
    estate = Estate(uuid4(), "NONE", "", uuid4(), uuid4(), "Asia/Shanghai", "")
    assert terms(database, estate).duration(WORK) == timedelta(hours=1)
    assert Terms().duration(WORK) == timedelta(hours=1)


def test_the_nearest_override_wins(database: Database) -> None:
    override(database, ESTATE.group_id, WORK, 1000)
    assert terms(database).number(WORK) == 1000
    override(database, ESTATE.company_id, WORK, 2000)
    assert terms(database).number(WORK) == 2000
    override(database, ESTATE.id, WORK, 3000)
    assert terms(database).number(WORK) == 3000
    assert terms(database).number(SHORT) == 100, "another policy is untouched"
    sister = Estate(uuid4(), "SIS", "", ESTATE.company_id, ESTATE.group_id, "Asia/Shanghai", "")
    cousin = Estate(uuid4(), "COU", "", uuid4(), ESTATE.group_id, "Asia/Shanghai", "")
    stranger = Estate(uuid4(), "STR", "", uuid4(), uuid4(), "Asia/Shanghai", "")
    assert [terms(database, other).number(WORK) for other in (sister, cousin, stranger)] == [2000, 1000, 3600]


def test_the_calendar_follows_the_estates_zone_and_hours(database: Database) -> None:
    override(database, ESTATE.id, HOURS, "10:00-14:00 16:00-20:00")
    assert terms(database).calendar == Calendar("Asia/Urumqi", parse_shifts("10:00-14:00 16:00-20:00"), "CN")


def test_a_change_is_seen_within_the_age_of_the_snapshot_and_costs_no_query_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate = Estate(uuid4(), "AGE", "", uuid4(), uuid4(), "Asia/Shanghai", "")
    now = [1000.0]
    monkeypatch.setattr(policies.time, "monotonic", lambda: now[0])
    snapshot = Policies()
    assert terms(database, estate, snapshot).number(WORK) == 3600
    override(database, estate.id, WORK, 1234)
    now[0] += policies.MAX_AGE - 0.01
    assert terms(database, estate, snapshot).number(WORK) == 3600
    now[0] += 0.02
    assert terms(database, estate, snapshot).number(WORK) == 1234


@pytest.mark.parametrize("value", [60, 61, 7199.5, 7200])
def test_an_override_inside_the_bounds_is_taken(value: float) -> None:
    WORK.check(value)


@pytest.mark.parametrize("value", [59.9, 7200.1, 0, -1])
def test_an_override_beyond_the_bounds_is_refused_and_the_law_is_named(value: float) -> None:
    with pytest.raises(InvalidInput, match="law of probes") as refused:
        WORK.check(value)
    assert (refused.value.reason, refused.value.rule) == ("OUT_OF_BOUNDS", "X-34")


@pytest.mark.parametrize(
    ("policy", "value"),
    [(WORK, "3600"), (WORK, True), (WORK, float("nan")), (SHORT, float("inf")), (HOURS, 8), (HOURS, "17:00-09:00"), (HOURS, "")],
)
def test_an_override_of_the_wrong_kind_is_refused(policy: Policy, value: float | str) -> None:
    with pytest.raises(InvalidInput):
        policy.check(value)


@pytest.mark.parametrize(("policy", "value"), [(WORK, 59), (WORK, "3600"), (HOURS, "17:00-09:00")])
def test_an_override_that_a_later_release_no_longer_allows_holds_no_more(
    database: Database, caplog: pytest.LogCaptureFixture, policy: Policy, value: float | str
) -> None:
    estate = Estate(uuid4(), "OLD", "", uuid4(), uuid4(), "Asia/Shanghai", "")
    override(database, estate.company_id, policy, HOURS.default if policy is HOURS else 1800)
    override(database, estate.id, policy, value)
    found = [terms(database, estate) for _ in range(2)]
    assert [t.overrides[policy.key] for t in found] == [HOURS.default if policy is HOURS else 1800] * 2
    assert sum(str(estate.id) in record.getMessage() for record in caplog.records) == 1, "it is said once"


def test_who_has_changed_a_policy_forgets_his_snapshot(database: Database) -> None:
    estate, snapshot = Estate(uuid4(), "AGE", "", uuid4(), uuid4(), "Asia/Shanghai", ""), Policies()
    assert terms(database, estate, snapshot).number(WORK) == 3600
    override(database, estate.id, WORK, 1234)
    assert terms(database, estate, snapshot).number(WORK) == 3600
    snapshot.forget()
    assert terms(database, estate, snapshot).number(WORK) == 1234


@pytest.mark.parametrize(
    ("default", "choices", "kind"),
    [
        ("08:30-17:30", (), "hours"),
        ("08:30-12:00 14:00-17:30", (), "hours"),
        ("17:00", (), "time"),
        ("CN", ("CN", "NONE"), "choice"),
        ("24x7", (), "text"),
        ("08", (), "text"),
    ],
)
def test_a_text_is_of_the_kind_its_default_is_of(default: str, choices: tuple[str, ...], kind: str) -> None:
    policy = Policy(f"probe.kind.{uuid4()}", "text", default, "X-34", choices=choices)
    try:
        assert policy.kind == kind
        policy.check(default)
    finally:
        del REGISTRY[policy.key]


def test_a_key_means_one_policy() -> None:
    with pytest.raises(ValueError, match="defined twice"):
        Policy("probe.work", "seconds", 60, "X-34")
    assert REGISTRY["probe.work"] is WORK


@pytest.mark.parametrize("service", SERVICES)
def test_every_policy_of_a_service_names_its_rules_and_has_a_default_within_its_own_bounds(service: str) -> None:
    folder = importlib.import_module(f"services.{service}")
    if "policies" in {module.name for module in pkgutil.iter_modules(folder.__path__)}:
        importlib.import_module(f"services.{service}.policies")
    for policy in REGISTRY.values():
        assert policy.rules, policy.key
        policy.check(policy.default)
