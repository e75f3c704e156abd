"""When a schedule fires: the exact instants of a cron expression in a time zone. Pure.

What the wall shows when clocks are changed decides:

    a time (`30 2 * * *`)      once for each date that has it; in the hour that is skipped, at the instant of the
                               change; in the hour that comes twice, the first time
    a pace (`*/15 * * * *`)    whenever the wall shows it: not in the hour that is skipped, twice in the one that comes
                               twice

Two times that fall on the same instant are one. As Debian's cron does it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contracts.cues import Schedule
from contracts.errors import Invalid
from router.cron import Cron, parse_cron

MAX_COUNTED: Final = 10_000
"""How many missed instants are counted; a cue that missed more says that it missed so many."""
LOOK_BACK: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=40), timedelta(days=18_300))
_NOT_OF_THE_WORLD: Final = ("localtime", "posixrules", "posix/", "right/")
"""In some machines' databases: what they name depends on the machine, or counts leap seconds."""
_DAY: Final = timedelta(days=1)


@lru_cache(maxsize=1_024)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises `Invalid` (`invalid_timezone`)."""
    try:
        if name.startswith(_NOT_OF_THE_WORLD):
            raise ZoneInfoNotFoundError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # The name of a folder is an OSError, a path out of the database a ValueError.
        raise Invalid("invalid_timezone", "There is no such time zone.", field="schedule.timezone") from None


def next_instant(schedule: Schedule, after: datetime) -> datetime | None:
    """The first instant of a schedule behind `after`; None when there is none."""
    if schedule.at is not None:
        return schedule.at if schedule.at > after else None
    if schedule.cron is None:
        return None
    return next_of(parse_cron(schedule.cron), zone_of(schedule.timezone), after)


def next_of(cron: Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first instant of a cron expression behind `after`, in UTC."""
    return _soon(cron, zone, after) or _search(cron, zone, after)


def instant_in(zone: ZoneInfo, naive: datetime) -> datetime:
    """The instant at which the wall in a zone shows this, by the rule for times."""
    return _shown(naive, zone, is_interval=False)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueInstants:
    """What has come due: how many instants, and the newest of them, oldest first."""

    count: int
    newest: tuple[datetime, ...]


def due_instants(schedule: Schedule, first: datetime, now: datetime, *, keep: int) -> DueInstants:
    """The instants from `first`, which is one of the schedule's, up to and including `now`."""
    newest = deque([first], maxlen=keep)
    count = 1
    for instant in islice(_until(schedule, first, now), MAX_COUNTED):
        newest.append(instant)
        count += 1
    if count <= MAX_COUNTED:
        return DueInstants(count=count, newest=tuple(newest))
    return DueInstants(count=count, newest=_newest(schedule, now, keep))


def _until(schedule: Schedule, after: datetime, now: datetime) -> Iterator[datetime]:
    while (found := next_instant(schedule, after)) is not None and found <= now:
        yield found
        after = found


def _newest(schedule: Schedule, now: datetime, keep: int) -> tuple[datetime, ...]:
    """The last instants before `now`, without walking through all of them."""
    found: tuple[datetime, ...] = ()
    for back in LOOK_BACK:
        found = tuple(deque(_until(schedule, now - back, now), maxlen=keep))
        if len(found) == keep:
            break
    return found


def _soon(cron: Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The next instant where no clock is changed within a day of it, by plain arithmetic; None when that cannot be."""
    if _spread(zone, after):
        return None
    wall = _wall(zone, after)
    found = next((each for each in _times_near(cron, wall) if each > wall), None)
    return after + (found - wall) if found is not None and found - wall < _DAY else None


def _times_near(cron: Cron, wall: datetime) -> Iterator[datetime]:
    """The times of this date and the next."""
    last = wall.date() + _DAY
    return takewhile(lambda each: each.date() <= last, _times_from(cron, wall))


def _search(cron: Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Time by time, with the neighbours of the one found: where a clock is set back, later times may come earlier."""
    found: datetime | None = None
    last: datetime | None = None
    for naive in _times_from(cron, _wall(zone, after) - _spread(zone, after)):
        if last is not None and naive > last:
            break
        for instant in _shown(naive, zone, is_interval=cron.is_interval):
            if instant > after and (found is None or instant < found):
                found, last = instant, _wall(zone, instant) + _spread(zone, instant)
    return found


def _wall(zone: ZoneInfo, at: datetime) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)


def _spread(zone: ZoneInfo, at: datetime) -> timedelta:
    """By how much clocks are changed within a day of an instant."""
    offsets = [(at + days * _DAY).astimezone(zone).utcoffset() or timedelta() for days in (-1, 0, 1)]
    return max(offsets) - min(offsets)


def _times_from(cron: Cron, start: datetime) -> Iterator[datetime]:
    for on in cron.dates_from(start.date()):
        for hour in cron.hours:
            if on == start.date() and hour < start.hour:
                continue
            for minute in cron.minutes:
                yield datetime(on.year, on.month, on.day, hour, minute)  # noqa: DTZ001 - what the wall shows


def _shown(naive: datetime, zone: ZoneInfo, *, is_interval: bool) -> tuple[datetime, ...]:
    """The instants that count as this time of the wall."""
    # PEP 495: with fold=0 a time is read by the offset before a change, with fold=1 by the one after it.
    before = naive.replace(tzinfo=zone, fold=0).astimezone(UTC)
    after = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if before == after:
        return (before,)
    if before < after:
        return (before, after) if is_interval else (before,)
    return () if is_interval else (_change_between(zone, after, before),)


def _change_between(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first second at which the zone has the offset it has at `high`."""
    new = high.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == new:
            high = middle
        else:
            low = middle
    return high
