"""A program's connections to broker and Redis, checked, and the stores on them: what gateway and router share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from contracts.subjects import Names
from infra.background import beside
from infra.directory_store import BucketDirectory
from infra.ledger import StreamLedger
from infra.nats_connection import Broker
from infra.projection import RedisProjection
from infra.provision import StreamSettings, check_server, provision
from infra.redis_connection import DEFAULT_PREFIX, RedisConnection, redis_client
from infra.settings import ProgramSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Everything a program needs of the broker and of Redis."""

    names: Names
    broker: Broker
    redis: RedisConnection
    ledger: StreamLedger
    directory: BucketDirectory
    projection: RedisProjection


@asynccontextmanager
async def connections(settings: ProgramSettings, program: str) -> AsyncIterator[Connections]:
    """Connect, check the broker field by field, and close everything at the end.

    Raises `Unavailable` when a server cannot be reached, `UnsafeBroker` when the broker keeps less than we promise.
    """
    names = Names(prefix=settings.prefix)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Broker.open(plain(settings.nats_url), name=program))
        await _check_broker(broker, names, settings)
        prefix = f"{settings.prefix}:" if settings.prefix else DEFAULT_PREFIX
        redis = RedisConnection(redis_client(plain(settings.redis_url)), prefix=prefix)
        stack.push_async_callback(redis.close)
        projection = RedisProjection(redis)
        await stack.enter_async_context(beside(projection.run))
        yield Connections(
            names=names,
            broker=broker,
            redis=redis,
            ledger=await stack.enter_async_context(StreamLedger.open(broker, names)),
            directory=await stack.enter_async_context(BucketDirectory.open(broker, names)),
            projection=projection,
        )


def plain(secret: SecretStr) -> str:
    return secret.get_secret_value()


async def _check_broker(broker: Broker, names: Names, settings: ProgramSettings) -> None:
    if settings.nats_sys_url is not None:
        await check_server(plain(settings.nats_sys_url))
    streams = StreamSettings(
        ledger_max_bytes=settings.ledger_max_bytes,
        directory_max_bytes=settings.directory_max_bytes,
        events_max_bytes=settings.events_max_bytes,
        replicas=settings.replicas,
    )
    await provision(broker, names, streams)
