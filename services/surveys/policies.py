"""Every number of the rule book that surveys uses."""

from services.chassis.policies import Policy

SATISFIED_FROM = Policy(
    "satisfaction.satisfied_from", "count", 4, "REP-29", least=2, most=5, says="the lowest grade, of 1 to 5, that counts as satisfied"
)
