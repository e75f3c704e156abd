"""The audit finds each broken promise by its code, and nothing in histories that keep them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from contracts.events import Event, History, Stored
from contracts.ids import encode_ulid
from contracts.words import DEAD_LETTER_STATES, OPEN_STATES, TERMINAL_STATES, DeliveryRoute, State
from router.audit import AuditReport, audit
from tests.builders import (
    BG,
    FALLBACK,
    INBOX,
    LIVE,
    NOW,
    SEND_S,
    ULID,
    WAYS,
    WEBHOOK,
    WINDOW_S,
    accepted,
    after,
    again,
    attempt_failed,
    claimed,
    decision,
    discarded,
    ended,
    evidence_added,
    extended,
    fell_back,
    history,
    in_context,
    leased,
    marked,
    outcome_recorded,
    released,
    replayed,
    scheduled,
    verification_changed,
)

GRACE = timedelta(seconds=2)
BG_LIFE = WAYS[State.DELIVERED]
LIVE_LIFE = (accepted(LIVE), claimed(), outcome_recorded(DeliveryRoute.LIVE))
OVER = decision(ending=State.LIVE_UNCLAIMED_NO_SESSION)


def report(*histories: History, now: datetime = NOW) -> AuditReport:
    return audit(histories, now, grace=GRACE)


def codes(*events: Event, now: datetime = NOW) -> list[str]:
    return [finding.code for finding in report(history(*events), now=now).findings]


class TestWhatIsInOrder:
    def test_an_empty_ledger_is_clean(self) -> None:
        seen = report()
        assert seen.is_clean
        assert (seen.messages, seen.events, seen.accepted, seen.open, seen.ended) == (0, 0, 0, {}, {})

    def test_one_message_in_every_state_is_clean_and_counted_by_state(self) -> None:
        ledger = [history(*events, ulid=encode_ulid(number)) for number, events in enumerate(WAYS.values())]
        seen = report(*ledger)
        assert seen.findings == ()
        assert seen.messages == seen.accepted == len(State)
        assert seen.open == dict.fromkeys(OPEN_STATES, 1)
        assert seen.ended == dict.fromkeys(TERMINAL_STATES, 1)
        assert seen.events == sum(map(len, WAYS.values()))

    @pytest.mark.parametrize(
        "events",
        [
            (accepted(LIVE), claimed(), outcome_recorded(DeliveryRoute.LIVE)),
            (accepted(LIVE), claimed(), in_context(), outcome_recorded(DeliveryRoute.LIVE)),
            (accepted(BG), leased(), in_context(1), attempt_failed(), leased(2), in_context(2), outcome_recorded()),
            (accepted(LIVE), outcome_recorded(DeliveryRoute.LIVE_UNVERIFIED)),
            (accepted(decision(LIVE, FALLBACK)), fell_back(), leased(), outcome_recorded()),
            (accepted(WEBHOOK), leased(), attempt_failed(), leased(2), outcome_recorded(DeliveryRoute.WEBHOOK)),
            (accepted(BG), leased(), extended(), extended(), attempt_failed(), leased(2), extended(2)),
            (accepted(INBOX), marked(), outcome_recorded(DeliveryRoute.INBOX)),
            (scheduled(), released(LIVE, SEND_S)),
            (*BG_LIFE, evidence_added(), verification_changed()),
            (*BG_LIFE, replayed(), *again(leased(), outcome_recorded(), evidence_added())),
            (*LIVE_LIFE, replayed(LIVE), *again(claimed(10, "desk"), outcome_recorded(DeliveryRoute.LIVE, 11))),
            (*BG_LIFE, replayed(OVER), replayed(OVER, number=3), replayed(BG, number=4), *again(leased(), number=4)),
        ],
    )
    def test_an_ordinary_life_is_clean(self, events: tuple[Event, ...]) -> None:
        assert codes(*events) == []

    def test_it_reads_an_iterator_once(self) -> None:
        ledger: Iterable[History] = (history(accepted(BG), ulid=encode_ulid(number)) for number in range(3))
        assert audit(ledger, NOW, grace=GRACE).open == {State.QUEUED: 3}


class TestFindings:
    def test_a_finding_names_its_message(self) -> None:
        [finding] = report(history(*WAYS[State.OFFERED]), now=after(1_000)).findings
        assert (finding.ulid, finding.code) == (ULID, "overdue")
        assert finding.text == "offered, due at 2026-03-04T05:06:37.890Z"

    def test_a_history_that_does_not_begin_with_its_acceptance(self) -> None:
        assert codes(leased()) == ["not_accepted", "not_conserved"]

    def test_a_second_acceptance(self) -> None:
        assert codes(accepted(BG), accepted(BG)) == ["illegal_event", "accepted_twice", "not_conserved"]

    def test_an_acceptance_that_is_not_the_first_event(self) -> None:
        assert codes(leased(), accepted(BG)) == ["not_accepted"]

    @pytest.mark.parametrize("second", [5, 4])
    def test_sequences_that_do_not_increase(self, second: int) -> None:
        events = (Stored(seq=5, event=accepted(BG)), Stored(seq=second, event=leased()))
        assert [each.code for each in report(History(ulid=ULID, events=events)).findings] == ["sequence_order"]

    def test_an_event_the_table_does_not_know(self) -> None:
        assert codes(accepted(INBOX), claimed()) == ["illegal_event"]

    def test_a_second_end(self) -> None:
        assert codes(accepted(BG), ended(), ended(State.CANCELLED)) == ["illegal_event", "ended_twice"]

    def test_an_end_of_what_ended_when_it_was_accepted(self) -> None:
        over = WAYS[State.LIVE_UNCLAIMED_NO_SESSION]
        assert codes(*over, ended()) == ["illegal_event", "ended_twice"]

    def test_a_second_claim(self) -> None:
        assert codes(accepted(LIVE), claimed(), claimed(label="desk")) == ["illegal_event", "claimed_twice"]

    def test_a_fallback_after_a_claim(self) -> None:
        assert codes(accepted(decision(LIVE, FALLBACK)), claimed(), fell_back()) == ["illegal_event"]

    def test_a_live_outcome_without_a_claim(self) -> None:
        assert codes(accepted(LIVE), outcome_recorded(DeliveryRoute.LIVE)) == ["live_without_claim"]

    def test_a_lease_number_that_was_given_out_before(self) -> None:
        again = (accepted(BG), leased(), attempt_failed(), leased(1))
        assert codes(*again) == ["illegal_event", "lease_order"]

    @pytest.mark.parametrize("late", [extended(1), attempt_failed(1)])
    def test_something_recorded_under_a_lease_that_is_gone(self, late: Event) -> None:
        assert codes(accepted(BG), leased(), attempt_failed(), leased(2), late) == ["illegal_event", "stale_lease"]

    def test_a_workers_outcome_without_a_lease(self) -> None:
        assert codes(accepted(BG), outcome_recorded()) == ["illegal_event", "without_lease"]


class TestReplays:
    def test_a_second_end_of_the_second_execution(self) -> None:
        over = again(ended(at_s=10), ended(State.CANCELLED, at_s=11))
        assert codes(*BG_LIFE, replayed(), *over) == ["illegal_event", "ended_twice"]

    def test_an_end_of_a_replay_that_had_ended_at_once(self) -> None:
        assert codes(*BG_LIFE, replayed(OVER), *again(ended())) == ["illegal_event", "ended_twice"]

    def test_a_second_claim_of_the_second_execution(self) -> None:
        second = again(claimed(10), claimed(11, "desk"))
        assert codes(*LIVE_LIFE, replayed(LIVE), *second) == ["illegal_event", "claimed_twice"]

    def test_the_claim_of_the_first_execution_proves_nothing_for_the_second(self) -> None:
        second = again(outcome_recorded(DeliveryRoute.LIVE, 10))
        assert codes(*LIVE_LIFE, replayed(LIVE), *second) == ["live_without_claim"]

    def test_the_lease_of_the_first_execution_counts_for_nothing_in_the_second(self) -> None:
        second = again(outcome_recorded())
        held = (accepted(BG), leased(), ended())
        assert codes(*held, replayed(INBOX), *second) == ["without_lease"]

    def test_a_replay_of_what_was_still_on_its_way(self) -> None:
        assert codes(accepted(BG), replayed()) == ["illegal_event", "replayed_in_flight"]

    @pytest.mark.parametrize("number", [1, 3])
    def test_executions_whose_numbers_are_not_consecutive(self, number: int) -> None:
        assert codes(*WAYS[State.EXPIRED], replayed(number=number)) == ["illegal_event", "execution_order"]

    def test_an_event_that_belongs_to_an_execution_before_the_present_one(self) -> None:
        assert codes(*WAYS[State.EXPIRED], replayed(), leased()) == ["execution_order"]


class TestDiscards:
    @pytest.mark.parametrize("state", sorted(DEAD_LETTER_STATES))
    def test_a_dead_letter_may_be_discarded_and_the_message_replayed_all_the_same(self, state: State) -> None:
        assert codes(*WAYS[state], discarded(2_000), replayed(at_s=2_001)) == []

    @pytest.mark.parametrize("state", [State.CANCELLED, State.QUEUED, State.DISCARDED])
    def test_nothing_else_may_be(self, state: State) -> None:
        assert codes(*WAYS[state], discarded()) == ["illegal_event", "discarded_alive"]

    def test_a_message_that_is_on_its_way_again_is_no_dead_letter(self) -> None:
        life = (accepted(BG), ended(), replayed(), *again(discarded()))
        assert codes(*life) == ["illegal_event", "discarded_alive"]


class TestInContext:
    def test_the_word_of_a_session_that_claimed_nothing(self) -> None:
        assert codes(accepted(LIVE), in_context()) == ["illegal_event", "live_without_claim"]

    def test_the_word_of_a_worker_whose_lease_is_gone(self) -> None:
        late = (accepted(BG), leased(), attempt_failed(), leased(2), in_context(1))
        assert codes(*late) == ["illegal_event", "stale_lease"]


class TestScheduled:
    def test_a_release_before_its_time(self) -> None:
        assert codes(scheduled(), released(BG, SEND_S - 0.001)) == ["released_early"]

    def test_a_second_release(self) -> None:
        assert codes(scheduled(), released(), released()) == ["illegal_event", "released_twice"]

    def test_a_release_of_what_was_never_scheduled(self) -> None:
        assert codes(accepted(BG), released()) == ["illegal_event", "released_early"]

    def test_a_release_that_is_late(self) -> None:
        assert codes(scheduled(), now=after(SEND_S) + GRACE + timedelta(microseconds=1)) == ["overdue"]


class TestVerification:
    @pytest.mark.parametrize("said", [evidence_added(), verification_changed()])
    def test_something_said_of_an_outcome_that_is_not_there(self, said: Event) -> None:
        assert codes(*WAYS[State.EXPIRED], said) == ["illegal_event", "without_outcome"]

    def test_something_said_of_the_outcome_of_an_execution_before(self) -> None:
        said = again(evidence_added())
        assert codes(*BG_LIFE, replayed(), *said) == ["illegal_event", "without_outcome"]


class TestOverdue:
    @pytest.mark.parametrize(
        ("at", "expected"),
        [(after(WINDOW_S) + GRACE, []), (after(WINDOW_S) + GRACE + timedelta(microseconds=1), ["overdue"])],
    )
    def test_a_deadline_may_be_late_by_exactly_the_grace(self, at: datetime, expected: list[str]) -> None:
        assert codes(*WAYS[State.OFFERED], now=at) == expected

    @pytest.mark.parametrize("state", sorted(OPEN_STATES))
    def test_no_open_state_may_stay_for_ever(self, state: State) -> None:
        assert codes(*WAYS[state], now=after(10**8)) == ["overdue"]

    @pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
    def test_what_has_ended_is_never_overdue(self, state: State) -> None:
        assert codes(*WAYS[state], now=after(10**8)) == []


class TestConservation:
    def test_what_was_accepted_is_open_or_ended(self) -> None:
        ledger = [history(*WAYS[state]) for state in (State.QUEUED, State.DELIVERED, State.DELIVERED)]
        seen = report(*ledger)
        assert seen.accepted == sum(seen.open.values()) + sum(seen.ended.values()) == 3

    def test_a_history_nobody_accepted_upsets_the_balance(self) -> None:
        seen = report(history(leased()), history(accepted(BG), ulid=encode_ulid(2)))
        assert (seen.messages, seen.accepted, seen.open) == (2, 1, {State.QUEUED: 1})
        assert (seen.findings[-1].ulid, seen.findings[-1].code) == ("", "not_conserved")

    def test_findings_of_one_message_do_not_hide_those_of_another(self) -> None:
        broken = history(accepted(LIVE), outcome_recorded(DeliveryRoute.LIVE))
        seen = report(broken, replace(broken, ulid=encode_ulid(2)))
        assert [finding.ulid for finding in seen.findings] == [ULID, encode_ulid(2)]
