"""Subscriptions to an agent's events, and how far each has got: one record that clients change, one that moves on."""

from dataclasses import dataclass
from datetime import datetime

from contracts.tenant_events import ANY_TYPE
from contracts.words import Word


class DeliveryTarget(Word):
    """How a subscriber learns of events: it asks for them, or they are posted to it."""

    PULL = "pull"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Somebody's interest in an agent's events of one type (`*`: of all). `start_seq` is where the log stood then."""

    id: str
    agent_id: str
    owner: str
    event_type: str
    target: DeliveryTarget
    created_at: datetime
    start_seq: int
    webhook_url: str | None = None
    webhook_secret: str | None = None
    inline_body: bool = False

    def wants(self, event_type: str) -> bool:
        return self.event_type in (ANY_TYPE, event_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriptions:
    """All active subscriptions of one agent, oldest first."""

    items: tuple[Subscription, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One attempt to post events to a subscriber: from which to which, and what came of it.

    `status` None: it did not answer, and `error` says why. `response` is the beginning of a refusal.
    """

    at: datetime
    first_seq: int
    last_seq: int
    status: int | None
    latency_ms: int
    error: str | None = None
    response: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionMark:
    """How far a subscription has got, what went wrong since, and who posts for it until when.

    `dispatched_seq` and `acked_seq` are sequences of the event log; None before the first. `postings` are the last few.
    """

    dispatched_seq: int | None = None
    dispatched_at: datetime | None = None
    acked_seq: int | None = None
    failures: int = 0
    retry_at: datetime | None = None
    paused_until: datetime | None = None
    holder: str | None = None
    held_until: datetime | None = None
    postings: tuple[Posting, ...] = ()


def subscriptions_key(agent_id: str) -> str:
    return f"subs.{agent_id.removeprefix('agent_')}"


def mark_key(subscription_id: str) -> str:
    return f"mark.{subscription_id}"
