"""The README of work_orders says what the code says. `python -m tests.work_orders.test_readme` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from services.chassis.access import declared
from services.chassis.duties import DutyTask
from services.chassis.lifecycle import Case
from services.chassis.policies import Policy
from services.chassis.reactions import reactions_of
from services.chassis.rpc import proto_services
from services.work_orders import duties, policies
from services.work_orders.followups import FollowUp
from services.work_orders.repairs import Repair
from services.work_orders.spot_checks import SpotCheck
from steward.work_orders.v1 import events_pb2

README = Path(policies.__file__).with_name("README.md")
CASES: tuple[type[Case], ...] = (Repair, FollowUp, SpotCheck)


def diagram(case: type[Case]) -> str:
    """The lifecycle's own diagram without arrows from a state to itself; which actions those are is said below it."""
    lines = dict.fromkeys(case.LIFECYCLE.diagram().splitlines())  # one arrow where two lines of the table differ in who may
    drawn = [line for line in lines if not re.match(r" *(\w+) --> \1:", line)]
    staying = {move.action: set(move.sources) for move in case.LIFECYCLE.moves if move.sources == {move.target}}
    for move in case.LIFECYCLE.moves:
        if move.action in staying and move.target in move.sources:
            staying[move.action] |= {move.target}
    said = "; ".join(
        f"`{action}` in {', '.join(state for state in case.LIFECYCLE.states if state in of)}" for action, of in staying.items()
    )
    return "```mermaid\n" + "\n".join(drawn) + "\n```" + (f"\n\nWhat leaves the state as it is: {said}." if said else "")


def table(head: str, rows: list[tuple[object, ...]]) -> str:
    names = head.split(", ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def words(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def clocks() -> str:
    return table(
        "case, clock, starts, stops, told when missed, rules",
        [
            (
                case.KIND,
                f"`{c.name}`",
                words(c.starts | c.restarts),
                words(c.stops | c.cancels),
                " → ".join(c.ladder) or "those above the tier",
                c.rules,
            )
            for case in CASES
            for c in case.CLOCKS
        ],
    )


def duty_lines() -> str:
    rows: list[tuple[object, ...]] = []
    for duty in duties.DUTIES:
        at = f"`{duty.at.key}` ({duty.at.default})" if isinstance(duty.at, Policy) else duty.at
        before = f"{int(duty.opens.total_seconds() // 60)} minutes before" if duty.instead is None else "then"
        falls_to = ", else ".join(duty.roles) or "Steward itself"
        rows.append((f"`{duty.name}`", duty.rule, at, before, falls_to, " → ".join(duty.ladder), duty.rules))
    return table("duty, rule, due, opens, falls to, told when missed, rules", rows)


def operations() -> str:
    rows: list[tuple[object, ...]] = []
    for proto in proto_services("work_orders"):
        for method in proto.methods:
            access = declared(method)
            assert access
            rows.append((f"`{method.name}`", ", ".join(sorted(access.roles))))
    return table("operation, roles", rows)


def events_in() -> str:
    ours = ("work_orders.", "chassis.")  # not what other tests of the same run have declared
    found = reactions_of("work_orders").by_event.values()
    return ", ".join(sorted({f"`{r.routing_key}`" for group in found for r in group if r.name.startswith(ours)})) + "."


def events_out() -> str:
    own = sorted(events_pb2.DESCRIPTOR.message_types_by_name)
    return ", ".join(f"`{name}`" for name in own) + "; of the chassis those of clocks, duties and policies."


def policy_lines() -> str:
    rows = [
        (f"`{p.key}`", p.unit, p.default, p.says, p.rules)
        for p in sorted((value for value in vars(policies).values() if isinstance(value, Policy)), key=lambda p: p.key)
    ]
    return table("policy, unit, default, says, rules", list(rows))


def sections() -> dict[str, str]:
    return {
        "repair": diagram(Repair),
        "follow_up": diagram(FollowUp),
        "spot_check": diagram(SpotCheck),
        "duty_task": diagram(DutyTask),
        "clocks": clocks(),
        "duties": duty_lines(),
        "operations": operations(),
        "events_in": events_in(),
        "events_out": events_out(),
        "policies": policy_lines(),
    }


def written(text: str) -> str:
    """The README with every marked section as it should be."""
    for name, content in sections().items():
        gap = "" if name == "events_in" else "\n"
        pattern = re.compile(rf"<!-- {name} -->.*?<!-- end -->", re.DOTALL)
        assert len(pattern.findall(text)) == 1, f"the README needs one section {name}"
        text = pattern.sub(lambda _, made=f"<!-- {name} -->{gap}{content}{gap}<!-- end -->": made, text)  # type: ignore[misc]
    return text


def test_the_readme_says_what_the_code_says() -> None:
    text = README.read_text(encoding="utf-8")
    assert written(text) == text, "write it anew: python -m tests.work_orders.test_readme"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
