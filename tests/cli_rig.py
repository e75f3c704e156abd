"""Commands as processes, for tests: how `postroom` is run, and a running `up` for it to talk to."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_S = 60
ANSWER_S = 30

Postroom = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "cli", *map(str, arguments)]


def environment(**ours: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    return bare | {"PYTHONPATH": str(ROOT), **ours}


def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )


def ok(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else None


@contextmanager
def running_up(data_dir: Path) -> Iterator[dict[str, Any]]:
    """A running `up --no-demo`: what its ready file says."""
    ready = data_dir / "ready.json"
    argv = command("up", "--no-demo", "--port", "0", "--data", data_dir, "--ready-file", ready)
    with (data_dir / "up.out").open("w") as out:
        with subprocess.Popen(argv, env=environment(), stdout=out, stderr=out, start_new_session=True) as process:
            try:
                deadline = time.monotonic() + START_S
                while not ready.exists():
                    assert process.poll() is None, (data_dir / "up.out").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                yield json.loads(ready.read_text())
            finally:
                process.send_signal(signal.SIGTERM)


def speaking_as(owner: str, server: dict[str, Any]) -> Postroom:
    """A command that speaks as this owner, whom the admin key made a key for."""
    made = run("keys", "create", "--owner", owner, POSTROOM_URL=server["url"], POSTROOM_API_KEY=server["admin_key"])
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()

    def postroom(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run(*arguments, stdin=stdin, POSTROOM_URL=server["url"], POSTROOM_API_KEY=key)

    return postroom
