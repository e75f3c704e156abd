"""Tethered children: they die with us, end when told to, and get only what they were given."""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from infra.tether import ended, spawn, terminate

ROOT = Path(__file__).resolve().parents[2]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT_OF_ONE = """\
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
"""
OPEN_OR_SHUT = """\
import os, sys
for fd in map(int, sys.argv[1:]):
    try:
        os.fstat(fd)
        print("open")
    except OSError:
        print("shut")
"""


async def started(code: str, **options: object) -> tuple[asyncio.subprocess.Process, bytes]:
    process = await spawn([sys.executable, "-c", code], stdout=asyncio.subprocess.PIPE, **options)  # type: ignore[arg-type]
    assert process.stdout is not None
    with anyio.fail_after(10):
        return process, await process.stdout.readline()


async def gone(pid: int) -> None:
    with anyio.fail_after(5):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await anyio.sleep(0.02)


async def test_a_deaf_child_is_killed_when_its_grace_is_over() -> None:
    process, _ = await started(DEAF)
    assert await terminate(process, 0.1) == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)


async def test_a_polite_child_ends_by_itself() -> None:
    process, _ = await started("import time; print('up', flush=True); time.sleep(60)")
    assert await terminate(process, 5) == -signal.SIGTERM


async def test_grandchildren_end_with_the_group() -> None:
    process, said = await started(PARENT_OF_ONE + "time.sleep(60)")
    await terminate(process, 5)
    await gone(int(said))


async def test_grandchildren_of_a_child_that_ended_already_are_swept() -> None:
    process, said = await started(PARENT_OF_ONE)
    with anyio.fail_after(5):
        await ended(process)
    assert psutil.pid_exists(int(said))
    assert await terminate(process, 5) == 0
    await gone(int(said))


async def test_a_cancelled_caller_still_reaps() -> None:
    process, _ = await started(DEAF)
    with anyio.move_on_after(0):
        await terminate(process, 0.1)
    assert process.returncode == -signal.SIGKILL


async def test_limits_hold_in_the_child_and_nowhere_else() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)"
    process, said = await started(code, limits={resource.RLIMIT_NOFILE: 64})
    await process.wait()
    assert int(said) == 64
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


async def test_the_environment_is_the_given_one_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    process, said = await started("import os; print('A_SECRET' in os.environ, flush=True)", env={"LANG": "C"})
    await process.wait()
    assert said == b"False\n"


async def test_a_file_descriptor_reaches_the_child_only_when_passed() -> None:
    passed, kept = os.pipe()
    os.set_inheritable(kept, True)
    process = await spawn(
        [sys.executable, "-c", OPEN_OR_SHUT, str(passed), str(kept)], stdout=asyncio.subprocess.PIPE, pass_fds=(passed,)
    )
    said, _ = await process.communicate()
    os.close(passed)
    os.close(kept)
    assert said.split() == [b"open", b"shut"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_killed_parent_takes_its_child_with_it() -> None:
    parent_code = f"""\
import asyncio, sys
from infra.tether import spawn
async def main():
    process = await spawn([sys.executable, "-c", {DEAF!r}], stdout=asyncio.subprocess.PIPE)
    await process.stdout.readline()
    print(process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent, said = await started(parent_code, env=os.environ | {"PYTHONPATH": str(ROOT)})
    parent.kill()
    await parent.wait()
    await gone(int(said))
