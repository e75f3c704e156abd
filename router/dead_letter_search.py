"""Finding dead letters with bounded work: by index what has one, by a look at each view what has none."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic_core import from_json

from contracts.records import JsonObject
from contracts.redrives import DeadLetterFilter
from router.dead_letters import takes
from router.store_ports import DeadLetterIndex

PAGE_ROWS: Final = 200
MAX_ROWS: Final = 2_000
"""Views one search looks through; reading one costs about 20 µs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Views in the order of their acceptance, and where to go on; None when there is no more."""

    views: list[JsonObject]
    next_after: int | None


async def find_dead_letters(
    index: DeadLetterIndex,
    owner: str,
    wanted: DeadLetterFilter,
    *,
    limit: int,
    after: int | None = None,
    oldest_first: bool = False,
    ended_before: datetime | None = None,
) -> Found:
    """Up to `limit` of them; fewer, and a place to go on, where few of many messages fit."""
    found: list[JsonObject] = []
    looked_at = 0
    while True:
        # Never more rows than are wanted, so that the place to go on is behind the last row that was used.
        n_rows = min(PAGE_ROWS, limit - len(found))
        page = await index.page(owner, wanted, after=after, limit=n_rows, oldest_first=oldest_first)
        views = [from_json(view) for view in page.views]
        found += [view for view in views if takes(wanted, view, ended_before=ended_before)]
        looked_at, after = looked_at + len(views), page.next_after
        if after is None or len(found) >= limit or looked_at >= MAX_ROWS or not views:
            return Found(views=found, next_after=after)
