"""API keys in the shape Mobius' clients know, and what the keys of a service account may do."""

from collections.abc import AsyncIterator

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Caller, Json, Rig, code_of, running_rig
from tests.refusals import nothing_stored

KEYS = "/v1/api-keys"
AGENTS = "/v1/projects/max/agents"
ACCOUNTS = "/v1/projects/max/service-accounts"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def account(rig: Rig, name: str = "workers") -> str:
    account_id: str = (await rig.max.post(ACCOUNTS, {"name": name}, status=201))["id"]
    return account_id


async def minted(rig: Rig, name: str = "key", **more: object) -> tuple[Json, Caller]:
    made = await rig.max.post(KEYS, {"name": name, **more}, status=201)
    return made, Caller(http=rig.http, key=made["key"], owner="max")


async def test_a_key_is_shown_whole_once_and_by_its_prefix_afterwards(rig: Rig) -> None:
    account_id = await account(rig)
    made, caller = await minted(
        rig,
        "worker-1",
        project_id="max",
        permissions=["mobius.agent.read"],
        service_account_id=account_id,
        expires_at="2090-01-01T00:00:00Z",
        flavour="0ffending",
    )
    await caller.get("/v1/auth/me")

    read = await rig.max.get(f"{KEYS}/{made['id']}")

    assert made["key_prefix"] == made["key"][:8]
    assert {**read, "last_used_at": None} == {name: made[name] for name in made if name != "key"}
    assert {**made, "id": "", "key": "", "key_prefix": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "key": "",
        "key_prefix": "",
        "name": "worker-1",
        "scope": "org",
        "permissions": ["agents:read"],
        "project_id": "max",
        "service_account_id": account_id,
        "agent_id": None,
        "expires_at": "2090-01-01T00:00:00.000Z",
        "last_used_at": None,
        "created_at": "",
        "updated_at": "",
    }
    assert made["key"] not in str(await rig.max.get(KEYS))


async def test_both_doors_list_and_revoke_the_same_keys(rig: Rig) -> None:
    made, caller = await minted(rig)
    ours = await rig.max.post("/v1/keys", {"name": "laptop"}, status=201)

    listed = [each["id"] for each in (await rig.max.get(KEYS))["items"]]
    await rig.max.delete(f"{KEYS}/{ours['key_id']}", status=204)
    await rig.max.delete(f"/v1/keys/{made['id']}", status=204)

    assert listed == [rig.max.key_id, made["id"], ours["key_id"]]
    assert (await caller.call("GET", "/v1/auth/me")).status_code == 401
    for key_id in (made["id"], ours["key_id"], "0" * 12, "nonsense"):
        answer = await rig.max.call("GET", f"{KEYS}/{key_id}")
        assert (answer.status_code, code_of(answer)) == (404, "key_not_found")


async def test_lists_go_on_behind_a_cursor(rig: Rig) -> None:
    made = [rig.max.key_id, *[(await minted(rig, f"k{number}"))[0]["id"] for number in range(4)]]

    first = await rig.max.get(KEYS, limit=3)
    rest = await rig.max.get(KEYS, limit=3, cursor=first["next_cursor"])

    assert [each["id"] for each in first["items"] + rest["items"]] == made
    assert (first["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "required"),
        ({"name": ""}, 422, "too_short"),
        ({"name": "x", "project_id": "eve"}, 404, "project_not_found"),
        ({"name": "x", "scope": "planet"}, 422, "invalid_enum"),
        ({"name": "x", "scope": "system"}, 403, "admin_key_required"),
        ({"name": "x", "scope": "system", "permissions": []}, 422, "field_not_applicable"),
        ({"name": "x", "permissions": ["everything"]}, 422, "unknown_scope"),
        ({"name": "x", "service_account_id": "sa_01k5z3w8p2c4d6f8h0j2m4n6q8"}, 404, "service_account_not_found"),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, 422, "out_of_range"),
    ],
)
async def test_what_is_no_key_is_refused_and_nothing_is_stored(rig: Rig, body: Json, status: int, code: str) -> None:
    async with nothing_stored(rig):
        answer = await rig.max.call("POST", KEYS, json=body)

    assert (answer.status_code, code_of(answer)) == (status, code)


async def test_a_system_key_is_an_admin_key(rig: Rig) -> None:
    made = await rig.admin.post(KEYS, {"name": "root", "scope": "system"}, status=201)

    assert (made["scope"], made["project_id"], made["permissions"]) == ("system", None, None)
    assert (await Caller(http=rig.http, key=made["key"], owner="local").get(AGENTS))["items"] == []


# --- a service account's keys ---------------------------------------------------------------------------------------


