"""Ids that carry an instant."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.ids import ECHO_ID, echo_asked_at, echo_id

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
