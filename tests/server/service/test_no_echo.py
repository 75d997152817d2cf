"""What a client wrote comes back in no error, and reaches no log and no metric."""

from __future__ import annotations

import json

import grpc
import pytest
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2

from tests.server.service.front import (
    VOLUME_BYTES,
    case_messages,
    good_spec,
    only_method,
    payload,
    running_front,
)

Spec = explain_pb2.ExplainSpec
MARK = "xZ7secretZx"


def marked() -> list[tuple[str, Spec, list[bytes]]]:
    """Calls that carry a mark in every place where a client can put text, and are refused."""
    found: list[tuple[str, Spec, list[bytes]]] = []
    for name in ("request_id", "model", "version"):
        spec = good_spec()
        setattr(spec, name, MARK)
        if name == "request_id":
            spec.grid = 77  # type: ignore[assignment]
        found.append((name, spec, []))
    spec = good_spec()
    spec.methods[0].key = MARK
    found.append(("methods.key", spec, []))
    spec = good_spec()
    spec.target.class_ref.name = MARK
    found.append(("target.class_ref.name", spec, []))
    spec = good_spec()
    spec.target.region.mask_tensor_id = MARK
    found.append(("target.region.mask_tensor_id", spec, []))
    spec = good_spec()
    spec.execution.engine = MARK + " "
    found.append(("execution.engine", spec, []))
    spec = good_spec()
    spec.checkpoint = MARK.encode()
    spec.grid = 77  # type: ignore[assignment]
    found.append(("checkpoint", spec, []))
    spec = good_spec()
    grouping = method_pb2.FeatureGrouping(grouping_modality=MARK)
    only_method(spec).feature_ablation.grouping.CopyFrom(grouping)
    found.append(("grouping_modality", spec, []))
    spec = good_spec()
    only_method(spec).grad_cam.layers.append(MARK)
    found.append(("grad_cam.layers", spec, []))
    for name in ("id", "modality"):
        spec = good_spec()
        setattr(spec.tensors[1], name, MARK + "/")
        found.append((f"tensors.{name}", spec, []))
    spec = good_spec()
    for tensor in spec.tensors:
        tensor.id = MARK + tensor.id
    chunk = tensor_pb2.TensorChunk(tensor_id=MARK + "t1", offset_bytes=5, data=MARK.encode())
    found.append(("chunk", spec, [explain_pb2.ExplainRequest(chunk=chunk).SerializeToString()]))
    chunk = tensor_pb2.TensorChunk(tensor_id=MARK, data=MARK.encode())
    found.append(("chunk.tensor_id", spec, [explain_pb2.ExplainRequest(chunk=chunk).SerializeToString()]))
    found.append(("bytes", spec, [b"\xff" + MARK.encode()]))
    return found


@pytest.mark.parametrize(("spec", "messages"), [row[1:] for row in marked()], ids=[row[0] for row in marked()])
async def test_no_text_of_a_client_comes_back_or_reaches_the_log(
    spec: Spec, messages: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    async with running_front() as front:
        refused = await front.refusal(spec, messages)
        assert refused.code is not grpc.StatusCode.OK
        assert refused.reason
        told = refused.message + refused.trailers + front.log.getvalue() + "".join(capfd.readouterr())
        assert MARK not in told
        assert MARK.lower() not in told.lower()
        for name, value in ((each.name, each) for each in front.metrics.registry.collect()):
            assert MARK not in f"{name}{value}"


async def test_a_good_calls_log_holds_counts_and_no_text_of_the_client() -> None:
    spec = good_spec()
    spec.request_id = MARK
    spec.methods[0].key = MARK.lower()
    for tensor in spec.tensors:
        tensor.id = MARK + tensor.id
    case = {MARK + key: data for key, data in payload().items()}
    async with running_front() as front:
        await front.explain(spec, case_messages(case))
        assert MARK.lower() not in front.log.getvalue().lower()
        lines = [json.loads(line) for line in front.log.getvalue().splitlines()]
        assert [line["event"] for line in lines] == ["call_started", "call_ended"]
        assert lines[1]["outcome"] == "completed"
        assert lines[1]["bytes_received"] == 2 * VOLUME_BYTES
