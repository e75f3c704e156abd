"""When to try again. Pure: the caller brings the clock and the dice."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

JITTER: Final = 0.2
# A receiver may ask for patience with Retry-After, but not for more of it than this.
LONGEST_ASKED_S: Final = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The pauses between attempts, in seconds; one attempt more than there are pauses."""

    delays_s: tuple[float, ...] = ()

    @property
    def max_attempts(self) -> int:
        return len(self.delays_s) + 1

    def retry_at(self, failed_attempts: int, now: datetime, dice: float, *, asked_s: float | None = None) -> datetime:
        """The instant of the next attempt after `failed_attempts` (≥ 1) have failed.

        `dice` in [0, 1) prolongs it by up to 20 %, so that what failed together does not return together, and a ladder
        never ends before its sum. `asked_s` is the receiver's Retry-After: honoured when longer, up to an hour.
        """
        planned = self.delays_s[min(failed_attempts, len(self.delays_s)) - 1] if self.delays_s else 0.0
        spread = planned * (1 + JITTER * dice)
        patience = min(asked_s or 0.0, LONGEST_ASKED_S)
        return now + timedelta(seconds=max(spread, patience))
