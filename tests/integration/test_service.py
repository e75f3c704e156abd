"""The router's service on a real broker and a real Redis: one winner, one message, one end."""

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from contracts.errors import Conflict, Forbidden, Invalid, NotFound, PostroomError
from contracts.records import Principal
from contracts.words import Channel, DeliveryRoute, EffectiveMode, FallbackMode, State
from gateway.ports import Page, Query
from infra.embedded import NatsEndpoint, RedisEndpoint
from router.service import Proof, Report, Standing
from tests.installation import MAX, TOKEN, Installation, installation

LIVE, BG, INBOX = Channel.LIVE, Channel.BG, Channel.INBOX


@pytest.fixture
async def post(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        yield built


async def all_of(*calls: Callable[[], Awaitable[Standing]]) -> tuple[list[Standing], list[PostroomError]]:
    """Run the calls at once; what they returned, and what they raised."""
    won: list[Standing] = []
    lost: list[PostroomError] = []

    async def run(call: Callable[[], Awaitable[Standing]]) -> None:
        try:
            won.append(await call())
        except PostroomError as error:
            lost.append(error)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(run, call)
    return won, lost


def execution_id(standing: Standing) -> str:
    return f"exec_{standing.history.ulid}"


def proof(post: Installation, standing: Standing, label: str = "main") -> Proof:
    before = standing.execution.claim_before
    assert before is not None
    return Proof(session_token=f"{TOKEN}-{label}", nonce=post.service.nonce(execution_id(standing), before))


async def test_a_live_message_is_pushed_claimed_and_ends_with_its_outcome(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    async with post.pushes_of(agent) as heard:
        sent = await post.send(agent, LIVE)
        await post.broker.echo()
    assert (sent.execution.state, sent.execution.mode) == (State.OFFERED, EffectiveMode.LIVE)
    assert [(push.channel, push.nonce) for push in heard] == [(LIVE, proof(post, sent).nonce)]

    await post.service.live_claim(execution_id(sent), proof(post, sent), MAX)
    ended = await post.service.report(execution_id(sent), Report(success=True, executed_via="live"), MAX)
    assert (ended.execution.state, ended.execution.route) == (State.DELIVERED, DeliveryRoute.LIVE)


async def test_fifty_workers_want_one_execution_and_one_gets_it(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    calls = [
        lambda name=f"w{n}": post.service.lease(execution_id(sent), holder=name, lease_s=60, principal=MAX)
        for n in range(50)
    ]
    won, lost = await all_of(*calls)
    assert len(won) == 1
    assert [error.code for error in lost] == ["already_claimed"] * 49


async def test_twenty_sessions_claim_one_message_and_one_gets_it(post: Installation) -> None:
    agent = await post.agent()
    labels = [f"s{n}" for n in range(20)]
    await post.attach(agent, *labels)
    sent = await post.send(agent, LIVE)
    calls = [
        lambda label=label: post.service.live_claim(execution_id(sent), proof(post, sent, label), MAX)
        for label in labels
    ]
    won, lost = await all_of(*calls)
    assert len(won) == 1
    assert {error.code for error in lost} == {"already_claimed"}


async def test_the_same_session_may_repeat_its_claim(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE)
    first = await post.service.live_claim(execution_id(sent), proof(post, sent), MAX)
    again = await post.service.live_claim(execution_id(sent), proof(post, sent), MAX)
    assert again.history == first.history


async def test_a_wrong_token_and_a_missing_nonce_are_refused_and_change_nothing(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE)
    for shown, code in (
        (Proof(session_token="wrong", nonce=proof(post, sent).nonce), "invalid_session_token"),
        (Proof(session_token=f"{TOKEN}-main"), "push_proof_missing"),
        (Proof(session_token=f"{TOKEN}-main", nonce="f" * 40), "push_proof_missing"),
    ):
        with pytest.raises(Forbidden) as refused:
            await post.service.live_claim(execution_id(sent), shown, MAX)
        assert refused.value.code == code
    assert (await post.message(sent)).history == sent.history


async def test_a_foreign_owner_sees_nothing_and_can_do_nothing(post: Installation) -> None:
    eve = Principal(owner="eve", key_id="keyofeve0001")
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE)
    calls = [
        lambda: post.service.find_execution(execution_id(sent), eve),
        lambda: post.service.find_message(sent.history.message.id, eve),
        lambda: post.service.live_claim(execution_id(sent), proof(post, sent), eve),
        lambda: post.service.report(execution_id(sent), Report(success=True), eve),
        lambda: post.service.cancel(sent.history.message.id, eve),
    ]
    won, lost = await all_of(*calls)
    assert won == []
    assert all(isinstance(error, NotFound) for error in lost)


async def test_eight_sends_with_one_key_make_one_message(post: Installation) -> None:
    agent = await post.agent(INBOX)
    draft = await post.draft(agent, idempotency_key="once")
    won, lost = await all_of(*[lambda: post.service.accept(draft)] * 8)
    assert lost == []
    assert len({each.history.message.id for each in won}) == 1
    assert sorted(each.replayed for each in won) == [False] + [True] * 7


async def test_the_same_key_with_another_message_is_a_conflict_and_another_owner_may_use_it(
    post: Installation,
) -> None:
    agent = await post.agent(INBOX)
    first = await post.send(agent, idempotency_key="once")
    with pytest.raises(Conflict, match="another message"):
        await post.send(agent, idempotency_key="once", body="something else")
    draft = await post.draft(agent, idempotency_key="once")
    other = await post.service.accept(
        type(draft)(
            **{
                **{name: getattr(draft, name) for name in draft.__dataclass_fields__},
                "sender": type(draft.sender)(owner="eve", key_id="k"),
            }
        )
    )
    assert other.history.message.id != first.history.message.id


async def test_a_channel_that_is_not_declared_is_refused_with_the_trace(post: Installation) -> None:
    with pytest.raises(Invalid) as refused:
        await post.send(await post.agent(INBOX), LIVE)
    assert refused.value.code == "capability_not_declared"
    assert refused.value.facts["trace"][-1]["reason"] == "capability_not_declared"


async def test_a_dry_run_decides_as_the_real_thing_does(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent, age_s=500)
    for mode in (None, LIVE, BG, INBOX):
        for fallback in FallbackMode:
            draft = await post.draft(agent, mode, fallback=fallback)
            dry = await post.service.route(draft)
            real = (await post.service.accept(draft)).history.events[0].event.decision  # type: ignore[union-attr]
            assert (dry.steps, dry.ending, dry.reason) == (real.steps, real.ending, real.reason)
            assert [(g.gate, g.verdict, g.reason) for g in dry.trace] == [
                (g.gate, g.verdict, g.reason) for g in real.trace
            ]


async def test_a_closed_window_falls_back_and_the_late_claim_is_told_so(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE, claim_window_s=5)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        post.clock.move(seconds=6)
        fell = await post.until(sent, "queued")
    assert fell.execution.mode is EffectiveMode.BACKGROUND_FALLBACK
    assert "claim_window_closed" in [each.reason.value for each in fell.execution.trace]
    with pytest.raises(Conflict, match="window has closed"):
        await post.service.live_claim(execution_id(sent), proof(post, sent), MAX)


async def test_without_a_fallback_a_closed_window_is_the_end(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE, claim_window_s=5, fallback=FallbackMode.NONE)
    post.clock.move(seconds=6)
    ended = await post.service.close_overdue(sent.history.ulid, by="test")
    assert ended.execution.state is State.LIVE_UNCLAIMED_NO_FALLBACK


async def test_claim_and_window_close_race_and_exactly_one_wins(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    for _ in range(20):
        sent = await post.send(agent, LIVE, claim_window_s=1)
        shown = proof(post, sent)
        post.clock.move(seconds=0.999)
        won, lost = await all_of(
            lambda: post.service.live_claim(execution_id(sent), shown, MAX),  # noqa: B023 - awaited in this round
            lambda: post.service.close_overdue(sent.history.ulid, by="test"),  # noqa: B023
        )
        kinds = [each.event.type for each in (await post.message(sent)).history.events]
        assert kinds.count("claimed") + kinds.count("fell_back") <= 1
        assert len(won) + len(lost) == 2


async def test_a_lease_that_expires_hands_the_work_on_and_the_late_worker_is_refused(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    name = execution_id(sent)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        first = await post.service.lease(name, holder="w1", lease_s=10, principal=MAX)
        post.clock.move(seconds=11)
        await post.until(sent, "queued")
        post.clock.move(seconds=2)
        second = await post.service.lease(name, holder="w2", lease_s=10, principal=MAX)
    assert first.execution.lease
    assert second.execution.lease
    assert (first.execution.lease.number, second.execution.lease.number) == (1, 2)
    with pytest.raises(Conflict) as late:
        await post.service.report(name, Report(success=True, lease=1), MAX)
    assert late.value.code == "stale_lease"
    ended = await post.service.report(name, Report(success=True, lease=2), MAX)
    assert ended.execution.route is DeliveryRoute.BACKGROUND_DIRECT


async def test_attempts_run_out_and_the_message_says_so(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    name = execution_id(sent)
    ended = sent
    for attempt in (1, 2, 3):
        leased = await post.service.lease(name, holder="w", lease_s=10, principal=MAX)
        assert leased.execution.lease
        assert leased.execution.lease.number == attempt
        ended = await post.service.release(
            name, number=attempt, reason_detail="exit_nonzero", detail="boom", principal=MAX
        )
        post.clock.move(seconds=60)
    assert ended.execution.state is State.BG_EXHAUSTED
    assert ended.execution.last_error == "exit_nonzero: boom"


async def test_an_outcome_may_be_repeated_but_not_changed(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    await post.service.lease(execution_id(sent), holder="w", lease_s=10, principal=MAX)
    report = Report(success=True, result={"a": 1}, lease=1)
    first = await post.service.report(execution_id(sent), report, MAX)
    again = await post.service.report(execution_id(sent), report, MAX)
    assert again.replayed
    assert again.history == first.history
    with pytest.raises(Conflict) as other:
        await post.service.report(execution_id(sent), Report(success=False, lease=1), MAX)
    assert other.value.code == "outcome_conflict"


async def test_live_without_a_claim_is_stored_as_unverified(post: Installation) -> None:
    sent = await post.send(await post.agent(BG), BG)
    await post.service.lease(execution_id(sent), holder="w", lease_s=10, principal=MAX)
    ended = await post.service.report(execution_id(sent), Report(success=True, executed_via="live", lease=1), MAX)
    assert ended.execution.outcome is not None
    assert ended.execution.route is DeliveryRoute.LIVE_UNVERIFIED
    assert ended.execution.outcome.route_reason == "no_live_claim"


async def test_a_message_is_cancelled_before_work_begins_and_not_after(post: Installation) -> None:
    agent = await post.agent(BG)
    sent = await post.send(agent, BG)
    cancelled = await post.service.cancel(sent.history.message.id, MAX)
    assert cancelled.execution.state is State.CANCELLED
    assert (await post.service.cancel(sent.history.message.id, MAX)).history == cancelled.history
    busy = await post.send(agent, BG)
    await post.service.lease(execution_id(busy), holder="w", lease_s=10, principal=MAX)
    with pytest.raises(Conflict, match="begun"):
        await post.service.cancel(busy.history.message.id, MAX)


async def test_an_inbox_message_is_handed_out_read_and_acknowledged(post: Installation) -> None:
    sent = await post.send(await post.agent(INBOX))
    name = sent.history.message.id
    assert (await post.service.mark(name, State.INBOX_DELIVERED, MAX)).execution.state is State.INBOX_DELIVERED
    assert (await post.service.mark(name, State.INBOX_READ, MAX)).execution.state is State.INBOX_READ
    assert (await post.service.acknowledge(name, MAX)).execution.state is State.DELIVERED
    with pytest.raises(Conflict):
        await post.service.mark(name, State.INBOX_READ, MAX)


async def test_an_unread_message_expires_under_its_own_name(post: Installation) -> None:
    sent = await post.send(await post.agent(INBOX), ttl_s=60)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        post.clock.move(seconds=61)
        assert (await post.until(sent, "expired_unread")).execution.reason.value == "ttl_passed"


async def test_a_message_that_waits_for_a_session_is_offered_when_one_attaches(post: Installation) -> None:
    agent = await post.agent()
    sent = await post.send(agent, LIVE, fallback=FallbackMode.LIVE_ONLY)
    assert sent.execution.state is State.WAITING
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        await post.attach(agent)
        await post.broker.publish(post.names.session_attached, agent.id.encode())
        offered = await post.until(sent, "offered")
    await post.service.live_claim(execution_id(sent), proof(post, offered), MAX)


async def test_a_router_that_was_down_at_the_deadline_applies_it_when_it_starts(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE, claim_window_s=1)
    post.clock.move(seconds=100)
    async with post.new_worker():
        assert (await post.until(sent, "queued")).execution.reason.value == "claim_window_closed"


async def test_two_routers_close_a_window_once(post: Installation) -> None:
    agent = await post.agent()
    await post.attach(agent)
    sent = await post.send(agent, LIVE, claim_window_s=1, fallback=FallbackMode.NONE)
    async with post.new_worker("router:1"), post.new_worker("router:2"):
        post.clock.move(seconds=2)
        ended = await post.until(sent, "live_unclaimed_no_fallback")
    assert [each.event.type for each in ended.history.events] == ["accepted", "ended"]


async def test_after_everything_in_redis_is_gone_lists_are_whole_again(post: Installation) -> None:
    agent = await post.agent(INBOX)
    async with post.new_worker() as worker:
        await worker.caught_up.wait()
        sent = [await post.send(agent) for _ in range(5)]
        await post.redis.command("FLUSHALL")
        page = await page_once_whole(post, Query(owner="max", agent_id=agent.id))
    assert len(page.views) == len(sent)


async def page_once_whole(post: Installation, query: Query) -> Page:
    """The first answer that is not the one acceptable refusal."""
    with anyio.fail_after(10):
        while True:
            try:
                return await post.queries.page(query)
            except PostroomError as refused:
                assert refused.code == "projection_rebuilding"  # noqa: PT017 - the only acceptable refusal
                await anyio.sleep(0.02)
