"""How long ago something was heard of, in numbers and in words. Pure."""

from datetime import datetime
from typing import Final

JUST_NOW_S: Final = 5
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def age_s(seen_at: datetime | None, now: datetime) -> int | None:
    """Whole seconds since `seen_at`, never negative; None when it was never seen."""
    return None if seen_at is None else max(0, int((now - seen_at).total_seconds()))


def is_fresh(seen_at: datetime | None, now: datetime, *, max_age_s: int) -> bool:
    """Say whether something was seen at most `max_age_s` seconds ago; what was never seen is not fresh."""
    return seen_at is not None and (now - seen_at).total_seconds() <= max_age_s


def in_words(seen_at: datetime | None, now: datetime) -> str:
    """`never`, `just now`, `3 minutes ago`: for people, so rounded down to the largest unit that fits."""
    age = age_s(seen_at, now)
    if age is None:
        return "never"
    if age < JUST_NOW_S:
        return "just now"
    size, unit = next((size, unit) for size, unit in _UNITS if age >= size)
    count = age // size
    return f"{count} {unit}{'' if count == 1 else 's'} ago"
