"""The commands against a running server: what they print, and exit codes that tell the truth."""

import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from standardwebhooks import Webhook

from tests.cli_rig import ANSWER_S, Postroom, command, environment, ok, run
from tests.tcp_way import Way, way_to
from tests.webhook_receiver import running_receiver
from tests.webhook_verifier import verifies

Lines = BufferedByteReceiveStream


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


def test_a_limited_key_is_made_and_rotated(postroom: Postroom, server: dict[str, Any]) -> None:
    limits = ("--scope", "messages:send", "--scope", "agents:read", "--expires-in", "3600")
    made = ok(postroom("keys", "create", *limits, "--json"))
    next_one = ok(postroom("keys", "rotate", made["key_id"], "--overlap", "60", "--json"))
    listed = postroom("keys", "list").stdout

    assert next_one["scopes"] == made["scopes"] == ["agents:read", "messages:send"]
    assert (next_one["previous_key_id"], next_one["expires_at"]) == (made["key_id"], made["expires_at"])
    assert "agents:read messages:send" in listed
    for each in (made, next_one):
        assert postroom("keys", "revoke", each["key_id"]).returncode == 0


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
    silent = postroom("agents", "echo", prefix, "--timeout-s", "0.2")
    assert silent.returncode == 1
    assert "not reached within 0.2 s; attached sessions that answer echoes: 0" in silent.stderr
    assert postroom("agents", "delete", prefix).returncode == 0
    gone = postroom("agents", "show", prefix)
    assert gone.returncode == 1
    assert "agent_not_found: " in gone.stderr


def test_a_service_account_backs_an_agent_is_disabled_and_deleted(postroom: Postroom, prefix: str) -> None:
    account = ok(postroom("accounts", "create", prefix, "--description", "Of the build hosts", "--json"))
    options = ["--service-account", account["id"], "--kind", "llm", "--config", '{"a": 1}', "--description", "Builds"]
    capable = ["--capability", "model=small-1", "--capability", "max_tokens=4096"]

    made = ok(postroom("agents", "create", prefix, *options, *capable, "--json"))
    shown = postroom("agents", "show", prefix).stdout
    changed = ok(postroom("agents", "update", prefix, "--capability", "gpu=true", "--json"))
    in_use = postroom("accounts", "delete", account["id"])
    disabled = postroom("accounts", "disable", account["id"])
    listed = ok(postroom("accounts", "list", "--status", "disabled", "--json"))
    enabled = postroom("accounts", "enable", account["id"])
    assert postroom("agents", "delete", prefix).returncode == 0
    assert postroom("accounts", "delete", account["id"]).returncode == 0

    assert (made["service_account_id"], made["kind"], made["config"]) == (account["id"], "llm", {"a": 1})
    assert made["capabilities"] == {"model": "small-1", "max_tokens": 4096}
    assert 'kind llm; capabilities {"model": "small-1", "max_tokens": 4096}' in shown
    assert changed["capabilities"] == {"gpu": True}
    assert (in_use.returncode, in_use.stderr.startswith("postroom: service_account_in_use: ")) == (1, True)
    assert disabled.stdout == f"{account['id']}  {prefix}  disabled\n"
    assert account["id"] in {each["id"] for each in listed["items"]}
    assert enabled.stdout == f"{account['id']}  {prefix}  active\n"
    assert prefix not in postroom("accounts", "list").stdout


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


@asynccontextmanager
async def following(server: dict[str, Any], key: str, *arguments: str) -> AsyncIterator[tuple[Way, Process, Lines]]:
    """A command that prints JSON lines for as long as it runs, and the way its connections take."""
    async with way_to(server["url"]) as (way, url):
        variables = environment(POSTROOM_URL=url, POSTROOM_API_KEY=key)
        async with await anyio.open_process(command(*arguments, "--json"), env=variables, stderr=None) as process:
            assert process.stdout is not None
            try:
                yield way, process, BufferedByteReceiveStream(process.stdout)
            finally:
                if process.returncode is None:
                    process.kill()


