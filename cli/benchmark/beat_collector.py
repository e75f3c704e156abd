"""`python -m cli.benchmark.beat_collector NATS REDIS SECRET`: a router's collector of heartbeats and nothing else."""

import sys

import anyio
from prometheus_client import CollectorRegistry

from contracts.subjects import Names
from infra.background import beside
from infra.clock import SystemClock
from infra.heartbeat_feed import follow_heartbeats
from infra.monitor_sessions import MonitorSessions
from infra.nats_connection import Broker
from infra.program import spare_the_collector
from infra.redis_connection import RedisConnection, redis_client
from router.heartbeat_collector import HeartbeatCollector, HeartbeatMetrics


async def collect(nats_url: str, redis_url: str, secret: bytes) -> None:
    """Collect until killed; says so on standard output once it does."""
    redis = RedisConnection(redis_client(redis_url))
    collector = HeartbeatCollector(
        notes=MonitorSessions(redis),
        secret=secret,
        clock=SystemClock(),
        metrics=HeartbeatMetrics(CollectorRegistry()),
    )
    async with (
        Broker.open(nats_url, name="collector") as broker,
        beside(collector.run, lambda: follow_heartbeats(broker, Names(), collector.hear)),
    ):
        await broker.echo()
        spare_the_collector()
        sys.stdout.write("collecting\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(collect, sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))
