"""Settings of a process, read once from the environment. Every name starts with `STEWARD_`.

No profile means production. The development profile (moved time, demo password, codes in the log) is set by `make run` and
by the tests alone and binds loopback only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True, slots=True)
class Settings:
    """One process's settings; `make docs` makes docs/settings.md from the comments below."""

    profile: str = "production"  # production | development
    database_url: str = ""  # PostgreSQL URL of the unprivileged role; `{service}` stands for the service's name
    migrate_url: str = ""  # the same for the role that owns the schema; only `migrate` needs it
    amqp_url: str = ""  # amqp://user:password@host:port/vhost
    addresses: dict[str, str] = field(default_factory=dict)  # service=host:port[;host:port…], comma separated
    bind: str = "127.0.0.1"  # address that gRPC and HTTP ports listen on; 0.0.0.0 in a pod
    grpc_port: int = 0  # port of the role `api`
    http_port: int = 0  # /metrics, /healthz, /readyz of this process
    identity_key: str = ""  # Ed25519 private key (PEM) that signs internal identities; residents only
    identity_public_keys: str = ""  # its public keys (PEM, several while rotating), for everybody else
    data_key: str = ""  # 32 bytes base64: AES-GCM of identity numbers and their index; residents only
    internal_token: str = ""  # shared secret of calls between Steward's own processes
    demo_password: str = ""  # development: password of every staff account without one of its own
    demo_code: str = ""  # development: the one-time code of every resident
    sms_url: str = ""  # where one-time codes are handed to the SMS company (http or https, POST of JSON); residents only, api and jobs
    sms_token: str = ""  # its bearer token; residents only, jobs
    sms_sender: str = ""  # the registered signature (短信签名) that texts begin with, and that stands beside them
    sms_template: str = ""  # the company's name of the registered template of a code, where it wants one
    sms_timeout: int = 5  # seconds the company has to answer before it is tried again
    api_threads: int = 8  # RPCs worked on at once by one process
    api_queue: int = 64  # RPCs accepted beyond that; more get 503
    api_connection_age: int = 60  # seconds until a client must connect anew, and so finds processes that have come meanwhile; 0: never
    pool_size: int = 8  # database connections of one worker and service; an api has one for each thread
    log_format: str = "text"  # text | json

    @property
    def development(self) -> bool:
        return self.profile == "development"

    def database(self, service: str) -> str:
        return self.database_url.replace("{service}", service)

    def migrate_database(self, service: str) -> str:
        return self.migrate_url.replace("{service}", service)

    def lacking(self, role: str, services: Sequence[str] = ()) -> list[str]:
        """What a process of this role cannot do without in production and does not have, `STEWARD_DATABASE_URL`."""
        needed = NEEDED[role] + (OF_RESIDENTS.get(role, ()) if "residents" in services else ())
        return [] if self.development else [f"STEWARD_{name.upper()}" for name in needed if not getattr(self, name)]


# What a role cannot do without in production; all else has a default to live with.
NEEDED: dict[str, tuple[str, ...]] = {
    "api": ("database_url", "addresses", "grpc_port", "identity_public_keys", "internal_token"),
    "worker": ("database_url", "amqp_url"),
    "relay": ("database_url", "amqp_url"),
    "jobs": ("database_url",),
    "migrate": ("migrate_url", "amqp_url"),
    "gateway": ("addresses", "internal_token"),
}
OF_RESIDENTS: dict[str, tuple[str, ...]] = {"api": ("identity_key", "data_key"), "jobs": ("data_key",)}

_EVERY = "api worker relay jobs migrate gateway"
# Which roles read a setting: docs/settings.md says it, and a test that each stands here.
READ_BY: dict[str, str] = {
    "profile": _EVERY,
    "database_url": "api worker relay jobs",
    "migrate_url": "migrate",
    "amqp_url": "worker relay migrate",
    "addresses": "api gateway",
    "bind": "api worker relay jobs gateway",
    "grpc_port": "api",
    "http_port": "api worker relay jobs gateway",
    "identity_key": "api",
    "identity_public_keys": "api",
    "data_key": "api jobs",
    "internal_token": "api gateway",
    "demo_password": "api",
    "demo_code": "api",
    "sms_url": "api jobs",
    "sms_token": "jobs",
    "sms_sender": "jobs",
    "sms_template": "jobs",
    "sms_timeout": "jobs",
    "api_threads": "api",
    "api_queue": "api",
    "api_connection_age": "api",
    "pool_size": "worker",
    "log_format": _EVERY,
}


@cache
def settings() -> Settings:
    """The settings of this process. Raises ValueError on a value that cannot be read."""
    return read(dict(os.environ))


def read(environ: dict[str, str]) -> Settings:
    values: dict[str, object] = {}
    for name, spec in Settings.__dataclass_fields__.items():
        raw = environ.get(f"STEWARD_{name.upper()}")
        if raw is None:
            continue
        if spec.type == "int":
            try:
                values[name] = int(raw)
            except ValueError:
                raise ValueError(f"STEWARD_{name.upper()} must be a whole number, not {raw!r}") from None
        elif name == "addresses":
            values[name] = dict(part.split("=", 1) for part in raw.split(",") if part)
        else:
            values[name] = raw
    result = Settings(**values)  # type: ignore[arg-type]
    if result.profile not in ("production", "development"):
        raise ValueError(f"STEWARD_PROFILE must be production or development, not {result.profile!r}")
    if result.development and result.bind != "127.0.0.1":
        raise ValueError("the development profile binds loopback only: leave STEWARD_BIND at 127.0.0.1")
    if result.sms_url and not result.sms_url.startswith(("https://", "http://")):
        raise ValueError("STEWARD_SMS_URL must begin with https:// or http://")
    return result
