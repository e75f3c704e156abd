"""What a measurement depends on besides the code: the machine, the versions, how long a sync takes, who ran beside."""

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

from cli.benchmark.percentiles import summary
from infra.binaries import nats_server_binary, redis_server_binary

PACKAGES: Final = ("postroom", "nats-py", "uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "redis", "aiohttp")
SYNCS: Final = 200
RECORD: Final = b"x" * 1024
SECRET_OPTIONS: Final = ("--api-key", "--nats-url")
HIDDEN: Final = "[hidden]"
ROLES: Final = ("gateway", "router", "monitor", "nats-server", "valkey-server")


def command_line(arguments: Sequence[str]) -> str:
    """The command as it was typed, without its secrets."""
    words, is_secret = ["postroom"], False
    for word in arguments:
        name, equals, _ = word.partition("=")
        words.append(HIDDEN if is_secret else f"{name}={HIDDEN}" if equals and name in SECRET_OPTIONS else word)
        is_secret = not equals and name in SECRET_OPTIONS
    return " ".join(words)


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "nats_server": _program_version(nats_server_binary()),
        "valkey_server": _program_version(redis_server_binary()),
        "load_average": os.getloadavg(),
        "fsync": sync_latency(),
    }


def sync_latency() -> dict[str, Any]:
    """How long a kilobyte takes to be on disk, where temporary files (and an ephemeral product's data) lie."""
    latencies_s = []
    with tempfile.TemporaryDirectory(prefix="postroom-bench-") as folder:
        with Path(folder, "sync").open("wb", buffering=0) as file:
            for _ in range(SYNCS):
                began_s = time.perf_counter()
                file.write(RECORD)
                os.fsync(file.fileno())
                latencies_s.append(time.perf_counter() - began_s)
    return summary(latencies_s)


class Beside:
    """The product's processes by role, and the processor time each role has used."""

    def __init__(self, pid: int | None) -> None:
        self._processes: list[tuple[str, psutil.Process]] = []
        if pid is not None:
            up = psutil.Process(pid)
            self._processes = [(_role(process), process) for process in (up, *up.children(recursive=True))]

    def roles(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for role, _ in self._processes:
            counts[role] = counts.get(role, 0) + 1
        return counts

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds so far, by role."""
        used: dict[str, float] = {}
        for role, process in self._processes:
            times = process.cpu_times()
            used[role] = used.get(role, 0.0) + times.user + times.system
        return used


def cpu_us_each(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    """Microseconds of each role's processor time per message."""
    return {role: (after[role] - before[role]) / count * 1e6 for role in after} if count else {}


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    for role in ROLES:
        if any(word == role or Path(word).name == role for word in words):
            return role
    return "up"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _program_version(program: Path) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
