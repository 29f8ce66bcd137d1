"""The SMS company, over HTTP.

One POST of JSON for each message, with the bearer token of the settings:

    {"id": "0192…", "to": "13800000001", "text": "【天府物业】验证码 246810，…", "sender": "天府物业",
     "template": "SMS_1234", "parameters": {"code": "246810", "minutes": "5"}}

`id` (also as `Idempotency-Key`) stays the same however often a message is tried: the company, or the small adapter that speaks
its dialect, must not deliver the second one. `sender` and `template` are left out when not configured. Any 2xx means that the
company has it. 4xx is final, but for 408, 425 and 429; everything else is tried again. Telephones, codes and what the company
answers are never logged.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from services.chassis.settings import Settings

NOT_FINAL = {408, 425, 429}


class Refused(Exception):
    """The company will not take this message: its status."""


class Unreachable(Exception):
    """The company did not answer, or not now: what was seen."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET, and send the token to somebody else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True)
class Company:
    """`timeout`: seconds for connecting, and for each wait while it answers."""

    url: str
    token: str = ""
    sender: str = ""
    template: str = ""
    timeout: int = 5

    @staticmethod
    def of(settings: Settings) -> Company:
        return Company(settings.sms_url, settings.sms_token.strip(), settings.sms_sender, settings.sms_template, settings.sms_timeout)

    def send_code(self, identifier: UUID, phone: str, code: str, minutes: int) -> None:
        """Hands over one code. Raises Refused, Unreachable."""
        signature = f"【{self.sender}】" if self.sender else ""
        text = f"{signature}验证码 {code}，{minutes} 分钟内有效，用于登录。请勿告诉他人，工作人员不会向您索取。"
        message: dict[str, Any] = {"id": str(identifier), "to": phone, "text": text}
        if self.sender:
            message["sender"] = self.sender
        if self.template:
            message |= {"template": self.template, "parameters": {"code": code, "minutes": str(minutes)}}
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(identifier)}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url, orjson.dumps(message), headers)  # noqa: S310 - http or https: settings.py
        try:
            with _opener.open(request, timeout=self.timeout):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if 300 <= error.code < 500 and error.code not in NOT_FINAL:
                raise Refused(f"HTTP {error.code}") from None
            raise Unreachable(f"HTTP {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(type(getattr(error, "reason", error)).__name__) from None
