"""How long residents keeps what it does not keep for good; the register, its corrections and its audits are."""

from services.chassis.retention import DAY, keep

SERVICE = "residents"

keep(
    "sessions", since="least(expires_at, ended_at)", hours=DAY, service=SERVICE, why="signed out or expired; its refresh tokens go with it"
)
keep("sign_in_codes", since="created_at", hours=1, service=SERVICE, why="good for five minutes, counted for ten")
keep("code_messages", since="created_at", hours=1, service=SERVICE, why="the SMS that carried a code")
keep("failed_sign_ins", since="at", hours=1, service=SERVICE, why="counted for a quarter of an hour")
keep(
    "imports", since="(SELECT o.ended_at FROM operations o WHERE o.id = imports.id)", hours=180 * DAY, service=SERVICE,
    why="what an import refused is full of personal data and of use only until it is corrected; refusals and report go with it",
)  # fmt: skip
keep(
    "shifts", since="ends_at", hours=2 * 365 * DAY, clock="business", service=SERVICE,
    why="who worked when: records of wages and working time are kept for two years",
)  # fmt: skip
keep("leaves", since="ends_at", hours=2 * 365 * DAY, clock="business", service=SERVICE, why="as for shifts")
