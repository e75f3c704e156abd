"""An installation in one process for tests: the router's service and worker on a real broker and a real Redis."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
from prometheus_client import CollectorRegistry
from pydantic_core import to_json
from ulid import ULID

from contracts.directory import LiveSessions, agent_key, live_key
from contracts.freshness import host_name
from contracts.records import Agent, Envelope, LiveSession, Principal, Sender, Wish
from contracts.subjects import Names
from contracts.words import AttestationLevel, Channel
from gateway.auth import authorize
from gateway.ports import Write
from infra.attachments import attachments
from infra.beats import RedisBeats
from infra.codec import decode_envelope
from infra.directory_store import BucketDirectory, DirectoryReader
from infra.event_stream import EventStream
from infra.ledger import StreamLedger
from infra.ledger_tail import StreamTail
from infra.nats_connection import Broker
from infra.projection import RedisProjection
from infra.provision import StreamSettings, provision
from infra.pushes import BrokerPushes
from infra.queries import RedisQueries
from infra.redis_connection import RedisConnection
from infra.webhook_client import AiohttpSender
from router.attestation import token_hash
from router.metrics import RouterMetrics, WebhookMetrics
from router.places import PlaceLimits
from router.service import Draft, Neighbours, Policy, Service, Standing
from router.webhook_delivery import WebhookDelivery
from router.webhooks import Webhooks
from router.worker import Worker
from tests.open_door import open_door
from tests.patient_redis import patient_redis

SMALL = StreamSettings(ledger_max_bytes=64 * 1024**2, directory_max_bytes=16 * 1024**2, events_max_bytes=16 * 1024**2)
MAX = Principal(owner="max", key_id="keyofmax0001")
TOKEN = "01jb0000000000000000000000-a-session-token"


class MovableClock:
    """The real time, and as much more as a test has moved it on."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def move(self, **by: float) -> None:
        self._ahead += timedelta(**by)


class RealIds:
    def ulid(self) -> str:
        return str(ULID()).lower()

    def agent(self) -> str:
        return f"agent_{str(ULID()).lower()[-12:]}"

    def secret(self, n_bytes: int) -> bytes:
        return b"\x07" * n_bytes


