"""Which web pages of other origins may call (Fetch standard). No cookies are involved, so no credentials are allowed."""

from __future__ import annotations

import re

from gateway.web import Headers, Request, Response

_LOCAL = re.compile(r"http://(localhost|127\.0\.0\.1)(:\d{1,5})?")
ACCEPTED = b"accept-language, authorization, content-type, idempotency-key, if-match, traceparent, x-request-timeout"
EXPOSED = b"etag, retry-after, x-trace-id"
REMEMBERED = b"600"  # seconds a browser keeps a preflight's answer


class Cors:
    def __init__(self, origins: tuple[str, ...], development: bool) -> None:
        self._origins, self._development = frozenset(origins), development

    def headers(self, request: Request) -> Headers:
        """What every answer carries; nothing for origins that are not allowed, which makes browsers withhold it."""
        origin = request.headers.get(b"origin")
        if origin is None:
            return []
        headers = [(b"vary", b"origin")]
        if self._allows(origin.decode("latin-1")):
            headers += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED)]
        return headers

    def options(self, request: Request, methods: list[str]) -> Response:
        """The answer to OPTIONS, a preflight or not. The origin's own headers are added to it as to every answer."""
        headers = [(b"allow", ", ".join(methods).encode())]
        origin = request.headers.get(b"origin")
        if origin is not None and b"access-control-request-method" in request.headers and self._allows(origin.decode("latin-1")):
            headers += [
                (b"access-control-allow-methods", ", ".join(methods).encode()),
                (b"access-control-allow-headers", ACCEPTED),
                (b"access-control-max-age", REMEMBERED),
            ]
        return Response(204, headers=headers)

    def _allows(self, origin: str) -> bool:
        return "*" in self._origins or origin in self._origins or (self._development and _LOCAL.fullmatch(origin) is not None)
