"""Messages over HTTP, on the real broker and the real Redis: sent, explained, replayed, cancelled."""

from collections.abc import AsyncIterator

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Rig, code_of, expect, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        yield running


async def test_a_message_to_an_inbox_is_accepted_with_its_trace(rig: Rig) -> None:
    agent = await rig.max.agent("helper")

    sent = await rig.max.send("helper", subject="Hello", metadata={"n": 1})

    assert sent["state"] == "in_inbox"
    assert sent["effective_delivery_mode"] == "inbox"
    assert sent["to"] == {"agent_id": agent["id"], "slug": "helper", "owner": "max"}
    assert sent["from"] == {"owner": "max", "agent_id": None, "slug": None, "key_id": rig.max.key_id}
    assert [(gate["channel"], gate["verdict"]) for gate in sent["trace"]][-1] == ("inbox", "pass")
    read = await rig.max.get(f"/v1/messages/{sent['id']}")
    assert [each["stage"] for each in read.pop("receipts")] == ["accepted", "routed"]
    assert read == sent


@pytest.mark.parametrize("form", ["{id}", "agt_{bare}", "helper", "helper@max"])
async def test_an_agent_is_addressed_in_every_form(rig: Rig, form: str) -> None:
    agent = await rig.max.agent("helper")
    reference = form.format(id=agent["id"], bare=agent["id"].removeprefix("agent_"))

    sent = await rig.max.send(reference)
    read = await rig.max.get(f"/v1/agents/{reference}")

    assert sent["to"]["agent_id"] == read["id"] == agent["id"]


