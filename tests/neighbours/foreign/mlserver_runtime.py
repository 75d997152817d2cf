"""A runtime for MLServer that runs an ONNX file; model-settings.json names it."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Net(MLModel):  # type: ignore[misc]
    """One ONNX file."""

    async def load(self) -> bool:
        """Open it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        names = [value.name for value in self._session.get_outputs()]
        answers = self._session.run(names, {each.name: NumpyCodec.decode_input(each) for each in payload.inputs})
        outputs = [NumpyCodec.encode_output(name, answer) for name, answer in zip(names, answers, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
