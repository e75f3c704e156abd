"""The router's metrics, by the names dashboards use."""

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from router.agenda import Agenda
from router.execution import Execution


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
