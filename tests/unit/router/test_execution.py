"""The life of one execution, event by event, and what its table refuses."""

from dataclasses import replace

import pytest

from contracts.errors import IllegalEvent
from contracts.events import Event, Stored
from contracts.words import OPEN_STATES, TERMINAL_STATES, Channel, EffectiveMode, Reason, State
from router.execution import TABLE, apply, begin, fold, fold_events
from tests.builders import (
    BG,
    FALLBACK,
    INBOX,
    LIVE,
    NOW,
    TTL_S,
    WAYS,
    WEBHOOK,
    WINDOW_S,
    accepted,
    after,
    attempt_failed,
    claimed,
    decision,
    ended,
    execution,
    execution_in,
    extended,
    fell_back,
    history,
    leased,
    marked,
    offered,
    outcome_recorded,
    step,
)

EVENTS: tuple[Event, ...] = (
    accepted(),
    offered(),
    claimed(),
    fell_back(),
    leased(),
    extended(),
    attempt_failed(),
    marked(),
    outcome_recorded(),
    ended(),
)


class TestBeginnings:
    @pytest.mark.parametrize(
        ("channel", "state"),
        [(LIVE, State.OFFERED), (BG, State.QUEUED), (WEBHOOK, State.QUEUED), (INBOX, State.IN_INBOX)],
    )
    def test_an_execution_begins_in_the_first_state_of_its_channel(self, channel: Channel, state: State) -> None:
        begun = begin(accepted(channel))
        assert (begun.state, begun.channel, begun.mode) == (state, channel, EffectiveMode(channel.value))

    def test_only_an_offered_one_was_offered(self) -> None:
        assert begin(accepted(LIVE)).was_offered
        assert not begin(accepted(decision(LIVE, LIVE, waits=True))).was_offered

    def test_the_plan_holds_what_comes_after_the_first_step(self) -> None:
        assert begin(accepted(decision(LIVE, FALLBACK))).plan == (FALLBACK,)

    @pytest.mark.parametrize("state", [State.LIVE_UNCLAIMED_NO_SESSION, State.LIVE_UNCLAIMED_STALE_HEARTBEAT])
    def test_one_that_ends_at_once_has_used_no_mode(self, state: State) -> None:
        over = execution_in(state)
        assert (over.mode, over.ended_at, over.due_at) == (None, NOW, None)

    def test_a_history_begins_with_its_acceptance(self) -> None:
        with pytest.raises(IllegalEvent):
            fold_events([Stored(seq=1, event=leased())])


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_outside_the_row_of_its_state_is_refused_and_one_inside_is_taken(state: State, event: Event) -> None:
    before = execution_in(state)
    if event.type in TABLE.get(state, frozenset()):
        fitting = leased(before.leases + 1) if event.type == "leased" else event
        assert apply(before, fitting).updated_at == event.at
    else:
        with pytest.raises(IllegalEvent):
            apply(before, event)


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_nothing_happens_after_the_end(state: State, event: Event) -> None:
    with pytest.raises(IllegalEvent):
        apply(execution_in(state), event)


class TestLive:
    def test_a_claim_ends_the_window_and_keeps_its_instant_for_the_nonce(self) -> None:
        won = execution_in(State.CLAIMED)
        assert won.claim is not None
        assert won.claim_before == after(WINDOW_S)
        assert won.due_at == won.outcome_before

    def test_a_claim_excludes_the_fallback_and_the_fallback_the_claim(self) -> None:
        with pytest.raises(IllegalEvent):
            apply(execution_in(State.CLAIMED), fell_back())
        with pytest.raises(IllegalEvent):
            apply(apply(execution_in(State.OFFERED), fell_back()), claimed())

    def test_a_fallback_takes_the_next_step_and_its_attempts(self) -> None:
        fallen = apply(execution_in(State.OFFERED), fell_back())
        assert (fallen.state, fallen.channel, fallen.mode) == (State.QUEUED, BG, EffectiveMode.BACKGROUND_FALLBACK)
        assert (fallen.plan, fallen.max_attempts, fallen.reason) == ((), 3, Reason.CLAIM_WINDOW_CLOSED)
        assert fallen.was_offered

    def test_a_message_for_live_only_can_be_offered_again_and_again(self) -> None:
        standing = execution_in(State.WAITING)
        for round_s in (10, 100, 1_000):
            standing = apply(standing, offered(round_s))
            assert (standing.state, standing.due_at) == (State.OFFERED, after(round_s + WINDOW_S))
            standing = apply(standing, fell_back(step(LIVE), round_s + 31))
            assert (standing.state, standing.due_at) == (State.WAITING, after(TTL_S))
            assert standing.plan == (step(LIVE),)


