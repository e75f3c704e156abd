"""Whether pushes arrive is known before one is sent: a real monitor behind a way that breaks while it still beats."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from contracts.freshness import asked_name
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.tether import spawn, terminate
from monitor.session import SessionFolder
from router.gates import ECHO_BOUND_S
from tests.http_rig import Json, Rig, running_rig
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


async def route(rig: Rig, mode: str = "auto") -> Json:
    return await rig.max.post("/v1/route", {"to": "worker", "delivery_mode": mode})


async def until_mode(rig: Rig, mode: str) -> Json:
    with anyio.fail_after(DEADLINE_S):
        while (found := await route(rig))["effective_delivery_mode"] != mode:
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
    agent = await rig.max.agent("worker", "live", "bg")
    async with (
        served(rig, nats_server, redis_server, prefix) as (_, port),
        way_to(nats_server.edge_url) as (way, nats_url),
        monitor(tmp_path, rig, port, nats_url),
        anyio.create_task_group() as tasks,
    ):
        session = SessionFolder(tmp_path / "state", "worker", "main")
        session.open()
        tasks.start_soon(session.keep_touching, 1.0)
        await until_reachable(rig, True)
        assert gates(await until_mode(rig, "live"))["push_path"] == "ok"

        way.cut()
        await rig.max.post("/v1/hosts/echo", {"agent_id": agent["id"]})
        cut_at = anyio.current_time()
        assert (await route(rig))["effective_delivery_mode"] == "live"
        found = await until_mode(rig, "background_fallback")
        assert anyio.current_time() - cut_at < ECHO_BOUND_S + 5
        assert gates(found)["heartbeat_fresh"] == "ok"
        assert gates(found)["push_path"] == "unreachable"
        [facts] = [each["facts"] for each in found["trace"] if each["gate"] == "push_path"]
        assert facts["asked_age_s"] > ECHO_BOUND_S

        way.heal()
        await until_reachable(rig, True)
        assert gates(await until_mode(rig, "live"))["push_path"] == "ok"
        tasks.cancel_scope.cancel()


async def test_a_session_attached_by_the_plain_protocol_is_not_asked_and_not_judged(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    await rig.max.session("worker")
    # As if somebody had asked long ago and nobody had answered.
    now = rig.gateway.parts.clock.now()
    await rig.gateway.parts.beats.beat({asked_name(agent["id"]): now - timedelta(minutes=1)})

    assert (await route(rig))["effective_delivery_mode"] == "live"
    presence = await rig.max.get("/v1/agents/worker/presence")
    assert presence["push_path"]["reachable"] is None


async def test_an_echoing_session_that_never_answers_is_missed(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    await rig.max.session("worker", echoes=True)
    assert (await route(rig))["effective_delivery_mode"] == "live"
    now = rig.gateway.parts.clock.now()
    await rig.gateway.parts.beats.beat({asked_name(agent["id"]): now - timedelta(minutes=1)})

    found = await until_mode(rig, "background_fallback")

    assert gates(found)["push_path"] == "echo_missing"
    await rig.max.send("worker", delivery_mode="live", live_fallback_mode="none")
    [ended] = (await rig.max.get("/v1/executions"))["executions"]
    assert (ended["state"], ended["reason"]) == ("live_unclaimed_stale_heartbeat", "echo_missing")
