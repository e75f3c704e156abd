"""One of our programs as a child of `up`: started, waited for until it answers, watched, ended."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio

from cli.failures import Failure
from cli.places import root
from infra.tether import ended, spawn, terminate

POLL_S: Final = 0.02
START_TIMEOUT_S: Final = 60.0
"""A router reads a long ledger before it is ready."""
TAIL_LINES: Final = 15
TAIL_BYTES: Final = 64 * 1024


class Program:
    """`python -m NAME ARGUMENTS…` with its log; used once."""

    def __init__(
        self, name: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._argv = [sys.executable, "-P", "-m", name, *arguments]
        self._environment = program_environment(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        assert self._process is not None, "a program has a pid once it is started"
        return self._process.pid

    async def start(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        """Start it and return once `is_ready` says so; raises `Failure` with its last words when it ends before."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = await spawn(self._argv, env=self._environment, stdout=log, stderr=log)
        with anyio.move_on_after(START_TIMEOUT_S):
            while self._process.returncode is None:
                if await is_ready():
                    return
                await anyio.sleep(POLL_S)
            raise self._died(self._process.returncode)
        raise Failure(f"{self.name} did not answer within {START_TIMEOUT_S:g} s; {self._last_words()}")

    async def watch(self) -> Failure:
        """Return, once it has ended, what there is to say about it."""
        assert self._process is not None, "only a started program can be watched"
        return self._died(await ended(self._process))

    async def stop(self, grace_s: float) -> None:
        """End it in good order, by force after `grace_s` seconds; one that never started is fine."""
        process, self._process = self._process, None
        if process is not None:
            await terminate(process, grace_s)

    def _died(self, status: int) -> Failure:
        return Failure(f"{self.name} ended with status {status}; {self._last_words()}")

    def _last_words(self) -> str:
        return f"its last words:\n{log_tail(self.log_path, self._log_start)}"


def program_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Our environment with `more`, and our packages where Python finds them."""
    path = os.pathsep.join(filter(None, (str(root()), os.environ.get("PYTHONPATH"))))
    return dict(os.environ) | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | dict(more)


def log_tail(path: Path, start: int = 0) -> str:
    """The last lines of a log since the byte `start`."""
    try:
        with path.open("rb") as log:
            log.seek(max(start, path.stat().st_size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (none)"
