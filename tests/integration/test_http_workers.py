"""Workers over HTTP: who says that it lives, and the work they select by task."""

from collections.abc import AsyncIterator

import pytest

from infra.clock import SystemClock
from infra.embedded import NatsEndpoint, RedisEndpoint
from infra.worker_beats import MAX_WORKERS, RedisWorkers
from tests.http_rig import Rig, code_of, running_rig
from tests.patient_redis import patient_redis


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "bg")
        await running.max.agent("pc", "bg")
        yield running


async def test_a_worker_is_listed_with_what_it_said_last(rig: Rig) -> None:
    first = await rig.max.post("/v1/worker/heartbeat", {"worker_id": "w1", "handlers": ["report"]})
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "w1"})
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "w0", "handlers": []})

    page = await rig.max.get("/v1/workers")

    assert first["acknowledged"] is True
    assert [(each["worker_id"], each["handlers"]) for each in page["workers"]] == [("w0", []), ("w1", ["report"])]
    assert page["workers"][1]["registered_since"] == first["server_time"]
    assert page["workers"][1]["heartbeat_status"] == "active"
    assert (await rig.eve.get("/v1/workers"))["workers"] == []


async def test_a_worker_is_forgotten_once_and_by_its_owner_only(rig: Rig) -> None:
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "w1"})

    foreign = await rig.eve.call("DELETE", "/v1/workers/w1")
    await rig.max.delete("/v1/workers/w1", status=204)
    again = await rig.max.call("DELETE", "/v1/workers/w1")

    assert {(each.status_code, code_of(each)) for each in (foreign, again)} == {(404, "worker_not_found")}


async def test_an_owner_has_a_thousand_workers_and_no_more(rig: Rig, redis_server: RedisEndpoint, prefix: str) -> None:
    connection = patient_redis(redis_server.url, prefix)
    workers = RedisWorkers(connection, SystemClock())
    for number in range(MAX_WORKERS):
        await workers.beat("max", f"w{number}", None)
    await connection.close()

    refused = await rig.max.call("POST", "/v1/worker/heartbeat", json={"worker_id": "one-more"})

    assert (refused.status_code, code_of(refused)) == (429, "too_many_workers")
    await rig.max.post("/v1/worker/heartbeat", {"worker_id": "w7"})


async def test_work_is_selected_by_task_by_agent_and_by_both(rig: Rig) -> None:
    await rig.max.send("mac", "plain", delivery_mode="bg")
    await rig.max.send("mac", "report", delivery_mode="bg", metadata={"task": "report", "payload": {"month": 3}})
    await rig.max.send("pc", "report", delivery_mode="bg", metadata={"task": "report"})

    listed = (await rig.max.get("/v1/executions/claimable", task="report"))["executions"]
    at_mac = (await rig.max.get("/v1/executions/claimable", task="report", agent="mac"))["executions"]
    nothing = await rig.max.post("/v1/executions/claim", {"task": "other", "worker_id": "w"})
    of_pc = await rig.max.post("/v1/executions/claim", {"task": "report", "agent": "pc", "worker_id": "w"})
    of_any = await rig.max.post("/v1/executions/claim", {"task": "report", "worker_id": "w", "lease_s": 30})

    assert [each["task"] for each in listed] == ["report", "report"]
    assert [(each["payload"], each["attempt"]) for each in at_mac] == [({"month": 3}, 1)]
    assert nothing == {"claimed": False}
    assert of_pc["message"]["to"]["slug"] == "pc"
    assert (of_any["message"]["to"]["slug"], of_any["lease_seconds"]) == ("mac", 30)


async def test_a_worker_that_names_nothing_but_itself_takes_what_waits_longest(rig: Rig) -> None:
    sent = [await rig.max.send(slug, slug, delivery_mode="bg") for slug in ("pc", "mac")]
    taken = [await rig.max.post("/v1/executions/claim", {"worker_id": "w"}) for _ in sent]
    empty = await rig.max.call("POST", "/v1/executions/claim", json={"worker_id": "w"})

    assert [each["execution_id"] for each in taken] == [each["execution_id"] for each in sent]
    assert {each["lease_seconds"] for each in taken} == {900}
    assert (empty.status_code, code_of(empty)) == (409, "claim_failed")


async def test_tasks_are_found_behind_many_messages_without_one(rig: Rig) -> None:
    for _ in range(60):
        await rig.max.send("mac", delivery_mode="bg")
    await rig.max.send("mac", delivery_mode="bg", metadata={"task": "report"})

    listed = (await rig.max.get("/v1/executions/claimable"))["executions"]

    assert listed[0]["task"] == "report"
    assert len(listed) == 50


async def test_a_worker_without_numbers_extends_by_its_name_and_reports_without_one(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    path = f"/v1/executions/{sent['execution_id']}"
    unclaimed = await rig.max.call("POST", f"{path}/heartbeat", headers={"X-Worker-Id": "w1"})
    await rig.max.post(f"{path}/claim", {"worker_id": "w1"})

    other = await rig.max.call("POST", f"{path}/heartbeat", headers={"X-Worker-Id": "w2"})
    named = await rig.max.call("POST", f"{path}/heartbeat", headers={"X-Worker-Id": "w1"})
    nameless = await rig.max.post(f"{path}/heartbeat")
    done = await rig.max.post(f"{path}/outcome", {"success": True, "result": "done"})

    assert (unclaimed.status_code, code_of(unclaimed)) == (409, "execution_not_claiming")
    assert (other.status_code, code_of(other)) == (403, "not_execution_owner")
    assert (named.status_code, named.json()["acknowledged"]) == (200, True)
    assert nameless["lease_extended_until"] == nameless["lease"]["expires_at"]
    assert (done["outcome_state"], done["delivery_route"]) == ("reported_success", "background_direct")
    assert (await rig.max.get(path))["claimed_by"] == "w1"


async def test_a_worker_with_numbers_is_fenced_against_one_without(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/claim", {"worker_id": "w1", "lease_s": 60})

    answers = [
        await rig.max.call("POST", f"{path}/outcome", json={"success": True}),
        await rig.max.call("POST", f"{path}/heartbeat"),
    ]

    assert {(each.status_code, code_of(each)) for each in answers} == {(409, "stale_lease")}
