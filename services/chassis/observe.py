"""What every process shows of itself: `/metrics`, `/healthz`, `/readyz` on a port of its own, and structured logs.

Labels are bounded: service, operation, event type, clock — never an id. Counters move after commit.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # a second series per counter, which nobody reads

RPC_SECONDS = Histogram(
    "steward_rpc_seconds",
    "Time an operation took in its service.",
    ["service", "rpc", "code"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
RPC_IN_FLIGHT = Gauge("steward_rpc_in_flight", "Operations being worked on.", ["service"])
CLOCKS_FIRED = Counter(
    "steward_clock_marks_total",
    "Marks of clocks that fired; each clock that is missed fires ClockBreached once.",
    ["service", "process", "clock", "mark", "urgent"],
)
CLOCKS_STARTED = Counter("steward_clocks_started_total", "Clocks started.", ["service", "process", "clock"])
CLOCKS_STOPPED = Counter(
    "steward_clocks_stopped_total", "Clocks stopped, by whether their target was met.", ["service", "process", "clock", "result"]
)
CASES_MOVED = Counter("steward_case_moves_total", "Moves of cases through their lifecycles.", ["service", "process", "action"])

Readiness = Callable[[], str]
"""Says why the process is not ready; an empty text means it is."""


def serve(port: int, bind: str, ready: Readiness) -> ThreadingHTTPServer:
    """Starts the process's own HTTP port in the background."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                self._answer(200, b"alive\n")
            elif self.path == "/readyz":
                try:
                    why = ready()
                except Exception as error:
                    why = f"{type(error).__name__}: {error}"
                self._answer(503 if why else 200, f"{why or 'ready'}\n".encode())
            else:
                self._answer(404, b"there are /metrics, /healthz and /readyz\n")

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((bind, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(form: str) -> None:
    """`form` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s")
    handler.setFormatter(_Json() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
