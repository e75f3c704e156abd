"""The gateway against its own OpenAPI document: what good requests get, and what thousands of strange ones get."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import pytest
import schemathesis
from schemathesis import hooks
from schemathesis.engine import StopReason, events, from_schema

from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.nats_keys import Kind, NatsKey
from tests.http_rig import Json, Rig, expect, running_rig
from tests.http_server import served
from tests.openapi_check import Conformance

EXAMPLES_PER_OPERATION: Final = 12
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(
        nats_server,
        redis_server,
        prefix,
        webhook_allow_loopback=True,
        webhook_secret_readable=True,
        open_registration=True,
    ) as running:
        yield running


async def test_every_documented_success_is_seen_and_is_as_documented(rig: Rig) -> None:
    conformance = Conformance(await rig.nobody.get("/openapi.json"), base_url="http://gateway")
    rig.http.event_hooks["response"].append(conformance.check)

    await _walk_agents(rig)
    await _walk_projects(rig)
    await _walk_live(rig)
    await _walk_background(rig)
    await _walk_executions(rig)
    await _walk_account(rig)
    await _walk_webhooks(rig)
    await _walk_inbox(rig)
    await _walk_conversation(rig)
    await _walk_cues(rig)
    await _walk_events(rig)
    await _walk_dead_letters(rig)
    await _walk_the_rest(rig)

    assert set(conformance.seen) >= conformance.documented_successes()


async def _walk_agents(rig: Rig) -> None:
    profile = {"display_name": "Mac app", "tools": ["shell"], "work_style": "sync"}
    await rig.max.agent("mac", "live", "bg", "webhook", "inbox", webhook_url="http://127.0.0.1:8443/x", profile=profile)
    await rig.max.agent("other", "inbox")
    await rig.max.patch("/v1/agents/other", {"webhook_url": "http://127.0.0.1:8443/y"})
    await rig.max.get("/v1/agents", limit=1)
    await rig.max.get("/v1/agents/mac")
    await rig.max.get("/v1/agents/mac/presence")
    await rig.max.get("/v1/agents/roster")
    await rig.max.delete("/v1/agents/other", status=204)


async def _walk_projects(rig: Rig) -> None:
    accounts, agents = "/v1/projects/max/service-accounts", "/v1/projects/max/agents"
    account = await rig.max.post(accounts, {"name": "workers", "metadata": {"team": 1}}, status=201)
    made = {"service_account_id": account["id"], "name": "summarizer", "kind": "llm", "capabilities": {"model": "m"}}
    agent = await rig.max.post(agents, made, status=201)
    await rig.max.get(accounts, limit=1)
    await rig.max.get(f"{accounts}/{account['id']}")
    await rig.max.get(agents, **{"limit": 1, "capabilities.model": "m"})
    await rig.max.get(f"{agents}/{agent['id']}")
    await rig.max.patch(f"{agents}/summarizer", {"config": {"a": [1]}, "description": None})
    for word in ("sessions", "presence"):
        await _walk_sessions(rig, f"{agents}/summarizer/{word}")
    await _walk_jobs(rig, "/v1/projects/max")
    wanted = {"name": "w", "permissions": ["mobius.job.claim"], "service_account_id": account["id"]}
    key = await rig.max.post("/v1/api-keys", wanted, status=201)
    await rig.max.get("/v1/api-keys", limit=1)
    await rig.max.get(f"/v1/api-keys/{key['id']}")
    await rig.max.patch(f"{accounts}/{account['id']}", {"status": "disabled"})
    await rig.max.delete(f"/v1/api-keys/{key['id']}", status=204)
    await rig.max.delete(f"{agents}/summarizer", status=204)
    await rig.max.delete(f"{accounts}/{account['id']}", status=204)


async def _walk_jobs(rig: Rig, project: str) -> None:
    await rig.max.send("summarizer", metadata={"action": "summarize", "parameters": {"pages": 3}})
    job = await rig.max.post(f"{project}/jobs/claim", {"worker_id": "w", "where": {"kind": "llm"}})
    await rig.max.post(f"{project}/jobs/claim", {"worker_id": "w"}, status=204)
    path, fence = f"{project}/jobs/{job['job_id']}", {"worker_id": "w", "attempt": job["attempt"]}
    await rig.max.post(f"{path}/heartbeat", fence)
    await rig.max.post(f"{path}/events", {**fence, "events": [{"type": "progress", "payload": {"n": 1}}]}, status=204)
    await rig.max.post(f"{path}/complete", {**fence, "status": "completed", "result_b64": "e30="}, status=204)
    await rig.max.get(f"{project}/workers")


async def _walk_sessions(rig: Rig, of_agent: str) -> None:
    flat = "/v1/projects/max/agents/sessions"
    session = await rig.max.post(of_agent, {"transport": "sse", "metadata": {"hostname": "worker-1"}}, status=201)
    await rig.max.get(of_agent, limit=1)
    for path in (f"{flat}/{session['id']}", f"{of_agent}/{session['id']}"):
        await rig.max.get(path)
        await rig.max.post(f"{path}/heartbeat")
    beats = [{"session_id": session["id"], "age_s": 1.5}, {"session_id": "sess_unknown"}]
    await rig.max.post("/v1/sessions/heartbeat", {"sessions": beats})
    for path in (f"{flat}/{session['id']}", f"{of_agent}/{session['id']}"):
        await rig.max.post(f"{path}/disconnect")
    await rig.max.post("/v1/sessions/heartbeat", {"sessions": beats})


async def _walk_events(rig: Rig) -> None:
    path = "/v1/agents/mac/subscriptions"
    wanted = {"event_type": "*", "delivery_target": "webhook", "webhook_url": "http://127.0.0.1:8443/z"}
    subscription = await rig.max.post(path, wanted, status=201)
    await rig.max.get(path)
    await rig.max.get(f"{path}/{subscription['id']}/attempts")
    await rig.max.patch(f"{path}/{subscription['id']}/ack", {"acked_event_id": 1})
    await rig.max.delete(f"{path}/{subscription['id']}")
    await rig.max.get("/v1/events", limit=5)
    await rig.max.get("/v1/agents/mac/events", limit=5)
    for stream in ("/v1/events/stream", "/v1/agents/mac/inbox/stream"):
        await rig.max.call("GET", stream, params={"for_s": 0.1})


async def _walk_dead_letters(rig: Rig) -> None:
    wish: Json = {"delivery_mode": "live", "live_fallback_mode": "none"}
    first, second, _ = [await rig.max.send("mac", **wish) for _ in range(3)]
    await rig.max.get("/v1/dead-letters", agent="mac", state="live_unclaimed_no_session")
    await rig.max.get("/v1/dead-letters", count_only=True)
    await rig.max.post("/v1/dead-letters/redrive", {"filter": {"agent": "mac"}, "dry_run": True})
    redrive = await rig.max.post("/v1/dead-letters/redrive", {"filter": {"agent": "mac"}}, status=202)
    await rig.max.get("/v1/redrives")
    await rig.max.get(f"/v1/redrives/{redrive['id']}")
    await rig.max.post(f"/v1/redrives/{redrive['id']}/cancel")
    await rig.max.post(f"/v1/messages/{first['id']}/discard", {"reason": "late"})
    await rig.max.post("/v1/dead-letters/discard", {"message_ids": [first["id"]], "reason": "late"})
    await rig.max.session("mac", "again")
    await rig.max.post(f"/v1/messages/{second['id']}/redrive", status=201)
    await rig.max.delete("/v1/agents/mac/live-sessions/again")


async def _walk_live(rig: Rig) -> None:
    sessions = "/v1/agents/mac/live-sessions"
    session = await rig.max.session("mac", attestation="token+nonce")
    await rig.max.post("/v1/hosts/echo", {"echoes": [{"agent_id": "mac"}]})
    await rig.max.post("/v1/agents/mac/echo", {"timeout_s": 0.1})
    monitor = {"monitor_id": "fuzz", "public_key": NatsKey.fresh(Kind.USER).public, "agents": ["mac"]}
    await rig.max.post("/v1/monitors/credentials", monitor, status=201)
    await rig.max.delete("/v1/monitors/fuzz/credentials", status=204)
    await rig.max.get("/v1/agents/mac/presence")
    await rig.max.patch(f"{sessions}/main", {"is_default": True})
    await rig.max.post(f"{sessions}/main/heartbeat", {"monitor_version": "1"})
    await rig.max.get("/v1/agents/mac")
    sent = await rig.max.send("mac", delivery_mode="live")
    [offer] = (await rig.max.get("/v1/executions/claimable", agent="mac"))["executions"]
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/live-claim", {"session_token": session["session_token"], "nonce": offer["nonce"]})
    await rig.max.post(f"{path}/in-context")
    await rig.max.post(f"{path}/outcome", {"success": True, "result": [1], "executed_via": "live"})
    await rig.max.get(path)
    await rig.max.get(sessions)
    await rig.max.delete(f"{sessions}/main")
    await rig.max.get(sessions, include_detached=True)


async def _walk_background(rig: Rig) -> None:
    await rig.max.post("/v1/hosts/heartbeat", {"host_id": "h", "agents": ["mac"]})
    work = {"agent": "mac", "worker_id": "w"}
    await rig.max.post("/v1/executions/claim", work)
    first, second = [await rig.max.send("mac", delivery_mode="bg") for _ in range(2)]
    await rig.max.get("/v1/executions/claimable", agent="mac")
    await rig.max.post(f"/v1/executions/{first['execution_id']}/claim", {"worker_id": "w"})
    await rig.max.post(f"/v1/executions/{first['execution_id']}/heartbeat", {"lease": 1})
    await rig.max.post(f"/v1/executions/{first['execution_id']}/release", {"lease": 1, "reason": "exit_code"})
    leased = await rig.max.post("/v1/executions/claim", work)
    assert leased["message_id"] == second["id"]
    for sent in (first, second):
        await rig.max.get(f"/v1/messages/{sent['id']}")
        await rig.max.get(f"/v1/executions/{sent['execution_id']}")
    await rig.max.get("/v1/executions", limit=1)


async def _walk_executions(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg", metadata={"task": "report"})
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.get("/v1/executions/claimable", task="report")
    await rig.max.post(f"{path}/claim", {"worker_id": "w"})
    await rig.max.post(f"{path}/heartbeat")
    await rig.max.get("/v1/executions", status="delivering")
    await rig.max.post(f"{path}/outcome", {"success": True, "external_id": "7"})
    await rig.max.patch(f"{path}/evidence", {"artifacts": [1]})
    await rig.max.post(f"{path}/verification-pending")
    await rig.max.post(f"{path}/verify", {"reason": "seen"})
    await rig.max.post(f"{path}/replay", status=201)
    await rig.max.get("/v1/executions", has_evidence=True)
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "w", "handlers": ["report"]})
    await rig.max.get("/v1/workers")
    await rig.max.delete("/v1/workers/w", status=204)


async def _walk_account(rig: Rig) -> None:
    confirmed = {"X-Confirm-Destructive": "true"}
    await rig.nobody.post("/v1/auth/register", {"email": "jo@example.com"}, status=201)
    for path in ("/v1/info", "/health", "/status"):
        await rig.nobody.get(path)
    await rig.max.get("/v1/usage")
    await rig.max.get("/v1/auth/key")
    await rig.max.get("/v1/agents/mac/webhook-secret")
    await rig.max.post("/v1/agents/mac/webhook-secret/regenerate", headers=confirmed)
    await rig.eve.post("/v1/auth/key/regenerate", headers=confirmed)


async def _walk_webhooks(rig: Rig) -> None:
    path = "/v1/agents/mac/webhook"
    await rig.max.get(path)
    await rig.max.patch(path, {"max_in_flight": 8, "per_s": 50})
    await rig.max.post(f"{path}/rotate", {"signature": "v1a"})
    await rig.max.post(f"{path}/rotate", {"overlap_s": 0, "signature": "v1"})
    await rig.max.post(f"{path}/enable")
    # Nobody listens there, which is an answer too.
    await rig.max.post(f"{path}/test")
    sent = await rig.max.send("mac", delivery_mode="webhook")
    for about in ("attempts", "webhook"):
        await rig.max.get(f"/v1/executions/{sent['execution_id']}/{about}")


async def _walk_inbox(rig: Rig) -> None:
    inbox: Json = {"to": "mac", "message": "x", "delivery_mode": "inbox"}
    headers = {"Idempotency-Key": "once", "X-Postroom-From-Agent": "mac"}
    sent = await rig.max.post("/v1/messages?wait=outcome&timeout_s=1", inbox, status=201, headers=headers)
    await rig.max.post("/v1/messages", inbox, headers=headers)
    await rig.max.get("/v1/agents/mac/sent")
    await rig.max.get("/v1/agents/mac/inbox")
    await rig.max.get("/v1/agents/mac/inbox", count_only=True)
    await rig.max.post(f"/v1/messages/{sent['id']}/read")
    await rig.max.post(f"/v1/messages/{sent['id']}/ack")
    called_back = await rig.max.send("mac", delivery_mode="inbox")
    await rig.max.post(f"/v1/messages/{called_back['id']}/cancel")


async def _walk_cues(rig: Rig) -> None:
    callback = {"name": "hook", "callback": {"url": "http://127.0.0.1:8443/c"}, "payload": {"a": 1}}
    hook = await rig.max.post("/v1/cues", {**callback, "schedule": {"cron": "@daily"}}, status=201)
    cue = await rig.max.post("/v1/cues", {"name": "note", "to": "mac", "message": "x"}, status=201)
    path = f"/v1/cues/{cue['id']}"
    await rig.max.post(f"{path}/fire", {"payload_override": {"b": 2}})
    await rig.max.get(path)
    await rig.max.patch(f"/v1/cues/{hook['id']}", {"schedule": {"at": "2090-01-01T09:00:00"}, "description": "d"})
    await rig.max.post(f"{path}/pause")
    await rig.max.post(f"{path}/resume")
    await rig.max.get("/v1/cues", limit=1)
    await rig.max.delete(path, status=204)
    headers = {"X-Confirm-Destructive": "true"}
    await rig.max.post("/v1/cues/bulk-delete", {"ids": [hook["id"], cue["id"]]}, headers=headers)


async def _walk_conversation(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox", expects_reply=True, correlation_id="c")
    await rig.max.send("mac", delivery_mode="inbox", reply_to=sent["id"], reply_to_agent="mac", priority=4)
    await rig.max.get(f"/v1/messages/{sent['id']}")
    await rig.max.get(f"/v1/messages/{sent['id']}/receipts")
    await rig.max.get(f"/v1/threads/{sent['id']}", limit=1)
    await rig.max.get("/v1/agents/mac/inbox", counterpart="mac", thread_id=sent["id"], priority="3,4")
    await rig.max.post("/v1/grants", {"owner": "zoe"}, status=201)
    await rig.max.post("/v1/grants", {"owner": "zoe"})
    await rig.max.get("/v1/grants")
    await rig.max.delete("/v1/grants/zoe", status=204)


async def _walk_the_rest(rig: Rig) -> None:
    await rig.max.post("/v1/route", {"to": "mac", "delivery_mode": "auto"})
    await _walk_selection(rig)
    refused = {"to": "mac", "message": "x", "delivery_mode": "live", "live_fallback_mode": "none"}
    await rig.max.post("/v1/messages", refused, status=201)
    await rig.max.patch("/v1/agents/mac", {"delivery_capabilities": ["inbox"]})
    expect(422, await rig.max.call("POST", "/v1/messages", json=refused))
    await rig.max.get("/v1/guards")
    await rig.max.post("/v1/guards/reset", {"sender": "mac"})
    minted = await rig.max.post("/v1/keys", {"name": "laptop", "expires_in_s": 60}, status=201)
    await rig.max.post(f"/v1/keys/{minted['key_id']}/rotate", {"overlap_s": 30}, status=201)
    await rig.max.get("/v1/keys")
    await rig.max.delete(f"/v1/keys/{minted['key_id']}", status=204)
    await rig.max.get("/v1/auth/me")
    for path in ("/healthz", "/readyz", *(f"/.well-known/{name}.json" for name in ("openapi", "asyncapi", "postroom"))):
        await rig.nobody.get(path)
    assert (await rig.nobody.call("GET", "/metrics")).status_code == 200


async def _walk_selection(rig: Rig) -> None:
    for pick in ("one", "all"):
        named = {"to": {"where": {"name": "mac"}, "pick": pick}, "delivery_mode": "inbox", "message": "x"}
        await rig.max.post("/v1/route", named)
        once = {"Idempotency-Key": f"pick-{pick}"}
        await rig.max.post("/v1/messages", named, status=201, headers=once)
        await rig.max.post("/v1/messages", named, headers=once)
    await rig.max.get("/v1/agents", kind="llm", **{"capabilities.model": "haiku"})


@contextmanager
def listening(key_in_use: str, agent_id: str) -> Iterator[Counter[tuple[str, int]]]:
    """Count what is answered inside, and keep the run from sawing off the branch it sits on.

    Schemathesis has one set of hooks per process: ours are in it while inside.
    """
    answered: Counter[tuple[str, int]] = Counter()

    @schemathesis.hook
    def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: Json) -> None:
        names = case.path_parameters or {}
        if names.get("key_id") == key_in_use:
            # Revoking the very key in use would turn the rest of the run into 401s that prove nothing.
            names["key_id"] = "0" * 12
        if case.path == "/v1/auth/key/regenerate" and case.headers:
            case.headers.pop("X-Confirm-Destructive", None)
        # By itself a generator finds few agents and projects there are, and sees nothing but refusals.
        for name, there_is in (("ref", agent_id), ("agent_id", agent_id), ("project", "max")):
            if case.method != "DELETE" and _is_wide_of_the_mark(names.get(name)):
                names[name] = there_is

    @schemathesis.hook
    def after_call(
        context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
    ) -> None:
        answered[case.operation.label, response.status_code] += 1

    try:
        yield answered
    finally:
        hooks.unregister_all()


def _is_wide_of_the_mark(reference: object) -> bool:
    """Half of all references that look like one, always the same half."""
    return isinstance(reference, str) and reference.isascii() and len(reference) % 2 == 1


def _run(conformance: Conformance) -> tuple[list[str], StopReason | None]:
    """What went wrong in a whole run, as a person reads it, and why the run ended."""
    wrong: list[str] = []
    for event in from_schema(conformance.schema).execute():
        match event:
            case events.ScenarioFinished():
                wrong += _failures(event)
            case events.NonFatalError():
                wrong.append(f"{event.label}: {event.value!r}")
            case events.FatalError():
                raise event.exception
            case events.EngineFinished():
                return wrong, event.stop_reason
    return wrong, None


def _failures(scenario: events.ScenarioFinished) -> list[str]:
    infos = [each.failure_info for checks in scenario.recorder.checks.values() for each in checks]
    return [
        f"{info.failure.operation}: {info.failure.title}: {info.failure.message}\n{info.code_sample}"
        for info in infos
        if info is not None
    ]


async def test_no_request_however_strange_gets_what_the_document_does_not_name(
    rig: Rig, nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    # The document's own examples name these two.
    agent = await rig.max.agent("cue-mac-app", "live", "bg", "inbox")
    await rig.max.agent("builder", "bg", "inbox")
    # As when the program ends: requests that ask for their answer to be held are taken, and none is held.
    rig.gateway.app.state.rooms.holds.release()
    async with served(rig, nats_server, redis_server, prefix) as (_, port):
        conformance = Conformance(
            await rig.nobody.get("/openapi.json"), base_url=f"http://127.0.0.1:{port}", config=_config(rig.max.headers)
        )
        with listening(rig.max.key_id, agent["id"]) as answered:
            wrong, stopped = await anyio.to_thread.run_sync(_run, conformance)

    assert not wrong, "\n\n".join(wrong[:5])
    assert stopped is StopReason.COMPLETED
    assert {label for label, _ in answered} == {label for label, _ in conformance.documented_successes()}
    assert _share_of_401(answered) < 0.05


def _config(headers: Json) -> Json:
    checks = {name: {"enabled": True} for name in CHECKS}
    return {
        "seed": 1,
        "headers": headers,
        "generation": {"deterministic": True, "max-examples": EXAMPLES_PER_OPERATION, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        "checks": {"enabled": False, **checks},
    }


def _share_of_401(answered: Counter[tuple[str, int]]) -> float:
    return sum(count for (_, status), count in answered.items() if status == 401) / answered.total()
