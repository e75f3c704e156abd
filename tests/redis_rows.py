"""What the tests of the Redis side share: rows with good defaults, a store under a prefix, and a running projection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio

from contracts.errors import Unavailable
from contracts.ids import encode_ulid, message_id
from contracts.words import Channel, State
from infra.projection import QueueBounds, RedisProjection
from infra.queries import RedisQueries
from infra.redis_connection import RedisConnection
from router.ports import Row
from tests.patient_redis import PATIENCE_S, patient_redis

AGENT = "agent_receiver0000"
SENDER = "agent_sender000000"
OWNER = "acme"


def row(number: int, **changes: Any) -> Row:
    """The row of message `number`: queued for bg, accepted at sequence `number`; its view is `number@sequence`."""
    facts: dict[str, Any] = {
        "ulid": encode_ulid(number),
        "seq": number,
        "accept_seq": number,
        "owner": OWNER,
        "agent_id": AGENT,
        "sender_agent_id": SENDER,
        "sender_owner": OWNER,
        "channel": Channel.BG,
        "state": State.QUEUED,
        "thread": message_id(encode_ulid(number)),
        "priority": 3,
        "accepted_at": datetime.fromtimestamp(number, UTC),
    } | changes
    return Row(**{"view": f"{number}@{facts['seq']}".encode(), **facts})


@dataclass(frozen=True, slots=True)
class Store:
    """The Redis side under test; the projection runs."""

    connection: RedisConnection
    projection: RedisProjection
    queries: RedisQueries

    async def write(self, *rows: Row) -> None:
        for each in rows:
            self.projection.write(each)
        await self.projection.settle()


@asynccontextmanager
async def connected(url: str, prefix: str, *, limit_s: float = PATIENCE_S) -> AsyncIterator[RedisConnection]:
    connection = patient_redis(url, prefix, limit_s)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def running_store(
    url: str,
    prefix: str,
    *,
    bounds: QueueBounds | None = None,
    complete: bool = True,
    limit_s: float = PATIENCE_S,
) -> AsyncIterator[Store]:
    """A store whose marker is set, unless `complete` is False."""
    async with connected(url, prefix, limit_s=limit_s) as connection, anyio.create_task_group() as tasks:
        projection = RedisProjection(connection, bounds=bounds)
        tasks.start_soon(projection.run)
        if complete:
            await projection.set_epoch(0)
        yield Store(connection, projection, RedisQueries(connection, projection))
        tasks.cancel_scope.cancel()


async def until(is_so: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Wait for a condition; a store that is away counts as "not yet"."""
    with anyio.fail_after(within_s):
        while not await _answered(is_so):
            await anyio.sleep(0.01)


async def _answered(is_so: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await is_so()
    except Unavailable:
        return False
