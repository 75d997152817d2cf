"""A client's volumes become a case on the model's grid, and maps find their way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidSpec, InvalidTensor
from voxplain.v1 import tensor_pb2

from voxplain_server.models.case import Case, Volumes, Voxels
from voxplain_server.models.case_plan import CasePlan, plan_case
from voxplain_server.models.grid_fit import FitPlan, plan_fit
from voxplain_server.models.model import Model
from voxplain_server.models.model_refused import ModelRefused
from voxplain_server.models.nifti_file import read_nifti
from voxplain_server.models.normalisation import Statistics, measure, normalise
from voxplain_server.models.tensor_header import check_affine


@dataclass(frozen=True, slots=True, eq=False)
class ClientTensor:
    """One tensor as it came in.

    Attributes:
        header: what the client declared.
        array: its voxels, in the declared shape and type; it is only read.
    """

    header: tensor_pb2.Tensor
    array: npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class FittedCase:
    """A case and the way back to the client's grid.

    Attributes:
        case: what the model sees.
        plans: for each modality how its volume was fitted; `source` is the client's grid, `target` the model's.
        statistics: for each modality what its volume was normalised by.
        cautions: codes of what limits the answer, the model's own included.
    """

    case: Case
    plans: tuple[FitPlan, ...]
    statistics: tuple[Statistics, ...]
    cautions: tuple[str, ...]

    def to_client(self, modality: int, array: npt.NDArray[np.generic], *, nearest: bool = False) -> npt.NDArray[Any]:
        """Lay a map on the model's grid of a modality back onto the grid that the client sent.

        Args:
            modality: index in Model.modalities.
            array: (*spatial) of the model's grid.
            nearest: True for labels and for maps that are constant on features.

        Returns:
            A new C-contiguous array on the client's grid, zero where the model saw nothing.
        """
        return self.plans[modality].undo(array, nearest=nearest)


def build_case(model: Model, tensors: Sequence[ClientTensor], *, donors: bool = True) -> FittedCase:
    """Fit, convert and normalise everything that a client sent.

    Holds one copy of each tensor beside the client's own bytes.

    Args:
        model: the model.
        tensors: in the order of the request.
        donors: False: no method asks for background cases, so those of the bundle are not read.

    Raises:
        voxplain.errors.InvalidSpec: as check_tensors.
        voxplain.errors.InvalidTensor: NOT_FINITE or LABELS_NEGATIVE, with field `tensors[i]`.
    """
    plan = plan_case(model, [tensor.header for tensor in tensors])
    arrays = [tensor.array for tensor in tensors]
    cautions = list(plan.cautions)
    volumes, statistics = _fitted(model, plan.volumes, plan.plans, arrays)
    cautions += [own.caution for own in statistics if own.caution]
    baseline = tuple(
        _in_units(_volume(arrays[number], number, own), measured)
        for number, own, measured in zip(plan.baseline, plan.plans, statistics, strict=bool(plan.baseline))
    )
    background = tuple(
        _fitted(model, case, own, arrays)[0] for case, own in zip(plan.background, plan.background_plans, strict=True)
    )
    if donors and not background:
        background = _bundled(model, plan)
        if len(background) < len(model.background_cases):
            cautions.append("BACKGROUND_UNFIT")
    labels = tuple(_labels(arrays[number], number, own) for number, own in zip(plan.labels, plan.plans, strict=False))
    case = Case(
        model=model,
        volumes=volumes,
        grids=tuple(own.target for own in plan.plans),
        baseline=baseline or None,
        donors=background,
        labels=labels or None,
        mask=None if plan.mask is None else plan.plans[0].apply(arrays[plan.mask], nearest=True, dtype=np.uint8) != 0,
        one_frame=plan.one_frame,
    )
    return FittedCase(case, plan.plans, statistics, tuple(dict.fromkeys(cautions)))


def _fitted(
    model: Model, numbers: Sequence[int], plans: Sequence[FitPlan], arrays: Sequence[npt.NDArray[np.generic]]
) -> tuple[Volumes, tuple[Statistics, ...]]:
    volumes, statistics = [], []
    for number, plan, spec in zip(numbers, plans, model.modalities, strict=True):
        volume = _volume(arrays[number], number, plan)
        statistics.append(measure(volume, spec.normalisation))
        volumes.append(_in_units(volume, statistics[-1]))
    return tuple(volumes), tuple(statistics)


def _volume(array: npt.NDArray[np.generic], number: int, plan: FitPlan) -> Voxels:
    if np.issubdtype(array.dtype, np.floating) and not all(np.isfinite(slab).all() for slab in array):
        message = "A volume holds NaN or infinite voxels. Replace them, for example by 0 outside the body."
        raise InvalidTensor("NOT_FINITE", message, field=f"tensors[{number}]")
    volume: Voxels = plan.apply(array)
    return volume


def _in_units(volume: Voxels, statistics: Statistics) -> Voxels:
    normalise(volume, statistics)
    volume.flags.writeable = False
    return volume


def _labels(array: npt.NDArray[np.generic], number: int, plan: FitPlan) -> npt.NDArray[np.int32]:
    labels: npt.NDArray[np.int32] = plan.apply(array, nearest=True, dtype=np.int32)
    if labels.min() < 0:
        message = "Labels count from 0, which is background; here one is negative."
        raise InvalidTensor("LABELS_NEGATIVE", message, field=f"tensors[{number}]")
    labels.flags.writeable = False
    return labels


def _bundled(model: Model, plan: CasePlan) -> tuple[Volumes, ...]:
    """The bundle's background cases that meet the grid of this case."""
    found = []
    for files in model.background_cases:
        try:
            volumes: list[Voxels] = []
            for spec, wanted in zip(model.modalities, plan.plans, strict=True):
                held = read_nifti(files[spec.name])
                if len(held.geometry.shape) != len(spec.shape):
                    raise InvalidSpec("RANK_MISMATCH", "another number of axes")
                if held.geometry.affine is not None and check_affine(held.geometry.affine, len(spec.shape)):
                    raise InvalidSpec("AFFINE_INVALID", "no usable affine")
                own = plan_fit(held.geometry, spec)
                if own.target.shape != wanted.target.shape:
                    raise InvalidSpec("SHAPE_MISMATCH", "another shape on the model's grid")
                volume: Voxels = own.apply(held.voxels)
                volumes.append(_in_units(volume, measure(volume, spec.normalisation)))
        except (InvalidSpec, ModelRefused):
            continue
        found.append(tuple(volumes))
    return tuple(found)
