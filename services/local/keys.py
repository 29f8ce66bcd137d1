"""The secrets of one platform on this machine: random, made at the first start, kept in `secrets/` for its owner alone."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.local.state import write_private


@dataclass(frozen=True, slots=True)
class Keys:
    postgres_password: str  # of the superuser, whom no process of Steward uses
    owner_password: str  # of the roles that own the schemas (migrate)
    service_password: str  # of the unprivileged roles (all other processes)
    broker_password: str
    broker_cookie: str  # what Erlang nodes of one broker share
    internal_token: str
    data_key: str  # 32 bytes, base64
    identity_key: str  # Ed25519, PEM
    identity_public_key: str  # PEM
    demo_password: str
    demo_code: str


def read_or_make(folder: Path) -> Keys:
    def kept(name: str, make: Callable[[], str]) -> str:
        path = folder / name
        if not path.exists():
            write_private(path, make())
        return path.read_text()

    identity_key = kept("identity_key.pem", _new_identity_key)
    return Keys(
        postgres_password=kept("postgres_password", _password),
        owner_password=kept("owner_password", _password),
        service_password=kept("service_password", _password),
        broker_password=kept("broker_password", _password),
        broker_cookie=kept("broker_cookie", _password),
        internal_token=kept("internal_token", _password),
        data_key=kept("data_key", lambda: base64.b64encode(secrets.token_bytes(32)).decode()),
        identity_key=identity_key,
        identity_public_key=_public(identity_key),
        demo_password=os.environ.get("STEWARD_DEMO_PASSWORD") or kept("demo_password", lambda: f"demo-{secrets.token_hex(4)}"),
        demo_code=os.environ.get("STEWARD_DEMO_CODE") or kept("demo_code", lambda: f"{secrets.randbelow(1_000_000):06d}"),
    )


def _password() -> str:
    return secrets.token_hex(20)  # letters and digits only, so that it can stand in a URL as it is


def _new_identity_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode()


def _public(identity_key: str) -> str:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(identity_key.encode(), password=None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
