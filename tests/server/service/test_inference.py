"""The Open Inference Protocol at the service port, over a model's file that is a formula."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from voxplain.errors import InvalidTensor
from voxplain.inference import open_inference_pb2 as protocol
from voxplain.inference import open_inference_pb2_grpc as stubs
from voxplain_server.service.infer_message import MAX_FIELDS, join_response, split_request
from voxplain_server.settings import Limits
from voxplain_server.workers.inference import Inference

from tests.server.service.fake_predictor import FakePredictor, logits
from tests.server.service.front import Front, running_front, told_of

INFER = "/inference.GRPCInferenceService/ModelInfer"
IMAGE = np.random.default_rng(0).standard_normal((3, 2, 6, 5, 4)).astype("<f4")


def request(**changed: Any) -> protocol.ModelInferRequest:
    """A request that nothing is wrong with."""
    made = protocol.ModelInferRequest(model_name="tiny", id="mine", raw_input_contents=[IMAGE.tobytes()])
    made.inputs.add(name="image", datatype="FP32", shape=IMAGE.shape)
    for name, value in changed.items():
        if name == "raw":
            del made.raw_input_contents[:]
            made.raw_input_contents.extend(value)
        elif hasattr(made.inputs[0], name):
            kept = {field.name: own for field, own in made.inputs[0].ListFields() if field.name != name}
            made.inputs[0].CopyFrom(protocol.ModelInferRequest.InferInputTensor(**kept, **{name: value}))
        else:
            setattr(made, name, value)
    return made


def stub_of(front: Front) -> Any:
    return stubs.GRPCInferenceServiceStub(front.channel)


async def refused(front: Front, asked: protocol.ModelInferRequest) -> tuple[str, str, list[str]]:
    """Code, reason and fields of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub_of(front).ModelInfer(asked, timeout=20)
    told = told_of(refusal.value)
    return told.code.name, told.reason, told.fields


async def test_the_server_and_its_models_tell_of_themselves() -> None:
    async with running_front() as front:
        stub = stub_of(front)
        assert (await stub.ServerLive(protocol.ServerLiveRequest())).live
        assert (await stub.ServerReady(protocol.ServerReadyRequest())).ready
        assert (await stub.ServerMetadata(protocol.ServerMetadataRequest())).name == "voxplain"
        for name, version, ready in (("tiny", "", True), ("tiny", "2", True), ("tiny", "9", False), ("none", "", False)):
            answer = await stub.ModelReady(protocol.ModelReadyRequest(name=name, version=version))
            assert answer.ready is ready
        told = await stub.ModelMetadata(protocol.ModelMetadataRequest(name="tiny", version="1"))
        assert (told.name, list(told.versions), told.platform) == ("tiny", ["2", "1"], "onnxruntime_onnx")
        assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [("image", "FP32", [-1, 2, 6, 5, 4])]
        assert [(each.name, list(each.shape)) for each in told.outputs] == [("logits", [-1, 2]), ("half", [-1, 2])]
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.ModelMetadata(protocol.ModelMetadataRequest(name="none"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert told_of(unknown.value).reason == "MODEL_NOT_FOUND"


async def test_raw_contents_are_answered_raw_with_the_batch_axis_kept() -> None:
    async with running_front() as front:
        answer = await stub_of(front).ModelInfer(request())
        assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "2", "mine")
        assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
            ("logits", "FP32", [3, 2]),
            ("half", "FP16", [3, 2]),
        ]
        assert answer.raw_output_contents[0] == logits(IMAGE).tobytes()
        assert answer.raw_output_contents[1] == logits(IMAGE).astype("<f2").tobytes()


async def test_typed_contents_are_answered_typed() -> None:
    asked = request(raw=[], contents=protocol.InferTensorContents(fp32_contents=IMAGE.ravel().tolist()))
    asked.outputs.add(name="logits")
    async with running_front() as front:
        answer = await stub_of(front).ModelInfer(asked)
        assert not answer.raw_output_contents
        np.testing.assert_array_equal(np.float32(answer.outputs[0].contents.fp32_contents), logits(IMAGE).ravel())


async def test_an_output_in_half_precision_is_answered_raw_whatever_the_client_speaks() -> None:
    asked = request(raw=[], contents=protocol.InferTensorContents(fp32_contents=IMAGE.ravel().tolist()))
    asked.outputs.add(name="half")
    async with running_front() as front:
        answer = await stub_of(front).ModelInfer(asked)
        assert list(answer.raw_output_contents) == [logits(IMAGE).astype("<f2").tobytes()]


