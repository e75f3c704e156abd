"""An agent's webhook over HTTP: rotation with an overlap, tests of the receiver, health, and the log of attempts."""

from collections.abc import AsyncIterator

import anyio
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from contracts.directory import agent_key
from contracts.records import Agent, WebhookAnswer
from contracts.words import Reason
from infra.directory_store import DirectoryReader
from infra.embedded import NatsEndpoint, RedisEndpoint
from router.deadlines import Failure
from tests.event_rig import events_until
from tests.http_rig import Json, Rig, code_of, running_rig
from tests.webhook_receiver import Receiver, running_receiver
from tests.webhook_verifier import verifies

HOOK = "/v1/agents/hook/webhook"


@pytest.fixture
async def rig(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Rig]:
    async with running_rig(nats_server, redis_server, prefix, webhook_allow_loopback=True) as running:
        yield running


async def hooked(rig: Rig, receiver: Receiver) -> Json:
    return await rig.max.agent("hook", "webhook", webhook_url=receiver.url)


async def ping(rig: Rig) -> Json:
    return await rig.max.post(f"{HOOK}/test")


async def test_a_secret_is_shown_when_it_is_made_and_never_again(rig: Rig) -> None:
    with running_receiver() as receiver:
        agent = await hooked(rig, receiver)
    read = await rig.max.call("GET", "/v1/agents/hook/webhook-secret")
    texts = [(await rig.max.call("GET", path)).text for path in ("/v1/agents/hook", HOOK, "/v1/agents")]

    assert agent["webhook_secret"].startswith("whsec_")
    assert (read.status_code, code_of(read)) == (403, "secret_shown_once")
    assert not any(agent["webhook_secret"] in text for text in texts)


async def test_during_a_rotation_both_secrets_sign_and_a_receiver_may_hold_either(rig: Rig) -> None:
    with running_receiver() as receiver:
        old = (await hooked(rig, receiver))["webhook_secret"]
        rotated = await rig.max.post(f"{HOOK}/rotate", {"overlap_s": 3600})
        assert (await ping(rig))["delivered"]

    assert rotated["signature"] == "v1"
    assert rotated["previous_secret_until"] is not None
    for secret in (old, rotated["webhook_secret"]):
        Webhook(secret).verify(receiver.bodies[0], receiver.heard[0])
        assert verifies(secret, receiver.heard[0], receiver.bodies[0])


async def test_a_rotation_without_an_overlap_is_over_at_once(rig: Rig) -> None:
    with running_receiver() as receiver:
        old = (await hooked(rig, receiver))["webhook_secret"]
        rotated = await rig.max.post(f"{HOOK}/rotate", {"overlap_s": 0})
        await ping(rig)

    assert rotated["previous_secret_until"] is None
    assert verifies(rotated["webhook_secret"], receiver.heard[0], receiver.bodies[0])
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(receiver.bodies[0], receiver.heard[0])


async def test_an_overlap_ends_when_it_was_said_to(rig: Rig) -> None:
    with running_receiver() as receiver:
        old = (await hooked(rig, receiver))["webhook_secret"]
        await rig.max.post(f"{HOOK}/rotate", {"overlap_s": 1})
        with anyio.fail_after(10):
            while (await rig.max.get(HOOK))["previous_secret_until"] is not None:
                await anyio.sleep(0.05)
        await ping(rig)
    assert not verifies(old, receiver.heard[0], receiver.bodies[0])


async def test_an_asymmetric_endpoint_shows_its_public_key_and_never_the_other(rig: Rig) -> None:
    with running_receiver() as receiver:
        old = (await hooked(rig, receiver))["webhook_secret"]
        rotated = await rig.max.post(f"{HOOK}/rotate", {"signature": "v1a"})
        await ping(rig)
        again = await rig.max.post(f"{HOOK}/rotate")
        await ping(rig)

    assert (rotated["signature"], rotated["webhook_secret"]) == ("v1a", None)
    assert (again["signature"], again["public_key"] != rotated["public_key"]) == ("v1a", True)
    keys = (old, rotated["public_key"], again["public_key"])
    signed = [[verifies(key, *each) for key in keys] for each in zip(receiver.heard, receiver.bodies, strict=True)]
    # The two newest keys sign, the one before them does not any more.
    assert signed == [[True, True, False], [False, True, True]]
    assert "whsk_" not in (await rig.max.call("GET", HOOK)).text


async def test_a_secret_renewed_the_peers_way_is_the_only_one(rig: Rig) -> None:
    with running_receiver() as receiver:
        await hooked(rig, receiver)
        await rig.max.post(f"{HOOK}/rotate", {"signature": "v1a"})
        renewed = await rig.max.post(
            "/v1/agents/hook/webhook-secret/regenerate", headers={"X-Confirm-Destructive": "true"}
        )
        await ping(rig)
    assert receiver.heard[0]["webhook-signature"].count(",") == 1
    Webhook(renewed["webhook_secret"]).verify(receiver.bodies[0], receiver.heard[0])


async def test_a_test_tells_what_the_receiver_said_and_changes_nothing(rig: Rig) -> None:
    with running_receiver() as receiver:
        await hooked(rig, receiver)
        receiver.status = 503
        told = await ping(rig)
        health = await rig.max.get(HOOK)
    nobody = await ping(rig)

    assert (told["delivered"], told["status"], told["error"]) == (False, 503, None)
    assert receiver.heard[0]["webhook-id"] == told["webhook_id"]
    assert (health["failing_since"], health["disabled_at"]) == (None, None)
    assert (nobody["delivered"], nobody["status"], nobody["error"]) == (False, None, "connect_failed")


