"""What happens when a deadline passes, in every state, and what does not happen before."""

from datetime import datetime, timedelta

import pytest

from contracts.events import AttemptFailed, Ended, Event, FellBack
from contracts.words import OPEN_STATES, TERMINAL_STATES, Channel, Gate, Reason, State, Verdict
from router.deadlines import Failure, close_window, failed_attempt, on_deadline
from router.execution import Execution, apply
from tests.builders import (
    BG,
    FALLBACK,
    INBOX,
    LEASE_S,
    LIVE,
    NOW,
    OUTCOME_S,
    SEND_S,
    TTL_S,
    WAYS,
    WEBHOOK,
    WINDOW_S,
    accepted,
    after,
    again,
    agent,
    attempt_failed,
    claimed,
    decision,
    execution,
    execution_in,
    fell_back,
    leased,
    question,
    reachable,
    replayed,
)

TICK = timedelta(microseconds=1)
DICE = 0.0
WAITS_AGAIN = decision(LIVE, LIVE)


def due(of: Execution, now: datetime | None = None) -> Event | None:
    """The event that is due at `now`, by default an instant after the deadline."""
    assert of.due_at is not None
    return on_deadline(of, question(agent(LIVE, BG, INBOX)), now or of.due_at + TICK, DICE, "router-1")


def ending(event: Event | None) -> tuple[State, Reason]:
    assert isinstance(event, Ended), event
    return event.state, event.reason


def failing(of: Execution, failure: Failure) -> AttemptFailed | Ended:
    return failed_attempt(of, failure, after(10), DICE, "key:key_max")


@pytest.mark.parametrize("state", sorted(OPEN_STATES))
def test_nothing_happens_before_the_deadline_nor_at_its_very_instant(state: State) -> None:
    standing = execution_in(state)
    assert standing.due_at is not None
    assert due(standing, standing.due_at - TICK) is None
    assert due(standing, standing.due_at) is None


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_nothing_is_ever_due_once_a_message_has_ended(state: State) -> None:
    standing = execution_in(state)
    assert standing.due_at is None
    assert on_deadline(standing, None, after(10**8), DICE, "router-1") is None


@pytest.mark.parametrize("state", sorted(OPEN_STATES - {State.SCHEDULED}))
def test_what_is_due_is_legal_and_moves_the_message(state: State) -> None:
    standing = execution_in(state)
    event = due(standing)
    assert event is not None
    assert apply(standing, event).state is not state


class TestScheduled:
    def test_its_deadline_is_the_instant_it_is_to_be_sent_at(self) -> None:
        assert execution_in(State.SCHEDULED).due_at == after(SEND_S)

    @pytest.mark.parametrize("late_s", [1, TTL_S])
    def test_when_its_time_has_come_it_is_left_to_be_routed_and_does_not_end(self, late_s: float) -> None:
        assert due(execution_in(State.SCHEDULED), after(SEND_S + late_s)) is None

    def test_one_that_was_not_routed_in_all_its_time_expires(self) -> None:
        event = due(execution_in(State.SCHEDULED), after(SEND_S + TTL_S) + TICK)
        assert ending(event) == (State.EXPIRED, Reason.TTL_PASSED)


class TestReplays:
    def test_a_replay_has_deadlines_of_its_own(self) -> None:
        again_s = 10 * TTL_S
        late = execution(*WAYS[State.EXPIRED], replayed(decision(LIVE, FALLBACK), again_s))
        assert (late.due_at, late.expires_at) == (after(again_s + WINDOW_S), after(again_s + TTL_S))
        event = due(late)
        assert isinstance(event, FellBack)
        assert event.execution == 2
        assert apply(late, event).due_at == after(again_s + TTL_S)

    def test_it_may_fail_as_often_as_the_first_execution_might(self) -> None:
        tried = execution(*WAYS[State.BG_EXHAUSTED], replayed(), *again(leased(1, 10)))
        event = failing(tried, Failure(reason=Reason.ATTEMPT_FAILED))
        assert isinstance(event, AttemptFailed)
        assert (event.number, event.execution) == (1, 2)


