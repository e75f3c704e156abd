"""Lists narrowed by what has no index: bounded work, nothing left out, nothing twice."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic_core import to_json

from contracts.errors import Malformed
from contracts.words import State
from gateway.execution_search import MAX_ROWS, Narrowing, search, states_asked, statuses_asked
from gateway.ports import Page, Query

START = datetime(2026, 1, 1, tzinfo=UTC)


class Rows:
    """So many rows, newest first; row `n` was accepted `n` minutes ago."""

    def __init__(self, count: int) -> None:
        self.count_of_rows = count
        self.looked_at = 0

    async def page(self, query: Query) -> Page:
        first = 0 if query.after is None else query.after
        rows = range(first, min(first + query.limit, self.count_of_rows))
        self.looked_at += len(rows)
        more = first + query.limit < self.count_of_rows
        return Page(views=tuple(_view(n) for n in rows), next_after=first + query.limit if more else None)

    async def count(self, query: Query) -> int:
        raise NotImplementedError

    async def received_before(self, owner: str, instants: Sequence[datetime]) -> tuple[int, ...]:
        raise NotImplementedError

    async def settle(self) -> None:
        raise NotImplementedError


def _view(number: int) -> bytes:
    return to_json({"n": number, "accepted_at": (START - timedelta(minutes=number)).isoformat()})


def numbers(views: Sequence[dict[str, Any]]) -> list[int]:
    return [view["n"] for view in views]


async def test_pages_join_without_a_gap_or_a_repetition() -> None:
    rows, seen, after = Rows(450), [], None
    while True:
        found = await search(rows, Query(owner="max", limit=7, after=after), lambda view: view["n"] % 10 == 0)
        seen += numbers(found.views)
        after = found.next_after
        if after is None:
            break

    assert seen == list(range(0, 450, 10))


async def test_a_filter_hardly_anything_passes_ends_in_a_cursor_and_not_in_endless_work() -> None:
    rows = Rows(10 * MAX_ROWS)

    found = await search(rows, Query(owner="max", limit=50), lambda _: False)

    assert found.views == []
    assert found.next_after is not None
    assert rows.looked_at <= MAX_ROWS + 50


async def test_skipped_rows_are_those_that_would_have_been_shown() -> None:
    found = await search(Rows(100), Query(owner="max", limit=2), lambda view: view["n"] % 2 == 0, skip=3)

    assert numbers(found.views) == [6, 8]


async def test_nothing_older_than_since_is_looked_for() -> None:
    rows, narrowing = Rows(5_000), Narrowing(since=START - timedelta(minutes=10))
    found = await search(rows, Query(owner="max", limit=50), lambda _: True, is_past=narrowing.is_past)

    assert found.next_after is None
    assert rows.looked_at == 50


def test_two_ways_to_ask_for_a_status_are_one_too_many() -> None:
    with pytest.raises(Malformed) as caught:
        statuses_asked("pending", "failed")
    assert caught.value.code == "conflicting_filters"


def test_a_word_of_the_list_there_is_not_is_refused_and_a_single_one_finds_nothing() -> None:
    with pytest.raises(Malformed) as caught:
        statuses_asked(None, "pending,lost")
    assert caught.value.code == "invalid_status_in"
    assert states_asked((), statuses_asked("lost", None)) is None


def test_states_and_statuses_have_to_agree() -> None:
    assert states_asked((State.QUEUED, State.LEASED), ("pending",)) == (State.QUEUED,)
    assert states_asked((State.LEASED,), ("pending",)) is None
    assert states_asked((State.LEASED,), ()) == (State.LEASED,)
