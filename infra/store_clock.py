"""The time by Redis' clock, for what several programs write there and compare with one another's.

A gateway whose clock is wrong, or is set while it runs, would make healthy sessions look silent and dead ones healthy.
So signs of life are dated by the one clock all programs can ask: it is asked every second, and what passes in between
is counted by what nobody can set. A clock that is nearly right counts as right: an instant reads the same everywhere.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import structlog

from contracts.clock import Clock
from contracts.errors import Unavailable
from infra.redis_connection import RedisConnection

ASKED_EVERY_S: Final = 1.0
NEARLY: Final = timedelta(seconds=1)
SLOWEST_S: Final = 0.5
"""An answer that took longer says too little about when it was given."""
EPOCH: Final = datetime.fromtimestamp(0, UTC)
NO_TIME: Final = timedelta(0)
MILLISECOND: Final = timedelta(milliseconds=1)

log = structlog.get_logger(__name__)


class StoreClock:
    """Implements `contracts.clock.Clock`. Until Redis has told the time, and where it differs little, it is `own`'s."""

    def __init__(
        self, connection: RedisConnection, own: Clock, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._own = own
        self._monotonic = monotonic
        self._began_at: datetime | None = None
        self._is_apart = False

    def now(self) -> datetime:
        return self._own.now() + self.ahead()

    def ahead(self) -> timedelta:
        """By how much Redis' clock is ahead of our own, in whole milliseconds."""
        if self._began_at is None:
            return NO_TIME
        ahead = self._began_at + timedelta(seconds=self._monotonic()) - self._own.now()
        return ahead // MILLISECOND * MILLISECOND if abs(ahead) > NEARLY else NO_TIME

    async def run(self) -> None:
        """Ask every second until cancelled."""
        while True:
            await self.ask()
            await anyio.sleep(ASKED_EVERY_S)

    async def ask(self) -> None:
        """Ask Redis what time it is. What it said before holds while it is away."""
        asked_at = self._monotonic()
        try:
            seconds, microseconds = await self._connection.command("TIME")
        except Unavailable:
            return
        answered_at = self._monotonic()
        if answered_at - asked_at <= SLOWEST_S:
            told = _instant(seconds, microseconds)
            self._began_at = told - timedelta(seconds=(asked_at + answered_at) / 2)
            self._warn(told)

    def _warn(self, told: datetime) -> None:
        apart = self._own.now() - told
        is_apart = abs(apart) > NEARLY
        if is_apart and not self._is_apart:
            log.warning("clocks_apart", ahead_of_redis_s=round(apart.total_seconds(), 1))
        self._is_apart = is_apart


def _instant(seconds: Any, microseconds: Any) -> datetime:
    return EPOCH + timedelta(seconds=int(seconds), microseconds=int(microseconds))
