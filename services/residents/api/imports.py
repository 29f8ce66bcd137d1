"""Register imports: started here, carried out by the role `jobs`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from services.chassis.db import Transaction
from services.chassis.errors import Conflict, NotFound
from services.chassis.names import last, page_position, page_token, stamp
from services.residents import importing
from services.residents.vault import vault
from steward.residents.v1 import imports_pb2 as pb

PAGE, REFUSALS_PAGE = 20, 100
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_IMPORT = (
    "SELECT i.id, i.filename, o.state, o.progress, o.error, o.created_by, i.created_at, o.ended_at"
    " FROM imports i JOIN operations o ON o.id = i.id"
)


def start_import(request: pb.StartImportRequest, tx: Transaction) -> pb.Import:
    groups = None if tx.scope.everything else tx.scope.groups
    return _import(tx, importing.start(tx, request.filename, request.content, groups))


def get_import(request: pb.GetImportRequest, tx: Transaction) -> pb.Import:
    return _import(tx, _id(request.name))


def list_imports(request: pb.ListImportsRequest, tx: Transaction) -> pb.ListImportsResponse:
    size = request.page_size or PAGE
    before = page_position(request)
    rows = tx.execute(
        f"{_IMPORT} WHERE {_inside(tx)} AND (%s::uuid IS NULL OR i.id < %s::uuid) ORDER BY i.id DESC LIMIT %s",
        (*_groups(tx), *([before[0]] * 2 if before else [None, None]), size + 1),
    )
    reply = pb.ListImportsResponse(imports=[_message(row) for row in rows[:size]])
    if len(rows) > size:
        reply.next_page_token = page_token(request, rows[size - 1][0])
    return reply


def list_refusals(request: pb.ListRefusalsRequest, tx: Transaction) -> pb.ListRefusalsResponse:
    identifier = _id(request.parent)
    _row(tx, identifier)
    size = request.page_size or REFUSALS_PAGE
    after = page_position(request)
    rows = tx.execute(
        'SELECT position, sheet, row, "column", value, reason, message FROM import_refusals'
        " WHERE import_id = %s AND NOT taken AND position > %s ORDER BY position LIMIT %s",
        (identifier, int(after[0]) if after else -1, size + 1),
    )
    reply = pb.ListRefusalsResponse()
    for _, sheet, row, column, value, reason, message in rows[:size]:
        reply.refusals.add(sheet=sheet, row=row, column=column, value=value, reason=reason, message=message)
    if len(rows) > size:
        reply.next_page_token = page_token(request, rows[size - 1][0])
    return reply


def download_refusals(request: pb.DownloadRefusalsRequest, tx: Transaction) -> HttpBody:
    """Raises Conflict(IMPORT_NOT_ENDED): the report is written when the last row has been read."""
    identifier = _id(request.name.removesuffix("/refusals"))
    _row(tx, identifier)
    sealed = tx.execute("SELECT report FROM imports WHERE id = %s", (identifier,))[0][0]
    if sealed is None:
        raise Conflict("the import has not ended; the report is there when it has", reason="IMPORT_NOT_ENDED")
    return HttpBody(content_type=XLSX, data=vault().open(bytes(sealed), importing.REPORT))


def _inside(tx: Transaction) -> str:
    return "true" if tx.scope.everything else "i.group_id = ANY(%s)"


def _groups(tx: Transaction) -> list[list[UUID]]:
    return [] if tx.scope.everything else [list(tx.scope.groups)]


def _id(name: str) -> UUID:
    try:
        return UUID(last(name))
    except ValueError:
        raise NotFound("there is no such import", reason="IMPORT_NOT_FOUND") from None


def _import(tx: Transaction, identifier: UUID) -> pb.Import:
    return _message(_row(tx, identifier))


def _row(tx: Transaction, identifier: UUID) -> tuple[Any, ...]:
    rows = tx.execute(f"{_IMPORT} WHERE {_inside(tx)} AND i.id = %s", (*_groups(tx), identifier))
    if not rows:
        raise NotFound("there is no such import", reason="IMPORT_NOT_FOUND")
    return rows[0]


def _message(row: tuple[Any, ...]) -> pb.Import:
    identifier, filename, state, progress, error, created_by, created_at, ended_at = row
    reply = pb.Import(
        name=f"imports/{identifier}",
        state=state,
        filename=filename,
        create_time=stamp(created_at),
        end_time=stamp(ended_at),
        error=error,
        created_by=created_by,
        percent=100 if state == "SUCCEEDED" else min(99, 100 * progress.get("next", 0) // max(progress.get("total", 0), 1)),
    )
    for sheet in progress.get("sheets", ()):
        reply.sheets.add(**sheet)
    return reply
