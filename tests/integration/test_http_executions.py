"""Claims, leases, outcomes and the inbox over HTTP: one winner each, and repeats that change nothing."""

from collections.abc import AsyncIterator

import anyio
import pytest

from infra.embedded import NatsEndpoint, RedisEndpoint
from tests.http_rig import Json, Rig, code_of, running_rig


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix) as running:
        await running.max.agent("mac", "live", "bg", "inbox", preferred_contact="live")
        yield running


async def test_a_live_offer_is_claimed_attested_and_finished(rig: Rig) -> None:
    session = await rig.max.session("mac")
    sent = await rig.max.send("mac")
    path = f"/v1/executions/{sent['execution_id']}"
    proof = {"session_token": session["session_token"], "exec_id": sent["execution_id"]}

    claimed = await rig.max.post(f"{path}/live-claim", proof)
    again = await rig.max.post(f"{path}/live-claim", proof)
    done = await rig.max.post(f"{path}/outcome", {"success": True, "result": {"a": [1]}, "executed_via": "live"})
    repeated = await rig.max.post(f"{path}/outcome", {"success": True, "result": {"a": [1]}, "executed_via": "live"})
    other = await rig.max.call("POST", f"{path}/outcome", json={"success": False})

    assert (claimed["claimed"], claimed["level"], claimed["message"]["message"]) == (True, "token", "Are you there?")
    assert again["claimed_at"] == claimed["claimed_at"]
    assert claimed["outcome_before"] > claimed["claimed_at"]
    assert done["delivery_route"] == "live"
    assert repeated["outcome"] == done["outcome"]
    assert (other.status_code, code_of(other)) == (409, "outcome_conflict")
    history = (await rig.max.get(path))["events"]
    assert [event["type"] for event in history] == ["accepted", "claimed", "outcome_recorded"]


@pytest.mark.parametrize("proof", [{}, {"session_token": ""}, {"session_token": "x"}, {"session_token": "x" * 100}])
async def test_every_wrong_token_is_refused_alike(rig: Rig, proof: Json) -> None:
    await rig.max.session("mac")
    sent = await rig.max.send("mac")

    answer = await rig.max.call("POST", f"/v1/executions/{sent['execution_id']}/live-claim", json=proof)

    assert (answer.status_code, code_of(answer)) == (403, "invalid_session_token")


async def test_the_nonce_of_the_poll_opens_an_offer_that_needs_one(rig: Rig) -> None:
    session = await rig.max.session("mac", attestation="token+nonce")
    sent = await rig.max.send("mac")
    path = f"/v1/executions/{sent['execution_id']}/live-claim"

    without = await rig.max.call("POST", path, json={"session_token": session["session_token"]})
    [offer] = (await rig.max.get("/v1/executions/claimable", agent="mac"))["executions"]
    claimed = await rig.max.post(path, {"session_token": session["session_token"], "nonce": offer["nonce"]})

    assert (without.status_code, code_of(without)) == (403, "push_proof_missing")
    assert (offer["channel"], offer["claim_before"]) == ("live", sent["deadline_at"])
    assert claimed["level"] == "token+nonce"


