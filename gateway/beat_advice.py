"""When a session had better beat next: twice within its time, and less often where many sessions beat. Pure.

usual interval   half of the time after which the session is overdue
many sessions    so long that all of them together make about `BEATS_PER_S`, up to three quarters of that time
jitter           up to a tenth earlier, so that a fleet that started at once does not beat at once
the first beat   after a third of the interval: whoever has beaten once makes room for nobody that has not
"""

from datetime import timedelta
from typing import Final

BEATS_PER_S: Final = 1_000
"""What the sessions of one installation may cost together: about a tenth of what one gateway's core serves."""
JITTER: Final = 0.1
FIRST: Final = 1 / 3


def interval_s(overdue: timedelta, known: int = 0) -> float:
    """How often to beat where so many sessions are known."""
    limit_s = overdue.total_seconds()
    return min(max(limit_s / 2, known / BEATS_PER_S), limit_s * 3 / 4)


def next_beat_after_s(overdue: timedelta, known: int, dice: float, *, is_first: bool = False) -> float:
    """In how many seconds to beat next; `dice` is in [0, 1)."""
    waits_s = interval_s(overdue, known) * (FIRST if is_first else 1)
    return round(waits_s * (1 - JITTER * dice), 1)
