"""`python -m gateway`: serves until SIGTERM or SIGINT, then drains: not ready, no new connections, what is in flight ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from gateway import logs, protocol
from gateway import settings as gateway_settings
from gateway.app import Gateway
from gateway.application import Application
from gateway.descriptors import Contract
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from services.chassis.settings import Settings, settings

log = logging.getLogger("gateway")

KEEP_ALIVE = 75  # seconds; longer than load balancers keep idle connections, so that they close first


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which end the process by the signal instead of with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Application, own: GatewaySettings) -> Server:
    config = uvicorn.Config(
        app,
        http=protocol.bounded(own.header_timeout),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(own.drain_timeout)),
        backlog=1024,
    )
    return Server(config)


def listener(host: str, port: int) -> socket.socket:
    """A listening port; 0 lets the system choose. Raises OSError when it is taken.

    The protocol is named because asyncio sets TCP_NODELAY only where it is: without that every answer takes 40 ms.
    """
    place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind((host, port))
    return place


async def serve(config: Settings, own: GatewaySettings) -> None:
    contract = Contract.load(own.descriptors)
    if lacking := config.lacking("gateway"):
        raise ValueError(f"{', '.join(lacking)} must be set (docs/settings.md)")
    upstream = Upstream(config.addresses)
    gateway = Gateway(config, own, contract, upstream)
    outside, inside = listener(config.bind, own.port), listener(config.bind, config.http_port)
    front, back = server(gateway.outside, own), server(gateway.inside, own)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    running = [asyncio.create_task(front.serve([outside])), asyncio.create_task(back.serve([inside]))]
    log.info("gateway on http://%s:%d, metrics on port %d", *outside.getsockname()[:2], inside.getsockname()[1])
    waiting = asyncio.create_task(ended.wait())
    await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    gateway.draining = True
    await asyncio.sleep(own.drain_delay if ended.is_set() else 0)
    log.info("draining")
    front.should_exit = True
    await running[0]
    back.should_exit = True
    await running[1]
    await upstream.close()
    log.info("ended")


def main() -> int:
    logs.to_stderr("text")
    try:
        config = settings()
        logs.to_stderr(config.log_format)
        asyncio.run(serve(config, gateway_settings.from_environment()))
    except (ValueError, OSError) as error:
        log.error("cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
