"""The log of tenants' events on a real broker: every ledger event once and in order, whoever writes, whatever fails."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from contracts.events import Event, InboxMarked, OutcomeRecorded
from contracts.records import Outcome
from contracts.subjects import Names
from contracts.tenant_events import EventFilter, EventType, LogPlace, StoredEvent, TenantEvent
from contracts.words import State
from infra.background import beside
from infra.clock import SystemClock, SystemIds
from infra.embedded import NatsEndpoint
from infra.event_stream import EventStream
from infra.jetstream_api import StoredRecord
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from infra.nats_connection import Broker
from router.derivation import Facts, derive
from router.event_log import EventWriter
from router.metrics import EventLogMetrics
from router.ports import Moved
from router.shared_tail import SharedTail
from tests.nats_streams import NOW, accepted, provisioned

EVERYTHING = EventFilter(owner="max")
PAIRS = (
    (EventType.MESSAGE_ACCEPTED, EventType.EXECUTION_OFFERED),
    (EventType.EXECUTION_LEASED, EventType.MESSAGE_DELIVERED),
    (EventType.MESSAGE_READ,),
)


def life(ulid: str, length: int) -> list[Event]:
    """An inbox message's first `length` events."""
    marks: list[Event] = [
        InboxMarked(at=NOW + timedelta(seconds=1), by="key:k1", state=State.INBOX_DELIVERED),
        InboxMarked(at=NOW + timedelta(seconds=2), by="key:k1", state=State.INBOX_READ),
        OutcomeRecorded(at=NOW + timedelta(seconds=3), by="key:k1", outcome=Outcome(success=True)),
    ]
    return [accepted(ulid), *marks][:length]


async def write_lives(ledger: StreamLedger, lives: Sequence[Sequence[Event]], order: random.Random) -> None:
    """Append all lives, interleaved."""
    under_way = [(SystemIds().ulid(), list(events), 0) for events in lives if events]
    while under_way:
        place = order.randrange(len(under_way))
        ulid, events, seq = under_way.pop(place)
        first = events.pop(0)
        if seq == 0:
            first = accepted(ulid)
        seq = await ledger.append(ulid, first, expected_seq=seq)
        if events:
            under_way.append((ulid, events, seq))


def shuffled(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - an order, no secret


async def told_by(tail: StreamTail, goal: int) -> list[str]:
    """What the log has to hold: the ids of everything that is derived from the ledger up to `goal`."""
    facts: dict[str, Facts] = {}
    ids: list[str] = []
    if goal:
        async for batch in tail.follow(0):
            for moved in batch:
                facts[moved.ulid], events = derive(facts.get(moved.ulid), moved.ulid, moved.stored)
                ids += [event.id for event in events]
            if batch and batch[-1].stored.seq >= goal:
                break
    return ids


async def whole_log(events: EventStream) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while True:
        page = await events.read(EVERYTHING, after=found[-1].seq if found else 0, limit=1_000)
        found += page.events
        if not page.has_more:
            return found


@asynccontextmanager
async def writers(broker: Broker, names: Names, ledger: StreamLedger, n: int) -> AsyncIterator[list[anyio.CancelScope]]:
    """`n` writers at work, each beside a reading of its own router's; each ends with its scope."""
    scopes = [anyio.CancelScope() for _ in range(n)]

    async def read(tail: SharedTail) -> None:
        async for _ in tail.follow(0):
            pass

    async def run(scope: anyio.CancelScope) -> None:
        tail = SharedTail(StreamTail(broker, names), max_events=3)
        with scope:
            async with beside(partial(read, tail)):
                await EventWriter(
                    log=EventStream(broker, names),
                    ledger=ledger,
                    tail=tail.beside,
                    metrics=EventLogMetrics(CollectorRegistry(), SystemClock(), lambda: 0),
                    stand_by_s=0.05,
                    min_interval_s=0,
                ).run()

    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(run, scope)
        yield scopes
        group.cancel_scope.cancel()


async def until_written(events: EventStream, goal: int) -> None:
    with anyio.fail_after(20):
        while (await events.place()).ledger_seq < goal:
            await anyio.sleep(0.01)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    n_writers=st.integers(1, 3),
    restarts=st.integers(0, 2),
    n_foreign=st.integers(0, 5),
    seed=st.integers(0, 2**16),
)
async def test_every_ledger_event_is_told_once_and_in_order(
    nats_server: NatsEndpoint, lengths: list[int], n_writers: int, restarts: int, n_foreign: int, seed: int
) -> None:
    order = shuffled(seed)
    prefix = f"t{order.randrange(2**40):x}{SystemIds().ulid()[-4:]}"
    # Every life ends with something that is told, so that the last ledger sequence appears in the log.
    lives = [life("x", length if length != 2 else 3) for length in lengths]
    async with (
        provisioned(nats_server.url, prefix) as (broker, names),
        StreamLedger.open(broker, names) as ledger,
    ):
        events, tail = EventStream(broker, names), StreamTail(broker, names)
        for _ in range(restarts + 1):
            async with writers(broker, names, ledger, n_writers) as scopes, anyio.create_task_group() as group:
                group.start_soon(write_lives, ledger, lives, order)
                for number in range(n_foreign):
                    await events.publish(foreign(f"{prefix}-{number}"))
                scopes[0].cancel()
        async with writers(broker, names, ledger, n_writers):
            await write_lives(ledger, lives, order)
            goal = await tail.last_seq()
            await until_written(events, goal)
        found = await whole_log(events)

        derived = [event.attributes["id"] for event in found if event.type != EventType.AGENT_UPDATED]
        assert derived == await told_by(tail, goal)
        assert len(found) - len(derived) == n_foreign * (restarts + 1)
        assert [event.seq for event in found] == sorted({event.seq for event in found})


