"""The two real servers as child processes: nats-server and Valkey, each on its own data directory.

    new ──start──▶ running ──stop · kill──▶ stopped ──start──▶ running on the same port and data
                     │ ▲
                pause▼ │resume

A server holds a lock on its data directory for as long as it lives, also when we are gone: two servers on one store
would destroy it, and neither of them notices the other.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import anyio
import psutil

from contracts.clock import Clock
from infra.binaries import nats_server_binary, redis_server_binary
from infra.broker_url import broker_url
from infra.clock import SystemClock
from infra.embedded_errors import DataInUse, EmbeddedError, PortTaken, StartFailed
from infra.first_answer import nats_answers, redis_answers
from infra.nats_identity import CORE, EDGE, SYS, NatsIdentity, holds_something, installation_identity
from infra.nats_jwt import read_creds
from infra.nats_store import adopt_streams, refuse_strangers
from infra.secret_file import remembered_passwords
from infra.tether import signal_group, spawn, terminate

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 30.0
"""A broker with a large store reads it before it listens."""
POLL_S: Final = 0.02
LOG_TAIL_LINES: Final = 15
STORE_SHARE: Final = 0.8
"""How much of the free disk a broker may fill: a full store answers at once, a full disk only times out."""
LOCK_PATIENCE_S: Final = 3.0
"""A server whose parent was killed needs a moment to vanish as well."""
MEMORY_SHARE: Final = 4
"""Redis may have a quarter of the machine's memory: without a limit it takes the host down with it."""
LEAST_MEMORY_BYTES: Final = 512 * 1024 * 1024
PORT_ATTEMPTS: Final = 3
"""A free port may be taken between our look and the server's bind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsEndpoint:
    """Where a broker answers; each URL names the creds file of its user."""

    url: str
    edge_url: str
    sys_url: str
    port: int
    pid: int
    identity: NatsIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisEndpoint:
    """Where a Redis answers; the URL carries the password."""

    url: str
    port: int
    pid: int


class _EmbeddedServer(ABC):
    """What the two have in common: one child, its log, its lock, its first answer."""

    name: ClassVar[str]

    def __init__(
        self, *, data_dir: Path, port: int, log_path: Path | None, binary: Path | None, port_setting: str
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.log_path = log_path or self.data_dir / f"{self.name}.log"
        self.port_setting = port_setting
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    async def wait(self) -> int:
        """Wait until the server ends, for whatever reason; return its exit status."""
        return await self._running().wait()

    async def stop(self, grace_s: float = 5.0) -> None:
        """End the server in good order, by force after `grace_s` seconds; nothing happens when it is stopped."""
        process, self._process = self._process, None
        if process is not None:
            await terminate(process, grace_s)

    def kill(self) -> None:
        """End the server as a crash would; `start` brings it back."""
        signal_group(self.pid, signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: its connections stay open and nobody answers."""
        signal_group(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        signal_group(self.pid, signal.SIGCONT)

    async def _launch(self) -> None:
        """Start the child and wait for its first answer."""
        if self._process is not None and self._process.returncode is None:
            await self._bury_the_killed()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        async with _locked(self.data_dir) as lock:
            if self.port:
                _refuse_taken_port(self.port, self.port_setting)
            with self.log_path.open("ab") as log:
                process = await self._spawn(lock, log.fileno())
        try:
            await self._first_answer(process, log_start)
        except BaseException:
            await terminate(process, 0)
            raise
        self._process = process

    async def _first_answer(self, process: asyncio.subprocess.Process, log_start: int) -> None:
        reason = f"did not answer within {START_TIMEOUT_S:g} s"
        with anyio.move_on_after(START_TIMEOUT_S):
            while process.returncode is None:
                if await self._answers(process.pid):
                    return
                # Nothing announces the moment a server of ours begins to listen.
                await anyio.sleep(POLL_S)
            reason = f"ended with status {process.returncode}"
        tail = _tail(self.log_path, log_start)
        if "address already in use" in tail.lower():
            raise PortTaken(self.port, self.port_setting)
        raise StartFailed(self.name, reason, tail)

    async def _bury_the_killed(self) -> None:
        """Let a server that was just killed vanish, port and lock with it."""
        with anyio.move_on_after(1):
            await self._running().wait()
            return
        raise EmbeddedError(f"{self.name} runs already")

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise EmbeddedError(f"{self.name} is not started")
        return self._process

    @abstractmethod
    async def _spawn(self, lock: int, log: int) -> asyncio.subprocess.Process:
        """Start the program; it inherits `lock` and writes its log to `log`."""

    @abstractmethod
    async def _answers(self, pid: int) -> bool:
        """Say whether the server with this process id, and no other on its port, answers us."""


class EmbeddedNats(_EmbeddedServer):
    """A nats-server that runs with our nats.conf, on loopback."""

    name = "nats-server"

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = 0,
        identity_dir: Path | None = None,
        log_path: Path | None = None,
        config: Path | None = None,
        binary: Path | None = None,
        max_file_store_bytes: int | None = None,
        port_setting: str = "POSTROOM_NATS_PORT",
        clock: Clock | None = None,
    ) -> None:
        """Prepare a broker; port 0 takes a free one and keeps it over restarts.

        Its identity lies in `identity_dir`, else in the data directory, and is made at the first start. Without
        `max_file_store_bytes` the store may grow by 80 % of the disk that is free at the start.
        """
        super().__init__(data_dir=data_dir, port=port, log_path=log_path, binary=binary, port_setting=port_setting)
        self._store_dir = self.data_dir / "store"
        self._identity_dir = identity_dir or self.data_dir / "identity"
        self._config = config or default_nats_config()
        self._max_file_store_bytes = max_file_store_bytes
        self._clock = clock or SystemClock()
        self._identity: NatsIdentity | None = None

    async def start(self) -> NatsEndpoint:
        """Start the broker and return once it has answered us as user `core`.

        Raises `PortTaken`, `DataInUse`, `BinaryMissing` or `StartFailed`.
        """
        await self._launch()
        return self.endpoint

    @property
    def endpoint(self) -> NatsEndpoint:
        """Where the started broker answers."""
        identity, at = self.identity, f"nats://{HOST}:{self.port}"
        return NatsEndpoint(
            url=broker_url(at, creds=identity.creds_path(CORE)),
            edge_url=broker_url(at, creds=identity.creds_path(EDGE)),
            sys_url=broker_url(at, creds=identity.creds_path(SYS)),
            port=self.port,
            pid=self.pid,
            identity=identity,
        )

    @property
    def identity(self) -> NatsIdentity:
        """Keys, accounts and creds files; made when there are none.

        Raises `BadCredential` for another folder, `EmbeddedError` when the store's own identity is missing: a new one
        would only be in the way of putting it back.
        """
        if self._identity is None:
            if not holds_something(self._identity_dir):
                refuse_strangers(self._store_dir)
            self._identity = installation_identity(self._identity_dir, self._clock.now())
        return self._identity

    async def _spawn(self, lock: int, log: int) -> asyncio.subprocess.Process:
        for stale in self.data_dir.glob("nats-server_*.ports"):
            stale.unlink()
        argv = [
            *(nats_server_binary(self._binary), "-c", self._config, "-a", HOST),
            *("-p", self.port or -1, "-m", -1, "--ports_file_dir", self.data_dir),
        ]
        adopt_streams(self._store_dir, CORE, self.identity.account(CORE).public)
        environment = nats_environment(
            identity=self.identity,
            store_dir=self._store_dir,
            max_file_store_bytes=self._max_file_store_bytes or _share_of_disk(self.data_dir),
        )
        return await spawn(list(map(str, argv)), env=environment, stdout=log, stderr=log, pass_fds=(lock,))

    async def _answers(self, pid: int) -> bool:
        port = _announced_port(self.data_dir / f"nats-server_{pid}.ports")
        if port is None:
            return False
        if not await nats_answers(HOST, port, read_creds(self.identity.creds_path(CORE).read_text())):
            return False
        self.port = port
        return True


