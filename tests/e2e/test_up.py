"""`postroom up` as a process: what it starts, what it tells, and that nothing of it is left."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
START_S = 60
END_S = 10
PROGRAMS = {"nats", "redis", "gateway", "router"}
DEMO = {
    "demo.live",
    "demo.stale_heartbeat",
    "demo.no_session",
    "demo.unclaimed",
    "demo.unclaimed_no_fallback",
    "demo.inbox",
    "demo.webhook",
}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    return ours | {"PYTHONPATH": str(ROOT)}


def run_once(*arguments: str | Path) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    done = subprocess.run(
        command("up", "--port", "0", "--json", *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    return done, [json.loads(line) for line in done.stdout.splitlines()]


class Up:
    """A running `postroom up` and what its ready file says."""

    def __init__(self, process: subprocess.Popen[str], ready_file: Path) -> None:
        self.process = process
        self.ready_file = ready_file
        self.ready: dict[str, Any] = {}
        self.children: list[psutil.Process] = []

    def wait_until_ready(self) -> "Up":
        until(lambda: self.ready_file.exists() or self.process.poll() is not None, START_S)
        assert self.process.poll() is None, self.process.communicate()
        self.ready = json.loads(self.ready_file.read_text())
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        return self

    def child(self, name: str) -> psutil.Process:
        return next(each for each in self.children if name in each.cmdline())

    def ended(self) -> tuple[int, str]:
        """The exit status and what was said on standard error; fails when it takes too long."""
        _, said = self.process.communicate(timeout=END_S)
        return self.process.returncode, said


@contextmanager
def running(tmp_path: Path, *arguments: str | Path, demo: bool = False) -> Iterator[Up]:
    ready_file = tmp_path / "ready.json"
    only_servers = [] if demo else ["--no-demo"]
    with subprocess.Popen(
        command("up", *only_servers, "--port", "0", "--ready-file", ready_file, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Up(process, ready_file).wait_until_ready()
        finally:
            process.kill()


def until(true: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def all_gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(map(is_alive, processes))


def test_once_shows_every_way_and_leaves_nothing_behind() -> None:
    done, told = run_once("--once", "--ephemeral")
    assert done.returncode == 0, done.stderr + done.stdout
    assert {each["step"] for each in told} == PROGRAMS | DEMO | {"monitor", "up"}
    assert all(each["ok"] for each in told)
    assert not [each["pid"] for each in told if psutil.pid_exists(each.get("pid", -1))]


def test_the_demo_holds_again_on_kept_data(tmp_path: Path) -> None:
    for _ in range(2):
        done, told = run_once("--once", "--data", tmp_path)
        assert done.returncode == 0, done.stderr + done.stdout
        assert {each["step"] for each in told if each["ok"]} >= DEMO
    assert not (tmp_path / "run.json").exists()
    assert stat.S_IMODE((tmp_path / "keys" / "admin.key").stat().st_mode) == 0o600


def test_the_ready_file_says_where_everything_is_and_sigterm_ends_everything(tmp_path: Path) -> None:
    with running(tmp_path, "--ephemeral") as up:
        assert stat.S_IMODE(up.ready_file.stat().st_mode) == 0o600
        assert set(up.ready) == {"url", "nats_url", "redis_url", "admin_key", "pid"}
        assert up.ready["pid"] == up.process.pid
        assert len(up.children) == len(PROGRAMS)
        with urlopen(f"{up.ready['url']}/readyz", timeout=5) as answer:  # noqa: S310 - our own gateway
            assert answer.status == 200
        up.process.send_signal(signal.SIGTERM)
        assert up.ended() == (128 + signal.SIGTERM, "")
        assert all_gone(up.children)
        assert not up.ready_file.exists()


def test_ctrl_c_ends_everything_with_130(tmp_path: Path) -> None:
    with running(tmp_path, "--ephemeral") as up:
        up.process.send_signal(signal.SIGINT)
        assert up.ended() == (130, "")
        assert all_gone(up.children)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_up_leaves_no_orphans(tmp_path: Path) -> None:
    with running(tmp_path, "--data", tmp_path / "data") as up:
        up.process.kill()
        up.process.wait()
        until(lambda: all_gone(up.children), END_S)


def test_a_child_that_dies_ends_everything_and_is_named(tmp_path: Path) -> None:
    with running(tmp_path, "--ephemeral") as up:
        up.child("gateway").kill()
        status, said = up.ended()
        assert status == 1
        assert "gateway ended with status -9" in said
        assert all_gone(up.children)


def test_a_second_up_on_the_same_data_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path, "--data", data) as up:
        done, told = run_once("--no-demo", "--data", data)
        assert done.returncode == 1
        assert f"another `postroom up` (process {up.process.pid}) runs on {data}" in done.stderr
        assert told == []
        assert up.process.poll() is None


@pytest.mark.parametrize("option", ["--port", "--nats-port", "--redis-port"])
def test_a_taken_port_is_named_with_its_option(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done, _ = run_once("--no-demo", "--ephemeral", option, str(port))
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert option in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--no-such-flag"], ["--port", "none"], ["--once", "--no-demo"], ["--ephemeral", "--data", "x"]]
)
def test_what_means_nothing_is_refused_with_2(arguments: list[str]) -> None:
    done, told = run_once(*arguments)
    assert done.returncode == 2
    assert told == []


def test_a_session_attached_by_hand_answers_what_another_terminal_sends(tmp_path: Path) -> None:
    data = tmp_path / "data"
    variables = environment() | {"POSTROOM_DATA_DIR": str(data)}
    with running(tmp_path, "--data", data, "--json", demo=True):
        with subprocess.Popen(
            command("attach", "cue-mac-app"), env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as session:
            assert session.stdin is not None
            assert session.stdout is not None
            assert json.loads(session.stdout.readline())["event"] == "attached"
            sending = command("send", "cue-mac-app", "hello", "--wait", "outcome", "--json")
            with subprocess.Popen(sending, env=variables, stdout=subprocess.PIPE, text=True) as sender:
                execution_id = json.loads(session.stdout.readline())["execution_id"]
                print(f"claim {execution_id}", file=session.stdin, flush=True)
                delivery = json.loads(session.stdout.readline())
                outcome = {"execution_id": execution_id, "success": True, "result": {"answer": 42}}
                print(json.dumps(outcome), file=session.stdin, flush=True)
                told, _ = sender.communicate(timeout=START_S)
            assert (delivery["event"], delivery["message"]["message"]) == ("delivery", "hello")
            assert json.loads(session.stdout.readline()) == {
                "event": "posted",
                "execution_id": execution_id,
                "accepted": True,
            }
            view = json.loads(told)
            assert (view["delivery_route"], view["outcome"]["result"]) == ("live", {"answer": 42})
            assert view["in_context_at"] <= view["ended_at"]
            session.send_signal(signal.SIGINT)
            assert session.wait(timeout=END_S) == 130
        audited = subprocess.run(command("audit"), env=variables, capture_output=True, text=True, check=False)
        assert audited.returncode == 0, audited.stderr + audited.stdout
        assert "✓ clean" in audited.stdout
