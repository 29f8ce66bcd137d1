"""Every number that the tests' own service uses: its clocks', and one of each kind."""

from services.chassis.policies import Policy
from services.probe.probes import SHORT, WORK

STRICT = Policy(
    "probe.strict", "count", 3, "X-34", least=1, most=9, says="for few to change", changed_by=("BRANCH_LEADER", "GENERAL_MANAGER")
)
RATE = Policy("probe.rate", "ratio", 0.9, "X-34", says="share of probes")
QUIET = Policy("probe.quiet", "text", "09:00-20:00", "X-34", says="hours of calls")
CUTOFF = Policy("probe.cutoff", "text", "17:00", "X-34", says="end of the day's work")
SIGNATURE = Policy("probe.signature", "text", "管家", "X-34", says="below letters")

__all__ = ["CUTOFF", "QUIET", "RATE", "SHORT", "SIGNATURE", "STRICT", "WORK"]
