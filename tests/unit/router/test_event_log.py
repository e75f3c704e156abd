"""How the writer of tenants' events takes its time, and how far it says it is behind."""

from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from prometheus_client import CollectorRegistry

from contracts.events import Event
from contracts.tenant_events import TenantEvent
from router.derivation import derive
from router.event_log import BEHIND, LONGEST, pace, portions
from router.metrics import EventLogMetrics
from tests import builders as make

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class StandingClock:
    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at


class Watched:
    """The metrics, and what they say."""

    def __init__(self) -> None:
        self.clock = StandingClock()
        self.newest_seq = 0
        self._registry = CollectorRegistry()
        self.metrics = EventLogMetrics(self._registry, self.clock, lambda: self.newest_seq)

    def says(self, name: str) -> float | None:
        return self._registry.get_sample_value(f"postroom_event_log_{name}")


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_the_log_is_behind_by_what_was_read_and_not_yet_written(watched: Watched) -> None:
    watched.metrics.begins(10)
    watched.newest_seq = 25
    assert watched.says("behind") == 15

    watched.metrics.has_reached(25)
    assert watched.says("behind") == 0


def test_the_oldest_unwritten_event_grows_older_until_it_is_written(watched: Watched) -> None:
    watched.metrics.begins(10)
    watched.metrics.takes(NOON - timedelta(seconds=5))
    watched.clock.at += timedelta(seconds=30)
    assert watched.says("oldest_unwritten_seconds") == 35

    watched.metrics.has_reached(11)
    assert watched.says("oldest_unwritten_seconds") == 0


def test_an_interruption_hides_neither_lag_nor_age(watched: Watched) -> None:
    watched.metrics.begins(10)
    watched.newest_seq = 12
    watched.metrics.takes(NOON)
    watched.metrics.is_interrupted(is_full=True)
    watched.metrics.begins(10)
    watched.clock.at += timedelta(seconds=60)

    assert (watched.says("full"), watched.says("behind"), watched.says("oldest_unwritten_seconds")) == (1, 2, 60)
    watched.metrics.has_written(3)
    assert (watched.says("full"), watched.says("events_written_total")) == (0, 3)


def test_who_stands_by_is_behind_with_nothing(watched: Watched) -> None:
    watched.metrics.begins(10)
    watched.newest_seq = 12
    watched.metrics.takes(NOON - timedelta(seconds=5))
    watched.metrics.is_interrupted(is_full=True)
    watched.metrics.stands_by()

    assert [watched.says(name) for name in ("full", "behind", "oldest_unwritten_seconds")] == [0, 0, 0]


def test_a_reading_elsewhere_that_is_further_back_makes_no_lag(watched: Watched) -> None:
    watched.metrics.begins(10)
    watched.newest_seq = 3

    assert watched.says("behind") == 0


def test_the_interval_grows_with_what_comes_and_stays_short_for_who_is_behind() -> None:
    paces = [pace(n) for n in (0, 1, 50, 120, 200, BEHIND - 1)]

    assert paces == sorted(paces)
    assert (paces[0], paces[-1]) == (1.0, LONGEST)
    assert pace(BEHIND) == 1.0


def test_what_one_ledger_event_tells_stays_in_one_portion() -> None:
    lives: list[list[TenantEvent]] = []
    for _ in range(7):
        accepted: Event = make.accepted()
        lives.append(derive(None, make.ULID, make.history(accepted).events[0])[1])
    size = len(lives[0])

    found = list(portions(lives, at_most=2 * size + 1))

    assert [len(portion) for portion in found] == [2 * size, 2 * size, 2 * size, size]
    assert list(chain(*found)) == list(chain(*lives))
