"""Echoes over HTTP and the broker: who is asked, how often, which answers count, and what is told of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest
from starlette.types import Message

from contracts.errors import Unavailable
from contracts.freshness import asked_name, echo_name
from contracts.ids import echo_id
from contracts.records import Echo
from gateway.metrics import Metrics
from gateway.parts import Rooms
from infra.codec import decode_echo
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, expect, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


@asynccontextmanager
async def asked(rig: Rig, *agent_ids: str) -> AsyncIterator[list[Echo]]:
    """The echoes asked of these agents while inside."""
    heard: list[Echo] = []
    broker = rig.gateway.broker
    subscriptions = [
        await broker.subscribe(f"live.{agent_id}.>", lambda message: heard.append(decode_echo(message.data)))
        for agent_id in agent_ids
    ]
    await broker.echo()
    yield heard
    await broker.echo()
    for subscription in subscriptions:
        await broker.unsubscribe(subscription)


@asynccontextmanager
async def answered(rig: Rig, agent_id: str, through: Caller) -> AsyncIterator[None]:
    """Each echo asked of the agent is answered, as its monitor would."""
    send, receive = anyio.create_memory_object_stream[Echo](100)
    broker = rig.gateway.broker
    subscription = await broker.subscribe(f"live.{agent_id}.>", lambda one: send.send_nowait(decode_echo(one.data)))

    async def answer() -> None:
        async for echo in receive:
            await through.post("/v1/hosts/echo", said(echo))

    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        await broker.echo()
        yield
        tasks.cancel_scope.cancel()
    await broker.unsubscribe(subscription)


def said(*echoes: Echo) -> Json:
    return {"echoes": [{"agent_id": each.agent_id, "echo_id": each.echo_id} for each in echoes]}


def wish(*agents: str) -> Json:
    return {"echoes": [{"agent_id": each} for each in agents]}


async def note(rig: Rig, agent: Json, *, asked_s: float, answered_s: float | None = None) -> None:
    """As if an echo had been asked, and answered, so many seconds ago."""
    now = rig.gateway.parts.clock.now()
    seen = {asked_name(agent["id"]): now - timedelta(seconds=asked_s)}
    if answered_s is not None:
        seen[echo_name(agent["id"])] = now - timedelta(seconds=answered_s)
    await rig.gateway.parts.beats.beat(seen)


async def asked_age_s(rig: Rig, agent: Json) -> float | None:
    [asked_at] = await rig.gateway.parts.beats.last_seen([asked_name(agent["id"])])
    return None if asked_at is None else (rig.gateway.parts.clock.now() - asked_at).total_seconds()


async def counted(rig: Rig, what: str) -> float:
    metrics = (await rig.nobody.call("GET", "/metrics")).text
    line = f'postroom_echoes_total{{what="{what}"}} '
    return sum(float(each.removeprefix(line)) for each in metrics.splitlines() if each.startswith(line))


# --- who is asked, and when ----------------------------------------------------------------------------------------


async def test_an_attach_asks_and_the_next_beat_asks_again_only_what_was_not_answered(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    async with asked(rig, agent["id"]) as heard:
        await rig.max.session("worker", echoes=True)
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
        await rig.gateway.broker.echo()
        assert len(heard) == 2

        assert await rig.max.post("/v1/hosts/echo", said(heard[-1])) == {
            "echoes": [{"agent_id": agent["id"], "asked": False, "counted": True}]
        }
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
    assert len(heard) == 2
    assert all(each.agent_id == agent["id"] for each in heard)


@pytest.mark.parametrize(("last_s", "asks"), [(19, []), (21, ["host"]), (39, ["host"]), (41, ["host", "session"])])
async def test_a_host_asks_after_a_period_and_a_session_leaves_it_another(
    rig: Rig, last_s: float, asks: list[str]
) -> None:
    agent = await rig.max.agent("worker", "live")
    await rig.max.session("worker", echoes=True)
    found = []
    for beat, path, body in (
        ("host", "/v1/hosts/heartbeat", {"host_id": "h", "agents": [], "echoes": ["worker"]}),
        ("session", "/v1/agents/worker/live-sessions/main/heartbeat", {}),
    ):
        await note(rig, agent, asked_s=last_s, answered_s=last_s)
        async with asked(rig, agent["id"]) as heard:
            await rig.max.post(path, body)
        found += [beat] * len(heard)
    assert found == asks


async def test_one_beat_of_a_host_asks_for_all_its_agents_and_one_call_answers_them(rig: Rig) -> None:
    agents = [await rig.max.agent(f"worker-{number}", "live") for number in range(40)]
    ids = [each["id"] for each in agents]
    foreign = await rig.eve.agent("hers", "live")
    async with asked(rig, *ids, foreign["id"]) as heard:
        named = [*(each["slug"] for each in agents), ids[0], foreign["id"], "nobody"]
        beat = await rig.max.post("/v1/hosts/heartbeat", {"host_id": "h", "agents": [], "echoes": named})
    assert beat == {"seen": []}
    assert sorted(each.agent_id for each in heard) == sorted(ids)

    answer = await rig.max.post("/v1/hosts/echo", said(*heard))

    assert sorted(each["agent_id"] for each in answer["echoes"]) == sorted(ids)
    assert all(each["counted"] for each in answer["echoes"])
    assert None not in await rig.gateway.parts.beats.last_seen([echo_name(each) for each in ids])


async def test_plain_sessions_are_never_asked(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    async with asked(rig, agent["id"]) as heard:
        attached = await rig.max.session("worker")
        await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
    assert attached["echoes"] is False
    assert heard == []


async def test_what_is_still_unanswered_is_asked_again_and_keeps_its_time(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    await note(rig, agent, asked_s=60)
    async with asked(rig, agent["id"]) as heard:
        answer = await rig.max.post("/v1/hosts/echo", wish("worker"))
        await rig.max.post("/v1/hosts/heartbeat", {"host_id": "h", "agents": [], "echoes": ["worker"]})
    assert answer == {"echoes": [{"agent_id": agent["id"], "asked": True, "counted": False}]}
    assert len(heard) == 2
    assert (await asked_age_s(rig, agent) or 0) >= 60


async def test_a_session_that_attaches_begins_with_an_echo_of_its_own(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    await note(rig, agent, asked_s=60)
    await rig.max.session("worker", echoes=True)
    assert (await asked_age_s(rig, agent) or 99) < 30


async def never() -> Message:
    """The client does not hang up."""
    await anyio.sleep_forever()
    raise AssertionError


class Mute:
    """A broker that takes nothing."""

    async def ask(self, question: Echo) -> bool:
        return False


async def test_nothing_is_noted_as_asked_that_was_not_said(rig: Rig) -> None:
    parts, agent = rig.gateway.parts, await rig.max.agent("worker", "live")
    rooms = Rooms(replace(parts, echo_pushes=Mute(), metrics=Metrics()))
    await rooms.echoes.begin(agent["id"])
    assert list(await rooms.echoes.ask([agent["id"]])) == []
    with pytest.raises(Unavailable):
        await rooms.echo_trials.reach(agent["id"], 1, never)
    assert await asked_age_s(rig, agent) is None


# --- which answers count -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [11, -11, 10**9])
async def test_an_answer_out_of_its_time_does_not_count(rig: Rig, late_s: int) -> None:
    agent = await rig.max.agent("worker", "live")
    asked_at = rig.gateway.parts.clock.now() - timedelta(seconds=late_s)

    answer = await rig.max.post(
        "/v1/hosts/echo", said(Echo(agent_id="worker", echo_id=echo_id(asked_at, b"\x00" * 10)))
    )

    assert answer["echoes"][0]["counted"] is False
    assert list(await rig.gateway.parts.beats.last_seen([echo_name(agent["id"])])) == [None]
    assert await counted(rig, "late") == 1


async def test_an_answer_of_a_stranger_or_to_nothing_does_not_count(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    fresh = echo_id(rig.gateway.parts.clock.now(), b"\x00" * 10)
    echo = Echo(agent_id=agent["id"], echo_id=fresh)

    foreign = await rig.eve.post("/v1/hosts/echo", said(echo, Echo(agent_id="nobody", echo_id=fresh)))
    odd = await rig.max.call("POST", "/v1/hosts/echo", json=said(Echo(agent_id="worker", echo_id="echo_1")))
    none = await rig.max.call("POST", "/v1/hosts/echo", json={"echoes": []})

    assert foreign == {"echoes": []}
    assert (odd.status_code, none.status_code) == (422, 422)
    assert list(await rig.gateway.parts.beats.last_seen([echo_name(agent["id"])])) == [None]


# --- on demand -----------------------------------------------------------------------------------------------------


async def test_an_echo_on_demand_tells_how_long_it_took(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    await rig.max.session("worker", echoes=True)
    async with answered(rig, agent["id"], rig.max):
        found = await rig.max.post("/v1/agents/worker/echo", {"timeout_s": 10})
    assert 0 < found.pop("round_trip_ms") < 10_000
    assert found == {"agent_id": agent["id"], "reached": True, "timeout_s": 10, "echoing": 1}


async def test_an_echo_on_demand_that_nobody_answers_says_so_in_its_time(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    await note(rig, agent, asked_s=5, answered_s=4)
    found = await rig.max.post("/v1/agents/worker/echo", {"timeout_s": 0.3})
    assert found == {
        "agent_id": agent["id"],
        "reached": False,
        "round_trip_ms": None,
        "timeout_s": 0.3,
        "echoing": 0,
    }


async def test_an_echo_on_demand_may_be_answered_to_another_gateway(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    await rig.max.session("worker", echoes=True)
    async with running_rig(nats_server, redis_server, prefix) as other:
        there = Caller(http=other.http, key=rig.max.key, owner="max")
        await note(rig, agent, asked_s=60)
        async with answered(rig, agent["id"], there):
            found = await rig.max.post("/v1/agents/worker/echo", {"timeout_s": 10})
        assert found["reached"]
        for caller in (rig.max, there):
            presence = await caller.get("/v1/agents/worker/presence")
            assert presence["push_path"]["reachable"] is True
        await note(rig, agent, asked_s=60, answered_s=70)
        for caller in (rig.max, there):
            with anyio.fail_after(10):
                while (await routed(caller)) != ("background_fallback", "unreachable"):
                    await anyio.sleep(0.02)


async def routed(caller: Caller) -> tuple[str, str]:
    found = await caller.post("/v1/route", {"to": "worker", "delivery_mode": "live"})
    [reason] = [each["reason"] for each in found["trace"] if each["gate"] == "push_path"]
    return found["effective_delivery_mode"], reason


async def test_whose_agent_it_is_not_cannot_try_it(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    refused = await rig.eve.call("POST", f"/v1/agents/{agent['id']}/echo")
    assert (refused.status_code, code_of(refused)) == (404, "agent_not_found")
    for timeout_s in (0, 31, "NaN"):
        odd = await rig.max.call("POST", "/v1/agents/worker/echo", json={"timeout_s": timeout_s})
        assert odd.status_code == 422
    expect(200, await rig.max.call("POST", "/v1/agents/worker/echo", json={"timeout_s": 0.1}))


# --- what is counted -----------------------------------------------------------------------------------------------


async def test_asked_answered_and_overdue_echoes_are_counted_and_timed(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live")
    async with asked(rig, agent["id"]) as heard:
        await rig.max.session("worker", echoes=True)
        await rig.gateway.broker.echo()
        await rig.max.post("/v1/hosts/echo", said(heard[0]))
    assert (await counted(rig, "asked"), await counted(rig, "answered")) == (1, 1)
    assert "postroom_echo_seconds_count 1.0" in (await rig.nobody.call("GET", "/metrics")).text

    await note(rig, agent, asked_s=9, answered_s=20)
    await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
    assert await counted(rig, "overdue") == 0
    await note(rig, agent, asked_s=11, answered_s=20)
    await rig.max.post("/v1/agents/worker/live-sessions/main/heartbeat")
    assert (await counted(rig, "asked"), await counted(rig, "overdue")) == (3, 1)


async def test_how_often_is_asked_and_how_long_is_waited_are_settings(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, echo_every_s=300, echo_timeout_s=60) as rig:
        agent = await rig.max.agent("worker", "live", "bg")
        await rig.max.session("worker", echoes=True)
        await note(rig, agent, asked_s=50, answered_s=100)
        assert await routed(rig.max) == ("live", "ok")
        assert (await rig.max.get("/v1/agents/worker/presence"))["push_path"]["reachable"] is True

        await note(rig, agent, asked_s=290, answered_s=290)
        async with asked(rig, agent["id"]) as heard:
            await rig.max.post("/v1/hosts/heartbeat", {"host_id": "h", "agents": [], "echoes": ["worker"]})
        assert heard == []