class EmbeddedRedis(_EmbeddedServer):
    """A Valkey on loopback that appends to a file and leaves syncing it to the kernel.

    What it holds can be derived again, so a sync of its own would only make it wait behind the broker's.
    """

    name = "valkey-server"

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = 0,
        password: str | None = None,
        log_path: Path | None = None,
        binary: Path | None = None,
        port_setting: str = "POSTROOM_REDIS_PORT",
    ) -> None:
        """Prepare a server; port 0 takes a free one and keeps it over restarts.

        Without `password` the data directory remembers its own.
        """
        super().__init__(data_dir=data_dir, port=port, log_path=log_path, binary=binary, port_setting=port_setting)
        self._password = password

    async def start(self) -> RedisEndpoint:
        """Start the server and return once it has answered an authenticated PING.

        Raises `PortTaken`, `DataInUse`, `BinaryMissing` or `StartFailed`.
        """
        await (self._launch() if self.port else self._launch_on_free_port())
        return self.endpoint

    @property
    def endpoint(self) -> RedisEndpoint:
        """Where the started server answers."""
        return RedisEndpoint(url=f"redis://:{self.password()}@{HOST}:{self.port}/0", port=self.port, pid=self.pid)

    async def _launch_on_free_port(self) -> None:
        for attempts_left in reversed(range(PORT_ATTEMPTS)):
            self.port = _free_port()
            try:
                await self._launch()
            except PortTaken:
                self.port = 0
                if not attempts_left:
                    raise
            else:
                return

    def password(self) -> str:
        """The password in use: the one given, else the one the data directory remembers."""
        if self._password is None:
            remembered = remembered_passwords(self.data_dir / "redis-password.json", ("default",))
            self._password = remembered["default"]
        return self._password

    async def _spawn(self, lock: int, log: int) -> asyncio.subprocess.Process:
        # The configuration goes in by stdin: a command line shows its password to every user of the host.
        with _pipe_of(_redis_config(self.port, self.password())) as stdin:
            return await spawn(
                [redis_server_binary(self._binary), "-"],
                env=_bare_environment(),
                cwd=self.data_dir,
                stdin=stdin,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
            )

    async def _answers(self, pid: int) -> bool:
        return await redis_answers(HOST, self.port, self.password(), pid)