async def test_a_reader_that_goes_on_after_its_cursor_misses_nothing_that_was_committed_late(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    async with (
        provisioned(nats_server.url, prefix) as (broker, names),
        StreamLedger.open(broker, names) as ledger,
    ):
        events = EventStream(broker, names)
        seen: list[str] = []

        async def read_in_small_steps() -> None:
            after = 0
            while True:
                page = await events.read(EVERYTHING, after=after, limit=3)
                seen.extend(event.attributes["id"] for event in page.events)
                after = page.events[-1].seq if page.events else after
                await anyio.lowlevel.checkpoint()

        async with writers(broker, names, ledger, 2), anyio.create_task_group() as group:
            group.start_soon(read_in_small_steps)
            async with anyio.create_task_group() as senders:
                for number in range(20):
                    senders.start_soon(write_lives, ledger, [life("x", 4)], shuffled(number))
                    senders.start_soon(events.publish, foreign(f"{number}"))
            await until_written(events, await StreamTail(broker, names).last_seq())
            whole = [event.attributes["id"] for event in await whole_log(events)]
            with anyio.fail_after(10):
                while len(seen) < len(whole):
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    assert seen == whole
    assert Counter(seen).most_common(1)[0][1] == 1


async def test_two_writers_at_the_same_place_write_once(nats_server: NatsEndpoint, prefix: str) -> None:
    async with (
        provisioned(nats_server.url, prefix) as (broker, names),
        StreamLedger.open(broker, names) as ledger,
    ):
        events, tail = EventStream(broker, names), StreamTail(broker, names)
        await write_lives(ledger, [life("x", 4)], shuffled(1))
        moved: list[Moved] = []
        async for batch in tail.follow(0):
            moved += batch
            if len(moved) == 4:
                break
        facts: Facts | None = None
        derived: list[TenantEvent] = []
        for each in moved:
            facts, told = derive(facts, each.ulid, each.stored)
            derived += told
        place = await events.place()
        outcomes: list[str] = []

        async def write() -> None:
            try:
                await events.append(derived, place)
                outcomes.append("written")
            except Exception as error:  # noqa: BLE001 - which one is what is tested
                outcomes.append(type(error).__name__)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(write)

        assert sorted(outcomes) == ["Stale", "Stale", "written"]
        assert len(await whole_log(events)) == len(derived)
        assert (await events.place()).ledger_seq == moved[-1].stored.seq


async def test_the_place_is_that_of_the_newest_append_whatever_it_ends_with(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    async with provisioned(nats_server.url, prefix) as (broker, names):
        events = EventStream(broker, names)
        place = await events.place()
        for seq, types in enumerate(PAIRS, 1):
            told = [replace(foreign(f"{seq}-{kind}"), type=kind, ledger_seq=seq) for kind in types]
            place = await events.append(told, place)
            await events.publish(foreign(f"{seq}"))

            found = await events.place()
            assert (found.ledger_seq, found.last_seq) == (seq, place.last_seq + 1)
            place = found


async def test_a_place_looked_for_while_somebody_appends_is_that_behind_the_append(
    nats_server: NatsEndpoint, prefix: str
) -> None:
    class Overtaken(EventStream):
        """Another writer appends when one family has been looked at."""

        async def _last_of(self, family: str) -> StoredRecord | None:
            found = await super()._last_of(family)
            if family == "message" and found is None:
                told = [replace(foreign(kind), type=kind, ledger_seq=7) for kind in PAIRS[1]]
                await self.append(told, LogPlace(last_seq=0, ledger_seq=0))
            return found

    async with provisioned(nats_server.url, prefix) as (broker, names):
        assert await Overtaken(broker, names).place() == LogPlace(last_seq=2, ledger_seq=7)


@pytest.mark.parametrize("n_messages", [400])
async def test_a_writer_that_starts_late_catches_up(nats_server: NatsEndpoint, prefix: str, n_messages: int) -> None:
    async with (
        provisioned(nats_server.url, prefix) as (broker, names),
        StreamLedger.open(broker, names) as ledger,
    ):
        events, tail = EventStream(broker, names), StreamTail(broker, names)
        async with anyio.create_task_group() as group:
            for number in range(n_messages):
                group.start_soon(write_lives, ledger, [life("x", 1)], shuffled(number))
        async with writers(broker, names, ledger, 1):
            await until_written(events, await tail.last_seq())

        types = Counter(event.type for event in await whole_log(events))
        assert types == {EventType.MESSAGE_ACCEPTED: n_messages, EventType.MESSAGE_DELIVERED: n_messages}


def foreign(name: str) -> TenantEvent:
    return TenantEvent(
        id=f"evt_{name}",
        type=EventType.AGENT_UPDATED,
        owner="max",
        agent_id="agent_abcdefghijkl",
        subject="agent_abcdefghijkl",
        time=NOW,
        data={},
    )
