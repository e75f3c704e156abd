"""Token buckets in Redis, shared by all gateways: tokens are taken several at once, and spent elsewhere."""

from typing import Final

from gateway.ports import Bucket, Tokens
from infra.redis_connection import RedisConnection, load_script

TAKE: Final = load_script("rate_take")
MICROSECONDS: Final = 1_000_000


class RedisRateLimits:
    """Implements `gateway.ports.RateLimits`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def take(self, name: str, bucket: Bucket, wanted: int) -> Tokens:
        step = round(MICROSECONDS / bucket.per_s)
        key = self._connection.key(f"rate:{name}")
        granted, left, wait, full = await self._connection.run(TAKE, [key], [step, bucket.size, wanted])
        return Tokens(granted=granted, left=left, retry_after_s=wait / MICROSECONDS, full_after_s=full / MICROSECONDS)
