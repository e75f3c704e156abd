"""What a recorded outcome is worth, on real servers: evidence, the sender's verification mode, and who verifies."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from contracts.records import JsonObject, Principal
from contracts.words import Channel, OutcomeState, State, VerificationMode
from infra.embedded import NatsEndpoint, RedisEndpoint
from router.explain import event_views
from router.service import Report
from tests.installation import MAX, Installation, installation
from tests.later import all_of, assert_in_order, ended, execution_id, read, refusal, replay, send_later, worked

BG = Channel.BG
EVE = Principal(owner="eve", key_id="keyofeve0001")
NONE, MANUAL = VerificationMode.NONE, VerificationMode.MANUAL
EXTERNAL_ID, ARTIFACTS = VerificationMode.REQUIRE_EXTERNAL_ID, VerificationMode.REQUIRE_ARTIFACTS
RESULT_URL = VerificationMode.REQUIRE_RESULT_URL
WORTH: list[tuple[VerificationMode, JsonObject, str]] = [
    (NONE, {}, "reported_success"),
    (NONE, {"external_id": "pr-7"}, "reported_success"),
    (MANUAL, {"external_id": "pr-7"}, "verification_pending"),
    (EXTERNAL_ID, {"external_id": "pr-7"}, "verified_success"),
    (EXTERNAL_ID, {"result_url": "https://example.org/7"}, "verification_failed"),
    (EXTERNAL_ID, {"external_id": ""}, "verification_failed"),
    (RESULT_URL, {"result_url": "https://example.org/7"}, "verified_success"),
    (RESULT_URL, {}, "verification_failed"),
    (ARTIFACTS, {"artifacts": [{"name": "a.txt"}]}, "verified_success"),
    (ARTIFACTS, {"artifacts": []}, "verification_failed"),
]


@pytest.fixture
async def post(nats_server: NatsEndpoint, redis_server: RedisEndpoint, prefix: str) -> AsyncIterator[Installation]:
    async with installation(nats_server.url, redis_server.url, prefix) as built:
        yield built


async def test_what_a_success_is_worth_depends_on_what_the_sender_asked_for_and_on_the_evidence(
    post: Installation,
) -> None:
    for mode, evidence, expected in WORTH:
        over = await ended(post, mode, evidence=evidence)
        seen = over.view["outcome"]
        assert (mode, seen["evidence"], seen["state"]) == (mode, evidence, expected)


async def test_a_failure_is_a_reported_failure_whatever_was_asked_for(post: Installation) -> None:
    for mode in VerificationMode:
        over = await ended(post, mode, success=False, evidence={"external_id": "pr-7", "artifacts": [1]})
        assert over.execution.outcome_state is OutcomeState.REPORTED_FAILURE


async def test_an_acknowledgement_is_worth_what_the_sender_asked_for(post: Installation) -> None:
    agent = await post.agent(Channel.INBOX)
    for mode, expected in ((NONE, "reported_success"), (MANUAL, "verification_pending")):
        draft = await post.draft(agent)
        sent = await post.service.accept(replace(draft, wish=replace(draft.wish, verification=mode)))
        done = await post.service.acknowledge(sent.history.message.id, MAX)
        assert done.view["outcome"]["state"] == expected


async def test_evidence_that_comes_later_verifies_the_outcome_and_does_not_change_it(post: Installation) -> None:
    over = await ended(post, EXTERNAL_ID, result="merged", evidence={"summary": "s"})
    assert over.execution.outcome_state is OutcomeState.VERIFICATION_FAILED
    proven = await post.service.add_evidence(execution_id(over), {"external_id": "pr-7"}, MAX)
    assert proven.view["outcome"] == over.view["outcome"] | {
        "state": "verified_success",
        "evidence": {"summary": "s", "external_id": "pr-7"},
    }
    assert (proven.execution.state, proven.execution.ended_at) == (State.DELIVERED, over.execution.ended_at)
    assert_in_order(post, proven)


async def test_evidence_that_is_still_not_what_was_asked_for_verifies_nothing(post: Installation) -> None:
    over = await ended(post, EXTERNAL_ID)
    more = await post.service.add_evidence(execution_id(over), {"summary": "s"}, MAX)
    assert more.execution.outcome_state is OutcomeState.VERIFICATION_FAILED


async def test_what_is_verified_stays_verified_whatever_evidence_is_added(post: Installation) -> None:
    over = await ended(post, EXTERNAL_ID, evidence={"external_id": "pr-7"})
    more = await post.service.add_evidence(execution_id(over), {"external_id": ""}, MAX)
    assert more.execution.outcome_state is OutcomeState.VERIFIED_SUCCESS


async def test_the_outcome_reported_before_the_evidence_came_may_still_be_repeated(post: Installation) -> None:
    over = await ended(post, EXTERNAL_ID)
    name = execution_id(over)
    proven = await post.service.add_evidence(name, {"external_id": "pr-7"}, MAX)
    repeated = await post.service.report(name, Report(success=True, lease=1), MAX)
    assert repeated.replayed
    assert repeated.history == proven.history


@pytest.mark.parametrize(("valid", "expected"), [(True, "verified_success"), (False, "verification_failed")])
async def test_a_pending_outcome_is_verified_or_refuted_by_hand(post: Installation, valid: bool, expected: str) -> None:
    over = await ended(post, MANUAL)
    name = execution_id(over)
    said = await post.service.verify(name, valid=valid, reason="looked at it", principal=MAX)
    assert said.view["outcome"]["state"] == expected
    last = event_views(said.history)[-1]
    assert (last["type"], last["reason"], last["by"]) == ("verification_changed", "looked at it", f"key:{MAX.key_id}")
    again = await post.service.verify(name, valid=valid, reason=None, principal=MAX)
    assert again.history == said.history


async def test_a_reported_outcome_may_be_asked_to_be_verified(post: Installation) -> None:
    over = await ended(post)
    asked = await post.service.ask_for_verification(execution_id(over), MAX)
    assert asked.execution.outcome_state is OutcomeState.VERIFICATION_PENDING
    assert (await post.service.ask_for_verification(execution_id(over), MAX)).history == asked.history
    proven = await post.service.verify(execution_id(over), valid=True, reason=None, principal=MAX)
    assert proven.execution.outcome_state is OutcomeState.VERIFIED_SUCCESS


async def test_what_was_refuted_may_be_verified_after_all(post: Installation) -> None:
    name = execution_id(await ended(post, MANUAL))
    await post.service.verify(name, valid=False, reason=None, principal=MAX)
    proven = await post.service.verify(name, valid=True, reason=None, principal=MAX)
    assert proven.execution.outcome_state is OutcomeState.VERIFIED_SUCCESS


async def test_what_is_verified_is_settled(post: Installation) -> None:
    over = await ended(post, EXTERNAL_ID, evidence={"external_id": "pr-7"})
    name = execution_id(over)
    refuted = post.service.verify(name, valid=False, reason=None, principal=MAX)
    assert await refusal(refuted) == "invalid_state"
    assert await refusal(post.service.ask_for_verification(name, MAX)) == "invalid_state"
    assert (await post.message(over)).history == over.history


async def test_without_an_outcome_there_is_nothing_to_prove_or_verify(post: Installation) -> None:
    agent = await post.agent(BG)
    working, over = await post.send(agent, BG), await post.send(agent, BG)
    await post.service.lease(execution_id(working), holder="w", lease_s=60, principal=MAX)
    await post.service.cancel(over.history.message.id, MAX)
    for name in map(execution_id, (working, over, await send_later(post, agent, BG))):
        assert await refusal(post.service.add_evidence(name, {"external_id": "x"}, MAX)) == "no_outcome"
        assert await refusal(post.service.verify(name, valid=True, reason=None, principal=MAX)) == "no_outcome"
        assert await refusal(post.service.ask_for_verification(name, MAX)) == "no_outcome"


async def test_a_replay_is_verified_by_its_own_evidence(post: Installation) -> None:
    over = await ended(post, EXTERNAL_ID, evidence={"external_id": "pr-7"})
    again = await worked(post, await replay(post, over))
    assert again.execution.outcome_state is OutcomeState.VERIFICATION_FAILED
    assert again.execution.evidence == {}
    assert (await read(post, execution_id(over))).execution.outcome_state is OutcomeState.VERIFIED_SUCCESS


async def test_a_foreign_owner_can_neither_replay_nor_verify(post: Installation) -> None:
    over = await ended(post)
    name = execution_id(over)
    won, lost = await all_of(
        [
            lambda: post.service.replay(name, EVE),
            lambda: post.service.add_evidence(name, {}, EVE),
            lambda: post.service.verify(name, valid=True, reason=None, principal=EVE),
            lambda: post.service.ask_for_verification(name, EVE),
        ]
    )
    assert won == []
    assert {error.code for error in lost} == {"execution_not_found"}


async def test_what_somebody_refuted_is_not_mended_by_evidence(post: Installation) -> None:
    name = execution_id(await ended(post, EXTERNAL_ID, evidence={}))
    await post.service.verify(name, valid=False, reason="it is not", principal=MAX)
    after_all = await post.service.add_evidence(name, {"external_id": "x"}, MAX)
    assert after_all.execution.outcome_state is OutcomeState.VERIFICATION_FAILED
