"""The RPCs of the tests' own service."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from services.chassis import directory
from services.chassis.db import Transaction
from services.chassis.names import PAGE, last, page_position, page_token, stamp
from services.probe.probes import Probe
from steward.probe.v1 import probe_pb2 as pb


def create_probe(request: pb.CreateProbeRequest, tx: Transaction) -> pb.Probe:
    assert tx.estate
    unit = directory.unit_by_number(tx, tx.estate, request.probe.unit, "probe.unit").id if request.probe.unit else None
    owner = UUID(tx.principal.id) if tx.principal.is_resident else None
    probe = Probe.create(tx.act(), tx.estate, request.probe.title, owner_id=owner, unit_id=unit)
    probe.number_in(tx, tx.estate.zone)
    tx.add(probe)
    tx.prepare()
    return message(probe)


def get_probe(request: pb.GetProbeRequest, tx: Transaction) -> pb.Probe:
    return message(tx.see(Probe, last(request.name)))


def list_probes(request: pb.ListProbesRequest, tx: Transaction) -> pb.ListProbesResponse:
    size = request.page_size or PAGE
    query = sa.select(Probe).where(tx.inside(Probe)).order_by(Probe.id.desc()).limit(size + 1)
    if position := page_position(request):
        query = query.where(Probe.id < UUID(position[0]))
    found = list(tx.session.execute(query).scalars())
    reply = pb.ListProbesResponse(probes=[message(probe) for probe in found[:size]])
    if len(found) > size:
        reply.next_page_token = page_token(request, found[size - 1].id)
    return reply


def start_probe(request: pb.StartProbeRequest, tx: Transaction) -> pb.Probe:
    probe = tx.get(Probe, last(request.name), request.etag)
    probe.start(tx.act(), request.effort)
    return message(probe)


def sleep_probe(request: pb.SleepProbeRequest, tx: Transaction) -> pb.Probe:
    tx.execute("SELECT pg_sleep(%s)", (request.seconds,))
    return pb.Probe(title="awake")


def break_probe(request: pb.GetProbeRequest, tx: Transaction) -> pb.Probe:
    raise RuntimeError(f"secret details of {request.name}")


def count_probes(request: pb.CountProbesRequest, tx: Transaction) -> pb.CountProbesResponse:
    return pb.CountProbesResponse(count=len(list(tx.session.execute(sa.select(Probe.id).where(tx.inside(Probe))))))


def get_self(request: pb.GetSelfRequest, tx: Transaction) -> pb.Self:
    return pb.Self(name=str(tx.principal), trace=tx.trace)


def exchange_probe(request: pb.CountProbesRequest, tx: Transaction) -> pb.CountProbesResponse:
    return pb.CountProbesResponse(count=1)


def message(probe: Probe) -> pb.Probe:
    return pb.Probe(
        name=probe.subject, number=probe.number or "", state=probe.state, etag=probe.etag, title=probe.title, effort=probe.effort,
        create_time=stamp(probe.created_at),
    )  # fmt: skip
