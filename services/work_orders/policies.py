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
FOLLOWUP_FIRST = Policy(
    "followup.first", "text", "EARLY_SHIFT_CLERK", "REP-25 FUP-02 FUP-04", says="to whom follow-ups fall first; the others after him",
    choices=("EARLY_SHIFT_CLERK", "BUILDING_BUTLER", "CUSTOMER_ASSISTANT"),
)  # fmt: skip
FOLLOWUP_ATTEMPT_GAP = Policy(
    "followup.attempt_gap", "seconds", 3600, "FUP-27", least=0, most=86_400, says="attempts closer together count as one"
)
FOLLOWUP_APPOINTMENT_DAYS = Policy(
    "followup.appointment_days", "count", 7, "FUP-22", least=1, most=30, says="how far ahead a household is given an appointment"
)
FOLLOWUP_SOLUTION = Policy(
    "followup.solution", "seconds", 72 * 3600, "FUP-23", least=3600, most=30 * 86_400, says="put right when no other time was agreed"
)
FOLLOWUP_SOLUTION_DAYS = Policy(
    "followup.solution_days", "count", 30, "FUP-23", least=1, most=90, says="how far ahead a solution may be promised"
)
FOLLOWUP_PLAN_DAYS = Policy(
    "followup.plan_days", "count", 90, "FUP-21", least=1, most=366, says="reports of these days make a problem frequent"
)

SPOTCHECK_SUPERVISOR = Policy(
    "spotcheck.rate.supervisor", "ratio", 0.10, "FUP-15 FUP-18", least=0.01, most=1.0, says="of a month's valid follow-ups, tier 1"
)
SPOTCHECK_MANAGER = Policy(
    "spotcheck.rate.manager", "ratio", 0.05, "FUP-16 FUP-18", least=0.01, most=1.0, says="of a month's valid follow-ups, tier 2"
)
SPOTCHECK_QUALITY = Policy(
    "spotcheck.rate.quality", "ratio", 0.03, "FUP-17 FUP-18", least=0.01, most=1.0, says="of a month's valid follow-ups, tier 3"
)
SPOTCHECK_LEAST = Policy("spotcheck.least", "count", 1, "FUP-18", least=1, most=100, says="a tier checks where there was any follow-up")
SPOTCHECK_SECOND = Policy(
    "spotcheck.second_tier", "text", "PROJECT_MANAGER", "FUP-16 X-48", says="who makes the second tier of the spot check",
    choices=("PROJECT_MANAGER", "ENGINEERING_MANAGER"),
)  # fmt: skip
SPOTCHECK_DUE_DAY = Policy("spotcheck.due_day", "count", 15, "FUP-18", least=2, most=28, says="day of the month by whose end they are done")

URGE_INTERVAL = Policy("repair.urge_interval", "seconds", 600, "REP-10", least=0, most=86_400, says="between two urgings of one order")

RECURRENCE_DAYS = Policy(
    "repair.recurrence_days", "count", 30, "REP-30 REP-34", least=1, most=365, says="a fault that comes back within is free"
)
RECURRENCE_HINT = Policy("repair.recurrence_hint", "count", 3, "REP-30", least=1, most=100, says="that many in a building: a hint is given")

CHECK_AT = Policy("repair.check_at", "text", "17:00", "REP-26", says="by when the early shift has checked the day's repairs")
