"""Agents of a project over HTTP, in the shape Mobius' clients know, and the same agents at our own door."""

from collections.abc import AsyncIterator

import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.refusals import nothing_stored

AGENTS = "/v1/projects/max/agents"
ABSENT = "sa_01k5z3w8p2c4d6f8h0j2m4n6q8"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def account(rig: Rig, name: str = "workers") -> str:
    made = await rig.max.post("/v1/projects/max/service-accounts", {"name": name}, status=201)
    account_id: str = made["id"]
    return account_id


async def agent(rig: Rig, name: str, account_id: str, **more: object) -> Json:
    return await rig.max.post(AGENTS, {"service_account_id": account_id, "name": name, **more}, status=201)


def names_of(page: Json) -> list[str]:
    return [each["name"] for each in page["items"]]


# --- one agent at two doors -----------------------------------------------------------------------------------------


async def test_an_agent_is_shown_as_it_was_made(rig: Rig) -> None:
    account_id = await account(rig)
    made = await agent(
        rig,
        "doc-summarizer",
        account_id,
        kind="llm",
        description="Two sentences\nof it.",
        capabilities={"model": "small-1", "max_tokens": 4096},
        config={"temperature": 0.2, "_private": [1, None]},
    )

    assert {**made, "id": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "service_account_id": account_id,
        "name": "doc-summarizer",
        "display_name": "doc-summarizer",
        "description": "Two sentences\nof it.",
        "kind": "llm",
        "capabilities": {"model": "small-1", "max_tokens": 4096},
        "config": {"temperature": 0.2, "_private": [1, None]},
        "status": "active",
        "presence": "offline",
        "address": "doc-summarizer@max",
        "delivery_capabilities": ["bg", "inbox"],
        "created_at": "",
        "updated_at": "",
    }
    for spelling in (made["id"], made["id"].replace("agent_", "agt_"), "doc-summarizer", "doc-summarizer@max"):
        assert await rig.max.get(f"{AGENTS}/{spelling}") == made


async def test_an_agent_made_in_a_project_is_the_same_one_at_our_door(rig: Rig) -> None:
    account_id = await account(rig)
    made = await agent(rig, "builder", account_id, kind="llm", capabilities={"gpu": True}, config={"x": 1})

    ours = await rig.max.get("/v1/agents/builder")
    sent = await rig.max.send("builder")
    await rig.max.patch("/v1/agents/builder", {"kind": "rpa", "description": "d", "display_name": "Builder"})
    theirs = await rig.max.get(f"{AGENTS}/builder")
    await rig.max.patch(f"{AGENTS}/builder", {"capabilities": {"gpu": False}, "display_name": None})
    last = await rig.max.get("/v1/agents/builder")

    assert (ours["id"], ours["service_account_id"], ours["kind"]) == (made["id"], account_id, "llm")
    assert (ours["capabilities"], ours["config"], ours["preferred_contact"]) == ({"gpu": True}, {"x": 1}, "bg")
    assert (sent["effective_delivery_mode"], sent["state"]) == ("bg", "queued")
    assert (theirs["kind"], theirs["description"], theirs["display_name"]) == ("rpa", "d", "Builder")
    assert (last["capabilities"], last["config"], last["display_name"]) == ({"gpu": False}, {"x": 1}, None)


async def test_an_agent_made_at_our_door_is_the_same_one_in_its_project(rig: Rig) -> None:
    account_id = await account(rig)
    ours = await rig.max.agent("mac", "live", service_account_id=account_id, kind="llm", capabilities={"a": {"b": 1}})
    plain = await rig.max.agent("plain", "inbox")
    await rig.max.session("mac")

    theirs = await rig.max.get(f"{AGENTS}/mac")
    unbacked = await rig.max.get(f"{AGENTS}/plain")
    await rig.max.delete(f"{AGENTS}/mac", status=204)

    assert (theirs["id"], theirs["service_account_id"], theirs["kind"]) == (ours["id"], account_id, "llm")
    assert (theirs["presence"], theirs["delivery_capabilities"]) == ("online", ["live"])
    # Their clients need a text there.
    assert (unbacked["id"], unbacked["service_account_id"], unbacked["presence"]) == (plain["id"], "", "offline")
    assert (await rig.max.call("GET", "/v1/agents/mac")).status_code == 404


async def test_a_beat_moves_nothing_on_the_record(rig: Rig) -> None:
    await agent(rig, "builder", await account(rig))
    await rig.max.session("builder")
    before = await rig.max.get(f"{AGENTS}/builder")

    async with nothing_stored(rig):
        for _ in range(3):
            await rig.max.post("/v1/agents/builder/live-sessions/main/heartbeat", {})

    assert before["presence"] == "online"
    assert await rig.max.get(f"{AGENTS}/builder") == before


