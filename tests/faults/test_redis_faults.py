"""Redis killed, paused, emptied, full: requests end soon, nothing is answered short, and everything comes back."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from contracts.errors import Unavailable
from contracts.records import LiveSession
from gateway.ports import Query
from infra.beats import RedisBeats
from infra.embedded import EmbeddedRedis
from infra.redis_connection import LIMIT_S, RedisConnection
from tests.redis_rows import AGENT, OWNER, Store, connected, row, running_store, until

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SESSION = LiveSession(id="sess_a", label="main", task_name="task", token_sha256="0" * 64, attached_at=NOON)
ONE_WAIT_S = 2 * LIMIT_S
"""A request's 200 ms, and what a busy machine adds."""


class NoonClock:
    def now(self) -> datetime:
        return NOON


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    started_at = anyio.current_time()
    await work()
    return anyio.current_time() - started_at


async def refused(work: Callable[[], Awaitable[Any]]) -> float:
    """How long it took to be told that the store is away."""

    async def ask() -> None:
        with pytest.raises(Unavailable) as error:
            await work()
        assert error.value.code == "store_unavailable"

    return await seconds(ask)


async def answers(connection: RedisConnection) -> bool:
    return bool(await connection.command("PING"))


async def count(store: Store) -> int:
    return await store.queries.count(Query(owner=OWNER))


async def is_written(store: Store, rows: int) -> bool:
    """Say whether messages 1 to `rows` are stored."""
    return not await store.projection.missing([(row(n).ulid, n) for n in range(1, rows + 1)])


async def test_a_paused_redis_costs_one_short_wait_and_then_nothing(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as store:
        await store.write(row(1))
        own_redis.pause()
        assert await refused(lambda: count(store)) < ONE_WAIT_S
        assert max([await refused(lambda: count(store)) for _ in range(20)]) < 0.05
        assert await seconds(store.projection.settle) < 0.05
        own_redis.resume()
        await until(lambda: answers(store.connection))
        assert await count(store) == 1


async def test_a_hundred_callers_of_a_paused_redis_all_end_and_leak_no_connection(
    own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with connected(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as connection:
        await connection.command("PING")
        own_redis.pause()
        waits: list[float] = []

        async def call() -> None:
            waits.append(await refused(lambda: connection.command("PING")))

        for _ in range(3):
            async with anyio.create_task_group() as callers:
                for _ in range(100):
                    callers.start_soon(call)
        assert max(waits) < 1
        own_redis.resume()
        await until(lambda: answers(connection))
        async with anyio.create_task_group() as callers:
            for _ in range(100):
                callers.start_soon(connection.command, "PING")


async def test_callers_who_give_up_leak_no_connection(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with connected(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as connection:
        own_redis.pause()
        for _ in range(3):
            async with anyio.create_task_group() as callers:
                for _ in range(60):
                    callers.start_soon(connection.command, "PING")
                await anyio.wait_all_tasks_blocked()
                callers.cancel_scope.cancel()
        own_redis.resume()
        await until(lambda: answers(connection))
        for _ in range(100):
            assert await answers(connection)


async def test_while_redis_is_silent_one_caller_at_a_time_tries(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with connected(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as connection:
        await connection.command("PING")
        own_redis.pause()
        await refused(lambda: connection.command("PING"))
        waits: list[float] = []

        async def call() -> None:
            waits.append(await refused(lambda: connection.command("PING")))

        with anyio.fail_after(10):
            while not any(wait > 0.1 for wait in waits):
                async with anyio.create_task_group() as callers:
                    for _ in range(10):
                        callers.start_soon(call)
                await anyio.sleep(0.02)
        assert sum(wait > 0.1 for wait in waits) == 1
        own_redis.resume()


async def test_what_redis_does_not_say_is_unknown_and_not_an_error(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with connected(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as connection:
        beats = RedisBeats(connection, NoonClock())
        await beats.beat({"sess_a": NOON})
        own_redis.kill()
        reachability = await beats.reachability(AGENT, [SESSION])
        assert not reachability.known
        assert [(fact.id, fact.last_seen_at) for fact in reachability.sessions] == [("sess_a", None)]
        assert reachability.host_last_seen_at is None
        await refused(lambda: beats.last_seen(["sess_a"]))
        await refused(lambda: beats.beat({"sess_a": NOON}))


async def test_many_who_ask_a_paused_redis_together_hear_unknown_together(
    own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with connected(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as connection:
        beats = RedisBeats(connection, NoonClock())
        await beats.beat({"sess_a": NOON})
        own_redis.pause()
        waits: list[float] = []

        async def ask() -> None:
            started_at = anyio.current_time()
            assert not (await beats.reachability(AGENT, [SESSION])).known
            waits.append(anyio.current_time() - started_at)

        async with anyio.create_task_group() as callers:
            for _ in range(64):
                callers.start_soon(ask)
        assert max(waits) < ONE_WAIT_S
        own_redis.resume()


async def test_rows_wait_out_a_killed_redis_and_come_through(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as store:
        await store.write(*(row(n) for n in range(1, 11)))
        own_redis.kill()
        for number in range(11, 501):
            store.projection.write(row(number))
        assert await seconds(store.projection.settle) < 1
        await refused(lambda: count(store))
        await own_redis.start()
        # The last second before the kill may be gone with it; the router's replay writes it again.
        await until(lambda: answers(store.connection))
        await store.projection.epoch()
        for number in range(1, 11):
            store.projection.write(row(number))
        await until(lambda: is_written(store, 500))
        await store.projection.set_epoch(500)
        assert await count(store) == 500


async def test_a_restarted_redis_is_another_incarnation(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as store:
        before = await store.projection.incarnation()
        assert await store.projection.incarnation() == before
        own_redis.kill()
        await own_redis.start()
        await until(lambda: answers(store.connection))
        assert await store.projection.incarnation() != before


async def test_rows_written_during_a_pause_are_there_after_it(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as store:
        await store.write(row(1))
        own_redis.pause()
        for number in range(2, 1001):
            store.projection.write(row(number))
        assert await seconds(store.projection.settle) < 1
        own_redis.resume()
        await until(lambda: is_written(store, 1000))
        assert await count(store) == 1000


async def test_a_flush_under_writes_never_gives_a_short_list(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as store:
        await store.write(*(row(n) for n in range(1, 101)))
        await store.connection.command("FLUSHALL")
        await store.write(*(row(n) for n in range(101, 201)))
        with pytest.raises(Unavailable, match="rebuilt"):
            await store.queries.page(Query(owner=OWNER))
        assert await store.projection.epoch() is None
        await store.write(*(row(n) for n in range(1, 101)))
        await store.projection.set_epoch(200)
        assert await count(store) == 200


async def test_a_full_redis_is_unavailable_and_still_answers_questions(own_redis: EmbeddedRedis, prefix: str) -> None:
    async with running_store(own_redis.endpoint.url, prefix, limit_s=LIMIT_S) as store:
        await store.write(row(1))
        beats = RedisBeats(store.connection, NoonClock())
        await store.connection.command("CONFIG", "SET", "maxmemory", 1)
        store.projection.write(row(2))
        await refused(lambda: beats.beat({"sess_a": NOON}))
        assert await beats.last_seen(["sess_a"]) == [None]
        assert await count(store) == 1
        await store.connection.command("CONFIG", "SET", "maxmemory", 0)
        await until(lambda: is_written(store, 2))
