"""Every number of the rule book that work_orders uses."""

from services.chassis.policies import Policy

PICKUP_URGENT = Policy("repair.pickup.urgent", "seconds", 15 * 60, "REP-10 REP-38", least=1, most=15 * 60, says="an urgent order is collected")
PICKUP = Policy("repair.pickup", "seconds", 2 * 3600, "REP-10", least=1, most=86_400, says="an ordinary order is collected, working hours")
ON_SITE_URGENT = Policy(
    "repair.on_site.urgent", "seconds", 30 * 60, "REP-38", least=1, most=30 * 60, says="on site after an urgent report, day and night",
    law="普通住宅小区物业管理服务等级标准 2004, grade 1",
)  # fmt: skip
ON_SITE = Policy("repair.on_site", "seconds", 24 * 3600, "REP-38", least=1, most=72 * 3600, says="on site when no appointment was made")
RESOLVE_URGENT = Policy("repair.resolve.urgent", "seconds", 4 * 3600, "X-34", least=1, most=86_400, says="an urgent case is accepted by the household")
RESOLVE = Policy("repair.resolve", "seconds", 72 * 3600, "X-34", least=1, most=30 * 86_400, says="an ordinary case is accepted, working hours")