async def test_a_foreign_agent_looks_exactly_like_an_absent_one(rig: Rig) -> None:
    agent = await rig.max.agent("helper")
    references = [agent["id"], "helper@max", "helper", "nobody", "nobody@max", "agent_000000000000"]

    answers = [
        await rig.eve.call("POST", "/v1/messages", json={"to": reference, "message": "psst"})
        for reference in references
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert code_of(answers[0]) == "agent_not_found"


async def test_an_admin_key_may_address_everybody(rig: Rig) -> None:
    agent = await rig.max.agent("helper")

    sent = await rig.admin.send("helper@max")

    assert sent["to"]["agent_id"] == agent["id"]
    assert sent["from"]["owner"] == "local"


async def test_the_same_idempotency_key_gives_the_same_message(rig: Rig) -> None:
    await rig.max.agent("helper")
    body = {"to": "helper", "message": "once"}
    headers = {"Idempotency-Key": "order 66"}

    first = expect(201, await rig.max.call("POST", "/v1/messages", json=body, headers=headers))
    again = expect(200, await rig.max.call("POST", "/v1/messages", json=body, headers=headers))
    other = await rig.max.call("POST", "/v1/messages", json={**body, "message": "twice"}, headers=headers)

    assert again["id"] == first["id"]
    assert again["replayed"] is True
    assert "replayed" not in first
    assert (other.status_code, code_of(other)) == (409, "idempotency_mismatch")


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ümlaut"])
async def test_an_idempotency_key_that_cannot_be_is_refused(rig: Rig, key: str) -> None:
    await rig.max.agent("helper")
    headers = [
        (b"Authorization", rig.max.headers["authorization"].encode()),
        (b"Idempotency-Key", key.encode()),
    ]

    answer = await rig.http.request("POST", "/v1/messages", json={"to": "helper", "message": "x"}, headers=headers)

    assert (answer.status_code, code_of(answer)) == (422, "invalid_idempotency_key")


async def test_a_mode_the_agent_never_declared_is_refused_with_the_trace(rig: Rig) -> None:
    await rig.max.agent("helper", "inbox")

    answer = await rig.max.call("POST", "/v1/messages", json={"to": "helper", "message": "x", "delivery_mode": "live"})

    assert (answer.status_code, code_of(answer)) == (422, "capability_not_declared")
    assert any(gate["reason"] == "capability_not_declared" for gate in answer.json()["error"]["trace"])


async def test_an_inactive_agent_is_a_conflict(rig: Rig) -> None:
    await rig.max.agent("helper", status="inactive")

    answer = await rig.max.call("POST", "/v1/messages", json={"to": "helper", "message": "x"})

    assert (answer.status_code, code_of(answer)) == (409, "agent_inactive")


async def test_a_message_can_be_sent_as_one_of_ones_own_agents_only(rig: Rig) -> None:
    await rig.max.agent("helper")
    writer = await rig.max.agent("writer")
    body = {"to": "helper", "message": "x"}

    sent = await rig.max.post("/v1/messages", body, status=201, headers={"X-Postroom-From-Agent": "writer"})
    alias = await rig.max.post("/v1/messages", body, status=201, headers={"X-Cueapi-From-Agent": writer["id"]})
    await rig.eve.agent("helper")
    foreign = await rig.eve.call("POST", "/v1/messages", json=body, headers={"X-Postroom-From-Agent": writer["id"]})

    assert sent["from"]["agent_id"] == alias["from"]["agent_id"] == writer["id"]
    assert code_of(foreign) == "agent_not_found"
    listed = await rig.max.get("/v1/agents/writer/sent")
    assert {each["id"] for each in listed["messages"]} == {sent["id"], alias["id"]}


async def test_a_message_is_cancelled_once_and_for_all(rig: Rig) -> None:
    await rig.max.agent("helper")
    sent = await rig.max.send("helper")

    cancelled = await rig.max.post(f"/v1/messages/{sent['id']}/cancel")
    again = await rig.max.post(f"/v1/messages/{sent['id']}/cancel")

    assert cancelled["state"] == again["state"] == "cancelled"
    assert cancelled["terminal"] is True


async def test_a_dry_run_explains_and_stores_nothing(rig: Rig) -> None:
    await rig.max.agent("helper", "bg", "inbox", preferred_contact="bg")

    route = await rig.max.post("/v1/route", {"to": "helper"})

    assert route["effective_delivery_mode"] == "bg"
    assert route["plan"] == [{"channel": "bg", "mode": "bg"}]
    assert route["trace"]
    assert (await rig.max.get("/v1/executions"))["executions"] == []


async def test_wait_claimed_is_answered_when_the_inbox_hands_the_message_out(rig: Rig) -> None:
    await rig.max.agent("helper")
    answers = []

    async def send() -> None:
        path = "/v1/messages?wait=claimed&timeout_s=20"
        answers.append(await rig.max.post(path, {"to": "helper", "message": "x"}, status=201))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        polled = await rig.max.get("/v1/agents/helper/inbox", wait_s=10)

    assert polled["messages"][0]["id"] == answers[0]["id"]
    assert answers[0]["waited"]["for"] == "claimed"
    assert answers[0]["waited"]["reached"] is True
    assert answers[0]["waited"]["waited_s"] < 10


async def test_a_wait_that_is_over_says_that_nothing_was_reached(rig: Rig) -> None:
    await rig.max.agent("helper")

    sent = await rig.max.post("/v1/messages?wait=outcome&timeout_s=1", {"to": "helper", "message": "x"}, status=201)

    assert sent["waited"]["reached"] is False
    assert sent["state"] == "in_inbox"


@pytest.mark.parametrize(
    "query", ["wait=read", "wait=claimed&timeout_s=0", "wait=claimed&timeout_s=121", "timeout_s=x"]
)
async def test_a_wait_that_cannot_be_is_refused_before_anything_is_sent(rig: Rig, query: str) -> None:
    await rig.max.agent("helper")

    answer = await rig.max.call("POST", f"/v1/messages?{query}", json={"to": "helper", "message": "x"})

    assert answer.status_code == 422
    assert (await rig.max.get("/v1/agents/helper/inbox", count_only="true")) == {"count": 0}
