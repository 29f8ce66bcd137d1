"""Long-running operations: each step once, whatever dies in between, and an end for what cannot be done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

import services.probe.jobs  # noqa: F401 - registers the kinds
from services.chassis import jobs
from services.chassis.access import Principal
from services.chassis.db import Database
from services.chassis.errors import Unavailable
from tests.chassis.conftest import HERE
from tests.conftest import FOLDER, ROOT, Postgres

WHO = Principal("staff", "0192f0c4-7b1e-7c3a-8a1b-0123456789ab")


@pytest.fixture(autouse=True)
def no_other_operations(database: Database, postgres: Postgres) -> None:
    postgres.sql("probe", "DELETE FROM operations")


def enqueue(database: Database, kind: str, /, **request: Any) -> UUID:
    with database.transaction(WHO) as tx:
        return jobs.enqueue(tx, kind, request, b"\x00data")


def operation(database: Database, identifier: UUID) -> dict[str, Any]:
    names = "state, progress, error, attempts, holder, lease_until, created_by, ended_at"
    with database.read() as tx:
        row = tx.execute(f"SELECT {names} FROM operations WHERE id = %s", (identifier,))[0]
    return dict(zip(names.split(", "), row, strict=True))


def counted(database: Database, identifier: UUID) -> int:
    with database.read() as tx:
        rows = tx.execute("SELECT last FROM numbers WHERE estate_id = %s", (identifier,))
    return rows[0][0] if rows else 0


def end_lease(database: Database) -> None:
    """Time passes, and the holder has not renewed."""
    with database.transaction() as tx:
        tx.execute("UPDATE operations SET lease_until = now() - interval '1 second' WHERE state = 'RUNNING'")


def test_an_operation_is_carried_out_in_steps_and_ends(database: Database) -> None:
    identifier = enqueue(database, "count", to=4)
    assert operation(database, identifier)["state"] == "QUEUED"
    assert jobs.work_once(database, "me") is True
    done = operation(database, identifier)
    assert (done["state"], done["progress"], done["attempts"], done["created_by"], done["lease_until"]) == (
        "SUCCEEDED",
        {"done": 4},
        1,
        str(WHO),
        None,
    )
    assert done["ended_at"]
    assert counted(database, identifier) == 4
    assert jobs.work_once(database, "me") is False, "there is nothing left"


def test_an_operation_begins_with_the_commit_that_asked_for_it(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction(WHO) as tx:
        jobs.enqueue(tx, "count", {"to": 1})
        raise ZeroDivisionError
    assert jobs.work_once(database, "me") is False


@pytest.mark.parametrize("death", ["die_in", "die_after"])
def test_an_operation_whose_process_is_killed_goes_on_from_its_last_checkpoint(database: Database, death: str) -> None:
    """kill -9 in the middle of the third step, or between the third and the fourth."""
    identifier = enqueue(database, "count", to=6, **{death: 3})
    program = (
        f"import services; services.__path__.append({str(HERE / 'services')!r})\n"
        "import services.probe.jobs\n"
        "from services.chassis import jobs; from services.chassis.db import Database\n"
        "jobs.work_once(Database('probe'), 'the one that dies')"
    )
    path = f"{ROOT}:{ROOT / 'gen'}:{FOLDER / 'gen'}"
    died = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=30, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert operation(database, identifier)["progress"] == {"done": 2 if death == "die_in" else 3}
    assert jobs.work_once(database, "another") is False, "its lease still runs"
    end_lease(database)
    with database.transaction() as tx:
        tx.execute("UPDATE operations SET request = '{\"to\": 6}'")
    assert jobs.work_once(database, "another") is True
    ended = operation(database, identifier)
    assert (ended["state"], ended["progress"], ended["attempts"]) == ("SUCCEEDED", {"done": 6}, 2)
    assert counted(database, identifier) == 6, "each step had its effect once"


def test_who_has_lost_the_lease_stops_and_leaves_no_trace_of_the_step(database: Database) -> None:
    identifier = enqueue(database, "count", to=3)
    slow = jobs.claim(database, "slow")
    assert slow
    with slow.step() as tx:
        tx.execute("SELECT 1")
        slow.progress["done"] = 0
    end_lease(database)
    assert jobs.work_once(database, "quick") is True
    with pytest.raises(jobs.Lost), slow.step() as tx:
        tx.execute("UPDATE numbers SET last = 99 WHERE estate_id = %s", (identifier,))
    jobs.end(slow, "FAILED", "too late")
    assert (operation(database, identifier)["state"], counted(database, identifier)) == ("SUCCEEDED", 3)


def test_a_step_renews_the_lease_and_a_long_step_is_renewed_meanwhile(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LEASE", 0.6)
    identifier = enqueue(database, "count", to=1)
    stop = threading.Event()
    monkeypatch.setitem(jobs._KINDS, ("probe", "count"), lambda work: stop.wait(1.5) and None)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(jobs.work_once, database, "slow")
        time.sleep(1.2)  # twice the lease
        assert jobs.claim(database, "greedy") is None
        stop.set()
        assert working.result() is True
    assert operation(database, identifier)["state"] == "SUCCEEDED"


def test_an_operation_that_refuses_its_input_fails_at_once_and_says_why(database: Database) -> None:
    identifier = enqueue(database, "fail", kind="refuse")
    jobs.work_once(database, "me")
    assert (operation(database, identifier)["state"], operation(database, identifier)["error"]) == ("FAILED", "the file is no register")
    end_lease(database)
    assert jobs.work_once(database, "me") is False


@pytest.mark.parametrize("kind", ["wait", "mistake"])
def test_an_operation_that_cannot_be_done_now_is_tried_again_and_given_up_in_the_end(database: Database, kind: str) -> None:
    identifier = enqueue(database, "fail", kind=kind)
    for attempt in range(1, jobs.ATTEMPTS + 1):
        assert jobs.work_once(database, "me") is True
        now = operation(database, identifier)
        assert (now["state"], now["attempts"]) == ("RUNNING", attempt)
        assert jobs.work_once(database, "me") is False, "not before its lease has ended"
        end_lease(database)
    jobs.work_once(database, "me")
    ended = operation(database, identifier)
    assert (ended["state"], ended["error"]) == ("FAILED", "given up after 5 attempts")
    end_lease(database)
    assert jobs.work_once(database, "me") is False


def test_several_workers_share_the_operations_and_none_is_done_twice(database: Database) -> None:
    identifiers = [enqueue(database, "count", to=2) for _ in range(12)]

    def work(name: int) -> int:
        done = 0
        while jobs.work_once(database, f"worker {name}"):
            done += 1
        return done

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) == 12
    assert [counted(database, identifier) for identifier in identifiers] == [2] * 12
    assert {operation(database, identifier)["attempts"] for identifier in identifiers} == {1}


def test_the_oldest_comes_first_and_what_nobody_knows_is_left_to_those_who_do(database: Database) -> None:
    unknown = enqueue(database, "of another release")
    first, second = enqueue(database, "count", to=1), enqueue(database, "count", to=1)
    found = jobs.claim(database, "me")
    assert found
    assert (found.id, found.input, found.created_by) == (first, b"\x00data", str(WHO))
    assert jobs.claim(database, "me").id == second  # type: ignore[union-attr]
    assert jobs.claim(database, "me") is None
    assert operation(database, unknown)["state"] == "QUEUED"


def test_what_is_done_beside_the_operations_does_not_wait_for_them_and_survives_its_own_mistakes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_BESIDE", [])
    asked: list[str] = []
    done, stop = threading.Event(), threading.Event()

    @jobs.beside("probe")
    def short_work(of: Database) -> bool:
        asked.append(of.service)
        if len(asked) == 1:
            raise RuntimeError("a mistake of ours")
        if len(asked) == 2:
            raise Unavailable("the database does not answer")
        if len(asked) < 6:
            return True
        done.set()
        return False

    busy = threading.Event()
    threads = [
        threading.Thread(target=jobs._loop, args=("probe", lambda: busy.wait(20), 0.01, stop)),
        threading.Thread(target=jobs._loop, args=("probe", lambda: short_work(database), 0.01, stop)),
    ]
    for thread in threads:
        thread.start()
    assert done.wait(10), "an operation that takes long holds nothing up"
    stop.set()
    busy.set()
    for thread in threads:
        thread.join(10)
    assert set(asked) == {"probe"}
    ((service, count, once),) = jobs._BESIDE
    assert (service, count, once) == ("probe", 1, short_work)
