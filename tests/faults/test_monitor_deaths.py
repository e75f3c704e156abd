"""Monitors that die, freeze or lose their broker: known soon where the broker says so, and never by mistake.

The monitor's process is real, and so is what happens to it; its sessions' heartbeat threshold of 120 s never passes.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from infra.redis_connection import redis_client
from monitor.session import SessionFolder
from tests.program_caller import PATIENCE_S, Json
from tests.programs import Programs

KNOWN_WITHIN_S = 1.0
FROZEN_KNOWN_WITHIN_S = 15.0


async def presence(post: Programs, agent: Json) -> str:
    return str((await post.get(f"/v1/agents/{agent['id']}/presence"))["presence"])


async def until(post: Programs, agent: Json, holds: Callable[[str], bool], within_s: float) -> float:
    """How long it took, in seconds; fails when it takes longer."""
    began_at = anyio.current_time()
    while not holds(await presence(post, agent)):
        assert anyio.current_time() - began_at < within_s, f"still {await presence(post, agent)}"
        await anyio.sleep(0.01)
    return anyio.current_time() - began_at


def is_online(word: str) -> bool:
    return word == "online"


def is_not_online(word: str) -> bool:
    return word != "online"


@asynccontextmanager
async def served(post: Programs) -> AsyncIterator[tuple[Json, SessionFolder]]:
    """An agent with a session whose monitor has beaten for it over the broker."""
    agent = await post.agent("live", "inbox")
    monitor = await post.start_monitor(agent)
    session = SessionFolder(post.state_dir, agent["slug"], "main")
    session.open()
    await session.wait_attached(PATIENCE_S)
    sidecar = session.sidecar()
    assert sidecar is not None
    await beaten_over_the_broker(post, sidecar["session_id"])
    assert await presence(post, agent) == "online"
    yield agent, session
    monitor.resume()


async def beaten_over_the_broker(post: Programs, session_id: str) -> None:
    redis: Any = redis_client(post.redis.endpoint.url)
    with anyio.fail_after(PATIENCE_S):
        while session_id.encode() not in b" ".join(await redis.hvals("postroom:monitor:test-host")):
            await anyio.sleep(0.02)
    await redis.aclose()


async def never_away(post: Programs, agent: Json) -> None:
    """Look again and again that the agent is online."""
    while True:
        assert await presence(post, agent) == "online"
        await anyio.sleep(0.02)


@asynccontextmanager
async def watched(post: Programs, agent: Json) -> AsyncIterator[TaskGroup]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(never_away, post, agent)
        yield tasks
        tasks.cancel_scope.cancel()


async def test_a_killed_monitor_is_known_within_a_second_and_its_successor_is_online_again(post: Programs) -> None:
    async with served(post) as (agent, session):
        assert post.monitor is not None
        post.monitor.kill()
        await until(post, agent, is_not_online, KNOWN_WITHIN_S)
        await post.monitor.gone()
        session.touch()
        await post.monitor.start()
        await until(post, agent, is_online, PATIENCE_S)


async def test_a_frozen_monitor_is_known_by_the_brokers_pings_and_comes_back_by_itself(post: Programs) -> None:
    async with served(post) as (agent, session):
        assert post.monitor is not None
        post.monitor.pause()
        await until(post, agent, is_not_online, FROZEN_KNOWN_WITHIN_S)
        session.touch()
        post.monitor.resume()
        await until(post, agent, is_online, PATIENCE_S)


async def test_a_broker_that_is_killed_takes_nobody_away(post: Programs) -> None:
    async with served(post) as (agent, session), watched(post, agent):
        await post.crash_broker()
        session.touch()
        await beats_again(post, agent)


async def test_routers_that_restart_take_nobody_away(post: Programs) -> None:
    async with served(post) as (agent, _), watched(post, agent):
        for router in post.routers:
            await post.restart(router)
        await beats_again(post, agent)


async def beats_again(post: Programs, agent: Json) -> None:
    """Wait until beats that come over the broker are noted: those of one more session are."""
    session = SessionFolder(post.state_dir, agent["slug"], "one-more")
    session.open()
    await session.wait_attached(PATIENCE_S)
    sidecar = session.sidecar()
    assert sidecar is not None
    await beaten_over_the_broker(post, sidecar["session_id"])
