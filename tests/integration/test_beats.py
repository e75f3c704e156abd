"""Heartbeats on a real Valkey: what was last heard of whom, asked together, remembered for a moment."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from contracts.freshness import asked_name, echo_name, host_name
from contracts.records import LiveSession, Reachability, SessionFact
from infra.beats import RedisBeats
from infra.embedded import RedisEndpoint
from infra.redis_connection import RedisConnection
from tests.redis_rows import connected

NOON = datetime(2026, 5, 4, 12, 0, 0, 123_000, tzinfo=UTC)
AGENT = "agent_receiver0000"


class HandClock:
    """A clock that moves when told to."""

    def __init__(self, now: datetime) -> None:
        self.instant = now

    def now(self) -> datetime:
        return self.instant


@pytest.fixture
async def connection(redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[RedisConnection]:
    async with connected(redis_server.url, prefix) as open_connection:
        yield open_connection


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOON)


@pytest.fixture
def beats(connection: RedisConnection, clock: HandClock) -> RedisBeats:
    return RedisBeats(connection, clock)


def session(session_id: str, *, is_default: bool = False) -> LiveSession:
    return LiveSession(
        id=session_id, label="main", task_name="task", token_sha256="0" * 64, attached_at=NOON, is_default=is_default
    )


async def round_trips(connection: RedisConnection) -> int:
    stats = await connection.ask(lambda client: client.info("commandstats"))
    return int(stats.get("cmdstat_zmscore", {"calls": 0})["calls"])


async def test_reachability_tells_when_each_session_and_the_host_were_last_seen(beats: RedisBeats) -> None:
    await beats.beat({"sess_a": NOON, host_name(AGENT): NOON - timedelta(seconds=5)})
    assert await beats.reachability(AGENT, [session("sess_a", is_default=True), session("sess_b")]) == Reachability(
        sessions=(
            SessionFact(id="sess_a", label="main", is_default=True, last_seen_at=NOON),
            SessionFact(id="sess_b", label="main", is_default=False, last_seen_at=None),
        ),
        host_last_seen_at=NOON - timedelta(seconds=5),
    )


async def test_echoes_are_asked_about_in_the_same_round_trip_and_only_for_sessions_that_echo(
    beats: RedisBeats, connection: RedisConnection
) -> None:
    plain, echoing = session("sess_a"), replace(session("sess_b"), echoes=True)
    asked_at, answered_at = NOON - timedelta(seconds=9), NOON - timedelta(seconds=8)
    await beats.beat({"sess_b": NOON, asked_name(AGENT): asked_at, echo_name(AGENT): answered_at})
    before = await round_trips(connection)

    reach = await beats.reachability(AGENT, [plain, echoing])

    assert await round_trips(connection) == before + 1
    assert (reach.echo_asked_at, reach.echo_answered_at) == (asked_at, answered_at)
    assert [each.echoes for each in reach.sessions] == [False, True]
    unasked = await beats.reachability(AGENT, [plain])
    assert (unasked.echo_asked_at, unasked.echo_answered_at) == (None, None)


async def test_instants_come_back_aware_and_to_the_millisecond(beats: RedisBeats) -> None:
    instants = [NOON + timedelta(milliseconds=n) for n in range(200)]
    await beats.beat({f"sess_{n}": instant for n, instant in enumerate(instants)})
    assert await beats.last_seen([f"sess_{n}" for n in range(200)]) == instants


async def test_an_older_beat_replaces_a_newer_one(beats: RedisBeats) -> None:
    await beats.beat({"sess_a": NOON})
    await beats.beat({"sess_a": NOON - timedelta(minutes=10)})
    assert await beats.last_seen(["sess_a"]) == [NOON - timedelta(minutes=10)]


async def test_what_is_forgotten_was_never_seen(beats: RedisBeats) -> None:
    await beats.beat({"sess_a": NOON, host_name(AGENT): NOON})
    assert (await beats.reachability(AGENT, [session("sess_a")])).sessions[0].last_seen_at == NOON
    await beats.forget(["sess_a", host_name(AGENT)])
    assert await beats.last_seen(["sess_a"]) == [None]
    reachability = await beats.reachability(AGENT, [session("sess_a")])
    assert (reachability.sessions[0].last_seen_at, reachability.host_last_seen_at) == (None, None)
    await beats.forget([])
    assert await beats.last_seen([]) == []


async def test_an_own_beat_is_seen_at_once_although_answers_are_remembered(beats: RedisBeats) -> None:
    for second in range(20):
        at = NOON + timedelta(seconds=second)
        await beats.beat({"sess_a": at})
        assert (await beats.reachability(AGENT, [session("sess_a")])).sessions[0].last_seen_at == at


async def test_an_answer_is_remembered_for_a_moment_and_no_longer(
    beats: RedisBeats, connection: RedisConnection, clock: HandClock
) -> None:
    other = RedisBeats(connection, clock)
    await beats.beat({"sess_a": NOON, host_name(AGENT): NOON})
    await beats.reachability(AGENT, [session("sess_a")])
    await other.beat({"sess_a": NOON + timedelta(seconds=1)})
    asked_at = anyio.current_time()
    with anyio.fail_after(5):
        while (await beats.reachability(AGENT, [session("sess_a")])).sessions[0].last_seen_at == NOON:
            await anyio.sleep(0.005)
    assert anyio.current_time() - asked_at < 1


async def test_that_a_session_was_never_seen_is_not_remembered(
    beats: RedisBeats, connection: RedisConnection, clock: HandClock
) -> None:
    await beats.reachability(AGENT, [session("sess_a")])
    await RedisBeats(connection, clock).beat({"sess_a": NOON})
    assert (await beats.reachability(AGENT, [session("sess_a")])).sessions[0].last_seen_at == NOON


async def test_those_who_ask_together_share_the_round_trips(beats: RedisBeats, connection: RedisConnection) -> None:
    await beats.beat({f"sess_{n}": NOON + timedelta(seconds=n) for n in range(64)})
    answers: dict[int, Reachability] = {}

    async def ask(number: int) -> None:
        answers[number] = await beats.reachability(f"agent_{number:012d}", [session(f"sess_{number}")])

    before = await round_trips(connection)
    async with anyio.create_task_group() as callers:
        for number in range(64):
            callers.start_soon(ask, number)
    assert await round_trips(connection) - before <= 2
    assert [answers[n].sessions[0].last_seen_at for n in range(64)] == [NOON + timedelta(seconds=n) for n in range(64)]


async def test_a_caller_who_gives_up_takes_nobody_along(beats: RedisBeats) -> None:
    await beats.beat({"sess_a": NOON})
    answers: list[datetime | None] = []

    async def ask() -> None:
        answers.extend(await beats.last_seen(["sess_a"]))

    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as leader:
            leader.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            others.start_soon(ask)
            others.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            leader.cancel_scope.cancel()
    assert answers == [NOON, NOON]


async def test_beats_older_than_a_day_are_dropped(
    beats: RedisBeats, connection: RedisConnection, clock: HandClock
) -> None:
    await beats.beat({"sess_old": NOON, "sess_new": NOON + timedelta(hours=2)})
    clock.instant = NOON + timedelta(hours=25)
    await beats.beat({"sess_newest": clock.instant})
    assert await beats.last_seen(["sess_old", "sess_new"]) == [None, NOON + timedelta(hours=2)]
    assert await connection.command("ZCARD", connection.key("beats")) == 2


async def test_thousands_of_beats_travel_in_one_call(beats: RedisBeats) -> None:
    await beats.beat({f"sess_{n}": NOON for n in range(2_500)})
    assert set(await beats.last_seen([f"sess_{n}" for n in range(2_500)])) == {NOON}
