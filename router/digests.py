"""Digests: what reached an agent with low priority within a period, told in one event. Pure.

    log       1 delivered   2 delivered (priority 3)   3 delivered │ 4 delivered
    period    ──────────────────────────────────────────── closed ─┤
    digest    1 and 3, `last_event_id` 3                           └ waits for the next

The newest digest says where the next one begins: behind its `last_event_id`. What the log was told late, behind the
digest of its period or of a later one, counts for the period told last: periods never overlap, none is told before it
is over, and nothing is left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final

from contracts.records import JsonObject
from contracts.subscriptions import Subscription
from contracts.tenant_events import EventType, StoredEvent, TenantEvent
from router.explain import instant

PERIOD: Final = timedelta(seconds=600)
PRIORITIES: Final = (1, 2)
MAX_BUNDLED: Final = 100
"""Messages per digest: with the longest subjects they stay far below the largest record the broker takes."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Messages of one digest, in the order of the log, and the start of their period."""

    starts_at: datetime
    events: tuple[StoredEvent, ...]

    @property
    def last_event_id(self) -> int:
        return self.events[-1].seq


def start_of(at: datetime, period: timedelta) -> datetime:
    """The start of the period `at` lies in. Periods are counted from the epoch, so all routers mean the same ones."""
    return at - (at - _EPOCH) % period


def asks_for_digests(subscription: Subscription) -> bool:
    """Say whether digests are made for this subscription; one to all types (`*`) is told each message anyway."""
    return subscription.event_type == EventType.MESSAGE_DIGEST


def begins_behind(subscriptions: Sequence[Subscription], newest: StoredEvent | None) -> int:
    """The sequence behind which the next digest of an agent begins."""
    subscribed = min(each.start_seq for each in subscriptions)
    return subscribed if newest is None else max(subscribed, newest.data["last_event_id"])


def told_before(events: Iterable[StoredEvent], closed_at: datetime) -> list[StoredEvent]:
    """The events up to the first that lies in an open period; those behind it wait with it."""
    return list(takewhile(lambda each: _at(each) < closed_at, events))


def bundled(events: Iterable[StoredEvent], newest: StoredEvent | None, period: timedelta) -> list[Bundle]:
    """The messages of low priority among `message.delivered` events of closed periods, as digests bundle them."""
    starts_at = _starts_at(newest) if newest is not None else _EPOCH
    bundles: list[Bundle] = []
    for event in events:
        if event.data["priority"] not in PRIORITIES:
            continue
        starts_at = max(starts_at, start_of(_at(event), period))
        last = bundles[-1] if bundles else None
        if last is not None and last.starts_at == starts_at and len(last.events) < MAX_BUNDLED:
            bundles[-1] = Bundle(starts_at=starts_at, events=(*last.events, event))
        else:
            bundles.append(Bundle(starts_at=starts_at, events=(event,)))
    return bundles


def digest(
    bundle: Bundle, *, owner: str, agent_id: str, period: timedelta, at: datetime, ledger_seq: int
) -> TenantEvent:
    """The event that tells a bundle. `ledger_seq` is that of the log's newest derived record: it stays the newest."""
    data: JsonObject = {
        "recipient_agent_id": agent_id,
        "digest_period_start": instant(bundle.starts_at),
        "digest_period_end": instant(bundle.starts_at + period),
        "bundle_count": len(bundle.events),
        "bundled_messages": [_entry(each) for each in bundle.events],
        "last_event_id": bundle.last_event_id,
    }
    return TenantEvent(
        id=f"evt_digest_{bundle.last_event_id}",
        type=EventType.MESSAGE_DIGEST,
        owner=owner,
        agent_id=agent_id,
        subject=agent_id,
        time=at,
        data=data,
        ledger_seq=ledger_seq,
    )


def _entry(event: StoredEvent) -> JsonObject:
    names = ("message_id", "sender_agent_id", "subject", "priority")
    return {**{name: event.data[name] for name in names}, "emitted_at": event.attributes["time"]}


def _at(event: StoredEvent) -> datetime:
    return datetime.fromisoformat(event.attributes["time"])


def _starts_at(newest: StoredEvent) -> datetime:
    return datetime.fromisoformat(newest.data["digest_period_start"])
