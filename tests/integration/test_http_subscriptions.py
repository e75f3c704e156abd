"""Subscriptions over HTTP and the posts they lead to: in order, signed, by one router at a time, and paused in time."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import pytest
from standardwebhooks import Webhook

from contracts.subscriptions import SubscriptionMark, mark_key
from gateway.ports import Write
from infra.clock import SystemClock
from infra.embedded import NatsEndpoint, RedisEndpoint
from router.places import PlaceLimits
from tests.event_rig import event_router, events_until
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.http_server import until
from tests.webhook_receiver import Receiver, running_receiver

PATH = "/v1/agents/notes/subscriptions"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, webhook_allow_loopback=True) as running:
        await running.max.agent("notes", "inbox")
        yield running


async def pull(rig: Rig, kind: str = "message.delivered", **more: Any) -> Json:
    return await rig.max.post(PATH, {"event_type": kind, "delivery_target": "pull", **more}, status=201)


async def webhook(rig: Rig, receiver: Receiver, kind: str = "message.delivered", **more: Any) -> Json:
    body = {"event_type": kind, "delivery_target": "webhook", "webhook_url": receiver.url, **more}
    return await rig.max.post(PATH, body, status=201)


def posted(receiver: Receiver) -> list[Json]:
    """All events a receiver was sent, in the order of their arrival."""
    return [event for body in receiver.bodies for event in json.loads(body)["events"]]


async def test_a_subscription_is_listed_until_it_is_given_up(rig: Rig) -> None:
    new = await pull(rig)
    [listed] = (await rig.max.get(PATH))["subscriptions"]

    assert new.pop("webhook_secret") is None
    assert listed == new
    assert (listed["event_type"], listed["delivery_target"]) == ("message.delivered", "pull")
    for _ in range(2):
        assert await rig.max.delete(f"{PATH}/{new['id']}") == {"detached": True}
    assert (await rig.max.get(PATH))["subscriptions"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"event_type": "message.received", "delivery_target": "pull"}, "unknown_event_type"),
        ({"event_type": "message.delivered", "delivery_target": "pigeon"}, "invalid_delivery_target"),
        ({"event_type": "message.delivered", "delivery_target": "webhook"}, "invalid_delivery_target"),
        (
            {"event_type": "message.delivered", "delivery_target": "webhook", "webhook_url": "http://169.254.1.1/"},
            "invalid_webhook_url",
        ),
        (
            {"event_type": "message.delivered", "delivery_target": "pull", "webhook_url": "https://example.com/"},
            "invalid_delivery_target",
        ),
    ],
)
async def test_what_cannot_be_subscribed_to_is_refused_by_its_code(rig: Rig, body: Json, code: str) -> None:
    refused = await rig.max.call("POST", PATH, json=body)

    assert (refused.status_code, code_of(refused)) == (400, code)


async def test_a_second_subscription_of_the_same_kind_is_a_conflict(rig: Rig) -> None:
    await pull(rig)
    refused = await rig.max.call("POST", PATH, json={"event_type": "message.delivered", "delivery_target": "pull"})

    assert (refused.status_code, code_of(refused)) == (409, "subscription_exists")


async def test_acknowledging_goes_forward_only_and_asking_for_more_acknowledges(rig: Rig) -> None:
    async with event_router(rig):
        subscription = await pull(rig)
        for _ in range(3):
            await rig.max.send("notes", delivery_mode="inbox")
        events = await events_until(rig.max, 3, path="/v1/agents/notes/events", event_type="message.delivered")
    ids = [event["id"] for event in events]

    assert await rig.max.patch(f"{PATH}/{subscription['id']}/ack", {"acked_event_id": ids[1]}) == {"acked": True}
    await rig.max.patch(f"{PATH}/{subscription['id']}/ack", {"acked_event_id": ids[0]})
    assert await acked(rig) == ids[1]
    await rig.max.get("/v1/agents/notes/events", since=ids[2], event_type="message.delivered")
    assert await acked(rig) == ids[2]
    assert await rig.max.patch(f"{PATH}/sub_x/ack", {"acked_event_id": 1}) == {"acked": True}
    assert await acked(rig) == ids[2]


async def test_a_pull_subscriber_may_have_the_texts(rig: Rig) -> None:
    async with event_router(rig):
        await pull(rig, inline_body=True)
        await rig.max.send("notes", "Grüße", delivery_mode="inbox")
        await rig.max.send("notes", "x" * 40_000, delivery_mode="inbox")
        short, long = await events_until(rig.max, 2, path="/v1/agents/notes/events", event_type="message.delivered")

    assert short["payload"]["body"] == "Grüße"
    assert (long["payload"]["body_omitted"], long["payload"]["body_size_bytes"]) == ("size_too_large", 40_000)


async def test_a_webhook_gets_signed_batches_in_order_from_its_creation_on(rig: Rig) -> None:
    with running_receiver() as receiver:
        async with event_router(rig):
            await rig.max.send("notes", delivery_mode="inbox")
            await events_until(rig.max, 1, type="message.delivered")
            subscription = await webhook(rig, receiver, inline_body=True)
            sent = [await rig.max.send("notes", f"Grüße {number}", delivery_mode="inbox") for number in range(5)]
            await until(lambda: len(posted(receiver)) == 5)
            await until_marked(rig, subscription, posted(receiver)[-1]["id"])

    assert [event["payload"]["message_id"] for event in posted(receiver)] == [each["id"] for each in sent]
    assert posted(receiver)[0]["payload"]["body"] == "Grüße 0"
    ids = [event["id"] for event in posted(receiver)]
    assert ids == sorted(ids)
    for headers, body in zip(receiver.heard, receiver.bodies, strict=True):
        Webhook(subscription["webhook_secret"]).verify(body, headers)
        assert headers["webhook-id"] == json.loads(body)["delivery_id"]
    assert subscription["webhook_url"] == "http://127.0.0.1"
    assert "webhook_secret" not in (await rig.max.get(PATH))["subscriptions"][0]


async def test_several_routers_post_each_event_once(rig: Rig) -> None:
    with running_receiver() as receiver:
        async with event_router(rig, name="router:a"), event_router(rig, name="router:b"):
            await webhook(rig, receiver, "*")
            for _ in range(60):
                await rig.max.send("notes", delivery_mode="inbox")
            # The subscription's own creation is an event of the agent as well.
            await until(lambda: len(posted(receiver)) >= 121, 20)

    ids = [event["id"] for event in posted(receiver)]
    assert ids == sorted(set(ids))
    assert max(len(json.loads(body)["events"]) for body in receiver.bodies) <= 50


async def test_a_failing_receiver_gets_the_same_events_again_under_the_same_ids(rig: Rig) -> None:
    with running_receiver() as receiver:
        receiver.status = 500
        async with event_router(rig):
            subscription = await webhook(rig, receiver)
            await rig.max.send("notes", delivery_mode="inbox")
            await until(lambda: len(receiver.bodies) == 1)
            receiver.status = 204
            await until(lambda: len(receiver.bodies) == 2)
            await until_marked(rig, subscription, posted(receiver)[0]["id"])
        [listed] = (await rig.max.get(PATH))["subscriptions"]
        told = (await rig.max.get(f"{PATH}/{subscription['id']}/attempts"))["attempts"]
        absent = await rig.max.call("GET", f"{PATH}/sub_of_nobody/attempts")

    assert [(each["status"], each["last_seq"]) for each in told] == [
        (500, posted(receiver)[0]["id"]),
        (204, posted(receiver)[0]["id"]),
    ]
    assert (absent.status_code, code_of(absent)) == (404, "subscription_not_found")
    assert receiver.heard[0]["webhook-id"] == receiver.heard[1]["webhook-id"]
    assert posted(receiver)[0] == posted(receiver)[1]
    assert (listed["consecutive_failures"], listed["paused_until"]) == (0, None)


async def test_the_tenth_failure_pauses_a_subscription_and_says_so(rig: Rig) -> None:
    with running_receiver() as receiver:
        receiver.status = 503
        subscription = await webhook(rig, receiver)
        await set_mark(rig, subscription, SubscriptionMark(failures=9))
        async with event_router(rig):
            await rig.max.send("notes", delivery_mode="inbox")
            [paused] = await events_until(rig.max, 1, type="subscription.paused")
        [listed] = (await rig.max.get(PATH))["subscriptions"]

    assert paused["data"]["subscription_id"] == subscription["id"]
    assert listed["paused_until"] == paused["data"]["paused_until"]
    assert listed["consecutive_failures"] == 10


async def test_a_subscription_held_by_a_router_that_is_gone_goes_on_when_the_hold_is_over(rig: Rig) -> None:
    with running_receiver() as receiver:
        subscription = await webhook(rig, receiver)
        until_then = SystemClock().now() + timedelta(seconds=1)
        await set_mark(rig, subscription, SubscriptionMark(holder="router:gone", held_until=until_then))
        async with event_router(rig):
            await rig.max.send("notes", delivery_mode="inbox")
            await until(lambda: len(receiver.bodies) == 1)

    assert SystemClock().now() >= until_then


async def test_one_hanging_receiver_delays_no_other(rig: Rig) -> None:
    await rig.max.agent("other", "inbox")
    with running_receiver(delay_s=1.5) as slow, running_receiver() as quick:
        async with event_router(rig):
            await webhook(rig, slow)
            body = {"event_type": "message.delivered", "delivery_target": "webhook", "webhook_url": quick.url}
            await rig.max.post("/v1/agents/other/subscriptions", body, status=201)
            await rig.max.send("notes", delivery_mode="inbox")
            await until(lambda: len(slow.bodies) == 1)
            with anyio.fail_after(1.2):
                await rig.max.send("other", delivery_mode="inbox")
                await until(lambda: len(quick.bodies) == 1)


async def test_whoever_waits_for_a_place_holds_the_subscription_from_the_post_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held while it waits, the hold would be over before the post is, and another router would post as well."""
    monkeypatch.setattr("router.subscriptions.AT_ONCE", PlaceLimits(per_host=1))
    monkeypatch.setattr("router.subscriptions.HOLD_MARGIN_S", 0.2)
    await rig.max.agent("other", "inbox")
    with running_receiver(delay_s=1.5) as slow:
        async with event_router(rig):
            await webhook(rig, slow)
            body = {"event_type": "message.delivered", "delivery_target": "webhook", "webhook_url": slow.url}
            second = await rig.max.post("/v1/agents/other/subscriptions", body, status=201)
            await rig.max.send("notes", delivery_mode="inbox")
            await until(lambda: len(slow.bodies) == 1)
            await rig.max.send("other", delivery_mode="inbox")
            await until(lambda: len(slow.bodies) == 2)
            found = await rig.gateway.parts.store.get(mark_key(second["id"]), SubscriptionMark, fresh=True)

    assert found is not None
    assert found.record.held_until is not None
    assert found.record.held_until - SystemClock().now() > timedelta(seconds=1)


async def acked(rig: Rig) -> int | None:
    [listed] = (await rig.max.get(PATH))["subscriptions"]
    found: int | None = listed["last_acked_event_id"]
    return found


async def until_marked(rig: Rig, subscription: Json, seq: int) -> None:
    with anyio.fail_after(10):
        while True:
            found = (await rig.max.get(PATH))["subscriptions"]
            if [each["last_dispatched_event_id"] for each in found if each["id"] == subscription["id"]] == [seq]:
                return
            await anyio.sleep(0.02)


async def set_mark(rig: Rig, subscription: Json, mark: SubscriptionMark) -> None:
    await rig.gateway.parts.store.transact([Write(key=mark_key(subscription["id"]), record=mark, expected_seq=0)])