async def printed(lines: Lines) -> Any:
    with anyio.fail_after(ANSWER_S):
        return json.loads(await lines.receive_until(b"\n", 1_000_000))


async def interrupted(process: Process) -> int:
    process.send_signal(signal.SIGINT)
    with anyio.fail_after(ANSWER_S):
        return await process.wait()


async def test_a_streamed_inbox_is_printed_once_through_lost_connections(
    postroom: Postroom, server: dict[str, Any], agent: str
) -> None:
    key = ok(postroom("keys", "create", "--json"))["key"]
    ok(postroom("send", agent, "before", "--json"))
    texts = ["before"]
    async with following(server, key, "listen", agent, "--stream") as (way, process, lines):
        assert (await printed(lines))["message"] == "before"
        for number in range(3):
            way.sever()
            # Line breaks of other alphabets are no ends of lines here.
            texts.append(f"cut {number}\u2028\u0085 grüße")
            ok(postroom("send", agent, texts[-1], "--json"))
            assert (await printed(lines))["message"] == texts[-1]
        ok(postroom("send", agent, "last", "--json"))
        assert (await printed(lines))["message"] == "last"
        assert await interrupted(process) == 130


async def test_a_streamed_inbox_is_acknowledged_as_it_is_printed(
    postroom: Postroom, server: dict[str, Any], agent: str
) -> None:
    key = ok(postroom("keys", "create", "--json"))["key"]
    async with following(server, key, "listen", agent, "--stream", "--ack") as (way, process, lines):
        first = ok(postroom("send", agent, "first", "--json"))
        assert (await printed(lines))["id"] == first["id"]
        way.sever()
        second = ok(postroom("send", agent, "second", "--json"))
        assert (await printed(lines))["id"] == second["id"]
        ok(postroom("send", agent, "third", "--json"))
        assert (await printed(lines))["message"] == "third"
        assert await interrupted(process) == 130
    for each in (first, second):
        assert ok(postroom("explain", each["id"], "--json"))["state"] == "delivered"


def test_a_webhook_is_tested_rotated_and_its_attempts_are_listed(
    postroom: Postroom, server: dict[str, Any], prefix: str
) -> None:
    with running_receiver() as receiver:
        ok(postroom("agents", "create", prefix, "--can", "webhook", "--webhook-url", receiver.url, "--json"))
        rotated = postroom("webhook", "rotate", prefix, "--signature", "v1a")
        assert rotated.stdout.startswith("whpk_")
        assert ok(postroom("webhook", "show", prefix, "--json"))["public_key"] == rotated.stdout.strip()
        assert ok(postroom("webhook", "test", prefix, "--json"))["status"] == 204
        assert verifies(rotated.stdout.strip(), receiver.heard[0], receiver.bodies[0])
        sent = ok(postroom("send", prefix, "hello", "--wait", "outcome", "--json"))
        [attempt] = ok(postroom("webhook", "attempts", sent["id"], "--json"))["attempts"]
        assert (attempt["succeeded"], attempt["status"]) == (True, 204)
        receiver.status = 500
        assert postroom("webhook", "test", prefix).returncode == 1
    assert postroom("webhook", "enable", prefix).returncode == 0
    assert "204" in postroom("webhook", "attempts", sent["id"]).stdout


