"""The import of a register file as a long-running operation: it reads, judges and takes, and goes on where it was killed.

The file is judged from its first row each time, which is pure and quick; rows before the last checkpoint are judged and
passed over, because what they were decides about later ones. Each batch writes its records, its refusals, its events and
the checkpoint in one transaction, so that no row is taken twice and none is left out. When it has ended, the file itself is
forgotten: it is full of personal data and nobody needs it any more.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from services.chassis.db import Database, Transaction
from services.chassis.errors import InvalidInput, Unavailable
from services.chassis.jobs import Job, enqueue
from services.chassis.lifecycle import Act
from services.residents.missing import NOT_IN_FILE, PART_OF_REGISTER, Missing
from services.residents.records import REGISTER
from services.residents.refusals import RefusalsWorkbook
from services.residents.register import EndOfSheet, Judged, judged
from services.residents.register_file import OWNERS, NotARegister, RegisterFile, check
from services.residents.register_judge import Judge
from services.residents.register_rows import Refusal, Taken
from services.residents.taking import Taking
from services.residents.vault import vault

log = logging.getLogger(__name__)

KIND = "import"
FILE, REPORT = "register file", "refusals report"  # the vault's purposes
BATCH = 500  # rows of one transaction
AT_ONCE = 2_000  # refusals and remarks written by one statement
HOME_ZONE = ZoneInfo("Asia/Shanghai")  # "today" of a file that covers several estates
ATTEMPTS = 3
PATIENCE = "60s"  # for a statement or a lock: nobody waits for a batch as somebody waits for an answer


def start(tx: Transaction, filename: str, content: bytes, groups: frozenset[UUID] | None) -> UUID:
    """Queues an import with the commit. `groups`: those it may write; None, all. Raises InvalidInput(NOT_A_REGISTER)."""
    try:
        check(content)
    except NotARegister as error:
        raise InvalidInput(str(error), reason="NOT_A_REGISTER") from error
    request = {
        "filename": filename,
        "today": tx.now.astimezone(HOME_ZONE).date().isoformat(),  # the same at every attempt
        "groups": None if groups is None else sorted(str(group) for group in groups),
    }
    identifier = enqueue(tx, KIND, request, vault().seal(content, FILE))
    tx.execute(
        "INSERT INTO imports (id, group_id, filename, created_at) VALUES (%s, %s, %s, %s)",
        (identifier, min(groups) if groups else None, filename, tx.now),
    )
    return identifier


def run(job: Job) -> None:
    """Carries an import out. Raises InvalidInput when the file turns out not to be readable, jobs.Lost when the lease is gone."""
    if job.progress.get("finished"):
        return
    try:
        file = RegisterFile(vault().open(job.input, FILE))
        _Import(job, file).run()
    except NotARegister as error:
        raise InvalidInput(str(error), reason="NOT_A_REGISTER") from error


class _Import:
    def __init__(self, job: Job, file: RegisterFile):
        self.job = job
        self.file = file
        groups = None if job.request["groups"] is None else frozenset(UUID(group) for group in job.request["groups"])
        today = date.fromisoformat(job.request["today"])
        self.known = DatabaseKnown(job.database, groups)
        self.judge = Judge(self.known, today)
        self.missing = Missing(file.sheets, today, groups)
        self.report = RefusalsWorkbook()
        job.progress.setdefault("next", 0)
        job.progress.setdefault("refusals", 0)
        job.progress.setdefault("total", file.row_count())
        job.progress.setdefault("sheets", [])

    def run(self) -> None:
        try:
            self._read()
        except BaseException:
            self.report.discard()
            raise
        finally:
            self.file.close()
        self._finish()

    def _read(self) -> None:
        batch: list[Judged] = []
        kinds = {sheet.title: sheet.kind for sheet in self.file.sheets}
        for found in judged(self.file, self.judge):
            if isinstance(found, EndOfSheet):
                self._take(batch, found)
                batch = []
                continue
            if isinstance(found.verdict, Taken):
                self.missing.took(kinds[found.sheet], found.verdict.row)
            else:
                self.missing.refused(kinds[found.sheet], found.cells)
                self.report.refuse(kinds[found.sheet], found.sheet, found.row, found.cells, found.verdict.refusals)
            batch.append(found)
            if len(batch) == BATCH:
                self._take(batch, None)
                batch = []

    def _take(self, batch: list[Judged], end: EndOfSheet | None) -> None:
        """One transaction: what is new of the batch and, when the sheet ends with it, what could not be said earlier."""
        done = self.job.progress["next"]
        batch = [found for found in batch if found.index >= done]
        if (end is not None and end.index < done) or (end is None and not batch):
            return
        for attempt in range(1, ATTEMPTS + 1):
            before = copy.deepcopy(self.job.progress)
            try:
                with self.job.step() as tx:
                    tx.execute(
                        "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)", (PATIENCE, PATIENCE)
                    )
                    tx.execute("SELECT pg_advisory_xact_lock(%s)", (REGISTER,))
                    self._write(tx, batch, end)
                    # It got further: only deaths at one and the same batch count against the import.
                    tx.execute("UPDATE operations SET attempts = 0 WHERE id = %s", (self.job.id,))
                return
            except BaseException as error:
                self.job.progress = before
                if not isinstance(error, Unavailable) or error.reason not in ("TRANSACTION_RETRY", "LOCKED") or attempt == ATTEMPTS:
                    raise
                log.info("import %s: %s; the batch is tried again", self.job.id, error.message)

    def _write(self, tx: Transaction, batch: list[Judged], end: EndOfSheet | None) -> None:
        progress = self.job.progress
        taking = Taking(tx, Act(tx.principal, tx.now), self.judge.people_of)
        counts = self._counts(end.sheet if end else batch[0].sheet)
        for outcome in taking.take([found.verdict.row for found in batch if isinstance(found.verdict, Taken)]):
            counts[outcome] += 1
        taking.finish(f"imports/{self.job.id}")
        remarks: list[tuple[Refusal, bool]] = []
        for found in batch:
            counts["rows"] += 1
            if isinstance(found.verdict, Taken):
                remarks += [(remark, True) for remark in found.verdict.remarks]
            else:
                counts["refused"] += 1
                remarks += [(refusal, False) for refusal in found.verdict.refusals]
        if end is not None and end.last and end.kind is OWNERS:
            remarks += [(remark, True) for remark in self._remarks_on_shares(tx)]
        if end is not None and end.last:
            missing = self.missing.of(end.kind, end.sheet, tx)
            counts["missing"] = sum(remark.reason == NOT_IN_FILE for remark in missing)
            remarks += [(remark, True) for remark in missing]
        progress["groups"] = sorted({*progress.get("groups", []), *(str(group) for group in taking.group_ids)})
        self._write_refusals(tx, remarks)
        progress["next"] = (end or batch[-1]).index + 1

    def _counts(self, sheet: str) -> dict[str, Any]:
        for counts in self.job.progress["sheets"]:
            if counts["sheet"] == sheet:
                return counts  # type: ignore[no-any-return]
        counts = {"sheet": sheet, "rows": 0, "created": 0, "changed": 0, "unchanged": 0, "refused": 0, "missing": 0}
        self.job.progress["sheets"].append(counts)
        return counts

    def _remarks_on_shares(self, tx: Transaction) -> list[Refusal]:
        """Judged by what the register holds by now: an earlier file or a transfer may have brought the other owners."""
        estates = tx.execute("SELECT id, code FROM estates WHERE code = ANY(%s)", (self.judge.estates_with_owners(),))
        totals: dict[tuple[str, str], Decimal] = {}
        for identifier, code in estates:
            of_units = tx.execute(
                "SELECT unit_id, sum(share) FROM memberships WHERE estate_id = %s AND kind = 'OWNER' AND ends_on IS NULL AND share IS NOT NULL"
                " GROUP BY unit_id",
                (identifier,),
            )
            numbers = dict(tx.execute("SELECT id, number FROM units WHERE estate_id = %s", (identifier,)))
            totals |= {(code, numbers[unit]): total for unit, total in of_units}
        return self.judge.remarks_on_shares(totals)

    def _write_refusals(self, tx: Transaction, remarks: list[tuple[Refusal, bool]]) -> None:
        if not remarks:
            return
        first = self.job.progress["refusals"]
        one = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, (SELECT group_id FROM imports WHERE id = %s))"
        for start in range(0, len(remarks), AT_ONCE):
            rows: list[Any] = []
            for position, (r, taken) in enumerate(remarks[start : start + AT_ONCE], start=first + start):
                rows += [self.job.id, position, r.sheet, r.row, r.column, r.value, r.reason, r.message, taken, self.job.id]
            tx.execute(
                'INSERT INTO import_refusals (import_id, position, sheet, row, "column", value, reason, message, taken, group_id) VALUES '
                + ", ".join([one] * (len(rows) // 10)),
                rows,
            )
        self.job.progress["refusals"] = first + len(remarks)

    def _finish(self) -> None:
        """The report is kept, the file is not; an import by Steward itself belongs to the group whose register it was."""
        with self.job.database.read() as tx:
            remarks = tx.execute(
                'SELECT sheet, row, "column", value, reason, message FROM import_refusals WHERE import_id = %s AND taken ORDER BY position',
                (self.job.id,),
            )
        of_file: list[Refusal] = []
        missing: list[Refusal] = []
        for remark in (Refusal(*columns) for columns in remarks):
            (missing if remark.reason in (NOT_IN_FILE, PART_OF_REGISTER) else of_file).append(remark)
        report = vault().seal(self.report.content(of_file, missing), REPORT)
        groups = self.job.progress.get("groups", [])
        self.job.progress["finished"] = True
        with self.job.step() as tx:
            tx.execute("UPDATE operations SET input = '' WHERE id = %s", (self.job.id,))
            tx.execute("UPDATE imports SET report = %s WHERE id = %s", (report, self.job.id))
            if len(groups) == 1:
                tx.execute("UPDATE imports SET group_id = %s WHERE id = %s AND group_id IS NULL", (groups[0], self.job.id))
                tx.execute("UPDATE import_refusals SET group_id = %s WHERE import_id = %s AND group_id IS NULL", (groups[0], self.job.id))


@dataclass(slots=True)
class _KnownEstate:
    id: UUID
    mine: bool


class DatabaseKnown:
    """What the database held when the import began (`register_judge.Known`). Units are loaded by estate, when first asked for."""

    def __init__(self, database: Database, groups: frozenset[UUID] | None):
        self._database = database
        self._units: dict[str, frozenset[str]] = {}
        with database.read() as tx:
            names = dict(tx.execute("SELECT id, name FROM groups"))
            self._all_groups = groups is None
            self._groups = frozenset(name for group, name in names.items() if groups is None or group in groups)
            self._companies = frozenset(
                name for group, name in tx.execute("SELECT group_id, name FROM companies") if groups is None or group in groups
            )
            self._estates = {
                code: _KnownEstate(identifier, groups is None or group in groups)
                for code, identifier, group in tx.execute("SELECT code, id, group_id FROM estates")
            }
            foreign = [] if groups is None else tx.execute("SELECT number FROM staff WHERE NOT group_id = ANY(%s)", (list(groups),))
            self._foreign_staff = frozenset(row[0] for row in foreign)

    def has_estate(self, code: str) -> bool:
        return code in self._estates and self._estates[code].mine

    def has_unit(self, estate: str, number: str) -> bool:
        if not self.has_estate(estate):
            return False
        if estate not in self._units:
            with self._database.read() as tx:
                rows = tx.execute("SELECT number FROM units WHERE estate_id = %s", (self._estates[estate].id,))
            self._units[estate] = frozenset(row[0] for row in rows)
        return number in self._units[estate]

    def groups(self) -> frozenset[str]:
        return self._groups

    def companies(self) -> frozenset[str]:
        return self._companies

    def may_write(self, group: str) -> bool:
        return self._all_groups or group in self._groups

    def is_foreign(self, estate: str = "", staff: str = "") -> bool:
        return (estate in self._estates and not self._estates[estate].mine) or staff in self._foreign_staff
