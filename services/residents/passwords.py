"""What a password may be, and how it is kept.

NIST SP 800-63B-3 §5.1.1.2: length counts, composition does not; any character goes, Chinese and emoji too; what is common, a
sequence, or made of the person's own words is refused; nothing expires but what somebody else has given. Passwords are
compared after NFKC, so that an input method that writes 全角 letters opens the same door. They are kept as argon2id hashes
with the library's parameters (RFC 9106 §4, second choice: 64 MiB, 3 passes), made anew at a sign-in when those have changed.
"""

from __future__ import annotations

import queue
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from services.chassis.errors import InvalidInput, Unavailable, Violation

R = TypeVar("R")

SHORTEST = 10  # characters
BESIDE_OWN_WORDS = 6  # characters that are left when number, name and telephone are taken out
COMMON = Path(__file__).with_name("common_passwords.txt")
READABLE = "abcdefghjkmnpqrstuvwxyz23456789"  # without i l o 0 1, which are mistaken for each other
AT_ONCE = 4  # hashes made at once by one process: each takes 64 MiB and a good part of a core

_hasher = PasswordHasher()
_places: queue.SimpleQueue[None] = queue.SimpleQueue()
for _ in range(AT_ONCE):
    _places.put(None)


def normalised(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def refuse_weak(password: str, own_words: Iterable[str], field: str) -> None:
    """Raises InvalidInput(WEAK_PASSWORD) with what is wrong about the one in `field`. `own_words`: number, name, telephone."""
    text = _folded(password)
    rest = text
    for word in sorted((_folded(word) for word in own_words if len(word) > 1), key=len, reverse=True):
        rest = rest.replace(word, "")
    why = ""
    if len(normalised(password)) < SHORTEST:
        why = f"must have at least {SHORTEST} characters"
    elif text in _common():
        why = "is one of the most common passwords"
    elif _is_sequence(text):
        why = "is a sequence or a repetition"
    elif rest != text and len(rest) < BESIDE_OWN_WORDS:
        why = "is made of your own number, name or telephone"
    if why:
        raise InvalidInput("choose another password", reason="WEAK_PASSWORD", violations=[Violation(field, why)])


def hashed(password: str) -> str:
    """Raises Unavailable(BUSY)."""
    return _in_turn(lambda: _hasher.hash(normalised(password)))


def fits(stored: str | None, password: str) -> bool:
    """Whether a password is the one that was hashed; of nobody's it is not, which takes as long. Raises Unavailable(BUSY)."""

    def verify() -> bool:
        try:
            return _hasher.verify(stored or _nobodys(), normalised(password)) and stored is not None
        except (VerifyMismatchError, InvalidHashError):
            return False
        except VerificationError as error:  # no memory, say
            raise Unavailable("passwords cannot be checked at this moment", reason="BUSY", retry_after=1) from error

    return _in_turn(verify)


def is_outdated(stored: str) -> bool:
    """It was hashed with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def temporary() -> str:
    """A password to be read out once: `kx7m-p4qt-9hwd`, 59 bits."""
    letters = [secrets.choice(READABLE) for _ in range(12)]
    return "-".join("".join(letters[start : start + 4]) for start in (0, 4, 8))


def _in_turn(work: Callable[[], R]) -> R:
    """A burst of sign-ins must not take the memory or the connections of everybody else: who finds no place is told to come back."""
    try:
        _places.get_nowait()
    except queue.Empty:
        raise Unavailable("too many are signing in at this moment", reason="BUSY", retry_after=1) from None
    try:
        return work()
    finally:
        _places.put(None)


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_hex(16))


@cache
def _common() -> frozenset[str]:
    lines = COMMON.read_text(encoding="utf-8").splitlines()
    return frozenset(_folded(line) for line in lines if line and not line.startswith("# "))


def _folded(text: str) -> str:
    """Case, accents of width and punctuation between words make no password better."""
    return "".join(c for c in normalised(text).casefold() if c not in " -_.")


def _is_sequence(text: str) -> bool:
    """`aaaaaaaaaa`, `abcabcabcabc`, `3456789012`, `zyxwvutsrq`: a period of at most four characters, or steps of one."""
    for period in range(1, 5):
        if len(text) >= 2 * period and all(text[i] == text[i % period] for i in range(len(text))):
            return True
    steps = {ord(b) - ord(a) for a, b in pairwise(text)}
    return steps <= {1, -9} or steps <= {-1, 9}  # 9 → 0 goes on
