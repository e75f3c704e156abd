"""Messages that belong together: replies, priorities, schedules, receipts, and the peer's spelling of all of it."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.embedded import EmbeddedRedis, NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, expect, running_rig

DOWNGRADED = ("x-postroom-priority-downgraded", "x-cueapi-priority-downgraded")


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("helper")
        yield running


def ahead(**by: float) -> str:
    return (datetime.now(UTC) + timedelta(**by)).isoformat()


async def send_as(rig: Rig, sender: str, to: str, **more: Any) -> Json:
    headers = {"X-Postroom-From-Agent": sender}
    return await rig.max.post("/v1/messages", {"to": to, "message": "x", **more}, status=201, headers=headers)


# --- replies -------------------------------------------------------------------------------------------------------


async def test_a_reply_inherits_its_thread_and_counts_its_hops(rig: Rig) -> None:
    writer = await rig.max.agent("writer")
    question = await send_as(rig, "writer", "helper", expects_reply=True, correlation_id="c-1")

    answer = await send_as(rig, "helper", "writer", reply_to=question["id"], auto_reply=True)
    again = await send_as(rig, "writer", "helper", reply_to=answer["id"], reply_to_agent="writer@max")

    assert (question["thread_id"], question["hop"], question["expects_reply"]) == (question["id"], 0, True)
    assert (answer["thread_id"], answer["reply_to"], answer["hop"]) == (question["id"], question["id"], 1)
    assert (again["thread_id"], again["reply_to"], again["hop"]) == (question["id"], answer["id"], 2)
    assert again["reply_to_agent"] == again["reply_to_agent_id"] == writer["id"]
    assert question["correlation_id"] == "c-1"


@pytest.mark.parametrize("reply_to", ["msg_00000000000000000000000000", "nonsense", "exec_00000000000000000000000000"])
async def test_a_reply_to_nothing_is_refused(rig: Rig, reply_to: str) -> None:
    answer = await rig.max.call("POST", "/v1/messages", json={"to": "helper", "message": "x", "reply_to": reply_to})
    assert (answer.status_code, code_of(answer)) == (404, "reply_to_not_found")


async def test_somebody_elses_message_cannot_be_replied_to(rig: Rig) -> None:
    sent = await rig.max.send("helper")
    await rig.eve.agent("spy")
    absent = {"to": "spy", "message": "x", "reply_to": "msg_00000000000000000000000000"}

    foreign = await rig.eve.call("POST", "/v1/messages", json={**absent, "reply_to": sent["id"]})

    assert foreign.content == (await rig.eve.call("POST", "/v1/messages", json=absent)).content


async def test_a_reply_to_agent_has_to_be_addressable(rig: Rig) -> None:
    body = {"to": "helper", "message": "x", "reply_to_agent": "nobody@eve"}
    answer = await rig.max.call("POST", "/v1/messages", json=body)
    assert (answer.status_code, code_of(answer)) == (404, "agent_not_found")


# --- priorities ----------------------------------------------------------------------------------------------------


async def urgent(rig: Rig, to: str, key: str = "", **more: Any) -> tuple[int, Json, list[str]]:
    """Status, body and the downgrade headers of a message of high priority."""
    headers = {"Idempotency-Key": key} if key else {}
    body = {"to": to, "message": "x", "priority": 5, **more}
    answer = await rig.max.call("POST", "/v1/messages", json=body, headers=headers)
    return answer.status_code, answer.json(), [name for name in DOWNGRADED if answer.headers.get(name) == "true"]


async def test_the_sixth_urgent_message_to_one_receiver_is_lowered_and_says_so(rig: Rig) -> None:
    first = [await urgent(rig, "helper") for _ in range(5)]
    status, sixth, headers = await urgent(rig, "helper")

    assert [(status, body["priority"], told) for status, body, told in first] == [(201, 5, [])] * 5
    assert (status, sixth["priority"], headers) == (201, 3, list(DOWNGRADED))


async def test_the_eleventh_urgent_message_of_an_owner_is_refused(rig: Rig) -> None:
    for number in range(11):
        await rig.max.agent(f"h{number}")
    sent = [await urgent(rig, f"h{number}") for number in range(11)]

    assert [status for status, _, _ in sent] == [201] * 10 + [429]
    assert sent[-1][1]["error"]["code"] == "priority_high_rate_limit"
    assert 3_500 < sent[-1][1]["error"]["retry_after_s"] <= 3_600
    assert (await rig.max.send("helper", priority=3))["priority"] == 3
    assert (await rig.max.send("helper", priority=1))["priority"] == 1


async def test_a_retry_under_its_idempotency_key_is_counted_once_and_answered_alike(rig: Rig) -> None:
    first = [await urgent(rig, "helper", key="one") for _ in range(12)]
    for number in range(5):
        await urgent(rig, "helper", key=f"k{number}")
    lowered = await urgent(rig, "helper", key="low")
    again = await urgent(rig, "helper", key="low")

    assert {(status, body["id"], body["priority"]) for status, body, _ in first[1:]} == {(200, first[0][1]["id"], 5)}
    assert (lowered[0], lowered[1]["priority"], lowered[2]) == (201, 3, list(DOWNGRADED))
    assert (again[0], again[1]["id"], again[2]) == (200, lowered[1]["id"], list(DOWNGRADED))


async def test_a_dry_run_counts_nothing(rig: Rig) -> None:
    for _ in range(12):
        await rig.max.post("/v1/route", {"to": "helper", "priority": 5})
    assert (await urgent(rig, "helper"))[1]["priority"] == 5


async def test_without_redis_an_urgent_message_goes_on_with_the_usual_priority(
    nats_server: NatsEndpoint, own_redis: EmbeddedRedis, prefix: str
) -> None:
    async with running_rig(nats_server, own_redis.endpoint, prefix) as rig:
        await rig.max.agent("helper")
        own_redis.kill()
        status, body, headers = await urgent(rig, "helper")
    assert (status, body["priority"], headers) == (201, 3, list(DOWNGRADED))


# --- schedules, verification ---------------------------------------------------------------------------------------


async def test_a_message_for_later_is_scheduled_and_one_for_the_past_is_not(rig: Rig) -> None:
    later = await rig.max.send("helper", send_at=ahead(days=1))
    past = await rig.max.send("helper", send_at=ahead(days=-1))

    assert (later["state"], later["delivery_state"]) == ("scheduled", "queued")
    assert past["state"] == "in_inbox"
    listed = await rig.max.get("/v1/agents/helper/inbox")
    assert [each["id"] for each in listed["messages"]] == [past["id"]]


async def test_a_message_cannot_be_scheduled_beyond_a_leap_year(rig: Rig) -> None:
    for send_at in (ahead(days=366, minutes=1), "9999-12-31T23:59:59Z"):
        body = {"to": "helper", "message": "x", "send_at": send_at}
        answer = await rig.max.call("POST", "/v1/messages", json=body)
        assert (answer.status_code, code_of(answer)) == (422, "out_of_range")


@pytest.mark.parametrize("verification", ["manual", {"mode": "manual"}])
async def test_a_verification_is_asked_for_in_both_spellings(rig: Rig, verification: object) -> None:
    assert (await rig.max.send("helper", verification=verification))["verification"] == "manual"


async def test_metadata_beyond_its_size_has_the_code_of_its_own(rig: Rig) -> None:
    body = {"to": "helper", "message": "x", "metadata": {"a": "x" * 10_240}}
    answer = await rig.max.call("POST", "/v1/messages", json=body)
    assert (answer.status_code, code_of(answer)) == (400, "metadata_too_large")


# --- what came of it -----------------------------------------------------------------------------------------------


async def test_receipts_tell_how_far_a_message_got(rig: Rig) -> None:
    sent = await rig.max.send("helper")
    path = f"/v1/messages/{sent['id']}"
    await rig.max.get("/v1/agents/helper/inbox")
    read = await rig.max.post(f"{path}/read")
    acked = await rig.max.post(f"{path}/ack")

    told = (await rig.max.get(f"{path}/receipts"))["receipts"]
    message = await rig.max.get(path)

    assert [each["stage"] for each in told] == ["accepted", "routed", "handed_out", "read", "outcome"]
    assert message["receipts"] == told
    at = {each["stage"]: each["at"] for each in told}
    assert (message["created_at"], message["delivered_at"]) == (at["accepted"], at["handed_out"])
    assert (message["read_at"], message["acked_at"]) == (at["read"], at["outcome"])
    assert (read["delivery_state"], read["acked_at"]) == ("read", None)
    assert (acked["delivery_state"], acked["acked_at"]) == ("acked", at["outcome"])


async def test_an_answer_carries_the_peers_fields_beside_ours(rig: Rig) -> None:
    writer = await rig.max.agent("writer")
    sent = await send_as(rig, "writer", "helper", message="ü" * 300)

    assert sent["body"] == sent["message"] == "ü" * 300
    assert sent["preview"] == "ü" * 200
    assert (sent["user_id"], sent["from_agent_id"], sent["to_agent_id"]) == (
        "max",
        writer["id"],
        sent["to"]["agent_id"],
    )
    assert (sent["delivery_state"], sent["created_at"], sent["failed_at"]) == ("queued", sent["accepted_at"], None)
    assert "idempotency_key" not in sent


async def test_lists_carry_the_peers_fields_for_the_peers_clients(rig: Rig) -> None:
    sent = await send_as(rig, "helper", "helper")
    theirs = {"User-Agent": "cueapi-python/0.2.0"}

    for path in ("/v1/agents/helper/inbox", "/v1/agents/helper/sent", f"/v1/threads/{sent['id']}"):
        [ours] = (await rig.max.get(path))["messages"]
        [spelled] = expect(200, await rig.max.call("GET", path, headers=theirs))["messages"]
        assert "body" not in ours
        assert (spelled["body"], spelled["delivery_state"]) == (spelled["message"], "delivered")
        assert spelled["delivered_at"] == ours["updated_at"]


# --- what arrived --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["X-Postroom-Verify-Echo", "X-CueAPI-Verify-Echo"])
async def test_a_sender_is_told_what_arrived(rig: Rig, header: str) -> None:
    text = "$HOME `date` ü\n"
    answer = await rig.max.post("/v1/messages", {"to": "helper", "body": text}, status=201, headers={header: "true"})
    assert answer["body_received"] == text
    assert answer["body_received_sha256"] == hashlib.sha256(text.encode()).hexdigest()


async def test_every_other_body_is_told_as_the_object_it_was(rig: Rig) -> None:
    headers = {"X-Postroom-Verify-Echo": "true"}
    changed = expect(
        200, await rig.max.call("PATCH", "/v1/agents/helper", json={"metadata": {"b": 1}}, headers=headers)
    )
    read = await rig.max.send("helper")
    bodyless = await rig.max.call("POST", f"/v1/messages/{read['id']}/read", headers=headers)

    assert changed["body_received"] == {"metadata": {"b": 1}}
    assert changed["body_received_sha256"] == hashlib.sha256(b'{"metadata":{"b":1}}').hexdigest()
    assert expect(200, bodyless)["body_received"] is None
    assert "body_received" not in read
