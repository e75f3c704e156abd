"""Monitors' heartbeats from the broker into Redis: noted for attached sessions, by one router of several."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from uuid import uuid4

import anyio
import pytest
from prometheus_client import CollectorRegistry

from contracts.freshness import Beat
from contracts.heartbeats import Pulse, beat_proof, render_beats
from contracts.subjects import Names, heartbeat
from infra.beats import RedisBeats
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.heartbeat_feed import follow_heartbeats
from infra.monitor_sessions import MonitorSessions
from infra.nats_connection import Broker
from infra.redis_connection import RedisConnection
from router.heartbeat_collector import HeartbeatCollector, HeartbeatMetrics
from router.ports import HeldSessions
from tests.builders import session
from tests.installation import MovableClock
from tests.open_door import open_door
from tests.patient_redis import patient_redis

SECRET = b"s" * 32
DEADLINE_S = 20
SESSIONS = [f"sess_01kaj{number:021d}" for number in range(1_500)]


class Rig:
    """Redis under a prefix of its own, and a monitor whose id nobody else has."""

    def __init__(self, nats_server: NatsEndpoint, redis: RedisConnection, prefix: str) -> None:
        self.clock, self.redis, self.names = MovableClock(), redis, Names(prefix=prefix)
        self.beats, self.notes = RedisBeats(redis, self.clock), MonitorSessions(redis)
        self.monitor_id = f"mon-{uuid4().hex[:12]}"
        self._nats = nats_server

    @asynccontextmanager
    async def router(self) -> AsyncIterator[CollectorRegistry]:
        """A router's collector, subscribed; what it counts."""
        registry = CollectorRegistry()
        collector = HeartbeatCollector(
            notes=self.notes, secret=SECRET, clock=self.clock, metrics=HeartbeatMetrics(registry)
        )
        async with Broker.open(self._nats.url, name="test-router") as broker, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(follow_heartbeats, broker, self.names, collector.hear))
            tasks.start_soon(collector.run)
            await broker.echo()
            yield registry
            tasks.cancel_scope.cancel()

    async def beat(self, *sessions: str, age_s: float = 0.0) -> None:
        """Say it as a monitor does, as the EDGE user."""
        pulses = [
            Pulse(session_id=each, proof=beat_proof(SECRET, each, self.monitor_id), age_s=age_s) for each in sessions
        ]
        async with Broker.open(self._nats.edge_url, name=f"monitor {self.monitor_id}", replies=False) as broker:
            for message in render_beats(pulses):
                await broker.publish(heartbeat(self.monitor_id), message)

    async def attach(self, *sessions: str, age_s: float = 600) -> None:
        long_ago = self.clock.now().timestamp() - age_s
        words = [word for each in sessions for word in (round(long_ago * 1000), each)]
        await self.redis.command("ZADD", self.redis.key("beats"), *words)

    async def age_s(self, session: str) -> float | None:
        [seen_at] = await self.beats.last_seen([session])
        return None if seen_at is None else (self.clock.now() - seen_at).total_seconds()

    async def silence_s(self, session: str) -> float:
        """How long it counts as silent, where it is known at all."""
        signs = await self.beats.signs([session])
        seen_at = signs.heard[session]
        assert seen_at is not None
        return signs.silence(seen_at).total_seconds()

    async def until_back(self, session: str) -> None:
        with anyio.fail_after(DEADLINE_S):
            while await self.silence_s(session) >= 7_200:
                await anyio.sleep(0.02)

    async def until(self, session: str, holds: Callable[[float], bool]) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not ((age_s := await self.age_s(session)) is not None and holds(age_s)):
                await anyio.sleep(0.02)


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    redis = patient_redis(redis_server.url, prefix)
    await open_door(redis)
    yield Rig(nats_server, redis, prefix)
    await redis.close()


async def test_a_beat_is_noted_with_its_age_for_every_session_in_it(rig: Rig) -> None:
    await rig.attach(*SESSIONS)
    async with rig.router():
        await rig.beat(*SESSIONS, age_s=42)
        for session in (SESSIONS[0], SESSIONS[999], SESSIONS[-1]):
            await rig.until(session, lambda age_s: 42 <= age_s < 62)


