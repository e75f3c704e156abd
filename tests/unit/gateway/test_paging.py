"""Offsets and totals: nothing shown twice or left out, bounded work, and no number that is not known."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from contracts.errors import Invalid
from contracts.words import Channel, State
from gateway.paging import MAX_OFFSET, SKIP_ROWS, page_behind, total_of
from gateway.ports import Page, Query

INBOX = Query(owner="max", agent_id="a", states=(State.IN_INBOX, State.INBOX_READ), channel=Channel.INBOX, limit=10)
SENT = Query(owner="max", sender_agent_id="a", limit=10)


class Rows:
    """So many rows in order, each its number; `window` is how many a page may look at and find no more."""

    def __init__(self, count: int, *, window: int = 10_000) -> None:
        self.rows = count
        self.window = window
        self.asked: list[Query] = []
        self.counted: list[Query] = []

    async def page(self, query: Query) -> Page:
        self.asked.append(query)
        first = query.after or 0
        last = min(first + min(query.limit, self.window), self.rows)
        views = tuple(str(number).encode() for number in range(first, last))
        return Page(views=views, next_after=last if last < self.rows else None)

    async def count(self, query: Query) -> int:
        self.counted.append(query)
        return self.rows

    async def received_before(self, owner: str, instants: Sequence[datetime]) -> tuple[int, ...]:
        raise NotImplementedError

    async def settle(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("offset", [0, 1, SKIP_ROWS, SKIP_ROWS + 1, MAX_OFFSET])
async def test_a_page_begins_behind_as_many_rows_as_were_asked_to_be_passed_over(offset: int) -> None:
    page = await page_behind(Rows(2_000), INBOX, offset)

    assert [int(view) for view in page.views] == list(range(offset, offset + 10))
    assert page.next_after == offset + 10


@pytest.mark.parametrize("count", [0, 3, 4])
async def test_an_offset_beyond_the_end_is_an_empty_page(count: int) -> None:
    assert await page_behind(Rows(count), INBOX, 4) == Page(views=(), next_after=None)


async def test_no_question_asks_for_more_than_a_bounded_number_of_rows() -> None:
    rows = Rows(5_000)
    await page_behind(rows, INBOX, MAX_OFFSET)

    assert max(query.limit for query in rows.asked) == SKIP_ROWS
    assert len(rows.asked) == MAX_OFFSET // SKIP_ROWS + 1


async def test_a_filter_hardly_anything_passes_is_refused_instead_of_skipping_without_end() -> None:
    with pytest.raises(Invalid) as refused:
        await page_behind(Rows(5_000, window=5), INBOX, 100)
    assert (refused.value.code, refused.value.facts["field"]) == ("offset_too_far", "offset")


async def total(count: int, query: Query, offset: int = 0, *, is_asked: bool = True) -> tuple[int | None, int]:
    """The total, and how many counts it took."""
    rows = Rows(count)
    found = await total_of(rows, query, await page_behind(rows, query, offset), offset, is_asked=is_asked)
    return found, len(rows.counted)


@pytest.mark.parametrize(("count", "offset"), [(0, 0), (3, 0), (10, 0), (12, 5)])
async def test_a_list_that_was_read_to_its_end_is_counted_without_asking(count: int, offset: int) -> None:
    filtered = replace(INBOX, counterpart="b")
    assert await total(count, filtered, offset) == (count, 0)


@pytest.mark.parametrize("query", [INBOX, SENT, replace(INBOX, after=3), replace(SENT, after=3)])
async def test_what_one_index_knows_is_exact(query: Query) -> None:
    assert await total(100, query) == (100, 1)
    assert await total(4, query, 10) == (4, 1)


async def test_an_index_is_not_asked_for_a_number_nobody_wants() -> None:
    assert await total(100, INBOX, is_asked=False) == (None, 0)


@pytest.mark.parametrize(
    "query",
    [
        replace(INBOX, counterpart="b"),
        replace(INBOX, thread="msg_t"),
        replace(INBOX, priorities=(4,)),
        replace(INBOX, since=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(INBOX, states=(State.DELIVERED,)),
        replace(SENT, states=(State.QUEUED,)),
    ],
)
async def test_what_no_index_knows_is_left_unknown(query: Query) -> None:
    assert await total(100, query) == (None, 0)
