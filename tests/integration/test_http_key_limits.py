"""Limited keys over HTTP: scopes, ends, rotation, the one agent of a bound key, the agents of a service account."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from contracts.directory import account_key
from contracts.records import ServiceAccount
from contracts.words import AccountStatus
from gateway import api_keys
from gateway.ports import Write
from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from infra.key_uses import RedisKeyUses
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.http_server import until
from tests.installation import MovableClock
from tests.role_matrix import ACCOUNT_ID, back_with_account


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


async def refusal(caller: Caller, method: str, path: str, body: Json | None = None) -> tuple[int, str]:
    answer = await caller.call(method, path, json=body)
    return answer.status_code, code_of(answer)


# --- minting -------------------------------------------------------------------------------------------------------


async def test_a_key_says_what_it_is_limited_to(rig: Rig) -> None:
    agent = await rig.max.agent("builder")
    wanted = {"scopes": ["mobius.agent.read", "messages:send"], "agent": "builder", "expires_in_s": 60, "name": "w"}
    made = await rig.max.post("/v1/keys", wanted, status=201)
    key = Caller(http=rig.http, key=made["key"], owner="max")

    told, [listed] = (
        await key.get("/v1/auth/me"),
        [each for each in (await rig.max.get("/v1/keys"))["keys"] if each["name"] == "w"],
    )

    for view in (made, told, listed):
        assert view["scopes"] == ["agents:read", "messages:send"]
        assert (view["agent_id"], view["service_account_id"]) == (agent["id"], None)
    assert made["expires_at"] == listed["expires_at"] > made["created_at"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"scopes": ["everything"]}, 422, "unknown_scope"),
        ({"admin": True, "scopes": []}, 422, "field_not_applicable"),
        ({"expires_in_s": 5, "expires_at": "2099-01-01T00:00:00Z"}, 422, "field_not_applicable"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "out_of_range"),
        ({"expires_in_s": 0}, 422, "out_of_range"),
        ({"agent": "nobody"}, 404, "agent_not_found"),
        ({"agent": "hidden@eve"}, 404, "agent_not_found"),
        ({"agent": "builder", "service_account_id": ACCOUNT_ID}, 422, "field_not_applicable"),
        ({"service_account_id": ACCOUNT_ID}, 404, "service_account_not_found"),
        ({"service_account_id": "sa_*"}, 404, "service_account_not_found"),
    ],
)
async def test_limits_that_cannot_be_are_refused_and_nothing_is_minted(
    rig: Rig, body: Json, status: int, code: str
) -> None:
    await rig.eve.agent("hidden")
    before = (await rig.max.get("/v1/keys"))["keys"]

    caller = rig.admin if "admin" in body else rig.max
    assert await refusal(caller, "POST", "/v1/keys", body) == (status, code)
    assert (await rig.max.get("/v1/keys"))["keys"] == before


async def test_nobody_grants_what_he_lacks(rig: Rig) -> None:
    keeper = await minted(rig.max, scopes=["keys:manage", "messages:read"], expires_in_s=1_000)
    stronger = (await rig.max.post("/v1/keys", {}, status=201))["key_id"]

    assert await refusal(keeper, "POST", "/v1/keys", {"expires_in_s": 9}) == (403, "scope_not_held")
    assert await refusal(keeper, "POST", "/v1/keys", {"scopes": ["messages:send"], "expires_in_s": 9}) == (
        403,
        "scope_not_held",
    )
    assert await refusal(keeper, "POST", "/v1/keys", {"scopes": []}) == (403, "expiry_exceeds_own")
    assert await refusal(keeper, "POST", f"/v1/keys/{stronger}/rotate") == (403, "scope_not_held")
    await minted(keeper, scopes=["messages:read"], expires_in_s=9)


async def test_an_owner_has_so_many_keys_and_ended_ones_do_not_count(
    rig: Rig, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_PER_OWNER", 3)
    await minted(rig.max, expires_in_s=5)
    third = await minted(rig.max)
    assert await refusal(rig.max, "POST", "/v1/keys", {}) == (409, "too_many_keys")

    clock.move(seconds=6)
    await minted(rig.max)
    assert await refusal(rig.max, "POST", "/v1/keys", {}) == (409, "too_many_keys")
    await rig.max.delete(f"/v1/keys/{third.key_id}", status=204)
    await minted(rig.max)


# --- their end -----------------------------------------------------------------------------------------------------


async def test_an_expired_key_counts_no_more(rig: Rig, clock: MovableClock) -> None:
    key = await minted(rig.max, expires_in_s=60)
    await key.get("/v1/auth/me")

    clock.move(seconds=60)

    assert await refusal(key, "GET", "/v1/auth/me") == (401, "invalid_credentials")
    assert key.key_id not in {each["key_id"] for each in (await rig.max.get("/v1/keys"))["keys"]}
    assert await refusal(rig.max, "POST", f"/v1/keys/{key.key_id}/rotate") == (409, "key_ended")


async def test_after_a_rotation_two_keys_count_until_the_overlap_is_over(rig: Rig, clock: MovableClock) -> None:
    old = await minted(rig.max, scopes=["agents:read"], name="worker")
    made = await rig.max.post(f"/v1/keys/{old.key_id}/rotate", {"overlap_s": 600}, status=201)
    new = Caller(http=rig.http, key=made["key"], owner="max")

    both = [await each.get("/v1/auth/me") for each in (old, new)]
    clock.move(seconds=601)

    assert [each["scopes"] for each in both] == [["agents:read"]] * 2
    assert (made["name"], made["expires_at"], made["previous_key_id"]) == ("worker", None, old.key_id)
    assert await refusal(old, "GET", "/v1/auth/me") == (401, "invalid_credentials")
    assert (await new.get("/v1/auth/me"))["key_id"] == made["key_id"]


async def test_a_rotation_prolongs_nothing(rig: Rig) -> None:
    old = await minted(rig.max, expires_in_s=600)
    made = await rig.max.post(f"/v1/keys/{old.key_id}/rotate", {"overlap_s": 6_000}, status=201)
    at_once = await rig.max.post(f"/v1/keys/{made['key_id']}/rotate", {"overlap_s": 0}, status=201)

    assert made["expires_at"] == made["previous_expires_at"] == at_once["expires_at"]
    new = Caller(http=rig.http, key=made["key"], owner="max")
    assert await refusal(new, "GET", "/v1/auth/me") == (401, "invalid_credentials")


async def test_a_key_in_place_of_a_limited_one_has_the_same_limits(rig: Rig) -> None:
    await rig.max.agent("builder")
    key = await minted(rig.max, agent="builder", scopes=["agents:read"])
    made = await key.post("/v1/auth/key/regenerate", headers={"x-confirm-destructive": "true"})

    renewed = await Caller(http=rig.http, key=made["api_key"], owner="max").get("/v1/auth/me")

    assert (renewed["scopes"], renewed["agent_id"] is None) == (["agents:read"], False)


async def test_a_key_ends_with_the_agent_it_is_bound_to(rig: Rig, clock: MovableClock) -> None:
    await rig.max.agent("builder")
    key = await minted(rig.max, agent="builder")
    await key.get("/v1/agents/builder")

    await rig.max.delete("/v1/agents/builder", status=204)
    clock.move(seconds=3)

    assert await refusal(key, "GET", "/v1/auth/me") == (401, "invalid_credentials")


async def test_a_disabled_account_s_keys_do_not_count(rig: Rig, clock: MovableClock) -> None:
    await back_with_account(rig, (await rig.max.agent("builder"))["id"])
    key = await minted(rig.max, service_account_id=ACCOUNT_ID)
    await key.get("/v1/agents/builder")

    await _set_account(rig, AccountStatus.DISABLED)
    clock.move(seconds=3)
    disabled = await refusal(key, "GET", "/v1/agents/builder")
    await _set_account(rig, None)
    clock.move(seconds=3)

    assert disabled == await refusal(key, "GET", "/v1/agents/builder") == (401, "invalid_credentials")


@pytest.mark.parametrize("path", ["/v1/agents/builder/inbox?wait_s=30", "/v1/events?wait_s=30&after=1000000"])
async def test_a_held_answer_ends_soon_after_its_key(rig: Rig, path: str) -> None:
    await rig.max.agent("builder")
    key = await minted(rig.max)
    answers: list[httpx.Response] = []

    async def ask() -> None:
        answers.append(await key.call("GET", path))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: rig.gateway.app.state.rooms.holds.count == 1)
            await rig.max.delete(f"/v1/keys/{key.key_id}", status=204)
    assert [answer.status_code for answer in answers] == [200]


# --- when they were last used --------------------------------------------------------------------------------------


async def test_the_list_tells_to_the_minute_when_a_key_was_used(rig: Rig, clock: MovableClock) -> None:
    uses = rig.gateway.parts.key_uses
    assert isinstance(uses, RedisKeyUses)
    key = await minted(rig.max)
    assert await _used_at(rig, key) is None

    await key.get("/v1/auth/me")
    await uses.write()
    first = await _used_at(rig, key)
    clock.move(seconds=30)
    await key.get("/v1/auth/me")
    await uses.write()
    within_the_minute = await _used_at(rig, key)
    clock.move(seconds=31)
    await key.get("/v1/auth/me")
    await uses.write()

    assert first is not None
    assert first == within_the_minute
    assert str(await _used_at(rig, key)) > first


async def test_keys_are_listed_while_nobody_can_say_when_they_were_used(
    own_redis: EmbeddedRedis, nats_server: NatsEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix) as rig:
        own_redis.pause()
        try:
            listed = (await rig.max.get("/v1/keys"))["keys"]
        finally:
            own_redis.resume()

    assert [each["last_used_at"] for each in listed] == [None]


# --- whom they act for ---------------------------------------------------------------------------------------------


async def test_a_bound_key_sends_as_its_agent_and_as_nobody_else(rig: Rig) -> None:
    builder = await rig.max.agent("builder")
    await rig.max.agent("tester")
    key = await minted(rig.max, agent="builder")

    sent = await key.send("tester")
    body = {"to": "tester", "message": "x"}
    as_other = await key.call("POST", "/v1/messages", json=body, headers={"x-postroom-from-agent": "tester"})

    assert sent["from"]["agent_id"] == builder["id"]
    assert (as_other.status_code, code_of(as_other)) == (404, "agent_not_found")


async def test_a_bound_key_sees_its_own_correspondence_and_no_other(rig: Rig) -> None:
    for slug in ("builder", "tester", "writer"):
        await rig.max.agent(slug, "inbox")
    key = await minted(rig.max, agent="builder")
    sent = await key.send("tester")
    received = await rig.max.send("builder")
    others = await rig.max.send("writer")

    assert (await key.get(f"/v1/messages/{sent['id']}"))["id"] == sent["id"]
    assert (await key.get(f"/v1/messages/{received['id']}"))["id"] == received["id"]
    assert await refusal(key, "GET", f"/v1/messages/{others['id']}") == (404, "message_not_found")
    # What it sent is its receiver's to acknowledge.
    assert await refusal(key, "POST", f"/v1/messages/{sent['id']}/ack") == (404, "message_not_found")
    assert [each["id"] for each in (await key.get("/v1/executions"))["executions"]] == [received["id"]]
    assert [each["slug"] for each in (await key.get("/v1/agents"))["agents"]] == ["builder"]
    assert [each["slug"] for each in (await key.get("/v1/agents/roster"))["agents"]] == ["builder"]
    events = (await key.get("/v1/events", limit=1_000))["events"]
    assert events != []
    assert {each["data"]["recipient_agent_id"] for each in events} == {received["to"]["agent_id"]}


async def test_another_agent_of_the_same_owner_looks_absent_to_a_bound_key(rig: Rig) -> None:
    await rig.max.agent("builder")
    tester = await rig.max.agent("tester")
    key = await minted(rig.max, agent="builder")

    there = await key.call("GET", f"/v1/agents/{tester['id']}")
    absent = await key.call("GET", "/v1/agents/agent_zzzzzzzzzzzz")

    assert (there.status_code, there.content) == (absent.status_code, absent.content)


async def test_an_account_s_key_serves_the_agents_it_backs(rig: Rig) -> None:
    builder = await rig.max.agent("builder", "live", "inbox")
    await rig.max.agent("tester", "live")
    await back_with_account(rig, builder["id"])
    key = await minted(rig.max, service_account_id=ACCOUNT_ID)

    assert (await key.get("/v1/auth/me"))["scopes"] == []
    assert [each["slug"] for each in (await key.get("/v1/agents"))["agents"]] == ["builder"]
    assert (await key.patch("/v1/agents/builder", {"kind": "llm"}))["kind"] == "llm"
    await key.session("builder")
    assert await refusal(key, "POST", "/v1/agents/tester/live-sessions", {"label": "x"}) == (404, "agent_not_found")
    assert await refusal(key, "DELETE", "/v1/agents/builder") == (403, "insufficient_scope")
    assert await refusal(key, "POST", "/v1/messages", {"to": "builder", "message": "x"}) == (403, "insufficient_scope")


async def test_an_account_s_key_does_not_wake_an_agent_that_was_put_out_of_service(rig: Rig) -> None:
    await back_with_account(rig, (await rig.max.agent("builder", status="inactive"))["id"])
    key = await minted(rig.max, service_account_id=ACCOUNT_ID)

    assert await refusal(key, "PATCH", "/v1/agents/builder", {"status": "active"}) == (
        403,
        "inactive_is_not_yours_to_undo",
    )
    assert (await key.patch("/v1/agents/builder", {"kind": "llm"}))["status"] == "inactive"
    assert (await rig.max.patch("/v1/agents/builder", {"status": "active"}))["status"] == "active"


async def test_a_list_that_names_no_agent_is_refused_to_whom_several_are_his(rig: Rig) -> None:
    await rig.max.agent("builder")
    account_only = await minted_account_of_none(rig)

    assert await refusal(account_only, "GET", "/v1/executions") == (403, "key_is_confined")
    assert (await account_only.get("/v1/agents"))["agents"] == []


async def minted_account_of_none(rig: Rig) -> Caller:
    now = rig.gateway.parts.clock.now()
    account = ServiceAccount(id=ACCOUNT_ID, owner="max", name="idle", created_at=now, updated_at=now)
    await rig.gateway.parts.store.transact([Write(key=account_key(ACCOUNT_ID), record=account, expected_seq=0)])
    return await minted(rig.max, service_account_id=ACCOUNT_ID)


async def _set_account(rig: Rig, status: AccountStatus | None) -> None:
    """Give the account this status; None deletes it."""
    store = rig.gateway.parts.store
    found = await store.get(account_key(ACCOUNT_ID), ServiceAccount, fresh=True)
    assert found is not None
    record = None if status is None else replace(found.record, status=status)
    await store.transact([Write(key=account_key(ACCOUNT_ID), record=record, expected_seq=found.seq)])


async def _used_at(rig: Rig, key: Caller) -> str | None:
    listed = (await rig.max.get("/v1/keys"))["keys"]
    [used_at] = [each["last_used_at"] for each in listed if each["key_id"] == key.key_id]
    assert used_at is None or isinstance(used_at, str)
    return used_at
