"""Callers with tokens of an OpenID provider, over HTTP: who they are, what they may do, and the one 401 of the rest."""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from contracts.directory import Owner, owner_key
from gateway.keys import KEY_BYTES, new_key
from gateway.oidc import key_id_of
from infra.clock import SystemIds
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.settings import GatewaySettings
from tests.http_rig import Caller, Rig, code_of, running_rig
from tests.oidc_provider import AUDIENCE, Issuer, bad_tokens, provider


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with provider() as running:
        yield running


def for_provider(issuer: Issuer) -> dict[str, Any]:
    return {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "webhook_allow_loopback": True}


@pytest.fixture
async def rig(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, issuer: Issuer
) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, **for_provider(issuer)) as running:
        yield running


def bearer(rig: Rig, token: str, owner: str = "max") -> Caller:
    return Caller(http=rig.http, key=token, owner=owner)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_token_says_whose_it_is(rig: Rig, issuer: Issuer, algorithm: str) -> None:
    told = await bearer(rig, issuer.token(algorithm)).get("/v1/auth/me")

    assert (told["owner"], told["admin"], told["kind"]) == ("max", False, "token")
    assert told["key_id"] == key_id_of(issuer.url, "somebody@example.com")
    assert told["scopes"] == ["agents:read", "messages:read", "messages:send"]
    assert "example.com" not in str(told)
    assert (await rig.max.get("/v1/auth/me"))["kind"] == "key"


async def test_a_token_is_worth_what_a_key_with_its_scopes_is(rig: Rig, issuer: Issuer) -> None:
    await rig.max.agent("helper")
    caller = bearer(rig, issuer.token())

    sent = await caller.send("helper")
    refused = await caller.call("POST", "/v1/agents", json={"slug": "another"})

    assert (await caller.get(f"/v1/messages/{sent['id']}"))["id"] == sent["id"]
    assert (refused.status_code, code_of(refused)) == (403, "insufficient_scope")
    assert refused.json()["error"]["scope"] == "agents:manage"


async def test_a_token_without_scopes_may_ask_who_it_is_and_nothing_else(rig: Rig, issuer: Issuer) -> None:
    caller = bearer(rig, issuer.token(scope=None))

    assert (await caller.get("/v1/auth/me"))["scopes"] == []
    assert (await caller.call("GET", "/v1/agents")).status_code == 403


async def test_a_token_is_never_an_admins_and_reaches_no_other_owner(rig: Rig, issuer: Issuer) -> None:
    agent = await rig.eve.agent("helper")
    everything = "messages:send messages:read agents:read agents:manage keys:manage admin"
    caller = bearer(rig, issuer.token(scope=everything, admin=True))

    assert (await caller.call("GET", f"/v1/agents/{agent['id']}")).status_code == 404
    assert (await caller.call("POST", "/v1/keys", json={"owner": "eve"})).status_code == 403
    assert (await caller.call("POST", "/v1/keys", json={"admin": True})).status_code == 403


async def test_an_owner_begins_to_exist_with_the_first_token_that_speaks_for_it(rig: Rig, issuer: Issuer) -> None:
    store = rig.gateway.parts.store
    assert await store.get(owner_key("zoe"), Owner, fresh=True) is None

    caller = bearer(rig, issuer.token(postroom_owner="zoe", scope="agents:manage agents:read"), "zoe")
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(caller.get, "/v1/auth/me")
    made = await caller.agent("helper")

    assert made["address"] == "helper@zoe"
    assert await store.get(owner_key("zoe"), Owner, fresh=True) is not None


async def test_a_refused_token_makes_no_owner(rig: Rig, issuer: Issuer) -> None:
    refused = await bearer(rig, issuer.token(postroom_owner="zoe", aud="another")).call("GET", "/v1/auth/me")

    assert refused.status_code == 401
    assert await rig.gateway.parts.store.get(owner_key("zoe"), Owner, fresh=True) is None


async def test_every_bad_token_gets_what_a_wrong_key_gets(rig: Rig, issuer: Issuer) -> None:
    wrong_key = await bearer(rig, new_key(SystemIds().secret(KEY_BYTES)).text).call("GET", "/v1/auth/me")
    expected = (401, wrong_key.content, dict(wrong_key.headers) | {"x-request-id": ""})
    assert wrong_key.status_code == 401

    for fault, token in bad_tokens(issuer).items():
        for path in ("/v1/auth/me", "/v1/messages"):
            headers = {b"authorization": f"Bearer {token}".encode()}
            answer = await rig.http.request("GET" if path.endswith("me") else "POST", path, headers=headers)
            told = (answer.status_code, answer.content, dict(answer.headers) | {"x-request-id": ""})
            assert told == expected, fault


async def test_a_token_that_was_good_is_refused_once_it_has_ended(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, issuer: Issuer
) -> None:
    async with running_rig(nats_server, redis_server, prefix, **for_provider(issuer), oidc_leeway_s=0) as rig:
        caller = bearer(rig, issuer.token(exp=time.time() + 0.7, iat=None))
        assert (await caller.call("GET", "/v1/auth/me")).status_code == 200
        with anyio.fail_after(1.5):  # less than answers are remembered for
            while (await caller.call("GET", "/v1/auth/me")).status_code == 200:
                await anyio.sleep(0.01)


