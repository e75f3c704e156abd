"""Of every lawful life: an execution ends once at most, a fold is a fold however read, what is open has a deadline."""

from datetime import datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import IllegalEvent
from contracts.events import Discarded, Event, Replayed, Stored
from contracts.ids import encode_ulid
from contracts.words import DEAD_LETTER_STATES, OPEN_STATES, State
from router.agenda import Agenda
from router.audit import audit
from router.deadlines import on_deadline
from router.derivation import Facts, derive, is_silent
from router.execution import TABLE, Execution, apply, begin, fold, fold_events
from tests.builders import (
    BG,
    INBOX,
    LIVE,
    NOW,
    WEBHOOK,
    accepted,
    decision,
    execution,
    history,
    leased,
    marked,
    released,
    scheduled,
)
from tests.property.strategies import any_event, beginnings, lives, next_events

PATIENCE = 400
LONG = timedelta(days=365)
SAID_OF_AN_OUTCOME = {"evidence_added", "verification_changed"}
SAID_AFTER_THE_END = SAID_OF_AN_OUTCOME | {"discarded"}


@given(lives())
def test_each_execution_of_a_life_has_at_most_one_end_and_only_its_worth_is_spoken_of_after_it(
    life: tuple[Event, ...],
) -> None:
    for number in {event.execution for event in life}:
        lived = [(event.type, standing) for event, standing in steps_of(life) if standing.number == number]
        after_the_end = [kind for kind, standing in lived if not standing.is_open][1:]
        assert set(after_the_end) <= SAID_AFTER_THE_END
        assert not after_the_end or lived[-1][1].state in (State.DELIVERED, State.DISCARDED)
        ends = {standing.state for _, standing in lived if not standing.is_open} - {State.DISCARDED}
        assert len(ends) <= 1
        assert after_the_end.count("discarded") <= 1


@given(lives())
def test_executions_are_numbered_from_one_without_gaps_and_only_the_last_may_be_open(life: tuple[Event, ...]) -> None:
    newest = execution(*life).number
    assert sorted({event.execution for event in life}) == list(range(1, newest + 1))
    whole = history(*life)
    assert not any(fold(whole, number).is_open for number in range(1, newest))


@given(lives())
def test_an_older_execution_reads_as_it_did_just_before_it_was_replayed(life: tuple[Event, ...]) -> None:
    whole = history(*life)
    for index, event in enumerate(life):
        if isinstance(event, Replayed):
            assert fold(whole, event.execution - 1) == execution(*life[:index])
    assert fold(whole, execution(*life).number) == fold(whole)


@given(lives(), any_event)
def test_nothing_is_accepted_after_the_end_but_a_replay_a_discard_and_the_worth_of_an_outcome(
    life: tuple[Event, ...], event: Event
) -> None:
    standing = execution(*life)
    if standing.is_open:
        return
    try:
        moved = apply(standing, event)
    except IllegalEvent:
        return
    if isinstance(event, Discarded):
        assert standing.state in DEAD_LETTER_STATES
        assert (moved.state, moved.ended_at) == (State.DISCARDED, standing.ended_at)
    elif event.type in SAID_OF_AN_OUTCOME:
        assert standing.state is moved.state is State.DELIVERED
        assert moved.outcome is standing.outcome
    else:
        assert isinstance(event, Replayed)
        assert moved.number == event.execution == standing.number + 1


@given(lives(), any_event)
def test_an_event_is_taken_only_from_its_row_and_never_leads_out_of_the_vocabulary(
    life: tuple[Event, ...], event: Event
) -> None:
    standing = execution(*life)
    try:
        moved = apply(standing, event)
    except IllegalEvent:
        return
    assert event.type in TABLE[standing.state]
    assert moved.state in TABLE


@given(lives(), st.data())
def test_a_fold_does_not_depend_on_where_it_was_interrupted(life: tuple[Event, ...], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(life)))
    standing = execution(*life[:cut])
    for event in life[cut:]:
        standing = apply(standing, event)
    assert standing == fold(history(*life)) == fold_events(iter(history(*life).events))


@given(lives())
def test_an_open_message_has_a_deadline_and_an_ended_one_has_none(life: tuple[Event, ...]) -> None:
    standing = execution(*life)
    assert (standing.due_at is not None) == standing.is_open
    assert (standing.ended_at is None) == standing.is_open


@given(lives())
def test_lease_numbers_count_the_leases_and_failures_never_outnumber_them(life: tuple[Event, ...]) -> None:
    standing = execution(*life)
    assert standing.leases == [event.type for event in life if event.execution == standing.number].count("leased")
    assert standing.failed_attempts <= standing.leases
    assert (standing.lease is not None) == (standing.state is State.LEASED)


@given(lives())
def test_a_lawful_life_passes_the_audit_as_long_as_nothing_is_late(life: tuple[Event, ...]) -> None:
    findings = audit([history(*life)], NOW, grace=LONG).findings
    # The strategy records any outcome with one and the same route, also where no worker holds a lease.
    assert {finding.code for finding in findings} <= {"without_lease"}


