"""An agent's log for clients of CueAPI that name no type: a message is told once, when it is delivered; digests."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from contracts.tenant_events import EventFilter, EventPage, EventType, StoredEvent
from gateway.ports import EventLog

TYPES: Final = (EventType.MESSAGE_DELIVERED, EventType.MESSAGE_DIGEST)
FAMILY: Final = "message.*"


class TheirEvents:
    """A log with these types and no others, in the log's own order and under its sequences. For one reader."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._read_to = 0

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        """As the log's. Each type is read by itself: what lies between may be any number of events."""
        # Up to here both reads see the same log: what is appended between them would have a gap before it.
        end = await self._log.last_seq()
        pages = [await self._log.read(replace(wanted, type=each.value), after=after, limit=limit) for each in TYPES]
        events = sorted((each for page in pages for each in page.events if each.seq <= end), key=_seq)
        has_more = len(events) > limit or any(page.has_more for page in pages)
        if not has_more:
            self._read_to = end
        return EventPage(events=tuple(events[:limit]), has_more=has_more)

    async def follow(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Sequence[StoredEvent], None]:
        start = max(after, self._read_to)
        async with aclosing(self._log.follow(replace(wanted, type=FAMILY), after=start)) as batches:
            async for batch in batches:
                yield [event for event in batch if event.type in TYPES]


def _seq(event: StoredEvent) -> int:
    return event.seq
