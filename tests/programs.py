"""The product as real processes: broker, store, gateways, routers and a monitor, each to be killed, paused, restarted.

    async with programs(folder, routers=2) as post:
        agent = await post.agent("bg")
        sent = await post.send(agent)
        post.kill(post.routers[0])
        await post.restart(post.routers[0])
        await post.until(sent, "queued")

Every process ends with the context, whatever happens, and dies with the test run. Their logs lie in `folder`.
"""

import asyncio
import json
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import httpx

from gateway.directory import fresh_key_text
from infra.clock import SystemIds
from infra.embedded import EmbeddedNats, EmbeddedRedis
from infra.tether import signal_group, spawn, terminate
from tests.network_namespaces import Elsewhere
from tests.program_caller import Caller, Json
from tests.program_ledger import Books, read_books

ROOT: Final = Path(__file__).resolve().parents[1]
START_S: Final = 20.0
POLL_S: Final = 0.02
LOG_LINES: Final = 40
MIB: Final = 1024**2
OWNER: Final = "max"

OWN_PORTS: Final = range(15_000, 30_000)


class Program:
    """`python -m …` as a process. `is_ready` is told its pid; `within` is a command that starts it somewhere else."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        is_ready: Callable[[int], Awaitable[bool]],
        within: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._argv = [*within, sys.executable, "-m", *arguments]
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment |= {"PYTHONPATH": str(ROOT), **environment}
        self._is_ready = is_ready
        self._process: asyncio.subprocess.Process | None = None
        self._shown_bytes = 0

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} has not been started"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and return once it is ready."""
        await self.launch()
        await self.ready()

    async def launch(self) -> None:
        """Start it, and no more."""
        with self.log_path.open("ab") as log:
            self._process = await spawn(self._argv, env=self._environment, cwd=ROOT, stdout=log, stderr=log)

    async def ready(self) -> None:
        """Wait until it says that it can do its work."""
        with anyio.move_on_after(START_S):
            while self.is_alive:
                if await self._is_ready(self.pid):
                    return
                await anyio.sleep(POLL_S)
        raise AssertionError(f"{self.name} did not become ready\n{self.last_words()}")

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        signal_group(self.pid, signal.SIGKILL)

    def pause(self) -> None:
        signal_group(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.is_alive:
            signal_group(self.pid, signal.SIGCONT)

    def add_environment(self, more: Mapping[str, str]) -> None:
        self._environment |= more

    async def gone(self) -> int:
        """Wait for its end; return the exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, grace_s: float = 5.0) -> int | None:
        """SIGTERM, and SIGKILL after the grace; the exit status, None when it was never started."""
        process, self._process = self._process, None
        return None if process is None else await terminate(process, grace_s)

    def last_words(self, *, all_of_it: bool = True) -> str:
        """The end of its log; without `all_of_it` of what was written since the last look."""
        if not self.log_path.exists():
            return f"--- {self.name}: no log"
        text = self.log_path.read_bytes()
        start, self._shown_bytes = (0 if all_of_it else self._shown_bytes), len(text)
        lines = text[start:].decode(errors="replace").splitlines()
        return "\n".join([f"--- {self.name} ({len(lines)} lines)", *lines[-LOG_LINES:]])


class Programs(Caller):
    """A running installation, and one caller of it. Made by `programs`."""

    def __init__(self, folder: Path, *, gateways: int, routers: int, settings: Mapping[str, str]) -> None:
        super().__init__()
        self.folder = folder
        self.nats = EmbeddedNats(data_dir=folder / "nats")
        self.redis = EmbeddedRedis(data_dir=folder / "redis")
        self.monitor: Program | None = None
        self.state_dir = folder / "monitor"
        self._settings = dict(settings)
        self._gateway_ports = [_free_port() for _ in range(gateways)]
        self.gateways = [self._gateway(number, port) for number, port in enumerate(self._gateway_ports)]
        self.routers = [self._router(number) for number in range(routers)]

    @property
    def gateway_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self._gateway_ports]

    @property
    def programs(self) -> list[Program]:
        return [*self.gateways, *self.routers, *([self.monitor] if self.monitor else [])]

    def kill(self, program: Program) -> None:
        program.kill()

    async def restart(self, program: Program) -> None:
        """Start a program that was killed, or kill and start one that lives."""
        if program.is_alive:
            program.kill()
        await program.gone()
        await program.start()

    async def start(self) -> None:
        (self.folder / "admin.key").write_text(f"{fresh_key_text(SystemIds())}\n")
        async with anyio.create_task_group() as group:
            group.start_soon(self.nats.start)
            group.start_soon(self.redis.start)
        self._settings |= {
            "POSTROOM_NATS_URL": self.nats.endpoint.url,
            "POSTROOM_NATS_SYS_URL": self.nats.endpoint.sys_url,
            "POSTROOM_NATS_EDGE_SIGNING_KEY": str(self.nats.identity.signer_path("EDGE")),
            "POSTROOM_NATS_EDGE_URL": f"nats://127.0.0.1:{self.nats.endpoint.port}",
            "POSTROOM_NATS_OPERATOR_SIGNING_KEY": str(self.nats.identity.key_path("operator-signing")),
            "POSTROOM_REDIS_URL": self.redis.endpoint.url,
        }
        for program in self.programs:
            program.add_environment(self._settings)
        async with anyio.create_task_group() as group:
            for program in self.programs:
                group.start_soon(program.start)
        self.open(self.gateway_urls, await self._key_of_owner())

    async def heal(self) -> None:
        """Resume what is paused, start what is dead, and wait until everything is ready."""
        for server in (self.nats, self.redis):
            server.resume()
            if not is_running(server.pid):
                await server.start()
        async with anyio.create_task_group() as group:
            for program in self.programs:
                program.resume()
                group.start_soon(program.ready if program.is_alive else program.start)

    async def stop(self) -> None:
        """End everything: the programs first, in order, then what they need."""
        with anyio.CancelScope(shield=True):
            await self.close()
            async with anyio.create_task_group() as group:
                for program in self.programs:
                    program.resume()
                    group.start_soon(program.stop)
            for server in (self.nats, self.redis):
                await server.stop()

    def logs(self) -> str:
        """What every program said since the last time."""
        return "\n".join(program.last_words(all_of_it=False) for program in self.programs)

    async def books(self) -> Books:
        """The whole ledger, read from the broker by itself."""
        return await read_books(self.nats.endpoint.url)

    async def assert_whole(self, acknowledged: Iterable[Json]) -> Books:
        """Every acknowledged message is in the ledger, and nothing in it breaks a rule."""
        books = await self.books()
        assert books.unknown(acknowledged) == []
        assert books.findings() == []
        return books

    async def crash_broker(self, down_s: float = 1.0) -> None:
        self.nats.kill()
        # The length of the outage, not a wait for something.
        await anyio.sleep(down_s)
        await self.nats.start()

    async def crash_store(self, down_s: float = 0.5) -> None:
        self.redis.kill()
        await anyio.sleep(down_s)
        await self.redis.start()

    @asynccontextmanager
    async def sending(
        self, agent: Json, n: int, mode: str = "auto", *, at_once: int = 16, **more: Any
    ) -> AsyncIterator[dict[str, Json]]:
        """Send `n` messages beside the block, each until it is acknowledged: the views by Idempotency-Key."""
        acknowledged: dict[str, Json] = {}
        limiter, run = anyio.CapacityLimiter(at_once), secrets.token_hex(4)

        async def send(key: str) -> None:
            async with limiter:
                acknowledged[key] = await self.send(agent, mode, key=key, **more)

        async with anyio.create_task_group() as group:
            for number in range(n):
                group.start_soon(send, f"{run}-{number}")
            yield acknowledged

    # --- the monitor -----------------------------------------------------------------------------------------------

    async def start_monitor(
        self, agent: Json, *, handler: str | None = None, poll_every_s: float = 1, elsewhere: Elsewhere | None = None
    ) -> Program:
        """A monitor that serves this agent's sessions, and its background work with `handler`, a Python script."""
        config = self._write_monitor_config(agent, handler, poll_every_s, elsewhere)
        ready_file = self.folder / "monitor.ready"
        self.monitor = Program(
            "monitor",
            ["monitor", "--config", str(config), "--ready-file", str(ready_file)],
            environment={},
            log_path=self.folder / "monitor.log",
            is_ready=lambda pid: _says(ready_file, pid),
            within=() if elsewhere is None else elsewhere.command,
        )
        await self.monitor.start()
        return self.monitor

    async def stop_monitor(self) -> None:
        monitor, self.monitor = self.monitor, None
        if monitor is not None and monitor.is_alive:
            monitor.resume()
            await monitor.stop()

    def _write_monitor_config(
        self, agent: Json, handler: str | None, poll_every_s: float, elsewhere: Elsewhere | None
    ) -> Path:
        key_file = self.folder / "owner.key"
        key_file.touch(mode=0o600)
        key_file.write_text(self.key)
        lines = [
            f'gateway_url = "{elsewhere.gateway_url if elsewhere else self.gateway_urls[0]}"',
            *([f'nats_url = "{elsewhere.nats_url}"'] if elsewhere else []),
            f'key_file = "{key_file}"',
            'monitor_id = "test-host"',
            f'state_dir = "{self.state_dir}"',
            "beat_every_s = 5",
            f"poll_every_s = {poll_every_s}",
            "[[agents]]",
            f'agent = "{agent["slug"]}"',
        ]
        if handler is not None:
            script = self.folder / "handler.py"
            script.write_text(handler)
            lines += ["[agents.background]", f"argv = {json.dumps([sys.executable, str(script)])}"]
            lines += ["lease_s = 10"]
        config = self.folder / "monitor.toml"
        config.write_text("\n".join(lines) + "\n")
        return config

    # --- the programs ----------------------------------------------------------------------------------------------

    def _gateway(self, number: int, port: int) -> Program:
        return Program(
            f"gateway-{number}",
            ["gateway"],
            environment={
                "POSTROOM_HTTP_PORT": str(port),
                "POSTROOM_BOOTSTRAP_ADMIN_KEY_FILE": str(self.folder / "admin.key"),
                "POSTROOM_LOG_LEVEL": "warning",
            },
            log_path=self.folder / f"gateway-{number}.log",
            is_ready=lambda _: _is_up(f"http://127.0.0.1:{port}/readyz"),
        )

    def _router(self, number: int) -> Program:
        ready_file = self.folder / f"router-{number}.ready"
        return Program(
            f"router-{number}",
            ["router"],
            environment={
                "POSTROOM_ROUTER_HTTP_PORT": "0",
                "POSTROOM_ROUTER_NAME": f"r{number}",
                "POSTROOM_ROUTER_READY_FILE": str(ready_file),
            },
            log_path=self.folder / f"router-{number}.log",
            is_ready=lambda pid: _says(ready_file, pid),
        )

    async def _key_of_owner(self) -> str:
        admin = (self.folder / "admin.key").read_text().strip()
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {admin}"}, timeout=10) as http:
            url = f"http://127.0.0.1:{self._gateway_ports[0]}/v1/keys"
            answer = await http.post(url, json={"owner": OWNER, "name": "test"})
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["key"]
        return key


@asynccontextmanager
async def programs(
    folder: Path, *, gateways: int = 1, routers: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Programs]:
    """An installation of its own below `folder`; its outcome deadline is the shortest there is, ten seconds."""
    defaults = {
        "POSTROOM_OUTCOME_DEADLINE_S": "10",
        "POSTROOM_LEDGER_MAX_BYTES": str(64 * MIB),
        "POSTROOM_DIRECTORY_MAX_BYTES": str(16 * MIB),
        "POSTROOM_EVENTS_MAX_BYTES": str(64 * MIB),
        "POSTROOM_WEBHOOK_ALLOW_LOOPBACK": "true",
    }
    post = Programs(folder, gateways=gateways, routers=routers, settings=defaults | dict(settings or {}))
    try:
        await post.start()
        yield post
    finally:
        await post.stop()


@asynccontextmanager
async def for_one_test(post: Programs) -> AsyncIterator[Programs]:
    """Lend a shared installation to one test: its logs are shown when the test fails, and it is healed afterwards."""
    post.logs()
    try:
        yield post
    finally:
        # Captured, and shown by pytest for a failed test only.
        sys.stdout.write(post.logs() + "\n")
        await post.stop_monitor()
        await post.heal()
        post.exchanges.clear()


def is_running(pid: int) -> bool:
    """Say whether a process lives; one that nobody has buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _free_port() -> int:
    """A port below those the system hands out by itself: whoever asks it for one meanwhile does not get this one."""
    for port in random.SystemRandom().sample(OWN_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("none of a hundred ports is free")


async def _is_up(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=2) as http:
            return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def _says(ready_file: Path, pid: int) -> bool:
    try:
        return bool(json.loads(ready_file.read_text())["pid"] == pid)
    except (FileNotFoundError, ValueError):
        return False
