"""How long to wait before the same request is made again, and making it again until somebody answers."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
import structlog

from contracts.errors import Unavailable

T = TypeVar("T")

Draw = Callable[[], float]
"""A number in [0, 1): monitors that lost the same gateway must not return together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Doubling waits with half of each drawn at random."""

    first_s: float = 0.2
    cap_s: float = 10.0

    def delay_s(self, failures: int, draw: float) -> float:
        """The wait after the n-th failure in a row, n from 1."""
        ceiling = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return ceiling * (0.5 + 0.5 * draw)


DEFAULT: Final = Backoff()


async def persist(
    call: Callable[[], Awaitable[T]],
    *,
    what: str,
    backoff: Backoff = DEFAULT,
    draw: Draw = random.random,
) -> T:
    """Make `call` until it is answered. A refusal is an answer, and raised; bound the patience with a cancel scope."""
    log = structlog.get_logger()
    failures = 0
    while True:
        try:
            return await call()
        except Unavailable as away:
            failures += 1
            delay_s = max(backoff.delay_s(failures, draw()), min(away.retry_after_s, backoff.cap_s))
            log.warning("gateway_away", what=what, code=away.code, failures=failures, retry_in_s=round(delay_s, 2))
            await anyio.sleep(delay_s)


def jittered(period_s: float, draw: Draw = random.random) -> float:
    """A period up to a tenth longer or shorter."""
    return period_s * (0.9 + 0.2 * draw())
