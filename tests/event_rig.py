"""What a gateway's tests need of a router for events: its writer and its dispatcher, and a client of streams."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from prometheus_client import CollectorRegistry
from pydantic_core import to_json

from infra.clock import SystemClock
from infra.directory_store import BucketDirectory, DirectoryReader
from infra.event_stream import EventStream
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from infra.subscription_store import DirectorySubscriptions
from infra.webhook_client import AiohttpSender
from router.event_log import EventWriter
from router.metrics import EventLogMetrics
from router.subscriptions import Dispatcher
from tests.http_rig import Caller, Json, Rig


@asynccontextmanager
async def event_router(rig: Rig, *, name: str = "router:test") -> AsyncIterator[None]:
    """A router's writer and dispatcher beside the block."""
    broker, names, clock = rig.gateway.broker, rig.gateway.names, SystemClock()
    events, store = EventStream(broker, names), rig.gateway.parts.store
    assert isinstance(store, BucketDirectory)
    async with (
        StreamLedger.open(broker, names) as ledger,
        AiohttpSender(clock, allow_http=True, allow_loopback=True) as sender,
        anyio.create_task_group() as group,
    ):
        dispatcher = Dispatcher(
            name=name,
            log=events,
            store=DirectorySubscriptions(store),
            directory=DirectoryReader(store),
            ledger=ledger,
            sender=sender,
            clock=clock,
            to_json=to_json,
            timeout_s=2,
        )
        writer = EventWriter(
            log=events,
            ledger=ledger,
            tail=StreamTail(broker, names),
            metrics=EventLogMetrics(CollectorRegistry(), clock, lambda: 0),
            stand_by_s=0.1,
        )
        group.start_soon(dispatcher.run)
        group.start_soon(writer.run)
        yield
        group.cancel_scope.cancel()


async def events_until(caller: Caller, n: int, *, path: str = "/v1/events", **params: Any) -> list[Json]:
    """An owner's events once there are `n` of them."""
    with anyio.fail_after(10):
        while True:
            found: list[Json] = (await caller.get(path, **params))["events"]
            if len(found) >= n:
                return found
            await anyio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Heard:
    """One event of a stream."""

    id: int
    kind: str
    data: Json


@asynccontextmanager
async def listening(
    port: int, caller: Caller, path: str, *, last_id: int | None = None
) -> AsyncIterator[AsyncIterator[Heard]]:
    """The events of a stream, from a connection of its own that ends with the block."""
    headers = caller.headers | ({} if last_id is None else {"last-event-id": str(last_id)})
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http,
        http.stream("GET", path, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Heard]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            yield Heard(int(fields["id"]), fields["event"], json.loads(fields["data"]))
        fields = {}


async def take(heard: AsyncIterator[Heard], n: int, *, within_s: float = 10) -> list[Heard]:
    """The next `n` events."""
    with anyio.fail_after(within_s):
        return [await anext(heard) for _ in range(n)]


async def rest_of(heard: AsyncIterator[Heard], *, within_s: float = 10) -> list[Heard]:
    """Everything until the stream ends by itself."""
    with anyio.fail_after(within_s):
        return [each async for each in heard]
