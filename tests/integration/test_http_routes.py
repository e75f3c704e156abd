"""Every route of the app against every role, as the document lists them. A new route fails here without a rule."""

from collections.abc import AsyncIterator

import pytest
from fastapi import APIRouter

from gateway.permissions import RULES
from gateway.routing import StrictRoute
from gateway.schemas_views import ProblemFacts
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.nats_keys import Kind, NatsKey
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.role_matrix import Answers, Expected, Route, Stage, expectations

PUBLIC: set[Route] = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/openapi.json")}
PUBLIC |= {("GET", f"/.well-known/{name}.json") for name in ("openapi", "asyncapi", "postroom")}
PUBLIC |= {("GET", "/health"), ("GET", "/status"), ("GET", "/v1/info")}
# Without a key as well, and not there unless the installation opens it.
REGISTER = ("POST", "/v1/auth/register")
WORKERS = [f"/v1/projects/{{project}}/agents/{{agent_id}}/{word}" for word in ("sessions", "presence")]
WORKER = ["/v1/projects/{project}/agents/sessions/{session_id}", *(f"{path}/{{session_id}}" for path in WORKERS)]
A_USER = NatsKey.fresh(Kind.USER).public
FENCE: Json = {"worker_id": "w", "attempt": 1}
ROUTES: dict[Route, Answers] = {
    ("POST", "/v1/messages"): Answers(404, 201, {"to": "{agent}", "message": "x"}, elsewhere=201),
    ("GET", "/v1/messages/{message_id}"): Answers(404, 200),
    ("GET", "/v1/messages/{message_id}/receipts"): Answers(404, 200),
    ("GET", "/v1/threads/{thread_id}"): Answers(404, 200),
    ("POST", "/v1/messages/{message_id}/cancel"): Answers(404, 200),
    ("POST", "/v1/messages/{message_id}/read"): Answers(404, 200),
    ("POST", "/v1/messages/{message_id}/redrive"): Answers(404, 409),
    ("POST", "/v1/messages/{message_id}/discard"): Answers(404, 409, {"reason": "late"}),
    ("GET", "/v1/dead-letters"): Answers(404, 200),
    ("POST", "/v1/dead-letters/redrive"): Answers(404, 200, {"filter": {"agent": "{agent}"}, "dry_run": True}),
    ("POST", "/v1/dead-letters/discard"): Answers(404, 200, {"filter": {"agent": "{agent}"}, "reason": "late"}),
    # One's own, whoever asks.
    ("GET", "/v1/redrives"): Answers(200, 200),
    ("GET", "/v1/redrives/{redrive_id}"): Answers(404, 200),
    ("POST", "/v1/redrives/{redrive_id}/cancel"): Answers(404, 200),
    ("POST", "/v1/messages/{message_id}/ack"): Answers(404, 200),
    ("POST", "/v1/route"): Answers(404, 200, {"to": "{agent}"}, elsewhere=200),
    ("GET", "/v1/agents/{ref}/inbox"): Answers(404, 200),
    ("GET", "/v1/agents/{ref}/sent"): Answers(404, 200),
    ("GET", "/v1/agents/{ref}/inbox/stream"): Answers(404, 200),
    # One's own log, whoever asks.
    ("GET", "/v1/events"): Answers(200, 200, elsewhere=200),
    ("GET", "/v1/events/stream"): Answers(200, 200, elsewhere=200),
    ("GET", "/v1/agents/{ref}/events"): Answers(404, 200),
    ("POST", "/v1/agents/{ref}/subscriptions"): Answers(
        404, 201, {"event_type": "{event_type}", "delivery_target": "pull"}
    ),
    ("GET", "/v1/agents/{ref}/subscriptions"): Answers(404, 200),
    ("DELETE", "/v1/agents/{ref}/subscriptions/{subscription_id}"): Answers(404, 200),
    ("GET", "/v1/agents/{ref}/subscriptions/{subscription_id}/attempts"): Answers(404, 200),
    ("PATCH", "/v1/agents/{ref}/subscriptions/{subscription_id}/ack"): Answers(404, 200, {"acked_event_id": 1}),
    # A cue is made in one's own name; ids of others are passed over.
    ("POST", "/v1/cues"): Answers(404, 201, {"name": "{name}", "to": "{agent}", "message": "x"}, admin=404),
    ("GET", "/v1/cues"): Answers(200, 200),
    ("POST", "/v1/cues/bulk-delete"): Answers(400, 400, {"ids": ["{cue_id}"]}),
    ("GET", "/v1/cues/{cue_id}"): Answers(404, 200),
    ("PATCH", "/v1/cues/{cue_id}"): Answers(404, 200, {"subject": "s"}),
    ("DELETE", "/v1/cues/{cue_id}"): Answers(404, 204),
    ("POST", "/v1/cues/{cue_id}/pause"): Answers(404, 200),
    ("POST", "/v1/cues/{cue_id}/resume"): Answers(404, 200),
    ("POST", "/v1/cues/{cue_id}/fire"): Answers(404, 200),
    ("GET", "/v1/executions"): Answers(404, 200),
    ("GET", "/v1/executions/claimable"): Answers(404, 200),
    ("GET", "/v1/executions/{execution_id}"): Answers(404, 200),
    ("POST", "/v1/executions/claim"): Answers(404, 200, {"agent": "{agent}", "worker_id": "w"}),
    ("POST", "/v1/executions/{execution_id}/live-claim"): Answers(404, 409, {"session_token": "x"}),
    ("POST", "/v1/executions/{execution_id}/claim"): Answers(404, 409, {"worker_id": "w"}),
    ("POST", "/v1/executions/{execution_id}/heartbeat"): Answers(404, 409, {"lease": 1}),
    ("POST", "/v1/executions/{execution_id}/release"): Answers(404, 409, {"lease": 1, "reason": "x"}),
    ("POST", "/v1/executions/{execution_id}/in-context"): Answers(404, 409),
    ("POST", "/v1/executions/{execution_id}/outcome"): Answers(404, 200, {"success": True}),
    ("PATCH", "/v1/executions/{execution_id}/evidence"): Answers(404, 409, {"external_id": "x"}),
    ("POST", "/v1/executions/{execution_id}/verify"): Answers(404, 409),
    ("POST", "/v1/executions/{execution_id}/verification-pending"): Answers(404, 409),
    ("POST", "/v1/executions/{execution_id}/replay"): Answers(404, 409),
    # Acts on the caller's own namespace only; what it names of others is left out.
    ("POST", "/v1/agents"): Answers(403, 409, {"slug": "helper", "owner": "max"}),
    ("GET", "/v1/agents"): Answers(200, 200, elsewhere=200),
    ("GET", "/v1/agents/roster"): Answers(200, 200, elsewhere=200),
    ("GET", "/v1/agents/{ref}"): Answers(404, 200),
    ("GET", "/v1/agents/{ref}/presence"): Answers(404, 200),
    ("PATCH", "/v1/agents/{ref}"): Answers(404, 200, {"kind": "llm"}),
    ("DELETE", "/v1/agents/{ref}"): Answers(404, 204, is_last=True),
    ("POST", "/v1/agents/{ref}/live-sessions"): Answers(404, 201, {"label": "{name}"}),
    ("GET", "/v1/agents/{ref}/live-sessions"): Answers(404, 200),
    ("PATCH", "/v1/agents/{ref}/live-sessions/{label}"): Answers(404, 200, {"is_default": True}),
    ("POST", "/v1/agents/{ref}/live-sessions/{label}/heartbeat"): Answers(404, 200, {}),
    ("DELETE", "/v1/agents/{ref}/live-sessions/{label}"): Answers(404, 200),
    ("POST", "/v1/monitors/credentials"): Answers(
        404, 201, {"monitor_id": "{name}", "public_key": A_USER, "agents": ["{agent}"]}
    ),
    ("DELETE", "/v1/monitors/{monitor_id}/credentials"): Answers(404, 204),
    ("POST", "/v1/hosts/heartbeat"): Answers(200, 200, {"host_id": "h", "agents": ["{agent}"]}, elsewhere=200),
    ("POST", "/v1/hosts/echo"): Answers(200, 200, {"echoes": [{"agent_id": "{agent}"}]}, elsewhere=200),
    ("POST", "/v1/agents/{ref}/echo"): Answers(404, 200, {"timeout_s": 0.1}),
    ("POST", "/v1/sessions/heartbeat"): Answers(
        200, 200, {"sessions": [{"session_id": "{session_id}"}]}, elsewhere=200
    ),
    **{("POST", path): Answers(404, 201, {"transport": "sse"}) for path in WORKERS},
    **{("GET", path): Answers(404, 200) for path in WORKERS},
    **{("GET", path): Answers(404, 200) for path in WORKER},
    **{("POST", f"{path}/heartbeat"): Answers(404, 200) for path in WORKER},
    **{("POST", f"{path}/disconnect"): Answers(404, 200) for path in WORKER},
    ("POST", "/v1/projects/{project}/agents"): Answers(
        404, 201, {"service_account_id": "{account_id}", "name": "{name}"}
    ),
    ("GET", "/v1/projects/{project}/agents"): Answers(404, 200, elsewhere=200),
    ("GET", "/v1/projects/{project}/agents/{agent_id}"): Answers(404, 200),
    ("PATCH", "/v1/projects/{project}/agents/{agent_id}"): Answers(404, 200, {"kind": "llm"}),
    ("DELETE", "/v1/projects/{project}/agents/{agent_id}"): Answers(404, 204, is_last=True),
    ("POST", "/v1/projects/{project}/service-accounts"): Answers(404, 201, {"name": "{name}"}),
    ("GET", "/v1/projects/{project}/service-accounts"): Answers(404, 200),
    ("GET", "/v1/projects/{project}/service-accounts/{account_id}"): Answers(404, 200),
    ("PATCH", "/v1/projects/{project}/service-accounts/{account_id}"): Answers(404, 200, {"description": "d"}),
    ("DELETE", "/v1/projects/{project}/service-accounts/{account_id}"): Answers(404, 204),
    ("POST", "/v1/projects/{project}/jobs/claim"): Answers(
        404, 204, {"worker_id": "w", "agent_id": "{agent}"}, elsewhere=404
    ),
    **{
        ("POST", f"/v1/projects/{{project}}/jobs/{{job_id}}/{verb}"): Answers(404, 409, {**FENCE, **more})
        for verb, more in (
            ("heartbeat", {}),
            ("complete", {"status": "failed"}),
            ("events", {"events": [{"type": "t"}]}),
        )
    },
    ("GET", "/v1/projects/{project}/workers"): Answers(404, 200),
    # A grant is given in one's own name; whom it names learns nothing.
    ("POST", "/v1/grants"): Answers(201, 201, {"owner": "{name}"}),
    ("GET", "/v1/grants"): Answers(200, 200),
    ("DELETE", "/v1/grants/{owner}"): Answers(404, 204, admin=404),
    ("GET", "/v1/guards"): Answers(200, 200),
    ("POST", "/v1/guards/reset"): Answers(404, 200, {"sender": "{agent}"}),
    ("POST", "/v1/keys"): Answers(403, 201, {"owner": "max", "scopes": ["keys:manage"]}),
    ("GET", "/v1/keys"): Answers(200, 200),
    ("POST", "/v1/keys/{key_id}/rotate"): Answers(404, 201),
    ("DELETE", "/v1/keys/{key_id}"): Answers(404, 204),
    ("POST", "/v1/api-keys"): Answers(
        404, 201, {"name": "x", "project_id": "max", "permissions": ["permission.manage"]}
    ),
    ("GET", "/v1/api-keys"): Answers(200, 200),
    ("GET", "/v1/api-keys/{key_id}"): Answers(404, 200),
    ("DELETE", "/v1/api-keys/{key_id}"): Answers(404, 204),
    ("GET", "/v1/auth/me"): Answers(200, 200),
    ("GET", "/v1/auth/key"): Answers(200, 200),
    ("POST", "/v1/auth/key/regenerate"): Answers(400, 400),
    ("GET", "/v1/agents/{ref}/webhook-secret"): Answers(404, 404),
    ("POST", "/v1/agents/{ref}/webhook-secret/regenerate"): Answers(400, 400, elsewhere=400),
    ("GET", "/v1/agents/{ref}/webhook"): Answers(404, 200),
    ("PATCH", "/v1/agents/{ref}/webhook"): Answers(404, 200, {"max_in_flight": 2}),
    ("POST", "/v1/agents/{ref}/webhook/rotate"): Answers(404, 409),
    ("POST", "/v1/agents/{ref}/webhook/enable"): Answers(404, 409),
    ("POST", "/v1/agents/{ref}/webhook/test"): Answers(404, 409),
    ("GET", "/v1/executions/{execution_id}/attempts"): Answers(404, 200),
    ("GET", "/v1/executions/{execution_id}/webhook"): Answers(404, 409),
    ("GET", "/v1/usage"): Answers(200, 200),
    ("POST", "/v1/worker/heartbeat"): Answers(200, 200, {"worker_id": "another"}, elsewhere=200),
    ("GET", "/v1/workers"): Answers(200, 200),
    ("DELETE", "/v1/workers/{worker_id}"): Answers(404, 204, admin=404),
}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def test_every_route_of_the_document_has_a_rule_and_says_what_it_answers(rig: Rig) -> None:
    document = await rig.nobody.get("/openapi.json")
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert routes - PUBLIC - {REGISTER} == set(ROUTES)
    assert set(RULES) == set(ROUTES)


