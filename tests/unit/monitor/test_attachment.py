"""The table of `monitor.attachment`, row by row."""

from datetime import UTC, datetime, timedelta

import pytest

from monitor.attachment import Action, Pace, Reported, next_action, session_token
from monitor.heartbeat import Beat, BeatReason

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PACE = Pace(beat_every_s=30, gap_s=5, carried_gap_s=20)


def fresh(touched_s_ago: float = 0) -> Beat:
    touched_at = NOW - timedelta(seconds=touched_s_ago)
    return Beat(is_fresh=True, age_s=touched_s_ago, reason=BeatReason.OK, touched_at=touched_at)


def stale() -> Beat:
    return Beat(is_fresh=False, age_s=500, reason=BeatReason.STALE, touched_at=NOW - timedelta(seconds=500))


def told(beat: Beat, seconds_ago: float) -> Reported:
    return Reported(at=NOW - timedelta(seconds=seconds_ago), beat=beat)


@pytest.mark.parametrize(
    ("reported", "beat", "action"),
    [
        (None, fresh(), Action.ATTACH),
        (None, stale(), Action.NOTHING),
        (None, None, Action.NOTHING),
        (told(fresh(), 1), None, Action.DETACH),
        (told(stale(), 0), fresh(), Action.BEAT),
        (told(fresh(10), 5), fresh(), Action.BEAT),
        (told(fresh(10), 4), fresh(), Action.NOTHING),
        (told(fresh(10), 29), fresh(10), Action.NOTHING),
        (told(fresh(10), 30), fresh(10), Action.BEAT),
        (told(fresh(10), 0), stale(), Action.BEAT),
        (told(stale(), 29), stale(), Action.NOTHING),
        (told(stale(), 30), stale(), Action.BEAT),
        (told(fresh(), -3600), fresh(), Action.BEAT),
    ],
)
def test_a_folder_gets_the_one_action_that_is_due(reported: Reported | None, beat: Beat | None, action: Action) -> None:
    assert next_action(reported, beat, NOW, PACE) is action


@pytest.mark.parametrize(
    ("reported", "beat", "action"),
    [
        (told(fresh(10), 5), fresh(), Action.NOTHING),
        (told(fresh(10), 19), fresh(), Action.NOTHING),
        (told(fresh(10), 20), fresh(), Action.BEAT),
        (told(fresh(10), 30), fresh(10), Action.BEAT),
        (told(fresh(10), 0), stale(), Action.BEAT),
        (told(stale(), 0), fresh(), Action.BEAT),
        (told(fresh(), 1), None, Action.DETACH),
    ],
)
def test_while_the_broker_carries_beats_a_touch_is_due_later(
    reported: Reported, beat: Beat | None, action: Action
) -> None:
    assert next_action(reported, beat, NOW, PACE, is_carried=True) is action


def test_a_session_token_fits_the_gateway_and_carries_its_randomness() -> None:
    token = session_token("0" * 26, b"\xff" * 20)
    assert token == "0" * 26 + "_" + "ff" * 20
    assert 26 <= len(token) <= 80
