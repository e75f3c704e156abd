"""Heartbeats on a real Valkey: what was last heard of whom, asked together, remembered for a moment."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from contracts.freshness import DOOR, asked_name, beat_of, echo_name, host_name
from contracts.records import LiveSession, Reachability, SessionFact
from infra.beats import RedisBeats
from infra.embedded import RedisEndpoint
from infra.redis_connection import RedisConnection
from tests.open_door import open_door
from tests.redis_rows import connected

NOON = datetime(2026, 5, 4, 12, 0, 0, 123_000, tzinfo=UTC)
ATTACHED = NOON - timedelta(hours=1)
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
        await open_door(open_connection)
        yield open_connection


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOON + timedelta(minutes=2))


@pytest.fixture
def beats(connection: RedisConnection, clock: HandClock) -> RedisBeats:
    return RedisBeats(connection, clock)


def session(session_id: str, *, is_default: bool = False) -> LiveSession:
    return LiveSession(
        id=session_id,
        label="main",
        task_name="task",
        token_sha256="0" * 64,
        attached_at=ATTACHED,
        is_default=is_default,
    )


async def round_trips(connection: RedisConnection) -> int:
    stats = await connection.ask(lambda client: client.info("commandstats"))
    return int(stats.get("cmdstat_zmscore", {"calls": 0})["calls"])


async def test_reachability_tells_when_each_session_and_the_host_were_last_seen(beats: RedisBeats) -> None:
    await beats.beat({"sess_a": NOON, host_name(AGENT): NOON - timedelta(seconds=5)})
    assert await beats.reachability(AGENT, [session("sess_a", is_default=True), session("sess_b")]) == Reachability(
        sessions=(
            SessionFact(id="sess_a", label="main", is_default=True, last_seen_at=NOON),
            SessionFact(id="sess_b", label="main", is_default=False, last_seen_at=ATTACHED),
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
    assert (reachability.sessions[0].last_seen_at, reachability.host_last_seen_at) == (ATTACHED, None)
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
    assert await connection.command("ZRANGE", connection.key("beats"), 0, -1) == [b"sess_new", b"sess_newest", b"door"]


async def test_thousands_of_beats_travel_in_one_call(beats: RedisBeats) -> None:
    await beats.beat({f"sess_{n}": NOON for n in range(2_500)})
    assert set(await beats.last_seen([f"sess_{n}" for n in range(2_500)])) == {NOON}


# --- sessions' beats, and the time in which nobody listens -----------------------------------------------------------


def worker(session_id: str = "sess_w") -> LiveSession:
    return replace(session(session_id), transport="sse", attached_at=NOON)


async def heard(beats: RedisBeats, at: datetime) -> Sequence[datetime | None]:
    return await beats.beat_sessions([beat_of(worker(), at)])


async def test_a_beat_is_taken_until_the_deadline_and_not_behind_it(beats: RedisBeats, clock: HandClock) -> None:
    clock.instant = NOON + timedelta(seconds=90)
    assert await heard(beats, clock.instant) == [clock.instant]
    last = clock.instant

    clock.instant += timedelta(seconds=90, milliseconds=1)
    assert await heard(beats, clock.instant) == [None]
    assert await beats.last_seen(["sess_w"]) == [last]


async def test_beats_of_one_session_within_a_second_are_written_once(beats: RedisBeats, clock: HandClock) -> None:
    clock.instant = NOON + timedelta(seconds=10)
    await heard(beats, NOON)
    assert await heard(beats, NOON + timedelta(milliseconds=999)) == [NOON]
    assert await heard(beats, NOON + timedelta(milliseconds=1_000)) == [NOON + timedelta(seconds=1)]
    assert await heard(beats, NOON - timedelta(seconds=5)) == [NOON - timedelta(seconds=5)]


async def test_those_that_come_too_late_fail_nobody_beside_them(beats: RedisBeats, clock: HandClock) -> None:
    clock.instant = NOON + timedelta(seconds=10)
    many = [beat_of(worker(f"sess_{n}"), clock.instant) for n in range(2_500)]
    late = replace(many[7], attached_at=NOON - timedelta(seconds=1), terminal=timedelta(seconds=1))
    answers = await beats.beat_sessions([*many[:7], late, *many[8:]])
    assert [n for n, answer in enumerate(answers) if answer is None] == [7]
    assert await beats.last_seen(["sess_2499", "sess_7"]) == [clock.instant, None]
    assert beats.known >= 2_499


async def test_while_nobody_listens_nobody_grows_silent(
    connection: RedisConnection, beats: RedisBeats, clock: HandClock
) -> None:
    await connection.command("ZREM", connection.key("beats"), "door")
    clock.instant = NOON
    await beats.renew_door()
    await beats.renew_door()
    await heard(beats, NOON)

    clock.instant += timedelta(hours=1)
    before = await beats.reachability(AGENT, [worker()])
    await beats.renew_door()
    after = await beats.reachability(AGENT, [worker()])
    clock.instant += timedelta(seconds=9)
    await beats.renew_door()

    assert [each.sessions[0].last_seen_at for each in (before, after)] == [NOON + timedelta(hours=1)] * 2
    assert (await beats.signs(["sess_w"])).silence(NOON) == timedelta(seconds=9)
    assert await heard(beats, clock.instant) == [clock.instant]


async def test_an_outage_is_left_out_at_once_of_what_is_remembered(beats: RedisBeats, clock: HandClock) -> None:
    await beats.beat({DOOR: clock.now(), "sess_a": clock.now(), host_name(AGENT): clock.now()})
    assert (await beats.reachability(AGENT, [session("sess_a")])).sessions[0].last_seen_at == clock.now()
    clock.instant += timedelta(minutes=5)
    await beats.renew_door()
    await beats.signs(["sess_b"])
    reach = await beats.reachability(AGENT, [session("sess_a")])
    assert (reach.sessions[0].last_seen_at, reach.host_last_seen_at) == (clock.now(), clock.now())


async def test_the_last_four_outages_are_remembered(
    connection: RedisConnection, beats: RedisBeats, clock: HandClock
) -> None:
    await connection.command("ZREM", connection.key("beats"), "door")
    for _ in range(6):
        clock.instant += timedelta(seconds=60)
        await beats.renew_door()
    signs = await beats.signs([])
    assert [each.ends_at - clock.instant for each in signs.outages] == [timedelta(seconds=-60 * n) for n in range(4)]
    assert {each.ends_at - each.begins_at for each in signs.outages} == {timedelta(seconds=60)}


async def test_after_the_store_was_emptied_sessions_are_as_fresh_as_can_be_until_they_had_time_to_beat(
    connection: RedisConnection, beats: RedisBeats, clock: HandClock
) -> None:
    live = replace(session("sess_a"), attached_at=NOON - timedelta(days=3))
    clock.instant = NOON
    await connection.command("DEL", connection.key("beats"))

    at_once = await beats.reachability(AGENT, [live])
    await beats.renew_door()
    clock.instant += timedelta(seconds=8)
    await beats.renew_door()
    later = await beats.reachability(AGENT, [live])

    assert [each.sessions[0].last_seen_at for each in (at_once, later)] == [NOON, NOON]


async def test_a_silence_that_is_told_counts_although_nobody_listened(
    connection: RedisConnection, beats: RedisBeats, clock: HandClock
) -> None:
    await connection.command("DEL", connection.key("beats"))
    clock.instant = NOON + timedelta(hours=1)
    await beats.renew_door()
    clock.instant += timedelta(seconds=5)
    await beats.renew_door()
    told = clock.instant - timedelta(seconds=70)

    answer = await heard(beats, told)
    signs = await beats.signs(["sess_w"])
    reach = await beats.reachability(AGENT, [worker()])

    assert answer == [told]
    assert signs.silence(signs.seen_at(worker())) == timedelta(seconds=70)
    assert (signs.shown_at("sess_w"), reach.sessions[0].last_seen_at) == (told, told)


async def test_a_silence_that_is_told_leaves_out_the_outages_behind_it(
    connection: RedisConnection, beats: RedisBeats, clock: HandClock
) -> None:
    await connection.command("ZREM", connection.key("beats"), "door")
    clock.instant = NOON
    await beats.renew_door()
    for gap_s in (30, 40):
        clock.instant += timedelta(seconds=gap_s)
        await beats.renew_door()
    clock.instant += timedelta(seconds=5)
    await beats.renew_door()

    await heard(beats, clock.instant - timedelta(seconds=60))
    told = await beats.signs(["sess_w"])
    clock.instant += timedelta(minutes=10)
    await beats.renew_door()
    later = await beats.signs(["sess_w"])

    assert told.silence(told.seen_at(worker())) == timedelta(seconds=60)
    assert later.silence(later.seen_at(worker())) == timedelta(seconds=60)


async def test_a_live_session_silent_for_a_day_is_attached_no_longer(beats: RedisBeats, clock: HandClock) -> None:
    live = replace(session("sess_a"), attached_at=NOON)
    clock.instant = NOON + timedelta(days=1)
    assert len((await beats.reachability(AGENT, [live])).sessions) == 1
    clock.instant += timedelta(milliseconds=1)
    assert (await beats.reachability(AGENT, [live])).sessions == ()


async def test_an_outage_keeps_what_was_heard_before_it_from_being_dropped(
    connection: RedisConnection, beats: RedisBeats, clock: HandClock
) -> None:
    await connection.command("ZADD", connection.key("beats"), int(NOON.timestamp() * 1000), "door")
    await beats.beat({"sess_a": NOON})
    clock.instant = NOON + timedelta(hours=30)
    await beats.renew_door()
    clock.instant += timedelta(minutes=2)
    await beats.beat({"sess_b": clock.instant})
    assert await beats.last_seen(["sess_a"]) == [NOON]