SHARED = protocol.InferParameter(string_param="region")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model_name": "none"}, ("NOT_FOUND", "MODEL_NOT_FOUND", ["model"])),
        ({"model_version": "9"}, ("NOT_FOUND", "VERSION_NOT_FOUND", ["version"])),
        ({"model_name": "broken"}, ("NOT_FOUND", "MODEL_REFUSED", ["model"])),
        ({"name": "picture"}, ("INVALID_ARGUMENT", "INPUT_UNKNOWN", ["inputs[0].name"])),
        ({"datatype": "FP16"}, ("INVALID_ARGUMENT", "DATATYPE_MISMATCH", ["inputs[0].datatype"])),
        ({"datatype": "BYTES"}, ("INVALID_ARGUMENT", "DATATYPE_MISMATCH", ["inputs[0].datatype"])),
        ({"shape": [2, 6, 5, 4]}, ("INVALID_ARGUMENT", "SHAPE_MISMATCH", ["inputs[0].shape"])),
        ({"shape": [3, 2, 6, 5, 5]}, ("INVALID_ARGUMENT", "SHAPE_MISMATCH", ["inputs[0].shape"])),
        ({"shape": [0, 2, 6, 5, 4]}, ("INVALID_ARGUMENT", "SHAPE_MISMATCH", ["inputs[0].shape"])),
        ({"shape": [-3, 2, 6, 5, 4]}, ("INVALID_ARGUMENT", "SHAPE_MISMATCH", ["inputs[0].shape"])),
        ({"shape": [1 << 40, 2, 6, 5, 4]}, ("INVALID_ARGUMENT", "CONTENTS_SIZE", ["raw_input_contents[0]"])),
        ({"shape": [2, 2, 6, 5, 4]}, ("INVALID_ARGUMENT", "CONTENTS_SIZE", ["raw_input_contents[0]"])),
        ({"raw": [IMAGE.tobytes()] * 2}, ("INVALID_ARGUMENT", "CONTENTS_MISSING", ["raw_input_contents"])),
        ({"raw": []}, ("INVALID_ARGUMENT", "CONTENTS_SIZE", ["inputs[0].contents.fp32_contents"])),
        (
            {"contents": protocol.InferTensorContents(fp32_contents=[1.0])},
            ("INVALID_ARGUMENT", "CONTENTS_MIXED", ["inputs[0].contents"]),
        ),
        (
            {"raw": [], "contents": protocol.InferTensorContents(fp64_contents=IMAGE.ravel().tolist())},
            ("INVALID_ARGUMENT", "CONTENTS_MIXED", ["inputs[0].contents"]),
        ),
        (
            {"parameters": {"shared_memory_region": SHARED}},
            ("INVALID_ARGUMENT", "PARAMETER_UNSUPPORTED", ["inputs[0].parameters"]),
        ),
    ],
)
async def test_a_request_that_does_not_fit_its_model_is_refused_by_field(
    changed: dict[str, Any], expected: tuple[str, str, list[str]]
) -> None:
    async with running_front() as front:
        assert await refused(front, request(**changed)) == expected
        assert not front.predictor.asked
        assert front.metrics.registry.get_sample_value("voxplain_refused_calls_total", {"reason": expected[1]}) == 1


async def test_inputs_and_outputs_are_named_once_and_all_inputs_are_there() -> None:
    none, twice, unknown, double, classes = (request() for _ in range(5))
    del none.inputs[:]
    del none.raw_input_contents[:]
    twice.inputs.add().CopyFrom(twice.inputs[0])
    twice.raw_input_contents.append(IMAGE.tobytes())
    unknown.outputs.add(name="other")
    for _ in range(2):
        double.outputs.add(name="logits")
    classes.outputs.add(name="logits").parameters["classification"].int64_param = 1
    async with running_front() as front:
        assert await refused(front, none) == ("INVALID_ARGUMENT", "INPUT_MISSING", ["inputs"])
        assert await refused(front, twice) == ("INVALID_ARGUMENT", "INPUT_TWICE", ["inputs[1].name"])
        assert await refused(front, unknown) == ("INVALID_ARGUMENT", "OUTPUT_UNKNOWN", ["outputs[0].name"])
        assert await refused(front, double) == ("INVALID_ARGUMENT", "OUTPUT_TWICE", ["outputs"])
        assert await refused(front, classes) == ("INVALID_ARGUMENT", "PARAMETER_UNSUPPORTED", ["outputs[0].parameters"])


async def test_hints_that_are_not_known_are_let_pass() -> None:
    asked = request()
    asked.parameters["priority"].uint64_param = 1
    asked.inputs[0].parameters["content_type"].string_param = "np"
    async with running_front() as front:
        assert (await stub_of(front).ModelInfer(asked)).outputs


