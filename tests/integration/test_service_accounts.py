"""Service accounts over HTTP: made under a name for life, listed, disabled, and deleted when nothing refers to them."""

from collections.abc import AsyncIterator

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.refusals import nothing_stored

ACCOUNTS = "/v1/projects/max/service-accounts"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def account(caller: Caller, name: str = "workers", **more: object) -> Json:
    path = f"/v1/projects/{caller.owner}/service-accounts"
    return await caller.post(path, {"name": name, **more}, status=201)


async def agent_of(caller: Caller, made: Json, name: str = "builder") -> Json:
    body = {"service_account_id": made["id"], "name": name}
    return await caller.post(f"/v1/projects/{caller.owner}/agents", body, status=201)


async def test_an_account_is_shown_as_it_was_made(rig: Rig) -> None:
    made = await account(rig.max, description="Of the build hosts", owner_user_id="u1", metadata={"team": "core"})

    assert made["id"].startswith("sa_")
    assert {**made, "id": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "name": "workers",
        "display_name": "workers",
        "description": "Of the build hosts",
        "status": "active",
        "owner_user_id": "u1",
        "metadata": {"team": "core"},
        "created_at": "",
        "updated_at": "",
    }
    assert await rig.max.get(f"{ACCOUNTS}/{made['id']}") == made


async def test_of_ten_who_want_a_name_at_once_one_gets_it(rig: Rig) -> None:
    codes: list[str] = []

    async def create() -> None:
        answer = await rig.max.call("POST", ACCOUNTS, json={"name": "wanted"})
        codes.append("created" if answer.status_code == 201 else code_of(answer))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(create)

    assert sorted(codes) == ["created"] + ["service_account_name_taken"] * 9
    assert len((await rig.max.get(ACCOUNTS))["items"]) == 1


async def test_lists_go_on_behind_a_cursor_and_know_who_is_disabled(rig: Rig) -> None:
    made = [await account(rig.max, f"a{number}") for number in range(5)]
    await rig.max.patch(f"{ACCOUNTS}/{made[1]['id']}", {"status": "disabled"})

    first = await rig.max.get(ACCOUNTS, limit=3)
    rest = await rig.max.get(ACCOUNTS, limit=3, cursor=first["next_cursor"])
    disabled = await rig.max.get(ACCOUNTS, status="disabled")
    active = await rig.max.get(ACCOUNTS, status="active", limit=4)

    assert (first["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
    assert [each["name"] for each in first["items"] + rest["items"]] == ["a0", "a1", "a2", "a3", "a4"]
    assert [each["name"] for each in disabled["items"]] == ["a1"]
    assert ([each["name"] for each in active["items"]], active["has_more"]) == (["a0", "a2", "a3", "a4"], False)


async def test_a_cursor_belongs_to_its_own_list(rig: Rig) -> None:
    for number in range(2):
        await account(rig.max, f"a{number}")
    cursor = (await rig.max.get(ACCOUNTS, limit=1))["next_cursor"]

    answer = await rig.max.call("GET", ACCOUNTS, params={"cursor": cursor, "status": "active"})

    assert (answer.status_code, code_of(answer)) == (400, "invalid_cursor")


async def test_a_change_leaves_what_it_does_not_name_and_replaces_metadata_whole(rig: Rig) -> None:
    made = await account(rig.max, description="old", metadata={"a": 1})

    changed = await rig.max.patch(f"{ACCOUNTS}/{made['id']}", {"display_name": "Workers", "metadata": {"b": 2}})
    cleared = await rig.max.patch(f"{ACCOUNTS}/{made['id']}", {"display_name": None, "description": None})

    assert (changed["display_name"], changed["description"], changed["metadata"]) == ("Workers", "old", {"b": 2})
    assert (cleared["display_name"], cleared["description"]) == ("workers", None)
    assert cleared["updated_at"] > made["updated_at"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "required"),
        ({"name": ""}, "too_short"),
        ({"name": "x" * 64}, "too_long"),
        ({"name": "two\nlines"}, "control_character"),
        ({"name": "x", "role_id": "owner"}, "roles_not_supported"),
        ({"name": "x", "role_name": "owner"}, "roles_not_supported"),
        ({"name": "x", "metadata": {"_x": 1}}, "reserved_key"),
        ({"name": "x", "metadata": {"a": "x" * 11_000}}, "metadata_too_large"),
    ],
)
async def test_what_is_no_account_is_refused_and_nothing_is_stored(rig: Rig, body: Json, code: str) -> None:
    async with nothing_stored(rig):
        answer = await rig.max.call("POST", ACCOUNTS, json=body)

    assert (answer.status_code in (400, 422), code_of(answer)) == (True, code)


async def test_a_name_is_for_life(rig: Rig) -> None:
    made = await account(rig.max)

    async with nothing_stored(rig):
        answer = await rig.max.call("PATCH", f"{ACCOUNTS}/{made['id']}", json={"name": "other"})

    assert (answer.status_code, code_of(answer)) == (422, "immutable_field")


