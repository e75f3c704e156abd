"""`python -m router`: what happens later, from its settings to its last deadline. As many may run as one likes."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import structlog
from prometheus_client import CollectorRegistry
from pydantic_core import to_json

from contracts.clock import Clock
from contracts.directory import BEAT_PROOFS, PUSH_NONCES
from contracts.errors import Unavailable
from contracts.records import Agent, Principal
from infra.account_revocations import AccountRevocations
from infra.attachments import attachments
from infra.background import beside
from infra.beats import RedisBeats
from infra.clock import SystemClock, SystemIds
from infra.connection_advisories import follow_connections
from infra.connections import Connections, connections, plain
from infra.credential_book import DirectoryCredentials, directory_news
from infra.cue_store import DirectoryCues, cue_news
from infra.digest_book import StreamDigests
from infra.directory_store import DirectoryReader
from infra.event_stream import EventStream
from infra.heartbeat_feed import follow_heartbeats
from infra.ledger_tail import StreamTail
from infra.monitor_sessions import MonitorSessions
from infra.nats_connection import Broker
from infra.nats_identity import read_key
from infra.presence_records import DirectoryPresence
from infra.presence_store import RedisPresence
from infra.program import run_program, spare_the_collector
from infra.projection_metrics import ProjectionMetrics
from infra.pushes import BrokerPushes
from infra.queries import RedisQueries
from infra.redis_connection import RedisConnection
from infra.redrive_store import DirectoryRedrives, ProjectedDeadLetters
from infra.server_secret import server_secret
from infra.settings import RouterSettings
from infra.status_server import status_server
from infra.store_clock import StoreClock
from infra.subscription_store import DirectorySubscriptions
from infra.webhook_client import AiohttpSender
from router.credential_watch import CredentialWatch
from router.cues import CueRunner
from router.departures import Departures
from router.digester import Digester
from router.event_log import EventWriter
from router.heartbeat_collector import HeartbeatCollector, HeartbeatMetrics
from router.metrics import EventLogMetrics, RouterMetrics, WebhookMetrics
from router.places import PlaceLimits
from router.ports import WebhookSender
from router.presence_metrics import PresenceMetrics
from router.presence_watch import PresenceWatch
from router.redrive_metrics import CountedLedger, RedriveMetrics
from router.redriver import Redriver
from router.service import Neighbours, Policy, Service
from router.shared_tail import SharedTail
from router.subscriptions import Dispatcher
from router.webhook_delivery import WebhookDelivery
from router.webhooks import Webhooks
from router.worker import Worker

Loop = Callable[[], Coroutine[Any, Any, None]]
log = structlog.get_logger("router")


async def serve(settings: RouterSettings) -> None:
    """Work until SIGTERM or SIGINT. Raises `Unavailable` or `UnsafeBroker` when a neighbour will not do."""
    clock, registry = SystemClock(), CollectorRegistry()
    name = f"router:{settings.router_name or SystemIds().ulid()[-8:]}"
    loopback = settings.webhook_allow_loopback
    async with (
        connections(settings, "postroom-router") as have,
        AiohttpSender(clock, allow_http=loopback, allow_loopback=loopback) as sender,
        attachments(have.broker, have.names) as attached,
        cue_news(have.broker, have.names) as changed_cues,
        directory_news(have.broker, have.names) as news,
    ):
        registry.register(ProjectionMetrics(have.projection))
        redrives = RedriveMetrics(registry)
        store_clock = StoreClock(have.redis, clock)
        await store_clock.ask()
        beats = RedisBeats(have.redis, clock, store_clock)
        service = await _service(settings, have, clock, beats, redrives)
        tail = SharedTail(StreamTail(have.broker, have.names))
        worker = Worker(
            name=name,
            service=service,
            tail=tail,
            projection=have.projection,
            webhooks=_webhooks(settings, have, service, sender, clock, name, registry),
            attached=attached,
            clock=clock,
            metrics=RouterMetrics(registry),
        )
        watch = _presence_watch(have, clock, store_clock, beats, registry)
        loops = (
            store_clock.run,
            _event_writer(have, tail, clock, registry).run,
            _redriver(settings, have, service, clock, name, redrives).run,
            _cue_runner(have, service, tail, changed_cues, clock, name).run,
            watch.run,
            *await _heartbeats(settings, have, store_clock, registry, watch),
            *_subscribers(have, sender, clock, name),
            *_credential_watch(settings, have, news, clock),
        )
        await _work(settings, have, worker, registry, loops)


async def _service(
    settings: RouterSettings, have: Connections, clock: Clock, beats: RedisBeats, metrics: RedriveMetrics
) -> Service:
    ids = SystemIds()
    neighbours = Neighbours(
        ledger=CountedLedger(have.ledger, metrics),
        pushes=BrokerPushes(have.broker),
        projection=have.projection,
        freshness=beats,
        directory=DirectoryReader(have.directory),
        authorize=nobody,
        clock=clock,
        id_source=ids,
        to_json=to_json,
    )
    policy = Policy(
        outcome_deadline=timedelta(seconds=settings.outcome_deadline_s),
        bg_max_attempts=settings.max_attempts_bg,
        echo_bound_s=settings.echo_timeout_s,
    )
    secret = await server_secret(have.directory, PUSH_NONCES, ids)
    return Service(neighbours, nonce_secret=secret, policy=policy)


def _webhooks(
    settings: RouterSettings,
    have: Connections,
    service: Service,
    sender: WebhookSender,
    clock: Clock,
    name: str,
    registry: CollectorRegistry,
) -> Webhooks:
    metrics, directory = WebhookMetrics(registry), DirectoryReader(have.directory)
    delivery = WebhookDelivery(
        service=service,
        sender=sender,
        directory=directory,
        pushes=BrokerPushes(have.broker),
        publish=EventStream(have.broker, have.names).publish,
        clock=clock,
        name=name,
        to_json=to_json,
        metrics=metrics,
        disable_after=timedelta(days=settings.webhook_disable_after_days),
    )
    limits = PlaceLimits(
        in_all=settings.webhook_max_in_flight,
        per_owner=settings.webhook_max_in_flight_per_owner,
        per_host=settings.webhook_max_in_flight_per_host,
    )
    return Webhooks(delivery=delivery, directory=directory, clock=clock, metrics=metrics, limits=limits)


def _event_writer(have: Connections, tail: SharedTail, clock: Clock, registry: CollectorRegistry) -> EventWriter:
    return EventWriter(
        log=EventStream(have.broker, have.names),
        ledger=have.ledger,
        tail=tail.beside,
        metrics=EventLogMetrics(registry, clock, lambda: tail.newest_seq),
    )


def _cue_runner(
    have: Connections, service: Service, tail: SharedTail, news: AsyncIterator[str], clock: Clock, name: str
) -> CueRunner:
    return CueRunner(
        name=name,
        service=service,
        store=DirectoryCues(have.directory),
        directory=DirectoryReader(have.directory),
        ledger=have.ledger,
        tail=tail.beside,
        events=EventStream(have.broker, have.names),
        news=news,
        clock=clock,
    )


def _presence_watch(
    have: Connections, clock: Clock, store_clock: Clock, beats: RedisBeats, registry: CollectorRegistry
) -> PresenceWatch:
    return PresenceWatch(
        records=DirectoryPresence(have.directory, have.broker, have.names),
        listening=beats,
        due=RedisPresence(have.redis, store_clock),
        log=EventStream(have.broker, have.names),
        clock=clock,
        metrics=PresenceMetrics(registry),
    )


async def _heartbeats(
    settings: RouterSettings, have: Connections, clock: Clock, registry: CollectorRegistry, watch: PresenceWatch
) -> tuple[Loop, ...]:
    """What notes the beats monitors publish and, where the system account is open to us, who of them is gone."""
    notes = MonitorSessions(have.redis)
    secret = await server_secret(have.directory, BEAT_PROOFS, SystemIds())
    collector = HeartbeatCollector(notes=notes, secret=secret, clock=clock, metrics=HeartbeatMetrics(registry))
    loops: tuple[Loop, ...] = (collector.run, partial(follow_heartbeats, have.broker, have.names, collector.hear))
    if settings.nats_sys_url is None:
        return loops
    departures = Departures(
        account=settings.nats_edge_account,
        notes=notes,
        flush=collector.flush,
        look_at=watch.sessions_gone,
        registry=registry,
    )
    return *loops, departures.run, partial(follow_connections, plain(settings.nats_sys_url), departures)


def _credential_watch(
    settings: RouterSettings, have: Connections, news: AsyncIterator[str], clock: Clock
) -> tuple[Loop, ...]:
    """What takes monitors' credentials back; nothing where we hold no key that may sign their account."""
    if settings.nats_operator_signing_key is None or settings.nats_sys_url is None:
        return ()
    revoker = AccountRevocations(plain(settings.nats_sys_url), read_key(settings.nats_operator_signing_key), clock)
    return (CredentialWatch(book=DirectoryCredentials(have.directory), revoker=revoker, news=news, clock=clock).run,)


