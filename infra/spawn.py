"""Background programs: started without a shell, bounded in time and output, and gone with everything they started.

A descendant that leaves the group is still known by `EXECUTION_ID` in its environment; one that also wipes its
environment is out of reach without a control group of its own.
"""

import fcntl
import os
import resource
import shutil
import signal
import sys
import tempfile
import termios
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import anyio
import psutil
import structlog
from anyio import to_thread

from infra.files import private_folder
from infra.tether import spawn, terminate
from monitor.ports import Program, Run, Started

TERM_GRACE_S: Final = 5.0
STOP_GRACE_S: Final = 2.0
"""When we are stopping ourselves, everything has to be over within five seconds."""
LAST_WORDS_S: Final = 1.0
"""How long output is still read after the end: somebody out of our reach may hold the other end open."""
CHUNK_BYTES: Final = 64 * 1024
START_TIME_TOLERANCE_S: Final = 0.05
SWEEPS_MAX: Final = 50
SWEEP_PAUSE_S: Final = 0.02
MARKER: Final = "EXECUTION_ID"

LIMITS: Final[Mapping[str, int]] = {
    "cpu_s": resource.RLIMIT_CPU,
    "memory_bytes": resource.RLIMIT_AS,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_size_bytes": resource.RLIMIT_FSIZE,
}

log = structlog.get_logger()


@dataclass(slots=True)
class Tail:
    """The last `cap_bytes` of a stream: what explains an end stands there, and so does the result."""

    cap_bytes: int
    truncated: bool = False
    _kept: bytearray = field(default_factory=bytearray)

    def add(self, chunk: bytes) -> None:
        self._kept += chunk
        if len(self._kept) > 2 * self.cap_bytes:
            self._trim()

    def value(self) -> bytes:
        self._trim()
        return bytes(self._kept)

    def _trim(self) -> None:
        excess = len(self._kept) - self.cap_bytes
        if excess > 0:
            del self._kept[:excess]
            self.truncated = True


class LocalPrograms:
    """Runs programs on this host. Call `run` from the main thread: on Linux a child dies with its parent's thread."""

    def __init__(self, work_dir: Path, *, term_grace_s: float = TERM_GRACE_S) -> None:
        self._work_dir = work_dir
        self._term_grace_s = term_grace_s
        private_folder(work_dir)

    async def run(
        self,
        program: Program,
        line: bytes,
        marker: str,
        started: Callable[[Started], None],
        taken: Callable[[], None],
    ) -> Run:
        began_at = anyio.current_time()
        out, err = Tail(program.output_cap_bytes), Tail(program.output_cap_bytes)
        try:
            async with self._directory(program) as cwd:
                given = _Input(line, taken)
                exit_code, timed_out = await self._run_in(cwd, program, given, marker, started, (out, err))
        except OSError as error:
            return Run(exit_code=None, spawn_error=f"{type(error).__name__}: {error.strerror or error}")
        except SubprocessError:
            return Run(exit_code=None, spawn_error="the limits could not be set")
        return Run(
            exit_code=exit_code,
            timed_out=timed_out,
            stdout=out.value(),
            stderr=err.value(),
            truncated=out.truncated or err.truncated,
            duration_ms=round((anyio.current_time() - began_at) * 1000),
        )

    async def end_leftover(self, started: Started, marker: str) -> bool:
        return await to_thread.run_sync(_end_leftover, started, marker)

    def sweep(self) -> None:
        """Remove working directories that a monitor which died left behind."""
        for entry in os.scandir(self._work_dir):
            shutil.rmtree(entry.path, onerror=_complain)

    async def _run_in(
        self,
        cwd: Path,
        program: Program,
        given: "_Input",
        marker: str,
        started: Callable[[Started], None],
        tails: tuple[Tail, Tail],
    ) -> tuple[int, bool]:
        with _pipes() as pipes:
            # A cancelled start would leave a child that nobody knows of.
            with anyio.CancelScope(shield=True):
                process = await _start(program, cwd, pipes)
            pipes.close_child_ends()
            async with anyio.create_task_group() as streams:
                grace_s, timed_out = STOP_GRACE_S, False
                try:
                    started(_identity(process.pid))
                    streams.start_soon(_feed, pipes, given)
                    streams.start_soon(_drain, pipes.out, tails[0])
                    streams.start_soon(_drain, pipes.err, tails[1])
                    with anyio.move_on_after(program.wall_timeout_s) as wall:
                        await process.wait()
                    timed_out = wall.cancelled_caught
                    grace_s = self._term_grace_s
                finally:
                    status = await terminate(process, grace_s)
                    with anyio.CancelScope(shield=True):
                        await to_thread.run_sync(_end_strays, marker)
                streams.cancel_scope.deadline = anyio.current_time() + LAST_WORDS_S
        return status, timed_out

    @asynccontextmanager
    async def _directory(self, program: Program) -> AsyncIterator[Path]:
        if program.cwd is not None:
            yield program.cwd
            return
        fresh = Path(tempfile.mkdtemp(prefix="run-", dir=self._work_dir))
        try:
            yield fresh
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(fresh, onerror=_complain))


