"""Every route of the app against every caller: nobody, a stranger, the owner. A new route fails here without a rule."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig


@dataclass(frozen=True, slots=True)
class Rule:
    """What a stranger with a key of his own gets from a request that names an object of max, and what max gets."""

    stranger: int
    owner: int
    body: Json | None = None


PUBLIC = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/openapi.json")}
PUBLIC |= {("GET", f"/.well-known/{name}.json") for name in ("openapi", "asyncapi", "postroom")}
PUBLIC |= {("GET", "/health"), ("GET", "/status"), ("GET", "/v1/info")}
# Without a key as well, and not there unless the installation opens it.
REGISTER = ("POST", "/v1/auth/register")
RULES = {
    ("POST", "/v1/messages"): Rule(404, 201, {"to": "{agent}", "message": "x"}),
    ("GET", "/v1/messages/{message_id}"): Rule(404, 200),
    ("GET", "/v1/messages/{message_id}/receipts"): Rule(404, 200),
    ("GET", "/v1/threads/{thread_id}"): Rule(404, 200),
    ("POST", "/v1/messages/{message_id}/cancel"): Rule(404, 200),
    ("POST", "/v1/messages/{message_id}/read"): Rule(404, 200),
    ("POST", "/v1/messages/{message_id}/redrive"): Rule(404, 409),
    ("POST", "/v1/messages/{message_id}/discard"): Rule(404, 409, {"reason": "late"}),
    ("GET", "/v1/dead-letters"): Rule(404, 200),
    ("POST", "/v1/dead-letters/redrive"): Rule(404, 202, {"filter": {"agent": "{agent}"}}),
    ("POST", "/v1/dead-letters/discard"): Rule(404, 200, {"filter": {"agent": "{agent}"}, "reason": "late"}),
    # One's own, whoever asks.
    ("GET", "/v1/redrives"): Rule(200, 200),
    ("GET", "/v1/redrives/{redrive_id}"): Rule(404, 200),
    ("POST", "/v1/redrives/{redrive_id}/cancel"): Rule(404, 200),
    ("POST", "/v1/messages/{message_id}/ack"): Rule(404, 200),
    ("POST", "/v1/route"): Rule(404, 200, {"to": "{agent}"}),
    ("GET", "/v1/agents/{ref}/inbox"): Rule(404, 200),
    ("GET", "/v1/agents/{ref}/sent"): Rule(404, 200),
    ("GET", "/v1/agents/{ref}/inbox/stream"): Rule(404, 200),
    # One's own log, whoever asks.
    ("GET", "/v1/events"): Rule(200, 200),
    ("GET", "/v1/events/stream"): Rule(200, 200),
    ("GET", "/v1/agents/{ref}/events"): Rule(404, 200),
    ("POST", "/v1/agents/{ref}/subscriptions"): Rule(404, 201, {"event_type": "*", "delivery_target": "pull"}),
    ("GET", "/v1/agents/{ref}/subscriptions"): Rule(404, 200),
    ("DELETE", "/v1/agents/{ref}/subscriptions/{subscription_id}"): Rule(404, 200),
    ("GET", "/v1/agents/{ref}/subscriptions/{subscription_id}/attempts"): Rule(404, 200),
    ("PATCH", "/v1/agents/{ref}/subscriptions/{subscription_id}/ack"): Rule(404, 200, {"acked_event_id": 1}),
    # A cue is made in one's own name; ids of others are passed over.
    ("POST", "/v1/cues"): Rule(404, 201, {"name": "c", "to": "{agent}", "message": "x"}),
    ("GET", "/v1/cues"): Rule(200, 200),
    ("POST", "/v1/cues/bulk-delete"): Rule(400, 400, {"ids": ["{cue_id}"]}),
    ("GET", "/v1/cues/{cue_id}"): Rule(404, 200),
    ("PATCH", "/v1/cues/{cue_id}"): Rule(404, 200, {"subject": "s"}),
    ("DELETE", "/v1/cues/{cue_id}"): Rule(404, 204),
    ("POST", "/v1/cues/{cue_id}/pause"): Rule(404, 200),
    ("POST", "/v1/cues/{cue_id}/resume"): Rule(404, 200),
    ("POST", "/v1/cues/{cue_id}/fire"): Rule(404, 200),
    ("GET", "/v1/executions"): Rule(404, 200),
    ("GET", "/v1/executions/claimable"): Rule(404, 200),
    ("GET", "/v1/executions/{execution_id}"): Rule(404, 200),
    ("POST", "/v1/executions/claim"): Rule(404, 200, {"agent": "{agent}", "worker_id": "w"}),
    ("POST", "/v1/executions/{execution_id}/live-claim"): Rule(404, 409, {"session_token": "x"}),
    ("POST", "/v1/executions/{execution_id}/claim"): Rule(404, 409, {"worker_id": "w"}),
    ("POST", "/v1/executions/{execution_id}/heartbeat"): Rule(404, 409, {"lease": 1}),
    ("POST", "/v1/executions/{execution_id}/release"): Rule(404, 409, {"lease": 1, "reason": "x"}),
    ("POST", "/v1/executions/{execution_id}/in-context"): Rule(404, 409),
    ("POST", "/v1/executions/{execution_id}/outcome"): Rule(404, 200, {"success": True}),
    ("PATCH", "/v1/executions/{execution_id}/evidence"): Rule(404, 409, {"external_id": "x"}),
    ("POST", "/v1/executions/{execution_id}/verify"): Rule(404, 409),
    ("POST", "/v1/executions/{execution_id}/verification-pending"): Rule(404, 409),
    ("POST", "/v1/executions/{execution_id}/replay"): Rule(404, 409),
    # Acts on the caller's own namespace only; what it names of others is left out.
    ("POST", "/v1/agents"): Rule(403, 409, {"slug": "helper", "owner": "max"}),
    ("GET", "/v1/agents"): Rule(200, 200),
    ("GET", "/v1/agents/roster"): Rule(200, 200),
    ("GET", "/v1/agents/{ref}"): Rule(404, 200),
    ("GET", "/v1/agents/{ref}/presence"): Rule(404, 200),
    ("PATCH", "/v1/agents/{ref}"): Rule(404, 200, {"heartbeat_age_sec": 60}),
    ("DELETE", "/v1/agents/{ref}"): Rule(404, 204),
    ("POST", "/v1/agents/{ref}/live-sessions"): Rule(404, 201, {"label": "second"}),
    ("GET", "/v1/agents/{ref}/live-sessions"): Rule(404, 200),
    ("PATCH", "/v1/agents/{ref}/live-sessions/{label}"): Rule(404, 200, {"is_default": True}),
    ("POST", "/v1/agents/{ref}/live-sessions/{label}/heartbeat"): Rule(404, 200, {}),
    ("DELETE", "/v1/agents/{ref}/live-sessions/{label}"): Rule(404, 200),
    ("POST", "/v1/hosts/heartbeat"): Rule(200, 200, {"host_id": "h", "agents": ["{agent}"]}),
    ("POST", "/v1/hosts/echo"): Rule(200, 200, {"echoes": [{"agent_id": "{agent}"}]}),
    ("POST", "/v1/agents/{ref}/echo"): Rule(404, 200, {"timeout_s": 0.1}),
    # A grant is given in one's own name; whom it names learns nothing.
    ("POST", "/v1/grants"): Rule(201, 201, {"owner": "zoe"}),
    ("GET", "/v1/grants"): Rule(200, 200),
    ("DELETE", "/v1/grants/{owner}"): Rule(404, 204),
    ("GET", "/v1/guards"): Rule(200, 200),
    ("POST", "/v1/guards/reset"): Rule(404, 200, {"sender": "{agent}"}),
    ("POST", "/v1/keys"): Rule(403, 201, {"owner": "max"}),
    ("GET", "/v1/keys"): Rule(200, 200),
    ("DELETE", "/v1/keys/{key_id}"): Rule(404, 204),
    ("GET", "/v1/auth/me"): Rule(200, 200),
    ("GET", "/v1/auth/key"): Rule(200, 200),
    ("POST", "/v1/auth/key/regenerate"): Rule(400, 400),
    ("GET", "/v1/agents/{ref}/webhook-secret"): Rule(404, 404),
    ("POST", "/v1/agents/{ref}/webhook-secret/regenerate"): Rule(400, 400),
    ("GET", "/v1/agents/{ref}/webhook"): Rule(404, 200),
    ("PATCH", "/v1/agents/{ref}/webhook"): Rule(404, 200, {"max_in_flight": 2}),
    ("POST", "/v1/agents/{ref}/webhook/rotate"): Rule(404, 409),
    ("POST", "/v1/agents/{ref}/webhook/enable"): Rule(404, 409),
    ("POST", "/v1/agents/{ref}/webhook/test"): Rule(404, 409),
    ("GET", "/v1/executions/{execution_id}/attempts"): Rule(404, 200),
    ("GET", "/v1/executions/{execution_id}/webhook"): Rule(404, 409),
    ("GET", "/v1/usage"): Rule(200, 200),
    ("POST", "/v1/worker/heartbeat"): Rule(200, 200, {"worker_id": "another"}),
    ("GET", "/v1/workers"): Rule(200, 200),
    ("DELETE", "/v1/workers/{worker_id}"): Rule(404, 204),
}


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


@pytest.fixture
async def names(rig: Rig) -> dict[str, str]:
    """One object of each kind, all of them max's."""
    agent = await rig.max.agent("helper", "live", "inbox")
    await rig.max.session("helper", "main")
    sent = await rig.max.send("helper", delivery_mode="inbox")
    key = await rig.max.post("/v1/keys", {}, status=201)
    wanted = {"event_type": "message.delivered", "delivery_target": "pull"}
    subscription = await rig.max.post("/v1/agents/helper/subscriptions", wanted, status=201)
    redrive = await rig.max.post("/v1/dead-letters/redrive", {"filter": {}}, status=202)
    await rig.max.post("/v1/grants", {"owner": "adam"}, status=201)
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "worker-of-max"})
    cue = await rig.max.post("/v1/cues", {"name": "cue-of-max", "to": "helper", "message": "x"}, status=201)
    return {
        "agent": agent["id"],
        "cue_id": cue["id"],
        "ref": agent["id"],
        "label": "main",
        "message_id": sent["id"],
        "thread_id": sent["thread_id"],
        "owner": "adam",
        "execution_id": sent["execution_id"],
        "key_id": key["key_id"],
        "subscription_id": subscription["id"],
        "redrive_id": redrive["id"],
        "worker_id": "worker-of-max",
    }