@given(beginnings(), st.floats(0, 1, exclude_max=True))
def test_a_message_nobody_ever_touches_ends_by_its_deadlines_alone(first: Event, dice: float) -> None:
    standing = execution(first)
    for _ in range(PATIENCE):
        if standing.due_at is None:
            break
        now = standing.due_at + timedelta(microseconds=1)
        event = on_deadline(standing, None, now, dice, "router-1") or _acts(standing, now)
        standing = apply(standing, event)
    assert not standing.is_open


@given(st.lists(lives(), max_size=6), st.randoms(use_true_random=False))
def test_an_agenda_holds_exactly_the_open_messages_however_their_events_interleave(
    told: list[tuple[Event, ...]], dice: Random
) -> None:
    ledger = shuffled(told, dice)
    agenda = Agenda()
    for ulid, stored in ledger:
        agenda.note(ulid, stored, NOW)
    expected = {encode_ulid(number): execution(*life) for number, life in enumerate(told)}
    assert known(agenda) == {ulid: standing.state for ulid, standing in expected.items() if standing.is_open}


@given(st.lists(lives(), max_size=5), st.randoms(use_true_random=False), st.data())
def test_an_agenda_that_reads_a_part_again_knows_the_same(
    told: list[tuple[Event, ...]], dice: Random, data: st.DataObject
) -> None:
    ledger = shuffled(told, dice)
    once, again = Agenda(), Agenda()
    for ulid, stored in ledger:
        once.note(ulid, stored, NOW)
    cut = data.draw(st.integers(0, len(ledger)))
    restart = data.draw(st.integers(0, cut))
    for ulid, stored in [*ledger[:cut], *ledger[restart:]]:
        again.note(ulid, stored, NOW)
    assert known(once) == known(again)


@given(st.lists(lives(), max_size=5), st.randoms(use_true_random=False), st.data())
def test_an_agenda_that_starts_before_the_oldest_open_message_knows_all_that_is_open(
    told: list[tuple[Event, ...]], dice: Random, data: st.DataObject
) -> None:
    ledger = shuffled(told, dice)
    once, late = Agenda(), Agenda()
    cut = data.draw(st.integers(0, len(ledger)))
    for ulid, stored in ledger[:cut]:
        once.note(ulid, stored, NOW)
        once.oldest()
    oldest = once.oldest()
    start = cut if oldest is None else oldest.accept_seq - 1
    for ulid, stored in ledger[cut:]:
        once.note(ulid, stored, NOW)
    for ulid, stored in ledger[start:]:
        late.note(ulid, stored, NOW)
    assert known(once) == known(late)


BEGINNINGS = (
    scheduled(),
    accepted(LIVE),
    accepted(decision(LIVE, LIVE, waits=True)),
    accepted(BG),
    accepted(WEBHOOK),
    accepted(INBOX),
)


def test_every_open_state_is_reached_and_has_a_way_to_an_end() -> None:
    seen: dict[State, Execution] = {}
    frontier = [begin(event) for event in BEGINNINGS]
    while frontier:
        standing = frontier.pop()
        if standing.state not in seen:
            seen[standing.state] = standing
            frontier += [apply(standing, event) for event in [*next_events(standing, 1), *_first_marks(standing)]]
    assert set(seen) >= OPEN_STATES
    assert all("ended" in TABLE[state] and seen[state].due_at is not None for state in OPEN_STATES)


def steps_of(life: tuple[Event, ...]) -> list[tuple[Event, Execution]]:
    """Each event with the execution it leaves."""
    return [(event, execution(*life[: count + 1])) for count, event in enumerate(life)]


def shuffled(told: list[tuple[Event, ...]], dice: Random) -> list[tuple[str, Stored]]:
    """The lives of several messages as one ledger: each in its order, one among the other."""
    turns = [number for number, life in enumerate(told) for _ in life]
    dice.shuffle(turns)
    rest = [iter(life) for life in told]
    return [
        (encode_ulid(number), Stored(seq=seq, event=next(rest[number]))) for seq, number in enumerate(turns, start=1)
    ]


def known(agenda: Agenda) -> dict[str, State]:
    return {entry.ulid: entry.execution.state for entry in agenda.due(NOW + LONG)}


def _acts(standing: Execution, now: datetime) -> Event:
    """What a router does of itself: it routes what is scheduled, and leases a webhook without ever coming back."""
    at_s = (now - NOW).total_seconds()
    if standing.state is State.SCHEDULED:
        return released(LIVE, at_s)
    assert standing.state is State.QUEUED
    return leased(standing.leases + 1, at_s)


def _first_marks(standing: Execution) -> list[Event]:
    return [marked()] if standing.state is State.IN_INBOX else []


@given(lives())
def test_events_nobody_is_told_of_may_be_passed_over(events: tuple[Event, ...]) -> None:
    facts: Facts | None = None
    for stored in history(*events).events:
        before = facts
        facts, told = derive(before, history(*events).ulid, stored)
        if is_silent(stored.event):
            assert (facts, told) == (before, [])
