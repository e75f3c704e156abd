"""What is decided later, on real servers: scheduled messages whose time comes, and replays of ended ones."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from contracts.errors import NotFound, PostroomError
from contracts.words import (
    INBOX_STATES,
    AgentStatus,
    Channel,
    DeliveryRoute,
    EffectiveMode,
    FallbackMode,
    State,
)
from infra.embedded import NatsEndpoint, RedisEndpoint
from router.explain import event_views
from router.service import Proof, Report
from tests.installation import MAX, TOKEN, Installation, installation
from tests.later import (
    SEND_S,
    all_of,
    assert_in_order,
    change,
    ended,
    execution_id,
    kinds,
    marker_is,
    proof,
    read,
    refusal,
    replay,
    rows,
    send_later,
    worked,
)

LIVE, BG, INBOX = Channel.LIVE, Channel.BG, Channel.INBOX


@pytest.fixture
async def post(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        yield built


# --- scheduled ------------------------------------------------------------------------------------------------------


async def test_a_scheduled_message_says_nothing_to_anybody_before_its_time(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    async with post.new_worker() as worker, post.pushes_of(agent) as heard:
        await worker.caught_up.wait()
        later = [await send_later(post, agent, mode) for mode in (LIVE, BG, INBOX, None)]
        now = await post.send(agent, BG)
        unfinished = await rows(post, agent, tuple(INBOX_STATES))
        everything = await rows(post, agent)
        await post.broker.echo()
    assert [push.message_id for push in heard] == [now.history.message.id]
    assert unfinished.views == ()
    assert len(everything.views) == len(later) + 1
    for each in later:
        found = await post.message(each)
        assert (found.view["state"], found.view["effective_delivery_mode"]) == ("scheduled", None)
        assert event_views(found.history)[0]["decision"]["plan"] == []


async def test_before_its_time_nobody_can_take_a_scheduled_message(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    name = execution_id(await send_later(post, agent, LIVE))
    shown = Proof(session_token=f"{TOKEN}-main")
    assert await refusal(post.service.live_claim(name, shown, MAX)) == "not_offered_live"
    assert await refusal(post.service.lease(name, holder="w", lease_s=60, principal=MAX)) == "not_claimable"
    assert await refusal(post.service.report(name, Report(success=True), MAX)) == "not_claimed"
    assert await refusal(post.service.replay(name, MAX)) == "execution_in_flight"


async def test_at_its_time_it_is_routed_on_what_is_true_then(post: Installation) -> None:
    agent = await post.agent()
    sent = await send_later(post, agent, LIVE)
    async with post.new_worker() as worker, post.pushes_of(agent) as heard:
        await worker.caught_up.wait()
        post.clock.move(seconds=SEND_S - 5)
        await post.attach(agent)
        post.clock.move(seconds=6)
        offered = await post.until(sent, "offered")
        with anyio.fail_after(5):
            while not heard:
                await post.broker.echo()
    assert [(push.channel, push.nonce) for push in heard] == [(LIVE, proof(post, offered).nonce)]
    won = await post.service.live_claim(execution_id(sent), proof(post, offered), MAX)
    assert kinds(won) == ["accepted", "released", "claimed"]
    assert_in_order(post, won)


async def test_a_session_that_was_there_when_it_was_sent_and_is_silent_by_then_does_not_count(
    post: Installation,
) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await send_later(post, agent, LIVE)
    async with post.new_worker():
        post.clock.move(seconds=SEND_S + 1)
        routed = await post.until(sent, "queued")
    assert routed.execution.mode is EffectiveMode.BACKGROUND_FALLBACK
    assert "heartbeat_stale" in [each.reason.value for each in routed.execution.trace]


@pytest.mark.parametrize(("mode", "state"), [(BG, "queued"), (INBOX, "in_inbox"), (None, "in_inbox")])
async def test_it_reaches_every_way_at_its_time(post: Installation, mode: Channel | None, state: str) -> None:
    agent = await post.agent(*([mode] if mode else [INBOX]))
    sent = await send_later(post, agent, mode)
    async with post.new_worker():
        post.clock.move(seconds=SEND_S + 1)
        assert_in_order(post, await post.until(sent, state))


async def test_it_is_not_routed_before_its_time(post: Installation) -> None:
    sent = await send_later(post, await post.agent(BG), BG)
    post.clock.move(seconds=SEND_S - 1)
    assert (await post.service.route_scheduled(sent.history.ulid, by="test")).history == sent.history
    assert (await post.service.close_overdue(sent.history.ulid, by="test")).history == sent.history


async def test_a_deadline_looked_at_by_mistake_does_not_end_it(post: Installation) -> None:
    sent = await send_later(post, await post.agent(BG), BG)
    post.clock.move(seconds=SEND_S + 1)
    assert (await post.service.close_overdue(sent.history.ulid, by="test")).execution.state is State.SCHEDULED


async def test_it_can_be_cancelled_until_its_time_and_is_never_routed_then(post: Installation) -> None:
    sent = await send_later(post, await post.agent(BG), BG)
    cancelled = await post.service.cancel(sent.history.message.id, MAX)
    assert cancelled.execution.state is State.CANCELLED
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        post.clock.move(seconds=SEND_S + 1)
        control = await send_later(post, await post.agent(BG), BG)
        post.clock.move(seconds=SEND_S + 1)
        await post.until(control, "queued")
    assert kinds(await post.message(sent)) == ["accepted", "ended"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"delivery_capabilities": (INBOX,)}, "capability_not_declared"),
        ({"status": AgentStatus.INACTIVE}, "agent_inactive"),
    ],
)
async def test_an_agent_that_no_longer_takes_it_rejects_it_with_the_trace(
    post: Installation, fields: dict[str, Any], reason: str
) -> None:
    agent = await post.agent(BG, INBOX)
    sent = await send_later(post, agent, BG)
    await change(post, agent, **fields)
    async with post.new_worker():
        post.clock.move(seconds=SEND_S + 1)
        rejected = await post.until(sent, "rejected")
    assert rejected.execution.reason.value == reason
    assert [each["reason"] for each in rejected.explained["trace"]][-1] == reason
    assert_in_order(post, rejected)


async def test_routers_that_meet_over_it_route_it_once(post: Installation) -> None:
    sent = await send_later(post, await post.agent(BG), BG)
    async with post.new_worker("router:1"), post.new_worker("router:2"):
        post.clock.move(seconds=SEND_S + 1)
        await post.until(sent, "queued")
    won, lost = await all_of([lambda: post.service.route_scheduled(sent.history.ulid, by="test")] * 4)
    assert lost == []
    assert {tuple(kinds(each)) for each in won} == {("accepted", "released")}


async def test_a_router_that_starts_anew_still_knows_it(post: Installation) -> None:
    agent = await post.agent(BG)
    sent = await send_later(post, agent, BG)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        other = await post.send(agent, BG)
        await post.service.cancel(other.history.message.id, MAX)
        await marker_is(post, sent.history.head_seq - 1)
    post.clock.move(seconds=SEND_S + 1)
    async with post.new_worker():
        await post.until(sent, "queued")


async def test_a_time_that_is_past_sends_at_once(post: Installation) -> None:
    draft = await post.draft(await post.agent(BG), BG)
    past = post.clock.now() - timedelta(seconds=1)
    sent = await post.service.accept(replace(draft, wish=replace(draft.wish, send_at=past)))
    assert sent.execution.state is State.QUEUED


async def test_its_time_to_live_begins_when_it_is_sent(post: Installation) -> None:
    sent = await send_later(post, await post.agent(INBOX), INBOX, ttl_s=60)
    async with post.new_worker():
        post.clock.move(seconds=SEND_S + 30)
        await post.until(sent, "in_inbox")
        post.clock.move(seconds=31)
        await post.until(sent, "expired_unread")


# --- replays --------------------------------------------------------------------------------------------------------


async def test_what_is_still_on_its_way_is_not_replayed(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    assert await refusal(replay(post, sent)) == "execution_in_flight"
    assert (await post.message(sent)).history == sent.history


async def test_a_replay_is_a_new_execution_with_an_outcome_of_its_own(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    first = await worked(post, sent, result="first")
    second = await replay(post, first)
    assert execution_id(second) == f"{execution_id(first)}r2"
    assert (second.execution.state, second.execution.outcome, second.execution.attempts) == (State.QUEUED, None, 0)

    done = await worked(post, second, success=False, error="second")
    assert done.execution.lease is None
    assert done.view["outcome"]["error"] == "second"
    old = await read(post, execution_id(first))
    assert old.view == first.view
    assert (await post.message(sent)).view == done.view
    assert_in_order(post, done)


async def test_each_replay_adds_one_to_the_number_and_every_one_can_be_read(post: Installation) -> None:
    newest = await ended(post)
    first = execution_id(newest)
    for number in (2, 3):
        newest = await worked(post, await replay(post, newest), result=number)
        assert execution_id(newest) == f"{first}r{number}"
    results = [(await read(post, f"{first}{suffix}")).view["outcome"]["result"] for suffix in ("", "r2", "r3")]
    assert results == [None, 2, 3]
    with pytest.raises(NotFound):
        await read(post, f"{first}r4")
    assert_in_order(post, newest)


async def test_an_execution_that_was_replayed_is_closed_to_everybody(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, BG)
    name = execution_id(sent)
    again = await replay(post, await worked(post, sent))
    service = post.service
    refused = [
        await refusal(service.lease(name, holder="w", lease_s=60, principal=MAX)),
        await refusal(service.extend(name, number=1, lease_s=60, principal=MAX)),
        await refusal(service.release(name, number=1, reason_detail="x", detail=None, principal=MAX)),
        await refusal(service.report(name, Report(success=True, lease=1), MAX)),
        await refusal(service.live_claim(name, Proof(session_token=f"{TOKEN}-main"), MAX)),
        await refusal(service.add_evidence(name, {"summary": "s"}, MAX)),
        await refusal(service.verify(name, valid=True, reason=None, principal=MAX)),
        await refusal(service.replay(name, MAX)),
    ]
    assert set(refused) == {"execution_closed"}
    assert (await post.message(sent)).history == again.history


async def test_two_replays_at_once_make_one_new_execution(post: Installation) -> None:
    over = await ended(post)
    won, lost = await all_of([lambda: replay(post, over)] * 5)
    assert [execution_id(each) for each in won] == [f"{execution_id(over)}r2"]
    assert {error.code for error in lost} == {"execution_closed"}
    assert kinds(await post.message(over)).count("replayed") == 1


async def test_a_replay_is_routed_on_what_is_true_now_and_can_be_claimed_live(post: Installation) -> None:
    agent = await post.agent()
    first = await worked(post, await post.send(agent, LIVE))
    assert first.execution.mode is EffectiveMode.BG
    await post.attach(agent)
    async with post.pushes_of(agent) as heard:
        again = await replay(post, first)
        await post.broker.echo()
    assert [(push.execution_id, push.nonce) for push in heard] == [(execution_id(again), proof(post, again).nonce)]
    await post.service.live_claim(execution_id(again), proof(post, again), MAX)
    done = await post.service.report(execution_id(again), Report(success=True, executed_via="live"), MAX)
    assert (first.execution.route, done.execution.route) == (DeliveryRoute.BACKGROUND_DIRECT, DeliveryRoute.LIVE)
    assert_in_order(post, done)


async def test_the_nonce_of_one_execution_is_worth_nothing_for_the_next(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    first = await post.send(agent, LIVE, fallback=FallbackMode.NONE)
    old = proof(post, first)
    await post.service.cancel(first.history.message.id, MAX)
    again = await replay(post, first)
    with pytest.raises(PostroomError) as refused:
        await post.service.live_claim(execution_id(again), old, MAX)
    assert refused.value.code == "push_proof_missing"


async def test_an_agent_that_takes_it_no_longer_refuses_the_replay_and_nothing_is_stored(post: Installation) -> None:
    agent = await post.agent(BG, INBOX)
    over = await worked(post, await post.send(agent, BG))
    await change(post, agent, delivery_capabilities=(INBOX,))
    with pytest.raises(PostroomError) as refused:
        await replay(post, over)
    assert refused.value.code == "capability_not_declared"
    assert refused.value.facts["trace"][-1]["reason"] == "capability_not_declared"
    assert (await post.message(over)).history == over.history


async def test_a_message_whose_time_was_up_has_new_time_when_it_is_replayed(post: Installation) -> None:
    sent = await post.send(await post.agent(INBOX), ttl_s=60)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        post.clock.move(seconds=61)
        over = await post.until(sent, "expired_unread")
        again = await replay(post, over)
        assert again.execution.state is State.IN_INBOX
        assert again.view["expires_at"] > over.view["expires_at"]
        post.clock.move(seconds=61)
        await post.until(sent, "expired_unread")
    assert kinds(await post.message(sent)) == ["accepted", "ended", "replayed", "ended"]


async def test_a_live_message_whose_time_was_up_is_offered_for_a_whole_window_again(post: Installation) -> None:
    agent = await post.agent()
    sent = await post.send(agent, LIVE, ttl_s=60, fallback=FallbackMode.LIVE_ONLY)
    post.clock.move(seconds=61)
    over = await post.service.close_overdue(sent.history.ulid, by="test")
    await post.attach(agent)
    again = await replay(post, over)
    assert again.execution.claim_before == again.execution.updated_at + timedelta(seconds=agent.claim_window_s)
    await post.service.live_claim(execution_id(again), proof(post, again), MAX)


async def test_a_replay_that_waits_for_a_session_is_offered_for_a_whole_window(post: Installation) -> None:
    agent = await post.agent()
    sent = await post.send(agent, LIVE, ttl_s=60, fallback=FallbackMode.LIVE_ONLY)
    post.clock.move(seconds=61)
    again = await replay(post, await post.service.close_overdue(sent.history.ulid, by="test"))
    assert again.execution.state is State.WAITING
    await post.attach(agent)
    offered = await post.service.offer_waiting(sent.history.ulid, by="test")
    assert offered is not None
    await post.service.live_claim(execution_id(offered), proof(post, offered), MAX)


async def test_a_router_that_starts_after_the_acceptance_keeps_the_deadlines_of_a_replay(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE)
    over = await post.service.cancel(sent.history.message.id, MAX)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        await marker_is(post, over.history.head_seq)
    await replay(post, over)
    post.clock.move(seconds=60)
    async with post.new_worker():
        fallen = await post.until(sent, "queued")
    assert (fallen.execution.number, fallen.execution.mode) == (2, EffectiveMode.BACKGROUND_FALLBACK)
    assert_in_order(post, fallen)


async def test_lists_show_the_newest_execution_of_a_message_once(post: Installation) -> None:
    agent = await post.agent(BG)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        again = await replay(post, await worked(post, await post.send(agent, BG)))
        page = await rows(post, agent)
        open_ones = await rows(post, agent, (State.QUEUED,))
    assert len(page.views) == len(open_ones.views) == 1
    assert execution_id(again).encode() in page.views[0]


async def test_a_replay_can_be_cancelled_and_what_came_of_the_first_stays(post: Installation) -> None:
    first = await ended(post)
    await replay(post, first)
    cancelled = await post.service.cancel(first.history.message.id, MAX)
    assert (cancelled.execution.number, cancelled.execution.state) == (2, State.CANCELLED)
    assert (await read(post, execution_id(first))).view == first.view
