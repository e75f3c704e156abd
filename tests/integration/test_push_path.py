"""Whether pushes arrive is known before one is sent: a real monitor behind a way that breaks while it still beats."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis

from contracts.freshness import asked_name, echo_name
from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from infra.tether import spawn, terminate
from monitor.session import SessionFolder
from router.gates import ECHO_BOUND_S
from tests.http_rig import Caller, Json, Rig, running_rig
from tests.http_server import served
from tests.tcp_way import way_to

DEADLINE_S = 30


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


@asynccontextmanager
async def monitor(folder: Path, rig: Rig, gateway_port: int, nats_url: str) -> AsyncIterator[None]:
    """A monitor in a process of its own, for the sessions of max's `worker`."""
    (folder / "key").write_text(rig.max.key)
    (folder / "key").chmod(0o600)
    (folder / "monitor.toml").write_text(f"""
gateway_url = "http://127.0.0.1:{gateway_port}"
nats_url = "{nats_url}"
key_file = "key"
state_dir = "state"
beat_every_s = 1

[[agents]]
agent = "worker"
""")
    command = [sys.executable, "-m", "monitor", "--config", str(folder / "monitor.toml")]
    with (folder / "log").open("ab") as log:
        process = await spawn(command, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, stderr=log)
    try:
        yield
    finally:
        await terminate(process, 2)


@asynccontextmanager
async def beating(folder: Path) -> AsyncIterator[None]:
    """A session of `worker` that lives, as its folder says."""
    session = SessionFolder(folder / "state", "worker", "main")
    session.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.keep_touching, 1.0)
        yield
        tasks.cancel_scope.cancel()


async def route(caller: Caller) -> Json:
    return await caller.post("/v1/route", {"to": "worker", "delivery_mode": "auto"})


async def until_mode(caller: Caller, mode: str) -> Json:
    with anyio.fail_after(DEADLINE_S):
        while (found := await route(caller))["effective_delivery_mode"] != mode:
            await anyio.sleep(0.1)
    return found


async def until_reachable(rig: Rig, expected: bool) -> None:
    with anyio.fail_after(DEADLINE_S):
        while (await rig.max.get("/v1/agents/worker/presence"))["push_path"]["reachable"] is not expected:
            await anyio.sleep(0.05)


def gates(found: Json) -> dict[str, str]:
    return {each["gate"]: each["reason"] for each in found["trace"] if each["channel"] == "live"}


