"""Real routers and cues whose instants come while they are killed: every instant is one message, none is lost."""

from datetime import UTC, datetime, timedelta

import anyio

from tests.program_caller import Json
from tests.programs import Programs

N_CUES = 24
EVERY = timedelta(seconds=0.25)
PATIENCE_S = 40


async def cues_of(post: Programs, agent: Json, first: datetime) -> list[Json]:
    """Cues of one instant each, a quarter of a second apart."""
    made = []
    for number in range(N_CUES):
        at = (first + number * EVERY).isoformat()
        body = {"name": f"{agent['slug']}-{number}", "to": agent["id"], "message": at, "schedule": {"at": at}}
        made.append(await post.post("/v1/cues", body))
    return made


async def ended(post: Programs, cues: list[Json]) -> list[Json]:
    """The cues once each has had its instant."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            found = [await post.get(f"/v1/cues/{each['id']}") for each in cues]
            if all(each["status"] == "ended" for each in found):
                return found
            await anyio.sleep(0.1)


async def messages(post: Programs, agent: Json, n: int) -> list[str]:
    """The texts of the messages an agent got, once there are `n`: read from the ledger itself."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            histories = (await post.books()).of(agent).values()
            if len(histories) >= n:
                return sorted(each.message.body for each in histories)
            await anyio.sleep(0.2)


async def until_passed(instant: datetime) -> None:
    await anyio.sleep(max(0.0, (instant - datetime.now(UTC)).total_seconds()))


async def test_routers_killed_around_the_instants_of_cues_fire_each_once(post: Programs) -> None:
    agent = await post.agent("inbox")
    first = datetime.now(UTC) + timedelta(seconds=4)
    cues = await cues_of(post, agent, first)
    await until_passed(first + 6 * EVERY)
    await post.restart(post.routers[0])
    await until_passed(first + 14 * EVERY)
    await post.restart(post.routers[1])
    found = await ended(post, cues)

    assert [(each["run_count"], each["missed_count"]) for each in found] == [(1, 0)] * N_CUES
    assert await messages(post, agent, N_CUES) == sorted(each["message"] for each in cues)


async def test_instants_that_pass_while_every_router_is_dead_are_fired_late_and_once(post: Programs) -> None:
    agent = await post.agent("inbox")
    first = datetime.now(UTC) + timedelta(seconds=3)
    cues = await cues_of(post, agent, first)
    for router in post.routers:
        post.kill(router)
        await router.gone()
    await until_passed(first + N_CUES * EVERY)
    for router in post.routers:
        await router.start()
    found = await ended(post, cues)

    assert [(each["run_count"], each["missed_count"]) for each in found] == [(1, 0)] * N_CUES
    assert await messages(post, agent, N_CUES) == sorted(each["message"] for each in cues)


async def test_cues_survive_the_broker_and_everything_else(post: Programs) -> None:
    agent = await post.agent("inbox")
    first = datetime.now(UTC) + timedelta(seconds=5)
    cues = await cues_of(post, agent, first)
    await until_passed(first)
    await post.crash_broker()
    for program in post.programs:
        program.kill()
    for program in post.programs:
        await program.gone()
    await post.heal()
    found = await ended(post, cues)

    assert [(each["run_count"], each["missed_count"]) for each in found] == [(1, 0)] * N_CUES
    assert await messages(post, agent, N_CUES) == sorted(each["message"] for each in cues)