def test_a_route_without_a_rule_cannot_be_made() -> None:
    async def anything() -> None:
        raise NotImplementedError

    with pytest.raises(LookupError, match="no rule for"):
        APIRouter(route_class=StrictRoute).get("/v1/anything")(anything)


async def test_what_is_open_is_open(rig: Rig) -> None:
    for method, path in PUBLIC:
        assert (await rig.nobody.call(method, path)).status_code == 200, path


async def test_every_role_gets_of_every_route_what_its_rule_says(rig: Rig) -> None:
    stage = await Stage.set(rig)
    wrong = []
    for route, answers in ROUTES.items():
        for role, expected in expectations(route, answers).items():
            wrong += await deviations(stage, route, answers, role, expected)

    assert wrong == []


async def deviations(stage: Stage, route: Route, answers: Answers, role: str, expected: Expected) -> list[str]:
    answer = await stage.call(route, answers, stage.caller(role, RULES[route]))
    found = []
    if answer.status_code != expected.status:
        found.append(f"{role}, {' '.join(route)}: {answer.status_code}, not {expected.status}: {answer.text[:200]}")
    elif expected.code is not None and code_of(answer) != expected.code:
        found.append(f"{role}, {' '.join(route)}: {code_of(answer)}, not {expected.code}")
    if answer.status_code >= 400 and (unknown := set(answer.json()["error"]) - set(ProblemFacts.model_fields)):
        found.append(f"{role}, {' '.join(route)}: tells {unknown}, which no schema names")
    if role == "stranger" and any(name in answer.text for name in ("helper", stage.agent_id, "of-max")):
        found.append(f"{role}, {' '.join(route)}: learns of max: {answer.text[:200]}")
    return found
