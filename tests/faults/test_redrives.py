"""A redrive over the death of the router that works at it: every dead letter once, and live traffic beside it."""

import anyio

from tests.program_caller import Json, assert_sound
from tests.programs import Program, Programs

DEAD = 300
RATE_PER_S = 60
PATIENCE_S = 60
TO_NOBODY: Json = {"live_fallback_mode": "none", "claim_window_s": 600}


async def redriven(post: Programs, agent: Json) -> Json:
    """A redrive of all dead letters of an agent, asked for once the lists know them all."""
    with anyio.fail_after(PATIENCE_S):
        while (await post.get("/v1/dead-letters", agent=agent["id"], count_only=True))["count"] < DEAD:
            await anyio.sleep(0.05)
    body = {"filter": {"agent": agent["id"]}, "rate_per_s": RATE_PER_S}
    answer = await post.call("POST", "/v1/dead-letters/redrive", body)
    assert answer.status_code == 202, answer.text
    made: Json = answer.json()
    return made


async def at_work(post: Programs, redrive: Json) -> Program:
    """The router that took the redrive."""
    line = f'"redrive_id":"{redrive["id"]}"'
    with anyio.fail_after(PATIENCE_S):
        while True:
            for router in post.routers:
                told = [each.replace(" ", "") for each in router.log_path.read_text().splitlines()]
                if any('"redrive_taken"' in each and line in each for each in told):
                    return router
            await anyio.sleep(0.05)


async def until_done(post: Programs, redrive: Json, done: int) -> Json:
    with anyio.fail_after(PATIENCE_S):
        while True:
            seen = await post.get(f"/v1/redrives/{redrive['id']}")
            if seen["done"] >= done:
                return seen
            await anyio.sleep(0.05)


async def test_a_router_killed_in_the_middle_of_a_redrive_costs_no_message_and_repeats_none(post: Programs) -> None:
    agent, desk = await post.agent("live", heartbeat_age_sec=3600), await post.agent("inbox")
    async with post.sending(agent, DEAD, "live", **TO_NOBODY) as sent:
        pass
    assert {each["state"] for each in sent.values()} == {"live_unclaimed_no_session"}
    await post.attach(agent)
    redrive = await redriven(post, agent)
    async with post.sending(desk, 150, "inbox", at_once=2) as live:
        worker = await at_work(post, redrive)
        await until_done(post, redrive, DEAD // 4)
        post.kill(worker)
        await worker.gone()
    seen = await until_done(post, redrive, DEAD)
    assert (seen["redriven"], seen["moved_on"], seen["refused"]) == (DEAD, 0, 0)
    assert who_was_at_work(post, redrive) == {router.name for router in post.routers}
    books = await post.assert_whole([*sent.values(), *live.values()])
    for history in books.of(agent).values():
        replays = [each.event for each in history.events if each.event.type == "replayed"]
        assert [each.by for each in replays] == [f"redrive:{redrive['id']}"]
    assert len(books.of(desk)) == len(live) == 150
    assert_sound(post.exchanges)


def who_was_at_work(post: Programs, redrive: Json) -> set[str]:
    """The names of all routers that took it, one after the other."""
    return {
        router.name
        for router in post.routers
        if any(redrive["id"] in line and "redrive_taken" in line for line in router.log_path.read_text().splitlines())
    }
