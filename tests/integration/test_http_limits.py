"""Rate limits over HTTP, on real servers: what a key may do, what its answers say, and what happens without Redis."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, code_of, running_rig
from tests.refusals import assert_refused, nothing_stored

SLOW: dict[str, Any] = {"rate_limit_per_key_per_s": 0.5, "rate_limit_burst_s": 20}
"""Ten at once, and then one every two seconds."""


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, rate_limits="on", **SLOW) as running:
        yield running


async def until_refused(rig: Rig, bound: int = 40) -> httpx.Response:
    for _ in range(bound):
        answer = await rig.max.call("GET", "/v1/auth/me")
        if answer.status_code == 429:
            return answer
    raise AssertionError(f"{bound} requests were let through")


async def metric(rig: Rig, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", (await rig.nobody.call("GET", "/metrics")).text, re.MULTILINE)
    return float(found[1]) if found else 0


async def test_every_answer_says_how_the_key_stands(rig: Rig) -> None:
    first = await rig.max.call("GET", "/v1/auth/me")
    second = await rig.max.call("POST", "/v1/messages", json={"to": "nobody", "message": "x"})

    assert (first.status_code, second.status_code) == (200, 404)
    assert first.headers["ratelimit-policy"] == '"key";q=10;w=20'
    assert re.fullmatch(r'"key";r=9;t=\d+', first.headers["ratelimit"])
    assert re.fullmatch(r'"key";r=8;t=\d+', second.headers["ratelimit"])
    assert (second.headers["x-ratelimit-limit"], second.headers["x-ratelimit-remaining"]) == ("10", "8")
    assert 0 < int(second.headers["x-ratelimit-reset"]) - time.time() < 25


async def test_a_key_that_calls_too_fast_is_refused_before_anything_is_stored(rig: Rig) -> None:
    await rig.max.agent("helper", "inbox")
    refused = await until_refused(rig)

    assert_refused(refused, 429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert refused.json()["error"]["retry_after_s"] <= 2
    assert refused.headers["x-ratelimit-remaining"] == "0"
    async with nothing_stored(rig):
        sent = await rig.max.call("POST", "/v1/messages", json={"to": "helper", "message": "x"})
        assert (sent.status_code, code_of(sent)) == (429, "rate_limit_exceeded")


async def test_a_refused_request_costs_nothing(rig: Rig) -> None:
    await until_refused(rig)
    for _ in range(50):
        await rig.max.call("GET", "/v1/auth/me")

    with anyio.fail_after(5):
        while (await rig.max.call("GET", "/v1/auth/me")).status_code == 429:
            await anyio.sleep(0.05)


async def test_one_key_does_not_slow_another_and_health_is_never_limited(rig: Rig) -> None:
    await until_refused(rig)

    assert (await rig.eve.call("GET", "/v1/auth/me")).status_code == 200
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        answer = await rig.max.call("GET", path)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_two_gateways_share_a_bucket(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, rate_limits="on", **SLOW) as other:
        passed = 0
        for gateway in (rig, other) * 10:
            answer = await gateway.http.get("/v1/auth/me", headers=rig.max.headers)
            passed += answer.status_code == 200
        # One token may come back while we ask.
        assert 10 <= passed <= 11


async def test_leases_spare_redis_and_hardly_exceed_the_bucket(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    fast: dict[str, Any] = {"rate_limit_per_key_per_s": 100, "rate_limit_burst_s": 1}
    async with running_rig(nats_server, redis_server, prefix, rate_limits="on", **fast) as rig:
        started, statuses = time.monotonic(), [0] * 0

        async def one() -> None:
            statuses.append((await rig.max.call("GET", "/v1/auth/me")).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(300):
                group.start_soon(one)

        most = 100 + 100 * (time.monotonic() - started) + 10
        assert 100 <= statuses.count(200) <= most
        assert set(statuses) == {200, 429} or most >= 300


async def test_without_redis_requests_pass_and_are_counted(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix, rate_limits="on", **SLOW) as rig:
        await rig.max.agent("helper", "inbox")
        own_redis.kill()
        for _ in range(30):
            sent = await rig.max.call("POST", "/v1/messages", json={"to": "helper", "message": "x"})
            assert sent.status_code == 201
            assert "ratelimit" not in sent.headers

        assert await metric(rig, "postroom_rate_limit_unchecked_total") >= 30


async def test_requests_without_a_valid_key_are_limited_by_address_whatever_headers_say(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, rate_limits="on", rate_limit_failures_per_min=5) as rig:
        for number in range(5):
            answer = await rig.nobody.call("GET", "/v1/auth/me", headers={"X-Forwarded-For": f"192.0.2.{number}"})
            assert answer.status_code == 401
        for path, method in (("/v1/auth/me", "GET"), ("/v1/messages", "POST")):
            refused = await rig.nobody.call(method, path, headers={"X-Forwarded-For": "192.0.2.99"})
            assert_refused(refused, 429, "rate_limit_exceeded")
            assert int(refused.headers["retry-after"]) <= 12
        # Whoever has a key is not held responsible for others behind the same address.
        assert (await rig.max.call("GET", "/v1/auth/me")).status_code == 200


async def test_switched_off_nothing_is_limited(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(
        nats_server, redis_server, prefix, rate_limits="off", rate_limit_failures_per_min=1, **SLOW
    ) as rig:
        for _ in range(30):
            answer = await rig.max.call("GET", "/v1/auth/me")
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers
            assert (await rig.nobody.call("GET", "/v1/auth/me")).status_code == 401
