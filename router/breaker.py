"""The breaker of one receiver: when to stop asking somebody who does not answer, and when to try again. Pure.

closed ──failed, the fifth time in a row, or asked to wait──▶ open
open ──tried, its time being over──▶ half_open, with this one attempt and no other
half_open ──succeeded──▶ closed
half_open ──failed──▶ open, twice as long as before
half_open ──abandoned──▶ open, to be tried again at once
open ──succeeded──▶ closed, by an attempt that was under way before
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contracts.words import Word

TOLERATED: Final = 5
FIRST_REST: Final = timedelta(seconds=30)
LONGEST_REST: Final = timedelta(minutes=10)
LONGEST_ASKED: Final = timedelta(hours=1)


class Circuit(Word):
    """Whether a receiver is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """`failures` are those in a row, `rests` the times it opened since the last success."""

    circuit: Circuit = Circuit.CLOSED
    failures: int = 0
    rests: int = 0
    open_until: datetime | None = None

    @property
    def is_pristine(self) -> bool:
        """Nothing to remember: a fresh one is the same."""
        return self.circuit is Circuit.CLOSED and not self.failures


def admits(breaker: Breaker, now: datetime) -> bool:
    """Say whether an attempt may be made now."""
    match breaker.circuit:
        case Circuit.CLOSED:
            return True
        case Circuit.OPEN:
            return breaker.open_until is None or now >= breaker.open_until
        case Circuit.HALF_OPEN:
            return False


def tried(breaker: Breaker, now: datetime) -> Breaker:
    """An attempt begins. Raises `ValueError` when none may."""
    if not admits(breaker, now):
        raise ValueError(f"no attempt may be made while the breaker is {breaker.circuit.value}")
    return breaker if breaker.circuit is Circuit.CLOSED else replace(breaker, circuit=Circuit.HALF_OPEN)


def succeeded(breaker: Breaker) -> Breaker:
    """The receiver answered."""
    return Breaker()


def failed(breaker: Breaker, now: datetime, *, asked_s: float | None = None) -> Breaker:
    """The receiver did not answer, or `asked_s` for patience, which is granted up to an hour."""
    failures = breaker.failures + 1
    asked = min(timedelta(seconds=asked_s or 0), LONGEST_ASKED)
    if breaker.circuit is Circuit.OPEN:
        until = max(breaker.open_until or now, now + asked)
        return replace(breaker, failures=failures, open_until=until)
    if breaker.circuit is Circuit.CLOSED and failures < TOLERATED and not asked:
        return replace(breaker, failures=failures)
    rest = min(FIRST_REST * 2 ** min(breaker.rests, 10), LONGEST_REST) if failures >= TOLERATED else asked
    rests = breaker.rests + (failures >= TOLERATED)
    return Breaker(circuit=Circuit.OPEN, failures=failures, rests=rests, open_until=now + max(rest, asked))


def abandoned(breaker: Breaker, now: datetime) -> Breaker:
    """An attempt that was begun was never made: somebody else may make it."""
    if breaker.circuit is not Circuit.HALF_OPEN:
        return breaker
    return replace(breaker, circuit=Circuit.OPEN, open_until=now)
