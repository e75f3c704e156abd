"""The account over HTTP: keys renewed, webhook secrets, usage, registration, and names made from display names."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from gateway.peer_errors import PeerErrors
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Rig, code_of, running_rig

CONFIRMED = {"X-Confirm-Destructive": "true"}


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


async def test_a_key_tells_its_owner_in_the_peers_words_too(rig: Rig) -> None:
    told = await rig.max.get("/v1/auth/me")

    assert (told["slug"], told["plan"], told["email"]) == ("max", "self_hosted", None)
    assert rig.max.key.startswith(told["api_key_prefix"])
    assert len(told["api_key_prefix"]) == 12


async def test_a_key_is_known_by_its_beginning_and_never_shown_again(rig: Rig) -> None:
    told = await rig.max.get("/v1/auth/key")

    assert told["api_key"] is None
    assert rig.max.key.startswith(told["prefix"])
    assert rig.max.key not in str(told)


async def test_a_key_is_replaced_at_once_and_only_when_confirmed(rig: Rig) -> None:
    minted = await rig.max.post("/v1/keys", {"name": "laptop"}, status=201)
    laptop = Caller(http=rig.http, key=minted["key"], owner="max")

    unconfirmed = await laptop.call("POST", "/v1/auth/key/regenerate")
    renewed = await laptop.post("/v1/auth/key/regenerate", headers=CONFIRMED)
    second = Caller(http=rig.http, key=renewed["api_key"], owner="max")

    assert (unconfirmed.status_code, code_of(unconfirmed)) == (400, "confirmation_required")
    assert renewed["previous_key_revoked"] is True
    assert (await laptop.call("GET", "/v1/auth/me")).status_code == 401
    assert (await second.get("/v1/auth/me"))["key_id"] == renewed["key_id"]
    assert {each["name"] for each in (await rig.max.get("/v1/keys"))["keys"]} == {"test", "laptop"}
    told = (await second.get("/v1/events"))["events"][-2:]
    assert [(each["type"], each["data"]["key_id"]) for each in told] == [
        ("key.created", renewed["key_id"]),
        ("key.revoked", minted["key_id"]),
    ]


async def test_of_many_who_replace_a_key_at_once_one_gets_another(rig: Rig) -> None:
    statuses: list[int] = []

    async def regenerate() -> None:
        answer = await rig.max.call("POST", "/v1/auth/key/regenerate", headers=CONFIRMED)
        statuses.append(answer.status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(regenerate)

    assert sorted(statuses) == [200, 401, 401, 401, 401]


async def test_a_webhook_secret_is_read_and_replaced_where_the_installation_allows_it(rig: Rig) -> None:
    agent = await rig.max.agent("hook", "webhook", webhook_url="http://127.0.0.1:8443/x")
    path = "/v1/agents/hook/webhook-secret"

    read = await rig.max.get(path)
    renewed = await rig.max.post(f"{path}/regenerate", headers=CONFIRMED)
    foreign = await rig.eve.call("GET", "/v1/agents/hook@max/webhook-secret")

    assert read == {"webhook_secret": agent["webhook_secret"]}
    assert renewed["webhook_secret"] not in (None, agent["webhook_secret"])
    assert (await rig.max.get(path))["webhook_secret"] == renewed["webhook_secret"]
    assert (foreign.status_code, code_of(foreign)) == (404, "agent_not_found")


async def test_an_agent_without_a_webhook_has_no_secret(rig: Rig) -> None:
    await rig.max.agent("plain")

    read = await rig.max.call("GET", "/v1/agents/plain/webhook-secret")
    renewed = await rig.max.call("POST", "/v1/agents/plain/webhook-secret/regenerate", headers=CONFIRMED)

    assert (read.status_code, code_of(read)) == (404, "no_webhook_secret")
    assert (renewed.status_code, code_of(renewed)) == (409, "no_webhook_url")


async def test_usage_counts_the_messages_there_are(rig: Rig) -> None:
    await rig.max.agent("mac")
    sent = [await rig.max.send("mac") for _ in range(2)]
    await rig.max.post(f"/v1/messages/{sent[0]['id']}/ack")

    told = await rig.max.get("/v1/usage")

    by_month = told["messages"].pop("by_month")
    assert told["messages"] == {
        "on_record": 2,
        "open": 1,
        "ended": 1,
        "by_state": {"in_inbox": 1, "delivered": 1},
        "earlier": 0,
    }
    assert [each["received"] for each in by_month] == [2] + [0] * 11
    assert told["executions"]["used"] == 2
    assert (await rig.max.get("/v1/auth/me"))["executions_this_month"] == 2
    assert (await rig.eve.get("/v1/usage"))["messages"]["on_record"] == 0


async def test_what_the_server_is_and_whether_it_is_well_needs_no_key(rig: Rig) -> None:
    assert (await rig.nobody.get("/v1/info"))["name"] == "postroom"
    assert await rig.nobody.get("/health") == {"status": "healthy", "services": {"broker": "ok", "store": "ok"}}
    assert await rig.nobody.get("/status") == {"status": "up"}


async def test_whoever_registers_gets_a_namespace_and_a_key(rig: Rig) -> None:
    first = await rig.nobody.post("/v1/auth/register", {"email": "Jo.Doe@example.com"}, status=201)
    namesake = await rig.nobody.post("/v1/auth/register", {"email": "jo-doe@example.org"}, status=201)
    again = await rig.nobody.call("POST", "/v1/auth/register", json={"email": "jo.doe@EXAMPLE.com"})
    told = await Caller(http=rig.http, key=first["api_key"], owner="").get("/v1/auth/me")
    [key_event] = (await Caller(http=rig.http, key=first["api_key"], owner="").get("/v1/events"))["events"]

    assert (first["owner"], first["email"]) == ("jo-doe", "jo.doe@example.com")
    assert (key_event["type"], key_event["data"]["key_id"]) == ("key.created", told["key_id"])
    assert namesake["owner"].startswith("jo-doe-")
    assert len(namesake["owner"]) == len("jo-doe-") + 4
    assert (again.status_code, code_of(again)) == (409, "duplicate_email")
    assert (told["owner"], told["email"], told["admin"]) == ("jo-doe", "jo.doe@example.com", False)


@pytest.mark.parametrize("email", ["max@example.com", "admin@example.com"])
async def test_nobody_registers_into_a_namespace_that_is_taken_or_reserved(rig: Rig, email: str) -> None:
    made = await rig.nobody.post("/v1/auth/register", {"email": email}, status=201)

    assert made["owner"] not in {"max", "admin"}


@pytest.mark.parametrize("email", ["", "x", "x@y", "a b@example.com", "x@example.com\n", "x" * 250 + "@example.com"])
async def test_what_is_no_address_registers_nobody(rig: Rig, email: str) -> None:
    answer = await rig.nobody.call("POST", "/v1/auth/register", json={"email": email})

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "email"


async def test_registration_is_not_there_unless_it_is_opened(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix) as rig:
        answer = await rig.nobody.call("POST", "/v1/auth/register", json={"email": "x@example.com"})

    assert (answer.status_code, code_of(answer)) == (404, "not_found")


async def test_an_agent_without_a_slug_is_named_after_its_display_name(rig: Rig) -> None:
    first = await rig.max.post("/v1/agents", {"display_name": "Mac App (main)"}, status=201)
    second = await rig.max.post("/v1/agents", {"display_name": "Mac App: main"}, status=201)
    reserved = await rig.max.post("/v1/agents", {"profile": {"display_name": "System"}}, status=201)
    nameless = await rig.max.call("POST", "/v1/agents", json={})

    assert (first["slug"], first["display_name"]) == ("mac-app-main", "Mac App (main)")
    assert first["profile"]["display_name"] == "Mac App (main)"
    assert second["slug"].startswith("mac-app-main-")
    assert reserved["slug"].startswith("system-")
    assert (nameless.status_code, code_of(nameless)) == (422, "required")


async def test_a_display_name_changes_alone(rig: Rig) -> None:
    await rig.max.agent("mac", profile={"display_name": "Mac", "tools": ["shell"]})

    changed = await rig.max.patch("/v1/agents/mac", {"display_name": "Mac two"})

    assert changed["display_name"] == changed["profile"]["display_name"] == "Mac two"
    assert changed["profile"]["tools"] == ["shell"]


async def test_agents_are_counted_and_turned_by_offset(rig: Rig) -> None:
    for slug in ("a", "b", "c"):
        await rig.max.agent(slug)

    page = await rig.max.get("/v1/agents", limit=1, offset=1)
    refused = await rig.max.call("GET", "/v1/agents", params={"status": "busy"})

    assert ([each["slug"] for each in page["agents"]], page["total"], page["offset"]) == (["b"], 3, 1)
    assert (refused.status_code, code_of(refused)) == (400, "invalid_status")


async def test_a_session_keeps_the_peers_name_for_it(rig: Rig) -> None:
    await rig.max.agent("mac", "live")

    session = await rig.max.session("mac", cue_id="cue_1", task_name="main task")

    assert (session["cue_id"], session["task_name"]) == ("cue_1", "main task")
    [listed] = (await rig.max.get("/v1/agents/mac/live-sessions"))["live_sessions"]
    assert listed["cue_id"] == "cue_1"


async def test_errors_are_respelled_for_the_peers_command_line(rig: Rig) -> None:
    transport = httpx.ASGITransport(app=PeerErrors(rig.gateway.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=rig.max.headers) as http:
        refused = await http.get("/v1/agents/nobody")
        fine = await http.get("/v1/auth/me")

    assert refused.status_code == 404
    assert refused.headers["content-type"] == "application/json"
    assert refused.json()["detail"]["error"] == refused.json()["error"]
    assert refused.json()["error"]["code"] == "agent_not_found"
    assert fine.json()["slug"] == "max"
