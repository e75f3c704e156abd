"""The rules of attaching and detaching, on the record alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import Conflict, NotFound
from contracts.records import LiveSession
from gateway.live_sessions import MAX_ATTACHED, Sessions, alter, attach, detach

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def session(label: str, *, is_default: bool = False) -> LiveSession:
    return LiveSession(
        id=f"sess_{label}", label=label, task_name=label, token_sha256="0" * 64, attached_at=NOW, is_default=is_default
    )


def attached(*labels: str) -> Sessions:
    sessions: Sessions = ()
    for label in labels:
        sessions, _ = attach(sessions, session(label), NOW)
    return sessions


def default_of(sessions: Sessions) -> list[str]:
    return [each.label for each in sessions if each.is_default]


def test_the_first_session_is_the_default_and_stays_it() -> None:
    assert default_of(attached("a", "b", "c")) == ["a"]


def test_a_new_default_takes_it_from_the_old_one() -> None:
    sessions, _ = attach(attached("a"), session("b", is_default=True), NOW)
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
        attach(sessions, session("a"), NOW)

    sessions, _ = detach(sessions, "a", NOW)
    sessions, again = attach(sessions, replace(session("a"), id="sess_other"), NOW)

    assert again.is_default
    assert len(sessions) == 2


def test_the_oldest_makes_room_for_one_too_many() -> None:
    sessions = attached(*(f"s{n}" for n in range(MAX_ATTACHED)))

    sessions, _ = attach(sessions, session("new"), NOW + timedelta(seconds=1))

    present = [each.label for each in sessions if each.is_attached]
    assert len(present) == MAX_ATTACHED
    assert "s0" not in present
    assert default_of(sessions) == ["s1"]


def test_what_is_not_attached_is_not_found() -> None:
    with pytest.raises(NotFound):
        alter(attached("a"), "b", make_default=True)
    gone, _ = detach(attached("a"), "a", NOW)
    with pytest.raises(NotFound):
        detach(gone, "a", NOW)
