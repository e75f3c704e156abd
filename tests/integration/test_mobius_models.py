"""What Mobius' own models for version 0.0.5 read in our answers, and the scenario its pages tell."""

from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import pytest
from deepnoodle.mobius._api import models
from pydantic import BaseModel

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, running_rig

M = TypeVar("M", bound=BaseModel)
PROJECT = "/v1/projects/max"
AGENTS = f"{PROJECT}/agents"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


def read(model: type[M], body: Json) -> M:
    """The body as their model reads it; it has to find every field it knows."""
    for known, value in _pairs(model, body):
        assert set(known.model_fields) <= set(value), known
    return model.model_validate(body)


def _pairs(model: type[BaseModel], body: Json) -> Iterator[tuple[type[BaseModel], Json]]:
    if "items" not in model.model_fields:
        yield model, body
        return
    [item] = model.model_fields["items"].annotation.__args__  # type: ignore[union-attr]
    assert body["items"]
    for each in body["items"]:
        yield item, each


def unpinned(key: Json) -> Json:
    """A key as if it were no project's: their generated model of that field takes no text, so no pinned key at all."""
    return {**key, "project_id": None}


def said(request: BaseModel) -> Json:
    """A request as their generated client writes it."""
    return request.model_dump(mode="json", exclude_unset=True)


async def test_agents_are_what_their_models_read(rig: Rig) -> None:
    wanted = models.CreateServiceAccountRequest(name="workers")
    account = read(models.ServiceAccount, await rig.max.post(f"{PROJECT}/service-accounts", said(wanted), status=201))
    request = models.CreateAgentRequest(
        service_account_id=account.id, name="doc-summarizer", kind="llm", capabilities={"model": "m"}
    )

    made = read(models.Agent, await rig.max.post(AGENTS, said(request), status=201))
    # Made at our own door, without an account.
    await rig.max.agent("plain")
    listed = read(models.AgentListResponse, await rig.max.get(AGENTS, status="active", limit=200))
    change = models.UpdateAgentRequest(capabilities={"model": "n"}, status=models.AgentStatus.inactive)
    changed = read(models.Agent, await rig.max.patch(f"{AGENTS}/{made.id}", said(change)))

    assert (made.display_name, made.presence) == ("doc-summarizer", models.AgentPresence.offline)
    assert [each.name for each in listed.items] == ["doc-summarizer", "plain"]
    assert (changed.capabilities, changed.status) == ({"model": "n"}, models.AgentStatus.inactive)


async def test_service_accounts_are_what_their_models_read(rig: Rig) -> None:
    path = f"{PROJECT}/service-accounts"
    made = await rig.max.post(path, {"name": "workers"}, status=201)
    listed = read(models.ServiceAccountListResponse, await rig.max.get(path))
    change = models.UpdateServiceAccountRequest(status=models.ServiceAccountStatus.disabled, metadata={"a": 1})
    changed = read(models.ServiceAccount, await rig.max.patch(f"{path}/{made['id']}", said(change)))

    assert [each.id for each in listed.items] == [made["id"]]
    assert (changed.status, changed.metadata) == (models.ServiceAccountStatus.disabled, {"a": 1})


async def test_keys_are_what_their_models_read(rig: Rig) -> None:
    request = models.CreateProjectPinnedAPIKeyRequest(
        name="worker", project_id=models.ProjectID("max"), permissions=["mobius.job.claim"]
    )

    body = await rig.max.post("/v1/api-keys", said(request), status=201)
    made = read(models.APIKeyCreateResult, unpinned(body))
    page = await rig.max.get("/v1/api-keys")
    listed = read(models.APIKeyListResponse, {**page, "items": [unpinned(each) for each in page["items"]]})
    one = read(models.APIKey, unpinned(await rig.max.get(f"/v1/api-keys/{made.id}")))

    assert body["project_id"] == "max"
    assert (one.key_prefix, one.scope) == (made.key[:8], models.Scope.org)
    assert made.id in [each.id for each in listed.items]


async def test_errors_are_where_their_clients_look_for_them(rig: Rig) -> None:
    answer = await rig.max.call("GET", f"{AGENTS}/nobody")

    error = models.ErrorResponse.model_validate(answer.json()).error
    assert (answer.status_code, error.code) == (404, "agent_not_found")
    assert error.message


async def test_a_worker_registers_beats_and_leaves_as_their_pages_tell(rig: Rig) -> None:
    account = await rig.max.post(f"{PROJECT}/service-accounts", {"name": "summarizers"}, status=201)
    body = {
        "service_account_id": account["id"],
        "name": "doc-summarizer",
        "kind": "llm",
        "capabilities": {"model": "claude-3-5-haiku", "max_tokens": 4096},
    }
    agent_id = (await rig.max.post(AGENTS, body, status=201))["id"]
    key = await rig.max.post("/v1/api-keys", {"name": "w", "service_account_id": account["id"]}, status=201)
    # From here on with the account's own key, which has no permission of any kind.
    worker = Caller(http=rig.http, key=key["key"], owner="max")

    async def presence() -> str:
        found: str = (await worker.get(f"{AGENTS}/{agent_id}"))["presence"]
        return found

    before = await presence()
    wanted = {"transport": "sse", "metadata": {"hostname": "worker-1"}}
    session = read(models.AgentSession, await worker.post(f"{AGENTS}/{agent_id}/sessions", wanted, status=201))
    online, updated_at = await presence(), (await worker.get(f"{AGENTS}/{agent_id}"))["updated_at"]
    path = f"{AGENTS}/sessions/{session.id}"
    beaten = read(models.AgentSession, await worker.post(f"{path}/heartbeat"))
    left = read(models.AgentSession, await worker.post(f"{path}/disconnect"))
    late = await worker.call("POST", f"{path}/heartbeat")

    assert (before, online, await presence()) == ("offline", "online", "offline")
    assert (session.status, session.transport, session.metadata) == (
        models.AgentSessionStatus.connected,
        "sse",
        {"hostname": "worker-1"},
    )
    assert beaten.last_seen_at is not None
    assert (left.status, left.disconnected_at is not None) == (models.AgentSessionStatus.disconnected, True)
    assert (late.status_code, code_of(late)) == (409, "session_ended")
    assert (await worker.get(f"{AGENTS}/{agent_id}"))["updated_at"] == updated_at
