"""What is wrong with baselines and groupings, whichever method they stand in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from voxplain.v1 import method_pb2

from voxplain_server.methods.bounds import outside
from voxplain_server.methods.method import Violation
from voxplain_server.models.model import Model

MAX_BLUR_SIGMA_VOXELS = 64.0
MAX_SEGMENTS = 10_000
MAX_EDGE_VOXELS = 65_536
MAX_BACKGROUND_CASES = 10_000


def baseline_violations(baseline: method_pb2.Baseline, path: str) -> Iterator[Violation]:
    """Check a resolved baseline; `path` is its own, for example `baseline` or `fill`."""
    kind = baseline.WhichOneof("kind")
    if kind is None:
        yield Violation(path, "BASELINE_MISSING", "name the kind of the baseline, or leave the message unset for the default")
    elif kind == "gaussian_blur":
        found = outside(baseline.gaussian_blur, "sigma_voxels", 0.0, MAX_BLUR_SIGMA_VOXELS, above=True)
        yield from _below(found, f"{path}.gaussian_blur")
    elif kind == "background":
        yield from _below(outside(baseline.background, "case_index", 0, MAX_BACKGROUND_CASES - 1), f"{path}.background")


def grouping_violations(grouping: method_pb2.FeatureGrouping, model: Model, path: str) -> Iterator[Violation]:
    """Check a resolved grouping on a model; `path` is its own."""
    kind = grouping.WhichOneof("kind")
    if kind is None:
        yield Violation(path, "GROUPING_MISSING", "name the kind of the grouping, or leave the message unset for the default")
    elif kind == "slic":
        yield from _below(outside(grouping.slic, "segments", 1, MAX_SEGMENTS), f"{path}.slic")
        yield from _below(outside(grouping.slic, "compactness", 0.0, float("inf"), above=True), f"{path}.slic")
        yield from _below(outside(grouping.slic, "sigma_voxels", 0.0, MAX_BLUR_SIGMA_VOXELS), f"{path}.slic")
    elif kind == "grid":
        yield from _grid_violations(grouping.grid, model, f"{path}.grid.edge_voxels")
    elif kind == "whole_modality" and grouping.shared:
        yield Violation(
            f"{path}.shared",
            "GROUPING_CANNOT_BE_SHARED",
            "each modality is a feature of its own; leave `shared` unset",
        )
    if grouping.HasField("grouping_modality") and grouping.grouping_modality not in model.modality_names:
        yield Violation(
            f"{path}.grouping_modality", "UNKNOWN_MODALITY", "the model has no modality of this name; GetModel lists them"
        )
    if grouping.shared and kind != "whole_modality" and not _may_share(model):
        yield Violation(
            f"{path}.shared",
            "GROUPING_NEEDS_ONE_GRID",
            "the modalities of this model have different shapes, so no voxel grouping serves them all; leave `shared` unset",
        )


def _may_share(model: Model) -> bool:
    known = [modality.shape for modality in model.modalities if None not in modality.shape]
    ranks = {len(modality.shape) for modality in model.modalities}
    return len(set(known)) <= 1 and len(ranks) == 1


def _grid_violations(grid: method_pb2.GridGrouping, model: Model, path: str) -> Iterator[Violation]:
    if any(len(grid.edge_voxels) not in (1, len(modality.shape)) for modality in model.modalities):
        yield Violation(path, "WRONG_LENGTH", "give one number for all axes, or one for each axis of every modality")
    elif any(not 1 <= edge <= MAX_EDGE_VOXELS for edge in grid.edge_voxels):
        yield Violation(path, "OUT_OF_RANGE", f"must be at least 1 and at most {MAX_EDGE_VOXELS:,}")


def _below(violations: Iterator[Violation], path: str) -> Iterator[Violation]:
    for violation in violations:
        yield replace(violation, field=f"{path}.{violation.field}")
