"""What a session's heartbeat costs the collector, the broker and Redis: once in a run, on servers of its own.

Published as monitors publish them, as the EDGE user, with one session in each message and with a hundred. The processor
time of each process is what counts: a figure "per core" is what a core would do that did nothing else.
"""

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import psutil

from cli.benchmark.children import child
from cli.benchmark.raw_nats import connected
from cli.failures import Failure
from contracts.heartbeats import Pulse, beat_proof, render_beats, session_of
from contracts.subjects import heartbeat
from infra.clock import SystemIds
from infra.embedded import EmbeddedNats, EmbeddedRedis
from infra.redis_connection import redis_client

HEARTBEATS: Final = "heartbeats"
PER_MESSAGE: Final = (1, 100)
BEATS_OF: Final = {1: 60_000, 100: 600_000}
"""Beats of sessions measured, by sessions in a message: seconds of the collector's time."""
FLEET: Final = 20_000
MONITORS: Final = 200
WINDOW_BYTES: Final = 1_000_000
"""Published before its end is waited for: what waits stays within the broker's and the collector's bounds."""
LOOK_S: Final = 0.01
PATIENCE_S: Final = 30.0
A_MILLION_A_MINUTE_PER_S: Final = 1_000_000 / 60

Tell = Callable[[str], None]


async def measure_heartbeats(share: float, tell: Tell) -> dict[str, Any]:
    """A result by name: `heartbeats_1`, `heartbeats_100`. `share` below 1 measures with as many beats fewer."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="postroom-bench-beats-") as folder:
        for per_message in PER_MESSAGE:
            async with AsyncExitStack() as stack:
                nats, redis = EmbeddedNats(data_dir=Path(folder, "nats")), EmbeddedRedis(data_dir=Path(folder, "redis"))
                for server in (nats, redis):
                    await server.start()
                    stack.push_async_callback(server.stop)
                name = f"{HEARTBEATS}_{per_message}"
                results[name] = await _measure(nats, redis, per_message, share)
                tell(_line(name, results[name]))
    return results


async def _measure(nats: EmbeddedNats, redis: EmbeddedRedis, per_message: int, share: float) -> dict[str, Any]:
    secret = secrets.token_bytes(32)
    fleet = [SystemIds().ulid() for _ in range(FLEET)]
    argv = (nats.endpoint.url, redis.endpoint.url, secret.hex())
    async with Store(redis.endpoint.url) as store, child("cli.benchmark.beat_collector", *argv) as (process, _):
        bytes_before = await store.used_bytes()
        await store.attach(fleet)
        messages = _messages(secret, fleet, per_message)
        at = await store.score(fleet[-1])
        pids = {"collector": process.pid, "broker": nats.endpoint.pid, "redis": redis.endpoint.pid}
        async with connected(nats.endpoint.edge_url) as monitor:
            at = await _round(monitor, messages, store, fleet[-1], at)
            state_bytes = (await store.used_bytes() - bytes_before) / FLEET
            before, began_s, n = _cpu_s(pids), time.perf_counter(), 0
            while n < BEATS_OF[per_message] * share:
                at = await _round(monitor, messages, store, fleet[-1], at)
                n += FLEET
        used = {role: (spent - before[role]) / n for role, spent in _cpu_s(pids).items()}
    return _result(n, time.perf_counter() - began_s, used, state_bytes)


def _result(n: int, elapsed_s: float, cpu_s_each: dict[str, float], state_bytes: float) -> dict[str, Any]:
    return {
        "n": n,
        "failed": 0,
        "failures": {},
        "per_s": n / elapsed_s,
        "per_core_s": 1 / cpu_s_each["collector"],
        "cores_for_a_million": cpu_s_each["collector"] * A_MILLION_A_MINUTE_PER_S,
        "cpu_us_each": {role: each * 1e6 for role, each in cpu_s_each.items()},
        **{f"{role}_us": each * 1e6 for role, each in cpu_s_each.items()},
        "state_bytes": state_bytes,
    }


class Store:
    """Redis, as a measurement looks at it."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis_client(url, limit_s=PATIENCE_S)

    async def __aenter__(self) -> "Store":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def attach(self, fleet: Sequence[str]) -> None:
        await self._redis.zadd("postroom:beats", {session_of(ulid): 1 for ulid in fleet})

    async def score(self, ulid: str) -> float:
        return float(await self._redis.zscore("postroom:beats", session_of(ulid)))

    async def used_bytes(self) -> int:
        return int((await self._redis.info("memory"))["used_memory"])

    async def until_newer(self, ulid: str, than: float) -> float:
        """The score once it has moved. Raises `Failure` when it does not."""
        with anyio.move_on_after(PATIENCE_S):
            while (score := await self.score(ulid)) <= than:
                await anyio.sleep(LOOK_S)
            return score
        raise Failure("heartbeats were published and not noted")


def _messages(secret: bytes, fleet: Sequence[str], per_message: int) -> list[tuple[str, bytes]]:
    """Subject and payload of each message that together make one beat of the whole fleet."""
    messages = []
    for number, start in enumerate(range(0, len(fleet), per_message)):
        monitor_id = f"m-{start if per_message == 1 else number % MONITORS}"
        pulses = [
            Pulse(session_id=ulid, proof=beat_proof(secret, ulid, monitor_id), age_s=0.0)
            for ulid in fleet[start : start + per_message]
        ]
        messages += [(heartbeat(monitor_id), message) for message in render_beats(pulses)]
    return messages


async def _round(monitor: Any, messages: Sequence[tuple[str, bytes]], store: Store, last: str, score: float) -> float:
    """One beat of the whole fleet; returns the last session's new score. Ends once it was noted."""
    sent_bytes = 0
    for subject, payload in messages:
        await monitor.publish(subject, payload)
        sent_bytes += len(payload)
        if sent_bytes > WINDOW_BYTES:
            await monitor.flush()
            sent_bytes = 0
    await monitor.flush()
    return await store.until_newer(last, score)


def _cpu_s(pids: dict[str, int]) -> dict[str, float]:
    times = {role: psutil.Process(pid).cpu_times() for role, pid in pids.items()}
    return {role: each.user + each.system for role, each in times.items()}


def _line(name: str, result: dict[str, Any]) -> str:
    used = json.dumps({role: round(us, 2) for role, us in result["cpu_us_each"].items()})
    return f"{name:32} {result['per_core_s']:10,.0f} beats/s and core, µs each: {used}"
