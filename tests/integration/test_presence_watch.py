"""Presence events on a real log, a real directory and a real Redis: each transition told once, whoever sees it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from contracts.directory import LiveSessions, agent_key, live_key
from contracts.errors import Unavailable
from contracts.tenant_events import EventType, StoredEvent, TenantEvent
from gateway.ports import Write
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.event_stream import EventStream
from infra.presence_store import GIVEN_FOR
from tests.installation import Installation, installation
from tests.presence_rig import (
    listen_for,
    running,
    told,
    transitions,
    until,
    until_told,
    watch_of,
    worker_session,
    write_sessions,
)


@pytest.fixture
async def house(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        await built.beats.renew_door()
        yield built


async def test_an_agent_is_told_online_with_its_first_session_and_offline_with_the_end_of_its_last(
    house: Installation,
) -> None:
    agent = await house.agent()
    async with running(watch_of(house)):
        [session] = await house.attach(agent)
        await until_told(house, agent, "online")
        await write_sessions(house, agent, replace(session, detached_at=house.clock.now()))
        await until_told(house, agent, "online", "offline")

    first, second = await told(house, agent, EventType.AGENT_PRESENCE)
    assert (first.data["from"], first.data["to"]) == ("offline", "online")
    assert first.data["sessions"] == {"connected": 1, "overdue": 0}
    assert second.data["sessions"] == {"connected": 0, "overdue": 0}
    assert first.attributes["subject"] == agent.id


async def test_silence_is_told_as_stale_and_a_beat_as_online_again(house: Installation) -> None:
    agent = await house.agent()
    async with running(watch_of(house)):
        [session] = await house.attach(agent)
        await until_told(house, agent, "online")
        await listen_for(house, 115)
        assert await transitions(house, agent) == ["online"]
        await listen_for(house, 10)
        await until_told(house, agent, "online", "stale")
        await house.beats.beat({session.id: house.clock.now()})
        await listen_for(house, 2, beating=[session])
        await until_told(house, agent, "online", "stale", "online")


async def test_a_session_past_its_deadline_is_noted_and_told_once_by_two_routers(house: Installation) -> None:
    agent = await house.agent()
    async with running(watch_of(house), watch_of(house)):
        session = await worker_session(house, agent)
        await until_told(house, agent, "online")
        await listen_for(house, 70)
        await until_told(house, agent, "online", "stale")
        await listen_for(house, 30)
        await until_told(house, agent, "online", "stale", "offline")
        await listen_for(house, 30)

    found = await house.directory.get(live_key(agent.id), LiveSessions, fresh=True)
    assert found is not None
    [noted] = found.record.sessions
    [event] = await told(house, agent, EventType.SESSION_STALE)
    assert noted.stale_at is not None
    assert event.attributes["id"] == f"evt_{session.id}_stale"
    assert await transitions(house, agent) == ["online", "stale", "offline"]


async def test_an_agent_that_waits_less_is_looked_at_anew(house: Installation) -> None:
    agent = await house.agent(heartbeat_age_sec=3_600)
    async with running(watch_of(house)):
        await house.attach(agent)
        await until_told(house, agent, "online")
        found = await house.directory.get(agent_key(agent.id), type(agent), fresh=True)
        assert found is not None
        changed = replace(agent, heartbeat_age_sec=30)
        await house.directory.transact([Write(key=agent_key(agent.id), record=changed, expected_seq=found.seq)])
        await listen_for(house, 40)
        await until_told(house, agent, "online", "stale")


async def test_an_emptied_redis_tells_nothing_and_goes_on_telling(house: Installation) -> None:
    agent = await house.agent()
    async with running(watch_of(house)):
        [session] = await house.attach(agent)
        await until_told(house, agent, "online")
        await empty(house)
        await house.beats.renew_door()
        await listen_for(house, 60)
        assert await transitions(house, agent) == ["online"]
        await write_sessions(house, agent, replace(session, detached_at=house.clock.now()))
        await until_told(house, agent, "online", "offline")


async def test_agents_nobody_touches_are_watched_again_after_redis_was_emptied(house: Installation) -> None:
    agent = await house.agent()
    async with running(watch_of(house)):
        await house.attach(agent)
        await until_told(house, agent, "online")
        await empty(house)
        await house.beats.renew_door()
        await listen_for(house, 130)
        await until_told(house, agent, "online", "stale")


async def test_time_in_which_nobody_could_beat_makes_nobody_stale(house: Installation) -> None:
    agent = await house.agent()
    async with running(watch_of(house)):
        [session] = await house.attach(agent)
        await until_told(house, agent, "online")
        house.clock.move(hours=1)
        await house.beats.renew_door()
        await listen_for(house, 60)
        await write_sessions(house, agent, replace(session, detached_at=house.clock.now()))
        await until_told(house, agent, "online", "offline")


class Failing(EventStream):
    """A log whose next append fails: before it was stored, or with its answer lost."""

    def __init__(self, house: Installation, *, is_stored: bool) -> None:
        super().__init__(house.broker, house.names)
        self._is_stored = is_stored
        self.failures = 1

    async def publish_behind(self, event: TenantEvent, after: int) -> None:
        if self.failures:
            self.failures -= 1
            if self._is_stored:
                await super().publish_behind(event, after)
            raise Unavailable("accept_unknown", "no answer came")
        await super().publish_behind(event, after)


@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_look_that_failed_is_taken_up_again_and_tells_nothing_twice(
    house: Installation, is_stored: bool
) -> None:
    agent = await house.agent()
    failing = Failing(house, is_stored=is_stored)
    async with running(watch_of(house, log=failing)):
        [session] = await house.attach(agent)
        await until(lambda: failing.failures == 0)
        await listen_for(house, GIVEN_FOR.total_seconds() + 1, beating=[session])
        await until_told(house, agent, "online")
        await write_sessions(house, agent, replace(session, detached_at=house.clock.now()))
        await until_told(house, agent, "online", "offline")


async def test_a_router_that_died_between_noting_and_telling_leaves_it_to_the_next(house: Installation) -> None:
    agent = await house.agent()
    session = await worker_session(house, agent)
    async with running(watch_of(house)):
        await until_told(house, agent, "online")
        await listen_for(house, 70)
        await until_told(house, agent, "online", "stale")
    failing = Failing(house, is_stored=False)
    async with running(watch_of(house, log=failing)):
        await listen_for(house, 30)
        await until(lambda: failing.failures == 0)
    async with running(watch_of(house)):
        await listen_for(house, GIVEN_FOR.total_seconds() + 1)
        await until_told(house, agent, "online", "stale", "offline")

    events: list[StoredEvent] = await told(house, agent, EventType.SESSION_STALE)
    assert [each.data["session_id"] for each in events] == [session.id]


async def test_a_beat_makes_nobody_due(house: Installation) -> None:
    agent = await house.agent()
    watch = watch_of(house)
    async with running(watch):
        [session] = await house.attach(agent)
        await until_told(house, agent, "online")
    key = house.redis.key("presence:due")
    before = await house.redis.command("ZRANGE", key, 0, -1, "WITHSCORES")
    await listen_for(house, 30, beating=[session])

    assert before
    assert await house.redis.command("ZRANGE", key, 0, -1, "WITHSCORES") == before


async def empty(house: Installation) -> None:
    """What FLUSHALL does to this installation alone."""
    keys = await house.redis.command("KEYS", f"{house.redis.prefix}*")
    await house.redis.command("DEL", *keys)
