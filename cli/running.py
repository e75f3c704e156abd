"""What `postroom up` does, from the lock on its data folder to the last child's end."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from cli.async_api import AsyncApi
from cli.concurrently import concurrently
from cli.data_lock import locked
from cli.demo import Demo
from cli.demo_cast import APP, APP_FIELDS, ensure_agent, owner_key, write_monitor_config
from cli.failures import Failure
from cli.installation import Installation, Ports
from cli.output import complain
from cli.places import Run, announced, default_data_dir, root, write_json
from cli.report import Report

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OBITUARY_S: Final = 0.5
"""How long a step's failure waits for the news that a child's death is behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said, defaults filled in. `data_dir` None: a temporary folder."""

    data_dir: Path | None
    gateway_port: int
    nats_port: int
    redis_port: int
    once: bool
    demo: bool
    claim_window_s: int
    ready_file: Path | None
    as_json: bool


def run(options: Options) -> int:
    """Run until the demo is over, a signal comes, or something fails; return the exit status."""
    with ExitStack() as stack:
        data_dir = options.data_dir or stack.enter_context(_temporary())
        stack.enter_context(locked(data_dir))
        if options.ready_file is not None:
            # What a killed run left there would be taken for ours.
            options.ready_file.unlink(missing_ok=True)
        return anyio.run(Running(options, data_dir).run)


class Running:
    """One run. It ends by itself, by a signal, or with the first child that dies."""

    def __init__(self, options: Options, data_dir: Path) -> None:
        self._options = options
        self._data_dir = data_dir
        self._report = Report(as_json=options.as_json)
        self._failure: Failure | None = None
        self._signal: signal.Signals | None = None

    async def run(self) -> int:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._heed_signals, tasks.cancel_scope)
            try:
                await self._run()
            except Failure as failure:
                self._failure = failure
            tasks.cancel_scope.cancel()
        return self._status()

    async def _heed_signals(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*ENDING_SIGNALS) as signals:
            async for number in signals:
                self._signal = self._signal or number
                scope.cancel()

    async def _run(self) -> None:
        options = self._options
        ports = Ports(gateway=options.gateway_port, nats=options.nats_port, redis=options.redis_port)
        async with Installation.open(self._data_dir, ports, self._report) as installation:
            await installation.start_servers()
            async with AsyncApi.open(installation.url) as anonymous:
                await self._until_somebody_dies(installation, anonymous)

    async def _until_somebody_dies(self, installation: Installation, anonymous: AsyncApi) -> None:
        api = await self._start_programs(installation, anonymous)
        failure: Failure | None = None
        async with anyio.create_task_group() as tasks:

            async def mourn() -> None:
                nonlocal failure
                failure = await installation.first_death()
                tasks.cancel_scope.cancel()

            tasks.start_soon(mourn)
            try:
                await self._live(installation, api)
            except Failure as step_failed:
                with anyio.move_on_after(OBITUARY_S):
                    await anyio.sleep_forever()
                failure = failure or step_failed
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # --- starting --------------------------------------------------------------------------------------------------

    async def _start_programs(self, installation: Installation, anonymous: AsyncApi) -> AsyncApi:
        """Everything that can start together does; returns the connection that speaks as the owner."""
        speaking: list[AsyncApi] = []

        async def front_of_house() -> None:
            await installation.start_gateway()
            admin = anonymous.speaking_for(installation.admin_key_path.read_text().strip())
            key = await owner_key(admin, self._owner_key_path)
            speaking.append(anonymous.speaking_for(key))
            if self._options.demo:
                await self._start_monitor(installation, speaking[0])

        await concurrently(installation.start_router, front_of_house)
        return speaking[0]

    async def _start_monitor(self, installation: Installation, api: AsyncApi) -> None:
        await ensure_agent(api, APP, APP_FIELDS)
        config = self._data_dir / "monitor.toml"
        write_monitor_config(
            config,
            gateway_url=installation.url,
            key_file=self._owner_key_path,
            state_dir=self._monitor_state_dir,
        )
        await installation.start_monitor(config)

    # --- running ---------------------------------------------------------------------------------------------------

    async def _live(self, installation: Installation, api: AsyncApi) -> None:
        options = self._options
        run = self._note(installation)
        with announced(self._data_dir, run):
            if options.demo:
                demo = Demo(api, self._monitor_state_dir, self._report, claim_window_s=options.claim_window_s)
                await demo.run()
            with self._report.step("up") as facts:
                facts |= {"url": installation.url, "total_s": round(self._report.total_s(), 3)}
            if options.once:
                return
            self._invite(installation)
            with _ready_file(options.ready_file, run, installation):
                await anyio.sleep_forever()

    def _note(self, installation: Installation) -> Run:
        return Run(
            url=installation.url,
            api_key=self._owner_key_path.read_text().strip(),
            nats_url=installation.nats.endpoint.url,
            redis_url=installation.redis.endpoint.url,
            monitor_state_dir=str(self._monitor_state_dir) if self._options.demo else None,
            pid=os.getpid(),
        )

    def _invite(self, installation: Installation) -> None:
        command = "./postroom" if (root() / "postroom").exists() else "postroom"
        tries = _TRIES if self._options.demo else _TRIES_WITHOUT_AGENTS
        lines = [
            "",
            f"postroom is up at {installation.url}; Ctrl-C ends it.",
            f"The admin key is in {installation.admin_key_path}, logs are in {self._data_dir / 'logs'}",
            "In another terminal:",
            *self._environment_lines(),
            *(f"  {command} {each}" for each in tries),
        ]
        self._report.say("\n".join(lines))

    def _environment_lines(self) -> list[str]:
        is_default = self._data_dir == default_data_dir().absolute()
        return [] if is_default else [f"  export POSTROOM_DATA_DIR={self._data_dir}"]

    # --- ending ----------------------------------------------------------------------------------------------------

    def _status(self) -> int:
        if self._failure is not None:
            self._report.died(self._failure)
            complain(f"postroom: {self._failure.message}")
            return self._failure.exit_code
        return 128 + self._signal if self._signal else 0

    @property
    def _owner_key_path(self) -> Path:
        return self._data_dir / "keys" / "owner.key"

    @property
    def _monitor_state_dir(self) -> Path:
        return self._data_dir / "monitor"


_TRIES: Final = (
    f'send {APP} "Can you look at this?" --wait outcome',
    f"attach {APP} --auto-claim",
    "tail",
)
_TRIES_WITHOUT_AGENTS: Final = (
    "agents create my-notes --can inbox",
    'send my-notes "hello"',
    "inbox my-notes --ack",
)


@contextmanager
def _ready_file(path: Path | None, run: Run, installation: Installation) -> Iterator[None]:
    """Tell at `path`, for as long as the block runs, where everything answers."""
    if path is None:
        yield
        return
    told = {
        "url": run.url,
        "nats_url": run.nats_url,
        "redis_url": run.redis_url,
        "admin_key": installation.admin_key_path.read_text().strip(),
        "pid": run.pid,
    }
    write_json(path, told)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _temporary() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="postroom-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)
