"""The wake policy in an agent's metadata."""

import pytest

from contracts.errors import Invalid
from gateway.wake import MAX_BATCH, Wake, read_wake, wake_of


def test_without_a_policy_each_message_wakes_by_itself() -> None:
    assert wake_of({}) == read_wake(None) == read_wake({"mode": "each", "window_ms": 500}) == Wake()
    assert not Wake().is_coalesced


def test_a_window_is_read_in_milliseconds_and_has_a_default() -> None:
    assert read_wake({"mode": "coalesce", "window_ms": 250, "max_batch": 7}) == Wake(window_s=0.25, max_batch=7)
    assert read_wake({"mode": "coalesce"}) == Wake(window_s=1.0, max_batch=MAX_BATCH)


@pytest.mark.parametrize(
    "value", [[], "each", {"mode": None}, {"mode": "coalesce", "window_ms": 0.5}, {"max_batch": 1}]
)
def test_anything_else_is_refused_and_counts_as_none_when_it_is_stored(value: object) -> None:
    with pytest.raises(Invalid) as caught:
        read_wake(value)
    assert caught.value.code == "invalid_wake"
    assert wake_of({"wake": value}) == Wake()
