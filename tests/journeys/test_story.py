"""The story of a burst pipe over REST, on the whole platform with the real broker (`make demo` plays the same)."""

from __future__ import annotations

import pytest

from services.local.platform import Platform
from services.local.story import Cast, Outcome, play


@pytest.fixture(scope="module")
def outcome(platform: Platform, cast: Cast) -> Outcome:
    return play(platform.gateway_url, cast, lambda line: None)


@pytest.mark.rule("REP-35")
def test_the_burst_pipe_goes_from_report_to_a_filed_order(outcome: Outcome) -> None:
    assert outcome.repair["state"] == "FILED"
    actions = [entry["action"] for entry in outcome.timeline]
    assert actions == [
        "report", "take", "arrive", "charge", "consent", "complete", "reject", "arrive", "complete", "accept", "file",
    ]  # fmt: skip


@pytest.mark.rule("REP-10", "REP-38")
def test_nobody_picks_it_up_so_it_is_reminded_breached_and_escalated_up_the_ladder(outcome: Outcome) -> None:
    pickup = [event["type"] for event in outcome.fired if event["clock"] == "pickup" and event["subject"] == outcome.repair["name"]]
    assert pickup[:3] == ["ClockWarned", "ClockBreached", "ClockEscalated"]
    clocks = {clock["clock"]: clock.get("breached", False) for clock in outcome.repair["clocks"]}
    assert clocks == {"pickup": True, "on_site": True, "resolve": False}


def test_the_people_concerned_were_told_each_once(outcome: Outcome) -> None:
    kinds = {role: [message["kind"] for message in messages] for role, messages in outcome.told.items()}
    assert kinds["owner"].count("REPAIR_RECEIVED") == 1
    assert kinds["owner"].count("REPAIR_COMPLETED") == 2
    assert {"REPAIR_CALLED", "REPAIR_REJECTED"} <= set(kinds["TECHNICIAN"])
    assert "CLOCK_BREACHED" in kinds["ENGINEERING_SUPERVISOR"]
    assert "CLOCK_ESCALATED" in kinds["PROJECT_MANAGER"]


@pytest.mark.rule("REP-37")
def test_billing_shows_the_receivable_of_the_accepted_order(outcome: Outcome) -> None:
    assert [(r["state"], r["amount"]["units"]) for r in outcome.receivables] == [("DUE", "173")]


@pytest.mark.rule("FUP-03")
def test_the_follow_up_says_satisfied(outcome: Outcome) -> None:
    assert outcome.follow_up["state"] == "CLOSED"
    assert outcome.follow_up["attempts"][-1]["grade"] == "SATISFIED"