async def test_tests_are_rationed(rig: Rig) -> None:
    with running_receiver() as receiver:
        await hooked(rig, receiver)
        answers = [await rig.max.call("POST", f"{HOOK}/test") for _ in range(12)]
    assert {each.status_code for each in answers[:10]} == {200}
    assert answers[-1].status_code == 429
    assert "retry-after" in answers[-1].headers


async def test_a_disabled_receiver_is_enabled_by_its_owner(rig: Rig) -> None:
    with running_receiver() as receiver:
        made = await hooked(rig, receiver)
    reader = DirectoryReader(rig.gateway.parts.store)  # type: ignore[arg-type]
    agent = await reader.agent(made["id"])
    assert agent is not None
    await reader.disable_webhook(agent, rig.gateway.parts.clock.now(), Reason.RECEIVER_GONE.value)

    disabled = await rig.max.get(HOOK)
    refused = await rig.max.call("POST", "/v1/messages", json={"to": "hook", "message": "x"})
    enabled = await rig.max.post(f"{HOOK}/enable")
    sent = await rig.max.send("hook")

    assert (disabled["disabled_reason"], disabled["disabled_at"] is None) == ("receiver_gone", False)
    assert refused.status_code == 422
    assert (enabled["disabled_at"], enabled["disabled_reason"]) == (None, None)
    assert sent["effective_delivery_mode"] == "webhook"
    assert [each["type"] for each in await events_until(rig.max, 1, type="webhook.enabled")] == ["webhook.enabled"]


async def test_the_attempts_are_told_to_both_sides_and_the_answers_to_the_receivers_alone(rig: Rig) -> None:
    with running_receiver() as receiver:
        made = await rig.max.agent("hook", "webhook", webhook_url=receiver.url, external_addressable=True)
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    sent = await rig.eve.send("hook@max")
    service = rig.gateway.parts.service
    ulid = sent["id"].removeprefix("msg_")
    leased = await service.lease_webhook(ulid, holder="router:test", lease_s=25)
    assert leased is not None
    answer = WebhookAnswer(status=500, latency_ms=7, error="http_500", response="out of order")
    failure = Failure(reason=Reason.ATTEMPT_FAILED, http_status=500, answer=answer)
    await service.settle_webhook(leased, failure, by="router:test")

    path = f"/v1/executions/{sent['execution_id']}/attempts"
    [own] = (await rig.max.get(path))["attempts"]
    [foreign] = (await rig.eve.get(path))["attempts"]
    history = await rig.eve.call("GET", f"/v1/executions/{sent['execution_id']}")

    assert (own["status"], own["latency_ms"], own["error"], own["response"]) == (500, 7, "http_500", "out of order")
    assert foreign == {**own, "response": None}
    assert "out of order" not in history.text
    assert made["id"] in history.text


async def test_a_webhook_may_be_fetched_as_it_is_posted_by_its_receivers_side_alone(rig: Rig) -> None:
    with running_receiver() as receiver:
        made = await rig.max.agent("hook", "webhook", "inbox", webhook_url=receiver.url, external_addressable=True)
    await rig.max.post("/v1/grants", {"owner": "eve"}, status=201)
    sent = await rig.eve.send("hook@max", delivery_mode="webhook", message="grüße")

    fetched = await rig.max.get(f"/v1/executions/{sent['id']}/webhook")
    foreign = await rig.eve.call("GET", f"/v1/executions/{sent['execution_id']}/webhook")
    other = await rig.max.send("hook", delivery_mode="inbox")
    not_one = await rig.max.call("GET", f"/v1/executions/{other['execution_id']}/webhook")

    verified = Webhook(made["webhook_secret"]).verify(fetched["body"], fetched["headers"])
    assert (verified["data"]["id"], verified["data"]["message"]) == (sent["id"], "grüße")
    assert (foreign.status_code, code_of(foreign)) == (404, "execution_not_found")
    assert (not_one.status_code, code_of(not_one)) == (409, "not_a_webhook")


async def test_how_fast_a_receiver_may_be_posted_to_is_its_owners_to_say(rig: Rig) -> None:
    with running_receiver() as receiver:
        await hooked(rig, receiver)
    assert (await rig.max.patch(HOOK, {"per_s": 2.5}))["per_s"] == 2.5
    changed = await rig.max.patch(HOOK, {"max_in_flight": 1})
    assert (changed["max_in_flight"], changed["per_s"]) == (1, 2.5)
    assert (await rig.max.patch(HOOK, {"per_s": None}))["per_s"] is None
    for wrong in ({"max_in_flight": 0}, {"max_in_flight": 33}, {"per_s": 0}, {"secret": "x"}):
        assert (await rig.max.call("PATCH", HOOK, json=wrong)).status_code in (400, 422)


async def test_a_deleted_agent_leaves_no_secret_behind(rig: Rig) -> None:
    with running_receiver() as receiver:
        made = await hooked(rig, receiver)
        await rig.max.post(f"{HOOK}/rotate")
    await rig.max.delete("/v1/agents/hook", status=204)
    found = await rig.gateway.parts.store.get(agent_key(made["id"]), Agent, fresh=True)
    assert found is not None
    assert (found.record.webhook_secret, found.record.webhook_old_secret) == (None, None)
