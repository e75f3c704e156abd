"""A connection to Redis that outwaits a busy machine: what a test says of answers is not about how soon they came."""

from typing import Final

from infra.redis_connection import RedisConnection, redis_client

PATIENCE_S: Final = 3.0


def patient_redis(url: str, prefix: str, limit_s: float = PATIENCE_S) -> RedisConnection:
    """Connect as the programs do, under the keys of one test; `close` it at the end."""
    return RedisConnection(redis_client(url, limit_s=limit_s), prefix=f"{prefix}:", limit_s=limit_s)