async def test_fields_nobody_knows_are_passed_over_and_stored_nowhere(rig: Rig) -> None:
    made = await account(rig.max, purpose="runtime_worker")

    assert "runtime_worker" not in str(await rig.max.get(f"{ACCOUNTS}/{made['id']}"))


@pytest.mark.parametrize("account_id", ["sa_x", "*", "sa_*", "sa_01k5z3w8p2c4d6f8h0j2m4n6q8", "a.b"])
async def test_an_account_that_is_not_there_is_not_found(rig: Rig, account_id: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = await rig.max.call(method, f"{ACCOUNTS}/{account_id}", json={})
        assert (answer.status_code, code_of(answer)) == (404, "service_account_not_found")


async def test_a_foreign_account_looks_absent_from_ones_own_project(rig: Rig) -> None:
    made = await account(rig.max)

    own = await rig.eve.call("GET", f"/v1/projects/eve/service-accounts/{made['id']}")
    absent = await rig.eve.call("GET", "/v1/projects/eve/service-accounts/sa_01k5z3w8p2c4d6f8h0j2m4n6q8")
    foreign = await rig.eve.call("GET", f"{ACCOUNTS}/{made['id']}")
    nowhere = await rig.eve.call("GET", f"/v1/projects/nobody/service-accounts/{made['id']}")

    assert own.status_code == absent.status_code == 404
    assert own.content == absent.content
    assert foreign.content == nowhere.content
    assert code_of(foreign) == "project_not_found"


async def test_an_admin_key_names_any_project(rig: Rig) -> None:
    made = await account(rig.max)

    assert (await rig.admin.get(f"{ACCOUNTS}/{made['id']}")) == made


async def test_an_account_that_backs_an_agent_stays_until_the_agent_is_gone(rig: Rig) -> None:
    made = await account(rig.max)
    for name in ("one", "two"):
        await agent_of(rig.max, made, name)

    refused = await rig.max.call("DELETE", f"{ACCOUNTS}/{made['id']}")
    for name in ("one", "two"):
        await rig.max.delete(f"/v1/agents/{name}", status=204)
    await rig.max.delete(f"{ACCOUNTS}/{made['id']}", status=204)

    assert (refused.status_code, code_of(refused)) == (409, "service_account_in_use")
    assert refused.json()["error"]["agents"] == 2
    assert (await rig.max.call("GET", f"{ACCOUNTS}/{made['id']}")).status_code == 404
    assert (await account(rig.max))["id"] != made["id"]  # its name is free again


async def test_an_agent_made_while_its_account_goes_never_ends_up_without_it(rig: Rig) -> None:
    for number in range(10):
        made = await account(rig.max, f"a{number}")
        answers: list[int] = []

        async def create(made: Json = made, name: str = f"agent-{number}", answers: list[int] = answers) -> None:
            body = {"service_account_id": made["id"], "name": name}
            answers.append((await rig.max.call("POST", "/v1/projects/max/agents", json=body)).status_code)

        async def delete(made: Json = made, answers: list[int] = answers) -> None:
            answers.append((await rig.max.call("DELETE", f"{ACCOUNTS}/{made['id']}")).status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            tasks.start_soon(delete)

        assert sorted(answers) in ([201, 409], [204, 404]), answers


async def test_a_fleet_makes_its_agents_under_one_account_at_once(rig: Rig) -> None:
    made = await account(rig.max)

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(agent_of, rig.max, made, f"worker-{number}")

    found = await rig.max.get("/v1/projects/max/agents", service_account_id=made["id"], limit=200)
    assert len(found["items"]) == 30


async def test_nothing_new_is_made_for_a_disabled_account(rig: Rig) -> None:
    made = await account(rig.max)
    await rig.max.patch(f"{ACCOUNTS}/{made['id']}", {"status": "disabled"})

    async with nothing_stored(rig):
        body = {"service_account_id": made["id"], "name": "late"}
        answer = await rig.max.call("POST", "/v1/projects/max/agents", json=body)

    assert (answer.status_code, code_of(answer)) == (409, "service_account_disabled")


async def test_the_owner_is_told_of_its_accounts(rig: Rig) -> None:
    made = await account(rig.max)
    await rig.max.patch(f"{ACCOUNTS}/{made['id']}", {"status": "disabled"})
    await rig.max.delete(f"{ACCOUNTS}/{made['id']}", status=204)

    told = (await rig.max.get("/v1/events"))["events"]

    about = [each for each in told if each["subject"] == made["id"]]
    assert [each["type"] for each in about] == [
        "service_account.created",
        "service_account.updated",
        "service_account.deleted",
    ]
    assert [each["data"]["status"] for each in about] == ["active", "disabled", "disabled"]
