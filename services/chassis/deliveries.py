"""Messages as a worker holds them, what becomes of each, and how the broker is told. Knows neither eventlet nor nameko."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ATTEMPT = "x-steward-attempt"  # header: how often a message has failed


class Verdict(enum.Enum):
    """What becomes of a delivery."""

    DONE = "done"  # acknowledged: its effects, or a copy of it, are safe elsewhere
    BACK = "back"  # returned to its queue; that counts against the delivery limit
    APART = "apart"  # handled again, by itself


class Line:
    """A channel that a queue's messages come by, and which of them are not answered yet."""

    def __init__(self, channel: Any):
        self.channel = channel
        self._open: dict[int, None] = {}  # delivery tags, in their order

    def took(self, tag: int) -> None:
        self._open[tag] = None

    def answer(self, verdicts: Mapping[int, Verdict]) -> None:
        """Rejects and acknowledges; all that comes before the first open message in one frame. Raises OSError, AMQPError."""
        for tag, verdict in verdicts.items():
            del self._open[tag]
            if verdict is Verdict.BACK:
                self.channel.basic_reject(tag, requeue=True)
        first = next(iter(self._open), None)
        done = sorted(tag for tag, verdict in verdicts.items() if verdict is Verdict.DONE)
        at_once = [tag for tag in done if first is None or tag < first]
        if at_once:
            self.channel.basic_ack(at_once[-1], multiple=True)
        for tag in done[len(at_once) :]:
            self.channel.basic_ack(tag)


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message as the broker brought it."""

    line: Line
    tag: int
    queue: str
    body: bytes
    routing_key: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    message_id: str = ""

    @property
    def attempts(self) -> int:
        """How often it has failed before."""
        attempts = self.headers.get(ATTEMPT, 0)
        return attempts if isinstance(attempts, int) else 0

    @property
    def first_time(self) -> bool:
        """Neither has it failed, nor has a worker died on it or been cut off."""
        return not self.headers.get(ATTEMPT) and not self.headers.get("x-delivery-count")
