"""How passwords stand in files: salted scrypt hashes, made and compared.

Owns the form ``scrypt$n$r$p$salt$hash`` and its limits. Knows nothing of whose password it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from functools import cache
from typing import Final

SCRYPT_N: Final = 1 << 14
"""16 MiB and some 50 ms a guess."""
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
SCRYPT_MEMORY_MAX: Final = 128 << 20
"""Hashes in a file that ask for more are refused when it is read, not when somebody logs in."""
SALT_BYTES: Final = 16
KEY_BYTES: Final = 32
PASSWORD_BYTES_MAX: Final = 1024
"""Longer passwords fail unheard: hashing 64 KiB for a stranger is work given away."""


def hash_password(password: str, *, n: int = SCRYPT_N, r: int = SCRYPT_R, p: int = SCRYPT_P) -> str:
    """``scrypt$n$r$p$salt$hash`` with a fresh salt; salt and hash in base64."""
    salt = os.urandom(SALT_BYTES)
    key = scrypt(password.encode(), salt, n, r, p)
    return "$".join(["scrypt", str(n), str(r), str(p), _base64(salt), _base64(key)])


def scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """The key, KEY_BYTES long. Takes some 50 ms; call it in a thread."""
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=SCRYPT_MEMORY_MAX, dklen=KEY_BYTES)


def parts_of(text: str) -> tuple[int, int, int, bytes, bytes]:
    """n, r, p, salt and key of a hash. Raises ValueError for anything else."""
    name, *numbers, salt, key = text.split("$")
    if name != "scrypt" or len(numbers) != 3:
        raise ValueError("not a scrypt hash")
    n, r, p = map(int, numbers)
    if n < 2 or n & (n - 1) or r < 1 or p < 1 or 128 * r * (n + p) > SCRYPT_MEMORY_MAX - (1 << 20):
        raise ValueError("scrypt parameters out of range")
    try:
        raw_salt, raw_key = (base64.b64decode(part + "==", validate=False) for part in (salt, key))
    except binascii.Error:
        raise ValueError("not base64") from None
    if len(raw_key) != KEY_BYTES or not raw_salt:
        raise ValueError("salt or key has the wrong length")
    return n, r, p, raw_salt, raw_key


def is_password(password: bytes, hashed: str | None) -> bool:
    """Whether ``hashed`` is of this password. None, of nobody, takes as long as a hash and is always False."""
    if len(password) > PASSWORD_BYTES_MAX:
        return False
    n, r, p, salt, key = parts_of(hashed or nobody())
    return hmac.compare_digest(scrypt(password, salt, n, r, p), key) and hashed is not None


@cache
def nobody() -> str:
    """A hash compared for names that do not exist, so that an answer's time does not tell which names do."""
    return hash_password(_base64(os.urandom(KEY_BYTES)))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")
