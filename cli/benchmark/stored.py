"""Two inboxes, one with few and one with many messages: filled through the product, then paged through to the end.

Paging through hands every message out, which is a durable append for each; afterwards a poll is nothing but a poll,
at whatever depth. The cursors of both inboxes' pages are noted on the way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from cli.api import Api
from cli.benchmark.children import Workload
from cli.benchmark.house import POLL_MESSAGES, House, settle, settle_events
from cli.failures import Failure

FEW: Final = 1_000
IN_FLIGHT: Final = 64
PORTION: Final = 10_000
"""Messages between two lines on the terminal, about five seconds' worth."""
PORTION_WITHIN_S: Final = 100.0
LONGEST_PAGE: Final = 200
DEPTHS: Final = 8

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInbox:
    """The paths of an inbox's pages: the newest one, and some others that are spread evenly, oldest first."""

    newest: str
    deep: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The two inboxes."""

    few: StoredInbox
    many: StoredInbox


async def store(house: House, many: int, request_to: Callable[[str], Any], load: Workload, tell: Tell) -> Stored:
    """Fill both inboxes; `request_to` makes the POST to an agent. Raises `Failure` when that does not succeed."""
    stored = Stored(
        few=await _stored(house, house.few, FEW, request_to(house.few), load, tell),
        many=await _stored(house, house.many, many, request_to(house.many), load, tell),
    )
    tell(f"the event log was {settle_events(house):.1f} s behind")
    return stored


async def _stored(house: House, agent: str, count: int, request: Any, load: Workload, tell: Tell) -> StoredInbox:
    for done in range(0, count, PORTION):
        portion = min(PORTION, count - done)
        result = await load.carry_out(
            "closed", request=request, in_flight=IN_FLIGHT, duration_s=PORTION_WITHIN_S, count=portion
        )
        if result["n"] != portion:
            raise Failure(f"an inbox could not be filled: {result['n']} of {portion} accepted, {result['failures']}")
        tell(f"filling an inbox: {done + portion:,} of {count:,}, {result['per_s']:,.0f}/s")
    settle(house)
    api = Api(house.url, house.key)
    try:
        return page_through(api, agent, count, tell)
    finally:
        api.close()


def page_through(api: Api, agent: str, count: int, tell: Tell) -> StoredInbox:
    """Hand out all `count` messages, oldest first; raises `Failure` when a page is not what it must be."""
    cursors: dict[int, str | None] = {}
    cursor: str | None = None
    for start, length in pages(count):
        cursors[start] = cursor
        page = api.get(f"/v1/agents/{agent}/inbox", limit=length, cursor=cursor)
        cursor = page["next_cursor"]
        if len(page["messages"]) != length or (cursor is None) != (start + length == count):
            raise Failure(f"an inbox of {count} gave {len(page['messages'])} messages instead of {length} at {start}")
        if (start + length) // PORTION > start // PORTION:
            tell(f"paging through an inbox: {start + length:,} of {count:,}")
    # The newest page ends the list, so it costs less: an inbox of few pages must not have it among them.
    *earlier, newest = cursors
    spread = [earlier[len(earlier) * n // DEPTHS] for n in range(DEPTHS)]
    return StoredInbox(
        newest=_path(agent, cursors[newest]),
        deep=tuple(_path(agent, cursors[start]) for start in dict.fromkeys(spread)),
    )


def pages(count: int) -> Iterator[tuple[int, int]]:
    """Start and length of each page of an inbox: as long as pages may be, and the newest as long as a poll's."""
    start = 0
    while start < count:
        left = count - start
        length = left if left <= POLL_MESSAGES else min(LONGEST_PAGE, left - POLL_MESSAGES)
        yield start, length
        start += length


def _path(agent: str, cursor: str | None) -> str:
    query = {"limit": POLL_MESSAGES} | ({"cursor": cursor} if cursor else {})
    return f"/v1/agents/{agent}/inbox?{urlencode(query)}"
