"""Which processes run on this machine, and with which settings.

A grouping says it in one line, STEWARD_GROUPING; the usual one is

    api=work_orders api=* worker=* relay=* jobs=*

Each word is one process: a role and the services it runs, joined by `+`; `*` stands for those that no other word of the role names.
The same word twice is a second replica of that process. The gateway is always there. Imports alone cost too much to give each service
its own four processes on a small machine; the fault tests do so for one service, with this setting.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.chassis.__main__ import SERVICES
from services.local.keys import Keys
from services.local.state import ROOT

USUAL_GROUPING = "api=work_orders api=* worker=* relay=* jobs=*"
ROLES = ("api", "worker", "relay", "jobs")
ORDER = {"gateway": 10, "api": 20, "jobs": 30, "worker": 40, "relay": 50}  # of stopping: who takes work in goes first
DRAIN = 30.0  # seconds that a process gets to finish what it is doing; a worker takes 25 at most


class BadGrouping(ValueError):
    """STEWARD_GROUPING cannot be read, or leaves a service without one of its roles."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of Steward: its name here, its role and its services."""

    name: str
    role: str
    services: tuple[str, ...] = ()
    ports: tuple[str, ...] = field(default=())  # names in ports.json

    @property
    def argv(self) -> list[str]:
        if self.role == "gateway":
            return [sys.executable, "-m", "gateway"]
        return [sys.executable, "-m", "services.chassis", self.role, *self.services]


def parts(grouping: str) -> list[Part]:
    """Every process but PostgreSQL and RabbitMQ. Raises BadGrouping."""
    groups: list[tuple[str, list[str]]] = []
    for word in grouping.split():
        role, _, names = word.partition("=")
        if role not in ROLES or not names:
            raise BadGrouping(f"STEWARD_GROUPING: {word!r} is no role and services, such as api=work_orders or worker=*")
        groups.append((role, names.split("+")))
    found = [Part("gateway", "gateway", ports=("gateway", "gateway.http"))]
    taken: Counter[str] = Counter({"gateway": 1})
    for role in ROLES:
        named = {service for its_role, services in groups if its_role == role for service in services}
        if unknown := named - {*SERVICES, "*"}:
            raise BadGrouping(f"STEWARD_GROUPING: there is no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
        rest = [service for service in SERVICES if service not in named]
        if rest and "*" not in named:
            raise BadGrouping(f"STEWARD_GROUPING: no process has the role {role} for {', '.join(rest)}; add {role}=*")
        for services in (services for its_role, services in groups if its_role == role):
            explicit = [service for service in services if service != "*"]
            members = tuple(explicit + (rest if "*" in services else []))
            if not members:
                continue  # a `*` with nothing left for it
            name = "-".join([role, *explicit])
            taken[name] += 1
            if taken[name] > 1:
                name = f"{name}-{taken[name]}"
            kinds = ("grpc", "http") if role == "api" else ("http",)
            found.append(Part(name, role, members, tuple(f"{name}.{kind}" for kind in kinds)))
    return found


def addresses(every: Sequence[Part], ports: Mapping[str, int]) -> str:
    """STEWARD_ADDRESSES: where the api of each service listens, all its replicas."""
    places = {
        service: [f"127.0.0.1:{ports[f'{part.name}.grpc']}" for part in every if part.role == "api" and service in part.services]
        for service in SERVICES
    }
    return ",".join(f"{service}={';'.join(found)}" for service, found in places.items())


# What the platform says itself, and a process must not get from whoever started the platform.
_OURS = (
    "PROFILE DATABASE_URL MIGRATE_URL AMQP_URL ADDRESSES BIND GRPC_PORT HTTP_PORT PORT "
    "IDENTITY_KEY IDENTITY_PUBLIC_KEYS DATA_KEY INTERNAL_TOKEN DEMO_PASSWORD DEMO_CODE"
)


def common_environment() -> dict[str, str]:
    """What each process inherits: the caller's other settings, so that `make run STEWARD_API_THREADS=32` does what it says."""
    ours = {f"STEWARD_{name}" for name in _OURS.split()}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}", "PYTHONUNBUFFERED": "1"}


def settings_of(
    role: str, services: Sequence[str], keys: Keys, *, database: str, owner: str, broker: str, addresses: str
) -> dict[str, str]:
    """The settings of a process (services/chassis/settings.py), each only where it is needed."""
    result = {
        "STEWARD_PROFILE": "development",
        "STEWARD_BIND": "127.0.0.1",
        "STEWARD_ADDRESSES": addresses,
        "STEWARD_IDENTITY_PUBLIC_KEYS": keys.identity_public_key,
        "STEWARD_INTERNAL_TOKEN": keys.internal_token,
    }
    if role != "gateway":
        result |= {"STEWARD_DATABASE_URL": database, "STEWARD_AMQP_URL": broker}
    if role == "migrate":
        result["STEWARD_MIGRATE_URL"] = owner
    if "residents" in services:
        result |= {
            "STEWARD_IDENTITY_KEY": keys.identity_key,
            "STEWARD_DATA_KEY": keys.data_key,
            "STEWARD_DEMO_PASSWORD": keys.demo_password,
            "STEWARD_DEMO_CODE": keys.demo_code,
        }
    return result
