"""kill -9 of each program at each stage: what was acknowledged stays, and everything happens once."""

from datetime import UTC, datetime
from pathlib import Path

import anyio

from monitor.session import Delivery, OfferSeen, SessionFolder
from tests.program_caller import PATIENCE_S, Json, assert_sound, code_of, met
from tests.programs import Programs, is_running

HANGS_ONCE = """
import json, os, pathlib, sys, time
message = json.loads(sys.stdin.readline())
note = pathlib.Path(message["metadata"]["note"])
note.with_suffix(".new").write_text(str(os.getpid()))
note.with_suffix(".new").rename(note)
if os.environ["ATTEMPT"] == "1":
    time.sleep(600)
print(json.dumps({"success": True, "result": os.environ["ATTEMPT"]}))
"""
LOAD = 120


async def passed(instant: str) -> None:
    """Wait until the server's clock, which is ours, is beyond an instant."""
    left_s = (datetime.fromisoformat(instant) - datetime.now(UTC)).total_seconds()
    await anyio.sleep(max(0.0, left_s) + 0.01)


async def attached(post: Programs, agent: Json) -> SessionFolder:
    session = SessionFolder(post.state_dir, agent["slug"], "main")
    session.open()
    await session.wait_attached(PATIENCE_S)
    return session


async def offer_of(session: SessionFolder, sent: Json) -> OfferSeen:
    with anyio.fail_after(PATIENCE_S):
        while True:
            for offer in session.offers_now():
                if offer.execution_id == sent["execution_id"]:
                    return offer
            await anyio.sleep(0.02)


async def claim(session: SessionFolder, sent: Json) -> None:
    """Claim through the monitor, and win."""
    session.claim(await offer_of(session, sent))
    assert isinstance(await session.wait_answer(sent["execution_id"], PATIENCE_S), Delivery)


async def running_child(note: Path) -> int:
    """The process id a handler notes down once it runs."""
    await met(note.exists)
    return int(note.read_text())


# --- the gateway ---------------------------------------------------------------------------------------------------


async def test_a_gateway_killed_under_load_keeps_what_it_acknowledged_and_makes_one_message_per_key(
    post: Programs,
) -> None:
    agent = await post.agent("inbox")
    async with post.sending(agent, LOAD) as acknowledged:
        for progress in (20, 70):
            await met(lambda: len(acknowledged) >= progress)  # noqa: B023 - awaited in this round
            await post.restart(post.gateways[0])
    for key in list(acknowledged)[::10]:
        assert (await post.send(agent, key=key))["id"] == acknowledged[key]["id"]
    books = await post.assert_whole(acknowledged.values())
    assert len(books.of(agent)) == len({each["id"] for each in acknowledged.values()}) == LOAD
    assert any(each.status == 0 for each in post.exchanges), "no connection broke: the gateway was killed too late"
    assert_sound(post.exchanges)


async def test_claims_and_outcomes_repeated_over_a_killed_gateway_are_answered_like_the_first_time(
    post: Programs,
) -> None:
    agent = await post.agent("live")
    token = await post.attach(agent)
    async with post.sending(agent, 60, "live") as sent:
        pass
    done: list[tuple[int, int]] = []

    async def work(each: Json) -> None:
        claimed = await post.live_claim(each, token)
        reported = await post.report(each, executed_via="live")
        done.append((claimed.status_code, reported.status_code))

    async with anyio.create_task_group() as group:
        for each in sent.values():
            group.start_soon(work, each)
        await met(lambda: any(exchange.path.endswith("live-claim") for exchange in post.exchanges))
        await post.restart(post.gateways[0])
    assert done == [(200, 200)] * len(sent)
    for each in sent.values():
        assert await post.types(each) == ["accepted", "claimed", "outcome_recorded"]
    assert any(each.status == 0 for each in post.exchanges), "no connection broke: the gateway was killed too late"
    await post.assert_whole(sent.values())


async def test_a_gateway_killed_while_a_child_runs_gets_its_outcome_once(post: Programs, tmp_path: Path) -> None:
    agent = await post.agent("bg")
    await post.start_monitor(agent, handler=HANGS_ONCE.replace("600", "1"))
    sent = await post.send(agent, metadata={"note": str(tmp_path / "note")})
    await running_child(tmp_path / "note")
    await post.restart(post.gateways[0])
    await post.until(sent, "delivered")
    assert [kind for kind in await post.types(sent) if kind != "lease_extended"] == [
        "accepted",
        "leased",
        "outcome_recorded",
    ]
    await post.assert_whole([sent])


# --- the router ----------------------------------------------------------------------------------------------------