async def test_a_service_account_reads_and_changes_its_own_agents_and_no_others(rig: Rig) -> None:
    account_id = await account(rig)
    for name, backed in (("one", account_id), ("two", account_id), ("other", await account(rig, "others"))):
        await rig.max.post(AGENTS, {"service_account_id": backed, "name": name}, status=201)
    _, worker = await minted(rig, service_account_id=account_id)

    listed = await worker.get(AGENTS)
    narrowed = await worker.get(AGENTS, limit=1, status="active")
    changed = await worker.patch(f"{AGENTS}/one", {"kind": "llm"})
    foreign = [await worker.call(method, f"{AGENTS}/other", json={"kind": "x"}) for method in ("GET", "PATCH")]
    absent = await worker.call("GET", f"{AGENTS}/nobody")

    assert [each["name"] for each in listed["items"]] == ["one", "two"]
    assert ([each["name"] for each in narrowed["items"]], narrowed["has_more"]) == (["one"], True)
    assert (changed["kind"], (await worker.get(f"{AGENTS}/one"))["kind"]) == ("llm", "llm")
    assert {answer.content for answer in foreign} == {absent.content}
    assert code_of(absent) == "agent_not_found"


async def test_a_service_account_makes_and_deletes_no_agents_and_no_accounts(rig: Rig) -> None:
    account_id = await account(rig)
    await rig.max.post(AGENTS, {"service_account_id": account_id, "name": "one"}, status=201)
    _, worker = await minted(rig, service_account_id=account_id)

    for method, path in (("POST", AGENTS), ("DELETE", f"{AGENTS}/one"), ("GET", ACCOUNTS), ("POST", KEYS)):
        answer = await worker.call(method, path, json={"service_account_id": account_id, "name": "x"})
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope"), path


async def test_a_service_account_goes_out_of_service_and_does_not_come_back_by_itself(rig: Rig) -> None:
    account_id = await account(rig)
    await rig.max.post(AGENTS, {"service_account_id": account_id, "name": "one"}, status=201)
    _, worker = await minted(rig, service_account_id=account_id)
    _, manager = await minted(rig, service_account_id=account_id, permissions=["agent.manage"])

    idle = await worker.patch(f"{AGENTS}/one", {"status": "inactive"})
    kept = await worker.patch(f"{AGENTS}/one", {"status": "inactive", "kind": "llm"})
    refusals = [
        await worker.call("PATCH", path, json={"status": "active"}) for path in (f"{AGENTS}/one", "/v1/agents/one")
    ]
    woken = await manager.patch(f"{AGENTS}/one", {"status": "active"})

    assert (idle["status"], kept["kind"], woken["status"]) == ("inactive", "llm", "active")
    for refused in refusals:
        assert (refused.status_code, code_of(refused)) == (403, "inactive_is_not_yours_to_undo")


async def test_a_disabled_accounts_keys_do_not_count_until_it_is_enabled(rig: Rig) -> None:
    account_id = await account(rig)
    await rig.max.post(AGENTS, {"service_account_id": account_id, "name": "one"}, status=201)
    _, worker = await minted(rig, service_account_id=account_id)
    await rig.max.patch(f"{ACCOUNTS}/{account_id}", {"status": "disabled"})

    late = await rig.max.call("POST", KEYS, json={"name": "x", "service_account_id": account_id})
    # What a gateway remembers of a key it forgets within two seconds.
    with anyio.fail_after(10):
        while (await worker.call("GET", f"{AGENTS}/one")).status_code != 401:
            await anyio.sleep(0.1)
    await rig.max.patch(f"{ACCOUNTS}/{account_id}", {"status": "active"})
    with anyio.fail_after(10):
        while (await worker.call("GET", f"{AGENTS}/one")).status_code != 200:
            await anyio.sleep(0.1)

    assert (late.status_code, code_of(late)) == (409, "service_account_disabled")


async def test_an_account_stays_while_a_key_of_it_counts(rig: Rig) -> None:
    account_id = await account(rig)
    made, _ = await minted(rig, service_account_id=account_id)

    refused = await rig.max.call("DELETE", f"{ACCOUNTS}/{account_id}")
    await rig.max.delete(f"{KEYS}/{made['id']}", status=204)
    await rig.max.delete(f"{ACCOUNTS}/{account_id}", status=204)

    assert (refused.status_code, code_of(refused)) == (409, "service_account_in_use")
    assert (refused.json()["error"]["agents"], refused.json()["error"]["keys"]) == (0, 1)


async def test_a_key_made_while_its_account_goes_never_ends_up_without_it(rig: Rig) -> None:
    for number in range(10):
        account_id = await account(rig, f"a{number}")
        answers: list[int] = []

        async def call(method: str, path: str, body: Json, answers: list[int] = answers) -> None:
            answers.append((await rig.max.call(method, path, json=body)).status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "POST", KEYS, {"name": "x", "service_account_id": account_id})
            tasks.start_soon(call, "DELETE", f"{ACCOUNTS}/{account_id}", {})

        assert sorted(answers) in ([201, 409], [204, 404]), answers
