"""Whatever registers, beats, leaves, falls silent or cannot be heard: what is said of sessions keeps its promises.

Redis is real, with the scripts that take beats and note outages; the directory is a list. Time passes only when a test
says so, and beside it runs the simplest account there is: the seconds in which somebody listened.
"""

from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.freshness import OUTAGES_KEPT, Signs, beat_of, terminal_after
from contracts.records import LiveSession
from contracts.words import AgentStatus, PresenceWord, SessionStatus
from gateway.session_changes import Sessions, disconnect, enter
from infra.beats import LONGEST_GAP, RedisBeats
from infra.embedded import RedisEndpoint
from infra.redis_connection import RedisConnection
from router.sessions import MAX_CONNECTED, overdue_after, presence, status_of
from tests.builders import NOW, agent, session
from tests.patient_redis import patient_redis

on_real_valkey = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RENEWED_EVERY_S: Final = 2
ACTIVE, INACTIVE = agent(heartbeat_age_sec=40), agent(heartbeat_age_sec=40, status=AgentStatus.INACTIVE)
numbers = count(1)

STEPS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(["live", "sse", "brief"])),
    st.tuples(st.just("beat"), st.integers(0, 40)),
    st.tuples(st.just("beat_all"), st.none()),
    st.tuples(st.just("leave"), st.integers(0, 40)),
    st.tuples(st.just("crash_loop"), st.integers(1, 50)),
    st.tuples(st.just("listen"), st.integers(1, 60)),
    st.tuples(st.just("lapse"), st.integers(1, 10)),
    st.tuples(st.just("outage"), st.integers(11, 300)),
)


class HandClock:
    def __init__(self) -> None:
        self.instant = NOW

    def now(self) -> datetime:
        return self.instant


class World:
    """One agent's sessions, and what was promised about them."""

    def __init__(self, redis: RedisConnection) -> None:
        self.clock = HandClock()
        self.beats = RedisBeats(redis, self.clock)
        self.sessions: Sessions = ()
        self.marks = [NOW]
        self.promised: dict[str, datetime] = {}
        self.final: dict[str, SessionStatus] = {}
        self.made = 0

    async def signs(self) -> Signs:
        return await self.beats.signs([each.id for each in self.sessions])

    async def register(self, kind: str) -> None:
        self.made += 1
        own: dict[str, Any] = {"overdue_s": 6, "terminal_s": 12} if kind == "brief" else {}
        new = session(f"s{self.made:05}", attached_at=self.clock.now(), transport=kind, **own)
        self.sessions = enter(self.sessions, new, await self.signs()).sessions
        await self.beats.beat({new.id: new.attached_at})
        self.promised[new.id] = new.attached_at

    async def beat(self, number: int) -> None:
        if self.sessions:
            await self._beat([self.sessions[number % len(self.sessions)]])

    async def beat_all(self, _: None) -> None:
        await self._beat([each for each in self.sessions if each.is_attached])

    async def _beat(self, beating: list[LiveSession]) -> None:
        signs = await self.signs()
        # What has ended on record is refused before anybody asks the script.
        attached = [each for each in beating if each.is_attached]
        answers = await self.beats.beat_sessions([beat_of(each, self.clock.now()) for each in attached])
        for each, seen_at in zip(attached, answers, strict=True):
            assert (seen_at is None) is (status_of(each, signs) is not SessionStatus.CONNECTED)
            if seen_at is not None:
                assert self.clock.now() - seen_at < timedelta(seconds=1)
                self.promised[each.id] = seen_at

    async def leave(self, number: int) -> None:
        if self.sessions:
            gone = self.sessions[number % len(self.sessions)]
            self.sessions, _ = disconnect(self.sessions, gone.id, self.clock.now(), await self.signs())

    async def crash_loop(self, times: int) -> None:
        signs = await self.signs()
        healthy = {each.id for each in self.sessions if _has_beaten(each, signs)}
        for _ in range(times):
            await self.register("sse")
        if len(healthy) < MAX_CONNECTED:
            assert healthy <= {each.id for each in self.sessions if each.is_attached}

    async def listen(self, seconds: int) -> None:
        for _ in range(0, seconds, RENEWED_EVERY_S):
            self.clock.instant += timedelta(seconds=RENEWED_EVERY_S)
            await self._renew()

    async def lapse(self, seconds: int) -> None:
        self.clock.instant += timedelta(seconds=seconds)

    async def outage(self, seconds: int) -> None:
        self.clock.instant += timedelta(seconds=seconds)
        await self._renew()

    async def _renew(self) -> None:
        await self.beats.renew_door()
        self.marks.append(self.clock.now())

    async def look(self) -> None:
        """Every promise is kept, whoever looks and whenever."""
        signs = await self.signs()
        for each in self.sessions:
            status = status_of(each, signs)
            assert self.final.get(each.id, status) is status, "what was final has changed"
            if status is not SessionStatus.CONNECTED:
                self.final[each.id] = status
            if self.is_accounted_for(each):
                listened = self.listened_since(self.promised[each.id])
                assert status is not SessionStatus.STALE or listened > terminal_after(each), "stale too early"
                assert status is not SessionStatus.CONNECTED or signs.silence(signs.seen_at(each)) == listened
        word = presence(ACTIVE, self.sessions, signs)
        assert word is presence(INACTIVE, self.sessions, signs)
        assert word is self.expected() or not all(map(self.is_accounted_for, self.sessions))
        assert sum(each.is_attached for each in self.sessions) <= MAX_CONNECTED

    def expected(self) -> PresenceWord:
        connected = [each for each in self.sessions if each.id not in self.final]
        if not connected:
            return PresenceWord.OFFLINE
        silences = [(self.listened_since(self.promised[each.id]), overdue_after(each, ACTIVE)) for each in connected]
        return PresenceWord.ONLINE if any(silence <= limit for silence, limit in silences) else PresenceWord.STALE

    def listened_since(self, since: datetime) -> timedelta:
        """How long somebody has listened since then, up to the last mark."""
        spans = [(max(a, since), b) for a, b in pairwise(self.marks) if b > since and b - a <= LONGEST_GAP]
        return sum((b - a for a, b in spans), timedelta(0))

    def is_accounted_for(self, each: LiveSession) -> bool:
        """Whether all the outages since its last beat are remembered."""
        since = self.promised[each.id]
        return sum(b > since and b - a > LONGEST_GAP for a, b in pairwise(self.marks)) <= OUTAGES_KEPT


def _has_beaten(each: LiveSession, signs: Signs) -> bool:
    heard_at = signs.heard[each.id]
    is_connected = status_of(each, signs) is SessionStatus.CONNECTED
    return is_connected and heard_at is not None and heard_at > each.attached_at


@on_real_valkey
@given(steps=st.lists(STEPS, min_size=1, max_size=40))
async def test_what_is_said_of_sessions_keeps_its_promises(
    redis_server: RedisEndpoint, prefix: str, steps: list[tuple[str, Any]]
) -> None:
    redis = patient_redis(redis_server.url, f"{prefix}{next(numbers)}")
    try:
        world = World(redis)
        await world.beats.beat({"door": NOW})
        for name, argument in steps:
            await getattr(world, name)(argument)
            await world.look()
    finally:
        await redis.close()
