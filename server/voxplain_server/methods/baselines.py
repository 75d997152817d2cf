"""What stands for "absent"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from voxplain.errors import InvalidSpec, UnsupportedByModel
from voxplain.v1 import method_pb2

from voxplain_server.features.feature_cache import FeatureCache
from voxplain_server.methods.draws import philox
from voxplain_server.models.case import Case, Volumes


def baseline_volumes(
    baseline: method_pb2.Baseline, case: Case, *, seed: int, key: str, cache: FeatureCache | None = None
) -> Volumes:
    """Make the baseline of a case, in normalised units on the model's grid.

    Args:
        baseline: resolved, so its kind is set.
        case: the case; the client's baseline and the background cases come with it.
        seed: the call's seed; only normal noise draws.
        key: the method's key in the call, the name of its draws.
        cache: what was made for this case before: a baseline that draws nothing is the same for all methods.

    Returns:
        One read-only C-contiguous float32 array (*spatial) for each modality.

    Raises:
        voxplain.errors.InvalidSpec: BASELINE_NOT_SENT or NO_SUCH_BACKGROUND_CASE.
        voxplain.errors.UnsupportedByModel: BASELINE_GRID_DIFFERS, the background case has another shape.
    """
    if cache is not None and baseline.WhichOneof("kind") != "normal_noise":
        name = ("baseline", baseline.SerializeToString(deterministic=True))
        return cache.remember(name, lambda: _made(baseline, case, seed=seed, key=key))
    return _made(baseline, case, seed=seed, key=key)


def _made(baseline: method_pb2.Baseline, case: Case, *, seed: int, key: str) -> Volumes:
    kind = baseline.WhichOneof("kind")
    if kind == "zero":
        made = tuple(np.zeros(volume.shape, dtype=np.float32) for volume in case.volumes)
    elif kind == "modality_mean":
        made = tuple(np.full(volume.shape, volume.mean(dtype=np.float64), dtype=np.float32) for volume in case.volumes)
    elif kind == "normal_noise":
        made = tuple(
            _noise(volume, philox(seed, key, "normal-noise", modality)) for modality, volume in enumerate(case.volumes)
        )
    elif kind == "gaussian_blur":
        made = tuple(_blurred(volume, baseline.gaussian_blur.sigma_voxels) for volume in case.volumes)
    elif kind == "client":
        made = _client_baseline(case)
    elif kind == "background":
        made = background_case(case, baseline.background.case_index)
    else:
        raise InvalidSpec("BASELINE_MISSING", "name the kind of the baseline", field="baseline")
    return tuple(_read_only(volume) for volume in made)


def background_case(case: Case, index: int) -> Volumes:
    """One background case on the grid of the case.

    Raises:
        voxplain.errors.InvalidSpec: NO_SUCH_BACKGROUND_CASE.
        voxplain.errors.UnsupportedByModel: BASELINE_GRID_DIFFERS, its shape is another.
    """
    if index >= len(case.donors):
        raise InvalidSpec(
            "NO_SUCH_BACKGROUND_CASE",
            "there is no background case of this index in the request or the model; send one with the role BACKGROUND",
            field="baseline.background.case_index",
        )
    donor = case.donors[index]
    if any(theirs.shape != ours.shape for theirs, ours in zip(donor, case.volumes, strict=True)):
        raise UnsupportedByModel(
            "BASELINE_GRID_DIFFERS",
            "a background case must have the shape of the case on the model's grid, modality by modality",
            field="baseline.background.case_index",
        )
    return tuple(np.ascontiguousarray(volume, dtype=np.float32) for volume in donor)


def _read_only(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    view = volume.view()
    view.flags.writeable = False
    return view


def _noise(volume: npt.NDArray[np.float32], draws: np.random.Generator) -> npt.NDArray[np.float32]:
    mean, std = volume.mean(dtype=np.float64), volume.std(dtype=np.float64)
    return np.asarray(mean + std * draws.standard_normal(volume.shape), dtype=np.float32)


def _blurred(volume: npt.NDArray[np.float32], sigma_voxels: float) -> npt.NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    # In float64 and rounded once, so that flat places stay flat to the last bit that float32 has.
    blurred = gaussian_filter(volume.astype(np.float64), sigma=sigma_voxels, mode="nearest")
    rounded: npt.NDArray[np.float32] = blurred.astype(np.float32)
    return rounded


def _client_baseline(case: Case) -> Volumes:
    if case.baseline is None:
        raise InvalidSpec(
            "BASELINE_NOT_SENT",
            "the client's baseline needs one tensor with the role BASELINE for every modality",
            field="baseline.client",
        )
    return tuple(np.ascontiguousarray(volume, dtype=np.float32) for volume in case.baseline)
