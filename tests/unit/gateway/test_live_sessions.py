"""What attaching, changing and ending makes of an agent's sessions, on the record alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import Conflict, NotFound
from contracts.freshness import Signs
from contracts.records import LiveSession
from gateway.session_changes import Sessions, alter, detach, disconnect, end, enter
from router.sessions import MAX_CONNECTED

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def session(label: str, *, is_default: bool = False) -> LiveSession:
    return LiveSession(
        id=f"sess_{label}", label=label, task_name=label, token_sha256="0" * 64, attached_at=NOW, is_default=is_default
    )


def attached(*labels: str) -> Sessions:
    sessions: Sessions = ()
    for label in labels:
        sessions = enter(sessions, session(label)).sessions
    return sessions


def default_of(sessions: Sessions) -> list[str]:
    return [each.label for each in sessions if each.is_default]


def test_the_first_session_is_the_default_and_stays_it() -> None:
    assert default_of(attached("a", "b", "c")) == ["a"]


def test_a_new_default_takes_it_from_the_old_one() -> None:
    sessions = enter(attached("a"), session("b", is_default=True)).sessions
    assert default_of(sessions) == ["b"]

    sessions, changed = alter(sessions, "a", make_default=True)
    assert default_of(sessions) == ["a"]
    assert changed.is_default


def test_the_oldest_that_remains_inherits_being_the_default() -> None:
    sessions, gone = detach(attached("a", "b", "c"), "a", NOW)

    assert default_of(sessions) == ["b"]
    assert gone.detached_at == NOW
    assert not gone.is_default


def test_a_label_is_attached_once_and_free_again_after_detaching() -> None:
    sessions = attached("a")
    with pytest.raises(Conflict):
        enter(sessions, session("a"))

    sessions, _ = detach(sessions, "a", NOW)
    entered = enter(sessions, replace(session("a"), id="sess_other"))

    assert entered.session.is_default
    assert len(entered.sessions) == 2


def test_one_too_many_makes_room_and_the_default_passes_on() -> None:
    later = NOW + timedelta(seconds=1)
    full = attached(*(f"s{n}" for n in range(MAX_CONNECTED)))
    heard = {each.id: later for each in full if each.label != "s0"}

    entered = enter(full, replace(session("new"), attached_at=later), Signs(as_of=later, heard=heard))

    present = [each.label for each in entered.sessions if each.is_attached]
    assert len(present) == MAX_CONNECTED
    assert [(each.label, each.detached_at) for each in entered.ended] == [("s0", later)]
    assert default_of(entered.sessions) == ["s1"]


def test_a_label_whose_session_is_past_its_deadline_is_free() -> None:
    a_day_later = NOW + timedelta(days=1)
    again = replace(session("a"), id="sess_again", attached_at=a_day_later)
    with pytest.raises(Conflict):
        enter(attached("a"), again, Signs(as_of=a_day_later))

    entered = enter(attached("a"), again, Signs(as_of=a_day_later + timedelta(seconds=1)))

    assert [(each.id, each.stale_at, each.detached_at) for each in entered.ended] == [("sess_a", a_day_later, None)]
    assert entered.session.is_default


def test_a_gateway_whose_clock_is_behind_notes_a_stale_session_behind_those_that_were_noted_before() -> None:
    noted_at = NOW + timedelta(days=2)
    before = replace(session("b"), stale_at=noted_at)
    new = replace(session("a"), id="sess_new", attached_at=NOW + timedelta(days=1, seconds=1))

    entered = enter((before, *attached("a")), new, Signs(as_of=new.attached_at))

    [gone] = entered.ended
    assert gone.stale_at is not None
    assert gone.stale_at > noted_at


def test_a_worker_is_no_default_and_its_label_is_nobody_elses() -> None:
    worker = replace(session(""), id="sess_worker", transport="sse")
    other = replace(worker, id="sess_other")

    sessions = enter(enter((), worker).sessions, other).sessions

    assert default_of(sessions) == []
    assert default_of(enter(sessions, session("a")).sessions) == ["a"]
    with pytest.raises(NotFound):
        detach(sessions, "", NOW)


def test_what_was_the_default_leaves_that_to_no_worker() -> None:
    sessions = enter(attached("a"), replace(session("w"), transport="sse")).sessions
    assert default_of(detach(sessions, "a", NOW)[0]) == []


def test_disconnecting_ends_a_session_once_and_a_stale_one_not_at_all() -> None:
    worker = replace(session("w"), transport="sse")
    late = Signs(as_of=NOW + timedelta(seconds=91))

    sessions, gone = disconnect((worker,), worker.id, NOW, Signs(as_of=NOW))
    again, still = disconnect(sessions, worker.id, NOW + timedelta(hours=1), late)
    stale, untouched = disconnect((worker,), worker.id, NOW, late)

    assert gone.detached_at == NOW
    assert (again, still) == (sessions, gone)
    assert (stale, untouched) == ((worker,), worker)
    with pytest.raises(NotFound):
        disconnect((), worker.id, NOW, late)


def test_of_those_that_ended_the_last_twenty_stay_on_record() -> None:
    sessions: Sessions = ()
    for number in range(30):
        at = NOW + timedelta(seconds=number)
        sessions = enter(sessions, replace(session(f"s{number}"), attached_at=at)).sessions
        sessions = end(sessions, f"sess_s{number}", at, is_stale=number % 2 == 0)

    kept = enter(sessions, session("new")).sessions

    assert [each.id for each in kept] == [*(f"sess_s{number}" for number in range(10, 30)), "sess_new"]


def test_what_is_not_attached_is_not_found() -> None:
    with pytest.raises(NotFound):
        alter(attached("a"), "b", make_default=True)
    gone, _ = detach(attached("a"), "a", NOW)
    with pytest.raises(NotFound):
        detach(gone, "a", NOW)
