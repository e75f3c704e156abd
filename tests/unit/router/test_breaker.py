"""The breaker: its drawing as a table, how long it rests, and what a receiver may ask for."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.breaker import (
    FIRST_REST,
    LONGEST_ASKED,
    LONGEST_REST,
    TOLERATED,
    Breaker,
    Circuit,
    abandoned,
    admits,
    failed,
    succeeded,
    tried,
)
from tests.builders import NOW, after

OPEN = Breaker(circuit=Circuit.OPEN, failures=TOLERATED, rests=1, open_until=after(30))
HALF_OPEN = replace(OPEN, circuit=Circuit.HALF_OPEN)
NEARLY = Breaker(failures=TOLERATED - 1)


@pytest.mark.parametrize(
    ("before", "then", "circuit", "open_for_s"),
    [
        (Breaker(), failed(Breaker(), NOW), Circuit.CLOSED, None),
        (NEARLY, failed(NEARLY, NOW), Circuit.OPEN, 30),
        (NEARLY, succeeded(NEARLY), Circuit.CLOSED, None),
        (Breaker(), failed(Breaker(), NOW, asked_s=60), Circuit.OPEN, 60),
        (NEARLY, failed(NEARLY, NOW, asked_s=5), Circuit.OPEN, 30),
        (Breaker(), failed(Breaker(), NOW, asked_s=1e9), Circuit.OPEN, 3_600),
        (OPEN, tried(OPEN, after(30)), Circuit.HALF_OPEN, 30),
        (OPEN, succeeded(OPEN), Circuit.CLOSED, None),
        (OPEN, failed(OPEN, after(1)), Circuit.OPEN, 30),
        (OPEN, failed(OPEN, after(1), asked_s=60), Circuit.OPEN, 61),
        (HALF_OPEN, succeeded(HALF_OPEN), Circuit.CLOSED, None),
        (HALF_OPEN, failed(HALF_OPEN, after(31)), Circuit.OPEN, 31 + 60),
        (HALF_OPEN, abandoned(HALF_OPEN, after(31)), Circuit.OPEN, 31),
        (NEARLY, abandoned(NEARLY, NOW), Circuit.CLOSED, None),
    ],
)
def test_each_arrow_of_the_drawing(before: Breaker, then: Breaker, circuit: Circuit, open_for_s: float | None) -> None:
    assert then.circuit is circuit
    assert then.open_until == (None if open_for_s is None else after(open_for_s))


def test_an_open_breaker_lets_one_attempt_through_when_its_time_is_over() -> None:
    assert not admits(OPEN, after(29.9))
    assert admits(OPEN, after(30))
    assert not admits(tried(OPEN, after(30)), after(1_000))


@pytest.mark.parametrize("breaker", [OPEN, HALF_OPEN])
def test_an_attempt_that_may_not_be_made_is_a_mistake(breaker: Breaker) -> None:
    with pytest.raises(ValueError, match=breaker.circuit.value):
        tried(breaker, NOW)


def test_only_a_success_forgets_how_often_it_has_rested() -> None:
    breaker = OPEN
    rests = []
    for _ in range(8):
        until = breaker.open_until
        assert until is not None
        breaker = failed(tried(breaker, until), until)
        assert breaker.open_until is not None
        rests.append((breaker.open_until - until).total_seconds())

    assert rests == [60, 120, 240, 480, 600, 600, 600, 600]
    assert succeeded(breaker).is_pristine


@given(st.lists(st.tuples(st.sampled_from(["ok", "no", "asked", "lost"]), st.integers(0, 3_000)), max_size=60))
def test_whatever_happens_it_is_tried_again_within_an_hour_and_by_one_at_a_time(steps: list[tuple[str, int]]) -> None:
    breaker, now = Breaker(), NOW
    for what, wait_s in steps:
        now += timedelta(seconds=wait_s)
        if not admits(breaker, now):
            assert breaker.circuit is Circuit.OPEN
            assert breaker.open_until is not None
            assert now < breaker.open_until <= now + max(LONGEST_ASKED, LONGEST_REST)
            continue
        breaker = tried(breaker, now)
        assert breaker.circuit is Circuit.CLOSED or not admits(breaker, now + LONGEST_ASKED)
        match what:
            case "ok":
                breaker = succeeded(breaker)
                assert breaker == Breaker()
            case "lost":
                breaker = abandoned(breaker, now)
                assert admits(breaker, now)
            case "asked":
                breaker = failed(breaker, now, asked_s=wait_s)
            case _:
                breaker = failed(breaker, now)
        assert breaker.failures < TOLERATED or breaker.circuit is not Circuit.CLOSED
    assert FIRST_REST <= LONGEST_REST <= LONGEST_ASKED
