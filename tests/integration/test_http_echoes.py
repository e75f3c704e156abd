"""Echoes over HTTP and the broker: who is asked, how often, and which answers count."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from contracts.freshness import asked_name, echo_name
from contracts.ids import echo_id
from contracts.records import Echo
from infra.codec import decode_echo
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, code_of, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


@asynccontextmanager
async def asked(rig: Rig, agent_id: str) -> AsyncIterator[list[Echo]]:
    """The echoes asked of an agent while inside."""
    heard: list[Echo] = []
    broker = rig.gateway.broker
    subscription = await broker.subscribe(f"live.{agent_id}.>", lambda message: heard.append(decode_echo(message.data)))
    await broker.echo()
    yield heard
    await broker.echo()
    await broker.unsubscribe(subscription)


async def test_an_attach_asks_and_the_next_beat_asks_again_only_what_was_not_answered(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    async with asked(rig, agent["id"]) as heard:
        await rig.max.session("worker", echoes=True)
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
        await rig.gateway.broker.echo()
        assert len(heard) == 2

        answer = {"agent_id": agent["id"], "echo_id": heard[-1].echo_id}
        assert await rig.max.post("/v1/hosts/echo", answer) == {
            "agent_id": agent["id"],
            "asked": False,
            "counted": True,
        }
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
    assert len(heard) == 2
    assert all(each.agent_id == agent["id"] for each in heard)


async def test_a_beat_asks_again_when_the_last_answered_echo_is_a_while_ago(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    await rig.max.session("worker", echoes=True)
    now = rig.gateway.parts.clock.now()
    long_ago = now - timedelta(seconds=21)
    await rig.gateway.parts.beats.beat({asked_name(agent["id"]): long_ago, echo_name(agent["id"]): long_ago})

    async with asked(rig, agent["id"]) as heard:
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")

    assert len(heard) == 1
    [asked_at] = await rig.gateway.parts.beats.last_seen([asked_name(agent["id"])])
    assert asked_at is not None
    assert asked_at >= now - timedelta(milliseconds=1)


async def test_plain_sessions_are_never_asked(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    async with asked(rig, agent["id"]) as heard:
        attached = await rig.max.session("worker")
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
    assert attached["echoes"] is False
    assert heard == []


async def test_an_echo_is_asked_on_demand(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    async with asked(rig, agent["id"]) as heard:
        answer = await rig.max.post("/v1/hosts/echo", {"agent_id": "worker"})
    assert answer == {"agent_id": agent["id"], "asked": True, "counted": False}
    assert len(heard) == 1


@pytest.mark.parametrize("late_s", [11, -11, 10**9])
async def test_an_answer_out_of_its_time_does_not_count(rig: Rig, late_s: int) -> None:
    agent = await rig.max.agent("worker", "live")
    asked_at = rig.gateway.parts.clock.now() - timedelta(seconds=late_s)

    answer = await rig.max.post("/v1/hosts/echo", {"agent_id": "worker", "echo_id": echo_id(asked_at, b"\x00" * 10)})

    assert answer["counted"] is False
    assert list(await rig.gateway.parts.beats.last_seen([echo_name(agent["id"])])) == [None]


async def test_an_answer_of_a_stranger_or_to_nothing_is_refused(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    fresh = echo_id(rig.gateway.parts.clock.now(), b"\x00" * 10)

    foreign = await rig.eve.call("POST", "/v1/hosts/echo", json={"agent_id": agent["id"], "echo_id": fresh})
    odd = await rig.max.call("POST", "/v1/hosts/echo", json={"agent_id": agent["id"], "echo_id": "echo_1"})

    assert (foreign.status_code, code_of(foreign)) == (404, "agent_not_found")
    assert odd.status_code == 422
    assert list(await rig.gateway.parts.beats.last_seen([echo_name(agent["id"])])) == [None]