async def test_presence_does_not_ask_whether_the_agent_is_active(rig: Rig) -> None:
    await agent(rig, "builder", await account(rig))
    await rig.max.session("builder")

    idle = await rig.max.patch(f"{AGENTS}/builder", {"status": "inactive"})

    assert (idle["status"], idle["presence"]) == ("inactive", "online")
    assert names_of(await rig.max.get(AGENTS, status="inactive")) == ["builder"]
    assert names_of(await rig.max.get(AGENTS, status="active")) == []


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"name": None}, 422, "invalid_type"),
        ({"name": "Two Words"}, 422, "invalid_format"),
        ({"name": "sessions"}, 422, "reserved_slug"),
        ({"service_account_id": ABSENT}, 404, "service_account_not_found"),
        ({"service_account_id": "nonsense.*"}, 404, "service_account_not_found"),
        ({"service_account_id": 7}, 422, "invalid_type"),
        ({"kind": "x" * 65}, 422, "too_long"),
        ({"kind": "a\nb"}, 422, "control_character"),
        ({"description": "x" * 2_001}, 422, "too_long"),
        ({"capabilities": ["a"]}, 422, "invalid_type"),
        ({"capabilities": {"a": "x" * 11_000}}, 422, "object_too_large"),
        ({"config": {"a": "x" * 11_000}}, 422, "object_too_large"),
    ],
)
async def test_what_is_no_agent_is_refused_and_nothing_is_stored(
    rig: Rig, change: Json, status: int, code: str
) -> None:
    body = {"service_account_id": await account(rig), "name": "builder"}

    async with nothing_stored(rig):
        answer = await rig.max.call("POST", AGENTS, json={**body, **change})

    assert (answer.status_code, code_of(answer)) == (status, code)
    assert answer.json()["error"]["message"]


async def test_an_account_of_somebody_else_backs_nothing_here(rig: Rig) -> None:
    foreign = await rig.eve.post("/v1/projects/eve/service-accounts", {"name": "workers"}, status=201)

    for door, body in ((AGENTS, {"name": "x"}), ("/v1/agents", {"slug": "x"})):
        answer = await rig.max.call("POST", door, json={**body, "service_account_id": foreign["id"]})
        assert (answer.status_code, code_of(answer)) == (404, "service_account_not_found")


async def test_a_name_is_borne_once_whichever_door_gave_it(rig: Rig) -> None:
    account_id = await account(rig)
    await rig.max.agent("taken")

    answer = await rig.max.call("POST", AGENTS, json={"service_account_id": account_id, "name": "taken"})

    assert (answer.status_code, code_of(answer)) == (409, "slug_taken")


@pytest.mark.parametrize("field", ["name", "service_account_id"])
async def test_name_and_account_are_for_life(rig: Rig, field: str) -> None:
    made = await agent(rig, "builder", await account(rig))

    async with nothing_stored(rig):
        answer = await rig.max.call("PATCH", f"{AGENTS}/builder", json={field: made[field], "kind": "rpa"})

    assert (answer.status_code, code_of(answer)) == (422, "immutable_field")
    assert answer.json()["error"]["field"] == field


async def test_maps_are_replaced_whole_and_cleared_by_null(rig: Rig) -> None:
    await agent(rig, "builder", await account(rig), capabilities={"a": 1, "b": 2}, config={"c": 3}, kind="llm")

    replaced = await rig.max.patch(f"{AGENTS}/builder", {"capabilities": {"d": 4}})
    cleared = await rig.max.patch(f"{AGENTS}/builder", {"config": None, "kind": None})

    assert (replaced["capabilities"], replaced["config"], replaced["kind"]) == ({"d": 4}, {"c": 3}, "llm")
    assert (cleared["capabilities"], cleared["config"], cleared["kind"]) == ({"d": 4}, {}, None)


async def test_fields_nobody_knows_are_passed_over_and_stored_nowhere(rig: Rig) -> None:
    await agent(rig, "builder", await account(rig), external_ref="0ffending", webhook_url="http://0ffending")
    await rig.max.patch(f"{AGENTS}/builder", {"external_ref": "0ffending"})

    for path in (f"{AGENTS}/builder", "/v1/agents/builder"):
        assert "0ffending" not in str(await rig.max.get(path))


async def test_the_word_sessions_is_no_agent(rig: Rig) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = await rig.max.call(method, f"{AGENTS}/sessions", json={})
        assert (answer.status_code, code_of(answer)) == (404, "agent_not_found")


