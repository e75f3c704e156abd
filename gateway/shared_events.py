"""One reading of an owner's events for all who follow them: each is fetched, decoded and rendered once per gateway.

    a reader:  looks up ── has seen all up to where its queue begins ──▶ takes what the owner's feed hands on
                  ▲                                                        │
                  └── more came than its queue holds, or the feed failed ──┘

Both ways go on behind the last sequence seen, and the queue is opened before the last look, so nothing is missing or
told twice at the crossing. A feed is one consumer of the owner's subjects, from its first reader until some seconds
after its last: what nobody reads costs nothing, and what is not the owner's never comes this way.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from contracts.errors import Unavailable
from contracts.tenant_events import EventFilter, EventPage, StoredEvent, TenantEvent
from gateway.event_queue import EventQueue, ToldEvent, told
from gateway.ports import EventLog

log = structlog.get_logger(__name__)

MAX_EVENTS: Final = 1_000
MAX_BYTES: Final = 1024 * 1024
LOOKED_UP_AT_ONCE: Final = 500
TICK_S: Final = 1.0
LINGERS: Final = 3
"""For so many ticks a feed outlives its last reader: whoever polls comes back before that."""
RETRY_S: Final = 0.2

Batch = Sequence[ToldEvent]


class _Feed:
    """An owner's events as they are appended. Everything up to `reached` was handed on, or is older than the feed."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.readers: set[_Reader] = set()
        self.reached: int | None = None
        self.is_over = False

    def begin(self, seq: int) -> None:
        self.reached = seq
        self.wake()

    def hand_on(self, batch: Batch) -> None:
        if not batch:
            return
        self.reached = batch[-1].event.seq
        for reader in self.readers:
            reader.hear(batch)

    def wake(self) -> None:
        """Let those who wait look around."""
        for reader in self.readers:
            reader.news.set()

    def end(self) -> None:
        self.is_over = True
        for reader in self.readers:
            reader.queue.shut()
        self.wake()


class SharedEvents:
    """Implements `gateway.ports.EventLog` on another one. Feeds run in `tasks`, and end with it."""

    def __init__(
        self,
        source: EventLog,
        tasks: TaskGroup,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        tick_s: float = TICK_S,
    ) -> None:
        self._source = source
        self._tasks = tasks
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._tick_s = tick_s
        self._feeds: dict[str, _Feed] = {}

    @property
    def n_feeds(self) -> int:
        """How many owners' events are being followed."""
        return len(self._feeds)

    @property
    def n_readers(self) -> int:
        return sum(len(feed.readers) for feed in self._feeds.values())

    async def publish(self, event: TenantEvent) -> None:
        await self._source.publish(event)

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        return await self._source.read(wanted, after=after, limit=limit)

    async def last_seq(self) -> int:
        return await self._source.last_seq()

    async def follow(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Sequence[StoredEvent], None]:
        async with aclosing(self.tell(wanted, after=after)) as batches:
            async for batch in batches:
                yield [each.event for each in batch]

    async def tell(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Batch, None]:
        """As `follow`, with each event's frame."""
        queue = EventQueue(wanted, max_events=self._max_events, max_bytes=self._max_bytes)
        reader = _Reader(self, wanted, queue, after)
        try:
            while True:
                yield await reader.next_batch()
        finally:
            reader.leave()

    def join(self, reader: "_Reader") -> _Feed:
        """The owner's feed, with this reader among those it hands everything on to; begun for the first one."""
        owner = reader.wanted.owner
        feed = self._feeds.get(owner)
        if feed is None:
            feed = self._feeds[owner] = _Feed(owner)
            self._tasks.start_soon(self._run, feed)
        feed.readers.add(reader)
        return feed

    async def _run(self, feed: _Feed) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, feed)
                await self._until_unread(feed)
                self._end(feed)
                tasks.cancel_scope.cancel()
        finally:
            self._end(feed)

    async def _follow(self, feed: _Feed) -> None:
        try:
            start = await self._log_end()
            feed.begin(start)
            async with aclosing(self._source.follow(EventFilter(owner=feed.owner), after=start)) as batches:
                async for batch in batches:
                    feed.hand_on([told(event) for event in batch])
        except Exception as error:
            # Its readers look up by themselves and meet what is wrong, if it concerns them; other owners' do not.
            log.exception("event_feed_failed", owner=feed.owner, after_seq=feed.reached, exc_info=error)
            self._end(feed)

    async def _log_end(self) -> int:
        while True:
            try:
                return await self._source.last_seq()
            except Unavailable as trouble:
                log.warning("event_feed_waits", reason=trouble.code)
                await anyio.sleep(RETRY_S)

    async def _until_unread(self, feed: _Feed) -> None:
        n_unread = 0
        while n_unread < LINGERS and not feed.is_over:
            await anyio.sleep(self._tick_s)
            feed.wake()
            n_unread = 0 if feed.readers else n_unread + 1

    def _end(self, feed: _Feed) -> None:
        feed.end()
        if self._feeds.get(feed.owner) is feed:
            del self._feeds[feed.owner]


class _Reader:
    """One who follows an owner's events: what it wants, what it has seen, and what is handed to it."""

    def __init__(self, shared: SharedEvents, wanted: EventFilter, queue: EventQueue, after: int) -> None:
        self._shared = shared
        self._seen = after
        self._feed: _Feed | None = None
        self._has_caught_up = False
        self.wanted = wanted
        self.queue = queue
        self.news = anyio.Event()

    def hear(self, batch: Batch) -> None:
        self.queue.add(batch)
        # What is not wanted wakes nobody; a queue that has just been shut does.
        if len(self.queue) or not self.queue.is_open:
            self.news.set()

    async def next_batch(self) -> Batch:
        """What comes next; nothing, about once a second, when nothing does."""
        batch = await (self._take() if self._has_caught_up and self.queue.is_open else self._look_up())
        if batch:
            self._seen = batch[-1].event.seq
        return batch

    def leave(self) -> None:
        if self._feed is not None:
            self._feed.readers.discard(self)

    async def _take(self) -> Batch:
        if not len(self.queue):
            await self._wait()
        return self.queue.take(self._seen)

    async def _look_up(self) -> Batch:
        feed = self._joined()
        if feed.reached is None:
            await self._wait()
            return ()
        if not self.queue.is_open:
            self._open(feed.reached)
            if self._has_caught_up:
                return ()
        return await self._looked_up()

    def _joined(self) -> _Feed:
        if self._feed is None or self._feed.is_over:
            self.leave()
            self._feed = self._shared.join(self)
        return self._feed

    def _open(self, begin: int) -> None:
        """Have everything behind `begin` kept."""
        if self._has_caught_up:
            log.info("event_reader_fell_behind", owner=self.wanted.owner, after_seq=self._seen)
        self.queue.open()
        self._has_caught_up = self._seen >= begin

    async def _looked_up(self) -> Batch:
        try:
            page = await self._shared.read(self.wanted, after=self._seen, limit=LOOKED_UP_AT_ONCE)
        except Unavailable as trouble:
            log.warning("events_interrupted", owner=self.wanted.owner, after_seq=self._seen, reason=trouble.code)
            await anyio.sleep(RETRY_S)
            return ()
        self._has_caught_up = not page.has_more
        return [told(event) for event in page.events]

    async def _wait(self) -> None:
        self.news = anyio.Event()
        await self.news.wait()
