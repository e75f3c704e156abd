"""A full log of events: it stands still, says so, hurts nobody else, and goes on where it was once there is room."""

from collections import Counter
from datetime import datetime, timedelta
from functools import partial

import anyio
from prometheus_client import CollectorRegistry

from contracts.subjects import Names
from contracts.tenant_events import EventFilter, EventType
from infra.background import beside
from infra.clock import SystemIds
from infra.embedded import NatsEndpoint
from infra.event_stream import EventStream
from infra.jetstream_api import call
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from infra.nats_connection import Broker
from infra.provision import StreamSettings, provision
from router.event_log import EventWriter
from router.metrics import EventLogMetrics
from router.shared_tail import SharedTail
from tests.nats_streams import NOW, accepted, connected, until

TINY = StreamSettings(ledger_max_bytes=32 * 1024**2, directory_max_bytes=8 * 1024**2, events_max_bytes=64 * 1024)


class LaterClock:
    """A minute after everything that happens."""

    def now(self) -> datetime:
        return NOW + timedelta(minutes=1)


async def test_a_full_log_stands_still_and_goes_on_when_there_is_room(nats_server: NatsEndpoint, prefix: str) -> None:
    names, registry = Names(prefix=prefix), CollectorRegistry()
    async with connected(nats_server.url) as broker:
        await provision(broker, names, TINY)
        events, tail = EventStream(broker, names, full_retry_s=0.05), SharedTail(StreamTail(broker, names))
        async with StreamLedger.open(broker, names) as ledger:
            writer = EventWriter(
                log=events,
                ledger=ledger,
                tail=tail.beside,
                metrics=EventLogMetrics(registry, LaterClock(), lambda: tail.newest_seq),
                min_interval_s=0,
            )

            def measured(name: str) -> float:
                return registry.get_sample_value(f"postroom_event_log_{name}") or 0.0

            async with beside(partial(read, tail), writer.run):
                await send(ledger, 100)
                await until(lambda: measured("full") == 1)
                await send(ledger, 100)
                # Whoever else follows the ledger is told all the same.
                await until(lambda: tail.newest_seq == 200)
                written = measured("events_written_total")
                await until(lambda: measured("full") == 1)
                assert written < 400
                assert measured("behind") > 0
                assert measured("oldest_unwritten_seconds") == 60

                await give_room(broker, names)
                await until(lambda: measured("events_written_total") == 400)
                await until(lambda: measured("behind") == 0)
                assert measured("full") == 0
                assert measured("oldest_unwritten_seconds") == 0

        page = await events.read(EventFilter(owner="max"), after=0, limit=1_000)
        ids = [event.attributes["id"] for event in page.events]
        assert ids == [f"evt_{seq}_{index}" for seq in range(1, 201) for index in (0, 1)]
        assert Counter(event.type for event in page.events) == {
            EventType.MESSAGE_ACCEPTED: 200,
            EventType.MESSAGE_DELIVERED: 200,
        }


async def read(tail: SharedTail) -> None:
    async for _ in tail.follow(0):
        pass


async def send(ledger: StreamLedger, n_messages: int) -> None:
    async with anyio.create_task_group() as group:
        for ulid in [SystemIds().ulid() for _ in range(n_messages)]:
            group.start_soon(partial(ledger.append, ulid, accepted(ulid), expected_seq=0))


async def give_room(broker: Broker, names: Names) -> None:
    config = (await call(broker, f"STREAM.INFO.{names.events_stream}"))["config"]
    await call(broker, f"STREAM.UPDATE.{names.events_stream}", {**config, "max_bytes": 8 * 1024**2})
