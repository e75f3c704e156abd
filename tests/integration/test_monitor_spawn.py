"""Programs that misbehave: whatever they do, it ends, it is bounded, and nothing of them is left."""

import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from infra.clock import SystemIds
from infra.spawn import LocalPrograms
from monitor.ports import Program, Run, Started

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def programs(tmp_path: Path) -> LocalPrograms:
    return LocalPrograms(tmp_path / "work", term_grace_s=0.3)


@pytest.fixture
def marker() -> str:
    return f"exec_{SystemIds().ulid()}"


async def run(
    programs: LocalPrograms,
    marker: str,
    script: str,
    line: bytes = b"{}\n",
    argv: tuple[str, ...] = (),
    taken: Callable[[], None] = lambda: None,
    **changes: Any,
) -> Run:
    facts: dict[str, Any] = {"cwd": None, "limits": {}, "wall_timeout_s": 20.0, "output_cap_bytes": 65_536}
    env = {"PATH": os.environ["PATH"], "EXECUTION_ID": marker}
    program = Program(argv=argv or (sys.executable, "-c", script), env=env, **(facts | changes))
    with anyio.fail_after(30):
        return await programs.run(program, line, marker, lambda _: None, taken)


def sleeper(marker: str) -> "subprocess.Popen[bytes]":
    """What a run of a monitor that died may have left."""
    environment = {"EXECUTION_ID": marker, "PATH": os.environ["PATH"]}
    return subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)


def bearers(marker: str) -> list[int]:
    """The processes whose environment bears the marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("EXECUTION_ID") == marker:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def test_a_program_reads_one_line_and_is_heard(programs: LocalPrograms, marker: str) -> None:
    script = "import sys, os; data = sys.stdin.read(); print(len(data)); sys.stderr.write(os.getcwd()); sys.exit(4)"
    ended = await run(programs, marker, script, line=b"x" * 300_000)
    assert (ended.exit_code, ended.stdout) == (4, b"300000\n")
    assert b"/work/run-" in ended.stderr
    assert not Path(ended.stderr.decode()).exists()


async def test_a_program_that_does_not_read_its_input_is_not_waited_for(programs: LocalPrograms, marker: str) -> None:
    assert (await run(programs, marker, "print(1)", line=b"x" * 300_000)).stdout == b"1\n"


@LINUX
@pytest.mark.parametrize("size", [3, 4_096, 300_000])
async def test_it_is_told_when_a_program_has_read_all_of_its_line(
    programs: LocalPrograms, marker: str, size: int
) -> None:
    told: list[int] = []
    script = "import sys; data = sys.stdin.buffer.readline(); print(len(data), flush=True); sys.stdin.read()"
    ended = await run(programs, marker, script, line=b"x" * (size - 1) + b"\n", taken=lambda: told.append(1))
    assert (ended.stdout, told) == (b"%d\n" % size, [1])


@LINUX
@pytest.mark.parametrize(
    "script",
    ["pass", "import os; os.close(0); print(1)", "import os; os.read(0, 2)"],
    ids=["unread", "closed", "partly"],
)
async def test_it_is_not_told_of_a_line_that_was_not_read_to_its_end(
    programs: LocalPrograms, marker: str, script: str
) -> None:
    told: list[int] = []
    ended = await run(programs, marker, script, line=b"x" * 100, taken=lambda: told.append(1))
    assert (ended.exit_code, told) == (0, [])


@LINUX
async def test_where_pipes_cannot_be_made_small_what_was_written_counts_as_read(
    programs: LocalPrograms, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    told: list[int] = []
    ended = await run(programs, marker, "import sys; print(len(sys.stdin.read()))", taken=lambda: told.append(1))
    assert (ended.stdout, told) == (b"3\n", [1])


async def test_64_megabytes_of_output_leave_the_end_and_a_flag(programs: LocalPrograms, marker: str) -> None:
    script = "import sys\nfor _ in range(64): sys.stdout.write('x' * 1024 * 1024 + '\\n')\nprint('{\"last\": 1}')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = await run(programs, marker, script)
    assert ended.truncated
    assert len(ended.stdout) == 65_536
    assert ended.stdout.endswith(b'\n{"last": 1}\n')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


async def test_a_deaf_program_and_its_grandchildren_are_gone_after_the_wall_timeout(
    programs: LocalPrograms, marker: str
) -> None:
    script = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0 and os.fork() == 0:
    os.setsid()
time.sleep(60)
"""
    ended = await run(programs, marker, script, wall_timeout_s=0.5)
    assert ended.timed_out
    assert ended.exit_code == -9
    assert not bearers(marker)


