"""A day of duties on the whole platform: moved time walks through the check of 17:00, and the people concerned are told (REP-26)."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest

from services.local.platform import Platform
from services.local.story import Cast, Person

ZONE = ZoneInfo("Asia/Shanghai")
RUNG = timedelta(minutes=16)  # after that at the latest the manager is told, the second on the ladder


@pytest.mark.rule("REP-26")
def test_two_days_pass_and_each_has_its_check_which_is_missed_at_five_and_told_upwards(platform: Platform, cast: Cast) -> None:
    with httpx.Client(base_url=platform.gateway_url, timeout=90) as http:
        answer = http.post("/v1/dev/time:advance", json={"duration": "172800s"})
        assert answer.status_code == 200, answer.text
        now = datetime.fromisoformat(answer.json()["now"])
        manager = Person(http, {"grant_type": "password", "username": cast.staff["PROJECT_MANAGER"], "password": cast.password})
        checks = manager.get(f"/v1/estates/{cast.estate}/repairChecks")["repairChecks"]
        inbox, page = [], {"nextPageToken": ""}
        while "nextPageToken" in page:
            page = manager.get("/v1/messages", page_size=100, page_token=page["nextPageToken"])
            inbox += page["messages"]
    due = [datetime.fromisoformat(check["dueTime"]).astimezone(ZONE) for check in checks]
    assert all((at.hour, at.minute) == (17, 0) for at in due)
    past = {at.date() for at in due if now - timedelta(days=2) < at <= now}
    assert len(past) == 2, "one a day"
    long_missed = [check["number"] for check, at in zip(checks, due, strict=True) if at <= now - RUNG]
    assert all(check["state"] == "MISSED" for check, at in zip(checks, due, strict=True) if at <= now)
    fired = [
        event for event in answer.json()["fired"] if event["clock"] == "duty" and event["subject"] in {check["name"] for check in checks}
    ]
    assert [event["type"] for event in fired].count("ClockBreached") >= 2
    told = {message["number"] for message in inbox if message["kind"] in ("CLOCK_BREACHED", "CLOCK_ESCALATED")}
    assert set(long_missed) <= told
