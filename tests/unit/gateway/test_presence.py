"""Ages in numbers and words."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.presence import age_s, in_words, is_fresh

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (4.9, "just now"),
        (5, "5 seconds ago"),
        (60, "1 minute ago"),
        (179, "2 minutes ago"),
        (3_600, "1 hour ago"),
        (90_000, "1 day ago"),
        (-30, "just now"),
    ],
)
def test_ages_are_told_in_the_largest_unit_that_fits(seconds: float, words: str) -> None:
    assert in_words(NOW - timedelta(seconds=seconds), NOW) == words


def test_what_was_never_seen_has_no_age_and_is_not_fresh() -> None:
    assert (age_s(None, NOW), in_words(None, NOW), is_fresh(None, NOW, max_age_s=1)) == (None, "never", False)


def test_fresh_includes_the_limit_itself() -> None:
    assert is_fresh(NOW - timedelta(seconds=120), NOW, max_age_s=120)
    assert not is_fresh(NOW - timedelta(seconds=120, microseconds=1), NOW, max_age_s=120)


def test_an_age_is_never_negative() -> None:
    assert age_s(NOW + timedelta(seconds=5), NOW) == 0
