"""What a caller asks becomes the messages of the contract."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from voxplain.errors import InvalidSpec, InvalidTensor
from voxplain.v1 import explain_pb2, tensor_pb2
from voxplain.volume import Geometry, Volume
from voxplain.wire import ChunkView, decode_request
from voxplain_client.method_names import make_method
from voxplain_client.request import build_request, seconds
from voxplain_client.targets import contrast, make_target


def test_a_nifti_array_goes_as_it_is_with_its_affine_row_by_row() -> None:
    voxels = np.asfortranarray(np.arange(24, dtype=">f4").reshape(2, 3, 4))
    affine = np.arange(16, dtype=np.float64).reshape(4, 4)
    request = build_request(
        {"model": "m", "volumes": {"t1": Volume(Geometry((2, 3, 4), affine), voxels)}, "methods": ["gradient"]}
    )
    header = request.spec.tensors[0]
    assert list(header.shape) == [2, 3, 4]
    assert list(header.affine) == list(range(16))
    assert header.role == tensor_pb2.TENSOR_ROLE_VOLUME
    assert bytes(request.payloads[0].bytes()) == np.arange(24, dtype="<f4").tobytes()


def test_the_spec_comes_first_and_then_every_byte_of_every_tensor() -> None:
    volumes = {"t1": np.ones((70, 70, 70), np.float32), "t1c": np.zeros((4, 4), np.float32)}
    request = build_request({"model": "m", "volumes": volumes, "methods": ["gradient"]})
    first, *rest = [decode_request(message) for message in request.messages()]
    assert isinstance(first, explain_pb2.ExplainSpec)
    assert first == request.spec
    received: dict[str, int] = {}
    for chunk in rest:
        assert isinstance(chunk, ChunkView)
        assert chunk.offset_bytes == received.get(chunk.tensor_id, 0)
        assert chunk.crc32c is not None
        received[chunk.tensor_id] = chunk.offset_bytes + len(chunk.data)
    assert received == {"volume-0": 70**3 * 4, "volume-1": 64}


def test_a_resumed_call_differs_in_checkpoint_and_version_only() -> None:
    request = build_request({"model": "m", "volumes": {"t1": np.ones((4, 4, 4))}, "methods": ["lime"], "seed": 3})
    again = decode_request(next(request.messages(checkpoint=b"c", version="2")))
    assert isinstance(again, explain_pb2.ExplainSpec)
    assert (again.checkpoint, again.version) == (b"c", "2")
    again.checkpoint, again.version = b"", ""
    assert again == request.spec


def test_every_option_lands_in_its_field() -> None:
    cube = np.ones((4, 4, 4), np.float32)
    request = build_request(
        {
            "model": "m",
            "version": "2",
            "volumes": {"t1": cube},
            "methods": ["kernel-shap", make_method("occlusion", key="big")],
            "target": contrast("irregular", 0),
            "scale": "probability",
            "labels": {"t1": cube.astype(np.int64)},
            "baselines": {"t1": cube},
            "background": [{"t1": cube}, {"t1": cube}],
            "mask": cube > 0,
            "seed": 0,
            "budget": explain_pb2.Budget(max_evaluations=9),
            "snapshot_interval": 1.5,
            "checkpoint": b"c",
            "execution": explain_pb2.Execution(batch_size=4),
            "grid": "model",
        }
    )
    spec = request.spec
    roles = [(tensor.role, tensor.modality, tensor.case_index, tensor.data_type) for tensor in spec.tensors]
    float32, int32, uint8 = tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_INT32, tensor_pb2.DATA_TYPE_UINT8
    assert roles == [
        (tensor_pb2.TENSOR_ROLE_VOLUME, "t1", 0, float32),
        (tensor_pb2.TENSOR_ROLE_BASELINE, "t1", 0, float32),
        (tensor_pb2.TENSOR_ROLE_BACKGROUND, "t1", 0, float32),
        (tensor_pb2.TENSOR_ROLE_BACKGROUND, "t1", 1, float32),
        (tensor_pb2.TENSOR_ROLE_LABELS, "t1", 0, int32),
        (tensor_pb2.TENSOR_ROLE_MASK, "", 0, uint8),
    ]
    assert len({tensor.id for tensor in spec.tensors}) == len(spec.tensors)
    assert spec.target.scale == explain_pb2.SCORE_SCALE_PROBABILITY
    assert [term.weight for term in spec.target.weighted_sum.terms] == [1.0, -1.0]
    assert spec.target.region.mask_tensor_id == spec.tensors[-1].id
    assert (spec.version, spec.checkpoint, spec.grid) == ("2", b"c", explain_pb2.GRID_MODEL)
    assert spec.HasField("seed")
    assert spec.budget.max_evaluations == 9
    assert spec.execution.batch_size == 4
    assert spec.snapshot_interval.ToMilliseconds() == 1500
    assert spec.methods[1].key == "big"
    assert spec.methods[0].WhichOneof("method") == "kernel_shap"


def test_what_is_not_asked_is_left_unset() -> None:
    spec = build_request({"model": "m", "volumes": {"t1": np.ones((4, 4))}, "methods": ["gradient"]}).spec
    assert not spec.HasField("seed")
    assert not spec.HasField("target")
    assert not spec.HasField("budget")
    assert not spec.HasField("snapshot_interval")
    assert spec.grid == explain_pb2.GRID_UNSPECIFIED
    assert not spec.tensors[0].affine


@pytest.mark.parametrize(
    ("given", "sent"),
    [("int16", "int16"), ("float64", "float32"), ("uint16", "float32"), ("int32", "float32"), ("bool", "float32")],
)
def test_volumes_are_brought_to_a_type_that_travels(given: str, sent: str) -> None:
    request = build_request({"model": "m", "volumes": {"t1": np.ones((4, 4, 4), given)}, "methods": ["gradient"]})
    assert request.payloads[0].voxels.dtype == np.dtype(sent)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"methods": ["saliency"]}, InvalidSpec, "METHOD_UNKNOWN"),
        ({"seed": -1}, InvalidSpec, "SEED_INVALID"),
        ({"seed": 1 << 64}, InvalidSpec, "SEED_INVALID"),
        ({"grid": "other"}, InvalidSpec, "GRID_INVALID"),
        ({"scale": "percent"}, InvalidSpec, "TARGET_INVALID"),
        ({"target": -1}, InvalidSpec, "TARGET_INVALID"),
        ({"snapshot_interval": float("nan")}, InvalidSpec, "DURATION_INVALID"),
        ({"labels": np.full((4, 4, 4), 0.5)}, InvalidTensor, "LABELS_NOT_INTEGERS"),
        ({"labels": np.full((4, 4, 4), 2.0**40)}, InvalidTensor, "LABELS_NOT_INTEGERS"),
        ({"mask": np.where(np.eye(4) > 0, np.nan, 0.0)}, InvalidTensor, "NOT_FINITE"),
        ({"mask": np.full((4, 4, 4), np.inf)}, InvalidTensor, "NOT_FINITE"),
        ({"volumes": {"t1": np.ones((4, 4, 4, 2))}}, InvalidTensor, "RANK_INVALID"),
        ({"volumes": {"t1": np.ones((4, 4), complex)}}, InvalidTensor, "DTYPE_UNSUPPORTED"),
        ({"volumes": {"t1": Volume(Geometry((4, 4), np.eye(3)), np.ones((4, 4)))}}, InvalidTensor, "AFFINE_INVALID"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_refused_before_a_call(change: Any, error: type[Exception], reason: str) -> None:
    options: Any = {"model": "m", "volumes": {"t1": np.ones((4, 4, 4))}, "methods": ["gradient"]} | change
    with pytest.raises(error) as refused:
        build_request(options)
    assert refused.value.reason == reason  # type: ignore[attr-defined]
    assert refused.value.field  # type: ignore[attr-defined]


def test_a_target_of_nothing_is_left_to_the_server() -> None:
    assert make_target(None) is None
    assert make_target("irregular") == explain_pb2.Target(class_ref=explain_pb2.ClassRef(name="irregular"))
    assert make_target(0) == explain_pb2.Target(class_ref=explain_pb2.ClassRef(index=0))


def test_durations_are_kept_to_the_nanosecond() -> None:
    assert seconds(2.25, field="f").ToNanoseconds() == 2_250_000_000


def test_a_list_is_refused_as_a_volume_and_as_an_affine_with_what_to_send() -> None:
    voxels = np.zeros((2, 2, 2), np.float32)
    for volume in ([[[0.0]]], ((0.0,),)):
        with pytest.raises(InvalidTensor, match=r"volume\[t1\]: .*Volume\(Geometry.*\(NOT_AN_ARRAY\)"):
            build_request({"model": "m", "volumes": {"t1": cast(Any, volume)}, "methods": ["gradient"]})
        with pytest.raises(InvalidTensor, match=r"numpy.asarray.*\(NOT_AN_ARRAY\)"):
            Volume(Geometry(shape=(1, 1, 1)), cast(Any, volume))
    for affine in (np.eye(4).tolist(), tuple(range(16)), np.eye(3)):
        placed = Volume(Geometry(shape=(2, 2, 2), affine=cast(Any, affine)), voxels)
        with pytest.raises(InvalidTensor, match=r"4x4 numpy array.*\(AFFINE_INVALID\)"):
            build_request({"model": "m", "volumes": {"t1": placed}, "methods": ["gradient"]})
    with pytest.raises(InvalidTensor, match=r"one volume for each modality.*\(NOT_BY_MODALITY\)"):
        build_request({"model": "m", "volumes": cast(Any, [voxels]), "methods": ["gradient"]})
