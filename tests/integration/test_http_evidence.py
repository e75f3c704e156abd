"""Executions over HTTP beyond their outcome: evidence, verification, replays, and the lists that ask for them."""

from collections.abc import AsyncIterator

import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "bg", "inbox")
        yield running


async def reported(rig: Rig, **more: object) -> tuple[str, Json]:
    """The path of an execution whose outcome was reported, and the answer to that."""
    sent = await rig.max.send("mac", delivery_mode="inbox")
    path = f"/v1/executions/{sent['execution_id']}"
    return path, await rig.max.post(f"{path}/outcome", {"success": True, **more})


async def test_evidence_comes_with_an_outcome_and_after_it(rig: Rig) -> None:
    path, told = await reported(rig, external_id="run-7", artifacts=[{"name": "report.pdf"}])
    added = await rig.max.patch(f"{path}/evidence", {"result_url": "https://example.com/7", "metadata": {"a": 1}})

    assert (told["outcome_recorded"], told["outcome_state"]) == (True, "reported_success")
    assert (added["evidence_updated"], added["outcome_state"]) == (True, "reported_success")
    assert added["message"]["outcome"]["evidence"] == {
        "external_id": "run-7",
        "artifacts": [{"name": "report.pdf"}],
        "result_url": "https://example.com/7",
        "metadata": {"a": 1},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("external_id", "x" * 501),
        ("result_url", "ftp://example.com"),
        ("result_url", "https:// x"),
        ("result_ref", "x" * 501),
        ("result_type", "x" * 101),
        ("summary", "x" * 501),
        ("artifacts", "x"),
        ("artifacts", [1] * 101),
        ("artifacts", ["x" * 11_000]),
        ("metadata", {"_reserved": 1}),
    ],
)
async def test_evidence_that_cannot_be_is_refused_and_changes_nothing(rig: Rig, field: str, value: object) -> None:
    path, _ = await reported(rig)

    answer = await rig.max.call("PATCH", f"{path}/evidence", json={field: value})

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert [each["type"] for each in (await rig.max.get(path))["events"]] == ["accepted", "outcome_recorded"]


async def test_an_outcome_is_verified_refuted_and_asked_about(rig: Rig) -> None:
    path, _ = await reported(rig)

    pending = await rig.max.post(f"{path}/verification-pending")
    refuted = await rig.max.post(f"{path}/verify", {"valid": False, "reason": "Not there."})
    verified = await rig.max.post(f"{path}/verify")
    late = await rig.max.call("POST", f"{path}/verification-pending")

    assert pending["outcome_state"] == "verification_pending"
    assert (refuted["outcome_state"], refuted["reason"]) == ("verification_failed", "Not there.")
    assert (verified["outcome_state"], verified["valid"]) == ("verified_success", True)
    assert (late.status_code, code_of(late)) == (409, "invalid_state")
    assert (await rig.max.get(path))["outcome_state"] == "verified_success"


