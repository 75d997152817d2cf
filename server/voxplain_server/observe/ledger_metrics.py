"""What Prometheus sees of the ledger, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voxplain_server.workers.ledger import Ledger, Resource


class LedgerMetrics(Collector):
    """Reads a ledger: a server at rest holds nothing, and one that holds ever more leaks.

    Args:
        ledger: the books.
        registry: where it is seen.
    """

    def __init__(self, ledger: Ledger, registry: CollectorRegistry) -> None:
        self._ledger = ledger
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """One series for each resource, of what is held and of what was ever taken."""
        held = GaugeMetricFamily("voxplain_held", "What calls have taken and not given back; 0 at rest.", labels=["resource"])
        for resource, amount in _pieces(self._ledger.held):
            held.add_metric([resource], amount)
        acquired = CounterMetricFamily("voxplain_acquired", "What calls have taken since the start.", labels=["resource"])
        for resource, amount in _pieces(self._ledger.acquired):
            acquired.add_metric([resource], amount)
        yield from (held, acquired)


def _pieces(books: dict[Resource, int]) -> list[tuple[Resource, int]]:
    """Without the bytes, which `voxplain_admitted_bytes` tells: a metric has one unit."""
    return [(resource, amount) for resource, amount in books.items() if resource != "admitted_bytes"]
