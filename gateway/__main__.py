"""`python -m gateway`: the front door on the real broker and the real Redis, from its settings to its last request."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import uvicorn
from anyio.abc import TaskGroup
from fastapi import FastAPI
from pydantic_core import to_json

from contracts.clock import Clock
from contracts.directory import BEAT_PROOFS, PUSH_NONCES
from contracts.subjects import Names
from gateway.app import create_app
from gateway.auth import authorize
from gateway.directory import ensure_admin_key, fresh_key_text
from gateway.doorkeeper import Doorkeeper
from gateway.echoes import EchoSettings
from gateway.http_protocol import BoundedHttp
from gateway.limits import LimitSettings
from gateway.metrics import Metrics, TimedLedger
from gateway.monitor_credentials import MonitorSettings
from gateway.oidc import TokenRules
from gateway.parts import Parts, Rooms
from gateway.peer_errors import PeerErrors
from gateway.ports import DirectoryStore, TokenKeys
from gateway.shared_events import SharedEvents
from gateway.token_bearers import TokenBearers
from infra.address_wall import check_url
from infra.background import beside
from infra.beats import RedisBeats
from infra.clock import SystemClock, SystemIds
from infra.connections import Connections, connections
from infra.directory_store import DirectoryReader
from infra.event_stream import EventStream
from infra.guard_counters import RedisGuards
from infra.held_jobs import RedisHeldJobs
from infra.high_priorities import RedisHighPriorities
from infra.key_uses import RedisKeyUses
from infra.monitor_signer import MonitorJwts
from infra.nats_connection import Broker
from infra.nats_identity import read_signer
from infra.oidc_keys import provider_keys
from infra.program import run_program, spare_the_collector
from infra.projection import RedisProjection
from infra.projection_metrics import ProjectionMetrics
from infra.pushes import BrokerAnnouncer, BrokerEchoes, BrokerPushes
from infra.queries import RedisQueries
from infra.rate_limits import RedisRateLimits
from infra.redis_connection import RedisConnection
from infra.redrive_store import ProjectedDeadLetters
from infra.server_secret import server_secret
from infra.settings import GatewaySettings
from infra.store_clock import StoreClock
from infra.watch import BrokerWatch
from infra.webhook_client import AiohttpSender
from infra.worker_beats import RedisWorkers
from infra.workloads import RedisWorkloads
from router.guards import GuardLimits
from router.service import Neighbours, Policy, Service

KEEP_ALIVE_S = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway on real neighbours: the app, what it is made of, and the adapters tests look into."""

    app: FastAPI
    parts: Parts
    broker: Broker
    names: Names
    projection: RedisProjection


class NeighbourProbe:
    """Implements `gateway.ports.Probe`."""

    def __init__(self, broker: Broker, redis: RedisConnection) -> None:
        self._broker = broker
        self._redis = redis

    async def broker(self) -> None:
        await self._broker.echo()

    async def store(self) -> None:
        await self._redis.command("PING")


@asynccontextmanager
async def build(settings: GatewaySettings, clock: Clock | None = None) -> AsyncIterator[Gateway]:
    """Connect to the neighbours, check them, and put the gateway together; at the end everything is closed.

    Raises `Unavailable` when a neighbour cannot be reached, `UnsafeBroker` when it keeps less than we promise.
    """
    clock, loopback = clock or SystemClock(), settings.webhook_allow_loopback
    async with (
        connections(settings, "postroom-gateway") as have,
        AiohttpSender(clock, allow_http=loopback, allow_loopback=loopback) as door,
        _provider_keys(settings, clock) as token_keys,
        beside() as background,
    ):
        parts = await _parts(settings, have, clock, door, background, token_keys)
        await _bootstrap(settings, parts)
        yield Gateway(
            app=create_app(parts), parts=parts, broker=have.broker, names=have.names, projection=have.projection
        )


async def _parts(
    settings: GatewaySettings,
    have: Connections,
    clock: Clock,
    door: AiohttpSender,
    background: TaskGroup,
    token_keys: TokenKeys | None,
) -> Parts:
    ids = SystemIds()
    beats, metrics, guards = await _beats(have, clock, background), Metrics(), RedisGuards(have.redis)
    key_uses = RedisKeyUses(have.redis, clock)
    background.start_soon(key_uses.run)
    metrics.registry.register(ProjectionMetrics(have.projection))
    neighbours = Neighbours(
        ledger=TimedLedger(have.ledger, metrics),
        pushes=BrokerPushes(have.broker),
        projection=have.projection,
        freshness=beats,
        directory=DirectoryReader(have.directory),
        authorize=authorize,
        clock=clock,
        id_source=ids,
        to_json=to_json,
        budgets=guards,
        workloads=RedisWorkloads(have.redis),
    )
    policy = Policy(
        outcome_deadline=timedelta(seconds=settings.outcome_deadline_s),
        bg_max_attempts=settings.max_attempts_bg,
        guards=guard_limits(settings),
        echo_bound_s=settings.echo_timeout_s,
    )
    secret = await server_secret(have.directory, PUSH_NONCES, ids)
    queries = RedisQueries(have.redis, have.projection)
    loopback = settings.webhook_allow_loopback
    return Parts(
        clock=clock,
        ids=ids,
        store=have.directory,
        service=Service(neighbours, nonce_secret=secret, policy=policy),
        queries=queries,
        dead_letters=ProjectedDeadLetters(queries),
        beats=beats,
        workers=RedisWorkers(have.redis, clock),
        held_jobs=RedisHeldJobs(have.redis, clock),
        key_uses=key_uses,
        watch=BrokerWatch(have.broker, have.names),
        announcer=BrokerAnnouncer(have.broker, have.names),
        events=SharedEvents(EventStream(have.broker, have.names), background),
        echo_pushes=BrokerEchoes(have.broker),
        high_priorities=RedisHighPriorities(have.redis),
        guard_book=guards,
        rate_limits=RedisRateLimits(have.redis),
        limits=limit_settings(settings),
        echo_settings=EchoSettings(every_s=settings.echo_every_s, bound_s=settings.echo_timeout_s),
        probe=NeighbourProbe(have.broker, have.redis),
        check_url=partial(check_url, allow_http=loopback, allow_loopback=loopback),
        webhook_door=door,
        beat_secret=await server_secret(have.directory, BEAT_PROOFS, ids),
        tokens=_tokens(settings, token_keys, have.directory, clock),
        monitor_signer=_monitor_signer(settings),
        monitor_settings=MonitorSettings(
            life=timedelta(seconds=settings.monitor_jwt_s), nats_url=settings.nats_edge_url
        ),
        webhook_secret_readable=settings.webhook_secret_readable,
        open_registration=settings.open_registration,
        metrics=metrics,
    )


