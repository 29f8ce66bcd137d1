"""Pages for people: they work without the Internet and cannot be made to run anything else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from gateway.pages import accepts_gzip
from tests.gateway.conftest import Process


def test_the_landing_page_leads_to_the_documentation(client: httpx.Client):
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'href="/docs"' in answer.text
    assert "管家" in answer.text


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/events"])
def test_pages_load_nothing_from_elsewhere(client: httpx.Client, path: str):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert re.findall(r'(?:src|href)="(?!/)[^"]*"', answer.text) == []
    for file in re.findall(r'(?:src|href)="(/docs/[^"]+)"', answer.text):
        assert client.get(file).status_code == 200


def test_the_documentation_asks_no_validator_on_the_internet(client: httpx.Client):
    assert "validatorUrl: null" in client.get("/docs/start.js").text


def test_files_are_compressed_and_not_sent_twice(client: httpx.Client):
    plain = client.get("/docs/swagger-ui-bundle.js", headers={"accept-encoding": "identity"})
    small = client.get("/docs/swagger-ui-bundle.js", headers={"accept-encoding": "gzip"})
    assert small.content == plain.content
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    again = client.get("/openapi.json", headers={"if-none-match": client.get("/openapi.json").headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/openapi.json", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        (b"gzip", True),
        (b"br, gzip;q=0.5", True),
        (b"GZIP", True),
        (b"gzip;q=0", False),
        (b"gzip;q=0.0, br", False),
        (b"", False),
        (b"xgzip", False),
    ],
)
def test_compression_is_used_for_who_accepts_it(header: bytes, accepts: bool):
    assert accepts_gzip(header) is accepts


def test_no_file_beside_the_documentation_can_be_reached(client: httpx.Client):
    for path in ("/docs/../settings.py", "/docs/%2e%2e/settings.py", "/docs/swagger-ui.css.map", "/docs/", "/static/x"):
        assert client.get(path).status_code == 404


def test_there_is_no_icon_and_no_error_for_it(client: httpx.Client):
    assert client.get("/favicon.ico").status_code == 204


def test_the_documentation_opens_in_a_browser(gateway: Process, tmp_path: Path):
    """The operations are there, and the policy stopped nothing that the page needs."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    more = [
        "--disable-sync",
        "--no-proxy-server",
        f"--user-data-dir={tmp_path}",
        "--enable-logging=stderr",
        "--virtual-time-budget=8000",
        "--dump-dom",
    ]
    done = subprocess.run([browser, *flags.split(), *more, f"{gateway.url}/docs"], capture_output=True, text=True, timeout=60, check=True)
    assert "operations-Repairs-ReportRepair" in done.stdout
    assert "Steward" in done.stdout
    assert "Content Security Policy" not in done.stderr