def _redriver(
    settings: RouterSettings, have: Connections, service: Service, clock: Clock, name: str, metrics: RedriveMetrics
) -> Redriver:
    return Redriver(
        name=name,
        store=DirectoryRedrives(have.directory),
        index=ProjectedDeadLetters(RedisQueries(have.redis, have.projection)),
        desk=service,
        clock=clock,
        metrics=metrics,
        ceiling_per_s=settings.redrive_max_per_s,
    )


def _subscribers(have: Connections, sender: WebhookSender, clock: Clock, name: str) -> tuple[Loop, ...]:
    """What bundles tenants' events, and what posts them to subscribers."""
    events, subscriptions = EventStream(have.broker, have.names), DirectorySubscriptions(have.directory)
    dispatcher = Dispatcher(
        name=name,
        log=events,
        store=subscriptions,
        directory=DirectoryReader(have.directory),
        ledger=have.ledger,
        sender=sender,
        clock=clock,
        to_json=to_json,
    )
    digester = Digester(
        log=events,
        book=StreamDigests(have.broker, have.names),
        store=subscriptions,
        directory=DirectoryReader(have.directory),
        clock=clock,
    )
    return dispatcher.run, digester.run


async def _work(
    settings: RouterSettings,
    have: Connections,
    worker: Worker,
    registry: CollectorRegistry,
    loops: tuple[Loop, ...],
) -> None:
    ready = partial(_ready, worker, have.broker, have.redis)
    async with (
        status_server(settings.http_host, settings.router_http_port, ready=ready, registry=registry) as port,
        beside(worker.run, *loops),
    ):
        await worker.caught_up.wait()
        spare_the_collector()
        log.info("router_ready", port=port)
        _tell_ready(settings.router_ready_file, port)
        await _asked_to_stop()


def nobody(principal: Principal, action: str, owner: str, agent: Agent | None = None) -> bool:
    """The router acts for itself and answers no caller, so there is nobody it could authorize."""
    return False


async def _ready(worker: Worker, broker: Broker, redis: RedisConnection) -> None:
    if not worker.caught_up.is_set():
        raise Unavailable("catching_up", "The ledger is still being read.")
    await broker.echo()
    await redis.command("PING")


def _tell_ready(path: Path | None, port: int) -> None:
    if path is None:
        return
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    scratch.replace(path)


async def _asked_to_stop() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("router_stopping", signal=number.name)
            return


def main() -> None:
    """Start from the environment; see `infra.program.run_program` for the exit codes."""
    run_program("router", RouterSettings, serve)


if __name__ == "__main__":
    main()
