"""CueAPI's SDK, command line, MCP server and worker against us, replayed request by request."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.peer_views import UNLIMITED
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, expect, running_rig

WORKERS_HEADERS = {"content-type": "application/json"}  # also on a GET
SDK = {"user-agent": "cueapi-python/0.1.0"}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "bg", "inbox")
        yield running


async def poll(rig: Rig) -> list[Json]:
    answer = await rig.max.call("GET", "/v1/executions/claimable", headers=WORKERS_HEADERS)
    executions: list[Json] = answer.json()["executions"]
    return executions


async def test_the_worker_polls_matches_claims_and_reports(rig: Rig) -> None:
    await rig.max.send("mac", "unknown to it", delivery_mode="bg")
    await rig.max.send("mac", delivery_mode="bg", metadata={"task": "report", "payload": {"month": 3}})
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "host", "handlers": ["report"]})

    [found] = [each for each in await poll(rig) if each["task"] == "report"]
    path = f"/v1/executions/{found['execution_id']}"
    # What its handlers get as environment variables has to be text.
    assert all(isinstance(found[name], str) for name in ("execution_id", "cue_id", "cue_name"))
    assert isinstance(found["payload"], dict)
    claimed = await rig.max.post(f"{path}/claim", {"worker_id": "host"})
    other = await rig.max.call("POST", f"{path}/claim", json={"worker_id": "other-host"})
    body = {
        "success": True,
        "result": "fine\n",
        "metadata": {"k": 1, "_cueapi_worker": {"outcome_file_dropped_fields": ["nope"]}},
        "external_id": "run-7",
        "result_url": "https://example.com/7",
        "result_type": "report",
        "summary": "All green.",
        "artifacts": [{"name": "a"}],
    }
    reported = await rig.max.post(f"{path}/outcome", body)

    assert (claimed["claimed"], claimed["lease_seconds"]) == (True, 900)
    assert other.status_code == 409
    assert (reported["outcome_recorded"], reported["outcome_state"]) == (True, "reported_success")
    assert [each["task"] for each in await poll(rig)] == [None]


async def test_the_workers_failure_is_an_outcome_and_not_an_attempt(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg", metadata={"task": "report"})
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/claim", {"worker_id": "host"})

    await rig.max.post(f"{path}/outcome", {"success": False, "error": "oops\n"})

    told = await rig.max.get(path)
    assert (told["status"], told["error_message"], told["outcome_state"]) == ("failed", "oops\n", "reported_failure")


async def test_the_sdk_lists_reads_reports_and_verifies(rig: Rig) -> None:
    await rig.max.send("mac", delivery_mode="inbox")
    page = await rig.max.get("/v1/executions", limit=20, offset=0, status="pending")
    [listed] = page["executions"]

    # It takes `id` from lists, and sends an empty object where it has nothing to say.
    path = f"/v1/executions/{listed['id']}"
    unclaimed = await rig.max.call("POST", f"{path}/heartbeat", json={})
    await rig.max.post(f"{path}/outcome", {"success": True, "result": "done"})
    pending = await rig.max.post(f"{path}/verification-pending", {})
    verified = await rig.max.post(f"{path}/verify", {})

    assert unclaimed.json()["error"]["code"] == "execution_not_claiming"
    assert (pending["outcome_state"], verified["outcome_state"]) == ("verification_pending", "verified_success")
    assert (await rig.max.get(path))["status"] == "success"


async def test_the_sdk_keeps_a_claimed_execution_alive_with_an_empty_object(rig: Rig) -> None:
    await rig.max.send("mac", delivery_mode="bg")
    claimed = await rig.max.post("/v1/executions/claim", {"worker_id": "host"})

    beat = await rig.max.post(f"/v1/executions/{claimed['execution_id']}/heartbeat", {})

    assert (beat["acknowledged"], beat["execution_id"]) == (True, claimed["execution_id"])
    assert beat["lease_extended_until"] >= claimed["lease"]["expires_at"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/executions/exec_nope"), ("GET", "/v1/cues/cue_nope")])
async def test_errors_are_where_the_sdk_looks_for_them(rig: Rig, method: str, path: str) -> None:
    answer = await rig.max.call(method, path, json={})

    assert answer.status_code == 404
    assert {"code", "message", "status"} <= answer.json()["error"].keys()


async def test_the_sdk_makes_changes_pauses_and_deletes_a_cue(rig: Rig) -> None:
    body = {
        "name": "nightly",
        "schedule": {"type": "recurring", "cron": "0 2 * * *", "timezone": "UTC"},
        "transport": "worker",
        "payload": {"task": "report"},
        "description": "Every night.",
        "retry": {"max_attempts": 5, "backoff_minutes": [1, 2]},
        "on_failure": {"email": True, "webhook": None, "pause": False},
    }
    made = await rig.max.post("/v1/cues", body, status=201)
    path = f"/v1/cues/{made['id']}"
    page = await rig.max.get("/v1/cues", limit=20, offset=0, status="active")
    paused = await rig.max.patch(path, {"status": "paused"})
    resumed = await rig.max.patch(path, {"status": "active"})
    changed = await rig.max.patch(path, {"schedule": {"type": "recurring", "cron": "0 3 * * *"}})
    fired = await rig.max.post(f"{path}/fire", {"payload_override": {"month": 3}, "merge_strategy": "merge"})
    shown = await rig.max.get(path)
    await rig.max.delete(path, status=204)

    # What its models require of a cue.
    assert {"id", "name", "status", "schedule", "callback", "created_at", "updated_at"} <= made.keys()
    assert made["schedule"] == {"type": "recurring", "cron": "0 2 * * *", "at": None, "timezone": "UTC"}
    assert made["callback"] == {"url": None, "method": "POST", "headers": {}}
    assert (made["retry"], made["on_failure"]["email"], made["warning"] is not None) == (body["retry"], True, True)
    assert {"cues", "total", "limit", "offset"} <= page.keys()
    assert (paused["status"], resumed["status"], changed["next_run"][11:16]) == ("paused", "active", "03:00")
    assert (fired["triggered_by"], fired["status"]) == ("manual_fire", "pending")
    assert fired["id"].startswith("exec_")
    assert (shown["run_count"], shown["executions"][0]["scheduled_for"][:4]) == (1, fired["scheduled_for"][:4])


async def test_an_agent_with_a_webhook_and_no_capabilities_is_posted_to(rig: Rig) -> None:
    hook = await rig.max.post("/v1/agents", {"slug": "hook", "webhook_url": "https://example.com/x"}, status=201)
    plain = await rig.max.post("/v1/agents", {"slug": "plain"}, status=201)

    assert hook["delivery_capabilities"] == ["webhook", "inbox"]
    assert (await rig.max.post("/v1/route", {"to": "hook"}))["effective_delivery_mode"] == "webhook"
    assert plain["delivery_capabilities"] == ["inbox"]
    assert (plain["user_id"], plain["deleted_at"]) == ("max", None)


async def test_sessions_are_a_bare_list_for_those_who_read_one(rig: Rig) -> None:
    await rig.max.patch("/v1/agents/mac", {"delivery_capabilities": ["live"]})
    for label in ("main", "desk"):
        await rig.max.session("mac", label)
    path = "/v1/agents/mac/live-sessions"

    theirs = (await rig.max.call("GET", path, headers={"user-agent": "cueapi-python/0.2.0"})).json()
    ours = await rig.max.get(path)

    assert [each["label"] for each in theirs] == ["desk", "main"]
    assert [each["label"] for each in ours["live_sessions"]] == ["main", "desk"]


async def test_an_inbox_is_asked_for_every_state_their_clients_know(rig: Rig) -> None:
    acked, cancelled, waiting = [await rig.max.send("mac", delivery_mode="inbox") for _ in range(3)]
    await rig.max.post(f"/v1/messages/{acked['id']}/ack")
    await rig.max.post(f"/v1/messages/{cancelled['id']}/cancel")

    async def found(state: str) -> list[str]:
        return [each["id"] for each in (await rig.max.get("/v1/agents/mac/inbox", state=state))["messages"]]

    assert await found("failed") == [cancelled["id"]]
    assert await found("acked,expired") == [acked["id"]]
    assert await found("delivering,retry_ready,claimed,expired") == []
    assert await found("queued,delivering,retry_ready") == [waiting["id"]]


async def by_command_line(rig: Rig, method: str, path: str, **options: Any) -> httpx.Response:
    """It says nowhere who it is; what it can be given is another base."""
    headers = {**WORKERS_HEADERS, **options.pop("headers", {})}
    return await rig.max.call(method, f"/cueapi/v1{path}", headers=headers, **options)


async def by_sdk(rig: Rig, method: str, path: str, **options: Any) -> httpx.Response:
    return await rig.max.call(method, path, headers=SDK, **options)


async def test_the_command_line_finds_errors_where_it_looks_for_them(rig: Rig) -> None:
    absent = await by_command_line(rig, "GET", "/agents/nobody")
    keyless = await rig.nobody.call("GET", "/cueapi/v1/auth/me")
    nowhere = await by_command_line(rig, "GET", "/nothing")

    assert (absent.status_code, absent.json()["detail"]["error"]["code"]) == (404, "agent_not_found")
    assert absent.json()["detail"]["error"] == absent.json()["error"]
    assert (keyless.status_code, keyless.json()["error"]["code"]) == (401, "invalid_api_key")
    assert keyless.headers["www-authenticate"] == "Bearer"
    assert (nowhere.status_code, nowhere.json()["detail"]["error"]["code"]) == (404, "not_found")


async def test_errors_stay_problem_details_for_everybody_else(rig: Rig) -> None:
    assert code_of(await rig.max.call("GET", "/v1/agents/nobody")) == "agent_not_found"
    assert code_of(await rig.nobody.call("GET", "/v1/auth/me")) == "invalid_credentials"
    assert (await rig.max.call("GET", "/cueapi")).status_code == 404
    assert (await rig.max.call("GET", "/cueapi/cueapi/v1/auth/me")).status_code == 404


async def test_the_command_line_is_told_when_a_key_was_used_for_another_message(rig: Rig) -> None:
    sender = {"X-Cueapi-From-Agent": "mac", "Idempotency-Key": "k"}
    sent = await by_command_line(rig, "POST", "/messages", json={"to": "mac", "body": "one"}, headers=sender)
    again = await by_command_line(rig, "POST", "/messages", json={"to": "mac", "body": "one"}, headers=sender)
    other = await by_command_line(rig, "POST", "/messages", json={"to": "mac", "body": "two"}, headers=sender)

    assert (sent.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert again.json()["id"] == sent.json()["id"]
    assert other.json()["detail"]["error"]["code"] == "idempotency_key_conflict"


async def test_a_message_is_addressed_to_a_text_for_their_clients(rig: Rig) -> None:
    """The SDK's model of a message refuses anything else."""
    await rig.max.agent("plain")
    sent = expect(201, await by_sdk(rig, "POST", "/v1/messages", json={"to": "plain", "body": "hello"}))
    path = f"/v1/messages/{sent['id']}"
    listed = expect(200, await by_sdk(rig, "GET", "/v1/agents/plain/inbox"))["messages"]
    answers = [sent, *listed]
    for method, step in (("GET", ""), ("POST", "/read"), ("POST", "/ack")):
        answers.append(expect(200, await by_sdk(rig, method, path + step)))

    assert [each["to"] for each in answers] == ["plain@max"] * 5
    assert all(each["body"] == "hello" and each["from"]["agent_id"] is None for each in answers)
    assert (await rig.max.get(path))["to"]["slug"] == "plain"


