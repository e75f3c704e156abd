"""Ids that carry an instant, or whose they are."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.ids import ECHO_ID, SESSION_ID, agent_of_session, echo_asked_at, echo_id, session_id

NOON = datetime(2026, 5, 4, 12, 0, 0, 123_456, tzinfo=UTC)


def test_an_echos_id_says_when_it_was_asked_to_the_millisecond() -> None:
    name = echo_id(NOON, b"\xff" * 10)
    assert ECHO_ID.match(name)
    assert echo_asked_at(name) == NOON.replace(microsecond=123_000)


def test_echoes_asked_later_sort_later() -> None:
    assert echo_id(NOON, b"\xff" * 10) < echo_id(NOON + timedelta(milliseconds=1), b"\x00" * 10)


@pytest.mark.parametrize(
    "text", ["", "echo_", "exec_01hzt0ken0000000000000000a", f"echo_7{'z' * 25}", f"echo_{'i' * 26}"]
)
def test_what_is_no_echos_id_says_nothing(text: str) -> None:
    assert echo_asked_at(text) is None


AGENTS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=12).map(lambda text: f"agent_{text}")


@given(agent=AGENTS, chance=st.integers(0, 2**24 - 1))
@example(agent=f"agent_{'z' * 12}", chance=2**24 - 1)
@example(agent=f"agent_{'0' * 12}", chance=0)
def test_a_sessions_id_says_whose_it_is(agent: str, chance: int) -> None:
    name = session_id(agent, NOON, chance)
    assert SESSION_ID.match(name)
    assert agent_of_session(name) == agent
    assert name < session_id(agent, NOON + timedelta(milliseconds=1), 0)
    assert name != session_id(agent, NOON, chance + 1)


@pytest.mark.parametrize("text", ["", "sess_", "sess_x", f"sess_{'z' * 26}", f"sess_7{'z' * 25}", f"sess_{'i' * 26}"])
def test_what_is_no_sessions_id_says_nothing(text: str) -> None:
    assert agent_of_session(text) is None
