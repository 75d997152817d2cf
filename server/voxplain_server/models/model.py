"""What a bundle says about one model: a description that holds no session and no weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from voxplain_server.models.remote_model import RemoteModel


class OutputKind(Enum):
    """What a model answers."""

    CLASSES = "classes"
    """One score for each class: (batch, classes)."""
    SIGMOID = "sigmoid"
    """One output; class 1 is its logit, class 0 the negative."""
    SCALAR = "scalar"
    """One number with no class."""
    SEGMENTATION = "segmentation"
    """One score for each class and voxel: (batch, classes, *spatial)."""


class Activation(Enum):
    """What the graph does last; scores are taken before it."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"
    """The output itself is a logit (classes, one sigmoid output without its sigmoid) or a scalar."""
    UNKNOWN = "unknown"
    """The metadata says probabilities, but the graph shows no final softmax or sigmoid: scores stay raw."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What may be done to a volume so that it meets the model's grid. All False: it must meet it as it is."""

    resample: bool = False
    """Linear resampling to the stated spacing."""
    resize: bool = False
    """Linear resampling to the stated shape, whatever the spacing."""
    crop: bool = False
    """Cut evenly at both ends of an axis."""
    pad: bool = False
    """Zeros evenly at both ends of an axis."""


@dataclass(frozen=True, slots=True)
class ModalitySpec:
    """One modality, as a client sends it and as the model reads it.

    Attributes:
        name: what Tensor.modality holds.
        input_name: the ONNX input that it feeds.
        channel: index of its channel in that input before repetition (early fusion), 0 otherwise.
        shape: voxels along each spatial axis on the model's grid, None where any size is read.
        orientation: axis codes of the model's grid, for example "RAS"; None: not stated.
        spacing_mm: spacing of the model's grid; None: not stated.
        spacing_tolerance: allowed relative difference of a spacing.
        fit: what may be done to a volume.
        normalisation: "none" or "nonzero-zscore" (mean and standard deviation of the case's own non-zero voxels;
            zero voxels stay zero).
        multiples: where an axis of `shape` is None, its size must be a multiple of this; empty: of 1.
    """

    name: str
    input_name: str
    channel: int
    shape: tuple[int | None, ...]
    orientation: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    spacing_tolerance: float = 0.01
    fit: Fit = field(default_factory=Fit)
    normalisation: str = "none"
    multiples: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One ONNX input and how volumes are laid out in it.

    The tensor is built from the volumes of `modalities`, each of shape (*spatial):
    without a slice axis: (batch, channels, *spatial); with one: (batch, slices, channels, *plane), or, where
    `batch_is_slices`, (slices, channels, *plane) for a graph whose first axis is used up by slices. `repeat` copies one
    modality into that many channels.

    Attributes:
        name: the ONNX input.
        modalities: names in the order of channels.
        slice_axis: axis of the volume that becomes slices; None: there are none.
        repeat: channels that each modality is copied into (3 for nets made for colour pictures).
        batch_is_slices: True: the tensor has no batch axis besides the slices.
        dtype: "float32" or "float16", the element type of the ONNX input.
    """

    name: str
    modalities: tuple[str, ...]
    slice_axis: int | None = None
    repeat: int = 1
    batch_is_slices: bool = False
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the model answers and where the score is read.

    Attributes:
        name: the ONNX output.
        score_name: the ONNX value whose numbers are the scores: the input of a final softmax or sigmoid, else the output.
        kind: what it is.
        activation: what turns the value at `score_name` into probabilities: found in the graph behind it, or stated by the
            bundle for a graph that ends in logits.
        classes: names by index; two for one sigmoid output; empty for a scalar.
        decision_threshold: probability above which the bundle decides for the class.
        has_batch_axis: whether axis 0 of the value at `score_name` is a batch (a squeezed output has none).
    """

    name: str
    score_name: str
    kind: OutputKind
    activation: Activation
    classes: tuple[str, ...]
    decision_threshold: float | None = None
    has_batch_axis: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """One version of one model.

    Attributes:
        name, version: how it is asked for.
        folder: the version's folder.
        onnx_path: the ONNX file; of a remote model metadata.json, which is all that lies here.
        digest, metadata_digest: SHA-256 in lower-case hexadecimal; `digest` covers weights kept in files of their own. Of a
            remote model it covers metadata.json and what the remote server tells: the weights may change unseen.
        description: one sentence.
        modalities: in the model's order; the order of every per-modality tuple in the server.
        inputs: the ONNX inputs, in the graph's order.
        output: the explained output.
        batched: whether several cases go through in one pass.
        cam_layers: ONNX values named by the bundle for Grad-CAM; empty: found by rule.
        grouping_modality: on whose volume a shared SLIC is computed.
        background_cases: one mapping from modality to NIfTI file for each case held by the bundle.
        cautions: codes that hold for every call.
        remote: the inference server that holds it; None: it lies here.
    """

    name: str
    version: str
    folder: Path
    onnx_path: Path
    digest: str
    metadata_digest: str
    description: str
    modalities: tuple[ModalitySpec, ...]
    inputs: tuple[InputSpec, ...]
    output: OutputSpec
    batched: bool
    cam_layers: tuple[str, ...] = ()
    grouping_modality: str | None = None
    background_cases: tuple[dict[str, Path], ...] = ()
    cautions: tuple[str, ...] = ()
    remote: RemoteModel | None = None

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names in the model's order."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def late_fusion(self) -> bool:
        """Whether modalities come in by more than one input."""
        return len(self.inputs) > 1
