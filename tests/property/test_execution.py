"""Of every lawful life: one end at most, the same fold however it is read, and always a deadline while it is open."""

from datetime import datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import IllegalEvent
from contracts.events import Event, Stored
from contracts.ids import encode_ulid
from contracts.words import TERMINAL_STATES, State
from router.agenda import Agenda
from router.audit import audit
from router.deadlines import on_deadline
from router.execution import TABLE, Execution, apply, begin, fold, fold_events
from tests.builders import BG, INBOX, LIVE, NOW, WEBHOOK, accepted, decision, execution, history, leased, marked
from tests.property.strategies import any_event, beginnings, lives, next_events

PATIENCE = 400
LONG = timedelta(days=365)


@given(lives())
def test_a_life_has_at_most_one_end_and_it_is_its_last_event(life: tuple[Event, ...]) -> None:
    states = [execution(*life[:count]).state for count in range(1, len(life) + 1)]
    ends = [index for index, state in enumerate(states) if state in TERMINAL_STATES]
    assert ends in ([], [len(life) - 1])


@given(lives(), any_event)
def test_nothing_is_accepted_after_the_end(life: tuple[Event, ...], event: Event) -> None:
    standing = execution(*life)
    if standing.is_open:
        return
    try:
        apply(standing, event)
    except IllegalEvent:
        return
    raise AssertionError(f"{event.type} after {standing.state}")


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
    assert moved.state in TABLE or moved.state in TERMINAL_STATES


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
    assert standing.leases == [event.type for event in life].count("leased")
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
        event = on_deadline(standing, None, now, dice, "router-1") or _attempt(standing, now)
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


BEGINNINGS = (
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
    assert set(TABLE) <= set(seen)
    assert all("ended" in TABLE[state] and seen[state].due_at is not None for state in TABLE)


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


def _attempt(standing: Execution, now: datetime) -> Event:
    """What a router does when a webhook is due: it takes a lease, and in this story never comes back."""
    assert standing.state is State.QUEUED
    return leased(standing.leases + 1, (now - NOW).total_seconds())


def _first_marks(standing: Execution) -> list[Event]:
    return [marked()] if standing.state is State.IN_INBOX else []
