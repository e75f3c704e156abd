"""An agent's mailbox while somebody listens to it: what waits, what arrives, in which portions.

Handing a message out marks it as delivered. The mark is an event of the ledger, and its sequence is the reader's
cursor: whatever was marked for a reader that never got it lies behind the cursor of that reader.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import anyio
from pydantic_core import from_json

from contracts.clock import Clock
from contracts.errors import PostroomError, Rejected
from contracts.records import Agent, JsonObject, Principal
from contracts.words import Channel, State
from gateway.ports import Page, Queries, Query, Watch
from gateway.wake import Wake, wake_of
from router.service import Service

PAGE: Final = 50
MARKS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message handed out: its view, and the sequence of its mark."""

    seq: int
    view: JsonObject


async def page_of(query: Query, queries: Queries) -> Page:
    await queries.settle()
    return await queries.page(query)


async def gathered(
    query: Query, page: Page, wake: Wake, *, queries: Queries, arrivals: AsyncIterator[None], clock: Clock
) -> Page:
    """The page with what else arrives within the receiver's window, which begins now; no more than it takes at once."""
    until = clock.now().timestamp() + wake.window_s
    while len(page.views) < min(wake.max_batch, query.limit):
        left_s = until - clock.now().timestamp()
        if left_s <= 0:
            break
        with anyio.move_on_after(left_s):
            await anext(arrivals)
        page = await page_of(query, queries)
    return page


class Mailbox:
    """One agent's mailbox as one reader hears it."""

    def __init__(
        self, agent: Agent, reader: Principal, *, service: Service, queries: Queries, watch: Watch, clock: Clock
    ) -> None:
        self._agent = agent
        self._reader = reader
        self._service = service
        self._queries = queries
        self._watch = watch
        self._clock = clock
        self._seen = 0

    async def listen(self, after: int) -> AsyncGenerator[Sequence[Mail], None]:
        """Portions of mail, oldest first; an empty one says "nothing new", about once a second.

        `after` is the sequence of the last mail this reader has got; 0 for a reader that has got nothing.
        """
        self._seen = after
        async with self._watch.inbox(self._agent.id) as arrivals:
            async for portion in self._left_behind():
                yield portion
            async with aclosing(self._arriving(arrivals)) as portions:
                async for portion in portions:
                    yield portion

    async def _left_behind(self) -> AsyncGenerator[Sequence[Mail], None]:
        """What was marked behind the cursor and neither read nor acknowledged: perhaps nobody ever got it."""
        message_ids: list[str] = []
        page = await page_of(self._query(State.INBOX_DELIVERED), self._queries)
        message_ids += _ids(page)
        while page.next_after is not None:
            page = await self._queries.page(self._query(State.INBOX_DELIVERED, page.next_after))
            message_ids += _ids(page)
        mail = self._unseen(await self._handed_out(message_ids))
        for start in range(0, len(mail), PAGE):
            yield mail[start : start + PAGE]

    async def _arriving(self, arrivals: AsyncIterator[None]) -> AsyncGenerator[Sequence[Mail], None]:
        wake = wake_of(self._agent.metadata)
        query = self._query(State.IN_INBOX)
        while True:
            page = await page_of(query, self._queries)
            if page.views and wake.is_coalesced:
                page = await gathered(query, page, wake, queries=self._queries, arrivals=arrivals, clock=self._clock)
            mail = self._unseen(await self._handed_out(_ids(page)[: wake.max_batch]))
            yield mail
            if not mail:
                await anext(arrivals)

    def _query(self, state: State, after: int | None = None) -> Query:
        return Query(
            owner=self._agent.owner,
            agent_id=self._agent.id,
            states=(state,),
            channel=Channel.INBOX,
            after=after,
            limit=PAGE if state is State.INBOX_DELIVERED else max(PAGE, wake_of(self._agent.metadata).max_batch),
            oldest_first=True,
        )

    def _unseen(self, mail: Iterable[Mail]) -> list[Mail]:
        """In the order of their marks. A row may lag behind its mark, and show once more what this reader has got."""
        fresh = sorted((each for each in mail if each.seq > self._seen), key=lambda each: each.seq)
        if fresh:
            self._seen = fresh[-1].seq
        return fresh

    async def _handed_out(self, message_ids: Sequence[str]) -> list[Mail]:
        """Mark messages as delivered; what went away meanwhile is left out, and what was read by somebody else too."""
        handed: list[Mail] = []
        failures: list[PostroomError] = []
        limiter = anyio.CapacityLimiter(MARKS_AT_ONCE)

        async def mark(message_id: str) -> None:
            async with limiter:
                try:
                    standing = await self._service.mark(message_id, State.INBOX_DELIVERED, self._reader)
                except Rejected:
                    return
                except PostroomError as error:
                    failures.append(error)
                    return
            if standing.execution.state is State.INBOX_DELIVERED:
                handed.append(Mail(seq=standing.history.head_seq, view=standing.view))

        async with anyio.create_task_group() as marks:
            for message_id in message_ids:
                marks.start_soon(mark, message_id)
        if failures:
            raise failures[0]
        return handed


def _ids(page: Page) -> list[str]:
    views: list[dict[str, Any]] = [from_json(view) for view in page.views]
    return [view["id"] for view in views]
