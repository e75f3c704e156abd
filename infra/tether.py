"""Child processes that do not outlive us, and a stop that always ends.

    spawn ──▶ running ──terminate──▶ SIGTERM to the group ──grace over──▶ SIGKILL to the group ──▶ reaped

On Linux the kernel kills a tethered child when the thread that started it dies, so start children from the main thread.
Elsewhere nothing does; an orderly `terminate` is then the only end.
"""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, TypeAlias

import anyio

PR_SET_PDEATHSIG: Final = 1
POLL_S: Final = 0.005
LONGEST_POLL_S: Final = 0.25

Stream: TypeAlias = int | IO[bytes] | None


async def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Stream = asyncio.subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    new_session: bool = True,
    limits: Mapping[int, int] | None = None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start `argv` (never through a shell) so that it dies with us.

    `env` is the child's whole environment; None hands on ours. `limits` maps `resource.RLIMIT_*` to a value, lowered to
    the hard limit that holds already. No file descriptor is inherited except the three streams and `pass_fds`.
    Raises `OSError` when the program cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *map(str, argv),
        env=dict(env) if env is not None else None,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=new_session,
        close_fds=True,
        pass_fds=tuple(pass_fds),
        preexec_fn=_before_exec(limits or {}),
    )


async def ended(process: asyncio.subprocess.Process) -> int:
    """Wait until `process` itself has ended; return its exit status.

    `Process.wait` also waits (up to CPython 3.13 at least) for everybody who holds its pipes: a grandchild that keeps
    stdout open would hold us for as long as it likes.
    """
    pause_s = POLL_S
    while process.returncode is None:
        await anyio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_POLL_S)
    return process.returncode


async def terminate(process: asyncio.subprocess.Process, grace_s: float) -> int:
    """End `process` and what is left of its group within `grace_s` seconds or by force; return its exit status.

    A process that has already ended may still have left others in its group: they are killed. Call it once, soon after
    the end, while the number cannot have gone to somebody else. A cancelled caller still waits for the end.
    """
    try:
        if process.returncode is None:
            await _ask_to_end(process, grace_s)
    finally:
        signal_group(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            status = await ended(process)
    return status


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group `pid` leads, or to `pid` alone when it leads none; gone is fine."""
    try:
        os.killpg(pid, number) if _leads_a_group(pid) else os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        # macOS answers EPERM for a group whose last member is a zombie.
        return


async def _ask_to_end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    signal_group(process.pid, signal.SIGTERM)
    # A stopped process acts on SIGTERM only once it is continued.
    signal_group(process.pid, signal.SIGCONT)
    with anyio.move_on_after(grace_s, shield=True):
        await ended(process)


def _leads_a_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        # The leader is reaped: the group, if any is left, still bears its number.
        return True


def _before_exec(limits: Mapping[int, int]) -> Callable[[], None]:
    """Prepare everything now, so that the forked child makes only system calls: another thread may hold a lock."""
    bounds = [(number, _lowered(number, value)) for number, value in limits.items()]
    tie = _tie_to_parent()

    def before_exec() -> None:
        tie()
        for number, value in bounds:
            resource.setrlimit(number, (value, value))

    return before_exec


def _lowered(number: int, value: int) -> int:
    hard = resource.getrlimit(number)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _tie_to_parent() -> Callable[[], None]:
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            # The parent died before the call above could see it.
            os._exit(1)

    return tie
