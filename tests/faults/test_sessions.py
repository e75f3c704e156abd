"""Gateways, broker or store away for longer than a session may be silent: nobody is called stale or offline for it."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from tests.faults.test_redis_lost import flush
from tests.program_caller import Json
from tests.programs import Programs

LIMITS = {"overdue_after_seconds": 6, "stale_after_seconds": 12}
DOWN_S = 14.0
"""Longer than a session may be silent, and than a gap between two marks that is no outage."""


async def gateways_down(post: Programs) -> None:
    for gateway in post.gateways:
        gateway.kill()
    # The length of the outage, not a wait for something.
    await anyio.sleep(DOWN_S)
    for gateway in post.gateways:
        await post.restart(gateway)


async def broker_down(post: Programs) -> None:
    await post.crash_broker(DOWN_S)


@pytest.mark.parametrize("harm", [gateways_down, broker_down, flush])
async def test_what_kept_sessions_from_beating_makes_none_of_them_stale(
    post: Programs, harm: Callable[[Programs], Awaitable[None]]
) -> None:
    agent = await post.agent("live", "bg")
    sessions = f"/v1/projects/max/agents/{agent['id']}/sessions"
    session = await post.post(sessions, {"transport": "sse", **LIMITS})
    await post.attach(agent)
    await harm(post)

    found: Json = (await post.get(sessions, transport="sse"))["items"][0]
    present = await post.get(f"/v1/agents/{agent['id']}")
    sent = await post.send(agent, "live")
    beaten = await post.post(f"/v1/projects/max/agents/sessions/{session['id']}/heartbeat")

    assert (found["id"], found["status"]) == (session["id"], "connected")
    assert (present["presence"], sent["state"]) == ("online", "offered")
    assert beaten["status"] == "connected"


async def test_a_session_that_nobody_beats_for_is_stale_however_well_everything_runs(post: Programs) -> None:
    agent = await post.agent("bg")
    sessions = f"/v1/projects/max/agents/{agent['id']}/sessions"
    await post.post(sessions, {"transport": "sse", "overdue_after_seconds": 5, "stale_after_seconds": 6})
    words: list[str] = []
    with anyio.fail_after(20):
        while not words or words[-1] != "offline":
            words.append((await post.get(f"/v1/agents/{agent['id']}"))["presence"])
            await anyio.sleep(0.05)
    assert list(dict.fromkeys(words)) in (["online", "stale", "offline"], ["online", "offline"])
