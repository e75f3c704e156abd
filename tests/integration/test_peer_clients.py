"""CueAPI's SDK and worker against us, replayed request by request: they know no agents and no lease numbers."""

from collections.abc import AsyncIterator

import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, running_rig

WORKERS_HEADERS = {"content-type": "application/json"}  # also on a GET


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "bg", "inbox")
        yield running


async def poll(rig: Rig) -> list[Json]:
    answer = await rig.max.call("GET", "/v1/executions/claimable", headers=WORKERS_HEADERS)
    executions: list[Json] = answer.json()["executions"]
    return executions


async def test_the_worker_polls_matches_claims_and_reports(rig: Rig) -> None:
    await rig.max.send("mac", "unknown to it", delivery_mode="bg")
    await rig.max.send("mac", delivery_mode="bg", metadata={"task": "report", "payload": {"month": 3}})
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "host", "handlers": ["report"]})

    [found] = [each for each in await poll(rig) if each["task"] == "report"]
    path = f"/v1/executions/{found['execution_id']}"
    # What its handlers get as environment variables has to be text.
    assert all(isinstance(found[name], str) for name in ("execution_id", "cue_id", "cue_name"))
    assert isinstance(found["payload"], dict)
    claimed = await rig.max.post(f"{path}/claim", {"worker_id": "host"})
    other = await rig.max.call("POST", f"{path}/claim", json={"worker_id": "other-host"})
    body = {
        "success": True,
        "result": "fine\n",
        "metadata": {"k": 1, "_cueapi_worker": {"outcome_file_dropped_fields": ["nope"]}},
        "external_id": "run-7",
        "result_url": "https://example.com/7",
        "result_type": "report",
        "summary": "All green.",
        "artifacts": [{"name": "a"}],
    }
    reported = await rig.max.post(f"{path}/outcome", body)

    assert (claimed["claimed"], claimed["lease_seconds"]) == (True, 900)
    assert other.status_code == 409
    assert (reported["outcome_recorded"], reported["outcome_state"]) == (True, "reported_success")
    assert [each["task"] for each in await poll(rig)] == [None]


async def test_the_workers_failure_is_an_outcome_and_not_an_attempt(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg", metadata={"task": "report"})
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/claim", {"worker_id": "host"})

    await rig.max.post(f"{path}/outcome", {"success": False, "error": "oops\n"})

    told = await rig.max.get(path)
    assert (told["status"], told["error_message"], told["outcome_state"]) == ("failed", "oops\n", "reported_failure")


async def test_the_sdk_lists_reads_reports_and_verifies(rig: Rig) -> None:
    await rig.max.send("mac", delivery_mode="inbox")
    page = await rig.max.get("/v1/executions", limit=20, offset=0, status="pending")
    [listed] = page["executions"]

    # It takes `id` from lists, and sends an empty object where it has nothing to say.
    path = f"/v1/executions/{listed['id']}"
    unclaimed = await rig.max.call("POST", f"{path}/heartbeat", json={})
    await rig.max.post(f"{path}/outcome", {"success": True, "result": "done"})
    pending = await rig.max.post(f"{path}/verification-pending", {})
    verified = await rig.max.post(f"{path}/verify", {})

    assert unclaimed.json()["error"]["code"] == "execution_not_claiming"
    assert (pending["outcome_state"], verified["outcome_state"]) == ("verification_pending", "verified_success")
    assert (await rig.max.get(path))["status"] == "success"


async def test_the_sdk_keeps_a_claimed_execution_alive_with_an_empty_object(rig: Rig) -> None:
    await rig.max.send("mac", delivery_mode="bg")
    claimed = await rig.max.post("/v1/executions/claim", {"worker_id": "host"})

    beat = await rig.max.post(f"/v1/executions/{claimed['execution_id']}/heartbeat", {})

    assert (beat["acknowledged"], beat["execution_id"]) == (True, claimed["execution_id"])
    assert beat["lease_extended_until"] >= claimed["lease"]["expires_at"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/executions/exec_nope"), ("POST", "/v1/cues")])
async def test_errors_are_where_the_sdk_looks_for_them(rig: Rig, method: str, path: str) -> None:
    answer = await rig.max.call(method, path, json={})

    assert answer.status_code == 404
    assert {"code", "message", "status"} <= answer.json()["error"].keys()
