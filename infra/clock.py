"""The real clock and the real source of ids: the only place that reads the time or asks for randomness."""

import os
import string
import time
from datetime import UTC, datetime
from typing import Final

from contracts.ids import encode_ulid

_ALPHABET: Final = string.digits + string.ascii_lowercase
_RANDOM_BITS: Final = 80
# The largest multiple of 36 in a byte: what lies above would favour the first letters.
_FAIR_BYTES: Final = 252


class SystemClock:
    """Implements `contracts.clock.Clock`."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SystemIds:
    """Implements `contracts.clock.Ids`."""

    def ulid(self) -> str:
        return encode_ulid(time.time_ns() // 1_000_000 << _RANDOM_BITS | int.from_bytes(os.urandom(10), "big"))

    def agent(self) -> str:
        characters = ""
        while len(characters) < 12:
            characters += "".join(_ALPHABET[byte % 36] for byte in os.urandom(16) if byte < _FAIR_BYTES)
        return f"agent_{characters[:12]}"

    def secret(self, n_bytes: int) -> bytes:
        return os.urandom(n_bytes)
