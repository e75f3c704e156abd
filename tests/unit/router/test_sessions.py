"""Where a session stands around each of its thresholds, what that makes of presence, and who makes room."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.freshness import (
    DOOR_NAMES,
    LIVE_TERMINAL_S,
    NOTHING_KNOWN,
    GoneSince,
    Outage,
    Signs,
    is_past_deadline,
    signs_of,
)
from contracts.records import LiveSession
from contracts.words import AgentStatus, PresenceWord, SessionStatus
from router.sessions import MAX_CONNECTED, is_overdue, making_room, presence, status_of
from tests.builders import NOW, after, agent, session

CONNECTED, STALE, DISCONNECTED = SessionStatus.CONNECTED, SessionStatus.STALE, SessionStatus.DISCONNECTED
EPSILON = timedelta(milliseconds=1)
WORKER = session("worker", transport="sse", attached_at=NOW)
AGENT = agent()


def told(
    heard: Mapping[str, datetime | None] | None = None, *, after_s: float = 0, more: timedelta = timedelta(0)
) -> Signs:
    return Signs(as_of=after(after_s) + more, heard=heard or {})


@pytest.mark.parametrize(
    ("at_s", "more", "status", "overdue", "word"),
    [
        (0, EPSILON, CONNECTED, False, PresenceWord.ONLINE),
        (60, -EPSILON, CONNECTED, False, PresenceWord.ONLINE),
        (60, EPSILON, CONNECTED, True, PresenceWord.STALE),
        (90, -EPSILON, CONNECTED, True, PresenceWord.STALE),
        (90, EPSILON, STALE, True, PresenceWord.OFFLINE),
        (86_400 * 30, EPSILON, STALE, True, PresenceWord.OFFLINE),
    ],
)
def test_a_worker_is_overdue_after_a_minute_and_stale_for_good_after_a_minute_and_a_half(
    at_s: float, more: timedelta, status: SessionStatus, overdue: bool, word: PresenceWord
) -> None:
    for heard in ({}, {WORKER.id: NOW}):
        signs = told(heard, after_s=at_s, more=more)
        assert status_of(WORKER, signs) is status
        assert is_overdue(WORKER, AGENT, signs) is overdue
        assert presence(AGENT, [WORKER], signs) is word


@pytest.mark.parametrize(
    ("at_s", "status", "overdue"), [(7, CONNECTED, True), (5, CONNECTED, False), (31, STALE, True)]
)
def test_a_session_may_bring_thresholds_of_its_own(at_s: float, status: SessionStatus, overdue: bool) -> None:
    own = replace(WORKER, overdue_s=6, terminal_s=30)
    signs = told(after_s=at_s)
    assert (status_of(own, signs), is_overdue(own, AGENT, signs)) == (status, overdue)


def test_a_live_session_is_overdue_when_its_agent_says_and_stale_after_a_day() -> None:
    live = session(attached_at=NOW)
    patient = replace(AGENT, heartbeat_age_sec=300)
    assert not is_overdue(live, patient, told(after_s=300))
    assert is_overdue(live, patient, told(after_s=300, more=EPSILON))
    assert status_of(live, told(after_s=LIVE_TERMINAL_S)) is CONNECTED
    assert status_of(live, told(after_s=LIVE_TERMINAL_S, more=EPSILON)) is STALE


def test_a_beat_that_says_it_is_old_outweighs_the_attach() -> None:
    signs = told({WORKER.id: after(-70)}, after_s=1)
    assert is_overdue(WORKER, AGENT, signs)


def test_what_is_on_record_counts_before_what_was_heard() -> None:
    heard: dict[str, datetime] = {WORKER.id: after(100)}
    assert status_of(replace(WORKER, detached_at=after(50)), told(heard, after_s=100)) is DISCONNECTED
    assert status_of(replace(WORKER, stale_at=after(95)), told(heard, after_s=100)) is STALE
    assert status_of(replace(WORKER, stale_at=after(95), detached_at=NOW), told(heard, after_s=100)) is DISCONNECTED


def test_one_fresh_session_is_enough_whichever_it_is() -> None:
    older, newer = WORKER, session("newer", transport="polling", attached_at=after(10))
    signs = told({older.id: after(100), newer.id: after(30)}, after_s=100)
    assert is_overdue(newer, AGENT, signs)
    assert presence(AGENT, [older, newer], signs) is PresenceWord.ONLINE
    assert presence(AGENT, [older, replace(newer, detached_at=after(99))], signs) is PresenceWord.ONLINE
    assert presence(AGENT, [replace(older, detached_at=after(99)), newer], signs) is PresenceWord.STALE
    assert presence(AGENT, [], signs) is PresenceWord.OFFLINE


def test_an_inactive_agent_is_as_present_as_its_sessions() -> None:
    assert presence(replace(AGENT, status=AgentStatus.INACTIVE), [WORKER], told()) is PresenceWord.ONLINE


# --- outages ---------------------------------------------------------------------------------------------------------


def marked(now_s: float, *, door_s: float | None, from_s: float | None = None, to_s: float | None = None) -> Signs:
    marks = [None if each is None else after(each) for each in (door_s, from_s, to_s)]
    return signs_of(dict(zip(DOOR_NAMES, marks, strict=False)), after(now_s))


def test_silence_counts_up_to_the_instant_at_which_somebody_last_listened() -> None:
    assert status_of(WORKER, marked(600, door_s=89)) is CONNECTED
    assert status_of(WORKER, marked(600, door_s=91)) is STALE


def test_the_time_of_an_outage_does_not_count_wherever_it_lies() -> None:
    assert not is_overdue(WORKER, AGENT, marked(600, door_s=600, from_s=30, to_s=571))
    assert is_overdue(WORKER, AGENT, marked(600, door_s=600, from_s=30, to_s=569))
    assert not is_past_deadline(WORKER, marked(600, door_s=600, from_s=-500, to_s=511))
    assert is_past_deadline(WORKER, marked(600, door_s=600, from_s=-500, to_s=-1))
    assert is_past_deadline(WORKER, marked(91, door_s=700, from_s=92, to_s=600))


def test_after_the_store_was_emptied_nobody_is_silent_until_somebody_has_listened_for_a_while() -> None:
    old = replace(WORKER, attached_at=after(-86_400))
    assert not is_overdue(old, AGENT, marked(600, door_s=None))
    assert not is_overdue(old, AGENT, marked(660, door_s=660, from_s=-1e9, to_s=600))
    assert is_overdue(old, AGENT, marked(661, door_s=661, from_s=-1e9, to_s=600))


def test_what_cannot_be_asked_makes_nobody_silent() -> None:
    assert presence(AGENT, [replace(WORKER, attached_at=after(-86_400))], NOTHING_KNOWN) is PresenceWord.ONLINE


@pytest.mark.parametrize(
    ("from_s", "to_s", "lost_s"), [(0, 5, 0), (0, 15, 5), (12, 14, 2), (0, 60, 10), (15, 60, 5), (25, 60, 0)]
)
def test_an_outage_holds_only_what_lies_within_it(from_s: float, to_s: float, lost_s: float) -> None:
    outage = Outage(begins_at=after(10), ends_at=after(20))
    assert outage.within(after(from_s), after(to_s)) == timedelta(seconds=lost_s)


# --- room ------------------------------------------------------------------------------------------------------------


def workers(count: int, first_s: float = 0) -> list[LiveSession]:
    return [session(f"w{n:02}", transport="sse", attached_at=after(first_s + n)) for n in range(count)]


def test_nobody_leaves_while_there_is_room() -> None:
    assert making_room(workers(MAX_CONNECTED - 1), told(after_s=50)) == ()
    ended = [replace(each, detached_at=NOW) for each in workers(5)]
    assert making_room([*ended, *workers(MAX_CONNECTED - 1)], told(after_s=50)) == ()


def test_whoever_is_past_its_deadline_leaves_first() -> None:
    full = workers(MAX_CONNECTED)
    heard: dict[str, datetime] = {each.id: after(100) for each in full if each.id != "sess_w07"}
    assert [each.id for each in making_room(full, told(heard, after_s=100))] == ["sess_w07"]


def test_whoever_never_beat_leaves_before_whoever_did_and_the_oldest_first() -> None:
    full = workers(MAX_CONNECTED)
    heard = {each.id: each.attached_at for each in full}
    heard |= {each.id: after(30) for each in full[:5]}
    assert [each.id for each in making_room(full, told(heard, after_s=60))] == ["sess_w05"]


def test_among_those_that_beat_the_one_heard_of_least_recently_leaves() -> None:
    full = workers(MAX_CONNECTED)
    heard: dict[str, datetime] = {each.id: after(50) for each in full} | {"sess_w11": after(49)}
    assert [each.id for each in making_room(full, told(heard, after_s=60))] == ["sess_w11"]


def test_whoever_is_known_to_be_gone_leaves_before_whoever_beats() -> None:
    sessions = [session(f"s{number:02}", attached_at=after(-100)) for number in range(MAX_CONNECTED)]
    heard: dict[str, datetime | None] = {each.id: after(number - 50) for number, each in enumerate(sessions)}
    heard[sessions[7].id] = GoneSince.fromtimestamp(after(-1).timestamp(), UTC)
    assert making_room(sessions, told(heard)) == (sessions[7],)


def test_more_than_one_leaves_where_there_were_too_many() -> None:
    assert [each.id for each in making_room(workers(MAX_CONNECTED + 2), told(after_s=30))] == [
        "sess_w00", "sess_w01", "sess_w02",
    ]  # fmt: skip


def test_fifty_registrations_in_a_row_push_out_nobody_who_beats() -> None:
    healthy = session("healthy", transport="sse", attached_at=after(-600))
    sessions: list[LiveSession] = [healthy]
    for number in range(50):
        signs = told({healthy.id: after(-20)}, after_s=number)
        sessions = [each for each in sessions if each not in making_room(sessions, signs)]
        sessions.append(session(f"crash{number:02}", transport="sse", attached_at=after(number)))
    assert healthy in sessions
    assert len(sessions) == MAX_CONNECTED
    assert presence(AGENT, sessions, told({healthy.id: after(-20)}, after_s=39)) is PresenceWord.ONLINE


def test_whoever_is_known_to_be_gone_is_overdue_at_once_whatever_outages_say_and_not_gone_for_good() -> None:
    live = session("live", attached_at=NOW)
    outage = Outage(begins_at=after(-86_400), ends_at=after(1))
    heard: dict[str, datetime | None] = {live.id: GoneSince.fromtimestamp(after(1).timestamp(), UTC)}
    signs = Signs(as_of=after(2), heard=heard, outages=(outage,))
    assert is_overdue(live, agent(heartbeat_age_sec=3_600), signs)
    assert presence(agent(), [live], signs) is PresenceWord.STALE
    assert status_of(live, signs) is CONNECTED
    back = replace(signs, heard={live.id: after(2)})
    assert presence(agent(), [live], back) is PresenceWord.ONLINE
