"""Settings of the gateway beside those that every process has (services/chassis/settings.py), read from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Names in the environment: `STEWARD_GATEWAY_` and the field's name, except where the comment says otherwise."""

    port: int = 8080  # STEWARD_PORT: REST
    descriptors: str = str(ROOT / "gen" / "steward.binpb")  # STEWARD_DESCRIPTORS: FileDescriptorSet with imports and source info
    cors_origins: tuple[str, ...] = ()  # STEWARD_CORS_ORIGINS: comma separated; development also allows http://localhost:*
    deadline: float = 5.0  # seconds an operation may take
    exchange_timeout: float = 2.0  # seconds the exchange of a session for an identity may take
    body_limit: int = 1024 * 1024  # bytes of a request body; operations that take larger files have a limit of their own
    body_timeout: float = 60.0  # seconds in which a body must have arrived
    header_timeout: float = 20.0  # seconds in which the head of a request must have arrived
    in_flight: int = 256  # operations worked on at once; more get 503
    large_uploads: int = 4  # bodies above body_limit read at once; more get 503
    principal_rate: float = 50.0  # requests per second of one signed-in person; 0: no limit
    principal_burst: int = 200  # what that person may send at once beyond the rate
    address_rate: float = 50.0  # unknown tokens and public reads per second of one address; 0: no limit
    address_burst: int = 200  # and at once beyond the rate
    sign_in_rate: float = 1.0  # sign-ins and codes per second of one address; 0: no limit
    sign_in_burst: int = 30  # and at once beyond the rate
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # networks whose X-Forwarded-For is believed, comma separated
    drain_delay: float = 0.0  # seconds between "not ready" and closing the port, for load balancers to notice
    drain_timeout: float = 10.0  # seconds that requests in flight may take to finish on SIGTERM
    metrics_outside: bool = False  # /metrics on the REST port too; always so in development


OTHER_NAMES = {"port": "STEWARD_PORT", "descriptors": "STEWARD_DESCRIPTORS", "cors_origins": "STEWARD_CORS_ORIGINS"}


def read(environ: dict[str, str]) -> GatewaySettings:
    """Raises ValueError, naming the variable, on a value that cannot be read."""
    values: dict[str, object] = {}
    for name, spec in GatewaySettings.__dataclass_fields__.items():
        variable = OTHER_NAMES.get(name, f"STEWARD_GATEWAY_{name.upper()}")
        raw = environ.get(variable)
        if raw is None:
            continue
        try:
            values[name] = _value(str(spec.type), raw)
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None
    return GatewaySettings(**values)  # type: ignore[arg-type]


def _value(kind: str, raw: str) -> object:
    parts = tuple(part.strip() for part in raw.split(",") if part.strip())
    if kind == "int":
        return int(raw)
    if kind == "float":
        number = float(raw)
        if not 0 <= number < float("inf"):
            raise ValueError(f"must be a finite number of at least 0, not {raw!r}")
        return number
    if kind == "bool":
        if raw not in ("0", "1", "true", "false"):
            raise ValueError(f"must be true or false, not {raw!r}")
        return raw in ("1", "true")
    if kind == "str":
        return raw
    if "IPv4Network" in kind:
        return tuple(ip_network(part, strict=False) for part in parts)
    return parts


def from_environment() -> GatewaySettings:
    return read(dict(os.environ))
