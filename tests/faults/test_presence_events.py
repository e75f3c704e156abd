"""Presence events of real programs: silence is told once and in time, and no restart of ours looks like silence."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from statistics import median

import anyio
import pytest
from redis.asyncio import Redis

from tests.program_caller import PATIENCE_S, Json, in_parallel
from tests.programs import OWNER, Programs

BEAT_EVERY_S = 0.5
LATE_S = 1.5
"""From the instant a threshold passes to the event: the mark `door` is renewed every second, and looked at twice."""
BUSY_S = 2.0
"""What a machine that runs other tests beside may add to a single one."""


async def register(post: Programs, agent: Json, overdue_s: int, stale_s: int) -> Json:
    body = {"transport": "test", "overdue_after_seconds": overdue_s, "stale_after_seconds": stale_s}
    return await post.post(f"/v1/projects/{OWNER}/agents/{agent['id']}/sessions", body)


async def disconnect(post: Programs, session: Json) -> None:
    await post.post(f"/v1/projects/{OWNER}/agents/sessions/{session['id']}/disconnect")


async def told(post: Programs, agent: Json, kind: str = "agent.presence") -> list[Json]:
    found = await post.get("/v1/events", agent=agent["id"], type=kind, limit=1_000)
    events: list[Json] = found["events"]
    return events


async def until_told(post: Programs, agent: Json, *words: str) -> list[Json]:
    """The events of exactly these transitions."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            events = await told(post, agent)
            found = [each["data"]["to"] for each in events]
            if found == list(words):
                return events
            assert found == list(words[: len(found)]), found
            await anyio.sleep(0.1)


@asynccontextmanager
async def beating(post: Programs, session: Json) -> AsyncIterator[None]:
    """Beats of this session beside the block."""

    async def beat() -> None:
        while True:
            await post.post(f"/v1/projects/{OWNER}/agents/sessions/{session['id']}/heartbeat")
            await anyio.sleep(BEAT_EVERY_S)

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        yield
        group.cancel_scope.cancel()


async def routers_restart(post: Programs) -> None:
    for router in post.routers:
        await post.restart(router)


async def gateways_restart(post: Programs) -> None:
    for gateway in post.gateways:
        await post.restart(gateway)


async def everything_restarts(post: Programs) -> None:
    for program in post.programs:
        post.kill(program)
    await post.crash_broker()
    await post.heal()


async def redis_is_emptied(post: Programs) -> None:
    async with Redis.from_url(post.redis.endpoint.url) as redis:
        await redis.flushall()


Harm = Callable[[Programs], Awaitable[None]]
HARMS: dict[str, Harm] = {
    "routers": routers_restart,
    "gateways": gateways_restart,
    "broker": lambda post: post.crash_broker(),
    "store": lambda post: post.crash_store(),
    "flush": redis_is_emptied,
    "everything": everything_restarts,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
async def test_whoever_beats_is_told_present_whatever_restarts(post: Programs, harm: Harm) -> None:
    agent = await post.agent("inbox")
    session = await register(post, agent, 12, 24)
    async with beating(post, session):
        await until_told(post, agent, "online")
        await harm(post)
        # A second session's end shows that the routers look again at what they did not hear of.
        other = await post.agent("inbox")
        ended = await register(post, other, 12, 24)
        await until_told(post, other, "online")
        await disconnect(post, ended)
        await until_told(post, other, "online", "offline")
        assert [each["data"]["to"] for each in await told(post, agent)] == ["online"]
    await disconnect(post, session)
    await until_told(post, agent, "online", "offline")


async def test_silence_is_told_once_and_in_time_by_two_routers(post: Programs) -> None:
    agents = [await post.agent("inbox") for _ in range(12)]
    sessions = await in_parallel(*(lambda agent=agent: register(post, agent, 5, 7) for agent in agents))
    late: list[float] = []
    for agent in agents:
        _, overdue, gone = await until_told(post, agent, "online", "stale", "offline")
        [stale] = await told(post, agent, "session.stale")
        session = next(each for each in sessions if each["id"] == stale["data"]["session_id"])
        late += [behind(overdue, session, 5), behind(gone, session, 7)]

    of_agent = await post.get(f"/v1/agents/{agents[0]['id']}/events", event_type="agent.presence")
    assert [each["event_type"] for each in of_agent["events"]] == ["agent.presence"] * 3
    assert (await post.get(f"/v1/agents/{agents[0]['id']}"))["presence"] == "offline"
    assert median(late) <= LATE_S
    assert max(late) <= LATE_S + BUSY_S
    assert min(late) >= 0


async def test_who_falls_silent_while_every_router_is_dead_is_told_gone_when_one_is_back(post: Programs) -> None:
    agent = await post.agent("inbox")
    session = await register(post, agent, 5, 7)
    await until_told(post, agent, "online")
    for router in post.routers:
        post.kill(router)
        await router.gone()
    while (await post.get(f"/v1/projects/{OWNER}/agents/sessions/{session['id']}"))["status"] != "stale":
        await anyio.sleep(0.2)
    await post.routers[0].start()
    await until_told(post, agent, "online", "offline")


def behind(event: Json, session: Json, threshold_s: float) -> float:
    """How many seconds after its threshold passed this was told."""
    told_at = datetime.fromisoformat(event["time"])
    return (told_at - datetime.fromisoformat(session["connected_at"])).total_seconds() - threshold_s
