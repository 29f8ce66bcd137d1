"""Parts that were put in, and the set of documents that is archived with an order (REP-16, REP-28)."""

from __future__ import annotations

from typing import Any

import pytest

from steward.work_orders.v1 import records_pb2
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.asking import charged
from tests.work_orders.conftest import CHECKED, PNG, Desk, instant, state

VALVE = {"name": "角阀", "quantity": 1, "qualified": True, "certificate": "合格证 0931", "shown_to_owner": True}
BOUGHT = VALVE | {"name": "软管", "bought": True}
DONE = {"work_done": "换了阀门", "self_check": CHECKED}


def archive(desk: Desk, repair: pb.Repair, role: str = "ARCHIVIST") -> records_pb2.RepairArchive:
    return desk.call(desk.tree.staff[role], "GetRepairArchive", name=f"{repair.name}/archive")


def documents(found: records_pb2.RepairArchive) -> dict[str, tuple[bool, str]]:
    kind = records_pb2.RepairArchive.Document.Kind.Name
    return {f"{kind(d.kind)} {d.part}".rstrip(): (d.present, d.reference) for d in found.documents}


def accepted(desk: Desk, *parts: dict[str, Any]) -> pb.Repair:
    repair = desk.at("ON_SITE")
    desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, parts=parts, **DONE)
    return desk.carry(desk.now(repair), "ACCEPTED")


# --- parts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("REP-16")
@pytest.mark.parametrize("missing", ["qualified", "shown_to_owner"])
def test_a_part_that_is_not_qualified_or_was_not_shown_to_the_owner_ends_no_work(desk: Desk, missing: str) -> None:
    repair = desk.at("ON_SITE")
    answer = desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[VALVE, BOUGHT | {missing: False}], **DONE)
    assert (answer.http, answer.reason, answer.rule, answer.fields) == (400, "PARTS_INCOMPLETE", "REP-16", {f"parts[1].{missing}"})
    assert (state(desk.now(repair)), list(archive(desk, repair).parts)) == ("ON_SITE", [])
    done = desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[VALVE, BOUGHT | {"voucher": "CG-7"}], **DONE)
    parts = [(part.name, part.quantity, part.certificate, part.qualified, part.shown_to_owner) for part in archive(desk, done).parts]
    assert parts == [("角阀", 1, "合格证 0931", True, True), ("软管", 1, "合格证 0931", True, True)]


@pytest.mark.rule("REP-16")
def test_material_that_is_charged_must_be_among_the_parts_and_labour_need_not(desk: Desk) -> None:
    repair = charged(desk)
    charged(desk, repair, item="上门工时", kind="LABOUR")
    for parts in ((), ({**VALVE, "name": "别的"},)):
        answer = desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, parts=parts, **DONE)
        assert (answer.http, answer.reason, answer.fields) == (400, "PARTS_MISSING", {"parts"})
        assert "角阀" in answer.violations[0].description
    assert state(desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[VALVE], **DONE)) == "DONE"
    labour = charged(desk, kind="LABOUR")
    assert state(desk.call(desk.tree.technician, "CompleteRepair", name=labour.name, **DONE)) == "DONE"


@pytest.mark.rule("REP-16")
def test_after_a_rework_the_parts_of_before_stay_and_need_not_be_said_again(desk: Desk) -> None:
    repair = charged(desk)
    desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[VALVE], **DONE)
    desk.call(desk.tree.owner, "RejectRepair", name=repair.name, reason="还在滴水")
    desk.call(desk.tree.technician, "ArriveRepair", name=repair.name)
    gasket = VALVE | {"name": "垫圈"}
    again = desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[gasket], **DONE)
    assert [part.name for part in archive(desk, again).parts] == ["角阀", "垫圈"]


@pytest.mark.rule("REP-16")
def test_in_a_public_area_nobody_is_shown_a_part_but_it_must_be_qualified(desk: Desk) -> None:
    repair = desk.carry(desk.in_public(), "ON_SITE")
    unseen = VALVE | {"shown_to_owner": False}
    answer = desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[unseen | {"qualified": False}], **DONE)
    assert answer.fields == {"parts[0].qualified"}
    assert state(desk.call(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[unseen], **DONE)) == "DONE"


@pytest.mark.parametrize(("field", "wrong"), [("name", ""), ("quantity", 0), ("quantity", 10_001), ("certificate", "x" * 101)])
def test_a_part_that_says_nothing_is_refused(desk: Desk, field: str, wrong: object) -> None:
    repair = desk.at("ON_SITE")
    answer = desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[VALVE | {field: wrong}], **DONE)
    assert (answer.http, answer.fields) == (400, {f"parts[0].{field}"})


def test_where_nothing_is_repaired_no_part_is_put_in(desk: Desk) -> None:
    repair = desk.at("ON_SITE")
    answer = desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, parts=[VALVE], explained_only=True, **DONE)
    assert (answer.http, answer.reason, answer.fields) == (400, "EXPLAINED_ONLY", {"parts"})


