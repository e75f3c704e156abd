"""The instants of a schedule: clocks that change, leap days, odd zones, and what has come due."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from contracts.cues import Schedule
from contracts.errors import Invalid
from router.cue_schedule import MAX_COUNTED, due_instants, instant_in, next_instant, zone_of


def instants(cron: str, zone: str, after: str, n: int) -> list[str]:
    """The next `n` instants behind `after`, as the clock of UTC shows them."""
    schedule, at = Schedule(cron=cron, timezone=zone), datetime.fromisoformat(f"{after}:00+00:00")
    found = []
    for _ in range(n):
        following = next_instant(schedule, at)
        assert following is not None
        found.append(f"{following.astimezone(UTC):%Y-%m-%dT%H:%M}")
        at = following
    return found


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # A time in the hour that is skipped: at the instant of the change, and once for two of them.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T02:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
        # A time in the hour that comes twice: the first time, also when one asks between the two.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T01:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45", ["2026-10-26T01:30"]),
        # A pace goes by what the wall shows: nothing is skipped, and the hour that comes twice counts twice.
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T02:00", ["2026-03-30T00:00", "2026-03-30T00:30"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:30", ["2026-10-25T01:00", "2026-10-25T01:30"]),
        ("0 * * * *", "America/New_York", "2026-03-08T06:30", ["2026-03-08T07:00", "2026-03-08T08:00"]),
        # Half an hour is put forward, and the time that is skipped has no instant.
        ("*/10 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:00", ["2026-10-03T15:30", "2026-10-03T15:40"]),
        ("*/20 3 * * *", "Australia/Lord_Howe", "2026-10-03T15:00", ["2026-10-03T16:00", "2026-10-03T16:20"]),
        # Midnight itself is skipped.
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T03:00", ["2018-11-04T03:00", "2018-11-05T02:00"]),
        # A change just after midnight takes the wall back into the day before.
        ("0 0 1 11 *", "America/St_Johns", "2009-10-31T12:00", ["2009-11-01T02:30", "2010-11-01T02:30"]),
        ("*/30 23 31 10 *", "America/St_Johns", "2009-11-01T01:30", ["2009-11-01T02:00", "2009-11-01T03:00"]),
        # Offsets that are no whole hours.
        ("15 9 * * *", "Asia/Kathmandu", "2026-01-01T00:00", ["2026-01-01T03:30"]),
        ("0 9 * * *", "Pacific/Chatham", "2026-01-01T00:00", ["2026-01-01T19:15"]),
        # A whole day is left out.
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00", ["2011-12-30T10:00", "2012-12-29T22:00"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00", ["2104-02-29T00:00"]),
        ("0 0 31 * *", "UTC", "2026-01-31T00:00", ["2026-03-31T00:00", "2026-05-31T00:00"]),
    ],
)
def test_clocks_that_change_and_rare_dates_have_exactly_these_instants(
    cron: str, zone: str, after: str, expected: list[str]
) -> None:
    assert instants(cron, zone, after, len(expected)) == expected


def test_a_date_there_is_not_never_comes() -> None:
    assert next_instant(Schedule(cron="0 0 30 2 *"), datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_one_instant_comes_once_and_on_demand_never() -> None:
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)

    assert next_instant(Schedule(at=at), at - timedelta(seconds=1)) == at
    assert next_instant(Schedule(at=at), at) is None
    assert next_instant(Schedule(), at) is None


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "Europe", "../etc/passwd", "/etc/localtime", "right/UTC", "x\0"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        zone_of(name)

    assert refused.value.code == "invalid_timezone"


def test_a_time_of_the_wall_is_read_in_its_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    assert instant_in(berlin, datetime.fromisoformat("2026-07-01T09:00")).isoformat() == "2026-07-01T07:00:00+00:00"
    assert instant_in(berlin, datetime.fromisoformat("2026-03-29T02:30")).hour == 1


def test_what_came_due_is_counted_and_the_newest_are_named() -> None:
    first = datetime(2026, 5, 1, 12, tzinfo=UTC)
    due = due_instants(Schedule(cron="*/5 * * * *"), first, first + timedelta(minutes=31), keep=3)

    assert due.count == 7
    assert [each.minute for each in due.newest] == [20, 25, 30]


def test_the_newest_of_a_million_are_found_without_counting_them_all() -> None:
    first, now = datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    due = due_instants(Schedule(cron="* * * * *"), first, now, keep=2)

    assert due.count == MAX_COUNTED + 1
    assert due.newest == (now - timedelta(minutes=1), now)
