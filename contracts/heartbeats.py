"""Heartbeats over the broker: how a monitor says, in one message, that its sessions live, and how that is proved.

    hb.<monitor>   {"v": 1, "part": 0, "s": [["<ulid of the session>", "<proof>", <age in seconds>], …]}

A proof is a keyed hash of session and monitor, given to whoever attached the session for that monitor. The server
checks it without looking anything up, and a monitor can beat for sessions of its own only: the broker lets it publish
on its own subject, and on that subject nobody else's proof holds. More sessions than fit travel in several messages,
each with its `part`. Nobody answers.
"""

import hmac
import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

VERSION: Final = 1
SESSIONS_PER_MESSAGE: Final = 1_000
PARTS: Final = 100
MESSAGE_MAX_BYTES: Final = 60_000
"""A little less than the payload a monitor's account allows; a full message takes 55 000 at most."""
AGE_MAX_S: Final = 86_400.0
PROOF_BYTES: Final = 9
SUBJECT_PREFIX: Final = "hb."
_SESSION_PREFIX: Final = "sess_"
_NAME_PREFIX: Final = "monitor "


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """One session's beat as its monitor tells it. `proof` is what the attach was answered with."""

    session_id: str
    proof: str
    age_s: float


def beat_proof(secret: bytes, session_id: str, monitor_id: str) -> str:
    """The proof that this monitor may beat for this session: 72 bits of a keyed hash, as 12 characters.

    There is no answer to guess by, and a right guess makes one session look alive for as long as it is repeated.
    """
    return proof_bytes(secret, session_id.removeprefix(_SESSION_PREFIX), monitor_id).decode()


def proof_bytes(secret: bytes, ulid: str, monitor_id: str) -> bytes:
    """The same, as it is compared: for a session's ulid, whose fixed length keeps the two ids apart."""
    return urlsafe_b64encode(blake2b(f"{ulid}{monitor_id}".encode(), key=secret, digest_size=PROOF_BYTES).digest())


def is_proved(secret: bytes, ulid: str, monitor_id: str, proof: str) -> bool:
    """Raises `TypeError` or `ValueError` for what is no text."""
    return hmac.compare_digest(proof_bytes(secret, ulid, monitor_id), proof.encode())


def session_of(ulid: str) -> str:
    return f"{_SESSION_PREFIX}{ulid}"


def render_beats(pulses: Sequence[Pulse]) -> Iterator[bytes]:
    """The messages that carry these beats; always in the same parts for the same sessions."""
    ordered = sorted(pulses, key=lambda pulse: pulse.session_id)
    for part, start in enumerate(range(0, min(len(ordered), PARTS * SESSIONS_PER_MESSAGE), SESSIONS_PER_MESSAGE)):
        rows = [_row(pulse) for pulse in ordered[start : start + SESSIONS_PER_MESSAGE]]
        yield json.dumps({"v": VERSION, "part": part, "s": rows}, separators=(",", ":")).encode()


def _row(pulse: Pulse) -> list[object]:
    # Rounded up: a beat may say that it is older than it is, never that it is younger.
    age_s = min(math.ceil(max(pulse.age_s, 0.0) * 10) / 10, AGE_MAX_S)
    return [pulse.session_id.removeprefix(_SESSION_PREFIX), pulse.proof, age_s]


def connection_name(monitor_id: str) -> str:
    """What a monitor's connection to the broker calls itself. Anybody may call himself anything."""
    return f"{_NAME_PREFIX}{monitor_id}"


def monitor_of_connection(name: str) -> str:
    """The id in such a name; what it says is not checked."""
    return name.removeprefix(_NAME_PREFIX)
