"""Guards over HTTP, on real servers: loops end, what is refused is not stored, and an operator can look and reset."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx
import pytest

from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, expect, running_rig
from tests.refusals import nothing_stored

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


@pytest.fixture
async def plain(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    """With the limits as they are by default."""
    async with running_rig(nats_server, redis_server, prefix) as running:
        await with_agents(running)
        yield running


async def with_agents(rig: Rig) -> None:
    for slug in ("ann", "bob", "cat"):
        await rig.max.agent(slug, "inbox")


async def post(rig: Rig, sender: str | None, to: str, **more: Any) -> httpx.Response:
    headers = {FROM: sender} if sender else {}
    headers |= more.pop("headers", {})
    return await rig.max.call("POST", "/v1/messages", json={"to": to, "message": "x", **more}, headers=headers)


async def send(rig: Rig, sender: str | None, to: str, **more: Any) -> Json:
    return expect(201, await post(rig, sender, to, **more))


async def dry_run(rig: Rig, sender: str, to: str, **more: Any) -> Json:
    answer = await rig.max.call("POST", "/v1/route", json={"to": to, **more}, headers={FROM: sender})
    return expect(200, answer)


def answers(trace: list[Json]) -> dict[str, str]:
    return {each["gate"]: each["reason"] for each in trace if each["channel"] is None}


async def trips(rig: Rig) -> dict[str, float]:
    text = (await rig.nobody.call("GET", "/metrics")).text
    return {name: float(n) for name, n in re.findall(r'postroom_guard_trips_total{reason="(\w+)"} (\S+)', text)}


async def accepted_in_time(rig: Rig, sender: str, to: str, timeout_s: float = 10) -> Json:
    """The first message that is let through again."""
    with anyio.fail_after(timeout_s):
        while True:
            answer = await post(rig, sender, to)
            if answer.status_code == 201:
                body: Json = answer.json()
                return body
            await anyio.sleep(0.05)


class TestChains:
    async def test_two_agents_that_answer_each_other_for_ever_stop_at_the_hop_limit(self, plain: Rig) -> None:
        pair, told = ("ann", "bob"), await send(plain, "ann", "bob")
        for number in range(1, 17):
            told = await send(plain, pair[number % 2], pair[(number + 1) % 2], reply_to=told["id"])
        assert told["hop"] == 16

        async with nothing_stored(plain):
            refused = await post(plain, "bob", "ann", reply_to=told["id"])

        assert (refused.status_code, code_of(refused)) == (409, "hop_limit_exceeded")
        assert answers(refused.json()["error"]["trace"]) == {"hop_limit": "hop_limit_exceeded"}
        assert await trips(plain) == {"hop_limit_exceeded": 1}

    async def test_a_person_who_answers_lets_the_agents_go_on(self, rig: Rig) -> None:
        told = await send(rig, "ann", "bob")
        for sender, to in (("bob", "ann"), ("ann", "bob"), ("bob", "ann"), ("ann", "cat")):
            told = await send(rig, sender, to, reply_to=told["id"])
        assert (await post(rig, "cat", "ann", reply_to=told["id"])).status_code == 409

        told = await send(rig, None, "bob", reply_to=told["id"], headers={})

        assert (await dry_run(rig, "bob", "cat", reply_to=told["id"]))["trace"][0]["facts"]["hop"] == 1

    async def test_a_ring_of_agents_is_refused_in_its_third_round(self, plain: Rig) -> None:
        ring = ["ann", "bob", "cat"]
        told = await send(plain, "ann", "bob")
        for number in range(1, 7):
            told = await send(plain, ring[number % 3], ring[(number + 1) % 3], reply_to=told["id"])

        refused = await post(plain, "bob", "cat", reply_to=told["id"])

        assert (refused.status_code, code_of(refused)) == (409, "cycle_detected")

    async def test_an_automatic_reply_to_an_automatic_reply_is_refused(self, plain: Rig) -> None:
        first = await send(plain, "ann", "bob")
        automatic = await send(plain, "bob", "ann", reply_to=first["id"], auto_reply=True)

        refused = await post(plain, "ann", "bob", reply_to=automatic["id"], auto_reply=True)

        assert (refused.status_code, code_of(refused)) == (409, "auto_reply_to_auto_reply")
        assert (await post(plain, "ann", "bob", reply_to=automatic["id"])).status_code == 201


class TestBudgets:
    async def test_a_pair_that_used_its_budget_up_is_refused_and_others_are_not(self, rig: Rig) -> None:
        sent = [await send(rig, "ann", "bob") for _ in range(3)]
        assert [each["trace"][0]["facts"]["remaining"] for each in sent] == [2, 1, 0]

        async with nothing_stored(rig):
            refused = await post(rig, "ann", "bob")

        assert (refused.status_code, code_of(refused)) == (429, "pair_budget_exhausted")
        assert int(refused.headers["retry-after"]) == 1
        assert refused.json()["error"]["trace"][0]["gate"] == "pair_budget"
        await send(rig, "ann", "cat")
        await send(rig, None, "bob")

    async def test_a_thread_that_used_its_budget_up_is_refused(self, rig: Rig) -> None:
        first = await send(rig, None, "bob")
        for _ in range(5):
            await send(rig, None, "bob", reply_to=first["id"])

        refused = await post(rig, None, "bob", reply_to=first["id"])

        assert (refused.status_code, code_of(refused)) == (429, "thread_budget_exhausted")

    async def test_after_its_cool_down_one_message_is_let_through_and_closes_the_guard(self, rig: Rig) -> None:
        for _ in range(3):
            await send(rig, "ann", "bob")
        assert (await post(rig, "ann", "bob")).status_code == 429
        [guard] = (await rig.max.get("/v1/guards"))["guards"]
        assert (guard["gate"], guard["reason"]) == ("pair_budget", "pair_budget_exhausted")

        probe = await accepted_in_time(rig, "ann", "bob")

        assert probe["trace"][0]["facts"]["probe"] is True
        assert (await rig.max.get("/v1/guards"))["guards"] == []

    async def test_a_refused_message_spends_none_of_its_budgets(self, rig: Rig) -> None:
        first = await send(rig, None, "bob")
        for _ in range(5):
            await send(rig, None, "bob", reply_to=first["id"])
        for _ in range(4):
            assert code_of(await post(rig, "ann", "bob", reply_to=first["id"])) == "thread_budget_exhausted"
        # Nor does one the gates refuse.
        for _ in range(4):
            assert code_of(await post(rig, "ann", "bob", delivery_mode="bg")) == "capability_not_declared"

        assert (await send(rig, "ann", "bob"))["trace"][0]["facts"]["remaining"] == 2

    async def test_a_repetition_of_what_was_accepted_is_answered_behind_a_closed_guard(self, rig: Rig) -> None:
        key = {"Idempotency-Key": "k-1"}
        first = await send(rig, "ann", "bob", headers=key)
        for _ in range(2):
            await send(rig, "ann", "bob")

        again = expect(200, await post(rig, "ann", "bob", headers=key))

        assert (again["id"], again["replayed"]) == (first["id"], True)
        assert (await post(rig, "ann", "bob", headers={"Idempotency-Key": "k-2"})).status_code == 429

    async def test_an_agents_own_rate_is_refused_with_the_word_clients_know(
        self, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
    ) -> None:
        async with with_rate(nats_server, redis_server, prefix) as rig:
            await with_agents(rig)
            await send(rig, "ann", "bob")
            await send(rig, "ann", "cat")
            refused = await post(rig, "ann", "bob")
            assert (refused.status_code, code_of(refused)) == (429, "rate_limit_exceeded")
            await send(rig, "bob", "ann")
            assert (await rig.max.get("/v1/guards"))["guards"] == []

    async def test_a_scheduled_message_keeps_the_guards_answers(self, rig: Rig) -> None:
        sent = await send(rig, "ann", "bob", send_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
        assert sent["state"] == "scheduled"
        assert [each["gate"] for each in sent["trace"]] == ["pair_budget"]


def with_rate(nats: NatsEndpoint, redis: RedisEndpoint, prefix: str) -> AbstractAsyncContextManager[Rig]:
    rate: dict[str, Any] = {"rate_limit_per_agent_per_s": 0.02, "rate_limit_burst_s": 100}
    return running_rig(nats, redis, prefix, rate_limits="on", **rate)


class TestDryRun:
    async def test_a_dry_run_shows_the_guards_and_spends_nothing(self, rig: Rig) -> None:
        for _ in range(9):
            foretold = await dry_run(rig, "ann", "bob")
            assert foretold["trace"][0]["facts"]["remaining"] == 2
        for _ in range(3):
            await send(rig, "ann", "bob")

        refused = await dry_run(rig, "ann", "bob")

        assert (refused["state"], refused["reason"]) == ("rejected", "pair_budget_exhausted")
        # Looking does not open it.
        assert (await rig.max.get("/v1/guards"))["guards"] == []


class TestReset:
    async def test_a_reset_closes_what_it_names_and_nothing_else(self, rig: Rig) -> None:
        for to in ("bob", "cat"):
            for _ in range(4):
                await post(rig, "ann", to)
        assert len((await rig.max.get("/v1/guards"))["guards"]) == 2

        done = await rig.max.post("/v1/guards/reset", {"sender": "ann", "recipient": "bob"})

        assert done == {"reset": 1}
        assert (await send(rig, "ann", "bob"))["trace"][0]["facts"]["remaining"] == 2
        assert (await post(rig, "ann", "cat")).status_code == 429

    async def test_a_reset_of_a_thread_lets_it_go_on(self, rig: Rig) -> None:
        first = await send(rig, None, "bob")
        for _ in range(6):
            await post(rig, None, "bob", reply_to=first["id"])
        assert await rig.max.post("/v1/guards/reset", {"thread": first["id"]}) == {"reset": 1}
        await send(rig, None, "bob", reply_to=first["id"])

    async def test_guards_are_their_owners_business_and_an_administrators(self, rig: Rig) -> None:
        for _ in range(4):
            await post(rig, "ann", "bob")

        assert (await rig.eve.get("/v1/guards"))["guards"] == []
        assert (await rig.eve.call("GET", "/v1/guards?owner=max")).status_code == 403
        assert len((await rig.admin.get("/v1/guards", owner="max"))["guards"]) == 1
        assert (await rig.eve.call("POST", "/v1/guards/reset", json={"sender": "ann@max"})).status_code == 404
        assert await rig.admin.post("/v1/guards/reset", {"sender": "ann@max"}) == {"reset": 1}

    async def test_a_reset_that_names_nothing_is_refused(self, rig: Rig) -> None:
        assert code_of(await rig.max.call("POST", "/v1/guards/reset", json={})) == "required"
        assert code_of(await rig.max.call("POST", "/v1/guards/reset", json={"thread": "x"})) == "invalid_format"


async def test_without_redis_messages_pass_and_say_that_nobody_counted(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix, guard_pair_per_min=1) as rig:
        await with_agents(rig)
        own_redis.kill()
        for _ in range(3):
            sent = await send(rig, "ann", "bob")
            assert answers(sent["trace"])["pair_budget"] == "budget_unknown"
        assert (await rig.max.call("GET", "/v1/guards")).status_code == 503


async def test_many_messages_at_once_spend_exactly_what_there_is(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, guard_pair_per_min=20) as rig:
        await with_agents(rig)
        statuses: list[int] = []

        async def one() -> None:
            statuses.append((await post(rig, "ann", "bob")).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(one)

        assert statuses.count(201) == 20
        assert statuses.count(429) == 180
