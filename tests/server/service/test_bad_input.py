"""Whatever is wrong with a call: the right code, a typed reason, the field, nothing reserved, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from voxplain import wire
from voxplain.v1 import explain_pb2, method_pb2, tensor_pb2
from voxplain_server.settings import Limits

from tests.server.service.front import (
    VOLUME_BYTES,
    case_messages,
    compute_for_ever,
    good_spec,
    payload,
    running_front,
    spec_message,
    tensors,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNSUPPORTED = grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
CLIENT_BASELINE = method_pb2.Baseline(client=method_pb2.ClientBaseline())
BACKGROUND_BASELINE = method_pb2.Baseline(background=method_pb2.BackgroundBaseline())
Spec = explain_pb2.ExplainSpec
Change = Callable[[Spec], object]


def method(spec: Spec) -> method_pb2.Method:
    """Replace the methods of a spec by one."""
    del spec.methods[:]
    return spec.methods.add()


def occlusion(spec: Spec, **params: object) -> None:
    method(spec).occlusion.CopyFrom(method_pb2.Occlusion(**params))  # type: ignore[arg-type]


def slic(spec: Spec, segments: int) -> None:
    grouping = method_pb2.FeatureGrouping(slic=method_pb2.SlicGrouping(segments=segments))
    method(spec).feature_ablation.grouping.CopyFrom(grouping)


SPECS: list[tuple[str, Change, grpc.StatusCode, str, str]] = [
    ("unknown model", lambda s: setattr(s, "model", "nobody"), NOT_FOUND, "MODEL_NOT_FOUND", "model"),
    ("no model", lambda s: s.ClearField("model"), INVALID, "MODEL_MISSING", "model"),
    ("refused model", lambda s: setattr(s, "model", "broken"), NOT_FOUND, "MODEL_REFUSED", "model"),
    ("unknown version", lambda s: setattr(s, "version", "9"), NOT_FOUND, "VERSION_NOT_FOUND", "version"),
    ("no method", lambda s: s.ClearField("methods"), INVALID, "METHOD_COUNT", "methods"),
    ("65 methods", lambda s: s.methods.extend(s.methods[:1] * 64), INVALID, "METHOD_COUNT", "methods"),
    ("a method without its message", lambda s: s.methods.add(key="x"), INVALID, "METHOD_MISSING", "methods[1].method"),
    ("a doubled key", lambda s: s.methods.extend(s.methods[:1]), INVALID, "KEY_DOUBLED", "methods[1].key"),
    ("a bad key", lambda s: setattr(s.methods[0], "key", "A b"), INVALID, "KEY_INVALID", "methods[0].key"),
    (
        "a method that the model cannot do",
        lambda s: s.methods.add().guided_backprop.SetInParent(),
        UNSUPPORTED,
        "NO_RELU",
        "methods[1]",
    ),
    ("zero samples", lambda s: method(s).smooth_grad.MergeFrom(method_pb2.SmoothGrad(samples=0)), INVALID, "OUT_OF_RANGE",
     "methods[0].smooth_grad.samples"),
    ("2^31 samples", lambda s: method(s).kernel_shap.MergeFrom(method_pb2.KernelShap(samples=2**31)), INVALID,
     "OUT_OF_RANGE", "methods[0].kernel_shap.samples"),
    ("2^31 segments", lambda s: slic(s, 2**31), INVALID, "OUT_OF_RANGE",
     "methods[0].feature_ablation.grouping.slic.segments"),
    ("NaN noise", lambda s: method(s).smooth_grad.MergeFrom(method_pb2.SmoothGrad(noise_std=math.nan)), INVALID,
     "NOT_FINITE", "methods[0].smooth_grad.noise_std"),
    ("a window larger than the volume", lambda s: occlusion(s, window=[9]), INVALID, "WINDOW_TOO_LARGE",
     "methods[0].occlusion.window"),
    ("a stride of zero", lambda s: occlusion(s, window=[2], stride=[0]), INVALID, "OUT_OF_RANGE",
     "methods[0].occlusion.stride"),
    ("baseline volumes that are not declared", lambda s: occlusion(s, fill=CLIENT_BASELINE), INVALID,
     "BASELINE_TENSORS_MISSING", "methods[0].occlusion.fill.client"),
    ("a background case that nobody has", lambda s: occlusion(s, fill=BACKGROUND_BASELINE), INVALID,
     "BACKGROUND_CASE_MISSING", "methods[0].occlusion.fill.background.case_index"),
    ("labels that are not declared",
     lambda s: method(s).feature_ablation.grouping.label_map.SetInParent(), INVALID, "LABEL_TENSORS_MISSING",
     "methods[0].feature_ablation.grouping.label_map"),
    ("no donors", lambda s: method(s).feature_permutation.SetInParent(), UNSUPPORTED, "NO_DONORS", "methods[0]"),
    ("an unknown class", lambda s: setattr(s.target.class_ref, "name", "mela"), INVALID, "UNKNOWN_CLASS",
     "target.class_ref.name"),
    ("a class index out of range", lambda s: setattr(s.target.class_ref, "index", 2), INVALID, "UNKNOWN_CLASS",
     "target.class_ref.index"),
    ("a scalar of a classifier", lambda s: s.target.scalar.SetInParent(), INVALID, "SCALAR_ON_CLASSES", "target.scalar"),
    ("a missing modality", lambda s: s.tensors.pop(), INVALID, "MODALITY_MISSING", "tensors"),
    ("a doubled modality", lambda s: setattr(s.tensors[1], "modality", "t1"), INVALID, "MODALITY_DUPLICATED",
     "tensors[1].modality"),
    ("an extra modality", lambda s: s.tensors.extend(extra("flair")), INVALID, "MODALITY_UNKNOWN", "tensors[2].modality"),
    ("a misnamed modality", lambda s: setattr(s.tensors[0], "modality", "T1"), INVALID, "MODALITY_UNKNOWN",
     "tensors[0].modality"),
    ("a doubled tensor id", lambda s: setattr(s.tensors[1], "id", "t1"), INVALID, "TENSOR_ID_DUPLICATED", "tensors[1].id"),
    ("a bad tensor id", lambda s: setattr(s.tensors[1], "id", "a/b"), INVALID, "TENSOR_ID_INVALID", "tensors[1].id"),
    ("no role", lambda s: s.tensors[1].ClearField("role"), INVALID, "ROLE_INVALID", "tensors[1].role"),
    ("a wrong type", lambda s: setattr(s.tensors[1], "data_type", tensor_pb2.DATA_TYPE_INT32), INVALID, "DTYPE_MISMATCH",
     "tensors[1].data_type"),
    ("a wrong rank", lambda s: s.tensors[1].shape.pop(), INVALID, "RANK_MISMATCH", "tensors[1].shape"),
    ("a wrong shape", lambda s: s.tensors[0].shape.__setitem__(0, 7), INVALID, "SHAPE_MISMATCH", "tensors[0].shape"),
    ("an empty axis", lambda s: s.tensors[0].shape.__setitem__(0, 0), INVALID, "SHAPE_INVALID", "tensors[0].shape"),
    ("an affine of 12 numbers", lambda s: s.tensors[0].affine.__delitem__(slice(12, 16)), INVALID, "AFFINE_INVALID",
     "tensors[0].affine"),
    ("channels on different grids", lambda s: s.tensors[1].affine.__setitem__(3, 0.02), INVALID, "GRID_MISMATCH",
     "tensors[1].affine"),
    ("a budget of zero", lambda s: setattr(s.budget, "max_evaluations", 0), INVALID, "BUDGET_INVALID",
     "budget.max_evaluations"),
    ("a target error of zero", lambda s: setattr(s.budget, "target_standard_error", 0.0), INVALID, "BUDGET_INVALID",
     "budget.target_standard_error"),
    ("a NaN target error", lambda s: setattr(s.budget, "target_standard_error", math.nan), INVALID, "BUDGET_INVALID",
     "budget.target_standard_error"),
    ("a negative deadline", lambda s: setattr(s.budget.soft_deadline, "seconds", -1), INVALID, "DURATION_INVALID",
     "budget.soft_deadline"),
    ("a snapshot interval of zero", lambda s: s.snapshot_interval.SetInParent(), INVALID, "DURATION_INVALID",
     "snapshot_interval"),
    ("a long request id", lambda s: setattr(s, "request_id", "x" * 129), INVALID, "REQUEST_ID_TOO_LONG", "request_id"),
    ("a large checkpoint", lambda s: setattr(s, "checkpoint", bytes(3 << 20)), EXHAUSTED, "CHECKPOINT_TOO_LARGE",
     "checkpoint"),
    ("an unknown grid", lambda s: setattr(s, "grid", 77), INVALID, "UNKNOWN_ENUM_VALUE", "grid"),
    ("a strange engine", lambda s: setattr(s.execution, "engine", "a b"), INVALID, "ENGINE_INVALID", "execution.engine"),
    ("too many tensors", lambda s: s.tensors.extend(extra("t1") * 300), EXHAUSTED, "TOO_MANY_TENSORS", "tensors"),
]  # fmt: skip


def extra(modality: str) -> list[tensor_pb2.Tensor]:
    header = tensors()[0]
    header.id, header.modality = "extra", modality
    return [header]


@pytest.mark.parametrize(("change", "code", "reason", "field"), [row[1:] for row in SPECS], ids=[row[0] for row in SPECS])
async def test_a_wrong_spec_is_refused_before_anything_is_reserved(
    change: Change, code: grpc.StatusCode, reason: str, field: str
) -> None:
    spec = good_spec()
    change(spec)
    async with running_front() as front:
        refused = await front.refusal(spec)
        assert (refused.code, refused.reason, refused.fields) == (code, reason, [field])
        assert refused.message
        assert front.metrics.registry.get_sample_value("voxplain_refused_calls_total", {"reason": reason}) == 1
        assert "call_started" not in front.log.getvalue()
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


def views(*, checksum: bool = True) -> dict[str, list[tensor_pb2.TensorChunk]]:
    """Chunks of a good case as messages that a test can spoil."""
    found = {}
    for key, data in payload().items():
        encoded = wire.encode_chunks(key, data, chunk_bytes=100, with_checksum=checksum)
        found[key] = [explain_pb2.ExplainRequest.FromString(each).chunk for each in encoded]
    return found


def spoiled(how: str) -> list[tensor_pb2.TensorChunk]:
    first, second = views(checksum=how == "flip")["t1"], views()["t1c"]
    last = second[-1]
    match how:
        case "gap":
            del second[1]
        case "overlap":
            second[1].offset_bytes = 50
        case "overrun":
            last.data += b"more"
        case "overrun by offset":
            last.offset_bytes = VOLUME_BYTES
        case "after the end":
            first.append(tensor_pb2.TensorChunk(tensor_id="t1", offset_bytes=VOLUME_BYTES, data=b"x"))
        case "unknown":
            second[0].tensor_id = "t2"
        case "empty":
            second[0].ClearField("data")
        case "flip":
            second[2].data = bytes(100)
    return [*first, *second]


@pytest.mark.parametrize(
    ("how", "code", "reason", "field"),
    [
        ("gap", INVALID, "CHUNK_GAP", "tensors[1]"),
        ("overlap", INVALID, "CHUNK_OVERLAP", "tensors[1]"),
        ("overrun", INVALID, "CHUNK_OVERRUN", "tensors[1]"),
        ("overrun by offset", INVALID, "CHUNK_GAP", "tensors[1]"),
        ("after the end", INVALID, "CHUNK_AFTER_END", "tensors[0]"),
        ("unknown", INVALID, "CHUNK_UNKNOWN_TENSOR", "chunk.tensor_id"),
        ("empty", INVALID, "CHUNK_EMPTY", "tensors[1]"),
        ("flip", grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH", "tensors[1]"),
    ],
)
async def test_the_first_offending_chunk_ends_the_call(how: str, code: grpc.StatusCode, reason: str, field: str) -> None:
    messages = [explain_pb2.ExplainRequest(chunk=each).SerializeToString() for each in spoiled(how)]
    if how == "overrun":
        chunk = spoiled(how)[-1]
        chunk.ClearField("crc32c")
        messages[-1] = explain_pb2.ExplainRequest(chunk=chunk).SerializeToString()
    async with running_front() as front:
        refused = await front.refusal(messages=messages)
        assert (refused.code, refused.reason, refused.fields) == (code, reason, [field])
        assert front.runner.jobs == []
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


async def test_a_chunk_above_the_limit_is_refused() -> None:
    spec = good_spec()
    spec.model = "wide"
    shape = (128, 128, 32)
    del spec.tensors[:]
    spec.tensors.extend(tensors(shape))
    chunk = tensor_pb2.TensorChunk(tensor_id="t1", data=bytes((1 << 20) + 1))
    async with running_front() as front:
        refused = await front.refusal(spec, [explain_pb2.ExplainRequest(chunk=chunk).SerializeToString()])
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "CHUNK_TOO_LARGE", ["tensors[0]"])


async def test_a_stream_that_closes_early_names_the_tensor_that_lacks_bytes() -> None:
    messages = [each for each in case_messages() if b"t1c" in each]
    async with running_front() as front:
        refused = await front.refusal(messages=messages, close=True)
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "STREAM_CLOSED_EARLY", ["tensors[0]"])
        assert front.runner.jobs == []


async def test_a_stream_that_closes_without_a_spec_is_refused() -> None:
    async with running_front() as front:
        refused = await front.refusal_of([], close=True)
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "SPEC_MISSING", ["spec"])


async def test_a_chunk_before_the_spec_is_refused() -> None:
    async with running_front() as front:
        refused = await front.refusal_of(case_messages()[:1])
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "SPEC_MISSING", ["spec"])


@pytest.mark.parametrize("place", [1, 3])
async def test_a_second_spec_is_refused(place: int) -> None:
    messages = [spec_message(good_spec()), *case_messages()[:4]]
    messages.insert(place, messages[0])
    async with running_front() as front:
        refused = await front.refusal_of(messages)
        assert (refused.code, refused.reason, refused.fields) == (INVALID, "SPEC_TWICE", ["spec"])


@pytest.mark.parametrize("late", [case_messages()[0], spec_message(good_spec()), b"\xff\xff"])
async def test_what_comes_after_the_last_byte_stops_the_compute(late: bytes) -> None:
    async with running_front(compute_for_ever) as front:
        refused = await front.refusal(messages=[*case_messages(), late])
        assert refused.code is INVALID
        assert refused.reason in ("CHUNK_AFTER_END", "SPEC_TWICE", "MALFORMED_MESSAGE")
        assert front.runner.closed == 1


@pytest.mark.parametrize(("message", "reason"), [(b"\xff\xff\xff", "MALFORMED_MESSAGE"), (b"", "EMPTY_MESSAGE")])
async def test_messages_that_are_none_are_refused(message: bytes, reason: str) -> None:
    async with running_front() as front:
        assert (await front.refusal_of([message])).reason == reason
        assert (await front.refusal(messages=[message])).reason == reason


async def test_a_message_above_grpcs_limit_is_refused_and_the_server_goes_on() -> None:
    spec = good_spec()
    spec.checkpoint = bytes(5 << 20)
    async with running_front() as front:
        assert (await front.refusal(spec)).code is EXHAUSTED
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


async def test_a_spec_that_does_not_come_is_not_waited_for() -> None:
    async with running_front(limits=Limits(first_message_seconds=0.2)) as front:
        refused = await front.refusal_of([])
        assert (refused.code, refused.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "FIRST_MESSAGE_LATE")


async def test_an_upload_below_the_minimum_rate_is_ended() -> None:
    limits = Limits(upload_grace_seconds=0.3, min_upload_bytes_per_second=1e6)
    async with running_front(limits=limits) as front:
        refused = await front.refusal(messages=case_messages()[:3])
        assert (refused.code, refused.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "UPLOAD_TOO_SLOW")
        assert front.runner.jobs == []


async def test_a_storm_of_tiny_chunks_is_ended() -> None:
    async with running_front(limits=Limits(max_chunks=5)) as front:
        refused = await front.refusal(messages=case_messages(chunk_bytes=10))
        assert (refused.code, refused.reason) == (EXHAUSTED, "TOO_MANY_CHUNKS")


async def test_declared_bytes_over_the_limit_are_refused_on_the_spec() -> None:
    async with running_front(limits=Limits(max_declared_bytes=VOLUME_BYTES + 1)) as front:
        refused = await front.refusal()
        assert (refused.code, refused.reason, refused.fields) == (EXHAUSTED, "DECLARED_BYTES_EXCEEDED", ["tensors[1].shape"])
        assert refused.retry_s is None


async def test_a_call_that_never_fits_is_refused_without_a_retry() -> None:
    async with running_front(max_bytes=1000) as front:
        refused = await front.refusal()
        assert (refused.code, refused.reason, refused.retry_s) == (EXHAUSTED, "CALL_TOO_LARGE", None)


async def test_a_call_that_finds_no_slot_is_told_when_to_try_again() -> None:
    async with running_front(compute_for_ever, workers=1, queue_length=0) as front:
        call = front.open()
        for message in [spec_message(good_spec()), *case_messages()]:
            await call.write(message)
        await asyncio.wait_for(front.runner.running.wait(), 10)
        refused = await front.refusal()
        assert (refused.code, refused.reason) == (EXHAUSTED, "QUEUE_FULL")
        assert refused.retry_s == 5.0
        labels = {"reason": "QUEUE_FULL"}
        assert front.metrics.registry.get_sample_value("voxplain_admission_rejections_total", labels) == 1
        async with asyncio.timeout(10):
            # Counted when the status is out, of which the client may know first.
            while front.metrics.registry.get_sample_value("voxplain_refusal_seconds_count") != 1:
                await asyncio.sleep(0.01)
        call.cancel()


async def test_a_call_that_finds_no_memory_is_told_when_to_try_again() -> None:
    async with running_front(compute_for_ever, max_bytes=4000) as front:
        call = front.open()
        await call.write(spec_message(good_spec()))
        assert await call.read()
        refused = await front.refusal()
        assert (refused.code, refused.reason, refused.retry_s) == (EXHAUSTED, "MEMORY_EXHAUSTED", 5.0)
        call.cancel()


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
    method(spec).feature_ablation.grouping.CopyFrom(grouping)
    found.append(("grouping_modality", spec, []))
    spec = good_spec()
    method(spec).grad_cam.layers.append(MARK)
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


async def test_random_messages_never_harm_the_server() -> None:
    rng = np.random.default_rng(7)
    good = [spec_message(good_spec()), *case_messages()]
    async with running_front() as front:
        for _ in range(30):
            messages = list(good)
            place = int(rng.integers(len(messages)))
            spoilt = bytearray(messages[place])
            for _ in range(int(rng.integers(1, 4))):
                spoilt[int(rng.integers(len(spoilt)))] = int(rng.integers(256))
            messages[place] = bytes(spoilt)
            ended = await front.refusal_of(messages, close=True)
            assert ended.code is not grpc.StatusCode.INTERNAL
            assert ended.code is not grpc.StatusCode.UNKNOWN
        assert (await front.explain())[-1].WhichOneof("event") == "summary"


async def test_a_message_that_declares_a_gigabyte_and_drips_is_not_waited_for() -> None:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/voxplain.v1.ExplainService/Explain",
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    head = b"".join(
        b"\x00" + bytes([len(each)]) + each.encode() if number % 2 == 0 else bytes([len(each)]) + each.encode()
        for pair in fields.items()
        for number, each in enumerate(pair)
    )

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    declared = b"\x00" + (1 << 30).to_bytes(4, "big") + b"drip"
    async with running_front() as front, asyncio.timeout(10):
        host, port = front.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        writer.write(frame(1, 4, 1, head) + frame(0, 0, 1, declared))
        ended = False
        while not ended:
            header = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(header[:3], "big"))
            stream = int.from_bytes(header[5:], "big")
            ended = stream == 1 and (header[3] == 3 or (header[3] == 1 and bool(header[4] & 1)))
        writer.close()
        await writer.wait_closed()
        assert (await front.explain())[-1].WhichOneof("event") == "summary"
