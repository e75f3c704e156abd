"""Keys, health and the document over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.__main__ import build
from infra.embedded import EmbeddedNats, EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Rig, code_of, running_rig, settings_for


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def test_a_key_says_whose_it_is(rig: Rig) -> None:
    told = await rig.max.get("/v1/auth/me")
    assert {name: told[name] for name in ("owner", "key_id", "admin")} == {
        "owner": "max",
        "key_id": rig.max.key_id,
        "admin": False,
    }
    assert (await rig.admin.get("/v1/auth/me"))["admin"] is True


async def test_an_owner_mints_lists_and_revokes_keys_of_his_own(rig: Rig) -> None:
    minted = await rig.max.post("/v1/keys", {"name": "laptop"}, status=201)
    second = Caller(http=rig.http, key=minted["key"], owner="max")
    assert (await second.get("/v1/auth/me"))["owner"] == "max"

    listed = (await rig.max.get("/v1/keys"))["keys"]
    await rig.max.delete(f"/v1/keys/{minted['key_id']}", status=204)
    await rig.max.delete(f"/v1/keys/{minted['key_id']}", status=204)

    assert {each["name"] for each in listed} == {"test", "laptop"}
    assert minted["key"] not in str(listed)
    assert (await second.call("GET", "/v1/auth/me")).status_code == 401
    assert [each["name"] for each in (await rig.max.get("/v1/keys"))["keys"]] == ["test"]


@pytest.mark.parametrize("body", [{"owner": "max"}, {"admin": True}])
async def test_only_an_admin_mints_for_others_and_for_admins(rig: Rig, body: dict[str, object]) -> None:
    refused = await rig.eve.call("POST", "/v1/keys", json=body)
    minted = await rig.admin.post("/v1/keys", body, status=201)

    assert (refused.status_code, code_of(refused)) == (403, "admin_key_required")
    assert minted["key"].startswith("pr_")


@pytest.mark.parametrize("key_id", ["x", "000000000000", "*", "a.b"])
async def test_a_key_that_is_not_there_is_not_found(rig: Rig, key_id: str) -> None:
    answer = await rig.max.call("DELETE", f"/v1/keys/{key_id}")

    assert (answer.status_code, code_of(answer)) == (404, "key_not_found")


async def test_health_is_open_and_tells_which_part_is_missing(
    own_nats: EmbeddedNats, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(own_nats.endpoint, own_redis.endpoint, prefix) as rig:
        assert (await rig.nobody.get("/readyz")) == {"status": "ready", "parts": {"broker": "ok", "store": "ok"}}
        own_redis.pause()
        try:
            unready = await rig.nobody.call("GET", "/readyz")
            alive = await rig.nobody.call("GET", "/healthz")
        finally:
            own_redis.resume()

    assert unready.status_code == 503
    assert unready.json()["parts"]["broker"] == "ok"
    assert unready.json()["parts"]["store"] != "ok"
    assert unready.headers["retry-after"] == "1"
    assert alive.status_code == 200


async def test_the_document_names_every_path_and_our_problems(rig: Rig) -> None:
    document = await rig.nobody.get("/openapi.json")

    send = document["paths"]["/v1/messages"]["post"]
    bodies = [{"$ref": f"#/components/schemas/{name}"} for name in ("NewMessage", "SelectedMessage")]
    assert send["requestBody"]["content"]["application/json"]["schema"] == {"anyOf": bodies}
    assert document["components"]["schemas"]["NewMessage"]["examples"]
    assert "HTTPValidationError" not in str(document)
    assert send["responses"]["422"]["content"].keys() == {"application/problem+json"}
    assert send["security"] == [{"key": ["messages:send"]}]
    assert "security" not in document["paths"]["/healthz"]["get"]


async def test_the_numbers_tell_which_gates_said_what(rig: Rig) -> None:
    await rig.max.agent("helper")
    await rig.max.send("helper")

    text = (await rig.http.get("/metrics")).text

    assert 'postroom_accepted_total{mode="auto",state="in_inbox"} 1.0' in text
    assert 'channel="inbox",gate="capability",reason="ok",verdict="pass"' in text
    assert 'postroom_request_seconds_count{method="POST",route="/v1/messages",status="201"} 1.0' in text


async def test_the_first_admin_key_is_made_once_and_kept(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "admin.key"
    settings = settings_for(nats_server, redis_server, prefix, bootstrap_admin_key_file=path)
    texts = []
    for _ in range(2):
        async with build(settings):
            texts.append(path.read_text().strip())

    assert texts[0] == texts[1]
    assert path.stat().st_mode & 0o777 == 0o600
