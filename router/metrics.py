"""The router's metrics, by the names dashboards use."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.clock import Clock
from router.agenda import Agenda
from router.execution import Execution
from router.ports import PostResult

WEBHOOK_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
"""Up to how long an attempt may take."""


class RouterMetrics:
    """One set per process, in a registry of its own so that tests can have many."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._followed = Counter("postroom_ledger_events_followed", "Ledger events read.", registry=registry)
        self._open = Gauge("postroom_open_messages", "Messages that have not ended.", registry=registry)
        self._oldest = Gauge(
            "postroom_oldest_open_message_seconds", "Age of the oldest message that has not ended.", registry=registry
        )
        self._repaired = Counter("postroom_projection_rows_repaired", "Rows written by replay.", registry=registry)
        self._deadlines = Counter(
            "postroom_deadlines", "Deadlines that passed.", ["state_before", "state"], registry=registry
        )
        self._late = Histogram(
            "postroom_deadline_late_seconds", "How long after its instant a deadline was applied.", registry=registry
        )

    def followed(self, events: int, agenda: Agenda, now: datetime) -> None:
        self._followed.inc(events)
        self._open.set(len(agenda))
        oldest = agenda.oldest()
        accepted_at = oldest.accepted_at if oldest else now
        self._oldest.set(max(0.0, (now - accepted_at).total_seconds()))

    def repaired(self, rows: int) -> None:
        self._repaired.inc(rows)

    def closed(self, before: Execution, after: Execution, now: datetime) -> None:
        if before.state is after.state:
            return
        self._deadlines.labels(before.state.value, after.state.value).inc()
        if before.due_at is not None:
            self._late.observe(max(0.0, (now - before.due_at).total_seconds()))


class WebhookMetrics:
    """What a router's webhooks to agents come to, and what they wait for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter("postroom_webhook_attempts", "Webhooks posted.", ["outcome"], registry=registry)
        self._answered = Histogram(
            "postroom_webhook_answer_seconds",
            "From an attempt's beginning to the receiver's status.",
            buckets=WEBHOOK_BUCKETS_S,
            registry=registry,
        )
        self._under_way = Gauge("postroom_webhooks_in_flight", "Deliveries under way.", registry=registry)
        self._open = Gauge(
            "postroom_webhook_breakers_open",
            "Receivers that rest because they did not answer, or that are being tried again.",
            registry=registry,
        )
        self._disabled = Counter(
            "postroom_webhook_receivers_disabled", "Receivers this router disabled.", ["reason"], registry=registry
        )

    def show(self, *, in_flight: Callable[[], int], breakers_open: Callable[[], int]) -> None:
        """Read both when asked for."""
        self._under_way.set_function(in_flight)
        self._open.set_function(breakers_open)

    def attempted(self, result: PostResult) -> None:
        """Count by what the receiver said, or why it said nothing."""
        if result.status is None:
            self._attempts.labels(result.error or "no_answer").inc()
            return
        # By class: which of 500 statuses it is, the log tells.
        self._attempts.labels(f"{result.status // 100}xx").inc()
        self._answered.observe(result.latency_ms / 1000)

    def disabled(self, reason: str) -> None:
        self._disabled.labels(reason).inc()


class EventLogMetrics:
    """How far the log of tenants' events is behind the ledger, as far as this router writes it. Read when asked for.

    `newest_seq` tells the newest ledger event this router has read. A router that stands by is behind with nothing.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock, newest_seq: Callable[[], int]) -> None:
        self._clock = clock
        self._newest_seq = newest_seq
        self._reached: int | None = None
        self._oldest_at: datetime | None = None
        self._events = Counter("postroom_event_log_events_written", "Tenants' events written.", registry=registry)
        self._full = Gauge(
            "postroom_event_log_full", "1 while the stream of events refuses for want of room.", registry=registry
        )
        behind = Gauge("postroom_event_log_behind", "Ledger sequences the log of events is behind.", registry=registry)
        behind.set_function(self._behind)
        oldest = Gauge(
            "postroom_event_log_oldest_unwritten_seconds",
            "Age of the oldest ledger event that is not in the log of events yet.",
            registry=registry,
        )
        oldest.set_function(self._oldest_s)

    def begins(self, after_seq: int) -> None:
        """This router writes what lies behind that ledger sequence."""
        self._reached = after_seq

    def takes(self, at: datetime) -> None:
        """What happened at `at` is written next."""
        self._oldest_at = at

    def has_written(self, n_events: int) -> None:
        self._events.inc(n_events)
        self._full.set(0)

    def has_reached(self, seq: int) -> None:
        """All up to this ledger sequence is written."""
        self._reached, self._oldest_at = seq, None

    def is_interrupted(self, *, is_full: bool) -> None:
        self._full.set(is_full)

    def stands_by(self) -> None:
        self._reached, self._oldest_at = None, None
        self._full.set(0)

    def _behind(self) -> int:
        return 0 if self._reached is None else max(0, self._newest_seq() - self._reached)

    def _oldest_s(self) -> float:
        return 0.0 if self._oldest_at is None else max(0.0, (self._clock.now() - self._oldest_at).total_seconds())