class TestLeases:
    def test_a_lease_is_counted_and_ends_the_pause(self) -> None:
        again = apply(apply(execution_in(State.LEASED), attempt_failed()), leased(2, 10))
        assert (again.leases, again.failed_attempts, again.retry_at) == (2, 1, None)

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_number_that_was_given_out_is_not_given_out_again(self, number: int) -> None:
        queued = apply(execution_in(State.LEASED), attempt_failed())
        with pytest.raises(IllegalEvent):
            apply(queued, leased(number))

    def test_only_the_present_lease_can_be_prolonged_or_fail(self) -> None:
        second = apply(apply(execution_in(State.LEASED), attempt_failed()), leased(2, 10))
        for late in (extended(1), attempt_failed(1)):
            with pytest.raises(IllegalEvent):
                apply(second, late)
        assert apply(second, extended(2, 20)).due_at == after(80)

    def test_a_failed_attempt_gives_the_lease_back_and_remembers_why(self) -> None:
        queued = apply(execution_in(State.LEASED), attempt_failed(detail="exit 2"))
        assert (queued.lease, queued.last_error, queued.retry_at) == (None, "exit 2", after(6))
        assert queued.reason is Reason.ATTEMPT_FAILED

    def test_an_attempt_that_ends_the_message_counts_as_failed(self) -> None:
        over = execution_in(State.BG_EXHAUSTED)
        assert (over.failed_attempts, over.attempts, over.lease) == (1, 1, None)


class TestInbox:
    def test_it_moves_forward_and_ends_acknowledged(self) -> None:
        read = execution(accepted(INBOX), marked(), marked(State.INBOX_READ))
        assert apply(read, outcome_recorded()).state is State.DELIVERED

    def test_what_was_read_is_not_unread_again(self) -> None:
        with pytest.raises(IllegalEvent):
            apply(execution_in(State.INBOX_READ), marked())

    @pytest.mark.parametrize("state", sorted(set(State) - {State.INBOX_DELIVERED, State.INBOX_READ}))
    def test_a_mark_cannot_move_a_message_out_of_the_inbox(self, state: State) -> None:
        with pytest.raises(IllegalEvent):
            apply(execution_in(State.IN_INBOX), marked(state))


@pytest.mark.parametrize("state", sorted(OPEN_STATES))
def test_an_end_names_a_terminal_state(state: State) -> None:
    with pytest.raises(IllegalEvent):
        apply(execution_in(State.QUEUED), ended(state))


@pytest.mark.parametrize("state", sorted(OPEN_STATES))
def test_every_open_state_can_be_ended_and_the_end_is_final(state: State) -> None:
    over = apply(execution_in(state), ended(State.CANCELLED, Reason.CANCELLED_BY_SENDER))
    assert (over.state, over.is_open, over.due_at, over.ended_at) == (State.CANCELLED, False, None, after(8))


@pytest.mark.parametrize("state", list(State))
def test_the_builders_way_to_each_state_leads_there(state: State) -> None:
    folded = fold(history(*WAYS[state]))
    assert folded.state is state
    assert (folded.due_at is not None) == folded.is_open


def test_an_illegal_event_leaves_the_execution_as_it_was() -> None:
    before = execution_in(State.CLAIMED)
    copy = replace(before)
    with pytest.raises(IllegalEvent):
        apply(before, leased())
    assert before == copy


def test_the_route_is_known_once_the_outcome_is() -> None:
    assert execution_in(State.LEASED).route is None
    assert execution_in(State.DELIVERED).route is not None
