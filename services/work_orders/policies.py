"""Every number of the rule book that work_orders uses."""

from services.chassis.policies import Policy

PICKUP_URGENT = Policy(
    "repair.pickup.urgent", "seconds", 15 * 60, "REP-10 REP-38", least=1, most=15 * 60, says="an urgent order is collected"
)
PICKUP = Policy("repair.pickup", "seconds", 2 * 3600, "REP-10", least=1, most=86_400, says="an ordinary order is collected, working hours")
ON_SITE_URGENT = Policy(
    "repair.on_site.urgent", "seconds", 30 * 60, "REP-38", least=1, most=30 * 60, says="on site after an urgent report, day and night",
    law="普通住宅小区物业管理服务等级标准 2004, grade 1",
)  # fmt: skip
ON_SITE = Policy("repair.on_site", "seconds", 24 * 3600, "REP-38", least=1, most=72 * 3600, says="on site when no appointment was made")
RESOLVE_URGENT = Policy(
    "repair.resolve.urgent", "seconds", 4 * 3600, "X-34", least=1, most=86_400, says="an urgent case is accepted by the household"
)
RESOLVE = Policy(
    "repair.resolve", "seconds", 72 * 3600, "X-34", least=1, most=30 * 86_400, says="an ordinary case is accepted, working hours"
)

FOLLOWUP_RATE_REPAIR = Policy("followup.rate.repair", "ratio", 0.90, "FUP-09", least=0.0, most=1.0, says="classes A, B and C, inclusive")
FOLLOWUP_RATE_SPECIAL = Policy(
    "followup.rate.special", "ratio", 1.00, "FUP-07", least=0.0, most=1.0, says="home repair and other special services"
)
FOLLOWUP_ATTEMPTS = Policy(
    "followup.attempts", "count", 3, "FUP-27", least=1, most=20, says="attempts before a household counts as unreached"
)
FOLLOWUP_ATTEMPT_DAYS = Policy("followup.attempt_days", "count", 2, "FUP-27", least=1, most=20, says="different days these attempts lie on")
FOLLOWUP_MAX_ROUNDS = Policy(
    "followup.max_rounds", "count", 2, "FUP-12", least=1, most=10, says="dissatisfied rounds before the supervisor is told"
)
FOLLOWUP_HOURS = Policy("followup.hours", "text", "09:00-20:00", "FUP-26", says="when households are telephoned and visited")
FOLLOWUP_CUTOFF = Policy("followup.cutoff", "text", "17:00", "REP-25", says="orders returned later are followed up on the next duty day")

URGE_INTERVAL = Policy("repair.urge_interval", "seconds", 600, "REP-10", least=0, most=86_400, says="between two urgings of one order")

RECURRENCE_DAYS = Policy(
    "repair.recurrence_days", "count", 30, "REP-30 REP-34", least=1, most=365, says="a fault that comes back within is free"
)
RECURRENCE_HINT = Policy("repair.recurrence_hint", "count", 3, "REP-30", least=1, most=100, says="that many in a building: a hint is given")

CHECK_AT = Policy("repair.check_at", "text", "17:00", "REP-26", says="by when the early shift has checked the day's repairs")
