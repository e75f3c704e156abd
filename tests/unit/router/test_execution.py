"""The life of one execution, event by event, and what its table refuses."""

from dataclasses import replace

import pytest

from contracts.errors import IllegalEvent
from contracts.events import Event, Stored
from contracts.records import Decision
from contracts.words import OPEN_STATES, TERMINAL_STATES, Channel, EffectiveMode, OutcomeState, Reason, State
from router.execution import TABLE, apply, begin, begin_again, fold, fold_events
from tests.builders import (
    BG,
    FALLBACK,
    INBOX,
    LIVE,
    NOW,
    SEND_S,
    TTL_S,
    WAYS,
    WEBHOOK,
    WINDOW_S,
    accepted,
    after,
    again,
    attempt_failed,
    claimed,
    decision,
    ended,
    evidence_added,
    execution,
    execution_in,
    extended,
    fell_back,
    history,
    in_context,
    leased,
    marked,
    message,
    offered,
    outcome,
    outcome_recorded,
    released,
    replayed,
    step,
    verification_changed,
    wish,
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
    released(),
    replayed(),
    evidence_added(),
    verification_changed(),
    in_context(),
)
SAID_OF_AN_OUTCOME = ("evidence_added", "verification_changed")


NOBODY_THERE = decision(ending=State.LIVE_UNCLAIMED_NO_SESSION, reason=Reason.NO_SESSION_ATTACHED)


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
        fits: dict[str, Event] = {"leased": leased(before.leases + 1), "in_context": in_context(before.leases or None)}
        assert apply(before, fits.get(event.type, event)).updated_at == event.at
    else:
        with pytest.raises(IllegalEvent):
            apply(before, event)


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_after_the_end_nothing_happens_but_a_replay_and_to_an_outcome_what_it_is_worth(
    state: State, event: Event
) -> None:
    over = execution_in(state)
    if event.type == "replayed":
        assert apply(over, event).number == over.number + 1
    elif state is State.DELIVERED and event.type in SAID_OF_AN_OUTCOME:
        said = apply(over, event)
        assert (said.number, said.state, said.outcome, said.ended_at) == (1, state, over.outcome, over.ended_at)
    else:
        with pytest.raises(IllegalEvent):
            apply(over, event)


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


class TestInContext:
    def test_the_word_of_a_claim_is_noted_and_moves_nothing(self) -> None:
        before = execution_in(State.CLAIMED)
        said = apply(before, in_context(at_s=5))
        assert said == replace(before, in_context_at=after(5), updated_at=after(5))

    def test_the_word_of_a_lease_is_forgotten_with_its_attempt(self) -> None:
        said = apply(execution_in(State.LEASED), in_context(1))
        failed = apply(said, attempt_failed())
        assert (said.in_context_at, failed.in_context_at) == (after(4), None)
        second = apply(apply(failed, leased(2, 10)), in_context(2, 11))
        assert second.in_context_at == after(11)

    def test_it_outlives_the_outcome(self) -> None:
        said = execution(accepted(BG), leased(), in_context(1), outcome_recorded())
        assert said.in_context_at == after(4)

    @pytest.mark.parametrize(
        ("before", "said"),
        [
            ((accepted(BG), leased()), in_context()),
            ((accepted(BG), leased()), in_context(2)),
            ((accepted(LIVE), claimed()), in_context(1)),
            ((accepted(LIVE), claimed(), in_context()), in_context()),
            ((accepted(BG), leased(), in_context(1)), in_context(1)),
        ],
    )
    def test_it_is_said_once_and_by_the_present_holder(self, before: tuple[Event, ...], said: Event) -> None:
        with pytest.raises(IllegalEvent):
            apply(execution(*before), said)


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


