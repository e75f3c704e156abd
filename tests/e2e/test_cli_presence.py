"""`postroom presence` against a running server: said once, and each change for as long as one watches."""

import json
import signal
import subprocess
from typing import Any

import httpx

from tests.cli_rig import ANSWER_S, Postroom, command, environment, ok


def test_presence_is_said_and_each_change_of_it_printed(postroom: Postroom, server: dict[str, Any], agent: str) -> None:
    key = ok(postroom("keys", "create", "--json"))["key"]
    variables = environment(POSTROOM_URL=server["url"], POSTROOM_API_KEY=key)
    sessions = f"{server['url']}/v1/agents/{agent}/live-sessions"
    headers = {"authorization": f"Bearer {key}"}
    argv = command("presence", agent, "--watch", "--json")
    with subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        told = [json.loads(watcher.stdout.readline())["presence"]]
        assert httpx.post(sessions, json={"label": "main"}, headers=headers).status_code == 201
        told.append(json.loads(watcher.stdout.readline())["data"]["to"])
        assert f"{agent}@max  online  last seen" in postroom("presence", agent).stdout
        assert "online" in postroom("agents", "show", agent).stdout
        assert httpx.delete(f"{sessions}/main", headers=headers).status_code == 200
        told.append(json.loads(watcher.stdout.readline())["data"]["to"])
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=ANSWER_S) == 130

    assert told == ["offline", "online", "offline"]
    assert "offline" in postroom("agents", "show", agent).stdout


def test_presence_is_watched_by_people_too(postroom: Postroom, server: dict[str, Any], agent: str) -> None:
    key = ok(postroom("keys", "create", "--json"))["key"]
    variables = environment(POSTROOM_URL=server["url"], POSTROOM_API_KEY=key)
    argv = command("presence", agent, "--watch")
    with subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == f"{agent}@max  offline  never seen\n"
        sessions = f"{server['url']}/v1/agents/{agent}/live-sessions"
        httpx.post(sessions, json={"label": "main"}, headers={"authorization": f"Bearer {key}"})
        line = watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=ANSWER_S) == 130

    assert "offline -> online" in line
    assert "sessions 1, overdue 0" in line


def test_the_presence_of_nobody_is_refused(postroom: Postroom) -> None:
    done = postroom("presence", "nobody")
    assert done.returncode == 1
    assert "agent_not_found: " in done.stderr
