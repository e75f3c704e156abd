"""What tests of later things say often: send later, work, end, replay, and read what came of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from contracts.directory import agent_key
from contracts.errors import Conflict, PostroomError
from contracts.records import Agent
from contracts.words import Channel, State, VerificationMode
from gateway.ports import Page, Query, Write
from router.audit import audit
from router.service import Proof, Report, Standing
from tests.installation import MAX, TOKEN, Installation

BG = Channel.BG
SEND_S = 3_600
Call = Callable[[], Awaitable[Standing]]


async def send_later(post: Installation, agent: Agent, mode: Channel | None = None, **fields: Any) -> Standing:
    """A message to be sent in an hour."""
    draft = await post.draft(agent, mode, **fields)
    send_at = post.clock.now() + timedelta(seconds=SEND_S)
    return await post.service.accept(replace(draft, wish=replace(draft.wish, send_at=send_at)))


async def worked(post: Installation, standing: Standing, **said: Any) -> Standing:
    """The bg execution after a worker leased it and reported."""
    name = execution_id(standing)
    leased = await post.service.lease(name, holder="w", lease_s=60, principal=MAX)
    assert leased.execution.lease
    report = Report(**{"success": True, "lease": leased.execution.lease.number, **said})
    return await post.service.report(name, report, MAX)


async def ended(post: Installation, mode: VerificationMode = VerificationMode.NONE, **said: Any) -> Standing:
    """A bg message with a recorded outcome, verified by `mode`."""
    draft = await post.draft(await post.agent(BG), BG)
    sent = await post.service.accept(replace(draft, wish=replace(draft.wish, verification=mode)))
    return await worked(post, sent, **said)


async def replay(post: Installation, standing: Standing) -> Standing:
    return await post.service.replay(execution_id(standing), MAX)


async def read(post: Installation, name: str) -> Standing:
    return await post.service.find_execution(name, MAX)


def execution_id(standing: Standing) -> str:
    return str(standing.view["execution_id"])


def proof(post: Installation, standing: Standing) -> Proof:
    before = standing.execution.claim_before
    assert before is not None
    return Proof(session_token=f"{TOKEN}-main", nonce=post.service.nonce(execution_id(standing), before))


async def refusal(call: Awaitable[object]) -> str:
    """The code of the conflict a call ends in."""
    with pytest.raises(Conflict) as refused:
        await call
    return refused.value.code


async def all_of(calls: Sequence[Call]) -> tuple[list[Standing], list[PostroomError]]:
    """Run the calls at once; what they returned, and what they raised."""
    won: list[Standing] = []
    lost: list[PostroomError] = []

    async def run(call: Call) -> None:
        try:
            won.append(await call())
        except PostroomError as error:
            lost.append(error)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(run, call)
    return won, lost


async def rows(post: Installation, agent: Agent, states: tuple[State, ...] = ()) -> Page:
    """A list of the agent's messages, once lists are answered."""
    query = Query(owner="max", agent_id=agent.id, states=states)
    with anyio.fail_after(10):
        while True:
            try:
                await post.queries.settle()
                return await post.queries.page(query)
            except PostroomError as refused:
                assert refused.code == "projection_rebuilding"  # noqa: PT017 - the only acceptable refusal
                await anyio.sleep(0.02)


async def marker_is(post: Installation, seq: int) -> None:
    """Wait until routers start their reading after `seq`."""
    with anyio.fail_after(10):
        while await post.projection.epoch() != seq:
            await anyio.sleep(0.02)


async def change(post: Installation, agent: Agent, **fields: Any) -> None:
    key = agent_key(agent.id)
    found = await post.directory.get(key, Agent, fresh=True)
    assert found is not None
    await post.directory.transact([Write(key=key, record=replace(agent, **fields), expected_seq=found.seq)])


def kinds(standing: Standing) -> list[str]:
    return [each.event.type for each in standing.history.events]


def assert_in_order(post: Installation, *standings: Standing) -> None:
    report = audit([each.history for each in standings], post.clock.now(), grace=timedelta(seconds=10))
    assert report.findings == ()
