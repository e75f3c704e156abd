"""What a program's projection counts, in Prometheus' format: rows that wait for Redis, and rows that were given up."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.projection import RedisProjection


class ProjectionMetrics(Collector):
    """To be registered once per program that writes rows; it counts nothing itself."""

    def __init__(self, projection: RedisProjection) -> None:
        self._projection = projection

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("postroom_projection_rows_queued", "Rows waiting for Redis.", self._projection.queued)
        yield CounterMetricFamily(
            "postroom_projection_rows_dropped", "Rows left to the routers' repair.", self._projection.dropped
        )
