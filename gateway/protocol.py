"""uvicorn's HTTP/1.1 protocol with limits on the head of a request, which it does not have itself: a client that sends
endless headers would fill the memory, one that sends none would keep a connection for ever."""

from __future__ import annotations

from asyncio import Transport
from asyncio.events import TimerHandle

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024  # bytes of request line and headers


def bounded(header_timeout: float) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn's Config; a head has to arrive within `header_timeout` seconds."""

    class Bounded(HttpToolsProtocol):
        _head = 0  # bytes of the present head so far; -1 when no head is awaited
        _timer: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(header_timeout, self._too_late)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._head = 0
            if self._timer is None:
                self._timer = self.loop.call_later(header_timeout, self._too_late)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head = -1
            self._stop_timer()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._head >= 0:
                self._head += len(data)
                if self._head > MAX_HEAD and not self.transport.is_closing():
                    self._refuse(b"431 Request Header Fields Too Large")

        def _too_late(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self._refuse(b"408 Request Timeout")

        def _refuse(self, status: bytes) -> None:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Bounded
