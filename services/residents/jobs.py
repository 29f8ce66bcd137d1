"""Long-running operations of residents, for the role `jobs`."""

from __future__ import annotations

from services.chassis.jobs import Job, job
from services.residents import importing


@job("residents", importing.KIND)
def import_register(work: Job) -> None:
    importing.run(work)
