"""Every number of the rule book that billing_reminders uses."""

from services.chassis.policies import Policy

NOTICE_DAY = Policy("billing.notice_day", "count", 1, "FEE-01", least=1, most=28, says="day of the month on which payment notices go out")
PAY_BY_DAY = Policy("billing.pay_by_day", "count", 15, "FEE-02", least=1, most=28, says="last day to pay a notice without being dunned")
