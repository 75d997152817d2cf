"""A small server of the Open Inference Protocol, by ONNX Runtime, that can be made to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from voxplain.inference import open_inference_pb2 as oip
from voxplain.inference import open_inference_pb2_grpc

SECRET = "patient Miller, /srv/weights"
"""What the server says with every fault: none of it may be told further."""
_KINDS = {"FP32": np.float32, "FP16": np.float16}


@dataclass
class InferenceServer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers for one ONNX file.

    Attributes:
        model_file: the file.
        prefix: put before the names of its tensors.
        tells: whether it tells the shapes of the model.
        typed: answers by typed contents, not raw bytes.
        version: of the model, as its answers tell it.
        fail_every: every so many requests fail UNAVAILABLE; 0: none does.
        fail_after: requests after which every one fails; None: none does.
        code: of failures.
        delay_s: before each answer.
        batches: rows of every request that was answered.
        most_at_once: requests that were under way together.
    """

    model_file: Path
    prefix: str = ""
    tells: bool = True
    typed: bool = False
    version: str = "3"
    fail_every: int = 0
    fail_after: int | None = None
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    delay_s: float = 0.0
    batches: list[int] = field(default_factory=list)
    most_at_once: int = 0
    requests: int = 0

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(self.model_file), options, providers=["CPUExecutionProvider"])
        self._lock = threading.Lock()
        self._now = 0

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> oip.ServerLiveResponse:  # noqa: N802
        """It lives."""
        return oip.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> oip.ServerReadyResponse:  # noqa: N802
        """It is ready."""
        return oip.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> oip.ModelReadyResponse:  # noqa: N802
        """So is the model."""
        return oip.ModelReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> oip.ServerMetadataResponse:  # noqa: N802
        """Its name."""
        return oip.ServerMetadataResponse(name="test")

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> oip.ModelMetadataResponse:  # noqa: N802
        """As the file has it."""
        if request.name != "net":
            context.abort(grpc.StatusCode.NOT_FOUND, SECRET)
        told = oip.ModelMetadataResponse(name="net", versions=[self.version], platform="onnxruntime_onnx")
        if self.tells:
            for side, values in ((told.inputs, self._session.get_inputs()), (told.outputs, self._session.get_outputs())):
                for value in values:
                    shape = [size if isinstance(size, int) else -1 for size in value.shape]
                    side.add(name=self.prefix + value.name, datatype="FP32", shape=shape)
        return told

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> oip.ModelInferResponse:  # noqa: N802
        """Run it, or fail as asked."""
        with self._lock:
            self.requests += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            fails = bool(self.fail_every) and self.requests % self.fail_every == 0
            fails = fails or (self.fail_after is not None and self.requests > self.fail_after)
        try:
            time.sleep(self.delay_s)
            if fails:
                context.abort(self.code, SECRET)
            return self._answer(request)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, request: Any) -> oip.ModelInferResponse:
        feeds = {
            tensor.name.removeprefix(self.prefix): np.frombuffer(raw, _KINDS[tensor.datatype]).reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        self.batches.append(int(request.inputs[0].shape[0]))
        response = oip.ModelInferResponse(model_name="net", model_version=self.version)
        names = [value.name for value in self._session.get_outputs()]
        for name, array in zip(names, self._session.run(names, feeds), strict=True):
            tensor = response.outputs.add(name=self.prefix + name, datatype="FP32", shape=array.shape)
            if self.typed:
                tensor.contents.fp32_contents.extend(array.ravel().tolist())
            else:
                response.raw_output_contents.append(array.astype("<f4").tobytes())
        return response


@contextmanager
def serving(server: InferenceServer, *, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Serve on a free port of this host; gives the endpoint as bundles name it."""
    running = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(server, running)
    if credentials is None:
        port = running.add_insecure_port("127.0.0.1:0")
    else:
        port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    try:
        yield f"grpc://127.0.0.1:{port}" if credentials is None else f"grpcs://localhost:{port}"
    finally:
        running.stop(0).wait()
