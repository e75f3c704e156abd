"""When a session had better beat next: in time, early at first, and less often where many do."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.beat_advice import BEATS_PER_S, interval_s, next_beat_after_s

MINUTE = timedelta(seconds=60)


@pytest.mark.parametrize(("known", "expected_s"), [(0, 30), (30_000, 30), (36_000, 36), (45_000, 45), (10**9, 45)])
def test_the_interval_is_half_of_the_limit_and_grows_with_the_sessions_up_to_three_quarters(
    known: int, expected_s: float
) -> None:
    assert interval_s(MINUTE, known) == expected_s


def test_the_first_beat_is_due_after_a_third_of_the_interval() -> None:
    assert next_beat_after_s(MINUTE, 0, 0.0, is_first=True) == 10


def test_many_sessions_together_make_no_more_beats_than_they_may_until_their_limit_forbids_it() -> None:
    for known in range(30_000, 45_000, 1_000):
        assert known / interval_s(MINUTE, known) <= BEATS_PER_S


@given(
    limit_s=st.integers(5, 3_600),
    known=st.integers(0, 10**7),
    dice=st.floats(0, 1, exclude_max=True),
    first=st.booleans(),
)
def test_whoever_follows_the_advice_is_never_overdue_and_never_hurries(
    limit_s: int, known: int, dice: float, first: bool
) -> None:
    advised_s = next_beat_after_s(timedelta(seconds=limit_s), known, dice, is_first=first)
    assert limit_s / 8 < advised_s <= limit_s * 0.75 + 0.05
