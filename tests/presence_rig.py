"""What the tests of presence events need: a watch on real servers, and time in which somebody listens."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from contracts.directory import LiveSessions, live_key
from contracts.records import Agent, LiveSession
from contracts.tenant_events import EventFilter, EventType, StoredEvent
from gateway.ports import Write
from infra.event_stream import EventStream
from infra.presence_records import DirectoryPresence
from infra.presence_store import RedisPresence
from router.presence_metrics import PresenceMetrics
from router.presence_ports import PresenceLog
from router.presence_watch import PresenceWatch
from tests.installation import Installation

RENEWED_EVERY_S = 5.0


def watch_of(
    house: Installation, *, log: PresenceLog | None = None, registry: CollectorRegistry | None = None
) -> PresenceWatch:
    """One router's watch, to be run or driven by hand."""
    return PresenceWatch(
        records=DirectoryPresence(house.directory, house.broker, house.names),
        listening=house.beats,
        due=RedisPresence(house.redis, house.clock),
        log=log or EventStream(house.broker, house.names),
        clock=house.clock,
        metrics=PresenceMetrics(registry or CollectorRegistry()),
    )


@asynccontextmanager
async def running(*watches: PresenceWatch) -> AsyncIterator[None]:
    """These watches beside the block."""
    async with anyio.create_task_group() as group:
        for watch in watches:
            group.start_soon(watch.run)
        yield
        group.cancel_scope.cancel()


async def listen_for(house: Installation, seconds: float, *, beating: Sequence[LiveSession] = ()) -> None:
    """Let time pass in which a gateway could be heard, and these sessions were."""
    passed = 0.0
    while passed < seconds:
        step = min(RENEWED_EVERY_S, seconds - passed)
        house.clock.move(seconds=step)
        await house.beats.renew_door()
        if beating:
            await house.beats.beat({each.id: house.clock.now() for each in beating})
        passed += step


async def worker_session(house: Installation, agent: Agent, **changes: Any) -> LiveSession:
    """A session of a worker that is registered just now: overdue after 60 s of silence, stale for good after 90 s."""
    [session] = await house.attach(agent, "worker")
    worker = replace(session, transport="worker", is_default=False, **changes)
    await write_sessions(house, agent, worker)
    return worker


async def write_sessions(house: Installation, agent: Agent, *sessions: LiveSession) -> None:
    found = await house.directory.get(live_key(agent.id), LiveSessions, fresh=True)
    write = Write(
        key=live_key(agent.id), record=LiveSessions(sessions=sessions), expected_seq=found.seq if found else 0
    )
    await house.directory.transact([write])


async def told(house: Installation, agent: Agent, kind: EventType) -> list[StoredEvent]:
    wanted = EventFilter(owner=agent.owner, agent_id=agent.id, type=kind)
    return list((await EventStream(house.broker, house.names).read(wanted, after=0, limit=100)).events)


async def transitions(house: Installation, agent: Agent) -> list[str]:
    """What an agent was told to become, oldest first."""
    return [each.data["to"] for each in await told(house, agent, EventType.AGENT_PRESENCE)]


async def until_told(house: Installation, agent: Agent, *words: str, timeout_s: float = 10) -> None:
    """Wait until exactly these transitions were told."""
    with anyio.fail_after(timeout_s):
        while (found := await transitions(house, agent)) != list(words):
            assert len(found) <= len(words), found
            await anyio.sleep(0.02)


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(0.01)
