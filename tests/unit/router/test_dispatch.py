"""A subscription's mark: who may act, how it moves on, when it is set back and when it is paused."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.subscriptions import DeliveryTarget, Subscription, SubscriptionMark
from contracts.tenant_events import StoredEvent
from router import dispatch
from router.ports import PostResult

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(seconds=20)
BROKEN = PostResult(status=500, latency_ms=1)
SUBSCRIPTION = Subscription(
    id="sub_x",
    agent_id="agent_abcdefghijkl",
    owner="max",
    event_type="message.delivered",
    target=DeliveryTarget.WEBHOOK,
    created_at=NOW,
    start_seq=7,
)


def test_a_free_mark_may_be_taken_and_a_held_one_by_its_holder_only() -> None:
    held = dispatch.taken(SubscriptionMark(), "a", LATER)

    assert dispatch.not_before(SubscriptionMark(), "a", NOW) is None
    assert dispatch.not_before(held, "a", NOW) is None
    assert dispatch.not_before(held, "b", NOW) == LATER
    assert dispatch.not_before(held, "b", LATER) is None
    assert dispatch.is_held(held, "a", LATER)
    assert not dispatch.is_held(held, "a", LATER + timedelta(seconds=1))
    assert not dispatch.is_held(held, "b", NOW)


def test_a_delivery_moves_on_and_frees_unless_there_is_more() -> None:
    held = dispatch.taken(SubscriptionMark(failures=3), "a", LATER)
    more = dispatch.delivered(held, 50, NOW, hold_until=LATER)
    done = dispatch.delivered(held, 50, NOW, hold_until=None)

    assert (more.dispatched_seq, more.failures, more.holder) == (50, 0, "a")
    assert (done.holder, done.held_until) == (None, None)
    assert dispatch.position(SUBSCRIPTION, done) == 50
    assert dispatch.position(SUBSCRIPTION, SubscriptionMark()) == 7


def test_failures_back_off_ever_longer_and_the_tenth_pauses() -> None:
    mark, waits = SubscriptionMark(holder="a", held_until=LATER), []
    for _ in range(9):
        mark = dispatch.failed(mark, BROKEN, NOW)
        assert mark.retry_at is not None
        assert mark.holder is None
        waits.append(mark.retry_at - NOW)
    paused = dispatch.failed(mark, BROKEN, NOW)

    assert waits == sorted(waits)
    assert (paused.failures, paused.retry_at, paused.paused_until) == (10, None, NOW + dispatch.PAUSE)
    assert dispatch.not_before(paused, "a", NOW) == NOW + dispatch.PAUSE


def test_after_a_pause_one_more_failure_does_not_pause_again() -> None:
    paused = SubscriptionMark(failures=10, paused_until=NOW)
    again = dispatch.failed(dispatch.taken(paused, "a", LATER), BROKEN, NOW)

    assert (again.failures, again.paused_until) == (1, None)


def test_a_mark_remembers_the_last_postings_and_what_was_refused() -> None:
    mark = SubscriptionMark()
    batches = [[StoredEvent(seq=10 * n, attributes={}), StoredEvent(seq=10 * n + 4, attributes={})] for n in range(12)]
    for events in batches:
        mark = dispatch.logged(mark, events, PostResult(status=500, latency_ms=3, excerpt="x" * 5_000), NOW)
    mark = dispatch.logged(mark, batches[-1], PostResult(status=200, latency_ms=2, excerpt="thanks"), LATER)

    assert len(mark.postings) == dispatch.POSTINGS
    refused, taken = mark.postings[-2:]
    assert (refused.first_seq, refused.last_seq, refused.status) == (110, 114, 500)
    assert refused.response == "x" * dispatch.RESPONSE_CHARACTERS
    assert (taken.at, taken.status, taken.response) == (LATER, 200, "")


def test_410_pauses_at_once_and_retry_after_is_honoured_within_bounds() -> None:
    gone = dispatch.failed(SubscriptionMark(), PostResult(status=410, latency_ms=1), NOW)
    asked = dispatch.failed(SubscriptionMark(), PostResult(status=503, latency_ms=1, retry_after_s=90), NOW)
    greedy = dispatch.failed(SubscriptionMark(), PostResult(status=503, latency_ms=1, retry_after_s=1e6), NOW)

    assert gone.paused_until == NOW + dispatch.PAUSE
    assert asked.retry_at == NOW + timedelta(seconds=90)
    assert greedy.retry_at == NOW + dispatch.PAUSE


@pytest.mark.parametrize(("status", "counts"), [(200, True), (204, True), (302, False), (404, False), (None, False)])
def test_any_2xx_is_a_delivery(status: int | None, counts: bool) -> None:
    assert dispatch.is_delivered(PostResult(status=status, latency_ms=1)) is counts


def test_the_same_events_have_the_same_delivery_id() -> None:
    events = [StoredEvent(seq=seq, attributes={}) for seq in (8, 9)]

    assert dispatch.delivery_id(SUBSCRIPTION, events) == "dlv_sub_x_8_9"


def test_a_text_goes_in_up_to_32_kib() -> None:
    view = {"id": 1, "payload": {"message_id": "msg_x"}}

    assert dispatch.with_body(view, "é" * 16_384)["payload"]["body"] == "é" * 16_384
    too_long = dispatch.with_body(view, "é" * 16_385)["payload"]
    assert too_long == {"message_id": "msg_x", "body_omitted": "size_too_large", "body_size_bytes": 32_770}
