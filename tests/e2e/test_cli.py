"""The commands against a running server: what they print, and exit codes that tell the truth."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[dict[str, Any]]:
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


@pytest.fixture(scope="module")
def postroom(server: dict[str, Any]) -> Postroom:
    """A command that speaks as owner max, whom the admin key made a key for."""
    made = run("keys", "create", "--owner", "max", POSTROOM_URL=server["url"], POSTROOM_API_KEY=server["admin_key"])
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()

    def postroom(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run(*arguments, stdin=stdin, POSTROOM_URL=server["url"], POSTROOM_API_KEY=key)

    return postroom


@pytest.fixture
def agent(postroom: Postroom, prefix: str) -> str:
    """A fresh agent that only polls."""
    assert ok(postroom("agents", "create", prefix, "--json"))["slug"] == prefix
    return prefix


def ok(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else None


def test_commands_find_the_running_up_by_its_data_folder(server: dict[str, Any], data_dir: Path) -> None:
    who = run("doctor", "--json", POSTROOM_DATA_DIR=str(data_dir))
    found = {each["what"]: each for each in ok(who)}
    assert found["gateway"]["detail"] == server["url"]
    assert found["key"]["detail"].endswith("of owner max")


def test_a_key_is_made_listed_and_revoked(postroom: Postroom, server: dict[str, Any]) -> None:
    made = ok(postroom("keys", "create", "--name", "laptop", "--json"))
    assert made["key_id"] in {each["key_id"] for each in ok(postroom("keys", "list", "--json"))["keys"]}
    assert postroom("keys", "revoke", made["key_id"]).returncode == 0
    assert made["key_id"] not in {each["key_id"] for each in ok(postroom("keys", "list", "--json"))["keys"]}


def test_a_foreign_owners_key_needs_an_admin_key(postroom: Postroom) -> None:
    done = postroom("keys", "create", "--owner", "somebody-else")
    assert done.returncode == 1
    assert done.stderr.startswith("postroom: admin_key_required: ")


def test_an_agent_is_created_changed_shown_and_deleted(postroom: Postroom, prefix: str) -> None:
    options = ["--can", "live", "--can", "bg", "--preferred", "bg", "--window-s", "5", "--tool", "git"]
    made = ok(postroom("agents", "create", prefix, *options, "--json"))
    assert made["delivery_capabilities"] == ["live", "bg"]
    assert made["claim_window_s"] == 5
    assert made["profile"]["tools"] == ["git"]
    assert ok(postroom("agents", "update", prefix, "--preferred", "live", "--json"))["preferred_contact"] == "live"
    assert "can live, bg; prefers live" in postroom("agents", "show", f"{prefix}@max").stdout
    assert prefix in postroom("agents", "list").stdout
    assert postroom("agents", "delete", prefix).returncode == 0
    gone = postroom("agents", "show", prefix)
    assert gone.returncode == 1
    assert "agent_not_found: " in gone.stderr


def test_a_message_goes_to_the_inbox_and_is_explained(postroom: Postroom, agent: str) -> None:
    sent = ok(postroom("send", agent, "-", "--subject", "Hi", "--metadata", "a=b", "--json", stdin="hello\n"))
    assert sent["effective_delivery_mode"] == "inbox"
    assert sent["metadata"] == {"a": "b"}
    assert postroom("inbox", agent, "--count").stdout == "1\n"
    taken = ok(postroom("inbox", agent, "--wait-s", "5", "--ack", "--json"))["messages"]
    assert [(each["message"], each["state"]) for each in taken] == [("hello\n", "delivered")]
    explained = postroom("explain", sent["id"]).stdout
    assert f"{sent['id']} → {agent}@max" in explained
    assert "plan  1 inbox" in explained
    assert "✓  capability" in explained
    assert "route inbox" in explained
    by_execution = ok(postroom("explain", sent["execution_id"], "--json"))
    assert by_execution["events"][0]["type"] == "accepted"


def test_sending_again_with_the_same_idempotency_key_sends_nothing_twice(postroom: Postroom, agent: str) -> None:
    first, second = (ok(postroom("send", agent, "once", "--idempotency-key", agent, "--json")) for _ in range(2))
    assert first["id"] == second["id"]
    assert second["replayed"] is True


def test_waiting_for_an_outcome_that_does_not_come_fails(postroom: Postroom, agent: str) -> None:
    done = postroom("send", agent, "hello", "--wait", "outcome", "--timeout-s", "1")
    assert done.returncode == 1
    assert "no outcome within" in done.stderr


def test_a_message_nobody_can_take_live_fails_with_the_reason(postroom: Postroom, prefix: str) -> None:
    ok(postroom("agents", "create", prefix, "--can", "live", "--json"))
    done = postroom("send", prefix, "hello", "--mode", "live", "--fallback", "none", "--wait", "outcome")
    assert done.returncode == 1
    assert "live_unclaimed_no_session: " in done.stderr


def test_route_tells_where_a_message_would_go_and_sends_nothing(postroom: Postroom, agent: str) -> None:
    assert ok(postroom("route", agent, "--json"))["plan"] == [{"channel": "inbox", "mode": "inbox"}]
    assert "would be sent inbox" in postroom("route", agent).stdout
    assert postroom("inbox", agent, "--count").stdout == "0\n"


def test_a_channel_the_agent_lacks_is_refused_with_the_gate_that_said_no(postroom: Postroom, agent: str) -> None:
    assert "would be sent nowhere" in postroom("route", agent, "--mode", "live").stdout
    done = postroom("send", agent, "hello", "--mode", "live")
    assert done.returncode == 1
    assert "capability_not_declared: " in done.stderr
    assert "✗  capability" in done.stdout


def test_listen_prints_what_comes_and_acknowledges_it(postroom: Postroom, server: dict[str, Any], agent: str) -> None:
    variables = {"POSTROOM_URL": server["url"], "POSTROOM_API_KEY": ok(postroom("keys", "create", "--json"))["key"]}
    argv = command("listen", agent, "--ack", "--json")
    with subprocess.Popen(argv, env=environment(**variables), stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        for text in ("first", "second"):
            ok(postroom("send", agent, text, "--json"))
            assert json.loads(listener.stdout.readline())["message"] == text
        listener.send_signal(signal.SIGINT)
        assert listener.wait(timeout=ANSWER_S) == 130


def test_tail_prints_the_changes_of_a_message(postroom: Postroom, server: dict[str, Any], agent: str) -> None:
    variables = {"POSTROOM_URL": server["url"], "POSTROOM_API_KEY": ok(postroom("keys", "create", "--json"))["key"]}
    argv = command("tail", "--agent", agent, "--json", "--interval-s", "0.1")
    with subprocess.Popen(argv, env=environment(**variables), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        sent = ok(postroom("send", agent, "hello", "--json"))
        assert json.loads(follower.stdout.readline())["id"] == sent["id"]
        ok(postroom("inbox", agent, "--ack", "--json"))
        states = [json.loads(follower.stdout.readline())["state"]]
        while states[-1] != "delivered":
            states.append(json.loads(follower.stdout.readline())["state"])
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=ANSWER_S) == 130


def test_smoke_sends_one_message_through_everything(postroom: Postroom) -> None:
    for _ in range(2):
        done = postroom("smoke")
        assert done.returncode == 0, done.stderr
        assert [line.split()[:2] for line in done.stdout.splitlines()][-1] == ["✓", "explain"]


def test_no_server_is_exit_3(postroom: Postroom) -> None:
    done = run("keys", "list", POSTROOM_URL="http://127.0.0.1:1", POSTROOM_API_KEY="x")
    assert done.returncode == 3
    assert "no server answers" in done.stderr


def test_a_wrong_key_is_exit_1_with_its_code(server: dict[str, Any]) -> None:
    done = run("keys", "list", POSTROOM_URL=server["url"], POSTROOM_API_KEY="wrong")
    assert done.returncode == 1
    assert done.stderr.startswith("postroom: ")


def test_settings_are_listed_with_their_meaning() -> None:
    rows = {row["name"]: row for row in ok(run("settings", "--json", POSTROOM_LOG_LEVEL="debug"))}
    assert rows["POSTROOM_LOG_LEVEL"]["value"] == "debug"
    assert rows["POSTROOM_LOG_LEVEL"]["default"] == "info"
    assert rows["POSTROOM_NATS_URL"]["value"] == "(unset)"
