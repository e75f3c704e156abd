"""The programs as a user starts them: one message down each channel, and an end in good order."""

import json
from collections.abc import AsyncIterator

import anyio
import pytest

from monitor.session import Delivery, SessionFolder
from tests.program_caller import PATIENCE_S, Json
from tests.programs import Programs, for_one_test, programs
from tests.webhook_receiver import running_receiver

UPPER_CASE = """
import json, sys
message = json.loads(sys.stdin.readline())
print(json.dumps({"success": True, "result": message["message"].upper()}))
"""


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Programs]:
    async with programs(tmp_path_factory.mktemp("post"), gateways=2, routers=2) as running:
        yield running


@pytest.fixture
async def post(shared: Programs) -> AsyncIterator[Programs]:
    async with for_one_test(shared) as lent:
        yield lent


async def test_a_live_session_is_offered_claims_and_answers(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.start_monitor(agent)
    session = SessionFolder(post.state_dir, agent["slug"], "main")
    session.open()
    await session.wait_attached(PATIENCE_S)
    sent = await post.send(agent, "live")
    assert sent["state"] == "offered"
    with anyio.fail_after(PATIENCE_S):
        session.claim(await anext(session.offers()))
    answer = await session.wait_answer(sent["execution_id"], PATIENCE_S)
    assert isinstance(answer, Delivery)
    session.in_context(sent["execution_id"])
    session.outcome(sent["execution_id"], success=True, result={"answer": 42})
    ended = await post.until(sent, "delivered")
    assert (ended["delivery_route"], ended["claim"]["level"]) == ("live", "token+nonce")
    assert ended["claim"]["claimed_at"] <= ended["in_context_at"] <= ended["ended_at"]
    assert ended["outcome"]["result"] == {"answer": 42}


async def test_background_work_is_run_by_the_monitor(post: Programs) -> None:
    agent = await post.agent("bg")
    await post.start_monitor(agent, handler=UPPER_CASE)
    sent = await post.send(agent)
    ended = await post.until(sent, "delivered")
    assert (ended["delivery_route"], ended["outcome"]["success"]) == ("background_direct", True)
    assert ended["in_context_at"] <= ended["ended_at"]
    assert "ARE YOU THERE?" in json.dumps(ended["outcome"]["result"])


async def test_an_unclaimed_offer_falls_back_to_the_monitors_background(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    await post.start_monitor(agent, handler=UPPER_CASE)
    sent = await post.send(agent, "live", claim_window_s=1)
    ended = await post.until(sent, "delivered")
    assert ended["delivery_route"] == "background_fallback"
    assert "claim_window_closed" in [gate["reason"] for gate in ended["trace"]]


async def test_a_webhook_is_posted_by_one_of_the_routers(post: Programs) -> None:
    with running_receiver() as receiver:
        agent = await post.agent("webhook", webhook_url=receiver.url)
        sent = await post.send(agent)
        ended = await post.until(sent, "delivered")
        assert ended["delivery_route"] == "webhook"
    assert [headers["webhook-id"] for headers in receiver.heard] == [sent["id"]]


async def listed(post: Programs, agent: Json) -> list[Json]:
    messages: list[Json] = (await post.get(f"/v1/agents/{agent['id']}/inbox"))["messages"]
    return messages


async def test_what_one_gateway_accepts_the_other_lists_and_hands_out(post: Programs) -> None:
    agent = await post.agent("inbox")
    sent = [await post.send(agent) for _ in range(6)]
    for _ in post.gateways:
        with anyio.fail_after(PATIENCE_S):
            # Whoever did not accept a message lists it some milliseconds later.
            while [each["id"] for each in await listed(post, agent)] != [each["id"] for each in sent]:
                await anyio.sleep(0.01)
    for each in sent:
        await post.post(f"/v1/messages/{each['id']}/ack")
    assert (await post.books()).states(agent) == {"delivered": 6}


async def test_asked_to_stop_every_program_ends_well_and_soon(post: Programs) -> None:
    agent = await post.agent("bg")
    monitor = await post.start_monitor(agent, handler=UPPER_CASE)
    for program in (monitor, *post.routers, *post.gateways):
        assert await program.stop() == 0
