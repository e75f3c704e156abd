"""SIGSTOP and SIGCONT: who wakes up late finds that others have acted, and nobody waits for a silent neighbour."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from infra.embedded import EmbeddedNats
from monitor.session import Refusal, SessionFolder
from tests.program_caller import PATIENCE_S, assert_sound, in_parallel, met
from tests.programs import Program, Programs

ECHO = """
import json, sys
print(json.dumps({"success": True, "result": json.loads(sys.stdin.readline())["message"]}))
"""
SLOW = """
import os, pathlib, sys, time
(pathlib.Path("{folder}") / os.environ["ATTEMPT"]).touch()
time.sleep(3)
print("done")
"""


@asynccontextmanager
async def paused(program: Program | EmbeddedNats) -> AsyncIterator[None]:
    program.pause()
    try:
        yield
    finally:
        program.resume()


async def pause_for(program: Program | EmbeddedNats, seconds: float) -> None:
    async with paused(program):
        # The length of the pause, not a wait for something.
        await anyio.sleep(seconds)


async def test_a_monitor_that_slept_through_the_window_is_refused_and_the_fallback_is_the_one_winner(
    post: Programs,
) -> None:
    agent = await post.agent("live", "bg")
    monitor = await post.start_monitor(agent, handler=ECHO)
    session = SessionFolder(post.state_dir, agent["slug"], "main")
    session.open()
    await session.wait_attached(PATIENCE_S)
    sent = await post.send(agent, "live", claim_window_s=2)
    with anyio.fail_after(PATIENCE_S):
        offer = await anext(session.offers())
    async with paused(monitor):
        session.claim(offer)
        await post.until(sent, "queued")
    answer = await session.wait_answer(sent["execution_id"], PATIENCE_S)
    assert isinstance(answer, Refusal)
    assert answer.code == "claim_window_closed"
    ended = await post.until(sent, "delivered")
    assert (ended["delivery_route"], ended["claim"]) == ("background_fallback", None)
    assert await post.types(sent) == ["accepted", "fell_back", "leased", "outcome_recorded"]
    await post.assert_whole([sent])


async def test_a_router_that_wakes_up_late_changes_nothing_its_peer_has_done(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    zombie = post.routers[0]
    async with post.sending(agent, 60, "live", claim_window_s=2) as sent:
        pass
    async with paused(zombie):
        for each in sent.values():
            await post.until(each, "queued")
    witness = await post.send(agent, "live", claim_window_s=1)
    async with paused(post.routers[1]):
        # Only the one that slept is awake: when it has closed this window, it has been through all the others.
        await post.until(witness, "queued")
    for each in (*sent.values(), witness):
        assert await post.types(each) == ["accepted", "fell_back"]
    closers = {event["by"] for each in sent.values() for event in (await post.events(each))[1:]}
    assert closers == {"router:r1"}
    await post.assert_whole([*sent.values(), witness])


async def test_two_routers_stopped_in_turns_among_their_deadlines_close_every_window_once(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    async with post.sending(agent, 60, "live", at_once=4, claim_window_s=1) as sent:
        pass
    await post.until(next(iter(sent.values())), "queued")
    # Both are in the middle of it: whoever is stopped has read what its peer then decides.
    for router in post.routers * 3:
        await pause_for(router, 0.2)
    for each in sent.values():
        await post.until(each, "queued")
        assert await post.types(each) == ["accepted", "fell_back"]
    await post.assert_whole(sent.values())


async def test_a_silent_broker_leaves_no_send_without_an_answer_and_a_repeated_one_is_the_same_message(
    post: Programs,
) -> None:
    agent = await post.agent("inbox")
    async with post.sending(agent, 120) as acknowledged:
        await met(lambda: len(acknowledged) >= 30)
        await pause_for(post.nats, 2)
    for key, first in acknowledged.items():
        assert (await post.send(agent, key=key))["id"] == first["id"]
    books = await post.assert_whole(acknowledged.values())
    assert len(books.of(agent)) == len(acknowledged) == 120
    assert max(each.seconds for each in post.exchanges) > 0.5, "nobody waited: the broker was paused too late"
    assert_sound(post.exchanges)


async def test_while_the_broker_is_silent_single_reads_and_writes_end_within_seconds(post: Programs) -> None:
    agent = await post.agent("bg")
    sent = await post.send(agent)
    path = f"/v1/executions/{sent['execution_id']}"
    post.exchanges.clear()
    async with paused(post.nats):
        await in_parallel(
            lambda: post.once("POST", "/v1/messages", {"to": agent["id"], "message": "Anybody?"}),
            lambda: post.once("POST", f"{path}/claim", {"worker_id": "w"}),
            lambda: post.once("POST", f"{path}/outcome", {"success": True}),
            lambda: post.once("GET", path),
            lambda: post.once("GET", "/readyz"),
        )
    assert {each.status for each in post.exchanges} == {503}
    assert_sound(post.exchanges)
    assert (await post.execution(sent))["execution_id"] == sent["execution_id"]


async def test_a_gateway_that_slept_answers_the_requests_it_slept_through(post: Programs) -> None:
    agent = await post.agent("inbox")
    async with post.sending(agent, 60) as acknowledged:
        await met(lambda: len(acknowledged) >= 10)
        await pause_for(post.gateways[0], 2)
    books = await post.assert_whole(acknowledged.values())
    assert len(books.of(agent)) == 60


async def test_a_host_that_slept_past_its_lease_is_refused_and_its_work_is_done_once(
    post: Programs, tmp_path: Path
) -> None:
    agent = await post.agent("bg")
    sent = await post.send(agent)
    monitor = await post.start_monitor(agent, handler=SLOW.format(folder=str(tmp_path)))
    await met((tmp_path / "1").exists)
    async with paused(monitor):
        await post.until(sent, "queued")
        with anyio.fail_after(PATIENCE_S):
            while (answer := await post.lease(sent, "another")).status_code == 409:
                await anyio.sleep(0.05)
        assert answer.json()["lease"]["number"] == 2
    assert (await post.report(sent, lease=2, result="mine")).status_code == 200
    await monitor_has_let_go(post, sent["execution_id"])
    ended = await post.execution(sent)
    assert (ended["outcome"]["result"], ended["state"]) == ("mine", "delivered")
    assert await post.types(sent) == ["accepted", "leased", "attempt_failed", "leased", "outcome_recorded"]
    await post.assert_whole([sent])


async def monitor_has_let_go(post: Programs, execution_id: str) -> None:
    """Wait until the monitor's journal knows nothing of this run any more."""
    note = post.state_dir / "runs" / f"{execution_id}.json"
    await met(lambda: not note.exists())