async def test_a_beat_brings_nothing_back_that_was_detached(rig: Rig) -> None:
    detached, attached = SESSIONS[:2]
    await rig.attach(attached)
    async with rig.router():
        await rig.beat(detached, attached)
        await rig.until(attached, lambda age_s: age_s < 60)
    assert await rig.age_s(detached) is None


async def test_each_message_reaches_one_of_several_routers(rig: Rig) -> None:
    await rig.attach(*SESSIONS[:50])
    async with rig.router() as one, rig.router() as other:
        for session in SESSIONS[:50]:
            await rig.beat(session)
        for session in SESSIONS[:50]:
            await rig.until(session, lambda age_s: age_s < 60)
        noted = [each.get_sample_value("postroom_session_beats_noted_total") or 0 for each in (one, other)]
    assert sum(noted) == 50
    assert min(noted) > 0


async def test_all_sessions_of_a_monitor_end_at_once_and_come_back_with_a_beat(rig: Rig) -> None:
    await rig.attach(*SESSIONS, age_s=1)
    async with rig.router():
        await rig.beat(*SESSIONS)
        with anyio.fail_after(DEADLINE_S):
            while len(await rig.notes.end(rig.monitor_id)) < len(SESSIONS):
                await anyio.sleep(0.05)
        assert [await rig.silence_s(each) for each in (SESSIONS[0], SESSIONS[-1])] == [7_200, 7_200]
        # What was really heard is still known.
        assert (await rig.age_s(SESSIONS[0]) or 0) < 60
        assert await rig.age_s(SESSIONS[0]) is not None
        await rig.beat(*SESSIONS)
        await rig.until(SESSIONS[-1], lambda age_s: age_s < 60)
        await rig.until_back(SESSIONS[-1])


async def test_a_session_that_is_gone_comes_back_with_a_beat_over_http_however_soon(rig: Rig) -> None:
    now = rig.clock.now()
    await rig.attach(SESSIONS[0], age_s=0)
    await rig.notes.note({}, [HeldSessions(monitor_id="mac-1", part=0, session_ids=SESSIONS[:2])])
    assert await rig.notes.end("mac-1") == SESSIONS[:2]
    assert await rig.silence_s(SESSIONS[0]) == 7_200
    assert await rig.age_s(SESSIONS[1]) is None
    live = session(SESSIONS[0].removeprefix("sess_"), attached_at=now)
    [fact] = (await rig.beats.reachability("agent_receiver0000", [live])).sessions
    assert fact.is_gone
    assert fact.last_seen_at is not None
    assert now - fact.last_seen_at < timedelta(seconds=60)
    beat = Beat(session_id=SESSIONS[0], seen_at=now, attached_at=now, terminal=timedelta(days=1))
    assert await rig.beats.beat_sessions([beat]) != [None]
    assert await rig.silence_s(SESSIONS[0]) < 60


async def test_a_session_that_is_gone_is_forgotten_after_a_day_and_not_before(rig: Rig) -> None:
    await rig.attach(SESSIONS[0], age_s=3_600)
    await rig.attach(SESSIONS[1], age_s=90_000)
    await rig.notes.note({}, [HeldSessions(monitor_id="mac-1", part=0, session_ids=SESSIONS[:2])])
    await rig.notes.end("mac-1")
    await rig.beats.beat({"somebody": rig.clock.now()})
    assert await rig.silence_s(SESSIONS[0]) == 7_200
    assert await rig.age_s(SESSIONS[1]) is None


async def test_ending_a_monitor_nobody_heard_of_ends_nothing(rig: Rig) -> None:
    assert await rig.notes.end("nobody") == []


async def test_who_holds_which_sessions_is_forgotten_in_time(rig: Rig) -> None:
    await rig.attach(SESSIONS[0])
    async with rig.router():
        await rig.beat(SESSIONS[0])
        await rig.until(SESSIONS[0], lambda age_s: age_s < 60)
    assert 0 < await rig.redis.command("TTL", rig.redis.key(f"monitor:{rig.monitor_id}")) <= 300
