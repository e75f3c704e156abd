"""The processes a run starts: the workload, the bare server, and the product itself. None outlives the run."""

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from cli.failures import Failure
from cli.program import program_environment
from infra.tether import spawn, terminate

START_S: Final = 60.0
GRACE_S: Final = 15.0
JOB_S: Final = 120.0
POLL_S: Final = 0.05
LOG_TAIL_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A running postroom as its ready file describes it."""

    url: str
    nats_url: str
    admin_key: str
    pid: int | None = None


class Workload:
    """The process that generates load. One order at a time."""

    def __init__(self, process: Any, hello: Mapping[str, Any]) -> None:
        self._process = process
        self.receiver_url: str = hello["one"]
        self.neighbour_url: str = hello["neighbour"]
        self.many_urls: list[str] = hello["many"]

    async def carry_out(self, job: str, **args: Any) -> dict[str, Any]:
        """The job's result; raises `Failure` when it could not be done at all, or takes longer than `JOB_S`."""
        self._process.stdin.write(json.dumps({"job": job, "args": args}).encode() + b"\n")
        await self._process.stdin.drain()
        with anyio.move_on_after(JOB_S):
            line = await self._process.stdout.readline()
            answer: dict[str, Any] = json.loads(line) if line else {"error": "the workload process died"}
            if "error" in answer:
                raise Failure(answer["error"])
            result: dict[str, Any] = answer["result"]
            return result
        raise Failure(f"{job} was not done within {JOB_S:g} s")


@asynccontextmanager
async def workload() -> AsyncIterator[Workload]:
    async with child("cli.benchmark.workload") as (process, hello):
        yield Workload(process, json.loads(hello))


@asynccontextmanager
async def bare_server() -> AsyncIterator[str]:
    """The base URL of a uvicorn with nothing behind it."""
    async with child("cli.benchmark.bare_server") as (_, hello):
        yield hello.decode().strip()


@asynccontextmanager
async def own_product(environment: Mapping[str, str]) -> AsyncIterator[Product]:
    """A postroom of our own on free ports and empty data, gone afterwards; `environment` is added to ours."""
    with tempfile.TemporaryDirectory(prefix="postroom-bench-") as folder:
        ready, log = Path(folder, "ready.json"), Path(folder, "up.log")
        argv = [*_python("cli"), "up", "--no-demo", "--ephemeral", "--port", "0", "--ready-file", str(ready)]
        with log.open("wb") as sink:
            process = await spawn(argv, env=program_environment(environment), stdout=sink, stderr=sink)
        try:
            await _written(ready, process, log)
            yield read_ready_file(ready)
        finally:
            await terminate(process, GRACE_S)


def read_ready_file(path: Path) -> Product:
    """What `up --ready-file` wrote; raises `Failure` when it is not that."""
    try:
        facts = json.loads(path.read_text())
        return Product(url=facts["url"], nats_url=facts["nats_url"], admin_key=facts["admin_key"], pid=facts.get("pid"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{path} is no ready file: {error!r}") from None


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[tuple[Any, bytes]]:
    """A module of ours as a process, and the first line it prints."""
    process = await spawn([*_python(module), *arguments], env=program_environment({}), stdin=-1, stdout=-1)
    try:
        assert process.stdout is not None
        hello = b""
        with anyio.move_on_after(START_S):
            hello = await process.stdout.readline()
        if not hello:
            raise Failure(f"{module} did not start")
        yield process, hello
    finally:
        await terminate(process, GRACE_S)


async def _written(ready: Path, process: Any, log: Path) -> None:
    with anyio.move_on_after(START_S):
        while process.returncode is None:
            if ready.exists():
                return
            # Nothing announces the appearance of a file.
            await anyio.sleep(POLL_S)
    raise Failure(
        f"`postroom up` did not start; its last words:\n{log.read_text(errors='replace')[-LOG_TAIL_CHARACTERS:]}"
    )


def _python(module: str) -> list[str]:
    # -P: a folder named like one of our packages in the current directory must not win.
    return [sys.executable, "-P", "-m", module]
