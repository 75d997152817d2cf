"""A bound on the label sets of one metric: whatever clients send, a server has a fixed greatest number of series."""

from __future__ import annotations

from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

OTHER = "other"
"""Stands in the place of labels for which there was no room left."""

Family = TypeVar("Family", Counter, Gauge, Histogram)


class LabelSets(Generic[Family]):
    """A metric whose first label sets keep their names; what comes when all are taken is added up under OTHER.

    Args:
        family: the metric.
        most: label sets that keep their names.
        kept: labels that keep their value even then; each must have few.
    """

    def __init__(self, family: Family, *, most: int, kept: tuple[str, ...] = ()) -> None:
        self.family: Family = family
        self.most = most
        self._keeps = tuple(name in kept for name in family._labelnames)
        self._known: set[tuple[str, ...]] = set()

    def labels(self, *values: str) -> Family:
        """The series of these labels, or the one that takes what has no room; called from the event loop only."""
        if values not in self._known:
            if len(self._known) >= self.most:
                values = tuple(value if keep else OTHER for value, keep in zip(values, self._keeps, strict=True))
            else:
                self._known.add(values)
        return self.family.labels(*values)
