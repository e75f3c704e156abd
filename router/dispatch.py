"""What becomes of a subscription's mark: taken, moved on, set back, paused; and what a subscriber is sent. Pure.

free ──taken──▶ held ──delivered──▶ further on: held while there is more, free otherwise
                  └──failed──▶ free, not before `retry_at` │ the tenth time: paused for an hour, then anew
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from contracts.records import JsonObject
from contracts.subscriptions import Posting, Subscription, SubscriptionMark
from contracts.tenant_events import StoredEvent
from router.explain import instant
from router.ports import PostResult

BATCH: Final = 50
MAX_FAILURES: Final = 10
PAUSE: Final = timedelta(hours=1)
BACKOFF_S: Final = (1, 2, 5, 10, 20, 40, 60, 120, 300)
INLINE_MAX_BYTES: Final = 32_768
GONE: Final = 410
POSTINGS: Final = 10
"""How many postings a mark remembers: it is written anew after each of them."""
RESPONSE_CHARACTERS: Final = 512


def not_before(mark: SubscriptionMark, name: str, now: datetime) -> datetime | None:
    """When `name` may act on this subscription; None: now. Another's hold, a pause and a backoff are waited out."""
    bounds = [mark.paused_until, mark.retry_at, mark.held_until if mark.holder != name else None]
    latest = max((bound for bound in bounds if bound is not None), default=now)
    return latest if latest > now else None


def position(subscription: Subscription, mark: SubscriptionMark) -> int:
    """The sequence behind which the subscriber's next event lies."""
    return subscription.start_seq if mark.dispatched_seq is None else mark.dispatched_seq


def is_held(mark: SubscriptionMark, name: str, until: datetime) -> bool:
    """Say whether `name` holds the subscription for the whole time until then."""
    return mark.holder == name and mark.held_until is not None and mark.held_until >= until


def taken(mark: SubscriptionMark, name: str, until: datetime) -> SubscriptionMark:
    """Held by `name`. After a pause the failures are counted anew: one more does not pause it again."""
    failures = 0 if mark.paused_until is not None else mark.failures
    return replace(mark, holder=name, held_until=until, paused_until=None, retry_at=None, failures=failures)


def delivered(mark: SubscriptionMark, last_seq: int, now: datetime, *, hold_until: datetime | None) -> SubscriptionMark:
    """Further on; held until then if there is more to post, else free at once."""
    return replace(
        mark,
        dispatched_seq=last_seq,
        dispatched_at=now,
        failures=0,
        retry_at=None,
        holder=mark.holder if hold_until else None,
        held_until=hold_until,
    )


def failed(mark: SubscriptionMark, result: PostResult, now: datetime) -> SubscriptionMark:
    """Free for whoever is there when the backoff is over. 410 is the receiver's last word for now."""
    failures = mark.failures + 1
    freed = replace(mark, failures=failures, holder=None, held_until=None)
    if failures >= MAX_FAILURES or result.status == GONE:
        return replace(freed, paused_until=now + PAUSE, retry_at=None)
    wait_s = max(BACKOFF_S[min(failures, len(BACKOFF_S)) - 1], min(result.retry_after_s or 0, PAUSE.total_seconds()))
    return replace(freed, retry_at=now + timedelta(seconds=wait_s))


def logged(
    mark: SubscriptionMark, events: Sequence[StoredEvent], result: PostResult, now: datetime
) -> SubscriptionMark:
    """With this posting as the newest of the last few."""
    refusal = "" if is_delivered(result) else result.excerpt[:RESPONSE_CHARACTERS]
    posting = Posting(
        at=now,
        first_seq=events[0].seq,
        last_seq=events[-1].seq,
        status=result.status,
        latency_ms=result.latency_ms,
        error=result.error,
        response=refusal,
    )
    return replace(mark, postings=(*mark.postings, posting)[-POSTINGS:])


def is_delivered(result: PostResult) -> bool:
    return result.status is not None and 200 <= result.status < 300


def event_view(event: StoredEvent) -> JsonObject:
    """An event as subscribers read it, by push and by pull: `id` is its place in the log, `event_id` its stable id."""
    attributes = event.attributes
    return {
        "id": event.seq,
        "event_id": attributes["id"],
        "event_type": attributes["type"],
        "source": attributes["source"],
        "subject": attributes["subject"],
        "recipient_agent_id": event.data.get("recipient_agent_id"),
        "payload": attributes["data"],
        "emitted_at": attributes["time"],
    }


def with_body(view: JsonObject, body: str) -> JsonObject:
    """The view with the message's text in its payload, or with its size where it is too long for an event."""
    size = len(body.encode())
    more: dict[str, Any] = {"body": body}
    if size > INLINE_MAX_BYTES:
        more = {"body_omitted": "size_too_large", "body_size_bytes": size}
    return {**view, "payload": {**view["payload"], **more}}


def delivery_id(subscription: Subscription, events: Sequence[StoredEvent]) -> str:
    """The same for the same events: the receiver's idempotency key."""
    return f"dlv_{subscription.id}_{events[0].seq}_{events[-1].seq}"


def payload(subscription: Subscription, named: str, views: Sequence[JsonObject], at: datetime) -> JsonObject:
    return {
        "type": "events",
        "timestamp": instant(at),
        "delivery_id": named,
        "subscription_id": subscription.id,
        "agent_id": subscription.agent_id,
        "events": list(views),
    }
