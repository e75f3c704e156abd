"""Signs of life by Redis' clock: programs whose own clocks are hours apart say the same of a session."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import Unavailable
from contracts.freshness import DOOR, NO_TIME, beat_of
from contracts.records import LiveSession
from infra.beats import RedisBeats
from infra.embedded import RedisEndpoint
from infra.redis_connection import RedisConnection
from infra.store_clock import StoreClock
from tests.builders import session
from tests.redis_rows import connected

HOUR = timedelta(hours=1)
A_MOMENT = timedelta(seconds=5)


class WrongClock:
    """A system's clock that is so much ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Program:
    """A gateway or a router with a clock of its own."""

    def __init__(self, connection: RedisConnection, ahead: timedelta = NO_TIME) -> None:
        self.clock = WrongClock(ahead)
        self.store_clock = StoreClock(connection, self.clock)
        self.beats = RedisBeats(connection, self.clock, self.store_clock)

    async def attach(self) -> LiveSession:
        attached = session("a", attached_at=self.clock.now(), transport="sse")
        await self.beats.beat({attached.id: attached.attached_at})
        return attached

    async def beat(self, attached: LiveSession) -> datetime | None:
        [seen_at] = await self.beats.beat_sessions([beat_of(attached, self.clock.now())])
        return seen_at

    async def silence(self, attached: LiveSession) -> timedelta:
        signs = await self.beats.signs([attached.id])
        return signs.silence(signs.seen_at(attached))


@pytest.fixture
async def connection(redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[RedisConnection]:
    async with connected(redis_server.url, prefix) as open_connection:
        await RedisBeats(open_connection, WrongClock(NO_TIME)).beat({DOOR: datetime.now(UTC) - A_MOMENT})
        yield open_connection


async def started(connection: RedisConnection, ahead: timedelta = NO_TIME) -> Program:
    program = Program(connection, ahead)
    await program.store_clock.ask()
    return program


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_a_session_that_beats_by_a_gateway_whose_clock_is_wrong_is_healthy_to_all(
    connection: RedisConnection, ahead: timedelta
) -> None:
    right, wrong = await started(connection), await started(connection, ahead)
    for program in (right, wrong, right):
        await program.beats.renew_door()
    attached = await wrong.attach()
    for program in (wrong, right, wrong, right):
        seen_at = await program.beat(attached)
        assert seen_at is not None
        assert abs(seen_at - program.clock.now()) < A_MOMENT
        assert max(await right.silence(attached), await wrong.silence(attached)) < A_MOMENT
    [fact] = (await wrong.beats.reachability("agent_receiver0000", [attached])).sessions
    assert fact.last_seen_at is not None
    assert abs(fact.last_seen_at - wrong.clock.now()) < A_MOMENT


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_a_clock_that_is_set_while_a_gateway_serves_kills_nobody_and_hides_no_death(
    connection: RedisConnection, ahead: timedelta
) -> None:
    right, stepping = await started(connection), await started(connection)
    attached = await stepping.attach()
    await stepping.beats.renew_door()
    stepping.clock.ahead = ahead
    await stepping.beats.renew_door()
    assert await stepping.beat(attached) is not None
    assert await right.beat(attached) is not None
    stepping.clock.ahead = NO_TIME
    await stepping.beats.renew_door()
    signs = await right.beats.signs([attached.id])
    assert abs(signs.as_of - right.clock.now()) < A_MOMENT
    assert not signs.outages, "the step counts as an outage"
    assert signs.silence(signs.seen_at(attached)) < A_MOMENT


async def test_a_clock_that_is_nearly_right_is_believed(connection: RedisConnection) -> None:
    program = await started(connection, timedelta(milliseconds=700))
    own = program.clock.now()
    assert NO_TIME <= program.store_clock.now() - own < timedelta(milliseconds=250)


async def test_what_redis_said_holds_while_it_is_away(connection: RedisConnection) -> None:
    program = await started(connection, HOUR)
    await connection.close()

    class Away:
        async def command(self, *_: object) -> None:
            raise Unavailable("store_unavailable", "away")

    program.store_clock._connection = Away()  # type: ignore[assignment]
    await program.store_clock.ask()
    assert abs(program.store_clock.now() - datetime.now(UTC)) < A_MOMENT
