"""The tiny early-fusion classifier written out: convolution, ReLU, convolution, ReLU, mean over space, one linear layer.

Every layer forward, and its adjoint for the way back, so that the rules of the papers can be written out in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from tests.server.engines.tiny_models import TinyModel


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """All activations of one case, (1, channels, *spatial)."""

    image: Tensor
    before_first: Tensor
    first: Tensor
    before_second: Tensor
    second: Tensor
    score: float


class ByHand:
    """The network of `tests.bundles.early_fusion_classes`, with class weights folded into one row."""

    def __init__(self, tiny: TinyModel) -> None:
        weights = [torch.from_numpy(numpy_helper.to_array(each).copy()).double() for each in tiny.proto.graph.initializer]
        self.kernel1, self.bias1, self.kernel2, self.bias2, matrix, offset = weights
        self.row = torch.stack([weight * matrix[index] for index, weight in tiny.score.weights]).sum(dim=0)
        self.offset = float(sum(weight * offset[index] for index, weight in tiny.score.weights))
        assert [node.op_type for node in tiny.proto.graph.node][:4] == ["Conv", "Relu", "Conv", "Relu"]
        self.image = torch.from_numpy(np.stack(tiny.case.volumes))[None].double()

    def forward(self, image: Tensor) -> Forward:
        before_first = functional.conv3d(image, self.kernel1, self.bias1, padding=1)
        first = before_first.clamp(min=0)
        before_second = functional.conv3d(first, self.kernel2, self.bias2, padding=1)
        second = before_second.clamp(min=0)
        score = float((second.mean(dim=(2, 3, 4))[0] * self.row).sum()) + self.offset
        return Forward(image, before_first, first, before_second, second, score)

    def behind_second(self, forward: Forward) -> Tensor:
        """dscore / d second: linear from there."""
        voxels = forward.second[0, 0].numel()
        return (self.row / voxels)[None, :, None, None, None].expand_as(forward.second)

    def back_through_second(self, gradient: Tensor) -> Tensor:
        return functional.conv_transpose3d(gradient, self.kernel2, padding=1)

    def back_through_first(self, gradient: Tensor) -> Tensor:
        return functional.conv_transpose3d(gradient, self.kernel1, padding=1)


def modalities(image: Tensor) -> list[np.ndarray]:
    """(1, modalities, *spatial) as one map for each modality."""
    return [volume.numpy() for volume in image[0]]


def nodes(model: onnx.ModelProto, operator: str) -> list[str]:
    """Outputs of all nodes of an operator."""
    return [node.output[0] for node in model.graph.node if node.op_type == operator]
