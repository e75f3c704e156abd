"""Whether a session's heartbeat file says that it lives. Pure.

file                               fresh   reason
touched at most max_age ago        yes     ok
touched longer ago                 no      heartbeat_stale
touched before the host booted     no      heartbeat_clock_suspect
touched more than 5 s from now     no      heartbeat_clock_suspect
not a plain file of our own        no      heartbeat_file_unsafe
absent                             no      heartbeat_missing
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from monitor.ports import HeartbeatReading

FUTURE_TOLERANCE_S: Final = 5.0
"""A file system's clock may run a little ahead of ours; more than this is somebody setting the time."""


REPORTED_AGE_MAX_S: Final = 86_400.0
"""The oldest beat the gateway takes a report of."""


class BeatReason(StrEnum):
    OK = "ok"
    STALE = "heartbeat_stale"
    MISSING = "heartbeat_missing"
    UNSAFE = "heartbeat_file_unsafe"
    CLOCK_SUSPECT = "heartbeat_clock_suspect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A judged heartbeat. `age_s` is what is reported to the gateway: for a time that cannot be believed, too old."""

    is_fresh: bool
    age_s: float
    reason: BeatReason
    touched_at: datetime | None = None
    detail: str | None = None

    def age_at(self, now: datetime) -> float:
        """How old it is by now, in seconds; never less than when it was judged."""
        since_s = (now - self.touched_at).total_seconds() if self.touched_at else 0.0
        return max(self.age_s, since_s)


def judge(reading: HeartbeatReading, now: datetime, *, max_age_s: float, booted_at: datetime | None = None) -> Beat:
    """Say whether the file's time counts as a sign of life at most `max_age_s` seconds old."""
    touched_at = reading.touched_at
    if reading.unsafe is not None:
        return _unbelievable(BeatReason.UNSAFE, max_age_s, detail=reading.unsafe)
    if touched_at is None:
        return _unbelievable(BeatReason.MISSING, max_age_s)
    age_s = (now - touched_at).total_seconds()
    if age_s < -FUTURE_TOLERANCE_S:
        return _unbelievable(BeatReason.CLOCK_SUSPECT, max_age_s, touched_at)
    if age_s > max_age_s:
        age_s = min(age_s, REPORTED_AGE_MAX_S)
        return Beat(is_fresh=False, age_s=age_s, reason=BeatReason.STALE, touched_at=touched_at)
    if booted_at is not None and (booted_at - touched_at).total_seconds() > FUTURE_TOLERANCE_S:
        return _unbelievable(BeatReason.CLOCK_SUSPECT, max_age_s, touched_at)
    return Beat(is_fresh=True, age_s=max(age_s, 0.0), reason=BeatReason.OK, touched_at=touched_at)


def _unbelievable(
    reason: BeatReason, max_age_s: float, touched_at: datetime | None = None, *, detail: str | None = None
) -> Beat:
    return Beat(is_fresh=False, age_s=max_age_s + 1, reason=reason, touched_at=touched_at, detail=detail)
