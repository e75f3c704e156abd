"""Drawings and tables say the same, and the closed sets of words are covered by those who rule over them."""

import re
from collections.abc import Iterator
from typing import get_args

import pytest

from contracts.events import Event
from contracts.words import (
    DEAD_LETTER_STATES,
    OPEN_STATES,
    SETTLED_STATES,
    TERMINAL_STATES,
    Channel,
    DeliveryRoute,
    EffectiveMode,
    State,
)
from router import execution
from router.channels import ALL
from router.execution import TABLE

ARROW = re.compile(
    r"(?:(?P<source>any open state|any terminal state|any dead letter|[a-z_]+) |(?P<branch>[├└]))"
    r"──(?P<event>[a-z_]+)──▶(?= (?P<targets>[a-z_| ]+))"
)
WORD = re.compile(r"[a-z_]+")
SAID_OF_AN_OUTCOME = ("evidence_added", "verification_changed")
STATES = {state.value for state in State}
SETS = {
    "any open state": OPEN_STATES,
    "any terminal state": TERMINAL_STATES,
    "any dead letter": DEAD_LETTER_STATES,
}


ROUTED = {rules.first_state.value for rules in ALL.values()} | {State.WAITING.value}
"""Where a message that is being routed may begin."""


def drawing() -> list[str]:
    assert execution.__doc__ is not None
    return execution.__doc__.splitlines()


def arrows() -> Iterator[tuple[str, str, set[str]]]:
    """Every arrow with an event on it: (state, event, targets)."""
    lines = drawing()
    for index, line in enumerate(lines):
        for match in ARROW.finditer(line):
            source = match["source"] or state_above(lines[:index], match.start("branch"))
            yield source, match["event"], {word for word in WORD.findall(match["targets"]) if word in STATES}


def state_above(lines: list[str], column: int) -> str:
    """The state a branch at `column` hangs from: the nearest one above whose name covers the column."""
    for line in reversed(lines):
        for word in WORD.finditer(line):
            if word[0] in STATES and word.start() <= column < word.end():
                return word[0]
        assert line[column] in "│├", f"nothing above column {column}: {line!r}"
    raise AssertionError("a branch hangs from nothing")


def drawn_pairs() -> set[tuple[str, str]]:
    pairs = set()
    for source, event, _ in arrows():
        pairs |= {(state.value, event) for state in SETS.get(source) or {State(source)}}
    return pairs


def test_the_drawing_of_an_execution_shows_the_table_and_nothing_else() -> None:
    assert drawn_pairs() == {(state.value, event) for state, events in TABLE.items() for event in events}


def test_the_drawing_leads_from_acceptance_to_every_state_an_execution_can_begin_in() -> None:
    begun = {match[1] for line in drawing() if (match := re.search(r"[┬├└]─▶ ([a-z_]+)", line))}
    assert begun - {"any"} == ROUTED | {State.SCHEDULED.value}


def test_the_drawing_leads_from_a_release_to_every_state_a_routed_execution_can_begin_in() -> None:
    [released] = [targets for _, event, targets in arrows() if event == "released"]
    assert released == ROUTED


def test_every_drawn_way_reaches_an_end() -> None:
    onward: dict[str, set[str]] = {}
    for source, _, targets in arrows():
        onward.setdefault(source, set()).update(targets)
    ends = {"delivered"}
    while more := {state for state, targets in onward.items() if targets & ends} - ends:
        ends |= more
    assert {state.value for state in OPEN_STATES} <= ends


@pytest.mark.parametrize("state", sorted(OPEN_STATES))
def test_an_open_state_can_be_ended_and_is_neither_replayed_nor_verified(state: State) -> None:
    assert "ended" in TABLE[state]
    assert not TABLE[state] & {"replayed", *SAID_OF_AN_OUTCOME}


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_after_a_terminal_state_there_is_a_replay_a_discard_and_of_an_outcome_its_worth_and_nothing_else(
    state: State,
) -> None:
    said = set(SAID_OF_AN_OUTCOME) if state is State.DELIVERED else set()
    if state in DEAD_LETTER_STATES:
        said = {"discarded"}
    assert TABLE[state] == {"replayed", *said}


def test_every_terminal_state_is_a_dead_letter_or_settled_and_never_both() -> None:
    assert DEAD_LETTER_STATES | SETTLED_STATES == TERMINAL_STATES
    assert not DEAD_LETTER_STATES & SETTLED_STATES


def test_the_table_knows_every_state_and_every_kind_of_event_but_the_acceptance() -> None:
    kinds = {kind.__dataclass_fields__["type"].default for kind in get_args(Event)}
    assert set(TABLE) == set(State)
    assert frozenset().union(*TABLE.values()) == kinds - {"accepted"}


def test_terminal_states_follow_the_open_ones_in_the_vocabulary() -> None:
    states = list(State)
    assert set(states[: len(OPEN_STATES)]) == OPEN_STATES


@pytest.mark.parametrize("channel", list(Channel))
def test_every_channel_has_rules_of_its_own_with_open_beginnings_and_terminal_ends(channel: Channel) -> None:
    rules = ALL[channel]
    assert rules.channel is channel
    assert rules.first_state in OPEN_STATES
    assert {rules.exhausted, rules.expired} <= TERMINAL_STATES


def test_every_mode_and_every_route_belongs_to_a_channel_or_is_a_named_detour() -> None:
    assert {rules.mode for rules in ALL.values()} == set(EffectiveMode) - {EffectiveMode.BACKGROUND_FALLBACK}
    detours = {DeliveryRoute.BACKGROUND_FALLBACK, DeliveryRoute.LIVE_UNVERIFIED}
    assert {rules.route for rules in ALL.values()} == set(DeliveryRoute) - detours