async def test_an_agent_always_has_a_display_name_for_their_clients(rig: Rig) -> None:
    page = expect(200, await by_sdk(rig, "GET", "/v1/agents", params={"limit": 50, "offset": 0, "status": "offline"}))
    [theirs] = page["agents"]

    assert (theirs["display_name"], theirs["status"], page["total"]) == ("mac", "online", 1)
    ours = await rig.max.get("/v1/agents/mac")
    assert (ours["display_name"], ours["status"], ours["stated_presence"]) == (None, "active", None)


@pytest.mark.parametrize("word", ["online", "away", "offline"])
async def test_a_stated_status_is_shown_and_routes_nothing(rig: Rig, word: str) -> None:
    before = await rig.max.post("/v1/route", {"to": "mac"})

    changed = expect(200, await by_sdk(rig, "PATCH", "/v1/agents/mac", json={"status": word}))

    ours = await rig.max.get("/v1/agents/mac")
    assert (changed["status"], ours["status"], ours["stated_presence"]) == (word, "active", word)
    assert (await rig.max.get("/v1/agents/mac/presence"))["derived_status"] == "offline"
    assert await rig.max.post("/v1/route", {"to": "mac"}) == before
    await rig.max.patch("/v1/agents/mac", {"stated_presence": None, "status": "inactive"})
    assert (await rig.max.get("/v1/agents/mac"))["stated_presence"] is None


