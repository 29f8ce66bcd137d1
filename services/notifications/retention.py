"""How long an inbox remembers. What was told is in the log of the case too."""

from services.chassis.retention import DAY, keep

keep(
    "messages", since="occurred_at", hours=365 * DAY, clock="business", service="notifications",
    why="read or not: what is a year old moves nobody any more",
)  # fmt: skip