async def test_tokens_of_new_keys_count_within_seconds_and_of_old_ones_no_more(rig: Rig, issuer: Issuer) -> None:
    old = issuer.token()
    assert (await bearer(rig, old).call("GET", "/v1/auth/me")).status_code == 200
    issuer.rotate()

    with anyio.fail_after(12):
        while (await bearer(rig, issuer.token(sub="new")).call("GET", "/v1/auth/me")).status_code != 200:
            await anyio.sleep(0.1)
        while (await bearer(rig, old).call("GET", "/v1/auth/me")).status_code != 401:
            await anyio.sleep(0.1)


async def test_a_provider_that_does_not_answer_holds_up_nobody(rig: Rig, issuer: Issuer) -> None:
    await rig.max.agent("helper")
    good = issuer.token()
    issuer.delay_s = 30
    asked = issuer.asked
    with anyio.fail_after(4):
        for number in range(20):
            caller = bearer(rig, issuer.token(sub=f"somebody-{number}"))
            await caller.send("helper")
            stranger = bearer(rig, issuer.token(header={"kid": f"unknown-{number}"}))
            assert (await stranger.call("POST", "/v1/messages", json={})).status_code == 401
        assert (await bearer(rig, good).call("GET", "/v1/auth/me")).status_code == 200

    assert issuer.asked <= asked + 2


async def test_a_provider_that_is_away_at_the_start_keeps_no_key_out(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, issuer: Issuer
) -> None:
    issuer.is_away = True
    async with running_rig(nats_server, redis_server, prefix, **for_provider(issuer)) as rig:
        assert (await rig.max.call("GET", "/v1/auth/me")).status_code == 200
        assert (await bearer(rig, issuer.token()).call("GET", "/v1/auth/me")).status_code == 401
        assert (await rig.nobody.call("GET", "/readyz")).status_code == 200


async def test_without_a_provider_no_token_counts_and_no_header_may_be_long(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, issuer: Issuer
) -> None:
    async with running_rig(nats_server, redis_server, prefix) as rig:
        assert (await bearer(rig, issuer.token()).call("GET", "/v1/auth/me")).status_code == 401

    assert issuer.asked == 0


async def test_what_concerns_a_key_itself_is_not_for_tokens(rig: Rig, issuer: Issuer) -> None:
    caller = bearer(rig, issuer.token())

    told = await caller.get("/v1/auth/key")
    refused = await caller.call("POST", "/v1/auth/key/regenerate", headers={"x-confirm-destructive": "true"})

    assert told["prefix"] == key_id_of(issuer.url, "somebody@example.com")[:12]
    assert (refused.status_code, code_of(refused)) == (409, "no_api_key")


async def test_a_token_in_the_url_is_refused_as_a_key_is(rig: Rig, issuer: Issuer) -> None:
    for name in ("access_token", "token", "id_token"):
        answer = await rig.nobody.call("GET", f"/v1/auth/me?{name}={issuer.token()}")
        assert (answer.status_code, code_of(answer)) == (400, "credentials_in_url")


@pytest.mark.parametrize(
    "named",
    [
        {"oidc_issuer": "https://issuer.example"},
        {"oidc_audience": AUDIENCE},
        {"oidc_jwks_url": "https://issuer.example/jwks"},
        {"oidc_issuer": "https://issuer.example", "oidc_audience": ""},
    ],
)
def test_half_a_provider_is_refused_with_the_settings(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, named: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"(?i)oidc|at least 1"):
        GatewaySettings(nats_url=nats_server.url, redis_url=redis_server.url, **named)


async def test_a_token_makes_no_key_that_counts_longer_than_itself(rig: Rig, issuer: Issuer) -> None:
    lasting = await rig.max.post("/v1/keys", {"scopes": ["messages:read"]}, status=201)
    caller = bearer(rig, issuer.token(scope="keys:manage messages:read"))
    beyond: list[dict[str, Any]] = [
        {"scopes": ["messages:read"]},
        {"scopes": ["messages:read"], "expires_in_s": 3_600},
    ]

    refused = [await caller.call("POST", "/v1/keys", json=body) for body in beyond]
    refused.append(await caller.call("POST", f"/v1/keys/{lasting['key_id']}/rotate", json={}))
    refused.append(await caller.call("POST", "/v1/api-keys", json={"name": "w", "permissions": ["messages:read"]}))

    assert [(each.status_code, code_of(each)) for each in refused] == [(403, "expiry_exceeds_own")] * 4
    await caller.post("/v1/keys", {"scopes": ["messages:read"], "expires_in_s": 60}, status=201)


async def test_a_name_that_somebody_registered_is_nobody_elses_by_a_token(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, issuer: Issuer
) -> None:
    async with running_rig(nats_server, redis_server, prefix, **for_provider(issuer), open_registration=True) as rig:
        await bearer(rig, issuer.token(postroom_owner="ada")).get("/v1/auth/me")
        ada = await rig.nobody.post("/v1/auth/register", {"email": "ada@example.com"}, status=201)
        bob = await rig.nobody.post("/v1/auth/register", {"email": "bob@example.com"}, status=201)
        stranger = await bearer(rig, issuer.token(postroom_owner="bob")).call("GET", "/v1/auth/me")

    assert ada["owner"] != "ada"
    assert bob["owner"] == "bob"
    assert stranger.status_code == 401