def default_nats_config() -> Path:
    """The nats.conf of this installation: at the root of the source tree, beside this module in a wheel."""
    here = Path(__file__).resolve().parent
    beside = here / "nats.conf"
    return beside if beside.exists() else here.parent / "nats.conf"


def nats_environment(*, identity: NatsIdentity, store_dir: Path, max_file_store_bytes: int) -> dict[str, str]:
    """The environment nats.conf asks for, and nothing of ours besides."""
    return _bare_environment() | {
        "POSTROOM_NATS_OPERATOR": json.dumps(str(identity.operator_jwt_path)),
        "POSTROOM_NATS_JWT_DIR": json.dumps(str(identity.jwt_dir)),
        "POSTROOM_NATS_STORE_DIR": json.dumps(str(store_dir)),
        "POSTROOM_NATS_MAX_FILE_STORE": str(max_file_store_bytes),
    }


def _bare_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}


def _redis_config(port: int, password: str) -> str:
    return f"""\
bind {HOST}
port {port}
requirepass {password}
dir .
appendonly yes
appendfsync no
save 3600 1 300 100
maxmemory {max(LEAST_MEMORY_BYTES, psutil.virtual_memory().total // MEMORY_SHARE)}
maxmemory-policy noeviction
"""


@contextlib.contextmanager
def _pipe_of(text: str) -> Iterator[int]:
    """The reading end of a pipe that holds `text`, which must be shorter than a pipe is (4 KiB at least)."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "w") as file:
            file.write(text)
        yield reading
    finally:
        os.close(reading)


@contextlib.asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[int]:
    """Lock `data_dir` and lend the lock to a child: it lasts until the last process that holds it has ended."""
    lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with anyio.move_on_after(LOCK_PATIENCE_S) as patience:
            while not _lock_now(lock):
                await anyio.sleep(POLL_S)
        if patience.cancelled_caught:
            raise DataInUse(data_dir)
        yield lock
    finally:
        os.close(lock)


def _lock_now(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_taken_port(port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(port, setting) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _share_of_disk(data_dir: Path) -> int:
    ours = sum(path.stat().st_size for path in data_dir.rglob("*") if path.is_file())
    return ours + int(shutil.disk_usage(data_dir).free * STORE_SHARE)


def _tail(log_path: Path, start: int) -> str:
    with log_path.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])


def _announced_port(ports_file: Path) -> int | None:
    try:
        announced = json.loads(ports_file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        # Not there yet, or half written.
        return None
    urls = announced.get("nats") or []
    return int(urls[0].rpartition(":")[2]) if urls else None