async def test_deleted_agents_are_shown_to_who_asks_for_them(rig: Rig) -> None:
    gone = await rig.max.agent("gone")
    await rig.max.delete("/v1/agents/gone", status=204)
    again = await rig.max.agent("gone")

    async def listed(**params: Any) -> tuple[list[str], int]:
        page = expect(200, await by_sdk(rig, "GET", "/v1/agents", params=params))
        return [each["id"] for each in page["agents"]], page["total"]

    everybody, total = await listed(include_deleted="true")
    assert (everybody[0], everybody[2], total) == (again["id"], gone["id"], 3)
    assert await listed(include_deleted="true", limit=1, offset=2) == ([gone["id"]], 3)
    assert await listed() == (everybody[:2], 2)
    path = f"/v1/agents/{gone['id']}"
    shown = expect(200, await by_sdk(rig, "GET", path, params={"include_deleted": "true"}))
    assert (shown["slug"], shown["deleted_at"] is not None) == ("gone", True)
    assert (await rig.max.call("GET", path)).status_code == 404
    assert (await rig.eve.call("GET", path, params={"include_deleted": "true"})).status_code == 404
    assert (await rig.eve.get("/v1/agents", include_deleted="true"))["agents"] == []


async def test_an_inbox_begins_with_the_newest_for_their_clients(rig: Rig) -> None:
    sent = [(await rig.max.send("mac", delivery_mode="inbox"))["id"] for _ in range(3)]

    async def ids(response: httpx.Response) -> list[str]:
        return [each["id"] for each in expect(200, response)["messages"]]

    path = "/v1/agents/mac/inbox"
    first = await by_command_line(rig, "GET", "/agents/mac/inbox", params={"limit": 1, "offset": 0})
    second = await by_command_line(rig, "GET", "/agents/mac/inbox", params={"limit": 2, "offset": 1})
    asked = await by_sdk(rig, "GET", path, params={"order": "oldest"})

    assert await ids(first) + await ids(second) == sent[::-1]
    assert await ids(asked) == await ids(await rig.max.call("GET", path)) == sent
    page = await rig.max.get(path, order="newest", limit=2)
    rest = await rig.max.get(path, order="newest", cursor=page["next_cursor"])
    assert [each["id"] for each in page["messages"] + rest["messages"]] == sent[::-1]
    assert code_of(await rig.max.call("GET", path, params={"cursor": page["next_cursor"]})) == "invalid_cursor"