async def _beats(have: Connections, clock: Clock, background: TaskGroup) -> RedisBeats:
    """Signs of life by Redis' clock, where ours runs by itself."""
    if not isinstance(clock, SystemClock):
        return RedisBeats(have.redis, clock)
    store_clock = StoreClock(have.redis, clock)
    await store_clock.ask()
    background.start_soon(store_clock.run)
    return RedisBeats(have.redis, clock, store_clock)


def _monitor_signer(settings: GatewaySettings) -> MonitorJwts | None:
    """Raises `BadCredential` for a file that holds no signing key."""
    path = settings.nats_edge_signing_key
    return None if path is None else MonitorJwts(read_signer(path))


@asynccontextmanager
async def _provider_keys(settings: GatewaySettings, clock: Clock) -> AsyncIterator[TokenKeys | None]:
    """The keys of the OpenID provider, kept fresh inside the block; None where there is no provider."""
    if settings.oidc_issuer is None:
        yield None
        return
    loopback = settings.webhook_allow_loopback
    async with provider_keys(
        settings.oidc_issuer, clock, jwks_url=settings.oidc_jwks_url, allow_loopback=loopback
    ) as keys:
        yield keys


def _tokens(
    settings: GatewaySettings, keys: TokenKeys | None, store: DirectoryStore, clock: Clock
) -> TokenBearers | None:
    if keys is None or settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    rules = TokenRules(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        owner_claim=settings.oidc_owner_claim,
        scope_claim=settings.oidc_scope_claim,
        leeway_s=settings.oidc_leeway_s,
    )
    return TokenBearers(rules=rules, keys=keys, store=store, clock=clock)


def guard_limits(settings: GatewaySettings) -> GuardLimits:
    """The guards' part of the settings; `rate_limits=off` leaves what one agent may send alone."""
    return GuardLimits(
        max_hops=settings.guard_max_hops,
        max_rounds=settings.guard_max_rounds,
        agent_per_s=settings.rate_limit_per_agent_per_s if settings.rate_limits == "on" else 0,
        agent_burst_s=settings.rate_limit_burst_s,
        pair_per_min=settings.guard_pair_per_min,
        thread_per_h=settings.guard_thread_per_h,
        cool_down_s=settings.guard_cool_down_s,
        brakes_auto_replies=settings.guard_auto_replies,
    )


def limit_settings(settings: GatewaySettings) -> LimitSettings:
    """The limits' part of the settings."""
    if settings.rate_limits == "off":
        return LimitSettings(per_key_per_s=0, failures_per_min=0, lookups_per_min=0)
    return LimitSettings(
        per_key_per_s=settings.rate_limit_per_key_per_s,
        burst_s=settings.rate_limit_burst_s,
        failures_per_min=settings.rate_limit_failures_per_min,
        lookups_per_min=settings.rate_limit_lookups_per_min,
    )


async def _bootstrap(settings: GatewaySettings, parts: Parts) -> None:
    """Let the admin key of the bootstrap file count, so that a fresh installation has somebody who may do things."""
    path = settings.bootstrap_admin_key_file
    if path is None:
        return
    text = key_in_file(path, fresh_key_text(parts.ids))
    await ensure_admin_key(parts.store, parts.clock, text, owner=settings.bootstrap_owner)


def key_in_file(path: Path, fresh: str) -> str:
    """The key in this file; `fresh` is put there, readable by its owner only, when there is no file yet."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{fresh}\n")
    return fresh


class Server(uvicorn.Server):
    """uvicorn, which lets held answers go before it waits for the requests under way."""

    def __init__(self, config: uvicorn.Config, rooms: Rooms) -> None:
        super().__init__(config)
        self._rooms = rooms

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._rooms.holds.release()
        await super().shutdown(sockets)


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way may finish."""
    async with build(settings) as gateway:
        # uvicorn raises its signal again at its end: unheard, that kills us before what `build` opened is closed.
        spare_the_collector()
        keeper = Doorkeeper(beats=gateway.parts.beats, probe=gateway.parts.probe)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT):
            async with beside(keeper.run):
                await Server(server_config(settings, gateway.app), gateway.app.state.rooms).serve()


def server_config(settings: GatewaySettings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        PeerErrors(app) if settings.peer_errors else app,
        host=settings.http_host,
        port=settings.http_port,
        backlog=settings.http_backlog,
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )


def main() -> None:
    """Start from the environment; see `infra.program.run_program` for the exit codes."""
    run_program("gateway", GatewaySettings, serve)


if __name__ == "__main__":
    main()
