"""What `make run` prints when everything is ready."""

from __future__ import annotations

import re
import textwrap

from services.local.platform import Platform


def page(platform: Platform, accounts: str, seconds: float) -> str:
    url = platform.gateway_url
    lines = [
        "",
        f"Steward is ready after {seconds:.0f} s. Ctrl-C here or `make stop` elsewhere ends it; the data stay.",
        "",
        f"  Operations  {url}/docs  to read and to try; {url}/v1/… is where they are",
        f"  Metrics     {url}/metrics  of the gateway; `make status` shows those of each process",
        f"  Logs        {platform.log('<process>')}",
        "",
        f"Demo accounts. Staff: password {platform.keys.demo_password} · residents: one-time code {platform.keys.demo_code}",
        "",
        textwrap.indent(accounts.strip("\n"), "  "),
        *_try_next(url, accounts, platform.keys.demo_password),
        "",
    ]
    return "\n".join(lines)


def _try_next(url: str, accounts: str, password: str) -> list[str]:
    """A sign-in and a first order by the customer assistant, if the register has one."""
    assistant = re.search(r"^CUSTOMER_ASSISTANT +(\S+) .*?(\S+)$", accounts, re.MULTILINE)
    if assistant is None:
        return []
    number, estate = assistant.groups()
    report = '{"location": "1栋大堂", "category": "LEAK", "description": "吊顶漏水", "contactPhone": "13800000000"}'
    return [
        "",
        "Try next, in another terminal: sign in, report a leak, see the orders of the estate.",
        "",
        f"  TOKEN=$(curl -s {url}/v1/auth/token -d grant_type=password -d username={number} -d password={password} |",
        "    python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])')",
        f"  curl -s {url}/v1/estates/{estate}/repairs -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\",
        f"    -d '{report}'",
        f'  curl -s {url}/v1/estates/{estate}/repairs -H "Authorization: Bearer $TOKEN"',
    ]
