"""Pages for people: a landing page and the documentation, from files on this machine, nothing from elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import orjson
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from gateway.web import Request, Response

CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HTML = b"text/html; charset=utf-8"

LANDING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Steward 管家</title>
<style>
body { font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem; color: #222 }
a { color: #0b5cad } code { background: #f2f2f2; padding: .1em .3em }
</style>
<h1>Steward 管家</h1>
<p>The platform on which a property-services group runs every estate it manages. This is its API.</p>
<ul>
<li><a href="/docs">Documentation</a>: every operation, to read and to try</li>
<li><a href="/docs/events">Events</a>: everything that happens, for programs that want to know it at once</li>
<li><a href="/openapi.json">OpenAPI document</a>, <a href="/asyncapi.json">AsyncAPI document</a></li>
<li>Sign in: <code>POST /v1/auth/token</code></li>
</ul>
"""

DOCS = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Steward 管家 · API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="page"></div>
<noscript>This page needs JavaScript; the document itself is <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
"""

# No validatorUrl: the page would ask a server on the Internet whether the document is valid.
START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout"
});
"""


class Page:
    """A file that does not change while the process runs: with an entity tag, and compressed once for who accepts that."""

    def __init__(self, make: Callable[[], bytes], content_type: bytes, csp: bytes = CSP) -> None:
        self._make, self._content_type, self._csp = make, content_type, csp
        self._plain = self._small = self._etag = b""

    async def __call__(self, request: Request) -> Response:
        if not self._etag:
            await asyncio.to_thread(self._prepare)
        headers = [(b"etag", self._etag), (b"cache-control", b"no-cache"), (b"vary", b"accept-encoding")]
        if self._etag in request.headers.get(b"if-none-match", b""):
            return Response(304, headers=headers)
        headers.append((b"content-security-policy", self._csp))
        if accepts_gzip(request.headers.get(b"accept-encoding", b"")):
            return Response(200, self._small, self._content_type, [*headers, (b"content-encoding", b"gzip")])
        return Response(200, self._plain, self._content_type, headers)

    def _prepare(self) -> None:
        """A tenth of a second for the largest page, so not in the event loop. Twice at the same time does no harm."""
        self._plain = self._make()
        self._small = gzip.compress(self._plain, compresslevel=6, mtime=0)
        self._etag = b'"' + hashlib.sha256(self._plain).hexdigest()[:32].encode() + b'"'


def accepts_gzip(header: bytes) -> bool:
    return re.search(rb"(^|[,\s])gzip\s*(?!;\s*q=0(\.0*)?\s*(,|$))(;|,|$)", header.lower()) is not None


def documentation() -> dict[str, Page]:
    """Pages by path. Raises OSError when the files of Swagger UI are not installed."""
    files = Path(swagger_ui_path)
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        if not (files / name).is_file():
            raise FileNotFoundError(f"Swagger UI lacks {name} in {files}")
    return {
        "/": Page(LANDING.encode, HTML),
        "/docs": Page(DOCS.encode, HTML),
        "/docs/start.js": Page(START.encode, b"text/javascript; charset=utf-8"),
        "/docs/swagger-ui.css": Page((files / "swagger-ui.css").read_bytes, b"text/css; charset=utf-8"),
        "/docs/swagger-ui-bundle.js": Page((files / "swagger-ui-bundle.js").read_bytes, b"text/javascript; charset=utf-8"),
    }


def json_page(document: Callable[[], dict[str, object]]) -> Page:
    """The document is made when it is first asked for: it costs more than the rest of starting."""
    return Page(lambda: orjson.dumps(document()), b"application/json", b"default-src 'none'")
