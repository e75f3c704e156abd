"""What came of the requests of one measurement. A failure is counted by its kind and never gives a latency."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cli.benchmark.percentiles import summary


@dataclass(slots=True)
class Tally:
    """Latencies in seconds of what succeeded, and how often which failure came about."""

    latencies_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def settle(self, latency_s: float, fault: str | None) -> None:
        """Count one answer; `fault` is None when it is what was expected."""
        if fault is None:
            self.latencies_s.append(latency_s)
        else:
            self.failures[fault] += 1

    def fail(self, fault: str, times: int = 1) -> None:
        if times:
            self.failures[fault] += times

    @property
    def n_ok(self) -> int:
        return len(self.latencies_s)

    @property
    def n_failed(self) -> int:
        return sum(self.failures.values())

    def result(self, elapsed_s: float, cpu_s: float) -> dict[str, Any]:
        """The JSON form of a measurement: successes per second, latencies, failures, and what generating them cost."""
        done = self.n_ok + self.n_failed
        return {
            **summary(self.latencies_s),
            "per_s": self.n_ok / elapsed_s if elapsed_s > 0 else 0.0,
            "elapsed_s": elapsed_s,
            "failed": self.n_failed,
            "failures": dict(self.failures),
            "generator_cpu_us": cpu_s / done * 1e6 if done else None,
        }
