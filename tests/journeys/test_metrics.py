"""No process of the running platform shows a metric, a label or a value that the reference does not have, whatever is asked of it."""

from __future__ import annotations

import urllib.request

import httpx

from services.local.platform import Platform
from services.local.story import Cast, Person
from tests.observability.scraping import strays

STRANGE = (
    "/v1/estates/QQQQ/repairs/0193b3c0-0000-7000-8000-000000000000",
    "/v1/estates/TFHY/repairs/77777",
    "/v1/estates/-/repairs?page_size=3",
    "/v1/estates/TFHY/repairs/77777:take",
    "/nothing/13800000000",
    "/%00",
    "/v1/" + "x" * 3000,
)


def test_no_label_grows_with_what_is_asked(platform: Platform, cast: Cast) -> None:
    with httpx.Client(base_url=platform.gateway_url, timeout=30, trust_env=False) as http:
        person = Person(http, {"grant_type": "password", "username": cast.staff["CS_SUPERVISOR"], "password": cast.password})
        person.get(f"/v1/estates/{cast.estate}/repairs")
        for path in STRANGE:
            assert http.get(path).status_code in (400, 401, 404, 405, 414), path
            assert http.request("BREW", path).status_code >= 400
    for part in platform.parts:
        with urllib.request.urlopen(f"http://127.0.0.1:{platform.http_port(part.name)}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        assert strays(page, part.role) == [], part.name
        assert "steward_" in page, part.name