class TestTheClaimWindow:
    def test_when_nobody_claims_the_next_step_of_the_plan_is_taken(self) -> None:
        event = due(execution_in(State.OFFERED))
        assert isinstance(event, FellBack)
        assert (event.step, event.max_attempts) == (FALLBACK, 3)

    def test_the_trace_goes_on_with_the_closed_window_and_the_gates_as_they_are_now(self) -> None:
        event = due(execution_in(State.OFFERED))
        assert isinstance(event, FellBack)
        gates = [(each.gate, each.verdict) for each in event.trace]
        assert gates == [
            (Gate.CLAIM_WINDOW, Verdict.FAIL),
            (Gate.CAPABILITY, Verdict.PASS),
            (Gate.HOST_FRESH, Verdict.PASS),
        ]
        assert event.trace[0].facts == {"claim_before": "2026-03-04T05:06:37.890Z"}

    def test_without_the_agent_there_are_no_gates_to_ask_and_the_fallback_goes_on(self) -> None:
        event = close_window(execution_in(State.OFFERED), None, after(31), "router-1")
        assert isinstance(event, FellBack)
        assert [each.gate for each in event.trace] == [Gate.CLAIM_WINDOW]

    def test_with_nothing_left_in_the_plan_it_ends_and_says_that_there_was_no_fallback(self) -> None:
        event = due(execution(accepted(LIVE)))
        assert ending(event) == (State.LIVE_UNCLAIMED_NO_FALLBACK, Reason.CLAIM_WINDOW_CLOSED)
        assert isinstance(event, Ended)
        assert [each.reason for each in event.trace] == [Reason.CLAIM_WINDOW_CLOSED, Reason.FALLBACK_DISABLED]

    def test_a_message_for_live_only_waits_for_the_next_session(self) -> None:
        offer = execution(accepted(WAITS_AGAIN))
        event = due(offer)
        assert isinstance(event, FellBack)
        waiting = apply(offer, event)
        assert (waiting.state, waiting.plan) == (State.WAITING, WAITS_AGAIN.steps[1:])

    def test_a_claim_replaces_the_window_by_the_deadline_of_its_outcome(self) -> None:
        won = execution_in(State.CLAIMED)
        assert due(won, after(WINDOW_S + 1)) is None
        assert won.due_at == after(2 + OUTCOME_S)
        assert ending(due(won)) == (State.OUTCOME_MISSING, Reason.OUTCOME_DEADLINE_PASSED)


class TestLeases:
    def test_a_lease_that_ran_out_is_a_failed_attempt(self) -> None:
        event = due(execution_in(State.LEASED))
        assert isinstance(event, AttemptFailed)
        assert (event.number, event.reason) == (1, Reason.LEASE_EXPIRED)
        assert event.retry_at == event.at + timedelta(seconds=1)

    def test_the_last_lease_that_runs_out_ends_the_message(self) -> None:
        event = due(execution_in(State.LEASED, max_attempts=1))
        assert ending(event) == (State.BG_EXHAUSTED, Reason.ATTEMPTS_EXHAUSTED)
        assert isinstance(event, Ended)
        assert event.detail == "lease_expired"

    def test_a_webhook_lease_that_ran_out_is_retried_on_the_webhook_ladder(self) -> None:
        event = due(execution(accepted(WEBHOOK), leased()))
        assert isinstance(event, AttemptFailed)
        assert event.retry_at == event.at + timedelta(seconds=5)

    def test_the_time_to_live_does_not_cut_a_lease_short(self) -> None:
        working = execution(accepted(BG, ttl_s=10), leased())
        assert working.due_at == after(3 + LEASE_S)


class TestFailedAttempts:
    def test_the_pause_grows_with_every_failure(self) -> None:
        first = execution_in(State.LEASED)
        second = apply(apply(first, attempt_failed()), leased(2, 8))
        pauses = []
        for each in (first, second):
            event = failing(each, Failure(reason=Reason.ATTEMPT_FAILED))
            assert isinstance(event, AttemptFailed)
            pauses.append((event.number, (event.retry_at - event.at).total_seconds()))
        assert pauses == [(1, 1), (2, 10)]

    def test_the_last_attempt_ends_the_message_with_the_workers_words(self) -> None:
        last = execution_in(State.LEASED, failed_attempts=2, max_attempts=3)
        event = failing(last, Failure(reason=Reason.ATTEMPT_FAILED, detail="exit 1"))
        assert ending(event) == (State.BG_EXHAUSTED, Reason.ATTEMPTS_EXHAUSTED)
        assert isinstance(event, Ended)
        assert event.detail == "exit 1"

    def test_a_receiver_that_is_gone_ends_the_message_at_the_first_attempt(self) -> None:
        working = execution(accepted(WEBHOOK), leased())
        gone = Failure(reason=Reason.RECEIVER_GONE, http_status=410, latency_ms=12, is_final=True)
        event = failing(working, gone)
        assert ending(event) == (State.WEBHOOK_EXHAUSTED, Reason.RECEIVER_GONE)
        assert isinstance(event, Ended)
        assert (event.http_status, event.latency_ms) == (410, 12)

    def test_a_receivers_retry_after_is_honoured(self) -> None:
        working = execution(accepted(WEBHOOK), leased())
        event = failing(working, Failure(reason=Reason.ATTEMPT_FAILED, http_status=429, asked_s=77))
        assert isinstance(event, AttemptFailed)
        assert (event.retry_at - event.at, event.http_status) == (timedelta(seconds=77), 429)


