"""Gradients of the twin by torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from voxplain_server.engines.gradient_pass import GradientPass
from voxplain_server.engines.input_assembly import assemble_tensors
from voxplain_server.engines.memory_format import channels_last
from voxplain_server.engines.packed_twin import install_packed
from voxplain_server.engines.ruled_relu import RuleSwitch, install_rules
from voxplain_server.engines.scored_twin import ScoredTwin
from voxplain_server.engines.stem_convolution import install_stems
from voxplain_server.models.model import Model
from voxplain_server.models.score import Score

ONNX_VALUES = "onnx_values"
"""Key of GraphModule.meta: ONNX value name -> name of the fx node that makes it."""


class TorchEngine:
    """Differentiates the twin (a Differentiable).

    Args:
        twin: takes the model's inputs in the graph's order and gives OutputSpec.score_name; it is moved, not copied.
        model: the bundle's description.
        device: "cpu", "cuda" or a torch device.
        dtype: what it computes in.
        threads: compute threads of this whole process; None leaves them.
    """

    def __init__(
        self,
        twin: fx.GraphModule,
        model: Model,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        threads: int | None = None,
    ) -> None:
        self._model = model
        self._device = torch.device(device)
        self._dtype = dtype
        self._twin = placed_twin(twin, device=self._device, dtype=dtype, threads=threads)
        self._switch = RuleSwitch()
        install_rules(self._twin, self._switch)
        install_packed(self._twin)
        self._stems = install_stems(self._twin)

    @property
    def name(self) -> str:
        """Stands in records: "torch-cpu" or "torch-cuda"."""
        return f"torch-{self._device.type}"

    @property
    def batched(self) -> bool:
        """Whether several cases may be stacked on axis 0."""
        return self._model.batched

    def scored(self, score: Score) -> nn.Module:
        """From volumes (batch, *spatial) to the score (batch,) float64. All scores share one twin."""
        return ScoredTwin(self._twin, self._model, score).to(self._device)

    def forward_pass(
        self, score: Score, volumes: Sequence[torch.Tensor], *, layers: Sequence[nn.Module] = (), from_layers: bool = False
    ) -> GradientPass:
        """Compute the score of one point so that it can be differentiated: see GradientPass."""
        return GradientPass(self.scored(score), self._switch, volumes, layers=layers, from_layers=from_layers)

    def stems(self) -> tuple[nn.Module, ...]:
        """The convolutions through which all volumes pass, one for each input; none where some volume goes another way.

        They are linear, so gradients at many points can be summed at their outputs and brought to the volumes once.
        """
        return tuple(self._stems.values()) if len(self._stems) == len(self._model.inputs) else ()

    def through_stems(self, gradients: Sequence[torch.Tensor], volumes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Bring gradients at the outputs of all stems to the volumes.

        Args:
            gradients: one for each stem.
            volumes: (1, *spatial) for each modality; only their shapes count.

        Returns:
            (1, *spatial) for each modality.
        """
        point = tuple(volume.detach().clone().requires_grad_() for volume in volumes)
        with torch.enable_grad():
            inputs = [channels_last(tensor) for tensor in assemble_tensors(self._model, point)]
            outputs = [stem(given) for stem, given in zip(self._stems.values(), inputs, strict=True)]
        return torch.autograd.grad(outputs, point, grad_outputs=list(gradients))

    def tensors(self, volumes: Sequence[npt.NDArray[np.float32]]) -> tuple[torch.Tensor, ...]:
        """Copies of volumes, (1, *spatial) each, on the engine's device and in its precision."""
        return tuple(torch.tensor(volume, device=self._device, dtype=self._dtype)[None] for volume in volumes)

    def layer(self, score: Score, value_name: str) -> nn.Module:
        """The submodule of `scored(score)` that makes an ONNX value. Raises KeyError for a value that no module makes."""
        node = self._node(value_name)
        if node.op != "call_module":
            raise KeyError(value_name)
        return self._twin.get_submodule(str(node.target))

    def modalities_of(self, value_name: str) -> tuple[int, ...]:
        """Indices of the modalities that an ONNX value depends on. Raises KeyError for an unknown one."""
        reached, waiting = set[fx.Node](), [self._node(value_name)]
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.add(node)
                waiting.extend(node.all_input_nodes)
        placeholders = [node for node in self._twin.graph.nodes if node.op == "placeholder"]
        names = {
            name
            for placeholder, spec in zip(placeholders, self._model.inputs, strict=True)
            if placeholder in reached
            for name in spec.modalities
        }
        return tuple(index for index, name in enumerate(self._model.modality_names) if name in names)

    def _node(self, value_name: str) -> fx.Node:
        name = self._twin.meta[ONNX_VALUES][value_name]
        found: fx.Node = next(node for node in self._twin.graph.nodes if node.name == name)
        return found


def placed_twin(twin: fx.GraphModule, *, device: torch.device, dtype: torch.dtype, threads: int | None) -> fx.GraphModule:
    """Bring a twin to where and in what it computes, in channels-last memory, in inference mode, without weight gradients."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # TF32 rounds products to 10 bits, which is more than a perturbation moves.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    twin = twin.to(device=device, dtype=dtype).eval().requires_grad_(False)
    for parameter in twin.parameters():
        if parameter.ndim in (4, 5):
            memory = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=memory)
    return twin