@dataclass(kw_only=True)
class Installation:
    """What a test works with. `new_worker` may be called as often as one wants routers."""

    clock: MovableClock
    names: Names
    broker: Broker
    service: Service
    directory: BucketDirectory
    reader: DirectoryReader
    beats: RedisBeats
    projection: RedisProjection
    queries: RedisQueries
    tail: StreamTail
    sender: AiohttpSender
    ledger: StreamLedger
    redis: RedisConnection
    ids: RealIds = field(default_factory=RealIds)

    async def agent(self, *capabilities: Channel, **fields: Any) -> Agent:
        """An agent of owner max in the directory."""
        now, agent_id = self.clock.now(), self.ids.agent()
        agent = Agent(
            id=agent_id,
            owner="max",
            slug=f"a-{agent_id[-8:]}",
            created_at=now,
            updated_at=now,
            delivery_capabilities=capabilities or (Channel.LIVE, Channel.BG, Channel.INBOX),
        )
        agent = replace(agent, **fields)
        await self.directory.transact([Write(key=agent_key(agent.id), record=agent, expected_seq=0)])
        return agent

    async def attach(
        self, agent: Agent, *labels: str, age_s: float = 0, level: AttestationLevel = AttestationLevel.TOKEN_NONCE
    ) -> list[LiveSession]:
        """Attached sessions, heard of `age_s` seconds ago. The token of session `x` is `TOKEN-x`."""
        now = self.clock.now()
        sessions = [
            LiveSession(
                id=f"sess_{self.ids.ulid()}",
                label=label,
                task_name=label,
                token_sha256=token_hash(f"{TOKEN}-{label}"),
                attached_at=now,
                is_default=index == 0,
                attestation=level,
            )
            for index, label in enumerate(labels or ("main",))
        ]
        record = LiveSessions(sessions=tuple(sessions))
        await self.directory.transact([Write(key=live_key(agent.id), record=record, expected_seq=0)])
        await self.beats.beat({each.id: now - timedelta(seconds=age_s) for each in sessions})
        return sessions

    async def host_beats(self, agent: Agent, age_s: float = 0) -> None:
        await self.beats.beat({host_name(agent.id): self.clock.now() - timedelta(seconds=age_s)})

    async def draft(self, agent: Agent, mode: Channel | None = None, **fields: Any) -> Draft:
        wish_fields = {name: fields.pop(name) for name in ("fallback", "claim_window_s", "ttl_s") if name in fields}
        draft = Draft(
            sender=Sender(owner="max", key_id=MAX.key_id),
            recipient=agent,
            sessions=await self.reader.live_sessions(agent.id),
            body="Can you check the staging promotion workflow?",
            subject="Quick question",
            metadata={},
            wish=Wish(channel=mode, **wish_fields),
        )
        return replace(draft, **fields)

    async def send(self, agent: Agent, mode: Channel | None = None, **fields: Any) -> Standing:
        return await self.service.accept(await self.draft(agent, mode, **fields))

    async def message(self, standing: Standing) -> Standing:
        return await self.service.find_message(standing.history.message.id, MAX)

    async def until(self, standing: Standing, *states: str, timeout_s: float = 10) -> Standing:
        """The message once it is in one of `states`."""
        with anyio.fail_after(timeout_s):
            while True:
                found = await self.message(standing)
                if found.execution.state.value in states:
                    return found
                await anyio.sleep(0.01)

    @asynccontextmanager
    async def new_worker(
        self,
        name: str = "router:test",
        *,
        places: PlaceLimits | None = None,
        registry: CollectorRegistry | None = None,
    ) -> AsyncIterator[Worker]:
        """A running router, which counts in `registry`."""
        registry = registry or CollectorRegistry()
        metrics = WebhookMetrics(registry)
        delivery = WebhookDelivery(
            service=self.service,
            sender=self.sender,
            directory=self.reader,
            pushes=BrokerPushes(self.broker),
            publish=EventStream(self.broker, self.names).publish,
            clock=self.clock,
            name=name,
            to_json=to_json,
            metrics=metrics,
            timeout_s=2,
        )
        webhooks = Webhooks(delivery=delivery, directory=self.reader, clock=self.clock, metrics=metrics, limits=places)
        async with attachments(self.broker, self.names) as attached, anyio.create_task_group() as group:
            worker = Worker(
                name=name,
                service=self.service,
                tail=self.tail,
                projection=self.projection,
                webhooks=webhooks,
                attached=attached,
                clock=self.clock,
                metrics=RouterMetrics(registry),
            )
            group.start_soon(worker.run)
            yield worker
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def pushes_of(self, agent: Agent) -> AsyncIterator[list[Envelope]]:
        """The envelopes published for an agent while inside."""
        heard: list[Envelope] = []
        subscriptions = [
            await self.broker.subscribe(
                f"{channel.value}.{agent.id}.>", lambda message: heard.append(decode_envelope(message.data))
            )
            for channel in Channel
        ]
        await self.broker.echo()
        yield heard
        for each in subscriptions:
            await self.broker.unsubscribe(each)


@asynccontextmanager
async def installation(
    nats_url: str, redis_url: str, prefix: str, *, policy: Policy | None = None
) -> AsyncIterator[Installation]:
    """Build everything between the servers and the service under a prefix of its own."""
    clock, names = MovableClock(), Names(prefix=prefix)
    redis = patient_redis(redis_url, prefix)
    projection = RedisProjection(redis)
    async with (
        Broker.open(nats_url, name="test") as broker,
        AiohttpSender(clock, allow_http=True, allow_loopback=True) as sender,
    ):
        await provision(broker, names, SMALL)
        async with (
            StreamLedger.open(broker, names) as ledger,
            BucketDirectory.open(broker, names) as directory,
            anyio.create_task_group() as group,
        ):
            group.start_soon(projection.run)
            beats, reader = RedisBeats(redis, clock), DirectoryReader(directory)
            await open_door(redis)
            neighbours = Neighbours(
                ledger=ledger,
                pushes=BrokerPushes(broker),
                projection=projection,
                freshness=beats,
                directory=reader,
                authorize=authorize,
                clock=clock,
                id_source=RealIds(),
                to_json=to_json,
            )
            yield Installation(
                clock=clock,
                names=names,
                broker=broker,
                service=Service(neighbours, nonce_secret=b"s" * 32, policy=policy),
                directory=directory,
                reader=reader,
                beats=beats,
                projection=projection,
                queries=RedisQueries(redis, projection),
                tail=StreamTail(broker, names),
                sender=sender,
                ledger=ledger,
                redis=redis,
            )
            group.cancel_scope.cancel()
    await redis.close()


def states(standings: Sequence[Standing]) -> list[str]:
    return [each.execution.state.value for each in standings]
