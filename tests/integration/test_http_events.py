"""An owner's log of events over HTTP: read, held, streamed, by agent; with nothing of anybody else's in it."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest

from contracts.subjects import Names
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.jetstream_api import call
from infra.nats_connection import Broker
from tests.event_rig import event_router, events_until, listening, rest_of, take
from tests.http_rig import Json, Rig, code_of, expect, running_rig
from tests.http_server import served


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running, event_router(running):
        yield running


@pytest.fixture
async def port(rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[int]:
    async with served(rig, nats_server, redis_server, prefix) as (_, number):
        yield number


async def test_a_messages_life_is_told_in_order_as_cloud_events(rig: Rig) -> None:
    agent = await rig.max.agent("notes", "inbox")
    sent = await rig.max.send("notes", delivery_mode="inbox", subject="Hello")
    await rig.max.get("/v1/agents/notes/inbox")
    await rig.max.post(f"/v1/messages/{sent['id']}/read")
    await rig.max.post(f"/v1/messages/{sent['id']}/ack")

    found = await events_until(rig.max, 6)

    assert [event["type"] for event in found] == [
        "key.created",
        "agent.created",
        "message.accepted",
        "message.delivered",
        "message.read",
        "execution.outcome",
    ]
    delivered = found[3]
    assert {name: delivered[name] for name in ("specversion", "datacontenttype", "source", "subject")} == {
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "source": f"/agents/{agent['id']}",
        "subject": sent["id"],
    }
    assert delivered["data"]["message_id"] == sent["id"]
    assert delivered["data"]["subject"] == "Hello"
    assert "message" not in delivered["data"]
    assert "body" not in delivered["data"]
    assert len({event["id"] for event in found}) == len(found)


async def test_reading_goes_on_after_the_cursor(rig: Rig) -> None:
    await rig.max.agent("notes", "inbox")
    for _ in range(3):
        await rig.max.send("notes", delivery_mode="inbox")
    whole = await events_until(rig.max, 8)

    pieces: list[dict[str, Any]] = []
    after, is_more = 0, True
    while is_more:
        page = await rig.max.get("/v1/events", after=after, limit=3)
        pieces += page["events"]
        after, is_more = page["next_after"], page["has_more"]

    assert pieces == whole
    empty = await rig.max.get("/v1/events", after=after)
    assert empty == {"events": [], "next_after": after, "has_more": False}


async def test_a_type_narrows_and_an_unknown_one_is_refused(rig: Rig) -> None:
    await rig.max.agent("notes", "inbox")
    await rig.max.send("notes", delivery_mode="inbox")
    await events_until(rig.max, 4)

    found = (await rig.max.get("/v1/events", type="message.delivered"))["events"]
    refused = await rig.max.call("GET", "/v1/events", params={"type": "message.received"})

    assert [event["type"] for event in found] == ["message.delivered"]
    assert (refused.status_code, code_of(refused)) == (400, "unknown_event_type")


async def test_an_agent_narrows_and_a_foreign_one_is_not_there(rig: Rig, port: int) -> None:
    agent = await rig.max.agent("notes", "inbox")
    await rig.max.agent("other", "inbox")
    await rig.max.send("other", delivery_mode="inbox")
    sent = await rig.max.send("notes", delivery_mode="inbox")
    await events_until(rig.max, 7)

    found = (await rig.max.get("/v1/events", agent="notes"))["events"]
    foreign = await rig.eve.call("GET", "/v1/events", params={"agent": agent["id"]})
    streamed = f"/v1/events/stream?after=0&for_s=0.5&type=message.delivered&agent={agent['id']}"
    async with listening(port, rig.max, streamed) as heard:
        told = await rest_of(heard)

    assert [event["type"] for event in found] == ["agent.created", "message.accepted", "message.delivered"]
    assert [each.data["subject"] for each in told] == [sent["id"]]
    assert (foreign.status_code, code_of(foreign)) == (404, "agent_not_found")


async def test_both_owners_of_a_message_are_told_and_nobody_else(rig: Rig) -> None:
    await rig.max.agent("notes", "inbox")
    sent = await rig.admin.send("notes@max", delivery_mode="inbox")
    theirs = await events_until(rig.max, 1, type="message.accepted")
    senders = await events_until(rig.admin, 1, type="message.accepted")

    assert [event["id"] for event in theirs] == [event["id"] for event in senders]
    assert theirs[0]["data"]["message_id"] == senders[0]["data"]["message_id"] == sent["id"]
    assert {event["type"] for event in (await rig.eve.get("/v1/events"))["events"]} == {"key.created"}


async def test_a_held_read_answers_as_soon_as_something_happens(rig: Rig) -> None:
    await rig.max.agent("notes", "inbox")
    after = (await events_until(rig.max, 2))[-1]["seq"]
    answers: list[dict[str, Any]] = []

    async def wait() -> None:
        answers.append(await rig.max.get("/v1/events", after=after, wait_s=20))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await rig.max.send("notes", delivery_mode="inbox")

    assert answers[0]["events"][0]["type"] == "message.accepted"


async def test_an_agents_events_have_the_shape_peers_know(rig: Rig) -> None:
    agent = await rig.max.agent("notes", "inbox")
    await rig.max.agent("other", "inbox")
    await rig.max.send("other", delivery_mode="inbox")
    sent = await rig.max.send("notes", delivery_mode="inbox", subject="Hello")
    path = "/v1/agents/notes/events"

    [event] = await events_until(rig.max, 1, path=path, event_type="message.delivered")
    page = await rig.max.get(path, since=event["id"], event_type="message.delivered")

    assert event["event_type"] == "message.delivered"
    assert event["recipient_agent_id"] == agent["id"]
    assert event["payload"]["message_id"] == sent["id"]
    assert event["payload"]["subject"] == "Hello"
    assert page == {"events": [], "next_cursor": None, "has_more": False}


async def test_a_peers_client_that_names_no_type_is_told_of_a_message_once(rig: Rig) -> None:
    """What it does for each event it would otherwise do several times for one message."""
    await rig.max.agent("notes", "inbox")
    sent = [await rig.max.send("notes", delivery_mode="inbox") for _ in range(3)]
    await rig.max.post(f"/v1/messages/{sent[0]['id']}/read")
    path, theirs = "/v1/agents/notes/events", {"user-agent": "cueapi-python/0.2.0"}
    everything = await events_until(rig.max, 8, path=path)

    async def told(**params: Any) -> Json:
        return expect(200, await rig.max.call("GET", path, params=params, headers=theirs))

    whole, first = await told(), await told(limit=2)
    rest = await told(limit=2, since=first["next_cursor"])
    async with anyio.create_task_group() as group:
        held: list[Json] = []

        async def hold() -> None:
            held.append(await told(since=rest["next_cursor"], wait="long"))

        group.start_soon(hold)
        await rig.max.post(f"/v1/messages/{sent[1]['id']}/read")
        fourth = await rig.max.send("notes", delivery_mode="inbox")

    assert [each["event_type"] for each in whole["events"]] == ["message.delivered"] * 3
    assert [each for each in everything if each["event_type"] == "message.delivered"] == whole["events"]
    assert first["events"] + rest["events"] == whole["events"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [each["payload"]["message_id"] for each in held[0]["events"]] == [fourth["id"]]


async def test_a_stream_tells_what_happens_and_goes_on_where_it_was_cut(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox")
    await events_until(rig.max, 2)
    async with listening(port, rig.max, "/v1/events/stream?type=message.accepted") as heard:
        first = await rig.max.send("notes", delivery_mode="inbox")
        [told] = await take(heard, 1)
    missed = [await rig.max.send("notes", delivery_mode="inbox") for _ in range(3)]
    async with listening(port, rig.max, "/v1/events/stream?type=message.accepted", last_id=told.id) as heard:
        rest = await take(heard, 3)

    assert (told.kind, told.data["seq"], told.data["subject"]) == ("message.accepted", told.id, first["id"])
    assert [each.data["subject"] for each in rest] == [each["id"] for each in missed]


async def test_a_stream_can_begin_at_the_beginning_and_end_by_itself(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox")
    await events_until(rig.max, 2)

    async with listening(port, rig.max, "/v1/events/stream?after=0&for_s=0.5") as heard:
        kinds = [each.kind for each in await rest_of(heard)]

    assert kinds == ["key.created", "agent.created"]


async def test_no_consumer_is_left_behind(rig: Rig, port: int) -> None:
    await rig.max.agent("notes", "inbox")
    await events_until(rig.max, 2)
    broker, names = rig.gateway.broker, rig.gateway.names
    before = await consumers(broker, names)

    async with listening(port, rig.max, "/v1/events/stream?after=0") as heard:
        await take(heard, 2)
        assert await consumers(broker, names) == before + 1

    with anyio.fail_after(10):
        while await consumers(broker, names) != before:
            await anyio.sleep(0.02)


async def test_streams_and_held_reads_of_one_owner_share_a_consumer(rig: Rig, port: int) -> None:
    agent = await rig.max.agent("notes", "inbox")
    after = (await events_until(rig.max, 2))[-1]["seq"]
    broker, names = rig.gateway.broker, rig.gateway.names
    before = await consumers(broker, names)
    answers: list[dict[str, Any]] = []

    async def wait(path: str, **params: Any) -> None:
        answers.append(await rig.max.get(path, **params))

    async with (
        listening(port, rig.max, "/v1/events/stream?after=0") as whole,
        listening(port, rig.max, f"/v1/events/stream?after=0&type=message.accepted&agent={agent['id']}") as narrow,
    ):
        await take(whole, 2)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(wait, "/v1/events", after=after, wait_s=20))
            group.start_soon(partial(wait, "/v1/agents/notes/events", since=after, wait="long"))
            with anyio.fail_after(10):
                while rig.gateway.parts.events.n_readers < 4:
                    await anyio.sleep(0.01)
            assert await consumers(broker, names) == before + 1
            sent = await rig.max.send("notes", delivery_mode="inbox")
        accepted = await take(whole, 1) + await take(narrow, 1)

    assert [each.data["subject"] for each in accepted] == [sent["id"]] * 2
    assert accepted[0] == accepted[1]
    assert [answer["events"][0]["subject"] for answer in answers] == [sent["id"]] * 2


async def test_a_stream_ends_when_the_gateway_does(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with (
        running_rig(nats_server, redis_server, prefix) as rig,
        served(rig, nats_server, redis_server, prefix) as (server, port),
        listening(port, rig.max, "/v1/events/stream?after=0") as heard,
    ):
        assert [each.kind for each in await take(heard, 1)] == ["key.created"]
        server.should_exit = True
        assert await rest_of(heard) == []


async def test_a_stream_ends_with_its_key(rig: Rig, port: int) -> None:
    async with listening(port, rig.max, "/v1/events/stream?after=0") as heard:
        await rig.max.delete(f"/v1/keys/{rig.max.key_id}", status=204)
        kinds = [each.kind for each in await rest_of(heard)]

    assert kinds == ["key.created", "key.revoked"]


async def test_too_many_streams_of_one_owner_are_refused(rig: Rig, port: int) -> None:
    rooms = rig.gateway.app.state.rooms
    with rooms.streams.place("eve"):
        pass
    rooms.streams._max_per_owner = 1
    async with listening(port, rig.max, "/v1/events/stream?after=0") as heard:
        await take(heard, 1)
        refused = await rig.max.call("GET", "/v1/events/stream")
        theirs = await rig.eve.call("GET", "/v1/events/stream", params={"for_s": 0.1})

    assert (refused.status_code, code_of(refused)) == (429, "too_many_streams")
    assert theirs.status_code == 200


async def test_a_cursor_that_is_none_is_refused(rig: Rig) -> None:
    refused = await rig.max.call("GET", "/v1/events/stream", headers={"last-event-id": "yesterday"})

    assert (refused.status_code, code_of(refused)) == (400, "invalid_cursor")


async def consumers(broker: Broker, names: Names) -> int:
    info = await call(broker, f"STREAM.INFO.{names.events_stream}")
    return int(info["state"]["consumer_count"])
