"""What tests of shared followings need: a log on a real broker, and readers that keep what they are told."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio

from contracts.subjects import Names
from contracts.tenant_events import EventFilter, EventPage, EventType, StoredEvent, TenantEvent
from gateway.shared_events import SharedEvents
from infra.background import beside
from infra.clock import SystemIds
from infra.event_stream import EventStream
from infra.jetstream_api import call
from infra.nats_connection import Broker
from tests.nats_streams import NOW

AGENTS = ("agent_aaaaaaaaaaaa", "agent_bbbbbbbbbbbb")
TYPES = (EventType.AGENT_UPDATED, EventType.SESSION_ATTACHED)
TICK_S = 0.05


class CountedLog(EventStream):
    """Counts how often somebody reads by itself."""

    def __init__(self, broker: Broker, names: Names) -> None:
        super().__init__(broker, names)
        self.n_reads = 0

    async def read(self, wanted: EventFilter, *, after: int, limit: int) -> EventPage:
        self.n_reads += 1
        return await super().read(wanted, after=after, limit=limit)


@asynccontextmanager
async def shared(source: EventStream, **bounds: Any) -> AsyncIterator[SharedEvents]:
    async with beside() as tasks:
        yield SharedEvents(source, tasks, **{"tick_s": TICK_S, **bounds})


class Hearer:
    """A reader, and every event it was told."""

    def __init__(self, events: SharedEvents, wanted: EventFilter, after: int) -> None:
        self.wanted = wanted
        self.after = after
        self.heard: list[StoredEvent] = []
        self._batches = events.tell(wanted, after=after)

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.heard]

    async def hear(self) -> None:
        """For as long as nobody cancels it."""
        async with aclosing(self._batches):
            while True:
                await self.hear_once()

    async def hear_once(self) -> int:
        """How many events came at once."""
        batch = await anext(self._batches)
        self.heard += [each.event for each in batch]
        return len(batch)

    async def hear_until(self, seq: int) -> None:
        with anyio.fail_after(10):
            while not self.heard or self.heard[-1].seq < seq:
                await self.hear_once()

    async def leave(self) -> None:
        await self._batches.aclose()


def about(owner: str, agent: str = AGENTS[0], kind: EventType = TYPES[0]) -> TenantEvent:
    return TenantEvent(
        id=f"evt_{SystemIds().ulid()}",
        type=kind,
        owner=owner,
        agent_id=agent,
        subject=agent,
        time=NOW,
        data={"owner": owner},
    )


async def publish(events: SharedEvents | EventStream, owner: str, count: int) -> int:
    """So many events of this owner; the last sequence."""
    for _ in range(count):
        await events.publish(about(owner))
    return await events.last_seq()


async def n_consumers(broker: Broker, names: Names) -> int:
    info = await call(broker, f"STREAM.INFO.{names.events_stream}")
    return int(info["state"]["consumer_count"])
