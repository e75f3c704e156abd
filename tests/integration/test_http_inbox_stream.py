"""An inbox as a stream: in order of arrival, none missed between two streams, singly or in batches."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.event_rig import Heard, listening, rest_of, take
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.http_server import served

STREAM = "/v1/agents/notes/inbox/stream"
INBOX = "/v1/agents/notes/inbox"
COALESCE = {"wake": {"mode": "coalesce", "window_ms": 300, "max_batch": 4}}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


@pytest.fixture
async def port(rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[int]:
    async with served(rig, nats_server, redis_server, prefix) as (_, number):
        yield number


async def send(rig: Rig, n: int = 1) -> list[str]:
    return [(await rig.max.send("notes", f"number {number}", delivery_mode="inbox"))["id"] for number in range(n)]


def ids(heard: list[Heard]) -> list[str]:
    return [each.data["id"] for each in heard]


async def test_what_waits_comes_first_and_then_what_arrives(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox")
    waiting = await send(rig, 3)
    async with listening(port, rig.max, STREAM) as heard:
        first = await take(heard, 3)
        arriving = await send(rig, 2)
        rest = await take(heard, 2)

    assert ids(first) == waiting
    assert ids(rest) == arriving
    assert {each.kind for each in first + rest} == {"message"}
    assert {each.data["state"] for each in first + rest} == {"inbox_delivered"}
    cursors = [each.id for each in first + rest]
    assert cursors == sorted(set(cursors))
    assert await rig.max.get(INBOX, count_only=True, state="queued") == {"count": 0}


async def test_a_stream_that_comes_back_misses_nothing_and_repeats_nothing(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox")
    early = await send(rig, 3)
    async with listening(port, rig.max, STREAM) as heard:
        seen = await take(heard, 2)
    meanwhile = await send(rig, 2)
    async with listening(port, rig.max, STREAM, last_id=seen[-1].id) as heard:
        rest = await take(heard, 3)
        last = await send(rig)
        rest += await take(heard, 1)

    assert ids(seen) == early[:2]
    assert ids(rest) == [early[2], *meanwhile, *last]


async def test_what_was_handed_out_to_nobody_comes_again_and_what_was_acknowledged_does_not(
    rig: Rig, port: int
) -> None:
    await rig.max.agent("notes", "inbox")
    first, second, third = await send(rig, 3)
    await rig.max.get(INBOX)
    await rig.max.post(f"/v1/messages/{second}/ack")
    await rig.max.post(f"/v1/messages/{third}/read")

    async with listening(port, rig.max, f"{STREAM}?for_s=0.5") as heard:
        assert ids(await rest_of(heard)) == [first]


async def test_a_message_that_reaches_the_inbox_late_is_not_passed_over(rig: Rig, port: int) -> None:
    """A cursor on the order of acceptance would have passed by a message that was released later."""
    await rig.max.agent("notes", "inbox")
    [early] = await send(rig)
    async with listening(port, rig.max, STREAM) as heard:
        [seen] = await take(heard, 1)
    await rig.max.get(INBOX)
    [late] = await send(rig)
    page = await rig.max.get(INBOX)  # another reader takes it and is never heard of again
    async with listening(port, rig.max, STREAM, last_id=seen.id) as heard:
        again = await take(heard, 1)

    assert [message["id"] for message in page["messages"]] == [early, late]
    assert ids(again) == [late]


async def test_many_messages_at_once_all_arrive_in_the_order_of_their_marks(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox")
    sent: list[str] = []

    async def one() -> None:
        sent.extend(await send(rig))

    async with listening(port, rig.max, STREAM) as heard:
        async with anyio.create_task_group() as group:
            for _ in range(120):
                group.start_soon(one)
        got = await take(heard, 120, within_s=20)

    assert sorted(ids(got)) == sorted(sent)
    assert [each.id for each in got] == sorted({each.id for each in got})


async def test_a_receiver_that_coalesces_gets_batches(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox", metadata=COALESCE)
    async with listening(port, rig.max, STREAM) as heard:
        sent = await send(rig, 3)
        [batch] = await take(heard, 1)
        more = await send(rig, 4)
        [full] = await take(heard, 1)

    assert (batch.kind, full.kind) == ("batch", "batch")
    assert [message["id"] for message in batch.data["messages"]] == sent
    assert [message["id"] for message in full.data["messages"]] == more


async def test_a_held_poll_of_a_receiver_that_coalesces_waits_for_the_window(rig: Rig) -> None:
    await rig.max.agent("notes", "inbox", metadata=COALESCE)
    pages: list[Json] = []

    async def poll() -> None:
        pages.append(await rig.max.get(INBOX, wait_s=20))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(poll)
            rooms = rig.gateway.app.state.rooms
            while not rooms.holds.count:
                await anyio.sleep(0.005)
            sent = await send(rig, 4)

    assert [message["id"] for message in pages[0]["messages"]] == sent


@pytest.mark.parametrize(
    "wake",
    [
        "coalesce",
        {},
        {"mode": "always"},
        {"mode": "coalesce", "window_ms": 60_001},
        {"mode": "coalesce", "max_batch": 101},
        {"mode": "coalesce", "max_batch": True},
        {"mode": "each", "colour": "red"},
    ],
)
async def test_a_policy_that_is_none_is_refused_when_it_is_set(rig: Rig, wake: Any) -> None:
    body = {"slug": "notes", "metadata": {"wake": wake}}
    refused = await rig.max.call("POST", "/v1/agents", json=body)

    assert (refused.status_code, code_of(refused)) == (422, "invalid_wake")


async def test_a_policy_can_be_changed(rig: Rig) -> None:
    await rig.max.agent("notes", "inbox")
    changed = await rig.max.patch("/v1/agents/notes", {"metadata": COALESCE})

    assert changed["metadata"] == COALESCE
