"""What the gateway counts and times, in Prometheus' format.

Counting is an addition to a plain dictionary; the client library's own metrics cost several microseconds a message.
They become Prometheus' when somebody asks for them.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts.events import Event, History
from contracts.records import Trace
from router.dead_letters import death_in
from router.ports import Ledger

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_BUCKET_NAMES: Final = (*map(str, _LATENCY_BUCKETS_S), "+Inf")

Labels = tuple[str, ...]


class TimedLedger:
    """The ledger as the router's service sees it, with every durable append timed."""

    def __init__(self, ledger: Ledger, metrics: "Metrics", timer: Callable[[], float] = time.perf_counter) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._timer = timer

    async def load(self, ulid: str, *, fresh: bool = True) -> History | None:
        return await self._ledger.load(ulid, fresh=fresh)

    async def append(self, ulid: str, event: Event, *, expected_seq: int) -> int:
        started = self._timer()
        try:
            seq = await self._ledger.append(ulid, event, expected_seq=expected_seq)
            self._metrics.appended(event)
            return seq
        finally:
            self._metrics.append_seconds(self._timer() - started)


class _Times:
    """How long something took: how often up to each bound, and all together."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_BUCKET_NAMES)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_LATENCY_BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        return list(zip(_BUCKET_NAMES, accumulate(self.counts), strict=True))


class Metrics(Collector):
    """One set per app, with a registry of its own so that tests can have many."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._accepts: dict[Labels, int] = defaultdict(int)
        self._gates: dict[Labels, int] = defaultdict(int)
        self._refusals: dict[Labels, int] = defaultdict(int)
        self._requests: dict[tuple[str, str, int], _Times] = defaultdict(_Times)
        self._dead: dict[Labels, int] = defaultdict(int)
        self._append = _Times()
        self._claim = _Times()
        self._echoes: dict[Labels, int] = defaultdict(int)
        self._echo = _Times()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def accepted(self, mode: str, state: str, trace: Trace) -> None:
        """Count a message and every gate's answer for it."""
        self._accepts[mode, state] += 1
        for result in trace:
            self._gates[result.gate, result.channel or "", result.verdict, result.reason] += 1

    def refused(self, code: str) -> None:
        self._refusals[code,] += 1

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests[method, route, status].observe(seconds)

    def appended(self, event: Event) -> None:
        """Count it if a message became a dead letter by it."""
        if (death := death_in(event)) is not None:
            self._dead[death] += 1

    def append_seconds(self, seconds: float) -> None:
        """A hook for the ledger: how long one durable append took."""
        self._append.observe(seconds)

    def claim_seconds(self, seconds: float) -> None:
        """How long a live offer waited for its claim."""
        self._claim.observe(seconds)

    def echoes_asked(self, count: int) -> None:
        self._echoes["asked",] += count

    def echo_answered(self, seconds: float) -> None:
        """An echo was answered in time, so long after it was asked."""
        self._echoes["answered",] += 1
        self._echo.observe(seconds)

    def echoes_late(self, count: int) -> None:
        """Echoes were answered when it said nothing any more."""
        self._echoes["late",] += count

    def echoes_overdue(self, count: int) -> None:
        """Agents' beats found their last echo unanswered beyond its time: they are unreachable."""
        self._echoes["overdue",] += count

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        yield _counter("postroom_accepted", "Messages accepted.", ["mode", "state"], self._accepts)
        yield _counter(
            "postroom_gate_answers",
            "Answers of the router's gates at acceptance.",
            ["gate", "channel", "verdict", "reason"],
            self._gates,
        )
        yield _counter("postroom_dead_letters", "Messages that became dead letters.", ["state", "reason"], self._dead)
        yield _counter("postroom_refused", "Requests refused.", ["code"], self._refusals)
        requests: dict[Labels, _Times] = {
            (method, route, str(status)): each for (method, route, status), each in self._requests.items()
        }
        yield _histogram(
            "postroom_request_seconds", "Time from request to answer.", ["method", "route", "status"], requests
        )
        yield _histogram("postroom_append_seconds", "Durable appends.", [], {(): self._append})
        yield _histogram("postroom_claim_seconds", "From offer to live claim.", [], {(): self._claim})
        yield _counter("postroom_echoes", "What became of echoes along the way of pushes.", ["what"], self._echoes)
        yield _histogram("postroom_echo_seconds", "From asking an echo to its answer.", [], {(): self._echo})
        yield GaugeMetricFamily("postroom_requests_in_flight", "Requests being answered.", self.in_flight)


def _counter(name: str, meaning: str, labels: Sequence[str], counts: Mapping[Labels, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, count in counts.items():
        family.add_metric([str(value) for value in values], count)
    return family


def _histogram(name: str, meaning: str, labels: Sequence[str], times: Mapping[Labels, _Times]) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=labels)
    for values, each in times.items():
        family.add_metric(values, buckets=each.buckets(), sum_value=each.sum_s)
    return family
