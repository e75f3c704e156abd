"""Monitors' heartbeats as they arrive from the broker: read, proved, and what is to be noted of them. Pure.

Whoever may publish on `hb.<monitor>` may send anything there, so nothing in here raises: what is not a heartbeat is
dropped with its reason, and a session without its proof is left out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from contracts.heartbeats import (
    AGE_MAX_S,
    MESSAGE_MAX_BYTES,
    PARTS,
    SESSIONS_PER_MESSAGE,
    SUBJECT_PREFIX,
    VERSION,
    is_proved,
    session_of,
)
from contracts.ids import MONITOR_ID

_NUMBERS: Final = (int, float)


class Dropped(StrEnum):
    """Why a whole message was dropped."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    UNKNOWN_VERSION = "unknown_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """What one message says. `seen` maps a session's id to epoch milliseconds of our clock; `forged` had no proof."""

    monitor_id: str
    part: int
    seen: Mapping[str, int]
    forged: int


class _NoHeartbeat(ValueError):
    """Something in the message is not what it has to be."""


def read_beats(subject: str, payload: bytes, secret: bytes, heard_at_ms: int) -> Beats | Dropped:
    """Read one message that was heard at this instant, in epoch milliseconds.

    Ages only go back from there: a session may be told to be older than it was before, and never younger than now.
    """
    if len(payload) > MESSAGE_MAX_BYTES:
        return Dropped.OVERSIZED
    try:
        document = json.loads(payload.decode())
        if document["v"] != VERSION:
            return Dropped.UNKNOWN_VERSION
        monitor_id, part, rows = _monitor(subject), _part(document.get("part", 0)), _rows(document["s"])
        seen = _proved(rows, secret, monitor_id, heard_at_ms)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Dropped.MALFORMED
    return Beats(monitor_id=monitor_id, part=part, seen=seen, forged=len(rows) - len(seen))


def epoch_ms(at: datetime) -> int:
    return round(at.timestamp() * 1_000)


def _monitor(subject: str) -> str:
    monitor_id = subject.removeprefix(SUBJECT_PREFIX)
    if not MONITOR_ID.match(monitor_id):
        raise _NoHeartbeat("not a monitor's subject")
    return monitor_id


def _part(part: object) -> int:
    if type(part) is not int or not 0 <= part < PARTS:
        raise _NoHeartbeat("not a part")
    return part


def _rows(rows: object) -> list[list[object]]:
    if type(rows) is not list or len(rows) > SESSIONS_PER_MESSAGE:
        raise _NoHeartbeat("not a list of sessions")
    return rows


def _proved(rows: list[list[object]], secret: bytes, monitor_id: str, heard_at_ms: int) -> dict[str, int]:
    """The sessions whose proof holds. One loop without calls of ours but the proof's: it runs once per session."""
    seen: dict[str, int] = {}
    for ulid, proof, age_s in rows:
        if type(ulid) is not str or type(proof) is not str or type(age_s) not in _NUMBERS:
            raise _NoHeartbeat("not a session's beat")
        # Written so that NaN, which JSON's readers let through, is refused too.
        if not 0 <= age_s <= AGE_MAX_S:  # type: ignore[operator]
            raise _NoHeartbeat("not an age")
        if is_proved(secret, ulid, monitor_id, proof):
            seen[session_of(ulid)] = heard_at_ms - int(age_s * 1000)  # type: ignore[operator]
    return seen
