"""Digests: which messages are bundled, in which periods, and where the next one begins."""

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from contracts.subscriptions import DeliveryTarget, Subscription
from contracts.tenant_events import EventType, StoredEvent, TenantEvent
from router.digests import (
    MAX_BUNDLED,
    PERIOD,
    Bundle,
    asks_for_digests,
    begins_behind,
    bundled,
    digest,
    start_of,
    told_before,
)
from router.explain import instant

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
AGENT = "agent_abcdefghijkl"


def delivered(seq: int, minutes: float, priority: int = 1) -> StoredEvent:
    data = {"message_id": f"msg_{seq}", "sender_agent_id": None, "subject": "Hello", "priority": priority}
    at = instant(NOON + timedelta(minutes=minutes))
    return StoredEvent(seq=seq, attributes={"type": "message.delivered", "time": at, "data": data})


def written(bundle: Bundle, seq: int = 99) -> StoredEvent:
    """A bundle's digest as it lies in the log."""
    event = told(bundle)
    attributes = {"type": event.type.value, "time": instant(event.time), "data": event.data}
    return StoredEvent(seq=seq, attributes=attributes)


def told(bundle: Bundle) -> TenantEvent:
    return digest(bundle, owner="max", agent_id=AGENT, period=PERIOD, at=NOON, ledger_seq=7)


def subscription(event_type: str = "message.digest", start_seq: int = 5) -> Subscription:
    return Subscription(
        id="sub_x",
        agent_id=AGENT,
        owner="max",
        event_type=event_type,
        target=DeliveryTarget.PULL,
        created_at=NOON,
        start_seq=start_seq,
    )


def sequences(bundles: list[Bundle]) -> list[list[int]]:
    return [[event.seq for event in each.events] for each in bundles]


def test_periods_are_counted_from_the_epoch() -> None:
    assert start_of(NOON + timedelta(seconds=599.9), PERIOD) == NOON
    assert start_of(NOON + timedelta(seconds=600), PERIOD) == NOON + PERIOD


def test_only_the_two_lowest_priorities_are_bundled_by_their_periods() -> None:
    events = [delivered(1, 0, 1), delivered(2, 1, 3), delivered(3, 9, 2), delivered(4, 11, 1), delivered(5, 12, 5)]

    bundles = bundled(events, None, PERIOD)

    assert sequences(bundles) == [[1, 3], [4]]
    assert [each.starts_at for each in bundles] == [NOON, NOON + PERIOD]


def test_what_follows_an_open_period_waits_with_it() -> None:
    events = [delivered(1, 1), delivered(2, 10), delivered(3, 9)]

    assert [each.seq for each in told_before(events, NOON + PERIOD)] == [1]


def test_what_was_told_late_counts_for_the_period_told_last_and_never_for_an_open_one() -> None:
    newest = written(bundled([delivered(1, 11)], None, PERIOD)[0])

    late, next_one = bundled([delivered(2, 2), delivered(3, 12), delivered(4, 21)], newest, PERIOD)

    assert (late.starts_at, next_one.starts_at) == (NOON + PERIOD, NOON + 2 * PERIOD)
    assert sequences([late, next_one]) == [[2, 3], [4]]


def test_a_period_with_very_many_messages_is_told_in_several_digests() -> None:
    bundles = bundled([delivered(seq, 1) for seq in range(1, 2 * MAX_BUNDLED + 2)], None, PERIOD)

    assert [len(each.events) for each in bundles] == [MAX_BUNDLED, MAX_BUNDLED, 1]
    assert {each.starts_at for each in bundles} == {NOON}


def test_a_digest_tells_its_period_and_its_messages() -> None:
    event = told(bundled([delivered(1, 1), delivered(3, 2, 2)], None, PERIOD)[0])

    assert (event.type, event.subject, event.id, event.ledger_seq) == (
        EventType.MESSAGE_DIGEST,
        AGENT,
        "evt_digest_3",
        7,
    )
    assert event.data["recipient_agent_id"] == AGENT
    assert event.data["digest_period_start"] == "2026-01-02T12:00:00.000Z"
    assert event.data["digest_period_end"] == "2026-01-02T12:10:00.000Z"
    assert event.data["bundle_count"] == 2
    assert event.data["bundled_messages"][1] == {
        "message_id": "msg_3",
        "sender_agent_id": None,
        "subject": "Hello",
        "priority": 2,
        "emitted_at": "2026-01-02T12:02:00.000Z",
    }


def test_the_next_digest_begins_behind_the_newest_and_never_before_the_subscription() -> None:
    newest = written(bundled([delivered(8, 1)], None, PERIOD)[0])

    assert begins_behind([subscription(start_seq=5), subscription(start_seq=9)], None) == 5
    assert begins_behind([subscription(start_seq=5)], newest) == 8
    assert begins_behind([subscription(start_seq=20)], newest) == 20


def test_only_a_subscription_to_digests_asks_for_them() -> None:
    assert asks_for_digests(subscription())
    assert not asks_for_digests(subscription("*"))
    assert not asks_for_digests(subscription("message.delivered"))


@given(
    minutes=st.lists(st.floats(0, 60), max_size=40),
    priorities=st.lists(st.integers(1, 5), min_size=40, max_size=40),
    looks=st.lists(st.sampled_from([0, 7, 10, 12, 20, 30, 45, 60]), max_size=20),
    at_once=st.sampled_from([1, 2, 5, 40]),
)
@example(minutes=[1, 2], priorities=[1] * 40, looks=[10, 10], at_once=1)
def test_looks_at_any_times_tell_each_message_once_and_periods_in_order_when_they_are_over(
    minutes: list[float], priorities: list[int], looks: list[int], at_once: int
) -> None:
    log = [delivered(seq, at, priorities[seq - 1]) for seq, at in enumerate(minutes, 1)]
    newest: StoredEvent | None = None
    found: list[Bundle] = []
    read_up_to = 0
    for look in [*sorted(looks), *[120] * len(log)]:
        after = max(begins_behind([subscription(start_seq=0)], newest), read_up_to)
        rest = [each for each in log if each.seq > after][:at_once]
        closed_at = start_of(NOON + timedelta(minutes=look), PERIOD)
        events = told_before(rest, closed_at)
        bundles = bundled(events, newest, PERIOD)
        assert all(each.starts_at + PERIOD <= closed_at for each in bundles)
        found += bundles
        newest = written(bundles[-1]) if bundles else newest
        read_up_to = events[-1].seq if events else read_up_to

    low = [each.seq for each in log if each.data["priority"] < 3]
    assert [seq for each in sequences(found) for seq in each] == low
    assert [each.starts_at for each in found] == sorted(each.starts_at for each in found)
