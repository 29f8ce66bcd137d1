"""What the role `jobs` does for residents: imports, and one-time codes on their way to the SMS company."""

from __future__ import annotations

from services.chassis.db import Database
from services.chassis.jobs import Job, beside, job
from services.chassis.settings import settings
from services.residents import codes, importing
from services.residents.sms import Company


@job("residents", importing.KIND)
def import_register(work: Job) -> None:
    importing.run(work)


@beside("residents", threads=4)
def send_codes(database: Database) -> bool:
    """Four at a time, so that one the company keeps waiting for does not hold up the next."""
    return bool(settings().sms_url) and codes.send_next(database, Company.of(settings()))
