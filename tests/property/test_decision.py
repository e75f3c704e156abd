"""Of every decision, whatever the facts: there is one, it is explained, and it keeps to what the agent declares."""

import copy

from hypothesis import given

from contracts.records import Agent, GateResult, Reachability, Wish
from contracts.words import OPEN_STATES, Channel, EffectiveMode, FallbackMode, Gate, Reason, State, Verdict
from router.decision import decide, first_state, reachability_matters
from router.explain import decision_view
from router.gates import Question
from tests.builders import NOW
from tests.property.strategies import agents, questions, reachabilities, wishes

ENDINGS = {State.REJECTED, State.LIVE_UNCLAIMED_STALE_HEARTBEAT, State.LIVE_UNCLAIMED_NO_SESSION}
FALLBACK_REASONS = {Reason.FALLBACK_DISABLED, Reason.FALLBACK_NOT_DECLARED}


def failed(trace: tuple[GateResult, ...]) -> list[GateResult]:
    return [each for each in trace if each.verdict is Verdict.FAIL]


@given(wishes, questions)
def test_there_is_always_an_answer_and_it_is_steps_or_an_ending(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    assert bool(decision.steps) != (decision.ending is not None)
    assert decision.ending in {None, *ENDINGS}
    assert (first_state(decision) in OPEN_STATES) == bool(decision.steps)


@given(wishes, questions)
def test_the_same_question_has_the_same_answer(wish: Wish, q: Question) -> None:
    assert decide(wish, q) == decide(copy.deepcopy(wish), copy.deepcopy(q))


@given(wishes, questions)
def test_every_step_is_a_channel_the_agent_declares(wish: Wish, q: Question) -> None:
    assert {step.channel for step in decide(wish, q).steps} <= set(q.recipient.delivery_capabilities)


@given(wishes, questions)
def test_a_forced_channel_is_taken_or_left_for_bg_and_for_nothing_else(wish: Wish, q: Question) -> None:
    steps = decide(wish, q).steps
    if wish.channel is not None and steps:
        allowed = {wish.channel} | ({Channel.BG} if wish.channel is Channel.LIVE else set())
        assert {step.channel for step in steps} <= allowed


@given(wishes, questions)
def test_a_step_is_first_only_if_no_gate_before_it_failed(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    if decision.steps and not decision.waits:
        chosen = decision.steps[0].channel
        assert all(each.channel is not chosen for each in failed(decision.trace))
        assert decision.trace[-1].channel is chosen


@given(wishes, questions)
def test_an_ending_is_explained_by_the_last_gate_that_failed(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    if decision.ending is None:
        return
    *before, last = failed(decision.trace)
    assert last is decision.trace[-1]
    if last.gate is Gate.FALLBACK:
        # The fallback says why nothing follows; the live gate before it says why live did not do.
        assert last.reason in FALLBACK_REASONS
        live = [each for each in before if each.channel is Channel.LIVE]
        assert decision.reason is live[-1].reason
    else:
        assert decision.reason is last.reason


@given(wishes, questions)
def test_an_agent_with_an_inbox_refuses_no_automatic_message(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    inactive = decision.reason is Reason.AGENT_INACTIVE
    if Channel.INBOX in q.recipient.delivery_capabilities and not inactive and wish.channel in (None, Channel.INBOX):
        assert decision.steps


@given(wishes, questions)
def test_silence_of_the_host_refuses_nothing(wish: Wish, q: Question) -> None:
    assert not [each for each in failed(decide(wish, q).trace) if each.gate is Gate.HOST_FRESH]


@given(wishes, questions)
def test_only_a_live_offer_has_something_after_it(wish: Wish, q: Question) -> None:
    steps = decide(wish, q).steps
    assert len(steps) <= 1 or steps[0].channel is Channel.LIVE
    assert len(steps) <= 2


@given(wishes, questions)
def test_background_fallback_names_a_detour_from_live_and_nothing_else(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    for index, step in enumerate(decision.steps):
        if step.mode is EffectiveMode.BACKGROUND_FALLBACK:
            assert step.channel is Channel.BG
            assert index == 1 or [each for each in failed(decision.trace) if each.channel is Channel.LIVE]
        else:
            assert step.mode.value == step.channel.value


@given(wishes, questions)
def test_only_a_message_for_live_only_waits_and_it_keeps_to_live(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    if decision.waits:
        assert wish.fallback is FallbackMode.LIVE_ONLY
        assert {step.channel for step in decision.steps} == {Channel.LIVE}


@given(wishes, agents, reachabilities, reachabilities)
def test_where_heartbeats_do_not_matter_they_change_nothing(
    wish: Wish, recipient: Agent, one: Reachability, other: Reachability
) -> None:
    if not reachability_matters(wish, recipient):
        answers = [decide(wish, Question(recipient=recipient, reach=reach, now=NOW)) for reach in (one, other)]
        assert answers[0] == answers[1]


@given(wishes, questions)
def test_what_a_dry_run_shows_is_what_would_be_done(wish: Wish, q: Question) -> None:
    decision = decide(wish, q)
    shown = decision_view(decision)
    assert shown["state"] == first_state(decision).value
    assert shown["plan"] == [{"channel": step.channel.value, "mode": step.mode.value} for step in decision.steps]
    assert len(shown["trace"]) == len(decision.trace)
