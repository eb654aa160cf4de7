"""What the service tells Prometheus, read at the moment somebody asks.

Nothing is counted here: the figures are the loop monitor's and the uploads' own. They are read on a thread of
the HTTP server; a `LoopLag` never changes, and the other two are one number each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ingest_service.telemetry.loop_monitor import BOUNDS_SECONDS, LoopLag


class ServiceCollector(Collector):
    """The service's own metrics."""

    def __init__(
        self,
        *,
        loop_lag: Callable[[], LoopLag],
        uploads_active: Callable[[], int],
        window_held_bytes: Callable[[], int],
        version: str,
    ) -> None:
        """The callables are called on another thread than the event loop's and must not wait for it."""
        self._loop_lag = loop_lag
        self._uploads_active = uploads_active
        self._window_held_bytes = window_held_bytes
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Called by the library, once for each time somebody asks."""
        yield InfoMetricFamily("ingest_build", "What is running.", value={"version": self._version})
        yield GaugeMetricFamily(
            "ingest_uploads_active", "Upload calls that have a file open.", value=self._uploads_active()
        )
        yield GaugeMetricFamily(
            "ingest_window_held_bytes",
            "Received-but-unwritten bytes of all uploads.",
            value=self._window_held_bytes(),
        )
        yield from _of_the_loop(self._loop_lag())


def _of_the_loop(lag: LoopLag) -> Iterator[Metric]:
    # Prometheus' classes hold all that is within their bound, the monitor's what no smaller bound holds.
    bounds = (*map(str, BOUNDS_SECONDS), "+Inf")
    yield HistogramMetricFamily(
        "ingest_event_loop_lag_seconds",
        "How late the event loop's heartbeats came.",
        buckets=list(zip(bounds, accumulate(lag.histogram), strict=True)),
        sum_value=lag.lag_seconds,
    )
    yield CounterMetricFamily(
        "ingest_event_loop_stalls", "Heartbeats later than INGEST_STALL_SECONDS.", value=lag.stalls
    )
    yield CounterMetricFamily(
        "ingest_event_loop_stalled_seconds", "How late those came, together.", value=lag.stalled_seconds
    )
    yield CounterMetricFamily(
        "ingest_event_loop_stalled_cpu_seconds",
        "What the loop's thread computed meanwhile; for the rest it waited.",
        value=lag.stalled_cpu_seconds,
    )
    yield GaugeMetricFamily(
        "ingest_event_loop_longest_lag_seconds",
        "The latest heartbeat since the start.",
        value=lag.longest_seconds,
    )


def registry_of(collector: Collector) -> CollectorRegistry:
    """That collector and the process's own figures (memory, CPU, descriptors), and nobody else's."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry
