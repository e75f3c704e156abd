"""Who has to be looked at, in a real Redis: given to one router at a time, put off while nothing changes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from infra.beats import RedisBeats
from infra.embedded import RedisEndpoint
from infra.presence_store import GIVEN_FOR, RedisPresence
from infra.redis_connection import RedisConnection
from router.presence_ports import PresenceChange, PresencePlace, WatchedSession
from tests.installation import MovableClock
from tests.patient_redis import patient_redis

AGENT = "agent_receiver0000"


@pytest.fixture
async def redis(redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[RedisConnection]:
    connection = patient_redis(redis_server.url, prefix)
    yield connection
    await connection.close()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def beats(redis: RedisConnection, clock: MovableClock) -> RedisBeats:
    beats = RedisBeats(redis, clock)
    await beats.renew_door()
    return beats


@pytest.fixture
def due(redis: RedisConnection, clock: MovableClock) -> RedisPresence:
    return RedisPresence(redis, clock)


def watched(clock: MovableClock, *, is_overdue: bool = False) -> WatchedSession:
    return WatchedSession(
        id="sess_main",
        attached_at=clock.now(),
        overdue=timedelta(seconds=60),
        terminal=timedelta(seconds=90),
        is_overdue=is_overdue,
    )


def change(seq: int, *, is_of_sessions: bool = True) -> PresenceChange:
    return PresenceChange(agent_id=AGENT, seq=seq, is_of_sessions=is_of_sessions)


async def taken(due: RedisPresence) -> list[str]:
    return [look.agent_id for look in (await due.take(10)).looks]


async def listen_for(clock: MovableClock, beats: RedisBeats, seconds: int) -> None:
    for _ in range(seconds // 5):
        clock.move(seconds=5)
        await beats.renew_door()


async def test_an_agent_is_given_to_one_router_and_to_the_next_when_that_one_is_gone(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    await due.look_at([AGENT])
    assert await taken(due) == [AGENT]
    assert await taken(due) == []
    await listen_for(clock, beats, int(GIVEN_FOR.total_seconds()))
    assert await taken(due) == [AGENT]


async def test_whose_look_came_to_nothing_is_given_out_again_though_it_stands_as_before(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    await due.look_at([AGENT])
    [look] = (await due.take(10)).looks
    await due.settle(look, 3, [watched(clock)])
    await due.look_at([AGENT])
    assert await taken(due) == [AGENT]
    await beats.beat({"sess_main": clock.now()})
    await listen_for(clock, beats, 10)
    assert await taken(due) == [AGENT]


async def test_time_in_which_nobody_listened_makes_nobody_due(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    await due.look_at([AGENT])
    [look] = (await due.take(10)).looks
    await due.settle(look, 3, [watched(clock)])
    clock.move(hours=1)
    await beats.renew_door()
    assert await taken(due) == []
    await listen_for(clock, beats, 65)
    assert await taken(due) == [AGENT]


async def test_a_look_that_was_outrun_settles_nothing(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    await due.look_at([AGENT])
    [first] = (await due.take(10)).looks
    await due.look_at([AGENT])
    assert not await due.settle(first, 3, [watched(clock)])
    [second] = (await due.take(10)).looks
    assert not await due.settle(first, 3, [watched(clock)])
    assert await due.settle(second, 4, [watched(clock)])
    assert await taken(due) == []


async def test_whoever_beats_is_put_off_and_whoever_is_silent_is_due(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    await due.look_at([AGENT])
    [look] = (await due.take(10)).looks
    await due.settle(look, 3, [watched(clock)])
    for _ in range(4):
        await listen_for(clock, beats, 30)
        await beats.beat({"sess_main": clock.now()})
        assert await taken(due) == []
    await listen_for(clock, beats, 55)
    assert await taken(due) == []
    await listen_for(clock, beats, 10)
    assert await taken(due) == [AGENT]


async def test_an_overdue_session_that_beats_again_is_seen_within_seconds(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    session = watched(clock, is_overdue=True)
    await due.look_at([AGENT])
    [look] = (await due.take(10)).looks
    await listen_for(clock, beats, 65)
    [look] = (await due.take(10)).looks
    await due.settle(look, 3, [session])
    assert await taken(due) == []
    await beats.beat({"sess_main": clock.now()})
    clock.move(seconds=2)
    await beats.renew_door()
    assert await taken(due) == [AGENT]


async def test_a_change_that_was_seen_already_makes_nobody_due(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    place = await due.begin(9)
    await due.note(PresencePlace(era=place.era, seq=3), [change(3)])
    [look] = (await due.take(10)).looks
    await due.settle(look, 5, [watched(clock)])

    await due.note(PresencePlace(era=place.era, seq=5), [change(5)])
    assert await taken(due) == []
    await due.note(PresencePlace(era=place.era, seq=6), [change(6)])
    assert await taken(due) == [AGENT]


async def test_an_agents_own_record_matters_only_while_it_is_watched(
    due: RedisPresence, beats: RedisBeats, clock: MovableClock
) -> None:
    place = await due.begin(9)
    await due.note(place, [change(3, is_of_sessions=False)])
    assert await taken(due) == []
    await due.note(place, [change(4)])
    [look] = (await due.take(10)).looks
    await due.settle(look, 4, [watched(clock)])
    await due.note(place, [change(5, is_of_sessions=False)])
    assert await taken(due) == [AGENT]


async def test_the_place_is_kept_until_the_store_is_emptied_or_the_directory_is_another(
    due: RedisPresence, redis: RedisConnection
) -> None:
    first = await due.begin(9)
    assert first.seq == 0
    assert await due.note(PresencePlace(era=first.era, seq=7), [change(7)])
    assert await due.begin(9) == PresencePlace(era=first.era, seq=7)
    # Another follower, which is behind, does not set it back.
    assert await due.note(PresencePlace(era=first.era, seq=5), [change(5)])
    assert (await due.begin(9)).seq == 7
    assert (await due.begin(6)).seq == 0

    await redis.command("DEL", redis.key("presence:place"))
    assert not await due.note(PresencePlace(era=first.era, seq=8), [change(8)])
    assert (await due.begin(9)).era != first.era
