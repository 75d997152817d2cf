"""What headers show is refused before a byte is reserved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from voxplain.errors import InvalidSpec
from voxplain.v1 import tensor_pb2
from voxplain_server.models.case_building import ClientTensor, build_case
from voxplain_server.models.case_plan import plan_case
from voxplain_server.models.cautions import WORDS, describe_cautions
from voxplain_server.models.header_check import check_tensors
from voxplain_server.models.model import Fit, Model, OutputKind

from tests.server.models.editing import header, modality, model_of

VOLUME = tensor_pb2.TENSOR_ROLE_VOLUME
BASELINE = tensor_pb2.TENSOR_ROLE_BASELINE
LABELS = tensor_pb2.TENSOR_ROLE_LABELS
MASK = tensor_pb2.TENSOR_ROLE_MASK
BACKGROUND = tensor_pb2.TENSOR_ROLE_BACKGROUND
INT32 = tensor_pb2.DATA_TYPE_INT32
UINT8 = tensor_pb2.DATA_TYPE_UINT8

EARLY = model_of([modality(), modality(name="flair", channel=1)])
LATE = model_of([modality(input_name="a"), modality(name="flair", input_name="b")])
SEGMENTATION = model_of([modality(), modality(name="flair", channel=1)], kind=OutputKind.SEGMENTATION)


def _affine(*, shift: float = 0.0, scale: float = 1.0) -> list[float]:
    affine = np.diag([scale, scale, scale, 1.0])
    affine[0, 3] = shift
    return [float(number) for number in affine.ravel()]


def _case(*extra: tensor_pb2.Tensor, **flair: Any) -> list[tensor_pb2.Tensor]:
    return [header(), header("flair", **flair), *extra]


def _refusal(model: Model, tensors: list[tensor_pb2.Tensor]) -> tuple[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        check_tensors(model, tensors)
    for tensor in tensors:
        for text in (tensor.id, tensor.modality):
            assert "secret" not in text or text not in caught.value.message
    return caught.value.reason, caught.value.field


def test_a_whole_case_is_accepted() -> None:
    types = {"t1": INT32, "flair": UINT8}
    labels = [header(f"l-{name}", role=LABELS, modality=name, data_type=kind) for name, kind in types.items()]
    baseline = [header(f"b-{name}", role=BASELINE, modality=name) for name in EARLY.modality_names]
    background = [
        header(f"d-{case}-{name}", role=BACKGROUND, modality=name, case_index=case)
        for case in (0, 1)
        for name in EARLY.modality_names
    ]
    assert check_tensors(EARLY, _case(*labels, *baseline, *background)) == []


def test_modalities_may_come_in_any_order() -> None:
    assert check_tensors(EARLY, _case()[::-1]) == []


@pytest.mark.parametrize(
    ("tensors", "reason", "field"),
    [
        ([], "MODALITY_MISSING", "tensors"),
        ([header()], "MODALITY_MISSING", "tensors"),
        (_case(header("again", modality="t1")), "MODALITY_DUPLICATED", "tensors[2].modality"),
        (_case(header("secret-pet")), "MODALITY_UNKNOWN", "tensors[2].modality"),
        (_case(header("x", modality="T1")), "MODALITY_UNKNOWN", "tensors[2].modality"),
        (_case(header("x", modality="")), "MODALITY_UNKNOWN", "tensors[2].modality"),
        (_case(id="t1"), "TENSOR_ID_DUPLICATED", "tensors[1].id"),
        (_case(id=""), "TENSOR_ID_INVALID", "tensors[1].id"),
        (_case(id="secret/../x"), "TENSOR_ID_INVALID", "tensors[1].id"),
        (_case(id="x" * 65), "TENSOR_ID_INVALID", "tensors[1].id"),
        (_case(role=0), "ROLE_INVALID", "tensors[1].role"),
        (_case(role=99), "ROLE_INVALID", "tensors[1].role"),
        (_case(header("m", role=MASK, modality="", data_type=UINT8)), "ROLE_INVALID", "tensors[2].role"),
        (_case(data_type=0), "DTYPE_MISMATCH", "tensors[1].data_type"),
        (_case(data_type=INT32), "DTYPE_MISMATCH", "tensors[1].data_type"),
        (_case(data_type=77), "DTYPE_MISMATCH", "tensors[1].data_type"),
        (_case(header("l", role=LABELS, data_type=INT32)), "MODALITY_UNKNOWN", "tensors[2].modality"),
        (_case(header("l", role=LABELS, modality="")), "DTYPE_MISMATCH", "tensors[2].data_type"),
        (_case(case_index=1), "CASE_INDEX_INVALID", "tensors[1].case_index"),
        (_case(shape=(4, 5)), "RANK_MISMATCH", "tensors[1].shape"),
        (_case(shape=(1, 4, 5, 6)), "RANK_MISMATCH", "tensors[1].shape"),
        (_case(shape=()), "RANK_MISMATCH", "tensors[1].shape"),
        (_case(shape=(4, 0, 6)), "SHAPE_INVALID", "tensors[1].shape"),
        (_case(shape=(4, 5, 2**31)), "SHAPE_INVALID", "tensors[1].shape"),
        (_case(shape=(8192, 8192, 8192)), "SHAPE_INVALID", "tensors[1].shape"),
        (_case(affine=[1.0] * 12), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(affine=[float("nan")] * 16), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(affine=[float("inf")] * 16), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(affine=[1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(affine=[1.0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(affine=[0.0] * 15 + [1.0]), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(affine=_affine(scale=1e6)), "AFFINE_INVALID", "tensors[1].affine"),
        (_case(shape=(5, 5, 6)), "GRID_MISMATCH", "tensors[1].shape"),
        (_case(affine=_affine(shift=0.02)), "GRID_MISMATCH", "tensors[1].affine"),
        (_case(affine=()), "GRID_MISMATCH", "tensors[1].affine"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tensors: list[tensor_pb2.Tensor], reason: str, field: str) -> None:
    assert _refusal(EARLY, tensors) == (reason, field)


def test_channels_of_one_input_may_be_off_by_a_hundredth_of_a_millimetre() -> None:
    assert check_tensors(EARLY, _case(affine=_affine(shift=0.009))) == []


def test_inputs_of_their_own_may_lie_on_other_grids() -> None:
    assert check_tensors(LATE, _case(shape=(9, 9, 9), affine=_affine(scale=3.0))) == []


def test_channels_stored_in_another_axis_order_lie_on_one_grid_once_turned() -> None:
    stated = {"orientation": "RAS"}
    model = model_of([modality(**stated), modality(name="flair", channel=1, **stated)])
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 3.0
    assert check_tensors(model, _case(affine=flipped.ravel().tolist())) == []
    assert _refusal(EARLY, _case(affine=flipped.ravel().tolist())) == ("GRID_MISMATCH", "tensors[1].affine")


@pytest.mark.parametrize(
    ("stated", "own", "expected"),
    [
        ({"orientation": "RAS"}, {"affine": ()}, ("AFFINE_MISSING", "tensors[0].affine")),
        ({"spacing_mm": (2.0, 2.0, 2.0)}, {}, ("SPACING_MISMATCH", "tensors[0].affine")),
        ({"shape": (4, 5, 7)}, {}, ("SHAPE_MISMATCH", "tensors[0].shape")),
        ({"shape": (4, 5, 7), "fit": Fit(crop=True)}, {}, ("SHAPE_MISMATCH", "tensors[0].shape")),
        ({"multiples": (4, 4, 4)}, {}, ("SHAPE_MISMATCH", "tensors[0].shape")),
    ],
)
def test_a_volume_that_the_bundles_fit_cannot_meet_is_refused(
    stated: dict[str, Any], own: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert _refusal(model_of([modality(**stated)]), [header(**own)]) == expected


@pytest.mark.parametrize("codes", [(-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_an_axis_aligned_volume_is_never_of_the_wrong_orientation(codes: tuple[int, ...]) -> None:
    affine = np.diag([*codes, 1]).astype(float)[[2, 0, 1, 3]]
    assert check_tensors(model_of([modality(orientation="LPS")]), [header(affine=affine.ravel().tolist())]) == []


def test_baselines_come_for_every_modality_or_for_none() -> None:
    one = header("b", role=BASELINE, modality="t1")
    assert _refusal(EARLY, _case(one)) == ("MODALITY_MISSING", "tensors")


def test_a_baseline_lies_on_the_grid_of_its_modality() -> None:
    baseline = [header(f"b-{name}", role=BASELINE, modality=name, shape=(4, 5, 7)) for name in EARLY.modality_names]
    assert _refusal(EARLY, _case(*baseline)) == ("GRID_MISMATCH", "tensors[2].shape")


def test_labels_lie_on_the_grid_of_their_modality() -> None:
    moved = {"role": LABELS, "data_type": INT32, "affine": _affine(shift=1)}
    labels = [header(f"l-{name}", modality=name, **moved) for name in EARLY.modality_names]
    assert _refusal(EARLY, _case(*labels)) == ("GRID_MISMATCH", "tensors[2].affine")


def test_labels_of_some_modalities_only_are_refused() -> None:
    assert _refusal(EARLY, _case(header("l", role=LABELS, modality="t1", data_type=INT32)))[0] == "MODALITY_MISSING"


def test_labels_are_shared_or_by_modality_but_not_both() -> None:
    shared = header("s", role=LABELS, modality="", data_type=INT32)
    own = header("l", role=LABELS, modality="t1", data_type=INT32)
    assert check_tensors(EARLY, _case(shared)) == []
    assert _refusal(EARLY, _case(shared, own)) == ("MODALITY_DUPLICATED", "tensors[3].modality")


def test_shared_labels_need_all_modalities_on_one_grid() -> None:
    shared = header("s", role=LABELS, modality="", data_type=INT32)
    tensors = [header(), header("flair", shape=(9, 9, 9)), shared]
    assert _refusal(LATE, tensors) == ("GRID_MISMATCH", "tensors[2].shape")


def test_a_mask_lies_on_the_first_modalitys_grid() -> None:
    mask = header("m", role=MASK, modality="", data_type=UINT8)
    assert check_tensors(SEGMENTATION, _case(mask)) == []
    moved = header("m", role=MASK, modality="", data_type=UINT8, shape=(4, 5, 5))
    assert _refusal(SEGMENTATION, _case(moved)) == ("GRID_MISMATCH", "tensors[2].shape")
    another = header("n", role=MASK, modality="t1", data_type=UINT8)
    assert _refusal(SEGMENTATION, _case(mask, another))[0] == "MODALITY_DUPLICATED"


def test_background_cases_are_complete_and_counted_from_zero() -> None:
    def background(case: int, *names: str) -> list[tensor_pb2.Tensor]:
        return [header(f"{case}-{name}", role=BACKGROUND, modality=name, case_index=case) for name in names]

    assert _refusal(EARLY, _case(*background(0, "t1")))[0] == "MODALITY_MISSING"
    gap = background(0, "t1", "flair") + background(2, "t1", "flair")
    assert _refusal(EARLY, _case(*gap))[0] == "CASE_INDEX_INVALID"
    assert _refusal(EARLY, _case(*background(64, "t1", "flair"))) == ("CASE_INDEX_INVALID", "tensors[2].case_index")


def test_a_background_case_has_the_cases_shape_on_the_models_grid() -> None:
    other = [header(f"d-{name}", role=BACKGROUND, modality=name, shape=(4, 5, 7)) for name in EARLY.modality_names]
    assert _refusal(EARLY, _case(*other)) == ("SHAPE_MISMATCH", "tensors[2].shape")


def test_what_is_not_checked_is_told() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0.9, -0.43589], [0.43589, 0.9]]
    assert check_tensors(model_of(), [header(affine=())]) == ["AFFINE_UNKNOWN"]
    assert check_tensors(model_of([modality(orientation="RAS")]), [header(affine=turn.ravel().tolist())]) == ["OBLIQUE"]
    resampled = modality(spacing_mm=(2.0, 2.0, 2.0), fit=Fit(resample=True))
    assert check_tensors(model_of([resampled]), [header()]) == ["RESAMPLED"]


@pytest.mark.parametrize(
    ("shape", "told"),
    [((4, 5, 6), []), ((4, 5, 7), []), ((3, 5, 6), ["CROPPED"]), ((4, 5, 2), ["CROPPED"]), ((5, 4, 9), ["CROPPED"])],
)
def test_what_is_cropped_is_told(shape: tuple[int, ...], told: list[str]) -> None:
    read = modality(shape=shape, fit=Fit(crop=True, pad=True))
    assert check_tensors(model_of([read]), [header()]) == told


def test_resampling_to_a_grid_that_misses_half_a_voxel_is_no_crop() -> None:
    for scale in (0.7, 0.9, 1.1, 1.3, 1.9):
        resampled = modality(spacing_mm=(1.0, 1.0, 1.0), fit=Fit(resample=True))
        assert check_tensors(model_of([resampled]), [header(affine=_affine(scale=scale))]) == ["RESAMPLED"]


@pytest.mark.parametrize(("scale", "told"), [(1.0, []), (1.009, []), (2.0, ["SPACING_DIFFERS"])])
def test_a_volume_that_has_the_shape_and_not_the_spacing_is_told_where_it_is_only_resized(
    scale: float, told: list[str]
) -> None:
    resized = modality(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0), fit=Fit(resize=True))
    assert check_tensors(model_of([resized]), [header(affine=_affine(scale=scale))]) == told


def test_resizing_that_gives_the_stated_spacing_is_only_told_as_resampling() -> None:
    resized = modality(shape=(8, 10, 12), spacing_mm=(1.0, 1.0, 1.0), fit=Fit(resize=True))
    assert check_tensors(model_of([resized]), [header(affine=_affine(scale=2.0))]) == ["RESAMPLED"]
    assert check_tensors(model_of([resized]), [header()]) == ["RESAMPLED", "SPACING_DIFFERS"]


def test_volumes_of_several_shapes_without_affines_are_no_channels_of_one_grid() -> None:
    """Cropped and padded they have one shape, and nobody knows whether their voxels meet."""
    fit = {"shape": (4, 4, 4), "fit": Fit(crop=True, pad=True)}
    model = model_of([modality(**fit), modality(name="flair", channel=1, **fit)])
    tensors = [header(affine=()), header("flair", affine=(), shape=(5, 3, 4))]
    assert _refusal(model, tensors) == ("GRID_MISMATCH", "tensors[1].shape")
    assert check_tensors(model, [header(affine=()), header("flair", affine=())]) == ["AFFINE_UNKNOWN", "CROPPED"]


@pytest.mark.parametrize(("shape", "one"), [((4, 5, 6), True), ((5, 3, 4), False)])
def test_inputs_of_their_own_without_affines_share_a_grid_only_with_one_shape(shape: tuple[int, ...], one: bool) -> None:
    fit = {"shape": (4, 4, 4), "fit": Fit(crop=True, pad=True)}
    model = model_of([modality(input_name="a", **fit), modality(name="flair", input_name="b", **fit)])
    headers = [header(affine=()), header("flair", affine=(), shape=shape)]
    assert plan_case(model, headers).one_grid is one
    volumes = [ClientTensor(own, np.ones(tuple(own.shape), np.float32)) for own in headers]
    assert build_case(model, volumes).case.one_grid is one


def test_every_caution_has_words_and_comes_once() -> None:
    cautions = describe_cautions([*WORDS, *WORDS])
    assert [caution.code for caution in cautions] == list(WORDS)
    assert all(caution.description for caution in cautions)
