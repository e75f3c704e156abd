"""What a router counts of agents' presence: what changed, who is due, and how long looks take."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.tenant_events import TenantEvent


class PresenceMetrics:
    """One set per process, in a registry of its own so that tests can have many."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._transitions = Counter(
            "postroom_presence_transitions", "Changes of presence told.", ["before", "after"], registry=registry
        )
        self._stale = Counter("postroom_sessions_stale", "Sessions told to be stale for good.", registry=registry)
        self._due = Gauge("postroom_presence_looks_due", "Agents due when this router last asked.", registry=registry)
        self._looks = Histogram(
            "postroom_presence_look_seconds", "How long a look at one agent took.", registry=registry
        )
        self._postponed = Counter("postroom_presence_looks_postponed", "Looks that failed.", registry=registry)

    def told(self, event: TenantEvent) -> None:
        self._transitions.labels(event.data["from"], event.data["to"]).inc()

    def told_stale(self) -> None:
        self._stale.inc()

    def due(self, agents: int) -> None:
        self._due.set(agents)

    def looked(self, seconds: float) -> None:
        self._looks.observe(seconds)

    def postponed(self) -> None:
        self._postponed.inc()