async def test_a_fault_of_the_model_is_told_and_counted() -> None:
    async def fail(asked: Inference) -> None:
        raise InvalidTensor("INPUTS_NOT_RUN", "the model cannot run on this", field="inputs")

    async with running_front(predictor=FakePredictor(fail)) as front:
        assert await refused(front, request()) == ("INVALID_ARGUMENT", "INPUTS_NOT_RUN", ["inputs"])
        labels = {"model": "tiny", "outcome": "failed"}
        assert front.metrics.registry.get_sample_value("voxplain_inferences_total", labels) == 1


async def test_a_fault_of_ours_is_told_as_an_id_only() -> None:
    async def fail(asked: Inference) -> None:
        raise ValueError("secret patient")

    async with running_front(predictor=FakePredictor(fail)) as front:
        assert (await refused(front, request()))[:2] == ("INTERNAL", "INTERNAL_ERROR")
        assert "secret" not in front.log.getvalue()


async def test_a_client_that_leaves_or_runs_out_of_time_stops_the_inference() -> None:
    async def wait(asked: Inference) -> None:
        await asyncio.Event().wait()

    async with running_front(predictor=FakePredictor(wait)) as front:
        call = stub_of(front).ModelInfer(request())
        await front.predictor.running.wait()
        call.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub_of(front).ModelInfer(request(), timeout=0.3)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(10):
            while front.predictor.cancelled < 2 or front.admission.calls:
                await asyncio.sleep(0.01)
        assert front.metrics.registry.get_sample_value("voxplain_inferences_total", {"model": "tiny", "outcome": "cancelled"})


async def test_a_call_that_finds_no_slot_or_no_room_is_told_to_come_back() -> None:
    hold = asyncio.Event()

    async def wait(asked: Inference) -> None:
        await hold.wait()

    async with running_front(predictor=FakePredictor(wait), queue_length=0) as front:
        held = asyncio.ensure_future(stub_of(front).ModelInfer(request()))
        await front.predictor.running.wait()
        assert (await refused(front, request()))[:2] == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        # What it was given before its message was known has gone back but for what it needs.
        assert front.admission.reserved_bytes < 2 * (4 << 20) + 4 * IMAGE.nbytes
        hold.set()
        assert (await held).outputs
    async with running_front(max_bytes=1 << 20) as front:
        assert (await refused(front, request()))[:2] == ("RESOURCE_EXHAUSTED", "CALL_TOO_LARGE")


async def test_messages_are_bound_by_the_setting_each_way() -> None:
    many = np.zeros((4000, 2, 6, 5, 4), dtype="<f4")
    asked = request(shape=many.shape, raw=[many.tobytes()])
    async with running_front(limits=Limits(max_inference_bytes=1 << 20)) as front:
        # Below gRPC's own bound of 4 MiB our own decides.
        assert (await refused(front, asked))[:2] == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    more = request(shape=[9000, *many.shape[1:]], raw=[bytes(9000 * 960)])
    async with running_front() as front:
        assert (await refused(front, more))[0] == "RESOURCE_EXHAUSTED"
    async with running_front(limits=Limits(max_inference_bytes=16 << 20)) as front:
        answer = await stub_of(front).ModelInfer(more)
        assert answer.outputs[0].shape[0] == 9000
        # The other calls of the port keep their own bound.
        assert (await front.refusal_of([bytes(5 << 20)])).reason == "MESSAGE_TOO_LARGE"


def test_a_request_is_split_where_its_raw_contents_lie() -> None:
    asked = request()
    asked.parameters["a"].double_param = 1.0
    header, raw = split_request(asked.SerializeToString())
    assert [bytes(each) for each in raw] == [IMAGE.tobytes()]
    del asked.raw_input_contents[:]
    assert header == asked


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x3a\x05abc", "MALFORMED_MESSAGE"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "MALFORMED_MESSAGE"),
        (b"\x0b\x0c", "MALFORMED_MESSAGE"),
        (b"\x2a\x02\xff\xff", "MALFORMED_MESSAGE"),
        (b"\x2a\x00" * (MAX_FIELDS + 1), "TOO_MANY_FIELDS"),
    ],
)
async def test_a_message_that_is_none_or_too_many_fields_are_refused(message: bytes, reason: str) -> None:
    async with running_front() as front:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = front.channel.unary_unary(INFER)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call(message, timeout=10)
        assert told_of(refusal.value).reason == reason


def test_a_response_is_joined_as_protobuf_would() -> None:
    response = protocol.ModelInferResponse(model_name="tiny", id="x")
    response.outputs.add(name="logits", datatype="FP32", shape=[1, 50])
    content = np.arange(50, dtype="<f4")
    joined = protocol.ModelInferResponse.FromString(join_response(response, [content.data]))
    response.raw_output_contents.append(content.tobytes())
    assert joined == response
