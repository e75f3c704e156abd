"""How many jobs each worker has in hand, in Redis: one sorted set per worker, member = job id, score = when it ends.

What ends without a word leaves by itself, and the whole set with the last of it.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

from contracts.clock import Clock
from infra.redis_connection import RedisConnection

EPOCH: Final = datetime.fromtimestamp(0, UTC)
MILLISECOND: Final = timedelta(milliseconds=1)


class RedisHeldJobs:
    """The gateway's `HeldJobs`."""

    def __init__(self, connection: RedisConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def count(self, owner: str, worker_id: str) -> int:
        key, now = self._key(owner, worker_id), (self._clock.now() - EPOCH) // MILLISECOND
        await self._connection.command("ZREMRANGEBYSCORE", key, "-inf", now)
        return int(await self._connection.command("ZCARD", key))

    async def hold(self, owner: str, worker_id: str, job_id: str, until: datetime) -> None:
        key, until_ms = self._key(owner, worker_id), (until - EPOCH) // MILLISECOND
        await self._connection.command("ZADD", key, until_ms, job_id)
        await self._connection.command("PEXPIREAT", key, until_ms, "GT")
        await self._connection.command("PEXPIREAT", key, until_ms, "NX")

    async def drop(self, owner: str, worker_id: str, job_id: str) -> None:
        await self._connection.command("ZREM", self._key(owner, worker_id), job_id)

    def _key(self, owner: str, worker_id: str) -> str:
        # A worker names itself, so its name is no part of a key.
        name = hashlib.blake2b(worker_id.encode(), digest_size=16).hexdigest()
        return self._connection.key(f"held:{owner}:{name}")
