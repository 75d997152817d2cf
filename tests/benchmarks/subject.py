"""A network and a case for it, as our server and as Captum see them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tests.benchmarks import vgg_like

CLASS_INDEX = 1
Volumes = dict[str, npt.NDArray[np.float32]]


class Scored(nn.Module):
    """A network's score for one class, (batch,): an element of its answer, or the mean over a region of a segmentation."""

    def __init__(self, network: nn.Module, region: Tensor | None) -> None:
        super().__init__()
        self.network, self.region = network, region

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.network(*inputs)[:, CLASS_INDEX]
        return answer if self.region is None else answer[:, self.region].mean(1)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explained.

    Attributes:
        name: of the bundle.
        build: the network for volumes of one edge, in evaluation mode, always with the same weights.
        modalities: names.
        late: one input for each modality; else they are the channels of one.
        segmentation: it answers on the grid of its input.
    """

    name: str
    build: Callable[[int], nn.Module]
    modalities: tuple[str, ...] = vgg_like.MODALITIES
    late: bool = False
    segmentation: bool = False

    def volumes(self, edge: int) -> Volumes:
        """The case."""
        return {name: volume for name, volume in vgg_like.case(edge).items() if name in self.modalities}

    def region(self, edge: int) -> npt.NDArray[np.bool_] | None:
        """The voxels whose score is explained; None where there is one score."""
        if not self.segmentation:
            return None
        inside = np.zeros((edge,) * 3, np.bool_)
        inside[(slice(3 * edge // 8, 5 * edge // 8),) * 3] = True
        return inside

    def inputs(self, volumes: Volumes) -> tuple[Tensor, ...]:
        """A case as the network takes it, the batch axis of 1 included."""
        stacked = np.stack([volumes[name] for name in self.modalities])
        return (
            tuple(torch.from_numpy(each)[None, None] for each in stacked) if self.late else (torch.from_numpy(stacked)[None],)
        )

    def by_modality(self, maps: tuple[Tensor, ...]) -> npt.NDArray[np.float32]:
        """What belongs to the inputs, as (modalities, *spatial)."""
        found: npt.NDArray[np.float32] = torch.cat([each.detach() for each in maps], dim=1)[0].float().numpy()
        return found

    def scored(self, edge: int) -> Scored:
        """The network as Captum takes it."""
        region = self.region(edge)
        return Scored(self.build(edge), None if region is None else torch.from_numpy(region))

    def write_bundle(self, models: Path, edge: int) -> Path:
        """Export the network as `models/<name>/1` and return that folder."""
        folder = models / self.name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        given = self.inputs({name: np.zeros((edge,) * 3, np.float32) for name in self.modalities})
        names = [f"image{number}" for number in range(len(given))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.build(edge),
                given,
                str(folder / "model.onnx"),
                input_names=names,
                output_names=["logits"],
                dynamic_axes={name: {0: "batch"} for name in (*names, "logits")},
                dynamo=False,
            )
        (folder / "metadata.json").write_text(json.dumps(self._metadata(names, edge)))
        return folder

    def _metadata(self, names: list[str], edge: int) -> dict[str, Any]:
        groups = [[name] for name in self.modalities] if self.late else [list(self.modalities)]
        classes = {str(number): name for number, name in enumerate(vgg_like.CLASSES)}
        answer = {"type": "image", "format": "segmentation"} if self.segmentation else {"type": "probabilities"}
        inputs = {
            name: {
                "type": "image",
                "num_channels": len(group),
                "spatial_shape": [edge] * 3,
                "is_patch_data": False,
                "channel_def": {str(number): modality for number, modality in enumerate(group)},
            }
            for name, group in zip(names, groups, strict=True)
        }
        outputs = {"pred": {**answer, "num_channels": len(classes), "channel_def": classes}}
        return {
            "version": "1",
            "description": "benchmark network with seeded random weights",
            "network_data_format": {"inputs": inputs, "outputs": outputs},
        }
