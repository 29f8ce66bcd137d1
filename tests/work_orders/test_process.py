"""The procedure from survey to file over the real port: steps, consents, signatures, rework (REP-09…28)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis.testing import published
from steward.work_orders.v1 import repairs_pb2 as pb
from tests.work_orders.conftest import CHECKED, PNG, Desk, case_id, clock, instant, state

RATED = {"attitude": 5, "quality": 4, "comment": "谢谢师傅"}


def types(desk: Desk, repair: pb.Repair) -> list[str]:
    return [event.type for event in published(desk.database, case_id(repair))]


@pytest.mark.rule("REP-35", "REP-23")
def test_a_repair_goes_from_report_to_file_and_the_timeline_tells_it_all(desk: Desk) -> None:
    tree = desk.tree
    repair = desk.at("FILED")
    told = [(line.action, line.from_state, line.to_state, line.actor) for line in desk.history(repair)]
    assert told == [
        ("report", "", "REPORTED", tree.owner.name),
        ("take", "REPORTED", "TAKEN", tree.technician.name),
        ("arrive", "TAKEN", "ON_SITE", tree.technician.name),
        ("complete", "ON_SITE", "DONE", tree.technician.name),
        ("accept", "DONE", "ACCEPTED", tree.owner.name),
        ("file", "ACCEPTED", "FILED", tree.staff["CUSTOMER_ASSISTANT"].name),
    ]
    assert types(desk, repair) == ["RepairReported", "RepairTaken", "RepairArrived", "RepairCompleted", "RepairAccepted", "RepairFiled"]
    assert [event.sequence for event in published(desk.database, case_id(repair))] == [1, 2, 3, 4, 5, 6]
    assert desk.now(repair).etag == "6"


@pytest.mark.rule("REP-11")
def test_a_clear_report_goes_straight_to_dispatch_or_to_who_takes_it(desk: Desk) -> None:
    assert state(desk.step(desk.report())) == "TAKEN"
    order = desk.call(
        desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair", name=desk.report().name, technician=desk.tree.technician.name
    )
    assert state(order) == "DISPATCHED"


@pytest.mark.rule("REP-11", "REP-12")
@pytest.mark.parametrize("role", ["TECHNICIAN", "BUILDING_BUTLER", "ENGINEERING_SUPERVISOR"])
def test_an_unclear_report_is_surveyed_by_engineering_or_the_butler_who_propose_a_plan(desk: Desk, role: str) -> None:
    surveyed = desk.call(desk.tree.staff[role], "SurveyRepair", name=desk.report().name, repair_plan="更换整段水管，两人半天")
    assert (state(surveyed), surveyed.repair_plan) == ("SURVEYED", "更换整段水管，两人半天")
    assert types(desk, surveyed)[-1] == "RepairSurveyed"
    assert desk.refused(desk.tree.staff[role], "SurveyRepair", name=surveyed.name, repair_plan="再看一次").reason == "ILLEGAL_MOVE"
    assert state(desk.call(desk.tree.technician, "TakeRepair", name=surveyed.name)) == "TAKEN"


@pytest.mark.rule("REP-11")
def test_others_do_not_survey_and_a_survey_says_what_it_found(desk: Desk) -> None:
    repair = desk.report()
    for who in (desk.tree.owner, desk.tree.staff["CUSTOMER_ASSISTANT"], desk.tree.staff["SECURITY_GUARD"]):
        assert desk.refused(who, "SurveyRepair", name=repair.name, repair_plan="看过了").http == 403
    assert desk.refused(desk.tree.technician, "SurveyRepair", name=repair.name).fields == {"repair_plan"}


@pytest.mark.rule("REP-13")
def test_a_dispatch_carries_repairer_report_appointment_and_precautions(desk: Desk) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=9)
    repair = desk.report(location="厨房")
    order = desk.call(
        desk.tree.staff["CUSTOMER_ASSISTANT"], "DispatchRepair",
        name=repair.name, technician=desk.tree.technician.name, precautions="有狗，先关总阀", appointment_time=at,
    )  # fmt: skip
    assert (state(order), order.technician, order.precautions) == ("DISPATCHED", desk.tree.technician.name, "有狗，先关总阀")
    assert (instant(order.appointment_time), order.unit, order.location) == (at, desk.tree.unit, "厨房")
    assert instant(clock(order, "on_site").due_time) == at, "and it is due on site then"
    event = published(desk.database, case_id(order), "RepairDispatched")[0]
    assert (event.data["technician"], event.data["number"]) == (desk.tree.technician.name, repair.number)


@pytest.mark.rule("REP-13")
def test_a_dispatch_goes_to_a_technician_of_this_estate_only(desk: Desk, elsewhere: Desk) -> None:
    repair, dispatcher = desk.report(), desk.tree.staff["ENGINEERING_SUPERVISOR"]
    for nobody in (elsewhere.tree.technician.name, desk.tree.staff["SECURITY_GUARD"].name, f"staff/{uuid4()}"):
        answer = desk.refused(dispatcher, "DispatchRepair", name=repair.name, technician=nobody)
        assert (answer.http, answer.reason, answer.fields) == (400, "TECHNICIAN_NOT_FOUND", {"technician"})
    for nonsense in ("x", desk.tree.owner.name, "staff/"):
        assert desk.refused(dispatcher, "DispatchRepair", name=repair.name, technician=nonsense).http == 400
    past = datetime.now(UTC) - timedelta(minutes=1)
    answer = desk.refused(dispatcher, "DispatchRepair", name=repair.name, technician=desk.tree.technician.name, appointment_time=past)
    assert (answer.http, answer.fields) == (400, {"appointment_time"})
    assert state(desk.now(repair)) == "REPORTED"


@pytest.mark.rule("REP-13")
def test_a_dispatched_order_can_be_given_to_another_technician_before_it_is_collected(desk: Desk) -> None:
    dispatcher, other = desk.tree.staff["PROJECT_MANAGER"], desk.tree.hire(desk.database, "TECHNICIAN")
    repair = desk.report()
    for technician in (desk.tree.technician, other):
        desk.call(dispatcher, "DispatchRepair", name=repair.name, technician=technician.name)
    assert desk.refused(desk.tree.technician, "TakeRepair", name=repair.name).reason == "NOT_YOURS"
    assert desk.call(other, "TakeRepair", name=repair.name).technician == other.name


@pytest.mark.rule("REP-09")
def test_a_technician_signs_for_the_order_by_taking_it_and_others_cannot(desk: Desk) -> None:
    repair = desk.report()
    for who in (desk.tree.owner, desk.tree.staff["CUSTOMER_ASSISTANT"], desk.tree.staff["ENGINEERING_SUPERVISOR"]):
        assert desk.refused(who, "TakeRepair", name=repair.name).http == 403
    taken = desk.call(desk.tree.technician, "TakeRepair", name=repair.name)
    assert (taken.technician, clock(taken, "pickup").breached) == (desk.tree.technician.name, False)
    assert clock(taken, "pickup").HasField("stop_time")
    other = desk.tree.hire(desk.database, "TECHNICIAN")
    assert desk.refused(other, "TakeRepair", name=repair.name).reason == "ILLEGAL_MOVE"


@pytest.mark.rule("REP-09", "REP-10")
def test_an_order_that_is_given_back_is_open_to_all_and_its_pick_up_clock_starts_anew(desk: Desk) -> None:
    taken, other = desk.at("TAKEN"), desk.tree.hire(desk.database, "TECHNICIAN")
    assert desk.refused(other, "ReturnRepair", name=taken.name, reason="不归我").reason == "NOT_YOURS"
    assert desk.refused(desk.tree.technician, "ReturnRepair", name=taken.name).fields == {"reason"}
    back = desk.call(desk.tree.technician, "ReturnRepair", name=taken.name, reason="缺配件")
    assert (state(back), back.technician) == ("REPORTED", "")
    assert [c.HasField("stop_time") for c in back.clocks if c.clock == "pickup"] == [True, False]
    assert desk.history(back)[-1].note == "缺配件"
    assert desk.call(other, "TakeRepair", name=back.name).technician == other.name
    assert state(desk.call(desk.tree.staff["ENGINEERING_SUPERVISOR"], "ReturnRepair", name=back.name, reason="另派")) == "REPORTED"


def test_only_the_technician_of_the_order_arrives_and_the_first_arrival_stays(desk: Desk) -> None:
    taken, other = desk.at("TAKEN"), desk.tree.hire(desk.database, "TECHNICIAN")
    assert desk.refused(other, "ArriveRepair", name=taken.name).reason == "NOT_YOURS"
    arrived = desk.call(desk.tree.technician, "ArriveRepair", name=taken.name)
    assert state(arrived) == "ON_SITE"
    assert clock(arrived, "on_site").HasField("stop_time")
    done = desk.carry(arrived, "DONE")
    desk.call(desk.tree.owner, "RejectRepair", name=done.name, reason="还漏")
    again = desk.call(desk.tree.technician, "ArriveRepair", name=done.name)
    assert instant(again.arrival_time) == instant(arrived.arrival_time)


def charge(desk: Desk, repair: pb.Repair, yuan: int = 35, cents: int = 50, quantity: int = 2) -> pb.Repair:
    price = {"currency_code": "CNY", "units": yuan, "nanos": cents * 10_000_000}
    return desk.call(
        desk.tree.technician,
        "ChargeRepair",
        name=repair.name,
        charge={"item": "角阀", "quantity": quantity, "unit_price": price, "reason": "老化更换，单价表第12项"},
    )


@pytest.mark.rule("REP-05", "REP-15")
def test_a_chargeable_item_has_price_and_reason_and_work_is_not_finished_before_the_household_agreed(desk: Desk) -> None:
    repair = charge(desk, desk.at("ON_SITE"))
    assert (repair.charge_total.units, repair.charge_total.nanos) == (71, 0)
    assert (repair.charges[0].item, repair.charges[0].reason) == ("角阀", "老化更换，单价表第12项")
    answer = desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, work_done="换了阀门", self_check=CHECKED)
    assert (answer.http, answer.reason, answer.rule) == (409, "CONSENT_MISSING", "REP-05")
    agreed = desk.call(desk.tree.owner, "ConsentRepair", name=repair.name)
    assert (agreed.consent.method, agreed.consent.given_by) == (pb.Consent.APP, desk.tree.owner.name)
    assert agreed.consent.HasField("give_time")
    dearer = charge(desk, agreed, yuan=12, cents=0, quantity=1)
    assert not dearer.HasField("consent"), "another price needs another consent"
    desk.call(desk.tree.residents["FAMILY_MEMBER"], "ConsentRepair", name=repair.name)
    done = desk.step(desk.now(repair))
    assert (state(done), done.charge_total.units) == ("DONE", 83)
    assert published(desk.database, case_id(done), "RepairCompleted")[0].data["chargeTotal"] == {"currencyCode": "CNY", "units": "83"}


@pytest.mark.rule("REP-05")
def test_a_charge_without_price_reason_or_quantity_is_refused(desk: Desk) -> None:
    repair = desk.at("ON_SITE")
    whole = {"item": "角阀", "quantity": 1, "unit_price": {"currency_code": "CNY", "units": 1}, "reason": "更换"}
    for field, wrong in (("item", ""), ("reason", ""), ("quantity", 0), ("quantity", 10_001)):
        answer = desk.refused(desk.tree.technician, "ChargeRepair", name=repair.name, charge=whole | {field: wrong})
        assert (answer.http, answer.fields) == (400, {f"charge.{field}"})
    for price in ({"units": -35}, {"nanos": 1}, {"units": 1, "currency_code": "USD"}, {"units": 10**15}):
        answer = desk.refused(desk.tree.technician, "ChargeRepair", name=repair.name, charge=whole | {"unit_price": price})
        assert (answer.http, answer.reason, answer.fields) == (400, "BAD_MONEY", {"charge.unit_price"})
    assert not desk.now(repair).charges


@pytest.mark.rule("REP-15")
def test_consent_is_given_by_an_occupant_or_recorded_by_the_orders_technician_with_how_and_by_whom(desk: Desk) -> None:
    repair = charge(desk, desk.at("ON_SITE"))
    assert desk.refused(desk.tree.neighbour, "ConsentRepair", name=repair.name).reason == "REPAIR_NOT_FOUND"
    assert desk.refused(desk.tree.staff["ENGINEERING_SUPERVISOR"], "ConsentRepair", name=repair.name).http == 403
    other = desk.tree.hire(desk.database, "TECHNICIAN")
    assert desk.refused(other, "ConsentRepair", name=repair.name, method="TELEPHONE", given_by="王女士").reason == "NOT_YOURS"
    for incomplete in ({}, {"method": "APP", "given_by": "王女士"}, {"method": "TELEPHONE"}):
        assert desk.refused(desk.tree.technician, "ConsentRepair", name=repair.name, **incomplete).rule == "REP-15"
    agreed = desk.call(desk.tree.technician, "ConsentRepair", name=repair.name, method="ON_PAPER", given_by="王女士")
    assert (agreed.consent.method, agreed.consent.given_by) == (pb.Consent.ON_PAPER, "王女士")


@pytest.mark.rule("REP-12", "REP-15")
def test_a_surveyed_plan_is_explained_and_agreed_to_before_the_work_is_finished(desk: Desk) -> None:
    surveyed = desk.call(desk.tree.technician, "SurveyRepair", name=desk.report().name, repair_plan="凿墙换管")
    desk.call(desk.tree.technician, "TakeRepair", name=surveyed.name)
    arrived = desk.call(desk.tree.technician, "ArriveRepair", name=surveyed.name)
    answer = desk.refused(desk.tree.technician, "CompleteRepair", name=arrived.name, work_done="换了", self_check=CHECKED)
    assert answer.reason == "CONSENT_MISSING"
    desk.call(desk.tree.owner, "ConsentRepair", name=arrived.name)
    assert state(desk.step(arrived)) == "DONE"


@pytest.mark.rule("REP-18")
@pytest.mark.parametrize("missing", ["fault_removed", "function_restored", "site_cleared"])
def test_work_is_finished_by_a_complete_self_check(desk: Desk, missing: str) -> None:
    repair = desk.at("ON_SITE")
    answer = desk.refused(
        desk.tree.technician, "CompleteRepair", name=repair.name, work_done="换了阀门", self_check=CHECKED | {missing: False}
    )
    assert (answer.http, answer.reason, answer.fields, answer.rule) == (400, "SELF_CHECK_INCOMPLETE", {f"self_check.{missing}"}, "REP-18")
    assert state(desk.now(repair)) == "ON_SITE"
    assert desk.step(repair).work_done == "换了阀门"


@pytest.mark.rule("REP-18")
def test_only_the_technician_of_the_order_finishes_it_and_says_what_he_did(desk: Desk) -> None:
    repair, other = desk.at("ON_SITE"), desk.tree.hire(desk.database, "TECHNICIAN")
    assert desk.refused(other, "CompleteRepair", name=repair.name, work_done="换了", self_check=CHECKED).reason == "NOT_YOURS"
    assert desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, self_check=CHECKED).fields == {"work_done"}
    assert desk.refused(desk.tree.technician, "CompleteRepair", name=repair.name, work_done="换了").fields == {"self_check"}


@pytest.mark.rule("REP-19", "REP-20")
@pytest.mark.parametrize("who", ["OWNER", "TENANT", "FAMILY_MEMBER"])
def test_any_occupant_accepts_signs_and_rates(desk: Desk, who: str) -> None:
    occupant = desk.tree.residents[who]
    accepted = desk.call(occupant, "AcceptRepair", name=desk.at("DONE").name, rating=RATED, signature=PNG)
    assert (state(accepted), accepted.signed_by) == ("ACCEPTED", occupant.name)
    assert (accepted.rating.attitude, accepted.rating.quality, accepted.rating.comment) == (5, 4, "谢谢师傅")
    assert not clock(accepted, "resolve").breached
    assert clock(accepted, "resolve").HasField("stop_time")
    with desk.database.read() as tx:
        rows = tx.execute(
            "SELECT content, content_type, purpose, created_by FROM attachments WHERE aggregate_id = %s", (case_id(accepted),)
        )
    assert [(bytes(row[0]), *row[1:]) for row in rows] == [(PNG, "image/png", "signature", occupant.name)]
    event = published(desk.database, case_id(accepted), "RepairAccepted")[0]
    assert (event.data["firstPass"], event.data["attitude"], event.data["quality"]) == (True, 5, 4)


@pytest.mark.rule("REP-19")
@pytest.mark.parametrize(("attitude", "quality"), [(0, 5), (5, 0), (6, 5), (5, 6), (-1, 3)])
def test_ratings_go_from_one_to_five(desk: Desk, attitude: int, quality: int) -> None:
    repair = desk.at("DONE")
    answer = desk.refused(desk.tree.owner, "AcceptRepair", name=repair.name, rating={"attitude": attitude, "quality": quality})
    assert (answer.http, len(answer.fields)) == (400, 1)
    for rating in ({"attitude": 1, "quality": 5}, {"attitude": 5, "quality": 1}):
        assert state(desk.call(desk.tree.owner, "AcceptRepair", name=desk.at("DONE").name, rating=rating)) == "ACCEPTED"


@pytest.mark.rule("REP-19")
def test_nobody_but_the_household_accepts_a_repair_in_its_unit(desk: Desk) -> None:
    repair = desk.at("DONE")
    assert desk.refused(desk.tree.neighbour, "AcceptRepair", name=repair.name, rating=RATED).reason == "REPAIR_NOT_FOUND"
    other = desk.tree.hire(desk.database, "TECHNICIAN")
    for who in (other, desk.tree.staff["ENGINEERING_SUPERVISOR"], desk.tree.staff["PROJECT_MANAGER"]):
        assert desk.refused(who, "AcceptRepair", name=repair.name, rating=RATED, signature=PNG, signed_by="王女士").reason == "NOT_YOURS"
    assert desk.refused(desk.tree.staff["SECURITY_GUARD"], "AcceptRepair", name=repair.name, rating=RATED).reason == "ROLE_REQUIRED"


@pytest.mark.rule("REP-20")
@pytest.mark.parametrize("role", ["TECHNICIAN", "CUSTOMER_ASSISTANT"])
def test_staff_record_an_occupants_acceptance_with_his_signature_and_name(desk: Desk, role: str) -> None:
    repair, who = desk.at("DONE"), desk.tree.staff[role]
    for incomplete in ({}, {"signature": PNG}, {"signed_by": "王女士"}):
        answer = desk.refused(who, "AcceptRepair", name=repair.name, rating=RATED, **incomplete)
        assert (answer.http, answer.reason, answer.rule) == (400, "SIGNATURE_REQUIRED", "REP-20")
    assert desk.call(who, "AcceptRepair", name=repair.name, rating=RATED, signature=PNG, signed_by="王女士").signed_by == "王女士"


@pytest.mark.rule("REP-19")
def test_a_signature_is_a_png_of_at_most_64_kib(desk: Desk) -> None:
    repair = desk.at("DONE")
    for wrong, reason in ((b"GIF89a", "SIGNATURE_INVALID"), (PNG + b"x" * 65_536, "INVALID_INPUT")):
        answer = desk.refused(desk.tree.owner, "AcceptRepair", name=repair.name, rating=RATED, signature=wrong)
        assert (answer.http, answer.reason, answer.fields) == (400, reason, {"signature"})
    assert state(desk.now(repair)) == "DONE", "nothing is half accepted"
    largest = PNG + b"x" * (65_536 - len(PNG))
    assert state(desk.call(desk.tree.owner, "AcceptRepair", name=repair.name, rating=RATED, signature=largest)) == "ACCEPTED"


@pytest.mark.rule("REP-21")
def test_a_household_that_objects_gets_rework_until_it_is_satisfied(desk: Desk) -> None:
    repair = desk.at("DONE")
    assert desk.refused(desk.tree.owner, "RejectRepair", name=repair.name).fields == {"reason"}
    assert desk.refused(desk.tree.neighbour, "RejectRepair", name=repair.name, reason="还在滴水").reason == "REPAIR_NOT_FOUND"
    assert desk.refused(desk.tree.technician, "RejectRepair", name=repair.name, reason="还在滴水").http == 403
    for times, who in ((1, desk.tree.owner), (2, desk.tree.staff["CUSTOMER_ASSISTANT"])):
        again = desk.call(who, "RejectRepair", name=repair.name, reason="还在滴水")
        assert (state(again), again.rework_count) == ("REWORK", times)
        desk.carry(again, "DONE")
    accepted = desk.step(desk.now(repair))
    assert state(accepted) == "ACCEPTED"
    assert [event.data["reworkCount"] for event in published(desk.database, case_id(repair), "RepairRejected")] == [1, 2]
    assert "firstPass" not in published(desk.database, case_id(repair), "RepairAccepted")[0].data, "false, that is"
    assert [line.note for line in desk.history(repair) if line.action == "reject"] == ["还在滴水"] * 2


@pytest.mark.rule("REP-22")
def test_a_repair_in_a_public_area_is_accepted_by_the_responsible_manager_alone(desk: Desk) -> None:
    for role in ("ENGINEERING_SUPERVISOR", "PROJECT_MANAGER"):
        repair = desk.carry(desk.in_public(), "DONE")
        for who in (desk.tree.technician, desk.tree.staff["CUSTOMER_ASSISTANT"]):
            assert desk.refused(who, "AcceptRepair", name=repair.name, rating=RATED, signature=PNG, signed_by="x").reason == "NOT_YOURS"
        assert desk.refused(desk.tree.owner, "AcceptRepair", name=repair.name, rating=RATED).reason == "REPAIR_NOT_FOUND"
        back = desk.call(desk.tree.staff[role], "RejectRepair", name=repair.name, reason="灯还不亮")
        accepted = desk.call(desk.tree.staff[role], "AcceptRepair", name=desk.carry(back, "DONE").name, rating=RATED)
        assert (state(accepted), accepted.signed_by) == ("ACCEPTED", desk.tree.staff[role].name)


@pytest.mark.rule("REP-23", "REP-24")
@pytest.mark.parametrize("role", ["CUSTOMER_ASSISTANT", "EARLY_SHIFT_CLERK", "ARCHIVIST"])
def test_the_accepted_order_comes_back_to_customer_service_who_records_and_files_it(desk: Desk, role: str) -> None:
    accepted = desk.at("ACCEPTED")
    for who in (desk.tree.owner, desk.tree.technician, desk.tree.staff["PROJECT_MANAGER"]):
        assert desk.refused(who, "FileRepair", name=accepted.name).http == 403
    filed = desk.call(desk.tree.staff[role], "FileRepair", name=accepted.name, note="纸质单已归档")
    last = desk.history(filed)[-1]
    assert (state(filed), last.actor, last.note) == ("FILED", desk.tree.staff[role].name, "纸质单已归档")
    assert types(desk, filed)[-1] == "RepairFiled"


@pytest.mark.rule("REP-23")
def test_an_order_that_is_not_accepted_yet_cannot_be_filed(desk: Desk) -> None:
    for before in ("REPORTED", "TAKEN", "ON_SITE", "DONE"):
        answer = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "FileRepair", name=desk.at(before).name)
        assert (answer.http, answer.reason) == (409, "ILLEGAL_MOVE")


@pytest.mark.rule("REP-35")
def test_a_report_is_withdrawn_by_its_reporter_or_the_desk_with_a_reason_before_work_has_begun(desk: Desk) -> None:
    repair = desk.report()
    assert desk.refused(desk.tree.owner, "CancelRepair", name=repair.name).fields == {"reason"}
    assert desk.refused(desk.tree.residents["TENANT"], "CancelRepair", name=repair.name, reason="不用了").reason == "NOT_YOURS"
    cancelled = desk.call(desk.tree.owner, "CancelRepair", name=repair.name, reason="自己修好了")
    assert (state(cancelled), cancelled.cancel_reason) == ("CANCELLED", "自己修好了")
    assert all(c.HasField("stop_time") for c in cancelled.clocks)
    desk.call(desk.tree.staff["CS_SUPERVISOR"], "CancelRepair", name=desk.at("TAKEN").name, reason="重复报修")
    assert desk.refused(desk.tree.owner, "CancelRepair", name=desk.at("ON_SITE").name, reason="不用了").reason == "ILLEGAL_MOVE"


@pytest.mark.rule("REP-10")
def test_the_household_or_the_desk_for_it_may_urge_but_not_every_minute(desk: Desk) -> None:
    repair = desk.report()
    urged = desk.call(desk.tree.owner, "UrgeRepair", name=repair.name, note="水已漫到客厅")
    assert urged.urge_count == 1
    answer = desk.refused(desk.tree.staff["CUSTOMER_ASSISTANT"], "UrgeRepair", name=repair.name)
    assert (answer.http, answer.reason, answer.rule) == (409, "URGED_ALREADY", "REP-10")
    assert desk.refused(desk.tree.technician, "UrgeRepair", name=repair.name).http == 403
    assert published(desk.database, case_id(repair), "RepairUrged")[0].data["urgeCount"] == 1


@pytest.mark.rule("REP-17")
def test_a_change_of_plan_on_site_is_recorded_told_and_consented_to_anew(desk: Desk) -> None:
    repair = charge(desk, desk.at("ON_SITE"))
    desk.call(desk.tree.owner, "ConsentRepair", name=repair.name)
    changed = desk.call(desk.tree.technician, "ReplanRepair", name=repair.name, repair_plan="墙内另有渗漏，须凿墙")
    assert (changed.repair_plan, changed.HasField("consent")) == ("墙内另有渗漏，须凿墙", False)
    assert published(desk.database, case_id(repair), "RepairReplanned")[0].data["reporter"] == desk.tree.owner.name
    other = desk.tree.hire(desk.database, "TECHNICIAN")
    assert desk.refused(other, "ReplanRepair", name=repair.name, repair_plan="另一计划").reason == "NOT_YOURS"


@pytest.mark.rule("REP-13")
def test_an_order_is_handed_to_another_technician_who_has_to_collect_it(desk: Desk) -> None:
    repair, other = desk.at("ON_SITE"), desk.tree.hire(desk.database, "TECHNICIAN")
    moved = desk.call(desk.tree.technician, "TransferRepair", name=repair.name, technician=other.name, reason="交班")
    assert (state(moved), moved.technician) == ("DISPATCHED", other.name)
    assert not clock(moved, "pickup").HasField("stop_time"), "his pick-up is timed"
    assert desk.refused(desk.tree.technician, "TakeRepair", name=repair.name).reason == "NOT_YOURS"
    assert desk.call(other, "TakeRepair", name=repair.name).technician == other.name


@pytest.mark.rule("REP-35")
def test_a_comment_is_a_line_of_the_timeline_and_changes_nothing_else(desk: Desk) -> None:
    repair = desk.at("TAKEN")
    for who in (desk.tree.owner, desk.tree.technician):
        desk.call(who, "CommentRepair", name=repair.name, text="请带手电")
    now = desk.now(repair)
    assert (state(now), now.technician) == ("TAKEN", desk.tree.technician.name)
    assert [(line.action, line.note) for line in desk.history(repair)][-2:] == [("comment", "请带手电")] * 2


# --- every step from every state ---------------------------------------------------------------------------------------

STEPS: dict[str, tuple[str, dict[str, Any], set[str]]] = {  # rpc → (who, fields, states from which it is legal on the main line)
    "SurveyRepair": ("ENGINEERING_SUPERVISOR", {"repair_plan": "更换"}, {"REPORTED"}),
    "DispatchRepair": ("CUSTOMER_ASSISTANT", {"technician": "TECHNICIAN"}, {"REPORTED"}),
    "TakeRepair": ("TECHNICIAN", {}, {"REPORTED"}),
    "ArriveRepair": ("TECHNICIAN", {}, {"TAKEN"}),
    "ConsentRepair": ("OWNER", {}, {"ON_SITE"}),
    "CompleteRepair": ("TECHNICIAN", {"work_done": "换了", "self_check": CHECKED}, {"ON_SITE"}),
    "AcceptRepair": ("OWNER", {"rating": {"attitude": 5, "quality": 5}}, {"DONE"}),
    "RejectRepair": ("OWNER", {"reason": "还漏"}, {"DONE"}),
    "FileRepair": ("CUSTOMER_ASSISTANT", {}, {"ACCEPTED"}),
    "CancelRepair": ("OWNER", {"reason": "不用了"}, {"REPORTED", "TAKEN"}),
    "ReturnRepair": ("ENGINEERING_SUPERVISOR", {"reason": "缺料"}, {"TAKEN"}),
}


@pytest.mark.rule("REP-35")
@pytest.mark.parametrize("at", ["REPORTED", "TAKEN", "ON_SITE", "DONE", "ACCEPTED", "FILED"])
def test_a_step_is_possible_from_its_own_states_and_refused_from_every_other(desk: Desk, at: str) -> None:
    repair = desk.at(at)
    for rpc, (role, fields, legal) in STEPS.items():
        if at in legal:
            continue
        named = {"technician": desk.tree.technician.name} if "technician" in fields else {}
        answer = desk.refused(desk.tree.by_role(role), rpc, name=repair.name, **(fields | named))
        assert (answer.http, answer.reason) == (409, "ILLEGAL_MOVE"), f"{rpc} at {at}"
    assert desk.now(repair) == repair, "and nothing has changed"


def test_a_stale_etag_is_refused_and_the_right_one_is_not(desk: Desk) -> None:
    repair = desk.report()
    desk.call(desk.tree.owner, "CommentRepair", name=repair.name, text="等等")
    answer = desk.refused(desk.tree.technician, "TakeRepair", name=repair.name, etag=repair.etag)
    assert (answer.http, answer.reason) == (412, "STALE_ETAG")
    assert state(desk.call(desk.tree.technician, "TakeRepair", name=repair.name, etag=desk.now(repair).etag)) == "TAKEN"


def test_a_name_with_a_case_of_another_estate_is_not_found_by_whoever_may_see_both(desk: Desk, elsewhere: Desk) -> None:
    repair = desk.report()
    moved = repair.name.replace(desk.tree.code, elsewhere.tree.code)
    assert desk.refused(elsewhere.tree.technician, "TakeRepair", name=moved).reason == "REPAIR_NOT_FOUND"
    assert desk.refused(elsewhere.tree.technician, "TakeRepair", name=repair.name).reason == "ESTATE_NOT_FOUND"
    assert UUID(case_id(repair))
