"""A guard that trips is told to both owners: once, however long the loop goes on, and never for what is healthy."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, expect, running_rig

FROM = "X-Postroom-From-Agent"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    limits: dict[str, Any] = {
        "guard_pair_per_min": 3,
        "guard_thread_per_h": 5,
        "guard_cool_down_s": 1,
        "guard_max_hops": 4,
    }
    async with running_rig(nats_server, redis_server, prefix, **limits) as running:
        await with_agents(running)
        yield running


async def with_agents(rig: Rig) -> None:
    """`ann` of eve, who may send to `bob` and `cat` of max, and they to her."""
    for slug in ("bob", "cat"):
        await rig.max.agent(slug, "inbox", external_addressable=True)
    await rig.eve.agent("ann", "inbox", external_addressable=True)
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    await rig.eve.post("/v1/grants", {"owner": "max"}, status=201)


async def post(caller: Caller, sender: str, to: str, **more: object) -> httpx.Response:
    return await caller.call("POST", "/v1/messages", json={"to": to, "message": "x", **more}, headers={FROM: sender})


async def trips(caller: Caller) -> list[Json]:
    found: list[Json] = (await caller.get("/v1/events", type="guard.tripped"))["events"]
    return found


async def dialogue(rig: Rig, hops: int) -> Json:
    """The last of so many answers that ann and bob gave each other."""
    sides = [(rig.eve, "ann", "bob@max"), (rig.max, "bob", "ann@eve")]
    told: Json = {}
    for number in range(hops + 1):
        caller, sender, to = sides[number % 2]
        answers = {"reply_to": told["id"]} if told else {}
        # The pair's budget is not what is looked at here.
        await rig.admin.post("/v1/guards/reset", {"sender": f"{sender}@{caller.owner}"})
        told = expect(201, await post(caller, sender, to, **answers))
    return told


async def test_a_pair_that_opens_is_told_to_both_owners_once(rig: Rig) -> None:
    statuses = [(await post(rig.eve, "ann", "bob@max")).status_code for _ in range(12)]

    [told], [mirrored] = await trips(rig.max), await trips(rig.eve)

    assert statuses == [201] * 3 + [429] * 9
    assert told["id"] == mirrored["id"]
    assert told["data"] == mirrored["data"]
    data = told["data"]
    assert (data["gate"], data["reason"]) == ("pair_budget", "pair_budget_exhausted")
    assert (data["sender_owner"], data["recipient_owner"]) == ("eve", "max")
    assert told["source"] == f"/agents/{data['recipient_agent_id']}"
    assert data["facts"] == {"limit": 3, "window_s": 60, "retry_after_s": 1}


async def test_a_guard_that_closed_and_opens_again_is_told_again(rig: Rig) -> None:
    for _ in range(4):
        await post(rig.eve, "ann", "bob@max")
    with anyio.fail_after(10):
        while (await post(rig.eve, "ann", "bob@max")).status_code != 201:
            await anyio.sleep(0.05)
        while len(await trips(rig.max)) < 2:
            await post(rig.eve, "ann", "bob@max")

    assert len({each["id"] for each in await trips(rig.max)}) == 2


async def test_an_answer_beyond_the_hop_limit_is_told_once_for_its_thread(rig: Rig) -> None:
    told = await dialogue(rig, 4)
    refused = [await post(rig.max, "bob", "ann@eve", reply_to=told["id"]) for _ in range(5)]

    [tripped] = await trips(rig.eve)

    assert {code_of(each) for each in refused} == {"hop_limit_exceeded"}
    assert (await trips(rig.max))[0]["id"] == tripped["id"]
    assert tripped["subject"] == tripped["data"]["thread_id"] == told["thread_id"]
    assert tripped["data"]["facts"] == {"hop": 5, "limit": 4}


async def test_automatic_replies_to_each_other_are_told_once(rig: Rig) -> None:
    first = expect(201, await post(rig.eve, "ann", "bob@max"))
    automatic = expect(201, await post(rig.max, "bob", "ann@eve", reply_to=first["id"], auto_reply=True))
    for _ in range(3):
        assert (await post(rig.eve, "ann", "bob@max", reply_to=automatic["id"], auto_reply=True)).status_code == 409

    assert [each["data"]["reason"] for each in await trips(rig.eve)] == ["auto_reply_to_auto_reply"]


async def test_a_loop_of_many_at_once_is_told_once(rig: Rig) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(post, rig.eve, "ann", "bob@max")

    assert len(await trips(rig.max)) == len(await trips(rig.eve)) == 1


async def test_within_one_owner_a_trip_is_told_once(rig: Rig) -> None:
    for _ in range(6):
        await post(rig.max, "bob", "cat")

    assert len(await trips(rig.max)) == 1
    assert await trips(rig.eve) == []


async def test_of_two_guards_used_up_at_once_each_is_told_when_it_refuses(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    limits: dict[str, Any] = {"guard_pair_per_min": 3, "guard_thread_per_h": 2}
    async with running_rig(nats_server, redis_server, prefix, **limits) as rig:
        await with_agents(rig)
        first = expect(201, await post(rig.max, "bob", "cat"))
        answers = [await post(rig.max, "bob", "cat", reply_to=first["id"]) for _ in range(4)]
        await rig.max.post("/v1/guards/reset", {"sender": "bob", "recipient": "cat"})
        answers.append(await post(rig.max, "bob", "cat", reply_to=first["id"]))

        assert [each.status_code for each in answers] == [201, 201, 429, 429, 429]
        assert [each["data"]["gate"] for each in await trips(rig.max)] == ["pair_budget", "thread_budget"]


async def test_what_is_accepted_asked_or_refused_by_other_gates_trips_nothing(rig: Rig) -> None:
    for _ in range(3):
        await post(rig.eve, "ann", "bob@max")
    for _ in range(2):
        body = {"to": "bob@max", "delivery_mode": "inbox"}
        await rig.eve.call("POST", "/v1/route", json=body, headers={FROM: "ann"})
        assert (await post(rig.eve, "ann", "cat@max", delivery_mode="bg")).status_code == 422

    assert await trips(rig.eve) == await trips(rig.max) == []


async def test_without_redis_a_loop_is_refused_and_untold_rather_than_told_without_end(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix, guard_max_hops=2) as rig:
        await with_agents(rig)
        told = await dialogue(rig, 2)
        own_redis.kill()
        for _ in range(3):
            assert code_of(await post(rig.max, "bob", "ann@eve", reply_to=told["id"])) == "hop_limit_exceeded"

        assert await trips(rig.max) == []
