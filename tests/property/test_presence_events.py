"""Whatever beats, ends, falls silent or dies: what is told of an agent alternates, and is what it has become.

Redis is real, with the scripts that say who is due; the directory and the log are the few lines below. Two routers take
turns, and time passes only when a test says so.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from contracts.errors import Stale, Unavailable
from contracts.freshness import beat_of
from contracts.records import Agent, LiveSession
from contracts.tenant_events import EventType, StoredEvent, TenantEvent
from contracts.words import PresenceWord
from infra.beats import BEATS_KEY, RedisBeats
from infra.embedded import RedisEndpoint
from infra.monitor_sessions import SESSIONS_GONE
from infra.presence_store import GIVEN_FOR, RedisPresence
from infra.redis_connection import RedisConnection
from router.presence_metrics import PresenceMetrics
from router.presence_ports import PresenceChange, PresencePlace, SessionsHeld
from router.presence_watch import PresenceWatch
from router.sessions import presence
from tests.builders import NOW, agent, session
from tests.patient_redis import patient_redis

on_real_valkey = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHUNK_S: Final = 5.0
RECOVERY_S: Final = 20
"""Longer than anybody waits until he looks again whether an overdue session has beaten."""
numbers = count(1)

STEPS = st.one_of(
    st.tuples(st.just("attach"), st.booleans()),
    st.tuples(st.just("beat"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("gone"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(1, 20)),
    st.tuples(st.just("outage"), st.integers(11, 300)),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("die"), st.booleans()),
)


class HandClock:
    def __init__(self) -> None:
        self._now = NOW

    def now(self) -> datetime:
        return self._now

    def move(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Records:
    """One agent and its sessions, changed by compare-and-set."""

    def __init__(self, only: Agent) -> None:
        self.only = only
        self.held = SessionsHeld()

    async def agent(self, agent_id: str) -> Agent | None:
        return self.only

    async def sessions(self, agent_id: str) -> SessionsHeld:
        return self.held

    async def set_sessions(self, agent_id: str, sessions: Sequence[LiveSession], *, expected_seq: int) -> None:
        if expected_seq != self.held.seq:
            raise Stale("live", expected_seq)
        self.held = SessionsHeld(sessions=tuple(sessions), seq=expected_seq + 1)

    async def changes(self, after: int) -> AsyncGenerator[Sequence[PresenceChange], None]:
        if self.held.seq > after:
            yield [PresenceChange(agent_id=self.only.id, seq=self.held.seq, is_of_sessions=True)]

    async def last_seq(self) -> int:
        return self.held.seq


class Log:
    """The events told. `dying`: the next append fails, before or after it is stored."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.dying: bool | None = None

    async def newest(self, owner: str, agent_id: str, kind: EventType) -> StoredEvent | None:
        return next((each for each in reversed(self.events) if each.type == kind), None)

    async def publish_behind(self, event: TenantEvent, after: int) -> None:
        newest = await self.newest(event.owner, event.agent_id or "", event.type)
        if after != (newest.seq if newest else 0):
            raise Stale("log", after)
        is_stored, self.dying = self.dying, None
        if is_stored is not False:
            attributes = {"id": event.id, "type": event.type.value, "data": event.data}
            self.events.append(StoredEvent(seq=len(self.events) + 1, attributes=attributes))
        if is_stored is not None:
            raise Unavailable("accept_unknown", "the router died")

    def of(self, kind: EventType) -> list[StoredEvent]:
        return [each for each in self.events if each.type == kind]


