"""Webhook deliveries by a running router to real receivers: signed, retried by the ledger, exhausted in the open."""

import base64
from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from standardwebhooks import Webhook

from contracts.records import Agent
from contracts.words import Channel, DeliveryRoute, State
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.installation import Installation, installation
from tests.webhook_zoo import Receiver, receiving

SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"


@pytest.fixture
async def post(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        yield built


async def hooked(post: Installation, receiver: Receiver) -> Agent:
    return await post.agent(Channel.WEBHOOK, webhook_url=receiver.url, webhook_secret=SECRET)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


async def test_a_message_arrives_signed_and_the_answer_ends_it(post: Installation) -> None:
    async with receiving() as receiver, post.new_worker():
        sent = await post.send(await hooked(post, receiver))
        ended = await post.until(sent, "delivered")
    headers, body = receiver.requests[0]
    verified = Webhook(SECRET).verify(body, headers)
    assert verified["data"]["id"] == headers["webhook-id"] == sent.history.message.id
    assert ended.execution.route is DeliveryRoute.WEBHOOK
    assert [each.event.type for each in ended.history.events] == ["accepted", "leased", "outcome_recorded"]


async def test_a_failing_receiver_is_tried_up_to_the_end_of_the_ladder(post: Installation) -> None:
    async with receiving(status=500) as receiver, post.new_worker():
        sent = await post.send(await hooked(post, receiver))
        for attempt in range(1, 8):
            await post.until(sent, "queued")
            await until(lambda attempt=attempt: len(receiver.requests) == attempt)  # type: ignore[misc]
            failed = await post.until(sent, "queued")
            while failed.execution.failed_attempts < attempt:
                failed = await post.message(sent)
            assert failed.execution.last_error == "http_500"
            post.clock.move(hours=13)
        ended = await post.until(sent, "webhook_exhausted")
    assert len(receiver.requests) == 8
    assert {headers["webhook-id"] for headers, _ in receiver.requests} == {sent.history.message.id}
    assert ended.execution.reason.value == "attempts_exhausted"


async def test_a_receiver_that_recovers_gets_the_message_on_a_later_attempt(post: Installation) -> None:
    async with receiving(status=503) as receiver, post.new_worker():
        sent = await post.send(await hooked(post, receiver))
        await until(lambda: len(receiver.requests) == 1)
        with anyio.fail_after(5):
            while (await post.message(sent)).execution.failed_attempts < 1:
                await anyio.sleep(0.005)
        receiver.status = 200
        post.clock.move(seconds=10)
        ended = await post.until(sent, "delivered")
    assert ended.execution.attempts == 2


async def test_gone_ends_the_message_and_disables_the_receiver(post: Installation) -> None:
    async with receiving(status=410) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        sent = await post.send(agent)
        ended = await post.until(sent, "webhook_exhausted")
        changed = await post.reader.agent(agent.id)
    assert ended.execution.reason.value == "receiver_gone"
    assert changed is not None
    assert changed.webhook_disabled_at is not None


async def test_a_router_that_died_with_an_attempt_under_way_is_replaced(post: Installation) -> None:
    async with receiving() as receiver:
        sent = await post.send(await hooked(post, receiver))
        leased = await post.service.lease_webhook(sent.history.ulid, holder="router:dead", lease_s=25)
        assert leased is not None
        async with post.new_worker():
            post.clock.move(seconds=26)
            with anyio.fail_after(10):
                while (await post.message(sent)).execution.state is State.LEASED:
                    await anyio.sleep(0.005)
            post.clock.move(seconds=10)
            ended = await post.until(sent, "delivered")
    assert ended.execution.attempts == 2


async def test_two_routers_post_a_message_once(post: Installation) -> None:
    async with receiving() as receiver, post.new_worker("router:1"), post.new_worker("router:2"):
        agent = await hooked(post, receiver)
        for _ in range(20):
            await post.until(await post.send(agent), "delivered")
    assert len(receiver.requests) == 20


async def test_one_hung_receiver_delays_nobody_else(post: Installation) -> None:
    async with receiving(hangs=True) as hung, receiving() as quick, post.new_worker():
        stuck = [await post.send(await hooked(post, hung)) for _ in range(3)]
        agent = await hooked(post, quick)
        for _ in range(10):
            await post.until(await post.send(agent), "delivered", timeout_s=1.5)
        assert [(await post.message(each)).execution.is_open for each in stuck] == [True] * 3
