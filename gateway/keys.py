"""API keys: how one is written, read, checked for typing errors and hashed. Pure.

    pr_<key id: 12 of a-z0-9>_<secret: 43 of A-Za-z0-9, 256 bits>_<checksum: 6 of A-Za-z0-9>

The checksum (CRC-32 of everything before it) lets the gateway and secret scanners tell a mistyped key without asking
anybody. Of a key only its SHA-256 is stored: a fast hash is right for a secret nobody can guess.
"""

import hashlib
import hmac
import re
import string
import zlib
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "pr_"
KEY_BYTES: Final = 44  # of randomness a new key is made from: 12 for the id, 32 for the secret
_BASE36: Final = string.digits + string.ascii_lowercase
_BASE62: Final = string.digits + string.ascii_letters
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 43
_CHECKSUM_LENGTH: Final = 6
_KEY: Final = re.compile(r"pr_([a-z0-9]{12})_([A-Za-z0-9]{43})_([A-Za-z0-9]{6})\Z")
KEY_LENGTH: Final = len(PREFIX) + _ID_LENGTH + 1 + _SECRET_LENGTH + 1 + _CHECKSUM_LENGTH
KEY_ID: Final = re.compile(r"[a-z0-9]{12}\Z")


@dataclass(frozen=True, slots=True)
class KeyText:
    """A well-formed key. The secret never shows in a representation, so it cannot slip into a log."""

    key_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The whole key as its owner keeps it."""
        head = f"{PREFIX}{self.key_id}_{self.secret}"
        return f"{head}_{checksum(head)}"

    @property
    def secret_sha256(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()


def new_key(randomness: bytes) -> KeyText:
    """Make a key of `KEY_BYTES` random bytes."""
    if len(randomness) != KEY_BYTES:
        raise ValueError(f"a key is made of {KEY_BYTES} bytes")
    key_id = _encode(randomness[:12], _BASE36, _ID_LENGTH)
    return KeyText(key_id, _encode(randomness[12:], _BASE62, _SECRET_LENGTH))


def parse_key(text: str) -> KeyText | None:
    """Read a key; None when it is none or its checksum is wrong. Bounded work, however long the text."""
    match = _KEY.match(text) if len(text) == KEY_LENGTH else None
    if match is None or checksum(text[: -_CHECKSUM_LENGTH - 1]) != match[3]:
        return None
    return KeyText(match[1], match[2])


def same_hash(left: str, right: str) -> bool:
    """Compare two hex digests in constant time."""
    return hmac.compare_digest(left, right)


def checksum(head: str) -> str:
    return _encode(zlib.crc32(head.encode()).to_bytes(4, "big"), _BASE62, _CHECKSUM_LENGTH)


def _encode(data: bytes, alphabet: str, length: int) -> str:
    value, characters = int.from_bytes(data, "big"), []
    for _ in range(length):
        value, digit = divmod(value, len(alphabet))
        characters.append(alphabet[digit])
    return "".join(reversed(characters))