async def _start(program: Program, cwd: Path, pipes: "_Pipes") -> Process:
    return await spawn(
        program.argv,
        env=program.env,
        cwd=cwd,
        stdin=pipes.child_in,
        stdout=pipes.child_out,
        stderr=pipes.child_err,
        limits={LIMITS[name]: value for name, value in program.limits.items()} | {resource.RLIMIT_CORE: 0},
    )


# --- pipes ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pipes:
    """Three pipes of our own: asyncio's would make the end of the process wait for whoever inherited them."""

    child_in: int
    feed: int
    out: int
    child_out: int
    err: int
    child_err: int
    closed: set[int] = field(default_factory=set)

    def close(self, *descriptors: int) -> None:
        for descriptor in set(descriptors) - self.closed:
            self.closed.add(descriptor)
            os.close(descriptor)

    def close_child_ends(self) -> None:
        self.close(self.child_in, self.child_out, self.child_err)


@contextmanager
def _pipes() -> Iterator[_Pipes]:
    opened: list[int] = []
    try:
        for _ in range(3):
            opened += os.pipe()
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    child_in, feed, out, child_out, err, child_err = opened
    pipes = _Pipes(child_in, feed, out, child_out, err, child_err)
    for descriptor in (pipes.feed, pipes.out, pipes.err):
        os.set_blocking(descriptor, False)
    try:
        yield pipes
    finally:
        pipes.close(*opened)


@dataclass(frozen=True, slots=True)
class _Input:
    """What a program is given on standard input, and who is told when it has read all of it."""

    line: bytes
    taken: Callable[[], None]


async def _feed(pipes: _Pipes, given: _Input) -> None:
    """Write the line, then end of file. A child that does not want it is not an error."""
    rest = memoryview(given.line)
    tells = _tells_when_read(pipes.feed)
    try:
        while rest:
            await anyio.wait_writable(pipes.feed)
            rest = rest[_written(pipes.feed, rest) :]
        if tells:
            await anyio.wait_writable(pipes.feed)
        if not tells or _unread_bytes(pipes.feed) == 0:
            given.taken()
    except BrokenPipeError:
        log.debug("input_not_read", unread_bytes=len(rest))
    finally:
        pipes.close(pipes.feed)


def _tells_when_read(descriptor: int) -> bool:
    """Make a pipe so small that it can be written to again only when everything in it was read.

    Where that cannot be done, what was written counts as read.
    """
    if sys.platform != "linux":
        return False
    try:
        # One page is the least there is, and a pipe of one page is full as long as it holds a byte.
        return fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1) <= resource.getpagesize()
    except OSError as refusal:
        # Some sandboxes know no such call.
        log.debug("pipe_not_made_small", error=repr(refusal))
        return False


def _unread_bytes(descriptor: int) -> int:
    """A pipe whose reader is gone can be written to as well: what is still in it was never read."""
    count = bytearray(4)
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def _written(descriptor: int, data: memoryview) -> int:
    with suppress(BlockingIOError):
        return os.write(descriptor, data[:CHUNK_BYTES])
    return 0


async def _drain(descriptor: int, tail: Tail) -> None:
    while True:
        await anyio.wait_readable(descriptor)
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            continue
        if not chunk:
            return
        tail.add(chunk)


# --- processes -----------------------------------------------------------------------------------------------------


def _identity(pid: int) -> Started:
    try:
        return Started(pid=pid, started_at=psutil.Process(pid).create_time())
    except psutil.Error:
        # It has ended already; there is nothing left to recognise.
        return Started(pid=pid, started_at=0.0)


def _end_leftover(started: Started, marker: str) -> bool:
    """Kill the group when its leader is the very process we noted, and everything that bears the marker."""
    found = False
    with suppress(psutil.Error):
        leader = psutil.Process(started.pid)
        if abs(leader.create_time() - started.started_at) <= START_TIME_TOLERANCE_S:
            _kill_group(leader)
            found = True
    return _end_strays(marker) > 0 or found


def _kill_group(leader: psutil.Process) -> None:
    if os.getpgid(leader.pid) == leader.pid:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
    leader.kill()


def _end_strays(marker: str) -> int:
    """Kill every process of ours whose environment bears the marker, until a look finds none; return how many."""
    killed = 0
    for _ in range(SWEEPS_MAX):
        strays = [process for process in psutil.process_iter() if _bears(process, marker)]
        if not strays:
            break
        for stray in strays:
            with suppress(psutil.Error):
                stray.kill()
        killed += len(strays)
        # Not psutil's wait, which would take the exit status of a child of ours from asyncio.
        time.sleep(SWEEP_PAUSE_S)
    return killed


def _bears(process: psutil.Process, marker: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER) == marker)
    except (psutil.Error, OSError):
        return False


def _complain(function: object, path: str, failure: object) -> None:
    log.warning("work_directory_not_removed", path=path)