async def test_a_daemon_left_behind_by_a_good_end_is_gone_too(programs: LocalPrograms, marker: str) -> None:
    script = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nprint('done')"
    began_at = anyio.current_time()
    ended = await run(programs, marker, script)
    assert (ended.exit_code, ended.timed_out, ended.stdout) == (0, False, b"done\n")
    assert anyio.current_time() - began_at < 10
    assert not bearers(marker)


async def test_a_small_fork_bomb_is_swept_up(programs: LocalPrograms, marker: str) -> None:
    script = "import os, time\nfor _ in range(4):\n    os.fork()\ntime.sleep(60)"
    ended = await run(programs, marker, script, wall_timeout_s=1.0)
    assert ended.timed_out
    assert not bearers(marker)


async def test_a_cancelled_run_leaves_nothing(programs: LocalPrograms, marker: str) -> None:
    with anyio.move_on_after(0.5):
        await run(programs, marker, "import os, time; os.fork(); time.sleep(60)")
    assert not bearers(marker)
    assert not list((programs._work_dir).iterdir())


@pytest.mark.parametrize("argv", [("/no/such/program",), ("no-such-program",), ("/etc/passwd",)])
async def test_what_cannot_be_started_is_an_answer(programs: LocalPrograms, marker: str, argv: tuple[str, ...]) -> None:
    ended = await run(programs, marker, "", argv=argv)
    assert ended.exit_code is None
    assert ended.spawn_error is not None


async def test_a_working_directory_that_is_absent_is_an_answer(programs: LocalPrograms, marker: str) -> None:
    assert (await run(programs, marker, "", cwd=Path("/no/such/place"))).spawn_error is not None


async def test_limits_hold(programs: LocalPrograms, marker: str) -> None:
    script = """
import resource
print([resource.getrlimit(n)[0] for n in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)])
bytearray(1 << 30)
"""
    limits = {"cpu_s": 5, "open_files": 32, "memory_bytes": 256 * 1024 * 1024}
    ended = await run(programs, marker, script, limits=limits)
    assert ended.stdout == b"[5, 32, 0]\n"
    assert ended.exit_code == 1
    assert b"MemoryError" in ended.stderr


async def test_a_busy_loop_ends_by_its_processor_limit(programs: LocalPrograms, marker: str) -> None:
    assert (await run(programs, marker, "while True: pass", limits={"cpu_s": 1})).exit_code in (-24, -9)


async def test_nothing_is_inherited_but_what_was_meant(programs: LocalPrograms, marker: str) -> None:
    script = "import os, json; print(sorted(os.environ)); print(sorted(os.listdir('/proc/self/fd'))[:4])"
    ended = await run(programs, marker, script)
    names, descriptors = ended.stdout.decode().splitlines()
    assert set(eval(names)) <= {"PATH", "EXECUTION_ID", "LC_CTYPE"}  # noqa: S307 - our own output
    assert descriptors == "['0', '1', '2', '3']"


@LINUX
async def test_a_leftover_is_killed_by_number_and_start_time(programs: LocalPrograms, marker: str) -> None:
    leftover = sleeper("of another run")
    try:
        started_at = psutil.Process(leftover.pid).create_time()
        assert not await programs.end_leftover(Started(pid=leftover.pid, started_at=started_at - 100), marker)
        assert leftover.poll() is None
        assert await programs.end_leftover(Started(pid=leftover.pid, started_at=started_at), marker)
        assert leftover.wait(5) == -9
    finally:
        leftover.kill()


@LINUX
async def test_leftovers_whose_leader_is_gone_are_known_by_their_marker(programs: LocalPrograms, marker: str) -> None:
    orphan = sleeper(marker)
    try:
        assert await programs.end_leftover(Started(pid=2**22 + 1, started_at=0.0), marker)
        assert orphan.wait(5) == -9
    finally:
        orphan.kill()


async def test_directories_of_a_monitor_that_died_are_swept(programs: LocalPrograms, tmp_path: Path) -> None:
    (tmp_path / "work" / "run-old").mkdir()
    (tmp_path / "work" / "run-old" / "file").touch()
    programs.sweep()
    assert not list((tmp_path / "work").iterdir())