async def test_a_foreign_project_looks_absent_and_so_does_a_foreign_agent(rig: Rig) -> None:
    made = await agent(rig, "builder", await account(rig))

    answers = [
        await rig.eve.call(method, path, json={"service_account_id": ABSENT, "name": "x"})
        for project in ("max", "nobody", "*", "Max")
        for method, path in (
            ("GET", f"/v1/projects/{project}/agents"),
            ("POST", f"/v1/projects/{project}/agents"),
            ("GET", f"/v1/projects/{project}/agents/{made['id']}"),
        )
    ]
    foreign = await rig.eve.call("GET", f"/v1/projects/eve/agents/{made['id']}")
    absent = await rig.eve.call("GET", "/v1/projects/eve/agents/agent_000000000000")
    named = await rig.eve.call("GET", "/v1/projects/eve/agents/builder@max")

    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(404, "project_not_found")}
    assert foreign.content == absent.content == named.content
    assert code_of(foreign) == "agent_not_found"


async def test_an_admin_key_finds_an_agent_in_its_own_project_only(rig: Rig) -> None:
    made = await agent(rig, "builder", await account(rig))
    await rig.eve.agent("helper")

    assert (await rig.admin.get(f"{AGENTS}/builder"))["id"] == made["id"]
    for reference in (made["id"], "builder", "builder@max"):
        answer = await rig.admin.call("GET", f"/v1/projects/eve/agents/{reference}")
        assert (answer.status_code, code_of(answer)) == (404, "agent_not_found")


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_lists_are_narrowed_by_what_agents_are(rig: Rig) -> None:
    first, second = await account(rig, "first"), await account(rig, "second")
    await agent(rig, "a", first, kind="llm", capabilities={"model": "m1", "gpu": True, "tools": ["git", "sh"]})
    await agent(rig, "b", first, kind="llm", capabilities={"model": "m2", "limits": {"max_tokens": 4096}})
    await agent(rig, "c", second, kind="rpa", capabilities={"model": "m1"})
    await rig.max.agent("d")
    await rig.max.patch(f"{AGENTS}/b", {"status": "inactive"})

    async def found(**query: object) -> list[str]:
        return names_of(await rig.max.get(AGENTS, **query))

    assert await found() == ["a", "b", "c", "d"]
    assert await found(service_account_id=first) == ["a", "b"]
    assert await found(service_account_id=first, status="active") == ["a"]
    assert await found(service_account_id=ABSENT) == await found(service_account_id="*") == []
    assert await found(kind="llm") == ["a", "b"]
    assert await found(**{"capabilities.model": "m1"}) == ["a", "c"]
    assert await found(**{"capabilities.model": ["m1", "m2"], "kind": "llm"}) == ["a", "b"]
    assert await found(**{"capabilities.limits.max_tokens": "4096"}) == ["b"]
    assert await found(**{"capabilities.gpu": "true"}) == ["a"]
    assert await found(**{"capabilities.tools": "sh"}) == ["a"]
    assert await found(**{"capabilities.nothing": "x"}) == []


@pytest.mark.parametrize("key", ["capabilities.", "capabilities.a..b", "capabilities." + "a." * 20 + "b"])
async def test_a_path_that_leads_nowhere_is_refused(rig: Rig, key: str) -> None:
    answer = await rig.max.call("GET", AGENTS, params={key: "x"})

    assert (answer.status_code, code_of(answer)) == (422, "invalid_filter")


async def test_lists_go_on_beyond_two_hundred(rig: Rig) -> None:
    account_id = await account(rig)
    for number in range(205):
        await agent(rig, f"agent-{number:03}", account_id, kind="odd" if number % 2 else "even")

    async def pages(**query: object) -> list[list[str]]:
        read: list[list[str]] = []
        cursor = None
        while True:
            page = await rig.max.get(AGENTS, limit=200, **query, **({"cursor": cursor} if cursor else {}))
            read.append(names_of(page))
            cursor = page["next_cursor"]
            assert page["has_more"] is (cursor is not None)
            if cursor is None:
                return read

    whole, backed = await pages(), await pages(service_account_id=account_id)

    assert [len(each) for each in whole] == [len(each) for each in backed] == [200, 5]
    assert whole == backed
    assert [name for page in whole for name in page] == [f"agent-{number:03}" for number in range(205)]
    assert len((await rig.max.get(AGENTS, kind="odd", limit=200))["items"]) == 102


