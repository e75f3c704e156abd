"""Who is there, over HTTP: the roster and its ETag, one agent's presence, and the search of agents."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from contracts.freshness import host_name
from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def seen(rig: Rig, agent: Json, age_s: float) -> None:
    at = rig.gateway.parts.clock.now() - timedelta(seconds=age_s)
    await rig.gateway.parts.beats.beat({host_name(agent["id"]): at})


# --- roster --------------------------------------------------------------------------------------------------------


async def test_the_roster_names_ones_own_agents_by_slug_and_says_who_is_there(rig: Rig) -> None:
    worker = await rig.max.agent("worker", "bg", profile={"display_name": "Worker", "specialization": "builds"})
    await rig.max.agent("alone", "inbox")
    await rig.max.agent("live-one", "live", preferred_contact="live")
    await rig.max.session("live-one")
    await rig.eve.agent("foreign")
    await seen(rig, worker, 400)

    roster = await rig.max.get("/v1/agents/roster")

    assert [each["slug"] for each in roster["agents"]] == ["alone", "live-one", "worker"]
    alone, live, found = roster["agents"]
    assert (alone["online"], alone["derived_status"], alone["bucketed_seen"]) == (False, "offline", "never")
    assert (live["online"], live["status"], live["last_seen_relative"]) == (True, "online", "active now")
    assert (live["preferred_contact"], live["preferred_channel"]) == ("sync", "live")
    assert (found["derived_status"], found["bucketed_seen"]) == ("away", "5m ago")
    assert (found["name"], found["display_name"], found["description"]) == ("worker", "Worker", "builds")
    assert found["capabilities"] == ["bg"]
    assert roster["truncated"] is False


async def test_the_roster_is_the_same_text_until_something_worth_telling_changes(rig: Rig) -> None:
    worker = await rig.max.agent("worker", "bg")
    await seen(rig, worker, 1)
    first = await rig.max.call("GET", "/v1/agents/roster")
    await seen(rig, worker, 60)
    again = await rig.max.call("GET", "/v1/agents/roster")
    assert again.content == first.content
    assert first.headers["etag"] == first.json()["etag"]
    assert first.headers.get_list("cache-control") == ["private, max-age=300"]

    same = await rig.max.call("GET", "/v1/agents/roster", headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]

    await seen(rig, worker, 500)
    changed = await rig.max.call("GET", "/v1/agents/roster", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


async def test_no_agent_may_take_the_name_under_which_the_roster_is_read(rig: Rig) -> None:
    refused = await rig.max.call("POST", "/v1/agents", json={"slug": "roster"})
    assert (refused.status_code, code_of(refused)) == (422, "reserved_slug")
    assert (await rig.max.get("/v1/agents/roster"))["agents"] == []


# --- presence ------------------------------------------------------------------------------------------------------


async def test_presence_tells_of_sessions_host_and_the_way_of_pushes(rig: Rig) -> None:
    agent = await rig.max.agent("worker", "live", "bg")
    await rig.max.session("worker", "main")
    await rig.max.session("worker", "second")
    await seen(rig, agent, 30)

    presence = await rig.max.get("/v1/agents/worker@max/presence")

    assert (presence["slug"], presence["online"], presence["derived_status"]) == ("worker", True, "online")
    assert presence["bucketed_seen"] == presence["last_seen_relative"] == "active now"
    assert (presence["default_live"]["label"], presence["default_live"]["fresh"]) == ("main", True)
    assert presence["default_live"]["heartbeat_age_sec"] == 0
    assert [each["label"] for each in presence["labeled_sessions"]] == ["main", "second"]
    assert presence["host"]["heartbeat_age_sec"] == 30
    assert presence["push_path"] == {"reachable": None, "reason": "ok", "asked_at": None, "answered_at": None}


async def test_presence_of_nobody_is_offline(rig: Rig) -> None:
    await rig.max.agent("worker", "inbox")
    presence = await rig.max.get("/v1/agents/worker/presence")
    assert (presence["derived_status"], presence["bucketed_seen"]) == ("offline", "never")
    assert (presence["default_live"], presence["labeled_sessions"]) == (None, [])


async def test_presence_is_told_again_only_when_it_changed(rig: Rig) -> None:
    await rig.max.agent("worker", "live")
    await rig.max.session("worker")
    first = await rig.max.call("GET", "/v1/agents/worker/presence")
    known = {"if-none-match": first.headers["etag"]}

    same = await rig.max.call("GET", "/v1/agents/worker/presence", headers=known)
    await rig.max.delete("/v1/agents/worker/live-sessions/main")
    changed = await rig.max.call("GET", "/v1/agents/worker/presence", headers=known)

    assert (same.status_code, same.content) == (304, b"")
    assert changed.status_code == 200


# --- search --------------------------------------------------------------------------------------------------------


async def found(rig: Rig, **words: object) -> list[str]:
    return [each["slug"] for each in (await rig.max.get("/v1/agents", **words))["agents"]]


async def test_agents_are_found_by_what_they_can_and_what_they_say_of_themselves(rig: Rig) -> None:
    mac = {"display_name": "Mac app", "specialization": "Staging", "tools": ["shell", "git"]}
    await rig.max.agent("mac", "live", "bg", profile=mac)
    await rig.max.agent("builder", "bg", profile={"tools": ["make"]})
    await rig.max.agent("asleep", status="inactive")
    await rig.max.session("mac")

    assert await found(rig) == ["asleep", "builder", "mac"]
    assert await found(rig, capability="bg") == ["builder", "mac"]
    assert await found(rig, specialization="staging") == ["mac"]
    assert await found(rig, tool="MAKE") == ["builder"]
    assert await found(rig, q="mac a") == ["mac"]
    assert await found(rig, q="nothing like it") == []
    assert await found(rig, status="inactive") == ["asleep"]
    assert await found(rig, status="online") == ["mac"]
    assert await found(rig, status="offline") == ["asleep", "builder"]
    assert await found(rig, capability="bg", status="online") == ["mac"]


async def test_a_search_goes_on_where_its_page_ended_and_only_with_its_own_cursor(rig: Rig) -> None:
    for number in range(5):
        await rig.max.agent(f"a-{number}", "bg" if number % 2 == 0 else "inbox")

    first = await rig.max.get("/v1/agents", capability="bg", limit=2)
    second = await rig.max.get("/v1/agents", capability="bg", limit=2, cursor=first["next_cursor"])
    strange = await rig.max.call("GET", "/v1/agents", params={"cursor": first["next_cursor"]})

    assert [each["slug"] for each in first["agents"]] == ["a-0", "a-2"]
    assert [each["slug"] for each in second["agents"]] == ["a-4"]
    assert second["next_cursor"] is None
    assert (strange.status_code, code_of(strange)) == (400, "invalid_cursor")


@pytest.mark.parametrize("words", [{"capability": "fax"}, {"q": ""}, {"tool": "x" * 201}])
async def test_a_search_for_what_cannot_be_is_refused(rig: Rig, words: Json) -> None:
    assert (await rig.max.call("GET", "/v1/agents", params=words)).status_code == 422


async def test_a_status_that_is_none_is_refused_in_the_fields_own_words(rig: Rig) -> None:
    refused = await rig.max.call("GET", "/v1/agents", params={"status": "busy"})
    assert (refused.status_code, code_of(refused)) == (400, "invalid_status")