# --- the archive set ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("REP-28")
def test_a_filed_order_has_report_dispatch_acceptance_and_the_vouchers_of_what_was_bought(desk: Desk) -> None:
    repair = accepted(desk, VALVE, BOUGHT | {"voucher": "CG-20261123-07"})
    filed = desk.step(repair)
    found = archive(desk, filed)
    assert documents(found) == {
        "REPORT_FORM": (True, filed.number),
        "DISPATCH_ORDER": (True, desk.tree.technician.name),
        "ACCEPTANCE_FORM": (True, desk.tree.owner.name),
        "PURCHASE_VOUCHER 软管": (True, "CG-20261123-07"),
    }
    assert (found.complete, found.missing_reason, found.name) == (True, "", f"{filed.name}/archive")
    acceptance = found.documents[2]
    assert (acceptance.signed, instant(acceptance.document_time)) == (True, instant(filed.acceptance_time))


@pytest.mark.rule("REP-28")
def test_before_it_is_accepted_an_order_lacks_its_acceptance_and_before_it_is_taken_its_dispatch(desk: Desk) -> None:
    reported, done = desk.report(), desk.at("DONE")
    assert [kind for kind, (there, _) in documents(archive(desk, reported)).items() if not there] == ["DISPATCH_ORDER", "ACCEPTANCE_FORM"]
    assert [kind for kind, (there, _) in documents(archive(desk, done)).items() if not there] == ["ACCEPTANCE_FORM"]
    assert not archive(desk, done).complete


@pytest.mark.rule("REP-28")
def test_an_order_for_which_something_was_bought_is_not_filed_without_its_voucher(desk: Desk) -> None:
    repair, clerk = accepted(desk, VALVE, BOUGHT), desk.tree.staff["CUSTOMER_ASSISTANT"]
    answer = desk.refused(clerk, "FileRepair", name=repair.name)
    assert (answer.http, answer.reason, answer.rule, answer.fields) == (400, "DOCUMENT_MISSING", "REP-28", {"vouchers"})
    assert "软管" in answer.violations[0].description
    for part in ("角阀", "没有的"):
        wrong = desk.refused(clerk, "FileRepair", name=repair.name, vouchers=[{"part": part, "reference": "CG-1"}])
        assert (wrong.http, wrong.reason, wrong.fields) == (400, "PART_NOT_FOUND", {"vouchers"})
    twice = [{"part": "软管", "reference": reference} for reference in ("CG-1", "CG-2")]
    assert desk.refused(clerk, "FileRepair", name=repair.name, vouchers=twice).fields == {"vouchers[1].part"}
    assert state(desk.now(repair)) == "ACCEPTED"
    filed = desk.call(clerk, "FileRepair", name=repair.name, vouchers=[{"part": "软管", "reference": "CG-20261123-07"}])
    assert state(filed) == "FILED"
    assert documents(archive(desk, filed))["PURCHASE_VOUCHER 软管"] == (True, "CG-20261123-07")


@pytest.mark.rule("REP-28")
def test_what_is_missing_for_good_is_filed_with_the_reason_and_listed_as_missing(desk: Desk) -> None:
    archivist, clerk = desk.tree.staff["ARCHIVIST"], desk.tree.staff["CUSTOMER_ASSISTANT"]
    whole, gap = desk.at("FILED"), accepted(desk, BOUGHT)
    assert desk.refused(clerk, "FileRepair", name=gap.name, missing_reason="  ").reason == "DOCUMENT_MISSING"
    filed = desk.call(clerk, "FileRepair", name=gap.name, note="已归档", missing_reason="供应商未开票")
    assert desk.history(filed)[-1].note == "已归档 (供应商未开票)"
    found = archive(desk, filed)
    assert (found.complete, found.missing_reason) == (False, "供应商未开票")

    def listed(**how: Any) -> list[str]:
        fields = {"parent": desk.tree.parent} | how
        return [line.name for line in desk.call(archivist, "ListRepairArchives", **fields).repair_archives]

    assert listed() == [f"{filed.name}/archive", f"{whole.name}/archive"]
    assert listed(incomplete_only=True) == [f"{filed.name}/archive"]
    month = instant(filed.report_time).strftime("%Y-%m")
    assert listed(month=month, page_size=1) == [f"{filed.name}/archive"]
    assert listed(month="2020-01") == []
    assert desk.call(archivist, "ListRepairArchives", parent=desk.tree.parent).repair_archives[0] == found


@pytest.mark.rule("REP-28")
def test_archives_are_for_staff_of_the_estate(desk: Desk, elsewhere: Desk) -> None:
    repair = desk.at("FILED")
    for who in (desk.tree.owner, desk.tree.staff["SECURITY_GUARD"]):
        assert desk.refused(who, "GetRepairArchive", name=f"{repair.name}/archive").http == 403
        assert desk.refused(who, "ListRepairArchives", parent=desk.tree.parent).http == 403
    stranger = elsewhere.tree.staff["ARCHIVIST"]
    assert desk.refused(stranger, "GetRepairArchive", name=f"{repair.name}/archive").reason == "ESTATE_NOT_FOUND"
    assert desk.refused(desk.tree.staff["ARCHIVIST"], "GetRepairArchive", name=repair.name).reason == "NAME_NOT_FOUND"


@pytest.mark.rule("REP-28")
def test_a_signature_that_was_never_drawn_is_not_said_to_be_kept(desk: Desk) -> None:
    repair = desk.at("DONE")
    signed = desk.call(desk.tree.owner, "AcceptRepair", name=repair.name, rating={"attitude": 5, "quality": 5})
    assert not archive(desk, signed).documents[2].signed
    other = desk.at("DONE")
    desk.call(desk.tree.owner, "AcceptRepair", name=other.name, rating={"attitude": 5, "quality": 5}, signature=PNG)
    assert archive(desk, desk.now(other)).documents[2].signed