async def test_webhooks_are_copied_to_a_program_here_checked_and_replayed(
    postroom: Postroom, server: dict[str, Any], data_dir: Path, prefix: str
) -> None:
    key = ok(postroom("keys", "create", "--json"))["key"]
    with running_receiver() as receiver, running_receiver() as program:
        options = ["--can", "webhook", "--webhook-url", receiver.url]
        made = ok(postroom("agents", "create", prefix, *options, "--json"))
        variables = {"POSTROOM_DATA_DIR": str(data_dir), "POSTROOM_WEBHOOK_SECRET": made["webhook_secret"]}
        variables |= {"POSTROOM_API_KEY": key, "POSTROOM_URL": server["url"]}
        argv = command("listen", "--agent", prefix, "--forward-to", program.url, "--json")
        async with await anyio.open_process(argv, env=environment(**variables)) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            with anyio.fail_after(ANSWER_S):
                assert b"are copied" in await BufferedByteReceiveStream(process.stderr).receive_until(b"\n", 10_000)
            sent = ok(postroom("send", prefix, "hello", "--json"))
            told = await printed(BufferedByteReceiveStream(process.stdout))
            assert await interrupted(process) == 130
        again = run("listen", prefix, "--forward-to", program.url, "--replay", sent["id"], "--json", **variables)

    assert (told["message_id"], told["status"], told["signature"]) == (sent["id"], 204, "valid")
    replayed = ok(again)
    assert (replayed["message_id"], replayed["signature"]) == (sent["id"], "valid")
    for heard, body in zip(program.heard, program.bodies, strict=True):
        assert Webhook(made["webhook_secret"]).verify(body, heard)["data"]["message"] == "hello"
    assert (len(program.heard), len(receiver.heard)) == (2, 1)


async def test_the_log_of_events_is_printed_in_order_through_lost_connections(
    postroom: Postroom, server: dict[str, Any], agent: str
) -> None:
    key = ok(postroom("keys", "create", "--json"))["key"]
    options = ["--events", "--after", "0", "--agent", agent, "--type", "message.delivered"]
    sent = [ok(postroom("send", agent, "hello", "--json"))["id"]]
    async with following(server, key, "tail", *options) as (way, process, lines):
        told = [await printed(lines)]
        for _ in range(3):
            way.sever()
            sent.append(ok(postroom("send", agent, "hello", "--json"))["id"])
            told.append(await printed(lines))
        assert await interrupted(process) == 130

    assert [each["subject"] for each in told] == sent
    assert [each["seq"] for each in told] == sorted({each["seq"] for each in told})


def test_the_log_of_events_is_printed_for_people(postroom: Postroom, server: dict[str, Any], agent: str) -> None:
    variables = {"POSTROOM_URL": server["url"], "POSTROOM_API_KEY": ok(postroom("keys", "create", "--json"))["key"]}
    argv = command("tail", "--events", "--after", "0", "--agent", agent)
    with subprocess.Popen(argv, env=environment(**variables), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        line = follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=ANSWER_S) == 130
    assert "agent.created" in line
    assert f"slug={agent}" in line


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["tail", "--events", "--state", "queued"], 2, "--state is not for --events"),
        (["tail", "--type", "message.read"], 2, "--type is for --events only"),
        (["tail", "--events", "--type", "message.received"], 1, "unknown_event_type: "),
        (["tail", "--events", "--agent", "nobody"], 1, "agent_not_found: "),
        (["listen", "nobody", "--stream"], 1, "agent_not_found: "),
    ],
)
def test_what_cannot_be_followed_says_why(postroom: Postroom, arguments: list[str], exit_code: int, words: str) -> None:
    done = postroom(*arguments)
    assert done.returncode == exit_code
    assert words in done.stderr


@pytest.mark.parametrize("arguments", [["tail", "--events"], ["listen", "x", "--stream"]])
def test_a_stream_without_a_server_is_exit_3(arguments: list[str]) -> None:
    done = run(*arguments, POSTROOM_URL="http://127.0.0.1:1", POSTROOM_API_KEY="x")
    assert done.returncode == 3
    assert "no server answers" in done.stderr


async def test_a_stream_ends_with_its_key(postroom: Postroom, server: dict[str, Any], agent: str) -> None:
    made = ok(postroom("keys", "create", "--json"))
    async with following(server, made["key"], "tail", "--events", "--after", "0", "--agent", agent) as (
        _,
        process,
        lines,
    ):
        assert (await printed(lines))["type"] == "agent.created"
        assert postroom("keys", "revoke", made["key_id"]).returncode == 0
        with anyio.fail_after(ANSWER_S):
            assert await process.wait() == 1


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
