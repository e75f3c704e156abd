"""The long inbox: pages that meet without gaps, the newest as long as a poll's, and depths from the oldest on."""

from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cli.api import Api
from cli.benchmark.house import POLL_MESSAGES
from cli.benchmark.stored import DEPTHS, LONGEST_PAGE, page_through, pages
from cli.failures import Failure


class Inbox(Api):
    """An inbox of so many messages, whose cursors are places."""

    def __init__(self, count: int) -> None:
        self._count = count

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        start = int(query["cursor"] or 0)
        end = min(start + query["limit"], self._count)
        return {"messages": [{}] * (end - start), "next_cursor": None if end == self._count else str(end)}


def place(path: str) -> int:
    return int(parse_qs(urlsplit(path).query).get("cursor", ["0"])[0])


@pytest.mark.parametrize("count", [50, 51, 250, 1_000, 1_049, 100_000])
def test_pages_meet_and_the_newest_is_as_long_as_a_polls(count: int) -> None:
    found = list(pages(count))
    assert [start for start, _ in found] == [sum(length for _, length in found[:n]) for n in range(len(found))]
    assert sum(length for _, length in found) == count
    assert found[-1][1] == POLL_MESSAGES
    assert max(length for _, length in found) <= LONGEST_PAGE


def test_the_depths_are_spread_evenly_and_begin_with_the_oldest_page() -> None:
    inbox = page_through(Inbox(100_000), "agent_a", 100_000, lambda _: None)
    depths = [place(path) for path in inbox.deep]
    assert place(inbox.newest) == 100_000 - POLL_MESSAGES
    assert depths[0] == 0
    assert len(depths) == DEPTHS
    assert all(12_000 <= later - earlier <= 13_000 for earlier, later in pairwise(depths))
    assert inbox.newest.startswith(f"/v1/agents/agent_a/inbox?limit={POLL_MESSAGES}&cursor=")


def test_the_newest_page_is_none_of_the_depths_however_few_pages_there_are() -> None:
    inbox = page_through(Inbox(1_000), "agent_a", 1_000, lambda _: None)
    assert [place(path) for path in inbox.deep] == [0, 200, 400, 600, 800]
    assert place(inbox.newest) == 950


@pytest.mark.parametrize("stored", [900, 1_100])
def test_an_inbox_that_holds_something_else_than_was_put_there_is_a_failure(stored: int) -> None:
    with pytest.raises(Failure, match="an inbox of 1000 gave"):
        page_through(Inbox(stored), "agent_a", 1_000, lambda _: None)
