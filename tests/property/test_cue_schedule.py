"""A schedule against a clock that is watched minute by minute: the same instants, in every zone, across each change."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.cues import Schedule
from router.cue_schedule import due_instants, next_instant

MINUTE = timedelta(minutes=1)
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("America/Sao_Paulo", "2019-02-17T02:00"),
    ("America/St_Johns", "2009-11-01T02:31"),
    ("Africa/Casablanca", "2026-02-15T02:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Asia/Kathmandu", "1985-12-31T18:30"),
    ("Antarctica/Troll", "2026-03-29T01:00"),
    ("America/Caracas", "2016-05-01T07:00"),
    ("Pacific/Chatham", "2026-09-26T14:00"),
    ("UTC", "2028-02-29T00:00"),
    ("Asia/Tokyo", "2027-12-31T15:00"),
]


@dataclass(frozen=True)
class Plan:
    """An expression together with what it was made from, so that nobody has to read it again."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    starred: tuple[bool, ...]

    def matches(self, wall: datetime) -> bool:
        by_day, by_weekday = wall.day in self.days, (wall.weekday() + 1) % 7 in self.weekdays
        is_day = (by_day and by_weekday) if self.starred[2] or self.starred[4] else (by_day or by_weekday)
        return wall.minute in self.minutes and wall.hour in self.hours and wall.month in self.months and is_day

    @property
    def is_pace(self) -> bool:
        return self.starred[0] or self.starred[1]


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int], bool]:
    match draw(st.sampled_from(["star", "step", "list", "range"])):
        case "star":
            return "*", frozenset(range(low, high + 1)), True
        case "step":
            step = draw(st.integers(1, high))
            return f"*/{step}", frozenset(range(low, high + 1, step)), True
        case "list":
            chosen = draw(st.sets(st.integers(low, high), min_size=1, max_size=4))
            return ",".join(map(str, sorted(chosen))), frozenset(chosen), False
        case _:
            first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
            return f"{first}-{last}", frozenset(range(first, last + 1)), False


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    minute, hour = draw(fields(0, 59)), draw(fields(0, 23))
    # Mostly any day: windows are a few days long.
    day = draw(st.one_of(st.just(("*", frozenset(range(1, 32)), True)), fields(1, 31)))
    month = draw(st.one_of(st.just(("*", frozenset(range(1, 13)), True)), fields(1, 12)))
    weekday = draw(st.one_of(st.just(("*", frozenset(range(7)), True)), fields(0, 6)))
    parts = (minute, hour, day, month, weekday)
    return Plan(
        text=" ".join(each[0] for each in parts),
        minutes=minute[1],
        hours=hour[1],
        days=day[1],
        months=month[1],
        weekdays=weekday[1],
        starred=tuple(each[2] for each in parts),
    )


def watched(plan: Plan, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Every minute is looked at; what the wall has shown before, and what it leaves out, is seen on the way."""
    shown: set[datetime] = set()
    found: list[datetime] = []
    # A day earlier, so that what comes a second time is recognised.
    before: datetime | None = None
    for instant, wall in _wall(zone, start - timedelta(days=2), end):
        rings = plan.matches(wall) and (plan.is_pace or wall not in shown)
        if before is not None and not plan.is_pace:
            skipped = before + MINUTE
            while skipped < wall:
                rings = rings or (plan.matches(skipped) and skipped not in shown)
                skipped += MINUTE
        shown.add(wall)
        before = wall
        if rings and instant > start:
            found.append(instant)
    return found


def _wall(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    instant = start
    while instant <= end:
        yield instant, instant.astimezone(zone).replace(tzinfo=None)
        instant += MINUTE


def told(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    found, after = [], start
    while (following := next_instant(schedule, after)) is not None and following <= end:
        assert following > after
        found.append(following)
        after = following
    return found


@settings(max_examples=80, deadline=None)
@given(plan=plans(), change=st.sampled_from(CHANGES), hours=st.integers(1, 40), minutes=st.integers(0, 59))
def test_around_a_change_the_instants_are_those_a_watcher_of_the_wall_would_name(
    plan: Plan, change: tuple[str, str], hours: int, minutes: int
) -> None:
    name, at = change
    start = datetime.fromisoformat(f"{at}:00+00:00") - timedelta(hours=hours, minutes=minutes)
    end = start + timedelta(hours=50)

    assert told(Schedule(cron=plan.text, timezone=name), start, end) == watched(plan, ZoneInfo(name), start, end)


@settings(max_examples=25, deadline=None)
@given(
    plan=plans(),
    zone=st.sampled_from(sorted({name for name, _ in CHANGES})),
    minutes=st.integers(0, 6_800_000),
)
def test_anywhere_in_time_the_instants_are_those_a_watcher_of_the_wall_would_name(
    plan: Plan, zone: str, minutes: int
) -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC) + minutes * MINUTE
    end = begin + timedelta(hours=40)

    assert told(Schedule(cron=plan.text, timezone=zone), begin, end) == watched(plan, ZoneInfo(zone), begin, end)


@settings(max_examples=25, deadline=None)
@given(plan=plans(), change=st.sampled_from(CHANGES), data=st.data())
def test_asked_at_any_moments_and_by_whomever_each_instant_comes_due_once(
    plan: Plan, change: tuple[str, str], data: st.DataObject
) -> None:
    """A restart, a second router, a clock set back: all they have is the next instant that was stored."""
    name, at = change
    start = datetime.fromisoformat(f"{at}:00+00:00") - timedelta(hours=20)
    end, schedule = start + timedelta(hours=40), Schedule(cron=plan.text, timezone=name)
    looks = data.draw(st.lists(st.integers(0, 2_400), min_size=1, max_size=12))
    following, seen = next_instant(schedule, start), list[datetime]()
    for look in [*looks, 2_400]:
        now = start + timedelta(minutes=look)
        if following is None or following > now:
            continue
        due = due_instants(schedule, following, now, keep=5_000)
        assert due.count == len(due.newest)
        seen += due.newest
        following = next_instant(schedule, now)

    assert seen == told(schedule, start, end)
