"""What `make run` prints when everything is ready."""

from __future__ import annotations

import sys
import textwrap

from services.local.platform import Platform


def page(platform: Platform, seconds: float) -> str:
    url = platform.gateway_url
    accounts = platform.run(
        "demo_accounts", [sys.executable, "-m", "services.residents.demo_accounts"], platform.environment("jobs"), seconds=60
    )
    password, code = platform.keys.demo_password, platform.keys.demo_code
    lines = [
        "",
        f"Steward is ready after {seconds:.0f} s. Ctrl-C here or `make stop` elsewhere ends it; the data stay.",
        "",
        f"  REST       {url}/v1/…        the operations, to read and to try: {url}/docs",
        f"  Metrics    {url}/metrics       and of each process: `make status`",
        f"  Logs       {platform.log('<process>')}",
        "",
        f"Demo accounts (staff: password {password} · residents: one-time code {code})",
        "",
        textwrap.indent(accounts.strip("\n"), "  "),
        "",
        "Try next, in another terminal:",
        "",
        f"  TOKEN=$(curl -s {url}/v1/auth/token -d grant_type=password -d username=TFHY-003 -d password={password} |",
        """          python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])')""",
        f'  curl -s -H "Authorization: Bearer $TOKEN" {url}/v1/estates/TFHY/repairs',
        "",
    ]
    return "\n".join(lines)