class TestScheduled:
    def test_until_its_time_it_is_on_no_way_yet(self) -> None:
        waiting = execution_in(State.SCHEDULED)
        assert (waiting.mode, waiting.plan, waiting.trace, waiting.reason) == (None, (), (), Reason.SCHEDULED)
        assert (waiting.due_at, waiting.expires_at) == (after(SEND_S), after(SEND_S + TTL_S))

    @pytest.mark.parametrize("decided", [LIVE, BG, WEBHOOK, INBOX, decision(LIVE, LIVE, waits=True)])
    def test_it_is_released_into_the_state_it_would_have_been_accepted_in(self, decided: Channel | Decision) -> None:
        freed = apply(execution_in(State.SCHEDULED), released(decided))
        begun = begin(accepted(decided))
        assert (freed.state, freed.channel, freed.mode, freed.plan) == (
            begun.state,
            begun.channel,
            begun.mode,
            begun.plan,
        )
        assert (freed.number, freed.max_attempts, freed.was_offered) == (1, begun.max_attempts, begun.was_offered)
        assert (freed.expires_at, freed.release_at) == (after(SEND_S + TTL_S), None)

    def test_a_decision_that_ends_it_at_its_time_is_its_end(self) -> None:
        over = apply(execution_in(State.SCHEDULED), released(NOBODY_THERE))
        assert (over.state, over.mode, over.ended_at) == (NOBODY_THERE.ending, None, after(SEND_S + 1))

    def test_it_is_released_once(self) -> None:
        with pytest.raises(IllegalEvent):
            apply(apply(execution_in(State.SCHEDULED), released()), released())

    @pytest.mark.parametrize("send_s", [-1, 0])
    def test_a_time_that_has_come_when_the_message_is_accepted_schedules_nothing(self, send_s: float) -> None:
        told = message(wish=wish(send_at=after(send_s)))
        assert begin(accepted(BG, message=told)).state is State.QUEUED


class TestReplays:
    def test_a_new_execution_begins_with_nothing_of_the_old_one_but_its_number(self) -> None:
        lived = execution(accepted(decision(LIVE, FALLBACK)), fell_back(), leased(), attempt_failed(), leased(2, 10))
        over = apply(lived, ended(State.BG_EXHAUSTED, Reason.ATTEMPTS_EXHAUSTED, 20))
        assert apply(over, replayed(INBOX, 30)) == begin_again(replayed(INBOX, 30))

    def test_its_leases_are_counted_from_one_again(self) -> None:
        second = execution(*WAYS[State.BG_EXHAUSTED], replayed(), *again(leased(1, 10)))
        assert (second.leases, second.failed_attempts, second.attempts) == (1, 0, 1)

    @pytest.mark.parametrize("number", [1, 3])
    def test_executions_are_numbered_without_gaps(self, number: int) -> None:
        with pytest.raises(IllegalEvent):
            apply(execution_in(State.EXPIRED), replayed(number=number))

    @pytest.mark.parametrize("state", sorted(OPEN_STATES))
    def test_what_is_still_on_its_way_is_not_replayed(self, state: State) -> None:
        with pytest.raises(IllegalEvent):
            apply(execution_in(state), replayed())

    def test_an_older_execution_can_still_be_read_as_it_was_left(self) -> None:
        first = (*WAYS[State.DELIVERED], evidence_added())
        second = (replayed(BG, 10), *again(leased(1, 11), ended(State.CANCELLED, at_s=12)))
        third = (replayed(INBOX, 20, number=3),)
        whole = history(*first, *second, *third)
        assert fold(whole, 1) == execution(*first)
        assert fold(whole, 2) == execution(*first, *second)
        assert fold(whole, 3) == fold(whole)
        assert [fold(whole, number).state for number in (1, 2, 3)] == ["delivered", "cancelled", "in_inbox"]


class TestOutcomes:
    def test_evidence_is_added_to_what_is_there_and_the_outcome_stays_as_it_was_recorded(self) -> None:
        told = outcome(evidence={"external_id": "a", "summary": "s"}, state=OutcomeState.REPORTED_SUCCESS)
        before = execution(accepted(BG), leased(), outcome_recorded(told))
        said = apply(before, evidence_added({"external_id": "b", "result_url": "u"}))
        assert said.evidence == {"external_id": "b", "summary": "s", "result_url": "u"}
        assert (said.outcome_state, said.outcome) == (OutcomeState.VERIFIED_SUCCESS, told)

    def test_a_verification_changes_what_it_is_worth_and_nothing_else(self) -> None:
        before = execution_in(State.DELIVERED)
        said = apply(before, verification_changed(OutcomeState.VERIFICATION_FAILED))
        expected = replace(before, outcome_state=OutcomeState.VERIFICATION_FAILED, judged=True, updated_at=after(8))
        assert said == expected


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
