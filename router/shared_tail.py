"""One reading of the ledger for several followers: who leads reads it, and hands every batch on.

    beside:  apart ── its own reading has reached what is handed on ──▶ joined: takes what the leader read
               ▲                                                          │
               └── nobody leads any more, or too much is not taken yet ◀──┘

Each event is fetched and decoded once as long as all keep up. A follower goes on by sequence whichever way it is told,
so nothing is missing or told twice at the crossing; one that lags or begins further back reads by itself meanwhile, and
neither holds up the leader nor makes it remember without bound.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import anyio

from router.backlog import Backlog
from router.ports import LedgerTail, Moved

MAX_EVENTS: Final = 5_000
MAX_BYTES: Final = 32 * 1024 * 1024


class _Follower:
    """One who is handed what the leader reads."""

    __slots__ = ("backlog", "news")

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog
        self.news = anyio.Event()

    async def take(self, after_seq: int) -> list[Moved]:
        """What has come behind `after_seq`, as soon as anything has; empty when it was nothing new."""
        if not len(self.backlog):
            self.news = anyio.Event()
            await self.news.wait()
        return self.backlog.take(after_seq)


class SharedTail:
    """Implements `router.ports.LedgerTail` for the leader: whoever follows while nobody does. `beside` never leads.

    The leader must not dawdle: the others hear nothing while it does not ask for its next batch.
    """

    def __init__(self, source: LedgerTail, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._source = source
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._followers: list[_Follower] = []
        self._reached: int | None = None
        self.newest_seq = 0
        """The newest event that was read."""

    @property
    def beside(self) -> LedgerTail:
        """The tail for those who follow beside the leader."""
        return _Beside(self)

    async def follow(self, after_seq: int) -> AsyncGenerator[Sequence[Moved], None]:
        leads = self._reached is None
        if leads:
            self._reached = after_seq
        try:
            async with aclosing(self._source.follow(after_seq)) as batches:
                async for batch in batches:
                    if leads:
                        self._hand_on(batch)
                    yield batch
        finally:
            if leads:
                self._leave_alone()

    async def last_seq(self) -> int:
        return await self._source.last_seq()

    async def follow_beside(self, after_seq: int) -> AsyncGenerator[Sequence[Moved], None]:
        """What `beside` tells."""
        follower = _Follower(Backlog(max_events=self._max_events, max_bytes=self._max_bytes))
        self._followers.append(follower)
        seen = after_seq
        try:
            while True:
                telling = self._joined(follower, seen) if self._joins(follower, seen) else self._apart(follower, seen)
                async with aclosing(telling) as batches:
                    async for batch in batches:
                        seen = batch[-1].stored.seq if batch else seen
                        yield batch
        finally:
            self._followers.remove(follower)

    async def _apart(self, follower: _Follower, seen: int) -> AsyncGenerator[Sequence[Moved], None]:
        async with aclosing(self._source.follow(seen)) as batches:
            async for batch in batches:
                seen = batch[-1].stored.seq if batch else seen
                yield batch
                if self._joins(follower, seen):
                    return

    async def _joined(self, follower: _Follower, seen: int) -> AsyncGenerator[Sequence[Moved], None]:
        while follower.backlog.is_open:
            batch = await follower.take(seen)
            seen = batch[-1].stored.seq if batch else seen
            yield batch

    def _joins(self, follower: _Follower, seen: int) -> bool:
        """Whether the follower, who has seen all up to `seen`, needs only what the leader hands on."""
        # Beside a leader further back one would wait until that has caught up.
        if not follower.backlog.is_open and self._reached is not None and self._reached >= seen:
            follower.backlog.open(self._reached)
        return follower.backlog.reaches_back_to(seen)

    def _hand_on(self, batch: Sequence[Moved]) -> None:
        if batch:
            self._reached = self.newest_seq = batch[-1].stored.seq
        for follower in self._followers:
            follower.backlog.add(batch)
            follower.news.set()

    def _leave_alone(self) -> None:
        self._reached = None
        for follower in self._followers:
            follower.backlog.shut()
            follower.news.set()


class _Beside:
    """Implements `router.ports.LedgerTail` for a follower."""

    def __init__(self, shared: SharedTail) -> None:
        self._shared = shared

    def follow(self, after_seq: int) -> AsyncGenerator[Sequence[Moved], None]:
        return self._shared.follow_beside(after_seq)

    async def last_seq(self) -> int:
        return await self._shared.last_seq()
