"""How fast a redrive goes: a token bucket, and a pause after an append that took long. Pure.

A bucket holds one token, so what was not taken while a redrive waited is never caught up with.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

SLOW_S: Final = 0.1
"""An append takes a few milliseconds; one that takes this long waited behind others."""
REST: Final = 4
"""After a slow append the redrive rests this many times as long: a fifth of a busy broker's time at most."""
LONGEST_REST_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket:
    """At most one token, refilled at `per_s`; `next_at` is when it is there, None: now."""

    per_s: float
    next_at: datetime | None = None

    def wait_s(self, now: datetime) -> float:
        """How long until the next token; 0 when there is one."""
        if self.next_at is None:
            return 0.0
        left_s = (self.next_at - now).total_seconds()
        # A clock that was set back must not stop a redrive for longer than a token takes.
        return min(max(0.0, left_s), 1 / self.per_s)

    def taken(self, now: datetime) -> "TokenBucket":
        """The bucket after its token was taken at `now`."""
        return replace(self, next_at=now + timedelta(seconds=1 / self.per_s))


def rest_s(append_s: float) -> float:
    """How long to leave the broker alone after an append that took so long."""
    return min(append_s * REST, LONGEST_REST_S) if append_s >= SLOW_S else 0.0
