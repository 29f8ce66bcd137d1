"""Trace context of W3C: taken from the caller when it is well formed, else begun here."""

from __future__ import annotations

import os
import re

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def begin(header: bytes | None) -> tuple[str, str]:
    """(traceparent to pass on, trace id). A header that breaks the format is dropped, as the standard asks."""
    if header is not None and (match := _TRACEPARENT.fullmatch(header)):
        version, trace, parent, _, rest = match.groups()
        good_version = version != b"ff" and (rest is None or version != b"00")
        if good_version and trace.strip(b"0") and parent.strip(b"0"):
            return header[:55].decode() if version == b"00" else f"00-{header[3:55].decode()}", trace.decode()
    random = os.urandom(24).hex()
    return f"00-{random[:32]}-{random[32:]}-01", random[:32]
