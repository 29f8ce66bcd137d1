"""One function per RPC of surveys."""

from __future__ import annotations

from services.chassis.db import Transaction
from services.chassis.errors import InvalidInput
from services.chassis.names import identifier
from services.surveys import answers, policies
from steward.surveys.v1 import satisfaction_pb2 as pb


def get_satisfaction(request: pb.GetSatisfactionRequest, tx: Transaction) -> pb.SatisfactionFigures:
    if tx.estate is None:
        raise InvalidInput("name one estate, not estates/-", reason="ESTATE_REQUIRED")
    technician = identifier(request.technician, "staff", "technician") if request.technician else None
    satisfied_from = int(tx.terms().number(policies.SATISFIED_FROM))
    found = answers.figures(tx, tx.estate.id, answers.instants(request.period, tx.estate.zone), satisfied_from, technician)
    return pb.SatisfactionFigures(
        estate=f"estates/{tx.estate.code}",
        period=request.period,
        answers=found.answers,
        average_attitude=found.average_attitude,
        average_quality=found.average_quality,
        satisfied=found.satisfied,
        satisfied_share=found.satisfied / found.answers if found.answers else None,
        satisfied_from=satisfied_from,
    )
