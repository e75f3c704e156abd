"""How receivers that are slow, broken or gone are dealt with: nobody else notices, and nothing is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import anyio
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from contracts.directory import agent_key
from contracts.errors import Unavailable
from contracts.records import Agent, JsonObject
from contracts.tenant_events import EventFilter
from contracts.words import Channel
from gateway.ports import Write
from infra.embedded import EmbeddedNats, NatsEndpoint, RedisEndpoint
from infra.event_stream import EventStream
from router.attempts import attempt_views
from router.explain import View
from router.places import PlaceLimits
from router.service import Standing
from tests.installation import Installation, installation
from tests.integration.test_webhooks import SECRET, hooked, until
from tests.webhook_zoo import lies_about_its_length, receiving, resets, talks_without_end

T = TypeVar("T")


@pytest.fixture
async def post(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        yield built


async def failed(post: Installation, sent: Standing, times: int) -> Standing:
    with anyio.fail_after(10):
        while (found := await post.message(sent)).execution.failed_attempts < times:
            await anyio.sleep(0.01)
    return found


async def attempts(post: Installation, sent: Standing) -> list[View]:
    found = await post.message(sent)
    return attempt_views(found.history, found.execution.number, with_responses=True)


async def test_behind_an_open_breaker_messages_wait_and_spend_no_attempt(post: Installation) -> None:
    async with receiving(status=500) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        broke = [await failed(post, await post.send(agent), 1) for _ in range(5)]
        waiting = [await post.send(agent) for _ in range(3)]
        # Another receiver's message goes the whole way meanwhile: these three do not move.
        async with receiving() as other:
            await post.until(await post.send(await hooked(post, other)), "delivered")
        assert len(receiver.requests) == 5
        assert [(await post.message(each)).execution.leases for each in waiting] == [0, 0, 0]

        receiver.status = 204
        post.clock.move(seconds=31)
        for each in (*waiting, *broke):
            await post.until(each, "delivered")
    assert [len(await attempts(post, each)) for each in waiting] == [1, 1, 1]


async def test_one_attempt_tries_a_receiver_that_rested(post: Installation) -> None:
    async with receiving(status=500) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        for _ in range(5):
            await failed(post, await post.send(agent), 1)
        waiting = [await post.send(agent) for _ in range(4)]
        post.clock.move(seconds=31)
        await until(lambda: len(receiver.requests) == 6)
        async with receiving() as other:
            await post.until(await post.send(await hooked(post, other)), "delivered")
        assert len(receiver.requests) == 6
        assert sum([(await post.message(each)).execution.leases for each in waiting]) <= 1


@pytest.mark.parametrize(("asked", "granted_s"), [("120", 120), ("1000000000", 3_600)])
async def test_retry_after_is_honoured_for_the_whole_receiver_within_a_cap(
    post: Installation, asked: str, granted_s: int
) -> None:
    async with receiving(status=429, headers={"retry-after": asked}) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        first = await failed(post, await post.send(agent), 1)
        retry_at = first.execution.retry_at
        assert retry_at is not None
        assert abs((retry_at - first.execution.updated_at).total_seconds() - granted_s) < 1
        second = await post.send(agent)
        post.clock.move(seconds=granted_s - 20)
        async with receiving() as other:
            await post.until(await post.send(await hooked(post, other)), "delivered")
        assert (await post.message(second)).execution.leases == 0

        receiver.status = 200
        post.clock.move(seconds=21)
        await post.until(first, "delivered")
        await post.until(second, "delivered")


async def test_a_receiver_that_fails_for_days_is_disabled_and_what_waits_is_delivered_when_it_is_enabled(
    post: Installation,
) -> None:
    async with receiving(status=500) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        sent = await failed(post, await post.send(agent), 1)
        assert (await current(post, agent)).webhook_failing_since is not None
        post.clock.move(days=5)
        await failed(post, sent, 2)
        disabled = await current(post, agent)
        assert (disabled.webhook_disabled_reason, disabled.webhook_disabled_at is None) == ("receiver_failing", False)
        [event] = await told(post, "webhook.disabled")
        assert event["reason"] == "receiver_failing"

        post.clock.move(hours=1)
        async with receiving() as other:
            await post.until(await post.send(await hooked(post, other)), "delivered")
        assert len(receiver.requests) == 2

        receiver.status = 200
        await enable(post, agent)
        post.clock.move(minutes=2)
        await post.until(sent, "delivered")
        assert (await current(post, agent)).webhook_failing_since is None


async def test_a_router_counts_attempts_answers_open_breakers_places_and_receivers_it_disabled(
    post: Installation,
) -> None:
    registry = CollectorRegistry()

    def counted(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"postroom_webhook{name}", labels)

    async with (
        receiving(status=500) as broken,
        receiving(status=410) as gone,
        receiving(hangs=True) as hung,
        receiving() as good,
        post.new_worker(registry=registry),
    ):
        agent = await hooked(post, broken)
        for _ in range(5):
            await failed(post, await post.send(agent), 1)
        await post.until(await post.send(await hooked(post, gone)), "webhook_exhausted")
        await post.until(await post.send(await hooked(post, good)), "delivered")
        await until(lambda: (counted("s_in_flight"), counted("_breakers_open")) == (0, 1))
        waits = await post.send(await hooked(post, hung))
        await until(lambda: counted("s_in_flight") == 1)
        await failed(post, waits, 1)
    outcomes = ("5xx", "4xx", "2xx", "timeout")
    assert [counted("_attempts_total", outcome=each) for each in outcomes] == [5, 1, 1, 1]
    assert counted("_answer_seconds_count") == 7
    assert counted("_receivers_disabled_total", reason="receiver_gone") == 1


async def test_a_disabled_callback_is_told_with_its_cue(post: Installation) -> None:
    async with receiving(status=410) as receiver, post.new_worker():
        hidden = await post.agent(Channel.WEBHOOK, webhook_url=receiver.url, webhook_secret=SECRET, cue_id="cue_1")
        await post.until(await post.send(hidden), "webhook_exhausted")
        assert [event["cue_id"] for event in await told(post, "webhook.disabled")] == ["cue_1"]


async def test_a_receiver_that_takes_something_now_and_then_is_not_disabled(post: Installation) -> None:
    async with receiving(status=500) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        sent = await failed(post, await post.send(agent), 1)
        receiver.status = 200
        post.clock.move(days=4)
        await post.until(sent, "delivered")
        assert (await current(post, agent)).webhook_failing_since is None
        receiver.status = 500
        await failed(post, await post.send(agent), 1)
        post.clock.move(days=4)
        await until(lambda: len(receiver.requests) >= 4)
        assert (await current(post, agent)).webhook_disabled_at is None


async def test_a_receiver_that_is_down_for_half_an_hour_loses_nothing(post: Installation) -> None:
    async with receiving(status=503) as receiver, receiving() as other, post.new_worker():
        agent, neighbour = await hooked(post, receiver), await hooked(post, other)
        sent = [await post.send(agent) for _ in range(20)]
        for _ in range(6):
            post.clock.move(minutes=5)
            await post.until(await post.send(neighbour), "delivered")
        n_refused = len(receiver.requests)
        receiver.status = 200
        with anyio.fail_after(20):
            while any([(await post.message(each)).execution.is_open for each in sent]):
                post.clock.move(minutes=10)
                await post.until(await post.send(neighbour), "delivered")
        assert {(await post.message(each)).execution.state.value for each in sent} == {"delivered"}
    taken = [headers["webhook-id"] for headers, _ in receiver.requests[n_refused:]]
    # One attempt may have been under way when the receiver came back, and was refused still.
    assert set(taken) == {each.history.message.id for each in sent}
    assert len(taken) <= len(sent) + 1
    assert n_refused < 20, "a receiver that is down is asked less than once per message"


async def test_hung_receivers_of_one_owner_leave_places_for_everybody_else(post: Installation) -> None:
    places = PlaceLimits(in_all=6, per_owner=4, per_host=3)
    async with receiving(hangs=True) as hung, receiving() as quick, post.new_worker(places=places):
        for _ in range(8):
            await post.send(await hooked(post, hung))
        await until(lambda: len(hung.requests) == 3)
        # Another host of the same owner, and another owner, are served while all of these hang.
        for owner in ("max", "eve"):
            agent = await post.agent(Channel.WEBHOOK, webhook_url=quick.url, webhook_secret=SECRET, owner=owner)
            sent = await post.send(agent)
            await post.until(sent, "delivered", timeout_s=1.5)
        assert len(hung.requests) == 3


async def test_no_more_than_its_owner_allows_are_under_way_at_a_receiver(post: Installation) -> None:
    under_way, most = 0, 0

    async def count(_: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(0.02)
        under_way -= 1
        return web.Response(status=204)

    async with receiving(script=count) as receiver, post.new_worker():
        agent = await post.agent(
            Channel.WEBHOOK, webhook_url=receiver.url, webhook_secret=SECRET, webhook_max_in_flight=2
        )
        for each in [await post.send(agent) for _ in range(12)]:
            await post.until(each, "delivered")
    assert most == 2


async def test_a_rate_holds_between_messages_that_come_one_by_one(post: Installation) -> None:
    async with receiving() as receiver, receiving() as other, post.new_worker():
        agent = await post.agent(Channel.WEBHOOK, webhook_url=receiver.url, webhook_secret=SECRET, webhook_per_s=0.1)
        await post.until(await post.send(agent), "delivered")
        second = await post.send(agent)
        await post.until(await post.send(await hooked(post, other)), "delivered")
        assert (await post.message(second)).execution.leases == 0

        post.clock.move(seconds=11)
        await post.until(second, "delivered")


@pytest.mark.parametrize("status", [204, 500, 410])
async def test_a_directory_that_takes_no_note_of_a_receivers_health_holds_up_no_record(
    post: Installation, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """As a full one does: the POST is made, and a delivery nobody recorded would be made again."""

    async def refuse(*_: object) -> bool:
        raise Unavailable("storage_full", "the broker's store is full", retry_after_s=30)

    monkeypatch.setattr(post.reader, "note_webhook", refuse)
    monkeypatch.setattr(post.reader, "disable_webhook", refuse)
    async with receiving(status=status) as receiver, post.new_worker():
        agent = await hooked(post, receiver)
        if status == 204:
            await rewrite(post, agent, webhook_failing_since=post.clock.now())
        sent = await post.send(agent)
        with anyio.fail_after(3):
            while not (settled := await attempts(post, sent)) or settled[0]["ended_at"] is None:
                await anyio.sleep(0.01)
    assert [each["status"] for each in settled] == [status]


@pytest.mark.parametrize(
    ("fields", "status", "error", "response"),
    [
        ({"status": 302, "headers": {"location": "http://169.254.169.254/"}}, 302, "redirect_not_followed", ""),
        ({"status": 400}, 400, "http_400", ""),
        ({"script": resets}, None, "bad_response", ""),
        ({"script": lies_about_its_length}, 500, "http_500", "short"),
        ({"script": talks_without_end}, 500, "http_500", "x" * 4096),
        ({"hangs": True}, None, "timeout", ""),
    ],
)
async def test_whatever_a_receiver_does_is_in_the_log_of_attempts(
    post: Installation, fields: dict[str, object], status: int | None, error: str, response: str
) -> None:
    async with receiving(**fields) as receiver, post.new_worker():
        sent = await failed(post, await post.send(await hooked(post, receiver)), 1)
    [told] = await attempts(post, sent)
    assert (told["status"], told["error"], told["response"]) == (status, error, response)
    assert told["latency_ms"] >= 0
    assert sent.execution.last_error == error


async def test_a_router_killed_between_attempt_and_record_posts_again_under_the_same_id(post: Installation) -> None:
    async with receiving(hangs=True) as receiver:
        sent = await post.send(await hooked(post, receiver))
        async with post.new_worker():
            await until(lambda: len(receiver.requests) == 1)
        receiver.hangs = False
        post.clock.move(seconds=26)
        async with post.new_worker():
            await failed(post, sent, 1)
            post.clock.move(seconds=10)
            await post.until(sent, "delivered")
    assert {headers["webhook-id"] for headers, _ in receiver.requests} == {sent.history.message.id}
    assert [each["error"] for each in await attempts(post, sent)] == ["lease_expired", None]


async def test_a_broker_restarted_inside_the_ladder_changes_no_deadline(
    own_nats: EmbeddedNats, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with installation(own_nats.endpoint.url, redis_server.url, prefix) as post:
        async with receiving(status=500) as receiver, post.new_worker():
            sent = await failed(post, await post.send(await hooked(post, receiver)), 1)
            retry_at = sent.execution.retry_at
            own_nats.kill()
            await own_nats.start()
            await patiently(lambda: post.broker.echo())
            assert (await patiently(lambda: post.message(sent))).execution.retry_at == retry_at
            receiver.status = 200
            post.clock.move(seconds=10)
            await patiently(lambda: post.until(sent, "delivered"))
    assert len(receiver.requests) == 2


async def current(post: Installation, agent: Agent) -> Agent:
    found = await post.directory.get(agent_key(agent.id), Agent, fresh=True)
    assert found is not None
    return found.record


async def enable(post: Installation, agent: Agent) -> None:
    await rewrite(post, agent, webhook_disabled_at=None, webhook_disabled_reason=None, webhook_failing_since=None)


async def rewrite(post: Installation, agent: Agent, **fields: datetime | None) -> None:
    found = await post.directory.get(agent_key(agent.id), Agent, fresh=True)
    assert found is not None
    changed = replace(found.record, **fields)  # type: ignore[arg-type]
    await post.directory.transact([Write(key=agent_key(agent.id), record=changed, expected_seq=found.seq)])


async def told(post: Installation, kind: str) -> list[JsonObject]:
    """The data of the owner's events of this type, once there are any."""
    log = EventStream(post.broker, post.names)
    with anyio.fail_after(10):
        while not (found := (await log.read(EventFilter(owner="max", type=kind), after=0, limit=10)).events):
            await anyio.sleep(0.01)
    return [each.data for each in found]


async def patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Take a step until the broker is back for it."""
    with anyio.fail_after(20):
        while True:
            try:
                return await step()
            except Unavailable:
                await anyio.sleep(0.05)