async def test_a_session_that_beats_behind_a_broken_way_is_unreachable_until_the_way_is_whole_again(
    tmp_path: Path, rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    """The monitor speaks to one gateway; the other knows as much of it."""
    await rig.max.agent("worker", "live", "bg")
    async with (
        served(rig, nats_server, redis_server, prefix) as (_, port),
        running_rig(nats_server, redis_server, prefix) as second,
        way_to(nats_server.edge_url) as (way, nats_url),
        monitor(tmp_path, rig, port, nats_url),
        beating(tmp_path),
    ):
        other = Caller(http=second.http, key=rig.max.key, owner="max")
        await until_reachable(rig, True)
        assert gates(await until_mode(rig.max, "live"))["push_path"] == "ok"
        assert (await other.post("/v1/agents/worker/echo", {"timeout_s": 10}))["reached"]

        way.cut()
        cut_at = anyio.current_time()
        assert not (await other.post("/v1/agents/worker/echo", {"timeout_s": 0.5}))["reached"]
        assert (await route(rig.max))["effective_delivery_mode"] == "live"
        found = await until_mode(rig.max, "background_fallback")
        assert anyio.current_time() - cut_at < ECHO_BOUND_S + 5
        assert gates(found)["heartbeat_fresh"] == "ok"
        assert gates(found)["push_path"] == "unreachable"
        [facts] = [each["facts"] for each in found["trace"] if each["gate"] == "push_path"]
        assert facts["asked_age_s"] > ECHO_BOUND_S
        assert gates(await until_mode(other, "background_fallback"))["push_path"] == "unreachable"
        sent = await other.send("worker", delivery_mode="live")
        assert sent["effective_delivery_mode"] == "background_fallback"
        assert gates(await rig.max.get(f"/v1/messages/{sent['id']}"))["push_path"] == "unreachable"

        way.heal()
        await until_reachable(rig, True)
        for caller in (rig.max, other):
            assert gates(await until_mode(caller, "live"))["push_path"] == "ok"


async def test_after_redis_was_emptied_the_way_is_unknown_and_not_broken_until_it_is_tried_again(
    tmp_path: Path, nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    redis = own_redis.endpoint
    async with running_rig(nats_server, redis, prefix) as rig:
        agent = await rig.max.agent("worker", "live", "bg")
        async with (
            served(rig, nats_server, redis, prefix) as (_, port),
            monitor(tmp_path, rig, port, nats_server.edge_url),
            beating(tmp_path),
        ):
            await until_reachable(rig, True)
            now = rig.gateway.parts.clock.now()
            async with Redis.from_url(redis.url) as client:
                await client.flushall()
            reasons = set()
            with anyio.fail_after(DEADLINE_S):
                while (found := await rig.max.get("/v1/agents/worker/presence"))["push_path"]["reachable"] is not True:
                    assert found["push_path"]["reachable"] is None
                    reasons.add(gates(await route(rig.max)).get("push_path", "not asked"))
                    await anyio.sleep(0.02)
            assert reasons <= {"ok", "not asked"}
            [answered_at] = await rig.gateway.parts.beats.last_seen([echo_name(agent["id"])])
            assert answered_at is not None
            assert answered_at > now


async def test_a_client_without_a_monitor_that_beats_and_polls_is_offered_messages_for_ever(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    session = await rig.max.session("worker")
    for asked_s in (None, 11, 3_600):
        if asked_s is not None:
            # As if somebody had asked all the same, and nobody had answered.
            asked_at = rig.gateway.parts.clock.now() - timedelta(seconds=asked_s)
            await rig.gateway.parts.beats.beat({asked_name(agent["id"]): asked_at})
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
        sent = await rig.max.send("worker", delivery_mode="live")
        assert (sent["effective_delivery_mode"], gates(sent)["push_path"]) == ("live", "ok")
        [offer] = (await rig.max.get("/v1/executions/claimable", agent="worker"))["executions"]
        assert offer["execution_id"] == sent["execution_id"]
        claim = {"session_token": session["session_token"]}
        await rig.max.post(f"/v1/executions/{sent['execution_id']}/live-claim", claim)
    assert (await rig.max.get("/v1/agents/worker/presence"))["push_path"]["reachable"] is None


async def test_a_session_that_echoes_and_was_never_asked_is_not_unreachable(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    await rig.max.session("worker", echoes=True)
    await rig.gateway.parts.beats.forget([asked_name(agent["id"])])
    assert gates(await until_mode(rig.max, "live"))["push_path"] == "ok"
    assert (await rig.max.get("/v1/agents/worker/presence"))["push_path"]["reachable"] is None


async def test_an_echoing_session_that_never_answers_is_missed(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    await rig.max.session("worker", echoes=True)
    assert (await route(rig.max))["effective_delivery_mode"] == "live"
    now = rig.gateway.parts.clock.now()
    await rig.gateway.parts.beats.beat({asked_name(agent["id"]): now - timedelta(minutes=1)})

    found = await until_mode(rig.max, "background_fallback")

    assert gates(found)["push_path"] == "echo_missing"
    await rig.max.send("worker", delivery_mode="live", live_fallback_mode="none")
    [ended] = (await rig.max.get("/v1/executions"))["executions"]
    assert (ended["state"], ended["reason"]) == ("live_unclaimed_stale_heartbeat", "echo_missing")
