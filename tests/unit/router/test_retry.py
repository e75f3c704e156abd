"""The ladders of pauses: how long they are, how far they spread, how patient a receiver may ask us to be."""

import math
from datetime import timedelta

import pytest

from router.channels import ALL
from router.retry import JITTER, LONGEST_ASKED_S, Ladder
from tests.builders import BG, INBOX, LIVE, NOW, WEBHOOK

LOWEST = 0.0
LADDER = Ladder(delays_s=(10, 100, 1_000))


def pause_s(failed: int, dice: float = LOWEST, *, ladder: Ladder = LADDER, asked_s: float | None = None) -> float:
    return (ladder.retry_at(failed, NOW, dice, asked_s=asked_s) - NOW) / timedelta(seconds=1)


def test_there_is_one_attempt_more_than_there_are_pauses() -> None:
    assert LADDER.max_attempts == 4
    assert Ladder().max_attempts == 1


@pytest.mark.parametrize(("failed", "expected"), [(1, 10), (2, 100), (3, 1_000), (4, 1_000), (99, 1_000)])
def test_each_failure_climbs_one_rung_and_the_last_rung_repeats(failed: int, expected: float) -> None:
    assert pause_s(failed) == expected


@pytest.mark.parametrize("dice", [0.0, 0.25, 0.5, 0.75, math.nextafter(1.0, 0.0)])
def test_a_pause_is_its_rung_and_up_to_a_fifth_more(dice: float) -> None:
    assert 100 <= pause_s(2, dice) <= 100 * (1 + JITTER)


def test_the_dice_reach_both_ends_of_the_spread() -> None:
    assert pause_s(2, 0.0) == pytest.approx(100)
    assert pause_s(2, math.nextafter(1.0, 0.0)) == pytest.approx(120)


def test_a_receiver_that_asks_for_more_patience_gets_it() -> None:
    assert pause_s(1, asked_s=500) == 500


def test_a_receiver_that_asks_for_less_is_not_hurried() -> None:
    assert pause_s(2, asked_s=1) == 100


@pytest.mark.parametrize("asked_s", [LONGEST_ASKED_S, LONGEST_ASKED_S + 1, 1e12, math.inf])
def test_nobody_may_ask_for_more_than_an_hour(asked_s: float) -> None:
    assert pause_s(1, asked_s=asked_s) == LONGEST_ASKED_S


@pytest.mark.parametrize("asked_s", [-1.0, -math.inf, math.nan, 0.0, None])
def test_nonsense_in_retry_after_is_as_good_as_nothing(asked_s: float | None) -> None:
    assert pause_s(1, asked_s=asked_s) == 10


def test_a_ladder_without_rungs_retries_at_once() -> None:
    assert pause_s(1, ladder=Ladder()) == 0


def test_webhooks_are_tried_for_at_least_twenty_seven_hours() -> None:
    ladder = ALL[WEBHOOK].ladder
    total = sum(pause_s(failed, ladder=ladder) for failed in range(1, ladder.max_attempts))
    assert total >= 27 * 3_600
    assert ladder.max_attempts == 8


def test_background_work_is_tried_three_times_and_the_other_channels_once() -> None:
    assert ALL[BG].ladder.max_attempts == 3
    assert ALL[LIVE].ladder.max_attempts == ALL[INBOX].ladder.max_attempts == 1
