"""Rights that would be another right in disguise: where messages are posted, who ends an admin's key, who one is."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.http_server import until
from tests.installation import MovableClock
from tests.role_matrix import ACCOUNT_ID, back_with_account

HOOK = "https://elsewhere.example/hook"
PUSHED: Json = {"event_type": "message.delivered", "delivery_target": "webhook", "webhook_url": HOOK}


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def rig(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, clock: MovableClock
) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, clock=clock) as running:
        yield running


async def minted(caller: Caller, **limits: Any) -> Caller:
    made = await caller.post("/v1/keys", limits, status=201)
    return Caller(http=caller.http, key=made["key"], owner=made["owner"])


async def refusal(caller: Caller, method: str, path: str, body: Json | None = None) -> tuple[int, str, str | None]:
    answer = await caller.call(method, path, json=body)
    return answer.status_code, code_of(answer), answer.json()["error"].get("scope")


# --- where an agent's messages go ----------------------------------------------------------------------------------


async def test_whoever_may_not_read_messages_does_not_have_them_posted_elsewhere(rig: Rig) -> None:
    await rig.max.agent("builder", "webhook", "inbox", webhook_url="https://ours.example/hook")
    manager = await minted(rig.max, scopes=["agents:manage"])
    reader = await minted(rig.max, scopes=["agents:manage", "messages:read"])
    missing = (403, "insufficient_scope", "messages:read")

    assert await refusal(manager, "PATCH", "/v1/agents/builder", {"webhook_url": HOOK}) == missing
    assert await refusal(manager, "POST", "/v1/agents", {"slug": "new", "webhook_url": HOOK}) == missing
    await manager.patch("/v1/agents/builder", {"heartbeat_age_sec": 300, "webhook_url": None})
    await manager.agent("plain")
    changed = await reader.patch("/v1/agents/builder", {"webhook_url": HOOK})

    assert changed["webhook_url"] == HOOK
    assert (await rig.max.call("GET", "/v1/agents/new")).status_code == 404


async def test_whoever_may_not_read_messages_subscribes_nobody_to_their_texts(rig: Rig) -> None:
    await rig.max.agent("builder")
    path, with_texts = "/v1/agents/builder/subscriptions", {**PUSHED, "inline_body": True}
    manager = await minted(rig.max, scopes=["agents:manage"])
    auditor = await minted(rig.max, scopes=["agents:manage", "audit:read"])
    bound = await minted(rig.max, agent="builder", scopes=["agents:manage", "audit:read", "messages:read"])

    assert await refusal(manager, "POST", path, PUSHED) == (403, "insufficient_scope", "audit:read")
    assert await refusal(auditor, "POST", path, with_texts) == (403, "insufficient_scope", "messages:read")
    await auditor.post(path, PUSHED, status=201)
    await bound.post(path, {**with_texts, "event_type": "*"}, status=201)


@pytest.mark.parametrize(
    "change",
    [
        {"slug": "another"},
        {"webhook_url": HOOK},
        {"webhook_url": None},
        {"delivery_capabilities": ["live", "inbox"]},
        {"preferred_contact": "inbox"},
        {"attestation": "token"},
        {"external_addressable": True},
        {"heartbeat_age_sec": 3_600},
        {"claim_window_s": 600},
    ],
)
async def test_a_service_account_says_what_its_agent_is_and_not_where_its_messages_go(rig: Rig, change: Json) -> None:
    agent = await rig.max.agent("builder", "inbox", "bg", attestation="token+nonce")
    await back_with_account(rig, agent["id"])
    account = await minted(rig.max, service_account_id=ACCOUNT_ID)
    manager = await minted(rig.max, service_account_id=ACCOUNT_ID, scopes=["agents:manage", "messages:read"])

    refused = await refusal(account, "PATCH", "/v1/agents/builder", {"kind": "llm", **change})
    unchanged = await rig.max.get(f"/v1/agents/{agent['id']}")
    said = {"kind": "llm", "capabilities": {"model": "small"}, "config": {}, "metadata": {}, "status": "inactive"}
    changed = await account.patch("/v1/agents/builder", {**said, "display_name": "B", "stated_presence": "away"})
    await manager.patch("/v1/agents/builder", change)

    assert refused == (403, "insufficient_scope", "agents:manage")
    assert unchanged["kind"] is None
    assert (changed["kind"], changed["status"]) == ("llm", "inactive")


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_only_an_admin_key_ends_an_admin_key(rig: Rig) -> None:
    local = await minted(rig.admin, owner="local")
    another = await minted(rig.admin, admin=True)

    for path in ("/v1/keys", "/v1/api-keys"):
        answer = await local.call("DELETE", f"{path}/{rig.admin.key_id}")
        assert (answer.status_code, code_of(answer)) == (403, "admin_key_required")
    await rig.admin.delete(f"/v1/keys/{another.key_id}", status=204)

    assert (await rig.admin.call("GET", "/v1/auth/me")).status_code == 200
    assert (await another.call("GET", "/v1/auth/me")).status_code == 401


async def test_who_one_is_tells_a_limited_key_nothing_of_its_owner(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix, open_registration=True) as rig:
        made = await rig.nobody.post("/v1/auth/register", {"email": "ada@example.com"}, status=201)
        ada = Caller(http=rig.http, key=made["api_key"], owner="ada")
        await ada.agent("builder")
        limited = [
            await minted(ada, scopes=["messages:send"]),
            await minted(ada, agent="builder"),
        ]
        auditor = await minted(ada, scopes=["audit:read"])

        for each in limited:
            told = await each.get("/v1/auth/me")
            assert (told["email"], told["active_cues"], told["executions_this_month"]) == (None, None, None)
        for each in (ada, auditor):
            told = await each.get("/v1/auth/me")
            assert (told["email"], told["active_cues"], told["executions_this_month"]) == ("ada@example.com", 0, 0)


async def test_a_senders_wait_ends_soon_after_its_key(rig: Rig) -> None:
    await rig.max.agent("builder")
    key = await minted(rig.max)
    answers: list[httpx.Response] = []

    async def wait() -> None:
        body = {"to": "builder", "message": "Are you there?"}
        answers.append(await key.call("POST", "/v1/messages?wait=outcome&timeout_s=60", json=body))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await until(lambda: rig.gateway.app.state.rooms.holds.count == 1)
            await rig.max.delete(f"/v1/keys/{key.key_id}", status=204)

    [answer] = answers
    assert answer.status_code == 201
    assert answer.json()["waited"]["reached"] is False
