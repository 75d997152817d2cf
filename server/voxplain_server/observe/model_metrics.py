"""What Prometheus sees of the models, read from the catalogue at each scrape."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voxplain_server.workers.catalog import CatalogEntry, Refusal

MOST_MODELS = 8
"""Models with series of their own; the others are in `voxplain_models` only, and the worst parity has a place of its own."""
_DIGEST_CHARACTERS = 12
_TRIES = 5


class Models(Protocol):
    """What is read of a catalogue."""

    @property
    def entries(self) -> tuple[CatalogEntry, ...]:
        """Every entry, by name, the default version first."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Versions that were not let in."""


class ModelMetrics(Collector):
    """Reads a catalogue, so that models which come later are seen as well."""

    def __init__(self, models: Models, registry: CollectorRegistry) -> None:
        self._models = models
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """One series for each of the first models, and the counts of all."""
        entries = self._entries()
        count = GaugeMetricFamily("voxplain_models", "Versions of models, by whether they are served.", labels=["state"])
        count.add_metric(["served"], len(entries))
        count.add_metric(["refused"], len(self._models.refusals))
        info = GaugeMetricFamily("voxplain_model_info", "Always 1.", labels=["model", "version", "digest", "engine"])
        parity = GaugeMetricFamily(
            "voxplain_model_parity_ratio",
            "Largest relative difference between the gradient twin and ONNX Runtime on probe inputs.",
            labels=["model", "version"],
        )
        by_parity = sorted(entries, key=_parity, reverse=True)
        for entry in by_parity[:MOST_MODELS]:
            if entry.traits.twin_parity is not None:
                parity.add_metric([entry.model.name, entry.model.version], entry.traits.twin_parity)
        for entry in entries[:MOST_MODELS]:
            digest = entry.model.digest[:_DIGEST_CHARACTERS]
            info.add_metric([entry.model.name, entry.model.version, digest, entry.engine], 1)
        yield from (count, info, parity)

    def _entries(self) -> tuple[CatalogEntry, ...]:
        # A scrape runs in a thread of its own: the catalogue may change while it is read.
        for _ in range(_TRIES):
            try:
                return self._models.entries
            except (KeyError, RuntimeError):
                continue
        return ()


def _parity(entry: CatalogEntry) -> float:
    """The worst first: those are what an alert looks for."""
    parity = entry.traits.twin_parity
    return -1.0 if parity is None else math.inf if math.isnan(parity) else parity
