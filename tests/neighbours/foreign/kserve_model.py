"""KServe's ModelServer with a custom model that runs an ONNX file. Its one JSON argument: file, grpc_port, http_port."""

from __future__ import annotations

import json
import sys
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Net(Model):  # type: ignore[misc]
    """One ONNX file; it tells nothing of its shapes, as custom models do by default."""

    def __init__(self, file: str) -> None:
        super().__init__("net")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Run it."""
        names = [value.name for value in self._session.get_outputs()]
        answers = self._session.run(names, {each.name: each.as_numpy() for each in payload.inputs})
        outputs = []
        for name, answer in zip(names, answers, strict=True):
            output = InferOutput(name=name, shape=list(answer.shape), datatype="FP32")
            output.set_data_from_numpy(answer, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    ModelServer(http_port=told["http_port"], grpc_port=told["grpc_port"], workers=1).start([Net(told["file"])])