async def test_a_replay_is_no_failure_for_the_command_line(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    path = f"/executions/{sent['execution_id']}"
    await rig.max.post(f"/v1{path}/claim", {"worker_id": "host"})
    await rig.max.post(f"/v1{path}/outcome", {"success": True})

    replayed = expect(200, await by_command_line(rig, "POST", f"{path}/replay", json={}))

    assert (replayed["triggered_by"], replayed["status"]) == ("replay", "pending")


async def test_the_command_line_can_reckon_with_usage(rig: Rig) -> None:
    used = expect(200, await by_command_line(rig, "GET", "/usage"))

    assert used["plan"] == {"name": "self_hosted"}
    assert used["executions"]["used"] / used["executions"]["limit"] == 0
    assert (used["executions"]["limit"], used["rate_limit"]["limit"]) == (UNLIMITED, None)
    assert (await rig.max.get("/v1/usage"))["executions"]["limit"] is None


@pytest.mark.parametrize(
    ("path", "body", "instead"),
    [
        ("/v1/agents", {"display_name": "Live", "parent_agent_id": "agt_0123456789ab"}, "delivery_capabilities"),
        ("/v1/messages", {"to": "mac", "body": "x", "notify": ["mac"]}, "a message of their own"),
    ],
)
async def test_what_the_hosted_service_alone_has_is_refused_with_what_to_do_instead(
    rig: Rig, path: str, body: Json, instead: str
) -> None:
    refused = await by_sdk(rig, "POST", path, json=body)

    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unknown_field")
    assert instead in refused.json()["error"]["message"]
