"""The service Statistics."""

from __future__ import annotations

from collections import Counter

from services.chassis.db import Transaction
from services.work_orders import statistics
from steward.work_orders.v1 import repairs_pb2
from steward.work_orders.v1 import statistics_pb2 as pb

COMMON = 5  # categories that are named


def get_repair_statistics(request: pb.GetRepairStatisticsRequest, tx: Transaction) -> pb.RepairStatistics:
    lines = statistics.of_month(tx, request.month)
    state, category = repairs_pb2.Repair.State.Value, repairs_pb2.Repair.Category.Value
    states: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    stood: Counter[str] = Counter()  # by category, without those that were cancelled
    for line in lines:
        states[line.state] += line.count
        categories[line.category] += line.count
        if line.state != statistics.State.CANCELLED:
            stood[line.category] += line.count
    accepted = sum(line.accepted for line in lines)
    reply = pb.RepairStatistics(
        month=request.month,
        reported=states.total(),
        urgent=sum(line.count for line in lines if line.urgent),
        ordinary=sum(line.count for line in lines if not line.urgent),
        timeliness=share(sum(line.timely for line in lines), accepted),
        first_pass=share(sum(line.first_pass for line in lines), accepted),
        satisfaction=share(sum(line.satisfied for line in lines), accepted),
        average_attitude=sum(line.attitude for line in lines) / max(accepted, 1),
        average_quality=sum(line.quality for line in lines) / max(accepted, 1),
        recurring=sum(line.recurring for line in lines if line.state != statistics.State.CANCELLED),
    )
    reply.by_state.extend(pb.StateCount(state=name, count=states[name]) for name in sorted(states, key=state))
    reply.by_category.extend(pb.CategoryCount(category=name, count=categories[name]) for name in sorted(categories, key=category))
    for name, count in sorted(stood.items(), key=lambda item: (-item[1], category(item[0])))[:COMMON]:
        reply.common_faults.add(category=name, share=share(count, stood.total()))
    return reply


def share(count: int, of: int) -> pb.Share:
    return pb.Share(count=count, of=of, share=count / of if of else 0.0)
