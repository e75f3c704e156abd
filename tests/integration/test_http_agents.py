"""Agents and slugs over HTTP: registered once, renamed atomically, gone at once."""

from collections.abc import AsyncIterator

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, code_of, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, webhook_allow_loopback=True) as running:
        yield running


async def test_an_agent_is_shown_as_it_was_registered(rig: Rig) -> None:
    agent = await rig.max.agent(
        "cue-mac-app",
        "live",
        "bg",
        preferred_contact="live",
        heartbeat_age_sec=300,
        metadata={"os": "mac"},
        profile={"display_name": "Mac app", "tools": ["shell"], "preferred_contact": "sync"},
    )

    assert agent["address"] == "cue-mac-app@max"
    assert agent["delivery_capabilities"] == ["live", "bg"]
    assert agent["profile"] == {
        "display_name": "Mac app",
        "specialization": None,
        "tools": ["shell"],
        "work_style": "sync",
    }
    assert agent["live_sessions"] == []
    assert "webhook_secret" not in agent
    assert await rig.max.get("/v1/agents/cue-mac-app") == agent


async def test_of_ten_who_want_a_name_at_once_one_gets_it(rig: Rig) -> None:
    codes: list[str] = []

    async def create() -> None:
        answer = await rig.max.call("POST", "/v1/agents", json={"slug": "wanted"})
        codes.append("created" if answer.status_code == 201 else code_of(answer))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(create)

    assert sorted(codes) == ["created"] + ["slug_taken"] * 9
    assert len((await rig.max.get("/v1/agents"))["agents"]) == 1


async def test_two_owners_may_use_the_same_name(rig: Rig) -> None:
    of_max = await rig.max.agent("helper")
    of_eve = await rig.eve.agent("helper")

    assert (await rig.admin.get("/v1/agents/helper@max"))["id"] == of_max["id"]
    assert (await rig.admin.get("/v1/agents/helper@eve"))["id"] == of_eve["id"]


async def test_a_renamed_agent_is_found_by_its_new_name_at_once(rig: Rig) -> None:
    agent = await rig.max.agent("old-name")

    renamed = await rig.max.patch("/v1/agents/old-name", {"slug": "new-name"})

    assert (renamed["id"], renamed["slug"]) == (agent["id"], "new-name")
    assert (await rig.max.get("/v1/agents/new-name"))["id"] == agent["id"]
    assert (await rig.max.call("GET", "/v1/agents/old-name")).status_code == 404
    assert (await rig.max.agent("old-name"))["id"] != agent["id"]


async def test_a_rename_to_a_taken_or_reserved_name_changes_nothing(rig: Rig) -> None:
    await rig.max.agent("one")
    await rig.max.agent("two")

    taken = await rig.max.call("PATCH", "/v1/agents/one", json={"slug": "two"})
    reserved = await rig.max.call("PATCH", "/v1/agents/one", json={"slug": "admin"})

    assert (taken.status_code, code_of(taken)) == (409, "slug_taken")
    assert (reserved.status_code, code_of(reserved)) == (422, "reserved_slug")
    assert (await rig.max.get("/v1/agents/one"))["slug"] == "one"


async def test_a_deleted_agent_is_gone_and_its_name_free(rig: Rig) -> None:
    agent = await rig.max.agent("helper", "live")
    await rig.max.session("helper")

    await rig.max.delete("/v1/agents/helper", status=204)

    for reference in ("helper", agent["id"]):
        assert (await rig.max.call("GET", f"/v1/agents/{reference}")).status_code == 404
        assert (await rig.max.call("DELETE", f"/v1/agents/{reference}")).status_code == 404
    again = await rig.max.agent("helper", "live")
    assert again["id"] != agent["id"]
    assert again["live_sessions"] == []


async def test_a_change_touches_only_what_it_names(rig: Rig) -> None:
    before = await rig.max.agent("helper", "bg", "inbox", preferred_contact="bg", metadata={"a": 1})

    after = await rig.max.patch("/v1/agents/helper", {"status": "inactive", "preferred_contact": None})

    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"status", "preferred_contact", "updated_at"}


async def test_what_is_preferred_has_to_be_declared(rig: Rig) -> None:
    await rig.max.agent("helper", "bg", preferred_contact="bg")

    answers = [
        await rig.max.call("POST", "/v1/agents", json={"slug": "x", "preferred_contact": "live"}),
        await rig.max.call("PATCH", "/v1/agents/helper", json={"delivery_capabilities": ["inbox"]}),
    ]

    assert {(each.status_code, code_of(each)) for each in answers} == {(422, "preferred_not_declared")}


async def test_a_webhook_secret_is_shown_once_and_survives_a_new_url(rig: Rig) -> None:
    agent = await rig.max.agent("hook", "webhook", webhook_url="http://127.0.0.1:8443/one")
    assert agent["webhook_secret"].startswith("whsec_")

    moved = await rig.max.patch("/v1/agents/hook", {"webhook_url": "http://127.0.0.1:8443/two"})
    cleared = await rig.max.patch("/v1/agents/hook", {"webhook_url": None})
    again = await rig.max.patch("/v1/agents/hook", {"webhook_url": "http://127.0.0.1:8443/three"})

    assert "webhook_secret" not in moved
    assert cleared["webhook_url"] is None
    assert again["webhook_secret"] not in (None, agent["webhook_secret"])


@pytest.mark.parametrize(
    "url", ["http://example.com/x", "https://10.0.0.1/", "ftp://example.com", "https://u:p@example.com"]
)
async def test_a_webhook_goes_nowhere_it_should_not(
    nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str, url: str
) -> None:
    async with running_rig(nats_server, redis_server, prefix) as rig:
        answer = await rig.max.call("POST", "/v1/agents", json={"slug": "hook", "webhook_url": url})

    assert (answer.status_code, code_of(answer)) == (422, "invalid_webhook_url")
    assert answer.json()["error"]["field"] == "webhook_url"


async def test_only_an_admin_names_another_owner(rig: Rig) -> None:
    refused = await rig.eve.call("POST", "/v1/agents", json={"slug": "x", "owner": "max"})
    made = await rig.admin.post("/v1/agents", {"slug": "x", "owner": "max"}, status=201)

    assert (refused.status_code, code_of(refused)) == (403, "admin_key_required")
    assert made["owner"] == "max"


async def test_agents_are_listed_page_by_page(rig: Rig) -> None:
    for slug in ("c", "a", "b"):
        await rig.max.agent(slug)

    first = await rig.max.get("/v1/agents", limit=2)
    rest = await rig.max.get("/v1/agents", limit=2, cursor=first["next_cursor"])

    assert [each["slug"] for each in first["agents"] + rest["agents"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None
