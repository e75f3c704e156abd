"""Usage, workers' ages, and names made of e-mail addresses: the small pure rules around an account."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.words import State
from gateway.accounts import slug_of
from gateway.ports import WorkerSeen
from gateway.usage import month_starts, usage_view
from gateway.workers import heartbeat_status, worker_view

NOW = datetime(2026, 2, 27, 12, tzinfo=UTC)


def test_usage_counts_what_is_known_and_leaves_the_rest_open() -> None:
    told = usage_view({State.QUEUED: 2, State.DELIVERED: 3, State.EXPIRED: 0}, (1, 3, 5), NOW)

    assert told["messages"] == {
        "on_record": 5,
        "open": 2,
        "ended": 3,
        "by_state": {"queued": 2, "delivered": 3},
        "by_month": [{"month": "2026-02", "received": 2}, {"month": "2026-01", "received": 2}],
        "earlier": 1,
    }
    assert told["executions"]["used"] == 2
    assert told["outcomes"] == {"reported": 3, "succeeded": None, "failed": None}
    assert told["billing_period"] == {
        "start": "2026-02-01T00:00:00.000Z",
        "end": "2026-03-01T00:00:00.000Z",
        "days_remaining": 1,
    }


@pytest.mark.parametrize("now", [NOW, datetime(2026, 3, 31, 23, 59, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)])
def test_months_are_calendar_months_without_gaps(now: datetime) -> None:
    starts = month_starts(now)

    assert len(starts) == 12
    assert (starts[-1].year, starts[-1].month) == (now.year, now.month)
    assert all((start.day, start.hour, start.minute) == (1, 0, 0) for start in starts)
    numbers = [start.year * 12 + start.month for start in starts]
    assert numbers == list(range(numbers[0], numbers[0] + 12))


@pytest.mark.parametrize(("seconds", "status"), [(0, "active"), (179, "active"), (180, "stale"), (900, "dead")])
def test_a_worker_ages_in_two_steps(seconds: int, status: str) -> None:
    assert heartbeat_status(seconds) == status


def test_a_worker_is_shown_with_its_age() -> None:
    seen = WorkerSeen(
        worker_id="w",
        first_seen_at=NOW - timedelta(hours=1),
        last_seen_at=NOW - timedelta(seconds=200),
        handlers=("a",),
    )

    told = worker_view(seen, NOW)

    assert (told["seconds_since_heartbeat"], told["heartbeat_status"], told["handlers"]) == (200, "stale", ["a"])


@pytest.mark.parametrize(
    ("text", "slug"),
    [("Max.Power", "max-power"), ("--x__y--", "x-y"), ("ÄÖ", "agent"), ("a" * 80, "a" * 58), ("", "agent")],
)
def test_a_name_is_made_of_letters_digits_and_dashes(text: str, slug: str) -> None:
    assert slug_of(text, otherwise="agent") == slug