async def test_a_window_that_ends_while_every_router_is_dead_is_closed_when_one_returns(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    token = await post.attach(agent)
    sent = await post.send(agent, "live", claim_window_s=1)
    for router in post.routers:
        post.kill(router)
    await passed(sent["deadline_at"])
    assert (await post.execution(sent))["state"] == "offered"
    assert code_of(await post.live_claim(sent, token)) == "claim_window_closed"
    await post.restart(post.routers[0])
    fallen = await post.until(sent, "queued")
    assert fallen["effective_delivery_mode"] == "background_fallback"
    assert await post.types(sent) == ["accepted", "fell_back"]
    assert code_of(await post.live_claim(sent, token)) == "claim_window_closed"


async def test_of_two_routers_one_killed_every_window_closes_once_and_in_time(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    async with post.sending(agent, 40, "live", claim_window_s=1) as sent:
        pass
    await post.until(next(iter(sent.values())), "queued")
    post.kill(post.routers[0])
    for each in sent.values():
        fallen = await post.until(each, "queued")
        late = datetime.fromisoformat(fallen["updated_at"]) - datetime.fromisoformat(each["deadline_at"])
        assert late.total_seconds() < 2
        assert await post.types(each) == ["accepted", "fell_back"]
    await post.assert_whole(sent.values())


# --- the monitor ---------------------------------------------------------------------------------------------------


async def test_a_monitor_killed_between_push_and_claim_leaves_the_offers_to_their_window(
    post: Programs, tmp_path: Path
) -> None:
    agent = await post.agent("live", "bg")
    monitor = await post.start_monitor(agent, handler=HANGS_ONCE.replace('"1"', '"never"'))
    session = await attached(post, agent)
    wish: Json = {"claim_window_s": 2, "metadata": {"note": str(tmp_path / "note")}}
    falls = await post.send(agent, "live", **wish)
    ends = await post.send(agent, "live", live_fallback_mode="none", **wish)
    await offer_of(session, falls)
    await offer_of(session, ends)
    post.kill(monitor)
    assert (await post.until(ends, "live_unclaimed_no_fallback"))["reason"] == "claim_window_closed"
    await post.until(falls, "queued")
    await post.restart(monitor)
    assert (await post.until(falls, "delivered"))["delivery_route"] == "background_fallback"
    assert await post.types(falls) == ["accepted", "fell_back", "leased", "outcome_recorded"]
    await post.assert_whole([falls, ends])


async def test_what_a_killed_monitor_held_ends_at_its_deadlines_and_another_worker_takes_over(
    post: Programs, tmp_path: Path
) -> None:
    agent = await post.agent("live", "bg")
    monitor = await post.start_monitor(agent, handler=HANGS_ONCE)
    session = await attached(post, agent)
    claimed = await post.send(agent, "live")
    await claim(session, claimed)
    leased = await post.send(agent, "bg", metadata={"note": str(tmp_path / "note")})
    child = await running_child(tmp_path / "note")
    post.kill(monitor)
    await met(lambda: not is_running(child), timeout_s=2)
    assert (await post.until(leased, "queued"))["reason"] == "lease_expired"
    assert (await post.until(claimed, "outcome_missing"))["reason"] == "outcome_deadline_passed"
    with anyio.fail_after(PATIENCE_S):
        while (answer := await post.lease(leased, "another")).status_code == 409:
            assert code_of(answer) == "not_due"
    assert answer.json()["lease"]["number"] == 2
    assert code_of(await post.report(leased, lease=1, result="late")) == "stale_lease"
    assert (await post.report(leased, lease=2)).status_code == 200
    assert (await post.types(leased)).count("outcome_recorded") == 1
    await post.assert_whole([claimed, leased])


async def test_a_monitor_killed_while_its_child_runs_starts_it_again_under_the_next_lease(
    post: Programs, tmp_path: Path
) -> None:
    agent = await post.agent("bg")
    monitor = await post.start_monitor(agent, handler=HANGS_ONCE)
    sent = await post.send(agent, metadata={"note": str(tmp_path / "note")})
    child = await running_child(tmp_path / "note")
    await post.restart(monitor)
    assert not is_running(child)
    ended = await post.until(sent, "delivered")
    assert ended["outcome"]["result"]["result"] == "2"
    assert await post.types(sent) == ["accepted", "leased", "attempt_failed", "leased", "outcome_recorded"]
    await post.assert_whole([sent])


async def test_an_outcome_written_while_the_monitor_is_dead_is_posted_by_the_next_one(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    monitor = await post.start_monitor(agent)
    session = await attached(post, agent)
    sent = await post.send(agent, "live")
    await claim(session, sent)
    post.kill(monitor)
    session.outcome(sent["execution_id"], success=True, result="in time")
    await post.restart(monitor)
    ended = await post.until(sent, "delivered")
    assert (ended["delivery_route"], ended["outcome"]["result"]) == ("live", "in time")
    assert await post.types(sent) == ["accepted", "claimed", "outcome_recorded"]


# --- everything ----------------------------------------------------------------------------------------------------


async def test_after_everything_was_killed_at_once_what_was_acknowledged_is_there_and_moves_on(post: Programs) -> None:
    agent = await post.agent("live", "bg")
    await post.attach(agent)
    async with post.sending(agent, 80, "live", at_once=8, claim_window_s=1) as acknowledged:
        await met(lambda: len(acknowledged) >= 30)
        for server in (post.nats, post.redis):
            server.kill()
        for program in post.programs:
            program.kill()
        for program in post.programs:
            await program.gone()
        await post.heal()
    for sent in acknowledged.values():
        await post.until(sent, "queued")
    listed = [view["id"] async for view in post.pages("/v1/executions", "executions", agent=agent["id"])]
    assert sorted(listed) == sorted(sent["id"] for sent in acknowledged.values())
    await post.assert_whole(acknowledged.values())