async def test_a_cursor_belongs_to_its_own_list(rig: Rig) -> None:
    account_id = await account(rig)
    for name in ("a", "b"):
        await agent(rig, name, account_id)
    cursor = (await rig.max.get(AGENTS, limit=1))["next_cursor"]

    for query in ({"kind": "llm"}, {"status": "active"}, {"capabilities.a": "1"}, {"service_account_id": account_id}):
        answer = await rig.max.call("GET", AGENTS, params={"cursor": cursor, **query})
        assert (answer.status_code, code_of(answer)) == (400, "invalid_cursor")


# --- put out of service ---------------------------------------------------------------------------------------------


async def test_an_inactive_agent_is_given_nothing_new_and_keeps_what_it_has(rig: Rig) -> None:
    await agent(rig, "builder", await account(rig))
    first, second = [await rig.max.send("builder") for _ in range(2)]
    held = await rig.max.post(f"/v1/executions/{first['execution_id']}/claim", {"worker_id": "w", "lease_s": 60})
    await rig.max.patch(f"{AGENTS}/builder", {"status": "inactive"})

    path = f"/v1/executions/{second['execution_id']}"
    refused = await rig.max.call("POST", f"{path}/claim", json={"worker_id": "w"})
    sent = await rig.max.call("POST", "/v1/messages", json={"to": "builder", "message": "x"})
    lease = {"lease": held["lease"]["number"]}
    await rig.max.post(f"/v1/executions/{first['execution_id']}/heartbeat", lease)
    await rig.max.post(f"/v1/executions/{first['execution_id']}/outcome", {"success": True, **lease})
    await rig.max.patch(f"{AGENTS}/builder", {"status": "active"})

    assert (refused.status_code, code_of(refused)) == (409, "agent_inactive")
    assert (sent.status_code, code_of(sent)) == (409, "agent_inactive")
    assert (await rig.max.post(f"{path}/claim", {"worker_id": "w"}))["claimed"] is True


async def test_an_inactive_agents_session_claims_nothing_new_and_goes_on(rig: Rig) -> None:
    await rig.max.agent("mac", "live")
    token = (await rig.max.session("mac"))["session_token"]
    first, second = [await rig.max.send("mac", delivery_mode="live") for _ in range(2)]
    proof = {"session_token": token}
    await rig.max.post(f"/v1/executions/{first['execution_id']}/live-claim", proof)
    await rig.max.patch(f"{AGENTS}/mac", {"status": "inactive"})

    again = await rig.max.post(f"/v1/executions/{first['execution_id']}/live-claim", proof)
    refused = await rig.max.call("POST", f"/v1/executions/{second['execution_id']}/live-claim", json=proof)
    await rig.max.post("/v1/agents/mac/live-sessions/main/heartbeat", {})

    assert again["claimed"] is True
    assert (refused.status_code, code_of(refused)) == (409, "agent_inactive")
    assert (await rig.max.get(f"{AGENTS}/mac"))["presence"] == "online"


async def test_what_waits_at_idle_agents_is_passed_over_however_much_it_is(rig: Rig) -> None:
    backed = await account(rig)
    for name in ("inactive", "disabled", "ready"):
        await agent(rig, name, backed if name == "disabled" else await account(rig, name))
    for name in ("inactive", "disabled"):
        for _ in range(60):
            await rig.max.send(name)
    last = await rig.max.send("ready")
    await rig.max.patch(f"{AGENTS}/inactive", {"status": "inactive"})
    await rig.max.patch(f"/v1/projects/max/service-accounts/{backed}", {"status": "disabled"})

    listed = await rig.max.get("/v1/executions/claimable", limit=10)
    named = await rig.max.get("/v1/executions/claimable", agent="inactive")
    claimed = await rig.max.post("/v1/executions/claim", {"worker_id": "w", "lease_s": 60})
    nothing = await rig.max.post("/v1/executions/claim", {"worker_id": "w", "lease_s": 60})

    assert [each["execution_id"] for each in listed["executions"]] == [last["execution_id"]]
    assert named["executions"] == []
    assert claimed["execution_id"] == last["execution_id"]
    assert nothing == {"claimed": False}


async def test_nothing_new_is_claimed_for_the_agents_of_a_disabled_account(rig: Rig) -> None:
    backed = await account(rig)
    await agent(rig, "builder", backed)
    sent = await rig.max.send("builder")
    path = f"/v1/executions/{sent['execution_id']}/claim"
    await rig.max.patch(f"/v1/projects/max/service-accounts/{backed}", {"status": "disabled"})

    refused = await rig.max.call("POST", path, json={"worker_id": "w"})
    await rig.max.patch(f"/v1/projects/max/service-accounts/{backed}", {"status": "active"})

    assert (refused.status_code, code_of(refused)) == (409, "service_account_disabled")
    assert (await rig.max.post(path, {"worker_id": "w"}))["claimed"] is True
