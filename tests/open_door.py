"""The mark that says that whoever beats can be heard, set for ever: in a test time moves as it likes."""

from typing import Final

from infra.redis_connection import RedisConnection
from tests.patient_redis import patient_redis

IN_THE_YEAR_2100_MS: Final = 4_102_444_800_000


async def open_door(connection: RedisConnection) -> None:
    """Let all silence count from now on, however far the test's clock jumps."""
    await connection.command("ZADD", connection.key("beats"), IN_THE_YEAR_2100_MS, "door")


async def open_door_at(url: str, prefix: str) -> None:
    """The same, where a test has no connection of its own."""
    connection = patient_redis(url, prefix)
    try:
        await open_door(connection)
    finally:
        await connection.close()
