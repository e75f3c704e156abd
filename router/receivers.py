"""One receiver of webhooks, as one router sees it: what waits, what is under way, and whether it may be asked."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import anyio

from contracts.records import Agent
from router import breaker
from router.breaker import Breaker, Circuit
from router.ports import PostResult

Postpone = Callable[[str, datetime], None]
"""Gives a message back until then."""

LOOK_AGAIN: Final = timedelta(minutes=1)
"""How often a message whose receiver is disabled is looked at: somebody may have enabled it."""
SLOW_DOWN: Final = frozenset({408, 425, 429})
ASKS_FOR_PATIENCE: Final = frozenset({429, 503})


@dataclass(eq=False, slots=True)
class Receiver:
    """`changed` is set when a delivery ends; `next_at` is the instant the rate allows the next one."""

    waiting: dict[str, Postpone] = field(default_factory=dict)
    order: deque[str] = field(default_factory=deque)
    under_way: set[str] = field(default_factory=set)
    breaker: Breaker = field(default_factory=Breaker)
    url: str | None = None
    next_at: datetime | None = None
    is_served: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def is_forgettable(self) -> bool:
        """Nothing waits, nothing is under way, nothing is known against it, and no rate is counted."""
        is_idle = not (self.waiting or self.under_way or self.is_served)
        return is_idle and self.breaker.is_pristine and self.next_at is None

    def add(self, ulid: str, postpone: Postpone) -> None:
        """A message already here stays where it is."""
        if ulid not in self.waiting and ulid not in self.under_way:
            self.waiting[ulid] = postpone
            self.order.append(ulid)

    def know(self, agent: Agent) -> None:
        """What was learned of another URL says nothing of this one."""
        if agent.webhook_url != self.url:
            self.url, self.breaker = agent.webhook_url, Breaker()

    def is_busy(self, agent: Agent) -> bool:
        """Whether a delivery under way has to end first."""
        is_tried = self.breaker.circuit is Circuit.HALF_OPEN
        return len(self.under_way) >= agent.webhook_max_in_flight or (is_tried and bool(self.under_way))

    def rests_until(self, agent: Agent, now: datetime) -> datetime | None:
        """When the next delivery may begin; None: now."""
        if agent.webhook_disabled_at is not None:
            return now + LOOK_AGAIN
        if not breaker.admits(self.breaker, now):
            return self.breaker.open_until
        return self.next_at if agent.webhook_per_s and self.next_at and self.next_at > now else None

    def begin(self, agent: Agent, now: datetime) -> str:
        """Take the message that has waited longest."""
        self.breaker = breaker.tried(self.breaker, now)
        pause = timedelta(seconds=1 / agent.webhook_per_s) if agent.webhook_per_s else None
        self.next_at = max(self.next_at or now, now) + pause if pause else None
        ulid = self.order.popleft()
        del self.waiting[ulid]
        self.under_way.add(ulid)
        return ulid

    def end(self, ulid: str, result: PostResult | None, now: datetime) -> None:
        """Learn from what came of a delivery; None: it was not made."""
        self.under_way.discard(ulid)
        if result is None:
            self.breaker = breaker.abandoned(self.breaker, now)
        elif has_answered(result):
            self.breaker = breaker.succeeded(self.breaker)
        else:
            asked_s = result.retry_after_s if result.status in ASKS_FOR_PATIENCE else None
            self.breaker = breaker.failed(self.breaker, now, asked_s=asked_s)
        self.changed.set()
        self.changed = anyio.Event()

    def give_back(self, until: datetime) -> None:
        """Keep nothing in memory for a receiver that rests: every deadline is in the ledger."""
        waiting, self.waiting = self.waiting, {}
        self.order.clear()
        for ulid, postpone in waiting.items():
            postpone(ulid, until)


def has_answered(result: PostResult) -> bool:
    """Say whether somebody is there who takes requests: "no" to one message says nothing of the next."""
    status = result.status
    return status is not None and (200 <= status < 300 or (400 <= status < 500 and status not in SLOW_DOWN))
