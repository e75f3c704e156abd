"""`postroom dead-letters`, `redrive` and `redrives` against a gateway: nothing happens before it was shown."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, running_rig
from tests.http_server import served
from tests.redriver_rig import Watched, dead, router

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 60
Command = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", heartbeat_age_sec=3600, claim_window_s=600)
        yield running


@pytest.fixture
async def environment(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> AsyncIterator[dict[str, str]]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        url = f"http://127.0.0.1:{port}"
        yield bare | {"PYTHONPATH": str(ROOT), "POSTROOM_URL": url, "POSTROOM_API_KEY": rig.max.key}


def argv(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "cli", *arguments]


@pytest.fixture
def postroom(environment: dict[str, str]) -> Command:
    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                argv(*arguments),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=ANSWER_S,
                check=False,
            )
        )

    return run


async def test_dead_letters_are_listed_and_counted(rig: Rig, postroom: Command) -> None:
    [sent] = await dead(rig, 1)
    listed = await postroom("dead-letters", "list", "--agent", "mac")
    assert sent["id"] in listed.stdout
    assert "no_session_attached" in listed.stdout
    counted = await postroom("dead-letters", "list", "--count")
    assert (counted.returncode, counted.stdout) == (0, "1\n")


async def test_without_a_yes_a_redrive_is_shown_and_not_begun(rig: Rig, postroom: Command) -> None:
    await dead(rig, 2)
    shown = await postroom("redrive", "--agent", "mac")
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, "2 to redrive")
    assert "refuse" in shown.stdout
    assert "--yes" in shown.stderr
    dry = await postroom("redrive", "--dry-run", "--yes", "--json")
    assert json.loads(dry.stdout)["matched"] == 2
    assert (await rig.max.get("/v1/redrives"))["redrives"] == []


async def test_a_redrive_is_followed_to_its_end(rig: Rig, postroom: Command) -> None:
    await dead(rig, 5)
    await rig.max.session("mac")
    async with router(rig, Watched(rig)):
        done = await postroom("dead-letters", "redrive", "--yes", "--json", "--rate-per-s", "500")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["redriven"] == 5
    assert "done: 5/5" in done.stderr


async def test_ctrl_c_leaves_a_redrive_running_and_says_how_to_follow_and_stop_it(
    rig: Rig, environment: dict[str, str], postroom: Command
) -> None:
    await dead(rig, 2)
    async with await anyio.open_process(argv("redrive", "--yes"), env=environment) as process:
        with anyio.fail_after(ANSWER_S):
            while not (redrives := (await rig.max.get("/v1/redrives"))["redrives"]):
                await anyio.sleep(0.02)
        assert process.stderr is not None
        told = (await process.stderr.receive()).decode()
        process.send_signal(signal.SIGINT)
        with anyio.fail_after(ANSWER_S):
            told += b"".join([each async for each in process.stderr]).decode()
            assert await process.wait() == 130
    [redrive] = redrives
    assert f"postroom redrives watch {redrive['id']}" in told
    assert (await rig.max.get(f"/v1/redrives/{redrive['id']}"))["state"] == "running"
    stopped = await postroom("redrives", "cancel", redrive["id"])
    assert "cancelling" in stopped.stdout
    assert redrive["id"] in (await postroom("redrives", "list")).stdout


async def test_discarding_needs_a_reason_and_a_yes(rig: Rig, postroom: Command) -> None:
    await dead(rig, 3)
    unexplained = await postroom("dead-letters", "discard", "--yes")
    assert unexplained.returncode == 2
    unsaid = await postroom("dead-letters", "discard", "--why", "late")
    assert "3 to discard" in unsaid.stdout
    assert (await rig.max.get("/v1/dead-letters", count_only=True))["count"] == 3
    said = await postroom("dead-letters", "discard", "--why", "late", "--yes")
    assert (said.returncode, said.stdout.splitlines()[-1]) == (0, "discarded 3, refused 0")


async def test_messages_are_named_or_described_and_not_both(rig: Rig, postroom: Command) -> None:
    [sent] = await dead(rig, 1)
    both = await postroom("redrive", sent["id"], "--agent", "mac")
    assert both.returncode == 2
    one = await postroom("redrive", sent["id"], "--dry-run")
    assert one.stdout.startswith("1 to redrive")
