"""The table of `monitor.heartbeat`, row by row."""

from datetime import UTC, datetime, timedelta

import pytest

from monitor.heartbeat import BeatReason, judge
from monitor.ports import HeartbeatReading

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MAX_AGE_S = 120


def touched(seconds_ago: float) -> HeartbeatReading:
    return HeartbeatReading(touched_at=NOW - timedelta(seconds=seconds_ago))


@pytest.mark.parametrize(
    ("reading", "is_fresh", "reason", "age_s"),
    [
        (touched(0), True, BeatReason.OK, 0),
        (touched(120), True, BeatReason.OK, 120),
        (touched(-5), True, BeatReason.OK, 0),
        (touched(121), False, BeatReason.STALE, 121),
        (touched(-6), False, BeatReason.CLOCK_SUSPECT, 121),
        (touched(-86_400), False, BeatReason.CLOCK_SUSPECT, 121),
        (HeartbeatReading(touched_at=datetime.fromtimestamp(0, UTC)), False, BeatReason.STALE, 86_400),
        (HeartbeatReading(), False, BeatReason.MISSING, 121),
        (HeartbeatReading(unsafe="not_regular"), False, BeatReason.UNSAFE, 121),
    ],
)
def test_only_a_recent_touch_of_a_safe_file_is_a_sign_of_life(
    reading: HeartbeatReading, is_fresh: bool, reason: BeatReason, age_s: float
) -> None:
    beat = judge(reading, NOW, max_age_s=MAX_AGE_S)
    assert (beat.is_fresh, beat.reason, beat.age_s) == (is_fresh, reason, age_s)


def test_a_touch_from_before_the_boot_is_of_a_session_that_is_gone() -> None:
    beat = judge(touched(60), NOW, max_age_s=MAX_AGE_S, booted_at=NOW - timedelta(seconds=30))
    assert (beat.is_fresh, beat.reason) == (False, BeatReason.CLOCK_SUSPECT)
    assert beat.age_s > MAX_AGE_S


def test_an_unsafe_file_says_why() -> None:
    assert judge(HeartbeatReading(unsafe="hard_link"), NOW, max_age_s=MAX_AGE_S).detail == "hard_link"


def test_an_age_grows_and_never_shrinks() -> None:
    beat = judge(HeartbeatReading(touched_at=NOW - timedelta(seconds=5)), NOW, max_age_s=120)
    assert beat.age_at(NOW + timedelta(seconds=7)) == 12
    assert beat.age_at(NOW - timedelta(seconds=60)) == 5
    assert judge(HeartbeatReading(), NOW, max_age_s=120).age_at(NOW + timedelta(seconds=7)) == 121
