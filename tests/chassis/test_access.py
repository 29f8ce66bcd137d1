"""Internal identities, and the part of the tree they open."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt
import pytest
import sqlalchemy as sa

from services.chassis import access
from services.chassis.access import EVERYTHING, Grant, Principal, Scope, Verifier, covers, opened, sign
from services.chassis.db import inside
from services.chassis.errors import Unauthenticated
from services.chassis.settings import settings
from services.chassis.testing import key_pair
from services.probe.probes import Probe

PRIVATE, PUBLIC = key_pair()
ESTATE, UNIT = uuid4(), uuid4()
STAFF = Principal("staff", str(uuid4()), (Grant("TECHNICIAN", "estate", ESTATE), Grant("GENERAL_MANAGER", "company", uuid4())))
OWNER = Principal("people", str(uuid4()), (Grant("OWNER", "unit", UNIT, ESTATE),))
MOVED_IN = datetime(2026, 3, 1, tzinfo=UTC)
TENANT = Principal("people", str(uuid4()), (Grant("TENANT", "unit", UNIT, ESTATE, MOVED_IN),))


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(PUBLIC)


def signed(**changes: object) -> str:
    """An identity as `sign` makes it, but for some claims; None leaves a claim out."""
    claims = {"sub": str(STAFF), "aud": "steward", "exp": time.time() + 30, "grants": []} | changes
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, PRIVATE, algorithm="EdDSA")


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "principal", [STAFF, OWNER, TENANT, Principal("staff", str(uuid4()), temporary=True), access.system("residents")], ids=str
)
def test_an_identity_comes_back_as_it_was_signed(verifier: Verifier, principal: Principal) -> None:
    token, expires = sign(principal, key=PRIVATE)
    assert verifier.principal(token) == principal
    assert 29 < expires - time.time() <= 30
    assert verifier.principal(token) == principal, "and once more from memory"


def refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verifier.principal(token)
    assert caught.value.http == 401
    return caught.value.reason


def test_an_identity_from_before_grants_had_a_start_is_good_and_means_since_ever(verifier: Verifier) -> None:
    old = signed(sub=str(OWNER), grants=[["OWNER", "unit", str(UNIT), str(ESTATE)]])
    assert verifier.principal(old) == OWNER


def test_what_a_start_and_a_temporary_password_say_costs_an_identity_little(verifier: Verifier) -> None:
    plain, _ = sign(OWNER, key=PRIVATE)
    assert len(sign(Principal("people", OWNER.id, (Grant("OWNER", "unit", UNIT, ESTATE, MOVED_IN),)), key=PRIVATE)[0]) - len(plain) < 20
    claims = jwt.decode(plain, options={"verify_signature": False})
    assert set(claims) == {"sub", "aud", "exp", "grants"}
    assert len(claims["grants"][0]) == 4


def test_an_identity_signed_by_somebody_else_is_refused(verifier: Verifier) -> None:
    token, _ = sign(STAFF, key=key_pair()[0])
    assert refused(verifier, token) == "BAD_IDENTITY"


def test_an_expired_identity_is_refused(verifier: Verifier) -> None:
    assert refused(verifier, signed(exp=time.time() - 1)) == "IDENTITY_EXPIRED"


def test_an_identity_of_no_length_is_expired_at_once(verifier: Verifier) -> None:
    assert refused(verifier, sign(STAFF, key=PRIVATE, lifetime=0)[0]) == "IDENTITY_EXPIRED"


def test_what_is_remembered_is_asked_again_when_its_time_is_up(verifier: Verifier) -> None:
    token, _ = sign(STAFF, key=PRIVATE, lifetime=30)
    verifier.principal(token)
    principal, _ = verifier._seen[token]
    verifier._seen[token] = (principal, time.time() - 1)
    verifier.public_keys = key_pair()[1]
    assert refused(verifier, token) == "BAD_IDENTITY", "remembered longer than it was valid"


@pytest.mark.parametrize("claims", [{"aud": "another"}, {"aud": None}, {"exp": None}, {"sub": None}], ids=str)
def test_an_identity_for_somebody_else_or_without_end_or_name_is_refused(verifier: Verifier, claims: dict[str, object]) -> None:
    assert refused(verifier, signed(**claims)) == "BAD_IDENTITY"


def test_an_unsigned_identity_is_refused(verifier: Verifier) -> None:
    payload = segment({"sub": str(STAFF), "aud": "steward", "exp": time.time() + 30, "grants": []})
    for algorithm in ("none", "None", "NONE", "nOnE"):
        header = segment({"alg": algorithm, "typ": "JWT"})
        assert refused(verifier, f"{header}.{payload}.") == "BAD_IDENTITY"
        assert refused(verifier, f"{header}.{payload}.AAAA") == "BAD_IDENTITY"


def test_the_public_key_is_no_secret_to_sign_with(verifier: Verifier) -> None:
    head, payload = (
        segment({"alg": "HS256", "typ": "JWT"}),
        segment({"sub": str(STAFF), "aud": "steward", "exp": time.time() + 30, "grants": []}),
    )
    mac = hmac.new(PUBLIC.encode(), f"{head}.{payload}".encode(), hashlib.sha256).digest()
    assert refused(verifier, f"{head}.{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}") == "BAD_IDENTITY"


def test_an_identity_with_another_name_under_the_same_signature_is_refused(verifier: Verifier) -> None:
    head, payload, signature = sign(STAFF, key=PRIVATE)[0].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert refused(verifier, f"{head}.{segment(claims | {'sub': f'staff/{uuid4()}'})}.{signature}") == "BAD_IDENTITY"


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "a.b.c.d", "..", "ü.ü.ü", "x" * 10_000, "a.b.c\n"])
def test_what_is_no_token_is_refused(verifier: Verifier, token: str) -> None:
    assert refused(verifier, token) == "BAD_IDENTITY"


def test_while_keys_rotate_both_are_good() -> None:
    other_private, other_public = key_pair()
    both = Verifier(PUBLIC + other_public)
    for key in (PRIVATE, other_private):
        assert both.principal(sign(STAFF, key=key)[0]) == STAFF
    assert refused(Verifier(other_public), sign(STAFF, key=PRIVATE)[0]) == "BAD_IDENTITY"


def test_what_is_remembered_is_bounded(verifier: Verifier) -> None:
    verifier.capacity = 3
    for _ in range(10):
        verifier.principal(sign(Principal("staff", str(uuid4())), key=PRIVATE)[0])
    assert len(verifier._seen) == 3


def test_the_key_of_the_settings_signs_when_no_other_is_given() -> None:
    assert Verifier(settings().identity_public_keys).principal(sign(STAFF)[0]) == STAFF


# --- scope -------------------------------------------------------------------------------------------------------------

GROUP, COMPANY, OTHER = uuid4(), uuid4(), uuid4()


def staff(*grants: tuple[str, str, UUID]) -> Principal:
    return Principal("staff", str(uuid4()), tuple(Grant(role, level, node) for role, level, node in grants))


def test_a_post_opens_its_node_for_operations_of_its_role_alone() -> None:
    who = staff(
        ("TECHNICIAN", "estate", ESTATE),
        ("PROJECT_MANAGER", "estate", OTHER),
        ("GENERAL_MANAGER", "company", COMPANY),
        ("GROUP_OPERATIONS", "group", GROUP),
    )
    assert opened(who, frozenset({"TECHNICIAN"})) == Scope(estates=frozenset({ESTATE}))
    assert opened(who, frozenset({"TECHNICIAN", "PROJECT_MANAGER"})) == Scope(estates=frozenset({ESTATE, OTHER}))
    assert opened(who, frozenset({"GENERAL_MANAGER", "GROUP_OPERATIONS"})) == Scope(
        groups=frozenset({GROUP}), companies=frozenset({COMPANY})
    )
    assert opened(who, frozenset({"OWNER"})).empty
    assert opened(who, frozenset()).empty


def test_a_scope_covers_what_lies_below_its_nodes() -> None:
    here = {"estate": ESTATE, "company": COMPANY, "group": GROUP}
    for scope in (Scope(estates=frozenset({ESTATE})), Scope(companies=frozenset({COMPANY})), Scope(groups=frozenset({GROUP})), EVERYTHING):
        assert covers(scope, **here)
    for scope in (
        Scope(),
        Scope(estates=frozenset({OTHER})),
        Scope(companies=frozenset({OTHER})),
        Scope(groups=frozenset({OTHER})),
        Scope(estates=frozenset({COMPANY})),
    ):
        assert not covers(scope, **here)


def test_a_resident_opens_the_estate_but_of_it_only_his_own() -> None:
    scope = opened(OWNER, frozenset({"OWNER"}))
    assert scope == Scope(estates=frozenset({ESTATE}), person=UUID(OWNER.id), units=frozenset({UNIT}))
    assert opened(OWNER, frozenset({"TENANT"})).empty


def test_of_several_starts_at_a_unit_the_earliest_counts_and_none_is_the_earliest_of_all() -> None:
    def since(*starts: datetime | None) -> frozenset[tuple[UUID, datetime]]:
        grants = tuple(Grant("OWNER", "unit", UNIT, ESTATE, start) for start in starts)
        scope = opened(Principal("people", OWNER.id, grants), frozenset({"OWNER"}))
        assert scope.units == {UNIT}
        return scope.since

    day = timedelta(days=1)
    assert since(MOVED_IN) == {(UNIT, MOVED_IN)}
    assert since(MOVED_IN, MOVED_IN - day, MOVED_IN + day) == {(UNIT, MOVED_IN - day)}
    assert since(None, MOVED_IN) == since(MOVED_IN, None) == since(MOVED_IN, None, MOVED_IN + day) == frozenset()


def where(scope: Scope) -> str:
    return str(inside(scope, Probe).compile(dialect=sa.dialects.postgresql.dialect(), compile_kwargs={"literal_binds": True}))


def test_the_scope_is_repeated_in_every_query() -> None:
    assert where(EVERYTHING) == "true"
    assert where(Scope()) == "false"
    assert where(Scope(estates=frozenset({ESTATE}))) == f"probes.estate_id = '{ESTATE}'"
    resident = where(Scope(estates=frozenset({ESTATE}), person=UNIT, units=frozenset({UNIT})))
    assert resident == f"probes.estate_id = '{ESTATE}' AND (probes.owner_id = '{UNIT}' OR probes.unit_id IN ('{UNIT}'))"


def test_of_a_unit_he_came_to_later_a_resident_gets_what_began_since(verifier: Verifier) -> None:
    here, there = sorted((uuid4(), uuid4()))
    scope = Scope(estates=frozenset({ESTATE}), person=UNIT, units=frozenset({here, there}), since=frozenset({(there, MOVED_IN)}))
    mine = f"probes.owner_id = '{UNIT}' OR probes.unit_id IN ('{here}')"
    his_time = f"probes.unit_id = '{there}' AND probes.created_at >= '2026-03-01 00:00:00+00:00'"
    assert where(scope) == f"probes.estate_id = '{ESTATE}' AND ({mine} OR {his_time})"
    since_ever = opened(TENANT, frozenset({"TENANT"}))
    assert since_ever.since == {(UNIT, MOVED_IN)}


def test_a_resident_sees_nothing_of_a_kind_that_nobody_owns() -> None:
    class Secret:
        estate_id, company_id, group_id = Probe.estate_id, Probe.company_id, Probe.group_id

        @staticmethod
        def owned_by() -> tuple[None, None]:
            return None, None

    scope = Scope(estates=frozenset({ESTATE}), person=UNIT, units=frozenset({UNIT}))
    assert str(inside(scope, Secret).compile(compile_kwargs={"literal_binds": True})) == "false"
