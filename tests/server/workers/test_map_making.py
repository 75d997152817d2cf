"""Maps on the grid that the client sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain_server.features.feature_set import FeatureSet
from voxplain_server.methods.estimate import Estimate, FeatureValues, SharedMap
from voxplain_server.models.case_building import ClientTensor, FittedCase, build_case
from voxplain_server.models.model import Fit
from voxplain_server.workers.map_making import MapMaker, modality_importance

from tests.fakes import fake_model

CLIENT, MODEL = (6, 5, 4), (4, 5, 4)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def fitted() -> FittedCase:
    """Two modalities, flipped along the first axis to RAS and cropped there by one voxel at each end."""
    model = fake_model([MODEL, MODEL])
    modalities = tuple(replace(each, orientation="RAS", fit=Fit(crop=True)) for each in model.modalities)
    tensors = [
        ClientTensor(
            tensor_pb2.Tensor(
                id=each.name,
                role=tensor_pb2.TENSOR_ROLE_VOLUME,
                modality=each.name,
                data_type=tensor_pb2.DATA_TYPE_FLOAT32,
                shape=CLIENT,
                affine=AFFINE.ravel(),
            ),
            np.ones(CLIENT, dtype=np.float32),
        )
        for each in modalities
    ]
    return build_case(replace(model, modalities=modalities), tensors)


def ramp() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.arange(np.prod(MODEL), dtype=np.float64).reshape(MODEL)


def halves() -> FeatureSet:
    """Background, and one feature in each modality."""
    first, second = np.zeros(MODEL, dtype=np.int32), np.zeros(MODEL, dtype=np.int32)
    first[2:], second[2:] = 1, 2
    return FeatureSet(labels=(first, second), count=3, shared=False)


def test_a_map_comes_back_flipped_and_with_zero_where_the_model_saw_nothing(fitted: FittedCase) -> None:
    made = list(MapMaker(fitted, explain_pb2.GRID_UNSPECIFIED).final(Estimate(maps=(ramp(), -ramp()))))
    assert [list(each.header.modalities) for each in made] == [["t1"], ["t1c"]]
    first = made[0]
    assert first.values.shape == tuple(first.header.shape) == CLIENT
    np.testing.assert_array_equal(first.values[1:5], ramp()[::-1])
    assert not first.values[[0, 5]].any()
    assert list(first.header.affine) == AFFINE.ravel().tolist()
    assert first.header.size_bytes == first.values.nbytes
    assert first.sha256() == hashlib.sha256(first.values.tobytes()).hexdigest()


def test_the_native_map_lies_on_the_models_grid(fitted: FittedCase) -> None:
    (made, _) = MapMaker(fitted, explain_pb2.GRID_MODEL).final(Estimate(maps=(ramp(), ramp())))
    np.testing.assert_array_equal(made.values, ramp())
    assert made.header.grid == explain_pb2.GRID_MODEL
    target = fitted.plans[0].target.affine
    assert target is not None
    assert list(made.header.affine) == target.ravel().tolist()


def test_values_by_label_paint_the_final_map(fitted: FittedCase) -> None:
    estimate = Estimate(by_feature=FeatureValues(halves(), np.array([7.0, 1.0, -2.0]), np.array([0.1, 0.2, 0.3])))
    maker = MapMaker(fitted, explain_pb2.GRID_INPUT)
    labels, values, final = list(maker.labels(halves())), list(maker.values_by_label(estimate)), list(maker.final(estimate))
    assert len(labels) == 2
    assert len(values) == len(final) == 4
    for number, (by_label, painted) in enumerate(zip(values, final, strict=True)):
        assert by_label.header.quantity == painted.header.quantity
        np.testing.assert_array_equal(by_label.values[labels[number % 2].values], painted.values)
        assert by_label.header.snapshot
        assert not painted.header.snapshot


def test_shared_features_make_one_map_without_modality_importance(fitted: FittedCase) -> None:
    labels = halves().labels[0]
    shared = FeatureSet(labels=(labels, labels), count=2, shared=True)
    estimate = Estimate(by_feature=FeatureValues(shared, np.array([0.0, 1.0])))
    (made,) = MapMaker(fitted, explain_pb2.GRID_INPUT).final(estimate)
    assert list(made.header.modalities) == ["t1", "t1c"]
    assert modality_importance(estimate, ("t1", "t1c")) == []


def test_a_map_of_a_layer_names_the_modalities_that_share_it(fitted: FittedCase) -> None:
    estimate = Estimate(shared=(SharedMap((0, 1), ramp()),))
    (made,) = MapMaker(fitted, explain_pb2.GRID_INPUT).final(estimate)
    assert list(made.header.modalities) == ["t1", "t1c"]
    assert modality_importance(estimate, ("t1", "t1c")) == []


def test_a_layer_of_a_branch_with_one_modality_tells_its_importance() -> None:
    estimate = Estimate(shared=(SharedMap((1,), np.array([3.0, -1.0])), SharedMap((0, 2), np.ones(2))))
    (only,) = modality_importance(estimate, ("t1", "t1c", "t2"))
    assert (only.modality, only.sum_positive, only.sum, only.sum_absolute) == ("t1c", 3.0, 2.0, 4.0)


@pytest.mark.parametrize(("reached", "quantities"), [(1.0, ["ATTRIBUTION"] * 2), (0.5, ["ATTRIBUTION"] * 2 + ["COVERAGE"] * 2)])
def test_coverage_comes_only_where_something_is_not_covered(fitted: FittedCase, reached: float, quantities: list[str]) -> None:
    coverage = np.full(MODEL, reached)
    estimate = Estimate(maps=(ramp(), ramp()), coverage=(coverage, coverage))
    made = MapMaker(fitted, explain_pb2.GRID_INPUT).final(estimate)
    assert [explain_pb2.Quantity.Name(each.header.quantity).removeprefix("QUANTITY_") for each in made] == quantities


def test_modality_importance_sums_voxels_on_the_models_grid() -> None:
    values = np.array([0.5, 2.0, -3.0])
    first, second = modality_importance(Estimate(by_feature=FeatureValues(halves(), values)), ("t1", "t1c"))
    assert (first.modality, first.sum_positive, first.sum, first.sum_absolute) == ("t1", 100.0, 100.0, 100.0)
    assert (second.sum_positive, second.sum, second.sum_absolute) == (20.0, -100.0, 140.0)
