"""Digests on a real log: told once, whoever closes the period and however often, beside what is told anyway."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import pytest

from contracts.clock import Clock
from infra.clock import SystemClock
from infra.digest_book import StreamDigests
from infra.directory_store import BucketDirectory, DirectoryReader
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.event_stream import EventStream
from infra.subscription_store import DirectorySubscriptions
from router.digester import Digester
from tests.event_rig import event_router, events_until
from tests.http_rig import Json, Rig, running_rig
from tests.http_server import until
from tests.installation import MovableClock
from tests.webhook_receiver import running_receiver

PATH = "/v1/agents/notes/subscriptions"
DIGEST = {"event_type": "message.digest", "delivery_target": "pull"}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, webhook_allow_loopback=True) as running:
        await running.max.agent("notes", "inbox")
        yield running


@pytest.fixture
def later() -> MovableClock:
    """A period further on: what happens now lies in a period that is over."""
    clock = MovableClock()
    clock.move(seconds=610)
    return clock


def digester(rig: Rig, clock: Clock, **more: object) -> Digester:
    broker, names, store = rig.gateway.broker, rig.gateway.names, rig.gateway.parts.store
    assert isinstance(store, BucketDirectory)
    return Digester(
        log=EventStream(broker, names),
        book=StreamDigests(broker, names),
        store=DirectorySubscriptions(store),
        directory=DirectoryReader(store),
        clock=clock,
        **more,  # type: ignore[arg-type]
    )


async def send(rig: Rig, *priorities: int) -> list[str]:
    return [(await rig.max.send("notes", delivery_mode="inbox", priority=each))["id"] for each in priorities]


async def told(rig: Rig, n: int, kind: str = "message.digest") -> list[Json]:
    return await events_until(rig.max, n, type=kind)


def bundled(digests: list[Json]) -> list[str]:
    return [each["message_id"] for digest in digests for each in digest["data"]["bundled_messages"]]


async def test_low_priorities_are_told_in_a_digest_and_each_by_itself_as_well(rig: Rig, later: MovableClock) -> None:
    await rig.max.post(PATH, DIGEST, status=201)
    async with event_router(rig):
        sent = await send(rig, 1, 3, 2, 5)
        await told(rig, 4, "message.delivered")

        assert await digester(rig, SystemClock()).close_periods() == 0
        assert await digester(rig, later).close_periods() == 1

        [digest] = await told(rig, 1)
        [pulled] = (await rig.max.get("/v1/agents/notes/events", event_type="message.digest"))["events"]

    assert bundled([digest]) == [sent[0], sent[2]]
    assert digest["data"]["bundle_count"] == 2
    assert [each["priority"] for each in digest["data"]["bundled_messages"]] == [1, 2]
    assert pulled["payload"] == digest["data"]
    assert pulled["recipient_agent_id"] == digest["data"]["recipient_agent_id"]


async def test_several_routers_and_their_successors_tell_each_message_once(rig: Rig, later: MovableClock) -> None:
    await rig.max.post(PATH, DIGEST, status=201)
    sent: list[str] = []
    async with event_router(rig, name="router:a"), event_router(rig, name="router:b"):
        for period in range(3):
            sent += await send(rig, 1, 2, 1)
            await told(rig, len(sent), "message.delivered")
            later.move(seconds=600)
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(digester(rig, later).close_periods)
            assert bundled(await told(rig, period + 1)) == sent

    ids = [each["id"] for each in (await rig.max.get("/v1/events", limit=1_000))["events"]]
    assert len(ids) == len(set(ids))


async def test_a_busy_log_delays_a_digest_and_does_not_lose_it(rig: Rig, later: MovableClock) -> None:
    await rig.max.post(PATH, DIGEST, status=201)
    async with event_router(rig):
        sent = await send(rig, *[1] * 5)
        await told(rig, 5, "message.delivered")
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(send, rig, 3)
            assert await digester(rig, later).close_periods() == 1
        await told(rig, 45, "message.delivered")
        assert bundled(await told(rig, 1))[:5] == sent


async def test_the_writer_of_events_goes_on_behind_a_digest_and_repeats_nothing(rig: Rig, later: MovableClock) -> None:
    await rig.max.post(PATH, DIGEST, status=201)
    async with event_router(rig):
        [first] = await send(rig, 1)
        await told(rig, 1, "message.delivered")
        await rig.max.get("/v1/agents/notes/inbox")
        await rig.max.post(f"/v1/messages/{first}/ack")
        await told(rig, 1, "execution.outcome")
        # Now the newest derived event is of the digest's own family, which the digest is about to head.
        await send(rig, 2)
        await told(rig, 2, "message.delivered")
        await digester(rig, later).close_periods()
    async with event_router(rig):
        await send(rig, 1)
        await told(rig, 3, "message.delivered")

    kinds = Counter(each["type"] for each in (await rig.max.get("/v1/events"))["events"])
    assert (kinds["message.accepted"], kinds["message.delivered"], kinds["execution.outcome"]) == (3, 3, 1)


async def test_nobody_asks_and_nothing_is_bundled(rig: Rig, later: MovableClock) -> None:
    await rig.max.post(PATH, {"event_type": "*", "delivery_target": "pull"}, status=201)
    async with event_router(rig):
        await send(rig, 1)
        await told(rig, 1, "message.delivered")

        assert await digester(rig, later).close_periods() == 0


async def test_what_came_before_the_subscription_is_not_bundled(rig: Rig, later: MovableClock) -> None:
    async with event_router(rig):
        await send(rig, 1)
        await told(rig, 1, "message.delivered")
        await rig.max.post(PATH, DIGEST, status=201)
        after = await send(rig, 2)
        await told(rig, 2, "message.delivered")
        await digester(rig, later).close_periods()

        assert bundled(await told(rig, 1)) == after


async def test_a_webhook_is_posted_the_digests_of_its_agent(rig: Rig) -> None:
    quick = digester(rig, SystemClock(), period=timedelta(seconds=0.5), grace_s=0.1)
    with running_receiver() as receiver:
        body = {"event_type": "message.digest", "delivery_target": "webhook", "webhook_url": receiver.url}
        await rig.max.post(PATH, body, status=201)
        async with event_router(rig), anyio.create_task_group() as group:
            group.start_soon(quick.run)
            sent = await send(rig, 1, 2)
            await told(rig, 1)
            await until(lambda: all(each.encode() in b"".join(receiver.bodies) for each in sent))
            group.cancel_scope.cancel()

        assert bundled((await rig.max.get("/v1/events", type="message.digest"))["events"]) == sent
    assert b"message.delivered" not in b"".join(receiver.bodies)
