"""The monitor as a program: its configuration file, its signals, and what is left after it was killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from infra.clock import SystemIds
from infra.embedded import NatsEndpoint
from tests.stub_gateway import SLUG, StubGateway, Work

DEADLINE_S = 20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel ends children with their parent")
WORKER = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
pid = os.fork()
(folder / f"pid-{os.getpid()}").touch()
time.sleep(60)
"""


@pytest.fixture
def stub() -> Iterator[tuple[StubGateway, str]]:
    stub = StubGateway()
    with stub.served() as url:
        yield stub, url


@pytest.fixture
def config(tmp_path: Path, stub: tuple[StubGateway, str], nats_server: NatsEndpoint) -> Path:
    (tmp_path / "pids").mkdir()
    (tmp_path / "key").write_text("prk_secret_key")
    (tmp_path / "key").chmod(0o600)
    argv = json.dumps([sys.executable, "-c", WORKER, str(tmp_path / "pids")])
    path = tmp_path / "monitor.toml"
    path.write_text(f"""
gateway_url = "{stub[1]}"
nats_url = "{nats_server.edge_url}"
key_file = "key"
monitor_id = "test-host"
state_dir = "state"
poll_every_s = 0.3

[[agents]]
agent = "{SLUG}"
background = {{ argv = {argv} }}
""")
    return path


@asynccontextmanager
async def monitor(config: Path) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A monitor that says it is ready; killed at the end if it still lives."""
    ready = config.with_name("ready")
    process = started(config, ready)
    try:
        await until(ready.exists)
        yield process
    finally:
        process.kill()
        process.wait()
        ready.unlink(missing_ok=True)


def started(config: Path, ready: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "monitor", "--config", str(config), "--ready-file", str(ready)]
    with config.with_name("log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=os.environ | {"PYTHONPATH": str(Path.cwd())})


def ended(config: Path) -> "subprocess.CompletedProcess[str]":
    """A monitor that ends by itself."""
    command = [sys.executable, "-m", "monitor", "--config", str(config)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=DEADLINE_S)


async def until(condition: Callable[[], Any]) -> Any:
    with anyio.fail_after(DEADLINE_S):
        while not (found := condition()):
            await anyio.sleep(0.02)
    return found


def bearers(name: str) -> list[int]:
    """The processes of one run that still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("EXECUTION_ID") == name:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def test_a_signal_stops_it_within_five_seconds_and_nothing_is_left(
    config: Path, stub: tuple[StubGateway, str]
) -> None:
    name = f"exec_{SystemIds().ulid()}"
    stub[0].work[name] = Work()
    async with monitor(config) as process:
        await until(lambda: len(list((config.parent / "pids").iterdir())) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert not bearers(name)
    assert [body["reason"] for body in stub[0].work[name].released] == ["monitor_stopped"]
    assert not config.with_name("ready").exists()
    assert "prk_secret_key" not in config.with_name("log").read_text()


@LINUX
async def test_a_kill_takes_the_child_along_and_the_next_start_clears_up_and_gives_the_lease_back(
    config: Path, stub: tuple[StubGateway, str]
) -> None:
    name = f"exec_{SystemIds().ulid()}"
    stub[0].work[name] = Work()
    async with monitor(config) as process:
        await until(lambda: len(list((config.parent / "pids").iterdir())) == 2)
        leader = min(bearers(name))
        process.kill()
        process.wait()
        await until(lambda: leader not in bearers(name))
        stub[0].poll_finds_work = False
    async with monitor(config):
        assert not bearers(name)
        assert [body["reason"] for body in stub[0].work[name].released] == ["monitor_restarted"]
        assert not list((config.parent / "state" / "work").iterdir())


async def test_a_second_monitor_on_the_same_state_says_so_and_ends(config: Path) -> None:
    async with monitor(config):
        second = ended(config)
        assert second.returncode == 2
        assert "Another monitor" in second.stderr


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (f'"{SLUG}"', '"nobody"', "agents.0.agent: the gateway answers agent_not_found"),
        ("key_file", "kee", "kee: unknown"),
    ],
)
async def test_a_configuration_it_cannot_use_ends_it_with_the_name_of_the_key(
    config: Path, old: str, new: str, complaint: str
) -> None:
    config.write_text(config.read_text().replace(old, new))
    refused = ended(config)
    assert refused.returncode == 2
    assert complaint in refused.stderr


def test_a_creds_file_that_is_not_there_ends_the_start_and_is_named(config: Path) -> None:
    config.write_text(config.read_text().replace("edge.creds", "absent.creds"))
    done = ended(config)
    assert done.returncode == 2
    assert "nats_url: the creds file" in done.stderr
    assert "absent.creds cannot be read" in done.stderr
