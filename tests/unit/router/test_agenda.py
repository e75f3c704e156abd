"""The agenda: which open messages it knows, in which order they come due, and that it forgets what has ended."""

from datetime import datetime, timedelta

import pytest

from contracts.events import Event, Stored
from contracts.ids import encode_ulid
from contracts.words import OPEN_STATES, TERMINAL_STATES, State
from router import agenda as module
from router.agenda import RECHECK, Agenda
from tests.builders import (
    BG,
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
    extended,
    fell_back,
    leased,
    message,
    offered,
    outcome_recorded,
    released,
    replayed,
    scheduled,
    step,
    verification_changed,
)

WAITS = decision(LIVE, LIVE, waits=True)
TICK = timedelta(microseconds=1)


class Reading:
    """An agenda that reads a ledger event by event, with its sequences."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.ledger: list[tuple[str, Stored]] = []

    def note(self, number: int, *events: Event, now: datetime = NOW) -> str:
        ulid = encode_ulid(number)
        for event in events:
            self.ledger.append((ulid, Stored(seq=len(self.ledger) + 1, event=event)))
            self.agenda.note(*self.ledger[-1], now)
        return ulid

    def read_again(self, after_seq: int = 0, now: datetime = NOW) -> None:
        for ulid, stored in self.ledger[after_seq:]:
            self.agenda.note(ulid, stored, now)

    def due(self, at: datetime) -> list[str]:
        return [entry.ulid for entry in self.agenda.due(at)]


@pytest.fixture
def reading() -> Reading:
    return Reading()


class TestWhatItKnows:
    @pytest.mark.parametrize("state", sorted(OPEN_STATES))
    def test_an_open_message_is_on_it(self, reading: Reading, state: State) -> None:
        reading.note(1, *WAYS[state])
        assert len(reading.agenda) == 1

    @pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
    def test_a_message_that_has_ended_is_not(self, reading: Reading, state: State) -> None:
        reading.note(1, *WAYS[state])
        assert len(reading.agenda) == 0
        assert reading.due(after(10**8)) == []
        assert reading.agenda.oldest() is None

    def test_a_message_that_began_before_the_reading_is_passed_over(self, reading: Reading) -> None:
        reading.note(1, leased())
        assert len(reading.agenda) == 0

    def test_traces_are_not_kept(self, reading: Reading) -> None:
        reading.note(1, accepted(LIVE))
        assert [entry.execution.trace for entry in reading.agenda.due(after(100))] == [()]


class TestDue:
    def test_the_earliest_comes_first(self, reading: Reading) -> None:
        last = reading.note(1, accepted(INBOX, ttl_s=300))
        first = reading.note(2, accepted(INBOX, ttl_s=100))
        middle = reading.note(3, accepted(INBOX, ttl_s=200))
        assert reading.due(after(400)) == [first, middle, last]

    def test_nothing_is_due_at_its_very_instant(self, reading: Reading) -> None:
        offer = reading.note(1, accepted(LIVE))
        assert reading.due(after(WINDOW_S)) == []
        assert reading.due(after(WINDOW_S) + TICK) == [offer]

    def test_a_message_is_taken_once_though_its_deadline_moved_often(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(BG), leased(), extended(at_s=10), extended(at_s=20), extended(at_s=20))
        assert reading.due(after(80) + TICK) == [ulid]
        assert reading.due(after(80) + TICK) == []

    def test_an_old_deadline_does_not_ring_after_an_event_moved_it(self, reading: Reading) -> None:
        reading.note(1, accepted(LIVE), claimed())
        assert reading.due(after(WINDOW_S + 1)) == []

    def test_no_more_than_asked_for_are_taken_and_the_rest_stays(self, reading: Reading) -> None:
        ulids = [reading.note(number, accepted(INBOX, ttl_s=number)) for number in range(1, 6)]
        taken = [[entry.ulid for entry in reading.agenda.due(after(100), limit=2)] for _ in range(4)]
        assert taken == [ulids[:2], ulids[2:4], ulids[4:], []]

    def test_whoever_took_it_may_fail_so_it_comes_again(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(LIVE))
        taken_at = after(WINDOW_S + 1)
        assert reading.due(taken_at) == [ulid]
        assert reading.due(taken_at + RECHECK) == []
        assert reading.due(taken_at + RECHECK + TICK) == [ulid]

    def test_what_could_not_be_dealt_with_is_looked_at_again_when_one_said(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(LIVE))
        reading.due(after(31))
        reading.agenda.postpone(ulid, after(32))
        assert reading.due(after(32)) == []
        assert reading.due(after(32) + TICK) == [ulid]

    def test_what_is_postponed_beyond_its_time_is_looked_at_when_that_is_up(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(WEBHOOK, ttl_s=100))
        reading.due(after(1))
        reading.agenda.postpone(ulid, after(3_600))
        assert reading.due(after(100)) == []
        assert reading.due(after(100) + TICK) == [ulid]
        reading.agenda.postpone(ulid, after(102))
        assert reading.due(after(102)) == []
        assert reading.due(after(102) + TICK) == [ulid]

    def test_postponing_what_has_ended_does_nothing(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(BG), ended())
        reading.agenda.postpone(ulid, after(1))
        assert reading.due(after(10**8)) == []

    def test_a_webhook_is_due_at_once_and_then_at_its_retry(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(WEBHOOK))
        [entry] = reading.agenda.due(NOW + TICK)
        assert entry.is_webhook
        reading.note(1, leased(), attempt_failed(pause_s=300))
        assert reading.due(after(305)) == []
        assert reading.due(after(305) + TICK) == [ulid]

    def test_a_message_on_another_channel_is_no_webhook(self, reading: Reading) -> None:
        reading.note(1, accepted(BG))
        assert [entry.is_webhook for entry in reading.agenda.due(after(TTL_S + 1))] == [False]


class TestWaiting:
    def test_messages_wait_for_their_agent_in_the_order_they_began_to(self, reading: Reading) -> None:
        ulids = tuple(reading.note(number, accepted(WAITS)) for number in (9, 3, 7, 1))
        reading.note(20, accepted(WAITS, message=message(agent_id="agent_other0000000")))
        assert reading.agenda.waiting_for(message().agent_id) == ulids

    def test_an_offer_takes_a_message_off_the_waiting_list_and_a_closed_window_puts_it_back(
        self, reading: Reading
    ) -> None:
        first = reading.note(1, accepted(WAITS), offered())
        second = reading.note(2, accepted(WAITS))
        assert reading.agenda.waiting_for(message().agent_id) == (second,)
        reading.note(1, fell_back(step(LIVE)))
        assert reading.agenda.waiting_for(message().agent_id) == (second, first)

    def test_a_message_that_ends_waits_no_longer(self, reading: Reading) -> None:
        reading.note(1, accepted(WAITS), ended(State.CANCELLED))
        assert reading.agenda.waiting_for(message().agent_id) == ()

    def test_it_is_looked_at_now_and_then_in_case_the_word_of_an_attach_was_lost(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(WAITS))
        assert reading.due(NOW + RECHECK + TICK) == [ulid]
        assert reading.due(NOW + 2 * RECHECK + 2 * TICK) == [ulid]

    def test_it_is_not_looked_at_later_than_its_own_end(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(WAITS, ttl_s=5))
        assert reading.due(after(5) + TICK) == [ulid]


class TestOldest:
    def test_it_is_the_open_message_accepted_first_whatever_its_deadline(self, reading: Reading) -> None:
        first = reading.note(1, accepted(INBOX, ttl_s=900))
        second = reading.note(2, accepted(INBOX, ttl_s=10))
        oldest = reading.agenda.oldest()
        assert oldest is not None
        assert (oldest.ulid, oldest.accept_seq) == (first, 1)
        reading.note(1, ended())
        oldest = reading.agenda.oldest()
        assert oldest is not None
        assert oldest.ulid == second

    def test_an_empty_agenda_has_none(self, reading: Reading) -> None:
        assert reading.agenda.oldest() is None


class TestScheduled:
    def test_it_is_due_when_its_time_has_come_and_not_before(self, reading: Reading) -> None:
        ulid = reading.note(1, scheduled())
        assert reading.due(after(SEND_S)) == []
        assert reading.due(after(SEND_S) + TICK) == [ulid]

    def test_it_does_not_wait_for_a_session_until_it_was_released_to(self, reading: Reading) -> None:
        ulid = reading.note(1, scheduled())
        assert reading.agenda.waiting_for(message().agent_id) == ()
        reading.note(1, released(WAITS))
        assert reading.agenda.waiting_for(message().agent_id) == (ulid,)

    def test_once_released_it_has_the_deadlines_of_its_way(self, reading: Reading) -> None:
        ulid = reading.note(1, scheduled(), released(LIVE, SEND_S))
        assert reading.due(after(SEND_S + WINDOW_S)) == []
        assert reading.due(after(SEND_S + WINDOW_S) + TICK) == [ulid]

    @pytest.mark.parametrize("end", [ended(State.CANCELLED), ended(State.REJECTED)])
    def test_one_that_ends_before_is_forgotten(self, reading: Reading, end: Event) -> None:
        reading.note(1, scheduled(), end)
        assert len(reading.agenda) == 0


class TestReplays:
    def test_a_message_that_had_ended_is_on_it_again_with_new_deadlines(self, reading: Reading) -> None:
        ulid = reading.note(1, *WAYS[State.DELIVERED], replayed(LIVE, 100))
        [entry] = reading.agenda.due(after(100 + WINDOW_S) + TICK)
        assert (entry.ulid, entry.execution.number, entry.accept_seq) == (ulid, 2, 4)

    @pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
    def test_it_is_so_whatever_the_end_was(self, reading: Reading, state: State) -> None:
        reading.note(1, *WAYS[state], replayed())
        assert len(reading.agenda) == 1
        reading.note(1, *again(ended(at_s=10)))
        assert len(reading.agenda) == 0

    def test_a_replay_that_ends_at_once_is_not_on_it(self, reading: Reading) -> None:
        over = decision(ending=State.LIVE_UNCLAIMED_NO_SESSION)
        reading.note(1, *WAYS[State.EXPIRED], replayed(over))
        assert len(reading.agenda) == 0

    def test_a_reading_that_starts_after_the_acceptance_knows_it_as_well(self, reading: Reading) -> None:
        ulid = reading.note(1, *WAYS[State.EXPIRED], replayed(WAITS, 100), *again(offered(110)))
        late = Reading()
        late.ledger = reading.ledger
        late.read_again(after_seq=2)
        assert late.due(after(110 + WINDOW_S) + TICK) == [ulid]

    def test_what_is_said_of_an_outcome_opens_nothing(self, reading: Reading) -> None:
        reading.note(1, *WAYS[State.DELIVERED], evidence_added(), verification_changed())
        assert len(reading.agenda) == 0

    def test_a_replay_read_twice_changes_nothing(self, reading: Reading) -> None:
        reading.note(1, *WAYS[State.EXPIRED], replayed(), *again(leased(1, 10), attempt_failed(1, 11)))
        reading.read_again()
        [entry] = reading.agenda.due(after(10**8))
        assert (entry.execution.number, entry.execution.failed_attempts) == (2, 1)

    def test_the_oldest_is_counted_from_its_replay_and_hides_no_older_one(self, reading: Reading) -> None:
        reading.note(1, accepted(BG))
        patient = reading.note(2, accepted(BG))
        reading.note(1, ended(), replayed())
        oldest = reading.agenda.oldest()
        assert oldest is not None
        assert (oldest.ulid, oldest.accept_seq) == (patient, 2)
        reading.note(2, ended())
        oldest = reading.agenda.oldest()
        assert oldest is not None
        assert oldest.accept_seq == 4


class TestReadingAgain:
    def test_events_read_twice_change_nothing(self, reading: Reading) -> None:
        reading.note(1, accepted(BG), leased(), attempt_failed(), leased(2, 10))
        [before] = reading.agenda.due(after(10**6))
        reading.read_again()
        reading.agenda.postpone(before.ulid, after(1))
        [entry] = reading.agenda.due(after(10**6))
        assert entry.execution == before.execution
        assert entry.execution.failed_attempts == 1

    def test_a_message_that_ended_is_forgotten_again(self, reading: Reading) -> None:
        reading.note(1, accepted(BG), leased(), outcome_recorded())
        reading.read_again()
        assert len(reading.agenda) == 0


class TestCorrecting:
    def test_what_the_ledger_says_is_taken_over(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(BG))
        reading.agenda.correct(ulid, execution(accepted(BG), leased()), NOW, seq=2)
        assert reading.due(after(64)) == [ulid]

    def test_an_end_is_taken_over_and_the_message_forgotten(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(BG))
        reading.agenda.correct(ulid, execution(accepted(BG), ended()), NOW, seq=2)
        assert len(reading.agenda) == 0

    def test_an_event_already_taken_over_is_not_taken_in_twice(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(BG))
        reading.agenda.correct(ulid, execution(accepted(BG), leased(), attempt_failed()), NOW, seq=3)
        reading.note(1, leased(), attempt_failed())
        [entry] = reading.agenda.due(after(10**6))
        assert (entry.execution.state, entry.execution.failed_attempts) == (State.QUEUED, 1)

    def test_an_answer_older_than_the_events_taken_in_is_passed_over(self, reading: Reading) -> None:
        ulid = reading.note(1, accepted(BG), leased(), attempt_failed(), leased(2, 10))
        reading.agenda.correct(ulid, execution(accepted(BG), leased(), attempt_failed()), NOW, seq=3)
        assert reading.due(after(71)) == [ulid]

    def test_a_message_it_does_not_know_stays_unknown(self, reading: Reading) -> None:
        reading.agenda.correct(encode_ulid(1), execution(accepted(BG)), NOW, seq=1)
        assert len(reading.agenda) == 0


def test_the_deadlines_of_messages_that_ended_do_not_pile_up(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLACK", 10)
    patient = reading.note(1, accepted(INBOX))
    for number in range(2, 200):
        reading.note(number, accepted(INBOX), ended())
    assert len(reading.agenda._wakes) <= 12
    assert len(reading.agenda._accepted) <= 12
    assert reading.due(after(TTL_S + 1)) == [patient]
