"""When API keys were last used, in Redis: one sorted set, member = key id, score = Unix seconds.

Noted in memory, and written in the background: at most once a minute for each key and gateway.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import structlog

from contracts.clock import Clock
from contracts.errors import Unavailable
from infra.redis_connection import Argument, RedisConnection

EVERY: Final = timedelta(minutes=1)
WRITE_EVERY_S: Final = 5.0
KEPT_FOR: Final = timedelta(days=400)
MAX_REMEMBERED: Final = 10_000
log = structlog.get_logger()


class RedisKeyUses:
    """The gateway's `KeyUses`."""

    def __init__(self, connection: RedisConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._noted: dict[str, datetime] = {}
        self._unwritten: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        now = self._clock.now()
        before = self._noted.get(key_id)
        if before is not None and now - before < EVERY:
            return
        if len(self._noted) >= MAX_REMEMBERED:
            self._noted.clear()
        self._noted[key_id] = self._unwritten[key_id] = now

    async def last_used(self, key_ids: Sequence[str]) -> list[datetime | None]:
        if not key_ids:
            return []
        scores = await self._connection.command("ZMSCORE", self._key, *key_ids)
        return [None if score is None else datetime.fromtimestamp(float(score), UTC) for score in scores]

    async def run(self) -> None:
        """Write what was noted, for ever. What cannot be written now is tried again with the next."""
        while True:
            await anyio.sleep(WRITE_EVERY_S)
            try:
                await self.write()
            except Unavailable as error:
                log.info("key_uses_unwritten", keys=len(self._unwritten), code=error.code)

    async def write(self) -> None:
        """Raises `Unavailable`; then nothing is forgotten."""
        uses = dict(self._unwritten)
        if not uses:
            return
        pairs: list[Argument] = [part for key_id, at in uses.items() for part in (int(at.timestamp()), key_id)]
        await self._connection.command("ZADD", self._key, "GT", *pairs)
        oldest = int((self._clock.now() - KEPT_FOR).timestamp())
        await self._connection.command("ZREMRANGEBYSCORE", self._key, "-inf", oldest)
        self._unwritten = {key_id: at for key_id, at in self._unwritten.items() if uses.get(key_id) != at}

    @property
    def _key(self) -> str:
        return self._connection.key("keys:used")