async def test_without_an_outcome_there_is_nothing_to_verify(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox")
    path = f"/v1/executions/{sent['execution_id']}"

    answers = [
        await rig.max.call("PATCH", f"{path}/evidence", json={"summary": "x"}),
        await rig.max.call("POST", f"{path}/verify"),
        await rig.max.call("POST", f"{path}/verification-pending"),
    ]

    assert {(each.status_code, code_of(each)) for each in answers} == {(409, "no_outcome")}


async def test_an_ended_message_is_delivered_once_more_as_another_execution(rig: Rig) -> None:
    path, told = await reported(rig)

    again = await rig.max.post(f"{path}/replay", status=201)
    in_flight = await rig.max.call("POST", f"/v1/executions/{told['id']}/replay")
    first, second = await rig.max.get(path), await rig.max.get(f"/v1/executions/{again['id']}")

    assert (again["replayed_from"], again["triggered_by"]) == (told["execution_id"], "replay")
    assert again["execution_id"] == again["id"] == f"{told['execution_id']}r2"
    assert (in_flight.status_code, code_of(in_flight)) == (409, "execution_in_flight")
    assert (first["status"], second["status"]) == ("success", "pending")


async def test_a_messages_id_stands_for_its_newest_execution(rig: Rig) -> None:
    path, told = await reported(rig)
    await rig.max.post(f"{path}/replay", status=201)

    found = await rig.max.get(f"/v1/executions/{told['id']}")
    foreign = await rig.eve.call("GET", f"/v1/executions/{told['id']}")

    assert found["execution_id"] == f"{told['execution_id']}r2"
    assert (foreign.status_code, code_of(foreign)) == (404, "execution_not_found")


async def texts(rig: Rig, **filters: object) -> list[str]:
    return [each["message"] for each in (await rig.max.get("/v1/executions", **filters))["executions"]]


async def test_lists_are_narrowed_by_what_was_made_of_executions(rig: Rig) -> None:
    await rig.max.agent("writer", "inbox")
    sent = [
        await rig.max.send("mac", "leased", delivery_mode="bg", metadata={"task": "report"}),
        await rig.max.send("mac", "proved", delivery_mode="inbox"),
        await rig.max.send("mac", "failed", delivery_mode="inbox"),
    ]
    body = {"to": "mac", "message": "written", "delivery_mode": "inbox"}
    headers = {"X-Postroom-From-Agent": "writer"}
    sent.append(await rig.max.post("/v1/messages", body, status=201, headers=headers))
    paths = [f"/v1/executions/{each['execution_id']}" for each in sent]
    await rig.max.post(f"{paths[0]}/claim", {"worker_id": "w1"})
    await rig.max.post(f"{paths[1]}/outcome", {"success": True, "external_id": "7"})
    await rig.max.post(f"{paths[2]}/outcome", {"success": False})

    assert await texts(rig, status="delivering") == ["leased"]
    assert await texts(rig, status__in="success,failed") == ["failed", "proved"]
    assert await texts(rig, status="lost") == []
    assert await texts(rig, outcome_state="reported_failure") == ["failed"]
    assert await texts(rig, has_evidence=True) == ["proved"]
    assert await texts(rig, task="report") == ["leased"]
    assert await texts(rig, worker_id="w1") == ["leased"]
    assert await texts(rig, cue_id="cue_x") == []
    assert await texts(rig, since=sent[2]["accepted_at"]) == ["written", "failed"]
    assert await texts(rig, until=sent[0]["accepted_at"]) == ["leased"]
    assert await texts(rig, triggered_by="replay") == []
    assert await texts(rig, sender="writer") == ["written"]
    assert await texts(rig, sender="writer", agent="mac", status="pending") == ["written"]


async def test_a_page_says_how_many_there_are_and_may_be_turned_by_offset(rig: Rig) -> None:
    for number in range(3):
        await rig.max.send("mac", f"n{number}", delivery_mode="inbox")

    page = await rig.max.get("/v1/executions", limit=1, offset=1)

    assert [each["message"] for each in page["executions"]] == ["n1"]
    assert (page["total"], page["limit"], page["offset"], page["has_more"]) == (3, 1, 1, True)
    assert (await rig.max.get("/v1/executions", status="pending"))["total"] is None


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("status=pending&status__in=failed", 400, "conflicting_filters"),
        ("status__in=pending,lost", 400, "invalid_status_in"),
        ("offset=1001", 422, "out_of_range"),
        ("since=yesterday", 422, "invalid_instant"),
        ("until=2026-01-01T00:00:00", 422, "invalid_instant"),
        ("outcome_state=good", 422, "invalid_enum"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused(rig: Rig, query: str, status: int, code: str) -> None:
    answer = await rig.max.call("GET", f"/v1/executions?{query}")

    assert (answer.status_code, code_of(answer)) == (status, code)
