"""How the tensors of a request make up a case: which is which, and how each meets the model's grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxplain.errors import InvalidSpec
from voxplain.v1 import tensor_pb2
from voxplain.volume import Geometry

from voxplain_server.models.grid_fit import FitPlan, plan_fit
from voxplain_server.models.model import Model
from voxplain_server.models.tensor_header import check_header

_SAME_GRID = "the same shape, and corners within 0.01 mm"


@dataclass(frozen=True, slots=True, eq=False)
class CasePlan:
    """Every tensor in its place. Numbers are indices in the request.

    Attributes:
        volumes: for each modality.
        plans: for each modality, how its volume meets the model's grid.
        baseline: for each modality; empty: none sent.
        labels: one for each modality, or one alone that is shared by all; empty: none sent.
        mask: or None.
        background: for each background case one for each modality.
        background_plans: how those meet the model's grid.
        cautions: codes of what limits the answer, the model's own first.
    """

    volumes: tuple[int, ...]
    plans: tuple[FitPlan, ...]
    baseline: tuple[int, ...]
    labels: tuple[int, ...]
    mask: int | None
    background: tuple[tuple[int, ...], ...]
    background_plans: tuple[tuple[FitPlan, ...], ...]
    cautions: tuple[str, ...]

    @property
    def one_frame(self) -> bool:
        """Whether the grids after fitting can be compared: not where volumes without affines came in several shapes."""
        return all(_are_comparable(plan, self.plans[0]) for plan in self.plans[1:])

    @property
    def one_grid(self) -> bool:
        """Whether all modalities lie on one grid."""
        return self.one_frame and all(plan.target.same_grid(self.plans[0].target) for plan in self.plans[1:])


def plan_case(model: Model, headers: Sequence[tensor_pb2.Tensor]) -> CasePlan:
    """Put every tensor in its place.

    Args:
        model: the model.
        headers: what the client declared, in the order of the request.

    Raises:
        voxplain.errors.InvalidSpec: as check_header and plan_fit, and TENSOR_ID_DUPLICATED, MODALITY_MISSING,
            MODALITY_DUPLICATED, CASE_INDEX_INVALID, GRID_MISMATCH.
    """
    grids = [check_header(model, index, header) for index, header in enumerate(headers)]
    _refuse_doubled_ids(headers)
    roles = _ByRole(model, headers)
    volumes = roles.one_for_each(tensor_pb2.TENSOR_ROLE_VOLUME)
    plans = _fitted(model, volumes, grids)
    baseline = roles.all_or_none(tensor_pb2.TENSOR_ROLE_BASELINE)
    for number, volume in zip(baseline, volumes, strict=bool(baseline)):
        _require_same_grid(grids[number], grids[volume], number, f"A baseline must lie on its modality's grid: {_SAME_GRID}.")
    labels = _labels(roles, grids, volumes, plans)
    mask = roles.mask()
    if mask is not None:
        message = f"A mask must lie on the grid of the first modality: {_SAME_GRID}."
        _require_same_grid(grids[mask], grids[volumes[0]], mask, message)
    background = roles.background()
    background_plans = tuple(_fitted(model, case, grids) for case in background)
    for case, own in zip(background, background_plans, strict=True):
        for number, plan, wanted in zip(case, own, plans, strict=True):
            _require_model_shape(plan, wanted, number)
    return CasePlan(
        volumes=volumes,
        plans=plans,
        baseline=baseline,
        labels=labels,
        mask=mask,
        background=background,
        background_plans=background_plans,
        cautions=tuple(dict.fromkeys([*model.cautions, *_cautions(plans)])),
    )


class _ByRole:
    """Tensors by role, modality and case."""

    def __init__(self, model: Model, headers: Sequence[tensor_pb2.Tensor]) -> None:
        self._names = model.modality_names
        self._found: dict[tuple[tensor_pb2.TensorRole.ValueType, int, str], int] = {}
        for index, header in enumerate(headers):
            place = (header.role, header.case_index, "" if header.role == tensor_pb2.TENSOR_ROLE_MASK else header.modality)
            if place in self._found:
                message = "Another tensor of this role is there for the same modality. Send one."
                raise InvalidSpec("MODALITY_DUPLICATED", message, field=f"tensors[{index}].modality")
            self._found[place] = index

    def one_for_each(self, role: tensor_pb2.TensorRole.ValueType, case: int = 0) -> tuple[int, ...]:
        missing = [name for name in self._names if (role, case, name) not in self._found]
        if missing:
            kind = tensor_pb2.TensorRole.Name(role).removeprefix("TENSOR_ROLE_")
            message = f"A tensor with the role {kind} is missing for {', '.join(missing)}. Send one for every modality."
            raise InvalidSpec("MODALITY_MISSING", message, field="tensors")
        return tuple(self._found[role, case, name] for name in self._names)

    def all_or_none(self, role: tensor_pb2.TensorRole.ValueType) -> tuple[int, ...]:
        return self.one_for_each(role) if any(found == role for found, _, _ in self._found) else ()

    def shared_labels(self) -> int | None:
        return self._found.get((tensor_pb2.TENSOR_ROLE_LABELS, 0, ""))

    def labels_by_modality(self) -> list[int]:
        role = tensor_pb2.TENSOR_ROLE_LABELS
        return [index for (found, _, name), index in self._found.items() if found == role and name]

    def mask(self) -> int | None:
        return self._found.get((tensor_pb2.TENSOR_ROLE_MASK, 0, ""))

    def background(self) -> tuple[tuple[int, ...], ...]:
        role = tensor_pb2.TENSOR_ROLE_BACKGROUND
        cases = {case: index for (found, case, _), index in self._found.items() if found == role}
        for position, case in enumerate(sorted(cases)):
            if case != position:
                message = "Background cases count from 0 without a gap. Number them so."
                raise InvalidSpec("CASE_INDEX_INVALID", message, field=f"tensors[{cases[case]}].case_index")
        return tuple(self.one_for_each(role, case) for case in sorted(cases))


def _labels(roles: _ByRole, grids: Sequence[Geometry], volumes: Sequence[int], plans: Sequence[FitPlan]) -> tuple[int, ...]:
    shared, own = roles.shared_labels(), roles.labels_by_modality()
    if shared is None:
        labels = roles.all_or_none(tensor_pb2.TENSOR_ROLE_LABELS)
        message = f"Labels must lie on their modality's grid: {_SAME_GRID}."
        for number, volume in zip(labels, volumes, strict=bool(labels)):
            _require_same_grid(grids[number], grids[volume], number, message)
        return labels
    if own:
        message = "Labels are shared by all modalities or sent for each; here they are both. Send one kind."
        raise InvalidSpec("MODALITY_DUPLICATED", message, field=f"tensors[{own[0]}].modality")
    message = f"Shared labels need all modalities on their grid: {_SAME_GRID}. Send labels for each modality."
    for volume, plan in zip(volumes, plans, strict=True):
        _require_same_grid(grids[shared], grids[volume], shared, message)
        if plan.target.shape != plans[0].target.shape:
            raise InvalidSpec("GRID_MISMATCH", message, field=f"tensors[{shared}].shape")
    return (shared,)


def _fitted(model: Model, numbers: Sequence[int], grids: Sequence[Geometry]) -> tuple[FitPlan, ...]:
    """Plan the fit of one case, and hold the channels of one input to one grid."""
    plans: list[FitPlan] = []
    first: dict[str, FitPlan] = {}
    for number, spec in zip(numbers, model.modalities, strict=True):
        try:
            plan = plan_fit(grids[number], spec)
        except InvalidSpec as error:
            raise InvalidSpec(error.reason, error.message, field=f"tensors[{number}].{error.field}") from None
        reference = first.setdefault(spec.input_name, plan)
        message = f"The modalities of one model input must lie on one grid: {_SAME_GRID}. Register and resample them first."
        _require_same_grid(plan.target, reference.target, number, message)
        if not _are_comparable(plan, reference):
            raise InvalidSpec("GRID_MISMATCH", message, field=f"tensors[{number}].shape")
        plans.append(plan)
    return tuple(plans)


def _are_comparable(plan: FitPlan, other: FitPlan) -> bool:
    """Cropping and padding give two volumes one shape; without affines only their own shapes tell whether they were one."""
    return plan.source.affine is not None or plan.source.shape == other.source.shape


def _require_same_grid(grid: Geometry, wanted: Geometry, number: int, message: str) -> None:
    if not grid.same_grid(wanted):
        field = "affine" if grid.shape == wanted.shape else "shape"
        raise InvalidSpec("GRID_MISMATCH", message, field=f"tensors[{number}].{field}")


def _require_model_shape(plan: FitPlan, wanted: FitPlan, number: int) -> None:
    if plan.target.shape != wanted.target.shape:
        message = "A background case must have the shape of the case on the model's grid. Crop, pad or resample it."
        raise InvalidSpec("SHAPE_MISMATCH", message, field=f"tensors[{number}].shape")


def _refuse_doubled_ids(headers: Sequence[tensor_pb2.Tensor]) -> None:
    seen: set[str] = set()
    for index, header in enumerate(headers):
        if header.id in seen:
            message = "Two tensors have one id. Give each its own."
            raise InvalidSpec("TENSOR_ID_DUPLICATED", message, field=f"tensors[{index}].id")
        seen.add(header.id)


def _cautions(plans: Iterable[FitPlan]) -> list[str]:
    found = []
    for plan in plans:
        found += ["AFFINE_UNKNOWN"] if plan.source.affine is None else []
        found += ["OBLIQUE"] if plan.oblique else []
        found += [] if plan.exact else ["RESAMPLED"]
        found += ["CROPPED"] if plan.cuts else []
        found += ["SPACING_DIFFERS"] if plan.off_spacing else []
    return found
