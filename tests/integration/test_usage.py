"""What an owner received by month, counted on real servers: whole, and the same again after Redis was emptied."""

import calendar
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from contracts.errors import Unavailable
from contracts.words import Channel
from gateway.ports import Query
from gateway.usage import month_starts
from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.installation import Installation, installation
from tests.redis_rows import OWNER, Store, row, running_store

numbers = itertools.count(1)


@pytest.fixture
async def store(redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Store]:
    async with running_store(redis_server.url, prefix) as running:
        yield running


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.lists(st.integers(0, 50), max_size=40).map(sorted),
    borders=st.lists(st.integers(0, 51), max_size=6).map(sorted),
    gap=st.integers(1, 2**20),
)
async def test_borders_count_what_lies_before_them(
    redis_server: RedisEndpoint, prefix: str, seconds: list[int], borders: list[int], gap: int
) -> None:
    number = next(numbers)
    rows = [
        row(number * 100 + n, accept_seq=n * gap, seq=n * gap, owner=f"o{number}", accepted_at=at(second))
        for n, second in enumerate(seconds, start=1)
    ]
    async with running_store(redis_server.url, prefix) as store:
        await store.write(*rows)

        counted = await store.queries.received_before(f"o{number}", [at(border) for border in borders])

    assert counted == (*(sum(second < border for second in seconds) for border in borders), len(seconds))


async def test_clocks_that_disagree_move_a_message_and_neither_lose_nor_double_it(store: Store) -> None:
    seconds = [1, 2, 10, 9, 11, 9, 12, 20]
    await store.write(*[row(n, accepted_at=at(second)) for n, second in enumerate(seconds, start=1)])

    before, total = await store.queries.received_before(OWNER, [at(10)])

    assert 2 <= before <= 6
    assert total == len(seconds)


async def test_while_rows_are_missing_nobody_is_told_a_number(redis_server: RedisEndpoint, prefix: str) -> None:
    async with running_store(redis_server.url, prefix, complete=False) as store:
        with pytest.raises(Unavailable, match="rebuilt"):
            await store.queries.received_before(OWNER, [at(1)])


async def test_a_row_that_was_evicted_leads_to_a_rebuild_and_not_to_a_wrong_number(store: Store) -> None:
    await store.write(*[row(n) for n in range(1, 4)])
    await store.connection.command("DEL", store.connection.key(f"2:row:{row(2).ulid}"))

    for _ in range(2):
        with pytest.raises(Unavailable, match="rebuilt"):
            await store.queries.received_before(OWNER, [at(2)])


async def test_after_redis_was_emptied_each_month_has_the_same_number(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with installation(nats_server.url, own_redis.endpoint.url, prefix) as post, post.new_worker():
        expected = await send_in_each_of_three_months(post)
        starts = month_starts(post.clock.now(), 3)
        assert await counted(post, starts, 6) == expected

        async with Redis.from_url(own_redis.endpoint.url) as redis:
            await redis.flushall()
        assert await counted(post, starts, 6) == expected
        # What came later joins, and a message that moves on is not counted again.
        await post.send(await post.agent(Channel.INBOX), Channel.INBOX)
        assert await counted(post, starts, 7) == (*expected[:-1], 7)


async def send_in_each_of_three_months(post: Installation) -> tuple[int, ...]:
    """One message in the first month, two in the second, three in the third; and what that makes before each."""
    agent = await post.agent(Channel.INBOX)
    for sent in (1, 2, 3):
        for _ in range(sent):
            await post.send(agent, Channel.INBOX, ttl_s=300 * 86_400)
        if sent < 3:
            move_into_the_next_month(post)
    return 0, 1, 3, 6


def move_into_the_next_month(post: Installation) -> None:
    now = post.clock.now()
    days = calendar.monthrange(now.year, now.month)[1]
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)
    post.clock.move(seconds=(first - now).total_seconds() + 60)


async def counted(post: Installation, starts: list[datetime], total: int) -> tuple[int, ...]:
    """The counts, once all rows are there again."""
    with anyio.fail_after(15):
        while True:
            try:
                await post.queries.settle()
                found = await post.queries.received_before("max", starts)
                in_lists = await post.queries.count(Query(owner="max"))
            except Unavailable as refused:
                assert refused.code == "projection_rebuilding"  # noqa: PT017 - the only acceptable refusal
                await anyio.sleep(0.02)
                continue
            assert (found[-1], in_lists) == (total, total)
            return found
