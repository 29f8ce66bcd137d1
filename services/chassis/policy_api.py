"""Policies as a product, the same for every service: what holds where, who may change it, what a change would do and did.

A change is one transaction: the override, its line in the audit, the event, and the operation that reckons running clocks
anew. That operation takes clocks in batches and never locks a case: commands lock a case and then its clocks, so it passes
by what they hold (SKIP LOCKED) and comes back. It looks twice, because until every process has read the new value some
start clocks by the old one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import orjson
import sqlalchemy as sa
from google.protobuf.struct_pb2 import Value as AnyValue
from prometheus_client import Counter

from services.chassis import access, directory, events, jobs
from services.chassis.clocks import RUNG_STEP, WARN, Clock
from services.chassis.db import Database, Transaction
from services.chassis.errors import Forbidden, InvalidInput, NotFound, Unavailable, Violation
from services.chassis.names import page_position, page_token, stamp
from services.chassis.policies import HOLIDAYS, HOURS, MAX_AGE, Overrides, Policy, Terms, Value, policies_of, read_overrides, terms_of
from steward.chassis.v1 import events_pb2
from steward.chassis.v1 import policies_pb2 as pb
from steward.options.v1 import options_pb2

KIND = "recompute clocks"
BATCH = 200  # clocks of one transaction
GATHERED = 20_000  # ids of one look at the clocks that are open
SETTLED = MAX_AGE + 10.0  # seconds of machine time after which no transaction goes by the old value any more
COME_BACK = 0.2  # seconds between two tries at clocks whose cases are being changed
TRIES = 150
PREVIEWED = 5_000  # clocks a preview looks at, the earliest due first
SHOWN = 10  # of them it shows
PAGE = 100
CALENDAR = (HOURS.key, HOLIDAYS.key)

RECKONED_COLUMNS = {
    "id": "uuid", "target": "interval", "warn": "float8", "spent": "interval", "running_since": "timestamptz", "hours": "text",
    "marks": "timestamptz[]", "next_at": "timestamptz",
}  # fmt: skip
RECKONED = Counter("steward_clocks_recomputed_total", "Clocks whose limit or marks a change of policy has moved.", ["service"])


# --- places of the tree ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """A place where policies are set. `level` is group, company or estate; ids below it are None."""

    level: str
    id: UUID
    name: str  # `estates/TFHY`
    group_id: UUID | None
    company_id: UUID | None
    estate_id: UUID | None

    @property
    def line(self) -> list[tuple[UUID, str]]:
        """(id, name) from the group down to the node itself."""
        above = [(self.group_id, "groups"), (self.company_id, "companies")]
        return [(i, f"{collection}/{i}") for i, collection in above if i is not None and i != self.id] + [(self.id, self.name)]

    def covers(self, grant: access.Grant) -> bool:
        """Whether a post is held at the node or above it."""
        return (grant.level, grant.node) in {("group", self.group_id), ("company", self.company_id), ("estate", self.estate_id)}


def node_named(tx: Transaction, name: str) -> Node | None:
    """`groups/<id>`, `companies/<id>` or `estates/<code>`; None when the register has no such node."""
    collection, _, tail = name.partition("/")
    if collection == "estates":
        estate = directory.estate_by_code(tx, tail)
        return Node("estate", estate.id, name, estate.group_id, estate.company_id, estate.id) if estate else None
    try:
        kind, identifier = {"groups": "GROUP", "companies": "COMPANY"}[collection], UUID(tail)
    except (KeyError, ValueError):
        return None
    rows = tx.execute("SELECT group_id FROM dir_nodes WHERE id = %s AND kind = %s AND NOT deleted", (identifier, kind))
    if not rows:
        return None
    if kind == "GROUP":
        return Node("group", identifier, f"groups/{identifier}", identifier, None, None)
    return Node("company", identifier, f"companies/{identifier}", rows[0][0], identifier, None)


# --- the operations ----------------------------------------------------------------------------------------------------


def list_policies(request: pb.ListPoliciesRequest, tx: Transaction) -> pb.ListPoliciesResponse:
    node, size = _node(tx, request.node), request.page_size or PAGE
    if request.parent != f"services/{tx.service}":
        raise NotFound(f"there is no {request.parent}", reason="SERVICE_NOT_FOUND")
    known, held = policies_of(tx.service), _held(tx, node)
    position = page_position(request)
    keys = [key for key in known if not position or key > str(position[0])]
    reply = pb.ListPoliciesResponse(
        policies=[_message(tx.service, known[key], node, held) for key in keys[:size]], line=[name for _, name in node.line]
    )
    if len(keys) > size:
        reply.next_page_token = page_token(request, keys[size - 1])
    return reply


def get_policy(request: pb.GetPolicyRequest, tx: Transaction) -> pb.Policy:
    node, policy = _node(tx, request.node), _policy(tx, request.name)
    tx.check_input()
    return _message(tx.service, policy, node, _held(tx, node))


def set_policy(request: pb.SetPolicyRequest, tx: Transaction) -> pb.Policy:
    node, policy = _changeable(tx, request)
    return _change(tx, node, policy, _value(policy, request.value), request.reason)


def reset_policy(request: pb.ResetPolicyRequest, tx: Transaction) -> pb.Policy:
    node, policy = _changeable(tx, request)
    return _change(tx, node, policy, None, request.reason)


def preview_policy(request: pb.PreviewPolicyRequest, tx: Transaction) -> pb.PolicyPreview:
    node, policy = _changeable(tx, request)
    value = _value(policy, request.value) if request.HasField("value") else None
    now = read_overrides(tx)
    then = {place: dict(values) for place, values in now.items()}
    then.setdefault(node.id, {}).pop(policy.key, None)
    if value is not None:
        then[node.id][policy.key] = value
    reply = pb.PolicyPreview(name=request.name, node=node.name, value=_any(_effective(policy, node, then)))
    clocks = _open_clocks(tx, node.level, node.id, policy.key, PREVIEWED + 1)
    reply.looked_at, reply.complete = min(len(clocks), PREVIEWED), len(clocks) <= PREVIEWED
    shifts: list[tuple[datetime, datetime, Clock]] = []
    terms = _Terms(tx, then)
    for clock in clocks[:PREVIEWED]:
        before, breached = clock.due_at, clock.breached_at is not None or clock.level > 1
        if clock.reckon_anew(terms.of(clock), policy.key, tx.now):
            reply.clocks += 1
            after = clock.due_at
            if not breached and before is not None and after is not None:
                reply.breaches += before > tx.now >= after
                shifts.append((after, before, clock))
    for after, before, clock in sorted(shifts, key=lambda shift: (shift[0], shift[2].id))[:SHOWN]:
        reply.earliest.add(
            clock=clock.name, subject=clock.subject, number=clock.number or "", previous_due_time=stamp(before), due_time=stamp(after)
        )
    return reply


def list_policy_changes(request: pb.ListPolicyChangesRequest, tx: Transaction) -> pb.ListPolicyChangesResponse:
    node, size = _node(tx, request.node), request.page_size or 20
    key = None if request.parent == f"services/{tx.service}/policies/-" else _policy(tx, request.parent).key
    position = page_position(request)
    rows = tx.execute(
        "SELECT c.number, c.key, c.node, c.action, c.old_value, c.new_value, c.reason, c.actor, c.at, o.state, coalesce((o.progress ->> 'changed')::integer, 0)"
        " FROM policy_changes c LEFT JOIN operations o ON o.id = c.operation_id"
        " WHERE c.node_id = ANY(%s) AND (%s::text IS NULL OR c.key = %s) AND c.number < %s ORDER BY c.number DESC LIMIT %s",
        ([place for place, _ in node.line], key, key, _number(position) if position else 2**63 - 1, size + 1),
    )
    reply = pb.ListPolicyChangesResponse()
    for number, its_key, place, action, old, new, reason, actor, at, state, clocks in rows[:size]:
        reply.changes.add(
            name=f"services/{tx.service}/policies/{its_key}/changes/{number}", node=place, action=action, old_value=_any(old), new_value=_any(new),
            reason=reason, changer=actor, change_time=stamp(at), recomputation=state or "STATE_UNSPECIFIED", clocks=clocks,
        )  # fmt: skip
    if len(rows) > size:
        reply.next_page_token = page_token(request, rows[size - 1][0])
    return reply


# --- who, where, what --------------------------------------------------------------------------------------------------


def _node(tx: Transaction, name: str) -> Node:
    """The server has checked that the caller may see it; it can have been deleted since."""
    node = node_named(tx, name)
    if node is None:
        raise NotFound(f"there is no {name}", reason="NODE_NOT_FOUND")
    return node


def _policy(tx: Transaction, name: str) -> Policy:
    parts = name.split("/")
    policy = policies_of(tx.service).get(parts[3]) if len(parts) == 4 and parts[2] == "policies" else None
    if policy is None:
        raise NotFound(f"{tx.service} has no such policy", reason="POLICY_NOT_FOUND")
    return policy


def _changeable(tx: Transaction, request: Any) -> tuple[Node, Policy]:
    """Node and policy, once it is sure that the caller may change it there. Raises NotFound, Forbidden, InvalidInput."""
    node, policy = _node(tx, request.node), _policy(tx, request.name)
    if policy.changed_by:
        held = {grant for grant in tx.principal.grants if grant.role in policy.changed_by and node.covers(grant)}
        if not held - directory.revoked(tx, UUID(tx.principal.id), held):
            raise Forbidden(f"{policy.key} is changed by {' or '.join(policy.changed_by)} alone", rule=policy.rules)
    tx.check_input()
    return node, policy


def _value(policy: Policy, given: AnyValue) -> Value:
    """Raises InvalidInput naming the field."""
    kind = given.WhichOneof("kind")
    value: Value = given.number_value if kind == "number_value" else given.string_value
    try:
        if kind not in ("number_value", "string_value"):
            raise InvalidInput(f"{policy.key} is a number or a text")
        policy.check(value)
    except InvalidInput as error:
        wrong = [Violation("value", error.message)]
        raise InvalidInput(error.message, reason=error.reason, rule=error.rule, violations=wrong) from None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(position: Sequence[str]) -> int:
    try:
        return int(position[0])
    except (ValueError, TypeError):
        what = [Violation("page_token", "must be the next_page_token of the same query")]
        raise InvalidInput("the page token is not one of this query", reason="INVALID_PAGE_TOKEN", violations=what) from None


# --- what holds --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """Overrides at a node and above it, and who set them."""

    overrides: Overrides
    by: Mapping[tuple[UUID, str], tuple[str, datetime]]


def _held(tx: Transaction, node: Node) -> Held:
    ids = [place for place, _ in node.line]
    rows = tx.execute("SELECT node_id, key, changed_by, changed_at FROM policy_overrides WHERE node_id = ANY(%s)", (ids,))
    overrides = read_overrides(tx, ids)
    return Held(overrides, {(place, key): (who, at) for place, key, who, at in rows})


def _effective(policy: Policy, node: Node, overrides: Overrides, *, above: bool = False) -> Value:
    """What holds at the node; `above`: without its own override."""
    for place, _ in reversed(node.line[:-1] if above else node.line):
        if (value := overrides.get(place, {}).get(policy.key)) is not None:
            return value
    return policy.default


def _message(service: str, policy: Policy, node: Node, held: Held) -> pb.Policy:
    least, most = policy.bounds
    default_roles = access.declared(pb.DESCRIPTOR.services_by_name["Policies"].methods_by_name["SetPolicy"])
    assert default_roles
    roles: Sequence[Any] = policy.changed_by or sorted(default_roles.roles, key=options_pb2.Role.Value)
    reply = pb.Policy(
        name=f"services/{service}/policies/{policy.key}", node=node.name, unit=policy.kind, says=policy.says, rules=policy.rules, law=policy.law,
        default_value=_any(policy.default), least=least, most=most, choices=policy.choices, value=_any(_effective(policy, node, held.overrides)),
        inherited_value=_any(_effective(policy, node, held.overrides, above=True)), changed_by=roles,
    )  # fmt: skip
    for place, name in reversed(node.line):
        if policy.key in held.overrides.get(place, {}):
            who, at = held.by[place, policy.key]
            reply.source, reply.changer = name, who
            reply.change_time.FromDatetime(at)
            break
    return reply


def _any(value: Value) -> AnyValue:
    return AnyValue(string_value=value) if isinstance(value, str) else AnyValue(number_value=value)


# --- a change ----------------------------------------------------------------------------------------------------------


def _change(tx: Transaction, node: Node, policy: Policy, value: Value | None, reason: str) -> pb.Policy:
    """Sets an override, or takes it away; changes of one policy at one node happen one after the other."""
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"policy {policy.key} {node.id}",))
    rows = tx.execute("SELECT value FROM policy_overrides WHERE key = %s AND node_id = %s", (policy.key, node.id))
    own: Value | None = rows[0][0] if rows else None
    if own == value:
        return _message(tx.service, policy, node, _held(tx, node))
    old = _effective(policy, node, _held(tx, node).overrides)
    if value is None:
        tx.execute("DELETE FROM policy_overrides WHERE key = %s AND node_id = %s", (policy.key, node.id))
    else:
        tx.execute(
            "INSERT INTO policy_overrides (key, node_id, value, changed_by, changed_at) VALUES (%s, %s, %s, %s, %s) ON CONFLICT (key, node_id)"
            " DO UPDATE SET value = EXCLUDED.value, changed_by = EXCLUDED.changed_by, changed_at = EXCLUDED.changed_at",
            (policy.key, node.id, orjson.dumps(value).decode(), str(tx.principal), tx.now),
        )
    held = _held(tx, node)
    new = _effective(policy, node, held.overrides)
    operation = None
    if policy.key in (*CALENDAR, WARN.key) or policy.unit == "seconds":  # by others no clock goes
        operation = jobs.enqueue(tx, KIND, {"key": policy.key, "level": node.level, "node": str(node.id), "at": tx.now.isoformat()})
    sequence = tx.execute(
        "INSERT INTO policy_changes (key, node_id, node, sequence, action, old_value, new_value, reason, actor, at, request_id, operation_id)"
        " SELECT %s, %s, %s, (SELECT count(*) + 1 FROM policy_changes WHERE key = %s AND node_id = %s), %s, %s, %s, %s, %s, %s, %s, %s RETURNING sequence",
        (
            policy.key, node.id, node.name, policy.key, node.id, "RESET" if value is None else "SET", orjson.dumps(old).decode(), orjson.dumps(new).decode(),
            reason, str(tx.principal), tx.now, tx.request_id, operation,
        ),
    )[0][0]  # fmt: skip
    happened = events_pb2.PolicyChanged(policy=policy.key, node=node.name, old_value=_any(old), new_value=_any(new), reset=value is None)
    subject = f"services/{tx.service}/policies/{policy.key}"
    events.append(
        tx,
        events.Happened(
            "policy", uuid5(node.id, policy.key), sequence, subject, happened, tx.now, node.group_id, node.company_id, node.estate_id
        ),
    )
    tx.after_commit.append(tx.database.policies.forget)
    return _message(tx.service, policy, node, held)


# --- clocks that run ---------------------------------------------------------------------------------------------------


def _concerned(key: str) -> sa.ColumnElement[bool]:
    """Clocks that a change of a policy can touch: not those that have fired all they had."""
    alive = sa.and_(Clock.stopped_at.is_(None), sa.or_(Clock.next_at.is_not(None), Clock.running_since.is_(None)))
    if key in CALENDAR:
        return sa.and_(alive, Clock.working)
    if key == RUNG_STEP.key:
        return sa.and_(alive, sa.func.cardinality(Clock.ladder) > 1)
    if key == WARN.key:
        return sa.and_(alive, Clock.level == 0)
    return sa.and_(alive, Clock.policy == key)


def _below(level: str, node: UUID) -> sa.ColumnElement[bool]:
    return {"group": Clock.group_id, "company": Clock.company_id, "estate": Clock.estate_id}[level] == node


def _open_clocks(tx: Transaction, level: str, node: UUID, key: str, most: int) -> list[Clock]:
    """Detached, to be reckoned with and thrown away; the earliest due first."""
    query = sa.select(Clock).where(_below(level, node), _concerned(key)).order_by(Clock.next_at.nulls_last(), Clock.id).limit(most)
    clocks = list(tx.session.execute(query).scalars())
    tx.session.expunge_all()
    return clocks


class _Terms:
    """The terms of the estates that clocks belong to, under given overrides."""

    def __init__(self, tx: Transaction, overrides: Overrides):
        self._tx, self._overrides = tx, overrides
        self._of: dict[UUID, Terms] = {}

    def of(self, clock: Clock) -> Terms:
        if clock.estate_id not in self._of:
            estate = directory.estate_by_id(self._tx, clock.estate_id)
            if estate is None:  # out of the register, with a case still open
                estate = directory.Estate(clock.estate_id, "", "", clock.company_id, clock.group_id, Terms().zone, "")
            self._of[clock.estate_id] = terms_of(self._overrides, estate)
        return self._of[clock.estate_id]


@jobs.job("chassis", KIND)
def recompute_clocks(work: jobs.Job) -> None:
    """Brings every clock below the node in line with the policies as they stand.

    Raises Unavailable after a look that began before every process had the new value, so that the operation is claimed again
    when its lease ends and looks once more; and when cases stay locked.
    """
    policies_of(work.database.service)  # known in this process too
    progress = work.progress
    for name, start in (("look", 1), ("after", None), ("again", []), ("looked_at", 0), ("changed", 0), ("final", None)):
        progress.setdefault(name, start)
    if progress["final"] is None:
        progress["final"] = _age(work) >= SETTLED
    for ids in _gathered(work):
        with work.step() as tx:
            progress["again"] += _reckon(work, tx, ids)
            progress["after"] = str(ids[-1])
    for _ in range(TRIES):
        if not progress["again"]:
            break
        with work.step() as tx:
            progress["again"] = _reckon(work, tx, [UUID(text) for text in progress["again"][:BATCH]]) + progress["again"][BATCH:]
        if progress["again"]:
            time.sleep(COME_BACK)
    if progress["again"]:
        raise Unavailable("cases whose clocks are to be reckoned anew are still being changed")
    if not progress["final"]:
        with work.step():
            progress.update(look=progress["look"] + 1, after=None, final=None)
        raise Unavailable("clocks are looked at once more when every process has the new policies")


def _age(work: jobs.Job) -> float:
    """Seconds of machine time since the change."""
    with work.database.read() as tx:
        return float(
            tx.execute("SELECT extract(epoch FROM clock_timestamp() - created_at) FROM operations WHERE id = %s", (work.id,))[0][0]
        )


def _gathered(work: jobs.Job) -> Iterator[list[UUID]]:
    """Ids of the clocks concerned, in batches, from the last checkpoint on."""
    wanted = sa.and_(_below(work.request["level"], UUID(work.request["node"])), _concerned(work.request["key"]))
    while True:
        after = work.progress["after"]
        query = sa.select(Clock.id).where(wanted).order_by(Clock.id).limit(GATHERED)
        if after:
            query = query.where(Clock.id > UUID(after))
        ids = _ids(work.database, query)
        if not ids:
            return
        for first in range(0, len(ids), BATCH):
            yield ids[first : first + BATCH]


def _ids(database: Database, query: sa.Select[Any]) -> list[UUID]:
    with database.read() as tx:
        return list(tx.session.execute(query).scalars())


def _reckon(work: jobs.Job, tx: Transaction, ids: Sequence[UUID]) -> list[str]:
    """Reckons these clocks anew. Returns those whose rows somebody holds."""
    query = sa.select(Clock).where(Clock.id.in_(ids)).with_for_update(skip_locked=True)
    found = list(tx.session.execute(query).scalars())
    tx.session.expunge_all()  # written below, all in one statement
    terms, at, moved, values = _Terms(tx, read_overrides(tx)), datetime.fromisoformat(work.request["at"]), 0, []
    for clock in found:
        moved += clock.reckon_anew(terms.of(clock), work.request["key"], at)
        values += [getattr(clock, column) for column in RECKONED_COLUMNS]
    if found:
        one = "(" + ", ".join(f"%s::{kind}" for kind in RECKONED_COLUMNS.values()) + ")"
        sets = ", ".join(f"{column} = v.{column}" for column in RECKONED_COLUMNS if column != "id")
        tx.execute(
            f"UPDATE clocks c SET {sets} FROM (VALUES {', '.join([one] * len(found))}) v ({', '.join(RECKONED_COLUMNS)}) WHERE c.id = v.id",
            values,
        )
    work.progress["looked_at"] += len(found)
    work.progress["changed"] += moved
    tx.after_commit.append(lambda: RECKONED.labels(tx.service).inc(moved))
    return [str(identifier) for identifier in set(ids) - {clock.id for clock in found}]
