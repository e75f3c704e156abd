"""How a monitor says that its sessions live: over the broker often, over HTTPS for all of them at once."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from nats.aio.msg import Msg

from contracts.records import Envelope, JsonObject
from contracts.subjects import heartbeat
from infra.edge import EdgeFeed
from infra.embedded import NatsEndpoint
from tests.integration.test_monitor_daemon import DEADLINE_S, attached, execution, push, running, until
from tests.integration.test_monitor_daemon import stub as stub
from tests.raw_broker import raw_client
from tests.stub_gateway import AGENT_ID, StubGateway

BEATS = "/v1/sessions/heartbeat"


@asynccontextmanager
async def overheard(endpoint: NatsEndpoint, subject: str) -> AsyncIterator[list[JsonObject]]:
    """What is published on this subject meanwhile."""
    heard: list[JsonObject] = []

    async def hear(message: Msg) -> None:
        heard.append(json.loads(message.data))

    client = await raw_client(endpoint.url)
    await client.subscribe(subject, cb=hear)
    await client.flush()
    yield heard
    await client.close()


def sessions_in(message: JsonObject) -> list[tuple[str, str]]:
    return [(f"sess_{ulid}", proof) for ulid, proof, _ in message["s"]]


async def test_all_sessions_that_live_are_told_over_the_broker_with_their_proofs(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with overheard(nats_server, heartbeat("test-host")) as heard, running(tmp_path, nats_server.edge_url):
        await attached(tmp_path, "first")
        second = await attached(tmp_path, "second")
        expected = sorted((stub.ids[label], f"proof of {label}") for label in ("first", "second"))
        await until(lambda: heard and sorted(sessions_in(heard[-1])) == expected)
        await second.close()
        # At once: it does not wait for the next beat.
        await until(lambda: [proof for _, proof in sessions_in(heard[-1])] == ["proof of first"])
    attach, _ = stub.requests("POST", r"/v1/agents/[^/]+/live-sessions")
    assert attach["monitor_id"] == "test-host"


async def test_one_call_carries_every_session_of_the_host(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url, beat_every_s=0.5):
        for label in ("first", "second", "third"):
            await attached(tmp_path, label)
        everybody = sorted(stub.ids.values())
        await until(lambda: everybody in [told(each) for each in stub.requests("POST", BEATS)])
        before = len(stub.requests("POST", BEATS))
        await until(lambda: len(stub.requests("POST", BEATS)) >= before + 3)
        assert all(told(each) == everybody for each in stub.requests("POST", BEATS)[before:])


def told(body: JsonObject) -> list[str]:
    return sorted(each["session_id"] for each in body["sessions"])


async def test_a_session_the_gateway_has_ended_is_attached_anew(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url, beat_every_s=0.2):
        await attached(tmp_path)
        before = stub.ids["main"]
        del stub.tokens["main"]
        await until(lambda: stub.tokens.get("main"))
        assert stub.ids["main"] != before


async def test_a_gateway_that_is_away_is_told_when_it_is_back(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    async with running(tmp_path, nats_server.edge_url, beat_every_s=0.2):
        await attached(tmp_path)
        stub.away = True
        await until(lambda: BEATS in stub.unheard)
        stub.away = False
        before = len(stub.requests("POST", BEATS))
        await until(lambda: len(stub.requests("POST", BEATS)) > before)
        assert len(stub.requests("POST", r"/v1/agents/[^/]+/live-sessions")) == 1


async def test_sessions_without_a_proof_are_told_over_https_alone(
    tmp_path: Path, nats_server: NatsEndpoint, stub: StubGateway
) -> None:
    stub.proves_beats = False
    async with (
        overheard(nats_server, heartbeat("test-host")) as heard,
        running(tmp_path, nats_server.edge_url, beat_every_s=0.2),
    ):
        await attached(tmp_path)
        await until(lambda: len(stub.requests("POST", BEATS)) >= 3)
    assert heard == []


@asynccontextmanager
async def following(url: str, subject: str) -> AsyncIterator[EdgeFeed]:
    feed, subscribed = EdgeFeed(url, name="monitor test-edge", retry_s=0.1), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.follow, [subject], lambda _: None, subscribed.set)
        with anyio.fail_after(DEADLINE_S):
            await subscribed.wait()
        yield feed
        tasks.cancel_scope.cancel()


async def eventually(holds: Callable[[], Any]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not holds():
            await anyio.sleep(0.02)


async def test_what_may_not_be_published_is_noticed_and_pushes_are_heard_all_the_same(
    nats_server: NatsEndpoint,
) -> None:
    subscriptions, heard, agent_id = 0, list[Envelope](), AGENT_ID

    def count() -> None:
        nonlocal subscriptions
        subscriptions += 1

    feed = EdgeFeed(nats_server.edge_url, name="monitor test-edge", retry_s=0.1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.follow, [f"live.{agent_id}.>"], heard.append, count)
        await eventually(lambda: feed.is_speaking)
        assert await feed.say(f"live.{agent_id}.exec_x", b"not ours to say")
        await eventually(lambda: not feed.is_speaking)
        assert not await feed.say("hb.test-edge", b"{}")
        with anyio.fail_after(DEADLINE_S):
            while not heard:
                await push(nats_server, "live", execution())
                await anyio.sleep(0.02)
        # The connection is the same: nothing was subscribed anew.
        assert subscriptions == 1
        tasks.cancel_scope.cancel()


async def test_without_a_connection_nothing_is_said_and_nothing_kept() -> None:
    feed = EdgeFeed("nats://127.0.0.1:1", name="monitor test-edge")
    assert not feed.is_speaking
    assert not await feed.say("hb.test-edge", b"{}")


async def test_a_beat_reaches_the_programs(nats_server: NatsEndpoint) -> None:
    async with (
        overheard(nats_server, "hb.test-edge") as heard,
        following(nats_server.edge_url, "live.agent_aaaaaaaaaaaa.>") as feed,
    ):
        assert await feed.say("hb.test-edge", b'{"v":1,"s":[]}')
        await eventually(lambda: heard == [{"v": 1, "s": []}])
