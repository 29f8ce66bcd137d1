"""One function per RPC of governance."""

from __future__ import annotations

from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput
from services.governance.cases import Counts, count, instants
from steward.governance.v1 import service_figures_pb2 as pb


def get_service_figures(request: pb.GetServiceFiguresRequest, tx: Transaction) -> pb.QuarterFigures:
    if tx.estate is None:
        raise InvalidInput("name one estate, not estates/-", reason="ESTATE_REQUIRED")
    counts = count(tx, tx.estate.id, instants(request.quarter, tx.estate.zone))
    return pb.QuarterFigures(
        estate=f"estates/{tx.estate.code}",
        quarter=request.quarter,
        total=_figures(counts[True] + counts[False]),
        urgent=_figures(counts[True]),
        ordinary=_figures(counts[False]),
    )


def _figures(counts: Counts) -> pb.CaseFigures:
    return pb.CaseFigures(
        reported=counts.reported,
        accepted=counts.accepted,
        open=counts.reported - counts.accepted - counts.cancelled,
        cancelled=counts.cancelled,
        judged=counts.judged,
        first_pass=counts.first_pass,
        first_pass_rate=counts.first_pass / counts.judged if counts.judged else None,
        limits_met=counts.limits_met,
        limits_missed=counts.limits_missed,
        limits_met_share=_share(counts.limits_met, counts.limits_missed),
    )


def _share(met: int, missed: int) -> float | None:
    return met / (met + missed) if met + missed else None
