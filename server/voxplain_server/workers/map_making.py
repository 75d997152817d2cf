"""From what a method found on the model's grid to the maps that a client gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from voxplain.v1 import explain_pb2, tensor_pb2

from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.methods.estimate import Estimate
from voxplain_server.models.case_building import FittedCase

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class MadeMap:
    """A map, ready to be put into shared memory.

    Attributes:
        header: the announcement, all but its id.
        values: float32, or int32 for labels.
    """

    header: explain_pb2.Map
    values: npt.NDArray[np.generic]

    def sha256(self) -> str:
        """Of its bytes, lower-case hexadecimal."""
        return hashlib.sha256(np.ascontiguousarray(self.values).reshape(-1).view(np.uint8).data).hexdigest()


class MapMaker:
    """Makes the maps of one call.

    Args:
        fitted: the case and the way back to the client's grids.
        grid: where maps shall lie.
    """

    def __init__(self, fitted: FittedCase, grid: explain_pb2.Grid.ValueType) -> None:
        self._fitted = fitted
        self._grid = explain_pb2.GRID_MODEL if grid == explain_pb2.GRID_MODEL else explain_pb2.GRID_INPUT
        self._names = fitted.case.model.modality_names

    def final(self, estimate: Estimate) -> Iterator[MadeMap]:
        """The maps that stand: attribution, then standard error or coverage, modality by modality."""
        yield from self._dense(estimate, snapshot=False)

    def snapshot(self, estimate: Estimate) -> Iterator[MadeMap]:
        """Early maps of a method that has values for voxels; voxels that no evaluation has reached are NaN."""
        yield from self._dense(estimate, snapshot=True)

    def labels(self, features: FeatureSet) -> Iterator[MadeMap]:
        """The label of every voxel, sent once, so that snapshots need one value for each label only.

        Where the model saw nothing of the client's volume the label is `features.count`: its value is 0.
        """
        for modalities in self._feature_maps(features):
            labels = features.labels[modalities[0]].astype(np.int32)
            # Label 0 is background, but what to_client leaves zero was never seen.
            laid = self._laid(labels + 1, modalities[0], nearest=True).astype(np.int32) - 1
            laid[laid < 0] = features.count
            yield self._made(laid, modalities, explain_pb2.QUANTITY_LABELS, snapshot=False)

    def values_by_label(self, estimate: Estimate) -> Iterator[MadeMap]:
        """A snapshot as one value for each label, in the order of `labels`; the last one is for what the model never saw."""
        found = estimate.by_feature
        if found is None:
            return
        quantities = [(explain_pb2.QUANTITY_ATTRIBUTION, found.values)]
        if found.standard_errors is not None:
            quantities.append((explain_pb2.QUANTITY_STANDARD_ERROR, found.standard_errors))
        for quantity, values in quantities:
            told = np.append(values, 0.0).astype(np.float32)
            for modalities in self._feature_maps(found.features):
                made = self._made(told, modalities, quantity, snapshot=True)
                yield made

    def _dense(self, estimate: Estimate, *, snapshot: bool) -> Iterator[MadeMap]:
        if estimate.maps is not None:
            yield from self._voxel_maps(estimate.maps, explain_pb2.QUANTITY_ATTRIBUTION, snapshot=snapshot)
        if estimate.by_feature is not None:
            features = estimate.by_feature.features
            yield from self._painted(features, estimate.by_feature.values, explain_pb2.QUANTITY_ATTRIBUTION)
            if estimate.by_feature.standard_errors is not None:
                errors = estimate.by_feature.standard_errors
                yield from self._painted(features, errors, explain_pb2.QUANTITY_STANDARD_ERROR)
        for shared in estimate.shared or ():
            laid = self._laid(shared.values, shared.modalities[0], nearest=False)
            yield self._made(laid, shared.modalities, explain_pb2.QUANTITY_ATTRIBUTION, snapshot=snapshot)
        if estimate.standard_error_maps is not None:
            yield from self._voxel_maps(estimate.standard_error_maps, explain_pb2.QUANTITY_STANDARD_ERROR, snapshot=snapshot)
        # A coverage of 1 everywhere tells nothing and weighs as much as the map.
        if estimate.coverage is not None and any(bool((reached < 1).any()) for reached in estimate.coverage):
            yield from self._voxel_maps(estimate.coverage, explain_pb2.QUANTITY_COVERAGE, snapshot=snapshot)

    def _voxel_maps(
        self, maps: Sequence[npt.NDArray[np.float64]], quantity: explain_pb2.Quantity.ValueType, *, snapshot: bool
    ) -> Iterator[MadeMap]:
        for modality, values in enumerate(maps):
            yield self._made(self._laid(values, modality, nearest=False), (modality,), quantity, snapshot=snapshot)

    def _painted(
        self, features: FeatureSet, values: npt.NDArray[np.float64], quantity: explain_pb2.Quantity.ValueType
    ) -> Iterator[MadeMap]:
        for modalities in self._feature_maps(features):
            painted = values[features.labels[modalities[0]]]
            yield self._made(self._laid(painted, modalities[0], nearest=True), modalities, quantity, snapshot=False)

    def _feature_maps(self, features: FeatureSet) -> list[tuple[int, ...]]:
        """Modalities of each map: all together where they share the features."""
        everyone = range(len(self._names))
        return [tuple(everyone)] if features.shared else [(modality,) for modality in everyone]

    def _laid(self, array: Array, modality: int, *, nearest: bool) -> Array:
        if self._grid == explain_pb2.GRID_MODEL:
            return array
        if self._fitted.plans[modality].exact and array.dtype == np.float64:
            # Where voxels are only moved, they are rounded first: half as much is moved, and it comes to the same.
            array = array.astype(np.float32)
        return self._fitted.to_client(modality, array, nearest=nearest)

    def _made(
        self, values: Array, modalities: Sequence[int], quantity: explain_pb2.Quantity.ValueType, *, snapshot: bool
    ) -> MadeMap:
        is_labels = quantity == explain_pb2.QUANTITY_LABELS
        made = np.ascontiguousarray(values, dtype="<i4" if is_labels else "<f4")
        plan = self._fitted.plans[modalities[0]]
        affine = (plan.target if self._grid == explain_pb2.GRID_MODEL else plan.source).affine
        header = explain_pb2.Map(
            quantity=quantity,
            modalities=[self._names[modality] for modality in modalities],
            data_type=tensor_pb2.DATA_TYPE_INT32 if is_labels else tensor_pb2.DATA_TYPE_FLOAT32,
            shape=made.shape,
            affine=[] if affine is None else affine.ravel().tolist(),
            grid=self._grid,
            snapshot=snapshot,
            size_bytes=made.nbytes,
        )
        return MadeMap(header, made)


def modality_importance(estimate: Estimate, names: Sequence[str]) -> list[explain_pb2.ModalityImportance]:
    """Sums of the map by modality, on the model's grid, over voxels; none for the modalities that share a map."""
    found: list[tuple[str, npt.NDArray[np.float64]]] = []
    if estimate.maps is not None:
        found = list(zip(names, estimate.maps, strict=True))
    elif estimate.by_feature is not None and not estimate.by_feature.features.shared:
        found = list(zip(names, estimate.by_feature.features.paint(estimate.by_feature.values), strict=True))
    elif estimate.shared is not None:
        found = [(names[each.modalities[0]], each.values) for each in estimate.shared if len(each.modalities) == 1]
    return [_importance(name, values) for name, values in found]


def _importance(name: str, values: npt.NDArray[np.float64]) -> explain_pb2.ModalityImportance:
    """Plane by plane, so that memory is read once. Voxels that nothing has reached (NaN) count as zero."""
    positive = total = 0.0
    for plane in values:
        whole, above = plane.sum(), np.maximum(plane, 0.0).sum()
        if np.isnan(whole):
            whole, above = np.nansum(plane), np.nansum(np.maximum(plane, 0.0))
        total += float(whole)
        positive += float(above)
    return explain_pb2.ModalityImportance(
        modality=name, sum_positive=positive, sum=total, sum_absolute=positive + (positive - total)
    )
