"""Redis killed, emptied or silent while programs run: messages go on, lists come back whole."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from redis.asyncio import Redis

from tests.program_caller import PATIENCE_S, Caller, Json, assert_sound, code_of, in_parallel, met
from tests.programs import Programs

BESIDE_STORE_S = 1.0
"""What a request may take while the store is silent: a wait of 200 ms, and what a busy machine adds."""


@asynccontextmanager
async def store_dead(post: Programs) -> AsyncIterator[None]:
    """Redis is killed for the block, and comes back after it as its file remembers it."""
    post.redis.kill()
    try:
        yield
    finally:
        await post.redis.start()


@asynccontextmanager
async def store_silent(post: Programs) -> AsyncIterator[None]:
    """Redis keeps its connections and answers nobody for the length of the block."""
    post.redis.pause()
    try:
        yield
    finally:
        post.redis.resume()


@asynccontextmanager
async def store_emptied(post: Programs) -> AsyncIterator[None]:
    """Everything in Redis is deleted as the block begins."""
    await flush(post)
    yield


async def flush(post: Programs) -> None:
    async with Redis.from_url(post.redis.endpoint.url) as redis:
        await redis.flushall()


async def listed(post: Caller, agent: Json) -> list[Json]:
    """Every execution of an agent, as the list tells it."""
    return [view async for view in post.pages("/v1/executions", "executions", agent=agent["id"], limit=50)]


async def listed_as_in_the_ledger(post: Programs, *agents: Json) -> None:
    """Wait until each agent's list is what the ledger says; a list that is short is wrong at once."""
    books = await post.books()
    for agent in agents:
        expected = books.states(agent)
        found: Counter[str] = Counter()
        with anyio.move_on_after(PATIENCE_S):
            while found != expected:
                found = Counter(view["state"] for view in await listed(post, agent))
                assert found.total() == expected.total(), "a list was answered short"
        assert found == expected


FAULTS = pytest.mark.parametrize("fault", [store_dead, store_emptied, store_silent])
Fault = Callable[[Programs], AbstractAsyncContextManager[None]]


@FAULTS
async def test_without_its_store_every_channel_is_accepted_claimed_reported_and_closed(
    post: Programs, fault: Fault
) -> None:
    agent = await post.agent("live", "bg", "inbox")
    token = await post.attach(agent)
    claimed, falls = [await post.send(agent, "live", claim_window_s=window_s) for window_s in (30, 2)]
    leased, reported = [await post.send(agent, "bg") for _ in range(2)]
    assert (await post.lease(reported)).status_code == 200
    post.exchanges.clear()
    async with fault(post):
        inbox = await post.send(agent, "inbox")
        fresh = await post.send(agent, "bg")
        assert (await post.live_claim(claimed, token)).status_code == 200
        assert (await post.report(claimed, executed_via="live")).status_code == 200
        assert (await post.lease(leased)).status_code == 200
        assert (await post.report(leased, lease=1)).status_code == 200
        assert (await post.report(reported, lease=1)).status_code == 200
        await post.post(f"/v1/messages/{inbox['id']}/ack")
        assert (await post.lease(fresh)).status_code == 200
        assert (await post.report(fresh, lease=1)).status_code == 200
        fallen = await post.until(falls, "queued")
        assert fallen["effective_delivery_mode"] == "background_fallback"
    assert {each.code for each in post.exchanges if each.status == 503} == set()
    assert_sound(post.exchanges, longest_s=BESIDE_STORE_S)
    await listed_as_in_the_ledger(post, agent)
    await post.assert_whole([claimed, falls, leased, reported, inbox, fresh])
    assert (await post.books()).states(agent) == {"delivered": 5, "queued": 1}


@pytest.mark.parametrize("fault", [store_dead, store_silent])
async def test_without_a_store_nobody_knows_a_heartbeat_and_the_trace_says_so(post: Programs, fault: Fault) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    async with fault(post):
        with anyio.fail_after(PATIENCE_S):
            # What was asked a moment ago is remembered for a tenth of a second.
            while "heartbeat_unknown" not in reasons(sent := await post.send(agent, "live")):
                assert sent["state"] == "offered"
    assert sent["effective_delivery_mode"] == "background_fallback"
    assert {"heartbeat_unknown", "host_unknown"} <= reasons(sent)