async def test_a_background_execution_is_leased_extended_released_and_leased_again(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    path = f"/v1/executions/{sent['execution_id']}"

    leased = await rig.max.post(f"{path}/claim", {"worker_id": "w1", "lease_s": 60})
    loser = await rig.max.call("POST", f"{path}/claim", json={"worker_id": "w2"})
    extended = await rig.max.post(f"{path}/heartbeat", {"lease": 1, "lease_s": 900})
    released = await rig.max.post(f"{path}/release", {"lease": 1, "reason": "exit_code", "detail": "127"})
    stale = await rig.max.call("POST", f"{path}/heartbeat", json={"lease": 1})
    early = await rig.max.call("POST", f"{path}/claim", json={"worker_id": "w2"})

    assert (leased["claimed"], leased["lease"]["number"], leased["attempt"]) == (True, 1, 1)
    assert (loser.status_code, code_of(loser)) == (409, "already_claimed")
    assert extended["lease"]["expires_at"] > leased["lease"]["expires_at"]
    assert (released["state"], released["attempts"], released["lease"]) == ("queued", 1, None)
    assert (stale.status_code, code_of(stale)) == (409, "stale_lease")
    assert (early.status_code, code_of(early)) == (409, "not_due")


async def test_the_next_waiting_execution_goes_to_one_worker_each(rig: Rig) -> None:
    sent = [await rig.max.send("mac", f"n{number}", delivery_mode="bg") for number in range(3)]
    leased: list[str] = []

    async def work(number: int) -> None:
        answer = await rig.max.post("/v1/executions/claim", {"agent": "mac", "worker_id": f"w{number}"})
        leased.append(answer["message_id"] if answer["claimed"] else "nothing")

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(work, number)

    assert sorted(leased) == sorted([each["id"] for each in sent] + ["nothing"])


async def test_what_waits_longest_is_leased_first(rig: Rig) -> None:
    sent = [await rig.max.send("mac", f"n{number}", delivery_mode="bg") for number in range(2)]

    first = await rig.max.post("/v1/executions/claim", {"agent": "mac", "worker_id": "w"})

    assert first["message_id"] == sent[0]["id"]


async def test_the_outcome_of_a_lease_needs_its_number(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="bg")
    path = f"/v1/executions/{sent['execution_id']}"
    await rig.max.post(f"{path}/claim", {"worker_id": "w1", "lease_s": 60})

    without = await rig.max.call("POST", f"{path}/outcome", json={"success": True})
    done = await rig.max.post(f"{path}/outcome", {"success": True, "lease": 1, "executed_via": "live"})

    assert (without.status_code, code_of(without)) == (409, "stale_lease")
    assert done["delivery_route"] == "live_unverified"


async def test_an_inbox_is_handed_out_read_and_acknowledged(rig: Rig) -> None:
    sent = [await rig.max.send("mac", f"n{number}", delivery_mode="inbox") for number in range(3)]
    inbox = "/v1/agents/mac/inbox"

    polled = await rig.max.get(inbox, limit=2)
    assert [each["id"] for each in polled["messages"]] == [each["id"] for each in sent[:2]]
    assert {each["state"] for each in polled["messages"]} == {"inbox_delivered"}
    assert "trace" not in polled["messages"][0]
    rest = await rig.max.get(inbox, limit=2, cursor=polled["next_cursor"])
    assert [each["id"] for each in rest["messages"]] == [sent[2]["id"]]

    read = await rig.max.post(f"/v1/messages/{sent[0]['id']}/read")
    acked = await rig.max.post(f"/v1/messages/{sent[0]['id']}/ack")
    late = await rig.max.call("POST", f"/v1/messages/{sent[0]['id']}/read")

    assert (read["state"], acked["state"], acked["delivery_route"]) == ("inbox_read", "delivered", "inbox")
    assert (late.status_code, code_of(late)) == (409, "invalid_state_transition")
    assert await rig.max.get(inbox, count_only="true") == {"count": 2}
    assert await rig.max.get(inbox, count_only="true", state="acked") == {"count": 1}
    assert await rig.max.get(inbox, count_only="true", state="queued") == {"count": 0}


async def test_metadata_that_looks_like_a_state_changes_nothing(rig: Rig) -> None:
    sent = await rig.max.send("mac", delivery_mode="inbox", metadata={"state": "in_inbox"})

    for _ in range(2):
        [polled] = (await rig.max.get("/v1/agents/mac/inbox"))["messages"]
        assert (polled["id"], polled["state"]) == (sent["id"], "inbox_delivered")


async def test_a_long_poll_is_answered_when_something_arrives_and_empty_when_not(rig: Rig) -> None:
    answers = []

    async def poll() -> None:
        answers.append(await rig.max.get("/v1/agents/mac/inbox", wait_s=20))

    assert (await rig.max.get("/v1/agents/mac/inbox", wait_s=0.1))["messages"] == []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll)
        sent = await rig.max.send("mac", delivery_mode="inbox")

    assert [each["id"] for each in answers[0]["messages"]] == [sent["id"]]


async def test_lists_are_filtered_and_paged(rig: Rig) -> None:
    for number in range(3):
        await rig.max.send("mac", f"n{number}", delivery_mode="inbox" if number else "bg")

    inbox = await rig.max.get("/v1/executions", channel="inbox", state="in_inbox,inbox_read")
    first = await rig.max.get("/v1/executions", limit=2, agent="mac")
    rest = await rig.max.get("/v1/executions", limit=2, agent="mac", cursor=first["next_cursor"])

    assert [each["message"] for each in inbox["executions"]] == ["n2", "n1"]
    assert [each["message"] for each in first["executions"] + rest["executions"]] == ["n2", "n1", "n0"]
