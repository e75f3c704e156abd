"""Ages in numbers and words, and what signs of life make of an agent."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.words import AgentStatus
from gateway.presence import age_s, in_words, is_fresh, presence_of
from tests.builders import agent

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


@pytest.mark.parametrize(
    ("seconds", "limit_s", "expected"),
    [
        (0, 120, ("online", "active now")),
        (120, 120, ("online", "active now")),
        (121, 120, ("away", "1m ago")),
        (11, 10, ("away", "1m ago")),
        (299, 120, ("away", "1m ago")),
        (300, 120, ("away", "5m ago")),
        (1_800, 120, ("away", "30m ago")),
        (1_801, 120, ("offline", "30m ago")),
        (1_801, 3_600, ("online", "active now")),
        (3_600, 120, ("offline", "1h ago")),
        (90_000, 120, ("offline", "1d ago")),
    ],
)
def test_an_agent_is_online_within_its_own_limit_and_away_for_half_an_hour(
    seconds: float, limit_s: int, expected: tuple[str, str]
) -> None:
    presence = presence_of(agent(heartbeat_age_sec=limit_s), [NOW - timedelta(seconds=seconds)], NOW)
    assert (presence.status, presence.seen) == expected


def test_the_newest_sign_of_life_counts() -> None:
    signs = [None, NOW - timedelta(hours=2), NOW - timedelta(seconds=1)]
    assert presence_of(agent(), signs, NOW).is_online


def test_an_agent_never_heard_of_is_offline() -> None:
    presence = presence_of(agent(), [None], NOW)
    assert (presence.status, presence.seen, presence.last_seen_at) == ("offline", "never", None)


def test_an_inactive_agent_is_offline_however_loudly_it_beats() -> None:
    presence = presence_of(agent(status=AgentStatus.INACTIVE), [NOW], NOW)
    assert (presence.status, presence.is_online) == ("offline", False)