def reasons(sent: Json) -> set[str]:
    return {gate["reason"] for gate in sent["trace"]}


async def test_after_an_emptied_store_a_session_is_offered_messages_as_before(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    await flush(post)
    for _ in range(20):
        assert (await post.send(agent, "live"))["state"] == "offered"
    await post.post(f"/v1/agents/{agent['id']}/live-sessions/main/heartbeat", {"age_s": 0})
    assert (await post.send(agent, "live"))["state"] == "offered"


async def test_a_store_emptied_and_killed_under_load_is_whole_again(post: Programs) -> None:
    agent = await post.agent("inbox")
    async with post.sending(agent, 150, at_once=8) as acknowledged:
        for progress, harm in ((20, flush), (60, Programs.crash_store), (100, flush)):
            await met(lambda: len(acknowledged) >= progress)  # noqa: B023 - awaited in this round
            await harm(post)
    assert {each.status for each in post.exchanges if each.path == "/v1/messages"} == {201}
    await listed_as_in_the_ledger(post, agent)
    assert {view["id"] for view in await listed(post, agent)} == {each["id"] for each in acknowledged.values()}
    await post.assert_whole(acknowledged.values())


async def test_gateway_and_router_start_and_work_without_their_store(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    sent = await post.send(agent, "live", claim_window_s=1)
    async with store_dead(post):
        for program in (*post.gateways, *post.routers):
            post.kill(program)
            await program.gone()
            await program.launch()
        fresh = await post.send(agent, "bg")
        assert (await post.lease(fresh)).status_code == 200
        assert (await post.report(fresh, lease=1)).status_code == 200
        assert await post.types(await post.until(sent, "queued")) == ["accepted", "fell_back"]
    await listed_as_in_the_ledger(post, agent)
    await post.assert_whole([sent, fresh])


async def test_a_silent_store_holds_up_no_request_for_more_than_a_second(post: Programs) -> None:
    agent = await post.agent("live", "bg", "inbox")
    token = await post.attach(agent)
    sent = await post.send(agent, "bg")
    post.exchanges.clear()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: post.once("POST", "/v1/messages", {"to": agent["id"], "message": "Hello?"}),
        lambda: post.once("POST", "/v1/route", {"to": agent["id"]}),
        lambda: post.once("GET", f"/v1/executions/{sent['execution_id']}"),
        lambda: post.once("GET", "/v1/executions"),
        lambda: post.once("GET", f"/v1/agents/{agent['id']}/inbox"),
        lambda: post.once("GET", f"/v1/agents/{agent['id']}"),
        lambda: post.once("GET", "/v1/executions/claimable", agent=agent["id"]),
        lambda: post.once("POST", f"/v1/agents/{agent['id']}/live-sessions/main/heartbeat", {}),
        lambda: post.once("POST", f"/v1/executions/{sent['execution_id']}/live-claim", {"session_token": token}),
        lambda: post.once("GET", "/readyz"),
    ]
    async with store_silent(post):
        for _ in range(4):
            await in_parallel(*calls)
    assert_sound(post.exchanges, longest_s=BESIDE_STORE_S)
    sends = {each.status for each in post.exchanges if each.path in ("/v1/messages", "/v1/route")}
    assert sends == {200, 201}


async def test_a_list_is_refused_and_never_short_while_the_store_is_rebuilt(post: Programs) -> None:
    agent = await post.agent("inbox")
    async with post.sending(agent, 80) as acknowledged:
        pass
    await flush(post)
    seen: list[int] = []
    with anyio.fail_after(PATIENCE_S):
        while not seen:
            answer = await post.once("GET", "/v1/executions", agent=agent["id"], limit=200)
            assert answer is not None
            if answer.status_code == 200:
                seen.append(len(answer.json()["executions"]))
            else:
                assert (answer.status_code, code_of(answer)) == (503, "projection_rebuilding")
    assert seen == [len(acknowledged)]
