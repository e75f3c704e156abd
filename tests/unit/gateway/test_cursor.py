"""Cursors are opaque, and good for the list they came from."""

import pytest

from contracts.errors import Malformed
from gateway.cursor import read_cursor, read_number, write_cursor, write_number


def test_a_cursor_survives_the_round_trip() -> None:
    assert read_cursor(write_cursor("some-slug", "agents:max"), "agents:max") == "some-slug"
    assert read_number(write_number(2**60, "x"), "x") == 2**60
    assert (read_number(None, "x"), write_number(None, "x")) == (None, None)


@pytest.mark.parametrize(
    "cursor", ["", "x", "%%%", "ä", "AAAA", write_cursor("1", "other"), write_cursor("1", "x") + "A"]
)
def test_a_cursor_of_another_list_or_of_nobody_is_refused(cursor: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_cursor(cursor, "x")

    assert caught.value.code == "invalid_cursor"
