"""Readers of an owner's events share one following: all are told everything of their owner, once and in order."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.lowlevel
import pytest

from contracts.subjects import Names
from contracts.tenant_events import EventFilter, StoredEvent
from gateway.shared_events import SharedEvents
from infra.embedded import NatsEndpoint
from infra.event_stream import EventStream
from infra.nats_connection import Broker
from tests.event_feeds import AGENTS, TYPES, CountedLog, Hearer, about, n_consumers, publish, shared
from tests.nats_streams import provisioned, until

OWNERS = ("max", "eve")
MAX = EventFilter(owner="max")


@asynccontextmanager
async def followed(
    nats: NatsEndpoint, prefix: str, max_events: int = 100
) -> AsyncIterator[tuple[CountedLog, SharedEvents]]:
    async with provisioned(nats.url, prefix) as (broker, names):
        source = CountedLog(broker, names)
        async with shared(source, max_events=max_events) as events:
            yield source, events


async def joined(events: SharedEvents, wanted: EventFilter, after: int) -> Hearer:
    """A reader that is handed what comes."""
    hearer = Hearer(events, wanted, after)
    sent = await publish(events, wanted.owner, 1)
    await hearer.hear_until(sent)
    sent = await publish(events, wanted.owner, 1)
    await hearer.hear_until(sent)
    return hearer


async def unhurried(hearer: Hearer, order: Random) -> None:
    """A reader that is now and then busy with other things."""
    while True:
        await hearer.hear_once()
        for _ in range(order.choice((0, 0, 3, 200))):
            await anyio.lowlevel.checkpoint()


async def write(events: SharedEvents, order: Random, count: int) -> None:
    for _ in range(count):
        await events.publish(about(order.choice(OWNERS), order.choice(AGENTS), order.choice(TYPES)))


async def whole_log(events: SharedEvents, wanted: EventFilter, after: int) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while True:
        page = await events.read(wanted, after=found[-1].seq if found else after, limit=1_000)
        found += page.events
        if not page.has_more:
            return found


def filters() -> list[EventFilter]:
    narrowed = [(None, None), (AGENTS[0], None), (None, TYPES[1].value), (AGENTS[1], "agent.*")]
    return [EventFilter(owner=owner, agent_id=agent, type=kind) for owner in OWNERS for agent, kind in narrowed]


@pytest.mark.parametrize(("seed", "max_events"), [(1, 1), (2, 2), (3, 6), (4, 100)])
async def test_whoever_begins_anywhere_among_writers_is_told_all_of_its_own_once(
    nats_server: NatsEndpoint, prefix: str, seed: int, max_events: int
) -> None:
    order = Random(seed)  # noqa: S311 - an order, no secret
    hearers: list[Hearer] = []
    async with followed(nats_server, prefix, max_events) as (_, events), anyio.create_task_group() as readers:
        await write(events, order, 20)
        async with anyio.create_task_group() as writers:
            for _ in range(3):
                writers.start_soon(write, events, order, 50)
            for wanted in filters() * 2:
                after = order.randint(0, await events.last_seq())
                hearers.append(Hearer(events, wanted, after))
                readers.start_soon(unhurried, hearers[-1], order)
        for owner in OWNERS:
            for agent in AGENTS:
                for kind in TYPES:
                    await events.publish(about(owner, agent, kind))
        expected = [await whole_log(events, each.wanted, each.after) for each in hearers]
        for hearer, whole in zip(hearers, expected, strict=True):
            await until(lambda hearer=hearer, whole=whole: hearer.seqs[-1:] == [whole[-1].seq])  # type: ignore[misc]
        readers.cancel_scope.cancel()

    assert [each.heard for each in hearers] == expected
    for hearer in hearers:
        assert {event.data["owner"] for event in hearer.heard} == {hearer.wanted.owner}


async def test_a_slow_reader_looks_up_what_it_missed_and_holds_up_nobody(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    async with followed(nats_server, prefix, max_events=5) as (source, events), anyio.create_task_group() as readers:
        slow, quick = await joined(events, MAX, 0), await joined(events, MAX, 0)
        readers.start_soon(quick.hear)
        n_reads, last = source.n_reads, 0
        for _ in range(4):
            last = await publish(events, "max", 10)
            await until(lambda last=last: quick.seqs[-1:] == [last])  # type: ignore[misc]
        assert source.n_reads == n_reads

        await slow.hear_until(last)
        assert source.n_reads > n_reads
        n_reads = source.n_reads
        last = await publish(events, "max", 1)
        await slow.hear_until(last)
        await until(lambda: quick.seqs[-1:] == [last])
        readers.cancel_scope.cancel()

    assert source.n_reads == n_reads
    assert slow.seqs == quick.seqs == list(range(1, last + 1))


async def test_all_readers_of_an_owner_share_one_consumer(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), shared(EventStream(broker, names)) as events:
        hearers = [Hearer(events, MAX, 0) for _ in range(20)]
        last = await publish(events, "max", 3)
        for hearer in hearers:
            await hearer.hear_until(last)
        last = await publish(events, "max", 3)
        for hearer in hearers:
            await hearer.hear_until(last)

        assert await n_consumers(broker, names) == 1
        assert {tuple(each.seqs) for each in hearers} == {tuple(range(1, last + 1))}
        assert all(each.heard[-1] is hearers[0].heard[-1] for each in hearers)


async def test_who_goes_away_frees_its_place_and_the_last_one_the_consumer(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), shared(EventStream(broker, names)) as events:
        closed, cancelled = await joined(events, MAX, 0), await joined(events, MAX, 0)
        async with anyio.create_task_group() as readers:
            readers.start_soon(cancelled.hear)
            await anyio.lowlevel.checkpoint()
            await closed.leave()
            assert (events.n_readers, events.n_feeds) == (1, 1)
            readers.cancel_scope.cancel()

        assert events.n_readers == 0
        await until(lambda: events.n_feeds == 0)
        with anyio.fail_after(5):
            while await n_consumers(broker, names):
                await anyio.sleep(0.01)
        again = await joined(events, MAX, 0)
        assert again.seqs == list(range(1, again.seqs[-1] + 1))


async def test_who_comes_back_soon_finds_the_feed_and_looks_up_nothing(nats_server: NatsEndpoint, prefix: str) -> None:
    async with followed(nats_server, prefix) as (source, events):
        first = await joined(events, MAX, 0)
        await first.leave()
        n_reads = source.n_reads
        second = Hearer(events, MAX, first.seqs[-1])
        await second.hear_once()
        last = await publish(events, "max", 2)
        await second.hear_until(last)

    assert second.seqs == [last - 1, last]
    assert source.n_reads == n_reads


async def test_an_idle_reader_is_told_so(nats_server: NatsEndpoint, prefix: str) -> None:
    async with followed(nats_server, prefix) as (_, events):
        unmoved, unmoved_type = Hearer(events, MAX, 0), Hearer(events, EventFilter(owner="max", type="key.created"), 0)
        with anyio.fail_after(5):
            for _ in range(5):
                assert await unmoved.hear_once() == 0
            for _ in range(5):
                await publish(events, "max", 1)
                assert await unmoved_type.hear_once() == 0


async def test_a_feed_that_fails_harms_no_other_and_loses_nothing(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names):
        source = Stumbling(broker, names)
        async with shared(source) as events:
            mine, theirs = await joined(events, MAX, 0), await joined(events, EventFilter(owner="eve"), 0)
            source.stumbles = "max"
            last = await publish(events, "max", 3)
            await mine.hear_until(last)
            last = await publish(events, "max", 3)
            await mine.hear_until(last)
            await theirs.hear_until(await publish(events, "eve", 1))

        assert source.stumbles is None
        assert mine.heard == await whole_log(events, MAX, 0)
        assert theirs.heard == await whole_log(events, EventFilter(owner="eve"), 0)


class Stumbling(EventStream):
    """Fails once, at the next event of the owner named."""

    def __init__(self, broker: Broker, names: Names) -> None:
        super().__init__(broker, names)
        self.stumbles: str | None = None

    async def follow(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Sequence[StoredEvent], None]:
        async for batch in super().follow(wanted, after=after):
            if batch and wanted.owner == self.stumbles:
                self.stumbles = None
                raise ValueError("an event that cannot be read")
            yield batch
