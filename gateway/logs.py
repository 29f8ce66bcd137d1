"""Logs on stderr: text for people, json for machines. Access lines carry route templates and trace ids, no paths, queries,
addresses, names or tokens: a path holds ids and a query may hold a telephone number."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import orjson

from gateway.web import Request, Response

AccessLog = Callable[[Request, Response, float], None]  # seconds


def to_stderr(form: str) -> None:
    """`form` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _stamp(record.created), "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def access_log(form: str) -> AccessLog:
    """Written without the logging package, which would cost as much as reading the request does."""
    write = sys.stderr.write

    def text(request: Request, response: Response, seconds: float) -> None:
        write(
            f"{_stamp(time.time())} access  {request.method} {request.route} {response.status} {seconds * 1000:.1f}ms {len(response.body)}B"
            f" trace={request.trace_id}{' reason=' + response.reason if response.reason else ''}\n"
        )

    def json(request: Request, response: Response, seconds: float) -> None:
        line = {
            "time": _stamp(time.time()),
            "level": "INFO",
            "logger": "gateway.access",
            "method": request.method,
            "route": request.route,
            "status": response.status,
            "ms": round(seconds * 1000, 1),
            "bytes": len(response.body),
            "trace": request.trace_id,
        }
        if response.reason:
            line["reason"] = response.reason
        write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())

    return json if form == "json" else text


def _stamp(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds * 1000) % 1000:03d}Z"
