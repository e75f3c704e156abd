"""A receiver's line: what it learns from answers, when it rests, and that nothing is kept while it does."""

from datetime import datetime

import pytest

from router.breaker import TOLERATED, Circuit
from router.ports import PostResult
from router.receivers import LOOK_AGAIN, Receiver, has_answered
from tests.builders import NOW, WEBHOOK, after, agent

HOOKED = agent(WEBHOOK, webhook_url="https://receiver.example/hook", webhook_max_in_flight=2)
FAILED = PostResult(status=None, latency_ms=15_000, error="timeout")


def answered(status: int, **fields: float) -> PostResult:
    return PostResult(status=status, latency_ms=1, **fields)  # type: ignore[arg-type]


def keep(_: str, __: datetime) -> None:
    return


def receiver_of(*ulids: str) -> Receiver:
    receiver = Receiver()
    receiver.know(HOOKED)
    for ulid in ulids:
        receiver.add(ulid, keep)
    return receiver


def fail(receiver: Receiver, times: int) -> None:
    for number in range(times):
        receiver.add(f"failing-{number}", keep)
        receiver.end(receiver.begin(HOOKED, NOW), FAILED, NOW)


@pytest.mark.parametrize("status", [200, 204, 299, 400, 404, 410, 422])
def test_who_says_no_to_one_message_is_there_for_the_next(status: int) -> None:
    assert has_answered(PostResult(status=status, latency_ms=1))


@pytest.mark.parametrize("status", [None, 302, 408, 425, 429, 500, 503])
def test_who_is_away_moved_or_overloaded_is_not_there(status: int | None) -> None:
    assert not has_answered(PostResult(status=status, latency_ms=1))


def test_messages_go_in_the_order_they_came_and_each_once() -> None:
    receiver = receiver_of("a", "b", "a")
    first = receiver.begin(HOOKED, NOW)
    receiver.add("a", keep)
    assert (first, receiver.begin(HOOKED, NOW), list(receiver.waiting)) == ("a", "b", [])
    assert receiver.is_busy(HOOKED)


def test_a_receiver_that_fails_rests_and_is_tried_by_one() -> None:
    receiver = receiver_of()
    fail(receiver, TOLERATED)
    assert receiver.rests_until(HOOKED, NOW) == after(30)
    assert receiver.rests_until(HOOKED, after(30)) is None

    receiver.add("probe", keep)
    receiver.begin(HOOKED, after(30))
    assert receiver.is_busy(HOOKED)
    receiver.end("probe", answered(204), after(30))
    assert receiver.breaker.is_pristine
    assert receiver.is_forgettable


def test_a_probe_that_was_not_made_is_made_by_the_next() -> None:
    receiver = receiver_of()
    fail(receiver, TOLERATED)
    receiver.add("taken-by-another", keep)
    receiver.end(receiver.begin(HOOKED, after(30)), None, after(30))
    assert receiver.breaker.circuit is Circuit.OPEN
    assert receiver.rests_until(HOOKED, after(30)) is None


def test_a_resting_receiver_keeps_nothing_in_memory() -> None:
    given_back = []
    receiver = receiver_of()
    receiver.add("a", lambda ulid, until: given_back.append((ulid, until)))
    receiver.give_back(after(30))
    assert given_back == [("a", after(30))]
    assert not receiver.waiting
    assert not receiver.order


@pytest.mark.parametrize(("status", "rests_s"), [(429, 120), (503, 120), (500, None)])
def test_patience_is_granted_to_those_who_may_ask_for_it(status: int, rests_s: float | None) -> None:
    receiver = receiver_of("a")
    receiver.end(receiver.begin(HOOKED, NOW), answered(status, retry_after_s=120.0), NOW)
    assert receiver.rests_until(HOOKED, NOW) == (None if rests_s is None else after(rests_s))


def test_a_rate_spaces_what_is_begun() -> None:
    slow = agent(WEBHOOK, webhook_url=HOOKED.webhook_url, webhook_per_s=2.0)
    receiver = receiver_of("a", "b")
    receiver.begin(slow, NOW)
    assert receiver.rests_until(slow, NOW) == after(0.5)
    assert receiver.rests_until(slow, after(0.5)) is None


def test_a_rate_is_remembered_between_messages_until_it_is_lifted() -> None:
    slow = agent(WEBHOOK, webhook_url=HOOKED.webhook_url, webhook_per_s=2.0)
    receiver = receiver_of("a")
    receiver.end(receiver.begin(slow, NOW), answered(204), NOW)
    assert not receiver.is_forgettable

    receiver.add("b", keep)
    receiver.end(receiver.begin(HOOKED, after(1)), answered(204), after(1))
    assert receiver.is_forgettable


def test_a_disabled_receiver_is_looked_at_again_and_not_asked() -> None:
    disabled = agent(WEBHOOK, webhook_url=HOOKED.webhook_url, webhook_disabled_at=NOW)
    assert receiver_of("a").rests_until(disabled, NOW) == NOW + LOOK_AGAIN


def test_another_url_starts_without_a_past() -> None:
    receiver = receiver_of()
    fail(receiver, TOLERATED)
    moved = agent(WEBHOOK, webhook_url="https://elsewhere.example/hook")
    receiver.know(moved)
    assert receiver.rests_until(moved, NOW) is None
