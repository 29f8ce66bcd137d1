"""What a list or a single read shows is what the last command answered: read from rows here, made from the entity there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.work_orders.api import repairs as api
from services.work_orders.repairs import Repair
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import CHECKED, PNG, WAY, Desk, case_id, parts_of


def listed(desk: Desk, who: Any, **fields: Any) -> list[pb.Repair]:
    """Every page, two rows at a time."""
    found: list[pb.Repair] = []
    token = ""
    while True:
        reply = desk.call(who, "ListRepairs", parent=desk.tree.parent, page_size=2, page_token=token, **fields)
        found += reply.repairs
        token = reply.next_page_token
        if not token:
            return found


def assert_shown(desk: Desk, repair: pb.Repair) -> None:
    manager = desk.tree.staff["PROJECT_MANAGER"]
    assert desk.call(manager, "GetRepair", name=repair.name) == repair
    assert [found for found in listed(desk, manager) if found.name == repair.name] == [repair]


@pytest.mark.parametrize("to", WAY)
def test_a_repair_is_shown_as_the_command_that_brought_it_there_left_it(desk: Desk, to: str) -> None:
    others = [desk.report(), desk.in_public()]
    wished = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
    repair = desk.at(to, appointment_time=wished, expected_by=wished + timedelta(days=1), urgent=True)
    for shown in (*others, repair):
        assert_shown(desk, shown)


def test_charges_consent_rework_pause_and_what_was_urged_are_shown(desk: Desk) -> None:
    technician, owner, name = desk.tree.technician, desk.tree.owner, (repair := desk.at("ON_SITE")).name
    for item, units, nanos in (("阀门", 35, 500_000_000), ("人工", 80, 0)):
        charge = {"item": item, "quantity": 2, "unit_price": {"currency_code": "CNY", "units": units, "nanos": nanos}, "reason": "老化"}
        repair = desk.call(technician, "ChargeRepair", name=name, charge=charge)
        assert_shown(desk, repair)
    assert (len(repair.charges), repair.charge_total.units) == (2, 231)
    assert_shown(desk, desk.call(owner, "ConsentRepair", name=name))
    assert_shown(desk, desk.call(technician, "PauseRepair", name=name, reason="等待材料"))
    assert_shown(desk, desk.call(owner, "UrgeRepair", name=name, note="还要多久"))
    assert_shown(desk, repair := desk.call(technician, "ResumeRepair", name=name))
    done = desk.call(technician, "CompleteRepair", name=name, work_done="换了阀门", self_check=CHECKED, parts=parts_of(repair))
    assert_shown(desk, done)
    assert_shown(desk, repair := desk.call(owner, "RejectRepair", name=name, reason="还在漏水"))
    desk.step(desk.step(repair))
    accepted = desk.call(owner, "AcceptRepair", name=name, rating={"attitude": 4, "quality": 2, "comment": "第二次才修好"}, signature=PNG)
    assert accepted.rating.comment
    assert_shown(desk, accepted)


def test_who_reported_and_his_telephone_are_for_staff_and_himself_in_lists_too(desk: Desk) -> None:
    """ORG-10: the household sees what the neighbour in the same flat reported, but not whom to call about it."""
    tree = desk.tree
    told = {"reporter_name": "王先生", "contact_phone": "13900000000"}
    repair = desk.report(tree.owner, **told)
    for who, sees in ((tree.owner, True), (tree.residents["FAMILY_MEMBER"], False), (tree.staff["CUSTOMER_ASSISTANT"], True)):
        (shown,) = listed(desk, who)
        assert shown.name == repair.name
        assert (shown.reporter_name, shown.contact_phone) == (("王先生", "13900000000") if sees else ("", ""))
        assert desk.call(who, "GetRepair", name=repair.name) == shown
    assert listed(desk, tree.neighbour) == []


def test_filters_find_the_same_alone_and_together(desk: Desk) -> None:
    manager, technician = desk.tree.staff["PROJECT_MANAGER"], desk.tree.technician
    made = [desk.report(), desk.report(urgent=True), desk.in_public(), desk.at("TAKEN"), desk.at("DONE", urgent=True), desk.at("FILED")]
    now = {repair.name: desk.now(repair) for repair in made}

    def expected(**fields: Any) -> list[str]:
        return [
            repair.name
            for repair in reversed(list(now.values()))
            if (not fields.get("states") or repair.state in fields["states"])
            and (not fields.get("unit") or repair.unit == fields["unit"])
            and (not fields.get("technician") or repair.technician == fields["technician"])
            and (not fields.get("urgent_only") or repair.urgent)
        ]

    state = pb.Repair.State.Value
    filters: list[dict[str, Any]] = [
        {},
        {"states": [state("REPORTED")]},
        {"states": [state("REPORTED"), state("DONE"), state("FILED")]},
        {"unit": desk.tree.unit},
        {"unit": "nowhere"},
        {"technician": technician.name},
        {"urgent_only": True},
        {"urgent_only": True, "states": [state("DONE")], "technician": technician.name, "unit": desk.tree.unit},
    ]
    for fields in filters:
        assert [repair.name for repair in listed(desk, manager, **fields)] == expected(**fields), fields


def test_a_message_is_the_same_of_an_entity_and_of_a_row(desk: Desk) -> None:
    """The one function that says what callers see, given both."""
    repair = desk.at("ACCEPTED")
    with desk.database.transaction() as tx:
        row, entity = tx.see(Repair, case_id(repair)), tx.get(Repair, case_id(repair))
        assert type(row) is not type(entity)
        assert api.message(row, tx) == api.message(entity, tx)
