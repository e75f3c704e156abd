"""Offsets and totals: how CueAPI's clients turn pages, on lists whose own way to go on is a cursor."""

from dataclasses import replace
from typing import Annotated, Final, TypeAlias

import fastapi
from fastapi import Request

from contracts.errors import Invalid
from contracts.words import INBOX_STATES, Channel
from gateway.peer_views import is_peers_client
from gateway.ports import Page, Queries, Query

MAX_OFFSET: Final = 1_000
SKIP_ROWS: Final = 200
"""Rows passed over per question: an offset reads what it skips."""
Offset: TypeAlias = Annotated[
    int, fastapi.Query(ge=0, le=MAX_OFFSET, description="For CueAPI's clients; cursors are cheaper.")
]


async def page_behind(queries: Queries, query: Query, offset: int) -> Page:
    """The page behind the first `offset` rows.

    Raises `Invalid` (`offset_too_far`) where the filters let so few rows through that skipping has no bound.
    """
    after = query.after
    for start in range(0, offset, SKIP_ROWS):
        wanted = min(SKIP_ROWS, offset - start)
        skipped = await queries.page(replace(query, after=after, limit=wanted))
        after = skipped.next_after
        if after is None:
            return Page(views=(), next_after=None)
        if len(skipped.views) < wanted:
            raise Invalid("offset_too_far", "Few messages fit these filters: go on with a cursor.", field="offset")
    return await queries.page(replace(query, after=after))


async def total_of(queries: Queries, query: Query, page: Page, offset: int, *, is_asked: bool) -> int | None:
    """How many rows fit the filters; None where only looking at each of them would tell, or where nobody asked."""
    whole = page.next_after is None and query.after is None
    if whole and (page.views or not offset):
        return offset + len(page.views)
    indexed = _indexed(query) if is_asked else None
    return await queries.count(indexed) if indexed else None


def asks_for_total(request: Request) -> bool:
    """Whether somebody turns pages by number: with an offset, or by a client that always does."""
    return "offset" in request.query_params or is_peers_client(request.scope["headers"])


def _indexed(query: Query) -> Query | None:
    """The same question as one that indexes count without looking at rows; None when there is none."""
    if query.counterpart or query.thread or query.priorities or query.since:
        return None
    if query.sender_agent_id:
        return None if query.states else query
    # Nothing but an inbox has these states.
    only_inbox = query.channel is Channel.INBOX and query.states and INBOX_STATES.issuperset(query.states)
    return replace(query, channel=None) if only_inbox else None
