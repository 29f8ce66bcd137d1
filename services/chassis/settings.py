"""Settings of a process, read once from the environment. Every name starts with `STEWARD_`.

No profile means production. The development profile (moved time, demo password, codes in the log) is set by `make run` and
by the tests alone and binds loopback only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True, slots=True)
class Settings:
    """One process's settings; `docs/settings.md` is generated from the comments below."""

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
    api_threads: int = 16  # RPCs worked on at once by one process
    api_queue: int = 64  # RPCs accepted beyond that; more get 503
    pool_size: int = 8  # database connections of one process and service
    log_format: str = "text"  # text | json

    @property
    def development(self) -> bool:
        return self.profile == "development"

    def database(self, service: str) -> str:
        return self.database_url.replace("{service}", service)

    def migrate_database(self, service: str) -> str:
        return self.migrate_url.replace("{service}", service)


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
    return result
