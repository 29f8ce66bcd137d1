"""Personal data at rest: identity numbers and register files are encrypted, identity numbers can be looked up exactly.

AES-256-GCM with a random nonce under a key derived from STEWARD_DATA_KEY (HKDF, RFC 5869); the look-up index is an
HMAC-SHA256 under another derived key, so that neither reveals the other and a stolen table is not a table of hashes that
can be guessed. What is sealed for one purpose does not open for another (the purpose is associated data).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.chassis.settings import settings

FORMAT = b"\x01"  # of what `seal` returns: format, nonce, ciphertext with tag; another key or cipher would be \x02
NONCE = 12


class Unreadable(Exception):
    """Sealed under another key or for another purpose, or damaged."""


class Vault:
    """`key`: 32 random bytes. Raises ValueError on another length."""

    def __init__(self, key: bytes):
        if len(key) != 32:
            raise ValueError("STEWARD_DATA_KEY must be 32 bytes in base64")
        self._cipher = AESGCM(_derived(key, b"steward residents seal"))
        self._index_key = _derived(key, b"steward residents index")

    def seal(self, data: bytes, purpose: str) -> bytes:
        nonce = os.urandom(NONCE)
        return FORMAT + nonce + self._cipher.encrypt(nonce, data, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Raises Unreadable."""
        if sealed[:1] != FORMAT:
            raise Unreadable("sealed in a format this version does not know")
        try:
            return self._cipher.decrypt(sealed[1 : 1 + NONCE], sealed[1 + NONCE :], purpose.encode())
        except InvalidTag:
            raise Unreadable("sealed under another key or for another purpose, or damaged") from None

    def index(self, text: str, purpose: str) -> bytes:
        """The same text gives the same 32 bytes, which say nothing about it without the key."""
        return hmac.new(self._index_key, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()


def _derived(key: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=info).derive(key)


@cache
def _vault(key: str) -> Vault:
    try:
        return Vault(base64.b64decode(key, validate=True))
    except binascii.Error:
        raise ValueError("STEWARD_DATA_KEY must be 32 bytes in base64") from None


def vault() -> Vault:
    """The vault of this process, under STEWARD_DATA_KEY. Raises ValueError when that is no key."""
    return _vault(settings().data_key)
