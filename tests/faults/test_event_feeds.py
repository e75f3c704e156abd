"""The broker dies under readers of an owner's events: they are told everything, once, when it is back."""

import anyio
import pytest

from contracts.errors import Unavailable
from contracts.tenant_events import EventFilter
from infra.embedded import EmbeddedNats
from infra.event_stream import EventStream
from tests.event_feeds import Hearer, about, shared
from tests.nats_streams import provisioned, until

MAX = EventFilter(owner="max")


async def write(events: EventStream, count: int) -> None:
    """Events that are known to be stored; some of them perhaps twice."""
    for _ in range(count):
        with anyio.fail_after(20):
            while True:
                try:
                    await events.publish(about("max"))
                    break
                except Unavailable:
                    await anyio.sleep(0.02)


@pytest.mark.parametrize("max_events", [2, 1_000])
async def test_readers_outlive_the_broker_and_miss_nothing(
    own_nats: EmbeddedNats, prefix: str, max_events: int
) -> None:
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        source = EventStream(broker, names)
        async with shared(source, max_events=max_events) as events, anyio.create_task_group() as tasks:
            hearers = [Hearer(events, MAX, 0) for _ in range(3)]
            for hearer in hearers:
                tasks.start_soon(hearer.hear)
            await write(source, 10)
            await until(lambda: all(len(each.heard) >= 10 for each in hearers))
            tasks.start_soon(write, source, 60)
            await until(lambda: all(len(each.heard) >= 20 for each in hearers))
            own_nats.kill()
            await until(lambda: not broker.is_up)
            late = Hearer(events, MAX, 5)
            hearers.append(late)
            tasks.start_soon(late.hear)
            await own_nats.start()
            await until(lambda: len(hearers[0].heard) >= 70, within_s=20)
            await write(source, 1)
            last = await source.last_seq()
            await until(lambda: all(each.seqs[-1:] == [last] for each in hearers))
            tasks.cancel_scope.cancel()

    assert [each.seqs for each in hearers] == [list(range(each.after + 1, last + 1)) for each in hearers]
    assert last >= 71


async def test_who_begins_while_the_broker_is_away_is_told_when_it_is_back(own_nats: EmbeddedNats, prefix: str) -> None:
    async with provisioned(own_nats.endpoint.url, prefix) as (broker, names):
        source = EventStream(broker, names)
        await write(source, 3)
        async with shared(source) as events, anyio.create_task_group() as tasks:
            own_nats.kill()
            await until(lambda: not broker.is_up)
            hearer = Hearer(events, MAX, 1)
            with anyio.fail_after(5):
                assert await hearer.hear_once() == 0
            tasks.start_soon(hearer.hear)
            await own_nats.start()
            await until(lambda: hearer.seqs == [2, 3])
            tasks.cancel_scope.cancel()
