"""Percentiles and medians, by the definitions the report uses."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in ascending order: the smallest that `share` of them do not exceed.

    It is always one of the values, never something in between. Raises `ValueError` when there are none.
    """
    if not ordered or not 0 < share <= 1:
        raise ValueError("a percentile needs a value and a share of (0, 1]")
    return ordered[math.ceil(share * len(ordered)) - 1]


def summary(latencies_s: Iterable[float]) -> dict[str, Any]:
    """How many, and p50, p99 and the slowest in milliseconds; only `n` when there are none."""
    ordered = sorted(latencies_s)
    if not ordered:
        return {"n": 0}
    return {
        "n": len(ordered),
        "p50_ms": percentile(ordered, 0.5) * 1000,
        "p99_ms": percentile(ordered, 0.99) * 1000,
        "max_ms": ordered[-1] * 1000,
    }


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
