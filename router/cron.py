"""Cron expressions: five fields, read strictly, and the dates they name. Pure.

    minute 0–59 · hour 0–23 · day of the month 1–31 · month 1–12 or jan–dec · weekday 0–7 or sun–sat (0 and 7: Sunday)

Each is a list of `*`, numbers and ranges, with `/step` where wanted. As in Vixie's cron a date has to fit the day and
the weekday when one of the two begins with `*`, and either of them when both are restricted.
"""

import calendar
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, date
from functools import lru_cache
from typing import Final

from contracts.errors import Malformed

MAX_LENGTH: Final = 255
HORIZON_YEARS: Final = 50
"""How far ahead a date is looked for. The rarest there is, a Feb 29 on one weekday over a century's end, takes 40."""
MACROS: Final[Mapping[str, str]] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS: Final = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int]


_FIELDS: Final = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed expression. `is_interval`: minute or hour begins with `*`, so it means a pace rather than a time."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: tuple[int, ...]
    weekdays: frozenset[int]
    needs_both: bool
    is_interval: bool

    def has_date(self, on: date) -> bool:
        if on.month not in self.months:
            return False
        by_day, by_weekday = on.day in self.days, on.isoweekday() % 7 in self.weekdays
        return by_day and by_weekday if self.needs_both else by_day or by_weekday

    def dates_from(self, start: date) -> Iterator[date]:
        """The dates from `start` on, in order, for `HORIZON_YEARS`."""
        for year in range(start.year, min(start.year + HORIZON_YEARS, MAXYEAR) + 1):
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                for day in range(1, calendar.monthrange(year, month)[1] + 1):
                    on = date(year, month, day)
                    if on >= start and self.has_date(on):
                        yield on


@lru_cache(maxsize=4_096)
def parse_cron(text: str) -> Cron:
    """Read an expression. Raises `Malformed` (`invalid_schedule`) for what is none."""
    if len(text) > MAX_LENGTH or not text.isascii():
        raise _invalid("A cron expression has five fields of ASCII text.")
    parts = MACROS.get(text.strip().lower(), text).lower().split()
    if len(parts) != len(_FIELDS):
        raise _invalid("A cron expression has five fields: minute, hour, day, month, weekday.")
    minutes, hours, days, months, weekdays = (_values(part, of) for part, of in zip(parts, _FIELDS, strict=True))
    return Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=tuple(sorted(months)),
        weekdays=frozenset(each % 7 for each in weekdays),
        needs_both=parts[2].startswith("*") or parts[4].startswith("*"),
        is_interval=parts[0].startswith("*") or parts[1].startswith("*"),
    )


def _values(text: str, of: _Field) -> set[int]:
    return {value for item in text.split(",") for value in _item(item, of)}


def _item(text: str, of: _Field) -> range:
    base, slash, step_text = text.partition("/")
    step = _number(step_text, of) if slash else 1
    if not 1 <= step <= of.high:
        raise _invalid(f"A step of the {of.name} is 1 to {of.high}.")
    low, high = _bounds(base, of, reaches_on=bool(slash))
    if not of.low <= low <= high <= of.high:
        raise _invalid(f"The {of.name} goes from {of.low} to {of.high}, and a range from its lower end.")
    return range(low, high + 1, step)


def _bounds(text: str, of: _Field, *, reaches_on: bool) -> tuple[int, int]:
    if text == "*":
        # Sunday once: as 0.
        return of.low, 6 if of.names is _WEEKDAYS else of.high
    low_text, dash, high_text = text.partition("-")
    low = _value(low_text, of)
    if dash:
        high = _value(high_text, of)
        # `fri-sun`: at the end of a range Sunday is the seventh day.
        return low, 7 if of.names is _WEEKDAYS and high == 0 and low > 0 else high
    return low, of.high if reaches_on else low


def _value(text: str, of: _Field) -> int:
    named = of.names.get(text)
    return _number(text, of) if named is None else named


def _number(text: str, of: _Field) -> int:
    if not text.isdecimal() or len(text) > 2:
        raise _invalid(f"The {of.name} is a list of *, numbers and ranges.")
    return int(text)


def _invalid(message: str) -> Malformed:
    return Malformed("invalid_schedule", message, field="schedule")
