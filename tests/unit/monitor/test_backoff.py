"""Waits that grow, spread and end; a bell that is rung often and heard once."""

import pytest

from contracts.errors import Conflict, Unavailable
from monitor.backoff import Backoff, jittered, persist
from monitor.bell import Bell


@pytest.mark.parametrize(("failures", "low", "high"), [(1, 0.1, 0.2), (2, 0.2, 0.4), (10, 5, 10), (10_000, 5, 10)])
def test_waits_double_up_to_their_cap_and_half_of_each_is_chance(failures: int, low: float, high: float) -> None:
    backoff = Backoff(first_s=0.2, cap_s=10)
    assert backoff.delay_s(failures, 0.0) == pytest.approx(low)
    assert backoff.delay_s(failures, 1.0) == pytest.approx(high)


def test_a_period_varies_by_a_tenth() -> None:
    assert jittered(10, lambda: 0.0) == pytest.approx(9)
    assert jittered(10, lambda: 1.0) == pytest.approx(11)


async def test_a_call_is_made_until_it_is_answered() -> None:
    answers = iter([Unavailable("away", "away", retry_after_s=0), Unavailable("away", "away", retry_after_s=0), None])

    async def call() -> str:
        failure = next(answers)
        if failure is not None:
            raise failure
        return "here"

    assert await persist(call, what="test", backoff=Backoff(first_s=0.001)) == "here"


async def test_a_refusal_is_an_answer() -> None:
    async def call() -> None:
        raise Conflict("already_claimed", "no")

    with pytest.raises(Conflict):
        await persist(call, what="test")


async def test_many_rings_before_a_look_are_one() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait(0.001)
    assert not await bell.wait(0.001)
