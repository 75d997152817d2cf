"""A client's tensors become a case, and maps find their way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from voxplain.errors import InvalidSpec, InvalidTensor
from voxplain.v1 import tensor_pb2
from voxplain_server.models.case_building import ClientTensor, build_case
from voxplain_server.models.model import Fit, Model, OutputKind

from tests import bundles
from tests.server.models.editing import header, load, modality, model_of, state

images: Any = nibabel  # Untyped where it counts here.

DTYPES: dict[str, int] = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "int32": tensor_pb2.DATA_TYPE_INT32,
    "int16": tensor_pb2.DATA_TYPE_INT16,
    "uint8": tensor_pb2.DATA_TYPE_UINT8,
}
TWO = model_of([modality(), modality(name="flair", channel=1)])


def _tensor(name: str, array: npt.NDArray[np.generic], **stated: Any) -> ClientTensor:
    array.flags.writeable = False  # As the client's shared memory is.
    return ClientTensor(header(name, **({"shape": array.shape, "data_type": DTYPES[array.dtype.name]} | stated)), array)


def _volume(seed: int = 0, shape: tuple[int, ...] = (4, 5, 6)) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.7, rng.uniform(1, 9, shape), 0).astype(np.float32)


def _two(*extra: ClientTensor) -> list[ClientTensor]:
    return [_tensor("t1", _volume(1)), _tensor("flair", _volume(2)), *extra]


def _scored(**stated: Any) -> Model:
    return model_of([modality(normalisation="nonzero-zscore", **stated)])


def _zscore(volume: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    inside = reference[reference != 0].astype(np.float64)
    return np.where(volume != 0, (volume - inside.mean()) / inside.std(), 0).astype(np.float32)


def test_volumes_come_in_the_models_order_whatever_the_clients() -> None:
    fitted = build_case(TWO, _two()[::-1])
    np.testing.assert_array_equal(fitted.case.volumes[0], _volume(1))
    np.testing.assert_array_equal(fitted.case.volumes[1], _volume(2))
    assert all(volume.dtype == np.float32 and volume.flags.c_contiguous for volume in fitted.case.volumes)
    assert not any(volume.flags.writeable for volume in fitted.case.volumes)
    assert fitted.case.one_grid
    assert fitted.case.baseline is None
    assert fitted.case.labels is None
    assert fitted.case.mask is None


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_integers_are_converted_without_scaling(dtype: str) -> None:
    volume = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    np.testing.assert_array_equal(build_case(model_of(), [_tensor("t1", volume)]).case.volumes[0], volume.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_not_finite_is_refused(value: float) -> None:
    volume = _volume(2)
    volume[3, 4, 5] = value
    with pytest.raises(InvalidTensor) as caught:
        build_case(TWO, [_tensor("t1", _volume(1)), _tensor("flair", volume)])
    assert (caught.value.reason, caught.value.field) == ("NOT_FINITE", "tensors[1]")


@pytest.mark.parametrize("role", [tensor_pb2.TENSOR_ROLE_BASELINE, tensor_pb2.TENSOR_ROLE_BACKGROUND])
def test_baselines_and_background_cases_must_be_finite_too(role: int) -> None:
    volume = _volume(3)
    volume[0, 0, 0] = np.nan
    with pytest.raises(InvalidTensor) as caught:
        build_case(model_of(), [_tensor("t1", _volume(1)), _tensor("other", volume, modality="t1", role=role)])
    assert (caught.value.reason, caught.value.field) == ("NOT_FINITE", "tensors[1]")


def test_headers_are_checked_again() -> None:
    with pytest.raises(InvalidSpec):
        build_case(TWO, _two()[:1])


def test_a_volume_is_normalised_by_its_own_voxels_and_a_baseline_by_the_cases() -> None:
    volume, baseline, donor = _volume(1), _volume(2), _volume(3)
    case = build_case(
        _scored(),
        [
            _tensor("t1", volume),
            _tensor("b", baseline, modality="t1", role=tensor_pb2.TENSOR_ROLE_BASELINE),
            _tensor("d", donor, modality="t1", role=tensor_pb2.TENSOR_ROLE_BACKGROUND),
        ],
    ).case
    assert case.baseline is not None
    np.testing.assert_allclose(case.volumes[0], _zscore(volume, volume), atol=1e-6)
    np.testing.assert_allclose(case.baseline[0], _zscore(baseline, volume), atol=1e-6)
    np.testing.assert_allclose(case.donors[0][0], _zscore(donor, donor), atol=1e-6)


def test_the_clients_bytes_are_not_touched() -> None:
    volume = _volume(1)
    kept = volume.copy()
    fitted = build_case(_scored(), [_tensor("t1", volume)])
    np.testing.assert_array_equal(volume, kept)
    assert not np.shares_memory(fitted.case.volumes[0], volume)


def test_labels_and_mask_follow_the_volume_to_the_models_grid() -> None:
    spec = modality(shape=(8, 5, 6), orientation="LAS", fit=Fit(pad=True))
    model = model_of([spec], kind=OutputKind.SEGMENTATION)
    volume = _volume(1)
    labels = np.where(volume != 0, np.arange(120).reshape(4, 5, 6), 0).astype(np.int16)
    fitted = build_case(
        model,
        [
            _tensor("t1", volume),
            _tensor("l", labels, modality="", role=tensor_pb2.TENSOR_ROLE_LABELS),
            _tensor("m", (labels > 60).astype(np.uint8), modality="", role=tensor_pb2.TENSOR_ROLE_MASK),
        ],
    )
    case = fitted.case
    assert case.labels is not None and case.mask is not None
    expected = np.zeros((8, 5, 6), np.int32)
    expected[2:6] = labels[::-1]
    np.testing.assert_array_equal(case.labels[0], expected)
    np.testing.assert_array_equal(case.mask, expected > 60)
    assert case.labels[0].dtype == np.int32
    assert case.mask.dtype == np.bool_
    np.testing.assert_array_equal(fitted.to_client(0, case.labels[0], nearest=True), labels)
    assert case.grids[0].axis_codes == "LAS"


def test_labels_come_shared_or_for_each_modality() -> None:
    labels = np.ones((4, 5, 6), np.int32)
    role = tensor_pb2.TENSOR_ROLE_LABELS
    shared = build_case(TWO, _two(_tensor("l", labels, modality="", role=role))).case
    by_modality = [_tensor(f"l-{n}", labels * n, modality=name, role=role) for n, name in ((2, "flair"), (1, "t1"))]
    own = build_case(TWO, _two(*by_modality)).case
    assert shared.labels is not None and own.labels is not None
    assert len(shared.labels) == 1
    assert [int(volume.max()) for volume in own.labels] == [1, 2]


def test_a_negative_label_is_refused() -> None:
    labels = np.full((4, 5, 6), -1, np.int32)
    with pytest.raises(InvalidTensor) as caught:
        build_case(TWO, _two(_tensor("l", labels, modality="", role=tensor_pb2.TENSOR_ROLE_LABELS)))
    assert (caught.value.reason, caught.value.field) == ("LABELS_NEGATIVE", "tensors[2]")


@pytest.mark.parametrize(
    ("volume", "code"), [(np.zeros((4, 5, 6), np.float32), "EMPTY_VOLUME"), (np.ones((4, 5, 6), np.float32), "CONSTANT_VOLUME")]
)
def test_a_volume_without_contrast_is_told(volume: npt.NDArray[np.float32], code: str) -> None:
    fitted = build_case(_scored(), [_tensor("t1", volume)])
    assert fitted.cautions == (code,)
    assert np.isfinite(fitted.case.volumes[0]).all()


def _with_background(folder: Path, *cases: npt.NDArray[np.float32], **options: Any) -> Model:
    """A bundle of two modalities whose background cases hold one array for both."""
    bundle = bundles.early_fusion_classes(folder, modalities=2)
    for number, voxels in enumerate(cases):
        images.save(images.Nifti1Image(voxels, bundle.affine), bundle.folder / f"case-{number}.nii.gz")
    listed = [dict.fromkeys(bundle.modalities, f"case-{number}.nii.gz") for number in range(len(cases))]
    return load(state(bundle, background_cases={"declaration": "synthetic", "cases": listed}, **options)).model


def _bundle_case(*extra: ClientTensor) -> list[ClientTensor]:
    affine = np.diag([2.0, 2.0, 2.0, 1.0]).ravel().tolist()
    return [_tensor(name, _volume(n, (12, 14, 10)), affine=affine) for n, name in enumerate(("t1", "t1c"))] + list(extra)


def test_background_cases_of_the_bundle_are_fitted_and_normalised_by_themselves(tmp_path: Path) -> None:
    donors = _volume(5, (12, 14, 10)), _volume(6, (12, 14, 10))
    model = _with_background(tmp_path, *donors, normalisation="nonzero-zscore", orientation="LAS")
    fitted = build_case(model, _bundle_case())
    assert len(fitted.case.donors) == 2
    for held, donor in zip(fitted.case.donors, donors, strict=True):
        np.testing.assert_allclose(held[0], _zscore(donor, donor)[::-1], atol=1e-6)
        np.testing.assert_array_equal(held[1], held[0])
    assert "BACKGROUND_UNFIT" not in fitted.cautions


def test_background_cases_of_the_request_go_before_those_of_the_bundle(tmp_path: Path) -> None:
    model = _with_background(tmp_path, _volume(5, (12, 14, 10)))
    affine = np.diag([2.0, 2.0, 2.0, 1.0]).ravel().tolist()
    sent = [
        _tensor(f"d-{name}", _volume(9, (12, 14, 10)), modality=name, role=tensor_pb2.TENSOR_ROLE_BACKGROUND, affine=affine)
        for name in ("t1", "t1c")
    ]
    (donor,) = build_case(model, _bundle_case(*sent)).case.donors
    np.testing.assert_array_equal(donor[0], _volume(9, (12, 14, 10)))


def test_the_bundles_background_cases_are_left_unread_where_no_method_asks(tmp_path: Path) -> None:
    model = _with_background(tmp_path, _volume(5, (12, 14, 10)))
    gone = replace(model, background_cases=({"t1": tmp_path / "gone.nii", "t1c": tmp_path / "gone.nii"},))
    assert build_case(gone, _bundle_case(), donors=False).case.donors == ()


def test_a_background_case_that_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    model = _with_background(tmp_path, _volume(5, (12, 14, 11)), _volume(6, (12, 14, 10)))
    broken = replace(model, background_cases=({"t1": tmp_path, "t1c": tmp_path}, *model.background_cases))
    fitted = build_case(broken, _bundle_case())
    assert len(fitted.case.donors) == 1
    assert "BACKGROUND_UNFIT" in fitted.cautions


def test_a_background_case_whose_bytes_are_spoiled_is_left_out_and_told(tmp_path: Path) -> None:
    model = _with_background(tmp_path, _volume(5, (12, 14, 10)), _volume(6, (12, 14, 10)))
    path = model.background_cases[0]["t1"]
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + bytes(64) + whole[564:])
    fitted = build_case(model, _bundle_case())
    assert len(fitted.case.donors) == 1
    assert "BACKGROUND_UNFIT" in fitted.cautions


def test_every_tiny_bundle_takes_its_own_case(tmp_path: Path) -> None:
    makers = (bundles.early_fusion_classes, bundles.late_fusion, bundles.slices_2_5d, bundles.two_dimensional)
    for maker in makers:
        bundle = maker(tmp_path)
        volumes = bundle.volumes()
        tensors = [ClientTensor(own, volumes[own.modality]) for own in bundle.headers()]
        fitted = build_case(load(bundle).model, tensors)
        assert [volume.shape for volume in fitted.case.volumes] == list(bundle.shapes.values())
        for index, name in enumerate(bundle.modalities):
            np.testing.assert_array_equal(fitted.to_client(index, fitted.case.volumes[index]), volumes[name])
