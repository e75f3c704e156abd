"""The part of an agent's log that clients of CueAPI read: in order, whole, and without reading everything else."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from contracts.tenant_events import EventFilter, EventPage, EventType, StoredEvent, TenantEvent
from gateway.peer_events import TheirEvents

WANTED = EventFilter(owner="max", agent_id="agent_a")
DELIVERED, DIGEST, ACCEPTED = EventType.MESSAGE_DELIVERED, EventType.MESSAGE_DIGEST, EventType.MESSAGE_ACCEPTED


@dataclass(kw_only=True)
class Log:
    """A log of these types under the sequences 1, 2, 3 …; `arriving` are appended after the first read."""

    types: list[EventType]
    arriving: list[EventType] = field(default_factory=list)
    n_read: int = 0
    followed_after: int | None = None

    async def publish(self, event: TenantEvent) -> None:
        raise NotImplementedError

    async def last_seq(self) -> int:
        return len(self.types)

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        found = self._behind(after, wanted.type)
        self.n_read += len(found[:limit])
        self.types, self.arriving = [*self.types, *self.arriving], []
        return EventPage(events=tuple(found[:limit]), has_more=len(found) > limit)

    async def follow(self, wanted: EventFilter, *, after: int) -> AsyncGenerator[Sequence[StoredEvent], None]:
        self.followed_after = after
        yield self._behind(after, wanted.type)

    def _behind(self, after: int, kind: str | None) -> list[StoredEvent]:
        numbered = enumerate(self.types, 1)
        return [
            StoredEvent(seq=seq, attributes={"type": each.value})
            for seq, each in numbered
            if seq > after and (kind == each.value or kind == "message.*")
        ]


async def pages(log: Log, limit: int) -> list[list[int]]:
    """The sequences of all pages, by their cursor."""
    found: list[list[int]] = []
    while True:
        page = await TheirEvents(log).read(WANTED, after=found[-1][-1] if found else 0, limit=limit)
        found.append([each.seq for each in page.events])
        if not page.has_more:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_of_any_size_hold_both_types_in_order(limit: int) -> None:
    types = [DELIVERED, ACCEPTED, DIGEST, DELIVERED, DELIVERED, DIGEST, ACCEPTED, DELIVERED, DIGEST]
    found = await pages(Log(types=types), limit)
    assert [seq for page in found for seq in page] == [1, 3, 4, 5, 6, 8, 9]
    assert {len(page) for page in found[:-1]} <= {limit}


async def test_what_is_not_theirs_is_not_read() -> None:
    log = Log(types=[ACCEPTED] * 50_000 + [DELIVERED])
    assert await pages(log, 10) == [[50_001]]
    assert log.n_read == 1


async def test_what_is_appended_between_the_two_reads_is_not_passed_over() -> None:
    log = Log(types=[DIGEST], arriving=[DELIVERED, DIGEST])
    first = await TheirEvents(log).read(WANTED, after=0, limit=10)
    rest = await TheirEvents(log).read(WANTED, after=first.events[-1].seq, limit=10)
    assert [each.seq for page in (first, rest) for each in page.events] == [1, 2, 3]


async def test_whoever_waits_goes_on_where_reading_ended() -> None:
    log = Log(types=[ACCEPTED] * 100)
    theirs = TheirEvents(log)
    assert not (await theirs.read(WANTED, after=0, limit=10)).events
    async for batch in theirs.follow(WANTED, after=0):
        assert batch == []
    assert log.followed_after == 100
