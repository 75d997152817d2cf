"""Fingerprints of perturbed cases, by which equal ones are found whatever method asks for them.

What a perturbation changes is a set of (voxel, new value). Each member is mixed to 128 bits, and the fingerprint is their sum:
Zobrist, "A new hashing method with application for game playing", 1970; with sums, Clarke et al., "Incremental multiset hash
functions and their application to memory integrity checking", ASIACRYPT 2003. Sums make it cheap: the fingerprint of a
coalition is the sum over its absent features, and features of different groupings meet where they change the same voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from voxplain_server.features.feature_set import FeatureSet, Labels
from voxplain_server.methods.plan import Plan
from voxplain_server.models.case import Volumes

Fingerprints = npt.NDArray[np.uint64]
"""(things, 2): 128 bits for each. Equal ones among ten million differ in truth with a probability below 1e-24."""


class FingerprintedPlan(Plan, Protocol):
    """A plan of coalitions, whose perturbed cases may be met again in the same or another plan."""

    @property
    def distinct(self) -> bool:
        """Whether it is known that no perturbed case occurs twice in it."""

    def fingerprints(self, content: CaseContent) -> Fingerprints:
        """(evaluations, 2) of each perturbed case; zero where nothing changes."""


class CaseContent:
    """Fingerprints of what features change in one case.

    Args:
        volumes: the unperturbed case.
    """

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        # What an identity belongs to must live as long as the identity is used.
        self._known: dict[tuple[int, int], tuple[FeatureSet, Volumes, Fingerprints]] = {}

    def of_features(self, features: FeatureSet, source: Volumes) -> Fingerprints:
        """(features.count, 2) of the case with one feature taken from `source`."""
        key = (id(features), id(source))
        if key not in self._known:
            self._known[key] = (features, source, self._sums(features.labels, source, features.count))
        return self._known[key][2]

    def of_modalities(self, source: Volumes) -> Fingerprints:
        """(modalities, 2) of the case with one modality taken from `source`."""
        numbers = [np.full(volume.shape, modality, np.int32) for modality, volume in enumerate(self._volumes)]
        return self._sums(numbers, source, len(numbers))

    def _sums(self, labels: Sequence[Labels], source: Volumes, count: int) -> Fingerprints:
        sums = np.zeros((count, 2), np.uint64)
        first = 0
        for numbers, volume, values in zip(labels, self._volumes, source, strict=True):
            places = np.flatnonzero(volume != values)
            owners = numbers.reshape(-1)[places]
            order = np.argsort(owners, kind="stable")
            found, starts = np.unique(owners[order], return_index=True)
            if places.size:
                mixed = _mixed(places[order] + first, values.reshape(-1)[places[order]])
                for lane, bits in enumerate(mixed):
                    sums[found, lane] += np.add.reduceat(bits, starts)
            first += volume.size
        return sums


def _mixed(places: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> tuple[Fingerprints, Fingerprints]:
    """128 bits for each voxel and its new value, in two lanes: the finaliser of SplitMix64, once and once more."""
    # The sum makes one zero of two: they are equal, and so must be what is made of them.
    bits = places.astype(np.uint64) << np.uint64(32) | (values + np.float32(0)).view(np.uint32)
    first = _finalised(bits + np.uint64(0x9E3779B97F4A7C15))
    return first, _finalised(first + np.uint64(0xD1B54A32D192ED03))


def _finalised(bits: Fingerprints) -> Fingerprints:
    bits = (bits ^ bits >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ bits >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return bits ^ bits >> np.uint64(31)
