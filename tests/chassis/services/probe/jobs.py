"""A long-running operation of the tests: counts in steps, and dies where its request says."""

from __future__ import annotations

import os
import signal

from services.chassis.errors import Conflict, Unavailable
from services.chassis.jobs import Job, job


@job("probe", "count")
def count(work: Job) -> None:
    """`to` steps; each adds one to the row of numbers named by the operation, and writes down how far it is."""
    for step in range(work.progress.get("done", 0) + 1, work.request["to"] + 1):
        with work.step() as tx:
            tx.execute(
                "INSERT INTO numbers (estate_id, kind, day, last) VALUES (%s, 'count', '', 1)"
                " ON CONFLICT (estate_id, kind, day) DO UPDATE SET last = numbers.last + 1",
                (work.id,),
            )
            work.progress["done"] = step
            if step == work.request.get("die_in"):
                os.kill(os.getpid(), signal.SIGKILL)
        if step == work.request.get("die_after"):
            os.kill(os.getpid(), signal.SIGKILL)


@job("probe", "fail")
def fail(work: Job) -> None:
    kind = work.request["kind"]
    if kind == "refuse":
        raise Conflict("the file is no register")
    if kind == "wait":
        raise Unavailable("somebody does not answer")
    raise RuntimeError("a mistake of ours")
