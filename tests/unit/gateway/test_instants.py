"""Instants as clients write them: with an offset, or not at all."""

from datetime import UTC, datetime

import pytest

from gateway.instants import parse_instant


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T09:00:00Z",
        "2026-01-31t09:00:00z",
        "2026-01-31 09:00:00Z",
        "2026-01-31T10:30:00+01:30",
        "2026-01-31T08:00:00.000000000-01:00",
    ],
)
def test_every_spelling_of_an_instant_is_the_same_instant(text: str) -> None:
    assert parse_instant(text) == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T09:00:00",
        "20260131T090000Z",
        "2026-02-30T09:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T09:00:60Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-31T09:00:00Z\n",
        "２026-01-31T09:00:00Z",
    ],
)
def test_what_is_no_instant_or_has_no_offset_is_none(text: str) -> None:
    assert parse_instant(text) is None
