"""What the gateway counts and times, in Prometheus' format."""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from contracts.events import Event, History
from contracts.records import Trace
from router.ports import Ledger

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)


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
            return await self._ledger.append(ulid, event, expected_seq=expected_seq)
        finally:
            self._metrics.append_seconds(self._timer() - started)


class Metrics:
    """One set of collectors per app. Children are kept: looking one up by labels costs more than counting."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._accepts = Counter(
            "postroom_accepted_total", "Messages accepted.", ["mode", "state"], registry=self.registry
        )
        self._gates = Counter(
            "postroom_gate_answers_total",
            "Answers of the router's gates at acceptance.",
            ["gate", "channel", "verdict", "reason"],
            registry=self.registry,
        )
        self._refusals = Counter("postroom_refused_total", "Requests refused.", ["code"], registry=self.registry)
        self._requests = Histogram(
            "postroom_request_seconds",
            "Time from request to answer.",
            ["method", "route", "status"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._append = Histogram(
            "postroom_append_seconds", "Durable appends.", buckets=_LATENCY_BUCKETS_S, registry=self.registry
        )
        self._claim = Histogram(
            "postroom_claim_seconds",
            "From offer to live claim.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = 0
        in_flight = Gauge("postroom_requests_in_flight", "Requests being answered.", registry=self.registry)
        in_flight.set_function(lambda: self.in_flight)
        self._accept_children: dict[tuple[str, str], Counter] = {}
        self._gate_children: dict[tuple[str, str, str, str], Counter] = {}
        self._request_children: dict[tuple[str, str, int], Histogram] = {}

    def accepted(self, mode: str, state: str, trace: Trace) -> None:
        """Count a message and every gate's answer for it."""
        key = (mode, state)
        child = self._accept_children.get(key)
        if child is None:
            child = self._accept_children[key] = self._accepts.labels(*key)
        child.inc()
        for result in trace:
            self._gate((result.gate, result.channel or "", result.verdict, result.reason))

    def refused(self, code: str) -> None:
        self._refusals.labels(code).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        key = (method, route, status)
        child = self._request_children.get(key)
        if child is None:
            child = self._request_children[key] = self._requests.labels(method, route, str(status))
        child.observe(seconds)

    def append_seconds(self, seconds: float) -> None:
        """A hook for the ledger: how long one durable append took."""
        self._append.observe(seconds)

    def claim_seconds(self, seconds: float) -> None:
        """How long a live offer waited for its claim."""
        self._claim.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _gate(self, key: tuple[str, str, str, str]) -> None:
        child = self._gate_children.get(key)
        if child is None:
            child = self._gate_children[key] = self._gates.labels(*key)
        child.inc()
