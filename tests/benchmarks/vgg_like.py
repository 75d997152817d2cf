"""The network and the case of the headline figures: VGG-like, 4 modalities of 128^3, 40 % of the voxels non-zero.

The layout is that of the glioma classifier of Jin, Li, Fatehi, Hamarneh, MethodsX 2023, doi 10.1016/j.mex.2023.102009.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

MODALITIES = ("t1", "t1c", "t2", "flair")
CLASSES = ("low-grade", "high-grade")
STAGES = ((16,), (32, 32), (64, 64), (128, 128), (128, 128), (128, 128))
"""Channels of the 3x3x3 convolutions of each stage; a max pooling follows each. 46.3 GFLOP for 4 x 128^3."""
HIDDEN = 4096


def network(seed: int = 0, edge: int = 128) -> nn.Sequential:
    """The net for volumes of one edge, in evaluation mode, with seeded weights and every ReLU a module of its own.

    Weights are drawn as He et al. 2015 do (doi 10.1109/ICCV.2015.123): eleven convolutions of PyTorch's own draws would let
    no voxel reach the answer. Small volumes are pooled until one voxel is left.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = len(MODALITIES)
    for stage in STAGES:
        for width in stage:
            layers += [nn.Conv3d(channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU()]
            channels = width
        if edge > 1:
            layers.append(nn.MaxPool3d(2))
            edge //= 2
    layers += [nn.Flatten(), nn.Linear(channels * edge**3, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(CLASSES))]
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    net.eval()
    return net


def write_bundle(models: Path, edge: int = 128) -> Path:
    """Export the net as `models/vgg-like/1` and return that folder."""
    folder = models / "vgg-like" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(1, len(MODALITIES), edge, edge, edge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(edge=edge),
            (example,),
            str(folder / "model.onnx"),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
        )
    (folder / "metadata.json").write_text(json.dumps(metadata(edge)))
    return folder


def metadata(edge: int) -> dict[str, object]:
    """What metadata.json of the bundle holds."""
    return {
        "version": "1",
        "description": "VGG-like benchmark network with seeded random weights",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "num_channels": len(MODALITIES),
                    "spatial_shape": [edge] * 3,
                    "is_patch_data": False,
                    "channel_def": {str(index): name for index, name in enumerate(MODALITIES)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "num_channels": len(CLASSES),
                    "channel_def": {str(index): name for index, name in enumerate(CLASSES)},
                }
            },
        },
    }


def case(edge: int = 128, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Four volumes of noise inside an ellipsoid that fills about 40 % of the grid; zero outside."""
    draws = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, edge)
    distance = (axis[:, None, None] / 0.95) ** 2 + (axis[None, :, None] / 0.98) ** 2 + (axis[None, None, :] / 0.84) ** 2
    inside = distance < 1
    return {name: np.where(inside, draws.standard_normal((edge,) * 3), 0).astype(np.float32) for name in MODALITIES}