class TestTheTimeToLive:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (State.WAITING, State.EXPIRED),
            (State.QUEUED, State.EXPIRED),
            (State.IN_INBOX, State.EXPIRED_UNREAD),
            (State.INBOX_DELIVERED, State.EXPIRED_UNREAD),
            (State.INBOX_READ, State.EXPIRED),
        ],
    )
    def test_each_state_has_its_end(self, state: State, expected: State) -> None:
        standing = execution_in(state)
        assert standing.due_at == after(TTL_S)
        assert ending(due(standing)) == (expected, Reason.TTL_PASSED)

    @pytest.mark.parametrize(("channel", "expected"), [(BG, State.BG_EXHAUSTED), (WEBHOOK, State.WEBHOOK_EXHAUSTED)])
    def test_a_message_whose_attempts_failed_until_its_time_was_up_is_exhausted(
        self, channel: Channel, expected: State
    ) -> None:
        tried = execution(accepted(channel), leased(), attempt_failed())
        assert ending(due(tried, after(TTL_S + 1))) == (expected, Reason.TTL_PASSED)

    def test_a_webhook_nobody_tried_expires(self) -> None:
        assert ending(due(execution(accepted(WEBHOOK)), after(TTL_S + 1))) == (State.EXPIRED, Reason.TTL_PASSED)

    def test_a_webhook_whose_attempt_is_due_is_left_to_the_sender_of_webhooks(self) -> None:
        waiting = execution(accepted(WEBHOOK), leased(), attempt_failed(pause_s=300))
        assert waiting.due_at == after(305)
        assert due(waiting, after(306)) is None

    def test_a_webhook_retry_beyond_the_end_is_not_waited_for(self) -> None:
        waiting = execution(accepted(WEBHOOK, ttl_s=100), leased(), attempt_failed(pause_s=300))
        assert waiting.due_at == after(100)
        assert ending(due(waiting))[0] is State.WEBHOOK_EXHAUSTED

    def test_a_message_that_fell_back_after_its_time_ends_as_soon_as_it_is_looked_at_again(self) -> None:
        late = execution(accepted(decision(LIVE, FALLBACK), ttl_s=10), fell_back())
        assert ending(due(late, after(32))) == (State.EXPIRED, Reason.TTL_PASSED)


def test_an_offer_whose_window_nobody_wrote_down_still_ends_with_the_message() -> None:
    offer = execution(accepted(LIVE, claim_before=None))
    assert offer.due_at == after(TTL_S)
    assert ending(due(offer))[0] is State.LIVE_UNCLAIMED_NO_FALLBACK


def test_a_deadline_acts_in_the_name_of_its_router_at_its_own_instant() -> None:
    event = due(execution_in(State.CLAIMED), after(5_000))
    assert event is not None
    assert (event.by, event.at, event.execution) == ("router-1", after(5_000), 1)


def test_a_host_that_fell_silent_is_named_when_the_message_falls_back_to_it() -> None:
    q = question(agent(LIVE, BG), reachable(host_age_s=None), now=NOW)
    event = on_deadline(execution_in(State.OFFERED), q, after(31), DICE, "router-1")
    assert isinstance(event, FellBack)
    assert event.trace[-1].reason is Reason.HOST_NEVER_SEEN


def test_a_claim_of_yesterday_does_not_hide_the_deadline_of_its_outcome() -> None:
    won = execution(accepted(LIVE), claimed(at_s=29))
    assert won.due_at == after(29 + OUTCOME_S)
