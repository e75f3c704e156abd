"""Lists and counts, answered from the projection in Redis: newest first, a page at a time, never short of rows.

The cursor is the accept sequence of the last row looked at, so a page stays where it is while rows are inserted. A
script looks at a bounded number of rows per call; a filter that hardly anything passes takes several calls, and may
end in a page with fewer rows than asked for and a cursor to go on with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from contracts.errors import Unavailable
from contracts.words import INBOX_STATES, Channel
from gateway.ports import Page, Query
from infra.projection import EPOCH_KEY, RedisProjection, milliseconds
from infra.redis_connection import Argument, RedisConnection, load_script

SEARCH: Final = load_script("projection_layout", "projection_search")
BORDERS: Final = load_script("projection_layout", "projection_borders")
LOOK_AT_ROWS: Final = 1_000
"""Rows a script call may look at: about 5 ms in which the server does nothing else."""
PAGE_CALLS: Final = 40
COUNT_CALLS: Final = 200
COUNT_STEP_ROWS: Final = 500

Mode = Literal["page", "count"]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one script call found, and the cursor behind the last row it looked at; None at the end."""

    items: list[bytes]
    cursor: int | None


class RedisQueries:
    """The gateway's `Queries`.

    The owner is part of every question: with `agent_id`, or with neither agent, it is the receiving owner; with
    `sender_agent_id` it is the sender's owner; with both it has to be both. With `either_side` one of them is enough.
    """

    def __init__(self, connection: RedisConnection, projection: RedisProjection) -> None:
        self._connection = connection
        self._projection = projection

    async def page(self, query: Query) -> Page:
        views: list[bytes] = []
        cursor = query.after
        for _ in range(PAGE_CALLS):
            found = await self._search("page", query, cursor, query.limit - len(views))
            views += [row[row.index(b"\n") + 1 :] for row in found.items]
            cursor = found.cursor
            if cursor is None or len(views) >= query.limit:
                break
        return Page(views=tuple(views), next_after=cursor)

    async def count(self, query: Query) -> int:
        """How many rows pass the filters, whatever the cursor and the limit.

        Raises `Unavailable` (`count_too_costly`) when more than 200 000 rows would have to be looked at one by one.
        """
        total = 0
        cursor: int | None = None
        for _ in range(COUNT_CALLS):
            found = await self._search("count", query, cursor, COUNT_STEP_ROWS)
            total += int(found.items[0])
            cursor = found.cursor
            if cursor is None:
                return total
        raise Unavailable("count_too_costly", "too many rows to look through; ask with fewer filters or read pages")

    async def received_before(self, owner: str, instants: Sequence[datetime]) -> tuple[int, ...]:
        borders = [milliseconds(instant) for instant in instants]
        args: list[Argument] = [self._connection.prefix, owner, *borders]
        status, *counts = await self._connection.run(BORDERS, [self._connection.key(EPOCH_KEY)], args)
        if status != b"ok":
            raise _rebuilding()
        return tuple(counts)

    async def settle(self) -> None:
        await self._projection.settle()

    async def _search(self, mode: Mode, query: Query, cursor: int | None, want: int) -> _Found:
        args: list[Argument] = [
            self._connection.prefix,
            mode,
            query.owner,
            query.agent_id or "",
            query.sender_agent_id or "",
            query.channel.value if query.channel and not _says_inbox_anyway(query) else "",
            # A state named twice would bring its rows twice.
            ",".join(dict.fromkeys(query.states)),
            "" if cursor is None else cursor,
            "oldest" if query.oldest_first else "newest",
            want,
            LOOK_AT_ROWS,
            query.thread or "",
            query.counterpart or "",
            ",".join(str(each) for each in query.priorities),
            milliseconds(query.since) if query.since else "",
            "either" if query.either_side else "",
        ]
        status, *answer = await self._connection.run(SEARCH, [self._connection.key(EPOCH_KEY)], args)
        if status != b"ok":
            raise _rebuilding()
        return _Found(answer[1:], int(float(answer[0])) if answer[0] else None)


def _says_inbox_anyway(query: Query) -> bool:
    """Whether the states asked for are such as nothing but an inbox has: then an index answers without the channel."""
    return query.channel is Channel.INBOX and bool(query.states) and INBOX_STATES.issuperset(query.states)


def _rebuilding() -> Unavailable:
    return Unavailable("projection_rebuilding", "lists are being rebuilt from the ledger", retry_after_s=1)