class World:
    """The agent, its two routers, and everything that can happen to them."""

    def __init__(self, redis: RedisConnection) -> None:
        self.clock, self.log, self.redis = HandClock(), Log(), redis
        self.records = Records(agent(heartbeat_age_sec=30))
        self.beats = RedisBeats(redis, self.clock)
        self.due = RedisPresence(redis, self.clock)
        self.routers = [self._router(), self._router()]
        self.places: list[PresencePlace | None] = [None, None]
        self.turn = 0
        self.given_until = NOW
        self.made: list[LiveSession] = []

    def _router(self) -> PresenceWatch:
        return PresenceWatch(
            records=self.records,
            listening=RedisBeats(self.redis, self.clock),
            due=self.due,
            log=self.log,
            clock=self.clock,
            metrics=PresenceMetrics(CollectorRegistry()),
        )

    async def attach(self, is_live: bool) -> None:
        transport = "live" if is_live else "worker"
        name = f"s{len(self.made):05}"
        new = session(name, attached_at=self.clock.now(), transport=transport)
        self.made.append(new)
        await self._write((*self.records.held.sessions, new))
        await self.beats.beat({new.id: new.attached_at})

    async def beat(self, number: int) -> None:
        attached = [each for each in self.records.held.sessions if each.is_attached]
        if attached:
            await self.beats.beat_sessions([beat_of(attached[number % len(attached)], self.clock.now())])

    async def end(self, number: int) -> None:
        attached = [each for each in self.records.held.sessions if each.is_attached]
        if attached:
            gone = attached[number % len(attached)]
            now, rest = self.clock.now(), self.records.held.sessions
            await self._write(tuple(replace(each, detached_at=now) if each is gone else each for each in rest))
            await self.beats.forget([gone.id])

    async def gone(self, number: int) -> None:
        """The broker tells that a session's process is gone."""
        attached = [each for each in self.records.held.sessions if each.is_attached]
        if attached:
            await self.redis.run(SESSIONS_GONE, [self.redis.key(BEATS_KEY)], [attached[number % len(attached)].id])
            await self.due.look_at([self.records.only.id])

    async def wait(self, chunks: int) -> None:
        for _ in range(chunks):
            self.clock.move(CHUNK_S)
            await self.beats.renew_door()
            await self.look()

    async def outage(self, seconds: int) -> None:
        self.clock.move(seconds)
        await self.beats.renew_door()

    async def flush(self, _: None) -> None:
        keys = await self.redis.command("KEYS", f"{self.redis.prefix}*")
        await self.redis.command("DEL", *keys)
        await self.beats.renew_door()

    async def die(self, is_stored: bool) -> None:
        self.log.dying = is_stored

    async def look(self) -> None:
        """One of the routers reads what changed, and looks at whoever is due; then the told is what is computed."""
        self.turn = 1 - self.turn
        was_dying = self.log.dying is not None
        await self._follow(self.turn)
        for _ in range(3):
            await self.routers[self.turn].look()
        if was_dying and self.log.dying is None:
            self.given_until = self.clock.now() + GIVEN_FOR
        if self.clock.now() > self.given_until:
            assert (self.told(), await self.computed()) in ALLOWED

    async def _follow(self, router: int) -> None:
        for _ in range(2):
            place = self.places[router] or await self.due.begin(self.records.held.seq)
            changes = [each async for batch in self.records.changes(place.seq) for each in batch]
            is_same_era = await self.routers[router].note(place, changes)
            reached = changes[-1].seq if changes else place.seq
            self.places[router] = PresencePlace(era=place.era, seq=reached) if is_same_era else None

    async def _write(self, sessions: Sequence[LiveSession]) -> None:
        await self.records.set_sessions("", sessions, expected_seq=self.records.held.seq)

    def told(self) -> PresenceWord:
        events = self.log.of(EventType.AGENT_PRESENCE)
        return PresenceWord(events[-1].data["to"]) if events else PresenceWord.OFFLINE

    async def computed(self) -> PresenceWord:
        sessions = self.records.held.sessions
        signs = await self.beats.signs([each.id for each in sessions if each.is_attached])
        return presence(self.records.only, sessions, signs)


ALLOWED: Final = {(word, word) for word in PresenceWord} | {(PresenceWord.STALE, PresenceWord.ONLINE)}
"""(told, computed) after a look. That an overdue session has beaten again is seen a little later."""


@on_real_valkey
@given(steps=st.lists(STEPS, min_size=1, max_size=40))
async def test_what_is_told_of_an_agent_alternates_and_is_what_it_has_become(
    redis_server: RedisEndpoint, prefix: str, steps: list[tuple[str, int]]
) -> None:
    redis = patient_redis(redis_server.url, f"{prefix}{next(numbers)}")
    try:
        world = World(redis)
        await world.beats.renew_door()
        for name, argument in steps:
            await getattr(world, name)(argument)
            await world.look()
        world.log.dying = None
        await world.wait(1 + int(max(RECOVERY_S, GIVEN_FOR.total_seconds()) / CHUNK_S))

        assert world.told() is await world.computed()
        assert_alternating(world.log.of(EventType.AGENT_PRESENCE))
        assert_each_once(world)
    finally:
        await redis.close()


def assert_alternating(events: Sequence[StoredEvent]) -> None:
    assert all(each.data["from"] != each.data["to"] for each in events)
    assert all(before.data["to"] == after.data["from"] for before, after in pairwise(events))
    assert not events or events[0].data["from"] == "offline"


def assert_each_once(world: World) -> None:
    """No id twice, and of the stale sessions all."""
    ids = [each.attributes["id"] for each in world.log.events]
    stale = {each.id for each in world.records.held.sessions if each.stale_at}
    assert len(set(ids)) == len(ids)
    assert {each.data["session_id"] for each in world.log.of(EventType.SESSION_STALE)} == stale