def target(method: str, path: str, rule: Rule, names: dict[str, str]) -> tuple[str, str, Json | None]:
    query = "?agent={agent}" if path in {"/v1/executions", "/v1/executions/claimable", "/v1/dead-letters"} else ""
    if path.endswith("/stream"):
        query = "?for_s=0.1"
    body = {name: _filled(value, names) for name, value in rule.body.items()} if rule.body is not None else None
    return method, (path + query).format(**names), body


def _filled(value: object, names: dict[str, str]) -> object:
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    if isinstance(value, dict):
        return {name: _filled(each, names) for name, each in value.items()}
    return value.format(**names) if isinstance(value, str) else value


async def test_every_route_has_a_rule(rig: Rig) -> None:
    routes = {
        (method, route.path)
        for route in rig.gateway.app.routes
        if isinstance(route, Route | APIRoute)
        for method in (route.methods or ())
        if method != "HEAD"
    }

    assert routes - PUBLIC - {REGISTER} == set(RULES)


async def test_without_a_key_only_health_answers(rig: Rig, names: dict[str, str]) -> None:
    for (method, path), rule in RULES.items():
        method, url, body = target(method, path, rule, names)
        answer = await rig.nobody.call(method, url, json=body)
        assert (answer.status_code, code_of(answer)) == (401, "invalid_credentials"), path
    for method, path in PUBLIC:
        assert (await rig.nobody.call(method, path)).status_code == 200, path


@pytest.mark.parametrize("route", sorted(RULES))
async def test_a_stranger_gets_nothing_and_the_owner_gets_his_own(
    rig: Rig, names: dict[str, str], route: tuple[str, str]
) -> None:
    rule = RULES[route]
    method, url, body = target(*route, rule, names)

    foreign = await rig.eve.call(method, url, json=body)
    own = await rig.max.call(method, url, json=body)

    assert foreign.status_code == rule.stranger, foreign.text
    assert own.status_code == rule.owner, own.text
    assert "helper" not in foreign.text
    assert names["key_id"] not in foreign.text
    assert names["worker_id"] not in foreign.text
