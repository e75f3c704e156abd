"""The budget of lookups in vain over HTTP, on real servers: who names too many agents it cannot reach has to wait."""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from gateway.ports import Bucket, Tokens
from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from infra.rate_limits import RedisRateLimits
from tests.http_rig import Caller, Rig, running_rig
from tests.refusals import assert_refused, nothing_stored

FEW: dict[str, Any] = {"rate_limits": "on", "rate_limit_lookups_per_min": 6}
"""Six in vain at once, and then one every ten seconds."""


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, **FEW) as running:
        yield running


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the buckets Redis was asked about."""
    asked: list[str] = []
    take = RedisRateLimits.take

    async def noted(self: RedisRateLimits, name: str, bucket: Bucket, wanted: int) -> Tokens:
        asked.append(name)
        return await take(self, name, bucket, wanted)

    monkeypatch.setattr(RedisRateLimits, "take", noted)
    return asked


async def status_of(caller: Caller, to: str) -> int:
    return (await caller.call("POST", "/v1/messages", json={"to": to, "message": "x"})).status_code


async def exhaust(caller: Caller) -> None:
    statuses = [await status_of(caller, f"nobody-{number}") for number in range(7)]
    assert statuses == [404] * 6 + [429]


async def test_names_are_not_tried_out_by_the_thousand(rig: Rig) -> None:
    await rig.max.agent("helper")
    await exhaust(rig.eve)

    async with nothing_stored(rig):
        answers = [
            await rig.eve.call("POST", "/v1/messages", json={"to": "helper@max", "message": "x"}),
            await rig.eve.call("POST", "/v1/route", json={"to": "agent_000000000000"}),
            await rig.eve.call("GET", "/v1/agents/helper@max"),
            await rig.eve.call("GET", "/v1/agents/nobody/inbox"),
        ]

    for answer in answers:
        assert_refused(answer, 429, "lookup_budget_exhausted")
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert 0 < answer.json()["error"]["retry_after_s"] <= 10


async def test_beyond_its_budget_nobody_learns_which_names_are_open_to_it(rig: Rig) -> None:
    await rig.max.agent("helper", external_addressable=True)
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    assert await status_of(rig.eve, "helper@max") == 201
    await exhaust(rig.eve)

    async with nothing_stored(rig):
        assert await status_of(rig.eve, "helper@max") == 429


async def test_who_finds_what_it_looks_for_is_never_refused_and_nobody_is_asked(rig: Rig, questions: list[str]) -> None:
    await rig.eve.agent("own")
    await rig.max.agent("helper", external_addressable=True)
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)

    assert [await status_of(rig.eve, to) for to in ("own", "helper@max") * 10] == [201] * 20
    assert questions == []
    await exhaust(rig.eve)
    assert await status_of(rig.eve, "own") == 201
    assert (await rig.eve.call("GET", "/v1/agents/own")).status_code == 200
    assert questions == [f"lookups:{rig.eve.key_id}"] * 7


async def test_one_keys_lookups_are_not_held_against_another(rig: Rig) -> None:
    await exhaust(rig.eve)

    assert await status_of(rig.max, "nobody") == 404


async def test_two_gateways_share_the_budget(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, **FEW) as other:
        statuses = []
        for gateway in (rig, other) * 4:
            answer = await gateway.http.get("/v1/agents/nobody", headers=rig.eve.headers)
            statuses.append(answer.status_code)

    assert statuses == [404] * 6 + [429] * 2


async def test_the_budget_fills_again(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> None:
    quick = {**FEW, "rate_limit_lookups_per_min": 120}
    async with running_rig(nats_server, redis_server, prefix, **quick) as rig:
        started = time.monotonic()
        while await status_of(rig.eve, "nobody") == 404:
            assert time.monotonic() - started < 30

        with anyio.fail_after(10):
            while await status_of(rig.eve, "nobody") == 429:
                await anyio.sleep(0.05)


async def test_without_redis_a_name_that_is_not_there_is_just_not_found(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix, **FEW) as rig:
        own_redis.kill()
        assert {await status_of(rig.eve, f"nobody-{number}") for number in range(20)} == {404}


async def test_switched_off_everything_may_be_looked_for(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    for off in ({"rate_limits": "off"}, {"rate_limit_lookups_per_min": 0}):
        async with running_rig(nats_server, redis_server, prefix, **{**FEW, **off}) as rig:
            assert {await status_of(rig.eve, f"nobody-{number}") for number in range(20)} == {404}
