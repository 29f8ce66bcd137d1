"""The gRPC server: what it refuses to start without, the order of its checks, and how it behaves when too much comes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2

import services.probe.api
from services.chassis import access, directory, rpc
from services.chassis.access import Grant
from services.chassis.db import Database
from services.chassis.errors import TABLE, InvalidInput, StewardError, Unavailable, Violation
from services.chassis.rpc import Client, Server, estate_code, fill_directory, operations, snake
from services.chassis.settings import settings
from services.chassis.testing import INTERNAL, Api, Caller, Refused, Tree, a_tree, configured, eventually, published, serving
from steward.probe.v1 import probe_pb2 as pb
from steward.residents.v1 import directory_pb2
from tests.chassis.conftest import killing
from tests.conftest import Databases, Postgres


def refusal(api: Api, who: Caller | str | None, rpc: str, /, **fields: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        api.call(who, rpc, **fields)
    return refused.value


def created(api: Api, tree: Tree, **probe: Any) -> pb.Probe:
    return api.call(tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"} | probe)


# --- binding -----------------------------------------------------------------------------------------------------------


def test_every_rpc_is_a_function_of_its_name(database: Database) -> None:
    assert {operation.function.__name__ for operation in operations("probe")} == {snake(method) for method in Api("probe", 1).methods}
    assert snake("DispatchRepair") == "dispatch_repair"


def test_the_server_does_not_start_when_a_function_is_missing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(services.probe.api, "start_probe")
    with pytest.raises(LookupError, match=r"services\.probe\.api has no start_probe for steward\.probe\.v1\.Probes\.StartProbe"):
        Server(["probe"])


def test_the_server_does_not_start_when_an_access_rule_is_missing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    check = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
    assert access.declared(check) is None, "an RPC without the option declares nothing"
    monkeypatch.setattr(rpc, "declared", lambda method: None if method.name == "GetProbe" else access.declared(method))
    with pytest.raises(LookupError, match=r"steward\.probe\.v1\.Probes\.GetProbe declares no access rule"):
        Server(["probe"])


def test_an_operation_that_does_not_exist_is_unimplemented(api: Api, tree: Tree) -> None:
    stub = api._channel.unary_unary("/steward.probe.v1.Probes/DropProbe")
    with pytest.raises(grpc.RpcError) as refused:
        stub(b"", timeout=5)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


# --- the order of checks -----------------------------------------------------------------------------------------------


def test_the_order_of_checks_is_401_403_404_412_400_409_each_shown_by_a_request_wrong_in_every_later_way(
    api: Api, tree: Tree, database: Database
) -> None:
    probe = created(api, tree)
    api.call(tree.technician, "StartProbe", name=probe.name, effort=1)  # not NEW any more
    foreign = created(api, a_tree(database))
    ours = foreign.name.replace(foreign.name.split("/")[1], tree.code)  # our estate, their probe
    worst = {"effort": 99, "etag": "stale"}
    answers = [
        refusal(api, None, "StartProbe", name=foreign.name, **worst),
        refusal(api, tree.owner, "StartProbe", name=foreign.name, **worst),
        refusal(api, tree.technician, "StartProbe", name=foreign.name, **worst),
        refusal(api, tree.technician, "StartProbe", name=ours, **worst),
        refusal(api, tree.technician, "StartProbe", name=probe.name, **worst),
        refusal(api, tree.technician, "StartProbe", name=probe.name, effort=99, etag="2"),
        refusal(api, tree.technician, "StartProbe", name=probe.name, effort=1, etag="2"),
    ]
    assert [(answer.http, answer.reason) for answer in answers] == [
        (401, "UNAUTHENTICATED"),
        (403, "ROLE_REQUIRED"),
        (404, "ESTATE_NOT_FOUND"),
        (404, "PROBE_NOT_FOUND"),
        (412, "STALE_ETAG"),
        (400, "INVALID_INPUT"),
        (409, "ILLEGAL_MOVE"),
    ]
    assert [answer.code for answer in answers] == [
        "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "NOT_FOUND", "ABORTED", "INVALID_ARGUMENT", "FAILED_PRECONDITION",
    ]  # fmt: skip


def test_a_request_that_creates_something_is_checked_before_anything_is_done(api: Api, tree: Tree) -> None:
    answer = refusal(api, tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "x", "unit": "no such unit"})
    assert (answer.http, answer.fields) == (400, {"probe.title"})
    assert refusal(api, tree.technician, "CreateProbe", parent=tree.parent).fields == {"probe"}


@pytest.mark.parametrize("token", ["forged", "a.b.c", "", "x" * 5000])
def test_a_token_that_is_none_is_401(api: Api, tree: Tree, token: str) -> None:
    assert refusal(api, token, "GetSelf").http == 401


def test_an_expired_token_is_401(api: Api, tree: Tree) -> None:
    token, _ = access.sign(tree.technician.principal, lifetime=-1)
    assert refusal(api, token, "GetSelf").reason == "IDENTITY_EXPIRED"


@pytest.mark.parametrize("name", ["probes/1", "estates", "estates/", "", "x", "/", "estates//probes/1"])
def test_a_name_without_an_estate_is_bad_input(api: Api, tree: Tree, name: str) -> None:
    answer = refusal(api, tree.technician, "GetProbe", name=name)
    assert (answer.http, answer.fields) == (400, {"name"})


@pytest.mark.parametrize("code", ["NONE", "' OR 1=1", "𬭎", "%", "\x00", "x" * 10_000, "../../etc"])
def test_an_estate_that_does_not_exist_is_404_whatever_it_is_called(api: Api, tree: Tree, code: str) -> None:
    answer = refusal(api, tree.technician, "GetProbe", name=f"estates/{code}/probes/{uuid4()}")
    assert (answer.http, answer.reason) in [(404, "ESTATE_NOT_FOUND"), (400, "INVALID_INPUT")]


@pytest.mark.parametrize("probe", ["x", "", str(uuid4()), "\x00", "0", "𬭎", "1; DROP TABLE probes"])
def test_a_case_that_does_not_exist_is_404(api: Api, tree: Tree, probe: str) -> None:
    answer = refusal(api, tree.technician, "GetProbe", name=f"{tree.parent}/probes/{probe}")
    assert answer.http in (404, 400)
    assert answer.reason in ("PROBE_NOT_FOUND", "INVALID_INPUT")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"title": "a\x00b"}, "probe.title"),
        ({"create_time": {"seconds": -1}}, "probe.create_time"),
        ({"create_time": {"seconds": 4_102_444_800}}, "probe.create_time"),
        ({"create_time": {"nanos": -1}}, "probe.create_time"),
        ({"create_time": {"seconds": 2**62}}, "probe.create_time"),
        ({"title": "x" * 101}, "probe.title"),
    ],
)
def test_what_no_database_can_hold_is_bad_input_and_never_a_500(api: Api, tree: Tree, fields: dict[str, Any], wrong: str) -> None:
    answer = refusal(api, tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"} | fields)
    assert (answer.http, wrong in answer.fields) == (400, True), answer


def test_an_error_with_more_to_say_than_fits_the_trailers_still_arrives(api: Api, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(request: Any, tx: Any) -> None:
        raise InvalidInput("长" * 5000, violations=[Violation(f"rows[{n}]", "不对" * 20) for n in range(2000)])

    monkeypatch.setattr(services.probe.api, "get_self", raises)
    with serving("probe") as (_, fresh):
        answers = [refusal(fresh, tree.technician, "GetSelf") for _ in range(20)]  # over the soft limit some would be dropped by chance
    assert {(answer.http, answer.reason, len(answer.message)) for answer in answers} == {(400, "INVALID_INPUT", 200)}
    assert answers[0].violations[0] == Violation("rows[0]", "不对" * 20)
    assert len(answers[0].violations) > 10


def test_rare_characters_are_kept(api: Api, tree: Tree) -> None:
    title = "𬭎㛃 👩‍🔧 \u202edrip"
    assert api.call(tree.technician, "GetProbe", name=created(api, tree, title=title).name).title == title


# --- who ---------------------------------------------------------------------------------------------------------------


def test_an_operation_between_processes_needs_the_internal_token(api: Api, tree: Tree) -> None:
    assert api.call(INTERNAL, "ExchangeProbe").count == 1
    for who in (None, tree.staff["GENERAL_MANAGER"], tree.technician):
        assert (refusal(api, who, "ExchangeProbe").http, refusal(api, who, "ExchangeProbe").reason) == (401, "INTERNAL_ONLY")
    with configured(internal_token="another"):  # noqa: S106
        assert refusal(api, INTERNAL, "ExchangeProbe").http == 401


def test_without_an_internal_token_in_the_settings_nobody_is_internal(database: Database) -> None:
    with configured(internal_token=None), serving("probe") as (_, api):
        for metadata in ((), (("x-steward-internal", ""),)):
            with pytest.raises(grpc.RpcError) as refused:
                api._channel.unary_unary("/steward.probe.v1.Probes/ExchangeProbe")(b"", timeout=5, metadata=metadata)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_the_internal_token_opens_nothing_that_people_do(api: Api, tree: Tree) -> None:
    assert refusal(api, INTERNAL, "GetProbe", name=f"{tree.parent}/probes/{uuid4()}").http == 401


def test_an_operation_about_oneself_needs_no_role(api: Api) -> None:
    nobody = Caller("people", uuid4())
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    reply = api.call(nobody, "GetSelf", trace=trace)
    assert (reply.name, reply.trace) == (nobody.name, trace)


def test_an_operation_of_the_group_needs_the_role_at_the_group(api: Api, tree: Tree, database: Database) -> None:
    created(api, tree)
    created(api, a_tree(database, beside=tree))
    created(api, a_tree(database))
    assert api.call(tree.staff["GROUP_OPERATIONS"], "CountProbes").count == 2, "of both its estates and of no other group"
    below = tree.hire(database, "TECHNICIAN")
    below = replace(below, grants=(Grant("GROUP_OPERATIONS", "estate", tree.estate_id),))
    entry = directory_pb2.Post(staff_id=str(below.id), role="GROUP_OPERATIONS", node_id=str(tree.estate_id))  # type: ignore[arg-type]
    with database.transaction() as tx:
        directory.apply(tx, [directory_pb2.DirectoryEntry(id=str(uuid4()), version=1, post=entry)])
    assert refusal(api, below, "CountProbes").http == 403


def test_a_post_above_the_estate_counts_for_it_and_a_post_beside_it_does_not(api: Api, tree: Tree, database: Database) -> None:
    probe = created(api, tree)
    for level, node in (("company", tree.company_id), ("group", tree.group_id)):
        above = replace(tree.hire(database, "PROJECT_MANAGER"), grants=(Grant("PROJECT_MANAGER", level, node),))
        entry = directory_pb2.Post(staff_id=str(above.id), role="PROJECT_MANAGER", node_id=str(node))  # type: ignore[arg-type]
        with database.transaction() as tx:
            directory.apply(tx, [directory_pb2.DirectoryEntry(id=str(uuid4()), version=1, post=entry)])
        assert api.call(above, "GetProbe", name=probe.name).name == probe.name
    sister = a_tree(database, beside=tree)
    assert refusal(api, sister.staff["PROJECT_MANAGER"], "GetProbe", name=probe.name).reason == "ESTATE_NOT_FOUND"


def test_the_dash_lists_every_estate_the_caller_may_see_and_no_other(api: Api, tree: Tree, database: Database) -> None:
    mine, strangers = created(api, tree), created(api, a_tree(database))
    names = [probe.name for probe in api.call(tree.technician, "ListProbes", parent="estates/-").probes]
    assert names == [mine.name]
    assert refusal(api, tree.technician, "ListProbes", parent="/".join(strangers.name.split("/")[:2])).http == 404


def test_a_post_that_is_revoked_stops_although_the_identity_is_still_good(api: Api, tree: Tree, database: Database) -> None:
    technician = tree.hire(database, "TECHNICIAN")
    with database.transaction() as tx:
        tx.execute("UPDATE dir_posts SET deleted = true, version = 2 WHERE staff_id = %s", (technician.id,))
    answer = refusal(api, technician, "ListProbes", parent=tree.parent)
    assert (answer.http, answer.reason) == (403, "POST_REVOKED")


def test_a_revoked_post_stops_a_caller_of_the_last_seconds_soon(
    api: Api, tree: Tree, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    technician = tree.hire(database, "TECHNICIAN")
    api.call(technician, "ListProbes", parent=tree.parent)
    with database.transaction() as tx:
        tx.execute("UPDATE dir_posts SET deleted = true, version = 2 WHERE staff_id = %s", (technician.id,))
    later = time.monotonic() + 30
    monkeypatch.setattr(rpc.time, "monotonic", lambda: later)
    assert refusal(api, technician, "ListProbes", parent=tree.parent).reason == "POST_REVOKED"


def test_a_resident_gets_his_own_and_of_others_not_even_that_it_exists(api: Api, tree: Tree) -> None:
    mine = api.call(tree.owner, "CreateProbe", parent=tree.parent, probe={"title": "mine"})
    his = api.call(tree.neighbour, "CreateProbe", parent=tree.parent, probe={"title": "his"})
    assert [probe.name for probe in api.call(tree.owner, "ListProbes", parent=tree.parent).probes] == [mine.name]
    assert refusal(api, tree.owner, "GetProbe", name=his.name).reason == "PROBE_NOT_FOUND"


# --- commands ----------------------------------------------------------------------------------------------------------


def test_a_repeated_command_gets_the_stored_reply_and_another_body_is_refused(api: Api, tree: Tree, database: Database) -> None:
    key = str(uuid4())
    first = api.call(tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"}, request_id=key)
    assert api.call(tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"}, request_id=key) == first
    answer = refusal(api, tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drop"}, request_id=key)
    assert (answer.http, answer.reason, answer.code) == (422, "IDEMPOTENCY_KEY_REUSED", "ALREADY_EXISTS")
    assert len(api.call(tree.technician, "ListProbes", parent=tree.parent).probes) == 1


def test_a_repeated_command_is_authorised_again(api: Api, tree: Tree, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    technician, key = tree.hire(database, "TECHNICIAN"), str(uuid4())
    api.call(technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"}, request_id=key)
    with database.transaction() as tx:
        tx.execute("UPDATE dir_posts SET deleted = true, version = 2 WHERE staff_id = %s", (technician.id,))
    later = time.monotonic() + 30
    monkeypatch.setattr(rpc.time, "monotonic", lambda: later)
    assert refusal(api, technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"}, request_id=key).http == 403


def test_repeats_at_the_same_time_have_one_effect(api: Api, tree: Tree) -> None:
    key = str(uuid4())
    with ThreadPoolExecutor(12) as threads:
        calls = [
            threads.submit(api.call, tree.technician, "CreateProbe", parent=tree.parent, probe={"title": "drip"}, request_id=key)
            for _ in range(12)
        ]
    assert len({call.result().name for call in calls}) == 1
    assert len(api.call(tree.technician, "ListProbes", parent=tree.parent).probes) == 1


def test_a_refused_command_leaves_its_key_free(api: Api, tree: Tree) -> None:
    probe, key = created(api, tree), str(uuid4())
    assert refusal(api, tree.technician, "StartProbe", name=probe.name, effort=1, etag="7", request_id=key).http == 412
    assert api.call(tree.technician, "StartProbe", name=probe.name, effort=1, etag=probe.etag, request_id=key).state == "STARTED"


def test_a_key_that_no_column_can_hold_is_bad_input(api: Api, tree: Tree) -> None:
    probe = created(api, tree)
    for operation, fields in (
        ("StartProbe", {"name": probe.name, "effort": 1}),
        ("CreateProbe", {"parent": tree.parent, "probe": {"title": "drip"}}),
    ):
        answer = refusal(api, tree.technician, operation, request_id="\x00", **fields)
        assert (answer.http, answer.fields) == (400, {"request_id"})


def test_what_the_request_brought_stands_in_event_and_history(api: Api, tree: Tree, database: Database) -> None:
    trace, key = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", str(uuid4())
    probe = api.call(tree.technician, "CreateProbe", trace=trace, parent=tree.parent, probe={"title": "drip"}, request_id=key)
    [event] = published(database, probe.name.split("/")[-1])
    assert (event.trace, event.actor, event.data["number"]) == (trace, tree.technician.name, probe.number)
    with database.read() as tx:
        assert tx.execute("SELECT request_id FROM history WHERE aggregate_id = %s", (probe.name.split("/")[-1],)) == [(key,)]


# --- trouble -----------------------------------------------------------------------------------------------------------


def test_a_mistake_of_ours_is_a_500_that_says_nothing_and_is_logged(api: Api, tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = refusal(api, tree.technician, "BreakProbe", name=f"{tree.parent}/probes/x")
    assert (answer.http, answer.code) == (500, "INTERNAL")
    assert "secret details" not in str(answer)
    assert "secret details" in caplog.text


def test_more_than_the_server_takes_is_refused_at_once_and_the_rest_is_answered(database: Database, tree: Tree) -> None:
    with configured(api_threads=2, api_queue=2), serving("probe") as (_, api), ThreadPoolExecutor(12) as threads:
        start = time.monotonic()
        calls = [threads.submit(api.call, tree.technician, "SleepProbe", parent=tree.parent, seconds=0.5) for _ in range(12)]
        answers = []
        for call in calls:
            try:
                answers.append(call.result().title)
            except Refused as refused:
                answers.append(refused.code)
        assert 2 <= answers.count("awake") <= 5
        assert answers.count("awake") + answers.count("RESOURCE_EXHAUSTED") == 12
        assert time.monotonic() - start < 5
        assert api.call(tree.technician, "SleepProbe", parent=tree.parent).title == "awake", "and it goes on"


def test_the_deadline_of_the_call_ends_its_statement_in_the_database(api: Api, tree: Tree, postgres: Postgres) -> None:
    start = time.monotonic()
    answer = refusal(api, tree.technician, "SleepProbe", parent=tree.parent, seconds=30.0, timeout=0.4)
    assert answer.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
    assert time.monotonic() - start < 2
    working = "SELECT pid FROM pg_stat_activity WHERE datname = 'probe' AND state = 'active' AND query LIKE '%pg_sleep(30%' AND pid <> pg_backend_pid()"
    eventually(lambda: not postgres.sql("probe", working), within=3)


def test_a_held_case_is_answered_with_503_and_when_to_come_back(api: Api, tree: Tree, database: Database) -> None:
    probe = created(api, tree)
    with database.transaction() as tx:
        tx.execute("SELECT 1 FROM probes WHERE id = %s FOR UPDATE", (probe.name.split("/")[-1],))
        answer = refusal(api, tree.technician, "StartProbe", name=probe.name, effort=1)
    assert (answer.http, answer.reason, answer.code, answer.retry_after) == (503, "LOCKED", "UNAVAILABLE", 1)


def test_a_database_that_goes_away_is_503_and_comes_back_without_a_restart(database: Database, tree: Tree, postgres: Postgres) -> None:
    at_work = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20%' AND pid <> pg_backend_pid()"
    with serving("probe") as (running, api), ThreadPoolExecutor(1) as threads:
        kill = killing(running.databases["probe"], postgres)
        sleeping = threads.submit(refusal, api, tree.technician, "SleepProbe", parent=tree.parent, seconds=20.0)
        eventually(lambda: postgres.sql("probe", at_work))
        kill()
        assert (sleeping.result().http, sleeping.result().reason) == (503, "DATABASE_DOWN")

        def works() -> bool:
            try:
                return bool(created(api, tree))
            except Refused as refused:
                assert refused.http == 503
                return False

        eventually(works, within=5)


def test_a_server_that_stops_finishes_what_it_works_on_and_takes_nothing_new(database: Database, tree: Tree) -> None:
    server = Server(["probe"])
    api = Api("probe", server.start())
    with ThreadPoolExecutor(2) as threads:
        working = threads.submit(api.call, tree.technician, "SleepProbe", parent=tree.parent, seconds=0.8)
        time.sleep(0.3)
        stopping = threads.submit(server.stop, 5)
        eventually(lambda: server.draining)
        time.sleep(0.1)
        assert server.why_not_ready() == "draining"
        assert refusal(api, tree.technician, "GetSelf", timeout=1).code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert working.result().title == "awake"
        stopping.result()
    api.close()


@pytest.mark.parametrize("error", TABLE, ids=lambda error: error.__name__)
def test_every_row_of_the_error_table_reaches_the_caller_whole(
    database: Database, tree: Tree, error: type[StewardError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(request: Any, tx: Any) -> None:
        raise error("a sentence, 一句话", reason="A_REASON", rule="CMP-14", retry_after=7)

    monkeypatch.setattr(services.probe.api, "get_self", raises)
    with serving("probe") as (_, api):
        answer = refusal(api, tree.technician, "GetSelf")
    assert (answer.code, answer.http, answer.reason, answer.rule, answer.retry_after) == (error.code, error.http, "A_REASON", "CMP-14", 7)
    assert answer.message == "a sentence, 一句话"


# --- readiness and the directory's first copy --------------------------------------------------------------------------


def test_a_server_is_ready_when_database_schema_and_directory_are(
    api: Api, server: tuple[Server, Api], tree: Tree, database: Database, postgres: Postgres
) -> None:
    running = server[0]
    assert running.why_not_ready() == ""
    postgres.sql("probe", "UPDATE dir_state SET filled_at = NULL")
    assert "directory has had no first copy" in running.why_not_ready()
    postgres.sql("probe", "UPDATE dir_state SET filled_at = now()")
    [(newest,)] = postgres.sql("probe", "SELECT version_num FROM schema_revisions")
    postgres.sql("probe", "UPDATE schema_revisions SET version_num = 'older'")
    assert f"the schema lacks {newest}" in running.why_not_ready()
    postgres.sql("probe", "UPDATE schema_revisions SET version_num = %s", (newest,))
    assert running.why_not_ready() == ""


@pytest.fixture
def residents() -> Iterator[tuple[int, list[Any]]]:
    """Something that answers as residents does: two pages of the directory. Its port, and what it was asked."""
    asked: list[Any] = []
    node = directory_pb2.Node(kind=directory_pb2.Node.ESTATE, code="ASKED", time_zone="Asia/Shanghai")
    entries = [directory_pb2.DirectoryEntry(id=str(uuid4()), version=1, node=node) for _ in range(2)]

    def answer(request: directory_pb2.ListEntriesRequest, context: grpc.ServicerContext) -> directory_pb2.ListEntriesResponse:
        asked.append((request, dict(context.invocation_metadata()).get("x-steward-internal")))
        page = int(request.page_token or 0)
        return directory_pb2.ListEntriesResponse(entries=[entries[page]], next_page_token="1" if page == 0 else "")

    stand_in = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        answer, directory_pb2.ListEntriesRequest.FromString, directory_pb2.ListEntriesResponse.SerializeToString
    )
    stand_in.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("steward.residents.v1.Directory", {"ListEntries": handler}),))
    port = stand_in.add_insecure_port("127.0.0.1:0")
    stand_in.start()
    yield port, asked
    stand_in.stop(0)


def test_an_empty_directory_fills_itself_page_by_page(database_of: Databases, residents: tuple[int, list[Any]]) -> None:
    port, asked = residents
    database = database_of("surveys")
    with database.transaction() as tx:
        tx.execute("UPDATE dir_state SET filled_at = NULL")
    client = Client("residents", replace(settings(), addresses={"residents": f"127.0.0.1:{port}"}))
    assert fill_directory(database, client) == 2
    assert fill_directory(database, client) == 2, "repeating it is harmless"
    assert [token for _, token in asked] == [settings().internal_token] * 4
    with database.read() as tx:
        assert directory.filled(tx)
        assert tx.execute("SELECT count(*) FROM dir_nodes WHERE code = 'ASKED'") == [(2,)]
    client.close()


def test_a_service_that_does_not_answer_is_unavailable_and_named(database: Database) -> None:
    client = Client("residents", replace(settings(), addresses={"residents": "127.0.0.1:1"}))
    start = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        fill_directory(database, client)
    assert (refused.value.reason, refused.value.http) == ("RESIDENTS_DOWN", 503)
    assert time.monotonic() - start < 5
    client.close()


def test_calls_go_round_all_addresses_of_a_service(residents: tuple[int, list[Any]]) -> None:
    port, asked = residents
    client = Client("residents", replace(settings(), addresses={"residents": f"127.0.0.1:{port};127.0.0.1:1"}))
    for _ in range(4):
        client.call("Directory", "ListEntries", directory_pb2.ListEntriesRequest(), directory_pb2.ListEntriesResponse.DESCRIPTOR)
    assert len(asked) == 4, "a dead address costs nothing while another answers"
    client.close()


@pytest.mark.parametrize(
    ("request_message", "code"),
    [
        (pb.GetProbeRequest(name="estates/TFHY/probes/1"), "TFHY"),
        (pb.ListProbesRequest(parent="estates/-"), "-"),
        (pb.CreateProbeRequest(parent="estates/TFHY", probe=pb.Probe(name="estates/OTHER/probes/1")), "TFHY"),
        (pb.CreateProbeRequest(probe=pb.Probe(name="estates/OTHER/probes/1")), "OTHER"),
        (pb.GetProbeRequest(name="probes/1"), None),
        (pb.GetSelfRequest(), None),
    ],
)
def test_the_estate_of_a_request_is_read_from_parent_or_name(request_message: Any, code: str | None) -> None:
    assert estate_code(request_message) == code


def test_answers_are_remembered_for_a_short_time_and_no_answer_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [100.0], []
    monkeypatch.setattr(rpc.time, "monotonic", lambda: now[0])
    recent = rpc.Recent(seconds=5, capacity=2)

    def ask(value: Any) -> Any:
        asked.append(value)
        return value

    assert [recent.get("a", lambda: ask(1)), recent.get("a", lambda: ask(2))] == [1, 1]
    now[0] += 5.1
    assert recent.get("a", lambda: ask(3)) == 3
    assert [recent.get("b", lambda: ask(None)), recent.get("b", lambda: ask(4))] == [None, 4]
    recent.get("c", lambda: ask(5))
    assert len(recent._answers) <= 2
    assert asked == [1, 3, None, 4, 5]


def test_threads_that_ask_at_the_same_time_do_not_break_the_memory() -> None:
    recent, errors = rpc.Recent(seconds=0.001, capacity=5), []

    def work(number: int) -> None:
        try:
            for n in range(2000):
                recent.get((number + n) % 9, lambda: n)  # noqa: B023
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_id_behind_another_collection_is_the_name_of_nothing(serving_of: Any, database_of: Any) -> None:
    _, api = serving_of("work_orders")
    tree = a_tree(database_of("work_orders"))
    repair = {"location": "大堂", "category": "LEAK", "description": "漏水", "contact_phone": "13800000000"}
    made = api.call(tree.by_role("CUSTOMER_ASSISTANT"), "ReportRepair", parent=tree.parent, repair=repair)
    for name in (made.name.replace("repairs", "complaints"), f"{made.name}/more", made.name.replace("/repairs", "")):
        with pytest.raises(Refused) as refused:
            api.call(tree.by_role("CUSTOMER_ASSISTANT"), "GetRepair", name=name)
        assert (refused.value.http, refused.value.reason) == (404, "NAME_NOT_FOUND")
