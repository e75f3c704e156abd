"""The embedded installation: both servers and our programs as children, started together and ended in order.

nats ─┐             ┌─ router ──────────────────────────────┐
      ├─ answering ─┤                                       ├─ up
redis ┘             └─ gateway ── owner's key, agents ── monitor ┘

ended in the order monitor, gateway, router, redis, nats: nobody misses a neighbour while it puts things away.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import httpx

from cli.concurrently import concurrently
from cli.failures import Failure
from cli.program import Program, log_tail
from cli.report import Report
from infra.embedded import EmbeddedNats, EmbeddedRedis
from infra.nats_identity import EDGE

HOST: Final = "127.0.0.1"
MONITOR_GRACE_S: Final = 2.5
GATEWAY_GRACE_S: Final = 2.5
ROUTER_GRACE_S: Final = 2.0
SERVER_GRACE_S: Final = 1.0
"""All graces together stay below the 10 s an `up` may take to end."""
REQUESTS_GRACE_S: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where to listen; 0 takes a free port."""

    gateway: int
    nats: int
    redis: int


class Installation:
    """Everything that runs. `open` starts servers, gateway and router; `start_monitor` adds the monitor."""

    def __init__(self, data_dir: Path, ports: Ports, report: Report) -> None:
        logs = data_dir / "logs"
        self.data_dir = data_dir
        self.nats = EmbeddedNats(
            data_dir=data_dir / "nats", port=ports.nats, log_path=logs / "nats.log", port_setting="--nats-port"
        )
        self.redis = EmbeddedRedis(
            data_dir=data_dir / "redis", port=ports.redis, log_path=logs / "redis.log", port_setting="--redis-port"
        )
        self.port = ports.gateway
        self._logs = logs
        self._report = report
        self._gateway: Program | None = None
        self._router: Program | None = None
        self._monitor: Program | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def admin_key_path(self) -> Path:
        return self.data_dir / "keys" / "admin.key"

    @classmethod
    @asynccontextmanager
    async def open(cls, data_dir: Path, ports: Ports, report: Report) -> AsyncIterator["Installation"]:
        """Everything is ended when the block is left, however it is left."""
        installation = cls(data_dir, ports, report)
        try:
            yield installation
        finally:
            with anyio.CancelScope(shield=True):
                await installation._stop()

    async def start_servers(self) -> None:
        self._claim_gateway_port()
        await concurrently(
            partial(self._step, "nats", self.nats.start),
            partial(self._step, "redis", self.redis.start),
        )

    async def start_gateway(self) -> None:
        self.admin_key_path.parent.mkdir(mode=0o700, exist_ok=True)
        more = {
            "POSTROOM_HTTP_HOST": HOST,
            "POSTROOM_HTTP_PORT": str(self.port),
            "POSTROOM_SHUTDOWN_GRACE_S": str(REQUESTS_GRACE_S),
            "POSTROOM_BOOTSTRAP_ADMIN_KEY_FILE": str(self.admin_key_path),
            "POSTROOM_NATS_EDGE_SIGNING_KEY": str(self.nats.identity.signer_path(EDGE)),
            "POSTROOM_NATS_EDGE_URL": f"nats://{HOST}:{self.nats.port}",
        }
        self._gateway = self._program("gateway", more)
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=2) as client:
            await self._step("gateway", partial(self._gateway.start, partial(_answers_ready, client)))

    async def start_router(self) -> None:
        ready = self._ready_file("router")
        more = {
            "POSTROOM_ROUTER_HTTP_PORT": "0",
            "POSTROOM_ROUTER_READY_FILE": str(ready),
            "POSTROOM_NATS_OPERATOR_SIGNING_KEY": str(self.nats.identity.key_path("operator-signing")),
        }
        self._router = self._program("router", more)
        await self._step("router", partial(self._router.start, partial(_exists, ready)))

    async def start_monitor(self, config: Path) -> None:
        ready = self._ready_file("monitor")
        arguments = ["--config", str(config), "--ready-file", str(ready)]
        log = self._logs / "monitor.log"
        self._monitor = Program("monitor", arguments, environment={}, log_path=log)
        await self._step("monitor", partial(self._monitor.start, partial(_exists, ready)))

    async def first_death(self) -> Failure:
        """Wait until one of the children that run now ends by itself; return what there is to say about it."""
        deaths: list[Failure] = []

        async def wait_for(watch: Callable[[], Awaitable[Failure]]) -> None:
            deaths.append(await watch())
            tasks.cancel_scope.cancel()

        programs = (self._gateway, self._router, self._monitor)
        async with anyio.create_task_group() as tasks:
            for program in filter(None, programs):
                tasks.start_soon(wait_for, program.watch)
            for server in (self.nats, self.redis):
                tasks.start_soon(wait_for, partial(_server_death, server))
        return deaths[0]

    def _program(self, name: str, more: dict[str, str]) -> Program:
        neighbours = {
            "POSTROOM_NATS_URL": self.nats.endpoint.url,
            "POSTROOM_NATS_SYS_URL": self.nats.endpoint.sys_url,
            "POSTROOM_REDIS_URL": self.redis.endpoint.url,
            "POSTROOM_WEBHOOK_ALLOW_LOOPBACK": "true",
        }
        return Program(name, environment=neighbours | more, log_path=self._logs / f"{name}.log")

    def _ready_file(self, name: str) -> Path:
        path = self.data_dir / f"{name}.ready"
        path.unlink(missing_ok=True)
        return path

    def _claim_gateway_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError:
                raise Failure(
                    f"port {self.port} is taken by another program; stop it, or choose another with --port"
                ) from None
            self.port = probe.getsockname()[1]

    async def _step(self, name: str, start: Callable[[], Awaitable[object]]) -> None:
        with self._report.step(name) as facts:
            await start()
            facts["pid"] = self._pid_of(name)

    def _pid_of(self, name: str) -> int:
        child = {
            "nats": self.nats,
            "redis": self.redis,
            "gateway": self._gateway,
            "router": self._router,
            "monitor": self._monitor,
        }[name]
        assert child is not None
        return child.pid

    async def _stop(self) -> None:
        programs = (
            (self._monitor, MONITOR_GRACE_S),
            (self._gateway, GATEWAY_GRACE_S),
            (self._router, ROUTER_GRACE_S),
        )
        for program, grace_s in programs:
            if program is not None:
                await program.stop(grace_s)
        await self.redis.stop(SERVER_GRACE_S)
        await self.nats.stop(SERVER_GRACE_S)


async def _answers_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).is_success
    except httpx.TransportError:
        return False


async def _exists(path: Path) -> bool:
    return path.exists()


async def _server_death(server: EmbeddedNats | EmbeddedRedis) -> Failure:
    status = await server.wait()
    return Failure(f"{server.name} ended with status {status}; its last words:\n{log_tail(server.log_path)}")
