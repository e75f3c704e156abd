"""What a router counts of dead letters and redrives."""

from prometheus_client import CollectorRegistry, Counter

from contracts.events import Event, History
from router.dead_letters import death_in
from router.ports import Ledger
from router.redrive_runs import Tally


class RedriveMetrics:
    """One set per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._dead = Counter(
            "postroom_dead_letters", "Messages that became dead letters.", ["state", "reason"], registry=registry
        )
        self._done = Counter(
            "postroom_redriven", "Messages of redrives, by what became of them.", ["what"], registry=registry
        )
        self._rest = Counter(
            "postroom_redrive_rest_seconds",
            "Time redrives left the broker alone because it was slow.",
            registry=registry,
        )

    def appended(self, event: Event) -> None:
        if (death := death_in(event)) is not None:
            self._dead.labels(death[0].value, death[1].value).inc()

    def dealt_with(self, tally: Tally) -> None:
        self._done.labels("redriven").inc(tally.redriven)
        self._done.labels("moved_on").inc(tally.moved_on)
        self._done.labels("refused").inc(tally.refused.total())

    def rested(self, seconds: float) -> None:
        self._rest.inc(seconds)


class CountedLedger:
    """The ledger as the router's service sees it: whoever appends a message's death counts it, and nobody else."""

    def __init__(self, ledger: Ledger, metrics: RedriveMetrics) -> None:
        self._ledger = ledger
        self._metrics = metrics

    async def load(self, ulid: str, *, fresh: bool = True) -> History | None:
        return await self._ledger.load(ulid, fresh=fresh)

    async def append(self, ulid: str, event: Event, *, expected_seq: int) -> int:
        seq = await self._ledger.append(ulid, event, expected_seq=expected_seq)
        self._metrics.appended(event)
        return seq
