"""The tail of the ledger, waits for a move, and pushes, on a real broker."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import anyio
import pytest
from nats.aio.msg import Msg

from contracts.records import Envelope
from contracts.subjects import Names, pushes_of
from contracts.words import Channel
from infra.codec import decode_envelope
from infra.embedded import NatsEndpoint
from infra.jetstream_api import call
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from infra.nats_connection import Broker
from infra.pushes import BrokerAnnouncer, BrokerPushes
from infra.watch import BrokerWatch
from router.ports import Moved
from tests.nats_streams import NOW, accepted, connected, ended, provisioned, until

ENVELOPE = Envelope(
    channel=Channel.INBOX, agent_id="agent_abcdefghijkl", execution_id="exec_1", message_id="msg_1", sent_at=NOW
)


async def take(batches: AsyncIterator[Sequence[Moved]], n_events: int) -> list[Moved]:
    """The next `n_events` events, however they are batched."""
    events: list[Moved] = []
    with anyio.fail_after(20):
        while len(events) < n_events:
            events += await anext(batches)
    return events


async def fill(ledger: StreamLedger, n_messages: int, tag: str = "u") -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(n_messages):
            tasks.start_soon(append, ledger, f"{tag}{number}")


async def append(ledger: StreamLedger, ulid: str) -> None:
    await ledger.append(ulid, accepted(ulid), expected_seq=0)


async def test_the_tail_tells_all_events_in_order(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        tail = StreamTail(broker, names)
        assert await tail.last_seq() == 0
        await fill(ledger, 1200)
        assert await tail.last_seq() == 1200
        async with aclosing(tail.follow(0)) as batches:
            events = await take(batches, 1200)
    assert [event.stored.seq for event in events] == list(range(1, 1201))
    assert {event.ulid for event in events} == {f"u{number}" for number in range(1200)}
    assert all(event.stored.event == accepted(event.ulid) for event in events)


async def test_the_tail_begins_after_what_was_seen(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        await fill(ledger, 10)
        async with aclosing(StreamTail(broker, names).follow(7)) as batches:
            assert [event.stored.seq for event in await take(batches, 3)] == [8, 9, 10]


async def test_an_idle_tail_says_so_and_then_tells_at_once(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        async with aclosing(StreamTail(broker, names).follow(0)) as batches:
            with anyio.fail_after(1.5):
                assert await anext(batches) == []
            with anyio.fail_after(0.5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(append, ledger, "u1")
                    (event,) = await take(batches, 1)
    assert event.ulid == "u1"


async def test_the_tail_goes_on_when_its_consumer_is_taken_away(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        await fill(ledger, 20, "a")
        async with aclosing(StreamTail(broker, names).follow(0)) as batches:
            before = await take(batches, 20)
            for consumer in (await call(broker, f"CONSUMER.NAMES.{names.ledger_stream}"))["consumers"]:
                await call(broker, f"CONSUMER.DELETE.{names.ledger_stream}.{consumer}")
            await fill(ledger, 20, "b")
            after = await take(batches, 20)
    assert [event.stored.seq for event in before + after] == list(range(1, 41))


async def test_a_tail_that_ends_leaves_no_consumer(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names):
        async with aclosing(StreamTail(broker, names).follow(0)) as batches:
            await anext(batches)
        assert (await call(broker, f"CONSUMER.NAMES.{names.ledger_stream}"))["consumers"] == []


async def test_a_record_nobody_can_read_does_not_hide_the_next(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        await broker.request(names.ledger("bad"), b'{"type": "unheard_of"}')
        await append(ledger, "u1")
        async with aclosing(StreamTail(broker, names).follow(0)) as batches:
            assert [event.ulid for event in await take(batches, 1)] == ["u1"]


async def test_a_wait_hears_what_happens_after_it_began(nats_server: NatsEndpoint, prefix: str) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names), StreamLedger.open(broker, names) as ledger:
        async with connected(nats_server.url) as other, BrokerWatch(other, names).message("u1") as moves:
            with anyio.fail_after(0.9):
                seq = await ledger.append("u1", accepted("u1"), expected_seq=0)
                await anext(moves)
                await ledger.append("u1", ended(), expected_seq=seq)
                await anext(moves)


async def test_a_burst_wakes_who_waits_once(nats_server: NatsEndpoint, prefix: str) -> None:
    async with connected(nats_server.url) as broker:
        async with BrokerWatch(broker, Names(prefix=prefix)).message("u1") as moves:
            for _ in range(5):
                await broker.publish(Names(prefix=prefix).moved("u1"))
            await broker.echo()
            await anext(moves)
            with anyio.move_on_after(0.2) as patience:
                await anext(moves)
            assert patience.cancelled_caught


async def test_a_wait_ticks_every_second(nats_server: NatsEndpoint, prefix: str) -> None:
    async with connected(nats_server.url) as broker:
        async with BrokerWatch(broker, Names(prefix=prefix)).message("u1") as moves:
            with anyio.fail_after(3):
                await anext(moves)
                await anext(moves)


async def test_a_push_reaches_the_mailbox_s_wait(nats_server: NatsEndpoint, prefix: str) -> None:
    agent_id = f"agent_{prefix}x"
    envelope = Envelope(
        channel=Channel.INBOX, agent_id=agent_id, execution_id="exec_1", message_id="msg_1", sent_at=NOW
    )
    async with connected(nats_server.url) as broker:
        async with BrokerWatch(broker, Names(prefix=prefix)).inbox(agent_id) as moves:
            assert await BrokerPushes(broker).push(envelope) is True
            with anyio.fail_after(0.9):
                await anext(moves)


async def test_a_monitor_hears_the_push_of_its_agent(nats_server: NatsEndpoint, prefix: str) -> None:
    agent_id = f"agent_{prefix}y"
    envelope = Envelope(
        channel=Channel.LIVE, agent_id=agent_id, execution_id="exec_1", message_id="msg_1", sent_at=NOW, nonce="n"
    )
    heard: list[Msg] = []
    async with (
        connected(nats_server.url) as core,
        Broker.open(nats_server.edge_url, name="edge", replies=False) as edge,
    ):
        await edge.subscribe(pushes_of(Channel.LIVE, agent_id), heard.append)
        pushes = BrokerPushes(core)

        async def push_until_heard() -> None:
            # The monitor's own interest reaches the core account a moment after it was declared.
            while not heard:
                await pushes.push(envelope)
                await core.echo()

        with anyio.fail_after(5):
            await push_until_heard()
    assert decode_envelope(heard[0].data) == envelope


async def test_an_attach_is_announced(nats_server: NatsEndpoint, prefix: str) -> None:
    names = Names(prefix=prefix)
    heard: list[bytes] = []
    async with connected(nats_server.url) as broker:
        await broker.subscribe(names.session_attached, lambda message: heard.append(message.data))
        await BrokerAnnouncer(broker, names).session_attached("agent_abcdefghijkl")
        await until(lambda: heard == [b"agent_abcdefghijkl"])


async def test_a_push_without_a_broker_is_counted_and_raises_nothing(nats_server: NatsEndpoint) -> None:
    async with connected(nats_server.url) as broker:
        pass
    pushes = BrokerPushes(broker)
    assert await pushes.push(ENVELOPE) is False
    assert pushes.lost == 1
    await BrokerAnnouncer(broker, Names()).session_attached("agent_abcdefghijkl")


@pytest.mark.parametrize("after_seq", [0, 5])
async def test_an_empty_ledger_is_followed_from_anywhere(
    nats_server: NatsEndpoint, prefix: str, after_seq: int
) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names):
        async with aclosing(StreamTail(broker, names).follow(after_seq)) as batches:
            with anyio.fail_after(1.5):
                assert await anext(batches) == []
